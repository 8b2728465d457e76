//! Operations without an answer.

use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use crate::coordinator::protocol::Body;
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::{Mutation, Operation, Query};
use crate::trace::{Context, Trace};

/// An operation that has no answer yet.
#[derive(Debug)]
pub(super) enum Entry {
    /// An operation of a local caller, or of the coordinator itself.
    Call(Call),
    /// An operation of another node.
    Request(Request),
}

/// An operation of a local caller, which is tried until it has an answer.
#[derive(Debug)]
pub(super) struct Call {
    /// The caller's token; `None` when the coordinator opens its session.
    pub(super) caller: Option<u64>,
    pub(super) ask: Ask,
    pub(super) place: Place,
    /// The time to give up.
    pub(super) deadline: Duration,
    /// The deadline at the latest, with all the time that it waits for its turn.
    pub(super) limit: Duration,
    /// The wait for its turn, during which its time stands still.
    pub(super) turn: Option<Turn>,
    /// The time to look at it again; never after the deadline.
    pub(super) wake: Duration,
    /// Counts the attempts, modulo 256. Answers that nothing was done count only for the latest.
    pub(super) attempt: u8,
    /// The peer to which its bytes count, and their number.
    pub(super) sent: Option<(NodeId, usize)>,
    pub(super) sent_at: Duration,
    /// How often no answer came in time.
    pub(super) timeouts: u8,
    /// Whether the peer passes it on to the leader.
    pub(super) is_relayed: bool,
    /// How often it was put off: the next delay depends on it.
    pub(super) delays: u8,
    /// The number of times it was sent to another node at once because of a hint.
    pub(super) redirects: u8,
    /// Whether an attempt of which no fate is known may have written, or may still.
    pub(super) is_ambiguous: bool,
    /// The trace that it belongs to.
    pub(super) trace: Option<Context>,
}

/// The wait of a call for room on the way to its peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) begun: Duration,
    /// The time that the call has from its turn on.
    pub(super) time_left: Duration,
}

/// The operation of a call.
#[derive(Debug)]
pub(super) enum Ask {
    /// The opening of a session for later writes.
    OpenSession,
    /// A write that waits for a session, or for room in its window.
    Write {
        keyspace: KeyspaceName,
        mutation: Mutation,
    },
    /// A write with its request id, as it enters the log.
    Command {
        session: u64,
        sequence: u64,
        command: Bytes,
    },
    Read(Operation),
    /// A read whose query the driver has.
    Taken,
}

impl Call {
    /// Whether the write may have been applied, or may still be.
    pub(super) fn may_be_applied(&self) -> bool {
        let is_under_way = matches!(self.place, Place::Sent { .. } | Place::Proposed);
        self.ask.is_write() && (self.is_ambiguous || is_under_way)
    }
}

impl Ask {
    /// The frame that asks a node for it; `None` if it is not for another node.
    pub(super) fn body(&self, is_relay: bool) -> Option<Body> {
        let (bytes, is_proposed) = match self {
            Ask::Command { command, .. } => (command.clone(), true),
            Ask::OpenSession => (crate::Command::OpenSession.encode(), true),
            Ask::Read(operation) => (operation.encode(), false),
            Ask::Write { .. } | Ask::Taken => return None,
        };
        Some(match (is_proposed, is_relay) {
            (true, false) => Body::Propose { command: bytes },
            (true, true) => Body::RelayPropose { command: bytes },
            (false, false) => Body::Read { operation: bytes },
            (false, true) => Body::RelayRead { operation: bytes },
        })
    }

    /// Whether an attempt of unknown fate leaves something behind.
    pub(super) fn is_write(&self) -> bool {
        matches!(self, Ask::Write { .. } | Ask::Command { .. })
    }
}

/// The place where an operation waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the queue for a request id.
    Queued,
    /// On this node, because no leader is known.
    Parked,
    /// On this node, until its next attempt.
    Delayed,
    /// Here, until there is room on the way to its peer.
    Held,
    /// At another node.
    Sent { to: NodeId },
    /// At the local replica.
    Proposed,
    /// In a round to the quorum, or waiting for the next.
    Reading,
    /// At the local state.
    Querying,
}

/// An operation of another node.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) from: NodeId,
    /// The start of the requester to which the request belongs.
    pub(super) instance: u64,
    /// The requester's number for it.
    pub(super) number: u64,
    /// Whether it is a write.
    pub(super) is_proposed: bool,
    /// The leader that has it, if this node passed it on.
    pub(super) relayed_to: Option<NodeId>,
    /// When it came.
    pub(super) begun: Duration,
    /// Whether any member may answer it from its state as it is.
    pub(super) is_local: bool,
    /// What to read, until the driver has it.
    pub(super) query: Option<(KeyspaceName, Query)>,
    /// Its span and context, if it is traced.
    pub(super) trace: Trace,
}
