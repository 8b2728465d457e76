//! Peers as a healing policy sees them: connection, path and link in one snapshot.

use x0_identity::NodeId;

use crate::datagram::{LinkFacts, PathFacts};
use crate::quic::LinkState;

/// A peer of a transport on a mesh at one moment. [`Mesh::peers`](super::Mesh::peers) gives them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PeerFacts {
    /// The peer.
    pub peer: NodeId,
    /// The connection from end to end, with its round-trip time, loss, MTU and bytes; `None` while there is
    /// none.
    pub connection: Option<LinkState>,
    /// The path that its packets take, with the next hop and the reason for it; `None` without a route, and
    /// for a peer that the transport reaches beside the mesh.
    pub path: Option<PathFacts>,
    /// The link to the next hop, with what was measured of it; `None` without a path.
    pub first_link: Option<LinkFacts>,
}
