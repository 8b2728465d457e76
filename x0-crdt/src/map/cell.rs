//! [`Cell`]: the values at one key that no later write has replaced.

use alloc::vec::Vec;
use core::slice;

use super::small::Value;

/// One value at a key, and the event that wrote it. Writers are numbers of the map's own table here, to keep
/// this at 40 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sibling {
    pub(super) seq: u64,
    pub(super) time: u64,
    pub(super) value: Value,
    pub(super) writer: u32,
}

/// The siblings of a key, at least one, ascending by writer and event.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    One(Sibling),
    Many(Vec<Sibling>),
}

impl Cell {
    /// A cell of `siblings`, `None` if there are none.
    pub(super) fn new(mut siblings: Vec<Sibling>) -> Option<Self> {
        if siblings.len() < 2 {
            return siblings.pop().map(Self::One);
        }
        siblings.sort_unstable_by_key(|sibling| (sibling.writer, sibling.seq));
        siblings.shrink_to_fit();
        Some(Self::Many(siblings))
    }

    pub(super) fn siblings(&self) -> &[Sibling] {
        match self {
            Self::One(sibling) => slice::from_ref(sibling),
            Self::Many(siblings) => siblings,
        }
    }

    /// Takes the siblings out and leaves an empty cell, which the caller replaces or removes at once.
    pub(super) fn take(&mut self) -> Vec<Sibling> {
        core::mem::replace(self, Self::Many(Vec::new())).into_siblings()
    }

    pub(super) fn into_siblings(self) -> Vec<Sibling> {
        match self {
            Self::One(sibling) => alloc::vec![sibling],
            Self::Many(siblings) => siblings,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cell_is_as_small_as_its_one_sibling() {
        assert_eq!(size_of::<super::Sibling>(), 40);
        assert!(size_of::<super::Cell>() <= 48);
    }
}
