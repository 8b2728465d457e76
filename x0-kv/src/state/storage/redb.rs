//! The base in a redb file.
//!
//! The file is written by checkpoints alone: each is one transaction that holds the effects of the log up to one index,
//! the sessions as they were then, and that index. A crash leaves the file at the last checkpoint that was committed,
//! and the log is replayed from there.
//!
//! Facts of redb 4.6 that this rests on (its documentation and `docs/design.md`): a commit is atomic; readers keep the
//! version they began with; `set_quick_repair` stores the allocator state with each commit and commits in two phases,
//! so that opening after a crash does not walk the whole file; the file is locked against a second process; a write
//! error makes every later operation fail until the file is opened again.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::layer::{Bounds, Merged};
use super::{Base, BaseIter, EngineError, Layer, View};
use crate::request::codec::Decoder;
use crate::request::outcome::{KeyValue, Versioned};
use crate::state::session::{Session, Sessions};

/// Keys and values of the default keyspace. Other keyspaces get tables of their own.
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keyspace 0");
const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_VERSION: u64 = 1;
/// A value begins with its revision, little-endian.
const REVISION_LEN: usize = 8;

/// The open file.
#[derive(Debug)]
pub(crate) struct File {
    database: Database,
    path: PathBuf,
}

impl File {
    /// Opens or creates the file. Returns it with what its last checkpoint held: the sessions and the log index.
    pub(crate) fn open(path: &Path, cache_len: usize) -> Result<(Arc<File>, Sessions, u64), EngineError> {
        let database = Builder::new().set_cache_size(cache_len).create(path);
        File::recovered(database.while_doing("open", path)?, path)
    }

    fn recovered(database: Database, path: &Path) -> Result<(Arc<File>, Sessions, u64), EngineError> {
        let file = Arc::new(File { database, path: path.to_owned() });
        let mut sessions = Sessions::default();
        let applied = file.recover(&mut sessions)?;
        Ok((file, sessions, applied))
    }

    fn recover(&self, sessions: &mut Sessions) -> Result<u64, EngineError> {
        let transaction = self.database.begin_read().while_doing("open", &self.path)?;
        let meta = match transaction.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => {
                self.create()?;
                return Ok(0);
            }
            meta => meta.while_doing("open", &self.path)?,
        };
        let read = |name: &str| {
            Ok::<_, EngineError>(meta.get(name).while_doing("open", &self.path)?.map(|found| found.value()))
        };
        match read("format")? {
            Some(FORMAT_VERSION) => {}
            found => {
                let reason =
                    format!("its format is {found:?}, this version of the crate knows {FORMAT_VERSION}");
                return Err(reason).while_doing("open", &self.path);
            }
        }
        let table = transaction.open_table(SESSIONS).while_doing("open", &self.path)?;
        for entry in table.iter().while_doing("open", &self.path)? {
            let (id, encoded) = entry.while_doing("open", &self.path)?;
            let encoded = Bytes::copy_from_slice(encoded.value());
            let mut from = Decoder::new(&encoded);
            let session = Session::decode(&mut from).and_then(|session| from.finish().map(|()| session));
            sessions
                .insert(id.value(), session.while_doing("open", &self.path)?)
                .while_doing("open", &self.path)?;
        }
        Ok(read("applied")?.unwrap_or(0))
    }

    /// Makes the tables of a new file.
    fn create(&self) -> Result<(), EngineError> {
        let transaction = self.begin_write()?;
        transaction.open_table(ENTRIES).while_doing("write", &self.path)?;
        transaction.open_table(SESSIONS).while_doing("write", &self.path)?;
        self.commit(transaction, 0)
    }

    /// What the last checkpoint left.
    pub(crate) fn base(self: &Arc<Self>) -> Result<Arc<dyn Base>, EngineError> {
        let transaction = self.database.begin_read().while_doing("read", &self.path)?;
        let entries = transaction.open_table(ENTRIES).while_doing("read", &self.path)?;
        Ok(Arc::new(RedbBase { entries, file: Arc::clone(self) }))
    }

    fn begin_write(&self) -> Result<WriteTransaction, EngineError> {
        let mut transaction = self.database.begin_write().while_doing("write", &self.path)?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    fn commit(&self, transaction: WriteTransaction, applied: u64) -> Result<(), EngineError> {
        {
            let mut meta = transaction.open_table(META).while_doing("write", &self.path)?;
            meta.insert("format", FORMAT_VERSION).while_doing("write", &self.path)?;
            meta.insert("applied", applied).while_doing("write", &self.path)?;
        }
        transaction.commit().while_doing("write", &self.path)
    }

    /// The checkpoint did not take place.
    pub(crate) fn no_checkpoint(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> EngineError {
        EngineError { action: "write", path: self.path.clone(), source: source.into() }
    }
}

/// What one checkpoint writes. Made while nothing is applied, in constant time but for a look at each session; run by
/// any thread.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) file: Arc<File>,
    /// The layers to write; what is beneath them is in the file.
    pub(crate) view: View,
    pub(crate) sessions: Vec<(u64, Arc<Session>)>,
    pub(crate) forgotten: Vec<u64>,
    pub(crate) applied: u64,
}

