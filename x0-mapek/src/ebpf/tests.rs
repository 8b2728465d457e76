use super::*;
use crate::{Command, Record};

const SAMPLE: Duration = Duration::from_millis(100);

/// Plays a minute of interface `eth0` with two paths, path 0 in use. `quality` gives that of a path at a
/// sample. The flips with their samples, and the records.
fn minute(mode: Mode, quality: impl Fn(u32, u32) -> Quality) -> (Vec<(u32, u32)>, Vec<Record>) {
    let mut healer = HealerOptions::new().mode(mode).healer();
    let (mut used, mut flips, mut records) = (0, Vec::new(), Vec::new());
    for step in 0..600 {
        let now = SAMPLE * step;
        let paths = [0, 1].map(|path| (path, quality(path, step)));
        observe(&mut healer, now, &[Observation::new("eth0", used, paths)]);
        let decided = healer.drain(now, |Act::FlipLink { to, .. }| {
            used = *to;
            flips.push((step, *to));
            Ok(())
        });
        records.extend(decided.unwrap());
    }
    for record in &records {
        record.recompute().unwrap();
    }
    (flips, records)
}

fn well() -> Quality {
    Quality::new(0.01).silent(SAMPLE)
}

fn names(records: &[Record]) -> Vec<&'static str> {
    records.iter().map(|record| record.event.name()).collect()
}

#[test]
fn a_lossy_path_and_a_silent_one_are_left_within_half_a_second() {
    for bad in [Quality::new(0.3).silent(SAMPLE), Quality::new(0.05).silent(SAMPLE * 4)] {
        let quality = |path, step| if path == 0 && step >= 200 { bad } else { well() };
        let (flips, records) = minute(Mode::Active, quality);
        assert_eq!(flips.len(), 1, "{flips:?}");
        assert!((202..=205).contains(&flips[0].0), "{flips:?}");
        assert_eq!(names(&records), ["refused", "executing", "executed", "improved"]);
        assert_eq!((records[1].cause.as_str(), records[1].subject.as_str()), ("bad-link", "path 0 of eth0"));
    }
}

#[test]
fn a_path_is_kept_unless_another_one_is_known_to_be_better() {
    let bad = Quality::new(0.3);
    // Both are bad; the other one is hardly better; the other one is silent; nothing is bad.
    for (used, other) in [
        (bad, bad),
        (bad, Quality::new(0.05)),
        (bad, well().silent(SAMPLE * 5)),
        (Quality::new(0.099), well()),
        (bad, Quality::new(f64::NAN)),
        (bad, Quality::new(-1.0)),
        (Quality::new(f64::INFINITY), well()),
        (Quality::new(1e99), well()),
    ] {
        let (flips, records) = minute(Mode::Active, |path, _| if path == 0 { used } else { other });
        assert_eq!((flips, names(&records)), (vec![], vec![]), "{used:?} {other:?}");
    }
    let (flips, records) = minute(Mode::DryRun, |path, _| if path == 0 { bad } else { well() });
    assert!(flips.is_empty() && names(&records).contains(&"would-execute"));
}

/// A second path that carries probes and loses frames as soon as it is used.
#[test]
fn a_flip_that_makes_it_worse_is_taken_back() {
    let mut healer = HealerOptions::new().mode(Mode::Active).healer();
    let (mut used, mut flips, mut records) = (0, Vec::new(), Vec::new());
    for step in 0..120 {
        let now = SAMPLE * step;
        let second = if used == 1 { Quality::new(0.9) } else { well() };
        let paths = [(0, Quality::new(0.2)), (1, second)];
        observe(&mut healer, now, &[Observation::new("eth0", used, paths)]);
        let carry_out = |Act::FlipLink { to, .. }: &Act| {
            used = *to;
            flips.push(*to);
            Ok(())
        };
        records.extend(healer.drain(now, carry_out).unwrap());
    }
    assert_eq!(flips[..2], [1, 0], "{:?}", names(&records));
    assert!(names(&records).contains(&"worse"));
}

