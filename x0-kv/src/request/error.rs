//! Why an operation has no answer.

use crate::request::limits::LimitError;
use crate::request::outcome::Refusal;

/// Why an operation was not answered, and whether it may have happened nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// It breaks a limit. Nothing was done.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Too many operations wait already. Nothing was done; try again when some have been answered.
    #[error("too many operations wait for an answer: slow down and try again")]
    Overloaded,
    /// No leader could be reached, or no quorum. Nothing was done; try again later.
    #[error("no leader can be reached: {reason}")]
    Unavailable {
        /// What was missing.
        reason: &'static str,
    },
    /// The time allowed for it ran out.
    #[error("timed out{}", if *.ambiguous { ": the write may or may not have been applied" } else { "; nothing was done" })]
    TimedOut {
        /// Whether it may have been applied, or may still be.
        ambiguous: bool,
    },
    /// The session of the write is no longer known. The write may or may not have been applied: read before writing
    /// again.
    #[error("the session expired: the write may or may not have been applied; read before writing again")]
    SessionExpired,
    /// The reads of a transaction answer too much. Nothing was done.
    #[error(
        "the transaction reads more than {} bytes: read less in one transaction",
        crate::request::limits::TRANSACTION_LEN_MAX
    )]
    ResultTooLong,
    /// The other side does not understand the operation: it is of another version. Nothing was done.
    #[error("a replica does not understand the operation: it runs another version")]
    NotUnderstood,
    /// The store at hand cannot do that. Nothing was done.
    #[error(
        "{what} is not possible here: compare-and-swap and transactions need the linearizable keyspace, counters and siblings one of kind `Keyspace::Crdt` that the node was started with, a watch a store on a member"
    )]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The store has stopped, by [`close`](crate::Store::close) or because its last handle went away. A write may or may
    /// not have been applied.
    #[error("the store is closed")]
    Closed,
    /// The store failed and stopped serving: a disk error, a full disk, a corrupted file. A write may or may not have
    /// been applied; what was acknowledged before is safe. Remedy the cause and open it again.
    #[error("the store failed: {reason}")]
    Failed {
        /// The cause, with the file concerned.
        reason: std::sync::Arc<str>,
    },
}

impl OperationError {
    /// Whether a write may have been applied although it ended with this error.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Limit(_)
            | Self::Overloaded
            | Self::Unavailable { .. }
            | Self::ResultTooLong
            | Self::Unsupported { .. }
            | Self::NotUnderstood => false,
            Self::TimedOut { ambiguous } => *ambiguous,
            Self::SessionExpired | Self::Closed | Self::Failed { .. } => true,
        }
    }
}

impl From<Refusal> for OperationError {
    fn from(refusal: Refusal) -> OperationError {
        match refusal {
            Refusal::SessionExpired | Refusal::SequenceAcknowledged => OperationError::SessionExpired,
            Refusal::WindowExceeded => OperationError::Overloaded,
            Refusal::ResultTooLong => OperationError::ResultTooLong,
            Refusal::Malformed => OperationError::NotUnderstood,
        }
    }
}