impl Checkpoint {
    /// Makes it durable. On an error the file is at the checkpoint before.
    pub(crate) fn run(&self) -> Result<(), EngineError> {
        let file = &*self.file;
        let transaction = file.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES).while_doing("write", &file.path)?;
            let layers = self.view.layers().iter().map(|layer| &**layer);
            for (key, slot) in Merged::new(layers, super::page::EVERYTHING, false) {
                match &slot.value {
                    Some(value) => put(&mut entries, key, slot.revision, value),
                    None => entries.remove(key).map(drop),
                }
                .while_doing("write", &file.path)?;
            }
            let mut sessions = transaction.open_table(SESSIONS).while_doing("write", &file.path)?;
            for id in &self.forgotten {
                sessions.remove(id).while_doing("write", &file.path)?;
            }
            let mut encoded = Vec::new();
            for (id, session) in &self.sessions {
                encoded.clear();
                session.encode(&mut encoded);
                sessions.insert(id, &*encoded).while_doing("write", &file.path)?;
            }
        }
        file.commit(transaction, self.applied)
    }

    pub(crate) fn layers(&self) -> &[Arc<Layer>] {
        self.view.layers()
    }
}

/// Replaces everything in the file, in one transaction: dropped unfinished, it leaves the file as it was.
pub(crate) struct Replacement {
    file: Arc<File>,
    transaction: WriteTransaction,
}

impl Replacement {
    pub(crate) fn begin(file: &Arc<File>) -> Result<Replacement, EngineError> {
        let transaction = file.begin_write()?;
        transaction.delete_table(ENTRIES).while_doing("write", &file.path)?;
        transaction.delete_table(SESSIONS).while_doing("write", &file.path)?;
        Ok(Replacement { file: Arc::clone(file), transaction })
    }

    pub(crate) fn put(&mut self, batch: &[KeyValue]) -> Result<(), EngineError> {
        let mut entries = self.transaction.open_table(ENTRIES).while_doing("write", &self.file.path)?;
        for entry in batch {
            put(&mut entries, &entry.key, entry.revision, &entry.value)
                .while_doing("write", &self.file.path)?;
        }
        Ok(())
    }

    pub(crate) fn commit(self, sessions: &Sessions, applied: u64) -> Result<(), EngineError> {
        {
            self.transaction.open_table(ENTRIES).while_doing("write", &self.file.path)?;
            let mut table = self.transaction.open_table(SESSIONS).while_doing("write", &self.file.path)?;
            let mut encoded = Vec::new();
            for (id, session) in sessions.iter() {
                encoded.clear();
                session.encode(&mut encoded);
                table.insert(id, &*encoded).while_doing("write", &self.file.path)?;
            }
        }
        self.file.commit(self.transaction, applied)
    }
}

fn put(
    entries: &mut redb::Table<'_, &[u8], &[u8]>,
    key: &[u8],
    revision: u64,
    value: &[u8],
) -> Result<(), redb::StorageError> {
    let mut room = entries.insert_reserve(key, REVISION_LEN + value.len())?;
    let (head, tail) = room.as_mut().split_at_mut(REVISION_LEN);
    head.copy_from_slice(&revision.to_le_bytes());
    tail.copy_from_slice(value);
    Ok(())
}

/// The version of the file that one checkpoint left.
struct RedbBase {
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    file: Arc<File>,
}

impl RedbBase {
    fn versioned(&self, stored: &[u8]) -> Result<Versioned, EngineError> {
        let Some((revision, value)) = stored.split_first_chunk::<REVISION_LEN>() else {
            return Err("a value is shorter than its revision").while_doing("read", &self.file.path);
        };
        Ok(Versioned { value: Bytes::copy_from_slice(value), revision: u64::from_le_bytes(*revision) })
    }
}

impl Base for RedbBase {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        let found = self.entries.get(key).while_doing("read", &self.file.path)?;
        found.map(|stored| self.versioned(stored.value())).transpose()
    }

    fn scan<'a>(&'a self, bounds: Bounds<'a>, reverse: bool) -> Result<BaseIter<'a>, EngineError> {
        let range = self.entries.range::<&[u8]>(bounds).while_doing("read", &self.file.path)?;
        let decode = |entry: Result<_, redb::StorageError>| {
            let (key, stored): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>) =
                entry.while_doing("read", &self.file.path)?;
            let Versioned { value, revision } = self.versioned(stored.value())?;
            Ok(KeyValue { key: Bytes::copy_from_slice(key.value()), value, revision })
        };
        Ok(if reverse { Box::new(range.rev().map(decode)) } else { Box::new(range.map(decode)) })
    }
}

impl std::fmt::Debug for RedbBase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbBase").field("path", &self.file.path).finish_non_exhaustive()
    }
}

/// Names the file and what was being done with it.
trait WhileDoing<T> {
    fn while_doing(self, action: &'static str, path: &Path) -> Result<T, EngineError>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> WhileDoing<T> for Result<T, E> {
    fn while_doing(self, action: &'static str, path: &Path) -> Result<T, EngineError> {
        self.map_err(|source| EngineError { action, path: path.to_owned(), source: source.into() })
    }
}
