//! Every run of a small group with two healers, not some: the loop, its claims and fences under stateright.
//!
//! Members are voters of a group; healers run on members 1 and 2, each with a loop of production, a clock and
//! knowledge of its own, which may be old or wrong. The store of claims and the executor are those that the
//! adapters need: a compare-and-swap, and a check of the fence, the term, the membership index, and of the
//! quorum after the action. The check found that the last one must be made twice: knowledge of a healer is
//! old, and a voter that it believes alive may be dead.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use stateright::{Checker, Model, Property};

use super::*;
use crate::action::{Disruption, Expectation};
use crate::claim::{Claim, ClaimWatch};
use crate::options::Mode;
use crate::plan::{Diagnosis, Plan};

/// A guard that is taken away, to see that the check finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// No claim is asked for.
    Claims,
    /// The store grants a claim whatever it holds.
    Swap,
    /// The executor does not compare the fence with the claim.
    ClaimFence,
    /// The executor does not compare term and membership index.
    PlanFence,
    /// The executor does not ask whether the group can commit after the action.
    ExecutorSafety,
    /// Neither does the loop.
    Safety,
    /// A take-over needs no majority.
    Suspicion,
}

/// What a healer knows.
#[derive(Debug, Clone)]
struct Group {
    id: u8,
    voters: BTreeSet<u8>,
    index: u64,
    term: u64,
    leader: u8,
    suspected: BTreeSet<u8>,
    /// The voters that suspect the leader.
    accusers: usize,
    without: Without,
}

impl Knowledge for Group {
    type Subject = u8;

    fn observe(&mut self, _: Duration, _: &Reading<u8>) -> Result<(), ReadingError> {
        Err(ReadingError::Unknown)
    }

    fn subject_count(&self) -> usize {
        self.voters.len()
    }

    fn unhealthy(&self, _: Duration, each: &mut dyn FnMut(&u8)) {
        self.suspected.iter().for_each(each);
    }
}

/// A change, with the term and membership index on which it was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    kind: &'static str,
    subject: u8,
    term: u64,
    index: u64,
}

impl Action<Group> for Change {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn subject(&self) -> &u8 {
        &self.subject
    }

    fn disruption(&self) -> Disruption {
        Disruption::Irreversible
    }

    fn precondition(&self, group: &Group) -> Result<(), Cow<'static, str>> {
        let is_majority = group.accusers * 2 > group.voters.len() || group.without == Without::Suspicion;
        match self.kind {
            "take-over" if !is_majority => Err("most voters do not suspect the leader".into()),
            _ => Ok(()),
        }
    }

    fn is_safe(&self, group: &Group) -> Result<(), Cow<'static, str>> {
        if self.kind == "take-over" || group.without == Without::Safety {
            return Ok(());
        }
        let after: BTreeSet<u8> =
            group.voters.iter().copied().filter(|voter| *voter != self.subject).collect();
        let healthy = after.difference(&group.suspected).count();
        if healthy * 2 > after.len() { Ok(()) } else { Err("the rest cannot commit".into()) }
    }

    fn badness(&self, group: &Group) -> Option<f64> {
        let is_bad = group.suspected.contains(&self.subject) && group.voters.contains(&self.subject);
        Some(f64::from(u8::from(is_bad)))
    }

    fn expectation(&self) -> Expectation {
        // The verdict is of the next round.
        Expectation { within: Duration::from_millis(400), improvement: 0.5 }
    }
}

/// Demotes suspected voters, and takes over from a suspected leader.
struct Heal;

