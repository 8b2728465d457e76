use std::collections::BTreeMap;

use super::*;
use crate::action::Expectation;
use crate::codec::{DecodeError, TEXT_LEN_MAX};
use crate::detect::ReadingError;
use crate::guard::{DISRUPTION_GUARDS, GUARDS};
use crate::knowledge::Reading;
use crate::plan::{Diagnosis, Evidence, Plan, Policy};

/// The name of a node, whose `Debug` form has quotes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Node(u8);

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node \"{}\"", self.0)
    }
}

#[derive(Debug, Clone, Default)]
struct Delays(BTreeMap<u8, f64>);

impl Knowledge for Delays {
    type Subject = Node;

    fn observe(&mut self, _: Duration, reading: &Reading<Node>) -> Result<(), ReadingError> {
        if reading.value < 0.0 {
            return Err(ReadingError::NotPositive { value: reading.value });
        }
        self.0.insert(reading.subject.0, reading.value);
        Ok(())
    }

    fn subject_count(&self) -> usize {
        3
    }

    fn unhealthy(&self, _: Duration, _: &mut dyn FnMut(&Node)) {}
}

#[derive(Debug, Clone)]
struct Transfer(Node, &'static str);

impl Action<Delays> for Transfer {
    fn kind(&self) -> &'static str {
        self.1
    }

    fn subject(&self) -> &Node {
        &self.0
    }

    fn disruption(&self) -> Disruption {
        Disruption::Brief
    }

    fn badness(&self, delays: &Delays) -> Option<f64> {
        delays.0.get(&self.0.0).copied()
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: Duration::from_secs(2), improvement: 0.5 }
    }
}

fn ranked() -> Ranked<Transfer> {
    let candidate = Candidate {
        action: Transfer(Node(2), "transfer"),
        diagnosis: Diagnosis { cause: "slow-disk", confidence: 0.9, runner_up: Some(("load", 0.1)) },
        utility: 2.5,
        evidence: vec![Evidence {
            signal: "fsync_seconds",
            value: 0.5,
            threshold: 0.05,
            age: Duration::from_millis(200),
        }],
    };
    let alternatives = vec![("restart", 1.5), ("shed-load", 0.75)];
    Ranked { penalty: 0.8, alternatives, ..Ranked::new("heal", candidate, 11) }
}

fn record(event: Event) -> Record {
    Record::new::<Delays, _>(7, Duration::from_millis(12_500), 3, &ranked(), event)
}

fn all() -> Vec<Event> {
    let text = || "a reason".to_owned();
    vec![
        Event::Refused { guard: "budget".into(), reason: text() },
        Event::Shadow,
        Event::WouldExecute,
        Event::ClaimLost,
        Event::Executing { fence: None },
        Event::Executing { fence: Some(u64::MAX) },
        Event::Executed,
        Event::Failed { reason: text() },
        Event::Improved { before: 5.0, after: 0.5 },
        Event::NoEffect { before: 5.0, after: 5.0 },
        Event::Worse { before: 5.0, after: 9.0 },
        Event::Undoing { fence: None },
        Event::Undoing { fence: Some(4) },
        Event::Undone,
        Event::Escalated { reason: text() },
    ]
}

#[test]
fn a_record_explains_itself() {
    let text = record(Event::Executing { fence: Some(4) }).explain();
    let expect = "at 12.500s, transfer of node \"2\": executing, fence 4 (action 3)
because heal sees slow-disk (confidence 0.90; next likely: load, 0.10)
  fsync_seconds was 0.5, threshold 0.05, 0.200s old
  utility 2.5, 2 after the penalty 0.8 for what did not help before; beside it: restart 1.5, shed-load 0.75
  expected: less by a share of 0.5 within 2.000s";
    assert_eq!(text, expect);
    let texts: std::collections::BTreeSet<_> =
        all().into_iter().map(|event| record(event).explain()).collect();
    assert_eq!(texts.len(), all().len());
}

