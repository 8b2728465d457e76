//! The peers that a node reaches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use x0_identity::NodeId;
use x0_mesh::{PeerEvent, PeerEventKind};

use super::reports::Reports;
use super::waiting::Waiting;
use crate::scrub::ScrubStatus;
use crate::telemetry::RefusedTelemetry;

/// Kept by the services, read by any thread.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    reached: Mutex<BTreeSet<NodeId>>,
    decode_errors: AtomicU64,
    refused: AtomicU64,
    telemetry: RefusedTelemetry,
    scrub: Mutex<ScrubStatus>,
    set_aside: AtomicU64,
    waiting: Waiting,
    reports: Reports,
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

    /// A message of this peer cannot be read: the peer runs another version, or sends garbage.
    pub(super) fn decode_error(&self, _peer: NodeId) {
        self.decode_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was refused because of the role of its sender.
    pub(super) fn refused(&self, channel: &'static str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.telemetry.refused(channel);
    }

    pub(crate) fn refused_count(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn reached(&self) -> BTreeSet<NodeId> {
        self.lock().clone()
    }

    pub(crate) fn decode_error_count(&self) -> u64 {
        self.decode_errors.load(Ordering::Relaxed)
    }

    /// The totals of the scrub.
    pub(crate) fn scrub(&self) -> ScrubStatus {
        *self.scrub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn scrubbed(&self, status: ScrubStatus) {
        *self.scrub.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The reports of clients.
    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    /// The operations that wait here.
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// How often damaged files of the data folder were set aside.
    pub(crate) fn set_aside_count(&self) -> u64 {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub(super) fn set_aside(&self, count: u32) {
        self.set_aside.store(count.into(), Ordering::Relaxed);
    }
}
