//! [`GCounter`]: a counter that only grows.

use crate::types::change::Change;
use crate::types::store::{Dots, wrap_store};

/// A counter that only grows: of each writer the sum of what it added, under its last dot.
///
/// Under a key of a map it can be removed. A writer's amounts are one sum, so that a counter takes a dot per
/// writer, not per addition: if a writer adds while another one removes the key, the whole sum of that writer
/// comes back, and the sums of the other writers are gone. Two removals of the same amount remove it once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GCounter(Dots<u64>);

impl GCounter {
    /// The sum of what all writers added.
    #[must_use]
    pub fn value(&self) -> u128 {
        self.0.iter().map(|(_, amount)| u128::from(*amount)).sum()
    }

    /// Adds `amount`. A writer's sum stops at `u64::MAX`.
    #[must_use = "this is the store of the delta"]
    pub fn increment(&self, change: &mut Change, amount: u64) -> Self {
        let replica = change.replica();
        let mut sum = amount;
        for (dot, before) in self.0.iter().filter(|(dot, _)| dot.replica == replica) {
            change.kill(dot);
            sum = sum.saturating_add(*before);
        }
        Self(Dots::of(change.dot(), sum))
    }

    /// Removes all sums that are seen. At 0: no event.
    #[must_use = "this is the store of the delta"]
    pub fn clear(&self, change: &mut Change) -> Self {
        Self(self.0.cleared(change))
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn dots(&self) -> &Dots<u64> {
        &self.0
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn from_dots(dots: Dots<u64>) -> Self {
        Self(dots)
    }
}

wrap_store!([] GCounter, Dots<u64>);
