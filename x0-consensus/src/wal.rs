//! A write-ahead log in segment files: see [`Wal`].

pub(crate) mod format;
mod log_state;
mod manifest;
mod names;
mod open;
mod options;
mod origin;
mod read;
mod record;
mod scan;
mod segment;
mod snapshot;
mod spare;
mod verify;

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use options::WalOptions;
pub use verify::WalReport;

use crate::directory::{Directory, DirectoryFile, DirectoryLock, FsDirectory, is_full};
use crate::entry::{Entry, SnapshotMeta};
use crate::storage::outline::Outline;
use crate::storage::{
    ReadError, RecoverError, Recovered, SnapshotReadError, SnapshotReader, SnapshotWriteError,
    SnapshotWriter, Storage, Write, WriteError,
};

use format::{RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use log_state::{HeldIn, Location, LogState};
use manifest::Manifest;
use names::Name;
use origin::Origin;
use record::{Place, encoded_len, put_write};
use segment::{Active, Segment, opening};
use snapshot::{FileSnapshotReader, FileSnapshotWriter};
use spare::Spares;

/// A buffer longer than this is freed after its batch, in bytes.
const BUFFER_LEN_MAX: usize = 4 << 20;

/// A durable [`Storage`] in one folder: a write-ahead log.
///
/// Open it once per folder. A second opening, in this process or another, is refused with
/// [`RecoverError::Locked`] until the first log and its snapshot writers are dropped.
///
/// ```
/// use x0_consensus::{Entry, EntryKind, Storage, Wal, WalOptions, Write};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path();
/// let mut log = Wal::open_path(path, WalOptions::default())?;
/// assert!(log.recover()?.is_new());
/// let entry = Entry { term: 1, index: 1, kind: EntryKind::Normal, payload: "hello".into() };
/// log.write(&[Write { entries: vec![entry.clone()], ..Write::default() }])?; // durable from here on
/// drop(log);
///
/// let mut log = Wal::open_path(path, WalOptions::default())?;
/// assert_eq!(log.recover()?.last_index, 1);
/// assert_eq!(log.read(1..2, usize::MAX)?, [entry]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Writing
/// [`Storage::write`] encodes a batch of [`Write`]s, one record for each, appends it with one system call and
/// makes it durable with one synchronisation. Segment files are filled with zeros before they are used, and
/// used again when the head of the log is removed, so that a synchronisation writes the data and no metadata
/// of the file system. A new segment opens with a record that repeats the hard state, the base and the
/// snapshot, so that older segments can be removed whole.
///
/// The byte format is described in `src/wal/format.rs` and `src/wal/snapshot.rs`.
///
/// # Torn tail or damage
/// After a crash the log may end in a batch of which any part is on the disk. That tail was never
/// acknowledged and is dropped. Invalid bytes anywhere else are damage, and the log does not open: a silent
/// repair would revoke an acknowledgement that this node gave to its group. Recovery distinguishes the two
/// cases by these rules:
///
/// * A segment with a successor was durable to its end before the successor got its name, and the successor
///   records the offset of that end. Every byte up to there must be valid.
/// * The opening of a segment and the length of its file were durable before the segment got its name.
/// * In the last segment every record has the offset up to which the file was known to be durable when the
///   record was written. After an invalid record the rest of the file is searched: a valid record header with
///   an offset beyond the invalid record proves damage. The records of the torn batch cannot prove that,
///   because their offset is the start of the batch.
/// * After each durable batch a *commit marker* is written, a record header whose offset covers the batch. It
///   is not synchronised (that would cost as much as the batch), but it survives the process at once and a
///   power failure after some seconds. So the last batch is covered as well.
///
/// One case remains. Damage to the last batch *and* its commit marker, or to the last batch after a power
/// failure within the seconds before the operating system writes the commit marker, looks like a torn tail.
/// No log that synchronises once per batch can distinguish these (Alagappan et al., "Protocol-Aware Recovery
/// for Consensus-Based Storage", FAST '18); the copy of another member is needed.
///
/// The loss of the whole file of the last segment is detected by the file `manifest`, which has the sequence
/// number of the newest segment. The loss of both files, or of the whole folder, cannot be detected.
///
/// # Copies
/// A folder that was restored from a copy lacks what was acknowledged after the copy was made. The file
/// `origin` has the [`Fingerprint`](crate::Fingerprint)s of the folder and its files, and an *incarnation*,
/// the number of the replica that writes this log. A copy is refused with [`RecoverError::Copied`]; with
/// [`WalOptions::accepts_copy`] it is opened, and [`adopt`](Wal::adopt) makes it the original, usually with a
/// new incarnation. An emptied folder gets a new incarnation. See the docs of [`Replica`](crate::Replica) for
/// the use of incarnations.
///
/// A copy of a whole disk or file system, such as a snapshot of a virtual machine, has the fingerprints of
/// its original and is not detected.
///
/// Recovered records are made durable before they are returned: records without a proof are written again and
/// synchronised, because after a failed synchronisation the operating system may still return bytes that
/// never reached the disk.
///
/// # When the disk is full
/// Segments are created at full length before they are used, so that a full disk is found when the next
/// segment is created, before the first byte of a batch is written: [`WriteError::Full`] changes nothing, and
/// the same write may be repeated. After an error midway any part of the batch may be on the disk: the log is
/// poisoned and must be opened again. Neither acknowledges anything.
///
/// # Bounds
/// On the disk: the segments with entries after the base, the active segment, up to 4 spare files, one
/// snapshot and the staged ones. In memory: 40 bytes for each 16 KiB of log, 16 bytes for each change of the
/// term, and a buffer of the longest recent batch.
pub struct Wal {
    directory: Arc<dyn Directory>,
    options: WalOptions,
    state: LogState,
    /// Oldest first; the active one is the last.
    segments: VecDeque<Segment>,
    active: Active,
    manifest: Manifest,
    origin: Origin,
    spares: Spares,
    /// The batch that is being written.
    buffer: Vec<u8>,
    /// For each write of the batch, whether its snapshot replaces the log.
    replaces_log: Vec<bool>,
    /// The older segment that was read last.
    reader: Option<(u64, Box<dyn DirectoryFile>)>,
    snapshot_writers: u64,
    is_poisoned: bool,
    /// The last field, so that it is dropped after everything that writes to the folder. Snapshot writers
    /// hold it, too.
    lock: Arc<dyn DirectoryLock>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Wal")
            .field("path", &self.directory.path())
            .field("base_index", &self.state.base.index)
            .field("last_index", &self.state.last_index)
            .field("segments", &self.segments.len())
            .field("is_poisoned", &self.is_poisoned)
            .finish_non_exhaustive()
    }
}

