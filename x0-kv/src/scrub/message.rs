//! Messages of the scrub between members.
//!
//! A message is the version (1), a kind, the number of the pass or of the request, and the fields of the
//! kind. Integers and byte strings are those of the other formats of this crate.

use bytes::{BufMut, Bytes, BytesMut};

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{KEY_LEN_MAX, KEYSPACE_NAME_LEN_MAX, VALUE_LEN_MAX};

const VERSION: u8 = 1;

/// A range of keys of one keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) keyspace: KeyspaceName,
    pub(crate) start: Bytes,
    /// Exclusive; `None` if the range ends with the keyspace.
    pub(crate) end: Option<Bytes>,
}

/// The digest of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RangeDigest {
    pub(crate) entries: u64,
    pub(crate) sum: u64,
}

/// The entry that a member holds at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    Nothing,
    Value {
        revision: u64,
        value: Bytes,
    },
    /// The member cannot say: it lags behind the requester, or its own entry is damaged.
    Unknown,
}

/// A message between members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Take a view of the state at this applied index.
    Prepare { pass: u64, index: u64 },
    /// The view was taken.
    Ready { pass: u64 },
    /// The index had passed: this one is applied.
    Missed { pass: u64, applied: u64 },
    /// Answer the digest of a range of the view.
    Digest { pass: u64, range: KeyRange },
    /// The digest; `None` if entries of the range are damaged.
    Digested { pass: u64, start: Bytes, digest: Option<RangeDigest> },
    /// There is no view (any more).
    Gone { pass: u64 },
    /// The range of the receiver differs from that of the majority.
    Diverged { pass: u64, index: u64, range: KeyRange },
    /// The pass has ended: release the view.
    Finish { pass: u64 },
    /// Answer the entry of a key, when at least this index is applied.
    Fetch { number: u64, keyspace: KeyspaceName, key: Bytes, at_least: u64 },
    /// The entry, and the index that was applied when it was read.
    Fetched { number: u64, applied: u64, held: Held },
}

pub(crate) fn encode(message: &Message) -> Bytes {
    let mut to = BytesMut::with_capacity(64);
    to.put_u8(VERSION);
    let (kind, number) = match message {
        Message::Prepare { pass, .. } => (0, pass),
        Message::Ready { pass } => (1, pass),
        Message::Missed { pass, .. } => (2, pass),
        Message::Digest { pass, .. } => (3, pass),
        Message::Digested { pass, .. } => (4, pass),
        Message::Gone { pass } => (5, pass),
        Message::Diverged { pass, .. } => (6, pass),
        Message::Finish { pass } => (7, pass),
        Message::Fetch { number, .. } => (8, number),
        Message::Fetched { number, .. } => (9, number),
    };
    to.put_u8(kind);
    codec::put_u64(&mut to, *number);
    match message {
        Message::Prepare { index, .. } => codec::put_u64(&mut to, *index),
        Message::Missed { applied, .. } => codec::put_u64(&mut to, *applied),
        Message::Digest { range, .. } => put_range(&mut to, range),
        Message::Digested { start, digest, .. } => {
            codec::put_bytes(&mut to, start);
            to.put_u8(digest.is_some().into());
            let RangeDigest { entries, sum } = digest.unwrap_or(RangeDigest { entries: 0, sum: 0 });
            codec::put_u64(&mut to, entries);
            codec::put_u64(&mut to, sum);
        }
        Message::Diverged { index, range, .. } => {
            codec::put_u64(&mut to, *index);
            put_range(&mut to, range);
        }
        Message::Fetch { keyspace, key, at_least, .. } => {
            codec::put_bytes(&mut to, keyspace.as_bytes());
            codec::put_bytes(&mut to, key);
            codec::put_u64(&mut to, *at_least);
        }
        Message::Fetched { applied, held, .. } => {
            codec::put_u64(&mut to, *applied);
            match held {
                Held::Nothing => to.put_u8(0),
                Held::Value { revision, value } => {
                    to.put_u8(1);
                    codec::put_u64(&mut to, *revision);
                    codec::put_bytes(&mut to, value);
                }
                Held::Unknown => to.put_u8(2),
            }
        }
        Message::Ready { .. } | Message::Gone { .. } | Message::Finish { .. } => {}
    }
    to.freeze()
}

