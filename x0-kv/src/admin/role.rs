//! The role of a peer's identity.

use std::fmt;
use std::sync::Arc;

use x0_identity::NodeId;

/// The role of the identity that a transport has authenticated. It decides which messages are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerRole {
    /// A node of the cluster, member or about to become one: it may send every message.
    Member,
    /// An operator: operations of the store, requests for the status, and requests of operators.
    Operator,
    /// A client: operations of the store and requests for the status.
    Client,
}

/// Maps the peers of a transport to their roles. Clones share the function.
#[derive(Clone, Default)]
pub struct PeerRoles(Option<Arc<dyn Fn(NodeId) -> PeerRole + Send + Sync>>);

impl PeerRoles {
    /// The roles that `role` returns. It is called for each message, in the task of the event loop: it must
    /// be quick and must not wait.
    #[must_use]
    pub fn new(role: impl Fn(NodeId) -> PeerRole + Send + Sync + 'static) -> PeerRoles {
        PeerRoles(Some(Arc::new(role)))
    }

    /// The role of a peer. Without a function, a guest of the transport is a client and everything else a
    /// member.
    #[must_use]
    pub fn of(&self, peer: NodeId) -> PeerRole {
        match &self.0 {
            Some(role) => role(peer),
            None if x0_mesh::is_guest(peer) => PeerRole::Client,
            None => PeerRole::Member,
        }
    }
}

impl fmt::Debug for PeerRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerRoles").field("is_default", &self.0.is_none()).finish()
    }
}
