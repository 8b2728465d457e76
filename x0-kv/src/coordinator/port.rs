//! What goes into a coordinator and what comes out.

use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use super::DropReason;
use crate::request::codec::DecodeError;
use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::{Operation, Query};
use crate::request::outcome::Outcome;

/// An input of a [`Coordinator`](super::Coordinator).
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The time of [`poll_timeout`](super::Coordinator::poll_timeout) has come. Any other input reports the
    /// time just as well.
    Timeout,
    /// A local caller asks for an operation, which keeps within the [limits](crate::request::limits).
    /// Answered by exactly one [`Output::Reply`], unless it is cancelled.
    Call {
        /// The caller's name for it, unique among the calls not yet answered.
        token: u64,
        /// What is asked.
        operation: Operation,
        /// When to give up, in the time that is passed to `handle`;
        /// [`Config::call_timeout`](super::Config::call_timeout) from now if `None`.
        deadline: Option<Duration>,
    },
    /// The caller wants no answer any more. A write that is under way may be applied or not.
    Cancel {
        /// The caller's name for it.
        token: u64,
    },
    /// A peer sent this, on a lane that keeps the order and repeats nothing.
    Message {
        /// The sender, as the transport authenticated it.
        from: NodeId,
        /// What the peer's [`Output::Send`] gave out. Writes keep referring to these bytes: no copy is made.
        payload: Bytes,
    },
    /// What was sent to this peer last was lost, or will be: operations that wait for it are tried elsewhere.
    Unreachable {
        /// The peer.
        peer: NodeId,
    },
    /// This peer is connected from now on. What is sent to it arrives, unless
    /// [`Unreachable`](Input::Unreachable) is reported: an operation is not sent again to a peer that still
    /// has it. A driver that reports this of one peer reports it of all.
    Reachable {
        /// The peer.
        peer: NodeId,
    },
    /// The identity of this client has expired, so that no member accepts it. Calls end with
    /// [`IdentityExpired`](OperationError::IdentityExpired) until a peer is reachable again.
    IdentityExpired,

    /// Who leads has changed, or the term: what the replica said. Not for clients.
    Leader {
        /// Who leads, as far as is known here.
        leader: Option<NodeId>,
        /// The term. News of an older one is ignored.
        term: u64,
        /// Whether it is this node.
        is_self: bool,
    },
    /// Answers [`Output::Propose`]: the entry was applied here.
    Outcome {
        /// The proposal's.
        token: u64,
        /// The entry's index.
        index: u64,
        /// What the state machine answered: an encoded [`Applied`](crate::Applied).
        outcome: Bytes,
    },
    /// Answers [`Output::ReadIndex`]: everything acknowledged before it was asked for is applied here.
    ReadReady {
        /// The read's.
        token: u64,
        /// The index that was waited for.
        index: u64,
    },
    /// Answers [`Output::Propose`] or [`Output::ReadIndex`]: the replica dropped it.
    Dropped {
        /// The proposal's or the read's.
        token: u64,
        /// Why.
        reason: DropReason,
    },
    /// Answers [`Output::Query`].
    Queried {
        /// The query's.
        token: u64,
        /// What the state answered.
        answer: Result<Outcome, OperationError>,
    },
}

/// An output of a [`Coordinator`](super::Coordinator).
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Propose this to the local replica; answer [`Input::Outcome`] or [`Input::Dropped`].
    Propose {
        /// For the answer. Tokens of proposals and reads are distinct among those in use.
        token: u64,
        /// The entry's payload.
        payload: Bytes,
    },
    /// Ask the local replica for a read index; answer [`Input::ReadReady`] or [`Input::Dropped`].
    ReadIndex {
        /// For the answer.
        token: u64,
    },
    /// Read the local state, which is fresh enough; answer [`Input::Queried`].
    Query {
        /// For the answer.
        token: u64,
        /// The keyspace to read.
        keyspace: KeyspaceName,
        /// What to read.
        query: Query,
    },
    /// Send this to a peer on a lane that keeps the order. If that cannot be done, drop it and report
    /// [`Input::Unreachable`].
    Send {
        /// The receiver.
        to: NodeId,
        /// The bytes: at most [`MESSAGE_LEN_MAX`](super::MESSAGE_LEN_MAX).
        payload: Bytes,
    },
    /// The answer to a call.
    Reply {
        /// The caller's name for it.
        token: u64,
        /// The answer.
        result: Result<Outcome, OperationError>,
    },
}

/// An input was not accepted, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The payload is not a message of this protocol. What stood before the fault was taken, the rest was
    /// dropped.
    #[error("cannot read a message of {from}: check that both nodes run compatible releases")]
    Decode {
        /// The sender.
        from: NodeId,
        /// What is wrong with it.
        source: DecodeError,
    },
}
