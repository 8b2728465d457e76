//! The inputs and outputs of a replica.

use std::ops::Range;

use bytes::Bytes;
use x0_identity::NodeId;

use super::{Fence, FencedRequest, Standing};
use crate::codec::DecodeError;
use crate::entry::{Entry, Membership, SnapshotMeta};
use crate::membership::MembershipChange;
use crate::storage::Write;
use crate::trace::Context;

/// An input of a replica.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The time of [`poll_timeout`](crate::Replica::poll_timeout) has come.
    Timeout,
    /// A message of an authenticated peer.
    Message {
        /// The sender.
        from: NodeId,
        /// The bytes of the message. Entries keep slices of them.
        payload: Bytes,
    },
    /// Proposes a command. The result is [`Output::Apply`] with the token, or [`Output::Dropped`].
    Propose {
        /// The token of the request.
        token: u64,
        /// The command, for the state machine.
        payload: Bytes,
        /// The trace that it belongs to, if it is traced: see [`trace`](crate::trace).
        trace: Option<Context>,
    },
    /// Requests a linearizable read. The result is [`Output::ReadReady`] or [`Output::Dropped`].
    ReadIndex {
        /// The token of the request.
        token: u64,
    },
    /// Changes the membership. The result is that of a proposal.
    ChangeMembership {
        /// The token of the request.
        token: u64,
        /// The change.
        change: MembershipChange,
    },
    /// Transfers the leadership to `to`, which catches up first (Ongaro 2014, section 3.10). Proposals are
    /// refused meanwhile. It has no effect on a replica that is not the leader.
    TransferLeadership {
        /// The next leader.
        to: NodeId,
    },
    /// Campaigns at once, although there is a leader, and without waiting for it: a leader that is slow and
    /// not silent can neither be asked to transfer its leadership nor be voted out by a timeout. Voters grant
    /// the vote in spite of their leader. The log must still be as long as theirs. It has no effect on a
    /// leader, a learner, or a replica that may not vote.
    ///
    /// A sick replica that repeats this disturbs a healthy group: first let most voters agree that the leader
    /// is sick, and on one replica that takes over.
    TakeOver,
    /// A request that takes effect only if this replica has the term and membership of `fence`. Otherwise it
    /// is dropped with [`DropReason::Stale`].
    Fenced {
        /// The token of the request.
        token: u64,
        /// The state on which the request was planned.
        fence: Fence,
        /// The request.
        request: FencedRequest,
    },
    /// The append of this number and all before it are durable.
    Persisted {
        /// The number of the append.
        number: u64,
    },
    /// The state machine has applied everything up to this index.
    Applied {
        /// The index of the last entry applied.
        index: u64,
    },
    /// The entries of [`Output::Fetch`] from its start; none if they could not be read.
    Fetched {
        /// Consecutive entries.
        entries: Vec<Entry>,
    },
    /// The state machine has opened a snapshot for [`Output::OpenSnapshot`].
    SnapshotOpened {
        /// The transfer.
        transfer: u64,
        /// The index of the last entry in the snapshot.
        index: u64,
    },
    /// A chunk of a snapshot, for [`Output::ReadChunk`].
    ChunkRead {
        /// The transfer.
        transfer: u64,
        /// The bytes.
        bytes: Bytes,
        /// Whether it is the last chunk.
        last: bool,
    },
    /// A snapshot could not be opened, read or saved.
    SnapshotClosed {
        /// The transfer.
        transfer: u64,
    },
    /// [`StageStep::Finish`] is done, or a step of staging failed.
    Staged {
        /// The transfer.
        transfer: u64,
        /// Whether the snapshot is durable.
        ok: bool,
    },
    /// The state machine holds the state of the snapshot of [`Output::Restore`].
    Restored {
        /// The index of the snapshot.
        index: u64,
    },
    /// The result of [`Output::Checkpoint`]: the durable index of the state machine, or 0 if it is in memory.
    Checkpointed {
        /// The durable index.
        index: u64,
    },
    /// The snapshot of [`Output::SaveSnapshot`] is staged and durable.
    SnapshotSaved {
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
    },
    /// A message to this peer could not be delivered, or the connection to it has ended.
    Unreachable {
        /// The peer.
        peer: NodeId,
    },
    /// Nothing arrives from this peer at the moment, and the transport keeps the connection to it. See
    /// [`Replica`](crate::Replica#degraded-paths).
    Degraded {
        /// The peer.
        peer: NodeId,
    },
    /// A peer reads messages of this version of the protocol, one of
    /// [`PROTOCOL_VERSIONS`](crate::PROTOCOL_VERSIONS), as long as nothing else is reported: the first
    /// version is reported when the connection has ended. Of a peer for which this was never reported the
    /// first version is assumed.
    Negotiated {
        /// The peer.
        peer: NodeId,
        /// The version.
        version: u16,
    },
}

