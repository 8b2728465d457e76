//! The events of a driver, and its failures.

use std::sync::Arc;

use bytes::Bytes;
use x0_identity::NodeId;

use super::job::TransferError;
use crate::entry::Membership;
use crate::replica::{DropReason, FailReason, Standing};
use crate::state_machine::StateMachineError;
use crate::storage::{ReadError, SnapshotReadError, WriteError};

/// Receives the events of a replica. The driver calls it from one thread at a time, and it must not block.
pub trait Observer: Send {
    /// Receives an event.
    fn event(&mut self, event: Event);

    /// Several outcomes follow; the observer need not wake anything before
    /// [`batch_end`](Observer::batch_end).
    fn batch_begin(&mut self) {}

    /// The batch of outcomes has ended.
    fn batch_end(&mut self) {}
}

/// The result of a request to a replica, or news about its group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A proposal made here is committed and applied.
    Outcome {
        /// The token of the request.
        token: u64,
        /// The index of its entry.
        index: u64,
        /// The result of the state machine.
        outcome: Bytes,
    },
    /// A linearizable read may be answered from the state machine now.
    ReadReady {
        /// The token of the request.
        token: u64,
        /// The state machine has applied at least this index.
        index: u64,
    },
    /// A change of the membership is committed. A joint phase that it opens is left by the leader.
    Changed {
        /// The token of the request.
        token: u64,
        /// The index of its entry.
        index: u64,
    },
    /// A proposal, read or change was dropped.
    Dropped {
        /// The token of the request.
        token: u64,
        /// The reason, which says whether it may take effect nevertheless.
        reason: DropReason,
    },
    /// The leader or the term has changed.
    Leader {
        /// The leader, if one is known.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
        /// Whether this replica is the leader.
        is_self: bool,
    },
    /// The membership has changed.
    Membership {
        /// The new membership.
        membership: Membership,
    },
    /// The right of this replica to vote and acknowledge has changed.
    Standing {
        /// The new standing.
        standing: Standing,
    },
    /// A snapshot was not taken, sent or received. The replica continues and tries again.
    TransferFailed(Arc<TransferError>),
    /// The disk has no space, and the replica waits for it
    /// ([`Options::waits_for_space`](crate::Options::waits_for_space)). Until
    /// [`SpaceAvailable`](Event::SpaceAvailable) new proposals are dropped with [`DropReason::NoSpace`] and
    /// this replica acknowledges nothing; reads go on. Open proposals are dropped with
    /// [`DropReason::Unknown`], and a leader transfers its leadership to an active voter. The writes are
    /// repeated every second.
    NoSpace(Arc<WriteError>),
    /// The writes that waited for space are durable: the replica accepts proposals again.
    SpaceAvailable,
    /// The replica stopped by itself. This is the last event: requests that are still open get none.
    Failed(Arc<FatalError>),
}

/// A replica stopped by itself. Nothing is acknowledged after that; everything that was acknowledged before
/// is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatalError {
    /// The replica cannot continue.
    #[error("the replica cannot continue: {0}")]
    Replica(FailReason),
    /// The log could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshot could not be read.
    #[error(transparent)]
    SnapshotRead(#[from] SnapshotReadError),
    /// The storage has no snapshot although it has adopted one.
    #[error(
        "the storage has lost the snapshot that it adopted: its implementation violates the contract of `Storage`"
    )]
    SnapshotMissing,
    /// The state machine failed.
    #[error(transparent)]
    StateMachine(#[from] StateMachineError),
    /// The number of outcomes differs from the number of commands.
    #[error(
        "the state machine returned {outcomes} outcomes for {commands} commands: its implementation violates the contract of `StateMachine`"
    )]
    Outcomes {
        /// The number of outcomes.
        outcomes: usize,
        /// The number of commands.
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
