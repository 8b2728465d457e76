//! Opening a log: replay, the decision between a torn tail and damage, and the removal of files that an
//! interrupted run left.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::directory::{Directory, DirectoryFile, DirectoryLock};
use crate::entry::SnapshotMeta;
use crate::storage::{RecoverError, SnapshotReadError};

use super::format::{
    NUMBER_MAX, RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader, SegmentHeaderError, VERSION,
};
use super::log_state::{Location, LogState};
use super::manifest::Manifest;
use super::names::{self, Name};
use super::options::WalOptions;
use super::origin::Origin;
use super::record::Body;
use super::scan::{Found, Window, end_of_content, is_synced_beyond, record_at};
use super::segment::{Active, Segment, opening};
use super::snapshot::FileSnapshotReader;
use super::spare::{SPARES_MAX, Spares};
use super::{Wal, path_of};

/// The files of the folder, by name.
#[derive(Default)]
struct Files {
    segments: Vec<u64>,
    snapshots: Vec<(u64, u64)>,
    spares: Vec<u64>,
    partial: Vec<String>,
}

/// The result of the replay of a segment.
struct Walked {
    /// The offset of the end of its records.
    end: u64,
    /// The number of the next record.
    number: u64,
    /// The offset up to which its own records prove it durable.
    proven: u64,
    is_sealed: bool,
}

struct Opening<'a> {
    directory: &'a dyn Directory,
    state: LogState,
}

impl Files {
    fn list(directory: &dyn Directory) -> io::Result<Files> {
        let mut files = Files::default();
        for name in directory.list()? {
            match Name::parse(&name) {
                Name::Segment(sequence) => files.segments.push(sequence),
                Name::Snapshot { index, term } => files.snapshots.push((index, term)),
                Name::Spare(number) => files.spares.push(number),
                Name::Partial => files.partial.push(name),
                Name::Other => {}
            }
        }
        // A folder has no order.
        files.segments.sort_unstable();
        files.spares.sort_unstable();
        Ok(files)
    }

    /// The number of the oldest segments that are not connected to the rest: an interrupted removal left
    /// them.
    fn detached(&self) -> usize {
        let apart = self.segments.windows(2).rposition(|pair| pair[0].checked_add(1) != Some(pair[1]));
        apart.map_or(0, |at| at + 1)
    }
}

