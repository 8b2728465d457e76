//! The open file.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};

use super::super::{Base, EngineError, Spaces};
use super::backend::WaitingBackend;
use super::base::RedbBase;
use super::{FORMAT_VERSION, KEYSPACES, MEMBERS, META, SESSIONS, WhileDoing, table_name};
use crate::request::codec::Decoder;
use crate::request::keyspace::KeyspaceName;
use crate::request::member::Members;
use crate::space::Space;
use crate::state::session::{Session, Sessions};

/// The open file. After a panic of redb it refuses every operation: its state in memory is not known, so that
/// it must be dropped and opened again.
pub(crate) struct File {
    /// `None` only while it is dropped.
    database: Option<Database>,
    path: PathBuf,
    has_panicked: AtomicBool,
}

/// The contents of a file as its last checkpoint left it, without the entries.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Arc<File>,
    pub(crate) sessions: Sessions,
    pub(crate) spaces: Spaces,
    pub(crate) members: Members,
    pub(crate) applied: u64,
}

impl File {
    /// Opens or creates the file. With `verify`, the checksum of every page is verified first: otherwise a
    /// damaged page could hide keys, for redb does not verify pages when it reads them.
    /// With `space`, writes wait for space once the file is open.
    pub(crate) fn open(
        path: &Path,
        cache_len: usize,
        verify: bool,
        space: Option<&Space>,
    ) -> Result<Opened, EngineError> {
        let is_armed = Arc::new(AtomicBool::new(false));
        let open = || {
            let mut builder = Builder::new();
            builder.set_cache_size(cache_len).set_check_integrity_on_open(verify);
            let Some(space) = space else { return builder.create(path).while_doing("open", path) };
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(path).while_doing("open", path)?;
            let backend = FileBackend::new(file).while_doing("open", path)?;
            let backend = WaitingBackend::new(backend, space.clone(), Arc::clone(&is_armed));
            builder.create_with_backend(backend).while_doing("open", path)
        };
        let database = unwinding("open", path, open)?;
        let opened = File::recovered(database, path)?;
        is_armed.store(true, Ordering::Release);
        Ok(opened)
    }

    pub(super) fn recovered(database: Database, path: &Path) -> Result<Opened, EngineError> {
        let file = Arc::new(File {
            database: Some(database),
            path: path.to_owned(),
            has_panicked: AtomicBool::new(false),
        });
        let (sessions, spaces, members, applied) = file.guarded("open", || file.recover())?;
        Ok(Opened { file, sessions, spaces, members, applied })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn database(&self) -> Result<&Database, EngineError> {
        self.database.as_ref().ok_or("it is closed").while_doing("read", &self.path)
    }

    /// Runs an operation on the database. A panic of redb becomes an error that names the file.
    pub(super) fn guarded<T>(
        &self,
        action: &'static str,
        operation: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if self.has_panicked.load(Ordering::Acquire) {
            let message = "an earlier operation panicked".to_owned();
            return Err(EngineError::Panicked { action, path: self.path.clone(), message });
        }
        let result = unwinding(action, &self.path, operation);
        if matches!(result, Err(EngineError::Panicked { .. })) {
            self.has_panicked.store(true, Ordering::Release);
        }
        result
    }

    fn recover(&self) -> Result<(Sessions, Spaces, Members, u64), EngineError> {
        let transaction = self.database()?.begin_read().while_doing("open", &self.path)?;
        let meta = match transaction.open_table(META) {
            Err(TableError::TableDoesNotExist(_)) => {
                self.create()?;
                return Ok((Sessions::default(), Spaces::default(), Members::default(), 0));
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
        let sessions = self.sessions(&transaction)?;
        let spaces = self.spaces(&transaction)?;
        let members = self.members(&transaction)?;
        Ok((sessions, spaces, members, read("applied")?.unwrap_or(0)))
    }

    fn sessions(&self, transaction: &ReadTransaction) -> Result<Sessions, EngineError> {
        let mut sessions = Sessions::default();
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
        Ok(sessions)
    }

    fn spaces(&self, transaction: &ReadTransaction) -> Result<Spaces, EngineError> {
        let mut spaces = Spaces::default();
        let table = transaction.open_table(KEYSPACES).while_doing("open", &self.path)?;
        for entry in table.iter().while_doing("open", &self.path)? {
            let (name, id) = entry.while_doing("open", &self.path)?;
            let name = KeyspaceName::new(name.value()).while_doing("open", &self.path)?;
            spaces.insert(&name, id.value());
        }
        Ok(spaces)
    }

    fn members(&self, transaction: &ReadTransaction) -> Result<Members, EngineError> {
        let table = transaction.open_table(MEMBERS).while_doing("open", &self.path)?;
        let Some(encoded) = table.get(()).while_doing("open", &self.path)? else {
            return Ok(Members::default());
        };
        let encoded = Bytes::copy_from_slice(encoded.value());
        Members::decode(&mut Decoder::new(&encoded)).while_doing("open", &self.path)
    }

    /// Makes the tables of a new file.
    fn create(&self) -> Result<(), EngineError> {
        let transaction = self.begin_write()?;
        transaction.open_table(KEYSPACES).while_doing("write", &self.path)?;
        transaction.open_table(SESSIONS).while_doing("write", &self.path)?;
        transaction.open_table(MEMBERS).while_doing("write", &self.path)?;
        self.commit(transaction, 0)
    }

    /// The entries of `spaces` as the last checkpoint left them.
    pub(crate) fn base(self: &Arc<Self>, spaces: &Spaces) -> Result<Arc<dyn Base>, EngineError> {
        self.guarded("read", || {
            let transaction = self.database()?.begin_read().while_doing("read", &self.path)?;
            let mut tables = std::collections::BTreeMap::new();
            for space in spaces.by_id() {
                let name = table_name(space.id);
                match transaction.open_table(TableDefinition::new(&name)) {
                    Ok(table) => drop(tables.insert(space.id, table)),
                    // Nothing was written to it before the checkpoint.
                    Err(TableError::TableDoesNotExist(_)) => {}
                    Err(error) => return Err(error).while_doing("read", &self.path),
                }
            }
            Ok(Arc::new(RedbBase { tables, file: Arc::clone(self) }) as Arc<dyn Base>)
        })
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, EngineError> {
        let mut transaction = self.database()?.begin_write().while_doing("write", &self.path)?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    pub(super) fn commit(&self, transaction: WriteTransaction, applied: u64) -> Result<(), EngineError> {
        {
            let mut meta = transaction.open_table(META).while_doing("write", &self.path)?;
            meta.insert("format", FORMAT_VERSION).while_doing("write", &self.path)?;
            meta.insert("applied", applied).while_doing("write", &self.path)?;
        }
        transaction.commit().while_doing("write", &self.path)
    }

    /// An error of a checkpoint that did not take place.
    pub(crate) fn no_checkpoint(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> EngineError {
        EngineError::File { action: "write", path: self.path.clone(), source: source.into() }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let database = self.database.take();
        // Closing writes to the file, which panics again if the damage is there.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

/// Runs `operation`, and turns a panic of it into an error.
fn unwinding<T>(
    action: &'static str,
    path: &Path,
    operation: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    // Unwind safety: after a panic the database is not used any more but dropped.
    catch_unwind(AssertUnwindSafe(operation)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|message| (*message).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Err(EngineError::Panicked { action, path: path.to_owned(), message })
    })
}
