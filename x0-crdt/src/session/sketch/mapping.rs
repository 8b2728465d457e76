//! [`Mapping`]: the coded symbols that an item is in.

use crate::hash::HashKey;
use crate::random::SplitMix64;

/// The symbols of an item, ascending: always the first, the i-th with probability 1/(1 + i/2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping {
    random: SplitMix64,
    /// The next symbol that the item is in.
    pub(super) next: u64,
}

/// An item's check value and its symbols from the start.
pub(super) fn map(key: HashKey, item: u64) -> (u32, Mapping) {
    let hash = key.hash(&[b"sketch", &item.to_le_bytes()]);
    // The high half decides whether a symbol holds one item; the whole seeds the sequence.
    let check = u32::try_from(hash >> 32).unwrap_or(0);
    (check, Mapping { random: SplitMix64::new(hash), next: 0 })
}

impl Mapping {
    /// Goes on to the symbol after `next`.
    ///
    /// The gap is drawn by inverting its distribution, section 4.2 of the paper: (i + 3/2)(1/sqrt(u) - 1) for
    /// u uniform in (0, 1], here in whole numbers, so that all machines agree.
    pub(super) fn advance(&mut self) {
        let random = self.random.next();
        // sqrt(u) in units of 2^-32, from 1.
        let root = u128::from(random.isqrt()) + 1;
        let gap = ((2 * u128::from(self.next) + 3) * ((1 << 32) - root)).div_ceil(2 * root).max(1);
        self.next = u64::try_from(gap).map_or(u64::MAX, |gap| self.next.saturating_add(gap));
    }
}