fn path_of(directory: &dyn Directory, name: &str) -> String {
    if name.is_empty() { directory.path() } else { format!("{}/{name}", directory.path()) }
}

impl Wal {
    /// Opens the log in this folder of the file system, or creates one.
    ///
    /// # Errors
    /// See [`Wal::open`].
    pub fn open_path(path: impl AsRef<Path>, options: WalOptions) -> Result<Wal, RecoverError> {
        let directory = FsDirectory::open(&path).map_err(|source| RecoverError::Io {
            operation: "open the folder",
            file: path.as_ref().display().to_string(),
            source,
        })?;
        Wal::open(Arc::new(directory), options)
    }

    /// Opens the log in this folder, or creates one. The whole log is read and verified.
    ///
    /// # Errors
    /// Nothing is changed before the whole log is verified. After that only I/O can fail, and opening may be
    /// repeated.
    pub fn open(directory: Arc<dyn Directory>, options: WalOptions) -> Result<Wal, RecoverError> {
        open::open(directory, options)
    }

    /// The number that distinguishes the replica that writes this log from earlier ones of the same id, whose
    /// folders were lost: for [`Options::incarnation`](crate::Options::incarnation). 0 if the folder has
    /// none.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.origin.incarnation()
    }

    /// The part of the folder that is a copy; `None` if the folder is the one that the log was written in. A
    /// log that is a copy is opened only with [`WalOptions::accepts_copy`].
    #[must_use]
    pub fn is_copy(&self) -> Option<&'static str> {
        self.origin.copied()
    }

    /// Makes a copied folder the original, durably, under this incarnation. With the present
    /// [`incarnation`](Wal::incarnation) the caller vouches that the replica has acknowledged nothing that
    /// the copy lacks; with a new random one, its group treats the replica as one that has lost its folder.
    ///
    /// # Errors
    /// [`WriteError::Io`]: the folder counts as a copy under its old incarnation, or is adopted under the new
    /// one.
    pub fn adopt(&mut self, incarnation: u64) -> Result<(), WriteError> {
        let newest = self.active.sequence;
        let adopted = self.origin.adopt(&*self.directory, newest, incarnation);
        adopted.map_err(|source| self.origin_error(source))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a log, made in one place")]
    fn new(
        directory: Arc<dyn Directory>,
        options: WalOptions,
        state: LogState,
        segments: VecDeque<Segment>,
        active: Active,
        manifest: Manifest,
        origin: Origin,
        spares: Spares,
        lock: Box<dyn DirectoryLock>,
    ) -> Wal {
        let mut log = Wal {
            directory,
            options,
            state,
            segments,
            active,
            manifest,
            origin,
            spares,
            buffer: Vec::new(),
            replaces_log: Vec::new(),
            reader: None,
            snapshot_writers: 0,
            is_poisoned: false,
            lock: lock.into(),
        };
        log.drop_head();
        log
    }

    fn segment_path(&self, sequence: u64) -> String {
        path_of(&*self.directory, &names::segment(sequence))
    }

    /// Checks a batch, appends it and makes it durable if required.
    fn try_write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        let len: u64 = batch.iter().filter(|write| !write.is_empty()).map(encoded_len).sum();
        if len > self.options.batch_len_max {
            return Err(WriteError::TooLong { len, len_max: self.options.batch_len_max });
        }
        // Checked as a whole before the first byte is written: a refused batch changes nothing.
        let mut replaces_log = std::mem::take(&mut self.replaces_log);
        replaces_log.clear();
        let held = HeldIn { state: &self.state, directory: &*self.directory };
        let mut outline = Outline::new(&held);
        for write in batch {
            replaces_log.push(outline.add(write)?);
        }
        if len > 0 {
            // A batch is never split over two segments: recovery decides about a torn tail in the last
            // segment only.
            if !self.active.has_room(len) {
                self.rotate(len)?;
            }
            self.append(batch, &replaces_log)?;
        }
        // A removed head cannot be restored, and an adopted snapshot replaces an older one: both are durable
        // before the old files go.
        let moves_head = batch.iter().any(|write| write.snapshot.is_some() || write.base.is_some());
        if moves_head || batch.iter().any(|write| write.must_sync) {
            self.sync()?;
        }
        // Only now: a failure before this point leaves the state in memory as it was.
        self.perform(batch, &replaces_log);
        self.replaces_log = replaces_log;
        if moves_head {
            self.drop_head();
            self.drop_snapshots();
        }
        Ok(())
    }

    fn append(&mut self, batch: &[Write], replaces_log: &[bool]) -> Result<(), WriteError> {
        self.buffer.clear();
        let records = batch.iter().zip(replaces_log).filter(|(write, _)| !write.is_empty());
        for (number, (write, replaces_log)) in (self.active.number..).zip(records) {
            let place = Place {
                sequence: self.active.sequence,
                offset: self.active.end + self.buffer.len() as u64,
                number,
                // The start of the batch, and not of the record: the records before it in this batch are not
                // durable yet.
                synced: self.active.synced,
            };
            put_write(&mut self.buffer, place, write, *replaces_log);
        }
        self.active.file.write_at(self.active.end, &self.buffer).map_err(|source| WriteError::Io {
            operation: "write",
            file: self.segment_path(self.active.sequence),
            source,
        })
    }

    /// Makes the active segment durable, the bytes of the buffer included.
    fn sync(&mut self) -> Result<(), WriteError> {
        let end = self.active.end + self.buffer.len() as u64;
        if self.active.synced < end {
            self.active.file.sync().map_err(|source| WriteError::Io {
                operation: "synchronise",
                file: self.segment_path(self.active.sequence),
                source,
            })?;
            self.active.synced = end;
        }
        Ok(())
    }

    /// Performs the batch in memory, after it is on the disk.
    fn perform(&mut self, batch: &[Write], replaces_log: &[bool]) {
        for (write, replaces_log) in batch.iter().zip(replaces_log).filter(|(write, _)| !write.is_empty()) {
            let at =
                Location { sequence: self.active.sequence, offset: self.active.end, len: encoded_len(write) };
            self.state.perform(write, *replaces_log, at);
            self.active.end += at.len;
            self.active.number += 1;
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_LEN_MAX);
        // Without a synchronisation there is nothing to prove.
        if self.active.synced == self.active.end && self.active.seal().is_err() {
            // The batch is durable and is acknowledged. The next batch reports that the file cannot be
            // written.
            self.is_poisoned = true;
        }
        // From the middle of a segment on there is time to write the next one before it is needed.
        if self.options.spare_in_background && self.active.end > self.active.len / 2 {
            self.spares.prepare(&self.directory, self.options.segment_len);
        }
    }

    /// Continues in a new segment with room for `len` bytes.
    fn rotate(&mut self, len: u64) -> Result<(), WriteError> {
        let sequence = self.active.sequence + 1;
        let file = self.segment_path(sequence);
        let mut header = SegmentHeader {
            sequence,
            file_len: self.options.segment_len,
            previous_end: self.active.end,
            first_number: self.active.number,
        };
        let mut opened = opening(&header, &self.state.restated());
        let needed = (opened.len() + RECORD_HEADER_LEN) as u64 + len;
        // A spare file has the usual length: a longer batch needs a file of its own.
        let spare = if needed <= header.file_len { self.spares.take() } else { None };
        if needed > header.file_len {
            header.file_len = needed.next_multiple_of(4096);
            opened[..SEGMENT_HEADER_LEN].copy_from_slice(&header.encode());
        }
        let failed = |operation, source, is_changed: bool| {
            // Before the file has the name of a segment, a full disk has changed nothing that the log refers
            // to.
            if is_full(&source) && !is_changed {
                WriteError::Full { file: file.clone() }
            } else {
                WriteError::Io { operation, file: file.clone(), source }
            }
        };
        let spare = match spare {
            Some(number) => number,
            None => self
                .spares
                .make(&*self.directory, header.file_len)
                .map_err(|source| failed("create", source, false))?,
        };
        // The existence of the successor proves that this segment is durable, so that this one is
        // synchronised first.
        self.active.sync().map_err(|source| WriteError::Io {
            operation: "synchronise",
            file: self.segment_path(self.active.sequence),
            source,
        })?;
        self.active = Active::create(&*self.directory, spare, &header, &opened)
            .map_err(|error| failed(error.operation, error.source, error.is_named))?;
        self.segments.push_back(Segment { sequence, len: header.file_len });
        // Before the first batch of the segment is acknowledged, and after the segment is durable.
        self.manifest.set(sequence).map_err(|source| WriteError::Io {
            operation: "write",
            file: path_of(&*self.directory, names::MANIFEST),
            source,
        })?;
        self.origin.set(&*self.directory, sequence).map_err(|source| self.origin_error(source))
    }

    fn origin_error(&self, source: std::io::Error) -> WriteError {
        WriteError::Io { operation: "write", file: path_of(&*self.directory, names::ORIGIN), source }
    }

    /// Removes the segments without an entry after the base. A failure only costs space, and the next call
    /// tries again.
    fn drop_head(&mut self) {
        // The segment of the oldest entry, or the active one, and all after it.
        let first_needed = self.state.runs.front().map_or(self.active.sequence, |run| run.sequence);
        let mut recycled = Vec::new();
        let mut is_changed = false;
        while let Some(segment) =
            self.segments.front().copied().filter(|segment| segment.sequence < first_needed)
        {
            let name = names::segment(segment.sequence);
            let is_usual = segment.len == self.options.segment_len;
            let spare = (is_usual && !self.spares.is_full_with(recycled.len())).then(|| self.spares.number());
            let dropped = match spare {
                Some(number) => self.directory.rename(&name, &names::spare(number)),
                None => self.directory.remove(&name),
            };
            // In order: a gap between segments would look like a loss at the next opening.
            if dropped.is_err() {
                break;
            }
            is_changed = true;
            recycled.extend(spare);
            self.segments.pop_front();
            self.reader.take_if(|(sequence, _)| *sequence == segment.sequence);
        }
        // A renamed file is used only once the rename is durable: after a crash it could otherwise have its
        // old name, and new contents.
        if is_changed && self.directory.sync().is_ok() {
            recycled.into_iter().for_each(|number| self.spares.add(number));
        }
    }

    /// Removes the snapshots older than the adopted one. A failure only costs space, and the next call tries
    /// again.
    fn drop_snapshots(&mut self) {
        let Some(adopted) = &self.state.snapshot else { return };
        for name in self.directory.list().unwrap_or_default() {
            if let Name::Snapshot { index, term } = Name::parse(&name)
                // A newer one is being staged.
                && index <= adopted.index
                && (index, term) != (adopted.index, adopted.term)
            {
                let _ = self.directory.remove(&name);
            }
        }
    }
}

