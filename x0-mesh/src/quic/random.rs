//! Numbers that look random.

use std::hash::{BuildHasher, RandomState};

/// Different in each process and call; drawn from the system's randomness by way of the standard library's hasher.
pub(super) fn unpredictable() -> u64 {
    RandomState::new().hash_one(std::time::SystemTime::now())
}

/// SplitMix64: jitter needs no more.
#[derive(Debug, Clone)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between half of a duration and all of it.
    pub(super) fn spread(&mut self, whole: std::time::Duration) -> std::time::Duration {
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + std::time::Duration::from_nanos(self.next() % nanos.saturating_add(1).max(1))
    }
}
