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

/// The rise of the memory of a process: that of its floor, the least share within [`FLOOR_WINDOW`].
///
/// While memory is in use, a leak and memory that is freed later look alike. The floor distinguishes them: a
/// leak raises it, and memory that is freed within the window does not, whatever its height.
#[derive(Debug)]
pub(super) struct Rise {
    /// The readings of the window that may become the floor: each is below all that follow it.
    kept: VecDeque<(Duration, f64)>,
    /// Two trends of the floor, each with the time of its last reading and its verdict per hour.
    trends: [(Trend, Option<Duration>, f64); 2],
}

impl Rise {
    pub(super) fn new() -> Rise {
        // Nothing depends on when a limit is reached.
        let trend = || (Trend::new(1e3), None, 0.0);
        Rise { kept: VecDeque::new(), trends: [trend(), trend()] }
    }

    /// The rise in an hour, after a reading that is in its range, at a time that does not run backwards.
    pub(super) fn observe(&mut self, now: Duration, share: f64) -> f64 {
        let floor = self.floor(now, share);
        for ((trend, last, rise), every) in self.trends.iter_mut().zip(TREND_EVERY) {
            if last.is_some_and(|last| now.saturating_sub(last) < every) {
                continue;
            }
            *last = Some(now);
            *rise = match trend.observe(now, floor) {
                Ok(TrendVerdict::Exhausting { slope, .. }) => slope.abs() * 3600.0,
                _ => 0.0,
            };
        }
        self.trends.iter().map(|(_, _, rise)| *rise).fold(0.0, f64::max)
    }

    /// The least share within the window.
    fn floor(&mut self, now: Duration, share: f64) -> f64 {
        while self.kept.back().is_some_and(|(_, kept)| *kept >= share) {
            self.kept.pop_back();
        }
        while self.kept.front().is_some_and(|(at, _)| now.saturating_sub(*at) > FLOOR_WINDOW) {
            self.kept.pop_front();
        }
        if self.kept.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= KEPT_EVERY) {
            self.kept.push_back((now, share));
        }
        self.kept.front().map_or(share, |(_, floor)| *floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn a_floor_is_the_least_share_of_its_window_and_keeps_a_bounded_number_of_readings() {
        let mut rise = Rise::new();
        let window = 3000;
        let mut seen = Vec::new();
        // Falls and rises of any length.
        let mut share = 0.5;
        for tick in 0..30_000_u32 {
            let is_rising = tick / 700 % 3 != 0 || tick > 20_000;
            share += if is_rising { 1e-5 } else { -2e-5 };
            seen.push(share);
            let floor = rise.floor(TICK * tick, share);
            let from = seen.len().saturating_sub(window + 1);
            let least = seen[from..].iter().copied().fold(f64::INFINITY, f64::min);
            // A reading of the last second may be left out.
            assert!(floor >= least && floor - least < 1e-5 * 11.0, "{tick}: {floor} and not {least}");
            assert!(rise.kept.len() <= 302, "{}", rise.kept.len());
        }
    }
}
