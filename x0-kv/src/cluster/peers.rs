//! Whom this node reaches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use x0_identity::NodeId;
use x0_mesh::{PeerEvent, PeerEventKind};

/// Kept by the hub, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    reached: Mutex<BTreeSet<NodeId>>,
    misunderstood: AtomicU64,
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        // Nothing that can panic runs under the lock.
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn event(&self, event: &PeerEvent) {
        match event.kind {
            PeerEventKind::Up { .. } => drop(self.lock().insert(event.peer)),
            PeerEventKind::Down { .. } => drop(self.lock().remove(&event.peer)),
            _ => {}
        }
    }

    /// A message of this peer could not be read: it runs another version, or is not what it should be.
    pub(super) fn misunderstood(&self, _peer: NodeId) {
        self.misunderstood.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reached(&self) -> BTreeSet<NodeId> {
        self.lock().clone()
    }

    pub(crate) fn misunderstood_count(&self) -> u64 {
        self.misunderstood.load(Ordering::Relaxed)
    }
}
