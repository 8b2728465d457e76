//! Damage of a file.

use std::io;

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {offset}: {reason}")]
pub struct Damage {
    /// The offset of the first damaged part, in bytes from the start of the file.
    pub offset: u64,
    /// The kind of damage.
    pub reason: &'static str,
}

impl Damage {
    pub(crate) fn new(offset: usize, reason: &'static str) -> Self {
        Self { offset: offset as u64, reason }
    }
}

/// A file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system failed.
    #[error("cannot {action} {name}; the last whole version of the file is unchanged")]
    Io {
        /// The operation: `read`, `write`, `sync`, `rename`, `append to`, `list`.
        action: &'static str,
        /// Name of the file in its folder.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{name} cannot be used; remove it and build it again from the store")]
    Damaged {
        /// Name of the file in its folder.
        name: String,
        /// The place and the kind.
        #[source]
        source: Damage,
    },
}
