//! The operations that wait at a node, and the nodes that do not answer its own.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use x0_identity::NodeId;

use crate::coordinator::Coordinator;

/// The operations that wait at a node or client, and the nodes that do not answer it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WaitingStatus {
    /// Operations of local callers without an answer.
    pub calls: u64,
    /// Operations of other nodes that wait here.
    pub requests: u64,
    /// The most that may wait; see
    /// [`CoordinatorOptions`](crate::coordinator::CoordinatorOptions::requests_max).
    pub requests_max: u64,
    /// The most of one other node.
    pub requests_per_peer_max: u64,
    /// How many attempts of local calls had no answer in time since the start, by the node that they were
    /// sent to; see [`Coordinator::unanswered`]. A node that serves no caller shows here, and not in its own
    /// status.
    pub unanswered: BTreeMap<NodeId, u64>,
}

/// Kept by the operations service, read by any thread.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<WaitingStatus>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, WaitingStatus> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> WaitingStatus {
        self.lock().clone()
    }

    /// Takes over the counts of the coordinator.
    pub(super) fn refresh(&self, coordinator: &Coordinator) {
        let mut status = self.lock();
        (status.calls, status.requests) = (coordinator.calls() as u64, coordinator.requests() as u64);
        let (all, of_peer) = coordinator.request_limits();
        (status.requests_max, status.requests_per_peer_max) = (all as u64, of_peer as u64);
        if status.unanswered != *coordinator.unanswered() {
            status.unanswered.clone_from(coordinator.unanswered());
        }
    }
}
