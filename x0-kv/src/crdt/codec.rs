//! The encoding of [`CrdtOutcome`].

use bytes::{BufMut, BytesMut};

use super::limits::{CLEAR_KEYS_MAX, KEYSPACES_MAX, SIBLINGS_MAX, VALUE_LEN_MAX};
use super::outcome::{Cleared, CrdtEntry, CrdtOutcome, CrdtPage, CrdtValue, Timestamp};
use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{KEYSPACE_NAME_LEN_MAX, RANGE_ENTRIES_MAX};

/// Longest key of the map, or continuation of a range of it.
const KEY_LEN_MAX: usize = x0_crdt::KEY_LEN_MAX + 1;

pub(crate) fn put_outcome(to: &mut BytesMut, outcome: &CrdtOutcome) {
    match outcome {
        CrdtOutcome::Value(value) => {
            to.put_u8(0);
            to.put_u8(value.is_some().into());
            if let Some(value) = value {
                put_value(to, value);
            }
        }
        CrdtOutcome::Page(page) => {
            to.put_u8(1);
            codec::put_u64(to, page.entries.len() as u64);
            for CrdtEntry { key, value, timestamp } in &page.entries {
                codec::put_bytes(to, key);
                codec::put_bytes(to, value);
                codec::put_u64(to, timestamp.to_bits());
            }
            to.put_u8(page.continuation.is_some().into());
            if let Some(continuation) = &page.continuation {
                codec::put_bytes(to, continuation);
            }
        }
        CrdtOutcome::Put(timestamp) => {
            to.put_u8(2);
            codec::put_u64(to, timestamp.to_bits());
        }
        CrdtOutcome::Deleted(existed) => {
            to.put_u8(3);
            to.put_u8((*existed).into());
        }
        CrdtOutcome::Siblings(siblings) => {
            to.put_u8(4);
            codec::put_u64(to, siblings.len().min(SIBLINGS_MAX) as u64);
            siblings.iter().take(SIBLINGS_MAX).for_each(|value| put_value(to, value));
        }
        CrdtOutcome::Counter(sum) => {
            to.put_u8(5);
            codec::put_u64(to, sum.cast_unsigned());
        }
        CrdtOutcome::Keyspaces(names) => {
            to.put_u8(6);
            codec::put_u64(to, names.len().min(KEYSPACES_MAX) as u64);
            names.iter().take(KEYSPACES_MAX).for_each(|name| codec::put_bytes(to, name.as_bytes()));
        }
        CrdtOutcome::Cleared(Cleared { removed, is_done }) => {
            to.put_u8(7);
            codec::put_u64(to, *removed as u64);
            to.put_u8((*is_done).into());
        }
    }
}

fn put_value(to: &mut BytesMut, CrdtValue { value, timestamp }: &CrdtValue) {
    codec::put_bytes(to, value);
    codec::put_u64(to, timestamp.to_bits());
}

/// Reads what [`put_outcome`] wrote.
pub(crate) fn outcome(from: &mut Decoder<'_>) -> Result<CrdtOutcome, DecodeError> {
    Ok(match from.u8("kind of outcome")? {
        0 => CrdtOutcome::Value(match from.bool("presence of a value")? {
            true => Some(value(from)?),
            false => None,
        }),
        1 => CrdtOutcome::Page(page(from)?),
        2 => CrdtOutcome::Put(timestamp(from)?),
        3 => CrdtOutcome::Deleted(from.bool("existence")?),
        4 => {
            let count = from.len("count of values", SIBLINGS_MAX)?;
            CrdtOutcome::Siblings((0..count).map(|_| value(from)).collect::<Result<_, _>>()?)
        }
        5 => CrdtOutcome::Counter(from.u64("counter")?.cast_signed()),
        6 => {
            let count = from.len("count of keyspaces", KEYSPACES_MAX)?;
            let mut name = || {
                let name = from.bytes("name of a keyspace", KEYSPACE_NAME_LEN_MAX)?;
                Ok::<_, DecodeError>(KeyspaceName::from_encoded(name)?)
            };
            CrdtOutcome::Keyspaces((0..count).map(|_| name()).collect::<Result<_, _>>()?)
        }
        7 => {
            let removed = from.len("count of removed keys", CLEAR_KEYS_MAX)?;
            CrdtOutcome::Cleared(Cleared { removed, is_done: from.bool("whether it is done")? })
        }
        tag => return Err(DecodeError::Tag { what: "kind of outcome", tag }),
    })
}

fn timestamp(from: &mut Decoder<'_>) -> Result<Timestamp, DecodeError> {
    from.u64("timestamp").map(Timestamp::from_bits)
}

fn value(from: &mut Decoder<'_>) -> Result<CrdtValue, DecodeError> {
    Ok(CrdtValue { value: from.bytes("value", VALUE_LEN_MAX)?, timestamp: timestamp(from)? })
}

fn page(from: &mut Decoder<'_>) -> Result<CrdtPage, DecodeError> {
    let count = from.len("count of entries", RANGE_ENTRIES_MAX as usize)?;
    // An entry takes at least three bytes, so that a short message cannot cause a large allocation.
    let mut entries = Vec::with_capacity(count.min(from.remaining() / 3));
    for _ in 0..count {
        let key = from.bytes("key", KEY_LEN_MAX)?;
        let CrdtValue { value, timestamp } = value(from)?;
        entries.push(CrdtEntry { key, value, timestamp });
    }
    let continuation = match from.bool("presence of a continuation")? {
        true => Some(from.bytes("continuation", KEY_LEN_MAX)?),
        false => None,
    };
    Ok(CrdtPage { entries, continuation })
}
