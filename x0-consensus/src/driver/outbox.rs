//! The outgoing messages of a driver.

use x0_identity::NodeId;

use crate::replica::Class;

/// Sends a replica's messages to its peers. The driver calls it, and it must not block.
pub trait Outbox: Send {
    /// Sends a message, or drops it. Messages to one peer in one class should arrive in their order; Raft
    /// repairs loss and disorder.
    ///
    /// # Errors
    /// When the message was dropped. The replica then sends less to that peer.
    fn send(&mut self, to: NodeId, class: Class, payload: Vec<u8>) -> Result<(), Congested>;
}

/// A message was dropped: the queue to the peer is full, or the peer is not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message was dropped: the queue to the peer is full, or the peer is not connected")]
pub struct Congested;

/// For a group of one, which sends nothing.
impl Outbox for () {
    fn send(&mut self, _: NodeId, _: Class, _: Vec<u8>) -> Result<(), Congested> {
        Err(Congested)
    }
}
