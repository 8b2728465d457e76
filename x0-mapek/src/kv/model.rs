//! Runs of a small group with two healers of a store's nodes: [`Healer`] with its claims, messages and
//! knowledge as in production. Every short run, under stateright, and many long ones of random steps.
//!
//! Nodes 1 to 3 are voters, 4 and 5 learners that have caught up. Healers run on nodes 1 and 2, each with a
//! clock of its own and with knowledge that may be old or wrong: it may believe that it leads, and that a
//! voter is not reached that all others reach. The store, the leader that changes the membership and the
//! transport are as x0-node has them. What they check can be taken away, to see that the model finds it.
//!
//! A healer that is stopped between the last comparison of its claim and the request to the leader for longer
//! than the lease is not modelled: the request would arrive late, and only the leader's own checks hold it.

use std::hash::{Hash, Hasher};

use stateright::{Checker, Model, Property};
use x0_kv::{Expect, Revision};

use super::*;
use crate::Mode;
use crate::claim::Claim;

/// A check that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The store writes the step of a claim that another healer has taken over.
    Begin,
    /// The store writes a claim whatever the key holds.
    Swap,
    /// The other voters are not asked whether they reach the dead one.
    Witnesses,
    /// The leader does not compare the change with the present voters and learners.
    PlanFence,
    /// Neither the other voters nor the leader ask whether a majority is left.
    Majority,
    /// A message may name any sender.
    Sender,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// Two seconds of a healer.
    Round(usize),
    /// The lease of a claim and more passes on the clock of a healer.
    Wait(usize),
    /// The healer learns the state of the group.
    Observe(usize),
    /// The healer does not reach a voter that is well.
    Rumour(usize, u64),
    /// The healer sees the leader run only part of the time from here on.
    Starve(usize),
    /// Node 3 says that the leader runs only part of the time.
    Accuse,
    /// Node 3 says so in the name of another node.
    Forge(u64),
    /// The store answers.
    Answer(usize),
    /// The store does what was asked, and the answer is lost.
    LoseAnswer(usize),
    /// The leader receives the change that a healer has begun.
    Carry(usize),
    /// The healer starts again and knows nothing.
    Restart(usize),
    /// A voter or learner dies.
    Die(u64),
    /// A node that was dead returns.
    Return(u64),
    /// Another node leads.
    Elect(u64),
    /// An operator makes a voter a learner, or a learner a voter.
    Operate(u64),
}

/// How many voters there should be.
const VOTERS: usize = 3;

/// A change of the voters that a healer has begun.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Change {
    Replace { dead: u64, spare: u64 },
    Promote { spare: u64, voters: BTreeSet<u64> },
    Demote { voter: u64, is_dead: bool, voters: BTreeSet<u64> },
}

impl Change {
    /// The voter that goes, and the learner that comes.
    fn moves(&self) -> (Option<u64>, Option<u64>) {
        match *self {
            Change::Replace { dead, spare } => (Some(dead), Some(spare)),
            Change::Promote { spare, .. } => (None, Some(spare)),
            Change::Demote { voter, .. } => (Some(voter), None),
        }
    }
}

/// What a healer knows of the group, right or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    leader: u64,
    term: u64,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    reached: BTreeSet<u64>,
    is_starved: bool,
}

struct Runs {
    healer: Healer,
    step: u32,
    seen: Seen,
    ask: Option<Ask>,
    /// The change that was begun, and its action.
    change: Option<(u64, Change)>,
    /// Of all outputs with their times: the histories of the loop follow from them.
    digest: u64,
}

