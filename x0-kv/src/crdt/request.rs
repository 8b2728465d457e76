//! Requests to a CRDT store, and their encoding between a client and a member.
//!
//! Keys are those of the map: the qualifier of the keyspace, then the key of the caller
//! ([`KeyspaceName::qualify`](crate::KeyspaceName)).

use bytes::Bytes;

use super::limits::{self, CrdtLimitError};
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::RangeQuery;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Read(Read),
    Write(Write),
}

/// Answered from the state of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    Get { key: Bytes },
    Siblings { key: Bytes },
    Counter { key: Bytes },
    Range(RangeQuery),
    Keyspaces,
}

/// Done when it is in the journal of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Add {
        key: Bytes,
        amount: i64,
    },
    Delete {
        key: Bytes,
    },
    /// Removes the key if its values are those of these times, and no others.
    DeleteSeen {
        key: Bytes,
        seen: Vec<u64>,
    },
    /// Removes some of the keys that begin with `prefix`.
    Clear {
        prefix: Bytes,
    },
}

/// Splits a key of the map into the name of its keyspace and the key of the caller. `None` if it begins with
/// no valid name.
pub(crate) fn split(key: &Bytes) -> Option<(KeyspaceName, Bytes)> {
    let len = 1 + usize::from(*key.first()?);
    if key.len() < len {
        return None;
    }
    let name = KeyspaceName::from_encoded(key.slice(1..len)).ok()?;
    Some((name, key.slice(len..)))
}

impl Request {
    /// Checks a request of another node, which a client of this version has checked before it sent it.
    #[cfg_attr(
        not(feature = "mesh"),
        allow(dead_code, reason = "requests come from other nodes over a mesh")
    )]
    pub(crate) fn check(&self) -> Result<(), CrdtLimitError> {
        match self {
            Request::Read(Read::Keyspaces) => Ok(()),
            Request::Read(Read::Range(range)) => {
                let mut inner = range.clone();
                inner.start = inner_key(&range.start)?;
                // The end may lie after every key of the keyspace, where no keyspace needs to begin.
                inner.end = None;
                if range.end.as_ref().is_some_and(|end| end.len() > x0_crdt::KEY_LEN_MAX + 1) {
                    return Err(CrdtLimitError::KeyTooLong { len: x0_crdt::KEY_LEN_MAX + 2 });
                }
                limits::check_range(&inner)
            }
            Request::Write(Write::Clear { prefix }) => inner_key(prefix).map(drop),
            Request::Read(Read::Get { key } | Read::Siblings { key } | Read::Counter { key })
            | Request::Write(Write::Add { key, .. } | Write::Delete { key }) => {
                limits::check_key(&inner_key(key)?)
            }
            Request::Write(Write::DeleteSeen { key, seen }) => {
                limits::check_key(&inner_key(key)?)?;
                limits::check_seen(seen)
            }
            Request::Write(Write::Put { key, value }) => {
                limits::check_key(&inner_key(key)?)?;
                limits::check_value(value)
            }
        }
    }
}

/// The caller's part of a key of the map. A key of no keyspace counts as empty.
fn inner_key(key: &Bytes) -> Result<Bytes, CrdtLimitError> {
    split(key).map(|(_, key)| key).ok_or(CrdtLimitError::KeyEmpty)
}

/// The messages between a client and a member.
///
/// A message is a version (1, or 2 for a request with a trace context), a kind (0 request, 1 answer, 2
/// failure), the number that the client gave the request, the context in version 2, and the fields of the
/// kind. Integers and byte strings have the encoding of the other formats of this crate.
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "other members are reached over a mesh"))]
pub(crate) mod wire {
    use bytes::{BufMut, Bytes, BytesMut};

    use super::{Read, Request, Write};
    use crate::crdt::codec::{outcome, put_outcome};
    use crate::crdt::limits::{SEEN_MAX, VALUE_LEN_MAX};
    use crate::crdt::outcome::CrdtOutcome;
    use crate::request::codec::{self, DecodeError, Decoder};
    use crate::request::error::OperationError;
    use crate::request::operation::RangeQuery;
    use crate::trace::Context;

    /// Longest key of the map, or continuation of a range of it.
    const KEY_LEN_MAX: usize = x0_crdt::KEY_LEN_MAX + 1;

    const VERSION: u8 = 1;
    /// The version of requests with a trace context, for members that speak it: see [`VERSIONS`].
    const VERSION_TRACED: u8 = 2;
    /// The versions that this release speaks.
    pub(crate) const VERSIONS: std::ops::RangeInclusive<u16> = 1..=2;

