//! Events of the connection to a peer.

use std::fmt;
use std::sync::Arc;

use x0_identity::NodeId;

use crate::ChannelId;

/// A change of the connection to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEvent {
    /// The peer.
    pub peer: NodeId,
    /// The kind of change.
    pub kind: PeerEventKind,
}

/// A change of the connection to a peer. See [`Transport`](crate::Transport#epochs) for the guarantees of
/// epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEventKind {
    /// Messages can be exchanged from now on. The same epoch comes up again only to end a
    /// [`PeerEventKind::Degraded`].
    Up {
        /// Higher than any epoch of this peer that the transport has reported before, unless it ends a
        /// degradation.
        epoch: u64,
    },
    /// The peer does not answer at the moment. Nothing is lost so far: `Up` with the same epoch, or `Down`,
    /// follows.
    Degraded,
    /// The epoch is over. Messages to the peer that had not arrived by then are lost.
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
    /// The peer closed the connection in an orderly way.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing arrived from the peer for longer than the idle timeout.
    #[error(
        "the peer is silent for longer than the idle timeout: check that it runs and that the network reaches it"
    )]
    TimedOut,
    /// The mesh has had no path to the peer for longer than the time that its owner allows.
    #[error("the mesh has no path to the peer: check that the peer runs, and the links of both nodes")]
    NoRoute,
    /// No answer came from the peer's address.
    #[error("no answer from the peer's address: check that the peer runs and that the address is right")]
    Unreachable,
    /// The peer restarted, or dialled again before this node noticed that the connection was lost.
    #[error("a new connection of the peer replaced this one")]
    Replaced,
    /// The peer does not know the connection any more, because it has restarted. A transport reports it if
    /// the peer keeps a secret from one process to the next, such as the `ResetKey` of QUIC.
    #[error("the peer has restarted")]
    Restarted,
    /// Another node answered at the peer's address.
    #[error(
        "{found} answered at the address of {expected}: correct the address, or the identity of that node"
    )]
    WrongIdentity {
        /// The node that was dialled.
        expected: NodeId,
        /// The node that answered.
        found: NodeId,
    },
    /// The identity of the peer, or that of this node, was not accepted.
    #[error("the identity was not accepted: {detail}")]
    Untrusted {
        /// The text of the verifier.
        detail: Arc<str>,
    },
    /// The SVID of the peer has expired, and the peer has not connected with a newer one.
    #[error("the SVID that the peer connected with has expired: renew the SVID of the peer")]
    Expired,
    /// The SVID of this node has expired, and the peer does not accept it any more.
    #[error("the SVID of this node has expired: renew it")]
    OwnIdentityExpired,
    /// The peer refused the connection.
    #[error("the peer refused the connection: {detail}")]
    Refused {
        /// The reason that the peer gave, shortened.
        detail: Arc<str>,
    },
    /// The peer broke the protocol. The transport connects again by itself.
    #[error("the peer broke the protocol: {violation}")]
    Malformed {
        /// The rule.
        violation: Violation,
    },
    /// The connection failed underneath.
    #[error("the connection failed: {detail}")]
    Failed {
        /// The text of the layer below.
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
    /// This node ended it.
    #[error("this node closed the connection")]
    Local,
    /// A [`FaultInjector`](crate::FaultInjector) cuts the peer off, or did so in one direction during the
    /// epoch.
    #[error("a fault injector cuts the peer off")]
    Blocked,
}

/// The rule that a peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message is longer than the receiver takes.
    #[error("a message of {len} bytes, where the lane takes {len_max}: use the same limits at both nodes")]
    MessageLength {
        /// The length that the peer announced, in bytes.
        len: u64,
        /// The longest message of the lane, in bytes.
        len_max: u64,
    },
    /// A stream begins with an unknown kind.
    #[error("a stream of the unknown kind {kind}")]
    StreamKind {
        /// The kind.
        kind: u8,
    },
    /// There are two streams of one ordered lane, or two control streams.
    #[error("a second stream for one lane, or a second control stream")]
    StreamTwice,
    /// The peer uses a lane that the receiver does not have.
    #[error(
        "a message on ordered lane {lane}, which this node does not have: use as many lanes at both nodes"
    )]
    Lane {
        /// The number of the lane.
        lane: u8,
    },
    /// A stream ended, or was reset, too early.
    #[error(
        "the {stream} ended, where {expected} was expected: the connection is closed and made again; if that repeats, \
         the peer runs an incompatible version"
    )]
    StreamEnd {
        /// The stream.
        stream: StreamName,
        /// The expected part.
        expected: Expected,
    },
    /// A bulk message continues beyond its announced length.
    #[error("more bytes on the stream of a bulk message than its length says")]
    TrailingBytes,
    /// The handshake cannot be decoded.
    #[error("the handshake is damaged, or of a version that this node does not speak")]
    Handshake,
    /// The handshake did not come in time.
    #[error("the handshake did not come in time")]
    HandshakeLate,
    /// A message of a mux has no trailer, or one that contradicts its lane.
    #[error("a message without a valid trailer: run a mux at both nodes, or at neither")]
    Trailer,
    /// A control message of a mux holds a frame that is damaged or unknown.
    #[error("a damaged or unknown control frame of kind {kind}")]
    ControlFrame {
        /// The kind.
        kind: u8,
    },
    /// More channels than a mux can have, or more control frames than any use of one needs.
    #[error("too many channels offered, or too many control frames at once")]
    ControlFlood,
    /// The mux of the peer speaks no version that this one speaks.
    #[error(
        "a mux of versions {version_min} to {version_max}, where this node speaks version 1: update the older node"
    )]
    MuxVersion {
        /// The lowest version of the peer.
        version_min: u8,
        /// The highest version of the peer.
        version_max: u8,
    },
    /// A peer opened a session that is open, or that the other side has to open.
    #[error("a session that is already open, or that the other side has to open")]
    Open,
    /// A peer reports that more was consumed than was sent, or names a lane without credit.
    #[error("credit for bytes that were not sent, or on a lane without credit")]
    Credit,
    /// A peer sent more than the byte budget of a channel's lane.
    #[error("more bytes than the budget of the channel's lane allows")]
    ChannelBudget,
}

/// A stream of a QUIC connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamName {
    /// The control stream.
    Control,
    /// The stream of an ordered lane.
    Ordered {
        /// The number of the lane.
        lane: u8,
    },
    /// The stream of a bulk message.
    Bulk,
    /// A stream that ended before it said what it is for.
    New,
}

impl fmt::Display for StreamName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamName::Control => formatter.write_str("control stream"),
            StreamName::Ordered { lane } => write!(formatter, "stream of ordered lane {lane}"),
            StreamName::Bulk => formatter.write_str("stream of a bulk message"),
            StreamName::New => formatter.write_str("new stream"),
        }
    }
}

/// The part that was expected where a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// The stream lasts as long as the connection.
    EndOfConnection,
    /// The rest of a message, or of its length.
    RestOfMessage,
    /// The kind of the stream, or the number of its lane.
    Kind,
    /// The peer reads the stream as long as the connection lasts.
    Reader,
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Expected::EndOfConnection => "a stream that lasts as long as the connection",
            Expected::RestOfMessage => "the rest of a message",
            Expected::Kind => "the kind of the stream",
            Expected::Reader => "a peer that reads it as long as the connection lasts",
        })
    }
}