struct World {
    model: Healing,
    leader: u64,
    term: u64,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    /// The voters that have said that a leader runs only part of the time, each with that leader.
    accusers: BTreeSet<(u64, u64)>,
    claim: Option<(u64, Claim)>,
    /// The time of each healer when the claim was written.
    claimed_at: Vec<u32>,
    revision: u64,
    runs: Vec<Runs>,
    /// Changes that were carried out and have no verdict: healer and action.
    active: BTreeSet<(usize, u64)>,
    rounds: usize,
    faults: usize,
    done: BTreeSet<&'static str>,
    found: BTreeSet<&'static str>,
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn number(healer: usize) -> u64 {
    healer as u64 + 1
}

impl World {
    fn new(model: Healing) -> World {
        let mut world = World {
            model,
            leader: model.leader,
            term: 1,
            voters: (1..=3).collect(),
            learners: [4, 5].into(),
            dead: BTreeSet::new(),
            accusers: BTreeSet::new(),
            claim: None,
            claimed_at: Vec::new(),
            revision: 0,
            runs: Vec::new(),
            active: BTreeSet::new(),
            rounds: 0,
            faults: 0,
            done: BTreeSet::new(),
            found: BTreeSet::new(),
        };
        world.runs = (0..2).map(|healer| world.started(healer, 0)).collect();
        world
    }

    fn started(&self, healer: usize, step: u32) -> Runs {
        let options = HealerOptions::new()
            .mode(Mode::Active)
            .grace(Duration::ZERO)
            .stability(Duration::ZERO)
            .back_off(Duration::ZERO)
            .voters(Some(VOTERS))
            .replace_after(Some(Duration::from_secs(1)));
        let healer_of = Healer::new(id(number(healer)), &options);
        Runs { healer: healer_of, step, seen: self.truth(healer), ask: None, change: None, digest: 0 }
    }

    fn truth(&self, healer: usize) -> Seen {
        let all = self.voters.union(&self.learners);
        let reached = all.filter(|node| **node != number(healer) && !self.dead.contains(node));
        Seen {
            leader: self.leader,
            term: self.term,
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            reached: reached.copied().collect(),
            is_starved: false,
        }
    }

    /// Plays samples of a healer.
    fn play(&mut self, healer: usize, samples: u32) {
        for _ in 0..samples {
            let runs = &mut self.runs[healer];
            runs.step += 1;
            let (step, seen) = (runs.step, &runs.seen);
            let mut observation = Observation::new(id(number(healer)));
            (observation.leader, observation.term) = (Some(id(seen.leader)), seen.term);
            observation.voters = seen.voters.iter().copied().map(id).collect();
            observation.learners = seen.learners.iter().copied().map(id).collect();
            observation.reached = seen.reached.iter().copied().map(id).collect();
            observation.acknowledged = observation.reached.iter().map(|node| (*node, 0)).collect();
            // Heartbeats in time, or every 400 ms.
            let heard = if seen.is_starved { step / 4 * 4 } else { step };
            observation.leader_last_message = (seen.leader != number(healer)).then(|| SAMPLE * heard);
            runs.healer.handle(SAMPLE * step, Input::Sample(&observation)).unwrap();
            self.drain(healer);
        }
    }

    fn drain(&mut self, healer: usize) {
        while let Some(output) = self.runs[healer].healer.poll_output() {
            let runs = &mut self.runs[healer];
            let mut hasher = std::hash::DefaultHasher::new();
            (runs.digest, runs.step, format!("{output:?}")).hash(&mut hasher);
            runs.digest = hasher.finish();
            match output {
                Output::Ask(ask) => runs.ask = Some(ask),
                Output::Replace { id, dead, spare } => {
                    runs.change = Some((id, Change::Replace { dead: dead.get(), spare: spare.get() }));
                }
                Output::Promote { id, spare, voters } => {
                    let voters = voters.iter().map(|voter| voter.get()).collect();
                    runs.change = Some((id, Change::Promote { spare: spare.get(), voters }));
                }
                Output::Demote { id, voter, is_dead, voters } => {
                    let voters = voters.iter().map(|voter| voter.get()).collect();
                    runs.change = Some((id, Change::Demote { voter: voter.get(), is_dead, voters }));
                }
                Output::TakeOver { id } => {
                    runs.healer.handle(SAMPLE * runs.step, Input::Outcome { id, result: Ok(()) }).unwrap();
                    self.take_over(healer);
                }
                Output::Transfer { id, .. } => {
                    runs.healer.handle(SAMPLE * runs.step, Input::Outcome { id, result: Ok(()) }).unwrap();
                }
                Output::Notify { message, .. } => {
                    self.accusers.insert((number(healer), runs.seen.leader));
                    let other = 1 - healer;
                    self.deliver(other, number(healer), &message);
                }
                Output::Record(record) => {
                    record.recompute().unwrap();
                    if matches!(record.event.name(), "improved" | "no-effect" | "worse" | "failed") {
                        self.active.remove(&(healer, record.action));
                    }
                }
            }
        }
    }