    /// A message.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum Message {
        Request { number: u64, trace: Option<Context>, request: Request },
        Answer { number: u64, result: Result<CrdtOutcome, Failure> },
    }

    /// Why there is no answer.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Failure {
        /// The member has no such keyspace, or does not understand the request.
        Unsupported,
        /// The member is overloaded.
        Overloaded,
        /// The member stops.
        Closed,
        /// The disk of the member has no space for a write.
        NoSpace,
        /// The member has failed.
        Failed,
    }

    impl Failure {
        pub(crate) fn of(error: &OperationError) -> Failure {
            match error {
                OperationError::Overloaded => Failure::Overloaded,
                OperationError::Closed => Failure::Closed,
                OperationError::NoSpace { .. } => Failure::NoSpace,
                OperationError::Failed { .. } => Failure::Failed,
                _ => Failure::Unsupported,
            }
        }

        pub(crate) fn error(self) -> OperationError {
            match self {
                Failure::Unsupported => OperationError::Unsupported { what: "this" },
                Failure::Overloaded => OperationError::Overloaded,
                Failure::Closed => OperationError::TimedOut { ambiguous: true },
                Failure::NoSpace => OperationError::NoSpace { ambiguous: false },
                Failure::Failed => {
                    OperationError::failed("the journal of the member failed: its log has the cause")
                }
            }
        }
    }

    pub(crate) fn encode(message: &Message) -> Bytes {
        let mut to = BytesMut::with_capacity(64);
        let trace = match message {
            Message::Request { trace, .. } => trace.as_ref(),
            Message::Answer { .. } => None,
        };
        to.put_u8(if trace.is_some() { VERSION_TRACED } else { VERSION });
        match message {
            Message::Request { number, request, .. } => {
                to.put_u8(0);
                codec::put_u64(&mut to, *number);
                if let Some(trace) = trace {
                    to.put_slice(&trace.to_bytes());
                }
                put_request(&mut to, request);
            }
            Message::Answer { number, result: Ok(outcome) } => {
                to.put_u8(1);
                codec::put_u64(&mut to, *number);
                put_outcome(&mut to, outcome);
            }
            Message::Answer { number, result: Err(failure) } => {
                to.put_u8(2);
                codec::put_u64(&mut to, *number);
                to.put_u8(match failure {
                    Failure::Unsupported => 0,
                    Failure::Overloaded => 1,
                    Failure::Closed => 2,
                    Failure::NoSpace => 3,
                    Failure::Failed => 4,
                });
            }
        }
        to.freeze()
    }

    fn put_request(to: &mut BytesMut, request: &Request) {
        let tag = match request {
            Request::Read(Read::Get { .. }) => 0,
            Request::Read(Read::Siblings { .. }) => 1,
            Request::Read(Read::Counter { .. }) => 2,
            Request::Read(Read::Range(_)) => 3,
            Request::Write(Write::Put { .. }) => 4,
            Request::Write(Write::Add { .. }) => 5,
            Request::Write(Write::Delete { .. }) => 6,
            Request::Read(Read::Keyspaces) => 7,
            Request::Write(Write::Clear { .. }) => 8,
            Request::Write(Write::DeleteSeen { .. }) => 9,
        };
        to.put_u8(tag);
        match request {
            Request::Read(Read::Get { key } | Read::Siblings { key } | Read::Counter { key })
            | Request::Write(Write::Delete { key } | Write::Clear { prefix: key }) => {
                codec::put_bytes(to, key);
            }
            Request::Read(Read::Keyspaces) => codec::put_bytes(to, &[]),
            Request::Read(Read::Range(RangeQuery { start, end, limit, reverse })) => {
                codec::put_bytes(to, start);
                to.put_u8(end.is_some().into());
                if let Some(end) = end {
                    codec::put_bytes(to, end);
                }
                codec::put_u64(to, u64::from(*limit));
                to.put_u8((*reverse).into());
            }
            Request::Write(Write::Put { key, value }) => {
                codec::put_bytes(to, key);
                codec::put_bytes(to, value);
            }
            Request::Write(Write::Add { key, amount }) => {
                codec::put_bytes(to, key);
                codec::put_u64(to, amount.cast_unsigned());
            }
            Request::Write(Write::DeleteSeen { key, seen }) => {
                codec::put_bytes(to, key);
                codec::put_u64(to, seen.len() as u64);
                seen.iter().for_each(|time| codec::put_u64(to, *time));
            }
        }
    }

    /// Reads a message.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Message, DecodeError> {
        let mut from = Decoder::new(bytes);
        let found = from.u8("version of a message")?;
        if ![VERSION, VERSION_TRACED].contains(&found) {
            return Err(DecodeError::Version { found });
        }
        let kind = from.u8("kind of message")?;
        let number = from.u64("number of a request")?;
        let trace = match found == VERSION_TRACED {
            true => Some(context(&mut from)?),
            false => None,
        };
        let message = match kind {
            0 => Message::Request { number, trace, request: request(&mut from)? },
            // Only requests have a context.
            _ if trace.is_some() => return Err(DecodeError::Version { found }),
            1 => Message::Answer { number, result: Ok(outcome(&mut from)?) },
            2 => {
                let failure = match from.u8("failure")? {
                    0 => Failure::Unsupported,
                    1 => Failure::Overloaded,
                    2 => Failure::Closed,
                    3 => Failure::NoSpace,
                    4 => Failure::Failed,
                    tag => return Err(DecodeError::Tag { what: "failure", tag }),
                };
                Message::Answer { number, result: Err(failure) }
            }
            tag => return Err(DecodeError::Tag { what: "kind of message", tag }),
        };
        from.finish()?;
        Ok(message)
    }

    fn context(from: &mut Decoder<'_>) -> Result<Context, DecodeError> {
        let mut bytes = [0; Context::LEN];
        for byte in &mut bytes {
            *byte = from.u8("trace context")?;
        }
        Context::from_bytes(&bytes).ok_or(DecodeError::Integer { what: "trace context" })
    }

    fn request(from: &mut Decoder<'_>) -> Result<Request, DecodeError> {
        let tag = from.u8("kind of request")?;
        let key = from.bytes("key", KEY_LEN_MAX)?;
        let request = match tag {
            0 => Request::Read(Read::Get { key }),
            1 => Request::Read(Read::Siblings { key }),
            2 => Request::Read(Read::Counter { key }),
            3 => {
                let end = match from.bool("presence of an end")? {
                    true => Some(from.bytes("end", KEY_LEN_MAX)?),
                    false => None,
                };
                let found = from.u64("limit")?;
                let limit = u32::try_from(found).map_err(|_| DecodeError::Integer { what: "limit" })?;
                let reverse = from.bool("direction")?;
                Request::Read(Read::Range(RangeQuery { start: key, end, limit, reverse }))
            }
            4 => Request::Write(Write::Put { key, value: from.bytes("value", VALUE_LEN_MAX)? }),
            5 => Request::Write(Write::Add { key, amount: from.u64("amount")?.cast_signed() }),
            6 => Request::Write(Write::Delete { key }),
            7 if key.is_empty() => Request::Read(Read::Keyspaces),
            8 => Request::Write(Write::Clear { prefix: key }),
            9 => {
                let count = from.len("count of times", SEEN_MAX)?;
                let seen = (0..count).map(|_| from.u64("time of a value")).collect::<Result<_, _>>()?;
                Request::Write(Write::DeleteSeen { key, seen })
            }
            tag => return Err(DecodeError::Tag { what: "kind of request", tag }),
        };
        request.check().map_err(DecodeError::from)?;
        Ok(request)
    }

    /// A decoded message is encoded and decoded to itself.
    #[cfg(fuzzing)]
    pub(crate) fn fuzz(message: &Bytes) {
        if let Ok(read) = decode(message) {
            assert_eq!(decode(&encode(&read)), Ok(read));
        }
    }
}

