//! The state of the log in memory: everything but the payloads.

use std::collections::VecDeque;

use crate::directory::Directory;
use crate::entry::{EntryKind, HardState, LogBase, SnapshotMeta};
use crate::storage::outline::Held;
use crate::storage::term_runs::TermRuns;
use crate::storage::{SnapshotReadError, Write, WriteError};

use super::record::{Body, State};
use super::snapshot::FileSnapshotReader;

/// Consecutive entries whose records are adjacent in one segment: an item of the index into the files.
///
/// A run collects records up to [`RUN_LEN`] bytes. So the index takes 40 bytes for each 16 KiB (a quarter of
/// a percent), and reading an entry reads at most 16 KiB more than its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first_index: u64,
    /// The index after the last valid entry of the run.
    pub(crate) end_index: u64,
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Entries at its end were replaced: its records have entries that are no longer valid, so that no record
    /// may be added.
    pub(crate) is_cut: bool,
}

pub(crate) const RUN_LEN: u64 = 16 * 1024;

/// The location of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

#[derive(Debug, Default)]
pub(crate) struct LogState {
    pub(crate) hard_state: HardState,
    pub(crate) base: LogBase,
    pub(crate) last_index: u64,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) term_runs: TermRuns,
    pub(crate) runs: VecDeque<Run>,
    pub(crate) membership_indexes: Vec<u64>,
    /// During recovery: entries after the base and up to this index were in segments that were removed. The
    /// base must reach it before the end of the recovery.
    pub(crate) removed_through: u64,
}

impl LogState {
    /// Removes the entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        if index > self.last_index {
            return;
        }
        self.last_index = index - 1;
        // An entry that was replaced need not be found in a segment: only its replacement must.
        self.removed_through = self.removed_through.min(index - 1);
        self.term_runs.truncate_from(index);
        while let Some(run) = self.runs.back_mut() {
            if run.first_index < index {
                // The records of the run stay on the disk and contain the replaced entries.
                run.is_cut |= run.end_index > index;
                run.end_index = run.end_index.min(index);
                break;
            }
            self.runs.pop_back();
        }
        // A membership is in effect as soon as its entry is in the log (Raft thesis, §4.1), so that removing
        // the entry must bring back the one before it: `recover` reads the entries that are left.
        let kept = self.membership_indexes.partition_point(|held| *held < index);
        self.membership_indexes.truncate(kept);
    }

    /// Adds the entry at `last_index + 1`.
    pub(crate) fn push_entry(&mut self, term: u64, kind: EntryKind) {
        self.last_index += 1;
        self.term_runs.push(self.last_index, term);
        if kind == EntryKind::Membership {
            self.membership_indexes.push(self.last_index);
        }
    }

    /// Adds the location of the record with the entries from `first_index` to the last one.
    pub(crate) fn locate(&mut self, first_index: u64, at: Location) {
        let end_index = self.last_index + 1;
        if let Some(run) = self.runs.back_mut() {
            let len = (at.offset + at.len).saturating_sub(run.offset);
            // A run with replaced entries is not continued: reading it would find two entries of the same
            // index.
            let joins =
                run.sequence == at.sequence && run.end_index == first_index && len <= RUN_LEN && !run.is_cut;
            if joins {
                run.end_index = end_index;
                run.len = len;
                return;
            }
        }
        self.runs.push_back(Run {
            first_index,
            end_index,
            sequence: at.sequence,
            offset: at.offset,
            len: at.len,
            is_cut: false,
        });
    }

    /// Removes the entries up to this base. The log has an entry at `base.index`, or becomes empty.
    pub(crate) fn set_base(&mut self, base: LogBase) {
        let index = base.index;
        self.base = base;
        self.term_runs.drop_through(index, self.last_index);
        // A base after the last entry empties the log, as after an adopted snapshot.
        self.last_index = self.last_index.max(index);
        // A run that reaches past the base stays whole: its records before the base are skipped when it is
        // read.
        while self.runs.front().is_some_and(|run| run.end_index <= index + 1) {
            self.runs.pop_front();
        }
        let dropped = self.membership_indexes.partition_point(|held| *held <= index);
        self.membership_indexes.drain(..dropped);
    }

    /// Adopts a snapshot.
    pub(crate) fn adopt(&mut self, meta: SnapshotMeta, replaces_log: bool) {
        // Only a snapshot that contradicts the log, or is ahead of it, replaces the log. Entries after a
        // snapshot of the same index and term stay: they may be acknowledged (Raft thesis, §5.1,
        // `InstallSnapshot`).
        if replaces_log {
            self.last_index = meta.index;
            self.removed_through = 0;
            self.term_runs.clear();
            self.runs.clear();
            self.membership_indexes.clear();
            self.base = meta.clone().into();
        }
        self.snapshot = Some(meta);
    }
}

