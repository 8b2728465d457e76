use std::time::Duration;

use x0_mapek::conformance::{Situation, check};
use x0_mapek::{Input, Reading, Record};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The place of node 1 in a group of three that all reach each other.
fn place_of(is_leader: bool, heir: Option<NodeId>) -> Place {
    let voters: BTreeSet<_> = [id(1), id(2), id(3)].into();
    let reached = [id(2), id(3)].into();
    Place { is_leader, heir, spare: None, voters, reached }
}

/// The next leader, if this is a transfer.
fn next_leader(action: &Act) -> Option<NodeId> {
    match action {
        Act::Transfer { to, .. } => Some(*to),
        Act::Replace { .. } => None,
    }
}

fn config(mode: HealMode) -> HealConfig {
    HealConfig { mode, ..HealConfig::default() }
}

/// Readings of one value every 100 ms for a minute: what was done, and the records.
fn minute(mode: HealMode, is_leader: bool, heir: Option<NodeId>, age: f64) -> (Vec<NodeId>, Vec<Record>) {
    let mut healer = engine(id(1), &config(mode), false).unwrap();
    let (mut done, mut records) = (Vec::new(), Vec::new());
    for step in 0..600_u32 {
        let now = Duration::from_millis(100) * step;
        // The leadership is gone once it is handed over.
        healer.knowledge_mut().set(place_of(is_leader && done.is_empty(), heir));
        let reading = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: age };
        healer.handle(now, Input::Reading(reading)).unwrap();
        let decided = healer.drain(now, |action| {
            done.extend(next_leader(action));
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
    assert!(engine(id(1), &config(HealMode::Off), false).is_none());
}

/// Several disks that are slow at once have a common cause.
#[test]
fn a_leader_stays_while_other_voters_wait_for_their_disks_too() {
    // Voter 3 reports a write age every second until the end, or until 20 s.
    let minute = |age: u64, until: u32| {
        let mut healer = engine(id(1), &config(HealMode::Active), false).unwrap();
        let (mut done, mut records) = (Vec::new(), Vec::new());
        for step in 0..600_u32 {
            let now = Duration::from_millis(100) * step;
            healer.knowledge_mut().set(place_of(done.is_empty(), Some(id(2))));
            if step % 10 == 0 && step <= until {
                healer.knowledge_mut().heard(now, id(3), Duration::from_millis(age));
                // A node that is no voter says nothing.
                healer.knowledge_mut().heard(now, id(9), Duration::from_secs(9));
            }
            let reading = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: 0.5 };
            healer.handle(now, Input::Reading(reading)).unwrap();
            let decided = healer.drain(now, |action| {
                done.extend(next_leader(action));
                Ok(())
            });
            records.extend(decided.unwrap());
        }
        (done, records)
    };
    let (done, records) = minute(150, 600);
    assert!(done.is_empty(), "{done:?}");
    let reasons: Vec<_> = records.iter().map(Record::explain).collect();
    assert!(reasons.iter().any(|reason| reason.contains("1 of 2 other voters wait")), "{reasons:?}");
    // Below half of the limit, and once the others are well again.
    assert_eq!(minute(149, 600).0, [id(2)]);
    let (done, records) = minute(150, 200);
    assert_eq!(done, [id(2)]);
    let executing = records.iter().find(|record| record.event.name() == "executing").unwrap();
    assert!(executing.at >= 22 * SECOND && executing.at < 24 * SECOND, "{:?}", executing.at);
}

/// A leader that runs only part of the time: readings of a minute.
fn starved_minute(share: f64, stalls: f64) -> (Vec<NodeId>, Vec<Record>) {
    let mut healer = engine(id(1), &config(HealMode::Active), false).unwrap();
    let (mut done, mut records) = (Vec::new(), Vec::new());
    // A node whose timers are this late may accuse no other node; it may judge itself.
    for step in 0..60_u32 {
        let now = Duration::from_millis(1100) * step;
        healer.knowledge_mut().set(place_of(done.is_empty(), Some(id(3))));
        for (signal, value) in [(STALLS, stalls), (STALLED_SHARE, share), (WRITE_AGE, 0.0)] {
            healer.handle(now, Input::Reading(Reading { subject: Member(id(1)), signal, value })).unwrap();
        }
        let decided = healer.drain(now, |action| {
            done.extend(next_leader(action));
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    (done, records)
}

#[test]
fn a_starved_leader_hands_the_leadership_over_and_a_paused_one_does_not() {
    let (done, records) = starved_minute(0.8, 4.0);
    assert_eq!(done, [id(3)]);
    assert_eq!(names(&records), ["refused", "executing", "executed", "improved"]);
    assert_eq!((records[1].cause.as_str(), records[1].evidence.len()), ("starved", 2));
    for record in &records {
        record.recompute().unwrap();
    }
    // One long pause, and many short ones.
    assert_eq!(starved_minute(0.8, 2.0), (vec![], vec![]));
    assert_eq!(starved_minute(0.4, 9.0), (vec![], vec![]));
}

/// A minute and a half of a leader whose voter 3 is dead, with spare 4 if `has_spare`. What was done, and the
/// records.
fn dead_voter(
    mode: HealMode,
    after: Option<u64>,
    reached: &[u64],
    has_spare: bool,
) -> (Vec<Act>, Vec<Record>) {
    let config = HealConfig { replace_after_s: after, ..config(mode) };
    let mut healer = engine(id(1), &config, false).unwrap();
    let mut samples = Samples::default();
    let (mut done, mut records) = (Vec::new(), Vec::new());
    for step in 0..900_u32 {
        let now = Duration::from_millis(100) * step;
        let mut place = place_of(true, Some(id(2)));
        place.reached = reached.iter().copied().map(id).collect();
        place.spare = has_spare.then_some(id(4));
        if !done.is_empty() {
            place.voters = [id(1), id(2), id(4)].into();
            place.spare = None;
        }
        let others: Vec<_> = place.voters.iter().copied().filter(|voter| *voter != id(1)).collect();
        let silences = samples.silences(now, others.into_iter(), &place.reached);
        healer.knowledge_mut().set(place);
        for (subject, silent) in silences {
            let reading = Reading { subject: Member(subject), signal: SILENCE, value: silent.as_secs_f64() };
            healer.handle(now, Input::Reading(reading)).unwrap();
        }
        let decided = healer.drain(now, |action| {
            done.push(*action);
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    (done, records)
}

#[test]
fn a_dead_voter_is_replaced_by_a_spare_after_its_time() {
    let (done, records) = dead_voter(HealMode::Active, Some(60), &[2, 4], true);
    assert_eq!(done, [Act::Replace { dead: Member(id(3)), spare: id(4) }]);
    assert_eq!(names(&records), ["refused", "executing", "executed", "improved"]);
    assert!(records[1].at >= 61 * SECOND && records[1].at < 63 * SECOND, "{:?}", records[1].at);
    assert_eq!((records[1].cause.as_str(), records[1].evidence[0].threshold), ("dead", 60.0));
    for record in &records {
        record.recompute().unwrap();
    }
}

#[test]
fn a_dead_voter_is_kept_without_a_setting_a_spare_or_a_majority() {
    for (after, reached, has_spare) in [
        (None, &[2, 4][..], true),
        (Some(60), &[2][..], false),
        (Some(120), &[2, 4][..], true),
        (Some(60), &[2, 3, 4][..], true),
    ] {
        let (done, records) = dead_voter(HealMode::Active, after, reached, has_spare);
        assert_eq!((done, records), (vec![], vec![]), "{after:?} {reached:?} {has_spare}");
    }
    // Two of three voters are dead: a common cause is likely, and no change could be committed.
    let (done, records) = dead_voter(HealMode::Active, Some(60), &[4], true);
    assert!(done.is_empty() && names(&records).iter().all(|name| *name == "refused"), "{records:?}");
    let (done, records) = dead_voter(HealMode::DryRun, Some(60), &[2, 4], true);
    assert!(done.is_empty() && names(&records).contains(&"would-execute"), "{records:?}");
}

/// The leader alone is cut off from a voter that the others reach, or nobody else answers.
#[test]
fn a_voter_is_dead_only_for_a_majority() {
    let voters: BTreeSet<_> = (1..=5).map(id).collect();
    let with =
        |answers: &[(u64, bool)]| witnessed(&voters, answers.iter().map(|(node, is)| (id(*node), *is)));
    assert_eq!(with(&[(2, false), (3, false), (4, false)]), Ok(()));
    assert_eq!(with(&[(2, false), (3, false)]), Ok(()));
    assert!(with(&[(2, false)]).unwrap_err().contains("only 2 of 5 voters"));
    assert!(with(&[]).unwrap_err().contains("only 1 of 5 voters"));
    assert!(with(&[(2, false), (3, false), (4, true)]).unwrap_err().contains("reaches it"));
}

#[test]
fn a_change_that_leaves_no_reached_majority_is_unsafe() {
    let mut view = View::new(id(1), SECOND, Some(60 * SECOND));
    let action = Act::Replace { dead: Member(id(3)), spare: id(4) };
    for (reached, expect) in [(&[2, 4][..], true), (&[4][..], true), (&[2][..], true), (&[][..], false)] {
        let reached = reached.iter().copied().map(id).collect();
        let place = Place { spare: Some(id(4)), reached, ..place_of(true, None) };
        view.set(place);
        assert_eq!(action.is_safe(&view).is_ok(), expect, "{:?}", view.place.reached);
    }
    // The voter has returned.
    view.set(Place { spare: Some(id(4)), ..place_of(true, None) });
    assert!(action.precondition(&view).unwrap_err().contains("reached again"));
}

/// Both disks are slow: each healer hands over at most three times, and then calls a person.
#[test]
fn a_transfer_that_does_not_help_ends_with_an_escalation() {
    let mut healer = engine(id(1), &config(HealMode::Active), false).unwrap();
    let (mut done, mut records) = (0, Vec::new());
    for step in 0..36_000_u32 {
        let now = Duration::from_millis(100) * step;
        // The node is the leader again at once.
        healer.knowledge_mut().set(place_of(true, Some(id(2))));
        let reading = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: 0.5 };
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
        let mut view = View::new(id(1), Duration::from_millis(300), Some(60 * SECOND));
        view.set(place_of(true, Some(id(2))));
        view
    };
    let situation = |value, is_healed| Situation {
        readings: vec![(SECOND, Reading { subject: Member(id(1)), signal: WRITE_AGE, value })],
        stale_after: 2 * SECOND,
        is_healed,
    };
    check(knowledge, || Heal, &[situation(0.1, false), situation(0.5, true)]).unwrap();
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
        "transfer-leadership of node 0000000000000001",
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

#[test]
fn an_operator_sees_questions_pauses_and_the_guard_that_holds() {
    let config =
        HealConfig { approve: vec![config::ActionKind::TransferLeadership], ..config(HealMode::Active) };
    let mut healer = engine(id(1), &config, false).unwrap();
    healer.knowledge_mut().set(place_of(true, Some(id(2))));
    let feed = |healer: &mut Loop<View, Act>, step: u32| {
        let now = Duration::from_millis(100) * step;
        let reading = Reading { subject: Member(id(1)), signal: WRITE_AGE, value: 0.5 };
        healer.handle(now, Input::Reading(reading)).unwrap();
        let mut executed = Vec::new();
        healer
            .drain(now, |action| {
                executed.push(*action);
                Ok(())
            })
            .unwrap();
        (now, executed)
    };
    let (now, _) = feed(&mut healer, 1);
    let early = status(&healer, now, String::new());
    assert_eq!((early.grace_s, early.mode.as_str(), early.is_leader), (10, "active", true));
    for step in 2..200 {
        assert_eq!(feed(&mut healer, step).1, [], "a person must approve");
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
    let acted = (200..220).any(|step| !feed(&mut healer, step).1.is_empty());
    assert!(acted, "the approved action is carried out");
    assert_eq!(why_not(&mut healer, SECOND * 22, id(1)).mode, "active");
}