    fn deliver(&mut self, to: usize, from: u64, message: &[u8]) {
        let runs = &mut self.runs[to];
        let input = Input::Received { from: id(from), message };
        runs.healer.handle(SAMPLE * runs.step, input).unwrap();
        self.drain(to);
    }

    /// What node `from` says of the leader, sent to both healers.
    fn accuse(&mut self, from: u64) {
        let sighting = Sighting { timeouts: 4, ..Sighting::default() };
        let message = Summary::new(Observer::Member(from), 1).sighting(self.leader, sighting).to_bytes();
        for healer in 0..2 {
            self.deliver(healer, from, &message);
        }
    }

    fn take_over(&mut self, healer: usize) {
        // A campaign in an old term is refused by the other voters, and so is one of a log without the
        // committed entry that made the present voters.
        let seen = &self.runs[healer].seen;
        if seen.term != self.term || seen.voters != self.voters {
            return;
        }
        let accusers = self.accusers.iter().filter(|(_, leader)| *leader == self.leader);
        if accusers.count() * 2 <= self.voters.len() {
            self.found.insert("a take-over without the suspicion of a majority");
        }
        self.done.insert("take-over");
        if self.can_commit(&self.voters) {
            self.elect(number(healer));
        }
    }

    fn elect(&mut self, leader: u64) {
        (self.leader, self.term) = (leader, self.term + 1);
    }

    fn can_commit(&self, voters: &BTreeSet<u64>) -> bool {
        voters.difference(&self.dead).count() * 2 > voters.len()
    }

    /// The store does what a healer has asked.
    fn store(&mut self, ask: &Ask) -> Answer {
        let without = self.model.without;
        match ask {
            Ask::Read => Answer::Read(Ok(self
                .claim
                .as_ref()
                .map(|(revision, claim)| (Revision::new(*revision), claim.to_bytes().into())))),
            Ask::Write { expect, claim } => {
                let present = self.claim.as_ref().map(|(revision, _)| Revision::new(*revision));
                let is_expected = match expect {
                    Expect::Absent => present.is_none(),
                    Expect::Revision(revision) => present == Some(*revision),
                    _ => false,
                };
                let is_begun = claim.step != crate::claim::ClaimStep::Claimed;
                let is_granted =
                    is_expected || without == Without::Swap || (is_begun && without == Without::Begin);
                if !is_granted {
                    return Answer::Written(Ok(None));
                }
                let writer = usize::try_from(claim.holder).unwrap() - 1;
                if let Some((_, before)) = &self.claim
                    && before.holder != claim.holder
                {
                    let seen_for = self.runs[writer].step - self.claimed_at[writer];
                    if SAMPLE * seen_for >= before.lease {
                        // The action of the holder before can no longer begin, and counts as ended.
                        let holder = usize::try_from(before.holder).unwrap() - 1;
                        self.active.remove(&(holder, before.action));
                    } else {
                        self.found.insert("a claim is taken over before its lease has passed");
                    }
                }
                if is_begun && !is_expected {
                    self.found.insert("an action on an old fence");
                }
                self.claimed_at = self.runs.iter().map(|runs| runs.step).collect();
                self.revision += 1;
                self.claim = Some((self.revision, claim.clone()));
                Answer::Written(Ok(Some(Revision::new(self.revision))))
            }
            Ask::Remove { revision } => {
                if self.claim.as_ref().is_some_and(|(present, _)| Revision::new(*present) == *revision) {
                    self.claim = None;
                }
                Answer::Removed
            }
        }
    }

