//! What can go wrong, by operation, and what it did to the state.

use std::io;

/// Why a log cannot be recovered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// Somebody else has it open.
    #[error("{path} is in use by another process: stop that one first, or choose another folder")]
    Locked {
        /// The folder.
        path: String,
    },
    /// Bytes that were acknowledged as durable are not what was written.
    #[error(
        "{file} is damaged at byte {offset} ({reason}), and what stands there was acknowledged as durable: \
         restore the folder from a copy, or empty it and let the node rejoin the cluster as a new member"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it the first damaged piece begins, in bytes.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file that the rest refers to is not there.
    #[error(
        "{file} is missing, though the log refers to it: restore it from a copy, or empty the folder and let the node rejoin the \
         cluster as a new member"
    )]
    Missing {
        /// The file.
        file: String,
    },
    /// A newer release wrote it.
    #[error(
        "{file} has format {version}, this release reads formats up to {version_max}: use the release that wrote it, or a newer one"
    )]
    UnsupportedVersion {
        /// The file.
        file: String,
        /// The format found.
        version: u32,
        /// The newest format understood.
        version_max: u32,
    },
    /// The configuration cannot work.
    #[error("the log's configuration is out of bounds: {reason}")]
    Config {
        /// Which bound is broken.
        reason: &'static str,
    },
    /// The system refused. An I/O error does not say that the data is damaged: trying again may succeed.
    #[error(
        "cannot {operation} {file}: {source}; check the disk and the folder's permissions, then start again"
    )]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why entries cannot be read. The state is as before in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The range begins at or before the base.
    #[error(
        "entry {index} is no longer held, the log begins behind {base_index}: a snapshot has to take its place"
    )]
    Compacted {
        /// The first index asked for.
        index: u64,
        /// The base's index.
        base_index: u64,
    },
    /// The range ends behind the log's end.
    #[error("entry {index} is not held yet, the log ends at {last_index}: ask for less")]
    BeyondEnd {
        /// The last index asked for.
        index: u64,
        /// The log's last index.
        last_index: u64,
    },
    /// What is read is not what was written.
    #[error(
        "{file} is damaged at byte {offset} ({reason}): stop this node, restore its folder from a copy, or empty it and let the \
         node rejoin the cluster as a new member"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it the damaged piece begins, in bytes.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system refused; trying again may succeed.
    #[error("cannot {operation} {file}: {source}; check the disk")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why a batch was not written. Nothing of it is acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Entries do not join the log, or an index exceeds 2^62: a bug of the caller. Nothing was changed.
    #[error(
        "entry {index} cannot follow a log of {base_index} (exclusive) to {last_index}: entries come without gaps, behind the base"
    )]
    Gap {
        /// The offending index.
        index: u64,
        /// The base's index at that point of the batch.
        base_index: u64,
        /// The last index at that point of the batch.
        last_index: u64,
    },
    /// A base names an index that is not held, or another term for it: a bug of the caller. Nothing was
    /// changed.
    #[error("the log cannot begin behind index {index} of term {term}: it holds no such entry")]
    BaseUnknown {
        /// The base's index.
        index: u64,
        /// The base's term.
        term: u64,
    },
    /// The snapshot to be adopted is older than the one held or than the base: a bug of the caller. Nothing
    /// was changed.
    #[error(
        "a snapshot of index {index} is out of date: one of {held_index}, or a log that begins there, is held already"
    )]
    SnapshotStale {
        /// The index of the snapshot to be adopted.
        index: u64,
        /// The index held.
        held_index: u64,
    },
    /// No finished snapshot of this index and term is staged. Nothing was changed.
    #[error("no snapshot of index {index} and term {term} is staged: finish its writer first")]
    SnapshotNotStaged {
        /// The snapshot's index.
        index: u64,
        /// The snapshot's term.
        term: u64,
    },
    /// The batch is longer than the storage takes at once. Nothing was changed.
    #[error("a batch of {len} bytes exceeds the limit of {len_max}: write less at once")]
    TooLong {
        /// Its length, in bytes.
        len: u64,
        /// The longest accepted, in bytes.
        len_max: u64,
    },
    /// The disk is full, and that was noticed before the first byte of the batch was written. Nothing was
    /// changed; the same batch may be written again once there is room.
    #[error(
        "no space left to go on in {file}: free some space, then try again; nothing that was acknowledged is lost"
    )]
    Full {
        /// The file that could not be made.
        file: String,
    },
    /// The system refused midway. It is unknown what of the batch is on the disk; the storage is poisoned.
    #[error(
        "cannot {operation} {file}: {source}; the log accepts nothing more until it is opened anew: check the disk, then restart; \
         nothing that was acknowledged is lost"
    )]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write failed midway. Nothing was tried.
    #[error("the log accepts nothing more since an earlier write failed: restart the node")]
    Poisoned,
}

impl WriteError {
    /// Whether the storage is as before and goes on working, so that the same or another batch may be tried.
    /// Otherwise it is poisoned.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        !matches!(self, WriteError::Io { .. } | WriteError::Poisoned)
    }
}

/// Why a snapshot was not staged. The log is untouched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotWriteError {
    /// The disk is full. What was staged of it is removed.
    #[error("no space left for {file}: free some space, then take the snapshot again")]
    Full {
        /// The file being written.
        file: String,
    },
    /// The system refused. What was staged of it does not count.
    #[error("cannot {operation} {file}: {source}; check the disk, then take the snapshot again")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Why the snapshot cannot be read. The state is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotReadError {
    /// What is read is not what was written.
    #[error(
        "{file} is damaged at byte {offset} ({reason}): take a new snapshot, or restore the file from a copy"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it the damaged piece begins, in bytes.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system refused; trying again may succeed.
    #[error("cannot {operation} {file}: {source}; check the disk")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
}
