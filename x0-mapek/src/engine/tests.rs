use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::action::{Disruption, Expectation};
use crate::guard::Refusal;
use crate::options::Mode;
use crate::plan::{Diagnosis, Evidence, Plan};

const SECOND: Duration = Duration::from_secs(1);

/// Subjects with one value each. Above 1 a subject is unhealthy.
#[derive(Debug, Clone, Default)]
struct World {
    values: BTreeMap<u32, f64>,
    /// What the precondition and the safety of actions say.
    impossible: bool,
    unsafe_after: bool,
    planned: Vec<u32>,
}

impl Knowledge for World {
    type Subject = u32;

    fn observe(&mut self, now: Duration, reading: &Reading<u32>) -> Result<(), ReadingError> {
        if !reading.value.is_finite() {
            return Err(ReadingError::OutOfRange { value: reading.value });
        }
        let _ = now;
        self.values.insert(reading.subject, reading.value);
        Ok(())
    }

    fn subject_count(&self) -> usize {
        self.values.len()
    }

    fn unhealthy(&self, _: Duration, each: &mut dyn FnMut(&u32)) {
        self.values.iter().filter(|(_, value)| **value > 1.0).for_each(|(subject, _)| each(subject));
    }

    fn planned(&mut self, _: Duration, subject: &u32, _: Duration) {
        self.planned.push(*subject);
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Act {
    kind: &'static str,
    subject: u32,
}

impl Action<World> for Act {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn subject(&self) -> &u32 {
        &self.subject
    }

    fn disruption(&self) -> Disruption {
        if self.kind == "renew" { Disruption::None } else { Disruption::Brief }
    }

    fn accuses_other(&self) -> bool {
        self.kind != "leave"
    }

    fn precondition(&self, world: &World) -> Result<(), Cow<'static, str>> {
        if world.impossible { Err("it is off".into()) } else { Ok(()) }
    }

    fn is_safe(&self, world: &World) -> Result<(), Cow<'static, str>> {
        if world.unsafe_after { Err("two of three voters would remain".into()) } else { Ok(()) }
    }

    fn badness(&self, world: &World) -> Option<f64> {
        world.values.get(&self.subject).copied()
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: SECOND, improvement: 0.3 }
    }

    fn undo(&self) -> Option<Act> {
        (self.kind == "move").then_some(Act { kind: "move-back", subject: self.subject })
    }
}

/// Proposes each kind for each unhealthy subject, the first kind with the highest utility.
struct Heal(Vec<&'static str>);

impl Policy<World, Act> for Heal {
    fn name(&self) -> &'static str {
        "heal"
    }

    fn decide(&mut self, _: Duration, world: &World, plan: &mut Plan<Act>) {
        for (subject, value) in world.values.iter().filter(|(_, value)| **value > 1.0) {
            for (place, kind) in self.0.iter().enumerate() {
                plan.propose(Candidate {
                    action: Act { kind, subject: *subject },
                    diagnosis: Diagnosis { cause: "slow", confidence: 0.8, runner_up: Some(("load", 0.2)) },
                    utility: 1.0 - place as f64 * 0.25,
                    evidence: vec![Evidence {
                        signal: "latency",
                        value: *value,
                        threshold: 1.0,
                        age: SECOND,
                    }],
                });
            }
        }
    }
}

fn options() -> LoopOptions {
    LoopOptions::new().mode(Mode::Active).grace(Duration::ZERO).stability(SECOND).budget(0.3)
}

type Healer = Loop<World, Act>;

