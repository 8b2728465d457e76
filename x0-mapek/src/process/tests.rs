//! Leaks, isolation, and what forbids a restart.

use super::*;
use crate::{Event, Record};

const SECOND: Duration = Duration::from_secs(1);

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A node of three voters that is supervised, reaches the others, and uses a part of its memory.
fn well(memory_share: f64) -> Observation {
    Observation {
        is_supervised: true,
        memory_share: Some(memory_share),
        voters: (1..=3).map(node).collect(),
        reached: [node(2), node(3)].into(),
        down: BTreeMap::new(),
    }
}

fn isolated(reason: &DownReason) -> Observation {
    let down = [node(2), node(3)].map(|peer| (peer, reason.clone())).into();
    Observation { reached: BTreeSet::new(), down, ..well(0.1) }
}

/// Plays an hour with a sample every second. The seconds of the restarts that were asked for, and the
/// records.
fn hour(
    options: &HealerOptions,
    observe: impl Fn(u32) -> Observation,
    answer: Result<(), &str>,
) -> (Vec<u32>, Vec<Record>) {
    let mut healer = options.healer(node(1));
    let (mut asked, mut records) = (Vec::new(), Vec::new());
    for second in 0..3600 {
        let now = SECOND * second;
        sample(&mut healer, now, &observe(second)).unwrap();
        let decided = healer.drain(now, |_| {
            asked.push(second);
            answer.map_err(str::to_owned)
        });
        records.extend(decided.unwrap());
    }
    (asked, records)
}

fn active() -> HealerOptions {
    HealerOptions::new().mode(Mode::Active).spread(0.0).isolated_after(Some(SECOND * 300))
}

/// The reasons of a guard's refusals.
fn refusals(records: &[Record], guard: &str) -> Vec<String> {
    let reason = |record: &Record| match &record.event {
        Event::Refused { guard: by, reason } if *by == guard => Some(reason.clone()),
        _ => None,
    };
    records.iter().filter_map(reason).collect()
}

/// A leak of some minutes, up to all of the memory.
fn leak(second: u32) -> Observation {
    well((0.2 + f64::from(second) / 1000.0).min(1.0))
}

#[test]
fn a_process_that_leaks_asks_before_its_memory_is_used_up() {
    let (asked, records) = hour(&active(), leak, Ok(()));
    // 0.8 of the memory is used after 600 s.
    assert!((600..700).contains(&asked[0]), "{asked:?}");
    let executing = records.iter().find(|record| record.event.name() == "executing").unwrap();
    assert_eq!((executing.cause.as_str(), executing.kind.as_str()), ("leak", "restart-process"));
    for record in &records {
        record.recompute().unwrap();
    }
    // A leak that takes many hours is one as well.
    let slow = |second: u32| well(0.79 + f64::from(second / 60) / 1000.0);
    let (asked, _) = hour(&active(), slow, Ok(()));
    assert!(!asked.is_empty() && asked[0] < 1500, "{asked:?}");
    // So is one of a process that frees a part of its memory again and again.
    for period in [20, 59, 60, 61, 240] {
        let teeth = |second: u32| {
            well(0.3 + f64::from(second) / 4000.0 + f64::from(second % period) / f64::from(period) / 10.0)
        };
        let (asked, _) = hour(&active(), teeth, Ok(()));
        assert!(!asked.is_empty() && asked[0] < 2800, "{period}: {asked:?}");
    }
}

/// Teeth below and above the window of a trend, and those that the times of its readings come across. They
/// begin with the process, before anything was freed.
#[test]
fn memory_that_is_freed_again_and_again_is_no_leak() {
    for period in [20, 40, 59, 60, 61, 120, 299] {
        for height in [0.2, 0.6] {
            let sawtooth = |second: u32| {
                well(0.95 - height + height * f64::from(second % period) / f64::from(period - 1))
            };
            let (asked, records) = hour(&active().grace(SECOND), sawtooth, Ok(()));
            assert!(asked.is_empty() && records.is_empty(), "{period}, {height}: {asked:?} {records:?}");
        }
    }
}