pub(crate) fn decode(message: &Bytes) -> Result<Message, DecodeError> {
    let mut from = Decoder::new(message);
    let found = from.u8("version of a scrub message")?;
    if found != VERSION {
        return Err(DecodeError::Version { found });
    }
    let kind = from.u8("kind of scrub message")?;
    let number = from.u64("number of a pass")?;
    let pass = number;
    let decoded = match kind {
        0 => Message::Prepare { pass, index: from.u64("index")? },
        1 => Message::Ready { pass },
        2 => Message::Missed { pass, applied: from.u64("applied index")? },
        3 => Message::Digest { pass, range: range(&mut from)? },
        4 => {
            let start = from.bytes("start of a range", KEY_MAX)?;
            let is_known = from.bool("presence of a digest")?;
            let digest = RangeDigest { entries: from.u64("count of entries")?, sum: from.u64("sum")? };
            Message::Digested { pass, start, digest: is_known.then_some(digest) }
        }
        5 => Message::Gone { pass },
        6 => Message::Diverged { pass, index: from.u64("index")?, range: range(&mut from)? },
        7 => Message::Finish { pass },
        8 => Message::Fetch {
            number,
            keyspace: keyspace(&mut from)?,
            key: from.bytes("key", KEY_MAX)?,
            at_least: from.u64("index")?,
        },
        9 => {
            let applied = from.u64("applied index")?;
            let held = match from.u8("kind of entry")? {
                0 => Held::Nothing,
                1 => {
                    let revision = from.u64("revision")?;
                    Held::Value { revision, value: from.bytes("value", VALUE_LEN_MAX)? }
                }
                2 => Held::Unknown,
                tag => return Err(DecodeError::Tag { what: "kind of entry", tag }),
            };
            Message::Fetched { number, applied, held }
        }
        tag => return Err(DecodeError::Tag { what: "kind of scrub message", tag }),
    };
    from.finish()?;
    Ok(decoded)
}

/// A key, or the least key above one.
const KEY_MAX: usize = KEY_LEN_MAX + 1;

fn put_range(to: &mut BytesMut, range: &KeyRange) {
    codec::put_bytes(to, range.keyspace.as_bytes());
    codec::put_bytes(to, &range.start);
    to.put_u8(range.end.is_some().into());
    codec::put_bytes(to, range.end.as_deref().unwrap_or_default());
}

fn range(from: &mut Decoder<'_>) -> Result<KeyRange, DecodeError> {
    let (keyspace, start) = (keyspace(from)?, from.bytes("start of a range", KEY_MAX)?);
    let has_end = from.bool("presence of an end")?;
    let end = from.bytes("end of a range", KEY_MAX)?;
    Ok(KeyRange { keyspace, start, end: has_end.then_some(end) })
}

fn keyspace(from: &mut Decoder<'_>) -> Result<KeyspaceName, DecodeError> {
    let name = from.bytes("name of a keyspace", KEYSPACE_NAME_LEN_MAX)?;
    if name.is_empty() {
        return Ok(KeyspaceName::DEFAULT);
    }
    KeyspaceName::from_encoded(name).map_err(DecodeError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<Message> {
        let (pass, number) = (300, 7);
        let range = |end: Option<&'static str>| KeyRange {
            keyspace: KeyspaceName::new("items").unwrap_or_default(),
            start: "a".into(),
            end: end.map(Bytes::from),
        };
        let value = Held::Value { revision: 9, value: "value".into() };
        let (keyspace, key) = (KeyspaceName::DEFAULT, Bytes::from("key"));
        let digest = Some(RangeDigest { entries: 3, sum: u64::MAX });
        vec![
            Message::Prepare { pass, index: 1 },
            Message::Ready { pass },
            Message::Missed { pass, applied: 1 << 40 },
            Message::Digest { pass, range: range(None) },
            Message::Digest { pass, range: range(Some("b")) },
            Message::Digested { pass, start: key.clone(), digest },
            Message::Digested { pass, start: Bytes::new(), digest: None },
            Message::Gone { pass },
            Message::Diverged { pass, index: 5, range: range(Some("b")) },
            Message::Finish { pass },
            Message::Fetch { number, keyspace, key, at_least: 4 },
            Message::Fetched { number, applied: 5, held: value },
            Message::Fetched { number, applied: 5, held: Held::Nothing },
            Message::Fetched { number, applied: 5, held: Held::Unknown },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for message in messages() {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }

    /// Every bit of every message flipped, every length cut: refused, or another message that can be written.
    #[test]
    fn damaged_messages_do_no_harm() {
        for message in messages() {
            let bytes = encode(&message);
            for position in 0..bytes.len() {
                assert!(decode(&bytes.slice(..position)).is_err());
                for bit in 0..8 {
                    let mut damaged = bytes.to_vec();
                    damaged[position] ^= 1 << bit;
                    if let Ok(read) = decode(&damaged.into()) {
                        decode(&encode(&read)).unwrap();
                    }
                }
            }
        }
    }
}
