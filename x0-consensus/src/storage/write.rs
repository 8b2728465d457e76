//! One atomic change of a storage.

use crate::entry::{Entry, HardState, LogBase, SnapshotMeta};

/// One atomic change: after a crash the whole change is there or nothing of it.
///
/// The parts take effect in the order of the fields. [`Write::default`] changes nothing and has `must_sync`
/// set, so that a field that is left out does not cost durability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// Adopts a staged and finished snapshot of this index and term. If the log has an entry of that index
    /// and term, the log is kept; otherwise it conflicts with the snapshot and is replaced by a base with the
    /// snapshot's index, term and membership (Ongaro 2014, section 5.1). Older snapshots are removed once
    /// this is durable.
    pub snapshot: Option<SnapshotMeta>,
    /// Entries without gaps. The first one follows the last entry of the log or replaces entries: those at
    /// its index and after it are removed first. Its index must be after the base.
    pub entries: Vec<Entry>,
    /// Moves the base forward: the entries up to its index are removed, since a snapshot or the state
    /// machine's own durable state covers them. The log must have an entry of this index and term. A base at
    /// the current base's index only replaces the membership; a cluster is bootstrapped that way, with index
    /// 0, term 0 and its first members. A base further back is ignored.
    pub base: Option<LogBase>,
    /// Whether the batch with this write must be durable before `Ok`. Only a change of `hard_state.commit`
    /// may omit it, because a leader finds the commit index again (Ongaro 2014, section 3.8). A change of
    /// `snapshot` or `base` is made durable in any case.
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