#[test]
fn links_that_fail_together_have_a_common_cause() {
    let mut healer = HealerOptions::new().mode(Mode::Active).healer();
    let interfaces = ["eth0", "eth1", "eth2", "eth3"];
    let mut flips = 0;
    for step in 0..600 {
        let quality = |place: usize| if place < 2 { Quality::new(0.5) } else { well() };
        let one =
            |(place, name): (usize, &&str)| Observation::new(name, 0, [(0, quality(place)), (1, well())]);
        let all: Vec<_> = interfaces.iter().enumerate().map(one).collect();
        observe(&mut healer, SAMPLE * step, &all);
        healer
            .drain(SAMPLE * step, |_| {
                flips += 1;
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(flips, 0);
    assert!(healer.status(SAMPLE * 600).is_storm);
}

#[test]
fn an_action_on_an_old_state_is_impossible_or_unsafe() {
    let mut view = HealerOptions::new().view();
    let flip = |from, to| Act::FlipLink { from: Path { interface: "eth0".into(), number: from }, to };
    view.set(SAMPLE, &[Observation::new("eth0", 0, [(0, well()), (1, well())])]);
    assert!(
        flip(0, 1).precondition(&view).is_ok() && flip(0, 1).is_safe(&view).is_err(),
        "nothing is measured"
    );
    assert!(flip(1, 0).precondition(&view).is_err() && flip(0, 7).precondition(&view).is_err());
    let subject = Path { interface: "eth0".into(), number: 1 };
    view.observe(SAMPLE, &Reading { subject: subject.clone(), signal: LOSS_SHARE, value: 0.0 }).unwrap();
    assert!(flip(0, 1).is_safe(&view).is_ok());
    assert_eq!(flip(0, 1).undo().unwrap(), flip(1, 0));
    // The path is gone, and what was measured of it with it.
    view.set(SAMPLE, &[Observation::new("eth0", 0, [(0, well())])]);
    assert!(flip(0, 1).precondition(&view).is_err() && view.readings.value(&subject, LOSS_SHARE).is_none());
    assert!(view.observe(SAMPLE, &Reading { subject, signal: LOSS_SHARE, value: 0.0 }).is_err());
}

#[test]
fn a_view_is_bounded() {
    let mut healer = HealerOptions::new().loss_max(f64::NAN).silent_max(Duration::ZERO).healer();
    let many = (0..1000).map(|path| (path, well()));
    let all: Vec<_> =
        (0..1000).map(|number| Observation::new(&format!("eth{number}"), 0, many.clone())).collect();
    observe(&mut healer, SAMPLE, &all);
    let view = healer.knowledge();
    assert_eq!(view.subject_count(), INTERFACES_MAX);
    assert!(view.interfaces.values().all(|(_, paths)| paths.len() == PATHS_MAX));
    // A pause holds it like any loop.
    healer.handle(SAMPLE, Input::Command(Command::Pause { until: None })).unwrap();
    assert!(healer.status(SAMPLE).paused.is_some());
}

#[cfg(feature = "conformance")]
#[test]
fn the_policy_keeps_the_contract() {
    use crate::conformance::{Situation, check};
    let path = |number| Path { interface: "eth0".into(), number };
    let knowledge = || {
        let mut view = HealerOptions::new().view();
        view.set(Duration::ZERO, &[Observation::new("eth0", 0, [(0, well()), (1, well())])]);
        view
    };
    let situation = |used, other, is_healed| {
        let reading = |number, value| (SAMPLE, Reading { subject: path(number), signal: LOSS_SHARE, value });
        Situation { readings: vec![reading(0, used), reading(1, other)], stale_after: STALE, is_healed }
    };
    let situations = [situation(0.01, 0.0, false), situation(0.5, 0.0, true), situation(0.5, 0.5, false)];
    check(knowledge, || Flip, &situations).unwrap();
}
