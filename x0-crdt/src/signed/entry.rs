//! Values with their verification.

use crate::chain::{MapChains, Verification};
use crate::{Entry, Held};

/// The values at one key of a [`SignedMap`](super::SignedMap), each compared with what its writer signed.
#[derive(Debug, Clone, Copy)]
pub struct SignedEntry<'a> {
    pub(super) entry: Entry<'a>,
    pub(super) chains: &'a MapChains,
}

impl<'a> SignedEntry<'a> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.entry.key()
    }

    /// All values that no write has replaced, in no particular order, each with its verification. Costs a
    /// hash over each value.
    pub fn siblings(&self) -> impl Iterator<Item = (Held<'a>, Verification)> + use<'a> {
        let (key, chains) = (self.entry.key(), self.chains);
        self.entry.siblings().map(move |held| (held, chains.verification(key, &held)))
    }

    /// The latest of the valid values, by time, then dot, then value. `None` if no value at the key is valid
    /// (yet).
    #[must_use]
    pub fn latest(&self) -> Option<Held<'a>> {
        self.valid().max_by_key(|held| (held.time, held.dot, held.value))
    }

    /// The sum of the valid parts of a counter, saturating. Values that are not eight bytes count nothing.
    #[must_use]
    pub fn sum(&self) -> i64 {
        let parts = self.valid().filter_map(|held| held.value.try_into().ok().map(i64::from_le_bytes));
        parts.fold(0, i64::saturating_add)
    }

    fn valid(&self) -> impl Iterator<Item = Held<'a>> + use<'a> {
        self.siblings().filter(|(_, verification)| *verification == Verification::Valid).map(|(held, _)| held)
    }
}