/// Ramps after which the memory stays: caches that fill after the start, and an import. The floor repeats
/// each of them five minutes later.
#[test]
fn memory_that_has_risen_and_stays_is_no_leak() {
    for ramp in [10, 60, 300] {
        let risen = |second: u32| (f64::from(second) / f64::from(ramp)).min(1.0);
        let warm = |second: u32| well(0.1 + 0.77 * risen(second));
        let loaded = |second: u32| well(0.5 + 0.37 * risen(second.saturating_sub(1500)));
        for (asked, records) in [hour(&active(), warm, Ok(())), hour(&active(), loaded, Ok(()))] {
            assert!(asked.is_empty() && records.is_empty(), "{ramp}: {asked:?} {records:?}");
        }
    }
}

#[test]
fn memory_that_is_used_and_does_not_rise_is_no_leak() {
    let steady = |_| well(0.95);
    let little = |second: u32| well(0.1 + f64::from(second) / 10_000.0);
    // A process that needs so much needs it after a restart too.
    let needed = |second: u32| well(0.85 + f64::from(second) / 100_000.0);
    let (steady, little, needed) =
        (hour(&active(), steady, Ok(())), hour(&active(), little, Ok(())), hour(&active(), needed, Ok(())));
    for (asked, records) in [steady, little, needed] {
        assert!(asked.is_empty() && records.is_empty(), "{asked:?} {records:?}");
    }
}

/// A peak of the first samples, of the replay of a log for instance, is not what the process needs.
#[test]
fn a_process_that_begins_with_a_peak_asks_when_it_leaks() {
    let peak = |second: u32| well(if second < 20 { 0.85 } else { 0.3 + f64::from(second - 20) / 4000.0 });
    let (asked, _) = hour(&active(), peak, Ok(()));
    // 0.8 of the memory is used after 2,020 s.
    assert!(!asked.is_empty() && (2020..2100).contains(&asked[0]), "{asked:?}");
}

#[test]
fn nodes_with_the_same_leak_restart_at_different_times() {
    let first = |seed| {
        let options = HealerOptions::new().mode(Mode::Active).seed(seed);
        let slow = |second: u32| well(0.5 + f64::from(second) / 5000.0);
        hour(&options, slow, Ok(())).0[0]
    };
    let times: BTreeSet<u32> = (1..=5).map(first).collect();
    assert_eq!(times.len(), 5, "{times:?}");
}

#[test]
fn an_isolated_process_restarts_only_where_it_is_set_and_a_restart_may_help() {
    let reasons = [DownReason::TimedOut, DownReason::Unreachable, DownReason::Failed { detail: "x".into() }];
    for reason in &reasons {
        let (asked, records) = hour(&active(), |_| isolated(reason), Ok(()));
        assert!((300..310).contains(&asked[0]), "{reason}: {asked:?}");
        assert_eq!(
            records.iter().find(|record| record.event.name() == "executing").unwrap().cause,
            "isolated"
        );
        let unset = active().isolated_after(None);
        assert!(hour(&unset, |_| isolated(reason), Ok(())).0.is_empty());
    }
    // One connection is enough, and a node without other members is not isolated.
    let one = |_| Observation { reached: [node(3)].into(), ..isolated(&DownReason::TimedOut) };
    assert!(hour(&active(), one, Ok(())).0.is_empty());
    let alone = |_| Observation { down: BTreeMap::new(), ..isolated(&DownReason::TimedOut) };
    assert!(hour(&active(), alone, Ok(())).0.is_empty());
}

#[test]
fn no_reason_that_a_restart_does_not_cure_leads_to_one() {
    let reasons = [
        DownReason::Untrusted { detail: "x".into() },
        DownReason::WrongIdentity { expected: node(2), found: node(3) },
        DownReason::Expired,
        DownReason::OwnIdentityExpired,
        DownReason::Refused { detail: "x".into() },
    ];
    for reason in &reasons {
        assert!(!cures(reason), "{reason}");
        let (asked, records) = hour(&active(), |_| isolated(reason), Ok(()));
        assert!(asked.is_empty(), "{reason}: {asked:?}");
        let refused = refusals(&records, "precondition");
        assert!(
            refused
                .iter()
                .any(|text| text.contains(&format!("no restart cures that node {} is down", node(2)))),
            "{refused:?}"
        );
        // Nor does a leak, while a single peer is down for it: the connections that are left would end.
        let leak = |second| Observation { down: [(node(3), reason.clone())].into(), ..leak(second) };
        let (asked, records) = hour(&active(), leak, Ok(()));
        assert!(asked.is_empty() && !refusals(&records, "precondition").is_empty(), "{reason}: {asked:?}");
    }
}

