//! The seam below the replica: a log, a vote and a snapshot.

mod error;
pub(crate) mod outline;
mod snapshot;
pub(crate) mod term_runs;
mod write;

use std::ops::Range;

pub use error::{ReadError, RecoverError, SnapshotReadError, SnapshotWriteError, WriteError};
pub use snapshot::{SnapshotReader, SnapshotWriter};
pub use write::Write;

use x0_identity::NodeId;

use crate::entry::{Entry, HardState, LogBase, SnapshotMeta};
use crate::membership::MembershipChange;

/// A run of entries of one term, up to the next run or the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermRun {
    /// The first index of the run.
    pub first_index: u64,
    /// The term of each of its entries.
    pub term: u64,
}

/// The contents of a [`Storage`] without the entries themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The newest hard state that was written, or the default.
    pub hard_state: HardState,
    /// The position before the first entry.
    pub base: LogBase,
    /// The last index of the log; `base.index` when no entry is held.
    pub last_index: u64,
    /// The terms of all entries held, oldest first. Empty when no entry is held.
    pub term_runs: Vec<TermRun>,
    /// All entries of kind `Membership` in the log, oldest first. Together with the base's membership they
    /// give the current membership without reading the whole log.
    pub membership_entries: Vec<Entry>,
    /// The snapshot that was adopted last. [`Storage::snapshot_reader`] returns its bytes.
    pub snapshot: Option<SnapshotMeta>,
}

impl Recovered {
    /// Whether nothing was ever written: the node is not a member of any group yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        *self == Recovered::default()
    }

    /// Whether `node` may be the only voter of its group, by what the log says: no other member is certain to
    /// have its entries.
    #[must_use]
    pub fn may_be_only_voter(&self, node: NodeId) -> bool {
        // The entries after the commit index may be committed or not.
        [self.hard_state.commit, u64::MAX].into_iter().any(|limit| {
            let mut voters = self.base.membership.voters.clone();
            for entry in self.membership_entries.iter().filter(|entry| entry.index <= limit) {
                // An entry without effect changes nothing on any member.
                let Some(change) = MembershipChange::of_entry(entry) else { continue };
                voters.extend(&change.voters);
                voters.retain(|voter| !change.removed.contains(voter) && !change.learners.contains(voter));
            }
            voters.iter().all(|voter| *voter == node)
        })
    }

    /// The indexes of the entries that a state machine with this durable index has not applied.
    /// [`Replica::new`](crate::Replica::new) takes these entries. A snapshot newer than the durable index
    /// replaces all entries up to its own index.
    #[must_use]
    pub fn unapplied(&self, durable_index: u64) -> Range<u64> {
        let snapshot = self.snapshot.as_ref().map_or(0, |meta| meta.index);
        let first = durable_index.max(snapshot).max(self.base.index) + 1;
        first..(self.last_index + 1).max(first)
    }

    /// The term of the entry at this index, as [`Storage::term`] returns it.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last_index {
            return None;
        }
        // The run that contains the index is the last one that starts at or before it.
        let behind = self.term_runs.partition_point(|run| run.first_index <= index);
        self.term_runs.get(behind.checked_sub(1)?).map(|run| run.term)
    }
}

/// The log, the vote and the snapshot of one node.
///
/// Synchronous and object safe: the log thread of a driver owns it as `Box<dyn Storage>`, and a test calls it
/// inline. `x0_consensus::conformance` (feature `conformance`) checks an implementation against this
/// contract.
///
/// # Order of calls
/// [`recover`](Storage::recover) is called first, once; then the other methods in any order, one at a time
/// (`&mut self`). A [`SnapshotWriter`] or [`SnapshotReader`] borrows nothing: it may live on another thread,
/// beside writes, as long as it is needed. Dropping the storage at any moment is a crash that it must
/// survive.
///
/// # Durability
/// When [`write`](Storage::write) returns `Ok` and one of the batch's writes has `must_sync`, the whole batch
/// and everything that was written before it survive a power failure. A batch without `must_sync` may be
/// lost, but only from the end: recovery always finds the result of a prefix of the sequence of [`Write`]s,
/// each of them whole.
///
/// # Errors
/// Each variant of the errors documents its effect on the state. As a rule, a batch that is refused before
/// its first byte is written changes nothing. A write that fails midway leaves the storage *poisoned*: every
/// later `write` returns [`WriteError::Poisoned`] until the log is opened and recovered again. A failed
/// synchronisation is never repeated: the kernel may have dropped the bytes, and would report success for
/// bytes that are not on the disk.
pub trait Storage: Send {
    /// Returns the contents. The first call after opening.
    ///
    /// # Errors
    /// An error changes nothing; damaged files stay as they are for inspection.
    fn recover(&mut self) -> Result<Recovered, RecoverError>;

