//! The limits of a CRDT store. All lengths are in bytes.
//!
//! The limits are constants because every member must accept what another member accepted.

use crate::request::limits::{KEYSPACE_NAME_LEN_MAX, RANGE_ENTRIES_MAX};
use crate::request::operation::RangeQuery;

/// Longest key. A key holds at least one byte. Shorter than in a [`Store`](crate::Store): the name of the
/// keyspace shares the room of the key.
pub const KEY_LEN_MAX: usize = x0_crdt::KEY_LEN_MAX - 1 - KEYSPACE_NAME_LEN_MAX;
/// Longest value. A value may be empty. Store a longer one as a blob, and the reference to it here.
pub const VALUE_LEN_MAX: usize = x0_crdt::VALUE_LEN_MAX;
/// Most values of one key that [`siblings`](crate::crdt::CrdtStore::siblings) returns: as many as fit an
/// answer at their longest.
pub const SIBLINGS_MAX: usize = 32;
/// Most times that one [`delete_seen`](crate::crdt::CrdtStore::delete_seen) takes: more than a key has
/// values in practice, because each value is of another incarnation of a member.
pub const SEEN_MAX: usize = 1024;
/// Most keys that one [`clear`](crate::crdt::CrdtStore::clear) removes.
pub const CLEAR_KEYS_MAX: usize = 1024;
/// Most keyspaces that [`keyspaces`](crate::crdt::CrdtStore::keyspaces) returns.
pub const KEYSPACES_MAX: usize = 1024;

/// A request to a CRDT store breaks a limit of the [module](self). Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrdtLimitError {
    /// A key holds no bytes.
    #[error("the key is empty: a key of a CRDT store holds 1 to {KEY_LEN_MAX} bytes")]
    KeyEmpty,
    /// A key, or the bound of a range, is too long.
    #[error("the key is {len} bytes long: a key of a CRDT store holds at most {KEY_LEN_MAX} bytes")]
    KeyTooLong {
        /// The length of the key in bytes.
        len: usize,
    },
    /// A value is too long.
    #[error(
        "the value is {len} bytes long: a value of a CRDT store holds at most {VALUE_LEN_MAX} bytes; store it as a blob and the reference to it here"
    )]
    ValueTooLong {
        /// The length of the value in bytes.
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
    /// A removal names too many times.
    #[error("the removal names more than {SEEN_MAX} times: pass the times of one key's siblings")]
    SeenTooMany,
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), CrdtLimitError> {
    match key.len() {
        0 => Err(CrdtLimitError::KeyEmpty),
        len if len > KEY_LEN_MAX => Err(CrdtLimitError::KeyTooLong { len }),
        _ => Ok(()),
    }
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), CrdtLimitError> {
    if value.len() > VALUE_LEN_MAX {
        return Err(CrdtLimitError::ValueTooLong { len: value.len() });
    }
    Ok(())
}

pub(crate) fn check_seen(seen: &[u64]) -> Result<(), CrdtLimitError> {
    if seen.len() > SEEN_MAX {
        return Err(CrdtLimitError::SeenTooMany);
    }
    Ok(())
}

pub(crate) fn check_range(range: &RangeQuery) -> Result<(), CrdtLimitError> {
    // A continuation may be the longest key followed by one zero byte.
    for bound in [Some(&range.start), range.end.as_ref()].into_iter().flatten() {
        if bound.len() > KEY_LEN_MAX + 1 {
            return Err(CrdtLimitError::KeyTooLong { len: bound.len() });
        }
    }
    if range.limit == 0 || range.limit > RANGE_ENTRIES_MAX {
        return Err(CrdtLimitError::RangeLimit { limit: range.limit });
    }
    Ok(())
}
