//! The position of a write in the order of all writes.

use std::fmt;

/// The log index of the write that set a value: the version of a key in a [`Store`](crate::Store).
///
/// A later write of any key in any keyspace has a greater revision.
/// [`Expect::Revision`](crate::Expect::Revision) compares it. A CRDT store has no such order; its values
/// carry a `crdt::Timestamp` instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

impl Revision {
    /// The revision of log index `index`.
    #[must_use]
    pub const fn new(index: u64) -> Revision {
        Revision(index)
    }

    /// The log index.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