    /// The leader receives a change.
    fn carry(&mut self, healer: usize) {
        let Some((id_of, change)) = self.runs[healer].change.take() else { return };
        let result = self.change(healer, id_of, &change);
        let runs = &mut self.runs[healer];
        // The loop may have given up on it.
        let _ = runs.healer.handle(SAMPLE * runs.step, Input::Outcome { id: id_of, result });
        self.drain(healer);
    }

    fn change(&mut self, healer: usize, action: u64, change: &Change) -> Result<(), String> {
        let without = self.model.without;
        let (gone, new) = change.moves();
        let dead = match change {
            Change::Replace { dead: voter, .. } | Change::Demote { voter, is_dead: true, .. } => Some(*voter),
            _ => None,
        };
        if let Some(dead) = dead.filter(|_| !matches!(without, Without::Witnesses | Without::Majority)) {
            let voters: BTreeSet<NodeId> = self.voters.iter().copied().map(id).collect();
            let asked = self.voters.iter().filter(|voter| **voter != number(healer) && **voter != dead);
            // A voter that is alive reaches all that are.
            let answers = asked.filter(|voter| !self.dead.contains(voter));
            let is_reached = !self.dead.contains(&dead);
            witnessed(&voters, answers.map(|voter| (id(*voter), is_reached)))?;
        }
        let is_planned_now = gone.is_none_or(|voter| self.voters.contains(&voter))
            && new.is_none_or(|spare| self.learners.contains(&spare))
            && match change {
                Change::Replace { .. } => true,
                Change::Promote { voters, .. } | Change::Demote { voters, .. } => self.voters == *voters,
            };
        // A leader hands over before it loses its vote.
        if gone == Some(self.leader) {
            return Err("it leads".into());
        }
        if !is_planned_now && without != Without::PlanFence {
            return Err("the members are others".into());
        }
        let after: BTreeSet<u64> =
            self.voters.iter().copied().filter(|voter| Some(*voter) != gone).chain(new).collect();
        if !self.can_commit(&after) && without != Without::Majority {
            return Err("no majority is left".into());
        }
        if !is_planned_now {
            self.found.insert("an action on an old membership");
        }
        if dead.is_some_and(|dead| !self.dead.contains(&dead)) {
            self.found.insert("a voter that is well is replaced");
        }
        self.active.insert((healer, action));
        if self.active.len() > 1 {
            self.found.insert("two disruptive actions in flight");
        }
        if after.len() < self.voters.len().min(VOTERS) || after.len() > self.voters.len().max(VOTERS) {
            self.found.insert("another number of voters than there should be");
        }
        if self.can_commit(&self.voters) && !self.can_commit(&after) {
            self.found.insert("a voter set that cannot commit");
        }
        self.learners.retain(|learner| Some(*learner) != new);
        if let Change::Demote { voter, .. } = change {
            self.learners.insert(*voter);
        }
        self.voters = after;
        self.done.insert(match change {
            Change::Replace { .. } => "replacement",
            Change::Promote { .. } => "promotion",
            Change::Demote { .. } => "demotion",
        });
        Ok(())
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Round(healer) => {
                self.rounds += 1;
                self.play(healer, 20);
            }
            Step::Wait(healer) => {
                self.rounds += 1;
                self.play(healer, 105);
            }
            Step::Observe(healer) => {
                let is_starved = self.runs[healer].seen.is_starved;
                self.runs[healer].seen = Seen { is_starved, ..self.truth(healer) };
            }
            Step::Rumour(healer, voter) => {
                self.faults += 1;
                self.runs[healer].seen.reached.remove(&voter);
            }
            Step::Starve(healer) => {
                self.faults += 1;
                self.runs[healer].seen.is_starved = true;
            }
            Step::Accuse => {
                self.accusers.insert((3, self.leader));
                self.accuse(3);
            }
            Step::Forge(name) => {
                self.faults += 1;
                self.accuse(name);
            }
            Step::Answer(healer) => {
                let Some(ask) = self.runs[healer].ask.take() else { return };
                let answer = self.store(&ask);
                self.stored(healer, answer);
            }
            Step::LoseAnswer(healer) => {
                self.faults += 1;
                let Some(ask) = self.runs[healer].ask.take() else { return };
                let lost = Err("the call timed out".to_owned());
                let answer = match self.store(&ask) {
                    Answer::Read(_) => Answer::Read(lost.map(|()| None)),
                    Answer::Written(_) => Answer::Written(lost.map(|()| None)),
                    Answer::Removed => Answer::Removed,
                };
                self.stored(healer, answer);
            }
            Step::Carry(healer) => self.carry(healer),
            Step::Restart(healer) => {
                self.faults += 1;
                let step = self.runs[healer].step;
                // A change that was sent may still arrive.
                let change = self.runs[healer].change.clone();
                self.runs[healer] = Runs { change, ..self.started(healer, step) };
            }
            Step::Die(voter) => {
                self.faults += 1;
                self.dead.insert(voter);
            }
            Step::Return(voter) => {
                self.faults += 1;
                self.dead.remove(&voter);
            }
            Step::Elect(node) => {
                self.faults += 1;
                self.elect(node);
            }
            Step::Operate(node) => {
                self.faults += 1;
                if self.voters.remove(&node) {
                    self.learners.insert(node);
                } else if self.learners.remove(&node) {
                    self.voters.insert(node);
                }
            }
        }
    }

