//! [`PnCounter`]: a counter that goes up and down.

use crate::types::change::Change;
use crate::types::store::{Dots, wrap_store};

/// A counter that goes up and down: of each writer the two sums of what it added and took away, under its
/// last dot.
///
/// Under a key of a map it behaves like a [`GCounter`](super::GCounter): a removal takes away each writer's
/// sums that it has seen, and a writer that counts on at the same time brings back its own, whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PnCounter(Dots<(u64, u64)>);

impl PnCounter {
    /// The sum of all additions, less all subtractions.
    #[must_use]
    pub fn value(&self) -> i128 {
        self.0.iter().map(|(_, (up, down))| i128::from(*up) - i128::from(*down)).sum()
    }

    /// Adds `amount`. Each of a writer's two sums stops at `u64::MAX`.
    #[must_use = "this is the store of the delta"]
    pub fn add(&self, change: &mut Change, amount: i64) -> Self {
        let replica = change.replica();
        let (mut up, mut down) =
            if amount < 0 { (0, amount.unsigned_abs()) } else { (amount.unsigned_abs(), 0) };
        for (dot, before) in self.0.iter().filter(|(dot, _)| dot.replica == replica) {
            change.kill(dot);
            up = up.saturating_add(before.0);
            down = down.saturating_add(before.1);
        }
        Self(Dots::of(change.dot(), (up, down)))
    }

    /// Removes all sums that are seen. Never counted: no event.
    #[must_use = "this is the store of the delta"]
    pub fn clear(&self, change: &mut Change) -> Self {
        Self(self.0.cleared(change))
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn dots(&self) -> &Dots<(u64, u64)> {
        &self.0
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn from_dots(dots: Dots<(u64, u64)>) -> Self {
        Self(dots)
    }
}

wrap_store!([] PnCounter, Dots<(u64, u64)>);
