//! What a driver tells.

use std::sync::Arc;

use bytes::Bytes;
use x0_identity::NodeId;

use super::job::TransferError;
use crate::entry::Membership;
use crate::replica::{DropReason, FailReason};
use crate::state_machine::StateMachineError;
use crate::storage::{ReadError, SnapshotReadError, WriteError};

/// Is told what becomes of a replica. Called from within the driver, by one thread at a time: it must not wait.
pub trait Observer: Send {
    /// Something happened.
    fn event(&mut self, event: Event);

    /// Several outcomes are about to be told; nothing need be woken before [`batch_end`](Observer::batch_end).
    fn batch_begin(&mut self) {}

    /// The outcomes are told.
    fn batch_end(&mut self) {}
}

/// What became of a replica, or of something it was asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A proposal made here is committed and applied.
    Outcome {
        /// The caller's name for it.
        token: u64,
        /// Its place in the log.
        index: u64,
        /// What the state machine made of it.
        outcome: Bytes,
    },
    /// A linearizable read may be answered from the state machine now.
    ReadReady {
        /// The caller's name for it.
        token: u64,
        /// What the state machine has applied at least.
        index: u64,
    },
    /// A change of the membership is committed. A joint phase that it opens is left by the leader.
    Changed {
        /// The caller's name for it.
        token: u64,
        /// Its place in the log.
        index: u64,
    },
    /// A proposal, read or change came to nothing here.
    Dropped {
        /// The caller's name for it.
        token: u64,
        /// Why, and whether it may take effect nevertheless.
        reason: DropReason,
    },
    /// Another leader, or none, or another term.
    Leader {
        /// The leader.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
        /// Whether it is this replica.
        is_self: bool,
    },
    /// Who takes part has changed.
    Membership {
        /// Who takes part now.
        membership: Membership,
    },
    /// A snapshot was not taken, sent or received. The replica continues and tries again.
    TransferFailed(Arc<TransferError>),
    /// The replica stopped by itself. This is the last event: requests that are still open get none.
    Failed(Arc<FatalError>),
}

/// Why a replica stopped by itself. Nothing is acknowledged after it; what was acknowledged before is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatalError {
    /// The engine cannot go on.
    #[error("the replica cannot go on: {0}")]
    Replica(FailReason),
    /// The log was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The log was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshot was not read.
    #[error(transparent)]
    SnapshotRead(#[from] SnapshotReadError),
    /// The storage has no snapshot although it was told to adopt one.
    #[error("the storage has lost the snapshot that it adopted: its implementation breaks its contract")]
    SnapshotMissing,
    /// The state machine failed.
    #[error(transparent)]
    StateMachine(#[from] StateMachineError),
    /// The state machine gave another number of outcomes than there were commands.
    #[error(
        "the state machine gave {outcomes} outcomes for {commands} commands: its implementation breaks its contract"
    )]
    Outcomes {
        /// How many outcomes it gave.
        outcomes: usize,
        /// How many were due.
        commands: usize,
    },
    /// The code of a storage, a state machine or a snapshot panicked.
    #[error(
        "the {worker} worker panicked ({message}): restart the node, and report the panic to the authors of that code"
    )]
    Panicked {
        /// The worker: `log`, `apply` or `snapshot`.
        worker: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// A thread of the driver could not be started.
    #[error("cannot start the thread {thread}: the process may have too many")]
    Thread {
        /// The thread's name.
        thread: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}
