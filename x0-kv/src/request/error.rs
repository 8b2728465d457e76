//! Errors of operations.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::request::limits::LimitError;
use crate::request::outcome::Refusal;
use crate::state::storage::entry::DamagedEntry;

/// An operation failed. Each variant says whether the operation may have been applied; see also
/// [`is_ambiguous`](OperationError::is_ambiguous).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// The operation breaks a limit. Nothing was done.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The operation breaks a limit of the CRDT store. Nothing was done.
    #[cfg(feature = "crdt")]
    #[error(transparent)]
    CrdtLimit(#[from] crate::crdt::limits::CrdtLimitError),
    /// Too many operations wait already. Nothing was done; try again when some have been answered.
    #[error("too many operations wait for an answer: slow down and try again")]
    Overloaded,
    /// The disk of the leader, or of most members, has less free space than the reserve that is kept for what
    /// was acknowledged. Reads go on, and writes succeed again by themselves when there is space.
    #[error(
        "there is no space for the write{}: free some space on the disks of the members",
        if *.ambiguous { "; an earlier attempt may or may not have been applied" } else { ", and nothing was done" }
    )]
    NoSpace {
        /// Whether an earlier attempt may have been applied, or may still be. `false` unless a member stopped
        /// or lost its leadership while it carried the write out.
        ambiguous: bool,
    },
    /// No leader could be reached, or no quorum. Nothing was done; try again later.
    #[error("no leader can be reached: {reason}")]
    Unavailable {
        /// The missing condition.
        reason: &'static str,
    },
    /// The time allowed for it ran out.
    #[error("timed out{}", if *.ambiguous { ": the write may or may not have been applied" } else { "; nothing was done" })]
    TimedOut {
        /// Whether it may have been applied, or may still be.
        ambiguous: bool,
    },
    /// The identity of this client has expired, so that no member accepts it: renew its SVID.
    #[error(
        "the SVID of this client has expired: renew it{}",
        if *.ambiguous { "; the write may or may not have been applied" } else { "; nothing was done" }
    )]
    IdentityExpired {
        /// Whether it may have been applied, or may still be.
        ambiguous: bool,
    },
    /// The session of the write is no longer known. The write may or may not have been applied: read before
    /// writing again.
    #[error("the session expired: the write may or may not have been applied; read before writing again")]
    SessionExpired,
    /// The results of the reads of a transaction are too long together. Nothing was done.
    #[error(
        "the transaction reads more than {} bytes: read less in one transaction",
        crate::request::limits::TRANSACTION_LEN_MAX
    )]
    ResultTooLong,
    /// The keyspace does not exist. Nothing was done.
    #[error("the keyspace does not exist: create it first")]
    KeyspaceMissing,
    /// The snapshot of a scan is not held any more: too much was written, too many other scans began, or
    /// another node leads now. The entries returned before are valid.
    #[error("the snapshot of the scan is not held any more: begin a new scan after the last entry")]
    SnapshotExpired,
    /// As many keyspaces exist as are allowed. Nothing was done.
    #[error("{} keyspaces exist, which is the limit: drop one first", crate::request::limits::KEYSPACES_MAX)]
    KeyspacesExceeded,
    /// The other side does not understand the operation: it is of another version. Nothing was done.
    #[error("a replica does not understand the operation: it runs another version")]
    NotUnderstood,
    /// The node at hand does not offer the operation. Nothing was done.
    #[error(
        "{what} is not available here: a watch needs a store on a member, a CRDT operation a member that was started with a CRDT store"
    )]
    Unsupported {
        /// The operation.
        what: &'static str,
    },
    /// The store has stopped, by [`close`](crate::Store::close) or because its last handle went away. A write
    /// may or may not have been applied.
    #[error("the store is closed")]
    Closed,
    /// An entry that the operation reads is damaged. Its value is not returned, and nothing was done.
    #[error(transparent)]
    Damaged(Box<DamagedEntry>),
    /// The store failed and stopped serving: a disk error, a full disk, a damaged file. A write may or may
    /// not have been applied; acknowledged writes are safe. Remedy the cause and open it again.
    #[error("the store failed: remedy the cause and open it again")]
    Failed {
        /// The cause, with the file concerned.
        source: FailureCause,
    },
}

/// The cause of a failure that ended many operations at once. Two are equal if they are the same failure.
#[derive(Debug, Clone)]
pub struct FailureCause(Arc<dyn Error + Send + Sync>);

impl FailureCause {
    /// Shares `cause`.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> FailureCause {
        FailureCause(Arc::from(cause.into()))
    }

    /// The cause with its type, for `downcast_ref`.
    #[must_use]
    pub fn get(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl PartialEq for FailureCause {
    fn eq(&self, other: &FailureCause) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FailureCause {}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for FailureCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl OperationError {
    /// A failure with this cause.
    pub(crate) fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> OperationError {
        OperationError::Failed { source: FailureCause::new(cause) }
    }
}

impl OperationError {
    /// Whether a write may have been applied although it ended with this error.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            #[cfg(feature = "crdt")]
            Self::CrdtLimit(_) => false,
            Self::Limit(_)
            | Self::Overloaded
            | Self::Unavailable { .. }
            | Self::ResultTooLong
            | Self::KeyspaceMissing
            | Self::SnapshotExpired
            | Self::KeyspacesExceeded
            | Self::Damaged(_)
            | Self::Unsupported { .. }
            | Self::NotUnderstood => false,
            Self::TimedOut { ambiguous }
            | Self::NoSpace { ambiguous }
            | Self::IdentityExpired { ambiguous } => *ambiguous,
            Self::SessionExpired | Self::Closed | Self::Failed { .. } => true,
        }
    }
}

impl OperationError {
    /// The refusal of the state machine that this error stands for, if it does: another node answers it to
    /// its client.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::KeyspaceMissing => Some(Refusal::KeyspaceMissing),
            Self::SnapshotExpired => Some(Refusal::SnapshotExpired),
            _ => None,
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
            Refusal::KeyspaceMissing => OperationError::KeyspaceMissing,
            Refusal::SnapshotExpired => OperationError::SnapshotExpired,
            Refusal::KeyspacesExceeded => OperationError::KeyspacesExceeded,
            // No operation of a store changes the member table.
            Refusal::MembersExceeded => OperationError::NotUnderstood,
        }
    }
}
