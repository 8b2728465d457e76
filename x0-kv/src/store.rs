//! The handle of the linearizable store.

pub(crate) mod backend;
pub(crate) mod embedded;
pub(crate) mod keyspace;
mod memory;
pub(crate) mod scan;

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::request::keyspace::KeyspaceName;
use crate::request::limits::LimitError;
use crate::request::operation::{Consistency, Mutation, Operation, Query};
use crate::request::outcome::Outcome;
use crate::request::pending::Pending;
use crate::store::backend::Dispatch;
use crate::store::embedded::{OpenError, StoreOptions};
use crate::store::keyspace::Keyspace;
use crate::store::memory::Volatile;

/// A linearizable key-value store: the same handle for data in this process, on this node of a cluster, or in
/// a cluster that this process is a client of. Cheap to clone; every thread and task may have its own.
///
/// A store dereferences to its default [`Keyspace`], whose methods read and write keys: `store.get("key")`
/// reads `key` of the default keyspace. [`keyspace`](Store::keyspace) returns the handle of another one, and
/// [`crdt`](Store::crdt) that of the CRDT store.
///
/// Operations of the CRDT store do not exist on this type:
///
/// ```compile_fail,E0599
/// let store = x0_kv::Store::open_in_memory();
/// store.add("counter", 1);
/// ```
///
/// ```compile_fail,E0599
/// let store = x0_kv::Store::open_in_memory();
/// store.counter("counter");
/// ```
///
/// ```compile_fail,E0599
/// let store = x0_kv::Store::open_in_memory();
/// store.keyspace("items").unwrap().siblings("key");
/// ```
#[derive(Clone)]
pub struct Store {
    default: Keyspace,
}

impl Deref for Store {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.default
    }
}

impl Store {
    /// A store in memory, lost with its last handle. It has no thread and no file: every answer is ready at
    /// once.
    #[must_use]
    pub fn open_in_memory() -> Store {
        Store::from_dispatch(Arc::new(Volatile::default()))
    }

    /// Opens the store in the folder `path`, and creates the folder if it does not exist.
    ///
    /// One thread writes the log; no other process is needed. An acknowledged write is on disk. The data is
    /// held in memory unless [`open_with`](Store::open_with) selects another storage engine.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path();
    /// let store = x0_kv::Store::open(path)?;
    /// store.put("door", "open").wait()?;
    /// drop(store); // or kill -9
    /// let store = x0_kv::Store::open(path)?;
    /// assert_eq!(store.get("door").wait()?.unwrap().value, "open");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OpenError`] when the folder or a file in it cannot be opened, is in use by another process, or is
    /// damaged. Nothing on disk has changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Store, OpenError> {
        Store::open_with(path, &StoreOptions::default())
    }

    /// As [`open`](Store::open), with other settings.
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_with(path: impl AsRef<Path>, options: &StoreOptions) -> Result<Store, OpenError> {
        embedded::open(path.as_ref(), options)
    }

    pub(crate) fn from_dispatch(dispatch: Arc<dyn Dispatch>) -> Store {
        Store { default: Keyspace::new(dispatch, KeyspaceName::DEFAULT) }
    }

    /// The handle of the keyspace `name`: a named, isolated set of keys. Does not ask the store whether it
    /// exists.
    ///
    /// Operations in a keyspace that does not exist end with
    /// [`KeyspaceMissing`](crate::OperationError::KeyspaceMissing);
    /// [`create_keyspace`](Store::create_keyspace) creates it. A transaction and a range stay within one
    /// keyspace.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = x0_kv::Store::open_in_memory();
    /// store.create_keyspace("items")?.wait()?;
    /// let items = store.keyspace("items")?;
    /// items.put("7", "chair").wait()?;
    /// assert_eq!(store.get("7").wait()?, None); // the default keyspace has a key `7` of its own
    /// assert!(store.drop_keyspace("items")?.wait()?);
    /// assert!(items.get("7").wait().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LimitError::KeyspaceName`] when `name` is not a valid name.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace, LimitError> {
        Ok(self.default.sibling(KeyspaceName::new(name)?))
    }

    /// Creates the keyspace `name`, and returns whether it is new. At most
    /// [`KEYSPACES_MAX`](crate::limits::KEYSPACES_MAX) can exist.
    ///
    /// # Errors
    /// [`LimitError::KeyspaceName`] when `name` is not a valid name.
    pub fn create_keyspace(&self, name: &str) -> Result<Pending<bool>, LimitError> {
        let keyspace = KeyspaceName::new(name)?;
        let operation = Operation::Write { keyspace, mutation: Mutation::CreateKeyspace };
        Ok(self.default.ask(operation, |outcome| match outcome {
            Outcome::KeyspaceCreated { is_new } => Some(is_new),
            _ => None,
        }))
    }

    /// Drops the keyspace `name` with all its keys, and returns whether it existed.
    ///
    /// The keys are unreachable from then on. Their memory is released in bounded steps by later writes; the
    /// redb engine removes their table with its next checkpoint. A keyspace created under the same name
    /// afterwards is empty.
    ///
    /// # Errors
    /// [`LimitError::KeyspaceName`] when `name` is not a valid name.
    pub fn drop_keyspace(&self, name: &str) -> Result<Pending<bool>, LimitError> {
        let keyspace = KeyspaceName::new(name)?;
        let operation = Operation::Write { keyspace, mutation: Mutation::DropKeyspace };
        Ok(self.default.ask(operation, |outcome| match outcome {
            Outcome::KeyspaceDropped { existed } => Some(existed),
            _ => None,
        }))
    }

    /// The names of all keyspaces in ascending order, without the default one.
    pub fn keyspaces(&self) -> Pending<Vec<KeyspaceName>> {
        let operation = Operation::Read {
            keyspace: KeyspaceName::DEFAULT,
            query: Query::Keyspaces,
            consistency: Consistency::Linearizable,
        };
        self.default.ask(operation, |outcome| match outcome {
            Outcome::Keyspaces(names) => Some(names),
            _ => None,
        })
    }

    /// The CRDT store beside this one: always writable, without agreement between members.
    ///
    /// # Errors
    /// [`CrdtDisabled`](crate::crdt::CrdtDisabled) when this store was opened without one. A client cannot
    /// know: its operations end with [`Unsupported`](crate::OperationError::Unsupported) if the member that
    /// it asks has none.
    #[cfg(feature = "crdt")]
    pub fn crdt(&self) -> Result<crate::crdt::CrdtStore, crate::crdt::CrdtDisabled> {
        let dispatch = self.default.dispatch();
        if !dispatch.has_crdt() {
            return Err(crate::crdt::CrdtDisabled);
        }
        Ok(crate::crdt::CrdtStore::new(Arc::clone(dispatch)))
    }

    /// The blobs of this node, if it was started with them. A client has none.
    #[cfg(feature = "blob")]
    #[must_use]
    pub fn blobs(&self) -> Option<crate::blob::Blobs> {
        self.default.dispatch().blobs().cloned()
    }

    /// Submits any operation. The other methods are shorter forms of this one with a typed answer.
    pub fn submit(&self, operation: Operation) -> Pending<Outcome> {
        self.default.ask(operation, Some)
    }

    /// Closes the store for every handle, and returns when its files are released. Acknowledged writes are
    /// safe with or without it; dropping the last handle does the same.
    pub fn close(&self) {
        self.default.dispatch().close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
