//! Answers of a CRDT store.

use std::fmt;

use bytes::Bytes;

use crate::request::keyspace::KeyspaceName;

/// Bits of a [`Timestamp`] that count writes within one millisecond.
pub(crate) const MOMENTS_PER_MS_BITS: u32 = 16;

/// The time of a write in a CRDT store, by the hybrid logical clock of its writer.
///
/// A timestamp is greater than those of all writes that its write replaced. Timestamps of writers that did
/// not see each other follow their wall clocks. A timestamp is not a [`Revision`](crate::Revision): two
/// writes may carry the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The timestamp with this representation: milliseconds since 1970 in the upper 48 bits, a counter in the
    /// lower 16.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Timestamp {
        Timestamp(bits)
    }

    /// The representation, for storing it; see [`from_bits`](Timestamp::from_bits).
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The wall-clock part, in milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> MOMENTS_PER_MS_BITS
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & ((1 << MOMENTS_PER_MS_BITS) - 1))
    }
}

/// A value of a CRDT store and the time of the write that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrdtValue {
    /// The value.
    pub value: Bytes,
    /// The time of the write.
    pub timestamp: Timestamp,
}

/// A key of a CRDT store with its latest value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrdtEntry {
    /// The key.
    pub key: Bytes,
    /// The latest value.
    pub value: Bytes,
    /// The time of the write that set it.
    pub timestamp: Timestamp,
}

/// One page of a range of a CRDT store. Later pages may show later writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CrdtPage {
    /// The entries, in the order asked for.
    pub entries: Vec<CrdtEntry>,
    /// The start of the next page, for [`RangeQuery::resume`](crate::RangeQuery::resume); `None` at the end
    /// of the range.
    pub continuation: Option<Bytes>,
}

/// The result of one bounded step of emptying a keyspace of a CRDT store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// How many keys this step removed.
    pub removed: usize,
    /// Whether the keyspace is empty now, as far as this node knows. Otherwise call again.
    pub is_done: bool,
}

/// The outcome of a request to a CRDT store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrdtOutcome {
    /// To a get: the latest value, if the key has one.
    Value(Option<CrdtValue>),
    /// To a range.
    Page(CrdtPage),
    /// To a put: the time of the write.
    Put(Timestamp),
    /// To a delete: whether the key had a value.
    Deleted(bool),
    /// To a request for all values of a key: the latest first.
    Siblings(Vec<CrdtValue>),
    /// To an addition to a counter, or to a request for its value.
    Counter(i64),
    /// To a request for the names of the keyspaces.
    Keyspaces(Vec<KeyspaceName>),
    /// To one step of emptying a keyspace.
    Cleared(Cleared),
}