#[test]
fn json_is_one_line_whatever_a_text_holds() {
    let json = record(Event::Improved { before: f64::NAN, after: 0.5 }).to_json();
    let expect = r#"{"number":7,"at":12.5,"round":11,"action":3,"policy":"heal","kind":"transfer","subject":"node \"2\"","cause":"slow-disk","disruption":"brief","confidence":0.9,"runner_up":{"cause":"load","confidence":0.1},"utility":2.5,"penalty":0.8,"improvement":0.5,"within":2,"evidence":[{"signal":"fsync_seconds","value":0.5,"threshold":0.05,"age":0.2}],"alternatives":[{"kind":"restart","utility":1.5},{"kind":"shed-load","utility":0.75}],"event":"improved","before":null,"after":0.5}"#;
    assert_eq!(json, expect);
    let hostile = Event::Failed { reason: "line\nline\r\u{202e}\u{7}\\".into() };
    let json = record(hostile).to_json();
    assert!(json.ends_with(r#""event":"failed","reason":"line\u000aline\u000d\u202e\u0007\\"}"#), "{json}");
    for event in all() {
        let json = record(event.clone()).to_json();
        assert!(json.contains(&format!("\"event\":\"{}\"", event.name())) && !json.contains('\n'));
    }
}

#[test]
fn bytes_are_canonical_and_every_cut_is_an_error() {
    for event in all() {
        let record = record(event);
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
        for end in 0..bytes.len() {
            let error = Record::from_bytes(&bytes[..end]).unwrap_err();
            assert_eq!(error, DecodeError::Cut { object: "record", offset: end });
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Record::from_bytes(&longer), Err(DecodeError::Trailing { object: "record", len: 1 }));
        longer[0] = 2;
        assert_eq!(Record::from_bytes(&longer), Err(DecodeError::Version { object: "record", version: 2 }));
    }
}

/// What decodes is canonical; what does not is an error. No mutation panics.
#[test]
fn mutated_bytes_are_refused_or_canonical() {
    let mut state = 5_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    let events = all();
    let mut decoded = 0;
    for _ in 0..crate::mutations() {
        let mut bytes = record(events[random(events.len())].clone()).to_bytes();
        for _ in 0..=random(3) {
            let place = random(bytes.len());
            bytes[place] = u8::try_from(random(256)).unwrap();
        }
        if let Ok(record) = Record::from_bytes(&bytes) {
            decoded += 1;
            assert_eq!(record.to_bytes(), bytes);
            let _ = (record.explain(), record.to_json(), record.guards(), record.recompute());
        }
    }
    assert!(decoded > 1000, "{decoded}");
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let reason = "ü".repeat(150);
    let record = record(Event::Failed { reason });
    let Event::Failed { reason } = &record.event else { panic!() };
    assert_eq!(reason.len(), TEXT_LEN_MAX);
    assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
}

/// All numbers of a text.
fn numbers(text: &str) -> Vec<f64> {
    let is_part = |character: char| character.is_ascii_digit() || character == '.';
    text.split(|character| !is_part(character)).filter_map(|part| part.parse().ok()).collect()
}

#[test]
fn every_number_in_the_text_follows_from_the_fields() {
    for event in all() {
        let record = Record::from_bytes(&record(event).to_bytes()).unwrap();
        record.recompute().unwrap();
        let mut fields = vec![
            record.at.as_secs_f64(),
            2.0, // the number in the subject
            record.action as f64,
            record.confidence,
            record.runner_up.as_ref().unwrap().1,
            record.utility,
            record.penalty,
            record.utility * record.penalty,
            record.improvement,
            record.within.as_secs_f64(),
        ];
        for EvidenceRecord { value, threshold, age, .. } in &record.evidence {
            fields.extend([*value, *threshold, age.as_secs_f64()]);
        }
        fields.extend(record.alternatives.iter().map(|alternative| alternative.utility));
        match &record.event {
            Event::Improved { before, after }
            | Event::NoEffect { before, after }
            | Event::Worse { before, after } => fields.extend([*before, *after]),
            Event::Executing { fence } | Event::Undoing { fence } => {
                fields.extend(fence.map(|fence| fence as f64));
            }
            _ => {}
        }
        for number in numbers(&record.explain()) {
            assert!(fields.iter().any(|field| (field - number).abs() <= field.abs() * 1e-12), "{number}");
        }
    }
}

#[test]
fn a_record_whose_numbers_do_not_follow_is_found() {
    let bad = |event| record(event).recompute().unwrap_err().to_string();
    let verdict = "does not follow from 5 before";
    assert!(bad(Event::Improved { before: 5.0, after: 4.0 }).contains(verdict));
    assert!(bad(Event::NoEffect { before: 5.0, after: 0.0 }).contains(verdict));
    assert!(bad(Event::Worse { before: 5.0, after: 7.0 }).contains(verdict));
    // A badness that is not known proves nothing.
    assert_eq!(record(Event::NoEffect { before: f64::NAN, after: 0.0 }).recompute(), Ok(()));
    let unknown = record(Event::NoEffect { before: f64::NAN, after: 0.0 }).explain();
    assert!(unknown.contains("changed nothing: unknown before, 0 after"), "{unknown}");
    let guard = bad(Event::Refused { guard: "mood".into(), reason: String::new() });
    assert!(guard.contains("names the guard mood"), "{guard}");
    let gentle = Record { disruption: Disruption::None, ..record(all().remove(0)) };
    assert!(matches!(gentle.recompute(), Err(Mismatch::Guard { .. })), "no budget without a disruption");
    let useless = Record { utility: f64::NAN, ..record(Event::Executed) };
    assert!(matches!(useless.recompute(), Err(Mismatch::Utility { .. })));
    for confidence in [1.5, -0.1, f64::NAN] {
        let unsure = Record { confidence, ..record(Event::Executed) };
        assert!(matches!(unsure.recompute(), Err(Mismatch::Share { field: "confidence", .. })));
    }
}

#[test]
fn a_record_holds_the_verdict_of_each_guard() {
    let guards = record(Event::Refused { guard: "budget".into(), reason: String::new() }).guards();
    let place = GUARDS.iter().position(|guard| *guard == "budget").unwrap();
    for (index, (guard, verdict)) in guards.into_iter().enumerate() {
        let expect = match index.cmp(&place) {
            std::cmp::Ordering::Less => GuardVerdict::Passed,
            std::cmp::Ordering::Equal => GuardVerdict::Refused,
            std::cmp::Ordering::Greater => GuardVerdict::NotAsked,
        };
        assert_eq!((guard, verdict), (GUARDS[index], expect));
    }
    let passed = Record { disruption: Disruption::None, ..record(Event::Executed) }.guards();
    assert_eq!(passed.len(), GUARDS.len() - DISRUPTION_GUARDS.len());
    assert!(passed.iter().all(|(_, verdict)| *verdict == GuardVerdict::Passed));
    assert_eq!(record(Event::Shadow).guards(), []);
}

/// Moves every node above a limit.
struct Move(f64);

impl Policy<Delays, Transfer> for Move {
    fn name(&self) -> &'static str {
        "move"
    }

    fn decide(&mut self, _: Duration, delays: &Delays, plan: &mut Plan<Transfer>) {
        for (node, delay) in delays.0.iter().filter(|(_, delay)| **delay > self.0) {
            let diagnosis = Diagnosis { cause: "slow", confidence: 0.5, runner_up: None };
            for (kind, factor) in [("move", 1.0), ("transfer", 2.0)] {
                let action = Transfer(Node(*node), kind);
                plan.propose(Candidate { action, diagnosis, utility: delay * factor, evidence: vec![] });
            }
        }
    }
}

#[test]
fn a_replay_says_what_another_policy_would_have_done() {
    let later =
        Record { at: Duration::from_secs(20), subject: "node \"1\"".into(), ..record(Event::Executed) };
    let mut unusable = later.clone();
    unusable.evidence[0].value = -1.0;
    let mut foreign = later.clone();
    foreign.evidence[0].signal = "other".into();
    let nobody = Record { subject: "node 9".into(), ..later.clone() };
    let records = [later, record(Event::Executed), unusable, foreign, nobody];
    let subject = |text: &str| Some(Node(text.strip_prefix("node \"")?.strip_suffix('"')?.parse().ok()?));
    let ask = |limit| replay(&records, Delays::default(), &mut Move(limit), subject, &["fsync_seconds"]);
    let replayed = ask(0.3);
    // The reading of -1 replaced the one of the same time, and was refused.
    assert_eq!((replayed.rounds.len(), replayed.left_out), (2, 3));
    let [first, second] = replayed.rounds.as_slice() else { panic!() };
    assert_eq!((first.at, first.records.as_slice()), (Duration::from_millis(12_500), [1].as_slice()));
    assert_eq!(second.records, [0, 2, 3, 4]);
    let rows: Vec<_> = first.proposals.iter().map(|p| (p.kind, p.subject.as_str(), p.utility)).collect();
    assert_eq!(rows, [("transfer", "node \"2\"", 1.0), ("move", "node \"2\"", 0.5)]);
    assert!(first.agrees(&records[1]) && !first.agrees(&records[0]));
    assert!(ask(0.6).rounds.iter().all(|round| round.proposals.is_empty()));
}
