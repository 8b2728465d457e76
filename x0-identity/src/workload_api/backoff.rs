//! Pauses between attempts.

use core::time::Duration;

use crate::random::Random;

/// Pauses that double up to a maximum, each between half and all of it.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    pause_min: Duration,
    pause_max: Duration,
    attempts: u32,
    random: Random,
}

impl Backoff {
    pub(super) fn new(pause_min: Duration, pause_max: Duration, seed: u64) -> Backoff {
        Backoff { pause_min, pause_max, attempts: 0, random: Random::new(seed) }
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&mut self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.attempts.min(20));
        self.attempts = self.attempts.saturating_add(1);
        let pause = self.pause_min.saturating_mul(doubled).min(self.pause_max);
        pause.mul_f64(0.5 + 0.5 * self.random.fraction())
    }

    /// The attempt succeeded: the next pause is the first one.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_begin_again() {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(least, most, 7);
        for attempt in 0..40 {
            let whole = least.saturating_mul(2_u32.saturating_pow(attempt)).min(most);
            let pause = backoff.pause();
            assert!(pause >= whole / 2 && pause <= whole, "attempt {attempt}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= least);
    }
}
