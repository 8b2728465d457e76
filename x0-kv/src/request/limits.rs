//! The limits of every linearizable store, embedded or clustered. All lengths are in bytes.
//!
//! The limits are part of the replicated format: every replica must decide alike whether a command is valid,
//! so that they are constants and not options. The CRDT store has limits of its own (`crdt::limits`).

use crate::request::keyspace::KeyspaceName;
use crate::request::operation::{
    Action, Condition, Expect, Mutation, Operation, Query, RangeQuery, Transaction,
};

/// Longest key. A key holds at least one byte.
pub const KEY_LEN_MAX: usize = 4096;
/// Longest value. A value may be empty.
pub const VALUE_LEN_MAX: usize = 1 << 20;
/// Longest name of a keyspace.
pub const KEYSPACE_NAME_LEN_MAX: usize = 127;
/// Most keyspaces of a store, the default one not counted.
pub const KEYSPACES_MAX: usize = 1024;
/// Most conditions in a transaction, and most actions in each of its two branches.
pub const TRANSACTION_OPERATIONS_MAX: usize = 128;
/// Most bytes of keys and values in a transaction, and separately in what its reads answer.
pub const TRANSACTION_LEN_MAX: usize = 2 << 20;
/// Most entries in one page of a range.
pub const RANGE_ENTRIES_MAX: u32 = 4096;
/// Most bytes of keys and values in one page of a range.
pub const RANGE_PAGE_LEN_MAX: usize = 2 << 20;
/// Most snapshots that a node holds for scans; the least recently used one makes room for another.
pub const SCANS_MAX: usize = 32;
/// Most bytes written after the snapshot of a scan was taken, which is the memory that it costs; then it is
/// released.
pub const SCAN_WRITTEN_LEN_MAX: u64 = 64 << 20;
/// Most members in the member table, over all roles.
pub const MEMBERS_MAX: usize = 128;
/// Most addresses of one member.
pub const MEMBER_ADDRESSES_MAX: usize = 8;
/// Longest address of a member.
pub const MEMBER_ADDRESS_LEN_MAX: usize = 255;
/// Longest encoded member table.
pub(crate) const MEMBERS_LEN_MAX: usize =
    MEMBERS_MAX * (MEMBER_ADDRESSES_MAX * (MEMBER_ADDRESS_LEN_MAX + 2) + 32);
/// Longest encoded command, which is the payload of one log entry.
pub const COMMAND_LEN_MAX: usize = TRANSACTION_LEN_MAX + (64 << 10);
/// Longest encoded outcome of a command or answer to a query.
pub const OUTCOME_LEN_MAX: usize = RANGE_PAGE_LEN_MAX + (128 << 10);
/// Most sessions a store remembers; the least recently used one (by log position) makes room for a new one.
pub const SESSIONS_MAX: usize = 4096;
/// Most writes of one session between the oldest that its client still waits for and the newest.
pub const SESSION_WINDOW_MAX: u64 = 4096;
/// Most bytes of remembered outcomes over all sessions; beyond it the least recently used sessions are
/// forgotten.
pub const SESSION_OUTCOMES_LEN_MAX: usize = 64 << 20;

/// An operation breaks a limit of the [module](self). Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// A key holds no bytes.
    #[error("the key is empty: a key holds 1 to {KEY_LEN_MAX} bytes")]
    KeyEmpty,
    /// A key, or the bound of a range, is too long.
    #[error("the key is {len} bytes long: a key holds at most {KEY_LEN_MAX} bytes")]
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A value is too long.
    #[error(
        "the value is {len} bytes long: a value holds at most {VALUE_LEN_MAX} bytes; split it over several keys"
    )]
    ValueTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The name of a keyspace is not valid.
    #[error(
        "the name of the keyspace is not valid: {reason}; a name holds 1 to {KEYSPACE_NAME_LEN_MAX} ASCII letters, digits or `-`, `_`, `.`, `/`"
    )]
    KeyspaceName {
        /// The part of the rule that it breaks.
        reason: &'static str,
    },
    /// A transaction holds too many conditions, or too many actions in a branch.
    #[error("the transaction has {count} {what}: at most {TRANSACTION_OPERATIONS_MAX} are allowed")]
    TransactionTooManyOperations {
        /// Which of its lists: `conditions`, `actions` or `alternatives`.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The keys and values of a transaction are too long together.
    #[error(
        "the transaction holds {len} bytes of keys and values: at most {TRANSACTION_LEN_MAX} are allowed"
    )]
    TransactionTooLong {
        /// Their summed length in bytes.
        len: usize,
    },
    /// A member has too many addresses.
    #[error("the member has {count} addresses: at most {MEMBER_ADDRESSES_MAX} are allowed")]
    MemberAddresses {
        /// How many there are.
        count: usize,
    },
    /// An address of a member is not valid.
    #[error(
        "an address of {len} bytes is not valid: an address holds 1 to {MEMBER_ADDRESS_LEN_MAX} printable ASCII characters without spaces"
    )]
    MemberAddress {
        /// The length of the address in bytes.
        len: usize,
    },
    /// A range asks for no entries or for more than fit a page.
    #[error(
        "the range asks for {limit} entries: a page holds 1 to {RANGE_ENTRIES_MAX}; follow its continuation"
    )]
    RangeLimit {
        /// The entries asked for.
        limit: u32,
    },
}

