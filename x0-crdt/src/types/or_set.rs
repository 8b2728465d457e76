//! [`OrSet`]: a set in which adding wins.

use core::borrow::Borrow;

use super::{Flag, OrMap};
use crate::codec::Canonical;
use crate::types::change::Change;
use crate::types::store::wrap_store;

/// A set: of a concurrent addition and removal of an item, the addition wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrSet<T>(OrMap<T, Flag>);

impl<T> Default for OrSet<T> {
    fn default() -> Self {
        Self(OrMap::default())
    }
}

impl<T: Ord + Clone + Canonical> OrSet<T> {
    /// Whether `item` is in it.
    #[must_use]
    pub fn contains<Q: Ord + ?Sized>(&self, item: &Q) -> bool
    where
        T: Borrow<Q>,
    {
        self.0.get(item).is_some()
    }

    /// The items, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> + Clone + '_ {
        self.0.iter().map(|(item, _)| item)
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an item, also if it is there, so that it survives a concurrent removal.
    #[must_use = "this is the store of the delta"]
    pub fn add(&self, change: &mut Change, item: T) -> Self {
        Self(self.0.update(change, item, Flag::enable))
    }

    /// Removes an item. Not there: no event.
    #[must_use = "this is the store of the delta"]
    pub fn remove(&self, change: &mut Change, item: &T) -> Self {
        Self(self.0.remove(change, item))
    }

    /// Removes all items that are seen. None there: no event.
    #[must_use = "this is the store of the delta"]
    pub fn clear(&self, change: &mut Change) -> Self {
        Self(self.0.clear(change))
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn flags(&self) -> &OrMap<T, Flag> {
        &self.0
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) const fn from_flags(flags: OrMap<T, Flag>) -> Self {
        Self(flags)
    }
}

wrap_store!([T: Ord + Clone + Canonical] OrSet<T>, OrMap<T, Flag>);
