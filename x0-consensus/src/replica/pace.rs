//! The pace of snapshots, by the latency of proposals.
//!
//! A snapshot competes with proposals for processors, disks and the network. While one is sent, the leader
//! compares the time from the acceptance of a proposal to its commit with that of quiet times, and allows
//! fewer chunks per tick while proposals take much longer, more while they do not: additive increase,
//! multiplicative decrease (as in TCP, RFC 5681 section 3.1). A floor keeps every transfer going, and without
//! proposals nothing is held back.

use std::time::Duration;

/// Chunks are counted in quarters, so that the floor can be below one chunk per tick.
const CHUNK: u32 = 4;
/// One chunk in two ticks at least: 2.5 MiB/s with the default options.
const FLOOR: u32 = CHUNK / 2;
/// The most chunks per tick that are allowed while there are proposals.
const CEILING: u32 = 64 * CHUNK;
/// The step of an increase.
const STEP: u32 = CHUNK / 2;
/// Proposals may take this much longer than in quiet times, on top of half as long again.
const SLACK: Duration = Duration::from_micros(500);

/// The pace of the snapshots that a leader sends.
#[derive(Debug)]
pub(super) struct Pace {
    /// The proposal whose commit is awaited: its index, and when it was accepted.
    sample: Option<(u64, Duration)>,
    /// The smoothed latency of proposals while no snapshot is sent.
    quiet: Option<Duration>,
    /// The worst latency in this tick.
    worst: Option<Duration>,
    /// The allowance of one tick, and what is left of it.
    rate: u32,
    left: u32,
    /// Ticks without a sample: nothing is held back when there are several.
    idle_ticks: u32,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { sample: None, quiet: None, worst: None, rate: CEILING, left: CEILING, idle_ticks: 0 }
    }

    /// A proposal was accepted.
    pub(super) fn proposed(&mut self, now: Duration, index: u64) {
        self.sample.get_or_insert((index, now));
    }

    /// Entries up to this index are committed.
    pub(super) fn committed(&mut self, now: Duration, index: u64) {
        if let Some((_, at)) = self.sample.filter(|(sampled, _)| *sampled <= index) {
            let took = now.saturating_sub(at);
            self.worst = Some(self.worst.map_or(took, |worst| worst.max(took)));
            self.sample = None;
        }
    }

    /// This replica does not lead any more.
    pub(super) fn reset(&mut self) {
        *self = Pace::new();
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self, now: Duration, is_sending: bool) {
        // A proposal that still waits is at least as late.
        let waiting = self.sample.map(|(_, at)| now.saturating_sub(at));
        let worst = self.worst.take().max(waiting.filter(|waiting| self.is_slow(*waiting)));
        self.idle_ticks = if worst.is_some() { 0 } else { self.idle_ticks.saturating_add(1) };
        match worst {
            Some(worst) if is_sending => {
                self.rate = if self.is_slow(worst) {
                    (self.rate / 2).max(FLOOR)
                } else {
                    (self.rate + STEP).min(CEILING)
                };
            }
            Some(worst) => {
                self.quiet = Some(self.quiet.map_or(worst, |before| (before * 7 + worst) / 8));
                // The next snapshot begins with caution.
                self.rate = 2 * CHUNK;
            }
            None if self.idle_ticks > 2 => self.rate = CEILING,
            None => {}
        }
        // A rate that was not used in a tick does not add up to a burst.
        self.left = (self.left.min(CHUNK) + self.rate).min(CEILING + CHUNK);
    }

    fn is_slow(&self, latency: Duration) -> bool {
        self.quiet.is_some_and(|quiet| latency > quiet + quiet / 2 + SLACK)
    }

    /// Whether another chunk may be read now.
    pub(super) fn take_chunk(&mut self) -> bool {
        // Without proposals the window alone limits a transfer.
        if self.idle_ticks > 2 {
            return true;
        }
        let has_left = self.left >= CHUNK;
        if has_left {
            self.left -= CHUNK;
        }
        has_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    /// Ticks with proposals of which each takes `latency`; the chunks that were allowed.
    fn run(pace: &mut Pace, now: &mut Duration, ticks: u32, latency: Option<Duration>, sends: bool) -> u32 {
        let mut chunks = 0;
        for index in 0..ticks {
            if let Some(latency) = latency {
                pace.proposed(*now, u64::from(index));
                pace.committed(*now + latency, u64::from(index));
            }
            while sends && chunks < 100_000 && pace.take_chunk() {
                chunks += 1;
                if latency.is_none() && chunks % 100 == 0 {
                    break;
                }
            }
            *now += TICK;
            pace.tick(*now, sends);
        }
        chunks
    }

    #[test]
    fn slow_proposals_halve_the_pace_down_to_a_floor() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        let (fast, slow) = (Duration::from_millis(1), Duration::from_millis(5));
        run(&mut pace, &mut now, 100, Some(fast), false);
        let unhurt = run(&mut pace, &mut now, 40, Some(fast), true);
        let hurt = run(&mut pace, &mut now, 40, Some(slow), true);
        let floor = run(&mut pace, &mut now, 40, Some(slow), true);
        assert!(unhurt > 5 * hurt, "{unhurt} {hurt}");
        assert_eq!(floor, 20, "one chunk in two ticks, whatever the proposals take");
        let again = run(&mut pace, &mut now, 40, Some(fast), true);
        assert!(again > 5 * floor, "{again}");
    }

    #[test]
    fn a_transfer_is_not_held_back_without_proposals() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        run(&mut pace, &mut now, 100, Some(Duration::from_millis(1)), false);
        run(&mut pace, &mut now, 3, None, false);
        assert_eq!(run(&mut pace, &mut now, 10, None, true), 1000, "as many as were asked for");
    }

    #[test]
    fn a_proposal_that_is_not_committed_counts_as_late() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        run(&mut pace, &mut now, 100, Some(Duration::from_millis(1)), false);
        pace.proposed(now, 1000);
        let mut chunks = 0;
        for _ in 0..40 {
            while pace.take_chunk() {
                chunks += 1;
            }
            now += TICK;
            pace.tick(now, true);
        }
        assert!((20..=26).contains(&chunks), "{chunks}");
    }
}
