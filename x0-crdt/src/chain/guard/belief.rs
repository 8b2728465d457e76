//! Whether a value may be believed.

use super::super::digest::Digest;
use super::Guard;
use super::cover::Leaf;
use super::keys::is_reserved;
use crate::{Entry, Held, ReplicaId};

/// How a value of the map stands to the chain of its writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Belief {
    /// Its writer has signed it, and is not known to have contradicted itself up to there.
    Signed,
    /// No batch in the map covers it, or none yet: it is whatever its carrier says. So is everything under
    /// [`CHAIN_PREFIX`](super::CHAIN_PREFIX), which is not for reading.
    Uncovered,
    /// As [`Uncovered`](Self::Uncovered), and of a writer that the [`Verifier`](super::super::Verifier) has no key of.
    UnknownWriter,
    /// A batch of its writer says otherwise. A review drops such values.
    Refuted,
    /// Its writer has contradicted itself, and this lies behind what is kept. A review drops such values.
    Quarantined,
}

impl Guard {
    /// How a value at `key` stands to the chain of its writer. Costs a hash over the value.
    #[must_use]
    pub fn belief(&self, key: &[u8], held: &Held<'_>) -> Belief {
        let (writer, seq) = (held.dot.replica, held.dot.seq);
        if is_reserved(key) {
            return Belief::Uncovered;
        }
        if self.tracker.kept(writer).is_some_and(|kept| seq > kept) {
            return Belief::Quarantined;
        }
        match self.leaf(writer, seq) {
            Leaf::Live(digest) if digest == Digest::of_value(writer, seq, key, held.time, held.value) => {
                Belief::Signed
            }
            Leaf::Live(_) | Leaf::Void => Belief::Refuted,
            Leaf::Unknown if self.unknown.contains(&writer) => Belief::UnknownWriter,
            Leaf::Unknown => Belief::Uncovered,
        }
    }

    /// The values of an entry that their writers have signed.
    pub fn believed<'a>(&'a self, entry: &Entry<'a>) -> impl Iterator<Item = Held<'a>> + use<'a> {
        let key = entry.key();
        entry.siblings().filter(move |held| self.belief(key, held) == Belief::Signed)
    }

    /// The latest of the values that their writers have signed: by time, then dot, then value, as [`Entry::latest`].
    #[must_use]
    pub fn latest<'a>(&'a self, entry: &Entry<'a>) -> Option<Held<'a>> {
        self.believed(entry).max_by_key(|held| (held.time, held.dot, held.value))
    }

    /// What the batches in the map say of an event.
    pub(super) fn leaf(&self, writer: ReplicaId, seq: u64) -> Leaf {
        let covers = self.covers.get(&writer);
        let cover = covers.and_then(|covers| covers.range(..seq).next_back());
        cover.map_or(Leaf::Unknown, |(_, cover)| cover.leaf(seq))
    }
}
