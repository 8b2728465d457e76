use super::*;
use crate::plan::{Diagnosis, Evidence};

fn record(event: Event) -> Record {
    let candidate = Candidate {
        action: (),
        diagnosis: Diagnosis { cause: "slow-disk", confidence: 0.9, runner_up: Some(("load", 0.1)) },
        utility: 2.5,
        evidence: vec![Evidence {
            signal: "fsync_seconds",
            value: 0.5,
            threshold: 0.05,
            age: Duration::from_millis(200),
        }],
    };
    Record::new(7, Duration::from_millis(12_500), 3, "heal", "transfer", "node \"2\"", &candidate, event)
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
  fsync_seconds was 0.5, threshold 0.05, 0.200s old";
    assert_eq!(text, expect);
    let texts: std::collections::BTreeSet<_> =
        all().into_iter().map(|event| record(event).explain()).collect();
    assert_eq!(texts.len(), all().len());
}

#[test]
fn json_is_one_line_whatever_a_text_holds() {
    let json = record(Event::Improved { before: f64::NAN, after: 0.5 }).to_json();
    let expect = r#"{"number":7,"at":12.5,"action":3,"policy":"heal","kind":"transfer","subject":"node \"2\"","cause":"slow-disk","confidence":0.9,"runner_up":{"cause":"load","confidence":0.1},"utility":2.5,"evidence":[{"signal":"fsync_seconds","value":0.5,"threshold":0.05,"age":0.2}],"event":"improved","before":null,"after":0.5}"#;
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
            assert_eq!(error, RecordDecodeError::Cut { offset: end });
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Record::from_bytes(&longer), Err(RecordDecodeError::Trailing { len: 1 }));
        longer[0] = 2;
        assert_eq!(Record::from_bytes(&longer), Err(RecordDecodeError::Version { version: 2 }));
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
    for _ in 0..200_000 {
        let mut bytes = record(events[random(events.len())].clone()).to_bytes();
        for _ in 0..=random(3) {
            let place = random(bytes.len());
            bytes[place] = u8::try_from(random(256)).unwrap();
        }
        if let Ok(record) = Record::from_bytes(&bytes) {
            decoded += 1;
            assert_eq!(record.to_bytes(), bytes);
            let _ = (record.explain(), record.to_json());
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
