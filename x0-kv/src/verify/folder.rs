//! Verification of a whole data folder: log, snapshot, redb file, journal of the CRDT store, and blobs.

use std::error::Error;
use std::path::{Path, PathBuf};

use x0_consensus::{RecoverError, SnapshotReader, Wal, WalReport};

use super::{VerifyError, verify_data};
use crate::blob;
use crate::state::snapshot;

/// A part of a data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FolderPart {
    /// The replicated log: `log`.
    Log,
    /// The snapshot beside the log, in its folder.
    Snapshot,
    /// The file of the redb engine: `data.redb`.
    Data,
    /// The journal of the CRDT store: `crdt`.
    Journal,
    /// Blobs: `blobs`.
    Blobs,
}

impl FolderPart {
    /// The name of the part, such as `log`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FolderPart::Log => "log",
            FolderPart::Snapshot => "snapshot",
            FolderPart::Data => "data",
            FolderPart::Journal => "journal",
            FolderPart::Blobs => "blobs",
        }
    }
}

/// How far the verification of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderProgress {
    /// The part that is being read.
    pub part: FolderPart,
    /// Bytes of it read so far. For the redb file these are bytes of keys and values.
    pub bytes: u64,
    /// Bytes of the files of the part.
    pub bytes_total: u64,
}

/// A part that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartReport {
    /// The part.
    pub part: FolderPart,
    /// The file or folder of the part.
    pub path: PathBuf,
    /// Log entries, entries of keyspaces, or blobs.
    pub entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The damage that was found, each with its file and the key, offset or chunk concerned.
    pub damage: Vec<String>,
}

/// The result of the verification of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FolderReport {
    /// The parts that the folder has.
    pub parts: Vec<PartReport>,
}

impl FolderReport {
    /// Whether no part is damaged.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.parts.iter().all(|part| part.damage.is_empty())
    }
}

/// Verifies all files of the store or node in `folder`, which must be stopped. Damage of one part does not
/// end the verification of the others. Calls `progress` now and then.
///
/// Nothing that was written is changed. Opening the redb file after a crash repairs its allocation tables, as
/// the next start would.
///
/// # Errors
/// [`VerifyError::NothingToVerify`] if the folder has none of the parts, and [`VerifyError::InUse`] if a node
/// or store has it open.
pub fn verify_folder(
    folder: impl AsRef<Path>,
    mut progress: impl FnMut(FolderProgress),
) -> Result<FolderReport, VerifyError> {
    let folder = folder.as_ref();
    let mut report = FolderReport::default();
    let log = folder.join("log");
    // The lock of the log is held to the end: a node that starts meanwhile would write what is being read.
    // The lock of a damaged log is not held: no node starts with it.
    let mut _held = None;
    if log.is_dir() {
        let (part, mut verified) = verify_log(folder, FolderPart::Log, &log, &mut progress)?;
        report.parts.push(part);
        if let Some(snapshot) = verified.as_mut().and_then(|verified| verified.snapshot.take()) {
            report.parts.push(verify_snapshot(&log, snapshot, &mut progress));
        }
        _held = verified;
    }
    report.parts.extend(verify_data(folder, &mut progress)?);
    let journal = folder.join("crdt");
    if journal.is_dir() {
        report.parts.push(verify_log(folder, FolderPart::Journal, &journal, &mut progress)?.0);
    }
    let blobs = folder.join("blobs");
    if blobs.is_dir() {
        report.parts.push(verify_blobs(&blobs, &mut progress));
    }
    if report.parts.is_empty() {
        return Err(VerifyError::NothingToVerify { folder: folder.to_owned() });
    }
    Ok(report)
}

fn verify_log(
    folder: &Path,
    part: FolderPart,
    path: &Path,
    progress: &mut dyn FnMut(FolderProgress),
) -> Result<(PartReport, Option<WalReport>), VerifyError> {
    let (mut bytes, bytes_total) = (0, len_of(path));
    let verified = Wal::verify_path(path, |len| {
        bytes += len;
        progress(FolderProgress { part, bytes, bytes_total });
    });
    let mut report = PartReport::new(part, path);
    report.bytes = bytes;
    match verified {
        Ok(found) => {
            report.entries = found.last_index - found.base_index;
            Ok((report, Some(found)))
        }
        // A folder that a node uses is not damaged.
        Err(RecoverError::Locked { .. }) => Err(VerifyError::InUse { folder: folder.to_owned() }),
        Err(error) => {
            report.damage.push(with_causes(&error));
            Ok((report, None))
        }
    }
}

/// Reads the snapshot as a state machine would restore it: every entry is compared with its checksum.
fn verify_snapshot(
    log: &Path,
    mut from: Box<dyn SnapshotReader>,
    progress: &mut dyn FnMut(FolderProgress),
) -> PartReport {
    let part = FolderPart::Snapshot;
    let (index, bytes_total) = (from.meta().index, from.len_bytes());
    let mut report = PartReport::new(part, log);
    let PartReport { entries, bytes, .. } = &mut report;
    let read = snapshot::read(&mut from, Some(index), |_, batch| {
        *entries += batch.len() as u64;
        *bytes += batch.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64).sum::<u64>();
        progress(FolderProgress { part, bytes: *bytes, bytes_total });
        Ok(())
    });
    if let Err(error) = read {
        let cause = with_causes(&error);
        report.damage.push(format!("the snapshot of index {index} in {}: {cause}", log.display()));
    }
    report
}

fn verify_blobs(path: &Path, progress: &mut dyn FnMut(FolderProgress)) -> PartReport {
    let part = FolderPart::Blobs;
    let (mut bytes, bytes_total) = (0, len_of(path));
    let mut report = PartReport::new(part, path);
    let found = blob::verify_in(path, &mut |len| {
        bytes += len;
        progress(FolderProgress { part, bytes, bytes_total });
    });
    (report.entries, report.damage) = found;
    report.bytes = bytes;
    report
}

impl PartReport {
    pub(super) fn new(part: FolderPart, path: &Path) -> PartReport {
        PartReport { part, path: path.to_owned(), entries: 0, bytes: 0, damage: Vec::new() }
    }
}

/// Bytes of the files in a folder.
fn len_of(folder: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(folder) else { return 0 };
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum()
}

/// The message of an error and of its causes.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
