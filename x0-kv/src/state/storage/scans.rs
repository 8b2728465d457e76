//! Snapshots that scans read their pages from.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::View;
use crate::request::limits::{SCAN_WRITTEN_LEN_MAX, SCANS_MAX};
use crate::request::operation::SnapshotId;

/// How many bytes may be written before the snapshot of a finished scan is released. Its last page may have
/// to be sent again.
const FINISHED_WRITTEN_LEN_MAX: u64 = 64 << 10;

/// The snapshots of scans that are not finished. Bounded in number, and each by the bytes written since it
/// was taken, which is what it costs. No clock is involved, so that a simulated node behaves as a real one.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    /// How many there are, so that applying entries costs one load when there are none.
    count: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Least recently used first.
    scans: VecDeque<Scan>,
    next_number: u64,
}

#[derive(Debug)]
struct Scan {
    id: SnapshotId,
    view: View,
    /// The bytes that were written when it was taken, or when it was finished.
    written: u64,
    written_max: u64,
}

impl Scans {
    /// Holds `view`, taken when `written` bytes had been written. The least recently used snapshot makes
    /// room.
    pub(crate) fn hold(&self, view: View, revision: crate::Revision, written: u64) -> SnapshotId {
        let mut held = self.lock();
        held.next_number += 1;
        let id = SnapshotId { revision, number: held.next_number };
        if held.scans.len() >= SCANS_MAX {
            held.scans.pop_front();
        }
        held.scans.push_back(Scan { id, view, written, written_max: SCAN_WRITTEN_LEN_MAX });
        self.count.store(held.scans.len(), Ordering::Release);
        id
    }

    /// The snapshot `id`, if it is still held.
    pub(crate) fn get(&self, id: SnapshotId) -> Option<View> {
        let mut held = self.lock();
        let place = held.scans.iter().position(|scan| scan.id == id)?;
        let scan = held.scans.remove(place)?;
        let view = scan.view.clone();
        held.scans.push_back(scan);
        Some(view)
    }

    /// The last page of snapshot `id` was read: it is released soon.
    pub(crate) fn finish(&self, id: SnapshotId, written: u64) {
        let mut held = self.lock();
        if let Some(place) = held.scans.iter().position(|scan| scan.id == id)
            && let Some(mut scan) = held.scans.remove(place)
        {
            (scan.written, scan.written_max) = (written, FINISHED_WRITTEN_LEN_MAX);
            // The first to make room for another one.
            held.scans.push_front(scan);
        }
    }

    /// Releases the snapshots that cost too much now that `written` bytes have been written.
    pub(crate) fn expire(&self, written: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut held = self.lock();
        held.scans.retain(|scan| written.saturating_sub(scan.written) <= scan.written_max);
        self.count.store(held.scans.len(), Ordering::Release);
    }

    /// Releases all snapshots.
    pub(crate) fn clear(&self) {
        self.lock().scans.clear();
        self.count.store(0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing that can panic runs under the lock but the release of a view, which leaves the list whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