impl LogState {
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        // The base has no entry, but its term is needed: the first append after it names the base as its
        // previous entry (Raft thesis, §3.5).
        if index == self.base.index {
            Some(self.base.term)
        } else if index < self.base.index || index > self.last_index {
            None
        } else {
            self.term_runs.term(index)
        }
    }

    /// The run with this index.
    pub(crate) fn run(&self, index: u64) -> Option<Run> {
        let at = self.runs.partition_point(|run| run.end_index <= index);
        self.runs.get(at).filter(|run| run.first_index <= index).copied()
    }

    /// Performs a record, in the order of the fields of [`Write`].
    pub(crate) fn replay(&mut self, body: &Body, bytes: &[u8], at: Location) -> Result<(), &'static str> {
        if let Some(hard_state) = body.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(meta) = &body.snapshot {
            self.adopt(meta.clone(), body.replaces_log);
        }
        if let Some(entries) = &body.entries {
            // A gap, or entries before the base, cannot be written: `Outline` refuses such a batch.
            if entries.first_index <= self.base.index || entries.first_index > self.last_index + 1 {
                return Err("the entries of a record do not continue the log");
            }
            self.truncate_from(entries.first_index);
            entries.iter(bytes).for_each(|entry| self.push_entry(entry.term, entry.kind));
            self.locate(entries.first_index, at);
        }
        if let Some(base) = body.base.as_ref().filter(|base| base.index >= self.base.index) {
            if base.index > self.last_index {
                return Err("the base of a record is after the end of the log");
            }
            self.set_base(base.clone());
        }
        Ok(())
    }

    /// Performs a write that the outline has checked and whose record is at this location.
    pub(crate) fn perform(&mut self, write: &Write, replaces_log: bool, at: Location) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(meta) = &write.snapshot {
            self.adopt(meta.clone(), replaces_log);
        }
        if let Some(first) = write.entries.first() {
            self.truncate_from(first.index);
            write.entries.iter().for_each(|entry| self.push_entry(entry.term, entry.kind));
            self.locate(first.index, at);
        }
        if let Some(base) = write.base.as_ref().filter(|base| base.index >= self.base.index) {
            self.set_base(base.clone());
        }
    }
}

/// The state of a log, and the folder in which snapshots are staged.
pub(crate) struct HeldIn<'a> {
    pub(crate) state: &'a LogState,
    pub(crate) directory: &'a dyn Directory,
}

impl Held for HeldIn<'_> {
    fn base(&self) -> &LogBase {
        &self.state.base
    }

    fn last_index(&self) -> u64 {
        self.state.last_index
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.state.term(index)
    }

    fn snapshot_index(&self) -> u64 {
        self.state.snapshot.as_ref().map_or(0, |meta| meta.index)
    }

    fn is_staged(&self, meta: &SnapshotMeta) -> Result<bool, WriteError> {
        match FileSnapshotReader::open(self.directory, meta) {
            Ok(reader) => Ok(reader.is_some()),
            Err(SnapshotReadError::Io { operation, file, source }) => {
                Err(WriteError::Io { operation, file, source })
            }
            // A damaged file counts as not staged, so that it is not adopted and the leader sends it again.
            Err(SnapshotReadError::Corrupt { .. }) => Ok(false),
        }
    }
}

impl LogState {
    /// The state that the first record of a segment repeats.
    pub(crate) fn restated(&self) -> State<'_> {
        State {
            hard_state: self.hard_state,
            base: &self.base,
            snapshot: self.snapshot.as_ref(),
            last_index: self.last_index,
        }
    }

    /// Starts from the state in the opening of the oldest segment. The entries of that state were in segments
    /// that were removed.
    pub(crate) fn begin(&mut self, body: &Body, last_index: u64) {
        self.hard_state = body.hard_state.unwrap_or_default();
        self.base = body.base.clone().unwrap_or_default();
        self.snapshot.clone_from(&body.snapshot);
        self.last_index = last_index.max(self.base.index);
        // Compared with the base at the end of the recovery; replaced entries lower it.
        self.removed_through = self.last_index;
    }

    /// Whether the opening of a later segment has the state that the earlier segments led to.
    pub(crate) fn agrees(&self, body: &Body, last_index: u64) -> bool {
        body.hard_state == Some(self.hard_state)
            && body.base.as_ref() == Some(&self.base)
            && body.snapshot == self.snapshot
            && last_index == self.last_index
    }
}