impl Policy<Group, Change> for Heal {
    fn name(&self) -> &'static str {
        "heal"
    }

    fn decide(&mut self, _: Duration, group: &Group, plan: &mut Plan<Change>) {
        for subject in group.suspected.intersection(&group.voters) {
            // All with the same knowledge choose the same heir.
            let heir = group.voters.difference(&group.suspected).find(|voter| **voter != group.leader);
            let kind = match *subject == group.leader {
                true if heir == Some(&group.id) => "take-over",
                true => continue,
                false => "demote",
            };
            let action = Change { kind, subject: *subject, term: group.term, index: group.index };
            let diagnosis = Diagnosis { cause: "hang", confidence: 0.9, runner_up: None };
            plan.propose(Candidate { action, diagnosis, utility: 1.0, evidence: vec![] });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// A round of a healer.
    Round(usize),
    /// The healer reads the state of the group.
    Observe(usize),
    /// The healer suspects a voter that is well.
    Rumour(usize, u8),
    /// The store decides the healer's claim.
    AnswerClaim(usize),
    /// The store decides it, and the answer is lost.
    LoseClaim(usize),
    /// The executor carries out what the healer gave out.
    Carry(usize),
    /// The healer starts again and knows nothing.
    Restart(usize),
    /// A member dies.
    Die(u8),
    /// One more voter suspects the leader.
    Accuse,
    /// Another member is elected.
    Elect,
}

struct Healer {
    engine: Loop<Group, Change>,
    now: Duration,
    watch: ClaimWatch,
    claim: Option<(u64, Change)>,
    /// What is to be carried out: number, change, fence.
    execute: Option<(u64, Change, Option<u64>)>,
}

/// The real state of the group, and its healers.
struct World {
    model: Healing,
    voters: BTreeSet<u8>,
    dead: BTreeSet<u8>,
    index: u64,
    term: u64,
    leader: u8,
    accusers: usize,
    /// Holder, action and revision of the claim.
    claim: Option<(usize, u64, u64)>,
    revision: u64,
    healers: Vec<Healer>,
    /// Disruptive actions that were carried out and have no verdict: healer and action.
    active: BTreeSet<(usize, u64)>,
    rounds: usize,
    faults: usize,
    found: BTreeSet<&'static str>,
}

const HEALERS: usize = 2;

impl World {
    fn new(model: Healing) -> World {
        let voters: BTreeSet<u8> = (1..=model.voters).collect();
        let mut world = World {
            model,
            voters,
            dead: BTreeSet::new(),
            index: 1,
            term: 1,
            leader: model.voters,
            accusers: 0,
            claim: None,
            revision: 0,
            healers: Vec::new(),
            active: BTreeSet::new(),
            rounds: 0,
            faults: 0,
            found: BTreeSet::new(),
        };
        world.healers = (0..HEALERS).map(|healer| world.healer(healer, Duration::ZERO)).collect();
        world
    }

    fn healer(&self, healer: usize, now: Duration) -> Healer {
        let group = Group {
            id: u8::try_from(healer + 1).unwrap(),
            voters: self.voters.clone(),
            index: self.index,
            term: self.term,
            leader: self.leader,
            suspected: BTreeSet::new(),
            accusers: 0,
            without: self.model.without,
        };
        let options = LoopOptions::new()
            .mode(Mode::Active)
            .grace(Duration::ZERO)
            .stability(Duration::ZERO)
            .back_off(Duration::ZERO)
            .budget(1.0)
            .storm(1.0)
            .attempts_max(100)
            .execution_max(Duration::from_secs(1))
            .claims(self.model.without != Without::Claims);
        let mut engine = Loop::new(group, Box::new(Heal), options);
        engine.handle(now, Input::Timeout).unwrap();
        Healer { engine, now, watch: ClaimWatch::default(), claim: None, execute: None }
    }

    fn drain(&mut self, healer: usize) {
        while let Some(output) = self.healers[healer].engine.poll_output() {
            let state = &mut self.healers[healer];
            match output {
                // A take-over cannot wait for a sick leader to commit a claim: its fence is its term.
                Output::Claim { id, action } if action.kind == "take-over" => {
                    let fence = Some(action.term);
                    state.engine.handle(state.now, Input::Claim { id, fence }).unwrap();
                }
                Output::Claim { id, action } => state.claim = Some((id, action)),
                Output::Execute { id, action, fence } => state.execute = Some((id, action, fence)),
                Output::Record(record) => {
                    record.recompute().unwrap();
                    if matches!(record.event.name(), "improved" | "no-effect" | "worse" | "failed") {
                        self.release(healer, record.action);
                    }
                }
                _ => {}
            }
        }
    }

    /// A healer that is done gives its claim back.
    fn release(&mut self, healer: usize, action: u64) {
        self.active.remove(&(healer, action));
        if self.claim.is_some_and(|(holder, id, _)| (holder, id) == (healer, action)) {
            self.claim = None;
        }
    }

    /// Compare-and-swap: a claim is granted if there is none, or if the present one has expired for this
    /// healer.
    fn decide(&mut self, healer: usize) -> Option<u64> {
        let state = &mut self.healers[healer];
        let (id, action) = state.claim.take()?;
        if let Some((holder, other, revision)) = self.claim {
            let claim = Claim::new(holder as u64, other, action.kind, "");
            state.watch.observe(state.now, revision, &Claim { lease: Duration::from_secs(1), ..claim });
            if state.watch.expired(state.now) == Some(revision) {
                // The action of that healer can no longer be carried out, and counts as ended.
                self.active.remove(&(holder, other));
            } else if self.model.without != Without::Swap {
                return None;
            }
        }
        self.revision += 1;
        self.claim = Some((healer, id, self.revision));
        Some(self.revision)
    }

    fn carry(&mut self, healer: usize) {
        let Some((id, change, fence)) = self.healers[healer].execute.take() else { return };
        let without = self.model.without;
        let is_take_over = change.kind == "take-over";
        let is_held = is_take_over || self.claim.map(|(.., revision)| revision) == fence;
        let is_planned_now = (change.term, change.index) == (self.term, self.index);
        let mut after = self.voters.clone();
        after.remove(&change.subject);
        let is_safe = is_take_over || after.difference(&self.dead).count() * 2 > after.len();
        let is_refused = (!is_safe && !matches!(without, Without::ExecutorSafety | Without::Safety))
            || (!is_held && !matches!(without, Without::ClaimFence | Without::Claims))
            || (!is_planned_now && without != Without::PlanFence);
        let result = if is_refused { Err("stale".to_owned()) } else { Ok(()) };
        if !is_refused {
            if !is_planned_now || (!is_held && without != Without::Claims) {
                self.found.insert("an action on an old fence");
            }
            if is_take_over {
                if self.accusers * 2 <= self.voters.len() {
                    self.found.insert("a take-over without the suspicion of a majority");
                }
                self.elect(u8::try_from(healer + 1).unwrap());
            } else {
                self.active.insert((healer, id));
                if self.active.len() > 1 {
                    self.found.insert("two disruptive actions in flight");
                }
                self.demote(change.subject);
            }
        }
        let state = &mut self.healers[healer];
        // The loop may have given it up meanwhile.
        let _ = state.engine.handle(state.now, Input::Outcome { id, result });
        self.drain(healer);
    }

    fn elect(&mut self, leader: u8) {
        (self.term, self.leader, self.accusers) = (self.term + 1, leader, 0);
    }

    fn demote(&mut self, voter: u8) {
        let could_commit = self.can_commit();
        self.voters.remove(&voter);
        self.index += 1;
        if could_commit && !self.can_commit() {
            self.found.insert("a voter set that cannot commit");
        }
    }

    fn can_commit(&self) -> bool {
        self.voters.difference(&self.dead).count() * 2 > self.voters.len()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Round(healer) => {
                self.rounds += 1;
                let state = &mut self.healers[healer];
                state.now = state.engine.next_round;
                state.engine.handle(state.now, Input::Timeout).unwrap();
                self.drain(healer);
            }
            Step::Observe(healer) => {
                let (voters, dead) = (self.voters.clone(), self.dead.clone());
                let group = self.healers[healer].engine.knowledge_mut();
                (group.index, group.term, group.leader) = (self.index, self.term, self.leader);
                group.suspected = dead.intersection(&voters).copied().collect();
                if self.accusers > 0 {
                    group.suspected.insert(self.leader);
                }
                (group.voters, group.accusers) = (voters, self.accusers);
            }
            Step::Rumour(healer, voter) => {
                self.faults += 1;
                self.healers[healer].engine.knowledge_mut().suspected.insert(voter);
            }
            Step::AnswerClaim(healer) => {
                let id = self.healers[healer].claim.map(|(id, _)| id);
                let fence = self.decide(healer);
                let state = &mut self.healers[healer];
                if let Some(id) = id {
                    let _ = state.engine.handle(state.now, Input::Claim { id, fence });
                }
                self.drain(healer);
            }
            Step::LoseClaim(healer) => {
                self.faults += 1;
                self.decide(healer);
            }
            Step::Carry(healer) => self.carry(healer),
            Step::Restart(healer) => {
                self.faults += 1;
                let now = self.healers[healer].now;
                // What it gave out may still be on its way.
                let execute = self.healers[healer].execute;
                self.healers[healer] = Healer { execute, ..self.healer(healer, now) };
            }
            Step::Die(voter) => {
                self.faults += 1;
                self.dead.insert(voter);
            }
            Step::Accuse => self.accusers += 1,
            Step::Elect => {
                self.faults += 1;
                self.elect(1);
            }
        }
    }

    fn steps(&self, steps: &mut Vec<Step>) {
        let has_faults = self.faults < self.model.faults;
        for (healer, state) in self.healers.iter().enumerate() {
            if self.rounds < self.model.rounds {
                steps.push(Step::Round(healer));
            }
            steps.push(Step::Observe(healer));
            if state.claim.is_some() {
                steps.push(Step::AnswerClaim(healer));
                if has_faults {
                    steps.push(Step::LoseClaim(healer));
                }
            }
            if state.execute.is_some() {
                steps.push(Step::Carry(healer));
            }
            if has_faults {
                steps.push(Step::Restart(healer));
                let others = self.voters.iter().filter(|voter| usize::from(**voter) != healer + 1);
                steps.extend(others.map(|voter| Step::Rumour(healer, *voter)));
            }
        }
        if has_faults {
            steps.extend(
                self.voters.difference(&self.dead).filter(|voter| **voter > 2).map(|voter| Step::Die(*voter)),
            );
            steps.push(Step::Elect);
        }
        if self.accusers < self.voters.len() {
            steps.push(Step::Accuse);
        }
    }

    /// All that later steps depend on.
    fn view(&self) -> String {
        let mut view = format!(
            "{:?}",
            (
                &self.voters,
                &self.dead,
                self.index,
                self.term,
                self.leader,
                self.accusers,
                self.claim,
                &self.active
            )
        );
        view += &format!("{:?}", (self.revision, self.rounds, self.faults, &self.found));
        for healer in &self.healers {
            let engine = &healer.engine;
            view += &format!(
                "{:?}",
                (healer.now, healer.watch, &healer.claim, &healer.execute, &engine.knowledge)
            );
            view += &format!("{:?}", (&engine.in_flight, &engine.histories, &engine.proposed, engine.storm));
            view += &format!("{:?}", (engine.actions, engine.next_round));
        }
        view
    }
}

