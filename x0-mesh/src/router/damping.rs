//! Damping of links that fail repeatedly.

use core::time::Duration;

/// What one failure adds.
const FAILURE: u32 = 1000;
/// Above it a link is damped, below the other one no longer (the two thresholds of RFC 2439 §4.2).
const DAMPED: u32 = 2500;
const REUSED: u32 = 1000;
const PENALTY_MAX: u32 = 8000;
/// The penalty halves in this time.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// How much longer a damped link counts.
const FACTOR: u32 = 8;

/// A penalty for each failure of a link, which decays. A damped link costs eight times its metric instead of
/// being refused as in RFC 2439: it is still used where nothing else leads to the destination.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Damping {
    penalty: u32,
    /// The time of which `penalty` is.
    at: Duration,
    pub(super) is_damped: bool,
}

impl Damping {
    pub(super) fn fail(&mut self, now: Duration) {
        self.update(now);
        self.penalty = (self.penalty + FAILURE).min(PENALTY_MAX);
        self.is_damped |= self.penalty > DAMPED;
    }

    /// Lets the penalty decay. True if the link is damped no longer.
    pub(super) fn update(&mut self, now: Duration) -> bool {
        let halvings = (now.saturating_sub(self.at).as_millis() / HALF_LIFE.as_millis()).min(31);
        let halvings = u32::try_from(halvings).unwrap_or(31);
        if halvings > 0 {
            self.penalty >>= halvings;
            // The rest of a half-life counts towards the next one.
            self.at = if halvings == 31 { now } else { self.at + HALF_LIFE * halvings };
        } else if self.penalty == 0 {
            self.at = now;
        }
        let ends = self.is_damped && self.penalty < REUSED;
        self.is_damped &= !ends;
        ends
    }

    /// Whether nothing is left of the penalty.
    pub(super) fn is_over(&mut self, now: Duration) -> bool {
        self.update(now);
        self.penalty == 0
    }

    /// When the damping may end.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.is_damped.then(|| self.at + HALF_LIFE)
    }

    pub(super) fn metric(&self, metric: u32) -> u32 {
        if self.is_damped { metric.saturating_mul(FACTOR) } else { metric }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quick_failures_damp_and_time_reuses() {
        let mut damping = Damping::default();
        for second in [100, 101, 102] {
            assert_eq!(damping.metric(10), 10);
            damping.fail(Duration::from_secs(second));
        }
        assert_eq!(damping.metric(10), 80);
        let mut now = Duration::from_secs(102);
        while let Some(at) = damping.timeout() {
            assert!(at > now);
            now = at;
            damping.update(now);
        }
        assert!(now > Duration::from_secs(110) && now < Duration::from_secs(140), "{now:?}");
        assert_eq!(damping.metric(10), 10);
    }

    #[test]
    fn rare_failures_do_not_damp() {
        let mut damping = Damping::default();
        for failure in 0..50 {
            damping.fail(Duration::from_secs(failure * 60));
            assert!(!damping.is_damped);
        }
        damping.fail(Duration::from_secs(1 << 40));
        assert!(!damping.is_damped);
    }
}
