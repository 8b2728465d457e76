//! The answers of a store.

use bytes::Bytes;

use crate::request::keyspace::KeyspaceName;
use crate::request::operation::SnapshotId;
use crate::request::revision::Revision;

/// The answer to an [`Operation`](crate::Operation) that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// To a get: the value, if the key has one.
    Value(Option<Versioned>),
    /// To a range.
    Page(Page),
    /// To a page of a scan.
    ScanPage(ScanPage),
    /// To a put.
    Put {
        /// The revision of the value that was written.
        revision: Revision,
    },
    /// To a delete.
    Delete {
        /// Whether the key had a value.
        existed: bool,
    },
    /// To a compare-and-swap.
    CompareAndSwap(Swap),
    /// To a transaction.
    Transaction(TransactionOutcome),
    /// To the opening of a session.
    SessionOpened {
        /// Its id: the log index of the command that opened it.
        session: u64,
    },
    /// To a command that keeps a session alive or closes it.
    SessionKept,
    /// To the creation of a keyspace.
    KeyspaceCreated {
        /// Whether it did not exist before.
        is_new: bool,
    },
    /// To the dropping of a keyspace.
    KeyspaceDropped {
        /// Whether it existed.
        existed: bool,
    },
    /// To a query for all keyspaces: their names in ascending order, without the default one.
    Keyspaces(Vec<KeyspaceName>),
    /// To a change of the member table: it is as the change would make it.
    MemberChanged,
}

/// A value and the revision of the write that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// The revision of the write that set it.
    pub revision: Revision,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision of the write that set it.
    pub revision: Revision,
}

/// One page of a range, from one applied state. The next page of a range comes from a later state; those of a
/// [scan](crate::Keyspace::scan) all come from the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The entries, in the order asked for.
    pub entries: Vec<KeyValue>,
    /// The start of the next page, for [`RangeQuery::resume`](crate::RangeQuery::resume); `None` when the
    /// range is exhausted. A page can hold fewer entries than asked for, even none, and still have a
    /// continuation.
    pub continuation: Option<Bytes>,
}

/// One page of a scan, and the snapshot that the next pages are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// The page.
    pub page: Page,
    /// The snapshot, for [`Query::Scan`](crate::Query::Scan). It is held only while the page has a
    /// continuation.
    pub snapshot: SnapshotId,
}

/// How a compare-and-swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The key was as expected and has the new value.
    Swapped {
        /// The revision of the new value.
        revision: Revision,
    },
    /// The key was not as expected; nothing was written.
    Kept {
        /// The current state of the key.
        current: Option<Versioned>,
    },
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionOutcome {
    /// Whether every condition held, so that `actions` was carried out and not `alternatives`.
    pub held: bool,
    /// The log index of the transaction: the revision of every value it wrote.
    pub revision: Revision,
    /// One result for each action of the branch taken.
    pub results: Vec<ActionResult>,
}

/// The result of one action of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionResult {
    /// The outcome of a get.
    Value(Option<Versioned>),
    /// The outcome of a put.
    Put,
    /// The outcome of a delete.
    Delete {
        /// Whether the key had a value.
        existed: bool,
    },
}

/// Why a command of the log, or a query, was not carried out. Every replica refuses it alike, and no key has
/// changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The session was never opened, was closed, or made room for others. Whether an earlier attempt of the
    /// same write was applied is no longer known.
    #[error("the session is not known (any more): open a new one")]
    SessionExpired,
    /// The client said that it has the answer to this write, and sends it again.
    #[error("the write is older than what its client declared answered")]
    SequenceAcknowledged,
    /// The write is too far ahead of the oldest one that its client waits for.
    #[error(
        "more than {} writes of the session wait for an answer",
        crate::request::limits::SESSION_WINDOW_MAX
    )]
    WindowExceeded,
    /// The results of the reads of the transaction are too long together.
    #[error(
        "the transaction reads more than {} bytes: read less in one transaction",
        crate::request::limits::TRANSACTION_LEN_MAX
    )]
    ResultTooLong,
    /// The log entry is not a command that this version understands.
    #[error("the log entry is not a command of this version")]
    Malformed,
    /// The keyspace does not exist.
    #[error("the keyspace does not exist: create it first")]
    KeyspaceMissing,
    /// The snapshot of a scan is not held any more, or was held by another node.
    #[error("the snapshot of the scan is not held any more: begin a new scan after the last entry")]
    SnapshotExpired,
    /// There are as many keyspaces as are allowed.
    #[error("{} keyspaces exist, which is the limit: drop one first", crate::request::limits::KEYSPACES_MAX)]
    KeyspacesExceeded,
    /// The member table has as many members as are allowed.
    #[error("{} members exist, which is the limit: remove one first", crate::request::limits::MEMBERS_MAX)]
    MembersExceeded,
}

/// The result of applying one command: the same on every replica.
pub type Applied = Result<Outcome, Refusal>;
