//! What is asked of a CRDT keyspace.

use bytes::Bytes;
use x0_crdt::VALUE_LEN_MAX;

use crate::request::error::OperationError;
use crate::request::limits::{self, LimitError};
use crate::request::operation::{Mutation, Operation, Query, RangeQuery};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Read(Read),
    Write(Write),
}

/// Answered from what this node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    Get { key: Bytes },
    Siblings { key: Bytes },
    Counter { key: Bytes },
    Range(RangeQuery),
}

/// Done when it is in this node's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    Put { key: Bytes, value: Bytes },
    Add { key: Bytes, amount: i64 },
    Delete { key: Bytes },
}

impl Request {
    /// An operation in terms of this keyspace.
    pub(crate) fn new(operation: Operation) -> Result<Request, OperationError> {
        Ok(match operation {
            Operation::Read { query: Query::Get { key }, .. } => Request::Read(Read::Get { key }),
            Operation::Read { query: Query::Range(range), .. } => Request::Read(Read::Range(range)),
            Operation::Write(Mutation::Put { key, value }) => Request::Write(Write::Put { key, value }),
            Operation::Write(Mutation::Delete { key }) => Request::Write(Write::Delete { key }),
            Operation::Write(Mutation::CompareAndSwap { .. }) => {
                return Err(OperationError::Unsupported { what: "compare-and-swap" });
            }
            Operation::Write(Mutation::Transaction(_)) => {
                return Err(OperationError::Unsupported { what: "a transaction" });
            }
        })
    }

