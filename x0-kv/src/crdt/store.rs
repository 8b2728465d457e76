//! The handle of a CRDT store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::limits::{self, CrdtLimitError};
use super::outcome::{Cleared, CrdtEntry, CrdtOutcome, CrdtPage, CrdtValue, Timestamp};
use super::{Read, Request, Write};
use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::LimitError;
use crate::request::operation::RangeQuery;
use crate::request::pending::{Answer, Pending};
use crate::request::watch::Watch;
use crate::store::backend::Dispatch;
use crate::telemetry::CrdtStoreTelemetry;

/// The answer to an operation of a [`CrdtStore`].
pub type CrdtPending<T> = Pending<T, CrdtOutcome>;

/// The store was opened without a CRDT store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this store was opened without a CRDT store: set `crdt` in the options it is opened with")]
#[non_exhaustive]
pub struct CrdtDisabled;

/// An always writable store: a write is done when it is on the disk of this node, and the members converge
/// when they reach each other. Returned by [`Store::crdt`](crate::Store::crdt).
///
/// A handle addresses one keyspace, at first the default one. It is cheap to clone; every thread and task may
/// have its own. See the [module](crate::crdt) for guarantees and limitations.
///
/// Operations that need agreement between members do not exist on this type:
///
/// ```compile_fail,E0599
/// # let store = x0_kv::Store::open_in_memory();
/// let crdt = store.crdt().unwrap();
/// crdt.compare_and_swap("key", x0_kv::Expect::Absent, "value");
/// ```
///
/// ```compile_fail,E0599
/// # let store = x0_kv::Store::open_in_memory();
/// let crdt = store.crdt().unwrap();
/// crdt.transact(x0_kv::Transaction::new());
/// ```
///
/// A [`Revision`](crate::Revision) is not a [`Timestamp`]:
///
/// ```compile_fail,E0308
/// # let store = x0_kv::Store::open_in_memory();
/// let crdt = store.crdt().unwrap();
/// let revision: x0_kv::Revision = crdt.put("key", "value").wait().unwrap();
/// ```
#[derive(Clone)]
pub struct CrdtStore {
    dispatch: Arc<dyn Dispatch>,
    keyspace: KeyspaceName,
    telemetry: CrdtStoreTelemetry,
}

impl CrdtStore {
    pub(crate) fn new(dispatch: Arc<dyn Dispatch>) -> CrdtStore {
        CrdtStore { dispatch, keyspace: KeyspaceName::DEFAULT, telemetry: CrdtStoreTelemetry::new() }
    }

    /// A handle to the keyspace `name` of this CRDT store.
    ///
    /// A keyspace of a CRDT store is not created: it exists on a node as long as the node holds a key of it,
    /// because a creation would need agreement. [`clear`](CrdtStore::clear) empties it.
    ///
    /// # Errors
    /// [`LimitError::KeyspaceName`] when `name` is not a valid name.
    pub fn keyspace(&self, name: &str) -> Result<CrdtStore, LimitError> {
        Ok(CrdtStore { keyspace: KeyspaceName::new(name)?, ..self.clone() })
    }

    /// The name of the keyspace that this handle addresses.
    #[must_use]
    pub fn name(&self) -> &KeyspaceName {
        &self.keyspace
    }

    /// The names of the keyspaces that this node holds keys of, without the default one. At most
    /// [`KEYSPACES_MAX`](limits::KEYSPACES_MAX).
    pub fn keyspaces(&self) -> CrdtPending<Vec<KeyspaceName>> {
        self.submit(Ok(Request::Read(Read::Keyspaces)), |outcome| match outcome {
            CrdtOutcome::Keyspaces(names) => Some(names),
            _ => None,
        })
    }

    /// Removes up to [`CLEAR_KEYS_MAX`](limits::CLEAR_KEYS_MAX) keys of this keyspace. Repeat it until
    /// [`Cleared::is_done`].
    ///
    /// Each removal covers the values that this node knows: what another member writes at the same time
    /// stays.
    pub fn clear(&self) -> CrdtPending<Cleared> {
        let prefix = self.keyspace.qualify(&[]).into();
        self.submit(Ok(Request::Write(Write::Clear { prefix })), |outcome| match outcome {
            CrdtOutcome::Cleared(cleared) => Some(cleared),
            _ => None,
        })
    }

    /// The latest value of `key`, as far as this node knows, or `None` if it has none.
    pub fn get(&self, key: impl Into<Bytes>) -> CrdtPending<Option<CrdtValue>> {
        let request = self.key(&key.into()).map(|key| Request::Read(Read::Get { key }));
        self.submit(request, |outcome| match outcome {
            CrdtOutcome::Value(value) => Some(value),
            _ => None,
        })
    }

    /// All values of `key`, the latest first: several if members wrote it concurrently and no write has seen
    /// all of them since. A member returns all of them, a client the [`SIBLINGS_MAX`](limits::SIBLINGS_MAX)
    /// latest.
    pub fn siblings(&self, key: impl Into<Bytes>) -> CrdtPending<Vec<CrdtValue>> {
        let request = self.key(&key.into()).map(|key| Request::Read(Read::Siblings { key }));
        self.submit(request, |outcome| match outcome {
            CrdtOutcome::Siblings(siblings) => Some(siblings),
            _ => None,
        })
    }

