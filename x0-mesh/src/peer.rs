//! What becomes of the way to a peer.

use std::sync::Arc;

use x0_identity::NodeId;

/// Something happened to the way to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEvent {
    /// Which peer.
    pub peer: NodeId,
    /// What happened.
    pub kind: PeerEventKind,
}

/// What happened to the way to a peer. See [`Transport`](crate::Transport#epochs) for what epochs promise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEventKind {
    /// Messages can be exchanged from now on. The same epoch comes up again only to end a [`PeerEventKind::Degraded`].
    Up {
        /// Higher than any epoch that this transport has told of this peer before, unless it ends a degradation.
        epoch: u64,
    },
    /// The peer does not answer at the moment. Nothing is lost so far: `Up` with the same epoch, or `Down`, follows.
    Degraded,
    /// The epoch is over. What was sent to the peer and had not arrived by then is lost.
    Down {
        /// The epoch that is over. An attempt to reach the peer that failed is an epoch that was never `Up`.
        epoch: u64,
        /// Why.
        reason: DownReason,
    },
}

/// Why an epoch ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// The peer said good-bye.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer was not heard of for too long.
    #[error("the peer was not heard of for too long")]
    TimedOut,
    /// Nobody answered at the peer's address.
    #[error("nobody answers at the peer's address: check that it runs and that its address is right")]
    Unreachable,
    /// The peer has begun anew, or has dialled again before we knew that the connection was lost.
    #[error("the peer has begun anew")]
    Replaced,
    /// Somebody else answered at the peer's address.
    #[error("{found} answered at the address of {expected}: correct the address or the identity")]
    WrongIdentity {
        /// Who was dialled.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// Its identity, or ours, was not accepted. The text is the verifier's.
    #[error("the identity was not accepted: {detail}")]
    Untrusted {
        /// What the verifier said.
        detail: Arc<str>,
    },
    /// Its SVID has expired, and it has not connected again with another one.
    #[error("the SVID that the peer connected with has expired: it must rotate in another one")]
    Expired,
    /// The peer turned us away.
    #[error("the peer turned us away: {detail}")]
    Refused {
        /// What it said, shortened.
        detail: Arc<str>,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {violation}")]
    Malformed {
        /// Which rule.
        violation: Violation,
    },
    /// The connection failed underneath.
    #[error("the connection failed: {detail}")]
    Failed {
        /// What the layer below said.
        detail: Arc<str>,
    },
    /// Our own side ended it.
    #[error("it was closed by our own side")]
    Local,
    /// A [`Gate`](crate::Gate) blocks the peer.
    #[error("a gate blocks the peer")]
    Blocked,
}

/// The rule that a peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message is longer than the receiver takes.
    #[error("a message of {len} bytes on a lane that takes {len_max}")]
    MessageLength {
        /// The length it announced.
        len: u64,
        /// What the lane takes.
        len_max: u64,
    },
    /// A stream begins with something unknown.
    #[error("a stream of an unknown kind {kind}")]
    StreamKind {
        /// The kind it announced.
        kind: u8,
    },
    /// There are two streams of one ordered lane, or of the control stream.
    #[error("a second stream of one lane")]
    StreamTwice,
    /// A lane is used that the receiver does not have.
    #[error("the lane {lane}, which the receiver does not have")]
    Lane {
        /// Its number.
        lane: u8,
    },
    /// A stream ended inside a message, or one that must not end did.
    #[error("a stream ended where it must not")]
    StreamEnd,
    /// A message on a stream of its own goes on behind its end.
    #[error("bytes behind the end of a message")]
    TrailingBytes,
    /// The greeting is not one.
    #[error("the greeting is damaged")]
    Greeting,
    /// The greeting did not come in time.
    #[error("the greeting did not come in time")]
    GreetingLate,
}
