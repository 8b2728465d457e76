//! A storage in memory.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::entry::{Entry, EntryKind, HardState, LogBase, SnapshotMeta};
use crate::storage::outline::{Held, Outline};
use crate::storage::{
    ReadError, RecoverError, Recovered, SnapshotReadError, SnapshotReader, SnapshotWriteError,
    SnapshotWriter, Storage, TermRun, Write, WriteError,
};

/// A [`Storage`] in memory, for tests and as the model that other storages are compared with. It ends with
/// the process.
///
/// A clone is another handle to the same log, so that a test can start a replica on it again.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    hard_state: HardState,
    base: LogBase,
    entries: Vec<Entry>,
    snapshot: Option<(SnapshotMeta, Bytes)>,
    staged: Vec<(SnapshotMeta, Bytes)>,
}

impl Log {
    /// The position of `index` in `entries`.
    fn place(&self, index: u64) -> Option<usize> {
        let place = usize::try_from(index.checked_sub(self.base.index)?.checked_sub(1)?).ok()?;
        (place < self.entries.len()).then_some(place)
    }

    /// Performs a write that the outline has checked.
    fn perform(&mut self, write: &Write, replaces_log: bool) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(meta) = &write.snapshot {
            if let Some(place) = self.staged(meta) {
                self.snapshot = Some(self.staged.remove(place));
            }
            self.staged.retain(|(staged, _)| staged.index > meta.index);
            if replaces_log {
                self.base = meta.clone().into();
                self.entries.clear();
            }
        }
        if let Some(first) = write.entries.first() {
            if let Some(place) = self.place(first.index) {
                self.entries.truncate(place);
            }
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(base) = write.base.as_ref().filter(|base| base.index >= self.base.index) {
            if let Some(place) = self.place(base.index) {
                self.entries.drain(..=place);
            }
            self.base = base.clone();
        }
    }

    /// The position of the newest staged snapshot of this index and term.
    fn staged(&self, meta: &SnapshotMeta) -> Option<usize> {
        self.staged.iter().rposition(|(staged, _)| (staged.index, staged.term) == (meta.index, meta.term))
    }
}

impl Held for Log {
    fn base(&self) -> &LogBase {
        &self.base
    }

    fn last_index(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            Some(self.base.term)
        } else {
            self.place(index).map(|at| self.entries[at].term)
        }
    }

    fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |(meta, _)| meta.index)
    }

    fn is_staged(&self, meta: &SnapshotMeta) -> Result<bool, WriteError> {
        let adopted = self.snapshot.as_ref().map(|(adopted, _)| (adopted.index, adopted.term));
        Ok(self.staged(meta).is_some() || adopted == Some((meta.index, meta.term)))
    }
}

impl MemoryStorage {
    /// An empty log.
    #[must_use]
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // No code that can panic runs midway through a change, so that a poisoned lock has consistent
        // contents.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        let mut log = self.lock();
        log.staged.clear();
        let mut term_runs: Vec<TermRun> = Vec::new();
        for entry in &log.entries {
            if term_runs.last().is_none_or(|run| run.term != entry.term) {
                term_runs.push(TermRun { first_index: entry.index, term: entry.term });
            }
        }
        let membership_entries = log.entries.iter().filter(|entry| entry.kind == EntryKind::Membership);
        Ok(Recovered {
            hard_state: log.hard_state,
            base: log.base.clone(),
            last_index: log.last_index(),
            term_runs,
            membership_entries: membership_entries.cloned().collect(),
            snapshot: log.snapshot.as_ref().map(|(meta, _)| meta.clone()),
        })
    }

    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        Ok(self.lock().term(index))
    }

    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let log = self.lock();
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        if indexes.start <= log.base.index {
            return Err(ReadError::Compacted { index: indexes.start, base_index: log.base.index });
        }
        let (Some(first), Some(last)) = (log.place(indexes.start), log.place(indexes.end - 1)) else {
            return Err(ReadError::BeyondEnd { index: indexes.end - 1, last_index: log.last_index() });
        };
        let mut len = 0_usize;
        let entries = log.entries[first..=last].iter().take_while(|entry| {
            len = len.saturating_add(entry.payload.len());
            entry.index == indexes.start || len <= len_bytes_max
        });
        Ok(entries.cloned().collect())
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        let mut log = self.lock();
        let mut outline = Outline::new(&*log);
        let replaces_log = batch.iter().map(|write| outline.add(write)).collect::<Result<Vec<bool>, _>>()?;
        for (write, replaces_log) in batch.iter().zip(replaces_log) {
            log.perform(write, replaces_log);
        }
        Ok(())
    }

    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        Ok(Box::new(Staging { log: Arc::clone(&self.log), meta: meta.clone(), bytes: Vec::new() }))
    }

    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        let snapshot = self.lock().snapshot.clone();
        Ok(snapshot.map(|(meta, bytes)| {
            Box::new(MemorySnapshot { meta, bytes: io::Cursor::new(bytes) }) as Box<dyn SnapshotReader>
        }))
    }
}

/// A snapshot being staged in memory.
struct Staging {
    log: Arc<Mutex<Log>>,
    meta: SnapshotMeta,
    bytes: Vec<u8>,
}

impl io::Write for Staging {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.try_reserve(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotWriter for Staging {
    fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn finish(self: Box<Self>) -> Result<(), SnapshotWriteError> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.staged.push((self.meta, self.bytes.into()));
        Ok(())
    }
}

/// A snapshot being read from memory.
struct MemorySnapshot {
    meta: SnapshotMeta,
    bytes: io::Cursor<Bytes>,
}

impl io::Read for MemorySnapshot {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl io::Seek for MemorySnapshot {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        self.bytes.seek(position)
    }
}

impl SnapshotReader for MemorySnapshot {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn len_bytes(&self) -> u64 {
        self.bytes.get_ref().len() as u64
    }
}
