//! What a store answers.

use bytes::Bytes;

/// The answer to an [`Operation`](crate::Operation) that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// To a get: the value, if the key has one.
    Value(Option<Versioned>),
    /// To a range.
    Page(Page),
    /// To a put.
    Put {
        /// The revision of the value that was written.
        revision: u64,
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
    /// To a question for all values at a key of a CRDT keyspace: the latest first.
    Siblings(Vec<Versioned>),
    /// To an addition to a counter of a CRDT keyspace, or a question for its value.
    Counter(i64),
}

/// A value and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// The log index of the write that set it. Greater than that of any write before. In a CRDT keyspace the time of the write, by its
    /// writer's hybrid logical clock: greater than that of any write it replaced.
    pub revision: u64,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The log index of the write that set it.
    pub revision: u64,
}

/// One page of a range, as it was at one moment. The pages of a range are each from a moment of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The entries, in the order asked for.
    pub entries: Vec<KeyValue>,
    /// Where the next page begins, for [`RangeQuery::resume`](crate::RangeQuery::resume); `None` when the range is
    /// exhausted. A page can hold fewer entries than asked for, even none, and still have a continuation.
    pub continuation: Option<Bytes>,
}

/// How a compare-and-swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The key was as expected and has the new value.
    Swapped {
        /// The revision of the new value.
        revision: u64,
    },
    /// The key was not as expected; nothing was written.
    Kept {
        /// What it holds.
        current: Option<Versioned>,
    },
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionOutcome {
    /// Whether every condition held, so that `actions` was carried out and not `alternatives`.
    pub held: bool,
    /// The log index of the transaction: the revision of every value it wrote.
    pub revision: u64,
    /// One result for each action of the branch taken.
    pub results: Vec<ActionResult>,
}

/// The result of one action of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionResult {
    /// Of a get.
    Value(Option<Versioned>),
    /// Of a put.
    Put,
    /// Of a delete.
    Delete {
        /// Whether the key had a value.
        existed: bool,
    },
}

/// Why a command that reached the log was not carried out. Every replica refuses it alike, and it changed no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The session was never opened, was closed, or made room for others. Whether an earlier attempt of the same write
    /// was applied is no longer known.
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
    /// What the reads of the transaction would answer is too long.
    #[error(
        "the transaction reads more than {} bytes: read less in one transaction",
        crate::request::limits::TRANSACTION_LEN_MAX
    )]
    ResultTooLong,
    /// The log entry is not a command that this version understands.
    #[error("the log entry is not a command of this version")]
    Malformed,
}

/// What applying one command answers: the same on every replica.
pub type Applied = Result<Outcome, Refusal>;
