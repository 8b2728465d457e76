//! The encoding of an [`Applied`]: the answer of the state machine to a log entry, which sessions remember
//! and nodes send.

use bytes::{BufMut, Bytes, BytesMut};

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{
    KEY_LEN_MAX, KEYSPACE_NAME_LEN_MAX, KEYSPACES_MAX, OUTCOME_LEN_MAX, RANGE_ENTRIES_MAX,
    TRANSACTION_OPERATIONS_MAX, VALUE_LEN_MAX,
};
use crate::request::operation::SnapshotId;
use crate::request::outcome::{
    ActionResult, Applied, KeyValue, Outcome, Page, Refusal, ScanPage, Swap, TransactionOutcome, Versioned,
};
use crate::request::revision::Revision;

/// Tags from here on are refusals.
const REFUSAL: u8 = 0x80;

/// Encodes the answer to a command.
#[must_use]
pub fn encode_applied(applied: &Applied) -> Bytes {
    let mut to = BytesMut::with_capacity(16);
    match applied {
        Err(refusal) => to.put_u8(
            REFUSAL
                + match refusal {
                    Refusal::SessionExpired => 0,
                    Refusal::SequenceAcknowledged => 1,
                    Refusal::WindowExceeded => 2,
                    Refusal::ResultTooLong => 3,
                    Refusal::Malformed => 4,
                    Refusal::KeyspaceMissing => 5,
                    Refusal::KeyspacesExceeded => 6,
                    Refusal::SnapshotExpired => 7,
                    Refusal::MembersExceeded => 8,
                },
        ),
        Ok(outcome) => put_outcome(&mut to, outcome),
    }
    to.freeze()
}

/// Reads what [`encode_applied`] wrote. Keys and values are slices of `bytes`, not copies.
///
/// # Errors
/// When the bytes are not exactly one answer within the limits.
pub fn decode_applied(bytes: &Bytes) -> Result<Applied, DecodeError> {
    if bytes.len() > OUTCOME_LEN_MAX {
        return Err(DecodeError::TooLong { what: "outcome", len: bytes.len() as u64, max: OUTCOME_LEN_MAX });
    }
    let mut from = Decoder::new(bytes);
    let applied = match from.u8("kind of outcome")? {
        0 => Ok(Outcome::Value(optional_versioned(&mut from)?)),
        1 => Ok(Outcome::Page(page(&mut from)?)),
        2 => Ok(Outcome::Put { revision: revision(&mut from)? }),
        3 => Ok(Outcome::Delete { existed: from.bool("existence")? }),
        4 => Ok(Outcome::CompareAndSwap(Swap::Swapped { revision: revision(&mut from)? })),
        5 => Ok(Outcome::CompareAndSwap(Swap::Kept { current: optional_versioned(&mut from)? })),
        6 => {
            let held = from.bool("whether conditions held")?;
            let revision = revision(&mut from)?;
            let count = from.len("count of results", TRANSACTION_OPERATIONS_MAX)?;
            let results = (0..count).map(|_| action_result(&mut from)).collect::<Result<_, _>>()?;
            Ok(Outcome::Transaction(TransactionOutcome { held, revision, results }))
        }
        7 => Ok(Outcome::SessionOpened { session: from.u64("session")? }),
        8 => Ok(Outcome::SessionKept),
        9 => Ok(Outcome::KeyspaceCreated { is_new: from.bool("whether a keyspace is new")? }),
        10 => Ok(Outcome::KeyspaceDropped { existed: from.bool("existence")? }),
        11 => {
            let count = from.len("count of keyspaces", KEYSPACES_MAX)?;
            let mut name = || {
                let name = from.bytes("name of a keyspace", KEYSPACE_NAME_LEN_MAX)?;
                Ok::<_, DecodeError>(KeyspaceName::from_encoded(name)?)
            };
            Ok(Outcome::Keyspaces((0..count).map(|_| name()).collect::<Result<_, _>>()?))
        }
        12 => {
            let snapshot = SnapshotId { revision: revision(&mut from)?, number: from.u64("snapshot")? };
            Ok(Outcome::ScanPage(ScanPage { page: page(&mut from)?, snapshot }))
        }
        13 => Ok(Outcome::MemberChanged),
        0x80 => Err(Refusal::SessionExpired),
        0x81 => Err(Refusal::SequenceAcknowledged),
        0x82 => Err(Refusal::WindowExceeded),
        0x83 => Err(Refusal::ResultTooLong),
        0x84 => Err(Refusal::Malformed),
        0x85 => Err(Refusal::KeyspaceMissing),
        0x86 => Err(Refusal::KeyspacesExceeded),
        0x87 => Err(Refusal::SnapshotExpired),
        0x88 => Err(Refusal::MembersExceeded),
        tag => return Err(DecodeError::Tag { what: "kind of outcome", tag }),
    };
    from.finish()?;
    Ok(applied)
}

