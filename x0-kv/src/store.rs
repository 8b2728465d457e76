//! The handle that programs hold.

pub(crate) mod backend;
pub(crate) mod embedded;
mod memory;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

#[cfg(feature = "crdt")]
use crate::crdt::{Keyspace, Read, Request, Write};
use crate::request::error::OperationError;
use crate::request::limits;
use crate::request::operation::{Consistency, Expect, Mutation, Operation, Query, RangeQuery, Transaction};
use crate::request::outcome::{Outcome, Page, Swap, TransactionOutcome, Versioned};
use crate::request::pending::{Answer, Pending};
use crate::request::watch::Watch;
use crate::store::backend::Dispatch;
use crate::store::embedded::{OpenError, StoreOptions};
use crate::store::memory::Volatile;
use crate::telemetry::StoreTelemetry;

/// A key-value store: the same handle whether the data is in this process, on this node of a cluster, or reached from
/// outside one. Cheap to clone; every thread and task may have its own.
///
/// Every method returns at once with a [`Pending`] answer. Reads are linearizable unless they say local: they see every
/// write that was acknowledged, to anyone, before they began. Writes that are on their way together may be applied in
/// any order; wait for one before beginning another that must come after it.
///
/// Keys and values are bytes: anything that turns into [`Bytes`] without a copy, such as `&'static str`, `String` or
/// `Vec<u8>`. The [limits](crate::request::limits) are checked before anything else is done.
#[derive(Clone)]
pub struct Store {
    dispatch: Arc<dyn Dispatch>,
    #[cfg(feature = "crdt")]
    keyspace: Keyspace,
    telemetry: StoreTelemetry,
}

impl Store {
    /// A store in memory that is lost with its last handle. No thread, no file: every answer is ready at once.
    #[must_use]
    pub fn open_in_memory() -> Store {
        Store::from_dispatch(Arc::new(Volatile::default()))
    }

    /// The store in the folder `path`, which is made if there is none. Nothing else needs to run: a thread writes the log, and what is
    /// acknowledged is on the disk. Data is held in memory; see [`open_with`](Store::open_with) for more than that holds.
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
    /// When the folder or what is in it cannot be opened, is in use by another process, or is damaged. It is as it was.
    pub fn open(path: impl AsRef<Path>) -> Result<Store, OpenError> {
        Store::open_with(path, &StoreOptions::default())
    }

    /// As [`open`](Store::open), with settings of one's own.
    ///
    /// # Errors
    /// As [`open`](Store::open).
    pub fn open_with(path: impl AsRef<Path>, options: &StoreOptions) -> Result<Store, OpenError> {
        embedded::open(path.as_ref(), options)
    }

    pub(crate) fn from_dispatch(dispatch: Arc<dyn Dispatch>) -> Store {
        Store {
            dispatch,
            #[cfg(feature = "crdt")]
            keyspace: Keyspace::default(),
            telemetry: StoreTelemetry::new(),
        }
    }

    /// The same store's other kind of data: everything that is asked of this handle concerns `keyspace`, whose keys are its own.
    ///
    /// A keyspace that the store was not opened with answers [`Unsupported`](crate::OperationError::Unsupported).
    #[cfg(feature = "crdt")]
    #[must_use]
    pub fn keyspace(&self, keyspace: Keyspace) -> Store {
        Store { keyspace, ..self.clone() }
    }

    /// The blobs of the node at hand, if it was started with them; a client has none.
    #[cfg(feature = "blob")]
    #[must_use]
    pub fn blobs(&self) -> Option<crate::blob::Blobs> {
        self.dispatch.blobs().cloned()
    }

    /// Submits any operation. The methods below are this with a type for the answer.
    pub fn submit(&self, operation: Operation) -> Pending<Outcome> {
        self.ask(operation, Some)
    }

    /// The value of `key` and its revision, or `None` if it has none.
    pub fn get(&self, key: impl Into<Bytes>) -> Pending<Option<Versioned>> {
        self.read_value(key.into(), Consistency::Linearizable)
    }

