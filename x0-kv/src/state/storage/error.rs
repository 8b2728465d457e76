//! Errors of the storage engines.

use std::path::PathBuf;

use super::entry::DamagedEntry;
use crate::request::keyspace::KeyspaceName;

/// A storage engine failed: a disk error, a damaged file, or a damaged entry. No wrong value was returned.
///
/// An error while commands are applied or a checkpoint is written stops the replica; opening it again
/// restores the last durable state. An error while a key is read ends that read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An operation on a file failed.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// The operation: `read`, `write`, `open` or `verify`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file is damaged: a page of it does not match its checksum, or it is not a file of the engine.
    #[error(
        "cannot {action} {}: the file is damaged; get the data of this replica from another one",
        .path.display()
    )]
    Corrupt {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The checksum of an entry does not match.
    #[error(transparent)]
    Damaged(Box<DamagedEntry>),
    /// The range differs from that of the majority of the members, as the scrub has found. It is not read, so
    /// that no wrong value is returned.
    #[error(
        "the data of keyspace `{keyspace}` differs from that of the other members: read it from another member, and replace this one"
    )]
    Diverged {
        /// The keyspace.
        keyspace: KeyspaceName,
    },
    /// The storage library panicked on the file, which is most likely damaged. The file is not used any more
    /// until the store is opened again.
    #[error(
        "cannot {action} {}: the storage library panicked, so that the file is most likely damaged: {message}; restore this replica from another one",
        .path.display()
    )]
    Panicked {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The message of the panic.
        message: String,
    },
}

impl EngineError {
    /// Whether a file is damaged beyond single entries and ranges, which the scrub repairs.
    #[must_use]
    pub fn is_file_damaged(&self) -> bool {
        matches!(self, EngineError::Corrupt { .. } | EngineError::Panicked { .. })
    }
}
