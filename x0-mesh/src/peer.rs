//! What becomes of the way to a peer.

use std::sync::Arc;

use x0_identity::NodeId;

use crate::ChannelId;

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
    /// The peer is connected and does not have this channel, or has withdrawn it. See [`Mux`](crate::Mux).
    #[error("the peer has not registered channel {channel}: start the service there")]
    NoChannel {
        /// The channel.
        channel: ChannelId,
    },
    /// The peer has the channel with versions of which this node speaks none.
    #[error(
        "the peer speaks versions {} to {} of channel {channel}, this node {} to {}: update the older one",
        peer.0, peer.1, local.0, local.1
    )]
    ChannelVersion {
        /// The channel.
        channel: ChannelId,
        /// The lowest and the highest version of this node.
        local: (u16, u16),
        /// The lowest and the highest version of the peer.
        peer: (u16, u16),
    },
    /// Our own side ended it.
    #[error("it was closed by our own side")]
    Local,
    /// A [`FaultInjector`](crate::FaultInjector) cuts the peer off, or did so in one direction during the epoch.
    #[error("a fault injector cuts the peer off")]
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
    /// The handshake is not one.
    #[error("the handshake is damaged")]
    Handshake,
    /// The handshake did not come in time.
    #[error("the handshake did not come in time")]
    HandshakeLate,
    /// A message of a mux has no trailer, or one that contradicts its lane.
    #[error(
        "a message without a valid trailer: the peer does not run a mux on this transport, or it is damaged"
    )]
    Trailer,
    /// A control message of a mux holds a frame that is damaged or unknown.
    #[error("a damaged or unknown control frame of kind {kind}")]
    ControlFrame {
        /// The kind it announced.
        kind: u8,
    },
    /// More control frames than any use of a mux needs.
    #[error("too many channels offered, or too many control frames at once")]
    ControlFlood,
    /// The mux of the peer speaks no version that this one speaks.
    #[error("a mux of versions {version_min} to {version_max}, where this node speaks version 1")]
    MuxVersion {
        /// The lowest version of the peer.
        version_min: u8,
        /// The highest version of the peer.
        version_max: u8,
    },
    /// A control message came before the `HELLO`.
    #[error("a control frame before HELLO")]
    NoHello,
    /// A peer opened a session that was not its to open, or that was open.
    #[error("a session that is already open, or that the other side has to open")]
    Open,
    /// A peer claims that more was consumed than was sent, or names a lane without credit.
    #[error("credit for bytes that were not sent, or on a lane without credit")]
    Credit,
    /// A peer sent more than the byte budget of a channel's lane.
    #[error("more bytes than the budget of a lane of the channel allows")]
    ChannelBudget,
}
