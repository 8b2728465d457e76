//! False accusations of starved observers: the failure detector of x0-mapek beside foca 2, which is SWIM,
//! in one simulation with the same network, the same starvation, and the same deaths.
//!
//! A verdict is false when its subject lives, and has run for [`GRACE`] without a lack of processor time.
//! Verdicts on a process that is stopped, runs for a moment at a time, or reads its messages late are
//! counted apart: no observer can distinguish such a process from a dead one before it runs again.

mod foca;
mod own;
mod schedule;
mod world;

use std::time::Duration;

use anyhow::Result;
use indicatif::ProgressBar;

use self::foca::Foca;
use self::own::Own;
use self::schedule::Schedule;
use self::world::{System, Tally, World};
use crate::case::{Case, Metric};

/// The members of the group.
const SIZE: u64 = 10;
/// The time for which a member runs as it should before a verdict on it is false.
const GRACE: Duration = Duration::from_millis(500);
/// The most false verdicts beside those of foca.
const SHARE: f64 = 1.0 / 20.0;

const DETECTION: Metric = Metric { name: "median time from a death to a verdict", unit: "ms" };
const FALSE: Metric = Metric { name: "false verdicts in an hour", unit: "verdicts" };
const ACCUSATIONS: Metric =
    Metric { name: "false accusations by one member in an hour", unit: "accusations" };
const STARVED: Metric = Metric { name: "verdicts on starved members in an hour", unit: "verdicts" };
const UNKNOWN: Metric = Metric { name: "deaths that an observer did not learn in an hour", unit: "deaths" };
const SYSTEMS: [&str; 3] =
    ["x0-mapek, at foca's detection time", "x0-mapek, defaults", "foca 2, LAN settings"];

/// Runs the three systems on the same schedules, one for each turn.
pub(super) fn measure(turns: u32, hours: u32, progress: &ProgressBar) -> Result<Case> {
    let how = format!(
        "{SIZE} members, {hours} h in each turn. Up to all but one starve at once: stopped for 0.1 to 10 s, \
         running for a share of 5 to 50 % in turn, or reading late. A member dies about once a minute. The \
         setting of x0-mapek at foca's detection time is searched on the schedule of the turn. A verdict \
         counts as false also when it is learned by gossip after its subject has recovered. foca has no \
         Lifeguard."
    );
    let mut case = Case::new("mapek", "starved observers", how, SYSTEMS.map(str::to_owned).to_vec());
    let time = Duration::from_secs(3600) * hours;
    let mut shares = [("false verdicts", 0, 0), ("false accusations by one member", 0, 0)];
    for turn in 0..turns {
        progress.set_message("starved observers");
        let seed = u64::from(turn) + 1;
        let schedule = Schedule::new(seed, SIZE, time);
        let foca = run(Foca::new(SIZE), &schedule);
        let tallies = [as_slow_as(foca.median(), &schedule), run(Own::defaults(), &schedule), foca];
        for (system, tally) in tallies.iter().enumerate() {
            let each_hour = |count: u32| f64::from(count) / f64::from(hours);
            case.add(DETECTION, system, tally.median().as_secs_f64() * 1000.0);
            case.add(FALSE, system, each_hour(tally.false_verdicts));
            case.add(ACCUSATIONS, system, each_hour(tally.false_accusations));
            case.add(STARVED, system, each_hour(tally.starved_verdicts));
            case.add(UNKNOWN, system, each_hour(tally.unknown));
        }
        let [own, _, foca] = tallies;
        for ((_, of_own, of_foca), (own, foca)) in shares
            .iter_mut()
            .zip([(own.false_verdicts, foca.false_verdicts), (own.false_accusations, foca.false_accusations)])
        {
            *of_own += own;
            *of_foca += foca;
        }
        progress.inc(1);
    }
    let later = case.median(DETECTION, 0).zip(case.median(DETECTION, 2)).map(|(own, foca)| own - foca);
    case.aim("median time to a verdict beside that of foca", later, 0.0, "ms later");
    for (what, own, foca) in shares {
        let share = (foca > 0).then(|| f64::from(own) / f64::from(foca));
        case.aim(format!("{what} of all turns beside those of foca"), share, SHARE, "x");
    }
    Ok(case)
}

/// The run with the longest settings whose median is not later than this one: of starved observers it does
/// not grow in proportion. The defaults take about a second.
fn as_slow_as(median: Duration, schedule: &Schedule) -> Tally {
    let mut factor = median.as_secs_f64();
    while factor > 1.0 {
        let tally = run(Own::stretched(factor), schedule);
        if tally.median() <= median {
            return tally;
        }
        factor *= 0.9;
    }
    run(Own::defaults(), schedule)
}

fn run<S: System>(system: S, schedule: &Schedule) -> Tally {
    let mut world = World::new(system, schedule);
    world.run();
    world.into_tally()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_group_has_no_verdict_and_the_same_seed_the_same_run() {
        let calm = Schedule::calm(3, SIZE, Duration::from_secs(120));
        for tally in [run(Foca::new(SIZE), &calm), run(Own::defaults(), &calm)] {
            assert_eq!(tally, Tally::default());
        }
        let schedule = Schedule::new(3, SIZE, Duration::from_secs(300));
        let (one, two) = (run(Foca::new(SIZE), &schedule), run(Foca::new(SIZE), &schedule));
        assert_eq!(one, two);
        assert!(one.detections.len() > 10 && one.median() > Duration::from_secs(2), "{one:?}");
        let (one, two) = (run(Own::defaults(), &schedule), run(Own::defaults(), &schedule));
        assert_eq!(one, two);
        assert!(one.detections.len() > 10 && one.median() < Duration::from_secs(2), "{one:?}");
        assert_eq!(one.false_verdicts, 0, "{one:?}");
    }
}
