//! The errors of each operation of a storage, and their effects on its state.

use std::io;

/// A log cannot be recovered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The folder is open elsewhere.
    #[error("{path} is in use by another process: stop that one first, or choose another folder")]
    Locked {
        /// The folder.
        path: String,
    },
    /// Bytes that were acknowledged as durable differ from the ones that were written.
    #[error(
        "{file} is damaged at byte {offset} ({reason}) in a part that was acknowledged as durable. Do not restore a copy of the \
         folder: it would lack what this replica has acknowledged since. Move the folder away and start again with an empty one: the \
         replica then rejoins its group without a vote, and votes again once the other members have brought it up to date"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// The offset of the damage, in bytes.
        offset: u64,
        /// The check that failed.
        reason: &'static str,
    },
    /// A file that the log refers to is missing.
    #[error(
        "{file} is missing, though the log refers to it. Put that file back if it was only moved; do not restore a copy. Otherwise \
         move the folder away and start again with an empty one: the replica then rejoins its group without a vote, and votes \
         again once the other members have brought it up to date"
    )]
    Missing {
        /// The file.
        file: String,
    },
    /// The folder, or a part of it, is a copy of the one that this log was written in: it was restored or
    /// moved to another file system. The replica may have acknowledged entries and votes that the copy lacks.
    #[error(
        "{path} is a copy: {part} is not the one that the log was written in. A copy may lack entries and votes that this replica \
         has acknowledged, so it is not used as it is. If the copy was made on purpose, adopt it: the replica then rejoins its \
         group under a new incarnation and loses nothing"
    )]
    Copied {
        /// The folder.
        path: String,
        /// The part of the folder that differs.
        part: &'static str,
    },
    /// The file was written by a newer release.
    #[error(
        "{file} has format {version}, and this release reads formats up to {version_max}: use the release that wrote the file, or a newer one"
    )]
    UnsupportedVersion {
        /// The file.
        file: String,
        /// The format found.
        version: u32,
        /// The newest format that this release reads.
        version_max: u32,
    },
    /// The options are out of bounds.
    #[error("the options of the log are out of bounds: {reason}")]
    Options {
        /// The bound.
        reason: &'static str,
    },
    /// The operating system returned an error. The data may be intact: a further attempt may succeed.
    #[error("cannot {operation} {file}; check the disk and the permissions of the folder, then start again")]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Entries cannot be read. The state is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The range begins at or before the base.
    #[error("entry {index} is no longer in the log, which starts after {base_index}: use a snapshot instead")]
    Compacted {
        /// The first index of the range.
        index: u64,
        /// The base's index.
        base_index: u64,
    },
    /// The range reaches past the end of the log.
    #[error("entry {index} is not in the log, which ends at {last_index}: read a shorter range")]
    BeyondEnd {
        /// The last index of the range.
        index: u64,
        /// The last index of the log.
        last_index: u64,
    },
    /// The bytes differ from the ones that were written.
    #[error(
        "{file} is damaged at byte {offset} ({reason}): stop this node, move its folder away and start it again with an empty one. \
         It then rejoins its group without a vote until the other members have brought it up to date; a restored copy of the \
         folder would lack what it has acknowledged since"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// The offset of the damage, in bytes.
        offset: u64,
        /// The check that failed.
        reason: &'static str,
    },
    /// The operating system returned an error; a further attempt may succeed.
    #[error("cannot {operation} {file}; check the disk")]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// A batch was not written. Nothing of it is acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The entries do not continue the log, or an index exceeds 2^62: a bug of the caller. Nothing was
    /// changed.
    #[error(
        "entry {index} does not continue the log, which holds the indexes after {base_index} up to {last_index}: append entries without gaps"
    )]
    Gap {
        /// The index of the entry.
        index: u64,
        /// The base's index at that point of the batch.
        base_index: u64,
        /// The last index at that point of the batch.
        last_index: u64,
    },
    /// The base is at an index that is not in the log, or has another term: a bug of the caller. Nothing was
    /// changed.
    #[error("the log cannot start after index {index} of term {term}: it has no such entry")]
    BaseUnknown {
        /// The base's index.
        index: u64,
        /// The base's term.
        term: u64,
    },
    /// The snapshot to adopt is older than the adopted one or than the base: a bug of the caller. Nothing was
    /// changed.
    #[error(
        "the snapshot of index {index} is out of date: the storage has one of index {held_index}, or a log that starts there"
    )]
    SnapshotStale {
        /// The index of the snapshot to adopt.
        index: u64,
        /// The index of the adopted snapshot or of the base.
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
    /// The batch is longer than the storage accepts. Nothing was changed.
    #[error("the batch has {len} bytes, and the limit is {len_max}: write less at once")]
    TooLong {
        /// The length of the batch, in bytes.
        len: u64,
        /// The limit, in bytes.
        len_max: u64,
    },
    /// The disk is full, which was found before the first byte of the batch was written. Nothing was changed;
    /// the same batch may be written again when there is space.
    #[error(
        "no space left on the disk for {file}: free some space, then try again; everything that was acknowledged is safe"
    )]
    Full {
        /// The file that could not be created.
        file: String,
    },
    /// The operating system returned an error midway. Any part of the batch may be on the disk; the storage
    /// is poisoned.
    #[error(
        "cannot {operation} {file}; the log accepts no more writes: check the disk, then restart the node; everything that was \
         acknowledged is safe"
    )]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// An earlier write failed midway. Nothing was written.
    #[error("the log accepts no more writes because an earlier write failed: restart the node")]
    Poisoned,
}

impl WriteError {
    /// Whether the storage is unchanged and keeps working, so that the same or another batch may be written.
    /// Otherwise it is poisoned.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        !matches!(self, WriteError::Io { .. } | WriteError::Poisoned)
    }
}

/// A snapshot was not staged. The log is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotWriteError {
    /// The disk is full. The incomplete file is removed.
    #[error("no space left on the disk for {file}: free some space, then take the snapshot again")]
    Full {
        /// The file.
        file: String,
    },
    /// The operating system returned an error. The incomplete snapshot is discarded.
    #[error("cannot {operation} {file}; check the disk, then take the snapshot again")]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The snapshot cannot be read. The state is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotReadError {
    /// The bytes differ from the ones that were written.
    #[error(
        "{file} is damaged at byte {offset} ({reason}): take a new snapshot, or move the folder away and start with an empty one"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// The offset of the damage, in bytes.
        offset: u64,
        /// The check that failed.
        reason: &'static str,
    },
    /// The operating system returned an error; a further attempt may succeed.
    #[error("cannot {operation} {file}; check the disk")]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        file: String,
        /// The error of the operating system.
        source: io::Error,
    },
}
