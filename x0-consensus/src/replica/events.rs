//! What goes into a replica and what comes out of it.

use std::ops::Range;

use bytes::Bytes;
use x0_identity::NodeId;

use crate::codec::DecodeError;
use crate::entry::{Entry, Membership, SnapshotMeta};
use crate::membership::MembershipChange;
use crate::storage::Write;

/// What a replica is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The time of [`poll_timeout`](crate::Replica::poll_timeout) has come.
    Timeout,
    /// A message came from a peer whose identity is certain.
    Message {
        /// Who sent it.
        from: NodeId,
        /// Its bytes. Entries keep slices of them.
        payload: Bytes,
    },
    /// Puts a command into the log. Ends in [`Output::Apply`] with the token, or in [`Output::Dropped`].
    Propose {
        /// The caller's name for it.
        token: u64,
        /// The command, for the state machine.
        payload: Bytes,
    },
    /// Asks for the index that a linearizable read must wait for. Ends in [`Output::ReadReady`] or [`Output::Dropped`].
    ReadIndex {
        /// The caller's name for it.
        token: u64,
    },
    /// Changes who takes part. Ends like a proposal.
    ChangeMembership {
        /// The caller's name for it.
        token: u64,
        /// The change.
        change: MembershipChange,
    },
    /// Asks the leader to hand over to `to`, which catches up first. Proposals are refused meanwhile. Without effect on others.
    TransferLeadership {
        /// Who is to lead.
        to: NodeId,
    },
    /// The append of this number, and all before, are durable.
    Persisted {
        /// The number of the append.
        number: u64,
    },
    /// The state machine has applied everything up to this index.
    Applied {
        /// The index of the last entry applied.
        index: u64,
    },
    /// The entries of [`Output::Fetch`], as far as they were read; none if they could not be.
    Fetched {
        /// Consecutive entries.
        entries: Vec<Entry>,
    },
    /// The state machine gave a snapshot of everything up to `index`, for [`Output::OpenSnapshot`].
    SnapshotOpened {
        /// Which transfer it is for.
        transfer: u64,
        /// The index of the last entry it holds.
        index: u64,
    },
    /// The next piece of a snapshot was read, for [`Output::ReadChunk`].
    ChunkRead {
        /// The transfer.
        transfer: u64,
        /// The bytes.
        bytes: Bytes,
        /// Whether it ends here.
        last: bool,
    },
    /// A snapshot could not be opened or read.
    SnapshotClosed {
        /// The transfer.
        transfer: u64,
    },
    /// [`StageStep::Finish`] is done, or a step failed.
    Staged {
        /// The transfer.
        transfer: u64,
        /// Whether the snapshot is durable.
        ok: bool,
    },
    /// The state machine is at the snapshot of [`Output::Restore`].
    Restored {
        /// The index of the snapshot.
        index: u64,
    },
    /// The state machine's answer to [`Output::Checkpoint`]: its durable index; 0 if it is volatile.
    Checkpointed {
        /// The durable index.
        index: u64,
    },
    /// The snapshot of [`Output::SaveSnapshot`] is staged and durable.
    SnapshotSaved {
        /// Which state it holds.
        meta: SnapshotMeta,
    },
    /// A message to this peer could not be delivered.
    Unreachable {
        /// The peer.
        peer: NodeId,
    },
}