/// A model: how many voters, rounds of both healers, and faults.
#[derive(Debug, Clone, Copy)]
struct Healing {
    voters: u8,
    rounds: usize,
    faults: usize,
    without: Without,
}

/// The steps so far, which stand for the state that they lead to: the loop is no value that can be copied.
#[derive(Debug, Clone)]
struct State {
    steps: Vec<Step>,
    view: u64,
    found: BTreeSet<&'static str>,
}

impl State {
    fn new(steps: Vec<Step>, world: &World) -> State {
        let mut hasher = std::hash::DefaultHasher::new();
        world.view().hash(&mut hasher);
        State { steps, view: hasher.finish(), found: world.found.clone() }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.view == other.view
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.view.hash(hasher);
    }
}

impl Healing {
    fn world(&self, steps: &[Step]) -> World {
        let mut world = World::new(*self);
        steps.iter().for_each(|step| world.take(*step));
        world
    }
}

impl Model for Healing {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(Vec::new(), &self.world(&[]))]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.world(&state.steps).steps(steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut steps = state.steps.clone();
        steps.push(step);
        let world = self.world(&steps);
        Some(State::new(steps, &world))
    }

    fn properties(&self) -> Vec<Property<Healing>> {
        vec![
            Property::always("nothing that must not happen", |_, state: &State| state.found.is_empty()),
            Property::sometimes("a dead voter is demoted", |_, state: &State| {
                matches!(state.steps.last(), Some(Step::Carry(_)))
                    && state.steps.iter().any(|step| matches!(step, Step::Die(_)))
            }),
        ]
    }
}