#[cfg(all(test, feature = "mesh"))]
mod tests {
    use bytes::Bytes;

    use super::wire::{Failure, Message, decode, encode};
    use super::{Read, Request, Write};
    use crate::crdt::limits::SEEN_MAX;
    use crate::crdt::outcome::{Cleared, CrdtEntry, CrdtOutcome, CrdtPage, CrdtValue, Timestamp};
    use crate::recorded::recorded;
    use crate::request::keyspace::KeyspaceName;
    use crate::request::operation::RangeQuery;
    use crate::trace::Context;

    #[test]
    fn a_removal_names_a_bounded_number_of_times() {
        let key = Bytes::from_static(b"\x05itemskey");
        for (count, is_allowed) in [(SEEN_MAX, true), (SEEN_MAX + 1, false)] {
            let request = Request::Write(Write::DeleteSeen { key: key.clone(), seen: vec![1; count] });
            assert_eq!(request.check().is_ok(), is_allowed);
            let bytes = encode(&Message::Request { number: 1, trace: None, request });
            assert_eq!(decode(&bytes).is_ok(), is_allowed);
        }
    }

    fn messages() -> Vec<Message> {
        let key = Bytes::from_static(b"\x05itemskey");
        let timestamp = Timestamp::from_bits(u64::MAX);
        let value = CrdtValue { value: Bytes::from_static(b"value"), timestamp };
        let entry = CrdtEntry { key: key.clone(), value: value.value.clone(), timestamp };
        let page = CrdtPage { entries: vec![entry], continuation: Some(key.clone()) };
        let items = KeyspaceName::new("items").unwrap_or_default();
        let requests = [
            Request::Read(Read::Get { key: key.clone() }),
            Request::Read(Read::Siblings { key: key.clone() }),
            Request::Read(Read::Counter { key: key.clone() }),
            Request::Read(Read::Range(RangeQuery::prefix("\x00a/").limit(7).reverse())),
            Request::Read(Read::Range(RangeQuery { start: "\x00".into(), ..RangeQuery::all() })),
            Request::Read(Read::Keyspaces),
            Request::Write(Write::Clear { prefix: "\x05items".into() }),
            Request::Write(Write::Put { key: key.clone(), value: Bytes::new() }),
            Request::Write(Write::Add { key: key.clone(), amount: i64::MIN }),
            Request::Write(Write::Delete { key: key.clone() }),
            Request::Write(Write::DeleteSeen { key, seen: vec![7, u64::MAX] }),
        ];
        let results = [
            Ok(CrdtOutcome::Value(Some(value.clone()))),
            Ok(CrdtOutcome::Value(None)),
            Ok(CrdtOutcome::Siblings(vec![value.clone(), value])),
            Ok(CrdtOutcome::Counter(-1)),
            Ok(CrdtOutcome::Page(CrdtPage::default())),
            Ok(CrdtOutcome::Page(page)),
            Ok(CrdtOutcome::Put(timestamp)),
            Ok(CrdtOutcome::Deleted(true)),
            Ok(CrdtOutcome::Keyspaces(vec![items])),
            Ok(CrdtOutcome::Cleared(Cleared { removed: 1024, is_done: false })),
            Err(Failure::Unsupported),
            Err(Failure::Overloaded),
            Err(Failure::Closed),
            Err(Failure::NoSpace),
            Err(Failure::Failed),
        ];
        let requests = requests.map(|request| Message::Request { number: 300, trace: None, request });
        let results = results.map(|result| Message::Answer { number: 0, result });
        requests.into_iter().chain(results).collect()
    }