/// Checks `operation` against every limit, so that nothing too large is ever queued, sent or logged.
///
/// # Errors
/// The first limit that it breaks. Nothing was done.
pub fn check(operation: &Operation) -> Result<(), LimitError> {
    match operation {
        Operation::Read { query, .. } => check_query(query),
        Operation::Write { keyspace, mutation } => check_mutation(keyspace, mutation),
    }
}

pub(crate) fn check_query(query: &Query) -> Result<(), LimitError> {
    match query {
        Query::Get { key } => check_key(key),
        Query::Range(range) | Query::Scan { range, .. } => check_range(range),
        Query::Keyspaces => Ok(()),
    }
}

pub(crate) fn check_range(range: &RangeQuery) -> Result<(), LimitError> {
    // A continuation may be the longest key followed by one zero byte.
    for bound in [Some(&range.start), range.end.as_ref()].into_iter().flatten() {
        if bound.len() > KEY_LEN_MAX + 1 {
            return Err(LimitError::KeyTooLong { len: bound.len() });
        }
    }
    if range.limit == 0 || range.limit > RANGE_ENTRIES_MAX {
        return Err(LimitError::RangeLimit { limit: range.limit });
    }
    Ok(())
}

pub(crate) fn check_mutation(keyspace: &KeyspaceName, mutation: &Mutation) -> Result<(), LimitError> {
    match mutation {
        Mutation::CreateKeyspace | Mutation::DropKeyspace if keyspace.is_default() => {
            Err(LimitError::KeyspaceName { reason: "the default keyspace is neither created nor dropped" })
        }
        Mutation::CreateKeyspace | Mutation::DropKeyspace => Ok(()),
        Mutation::Put { key, value } => check_key(key).and_then(|()| check_value(value)),
        Mutation::Delete { key } => check_key(key),
        Mutation::CompareAndSwap { key, expect, value } => {
            check_key(key)?;
            check_expect(expect)?;
            check_value(value)
        }
        Mutation::Transaction(transaction) => check_transaction(transaction),
    }
}

fn check_transaction(transaction: &Transaction) -> Result<(), LimitError> {
    for (what, count) in [
        ("conditions", transaction.conditions.len()),
        ("actions", transaction.actions.len()),
        ("alternatives", transaction.alternatives.len()),
    ] {
        if count > TRANSACTION_OPERATIONS_MAX {
            return Err(LimitError::TransactionTooManyOperations { what, count });
        }
    }
    let mut len = 0_usize;
    for Condition { key, expect } in &transaction.conditions {
        check_key(key)?;
        check_expect(expect)?;
        len += key.len() + if let Expect::Value(value) = expect { value.len() } else { 0 };
    }
    for action in transaction.actions.iter().chain(&transaction.alternatives) {
        match action {
            Action::Get { key } | Action::Delete { key } => {
                check_key(key)?;
                len += key.len();
            }
            Action::Put { key, value } => {
                check_key(key)?;
                check_value(value)?;
                len += key.len() + value.len();
            }
        }
    }
    if len > TRANSACTION_LEN_MAX {
        return Err(LimitError::TransactionTooLong { len });
    }
    Ok(())
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), LimitError> {
    match key.len() {
        0 => Err(LimitError::KeyEmpty),
        len if len > KEY_LEN_MAX => Err(LimitError::KeyTooLong { len }),
        _ => Ok(()),
    }
}

fn check_value(value: &[u8]) -> Result<(), LimitError> {
    if value.len() > VALUE_LEN_MAX { Err(LimitError::ValueTooLong { len: value.len() }) } else { Ok(()) }
}

fn check_expect(expect: &Expect) -> Result<(), LimitError> {
    if let Expect::Value(value) = expect { check_value(value) } else { Ok(()) }
}
