//! Messages, as they are sent and received.

use x0_identity::NodeId;

use crate::{Lane, PeerEvent};

/// A message to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// The receiver.
    pub to: NodeId,
    /// The lane on which it travels.
    pub lane: Lane,
    /// The message: at most [`Transport::message_len_max`](crate::Transport::message_len_max) bytes, and
    /// possibly none.
    pub payload: &'a [u8],
}

/// The origin of a message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The sender. The transport has verified its identity.
    pub from: NodeId,
    /// The lane on which it travelled.
    pub lane: Lane,
}

/// The result of [`Transport::poll_next`](crate::Transport::poll_next).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The connection to a peer changed.
    Event(PeerEvent),
    /// A message was received; it is in the buffer.
    Message(Received),
}
