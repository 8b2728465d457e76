//! The seam below the engine: where a log, a vote and a snapshot are kept.

mod error;
pub(crate) mod outline;
mod snapshot;
pub(crate) mod term_runs;
mod write;

use std::ops::Range;

pub use error::{ReadError, RecoverError, SnapshotReadError, SnapshotWriteError, WriteError};
pub use snapshot::{SnapshotReader, SnapshotWriter};
pub use write::Write;

use crate::entry::{Entry, HardState, LogBase, SnapshotMeta};

/// A run of entries of one term, up to the next run or the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermRun {
    /// The first index of the run.
    pub first_index: u64,
    /// The term of each of its entries.
    pub term: u64,
}

/// What a [`Storage`] holds, short of the entries themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The newest hard state written; the default one if none was.
    pub hard_state: HardState,
    /// Where the log begins.
    pub base: LogBase,
    /// The last index of the log; `base.index` when no entry is held.
    pub last_index: u64,
    /// The terms of all entries held, oldest first. Empty when no entry is held.
    pub term_runs: Vec<TermRun>,
    /// All entries of kind `Membership` held, oldest first: with the base's membership they tell who takes
    /// part without a reading of the whole log.
    pub membership_entries: Vec<Entry>,
    /// The snapshot adopted last. Its bytes are there: [`Storage::snapshot_reader`].
    pub snapshot: Option<SnapshotMeta>,
}

impl Recovered {
    /// Whether nothing was ever written: the node takes part in nothing yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        *self == Recovered::default()
    }

    /// The entries that a state machine whose durable index is `durable_index` has yet to be given: what a
    /// [`Replica`](crate::Replica) wants at its start. A snapshot newer than that index stands for those before it.
    #[must_use]
    pub fn unapplied(&self, durable_index: u64) -> Range<u64> {
        let snapshot = self.snapshot.as_ref().map_or(0, |meta| meta.index);
        let first = durable_index.max(snapshot).max(self.base.index) + 1;
        first..(self.last_index + 1).max(first)
    }

    /// The term of the entry at this index, as [`Storage::term`] answers.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last_index {
            return None;
        }
        let behind = self.term_runs.partition_point(|run| run.first_index <= index);
        self.term_runs.get(behind.checked_sub(1)?).map(|run| run.term)
    }
}

/// Where one node keeps its log, its vote and its snapshot.
///
/// Synchronous and object safe: a driver's log thread owns it as `Box<dyn Storage>`, a test calls it inline.
/// `x0_consensus::conformance` (feature `conformance`) checks an implementation against this contract.
///
/// # Order of calls
/// [`recover`](Storage::recover) comes first, once. Then the other methods in any order, one at a time (`&mut
/// self`). A [`SnapshotWriter`] or [`SnapshotReader`] borrows nothing: it may live on another thread, beside
/// writes, for as long as it is needed. Dropping the storage at any moment is a crash it must survive.
///
/// # Durability
/// When [`write`](Storage::write) answers `Ok` and one of the batch's writes has `must_sync`, then the whole
/// batch and all that was written before it survive the loss of power. A batch without `must_sync` may be
/// lost, and only from the end: what is recovered is always what some first part of the sequence of
/// [`Write`]s leaves behind, each of them wholly or not at all.
///
/// # Errors
/// Each variant of the errors says what it did to the state. As a rule: what is refused before it was begun
/// changed nothing; what failed midway leaves the storage *poisoned*, that is, every later `write` answers
/// [`WriteError::Poisoned`] until the log is opened and recovered anew. No failed synchronisation is ever
/// tried again as if the bytes were still to be had: the kernel may have dropped them.
pub trait Storage: Send {
    /// What is held. The first call after opening.
    ///
    /// # Errors
    /// Nothing is changed by an error; what is damaged stays as it is for a person to look at.
    fn recover(&mut self) -> Result<Recovered, RecoverError>;

    /// The term of the entry at `index`; `None` if it lies before the base or behind the end. The base's own
    /// index has its term.
    ///
    /// # Errors
    /// Where terms are not held in memory, as [`read`](Storage::read).
    fn term(&self, index: u64) -> Result<Option<u64>, ReadError>;

    /// The entries of `indexes`, from its start, as many as together hold `len_bytes_max` bytes of payload,
    /// though always at least one unless the range is empty. Their bytes are verified.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] or [`ReadError::BeyondEnd`] when the range reaches out of the log; nothing is
    /// read then. No error changes the state.
    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError>;

    /// Performs these writes in their order, each wholly or not at all, and makes them durable together: one
    /// synchronisation for the batch. An empty batch does nothing.
    ///
    /// # Errors
    /// Nothing of the batch is acknowledged, whatever the error. A batch is checked as a whole before its
    /// first byte is written, so a refused one changed nothing. See [`WriteError`] for what each did to
    /// the state.
    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError>;

    /// Begins to stage a snapshot. It counts for nothing until it is finished *and* adopted by
    /// [`Write::snapshot`]; a staged one that was not adopted is gone after a restart. Several may be
    /// staged at once.
    ///
    /// # Errors
    /// Nothing is staged then, and what was there stays.
    fn snapshot_writer(&mut self, meta: &SnapshotMeta)
    -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError>;

    /// The snapshot adopted last, from its beginning. The reader stays valid when a newer snapshot takes its
    /// place meanwhile.
    ///
    /// # Errors
    /// No error changes the state.
    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError>;
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
}
