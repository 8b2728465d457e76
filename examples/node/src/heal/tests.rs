use std::time::Duration;

use x0_mapek::kv::Healer as Engine;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The leader of three nodes that reach each other, whose disk does not take a write.
fn slow_leader() -> Observation {
    let mut observation = Observation::new(id(1));
    observation.leader = Some(id(1));
    observation.voters = [id(1), id(2), id(3)].into();
    observation.reached = [id(2), id(3)].into();
    observation.acknowledged = [(id(2), 0)].into();
    observation.writing_since = Some(Duration::ZERO);
    observation
}

/// Takes the sample of a slow leader, the `step`th. Its time, the transfers, and the records.
fn sample(healer: &mut Engine, step: u32) -> (Duration, usize, Vec<Record>) {
    let now = SAMPLE * step;
    healer.handle(now, Input::Sample(&slow_leader())).unwrap();
    let (mut transfers, mut records) = (0, Vec::new());
    while let Some(output) = healer.poll_output() {
        match output {
            Output::Transfer { id, .. } => {
                transfers += 1;
                healer.handle(now, Input::Outcome { id, result: Ok(()) }).unwrap();
            }
            Output::Record(record) => records.push(*record),
            _ => {}
        }
    }
    (now, transfers, records)
}

/// The records of an active healer in half a minute.
fn half_a_minute() -> Vec<Record> {
    let mut healer = Engine::new(id(1), &HealerOptions::new().mode(Mode::Active));
    (0..300).flat_map(|step| sample(&mut healer, step).2).collect()
}

#[test]
fn the_section_sets_the_healer() {
    let of = |text: &str| options(&toml::from_str(text).unwrap());
    assert_eq!(of("mode = \"off\""), None);
    assert_eq!(of(""), Some(HealerOptions::new()));
    let all =
        "mode = \"active\"\nslow_disk_ms = 500\nreplace_after_s = 60\nvoters = 5\napprove = [\"take-over\"]";
    let expect = HealerOptions::new()
        .mode(Mode::Active)
        .slow_disk(SECOND / 2)
        .replace_after(Some(60 * SECOND))
        .voters(Some(5))
        .approve(kv::ActionKind::TakeOver);
    assert_eq!(of(all), Some(expect));
    // Records and configurations name a kind alike.
    for kind in kv::ActionKind::ALL {
        let read: HealConfig = toml::from_str(&format!("approve = [\"{}\"]", kind.name())).unwrap();
        assert_eq!(read.approve[0].kind(), kind);
    }
}

#[test]
fn records_are_bounded_and_survive_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let made = half_a_minute();
    let numbered = |range: std::ops::Range<u64>| {
        let made = made.clone();
        range.map(move |number| {
            let mut record = made[1].clone();
            record.number = number;
            record
        })
    };
    assert_eq!(records::read(folder.path()).unwrap(), []);
    records::write_for_test(folder.path(), numbered(0..3));
    // A crash in the middle of a record; the next start drops it.
    let path = folder.path().join("records");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    records::write_for_test(folder.path(), numbered(3..5));
    let numbers: Vec<_> = records::read(folder.path()).unwrap().iter().map(|record| record.number).collect();
    assert_eq!(numbers, [0, 1, 3, 4]);
    records::write_for_test(folder.path(), numbered(5..9000));
    let len: u64 =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(len < 600 << 10, "{len} bytes");
    let kept = records::read(folder.path()).unwrap();
    assert!(
        kept.windows(2).all(|pair| pair[1].number == pair[0].number + 1) && kept.len() > 500,
        "{}",
        kept.len()
    );
    assert_eq!(kept.last().unwrap().number, 8999);
    // Whatever else is in the file, its records up to there are read.
    std::fs::write(&path, [0xff; 64]).unwrap();
    records::read(folder.path()).unwrap();
}

#[test]
fn why_names_the_guards_and_repeats_the_arithmetic() {
    let records = half_a_minute();
    let text = commands::why(&records[0]);
    for expect in [
        "transfer-leadership of node 0000000000000001",
        "slow-disk",
        "write_age_seconds was ",
        "threshold 0.3",
        "guards passed: pause; refused: grace; not asked: local-health",
        "all numbers follow from the record",
    ] {
        assert!(text.contains(expect), "{text:?} lacks {expect:?}");
    }
    let mut forged = records[1].clone();
    forged.utility = 0.0;
    assert!(commands::why(&forged).contains("damaged or forged"));
    let all = commands::check(&records, false).unwrap();
    assert_eq!(all, format!("{} records: all numbers follow from the record\n", records.len()));
    let records = [records[0].clone(), forged];
    let error = commands::check(&records, false).unwrap_err().to_string();
    assert!(error.starts_with("1 of 2 records:\n") && error.contains("damaged or forged"), "{error}");
    let json = commands::check(&records, true).unwrap();
    assert!(json.starts_with("{\"records\":2,\"wrong\":[\"record "), "{json}");
}

#[test]
fn an_operator_sees_questions_pauses_and_the_guard_that_holds() {
    let options = HealerOptions::new().mode(Mode::Active).approve(kv::ActionKind::TransferLeadership);
    let mut healer = Engine::new(id(1), &options);
    let (now, ..) = sample(&mut healer, 1);
    let early = status(&healer, now, String::new());
    assert_eq!((early.grace_s, early.mode.as_str(), early.is_leader), (10, "active", true));
    for step in 2..200 {
        assert_eq!(sample(&mut healer, step).1, 0, "a person must approve");
    }
    let now = Duration::from_millis(100) * 199;
    let shown = status(&healer, now, String::new());
    assert_eq!((shown.questions.len(), shown.questions[0].kind.as_str()), (1, "transfer-leadership"));
    assert_eq!((shown.grace_s, shown.unhealthy[0].readings[0].threshold), (0, 0.3));
    let why = why_not(&mut healer, now, id(1));
    assert_eq!((why.candidates[0].guard.as_str(), why.is_unhealthy), ("approval", true));
    assert_eq!(why_not(&mut healer, now, id(2)).candidates, []);

    let pause = Input::Command(Command::Pause { until: Some(now + SECOND * 90) });
    healer.handle(now, pause).unwrap();
    let paused = status(&healer, now, "upgrade".into()).paused.unwrap();
    assert_eq!((paused.seconds, paused.reason.as_str()), (Some(90), "upgrade"));
    assert_eq!(why_not(&mut healer, now, id(1)).candidates[0].guard, "pause");
    healer.handle(now, Input::Command(Command::Resume)).unwrap();
    healer.handle(now, Input::Command(Command::Approve { id: shown.questions[0].id })).unwrap();
    let acted = (200..220).any(|step| sample(&mut healer, step).1 > 0);
    assert!(acted, "the approved action is carried out");
    assert_eq!(why_not(&mut healer, SECOND * 22, id(1)).mode, "active");
}
