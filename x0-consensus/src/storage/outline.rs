//! The effect of a batch on a log, computed before the first byte is written, so that a batch is refused as a
//! whole or not at all.

use crate::entry::{LogBase, SnapshotMeta};

use super::term_runs::TermRuns;
use super::{Write, WriteError};

/// The largest index. A log of a billion entries per second reaches it in 146 years; a larger number is
/// damage, or an attempt to make a sum overflow.
pub(crate) const INDEX_MAX: u64 = 1 << 62;

/// The contents of a log, for an [`Outline`].
pub(crate) trait Held {
    fn base(&self) -> &LogBase;
    fn last_index(&self) -> u64;
    /// The term of an index in the log, or of the base.
    fn term(&self, index: u64) -> Option<u64>;
    /// The index of the adopted snapshot, or 0.
    fn snapshot_index(&self) -> u64;
    /// Whether a finished snapshot of this index and term is staged.
    fn is_staged(&self, meta: &SnapshotMeta) -> Result<bool, WriteError>;
}

/// The bounds and terms of a log after the writes of a batch so far.
pub(crate) struct Outline<'a, H: Held> {
    held: &'a H,
    /// The terms up to this index are in `held`, those after it in `appended`.
    held_through: u64,
    appended: TermRuns,
    base_index: u64,
    base_term: u64,
    last_index: u64,
    snapshot_index: u64,
}

impl<'a, H: Held> Outline<'a, H> {
    pub(crate) fn new(held: &'a H) -> Outline<'a, H> {
        Outline {
            held,
            held_through: held.last_index(),
            appended: TermRuns::default(),
            base_index: held.base().index,
            base_term: held.base().term,
            last_index: held.last_index(),
            snapshot_index: held.snapshot_index(),
        }
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            Some(self.base_term)
        } else if index < self.base_index || index > self.last_index {
            None
        } else if index <= self.held_through {
            self.held.term(index)
        } else {
            self.appended.term(index)
        }
    }

    /// Adds a write. Returns whether its snapshot replaces the log.
    pub(crate) fn add(&mut self, write: &Write) -> Result<bool, WriteError> {
        let replaces_log = match &write.snapshot {
            Some(meta) => self.adopt(meta)?,
            None => false,
        };
        for (at, entry) in write.entries.iter().enumerate() {
            let first_allowed = if at == 0 { self.base_index + 1 } else { self.last_index + 1 };
            if entry.index < first_allowed || entry.index > self.last_index + 1 || entry.index > INDEX_MAX {
                return Err(WriteError::Gap {
                    index: entry.index,
                    base_index: self.base_index,
                    last_index: self.last_index,
                });
            }
            if entry.index <= self.last_index {
                self.held_through = self.held_through.min(entry.index - 1);
                self.appended.truncate_from(entry.index);
            }
            self.appended.push(entry.index, entry.term);
            self.last_index = entry.index;
        }
        if let Some(base) = write.base.as_ref().filter(|base| base.index >= self.base_index) {
            if self.term(base.index) != Some(base.term) {
                return Err(WriteError::BaseUnknown { index: base.index, term: base.term });
            }
            (self.base_index, self.base_term) = (base.index, base.term);
        }
        Ok(replaces_log)
    }

    fn adopt(&mut self, meta: &SnapshotMeta) -> Result<bool, WriteError> {
        let held_index = self.snapshot_index.max(self.base_index);
        if meta.index < held_index {
            return Err(WriteError::SnapshotStale { index: meta.index, held_index });
        }
        if meta.index > INDEX_MAX {
            return Err(WriteError::Gap {
                index: meta.index,
                base_index: self.base_index,
                last_index: self.last_index,
            });
        }
        if !self.held.is_staged(meta)? {
            return Err(WriteError::SnapshotNotStaged { index: meta.index, term: meta.term });
        }
        self.snapshot_index = meta.index;
        if self.term(meta.index) == Some(meta.term) {
            return Ok(false);
        }
        (self.base_index, self.base_term, self.last_index) = (meta.index, meta.term, meta.index);
        self.held_through = 0;
        self.appended.clear();
        Ok(true)
    }
}
