//! Crashes and hangs of one of five members, with the failure detectors of production.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_mapek::suspicion::{Detector, DetectorOptions, Input, Output};

use super::fold;
use crate::random::Random;

const MEMBERS: u64 = 5;
/// The resolution of the time: timers are late by up to this.
const STEP: Duration = Duration::from_millis(5);
/// From the crash to the end of the run.
const LASTS: Duration = Duration::from_secs(10);

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Crash {
    /// From the crash to the moment at which all other members know of it.
    pub(super) known_after: Option<Duration>,
    /// Verdicts on a member that is well.
    pub(super) wrong: u64,
    pub(super) digest: u64,
}

/// A message on its way: its sender and bytes.
type Message = (u64, Vec<u8>);

/// One of five members ends, or hangs, which is the same to the others.
pub(super) fn crash(seed: u64) -> Crash {
    let mut random = Random::new(seed);
    let members: BTreeSet<u64> = (1..=MEMBERS).collect();
    let mut detectors: Vec<Detector> = members
        .iter()
        .map(|member| Detector::new(*member, random.next(), DetectorOptions::new(), Duration::ZERO))
        .collect();
    for detector in &mut detectors {
        // Five members are never too many.
        let _ = detector.handle(Duration::ZERO, Input::Members(&members));
    }
    let at = random.milliseconds(5_000, 15_000);
    let victim = random.between(1, MEMBERS);
    let mut run = Crash::default();
    let mut known = BTreeSet::new();
    let mut on_the_way: BTreeMap<(Duration, u64), (u64, Message)> = BTreeMap::new();
    let (mut now, mut sent) = (Duration::ZERO, 0);
    while now < at + LASTS {
        now += STEP;
        while let Some(entry) = on_the_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to, (from, message)) = entry.remove();
            let is_gone = to == victim && now >= at;
            let to = detectors.iter_mut().find(|detector| detector.local() == to).filter(|_| !is_gone);
            let _ = to.map(|to| to.handle(now, Input::Received { from, message: &message }));
        }
        for detector in &mut detectors {
            let from = detector.local();
            if from == victim && now >= at {
                continue;
            }
            if detector.poll_timeout().is_some_and(|due| due <= now) {
                let _ = detector.handle(now, Input::Timeout);
            }
            while let Some(output) = detector.poll_output() {
                match output {
                    Output::Send { to, message } => {
                        for to in to {
                            // One of a hundred is lost, and one is late.
                            let delay = match random.below(100) {
                                0 => continue,
                                1 => random.milliseconds(20, 80),
                                _ => random.milliseconds(1, 5),
                            };
                            sent += 1;
                            on_the_way.insert((now + delay, sent), (to, (from, message.clone())));
                        }
                    }
                    Output::Suspect(suspect) => {
                        run.digest = fold(run.digest, from << 8 | suspect.member);
                        run.digest = fold(run.digest, u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
                        if suspect.member == victim && now >= at {
                            known.insert(from);
                        } else {
                            run.wrong += 1;
                        }
                    }
                    _ => {}
                }
            }
        }
        if run.known_after.is_none() && known.len() as u64 == MEMBERS - 1 {
            run.known_after = Some(now - at);
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_known_to_all_within_two_seconds() {
        for seed in 0..20 {
            let run = crash(seed);
            assert_eq!(run.wrong, 0, "seed {seed}");
            let after = run.known_after;
            assert!(after.is_some_and(|after| after <= Duration::from_secs(2)), "seed {seed}: {after:?}");
            assert_eq!(run, crash(seed));
        }
        assert_ne!(crash(1).digest, crash(2).digest);
    }
}