impl Opening<'_> {
    fn io(&self, operation: &'static str, name: &str, source: io::Error) -> RecoverError {
        RecoverError::Io { operation, file: path_of(self.directory, name), source }
    }

    fn corrupt(&self, sequence: u64, offset: u64, reason: &'static str) -> RecoverError {
        RecoverError::Corrupt { file: path_of(self.directory, &names::segment(sequence)), offset, reason }
    }

    fn open_segment(&self, sequence: u64) -> Result<Box<dyn DirectoryFile>, RecoverError> {
        let name = names::segment(sequence);
        self.directory.open(&name).map_err(|error| self.io("open", &name, error))
    }

    fn header(&self, sequence: u64) -> Result<SegmentHeader, RecoverError> {
        let name = names::segment(sequence);
        let file = self.open_segment(sequence)?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        let filled = file.read_at(0, &mut bytes).map_err(|error| self.io("read", &name, error))?;
        let header = match SegmentHeader::decode(&bytes[..filled]) {
            Ok(header) => header,
            Err(SegmentHeaderError::Version(version)) => {
                let file = path_of(self.directory, &name);
                return Err(RecoverError::UnsupportedVersion { file, version, version_max: VERSION });
            }
            Err(SegmentHeaderError::Damaged) => {
                return Err(self.corrupt(sequence, 0, "no valid segment header"));
            }
        };
        // The header has its own sequence: a file that was renamed or copied over another one is damage.
        let is_plausible = sequence <= NUMBER_MAX && (1..=NUMBER_MAX).contains(&header.first_number);
        if header.sequence != sequence || !is_plausible {
            return Err(self.corrupt(sequence, 0, "the header of another segment"));
        }
        let len = file.len_bytes().map_err(|error| self.io("measure", &name, error))?;
        if len < header.file_len {
            return Err(self.corrupt(sequence, len, "the file was cut short"));
        }
        Ok(header)
    }

    /// Replays a segment. `end` is the offset of the end of its records, as recorded by the next segment;
    /// `None` for the last segment.
    fn walk(
        &mut self,
        header: &SegmentHeader,
        end: Option<u64>,
        is_first: bool,
    ) -> Result<Walked, RecoverError> {
        let sequence = header.sequence;
        let name = names::segment(sequence);
        let file = self.open_segment(sequence)?;
        let mut window = Window::new(&*file).map_err(|error| self.io("measure", &name, error))?;
        let opening_at = SEGMENT_HEADER_LEN as u64;
        let mut walked =
            Walked { end: opening_at, number: header.first_number, proven: opening_at, is_sealed: false };
        while end != Some(walked.end) {
            let at = walked.end;
            let found =
                record_at(&mut window, sequence, at).map_err(|error| self.io("read", &name, error))?;
            let (record, bytes) = match found {
                Found::Record { header, body } => (header, body),
                // The opening of a segment, and every record of a segment with a successor, was durable
                // before the segment or its successor got its name: invalid bytes there are damage.
                Found::Nothing(reason) if end.is_some() || at == opening_at => {
                    return Err(self.corrupt(sequence, at, reason));
                }
                Found::Nothing(reason) => {
                    // A torn tail, unless a later record proves that this place was durable.
                    let is_damaged = is_synced_beyond(&mut window, sequence, at);
                    if is_damaged.map_err(|error| self.io("read", &name, error))? {
                        return Err(self.corrupt(sequence, at, reason));
                    }
                    break;
                }
            };
            // Record numbers have no gap over the whole log, and no record can prove bytes after itself.
            if record.number != walked.number || record.synced > at {
                return Err(self.corrupt(sequence, at, "a record is out of order"));
            }
            walked.proven = walked.proven.max(record.synced);
            if record.is_seal() {
                if end.is_some() || at == opening_at {
                    return Err(self.corrupt(sequence, at, "a commit marker between records"));
                }
                walked.is_sealed = true;
                break;
            }
            let len = RECORD_HEADER_LEN as u64 + bytes.len() as u64;
            let Some(body) = Body::decode(record.parts, bytes) else {
                return Err(self.corrupt(sequence, at, "a record that cannot be read"));
            };
            let performed = match (body.last_index, at == opening_at) {
                // The segments before the oldest one are removed: its opening is the only source of their
                // state.
                (Some(last_index), true) if is_first => {
                    self.state.begin(&body, last_index);
                    Ok(())
                }
                // For later segments it is a check: replay has led to this state, or a record is missing.
                (Some(last_index), true) if self.state.agrees(&body, last_index) => Ok(()),
                (None, false) => self.state.replay(&body, bytes, Location { sequence, offset: at, len }),
                _ => Err("a segment that does not continue the one before"),
            };
            performed.map_err(|reason| self.corrupt(sequence, at, reason))?;
            walked.end += len;
            walked.number = walked.number.saturating_add(1);
            if at == opening_at {
                walked.proven = walked.end;
            }
        }
        Ok(walked)
    }

    fn snapshot(&self, meta: &SnapshotMeta) -> Result<(), RecoverError> {
        match FileSnapshotReader::open(self.directory, meta) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(RecoverError::Missing {
                file: path_of(self.directory, &names::snapshot(meta.index, meta.term)),
            }),
            Err(SnapshotReadError::Corrupt { file, offset, reason }) => {
                Err(RecoverError::Corrupt { file, offset, reason })
            }
            Err(SnapshotReadError::Io { operation, file, source }) => {
                Err(RecoverError::Io { operation, file, source })
            }
        }
    }

    /// Removes the files that an interrupted run left; the log refers to none of them.
    fn clear(&self, files: &Files, segments_detached: &[u64]) -> io::Result<()> {
        // A staged snapshot that no record adopts belongs to a transfer that ended with the process.
        let adopted = self.state.snapshot.as_ref().map(|meta| (meta.index, meta.term));
        let leftover = files.snapshots.iter().filter(|position| Some(**position) != adopted);
        let names = segments_detached
            .iter()
            .map(|sequence| names::segment(*sequence))
            .chain(leftover.map(|(index, term)| names::snapshot(*index, *term)))
            .chain(files.partial.iter().cloned());
        for name in names {
            self.directory.remove(&name)?;
        }
        Ok(())
    }

    /// Collects the spare files that can be used, and removes the others.
    fn spares(&self, numbers: &[u64], segment_len: u64) -> io::Result<Spares> {
        let mut spares = Spares::default();
        for (at, number) in numbers.iter().enumerate() {
            let name = names::spare(*number);
            // Another length: the options have changed since.
            let is_usable = at < SPARES_MAX && self.directory.open(&name)?.len_bytes()? == segment_len;
            if is_usable {
                spares.add(*number);
            } else {
                self.directory.remove(&name)?;
            }
        }
        Ok(spares)
    }

    /// Prepares the tail for further records: the recovered records are durable, and only zeros follow them.
    fn settle_tail(&self, file: &mut dyn DirectoryFile, walked: &Walked) -> io::Result<()> {
        let (behind, is_changed) = {
            let mut window = Window::new(file)?;
            let seal_len = if walked.is_sealed { RECORD_HEADER_LEN as u64 } else { 0 };
            let behind = walked.end + seal_len;
            (behind..end_of_content(&mut window, behind)?, walked.proven < walked.end)
        };
        // Records without a proof of durability may come from the page cache after a synchronisation that
        // failed. Linux marks such pages clean, so that a further synchronisation returns `Ok` and does
        // nothing (Rebello et al., "Can Applications Recover from fsync Failures?", ATC '20). Only bytes that
        // are written again are synchronised.
        copy_in_place(file, walked.proven, walked.end)?;
        // The bytes of a torn batch are erased: a later, shorter batch must not be followed by a record of
        // the torn one that validates.
        let zeros = [0; 4096];
        let mut at = behind.start;
        while at < behind.end {
            let len = usize::try_from(behind.end - at).unwrap_or(usize::MAX).min(zeros.len());
            file.write_at(at, &zeros[..len])?;
            at += len as u64;
        }
        if is_changed || !behind.is_empty() { file.sync() } else { Ok(()) }
    }
}

