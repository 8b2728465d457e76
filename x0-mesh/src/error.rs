//! What can go wrong.

use std::sync::Arc;

use x0_identity::NodeId;

use crate::{ChannelId, Lane};

/// Why a message was not taken. In each case nothing of it was sent, and nothing else changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No such peer: it has no address, and it has not dialled us either.
    #[error("{peer} has no address and has not dialled: give its address")]
    UnknownPeer {
        /// Which peer.
        peer: NodeId,
    },
    /// There is no way to the peer now. The transport keeps trying; `Up` tells when it has succeeded.
    #[error("there is no way to {peer} now: wait for it to be up")]
    Unreachable {
        /// Which peer.
        peer: NodeId,
    },
    /// There is no room, and this lane does not wait.
    #[error("the {lane} lane to {peer} is congested: send less, or again later")]
    Congested {
        /// Which peer.
        peer: NodeId,
        /// Which lane.
        lane: Lane,
    },
    /// The message is longer than the lane takes.
    #[error("a message of {len} bytes for a lane that takes {len_max}: split it, or use another lane")]
    TooLong {
        /// How long it is, in bytes.
        len: usize,
        /// What the lane takes, in bytes.
        len_max: usize,
    },
    /// The transport does not have this lane; `message_len_max` of it is zero.
    #[error("the transport has no {lane} lane: use another, or configure more")]
    NoLane {
        /// Which lane.
        lane: Lane,
    },
    /// The message is for the sender.
    #[error("a node does not send to itself")]
    ToSelf,
    /// The peer is connected and has not registered this channel of a [`Mux`](crate::Mux). `Up` follows once it does.
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
    #[error("the transport is closed")]
    Closed,
}

/// Why no message will ever be received again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The transport was closed by its owner.
    #[error("the transport is closed")]
    Closed,
    /// What the transport stands on has failed. A new one has to be made.
    #[error("the transport failed: {detail}")]
    Failed {
        /// What the layer below said.
        detail: Arc<str>,
    },
}