/// What a replica wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Write this to the storage, and answer [`Input::Persisted`].
    Append {
        /// Its number, ascending.
        number: u64,
        /// The change.
        write: Write,
    },
    /// Send this to a peer. It may leave at once: whatever must be durable before it is.
    Send {
        /// To whom.
        to: NodeId,
        /// What kind of traffic it is.
        class: Class,
        /// The bytes.
        payload: Vec<u8>,
    },
    /// Apply these committed entries to the state machine, and answer [`Input::Applied`].
    Apply {
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// Those that were proposed here: index and token, ascending.
        proposals: Vec<(u64, u64)>,
    },
    /// These reads may now be answered from the state machine.
    ReadReady {
        /// Their tokens.
        tokens: Vec<u64>,
        /// What the state machine has applied at least.
        index: u64,
    },
    /// A proposal, read or change came to nothing here.
    Dropped {
        /// Its token.
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
    Membership(Membership),
    /// Read these entries from the storage, and answer [`Input::Fetched`].
    Fetch {
        /// Their indices.
        range: Range<u64>,
        /// Most bytes of payload to read.
        len_max: usize,
    },
    /// Take a snapshot of the state machine, in turn with what is to be applied, and answer [`Input::SnapshotOpened`].
    OpenSnapshot {
        /// The name of the transfer.
        transfer: u64,
    },
    /// Read the next piece of that snapshot, and answer [`Input::ChunkRead`].
    ReadChunk {
        /// The transfer.
        transfer: u64,
        /// Most bytes to read.
        len_max: usize,
    },
    /// That snapshot is not needed any more.
    CloseSnapshot {
        /// The transfer.
        transfer: u64,
    },
    /// Write the snapshot that was opened as this transfer to the storage's [`snapshot_writer`](crate::Storage::snapshot_writer), finish it, and
    /// answer [`Input::SnapshotSaved`], or [`Input::SnapshotClosed`] if it failed.
    SaveSnapshot {
        /// The transfer.
        transfer: u64,
        /// Which state it holds.
        meta: SnapshotMeta,
    },
    /// Stage a snapshot that comes from the leader.
    Stage {
        /// The transfer.
        transfer: u64,
        /// What to do.
        step: StageStep,
    },
    /// Restore the state machine from the storage's snapshot, in turn with what is to be applied, and answer [`Input::Restored`].
    Restore {
        /// Which state it holds.
        meta: SnapshotMeta,
    },
    /// Ask the state machine for a checkpoint, in turn with what is to be applied, and answer [`Input::Checkpointed`].
    Checkpoint,
}

/// One step of staging a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageStep {
    /// Begin; what another transfer has staged is given up.
    Begin {
        /// Which state the snapshot holds.
        meta: SnapshotMeta,
    },
    /// Write these bytes at its end.
    Write {
        /// The bytes.
        bytes: Bytes,
    },
    /// Make it durable, and answer [`Input::Staged`].
    Finish,
}

/// Kinds of traffic, so that a transport can give each a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Raft's own messages: best in order, and not behind a snapshot.
    Message,
    /// Pieces of snapshots.
    Snapshot,
}

/// Why something came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// This replica does not lead. Nothing was done.
    NotLeader {
        /// Who does, if it is known and somebody else.
        leader: Option<NodeId>,
    },
    /// Too much waits already. Nothing was done.
    Full,
    /// The payload is longer than an entry may be. Nothing was done.
    Length,
    /// The leadership is being handed over. Nothing was done; the next leader will take it.
    Transferring,
    /// Another change of the membership is going on, or this leader has not committed anything yet. Nothing was done; try again.
    ChangeInProgress,
    /// The change is empty, names a node twice, or would leave no voter. Nothing was done.
    ChangeInvalid,
    /// Another leader's entry took its place. It was not applied and never will be.
    Superseded,
    /// This replica cannot tell any more: a snapshot took the place of its log, or it was removed from the group. It may have been
    /// applied, or may be yet.
    Unknown,
}

/// Why an input was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The message is not one. The replica is as it was.
    #[error("a peer sent what is not a message: {0}")]
    Decode(#[from] DecodeError),
    /// The message contradicts what Raft allows. It was ignored.
    #[error("a peer sent a message that Raft does not allow: {reason}")]
    Refused {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The replica cannot go on. Every later input gets the same answer.
    #[error("the replica cannot go on: {0}")]
    Failed(FailReason),
}

/// Why a replica cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FailReason {
    /// The leader knows entries to be committed here that the log does not hold.
    #[error(
        "its log has lost entries that it once acknowledged; remove this member and let it join again with empty folders"
    )]
    LogLost,
    /// The leader's log contradicts entries committed here.
    #[error("its log contradicts the leader's in committed entries; restore a backup of the group")]
    Diverged,
    /// An invariant of the engine broke.
    #[error("an invariant of the engine broke; restart it, and report this")]
    Internal,
    /// A worker of its executor failed: [`Event::Failed`](crate::Event::Failed) has the cause.
    #[error("a worker of the executor failed; see the event `Failed` for the cause")]
    Worker,
}