fn copy_in_place(file: &mut dyn DirectoryFile, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let filled = file.read_at(at, &mut buffer[..len])?;
        if filled == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(at, &buffer[..filled])?;
        at += filled as u64;
    }
    Ok(())
}

/// Locks the folder of a log.
pub(super) fn lock(directory: &dyn Directory) -> Result<Box<dyn DirectoryLock>, RecoverError> {
    directory.lock(names::LOCK).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => RecoverError::Locked { path: directory.path() },
        _ => RecoverError::Io { operation: "lock", file: path_of(directory, names::LOCK), source },
    })
}

/// A log that was read and verified as a whole. Nothing was changed.
pub(super) struct Replayed<'a> {
    opening: Opening<'a>,
    files: Files,
    /// The oldest segments that are not connected to the rest.
    detached: Vec<u64>,
    headers: Vec<SegmentHeader>,
    last: Option<(SegmentHeader, Walked)>,
    manifest: Option<(Manifest, u64)>,
}

impl Replayed<'_> {
    pub(super) fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.opening.state.snapshot.as_ref()
    }

    pub(super) fn segment_count(&self) -> u64 {
        self.headers.len() as u64
    }

    /// The indexes of the base and of the last entry.
    pub(super) fn indexes(&self) -> (u64, u64) {
        (self.opening.state.base.index, self.opening.state.last_index)
    }
}

/// Reads and verifies the log in this folder. Calls `progress` with the length of each segment.
pub(super) fn replay<'a>(
    directory: &'a dyn Directory,
    progress: &mut dyn FnMut(u64),
) -> Result<Replayed<'a>, RecoverError> {
    let mut opening = Opening { directory, state: LogState::default() };
    let files = Files::list(directory).map_err(|error| opening.io("list", "", error))?;
    let (detached, connected) = files.segments.split_at(files.detached());
    let headers =
        connected.iter().map(|sequence| opening.header(*sequence)).collect::<Result<Vec<_>, _>>()?;
    let mut last: Option<(SegmentHeader, Walked)> = None;
    for (at, header) in headers.iter().enumerate() {
        let end = headers.get(at + 1).map(|next| next.previous_end);
        let walked = opening.walk(header, end, at == 0)?;
        if headers.get(at + 1).is_some_and(|next| next.first_number != walked.number) {
            let sequence = header.sequence + 1;
            return Err(opening.corrupt(sequence, 0, "a segment that does not continue the one before"));
        }
        progress(header.file_len);
        last = Some((*header, walked));
    }
    // Entries of removed segments must be before the base: otherwise a segment is missing.
    let is_head_missing = opening.state.removed_through > opening.state.base.index;
    let found = Manifest::open(directory).map_err(|error| opening.io("read", names::MANIFEST, error))?;
    let newest = headers.last().map_or(0, |header| header.sequence);
    let recorded = found.as_ref().map_or(0, |(_, recorded)| *recorded);
    let missing = match headers.first() {
        Some(first) if is_head_missing => Some(first.sequence.saturating_sub(1)),
        None if !files.snapshots.is_empty() => Some(1),
        // The segment was durable before the manifest recorded it, and the newest segment is never removed.
        _ if recorded > newest => Some(recorded),
        _ => None,
    };
    if let Some(sequence) = missing {
        return Err(RecoverError::Missing { file: path_of(directory, &names::segment(sequence)) });
    }
    if let Some(meta) = &opening.state.snapshot {
        opening.snapshot(meta)?;
    }
    let detached = detached.to_vec();
    Ok(Replayed { opening, files, detached, headers, last, manifest: found })
}