    /// The term of the entry at `index`; `None` before the base or after the end. The base's own index has
    /// the base's term.
    ///
    /// # Errors
    /// As [`read`](Storage::read), for storages that do not hold terms in memory.
    fn term(&self, index: u64) -> Result<Option<u64>, ReadError>;

    /// Reads the entries of `indexes` from its start, at most `len_bytes_max` bytes of payload together but
    /// always at least one entry unless the range is empty. Checksums are verified.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] or [`ReadError::BeyondEnd`] when the range reaches out of the log; nothing is
    /// read then. An error changes nothing.
    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError>;

    /// Performs these writes in their order, each of them atomically, and makes them durable together, with
    /// one synchronisation for the batch. An empty batch does nothing.
    ///
    /// # Errors
    /// After any error nothing of the batch is acknowledged. A batch is checked as a whole before its first
    /// byte is written, so that a refused batch changes nothing. [`WriteError`] documents the effect of each
    /// variant on the state.
    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError>;

    /// Begins to stage a snapshot. The snapshot is in use once it is finished *and* adopted by
    /// [`Write::snapshot`]; a staged snapshot that was not adopted is removed by a restart. Several may be
    /// staged at once.
    ///
    /// # Errors
    /// Nothing is staged, and existing snapshots stay.
    fn snapshot_writer(&mut self, meta: &SnapshotMeta)
    -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError>;

    /// The snapshot that was adopted last, from its beginning. The reader stays valid when a newer snapshot
    /// is adopted.
    ///
    /// # Errors
    /// An error changes nothing.
    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError>;

    /// The bytes that the log occupies, for the metric `x0_consensus_log_bytes`; `None` if the storage does
    /// not count them.
    fn len_bytes(&self) -> Option<u64> {
        None
    }
}

impl<S: Storage + ?Sized> Storage for Box<S> {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        (**self).recover()
    }

    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        (**self).term(index)
    }

    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        (**self).read(indexes, len_bytes_max)
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        (**self).write(batch)
    }

    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        (**self).snapshot_writer(meta)
    }

    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        (**self).snapshot_reader()
    }

    fn len_bytes(&self) -> Option<u64> {
        (**self).len_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode_change;
    use crate::entry::{EntryKind, Membership};

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn entry(index: u64, change: &MembershipChange) -> Entry {
        let mut payload = Vec::new();
        encode_change(&mut payload, change);
        Entry { index, term: 1, kind: EntryKind::Membership, payload: payload.into() }
    }

    #[test]
    fn a_log_says_who_may_be_the_only_voter() {
        let founded = |voters: &[u64]| {
            let membership = Membership::of_voters(voters.iter().copied().map(id));
            Recovered { base: LogBase { membership, ..LogBase::default() }, ..Recovered::default() }
        };
        assert!(founded(&[]).may_be_only_voter(id(1)) && founded(&[1]).may_be_only_voter(id(1)));
        assert!(!founded(&[1, 2]).may_be_only_voter(id(1)));
        let mut grown = founded(&[1]);
        grown.membership_entries = vec![entry(5, &MembershipChange::default().voter(id(2)))];
        assert!(grown.may_be_only_voter(id(1)), "the change may not be committed");
        grown.hard_state.commit = 5;
        assert!(!grown.may_be_only_voter(id(1)));
        grown.membership_entries.push(entry(6, &MembershipChange::default().remove(id(2))));
        assert!(grown.may_be_only_voter(id(1)), "the change may be committed");
    }
}
