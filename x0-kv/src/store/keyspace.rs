//! The handle of one keyspace of the linearizable store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::limits;
use crate::request::operation::{Consistency, Expect, Mutation, Operation, Query, RangeQuery, Transaction};
use crate::request::outcome::{Outcome, Page, Swap, TransactionOutcome, Versioned};
use crate::request::pending::{Answer, Pending};
use crate::request::revision::Revision;
use crate::request::watch::Watch;
use crate::store::backend::Dispatch;
use crate::store::scan::Scan;
use crate::telemetry::StoreTelemetry;

/// A named, isolated set of keys of a [`Store`](crate::Store). Returned by
/// [`Store::keyspace`](crate::Store::keyspace); a store dereferences to its default keyspace. Cheap to clone.
///
/// Every method returns at once with a [`Pending`] answer. Reads are linearizable unless their name says
/// local: they see every write that was acknowledged, to any client, before they began. Writes that wait for
/// their answers at the same time may be applied in any order; wait for one before submitting another that
/// must come after it.
///
/// Keys and values are bytes: anything that turns into [`Bytes`] without a copy, such as `&'static str`,
/// `String` or `Vec<u8>`. The [limits](crate::limits) are checked before anything else.
#[derive(Clone)]
pub struct Keyspace {
    dispatch: Arc<dyn Dispatch>,
    name: KeyspaceName,
    telemetry: StoreTelemetry,
}

impl Keyspace {
    pub(crate) fn new(dispatch: Arc<dyn Dispatch>, name: KeyspaceName) -> Keyspace {
        Keyspace { dispatch, name, telemetry: StoreTelemetry::new() }
    }

    /// The keyspace `name` of the same store.
    pub(crate) fn sibling(&self, name: KeyspaceName) -> Keyspace {
        Keyspace { name, ..self.clone() }
    }

    pub(crate) fn dispatch(&self) -> &Arc<dyn Dispatch> {
        &self.dispatch
    }

    /// The name of this keyspace.
    #[must_use]
    pub fn name(&self) -> &KeyspaceName {
        &self.name
    }

    /// The value of `key` and its revision, or `None` if it has none.
    pub fn get(&self, key: impl Into<Bytes>) -> Pending<Option<Versioned>> {
        self.read_value(key.into(), Consistency::Linearizable)
    }

    /// As [`get`](Keyspace::get), from the applied state of the node at hand, which may lag. Asks no other
    /// node.
    pub fn get_local(&self, key: impl Into<Bytes>) -> Pending<Option<Versioned>> {
        self.read_value(key.into(), Consistency::Local)
    }

    /// Sets `key` to `value`, and returns the revision of the new value.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Pending<Revision> {
        self.write(Mutation::Put { key: key.into(), value: value.into() }, |outcome| match outcome {
            Outcome::Put { revision } => Some(revision),
            _ => None,
        })
    }

    /// Removes `key`, and returns whether it had a value.
    pub fn delete(&self, key: impl Into<Bytes>) -> Pending<bool> {
        self.write(Mutation::Delete { key: key.into() }, |outcome| match outcome {
            Outcome::Delete { existed } => Some(existed),
            _ => None,
        })
    }

    /// One page of `range`. Continue with [`RangeQuery::resume`] while there is a continuation: a later page
    /// shows a later state.
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

    /// As [`range`](Keyspace::range), from the applied state of the node at hand.
    pub fn range_local(&self, range: RangeQuery) -> Pending<Page> {
        self.read_page(range, Consistency::Local)
    }

    /// All entries of `range` as they are at one revision, read a page at a time: a stream, or a blocking
    /// iterator.
    pub fn scan(&self, range: RangeQuery) -> Scan {
        Scan::new(self.clone(), range, Consistency::Linearizable)
    }

    /// As [`scan`](Keyspace::scan), from the applied state of the node at hand.
    pub fn scan_local(&self, range: RangeQuery) -> Scan {
        Scan::new(self.clone(), range, Consistency::Local)
    }

    /// Sets `key` to `value` if its current state is `expect`; otherwise writes nothing and returns the
    /// current state.
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
        self.write(mutation, |outcome| match outcome {
            Outcome::CompareAndSwap(swap) => Some(swap),
            _ => None,
        })
    }

    /// Carries out a [`Transaction`] on keys of this keyspace.
    pub fn transact(&self, transaction: Transaction) -> Pending<TransactionOutcome> {
        self.write(Mutation::Transaction(transaction), |outcome| match outcome {
            Outcome::Transaction(outcome) => Some(outcome),
            _ => None,
        })
    }

    /// Reports the keys beginning with `prefix` that change from now on, on the node at hand, whichever
    /// client wrote them.
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
    /// [`Unsupported`](OperationError::Unsupported) on a client, which is not a member and holds no data.
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Result<Watch, OperationError> {
        let watchers = self.dispatch.watchers();
        let watchers = watchers.ok_or(OperationError::Unsupported { what: "a watch" })?;
        Ok(watchers.watch(&self.name, prefix.as_ref()))
    }

    fn read_value(&self, key: Bytes, consistency: Consistency) -> Pending<Option<Versioned>> {
        self.read(Query::Get { key }, consistency, |outcome| match outcome {
            Outcome::Value(value) => Some(value),
            _ => None,
        })
    }

    fn read_page(&self, range: RangeQuery, consistency: Consistency) -> Pending<Page> {
        self.read(Query::Range(range), consistency, |outcome| match outcome {
            Outcome::Page(page) => Some(page),
            _ => None,
        })
    }

    pub(crate) fn read<T>(
        &self,
        query: Query,
        consistency: Consistency,
        read: fn(Outcome) -> Option<T>,
    ) -> Pending<T> {
        self.ask(Operation::Read { keyspace: self.name.clone(), query, consistency }, read)
    }

    fn write<T>(&self, mutation: Mutation, read: fn(Outcome) -> Option<T>) -> Pending<T> {
        self.ask(Operation::Write { keyspace: self.name.clone(), mutation }, read)
    }

    pub(crate) fn ask<T>(&self, operation: Operation, read: fn(Outcome) -> Option<T>) -> Pending<T> {
        // Before the dispatch, which may answer at once.
        let timer = self.telemetry.submitted(&operation);
        let answer = match limits::check(&operation) {
            Ok(()) => self.dispatch.submit(operation),
            Err(limit) => Answer::ready(Err(limit.into())),
        };
        Pending::new(answer.timed(timer), read)
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.name).finish_non_exhaustive()
    }
}
