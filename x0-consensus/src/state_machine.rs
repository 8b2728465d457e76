//! The seam above the replica: what the log is for.

use std::error::Error;
use std::io::Read;

use bytes::Bytes;

use crate::entry::{Entry, SnapshotMeta};

/// What the replicated log drives. It must be deterministic: the same entries in the same order give the same state and the
/// same outcomes on every replica, whatever the time, the machine or the past of the process.
///
/// Synchronous. A driver applies a small batch on the task of its event loop, so that applying must not wait for anything; larger
/// batches, [`restore`](StateMachine::restore), [`checkpoint`](StateMachine::checkpoint) and [`snapshot`](StateMachine::snapshot) run on
/// a thread ([`driver`](crate::driver) has the details), and a test calls all of them inline. After an error the replica stops; open the
/// state machine again to continue from what was durable.
pub trait StateMachine: Send {
    /// The last index whose effects a crash at this moment would leave: 0 for a state machine in memory. After a start the
    /// entries behind it are applied again.
    fn durable_index(&self) -> u64;

    /// Applies consecutive entries, all committed. Every entry is passed, so that the state machine can count along; only those of
    /// kind [`Normal`](crate::EntryKind::Normal) with a payload are commands. One outcome is pushed for each command, none for the others.
    ///
    /// # Errors
    /// The state may hold a part of the entries.
    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError>;

    /// The whole state as it is now, as a stream. What is applied while it is read must not show in it.
    ///
    /// # Errors
    /// The state is as before.
    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError>;

    /// Replaces the state by a snapshot of [`meta`](SnapshotMeta). All or nothing.
    ///
    /// # Errors
    /// The state is as before.
    fn restore(&mut self, meta: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError>;

    /// Begins to make durable what was applied and returns what [`durable_index`](StateMachine::durable_index) is by now; the rest may
    /// follow in the background. A state machine in memory answers 0, and gets snapshots written to the storage instead.
    ///
    /// # Errors
    /// What was durable before still is.
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

/// Why a state machine failed.
#[derive(Debug, thiserror::Error)]
#[error("the state machine failed: {0}")]
pub struct StateMachineError(#[source] Box<dyn Error + Send + Sync>);

impl StateMachineError {
    /// From whatever the cause was.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> StateMachineError {
        StateMachineError(cause.into())
    }
}
