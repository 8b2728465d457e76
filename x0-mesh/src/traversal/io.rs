//! Inputs, outputs and counts.

use alloc::vec::Vec;
use core::net::SocketAddr;

use x0_identity::NodeId;

/// What happens to a [`Traversal`](super::Traversal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraversalInput<'a> {
    /// This node has sent to a node that is not its neighbour: a direct path is wanted. Once a second is
    /// enough while there is traffic.
    Relayed {
        /// The node.
        peer: NodeId,
    },
    /// A message of the mesh itself has arrived. One that breaks the format is counted and has no effect.
    Message {
        /// The node that sent it, as the neighbours on the way have stated it.
        from: NodeId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The addresses at which this node may be reachable, the best first. Those beyond the first 8 are not
    /// sent.
    Addresses {
        /// The addresses.
        own: &'a [SocketAddr],
    },
    /// The neighbours of this node: no other way to them is wanted. Handed in after each change.
    Neighbours {
        /// The nodes that their SVIDs name.
        peers: &'a [NodeId],
    },
    /// A dial has led to a neighbour. The driver keeps its keys from now on, until it hands in `Ended`.
    Reached {
        /// The address of [`TraversalOutput::Dial`].
        address: SocketAddr,
    },
    /// A dial has failed, or the driver has given up an address that it had reached.
    Ended {
        /// The address of [`TraversalOutput::Dial`].
        address: SocketAddr,
    },
    /// The time of [`Traversal::poll_timeout`](super::Traversal::poll_timeout) has come.
    Timeout,
}

/// What a driver does for a [`Traversal`](super::Traversal).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraversalOutput {
    /// Send a message of the mesh itself to a node, over the current route. It may be lost.
    Send {
        /// The node.
        to: NodeId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Dial an address, and report the outcome by [`TraversalInput::Reached`] or [`TraversalInput::Ended`].
    Dial {
        /// The address.
        address: SocketAddr,
    },
}

/// Counts of a [`Traversal`](super::Traversal) since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TraversalStats {
    /// Calls that were sent.
    pub calls: u64,
    /// Answers that were sent.
    pub answers: u64,
    /// Messages that break the format.
    pub malformed: u64,
    /// Messages that were dropped: calls of one node in quick succession, and answers without a call.
    pub dropped: u64,
    /// Dials that were begun.
    pub dials: u64,
    /// Dials that led to a neighbour.
    pub reached: u64,
}
