//! One atomic change of what is held.

use crate::entry::{Entry, HardState, LogBase, SnapshotMeta};

/// One atomic change: after a crash all of it is there or nothing.
///
/// Its parts take effect in the order of the fields. [`Write::default`] changes nothing and has `must_sync`
/// set, so that nobody loses durability by leaving a field out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// Adopts a staged and finished snapshot of this index and term. Where the log holds an entry of that
    /// index and term, the log stays as it is; otherwise it has nothing in common with the snapshot, and
    /// all of it gives way to a base of the snapshot's index, term and membership (Raft §7). Older
    /// snapshots are removed once this is durable.
    pub snapshot: Option<SnapshotMeta>,
    /// Entries without gaps. The first follows the last one held or overwrites it: entries held at its index
    /// and behind it are removed first. It must lie behind the base.
    pub entries: Vec<Entry>,
    /// Moves the base forward: entries through its index are no longer needed, since a snapshot or the state
    /// machine's own durable state covers them. The index must be held and its term must agree. A base
    /// at the index where the log already begins only restates the membership (so a cluster is
    /// bootstrapped: index 0, term 0 and its first members). One further back is ignored.
    pub base: Option<LogBase>,
    /// Whether the batch with this write must be durable before `Ok`. Only a change of `hard_state.commit`
    /// can do without. A change of `snapshot` or `base` is made durable in any case.
    pub must_sync: bool,
}

impl Default for Write {
    fn default() -> Write {
        Write { hard_state: None, snapshot: None, entries: Vec::new(), base: None, must_sync: true }
    }
}

impl Write {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hard_state.is_none() && self.snapshot.is_none() && self.entries.is_empty() && self.base.is_none()
    }
}