    fn stored(&mut self, healer: usize, answer: Answer) {
        let runs = &mut self.runs[healer];
        runs.healer.handle(SAMPLE * runs.step, Input::Stored(answer)).unwrap();
        self.drain(healer);
    }

    fn steps(&self, steps: &mut Vec<Step>) {
        let has_faults = self.faults < self.model.faults;
        let has_rounds = self.rounds < self.model.rounds;
        for (healer, runs) in self.runs.iter().enumerate() {
            // A change that was begun arrives before the lease of another healer has passed.
            let has_changes = self.runs.iter().any(|other| other.change.is_some());
            if has_rounds {
                steps.push(Step::Round(healer));
                if self.claim.is_some() && !has_changes {
                    steps.push(Step::Wait(healer));
                }
            }
            if runs.seen != (Seen { is_starved: runs.seen.is_starved, ..self.truth(healer) }) {
                steps.push(Step::Observe(healer));
            }
            if runs.ask.is_some() {
                steps.push(Step::Answer(healer));
                if has_faults {
                    steps.push(Step::LoseAnswer(healer));
                }
            }
            if runs.change.is_some() {
                steps.push(Step::Carry(healer));
            }
            if has_faults {
                steps.push(Step::Restart(healer));
                let others = self.voters.iter().filter(|voter| **voter != number(healer));
                steps.extend(others.map(|voter| Step::Rumour(healer, *voter)));
                if !runs.seen.is_starved && self.leader != number(healer) {
                    steps.push(Step::Starve(healer));
                }
            }
        }
        if has_faults {
            let others = self.voters.union(&self.learners).filter(|node| **node > 2);
            steps.extend(others.map(|node| match self.dead.contains(node) {
                true => Step::Return(*node),
                false => Step::Die(*node),
            }));
            steps.extend([1, 2].into_iter().filter(|node| *node != self.leader).map(Step::Elect));
            // The leader refuses a change that loses the quorum.
            let is_safe = |node: &u64| {
                let mut after = self.voters.clone();
                if !after.remove(node) {
                    after.insert(*node);
                }
                *node != self.leader && self.can_commit(&after)
            };
            steps.extend([3, 4].into_iter().filter(is_safe).map(Step::Operate));
            if self.model.without == Without::Sender {
                steps.extend([1, 2].into_iter().filter(|node| *node != self.leader).map(Step::Forge));
            }
        }
        if self.leader != 3 && !self.accusers.contains(&(3, self.leader)) {
            steps.push(Step::Accuse);
        }
    }