/// Opens the log in this folder, or creates one.
pub(crate) fn open(directory: Arc<dyn Directory>, options: WalOptions) -> Result<Wal, RecoverError> {
    if let Some(reason) = options.violation() {
        return Err(RecoverError::Options { reason });
    }
    let lock = lock(&*directory)?;
    let Replayed { mut opening, files, detached, headers, last, manifest: found } =
        replay(&*directory, &mut |_| {})?;
    opening.state.removed_through = 0;
    let newest = headers.last().map_or(0, |header| header.sequence);
    let origin =
        Origin::open(&*directory, newest).map_err(|error| opening.io("read", names::ORIGIN, error))?;
    if let Some(part) = origin.as_ref().and_then(Origin::copied).filter(|_| !options.accepts_copy) {
        return Err(RecoverError::Copied { path: directory.path(), part });
    }

    // Names first: a file must not be written under a new name while a crash can bring its old name back.
    // Then the records: files that they make obsolete are removed only once the records are durable.
    directory.sync().map_err(|error| opening.io("synchronise", "", error))?;
    let settled = match last {
        Some((header, walked)) => {
            let name = names::segment(header.sequence);
            let mut file = opening.open_segment(header.sequence)?;
            opening
                .settle_tail(&mut *file, &walked)
                .map_err(|error| opening.io("settle the end of", &name, error))?;
            let mut active = Active {
                sequence: header.sequence,
                len: header.file_len,
                file,
                end: walked.end,
                synced: walked.end,
                number: walked.number,
            };
            if !walked.is_sealed && active.has_room(0) {
                active.seal().map_err(|error| opening.io("write", &name, error))?;
            }
            Some(active)
        }
        None => None,
    };
    opening.clear(&files, &detached).map_err(|error| opening.io("clear", "", error))?;
    let mut spares =
        opening.spares(&files.spares, options.segment_len).map_err(|error| opening.io("clear", "", error))?;
    let active = match settled {
        Some(active) => active,
        None => begin(&opening, options, &mut spares)?,
    };
    let manifest = match found {
        // A crash after the creation of the newest segment leaves the manifest one behind. And where it is
        // not, its number may come from the page cache after a synchronisation that failed: only bytes that
        // are written again are synchronised (see `settle_tail`).
        Some((mut manifest, _)) => manifest.set(active.sequence).map(|()| manifest),
        None => Manifest::create(&*directory, active.sequence),
    };
    let manifest = manifest.map_err(|error| opening.io("write", names::MANIFEST, error))?;
    let newest = active.sequence;
    let origin = match origin {
        // A log of a caller that used no incarnations before.
        Some(mut origin)
            if origin.incarnation() == 0 && options.incarnation != 0 && origin.copied().is_none() =>
        {
            origin.adopt(&*directory, newest, options.incarnation).map(|()| origin)
        }
        // A crash after the creation of the newest segment.
        Some(mut origin) if origin.sequence() != newest => origin.set(&*directory, newest).map(|()| origin),
        Some(origin) => Ok(origin),
        None => Origin::create(&*directory, newest, options.incarnation),
    };
    let origin = origin.map_err(|error| opening.io("write", names::ORIGIN, error))?;
    let mut segments: VecDeque<Segment> =
        headers.iter().map(|header| Segment { sequence: header.sequence, len: header.file_len }).collect();
    if segments.is_empty() {
        segments.push_back(Segment { sequence: active.sequence, len: active.len });
    }
    let state = opening.state;
    Ok(Wal::new(directory, options, state, segments, active, manifest, origin, spares, lock))
}

/// Creates the first segment of a new log.
fn begin(opening: &Opening<'_>, options: WalOptions, spares: &mut Spares) -> Result<Active, RecoverError> {
    let header =
        SegmentHeader { sequence: 1, file_len: options.segment_len, previous_end: 0, first_number: 1 };
    let name = names::segment(header.sequence);
    let spare = match spares.take() {
        Some(number) => number,
        None => spares
            .make(opening.directory, options.segment_len)
            .map_err(|error| opening.io("create", &name, error))?,
    };
    Active::create(opening.directory, spare, &header, &self::opening(&header, &opening.state.restated()))
        .map_err(|error| opening.io(error.operation, &name, error.source))
}
