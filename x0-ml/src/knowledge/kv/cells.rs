//! The keys of a collection, in either store.

use std::ops::Bound;

use x0_kv::crdt::{CrdtValue, Timestamp, limits as crdt_limits};
use x0_kv::limits::{self, LimitError};
use x0_kv::{Bytes, CrdtStore, Expect, Keyspace, OperationError, RangeQuery, Store, Transaction, Watch};

use super::{CollectionKind, PIECES};

/// A value with its revision.
pub(super) type Held = Option<(Bytes, u64)>;
/// Keys with values and revisions, and the key after the last of them if there are more.
pub(super) type Entries = (Vec<(Bytes, Bytes, u64)>, Option<Vec<u8>>);

/// Writes that wait for their answers at the same time.
const IN_FLIGHT_MAX: usize = 64;

/// The operations that a collection needs. Each waits for its answer.
pub(super) trait Cells: Send {
    fn kind(&self) -> CollectionKind;
    fn key_len_max(&self) -> usize;
    fn value_len_max(&self) -> usize;
    /// Creates the keyspace.
    fn create(&self) -> Result<(), OperationError>;
    /// From the applied state of this node.
    fn get(&self, key: &[u8]) -> Result<Held, OperationError>;
    /// As fresh as the store offers.
    fn get_latest(&self, key: &[u8]) -> Result<Held, OperationError>;
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<u64, OperationError>;
    /// In any order; an error leaves any of them written.
    fn put_all(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), OperationError>;
    /// Removes the value if it is still that of this revision.
    fn delete(&self, key: &[u8], revision: u64) -> Result<bool, OperationError>;
    /// Keys that begin with `prefix`, from `from` on, at most `max`; from the applied state of this node.
    fn range(&self, prefix: &[u8], from: &Bound<Vec<u8>>, max: usize) -> Result<Entries, OperationError>;
    fn watch(&self, prefix: &[u8]) -> Result<Watch, OperationError>;
}

/// In a keyspace of the linearizable store.
pub(super) struct LinearizableCells {
    store: Store,
    keyspace: Keyspace,
}

impl LinearizableCells {
    pub(super) fn new(store: &Store, keyspace: &str) -> Result<Self, LimitError> {
        Ok(Self { store: store.clone(), keyspace: store.keyspace(keyspace)? })
    }
}

impl Cells for LinearizableCells {
    fn kind(&self) -> CollectionKind {
        CollectionKind::Linearizable
    }

    fn key_len_max(&self) -> usize {
        limits::KEY_LEN_MAX
    }

    fn value_len_max(&self) -> usize {
        limits::VALUE_LEN_MAX
    }

    fn create(&self) -> Result<(), OperationError> {
        self.store.create_keyspace(self.keyspace.name().as_str())?.wait().map(drop)
    }

    fn get(&self, key: &[u8]) -> Result<Held, OperationError> {
        let held = self.keyspace.get_local(key.to_vec()).wait()?;
        Ok(held.map(|held| (held.value, held.revision.get())))
    }

    fn get_latest(&self, key: &[u8]) -> Result<Held, OperationError> {
        let held = self.keyspace.get(key.to_vec()).wait()?;
        Ok(held.map(|held| (held.value, held.revision.get())))
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<u64, OperationError> {
        Ok(self.keyspace.put(key, value).wait()?.get())
    }

    fn put_all(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), OperationError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let waiting: Vec<_> = entries
                .by_ref()
                .take(IN_FLIGHT_MAX)
                .map(|(key, value)| self.keyspace.put(key, value))
                .collect();
            waiting.into_iter().try_for_each(|pending| pending.wait().map(drop))?;
        }
        Ok(())
    }

    fn delete(&self, key: &[u8], revision: u64) -> Result<bool, OperationError> {
        let expect = Expect::Revision(x0_kv::Revision::new(revision));
        let transaction = Transaction::new().when(key.to_vec(), expect).delete(key.to_vec());
        Ok(self.keyspace.transact(transaction).wait()?.held)
    }

    fn range(&self, prefix: &[u8], from: &Bound<Vec<u8>>, max: usize) -> Result<Entries, OperationError> {
        let page = self.keyspace.range_local(query(prefix, from, max)).wait()?;
        let entries =
            page.entries.into_iter().map(|entry| (entry.key, entry.value, entry.revision.get())).collect();
        Ok((entries, page.continuation.map(Vec::from)))
    }

    fn watch(&self, prefix: &[u8]) -> Result<Watch, OperationError> {
        self.keyspace.watch(prefix)
    }
}

