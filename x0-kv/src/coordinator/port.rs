//! Inputs and outputs of a coordinator.

use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use super::DropReason;
use super::limits::RequestLimits;
use crate::request::codec::DecodeError;
use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::{Operation, Query};
use crate::request::outcome::Outcome;
use crate::trace::Context;

/// An input of a [`Coordinator`](super::Coordinator).
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The time of [`poll_timeout`](super::Coordinator::poll_timeout) has come. Every other input passes the
    /// time as well.
    Timeout,
    /// A local caller asks for an operation, which keeps within the [limits](crate::request::limits).
    /// Answered by exactly one [`Output::Reply`], unless it is cancelled.
    Call {
        /// The caller's number for the call, unique among the calls without an answer.
        token: u64,
        /// The operation.
        operation: Operation,
        /// When to give up, in the time that is passed to `handle`;
        /// [`CoordinatorOptions::call_timeout`](super::CoordinatorOptions::call_timeout) from now if `None`.
        deadline: Option<Duration>,
        /// The trace that the operation belongs to, if it is traced: see [`trace`](crate::trace).
        trace: Option<Context>,
    },
    /// The caller does not wait any more. A write that is under way may be applied or not.
    Cancel {
        /// The caller's number for the call.
        token: u64,
    },
    /// A message of a peer, on a lane that keeps the order and repeats nothing.
    Message {
        /// The sender, as the transport authenticated it.
        from: NodeId,
        /// The payload of the peer's [`Output::Send`]. Writes keep referring to these bytes: no copy is made.
        payload: Bytes,
    },
    /// The last messages to this peer were lost, or will be: operations that wait for it are tried elsewhere.
    Unreachable {
        /// The peer.
        peer: NodeId,
    },
    /// A peer is connected from now on. Messages to it arrive, unless [`Unreachable`](Input::Unreachable) is
    /// reported: an operation is not sent again to a peer that still has it. A driver that reports this of
    /// one peer reports it of all.
    Reachable {
        /// The peer.
        peer: NodeId,
    },
    /// A peer reads messages of this version of the protocol, one of
    /// [`PROTOCOL_VERSIONS`](super::PROTOCOL_VERSIONS), as long as nothing else is reported: the first
    /// version is reported when the connection has ended. Of a peer for which this was never reported the
    /// first version, and a place within the cluster, are assumed.
    Negotiated {
        /// The peer.
        peer: NodeId,
        /// The version.
        version: u16,
        /// Whether the peer is outside of the cluster: the decision whether its operations are traced is made
        /// here.
        is_client: bool,
    },
    /// The identity of this client has expired, so that no member accepts it. Calls end with
    /// [`IdentityExpired`](OperationError::IdentityExpired) until a peer is reachable again.
    IdentityExpired,

    /// The leader or the term has changed, as the local replica reports it. Not for clients.
    Leader {
        /// The leader, as far as is known here.
        leader: Option<NodeId>,
        /// The term. The input is ignored if a newer term is known.
        term: u64,
        /// Whether it is this node.
        is_self: bool,
    },
    /// Answers [`Output::Propose`]: the entry was applied here.
    Outcome {
        /// The token of the proposal.
        token: u64,
        /// The index of the entry.
        index: u64,
        /// The outcome of the state machine: an encoded [`Applied`](crate::Applied).
        outcome: Bytes,
    },
    /// Answers [`Output::ReadIndex`]: all writes that were acknowledged before the request are applied here.
    ReadReady {
        /// The token of the read.
        token: u64,
        /// The index that is applied.
        index: u64,
    },
    /// Answers [`Output::Propose`] or [`Output::ReadIndex`]: the replica dropped it.
    Dropped {
        /// The token of the proposal or read.
        token: u64,
        /// The reason.
        reason: DropReason,
    },
    /// Answers [`Output::Query`].
    Queried {
        /// The token of the query.
        token: u64,
        /// The answer of the state.
        answer: Result<Outcome, OperationError>,
    },
    /// Other limits of requests hold from now on. Requests that wait already are not ended.
    Limits(RequestLimits),
}

/// An output of a [`Coordinator`](super::Coordinator).
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Propose this to the local replica; answer [`Input::Outcome`] or [`Input::Dropped`].
    Propose {
        /// The token of the answer. Tokens of proposals and reads in use are distinct.
        token: u64,
        /// The entry's payload.
        payload: Bytes,
        /// The trace that it belongs to, if it is traced.
        trace: Option<Context>,
    },
    /// Ask the local replica for a read index; answer [`Input::ReadReady`] or [`Input::Dropped`].
    ReadIndex {
        /// The token of the answer.
        token: u64,
    },
    /// Read the local state, which is fresh enough; answer [`Input::Queried`].
    Query {
        /// The token of the answer.
        token: u64,
        /// The keyspace to read.
        keyspace: KeyspaceName,
        /// The query.
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
        /// The caller's number for the call.
        token: u64,
        /// The answer.
        result: Result<Outcome, OperationError>,
    },
}

/// An input was not accepted, or not completely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The payload is not a message of this protocol. The frames before the fault were accepted, the rest was
    /// dropped.
    #[error("cannot read a message of {from}: check that both nodes run compatible releases")]
    Decode {
        /// The sender.
        from: NodeId,
        /// The cause.
        source: DecodeError,
    },
}