fn healer(options: LoopOptions, kinds: &[&'static str]) -> Healer {
    let world = World { values: (0..10).map(|subject| (subject, 0.1)).collect(), ..World::default() };
    let mut healer = Loop::new(world, Box::new(Heal(kinds.to_vec())), options);
    healer.handle(Duration::ZERO, Input::Timeout).unwrap();
    healer
}

fn drain(healer: &mut Healer) -> Vec<Output<u32, Act>> {
    std::iter::from_fn(|| healer.poll_output()).collect()
}

/// Passes an input, and the timeouts before it.
trait Put {
    fn put(&mut self, now: Duration, input: Input<u32, Act>);
}

impl Put for Healer {
    fn put(&mut self, now: Duration, input: Input<u32, Act>) {
        while self.poll_timeout() < now {
            let due = self.poll_timeout().max(self.last);
            self.handle(due, Input::Timeout).unwrap();
        }
        self.handle(now, input).unwrap();
    }
}

/// Passes timeouts until `end`, and returns all outputs with their times.
fn run(healer: &mut Healer, end: Duration) -> Vec<Output<u32, Act>> {
    let mut outputs = drain(healer);
    while healer.poll_timeout() <= end {
        let due = healer.poll_timeout().max(healer.last);
        healer.handle(due, Input::Timeout).unwrap();
        outputs.extend(drain(healer));
    }
    healer.handle(end, Input::Timeout).unwrap();
    outputs.extend(drain(healer));
    outputs
}

fn reading(subject: u32, value: f64) -> Input<u32, Act> {
    Input::Reading(Reading { subject, signal: "latency", value })
}

fn executed(outputs: &[Output<u32, Act>]) -> Vec<(u64, Act)> {
    let of = |output: &Output<u32, Act>| match output {
        Output::Execute { id, action, .. } => Some((*id, action.clone())),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

fn events(outputs: &[Output<u32, Act>]) -> Vec<&'static str> {
    let of = |output: &Output<u32, Act>| match output {
        Output::Record(record) => Some(record.event.name()),
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

/// The guards that refused a candidate, in order.
fn guards(outputs: &[Output<u32, Act>]) -> Vec<String> {
    let of = |output: &Output<u32, Act>| match output {
        Output::Record(record) => match &record.event {
            Event::Refused { guard, .. } => Some(guard.clone()),
            _ => None,
        },
        _ => None,
    };
    outputs.iter().filter_map(of).collect()
}

#[test]
fn a_slow_subject_is_acted_on_once_and_the_effect_is_proven() {
    let mut healer = healer(options(), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 4 * SECOND);
    assert_eq!(executed(&outputs), [(1, Act { kind: "restart", subject: 3 })]);
    assert_eq!(events(&outputs), ["refused", "executing", "refused"]);
    assert_eq!(guards(&outputs), ["stability", "busy"]);
    healer.put(4 * SECOND, Input::Outcome { id: 1, result: Ok(()) });
    healer.put(4 * SECOND, reading(3, 0.2));
    let outputs = run(&mut healer, 60 * SECOND);
    assert_eq!(events(&outputs), ["executed", "improved"]);
    assert_eq!(healer.in_flight().count(), 0);
}

#[test]
fn an_action_without_effect_is_repeated_with_back_off_and_then_escalated() {
    let mut healer = healer(options().back_off(4 * SECOND).attempts_max(3), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    let mut times = Vec::new();
    let mut escalated = Vec::new();
    for second in 1..200 {
        for output in run(&mut healer, second * SECOND) {
            match output {
                Output::Execute { id, .. } => {
                    times.push(second);
                    healer.put(second * SECOND, Input::Outcome { id, result: Ok(()) });
                }
                Output::Escalate { subject, reason } => escalated.push((second, subject, reason)),
                _ => {}
            }
        }
    }
    // 4 s, then 8 s between the actions, and the stability window; then a person.
    assert_eq!(times.len(), 3, "{times:?}");
    assert!(times[1] - times[0] >= 4 && times[2] - times[1] >= 8, "{times:?}");
    assert_eq!(escalated.len(), 1);
    assert!(escalated[0].2.contains("3 actions have not helped"), "{escalated:?}");
    // A person looks at it: the loop acts again.
    healer.put(200 * SECOND, Input::Command(Command::Acknowledge { subject: 3 }));
    assert_eq!(executed(&run(&mut healer, 215 * SECOND)).len(), 1);
}

#[test]
fn what_made_it_worse_is_undone_and_chosen_less_often() {
    let mut healer = healer(options(), &["move", "restart"]);
    healer.put(SECOND, reading(3, 5.0));
    assert_eq!(executed(&run(&mut healer, 4 * SECOND)), [(1, Act { kind: "move", subject: 3 })]);
    healer.put(4 * SECOND, Input::Outcome { id: 1, result: Ok(()) });
    healer.put(4 * SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 6 * SECOND);
    assert_eq!(events(&outputs), ["executed", "worse", "undoing"]);
    let undo = Output::Undo { id: 1, action: Act { kind: "move-back", subject: 3 }, fence: None };
    assert!(outputs.contains(&undo), "{outputs:?}");
    healer.put(6 * SECOND, Input::Outcome { id: 1, result: Ok(()) });
    let outputs = run(&mut healer, 30 * SECOND);
    // The penalty puts the other kind first.
    assert_eq!(executed(&outputs), [(2, Act { kind: "restart", subject: 3 })]);
    assert_eq!(events(&outputs)[0], "undone");
}

#[test]
fn a_failed_undoing_calls_a_person_at_once() {
    let mut healer = healer(options(), &["move"]);
    healer.put(SECOND, reading(3, 5.0));
    run(&mut healer, 4 * SECOND);
    healer.put(4 * SECOND, Input::Outcome { id: 1, result: Ok(()) });
    assert_eq!(
        healer.handle(4 * SECOND, Input::Command(Command::Undo { id: 7 })),
        Err(HandleError::UnknownAction { id: 7 })
    );
    healer.put(4 * SECOND, Input::Command(Command::Undo { id: 1 }));
    healer.put(4 * SECOND, Input::Outcome { id: 1, result: Err("no route".into()) });
    let outputs = drain(&mut healer);
    let is_call = |output: &Output<u32, Act>| matches!(output, Output::Escalate { subject: 3, reason } if reason == "undoing action 1 failed: no route");
    assert!(outputs.iter().any(is_call), "{outputs:?}");
}

#[test]
fn an_execution_without_an_outcome_counts_as_failed() {
    let mut healer = healer(options().execution_max(5 * SECOND), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 12 * SECOND);
    assert!(events(&outputs).contains(&"failed"), "{outputs:?}");
    let late = healer.handle(12 * SECOND, Input::Outcome { id: 1, result: Ok(()) });
    assert_eq!(late, Err(HandleError::UnknownAction { id: 1 }));
}

#[test]
fn claims_are_made_before_actions_and_carry_their_fence() {
    let mut healer = healer(options().claims(true), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 3 * SECOND);
    assert!(executed(&outputs).is_empty());
    assert!(outputs.iter().any(|output| matches!(output, Output::Claim { id: 1, .. })));
    healer.put(3 * SECOND, Input::Claim { id: 1, fence: Some(77) });
    assert!(
        drain(&mut healer)
            .iter()
            .any(|output| matches!(output, Output::Execute { id: 1, fence: Some(77), .. }))
    );
    assert_eq!(
        healer.handle(3 * SECOND, Input::Claim { id: 1, fence: None }),
        Err(HandleError::UnknownAction { id: 1 })
    );
    // Another healer was first; or nobody answers.
    for (seconds, answer) in [(60, true), (120, false)] {
        healer.put(seconds * SECOND, reading(3, 0.1));
        run(&mut healer, (seconds + 20) * SECOND);
        healer.put((seconds + 20) * SECOND, reading(3, 9.0));
        let outputs = run(&mut healer, (seconds + 23) * SECOND);
        let id = outputs.iter().find_map(|output| match output {
            Output::Claim { id, .. } => Some(*id),
            _ => None,
        });
        if answer {
            healer.put((seconds + 23) * SECOND, Input::Claim { id: id.unwrap(), fence: None });
            assert_eq!(events(&drain(&mut healer)), ["claim-lost"]);
        } else {
            assert!(events(&run(&mut healer, (seconds + 59) * SECOND)).contains(&"claim-lost"));
        }
    }
}

#[test]
fn a_person_approves_where_the_settings_ask_for_it() {
    let mut healer = healer(options().approve("restart"), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 20 * SECOND);
    assert!(executed(&outputs).is_empty());
    let asked: Vec<u64> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Approve { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(asked.len(), 1, "asked once, not in each round");
    let wrong = Input::Command(Command::Approve { id: 99 });
    assert_eq!(healer.handle(20 * SECOND, wrong), Err(HandleError::UnknownAction { id: 99 }));
    healer.put(20 * SECOND, Input::Command(Command::Approve { id: asked[0] }));
    assert_eq!(executed(&run(&mut healer, 22 * SECOND)).len(), 1);
}

/// Each guard refuses on its own: everything else would let the action pass.
#[test]
fn an_operator_sees_what_the_loop_does_and_why_it_does_not_act() {
    let mut healer = healer(options().approve("restart").attempts_max(1), &["restart"]);
    healer.put(Duration::ZERO, reading(1, 0.5));
    healer.put(Duration::ZERO, reading(2, 7.0));
    let why = healer.why_not(Duration::ZERO, &1);
    assert_eq!(why, WhyNot { is_unhealthy: false, candidates: Vec::new() });
    let asked = run(&mut healer, 20 * SECOND);
    assert_eq!(executed(&asked), []);
    let now = healer.last;
    let why = healer.why_not(now, &2);
    assert_eq!(why.candidates, [("restart", Err(Refusal::Approval))]);
    let status = healer.status(now);
    let question = &status.questions[0];
    assert_eq!((question.subject, question.kind, question.stage), (2, "restart", "asking"));
    assert_eq!((&status.unhealthy[..], &status.escalated[..], status.paused), (&[2][..], &[][..], None));
    assert!(status.in_flight.is_empty() && status.grace_until.is_none() && !status.is_storm);
    // A pause is the first guard, and its end is seen without a round.
    healer.put(now, Input::Command(Command::Pause { until: Some(now + SECOND) }));
    assert_eq!(healer.status(now).paused, Some(Some(now + SECOND)));
    assert_eq!(healer.why_not(now, &2).candidates[0].1.as_ref().unwrap_err().guard(), "pause");
    assert_eq!(healer.status(now + SECOND).paused, None);
    healer.put(now, Input::Command(Command::Resume));
    // Asking changes nothing: the approved action is carried out once, and nothing else was recorded.
    healer.put(now, Input::Command(Command::Approve { id: status.questions[0].id }));
    assert_eq!(healer.why_not(now, &2).candidates, [("restart", Ok(()))]);
    drain(&mut healer);
    while healer.in_flight().next().is_none() {
        let due = healer.poll_timeout();
        healer.put(due, Input::Timeout);
    }
    let status = healer.status(healer.last);
    assert_eq!((status.in_flight[0].subject, status.in_flight[0].stage), (2, "executing"));
    assert!(status.questions.is_empty());
    let id = status.in_flight[0].id;
    healer.put(healer.last, Input::Outcome { id, result: Err("no".into()) });
    assert_eq!(healer.status(healer.last).escalated, [2]);
    let last = healer.last;
    assert_eq!(healer.why_not(last, &2).candidates, [("restart", Err(Refusal::Escalated))]);
    healer.put(last, Input::Command(Command::Acknowledge { subject: 2 }));
    assert!(healer.status(last).escalated.is_empty());
}

#[test]
fn every_guard_holds_an_action_back() {
    let refused_by = |options: LoopOptions, kinds: &[&'static str], prepare: &dyn Fn(&mut Healer)| {
        let mut healer = healer(options, kinds);
        healer.put(SECOND, reading(3, 9.0));
        prepare(&mut healer);
        let outputs = run(&mut healer, 10 * SECOND);
        (guards(&outputs).last().cloned().unwrap_or_default(), executed(&outputs).len())
    };
    let nothing = |_: &mut Healer| {};
    let check = |expect: &str, found: (String, usize)| assert_eq!(found, (expect.to_owned(), 0), "{expect}");

    assert_eq!(refused_by(options(), &["restart"], &nothing).1, 1);
    check("grace", refused_by(options().grace(60 * SECOND), &["restart"], &nothing));
    check("stability", refused_by(options().stability(60 * SECOND), &["restart"], &nothing));
    check(
        "pause",
        refused_by(options(), &["restart"], &|healer| {
            healer.put(SECOND, Input::Command(Command::Pause { until: None }));
        }),
    );
    check(
        "planned",
        refused_by(options(), &["restart"], &|healer| {
            healer.put(SECOND, Input::Planned { subject: 3, until: 60 * SECOND });
            assert_eq!(healer.knowledge().planned, [3]);
        }),
    );
    check(
        "precondition",
        refused_by(options(), &["restart"], &|healer| healer.knowledge_mut().impossible = true),
    );
    check(
        "safety",
        refused_by(options(), &["restart"], &|healer| healer.knowledge_mut().unsafe_after = true),
    );
    check(
        "storm",
        refused_by(options().storm(0.3), &["restart"], &|healer| {
            healer.put(SECOND, reading(4, 9.0));
            healer.put(SECOND, reading(5, 9.0));
        }),
    );
    check(
        "budget",
        refused_by(options().budget(0.0), &["restart"], &|healer| {
            healer.put(SECOND, reading(4, 9.0));
        }),
    );
    check("approval", refused_by(options().approve("restart"), &["restart"], &nothing));
    // Actions that nobody notices need no budget.
    assert_eq!(
        refused_by(options().budget(0.0), &["renew"], &|healer| {
            healer.put(SECOND, reading(4, 9.0));
        })
        .1,
        2
    );
}

#[test]
fn one_disruptive_action_at_a_time() {
    let mut healer = healer(options().budget(0.9), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    healer.put(SECOND, reading(5, 9.0));
    let outputs = run(&mut healer, 4 * SECOND);
    assert_eq!(executed(&outputs).len(), 1);
    assert!(guards(&outputs).contains(&"disruption".to_owned()));
    healer.put(4 * SECOND, reading(3, 0.1));
    healer.put(4 * SECOND, Input::Outcome { id: 1, result: Ok(()) });
    assert_eq!(executed(&run(&mut healer, 8 * SECOND)), [(2, Act { kind: "restart", subject: 5 })]);
}

#[test]
fn one_cause_reaches_few_subjects() {
    let mut healer = healer(options().blast_radius(2).back_off_max(100 * SECOND), &["restart"]);
    let mut acted_on = Vec::new();
    for (subject, second) in (0..6).zip((0_u32..).step_by(10)) {
        healer.put(second * SECOND, reading(subject, 9.0));
        for (id, action) in executed(&run(&mut healer, (second + 5) * SECOND)) {
            acted_on.push(action.subject);
            healer.put((second + 5) * SECOND, Input::Outcome { id, result: Ok(()) });
        }
        healer.put((second + 5) * SECOND, reading(subject, 0.1));
        run(&mut healer, (second + 9) * SECOND);
    }
    assert_eq!(acted_on, [0, 1]);
}

#[test]
fn a_storm_holds_the_loop_until_it_was_calm_for_a_while() {
    let mut healer = healer(options().storm(0.5).calm(20 * SECOND), &["restart"]);
    for subject in 0..6 {
        healer.put(SECOND, reading(subject, 9.0));
    }
    assert!(executed(&run(&mut healer, 30 * SECOND)).is_empty());
    for subject in 1..6 {
        healer.put(30 * SECOND, reading(subject, 0.1));
    }
    assert!(executed(&run(&mut healer, 49 * SECOND)).is_empty());
    assert_eq!(executed(&run(&mut healer, 55 * SECOND)).len(), 1);
}

#[test]
fn a_loop_whose_rounds_are_late_accuses_nobody() {
    let mut healer = healer(options(), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    run(&mut healer, 2 * SECOND);
    // The process was stopped for a minute: the readings of the others look old, and so do its own timers.
    let mut outputs = Vec::new();
    healer.handle(62 * SECOND, Input::Timeout).unwrap();
    outputs.extend(drain(&mut healer));
    assert_eq!(guards(&outputs), ["local-health"]);
    assert!(executed(&run(&mut healer, 65 * SECOND)).is_empty());
    assert_eq!(executed(&run(&mut healer, 70 * SECOND)).len(), 1);
}

#[test]
fn a_loop_whose_rounds_are_late_judges_itself() {
    let mut healer = healer(options(), &["leave"]);
    healer.put(SECOND, reading(3, 9.0));
    let mut outputs = Vec::new();
    // Each round is late by more than a period.
    for second in 1..6 {
        healer.put(2 * SECOND * second, reading(3, 9.0));
        outputs.extend(drain(&mut healer));
    }
    assert!(!guards(&outputs).iter().any(|guard| guard == "local-health"), "{:?}", guards(&outputs));
    assert_eq!(executed(&outputs).len(), 1);
}

#[test]
fn the_modes_observe_record_or_act() {
    for (mode, expect) in
        [(Mode::Observe, vec![]), (Mode::DryRun, vec!["refused", "would-execute", "refused"])]
    {
        let mut healer = healer(options().mode(mode), &["restart"]);
        healer.put(SECOND, reading(3, 9.0));
        let outputs = run(&mut healer, 4 * SECOND);
        assert!(executed(&outputs).is_empty());
        assert_eq!(events(&outputs), expect);
    }
}

#[test]
fn advice_passes_the_guards_and_shadows_never_act() {
    let mut healer = healer(options(), &[]);
    healer.add_shadow(Box::new(Heal(vec!["restart"])));
    healer.put(SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 10 * SECOND);
    assert_eq!(events(&outputs), ["shadow"]);
    let advice = |utility| Input::Advice {
        source: "model",
        candidates: vec![Candidate {
            action: Act { kind: "restart", subject: 3 },
            diagnosis: Diagnosis { cause: "guess", confidence: 0.1, runner_up: None },
            utility,
            evidence: Vec::new(),
        }],
    };
    // Advice once is not stable, and no number is no utility.
    healer.put(10 * SECOND, advice(1.0));
    assert!(executed(&run(&mut healer, 15 * SECOND)).is_empty());
    let mut acted = 0;
    for (start, utility) in [(20_u32, f64::NAN), (30, 1.0)] {
        for step in 0..8 {
            healer.put(start * SECOND + step * Duration::from_millis(500), advice(utility));
            acted += executed(&run(&mut healer, start * SECOND + step * Duration::from_millis(500))).len();
        }
        assert_eq!(acted, usize::from(start == 30));
    }
}

#[test]
fn bad_inputs_change_nothing() {
    let mut healer = healer(options(), &["restart"]);
    healer.put(10 * SECOND, Input::Timeout);
    drain(&mut healer);
    assert!(matches!(healer.handle(SECOND, Input::Timeout), Err(HandleError::TimeBackwards { .. })));
    let error = healer.handle(11 * SECOND, reading(3, f64::NAN)).unwrap_err();
    assert!(matches!(error, HandleError::Reading(_)));
    assert!(std::error::Error::source(&error).is_some());
    assert!(drain(&mut healer).is_empty());
    assert!(format!("{healer:?}").contains("heal"));
    assert_eq!(healer.options().budget, 0.3);
}

/// Random worlds with faults, late and lost outcomes, storms and commands. The guards hold at every step, and
/// the same seed gives the same records.
#[test]
fn random_worlds_never_break_a_guard() {
    fn world(seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut random = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let options = options()
            .budget(0.2)
            .storm(0.4)
            .calm(5 * SECOND)
            .back_off(3 * SECOND)
            .claims(seed.is_multiple_of(2));
        let mut healer = healer(options, &["move", "restart", "renew"]);
        let (mut log, mut now) = (Vec::new(), Duration::ZERO);
        let mut running: BTreeMap<u64, Act> = BTreeMap::new();
        let mut claimed = Vec::new();
        for _ in 0..600 {
            now += Duration::from_millis(50 + random(300));
            let input = match random(12) {
                0..=3 => reading(u32::try_from(random(10)).unwrap(), if random(4) == 0 { 6.0 } else { 0.1 }),
                4 => Input::Planned { subject: u32::try_from(random(10)).unwrap(), until: now + SECOND },
                5 => Input::Command(Command::Acknowledge { subject: u32::try_from(random(10)).unwrap() }),
                6 if random(5) == 0 => Input::Command(Command::Pause { until: Some(now + 2 * SECOND) }),
                7..=9 if !claimed.is_empty() => {
                    let id = claimed.remove(0);
                    Input::Claim { id, fence: (random(3) > 0).then_some(id) }
                }
                7..=9 => match running.pop_first() {
                    Some((id, _)) => {
                        let result = if random(4) == 0 { Err("it failed".to_owned()) } else { Ok(()) };
                        Input::Outcome { id, result }
                    }
                    None => Input::Timeout,
                },
                _ => Input::Timeout,
            };
            // An answer that comes too late is an error and changes nothing.
            let _ = healer.handle(now, input);
            for output in drain(&mut healer) {
                match output {
                    Output::Execute { id, action, .. } | Output::Undo { id, action, .. } => {
                        running.insert(id, action);
                    }
                    Output::Claim { id, .. } => claimed.push(id),
                    Output::Record(record) => {
                        assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), *record);
                        log.extend(record.to_bytes());
                    }
                    _ => {}
                }
            }
            let disruptive = |action: &&Act| action.disruption() > Disruption::None;
            assert!(
                healer.in_flight().map(|(_, action)| action).filter(disruptive).count() <= 1,
                "seed {seed}"
            );
            let mut subjects: Vec<_> = healer.in_flight().map(|(_, action)| action.subject).collect();
            subjects.sort_unstable();
            let count = subjects.len();
            subjects.dedup();
            assert_eq!(subjects.len(), count, "two actions on one subject, seed {seed}");
        }
        log
    }
    let mut acted = 0;
    for seed in 0..300 {
        let log = world(seed);
        assert_eq!(log, world(seed));
        acted += usize::from(!log.is_empty());
    }
    assert!(acted > 250, "{acted}");
}

/// Proposes an action for a subject whose cause it does not know.
struct Puzzled;

impl Policy<World, Act> for Puzzled {
    fn name(&self) -> &'static str {
        "puzzled"
    }

    fn decide(&mut self, _: Duration, world: &World, plan: &mut Plan<Act>) {
        for (subject, _) in world.values.iter().filter(|(_, value)| **value > 1.0) {
            let diagnosis = Diagnosis {
                cause: crate::plan::UNKNOWN_CAUSE,
                confidence: 0.8,
                runner_up: Some(("slow", 0.2)),
            };
            let action = Act { kind: "restart", subject: *subject };
            plan.propose(Candidate { action, diagnosis, utility: 1.0, evidence: vec![] });
        }
    }
}

#[test]
fn an_unknown_cause_calls_a_person_once_and_is_never_acted_on() {
    let world = World { values: (0..10).map(|subject| (subject, 0.1)).collect(), ..World::default() };
    let mut healer = Loop::new(world, Box::new(Puzzled), options());
    healer.handle(Duration::ZERO, Input::Timeout).unwrap();
    healer.put(SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 60 * SECOND);
    assert_eq!(executed(&outputs), []);
    assert_eq!(guards(&outputs), ["stability", "diagnosis", "escalated"]);
    let escalated: Vec<_> =
        outputs.iter().filter(|output| matches!(output, Output::Escalate { subject: 3, .. })).collect();
    assert_eq!(escalated.len(), 1);
}

#[test]
fn records_name_the_round_the_penalty_and_the_alternatives() {
    let mut healer = healer(options(), &["restart", "renew"]);
    healer.put(SECOND, reading(3, 9.0));
    let outputs = run(&mut healer, 4 * SECOND);
    let record = outputs.iter().find_map(|output| match output {
        Output::Record(record) if record.event.name() == "executing" => Some(record),
        _ => None,
    });
    let record = record.unwrap();
    assert_eq!((record.kind.as_str(), record.penalty, record.improvement), ("restart", 1.0, 0.3));
    assert_eq!(record.alternatives.len(), 1);
    assert_eq!((record.alternatives[0].kind.as_str(), record.alternatives[0].utility), ("renew", 0.75));
    // Rounds are 500 ms apart, and the first one is at 500 ms.
    assert_eq!(u128::from(record.round), record.at.as_millis() / 500);
    healer.put(4 * SECOND, Input::Outcome { id: 1, result: Ok(()) });
    // The action changed nothing: from now on the penalty is in the records, and decays.
    let outputs = run(&mut healer, 120 * SECOND);
    let penalties: Vec<f64> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Record(record) if record.kind == "restart" && record.penalty < 1.0 => {
                Some(record.penalty)
            }
            _ => None,
        })
        .collect();
    assert!(
        !penalties.is_empty() && penalties.iter().all(|penalty| (0.5..0.6).contains(penalty)),
        "{penalties:?}"
    );
    for output in &outputs {
        if let Output::Record(record) = output {
            record.recompute().unwrap();
        }
    }
}

#[test]
fn drain_carries_out_what_is_given_out() {
    let mut healer = healer(options().claims(true), &["restart"]);
    healer.put(SECOND, reading(3, 9.0));
    healer.put(4 * SECOND, Input::Timeout);
    // Nobody claims for it.
    let records = healer.drain(4 * SECOND, |_| panic!()).unwrap();
    assert_eq!(records.last().unwrap().event.name(), "claim-lost");
    let mut healer = self::healer(options().approve("move"), &["restart", "move"]);
    healer.put(SECOND, reading(3, 9.0));
    healer.put(4 * SECOND, Input::Timeout);
    let mut done = Vec::new();
    let records = healer.drain(4 * SECOND, |action| {
        done.push(action.kind);
        Err("no such worker".into())
    });
    let names: Vec<_> = records.unwrap().iter().map(|record| record.event.name()).collect();
    assert_eq!((done, names.last()), (vec!["restart"], Some(&"failed")));
}

#[cfg(feature = "metrics")]
#[test]
fn the_metrics_count_readings_rounds_records_and_refusals() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        crate::telemetry::describe();
        let mut healer = healer(options(), &["restart"]);
        healer.put(SECOND, reading(3, 9.0));
        assert!(healer.handle(SECOND, reading(3, f64::NAN)).is_err());
        run(&mut healer, 4 * SECOND);
        crate::telemetry::looped(SECOND);
    });
    let mut found = BTreeMap::new();
    for (key, unit, text, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        assert!(unit.is_some() && text.is_some(), "{key}");
        let label = key.labels().next().map(|label| label.value().to_owned());
        let value = match value {
            DebugValue::Counter(value) => value as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(times) => times.len() as f64,
        };
        if value > 0.0 {
            found.insert((key.name().to_owned(), label), value);
        }
    }
    let expect = [
        ("x0_mapek_candidates_total", None, 7.0),
        ("x0_mapek_events_total", Some("executing"), 1.0),
        ("x0_mapek_events_total", Some("refused"), 2.0),
        ("x0_mapek_in_flight", None, 1.0),
        ("x0_mapek_loop_seconds", None, 1.0),
        ("x0_mapek_readings_total", None, 1.0),
        ("x0_mapek_refusals_total", Some("busy"), 1.0),
        ("x0_mapek_refusals_total", Some("stability"), 1.0),
        ("x0_mapek_refused_readings_total", None, 1.0),
        ("x0_mapek_rounds_total", None, 8.0),
        ("x0_mapek_symptoms_total", None, 1.0),
        ("x0_mapek_unhealthy", None, 1.0),
    ];
    let expect = expect.map(|(name, label, value)| ((name.to_owned(), label.map(str::to_owned)), value));
    assert_eq!(found, BTreeMap::from(expect));
}

#[test]
fn each_refusal_names_a_guard_of_the_list_once() {
    use crate::guard::GUARDS;
    let time = SECOND;
    let all = [
        Refusal::Paused { until: None },
        Refusal::Grace { until: time },
        Refusal::LateTimers { score: 1 },
        Refusal::Storm { unhealthy: 2, limit: 2 },
        Refusal::Planned { until: time },
        Refusal::Useless,
        Refusal::Escalated,
        Refusal::Busy { id: 1 },
        Refusal::BackOff { until: time },
        Refusal::Unstable { since: time },
        Refusal::UnknownCause,
        Refusal::Disruptive { id: 1 },
        Refusal::Budget { others: 1, limit: 1 },
        Refusal::BlastRadius { limit: 1 },
        Refusal::Impossible { reason: "".into() },
        Refusal::Unsafe { reason: "".into() },
        Refusal::Approval,
    ];
    assert_eq!(all.map(|refusal| refusal.guard()), GUARDS);
}
