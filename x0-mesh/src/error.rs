//! Errors of sending and receiving.

use std::sync::Arc;

use x0_identity::NodeId;

use crate::{ChannelId, Lane};

/// A message was not taken. In each case nothing of it was sent, and nothing else changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer has no address, and has not dialled this node.
    #[error("cannot send to {peer}: it has no address and has not dialled this node; give its address")]
    UnknownPeer {
        /// The peer.
        peer: NodeId,
    },
    /// The peer is not connected. The transport keeps trying; `Up` reports when it succeeds.
    #[error("cannot send to {peer}: it is not connected; wait until it is up")]
    Unreachable {
        /// The peer.
        peer: NodeId,
    },
    /// There is no room, and this lane does not wait.
    #[error("cannot send to {peer}: its {lane} lane is congested; send less, or try again later")]
    Congested {
        /// The peer.
        peer: NodeId,
        /// The lane.
        lane: Lane,
    },
    /// The message is longer than the lane takes.
    #[error("cannot send a message of {len} bytes: the lane takes {len_max}; split it, or use another lane")]
    TooLong {
        /// The length of the message, in bytes.
        len: usize,
        /// The longest message of the lane, in bytes.
        len_max: usize,
    },
    /// The transport does not have this lane; `message_len_max` of it is zero. Or the peer's end of a channel
    /// does not have it.
    #[error("cannot send: there is no {lane} lane; use another one, or configure more at both nodes")]
    NoLane {
        /// The lane.
        lane: Lane,
    },
    /// The message is for the node that sends it.
    #[error("cannot send to this node itself: deliver the message without the transport")]
    ToSelf,
    /// The peer is connected and has not registered this channel of a [`Mux`](crate::Mux). `Up` follows once
    /// it does.
    #[error("cannot send to {peer}: it has not registered channel {channel}; start the service there")]
    NoChannel {
        /// The peer.
        peer: NodeId,
        /// The channel.
        channel: ChannelId,
    },
    /// The peer has registered this channel with versions of which this node speaks none.
    #[error(
        "cannot send to {peer}: it speaks no version of channel {channel} that this node speaks; update the older one"
    )]
    ChannelVersion {
        /// The peer.
        peer: NodeId,
        /// The channel.
        channel: ChannelId,
    },
    /// The transport is closed, and stays so.
    #[error("cannot send: the transport is closed; make a new one")]
    Closed,
}

/// Nothing will ever be received again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The owner closed the transport.
    #[error("cannot receive: the transport is closed; make a new one")]
    Closed,
    /// The layer below the transport failed.
    #[error("cannot receive: the transport failed, {detail}; make a new one")]
    Failed {
        /// The text of the layer below.
        detail: Arc<str>,
    },
}
