use std::time::{Duration, Instant};

use x0_mapek::conformance::{Situation, check};
use x0_mapek::{Input, Reading, Record};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn config(mode: HealMode) -> HealConfig {
    HealConfig { mode, ..HealConfig::default() }
}

/// Readings of one value every 100 ms for a minute: what was done, and the records.
fn minute(mode: HealMode, is_leader: bool, heir: Option<NodeId>, age: f64) -> (Vec<NodeId>, Vec<Record>) {
    let mut healer = engine(id(1), &config(mode)).unwrap();
    let (mut done, mut records) = (Vec::new(), Vec::new());
    for step in 0..600_u32 {
        let now = Duration::from_millis(100) * step;
        // The leadership is gone once it is handed over.
        healer.knowledge_mut().set(is_leader && done.is_empty(), heir, 3);
        let reading = Reading { subject: id(1), signal: WRITE_AGE, value: age };
        healer.handle(now, Input::Reading(reading)).unwrap();
        let decided = healer.drain(now, |transfer| {
            done.push(transfer.to);
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    (done, records)
}

fn names(records: &[Record]) -> Vec<&'static str> {
    records.iter().map(|record| record.event.name()).collect()
}

#[test]
fn a_leader_with_a_slow_disk_hands_the_leadership_over_once() {
    let (done, records) = minute(HealMode::Active, true, Some(id(2)), 0.5);
    assert_eq!(done, [id(2)]);
    // Grace and stability refuse it first.
    assert_eq!(names(&records), ["refused", "executing", "executed", "improved"]);
    let executing = &records[1];
    assert!(executing.at >= 10 * SECOND && executing.at < 12 * SECOND, "{:?}", executing.at);
    assert_eq!((executing.cause.as_str(), executing.evidence[0].threshold), ("slow-disk", 0.3));
    for record in &records {
        record.recompute().unwrap();
    }
}

#[test]
fn nothing_is_done_in_a_dry_run_without_an_heir_or_as_a_follower() {
    let (done, records) = minute(HealMode::DryRun, true, Some(id(2)), 0.5);
    assert!(done.is_empty() && names(&records).contains(&"would-execute"), "{:?}", names(&records));
    for (mode, is_leader, heir, age) in [
        (HealMode::Observe, true, Some(id(2)), 0.5),
        (HealMode::Active, false, Some(id(2)), 0.5),
        (HealMode::Active, true, None, 0.5),
        (HealMode::Active, true, Some(id(2)), 0.299),
    ] {
        assert_eq!(
            minute(mode, is_leader, heir, age),
            (vec![], vec![]),
            "{mode:?} {is_leader} {heir:?} {age}"
        );
    }
    assert!(engine(id(1), &config(HealMode::Off)).is_none());
}

/// Both disks are slow: each healer hands over at most three times, and then calls a person.
#[test]
fn a_transfer_that_does_not_help_ends_with_an_escalation() {
    let mut healer = engine(id(1), &config(HealMode::Active)).unwrap();
    let (mut done, mut records) = (0, Vec::new());
    for step in 0..36_000_u32 {
        let now = Duration::from_millis(100) * step;
        // It is the leader again at once.
        healer.knowledge_mut().set(true, Some(id(2)), 3);
        let reading = Reading { subject: id(1), signal: WRITE_AGE, value: 0.5 };
        healer.handle(now, Input::Reading(reading)).unwrap();
        let decided = healer.drain(now, |_| {
            done += 1;
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    assert_eq!(done, 3);
    assert!(names(&records).contains(&"escalated"));
}

#[test]
fn the_policy_keeps_the_contract() {
    let knowledge = || {
        let mut disk = Disk::new(id(1), Duration::from_millis(300));
        disk.set(true, Some(id(2)), 3);
        disk
    };
    let situation = |value, is_healed| Situation {
        readings: vec![(SECOND, Reading { subject: id(1), signal: WRITE_AGE, value })],
        stale_after: 2 * SECOND,
        is_healed,
    };
    check(knowledge, || LeaveSlowDisk, &[situation(0.1, false), situation(0.5, true)]).unwrap();
}

#[test]
fn the_age_is_that_of_the_write_that_waits_and_is_remembered_for_two_seconds() {
    let begun = Instant::now();
    let mut ages = WriteAges::default();
    let mut at = |step: u32, since: Option<u64>| {
        ages.sample(begun + SAMPLE * step, since.map(Duration::from_secs)).as_millis()
    };
    assert_eq!([at(0, None), at(1, Some(7)), at(2, Some(7)), at(5, Some(7))], [0, 0, 100, 400]);
    // Another write begins at zero; the longest wait of the last 20 samples counts.
    assert_eq!([at(6, Some(8)), at(7, None)], [400, 400]);
    let later: Vec<_> = (8..30).map(|step| at(step, None)).collect();
    assert_eq!((later[16], later[17]), (400, 0));
}

#[test]
fn records_are_bounded_and_survive_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let (_, made) = minute(HealMode::Active, true, Some(id(2)), 0.5);
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
    let (_, records) = minute(HealMode::Active, true, Some(id(2)), 0.5);
    let text = commands::why(&records[0]);
    for expect in [
        "transfer-leadership of",
        "slow-disk",
        "write_age_seconds was 0.5, threshold 0.3",
        "guards passed: pause; refused: grace; not asked: local-health",
        "all numbers follow from the record",
    ] {
        assert!(text.contains(expect), "{text:?} lacks {expect:?}");
    }
    let mut forged = records[1].clone();
    forged.utility = 0.0;
    assert!(commands::why(&forged).contains("damaged or forged"));
}