    pub(crate) fn check(&self) -> Result<(), LimitError> {
        match self {
            Request::Read(Read::Range(range)) => limits::check_range(range),
            Request::Read(Read::Get { key } | Read::Siblings { key } | Read::Counter { key })
            | Request::Write(Write::Add { key, .. } | Write::Delete { key }) => limits::check_key(key),
            Request::Write(Write::Put { key, value }) => {
                limits::check_key(key)?;
                match value.len() {
                    len if len > VALUE_LEN_MAX => Err(LimitError::CrdtValueTooLong { len }),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// How requests and answers travel between a client and a member.
///
/// A message is a version (1), what it is (0 a request, 1 an answer, 2 a failure), the asker's number, and the fields. Integers and
/// byte strings are those of the other formats of this crate.
#[cfg(feature = "mesh")]
pub(crate) mod wire {
    use bytes::{BufMut, Bytes, BytesMut};

    use super::{Read, Request, Write};
    use crate::request::applied::{decode_applied, encode_applied};
    use crate::request::codec::{self, DecodeError, Decoder};
    use crate::request::error::OperationError;
    use crate::request::limits::{KEY_LEN_MAX, OUTCOME_LEN_MAX, VALUE_LEN_MAX};
    use crate::request::operation::RangeQuery;
    use crate::request::outcome::Outcome;

    const VERSION: u8 = 1;

    /// A message.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) enum Message {
        Request { number: u64, request: Request },
        Answer { number: u64, result: Result<Outcome, Failure> },
    }

    /// Why there is no answer.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Failure {
        /// The member has no such keyspace, or does not understand the request.
        Unsupported,
        /// It has too much to do.
        Overloaded,
        /// It stops or has failed.
        Closed,
    }

    impl Failure {
        pub(crate) fn of(error: &OperationError) -> Failure {
            match error {
                OperationError::Overloaded => Failure::Overloaded,
                OperationError::Closed | OperationError::Failed { .. } => Failure::Closed,
                _ => Failure::Unsupported,
            }
        }

        pub(crate) fn error(self) -> OperationError {
            match self {
                Failure::Unsupported => OperationError::Unsupported { what: "this" },
                Failure::Overloaded => OperationError::Overloaded,
                Failure::Closed => OperationError::TimedOut { ambiguous: true },
            }
        }
    }

    pub(crate) fn encode(message: &Message) -> Bytes {
        let mut to = BytesMut::with_capacity(64);
        to.put_u8(VERSION);
        match message {
            Message::Request { number, request } => {
                to.put_u8(0);
                codec::put_u64(&mut to, *number);
                put_request(&mut to, request);
            }
            Message::Answer { number, result: Ok(outcome) } => {
                to.put_u8(1);
                codec::put_u64(&mut to, *number);
                codec::put_bytes(&mut to, &encode_applied(&Ok(outcome.clone())));
            }
            Message::Answer { number, result: Err(failure) } => {
                to.put_u8(2);
                codec::put_u64(&mut to, *number);
                to.put_u8(match failure {
                    Failure::Unsupported => 0,
                    Failure::Overloaded => 1,
                    Failure::Closed => 2,
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
        };
        to.put_u8(tag);
        match request {
            Request::Read(Read::Get { key } | Read::Siblings { key } | Read::Counter { key })
            | Request::Write(Write::Delete { key }) => codec::put_bytes(to, key),
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
        }
    }

    /// Reads a message.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Message, DecodeError> {
        let mut from = Decoder::new(bytes);
        let found = from.u8("version of a message")?;
        if found != VERSION {
            return Err(DecodeError::Version { found });
        }
        let kind = from.u8("kind of message")?;
        let number = from.u64("number of a request")?;
        let message = match kind {
            0 => Message::Request { number, request: request(&mut from)? },
            1 => {
                let applied = decode_applied(&from.bytes("answer", OUTCOME_LEN_MAX)?)?;
                // A refusal is the log's, and has no business here.
                let result = applied.map_err(|_| Failure::Unsupported);
                Message::Answer { number, result }
            }
            2 => {
                let failure = match from.u8("failure")? {
                    0 => Failure::Unsupported,
                    1 => Failure::Overloaded,
                    2 => Failure::Closed,
                    tag => return Err(DecodeError::Tag { what: "failure", tag }),
                };
                Message::Answer { number, result: Err(failure) }
            }
            tag => return Err(DecodeError::Tag { what: "kind of message", tag }),
        };
        from.finish()?;
        Ok(message)
    }

    fn request(from: &mut Decoder<'_>) -> Result<Request, DecodeError> {
        let tag = from.u8("kind of request")?;
        let key = from.bytes("key", KEY_LEN_MAX + 1)?;
        let request = match tag {
            0 => Request::Read(Read::Get { key }),
            1 => Request::Read(Read::Siblings { key }),
            2 => Request::Read(Read::Counter { key }),
            3 => {
                let end = match from.bool("presence of an end")? {
                    true => Some(from.bytes("end", KEY_LEN_MAX + 1)?),
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
            tag => return Err(DecodeError::Tag { what: "kind of request", tag }),
        };
        request.check()?;
        Ok(request)
    }
}

#[cfg(all(test, feature = "mesh"))]
mod tests {
    use bytes::Bytes;

    use super::wire::{Failure, Message, decode, encode};
    use super::{Read, Request, Write};
    use crate::request::operation::RangeQuery;
    use crate::request::outcome::{Outcome, Page, Versioned};

    fn messages() -> Vec<Message> {
        let key = Bytes::from_static(b"key");
        let value = Versioned { value: Bytes::from_static(b"value"), revision: u64::MAX };
        let requests = [
            Request::Read(Read::Get { key: key.clone() }),
            Request::Read(Read::Siblings { key: key.clone() }),
            Request::Read(Read::Counter { key: key.clone() }),
            Request::Read(Read::Range(RangeQuery::prefix("a/").limit(7).reverse())),
            Request::Read(Read::Range(RangeQuery::all())),
            Request::Write(Write::Put { key: key.clone(), value: Bytes::new() }),
            Request::Write(Write::Add { key: key.clone(), amount: i64::MIN }),
            Request::Write(Write::Delete { key }),
        ];
        let results = [
            Ok(Outcome::Value(Some(value.clone()))),
            Ok(Outcome::Siblings(vec![value.clone(), value])),
            Ok(Outcome::Counter(-1)),
            Ok(Outcome::Page(Page::default())),
            Err(Failure::Unsupported),
            Err(Failure::Overloaded),
            Err(Failure::Closed),
        ];
        let requests = requests.map(|request| Message::Request { number: 300, request });
        let results = results.map(|result| Message::Answer { number: 0, result });
        requests.into_iter().chain(results).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for message in messages() {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    }

    /// Every byte of every message damaged in every bit, every length cut: refused, or another message that can be written.
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
                        assert_eq!(decode(&encode(&read)), Ok(read));
                    }
                }
            }
        }
    }

    /// Random bytes behind the head of a message.
    #[test]
    fn random_messages_do_no_harm() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).to_le_bytes()[0]
        };
        for _ in 0..100_000 {
            let len = usize::from(random() % 64);
            let mut bytes = vec![1, random() % 3];
            bytes.extend((0..len).map(|_| random() % 12));
            if let Ok(read) = decode(&bytes.into()) {
                assert_eq!(decode(&encode(&read)), Ok(read));
            }
        }
    }

    #[test]
    fn what_breaks_a_limit_is_refused() {
        let long = Request::Write(Write::Put { key: "key".into(), value: vec![0; 65_537].into() });
        let empty = Request::Read(Read::Get { key: Bytes::new() });
        let page = Request::Read(Read::Range(RangeQuery::all().limit(0)));
        for request in [long, empty, page] {
            assert!(decode(&encode(&Message::Request { number: 1, request })).is_err());
        }
    }
}