    /// All that later steps depend on.
    fn view(&self) -> String {
        let mut view = format!(
            "{:?}{:?}",
            (self.leader, self.term, &self.voters, &self.learners, &self.dead, &self.accusers),
            (
                &self.claim,
                &self.claimed_at,
                self.revision,
                &self.active,
                self.rounds,
                self.faults,
                &self.done,
                &self.found
            )
        );
        for runs in &self.runs {
            view += &format!("{:?}", (runs.step, &runs.seen, &runs.ask, &runs.change, &runs.healer.samples));
            view += &format!("{:?}{:?}", runs.healer.claims, runs.healer.engine.knowledge());
            view += &format!("{:?}{}", runs.healer.engine, runs.digest);
        }
        view
    }
}

/// A model: which node leads first, and how many rounds of both healers and faults there are.
#[derive(Debug, Clone, Copy)]
struct Healing {
    leader: u64,
    rounds: usize,
    faults: usize,
    without: Without,
}

/// The steps so far, which stand for the state that they lead to: a healer is no value that can be copied.
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
        vec![Property::always("nothing that must not happen", |_, state: &State| state.found.is_empty())]
    }
}

/// What must not happen and was found in every run of so many steps, and the number of states.
fn check(model: Healing, depth: usize) -> (BTreeSet<&'static str>, usize) {
    let checker = model.checker().target_max_depth(depth).threads(1).spawn_bfs().join();
    let found = checker.discovery("nothing that must not happen").map(|path| path.last_state().found.clone());
    (found.unwrap_or_default(), checker.unique_state_count())
}

/// One run of random steps.
fn walk(model: Healing, seed: u64) -> World {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut world = World::new(model);
    let mut steps = Vec::new();
    for _ in 0..60 {
        steps.clear();
        world.steps(&mut steps);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let Some(step) = steps.get(usize::try_from(random >> 8).unwrap() % steps.len().max(1)) else { break };
        world.take(*step);
        if !world.found.is_empty() {
            break;
        }
    }
    world
}

/// The depth of the search: `X0_MAPEK_DEPTH`, or one that takes seconds.
fn depth(usual: usize) -> usize {
    std::env::var("X0_MAPEK_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(usual)
}

/// The random runs: `X0_MAPEK_WALKS`, or so many that they take seconds.
fn walks(usual: u64) -> u64 {
    std::env::var("X0_MAPEK_WALKS").ok().and_then(|walks| walks.parse().ok()).unwrap_or(usual)
}

#[test]
fn two_healers_of_a_store_do_no_harm_in_every_short_run() {
    for leader in [1, 3] {
        let model = Healing { leader, rounds: 4, faults: 2, without: Without::Nothing };
        let (found, states) = check(model, depth(4));
        assert_eq!(found, BTreeSet::new(), "{states} states");
        assert!(states > 100, "{states}");
    }
}

#[test]
fn two_healers_of_a_store_do_no_harm_in_long_runs() {
    let mut done = BTreeSet::new();
    for seed in 0..walks(1_000) {
        let leader = 1 + seed % 3;
        let world = walk(Healing { leader, rounds: 12, faults: 4, without: Without::Nothing }, seed);
        assert_eq!(world.found, BTreeSet::new(), "seed {seed}");
        done.extend(world.done);
    }
    let right = ["demotion", "promotion", "replacement", "take-over"];
    assert_eq!(done, BTreeSet::from(right), "what is right is done");
}

#[test]
fn each_removed_check_is_found() {
    let mut missed = Vec::new();
    for (without, expect) in [
        (Without::Begin, "an action on an old fence"),
        (Without::Swap, "a claim is taken over before its lease has passed"),
        (Without::Swap, "an action on an old fence"),
        (Without::Witnesses, "a voter that is well is replaced"),
        (Without::PlanFence, "an action on an old membership"),
        (Without::Majority, "a voter set that cannot commit"),
        (Without::Sender, "a take-over without the suspicion of a majority"),
    ] {
        let model = |seed| Healing { leader: 1 + seed % 3, rounds: 12, faults: 4, without };
        if !(0..walks(5_000)).any(|seed| walk(model(seed), seed).found.contains(expect)) {
            missed.push((without, expect));
        }
    }
    assert_eq!(missed, []);
}
