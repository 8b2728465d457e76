//! [`Rise`]: whether the memory of a process rises.

use std::collections::VecDeque;
use std::time::Duration;

use crate::detect::{Trend, TrendVerdict};

/// Memory that the process frees within this time is not part of a rise.
pub const FLOOR_WINDOW: Duration = Duration::from_secs(300);
/// The least distance of two readings that are kept: it bounds their number to 301.
const KEPT_EVERY: Duration = Duration::from_secs(1);
/// The times between two readings of the two trends: leaks of minutes and of hours.
const TREND_EVERY: [Duration; 2] = [Duration::from_millis(900), Duration::from_secs(60)];

/// The rise of the memory of a process: that of its floor and its ceiling, the least and the highest share
/// within [`FLOOR_WINDOW`]. The slower of the two counts.
///
/// While memory is in use, a leak and memory that is freed later look alike. The floor distinguishes them: a
/// leak raises it, and memory that is freed within the window does not, whatever its height. The floor
/// repeats a rise when the window has passed, also one that has ended. The ceiling has a rise at once, and is
/// flat by then.
#[derive(Debug)]
pub(super) struct Rise {
    floor: Least,
    /// The least of the negated readings.
    ceiling: Least,
    trends: [Trends; 2],
}

impl Rise {
    pub(super) fn new() -> Rise {
        Rise { floor: Least::default(), ceiling: Least::default(), trends: TREND_EVERY.map(Trends::new) }
    }

    /// The rise in an hour and the ceiling, after a reading that is in its range, at a time that does not run
    /// backwards.
    pub(super) fn observe(&mut self, now: Duration, share: f64) -> (f64, f64) {
        let (floor, ceiling) = (self.floor.observe(now, share), -self.ceiling.observe(now, -share));
        for trends in &mut self.trends {
            trends.observe(now, floor, ceiling);
        }
        (self.trends.iter().map(|trends| trends.rise).fold(0.0, f64::max), ceiling)
    }
}

/// The trends of the floor and the ceiling, over readings of the same times.
#[derive(Debug)]
struct Trends {
    /// The time between two readings.
    every: Duration,
    floor: Trend,
    ceiling: Trend,
    last: Option<Duration>,
    /// The rise in an hour, as of the last reading.
    rise: f64,
}

impl Trends {
    fn new(every: Duration) -> Trends {
        // Nothing depends on when a limit is reached.
        Trends { every, floor: Trend::new(1e3), ceiling: Trend::new(1e3), last: None, rise: 0.0 }
    }

    fn observe(&mut self, now: Duration, floor: f64, ceiling: f64) {
        if self.last.is_some_and(|last| now.saturating_sub(last) < self.every) {
            return;
        }
        self.last = Some(now);
        let slope = |trend: &mut Trend, value| match trend.observe(now, value) {
            Ok(TrendVerdict::Exhausting { slope, .. }) => slope.abs() * 3600.0,
            _ => 0.0,
        };
        self.rise = slope(&mut self.floor, floor).min(slope(&mut self.ceiling, ceiling));
    }
}

/// The least of the readings within [`FLOOR_WINDOW`].
#[derive(Debug, Default)]
struct Least {
    /// The readings of the window that may become the least: each is below all that follow it.
    kept: VecDeque<(Duration, f64)>,
}

impl Least {
    fn observe(&mut self, now: Duration, value: f64) -> f64 {
        while self.kept.back().is_some_and(|(_, kept)| *kept >= value) {
            self.kept.pop_back();
        }
        while self.kept.front().is_some_and(|(at, _)| now.saturating_sub(*at) > FLOOR_WINDOW) {
            self.kept.pop_front();
        }
        if self.kept.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= KEPT_EVERY) {
            self.kept.push_back((now, value));
        }
        self.kept.front().map_or(value, |(_, least)| *least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn the_least_of_a_window_is_found_and_a_bounded_number_of_readings_kept() {
        let mut least = Least::default();
        let window = 3000;
        let mut seen = Vec::new();
        // Falls and rises of any length.
        let mut share = 0.5;
        for tick in 0..30_000_u32 {
            let is_rising = tick / 700 % 3 != 0 || tick > 20_000;
            share += if is_rising { 1e-5 } else { -2e-5 };
            seen.push(share);
            let floor = least.observe(TICK * tick, share);
            let from = seen.len().saturating_sub(window + 1);
            let expect = seen[from..].iter().copied().fold(f64::INFINITY, f64::min);
            // A reading of the last second may be left out.
            assert!(floor >= expect && floor - expect < 1e-5 * 11.0, "{tick}: {floor} and not {expect}");
            assert!(least.kept.len() <= 302, "{}", least.kept.len());
        }
    }
}