#[test]
fn a_restart_leaves_a_majority_and_needs_a_supervisor() {
    // Of three voters one is down: without this one there is no majority.
    let down = |second| Observation {
        reached: [node(2)].into(),
        down: [(node(3), DownReason::TimedOut)].into(),
        ..leak(second)
    };
    let (asked, records) = hour(&active(), down, Ok(()));
    assert!(asked.is_empty(), "{asked:?}");
    let refused = refusals(&records, "safety");
    assert!(refused.iter().any(|text| text.contains("1 of 3 voters")), "{refused:?}");
    // A learner takes nothing away.
    let learner = |second| Observation { voters: [node(2), node(3), node(4)].into(), ..down(second) };
    assert!(!hour(&active(), learner, Ok(())).0.is_empty());
    let alone = |second| Observation { is_supervised: false, ..leak(second) };
    let (asked, records) = hour(&active(), alone, Ok(()));
    assert!(asked.is_empty());
    let refused = refusals(&records, "precondition");
    assert!(refused.iter().any(|text| text.contains("no supervisor")), "{refused:?}");
}

#[test]
fn a_restart_that_the_supervisor_refuses_ends_with_a_person() {
    let (asked, records) = hour(&active(), leak, Err("it was restarted three times"));
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[1] - asked[0] >= 60 && asked[2] - asked[1] >= 120, "{asked:?}");
    let escalated = records.iter().filter(|record| record.event.name() == "escalated").count();
    assert_eq!(escalated, 1);
    let (asked, records) = hour(&active().mode(Mode::DryRun), leak, Ok(()));
    assert!(asked.is_empty() && records.iter().any(|record| record.event.name() == "would-execute"));
}

#[test]
fn a_sample_of_an_earlier_time_changes_nothing() {
    let mut healer = active().healer(node(1));
    sample(&mut healer, SECOND * 9, &well(0.5)).unwrap();
    let before = format!("{:?}", healer.knowledge());
    assert!(sample(&mut healer, SECOND, &isolated(&DownReason::TimedOut)).is_err());
    assert_eq!(format!("{:?}", healer.knowledge()), before);
}

#[test]
fn readings_that_are_no_measurements_change_nothing() {
    let mut view = active().view(node(1));
    let mut refuse = |subject, signal, value| {
        let before = format!("{view:?}");
        assert!(view.observe(SECOND, &Reading { subject, signal, value }).is_err());
        assert_eq!(format!("{view:?}"), before);
    };
    refuse(Process(node(2)), MEMORY_SHARE, 0.5);
    refuse(Process(node(1)), "other", 0.5);
    for value in [f64::NAN, f64::INFINITY, -0.1, 1e4] {
        refuse(Process(node(1)), MEMORY_SHARE, value);
    }
    for share in [f64::NAN, f64::INFINITY, -1.0, 0.0, 9.0] {
        let view = HealerOptions::new().memory_share(share).spread(share).view(node(1));
        assert!((0.1..=1.0).contains(&view.memory_limit), "{share}");
    }
}

#[cfg(feature = "conformance")]
#[test]
fn the_policy_keeps_the_contract() {
    use crate::conformance::{Situation, check};
    let reading = |signal, value| (SECOND, Reading { subject: Process(node(1)), signal, value });
    let situation = |readings, is_healed| Situation { readings, stale_after: STALE, is_healed };
    let situations = [
        situation(vec![reading(MEMORY_SHARE, 0.5), reading(MEMORY_RISE, 9.0)], false),
        situation(vec![reading(MEMORY_SHARE, 0.9), reading(MEMORY_RISE, 0.0)], false),
        situation(vec![reading(MEMORY_SHARE, 0.9), reading(MEMORY_RISE, 0.5)], true),
        situation(vec![reading(ISOLATED, 299.0)], false),
        situation(vec![reading(ISOLATED, 301.0)], true),
    ];
    check(|| active().view(node(1)), || Restart, &situations).unwrap();
}
