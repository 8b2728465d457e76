//! The base in a redb file.
//!
//! Only checkpoints write the file. Each is one transaction that holds the effects of the log up to one
//! index, the keyspaces and sessions as they were then, and that index. A crash leaves the file at the last
//! committed checkpoint, and the log is replayed from there.
//!
//! Every keyspace has a table of its own, named after its id. An entry is its revision, its checksum (both
//! little-endian) and the value.
//!
//! Facts of redb 4.6 that this relies on (its documentation and `docs/design.md`): a commit is atomic;
//! readers keep the version they began with; `set_quick_repair` stores the allocator state with each commit
//! and commits in two phases, so that opening after a crash does not walk the whole file; the file is locked
//! against a second process; a write error makes every later operation fail until the file is opened again,
//! which is why a file without space waits (`backend.rs`); checksums of pages are verified by
//! `check_integrity`, not by reads; a damaged page can make it panic.

mod backend;
mod base;
mod checkpoint;
mod file;
#[cfg(test)]
mod tests;

use std::path::Path;

use redb::{DatabaseError, StorageError, TableDefinition, TableError, TransactionError};

pub(crate) use self::checkpoint::{Checkpoint, Replacement};
pub(crate) use self::file::{File, Opened};
use super::EngineError;
use super::layer::Bounds;

/// Name and id of each keyspace but the default one.
const KEYSPACES: TableDefinition<'_, &str, u64> = TableDefinition::new("keyspaces");
const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
/// The member table, in one value.
const MEMBERS: TableDefinition<'_, (), &[u8]> = TableDefinition::new("members");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_VERSION: u64 = 1;
/// An entry begins with its revision and its checksum.
const REVISION_LEN: usize = 8;
const CHECKSUM_LEN: usize = 4;
const HEAD_LEN: usize = REVISION_LEN + CHECKSUM_LEN;

/// The name of the table of a keyspace.
fn table_name(space: u64) -> String {
    format!("keyspace {space}")
}

/// Adds the file and the action to an error.
trait WhileDoing<T> {
    fn while_doing(self, action: &'static str, path: &Path) -> Result<T, EngineError>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> WhileDoing<T> for Result<T, E> {
    fn while_doing(self, action: &'static str, path: &Path) -> Result<T, EngineError> {
        self.map_err(|source| {
            let (path, source) = (path.to_owned(), source.into());
            match is_corruption(&*source) {
                true => EngineError::Corrupt { action, path, source },
                false => EngineError::File { action, path, source },
            }
        })
    }
}

/// Whether another process, or another handle of this one, has the file open.
pub(crate) fn is_in_use(error: &EngineError) -> bool {
    let EngineError::File { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(DatabaseError::DatabaseAlreadyOpen))
}

/// Whether an error of redb says that the file is damaged.
fn is_corruption(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_storage = |error: &StorageError| matches!(error, StorageError::Corrupted(_));
    match error.downcast_ref::<DatabaseError>() {
        Some(DatabaseError::Storage(error)) => of_storage(error),
        Some(_) => false,
        None => match error.downcast_ref::<TableError>() {
            Some(TableError::Storage(error)) => of_storage(error),
            Some(_) => false,
            None => match error.downcast_ref::<TransactionError>() {
                Some(TransactionError::Storage(error)) => of_storage(error),
                Some(_) => false,
                None => error.downcast_ref::<StorageError>().is_some_and(of_storage),
            },
        },
    }
}