fn put_outcome(to: &mut BytesMut, outcome: &Outcome) {
    match outcome {
        Outcome::Value(current) => {
            to.put_u8(0);
            put_optional_versioned(to, current.as_ref());
        }
        Outcome::Page(page) => {
            to.put_u8(1);
            put_page(to, page);
        }
        Outcome::ScanPage(ScanPage { page, snapshot }) => {
            to.put_u8(12);
            codec::put_u64(to, snapshot.revision.get());
            codec::put_u64(to, snapshot.number);
            put_page(to, page);
        }
        Outcome::Put { revision } => {
            to.put_u8(2);
            codec::put_u64(to, revision.get());
        }
        Outcome::Delete { existed } => {
            to.put_u8(3);
            to.put_u8((*existed).into());
        }
        Outcome::CompareAndSwap(Swap::Swapped { revision }) => {
            to.put_u8(4);
            codec::put_u64(to, revision.get());
        }
        Outcome::CompareAndSwap(Swap::Kept { current }) => {
            to.put_u8(5);
            put_optional_versioned(to, current.as_ref());
        }
        Outcome::Transaction(TransactionOutcome { held, revision, results }) => {
            to.put_u8(6);
            to.put_u8((*held).into());
            codec::put_u64(to, revision.get());
            codec::put_u64(to, results.len() as u64);
            for result in results {
                match result {
                    ActionResult::Value(current) => {
                        to.put_u8(0);
                        put_optional_versioned(to, current.as_ref());
                    }
                    ActionResult::Put => to.put_u8(1),
                    ActionResult::Delete { existed } => {
                        to.put_u8(2);
                        to.put_u8((*existed).into());
                    }
                }
            }
        }
        Outcome::SessionOpened { session } => {
            to.put_u8(7);
            codec::put_u64(to, *session);
        }
        Outcome::SessionKept => to.put_u8(8),
        Outcome::KeyspaceCreated { is_new } => {
            to.put_u8(9);
            to.put_u8((*is_new).into());
        }
        Outcome::KeyspaceDropped { existed } => {
            to.put_u8(10);
            to.put_u8((*existed).into());
        }
        Outcome::MemberChanged => to.put_u8(13),
        Outcome::Keyspaces(names) => {
            to.put_u8(11);
            codec::put_u64(to, names.len() as u64);
            names.iter().for_each(|name| codec::put_bytes(to, name.as_bytes()));
        }
    }
}

fn put_page(to: &mut BytesMut, page: &Page) {
    to.reserve(page.entries.iter().map(|entry| entry.key.len() + entry.value.len() + 16).sum());
    codec::put_u64(to, page.entries.len() as u64);
    for KeyValue { key, value, revision } in &page.entries {
        codec::put_bytes(to, key);
        codec::put_bytes(to, value);
        codec::put_u64(to, revision.get());
    }
    match &page.continuation {
        None => to.put_u8(0),
        Some(continuation) => {
            to.put_u8(1);
            codec::put_bytes(to, continuation);
        }
    }
}

fn put_optional_versioned(to: &mut BytesMut, versioned: Option<&Versioned>) {
    match versioned {
        None => to.put_u8(0),
        Some(Versioned { value, revision }) => {
            to.put_u8(1);
            codec::put_bytes(to, value);
            codec::put_u64(to, revision.get());
        }
    }
}

fn optional_versioned(from: &mut Decoder<'_>) -> Result<Option<Versioned>, DecodeError> {
    if !from.bool("presence of a value")? {
        return Ok(None);
    }
    versioned(from).map(Some)
}

fn revision(from: &mut Decoder<'_>) -> Result<Revision, DecodeError> {
    from.u64("revision").map(Revision::new)
}

fn versioned(from: &mut Decoder<'_>) -> Result<Versioned, DecodeError> {
    Ok(Versioned { value: from.bytes("value", VALUE_LEN_MAX)?, revision: revision(from)? })
}

fn page(from: &mut Decoder<'_>) -> Result<Page, DecodeError> {
    let count = from.len("count of entries", RANGE_ENTRIES_MAX as usize)?;
    // Three bytes are the least an entry takes, so that a short message cannot ask for a large allocation.
    let mut entries = Vec::with_capacity(count.min(from.remaining() / 3));
    for _ in 0..count {
        entries.push(KeyValue {
            key: from.bytes("key", KEY_LEN_MAX)?,
            value: from.bytes("value", VALUE_LEN_MAX)?,
            revision: revision(from)?,
        });
    }
    let continuation = if from.bool("presence of a continuation")? {
        Some(from.bytes("continuation", KEY_LEN_MAX + 1)?)
    } else {
        None
    };
    Ok(Page { entries, continuation })
}

fn action_result(from: &mut Decoder<'_>) -> Result<ActionResult, DecodeError> {
    match from.u8("kind of result")? {
        0 => Ok(ActionResult::Value(optional_versioned(from)?)),
        1 => Ok(ActionResult::Put),
        2 => Ok(ActionResult::Delete { existed: from.bool("existence")? }),
        tag => Err(DecodeError::Tag { what: "kind of result", tag }),
    }
}