/// In a keyspace of the CRDT store.
pub(super) struct CrdtCells(pub(super) CrdtStore);

impl CrdtCells {
    /// The times of all values of a key, if the latest of them is of this revision, and the key can be
    /// removed.
    pub(super) fn seen(&self, key: &[u8], revision: u64) -> Result<Option<Vec<Timestamp>>, OperationError> {
        let held = self.0.siblings(key.to_vec()).wait()?;
        let is_latest = |value: &CrdtValue| value.timestamp.to_bits() <= revision;
        let latest = held.iter().find(|value| value.timestamp.to_bits() == revision);
        let Some(latest) = latest.filter(|_| held.iter().all(is_latest)) else { return Ok(None) };
        if held.len() > 1 && key.starts_with(PIECES) {
            // A lower sibling may have arrived a moment ago, with a document that needs it. The piece is
            // written again, as one value, and its grace period begins again.
            self.0.put(key.to_vec(), latest.value.clone()).wait()?;
            return Ok(None);
        }
        Ok(Some(held.iter().map(|value| value.timestamp).collect()))
    }
}

impl Cells for CrdtCells {
    fn kind(&self) -> CollectionKind {
        CollectionKind::Crdt
    }

    fn key_len_max(&self) -> usize {
        crdt_limits::KEY_LEN_MAX
    }

    fn value_len_max(&self) -> usize {
        crdt_limits::VALUE_LEN_MAX
    }

    fn create(&self) -> Result<(), OperationError> {
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Held, OperationError> {
        let held = self.0.get(key.to_vec()).wait()?;
        Ok(held.map(|held| (held.value, held.timestamp.to_bits())))
    }

    fn get_latest(&self, key: &[u8]) -> Result<Held, OperationError> {
        self.get(key)
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<u64, OperationError> {
        Ok(self.0.put(key, value).wait()?.to_bits())
    }

    fn put_all(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), OperationError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let waiting: Vec<_> =
                entries.by_ref().take(IN_FLIGHT_MAX).map(|(key, value)| self.0.put(key, value)).collect();
            waiting.into_iter().try_for_each(|pending| pending.wait().map(drop))?;
        }
        Ok(())
    }

    /// A value that another member writes at the same time stays, and so does one that arrives or is written
    /// here between the two steps.
    fn delete(&self, key: &[u8], revision: u64) -> Result<bool, OperationError> {
        match self.seen(key, revision)? {
            Some(seen) => self.0.delete_seen(key.to_vec(), seen).wait(),
            None => Ok(false),
        }
    }

    fn range(&self, prefix: &[u8], from: &Bound<Vec<u8>>, max: usize) -> Result<Entries, OperationError> {
        let page = self.0.range(&query(prefix, from, max)).wait()?;
        let entries = page
            .entries
            .into_iter()
            .map(|entry| (entry.key, entry.value, entry.timestamp.to_bits()))
            .collect();
        Ok((entries, page.continuation.map(Vec::from)))
    }

    fn watch(&self, prefix: &[u8]) -> Result<Watch, OperationError> {
        self.0.watch(prefix)
    }
}

fn query(prefix: &[u8], from: &Bound<Vec<u8>>, max: usize) -> RangeQuery {
    let mut query = RangeQuery::prefix(prefix.to_vec());
    match from {
        Bound::Unbounded => {}
        Bound::Included(key) => query.start = key.clone().into(),
        // The least key after it.
        Bound::Excluded(key) => query.start = [key.as_slice(), &[0]].concat().into(),
    }
    let max = u32::try_from(max).unwrap_or(u32::MAX);
    query.limit(max.clamp(1, limits::RANGE_ENTRIES_MAX))
}
