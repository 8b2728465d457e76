//! The pace of catching up, by the latency of proposals.
//!
//! A member that lags competes with proposals for processors, disks and the network: with chunks of a
//! snapshot, and with entries that are committed without it. While there are such transfers, the leader
//! compares the time from the acceptance of a proposal to its commit with that of quiet times, and allows
//! fewer bytes per tick while proposals take longer, more while they do not: additive increase,
//! multiplicative decrease (as in TCP, RFC 5681 section 3.1). The floor is half above the growth of
//! the log, so that the member catches up whatever the load is. Without proposals nothing is held back.

use std::cell::Cell;
use std::time::Duration;

/// The lowest floor per tick: 2.5 MiB/s with the default options.
const FLOOR: u64 = 128 << 10;
/// The most bytes per tick while there are proposals.
const CEILING: u64 = 16 << 20;
/// The step of an increase.
const STEP: u64 = 32 << 10;
/// The allowance of the first tick of a transfer.
const FIRST: u64 = 256 << 10;
/// Committed entries of this length are a backlog. A shorter rest is what a member in step with its leader
/// may lack, and is never held back.
pub(super) const BACKLOG_LEN: u64 = 64 << 10;
/// The longest message of a backlog while the pace limits: a member that gets a long one is busy with it
/// alone.
pub(super) const PACED_LEN: usize = 128 << 10;
/// Proposals may take this much longer than in quiet times, on top of 15 % more.
const SLACK: Duration = Duration::from_micros(500);

