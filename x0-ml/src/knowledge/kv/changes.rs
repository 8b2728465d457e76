//! From changed keys to changes in the order of their revisions.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use x0_kv::{Bytes, Watch};

use super::cells::Cells;
use super::{document_of, is_removal};
use crate::knowledge::Change;
use crate::retrieve::DocumentId;

/// A watch reports keys without order and without revisions. Each key is read, and is reported when no change
/// of a lower revision can be missing: when the watch was read once more after the read that showed its
/// revision. This rests on x0-kv notifying its watches before it lets a write be read.
pub(super) struct Changes {
    watch: Watch,
    waker: Waker,
    /// By revision; whether the document was removed.
    queue: BTreeMap<(u64, DocumentId), bool>,
    /// Keys that the watch reported and that were not read yet.
    keys: VecDeque<Bytes>,
    /// Every change up to it has been taken from the watch.
    horizon: u64,
    /// The greatest revision that was read.
    seen: u64,
    /// The revision of the last change that was returned.
    returned: u64,
}

impl Changes {
    pub(super) fn new(watch: Watch) -> Self {
        Self {
            watch,
            waker: Waker::noop().clone(),
            queue: BTreeMap::new(),
            keys: VecDeque::new(),
            horizon: 0,
            seen: 0,
            returned: 0,
        }
    }

    pub(super) fn set_waker(&mut self, waker: Waker) {
        self.waker = waker;
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// The revision of the last change that was returned.
    pub(super) fn returned(&self) -> u64 {
        self.returned
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// A revision that was read elsewhere.
    pub(super) fn see(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
    }

    pub(super) fn poll(&mut self, cells: &dyn Cells) -> Option<Change> {
        loop {
            while let Some(key) = self.keys.pop_front() {
                let Some(document) = document_of(&key) else { continue };
                match cells.get(&key) {
                    Ok(Some((value, revision))) => {
                        self.seen = self.seen.max(revision);
                        self.queue.insert((revision, document), is_removal(&value));
                    }
                    // Removed so long ago that its record was swept. The revision is not known any more; it
                    // is lower than this.
                    Ok(None) => {
                        self.queue.insert((self.horizon, document), true);
                    }
                    Err(_) => return Some(self.cut()),
                }
            }
            if let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.horizon) {
                let ((revision, document), is_removed) = entry.remove_entry();
                // In a CRDT collection, writes of other members come late.
                self.returned = self.returned.max(revision);
                let revision = self.returned;
                return Some(match is_removed {
                    true => Change::Removed { document, revision },
                    false => Change::Changed { document, revision },
                });
            }
            let horizon = self.seen;
            match self.watch.poll_next(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(Some(changes)) if changes.is_cut => return Some(self.cut()),
                Poll::Ready(Some(changes)) => self.keys.extend(changes.keys),
                Poll::Ready(None) | Poll::Pending if self.queue.is_empty() => return None,
                Poll::Ready(None) | Poll::Pending => {}
            }
            self.horizon = horizon;
        }
    }

    /// Everything is compared again.
    fn cut(&mut self) -> Change {
        self.queue.clear();
        self.keys.clear();
        Change::Cut
    }
}