/// Checks a model up to a number of steps, and returns what must not happen, and the number of states.
fn check(model: Healing, depth: usize) -> (BTreeSet<&'static str>, usize) {
    let checker = model.checker().target_max_depth(depth).threads(1).spawn_bfs().join();
    let found = checker.discovery("nothing that must not happen").map(|path| path.last_state().found.clone());
    (found.unwrap_or_default(), checker.unique_state_count())
}

/// The depth of the search: `X0_MAPEK_DEPTH`, or one that takes seconds.
fn depth(usual: usize) -> usize {
    std::env::var("X0_MAPEK_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(usual)
}

#[test]
fn two_healers_do_no_harm() {
    for voters in [3, 4, 5] {
        let model = Healing { voters, rounds: 4, faults: 2, without: Without::Nothing };
        let (found, states) = check(model, depth(if voters == 3 { 9 } else { 7 }));
        assert_eq!(found, BTreeSet::new(), "{voters} voters, {states} states");
        assert!(states > 1000, "{states}");
    }
}

#[test]
fn each_removed_guard_is_found() {
    let expect = BTreeMap::from([
        ("Claims", "two disruptive actions in flight"),
        ("Swap", "two disruptive actions in flight"),
        ("ClaimFence", "an action on an old fence"),
        ("PlanFence", "an action on an old fence"),
        ("ExecutorSafety", "a voter set that cannot commit"),
        ("Safety", "a voter set that cannot commit"),
        ("Suspicion", "a take-over without the suspicion of a majority"),
    ]);
    for without in [
        Without::Claims,
        Without::Swap,
        Without::ClaimFence,
        Without::PlanFence,
        Without::ExecutorSafety,
        Without::Safety,
        Without::Suspicion,
    ] {
        // The search ends at the first run that does harm. Two healers without claims need two rounds and two
        // faults; one that takes over needs many rounds and one fault.
        let (rounds, faults) = match without {
            Without::Claims | Without::Swap => (2, 2),
            Without::ClaimFence => (5, 1),
            _ => (4, 2),
        };
        let (found, states) = check(Healing { voters: 3, rounds, faults, without }, 14);
        let expect = expect[format!("{without:?}").as_str()];
        assert!(found.contains(expect), "{without:?}: {found:?} in {states} states");
    }
}