    #[test]
    fn recorded_messages_mean_what_they_meant() {
        let encoded: Vec<Bytes> = messages().iter().map(encode).collect();
        for (message, made) in recorded("crdt_operations.hex", &encoded).iter().zip(messages()) {
            assert_eq!(decode(message), Ok(made));
        }
    }

    /// The same requests with a context, which those of the first version have not.
    fn traced() -> Vec<Message> {
        let trace = Context::new([7; 16], [8; 8], 1);
        let traced = messages().into_iter().filter_map(|message| match message {
            Message::Request { number, request, .. } => Some(Message::Request { number, trace, request }),
            Message::Answer { .. } => None,
        });
        traced.collect()
    }

    #[test]
    fn encoded_messages_are_decoded() {
        for message in messages().into_iter().chain(traced()) {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
        assert!(messages().iter().all(|message| encode(message)[0] == 1), "as before there were traces");
        // An answer has no context.
        let mut answer = encode(&traced()[0]).to_vec();
        answer[1] = 1;
        assert!(decode(&answer.into()).is_err());
    }

    /// Every byte of every message damaged in every bit, every length cut: refused, or another message that
    /// can be written.
    #[test]
    fn damaged_messages_do_no_harm() {
        for message in messages().into_iter().chain(traced()) {
            let bytes = encode(&message);
            for position in 0..bytes.len() {
                assert!(decode(&bytes.slice(..position)).is_err());
                for bit in 0..8 {
                    let mut damaged = bytes.to_vec();
                    damaged[position] ^= 1 << bit;
                    if let Ok(read) = decode(&damaged.into()) {
                        assert_eq!(decode(&encode(&read)), Ok(read));
                    }
                }
            }
        }
    }

    /// Random bytes after the head of a message.
    #[test]
    fn random_messages_do_no_harm() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).to_le_bytes()[0]
        };
        for _ in 0..100_000 {
            let len = usize::from(random() % 64);
            let mut bytes = vec![1 + random() % 2, random() % 3];
            bytes.extend((0..len).map(|_| random() % 12));
            if let Ok(read) = decode(&bytes.into()) {
                assert_eq!(decode(&encode(&read)), Ok(read));
            }
        }
    }

    #[test]
    fn requests_beyond_a_limit_are_refused() {
        let long = Request::Write(Write::Put { key: "\x00key".into(), value: vec![0; 65_537].into() });
        let empty = Request::Read(Read::Get { key: Bytes::new() });
        let empty_inside = Request::Read(Read::Get { key: "\x01a".into() });
        let no_name = Request::Read(Read::Get { key: "\x04a key".into() });
        let cut = Request::Write(Write::Clear { prefix: "\x05item".into() });
        let page =
            Request::Read(Read::Range(RangeQuery { start: "\x00".into(), ..RangeQuery::all().limit(0) }));
        for request in [long, empty, empty_inside, no_name, cut, page] {
            assert!(decode(&encode(&Message::Request { number: 1, trace: None, request })).is_err());
        }
    }
}