impl Storage for Wal {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        let mut membership_entries = Vec::new();
        // Read from the disk: only their indexes are in memory, since they are rare.
        for index in self.state.membership_indexes.clone() {
            let read = self.read(index..index + 1, 0).map_err(|error| match error {
                ReadError::Io { operation, file, source } => RecoverError::Io { operation, file, source },
                ReadError::Corrupt { file, offset, reason } => RecoverError::Corrupt { file, offset, reason },
                // Impossible: the index is in the log.
                ReadError::Compacted { .. } | ReadError::BeyondEnd { .. } => {
                    RecoverError::Missing { file: self.directory.path() }
                }
            })?;
            membership_entries.extend(read);
        }
        Ok(Recovered {
            hard_state: self.state.hard_state,
            base: self.state.base.clone(),
            last_index: self.state.last_index,
            term_runs: self.state.term_runs.as_slice().to_vec(),
            membership_entries,
            snapshot: self.state.snapshot.clone(),
        })
    }

    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        Ok(self.state.term(index))
    }

    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        self.read_entries(indexes, len_bytes_max)
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        if self.is_poisoned {
            return Err(WriteError::Poisoned);
        }
        let written = self.try_write(batch);
        if let Err(error) = &written {
            self.buffer.clear();
            // The bytes after the end are unknown now: a later batch must not follow them, and a failed
            // synchronisation must not be repeated.
            self.is_poisoned = !error.is_unchanged();
        }
        written
    }

    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        self.snapshot_writers += 1;
        let directory = Arc::clone(&self.directory);
        let writer =
            FileSnapshotWriter::create(directory, Arc::clone(&self.lock), meta, self.snapshot_writers)?;
        Ok(Box::new(writer))
    }

    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        let Some(meta) = &self.state.snapshot else { return Ok(None) };
        match FileSnapshotReader::open(&*self.directory, meta)? {
            Some(reader) => Ok(Some(Box::new(reader))),
            None => Err(SnapshotReadError::Io {
                operation: "open",
                file: path_of(&*self.directory, &names::snapshot(meta.index, meta.term)),
                source: std::io::ErrorKind::NotFound.into(),
            }),
        }
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(self.segments.iter().map(|segment| segment.len).sum())
    }
}