/// The pace of what a leader sends to members that lag.
#[derive(Debug)]
pub(super) struct Pace {
    /// The proposal whose commit is awaited: its index, and when it was accepted.
    sample: Option<(u64, Duration)>,
    /// The usual latency of proposals while no member lags.
    quiet: Option<Duration>,
    /// The latencies that were measured in this tick: their sum and number.
    measured: (Duration, u32),
    /// The allowance of one tick in bytes, and what is left of it: less than nothing after a message that was
    /// longer.
    rate: u64,
    left: Cell<i64>,
    /// The bytes of the proposals of this tick, and smoothed over the ticks before.
    grown: u64,
    growth: u64,
    /// The last index that is committed.
    commit: u64,
    /// Whether a member lacked a backlog in this tick.
    has_backlog: Cell<bool>,
    /// Ticks without a sample: nothing is held back when there are several.
    idle_ticks: u32,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            sample: None,
            quiet: None,
            measured: (Duration::ZERO, 0),
            rate: CEILING,
            left: Cell::new(CEILING.cast_signed()),
            grown: 0,
            growth: 0,
            commit: 0,
            has_backlog: Cell::new(false),
            idle_ticks: 0,
        }
    }

    /// A proposal was accepted.
    pub(super) fn proposed(&mut self, now: Duration, index: u64, len: usize) {
        self.sample.get_or_insert((index, now));
        self.grown += len as u64;
    }

    /// Entries up to this index are committed.
    pub(super) fn committed(&mut self, now: Duration, index: u64) {
        self.commit = self.commit.max(index);
        if let Some((_, at)) = self.sample.filter(|(sampled, _)| *sampled <= index) {
            let took = now.saturating_sub(at);
            self.measured = (self.measured.0 + took, self.measured.1 + 1);
            self.sample = None;
        }
    }

    /// The last index that is committed.
    pub(super) fn commit(&self) -> u64 {
        self.commit
    }

    /// This replica does not lead any more.
    pub(super) fn reset(&mut self) {
        *self = Pace::new();
    }

    /// A tick has passed. `is_sending`: a snapshot is being sent.
    pub(super) fn tick(&mut self, now: Duration, is_sending: bool) {
        let (sum, count) = std::mem::take(&mut self.measured);
        let mean = sum.checked_div(count);
        // A proposal that still waits is at least as late.
        let waiting = self.sample.map(|(_, at)| now.saturating_sub(at));
        let latency = mean.max(waiting.filter(|waiting| self.is_slow(*waiting)));
        let is_sending = self.has_backlog.take() | is_sending;
        self.growth = (self.growth * 7 + std::mem::take(&mut self.grown)) / 8;
        let floor = FLOOR.max(self.growth + self.growth / 2).min(CEILING);
        self.idle_ticks = if latency.is_some() { 0 } else { self.idle_ticks.saturating_add(1) };
        match latency {
            Some(latency) if is_sending => {
                let next = if self.is_slow(latency) { self.rate / 2 } else { self.rate + STEP };
                self.rate = next.clamp(floor, CEILING);
            }
            Some(latency) => {
                // The value rises slowly: the delay while a member stops or starts is not the usual latency.
                self.quiet = Some(match self.quiet {
                    Some(quiet) if latency > quiet => quiet + (latency - quiet) / 64,
                    Some(quiet) => quiet - (quiet - latency) / 8,
                    None => latency,
                });
                // The next transfer begins with caution.
                self.rate = FIRST.max(floor);
            }
            None if self.idle_ticks > 2 => self.rate = CEILING,
            None => {}
        }
        // A rate that was not used in a tick does not add up to a burst; a debt is paid first.
        let rate = self.rate.cast_signed();
        self.left.set((self.left.get().min(0) + rate).min(rate));
    }

    fn is_slow(&self, latency: Duration) -> bool {
        self.quiet.is_some_and(|quiet| latency > quiet + quiet * 3 / 20 + SLACK)
    }

    /// Whether there are proposals that a transfer could delay. Without any, the windows alone limit it.
    pub(super) fn is_limiting(&self) -> bool {
        self.idle_ticks <= 2
    }

    /// Whether more may be sent now.
    pub(super) fn may_send(&self) -> bool {
        !self.is_limiting() || self.left.get() > 0
    }

    /// A member lacks a backlog.
    pub(super) fn note_backlog(&self) {
        self.has_backlog.set(true);
    }

    /// This many bytes are sent.
    pub(super) fn charge(&self, len: u64) {
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        self.left.set(self.left.get().saturating_sub(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);
    const CHUNK: u64 = 256 << 10;

    /// The load of a test: the latency and the length of the proposal of each tick.
    type Load = Option<(Duration, usize)>;

    const FAST: Load = Some((Duration::from_millis(1), 256));
    const SLOW: Load = Some((Duration::from_millis(5), 256));

    /// Ticks with proposals of a load; the bytes that were allowed, at most 64 MiB per tick.
    fn run(pace: &mut Pace, now: &mut Duration, ticks: u32, load: Load, sends: bool) -> u64 {
        let mut sent = 0;
        for index in 0..ticks {
            if let Some((latency, len)) = load {
                pace.proposed(*now, u64::from(index), len);
                pace.committed(*now + latency, u64::from(index));
            }
            let mut of_tick = 0;
            while sends && of_tick < 64 << 20 && pace.may_send() {
                pace.charge(CHUNK);
                of_tick += CHUNK;
            }
            sent += of_tick;
            *now += TICK;
            pace.tick(*now, sends);
        }
        sent
    }

    #[test]
    fn slow_proposals_halve_the_pace_down_to_a_floor() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        run(&mut pace, &mut now, 100, FAST, false);
        let unhurt = run(&mut pace, &mut now, 40, FAST, true);
        let hurt = run(&mut pace, &mut now, 40, SLOW, true);
        let floor = run(&mut pace, &mut now, 40, SLOW, true);
        assert!(unhurt > 4 * hurt, "{unhurt} {hurt}");
        assert_eq!(floor, 40 * FLOOR, "whatever the proposals take");
        let again = run(&mut pace, &mut now, 40, FAST, true);
        assert!(again > 5 * floor, "{again}");
    }

    #[test]
    fn the_floor_is_above_the_growth_of_the_log() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        let grows = |latency| Some((Duration::from_millis(latency), 1 << 20));
        run(&mut pace, &mut now, 100, grows(1), false);
        run(&mut pace, &mut now, 100, grows(5), true);
        let floor = run(&mut pace, &mut now, 100, grows(5), true);
        assert!((145..=155).contains(&(floor >> 20)), "{} MiB while 100 MiB were proposed", floor >> 20);
    }

    #[test]
    fn a_transfer_is_not_held_back_without_proposals() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        run(&mut pace, &mut now, 100, FAST, false);
        run(&mut pace, &mut now, 3, None, false);
        assert_eq!(run(&mut pace, &mut now, 10, None, true), 640 << 20, "as much as was asked for");
    }

    #[test]
    fn a_proposal_that_is_not_committed_counts_as_late() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        run(&mut pace, &mut now, 100, FAST, false);
        pace.proposed(now, 1000, 256);
        let sent = run(&mut pace, &mut now, 40, None, true);
        assert!((40 * FLOOR..=60 * FLOOR).contains(&sent), "{sent}");
    }

    #[test]
    fn a_backlog_counts_as_a_transfer() {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        run(&mut pace, &mut now, 100, FAST, false);
        for _ in 0..40 {
            pace.note_backlog();
            run(&mut pace, &mut now, 1, SLOW, false);
        }
        assert_eq!(pace.rate, FLOOR, "the latency is compared and not learned");
    }
}
