//! [`Plain`]: any lattice as a value that can be removed.

use crate::types::change::Change;
use crate::types::lattice::Lattice;
use crate::types::store::{Dots, wrap_store};

/// Any plain [`Lattice`] as a dot store, so that it can be a value in a map and be removed with its key.
///
/// Its value is the join of the concurrent ones. An update carries all that it has seen: after a concurrent
/// removal of the key the value comes back, joined with the update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain<L>(Dots<L>);

impl<L> Default for Plain<L> {
    fn default() -> Self {
        Self(Dots::default())
    }
}

impl<L: Lattice> Plain<L> {
    /// The value; the bottom if it was never updated.
    #[must_use]
    pub fn value(&self) -> L {
        let mut value = L::bottom();
        self.0.iter().for_each(|(_, sibling)| {
            value.join(sibling);
        });
        value
    }

    /// Joins `news` in. No event if that changes nothing.
    #[must_use = "this is the store of the delta"]
    pub fn update(&self, change: &mut Change, news: &L) -> Self {
        let mut value = self.value();
        if value.join(news) { Self(self.0.replaced(change, value)) } else { Self::default() }
    }

    /// Removes all that is seen. Never updated: no event.
    #[must_use = "this is the store of the delta"]
    pub fn clear(&self, change: &mut Change) -> Self {
        Self(self.0.cleared(change))
    }
}

wrap_store!([L: Lattice] Plain<L>, Dots<L>);
