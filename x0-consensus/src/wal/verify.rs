//! Verification of a log that is closed: everything is read, and nothing is changed.

use std::fmt;
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::directory::{Directory, DirectoryLock, FsDirectory};
use crate::storage::{RecoverError, SnapshotReadError, SnapshotReader};

use super::names;
use super::open::{lock, replay};
use super::snapshot::FileSnapshotReader;
use super::{Wal, path_of};

/// The result of a verification without an error. The log is locked until it is dropped, so that nothing
/// opens the folder while its other files are verified.
#[non_exhaustive]
pub struct WalReport {
    /// Segment files.
    pub segments: u64,
    /// Bytes of segment files and of the snapshot.
    pub bytes: u64,
    /// The index before the first entry.
    pub base_index: u64,
    /// The index of the last entry.
    pub last_index: u64,
    /// The adopted snapshot, at its beginning, for a state machine to verify. Its blocks are verified.
    pub snapshot: Option<Box<dyn SnapshotReader>>,
    _lock: Box<dyn DirectoryLock>,
}

impl fmt::Debug for WalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WalReport { segments, bytes, base_index, last_index, .. } = self;
        f.debug_struct("WalReport")
            .field("segments", segments)
            .field("bytes", bytes)
            .field("base_index", base_index)
            .field("last_index", last_index)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Verifies the log in this folder: every record, the manifest, and every block of the snapshot. The log
    /// must be closed. Nothing is changed, except that a file for the lock is created if there is none. Calls
    /// `progress` with the bytes that were read since the last call. The log stays locked until the report is
    /// dropped.
    ///
    /// ```
    /// use x0_consensus::{Wal, WalOptions};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path();
    /// drop(Wal::open_path(path, WalOptions::default())?);
    /// let report = Wal::verify_path(path, |_bytes| {})?;
    /// assert_eq!((report.segments, report.last_index), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those with which opening would fail, with file and offset, and damage of a block of the snapshot.
    pub fn verify_path(path: impl AsRef<Path>, progress: impl FnMut(u64)) -> Result<WalReport, RecoverError> {
        let directory = FsDirectory::open(&path).map_err(|source| RecoverError::Io {
            operation: "open the folder",
            file: path.as_ref().display().to_string(),
            source,
        })?;
        Wal::verify(&directory, progress)
    }

    /// As [`verify_path`](Wal::verify_path), in a folder of the caller.
    ///
    /// # Errors
    /// As [`verify_path`](Wal::verify_path).
    pub fn verify(
        directory: &dyn Directory,
        mut progress: impl FnMut(u64),
    ) -> Result<WalReport, RecoverError> {
        let lock = lock(directory)?;
        let mut bytes = 0;
        let mut count = |len| {
            bytes += len;
            progress(len);
        };
        let replayed = replay(directory, &mut count)?;
        let mut snapshot = None;
        if let Some(meta) = replayed.snapshot() {
            let name = names::snapshot(meta.index, meta.term);
            let failed = |error| snapshot_error(path_of(directory, &name), error);
            let mut reader = FileSnapshotReader::open(directory, meta).map_err(corrupt)?;
            if let Some(reader) = &mut reader {
                let mut piece = vec![0; 1 << 16];
                loop {
                    match reader.read(&mut piece).map_err(failed)? {
                        0 => break,
                        len => count(len as u64),
                    }
                }
                reader.rewind().map_err(failed)?;
            }
            snapshot = reader.map(|reader| Box::new(reader) as Box<dyn SnapshotReader>);
        }
        let (base_index, last_index) = replayed.indexes();
        let segments = replayed.segment_count();
        Ok(WalReport { segments, bytes, base_index, last_index, snapshot, _lock: lock })
    }
}

/// The typed cause inside the error of a reader.
fn snapshot_error(file: String, error: io::Error) -> RecoverError {
    match error.downcast::<SnapshotReadError>() {
        Ok(cause) => corrupt(cause),
        Err(source) => RecoverError::Io { operation: "read", file, source },
    }
}

fn corrupt(error: SnapshotReadError) -> RecoverError {
    match error {
        SnapshotReadError::Corrupt { file, offset, reason } => RecoverError::Corrupt { file, offset, reason },
        SnapshotReadError::Io { operation, file, source } => RecoverError::Io { operation, file, source },
    }
}
