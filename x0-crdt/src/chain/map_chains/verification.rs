//! The verification of a value against the chain of its writer.

use super::super::digest::Digest;
use super::MapChains;
use super::cover::Leaf;
use super::keys::is_reserved;
use crate::{Entry, Held, ReplicaId};

/// The verification of a value of the map against what its writer signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Verification {
    /// Its writer has signed it, and no proof reaches it.
    Valid,
    /// No batch in the map covers it, or none yet: a carrier may have invented it. Everything under
    /// [`CHAIN_PREFIX`](super::CHAIN_PREFIX) is unsigned, because chain entries verify by themselves.
    Unsigned,
    /// As `Unsigned`, because the [`Verifier`](super::super::Verifier) has no key of its writer.
    UnknownWriter,
    /// A batch of its writer contradicts it: a carrier has forged it. A review drops such values.
    Invalid,
    /// Its writer equivocates, and this event comes after what is kept. A review drops such values.
    Quarantined,
}

impl MapChains {
    /// Compares a value at `key` with the digest that its writer signed. Costs a hash over the value.
    #[must_use]
    pub fn verification(&self, key: &[u8], held: &Held<'_>) -> Verification {
        let (writer, seq) = (held.dot.replica, held.dot.seq);
        if is_reserved(key) {
            return Verification::Unsigned;
        }
        if self.tracker.kept(writer).is_some_and(|kept| seq > kept) {
            return Verification::Quarantined;
        }
        match self.leaf(writer, seq) {
            Leaf::Live(digest) if digest == Digest::of_value(writer, seq, key, held.time, held.value) => {
                Verification::Valid
            }
            Leaf::Live(_) | Leaf::Void => Verification::Invalid,
            Leaf::Unknown if self.unknown.contains(&writer) => Verification::UnknownWriter,
            Leaf::Unknown => Verification::Unsigned,
        }
    }

    /// The values of an entry that their writers have signed.
    pub fn valid_values<'a>(&'a self, entry: &Entry<'a>) -> impl Iterator<Item = Held<'a>> + use<'a> {
        let key = entry.key();
        entry.siblings().filter(move |held| self.verification(key, held) == Verification::Valid)
    }

    /// The latest of the values that their writers have signed: by time, then dot, then value, as
    /// [`Entry::latest`].
    #[must_use]
    pub fn latest<'a>(&'a self, entry: &Entry<'a>) -> Option<Held<'a>> {
        self.valid_values(entry).max_by_key(|held| (held.time, held.dot, held.value))
    }

    /// The digest of an event, as far as the batches in the map hold it.
    pub(super) fn leaf(&self, writer: ReplicaId, seq: u64) -> Leaf {
        let covers = self.covers.get(&writer);
        let cover = covers.and_then(|covers| covers.range(..seq).next_back());
        cover.map_or(Leaf::Unknown, |(_, cover)| cover.leaf(seq))
    }
}
