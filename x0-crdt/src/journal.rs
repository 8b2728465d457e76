//! [`Journal`]: a map on the disk of this machine, through crashes.

mod frame;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::vec::Vec;

use crate::map::Joined;
use crate::{
    CausalMap, DeltaError, Frontier, HashKey, JoinError, MapDelta, ReplicaId, RestoreError, Version,
};

/// The kinds of frames, by their first byte.
const WHOLE: u8 = 0;
const DELTA: u8 = 1;
const RANGE: u8 = 2;
const JOINED: u8 = 3;

/// Below this length of the frames after a snapshot no new snapshot is written.
const TAIL_LEN_MIN: u64 = 1 << 20;

/// Why a journal was not opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The system refused an operation on a file. After a failed write it is unknown what is on the disk: the
    /// journal refuses further records until it is opened again.
    #[error("cannot {action} {}: the system refused it", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Another process has the journal open.
    #[error("the journal {} is open in another process: end that process, or use another folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A record before the last one is damaged. Nothing was changed.
    #[error(
        "the journal {} is damaged at byte {offset}: move it away, and fetch the state from a peer as a fresh incarnation",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first byte of the damaged record.
        offset: u64,
    },
    /// The journal was written with another hash key. Nothing was changed.
    #[error("the journal {} was written with another hash key: open it with that one", path.display())]
    HashKey {
        /// The file.
        path: PathBuf,
    },
    /// The snapshot is malformed, although its checksum matches. Nothing was changed.
    #[error("the snapshot of the journal cannot be restored")]
    Restore(#[from] RestoreError),
    /// A delta is malformed, although its checksum matches. Nothing was changed.
    #[error("a delta of the journal cannot be decoded")]
    Delta(#[from] DeltaError),
    /// A delta does not follow the record before it. Nothing was changed.
    #[error("a delta of the journal does not follow the record before it")]
    Order(#[from] JoinError),
    /// A write failed before, so that it is unknown what is on the disk.
    #[error("a write to the journal failed before: open it again, and go on from what it holds")]
    Failed,
}

/// The map and the position that the bytes of a file yield.
pub(crate) struct Replayed {
    pub(crate) map: CausalMap,
    /// The end of the last whole frame.
    offset: usize,
    /// The length of the snapshot.
    whole_len: u64,
    /// Ranges were staged that do not count yet.
    staged: bool,
}

/// Why the bytes of a file yield nothing: see the variants of [`JournalError`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error("the bytes are damaged at byte {offset}")]
    Damaged { offset: u64 },
    #[error("the bytes were written with another hash key")]
    HashKey,
    #[error("the snapshot cannot be restored")]
    Restore(#[from] RestoreError),
    #[error("a delta cannot be decoded")]
    Delta(#[from] DeltaError),
    #[error("a delta does not follow the record before it")]
    Order(#[from] JoinError),
}

impl Replayed {
    pub(crate) fn of(bytes: &[u8], replica: ReplicaId, key: HashKey) -> Result<Self, ReplayError> {
        let damaged = |offset: usize| ReplayError::Damaged { offset: offset as u64 };
        if !frame::has_key(bytes, key) {
            return Err(if bytes.len() < frame::HEAD_LEN { damaged(0) } else { ReplayError::HashKey });
        }
        let mut offset = frame::HEAD_LEN;
        let (mut map, mut whole_len, mut staged) = (None, 0, false);
        while offset < bytes.len() {
            let Some((kind, payload, end)) = frame::read(bytes, offset, key) else {
                // The first frame was durable before the file had its name.
                if map.is_none() || frame::is_followed(bytes, offset, key) {
                    return Err(damaged(offset));
                }
                break;
            };
            match (kind, &mut map) {
                (WHOLE, None) => {
                    map = Some(CausalMap::restore(payload, replica, key)?);
                    whole_len = end as u64;
                }
                (DELTA, Some(map)) => {
                    let delta = MapDelta::decode_trusted(payload, &map.version())?;
                    map.replay(&delta)?;
                }
                (RANGE, Some(map)) => {
                    map.replay_range(payload)?;
                    staged = true;
                }
                (JOINED, Some(map)) => {
                    if !map.replay_ranges() {
                        return Err(damaged(offset));
                    }
                    staged = false;
                }
                _ => return Err(damaged(offset)),
            }
            offset = end;
        }
        let map = map.ok_or_else(|| damaged(offset))?;
        Ok(Self { map, offset, whole_len, staged })
    }
}

/// The bytes of a journal whose frames have these kinds and payloads, with right checksums.
pub(crate) fn framed<'a>(frames: impl IntoIterator<Item = (u8, &'a [u8])>, key: HashKey) -> Vec<u8> {
    let mut bytes = frame::head(key);
    for (kind, payload) in frames {
        let frame = frame::encode(kind, payload, bytes.len() as u64, key);
        bytes.extend_from_slice(&frame);
    }
    bytes
}

/// A [`CausalMap`] in one folder of this machine's disk: a snapshot, and what has changed since.
///
/// [`record`](Self::record) appends what has changed since the last record, and returns when it is durable.
/// When the changes outweigh the snapshot, a new snapshot replaces them. After a crash at any moment
/// [`open`](Self::open) gives the map with all records that `record` has returned from, and of the last one,
/// if the crash interrupted it, all or nothing.
///
/// # Contract with sessions
/// After each write and each `handle`:
/// 1. Take the outputs, and pass each [`SessionOutput::Staged`](crate::SessionOutput::Staged) to
///    [`stage`](Self::stage) and each [`SessionOutput::Joined`](crate::SessionOutput::Joined) to
///    [`joined`](Self::joined), in their order. A long state that arrives by key ranges is then kept over a
///    restart, and written once.
/// 2. Call `record`.
/// 3. Send the datagrams: no event has left this machine that a crash can take back, and the replica goes on
///    under its old ID.
///
/// A caller that calls `record` before 1 loses nothing, but writes such a state twice. A folder that was
/// restored from a backup lacks events that have left the machine: open it with a fresh incarnation.
///
/// # Files
/// `journal-N` holds the frames of generation N, the first of them a snapshot; `journal.lock` keeps other
/// processes away. Each frame has a checksum of its head and one of its bytes, keyed with the [`HashKey`]. An
/// incomplete frame at the end is the record that a crash interrupted; a damaged one before the end is an
/// error.
///
/// ```
/// use x0_crdt::{HashKey, Journal, ReplicaId};
///
/// # let folder = std::env::temp_dir().join(format!("x0-crdt-journal-{}", std::process::id()));
/// let (id, key) = (ReplicaId::new(1), HashKey::new([7; 16]));
/// let (mut journal, mut map) = Journal::open(&folder, id, key)?;
/// map.put(b"door", 10, b"open")?;
/// journal.record(&map)?;                    // durable from here on
/// drop(journal);
///
/// let (_journal, map) = Journal::open(&folder, id, key)?;
/// assert_eq!(map.get(b"door").unwrap().latest().value, b"open");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    key: HashKey,
    /// Locked as long as the journal is open.
    _lock: File,
    file: File,
    generation: u64,
    /// The length of the file.
    len: u64,
    /// The length of its snapshot.
    whole_len: u64,
    /// What the records yield.
    version: Version,
    frontier: Frontier,
    /// The records hold ranges that do not count yet.
    staged: bool,
    failed: bool,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one. The map goes on as `replica`.
    ///
    /// # Errors
    /// A folder that cannot be read or written, or is open elsewhere; a damaged journal, which stays as it
    /// is.
    pub fn open(folder: &Path, replica: ReplicaId, key: HashKey) -> Result<(Self, CausalMap), JournalError> {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let lock_path = folder.join("journal.lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(JournalError::Locked { path: lock_path }),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let generations = generations(folder)?;
        let Some(generation) = generations.last().copied() else {
            return Self::begin(folder, lock, 0, &CausalMap::new(replica, key));
        };
        let (mut journal, map) = Self::read(folder, lock, generation, replica, key)?;
        // A crash has left the generation before.
        for old in generations.into_iter().filter(|old| *old < generation) {
            journal.remove(old)?;
        }
        // Events under another ID are not in the records yet.
        if map.version() == journal.version {
            journal.frontier = map.frontier();
        }
        Ok((journal, map))
    }

    /// Makes what the map holds durable. Returns whether there was something to write.
    ///
    /// # Errors
    /// What was recorded before stays. It is unknown whether this record is on the disk: nothing more is
    /// written until the journal is opened again.
    pub fn record(&mut self, map: &CausalMap) -> Result<bool, JournalError> {
        let frontier = map.frontier();
        if self.failed {
            return Err(JournalError::Failed);
        }
        if frontier == self.frontier {
            return Ok(false);
        }
        let is_long = self.len - self.whole_len > TAIL_LEN_MIN.max(2 * self.whole_len);
        // Two contents of one event change the values and not the version: no delta has them.
        let delta = if is_long || frontier.version == self.frontier.version {
            None
        } else {
            map.delta(&self.version).ok().map(|delta| delta.encode(&self.version))
        };
        match delta {
            Some(delta) => self.append(DELTA, &delta)?,
            None => self.snapshot(map)?,
        }
        (self.version, self.frontier) = (map.version(), frontier);
        Ok(true)
    }

    /// Replaces all records by a snapshot of the map: its members too, which deltas do not hold.
    ///
    /// # Errors
    /// As [`record`](Self::record). The records before stay until the snapshot is durable.
    pub fn snapshot(&mut self, map: &CausalMap) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        self.failed = true;
        let (file, len) = write_generation(&self.folder, self.generation + 1, map, self.key)?;
        let old = self.generation;
        (self.file, self.len, self.whole_len, self.generation) = (file, len, len, old + 1);
        (self.version, self.frontier) = (map.version(), map.frontier());
        self.remove(old)?;
        (self.staged, self.failed) = (false, false);
        Ok(())
    }

    /// Keeps a range that a session has staged, so that a long transfer goes on after a restart.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn stage(&mut self, record: &[u8]) -> Result<(), JournalError> {
        self.append(RANGE, record)?;
        self.staged = true;
        Ok(())
    }

    /// Notes a join that a session has output. Only one of ranges needs it; [`record`](Self::record) has all
    /// others.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn joined(&mut self, joined: &Joined) -> Result<(), JournalError> {
        // Without the ranges the next record holds what they have brought.
        let Some(brought) = joined.ranges.as_ref().filter(|_| self.staged) else { return Ok(()) };
        if brought.is_within(&self.version) {
            // `record` was called between the join and its output, and has written all of it.
            self.staged = false;
            return Ok(());
        }
        self.append(JOINED, &[])?;
        self.staged = false;
        self.version.join(brought);
        // Of no map, so that a record of what was written meanwhile follows.
        self.frontier = Frontier { version: 0, content: 0 };
        Ok(())
    }

    fn begin(
        folder: &Path,
        lock: File,
        generation: u64,
        map: &CausalMap,
    ) -> Result<(Self, CausalMap), JournalError> {
        let key = map.hash_key();
        let (file, len) = write_generation(folder, generation, map, key)?;
        let journal = Self {
            folder: folder.to_path_buf(),
            key,
            _lock: lock,
            file,
            generation,
            len,
            whole_len: len,
            version: map.version(),
            frontier: map.frontier(),
            staged: false,
            failed: false,
        };
        Ok((journal, map.clone()))
    }

    fn read(
        folder: &Path,
        lock: File,
        generation: u64,
        replica: ReplicaId,
        key: HashKey,
    ) -> Result<(Self, CausalMap), JournalError> {
        let path = path_of(folder, generation);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let mut file = file.map_err(failed("open", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read", &path))?;
        let found = Replayed::of(&bytes, replica, key).map_err(|error| match error {
            ReplayError::Damaged { offset } => JournalError::Damaged { path: path.clone(), offset },
            ReplayError::HashKey => JournalError::HashKey { path: path.clone() },
            ReplayError::Restore(error) => error.into(),
            ReplayError::Delta(error) => error.into(),
            ReplayError::Order(error) => error.into(),
        })?;
        let Replayed { map, offset, whole_len, staged } = found;
        if offset < bytes.len() {
            // The record that a crash has interrupted: nothing was made of it.
            file.set_len(offset as u64).map_err(failed("truncate", &path))?;
            file.sync_all().map_err(failed("sync", &path))?;
        }
        file.seek(SeekFrom::Start(offset as u64)).map_err(failed("seek in", &path))?;
        let journal = Self {
            folder: folder.to_path_buf(),
            key,
            _lock: lock,
            file,
            generation,
            len: offset as u64,
            whole_len,
            version: map.version(),
            frontier: map.frontier(),
            staged,
            failed: false,
        };
        Ok((journal, map))
    }

    fn append(&mut self, kind: u8, payload: &[u8]) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        // Until the end: what a failed write has left is unknown.
        self.failed = true;
        let path = path_of(&self.folder, self.generation);
        let frame = frame::encode(kind, payload, self.len, self.key);
        self.file.write_all(&frame).map_err(failed("write", &path))?;
        self.file.sync_data().map_err(failed("sync", &path))?;
        self.len += frame.len() as u64;
        self.failed = false;
        Ok(())
    }

    fn remove(&mut self, generation: u64) -> Result<(), JournalError> {
        let path = path_of(&self.folder, generation);
        fs::remove_file(&path).map_err(failed("remove", &path))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_path_buf();
    move |source| JournalError::Io { action, path, source }
}

fn path_of(folder: &Path, generation: u64) -> PathBuf {
    folder.join(std::format!("journal-{generation}"))
}

/// The generations in a folder, ascending.
fn generations(folder: &Path) -> Result<Vec<u64>, JournalError> {
    let mut generations = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let name = entry.map_err(failed("read", folder))?.file_name();
        let number: Option<u64> = name.to_str().and_then(|name| name.strip_prefix("journal-")?.parse().ok());
        generations.extend(number);
    }
    generations.sort_unstable();
    Ok(generations)
}

/// Writes a snapshot as the first frame of a generation. The file has its name when it is whole and durable.
fn write_generation(
    folder: &Path,
    generation: u64,
    map: &CausalMap,
    key: HashKey,
) -> Result<(File, u64), JournalError> {
    let path = path_of(folder, generation);
    let new = folder.join("journal.new");
    let mut bytes = frame::head(key);
    let whole = frame::encode(WHOLE, &map.save(), bytes.len() as u64, key);
    bytes.extend_from_slice(&whole);
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&new);
    let mut file = file.map_err(failed("create", &new))?;
    file.write_all(&bytes).map_err(failed("write", &new))?;
    file.sync_all().map_err(failed("sync", &new))?;
    fs::rename(&new, &path).map_err(failed("rename", &new))?;
    // The name is durable with its folder.
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))?;
    Ok((file, bytes.len() as u64))
}