    /// As [`get`](Store::get), but from what the node at hand has applied, which may lag behind. Asks no other node.
    pub fn get_local(&self, key: impl Into<Bytes>) -> Pending<Option<Versioned>> {
        self.read_value(key.into(), Consistency::Local)
    }

    /// Sets `key` to `value`. Answers the revision of the new value.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Pending<u64> {
        let mutation = Mutation::Put { key: key.into(), value: value.into() };
        self.ask(Operation::Write(mutation), |outcome| match outcome {
            Outcome::Put { revision } => Some(revision),
            _ => None,
        })
    }

    /// Removes `key`. Answers whether it had a value.
    pub fn delete(&self, key: impl Into<Bytes>) -> Pending<bool> {
        let mutation = Mutation::Delete { key: key.into() };
        self.ask(Operation::Write(mutation), |outcome| match outcome {
            Outcome::Delete { existed } => Some(existed),
            _ => None,
        })
    }

    /// One page of `range`. Continue with [`RangeQuery::resume`] while there is a continuation.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use x0_kv::{RangeQuery, Store};
    ///
    /// let store = Store::open_in_memory();
    /// for city in ["city/aachen", "city/bonn", "city/celle", "country/at"] {
    ///     store.put(city, "").wait()?;
    /// }
    /// let mut found = Vec::new();
    /// let mut next = Some(RangeQuery::prefix("city/").limit(2));
    /// while let Some(range) = next {
    ///     let page = store.range(range.clone()).wait()?;
    ///     found.extend(page.entries.into_iter().map(|entry| entry.key));
    ///     next = page.continuation.map(|continuation| range.resume(continuation));
    /// }
    /// assert_eq!(found, ["city/aachen", "city/bonn", "city/celle"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn range(&self, range: RangeQuery) -> Pending<Page> {
        self.read_page(range, Consistency::Linearizable)
    }

    /// As [`range`](Store::range), but from what the node at hand has applied.
    pub fn range_local(&self, range: RangeQuery) -> Pending<Page> {
        self.read_page(range, Consistency::Local)
    }

    /// Sets `key` to `value` if it is as expected, and answers what it holds if it is not.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use x0_kv::{Expect, Store, Swap};
    ///
    /// let store = Store::open_in_memory();
    /// let revision = store.put("leader", "a").wait()?;
    /// let swap = store.compare_and_swap("leader", Expect::Revision(revision), "b").wait()?;
    /// assert!(matches!(swap, Swap::Swapped { .. }));
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expect: Expect,
        value: impl Into<Bytes>,
    ) -> Pending<Swap> {
        let mutation = Mutation::CompareAndSwap { key: key.into(), expect, value: value.into() };
        self.ask(Operation::Write(mutation), |outcome| match outcome {
            Outcome::CompareAndSwap(swap) => Some(swap),
            _ => None,
        })
    }

    /// Carries out a [`Transaction`].
    pub fn transact(&self, transaction: Transaction) -> Pending<TransactionOutcome> {
        self.ask(Operation::Write(Mutation::Transaction(transaction)), |outcome| match outcome {
            Outcome::Transaction(outcome) => Some(outcome),
            _ => None,
        })
    }

    /// Adds to the counter at `key` in a CRDT keyspace, from 0 if there is none. Answers the sum as known here.
    ///
    /// Additions on several nodes all count, whether or not these reach each other. The keys of counters are for counting alone: what a
    /// get shows of them is one node's part.
    #[cfg(feature = "crdt")]
    pub fn add(&self, key: impl Into<Bytes>, amount: i64) -> Pending<i64> {
        self.ask_crdt(Request::Write(Write::Add { key: key.into(), amount }), counter)
    }

    /// The value of the counter at `key` in a CRDT keyspace, as known here: 0 if there is none.
    #[cfg(feature = "crdt")]
    pub fn counter(&self, key: impl Into<Bytes>) -> Pending<i64> {
        self.ask_crdt(Request::Read(Read::Counter { key: key.into() }), counter)
    }

    /// All values at `key` in a CRDT keyspace, the latest first: several if they were written without knowledge of each other and nobody
    /// has written since.
    #[cfg(feature = "crdt")]
    pub fn siblings(&self, key: impl Into<Bytes>) -> Pending<Vec<Versioned>> {
        self.ask_crdt(Request::Read(Read::Siblings { key: key.into() }), |outcome| match outcome {
            Outcome::Siblings(siblings) => Some(siblings),
            _ => None,
        })
    }

    /// Tells which keys that begin with `prefix` change from now on, on the node at hand, by whomever they were written.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = x0_kv::Store::open_in_memory();
    /// let mut watch = store.watch("door/")?;
    /// store.put("door/7", "open").wait()?;
    /// store.put("window", "shut").wait()?;
    /// let changes = watch.wait().expect("the store is open");
    /// assert!(changes.keys.iter().eq(["door/7"]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`](OperationError::Unsupported) on a client, which is no member and holds nothing, or without such a keyspace.
    pub fn watch(&self, prefix: impl Into<Bytes>) -> Result<Watch, OperationError> {
        let watchers = match self.is_crdt() {
            #[cfg(feature = "crdt")]
            true => self.dispatch.crdt_watchers(),
            _ => self.dispatch.watchers(),
        };
        let watchers = watchers.ok_or(OperationError::Unsupported { what: "a watch" })?;
        Ok(watchers.watch(prefix.into()))
    }

    fn is_crdt(&self) -> bool {
        #[cfg(feature = "crdt")]
        return self.keyspace == Keyspace::Crdt;
        #[cfg(not(feature = "crdt"))]
        false
    }

    /// Closes the store for every handle and returns when its files are released. What was acknowledged is safe with or
    /// without it; dropping the last handle does the same.
    pub fn close(&self) {
        self.dispatch.close();
    }

    fn read_value(&self, key: Bytes, consistency: Consistency) -> Pending<Option<Versioned>> {
        let query = Query::Get { key };
        self.ask(Operation::Read { query, consistency }, |outcome| match outcome {
            Outcome::Value(value) => Some(value),
            _ => None,
        })
    }

    fn read_page(&self, range: RangeQuery, consistency: Consistency) -> Pending<Page> {
        let query = Query::Range(range);
        self.ask(Operation::Read { query, consistency }, |outcome| match outcome {
            Outcome::Page(page) => Some(page),
            _ => None,
        })
    }

    #[cfg(feature = "crdt")]
    fn ask_crdt<T>(&self, request: Request, read: fn(Outcome) -> Option<T>) -> Pending<T> {
        let answer = match request.check() {
            _ if !self.is_crdt() => {
                Answer::ready(Err(OperationError::Unsupported { what: "a counter or a sibling" }))
            }
            Ok(()) => self.dispatch.submit_crdt(request),
            Err(limit) => Answer::ready(Err(limit.into())),
        };
        Pending::new(answer, read)
    }

    fn ask<T>(&self, operation: Operation, read: fn(Outcome) -> Option<T>) -> Pending<T> {
        #[cfg(feature = "crdt")]
        if self.is_crdt() {
            return match Request::new(operation) {
                Ok(request) => self.ask_crdt(request, read),
                Err(error) => Pending::new(Answer::ready(Err(error)), read),
            };
        }
        let answer = match limits::check(&operation) {
            Ok(()) => {
                self.telemetry.submitted(&operation);
                self.dispatch.submit(operation)
            }
            Err(limit) => Answer::ready(Err(limit.into())),
        };
        Pending::new(answer, read)
    }
}

#[cfg(feature = "crdt")]
#[expect(clippy::needless_pass_by_value, reason = "as a `Pending` reads its outcome")]
fn counter(outcome: Outcome) -> Option<i64> {
    match outcome {
        Outcome::Counter(sum) => Some(sum),
        _ => None,
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}
