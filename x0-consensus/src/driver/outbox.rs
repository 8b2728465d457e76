//! The way out of a driver.

use x0_identity::NodeId;

use crate::replica::Class;

/// Takes a replica's messages to its peers. Called from within the driver: it must not wait.
pub trait Outbox: Send {
    /// Sends a message, or drops it. What is sent to one peer in one class should arrive in that order; Raft mends what does not.
    ///
    /// # Errors
    /// When it was dropped, which the replica is told, so that it goes slower.
    fn send(&mut self, to: NodeId, class: Class, payload: Vec<u8>) -> Result<(), Congested>;
}

/// There is no room for a message, or no way to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message was dropped: there is no room, or no way to the peer")]
pub struct Congested;

/// For a group of one, which has nobody to send to.
impl Outbox for () {
    fn send(&mut self, _: NodeId, _: Class, _: Vec<u8>) -> Result<(), Congested> {
        Err(Congested)
    }
}
