//! The seam above the replica: the application that the log drives.

use std::error::Error;
use std::io::Read;

use bytes::Bytes;

use crate::entry::{Entry, SnapshotMeta};

/// The application that the replicated log drives. It must be deterministic: the same entries in the same
/// order give the same state and the same outcomes on every replica, independent of the time, the machine and
/// the history of the process.
///
/// Synchronous. A driver may apply a small batch on the task of its event loop if
/// [`can_apply_inline`](StateMachine::can_apply_inline) permits it; larger batches,
/// [`restore`](StateMachine::restore), [`checkpoint`](StateMachine::checkpoint) and
/// [`snapshot`](StateMachine::snapshot) run on a thread ([`driver`](crate::driver) has the details), and a
/// test calls all of them inline. After an error the replica stops; open the state machine again to continue
/// from what was durable.
pub trait StateMachine: Send {
    /// The last index whose effects survive a crash at this moment: 0 for a state machine in memory. After a
    /// start the entries after it are applied again.
    fn durable_index(&self) -> u64;

    /// Applies consecutive committed entries. Every entry is passed, so that the state machine can track the
    /// index; only those of kind [`Normal`](crate::EntryKind::Normal) with a payload are commands. Push one
    /// outcome for each command and none for the others.
    ///
    /// # Errors
    /// The state may hold a part of the entries.
    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError>;

    /// Whether applying this small batch of entries (some dozens) would take some microseconds at this moment
    /// and wait for nothing, so that a driver may do it on the task of its event loop. `true` unless
    /// implemented; a state machine that may wait for a disk or a lock returns `false`.
    fn can_apply_inline(&self, _entries: &[Entry]) -> bool {
        true
    }

    /// The whole state as it is now, as a stream. Entries that are applied while it is read must not change
    /// it.
    ///
    /// # Errors
    /// The state is as before.
    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError>;

    /// Replaces the state by a snapshot of [`meta`](SnapshotMeta). All or nothing.
    ///
    /// # Errors
    /// The state is as before.
    fn restore(&mut self, meta: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError>;

    /// Starts to make the applied state durable and returns the current
    /// [`durable_index`](StateMachine::durable_index); the rest may follow in the background. A state machine
    /// in memory returns 0, and its snapshots are written to the storage instead.
    ///
    /// # Errors
    /// The state that was durable before still is.
    fn checkpoint(&mut self) -> Result<u64, StateMachineError> {
        Ok(self.durable_index())
    }
}

impl<M: StateMachine + ?Sized> StateMachine for Box<M> {
    fn durable_index(&self) -> u64 {
        (**self).durable_index()
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        (**self).apply(entries, outcomes)
    }

    fn can_apply_inline(&self, entries: &[Entry]) -> bool {
        (**self).can_apply_inline(entries)
    }

    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        (**self).snapshot()
    }

    fn restore(&mut self, meta: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError> {
        (**self).restore(meta, from)
    }

    fn checkpoint(&mut self) -> Result<u64, StateMachineError> {
        (**self).checkpoint()
    }
}

/// A state machine failed. The replica stops; the state on disk is what the state machine's own contract
/// promises.
#[derive(Debug, thiserror::Error)]
#[error("the state machine failed; restart the node to continue from its durable state")]
pub struct StateMachineError(#[source] Box<dyn Error + Send + Sync>);

impl StateMachineError {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StateMachineError {
        StateMachineError(cause.into())
    }
}