/// An output of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "an append is among the most frequent outputs")]
pub enum Output {
    /// Write this to the storage, and report [`Input::Persisted`].
    Append {
        /// Its number, ascending.
        number: u64,
        /// The change.
        write: Write,
    },
    /// Send this to a peer. It may be sent at once: everything that must be durable before it is durable.
    Send {
        /// The peer.
        to: NodeId,
        /// The kind of traffic.
        class: Class,
        /// The bytes.
        payload: Vec<u8>,
    },
    /// Apply these committed entries to the state machine, and report [`Input::Applied`].
    Apply {
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The proposals of this replica among them: index and token, ascending.
        proposals: Vec<(u64, u64)>,
    },
    /// The state machine may be read for these requests now.
    ReadReady {
        /// The tokens of the requests.
        tokens: Vec<u64>,
        /// The state machine has applied at least this index.
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
        /// The leader.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
        /// Whether this replica is the leader.
        is_self: bool,
    },
    /// The membership has changed.
    Membership(Membership),
    /// The right of this replica to vote and acknowledge has changed.
    Standing(Standing),
    /// Read these entries from the storage, and report [`Input::Fetched`].
    Fetch {
        /// The indexes of the entries.
        range: Range<u64>,
        /// The most bytes of payload to read.
        len_max: usize,
    },
    /// Take a snapshot of the state machine, in order with applying, and report [`Input::SnapshotOpened`].
    OpenSnapshot {
        /// The transfer.
        transfer: u64,
    },
    /// Read the next chunk of that snapshot, and report [`Input::ChunkRead`].
    ReadChunk {
        /// The transfer.
        transfer: u64,
        /// The length of the chunk, in bytes; only the last chunk is shorter.
        len_max: usize,
    },
    /// Close that snapshot.
    CloseSnapshot {
        /// The transfer.
        transfer: u64,
    },
    /// Copy the snapshot that was opened for this transfer to the storage's
    /// [`snapshot_writer`](crate::Storage::snapshot_writer), finish it, and report [`Input::SnapshotSaved`],
    /// or [`Input::SnapshotClosed`] if that failed.
    SaveSnapshot {
        /// The transfer.
        transfer: u64,
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
    },
    /// Stage a snapshot of the leader.
    Stage {
        /// The transfer.
        transfer: u64,
        /// The step.
        step: StageStep,
    },
    /// Restore the state machine from the storage's snapshot, in order with applying, and report
    /// [`Input::Restored`].
    Restore {
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
    },
    /// Take a checkpoint of the state machine, in order with applying, and report [`Input::Checkpointed`].
    Checkpoint,
}

/// One step of staging a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageStep {
    /// Begin, and discard the staged bytes of another transfer.
    Begin {
        /// The state that the snapshot holds.
        meta: SnapshotMeta,
    },
    /// Append these bytes.
    Write {
        /// The bytes.
        bytes: Bytes,
    },
    /// Make it durable, and report [`Input::Staged`].
    Finish,
}

/// The kind of traffic, so that a transport can give each kind a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Messages of Raft: best in order, and not queued behind a snapshot.
    Message,
    /// Chunks of snapshots.
    Snapshot,
}

/// The reason why a request was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// This replica is not the leader. Nothing was done.
    NotLeader {
        /// The leader, if it is known.
        leader: Option<NodeId>,
    },
    /// Too many requests wait, or too many bytes are not committed. Nothing was done; try again later.
    Full,
    /// The disk of this replica has no space. Nothing was done.
    NoSpace,
    /// The payload is longer than an entry may be. Nothing was done.
    Length,
    /// The leadership is being transferred. Nothing was done; send the request to the next leader.
    Transferring,
    /// Another change of the membership has not ended, or this leader has not applied an entry of its term.
    /// Nothing was done; try again.
    ChangeInProgress,
    /// The change is empty, names a node twice, would leave no voter, or makes a voter of a node that this
    /// leader has never heard of: add that node as a learner first. Nothing was done.
    ChangeInvalid,
    /// The term or the membership is not the one on which the request was planned. Nothing was done; plan it
    /// again.
    Stale,
    /// An entry of another leader replaced it. It was not applied and never will be.
    Superseded,
    /// The result is unknown: a snapshot replaced the log of this replica, or it was removed from the group.
    /// The request may have been applied, or may be applied later.
    Unknown,
}

/// An input was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// A message cannot be decoded. It was dropped, and the replica is unchanged.
    #[error("cannot decode a message of a peer; the message was dropped")]
    Decode(#[from] DecodeError),
    /// A message violates the protocol. It was dropped, and the replica is unchanged.
    #[error("a message of a peer violates the protocol ({reason}); the message was dropped")]
    Refused {
        /// The violation.
        reason: &'static str,
    },
    /// The replica cannot continue. Every later input gets the same error.
    #[error("the replica cannot continue: {0}")]
    Failed(FailReason),
}

/// The reason why a replica cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FailReason {
    /// The leader counts on entries of this log that the log does not hold.
    #[error(
        "the log has lost entries that this member acknowledged: its disk was rolled back or damaged. Move the data folder away and \
         start again with an empty one; the member then rejoins without a vote until the others have brought it up to date"
    )]
    LogLost,
    /// The leader's log contradicts entries that are committed here.
    #[error("the log and the leader's log have different committed entries; restore a backup of the group")]
    Diverged,
    /// An invariant of the protocol engine is violated.
    #[error("an invariant of the protocol engine is violated; restart the node, and report this as a bug")]
    Internal,
    /// A worker of its executor failed: [`Event::Failed`](crate::Event::Failed) has the cause.
    #[error("a worker of the executor failed; see the event `Failed` for the cause")]
    Worker,
}