    /// Sets `key` to `value`, and returns the time of the write. Replaces all values that this node knows.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> CrdtPending<Timestamp> {
        let value = value.into();
        let request = self.key(&key.into()).and_then(|key| {
            limits::check_value(&value)?;
            Ok(Request::Write(Write::Put { key, value }))
        });
        self.submit(request, |outcome| match outcome {
            CrdtOutcome::Put(timestamp) => Some(timestamp),
            _ => None,
        })
    }

    /// Removes `key`, and returns whether it had a value. Values that other members write concurrently stay.
    pub fn delete(&self, key: impl Into<Bytes>) -> CrdtPending<bool> {
        let request = self.key(&key.into()).map(|key| Request::Write(Write::Delete { key }));
        self.submit(request, |outcome| match outcome {
            CrdtOutcome::Deleted(existed) => Some(existed),
            _ => None,
        })
    }

    /// Removes `key` if its values are those of these times and no others, such as the times of
    /// [`siblings`](CrdtStore::siblings), and returns whether it did. Nothing is removed if a value was
    /// written on this node or arrived from another member since then. At most
    /// [`SEEN_MAX`](limits::SEEN_MAX) times.
    pub fn delete_seen(
        &self,
        key: impl Into<Bytes>,
        seen: impl IntoIterator<Item = Timestamp>,
    ) -> CrdtPending<bool> {
        // One more than allowed is enough to refuse it.
        let seen: Vec<u64> = seen.into_iter().take(limits::SEEN_MAX + 1).map(Timestamp::to_bits).collect();
        let request = self.key(&key.into()).and_then(|key| {
            limits::check_seen(&seen)?;
            Ok(Request::Write(Write::DeleteSeen { key, seen }))
        });
        self.submit(request, |outcome| match outcome {
            CrdtOutcome::Deleted(is_gone) => Some(is_gone),
            _ => None,
        })
    }

    /// Adds `amount` to the counter at `key`, which starts at 0, and returns the sum as this node knows it.
    ///
    /// Additions of several members all count, also when the members do not reach each other. Use the key of
    /// a counter for counting alone: a get of it returns the part of one node.
    pub fn add(&self, key: impl Into<Bytes>, amount: i64) -> CrdtPending<i64> {
        let request = self.key(&key.into()).map(|key| Request::Write(Write::Add { key, amount }));
        self.submit(request, counter)
    }

    /// The value of the counter at `key`, as this node knows it: 0 if there is none.
    pub fn counter(&self, key: impl Into<Bytes>) -> CrdtPending<i64> {
        let request = self.key(&key.into()).map(|key| Request::Read(Read::Counter { key }));
        self.submit(request, counter)
    }

    /// One page of `range`. Continue with [`RangeQuery::resume`] while there is a continuation. Each page
    /// shows the state at the moment it is read.
    pub fn range(&self, range: &RangeQuery) -> CrdtPending<CrdtPage> {
        let request = limits::check_range(range).map(|()| {
            let start = self.keyspace.qualify(&range.start).into();
            let end = match &range.end {
                Some(end) => self.keyspace.qualify(end).into(),
                None => after(self.keyspace.qualify(&[])),
            };
            Request::Read(Read::Range(RangeQuery { start, end: Some(end), ..range.clone() }))
        });
        self.submit(request, |outcome| match outcome {
            CrdtOutcome::Page(page) => unqualified(page),
            _ => None,
        })
    }

    /// Reports the keys beginning with `prefix` that change from now on, on this node, whichever member wrote
    /// them.
    ///
    /// # Errors
    /// [`Unsupported`](OperationError::Unsupported) on a client, which is not a member and holds no data.
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Result<Watch, OperationError> {
        let watchers = self.dispatch.crdt_watchers();
        let watchers = watchers.ok_or(OperationError::Unsupported { what: "a watch" })?;
        Ok(watchers.watch(&self.keyspace, prefix.as_ref()))
    }

    /// The map's key for `key` of this keyspace.
    fn key(&self, key: &[u8]) -> Result<Bytes, CrdtLimitError> {
        limits::check_key(key)?;
        Ok(self.keyspace.qualify(key).into())
    }

    fn submit<T>(
        &self,
        request: Result<Request, CrdtLimitError>,
        read: fn(CrdtOutcome) -> Option<T>,
    ) -> CrdtPending<T> {
        let answer = match request {
            Ok(request) => {
                let timer = self.telemetry.submitted(&request);
                self.dispatch.submit_crdt(request).timed(timer)
            }
            Err(limit) => Answer::ready(Err(limit.into())),
        };
        Pending::new(answer, read)
    }
}

impl fmt::Debug for CrdtStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrdtStore").field("keyspace", &self.keyspace).finish_non_exhaustive()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as a `Pending` reads its outcome")]
fn counter(outcome: CrdtOutcome) -> Option<i64> {
    match outcome {
        CrdtOutcome::Counter(sum) => Some(sum),
        _ => None,
    }
}

/// The least byte string that is greater than all with this qualifier.
fn after(mut qualifier: Vec<u8>) -> Bytes {
    // The last byte is a length of at most `KEYSPACE_NAME_LEN_MAX` or a character of a name: never 255.
    if let Some(last) = qualifier.last_mut() {
        *last += 1;
    }
    qualifier.into()
}

/// `page` with the keys that the caller knows. `None` if a member sent keys of no keyspace.
fn unqualified(page: CrdtPage) -> Option<CrdtPage> {
    let entry = |CrdtEntry { key, value, timestamp }| {
        Some(CrdtEntry { key: unqualified_key(&key)?, value, timestamp })
    };
    let entries = page.entries.into_iter().map(entry).collect::<Option<_>>()?;
    let continuation = match page.continuation {
        Some(key) => Some(unqualified_key(&key)?),
        None => None,
    };
    Some(CrdtPage { entries, continuation })
}

fn unqualified_key(key: &Bytes) -> Option<Bytes> {
    let len = 1 + usize::from(*key.first()?);
    (key.len() >= len).then(|| key.slice(len..))
}
