//! The operations of a store.

use bytes::Bytes;

use crate::request::keyspace::KeyspaceName;
use crate::request::limits::RANGE_ENTRIES_MAX;
use crate::request::revision::Revision;

/// One request to a keyspace: a read that changes nothing, or a write that goes through the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Answered from applied state, without a log entry.
    Read {
        /// The keyspace that is read.
        keyspace: KeyspaceName,
        /// The query.
        query: Query,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Ordered by the log and applied once.
    Write {
        /// The keyspace that is written.
        keyspace: KeyspaceName,
        /// The change.
        mutation: Mutation,
    },
}

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began, by any node. Costs a round to a quorum, shared by
    /// the reads that wait for it.
    #[default]
    Linearizable,
    /// Answered at once from the applied state of the node at hand, which may lag.
    Local,
}

/// A read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The value of one key. Answers [`Outcome::Value`](crate::Outcome::Value).
    Get {
        /// The key.
        key: Bytes,
    },
    /// One page of a range of keys. Answers [`Outcome::Page`](crate::Outcome::Page).
    Range(RangeQuery),
    /// One page of a scan. Answers [`Outcome::ScanPage`](crate::Outcome::ScanPage).
    Scan {
        /// The range; after the first page what is left of it.
        range: RangeQuery,
        /// The snapshot to read, from the first page; `None` for the first page, which takes one.
        snapshot: Option<SnapshotId>,
    },
    /// The names of all keyspaces, whichever keyspace the operation names. Answers
    /// [`Outcome::Keyspaces`](crate::Outcome::Keyspaces).
    Keyspaces,
}

/// A snapshot that a node holds for a scan.
///
/// The state at one revision is the same on all members, so that a snapshot of the same id on another member
/// cannot hold another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    /// The revision of the state: the index of the last log entry that is part of it.
    pub revision: Revision,
    /// The number of the snapshot on the node that holds it.
    pub number: u64,
}

/// Keys from `start` (included) to `end` (excluded), in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeQuery {
    /// The first key; empty means from the beginning.
    pub start: Bytes,
    /// The end, not included; `None` means after the last key.
    pub end: Option<Bytes>,
    /// Most entries in the page, 1 to [`RANGE_ENTRIES_MAX`]. The page may hold fewer and still have a
    /// continuation.
    pub limit: u32,
    /// From the greatest key downwards.
    pub reverse: bool,
}

impl RangeQuery {
    /// Every key.
    #[must_use]
    pub fn all() -> RangeQuery {
        RangeQuery { start: Bytes::new(), end: None, limit: RANGE_ENTRIES_MAX, reverse: false }
    }

    /// The keys from `start` up to but not including `end`.
    #[must_use]
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> RangeQuery {
        RangeQuery { start: start.into(), end: Some(end.into()), ..RangeQuery::all() }
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> RangeQuery {
        let start = prefix.into();
        // The least key above all that share the prefix: drop trailing 0xff bytes, then add one to the last
        // byte.
        let end = start.iter().rposition(|byte| *byte != u8::MAX).map(|last| {
            let mut end = start[..=last].to_vec();
            end[last] += 1;
            Bytes::from(end)
        });
        RangeQuery { start, end, ..RangeQuery::all() }
    }

    /// At most `limit` entries in the page.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> RangeQuery {
        self.limit = limit;
        self
    }

    /// From the greatest key downwards.
    #[must_use]
    pub fn reverse(mut self) -> RangeQuery {
        self.reverse = true;
        self
    }

    /// The query for what follows a page that ended with `continuation`
    /// ([`Page::continuation`](crate::Page)).
    #[must_use]
    pub fn resume(&self, continuation: Bytes) -> RangeQuery {
        let mut next = self.clone();
        if self.reverse {
            next.end = Some(continuation);
        } else {
            next.start = continuation;
        }
        next
    }
}

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// Sets `key` to `value`. Answers [`Outcome::Put`](crate::Outcome::Put).
    Put {
        /// The key.
        key: Bytes,
        /// The new value of the key.
        value: Bytes,
    },
    /// Removes `key`. Answers [`Outcome::Delete`](crate::Outcome::Delete).
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Sets `key` to `value` if it is as expected. Answers
    /// [`Outcome::CompareAndSwap`](crate::Outcome::CompareAndSwap).
    CompareAndSwap {
        /// The key.
        key: Bytes,
        /// The expected state of the key.
        expect: Expect,
        /// The new value of the key.
        value: Bytes,
    },
    /// Several at once, all or nothing. Answers [`Outcome::Transaction`](crate::Outcome::Transaction).
    Transaction(Transaction),
    /// Creates the keyspace that the operation names. Answers
    /// [`Outcome::KeyspaceCreated`](crate::Outcome::KeyspaceCreated).
    CreateKeyspace,
    /// Drops the keyspace that the operation names, with all its keys. Answers
    /// [`Outcome::KeyspaceDropped`](crate::Outcome::KeyspaceDropped).
    DropKeyspace,
}

/// The expected state of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The key has no value.
    Absent,
    /// The key has exactly this value.
    Value(Bytes),
    /// The key has a value, last written at this revision.
    Revision(Revision),
}

/// Conditions on keys, the actions for when all of them hold, and those for when one does not.
///
/// The conditions are evaluated and the chosen branch is carried out at one point of the log: no other write
/// comes between. Actions run in their order and see those before them.
///
/// ```
/// use x0_kv::{Expect, Transaction};
///
/// let transfer = Transaction::new()
///     .when("from", Expect::Value("5".into()))
///     .put("from", "3")
///     .put("to", "2")
///     .otherwise(|alternative| alternative.get("from"));
/// assert_eq!(transfer.actions.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// All of these must hold for `actions` to be taken; none means always.
    pub conditions: Vec<Condition>,
    /// Taken when every condition holds.
    pub actions: Vec<Action>,
    /// Taken when a condition does not hold.
    pub alternatives: Vec<Action>,
}

/// A condition of a [`Transaction`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The key.
    pub key: Bytes,
    /// The expected state of the key.
    pub expect: Expect,
}

/// One step of a [`Transaction`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Reads a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// The new value of the key.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Transaction {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Transaction {
        Transaction::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, key: impl Into<Bytes>, expect: Expect) -> Transaction {
        self.conditions.push(Condition { key: key.into(), expect });
        self
    }

    /// Reads `key` in the branch taken when all conditions hold.
    #[must_use]
    pub fn get(mut self, key: impl Into<Bytes>) -> Transaction {
        self.actions.push(Action::Get { key: key.into() });
        self
    }

    /// Sets `key` in the branch taken when all conditions hold.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Transaction {
        self.actions.push(Action::Put { key: key.into(), value: value.into() });
        self
    }

    /// Removes `key` in the branch taken when all conditions hold.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Transaction {
        self.actions.push(Action::Delete { key: key.into() });
        self
    }

    /// Sets the actions for when a condition does not hold: those that `build` adds to the empty transaction
    /// it is given.
    #[must_use]
    pub fn otherwise(mut self, build: impl FnOnce(Transaction) -> Transaction) -> Transaction {
        self.alternatives.extend(build(Transaction::new()).actions);
        self
    }
}
