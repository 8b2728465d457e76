//! Pauses that differ from node to node.

use std::time::Duration;

use crate::random::SplitMix64;

/// Spreads pauses, so that nodes which lost each other at one moment do not dial at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(SplitMix64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(SplitMix64::new(seed))
    }

    /// Between half of a duration and all of it.
    pub(crate) fn spread(&mut self, whole: Duration) -> Duration {
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.0.below(nanos.saturating_add(1)))
    }
}
