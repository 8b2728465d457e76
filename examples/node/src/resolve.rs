//! Members with a DNS name: resolved at the start, and again while they are not reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use x0_identity::NodeId;
use x0_mesh::quic::PeerBook;

use crate::config::address::Address;
use crate::log::Log;

/// How often a member that is not reached is resolved.
const EVERY: Duration = Duration::from_secs(2);

/// The members with a name. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeMap<NodeId, Name>>>);

#[derive(Debug)]
struct Name {
    address: Address,
    /// The last result; `None` before the first one.
    found: Option<Result<SocketAddr, String>>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Name>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves the name of a member from now on. The name that it had is not used any more.
    pub(crate) fn insert(&self, node: NodeId, address: &Address) {
        let mut names = self.lock();
        if names.get(&node).is_none_or(|name| name.address != *address) {
            names.insert(node, Name { address: address.clone(), found: None });
        }
    }

    /// Stops resolving the name of a node.
    pub(crate) fn remove(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    /// Resolves the members that are not reached, for as long as the runtime of the caller lasts.
    pub(crate) fn spawn(
        &self,
        reached: impl Fn() -> BTreeSet<NodeId> + Send + 'static,
        book: PeerBook,
        log: Log,
    ) {
        let names = self.clone();
        tokio::spawn(async move {
            loop {
                let up = reached();
                let wanted: Vec<(NodeId, Address)> = names
                    .lock()
                    .iter()
                    .filter(|(node, _)| !up.contains(*node))
                    .map(|(node, name)| (*node, name.address.clone()))
                    .collect();
                for (node, address) in wanted {
                    let asked = address.clone();
                    // The resolver of the system blocks.
                    let found = tokio::task::spawn_blocking(move || asked.resolve()).await;
                    let Ok(found) = found else { continue };
                    names.found(node, &address, found.map_err(|error| error.to_string()), &book, &log);
                }
                tokio::time::sleep(EVERY).await;
            }
        });
    }

    /// Uses a result, and logs it if it is news.
    fn found(
        &self,
        node: NodeId,
        address: &Address,
        found: Result<SocketAddr, String>,
        book: &PeerBook,
        log: &Log,
    ) {
        let mut names = self.lock();
        let Some(name) = names.get_mut(&node).filter(|name| name.address == *address) else { return };
        if name.found.as_ref() == Some(&found) {
            return;
        }
        match &found {
            Ok(socket) => {
                book.set_peer(node, *socket);
                log.event("peer-resolved", format!("peer={node} name={address} address={socket}"));
            }
            Err(error) => log.event("peer-unresolved", format!("peer={node} name={address} why={error}")),
        }
        name.found = Some(found);
    }
}
