//! Reading entries from the segments.

use std::ops::Range;

use bytes::Bytes;
use crc32c::crc32c_append;

use crate::directory::DirectoryFile;
use crate::entry::Entry;
use crate::storage::ReadError;

use super::format::{RECORD_HEADER_LEN, RecordHeader, seed};
use super::log_state::Run;
use super::record::{Body, EntryAt};
use super::{Wal, names};

impl Wal {
    pub(super) fn read_entries(
        &mut self,
        indexes: Range<u64>,
        len_bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let (base_index, last_index) = (self.state.base.index, self.state.last_index);
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        if indexes.start <= base_index {
            return Err(ReadError::Compacted { index: indexes.start, base_index });
        }
        if indexes.end - 1 > last_index {
            return Err(ReadError::BeyondEnd { index: indexes.end - 1, last_index });
        }
        let mut entries = Vec::new();
        let mut len = 0_usize;
        let mut index = indexes.start;
        while index < indexes.end {
            let Some(run) = self.state.run(index) else {
                return Err(self.damaged(self.active.sequence, 0, "the index has a gap"));
            };
            let end = indexes.end.min(run.end_index);
            let bytes = self.run_bytes(run)?;
            let mut taken = self.entries_of(run, &bytes, index..end)?;
            let within = taken.iter().take_while(|entry| {
                len = len.saturating_add(entry.payload.len());
                // The first entry always, however long: otherwise replication of a long entry never moves on.
                entry.index == indexes.start || len <= len_bytes_max
            });
            let within = within.count();
            let is_enough = within < taken.len();
            taken.truncate(within);
            hand_out(bytes, taken, &mut entries);
            if is_enough {
                break;
            }
            index = end;
        }
        Ok(entries)
    }

    fn damaged(&self, sequence: u64, offset: u64, reason: &'static str) -> ReadError {
        ReadError::Corrupt { file: self.segment_path(sequence), offset, reason }
    }

    fn run_bytes(&mut self, run: Run) -> Result<Vec<u8>, ReadError> {
        let path = self.segment_path(run.sequence);
        let failed = |operation, source| ReadError::Io { operation, file: path.clone(), source };
        let file: &dyn DirectoryFile = if run.sequence == self.active.sequence {
            &*self.active.file
        } else {
            if self.reader.as_ref().is_none_or(|(sequence, _)| *sequence != run.sequence) {
                let opened = self.directory.open(&names::segment(run.sequence));
                self.reader = Some((run.sequence, opened.map_err(|error| failed("open", error))?));
            }
            match &self.reader {
                Some((_, file)) => &**file,
                None => &*self.active.file,
            }
        };
        // Bounded: a run is as long as a record that was written or verified here, that is, at most a batch.
        let mut bytes = vec![0; usize::try_from(run.len).unwrap_or(usize::MAX)];
        let filled = file.read_at(run.offset, &mut bytes).map_err(|error| failed("read", error))?;
        // Segments have their full length from the start: a short read is no end of a log, but damage.
        if filled < bytes.len() {
            return Err(self.damaged(run.sequence, run.offset + filled as u64, "the file was cut short"));
        }
        Ok(bytes)
    }

    /// Locates the entries of these indexes in the bytes of a run, and verifies each record.
    fn entries_of(&self, run: Run, bytes: &[u8], indexes: Range<u64>) -> Result<Vec<EntryAt>, ReadError> {
        let mut entries = Vec::new();
        let mut at = 0;
        let mut next = indexes.start;
        while at < bytes.len() && next < indexes.end {
            let offset = run.offset + at as u64;
            let seed = seed(run.sequence, offset);
            let damaged = |reason| self.damaged(run.sequence, offset, reason);
            let header =
                RecordHeader::decode(&bytes[at..], seed).ok_or_else(|| damaged("no valid record header"))?;
            let start = at + RECORD_HEADER_LEN;
            let body = bytes.get(start..start + header.body_len as usize);
            let body = body.ok_or_else(|| damaged("the length of a record is wrong"))?;
            // Verified on every read and not only at the start: a disk may damage bytes at any time.
            if crc32c_append(seed, body) != header.body_crc {
                return Err(damaged("a record's checksum is wrong"));
            }
            let decoded =
                Body::decode(header.parts, body).ok_or_else(|| damaged("a record that cannot be read"))?;
            if let Some(held) = decoded.entries {
                for entry in held.iter(body).filter(|entry| indexes.contains(&entry.index)) {
                    // A run without replaced entries has each index once and in order; an index that comes
                    // twice would hand out a replaced entry.
                    if entry.index != next {
                        return Err(damaged("a record has the wrong entries"));
                    }
                    next += 1;
                    let payload = start + entry.payload.start..start + entry.payload.end;
                    entries.push(EntryAt { payload, ..entry });
                }
            }
            at = start + body.len();
        }
        if next < indexes.end {
            Err(self.damaged(run.sequence, run.offset, "entries are missing"))
        } else {
            Ok(entries)
        }
    }
}

/// Turns locations into entries. The entries share the bytes of the run, unless that would keep alive more
/// than twice their size.
fn hand_out(bytes: Vec<u8>, places: Vec<EntryAt>, entries: &mut Vec<Entry>) {
    let wanted: usize = places.iter().map(|entry| entry.payload.len()).sum();
    let is_shared = wanted >= bytes.len() / 2;
    let bytes = Bytes::from(bytes);
    entries.extend(places.into_iter().map(|EntryAt { index, term, kind, payload }| {
        let payload = if is_shared { bytes.slice(payload) } else { Bytes::copy_from_slice(&bytes[payload]) };
        Entry { term, index, kind, payload }
    }));
}
