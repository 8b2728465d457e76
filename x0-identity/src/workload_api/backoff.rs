//! Pauses between attempts.

use core::time::Duration;

/// Pauses that double up to a maximum, each between half and all of it.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    pause_min: Duration,
    pause_max: Duration,
    attempts: u32,
    random: u64,
}

impl Backoff {
    pub(super) fn new(pause_min: Duration, pause_max: Duration, seed: u64) -> Backoff {
        Backoff { pause_min, pause_max, attempts: 0, random: seed }
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&mut self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.attempts.min(20));
        self.attempts = self.attempts.saturating_add(1);
        let pause = self.pause_min.saturating_mul(doubled).min(self.pause_max);
        pause.mul_f64(0.5 + 0.5 * self.fraction())
    }

    /// The attempt succeeded: the next pause is the first one.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// From 0 to 1, by SplitMix64.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
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
