//! Commands: the payloads of log entries. Also the encoding of operations between nodes.
//!
//! A command is a version (1), a kind, and the fields of the kind; see [`Command::encode`]. A write names its
//! keyspace: a byte string that is empty for the default keyspace. A name that is not valid makes the command
//! malformed, and a keyspace that does not exist makes it refused, on every replica alike. CRDT stores are
//! not part of the log.

use bytes::{BufMut, Bytes, BytesMut};

use crate::request::codec::{self, DecodeError, Decoder};
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{
    self, COMMAND_LEN_MAX, KEY_LEN_MAX, KEYSPACE_NAME_LEN_MAX, TRANSACTION_OPERATIONS_MAX, VALUE_LEN_MAX,
};
use crate::request::member::MemberChange;
use crate::request::operation::{
    Action, Condition, Consistency, Expect, Mutation, Operation, Query, RangeQuery, SnapshotId, Transaction,
};
use crate::request::revision::Revision;

/// The version of the formats of this module.
pub const COMMAND_VERSION: u8 = 1;
/// The kind of a change of the member table.
const MEMBER_KIND: u8 = 5;

/// One command of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Opens a session, whose id is the log index of this command.
    OpenSession,
    /// Marks a session as used, so that others are forgotten before it.
    KeepSession {
        /// The session.
        session: u64,
    },
    /// Forgets a session and its outcomes.
    CloseSession {
        /// The session.
        session: u64,
    },
    /// A write. With a request id it is applied once however often it is in the log; without one it is
    /// applied each time.
    Write {
        /// The session of the client, and the number of the write in it.
        request_id: Option<RequestId>,
        /// The keyspace that is written.
        keyspace: KeyspaceName,
        /// The change.
        mutation: Mutation,
    },
    /// A change of the member table. Members propose it; no operation of a client becomes one.
    Member(MemberChange),
}

/// Identifies a write, so that a retried one is applied once: Ongaro, "Consensus: Bridging Theory and
/// Practice" §6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// The session, from [`Outcome::SessionOpened`](crate::Outcome::SessionOpened).
    pub session: u64,
    /// The number of this write within the session, from 1. The same number is the same write.
    pub sequence: u64,
    /// The client has the answers to all of its writes below this number; the store may forget them.
    pub acknowledged_below: u64,
}

impl Command {
    /// The bytes to propose.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Command::OpenSession => Bytes::from_static(&[COMMAND_VERSION, 0]),
            Command::KeepSession { session } => session_command(1, *session),
            Command::CloseSession { session } => session_command(2, *session),
            Command::Member(change) => {
                let mut to = BytesMut::with_capacity(64);
                to.put_u8(COMMAND_VERSION);
                to.put_u8(MEMBER_KIND);
                change.encode(&mut to);
                to.freeze()
            }
            Command::Write { request_id, keyspace, mutation } => {
                Command::encode_write(*request_id, keyspace, mutation)
            }
        }
    }

    /// The bytes of a write, without a [`Command`] in between.
    #[must_use]
    pub fn encode_write(
        request_id: Option<RequestId>,
        keyspace: &KeyspaceName,
        mutation: &Mutation,
    ) -> Bytes {
        let mut to = BytesMut::with_capacity(48 + keyspace.as_bytes().len() + mutation_len(mutation));
        to.put_u8(COMMAND_VERSION);
        match request_id {
            None => to.put_u8(3),
            Some(RequestId { session, sequence, acknowledged_below }) => {
                to.put_u8(4);
                codec::put_u64(&mut to, session);
                codec::put_u64(&mut to, sequence);
                codec::put_u64(&mut to, acknowledged_below);
            }
        }
        codec::put_bytes(&mut to, keyspace.as_bytes());
        put_mutation(&mut to, mutation);
        to.freeze()
    }

    /// Reads what [`Command::encode`] wrote. Keys and values are slices of `payload`, not copies.
    ///
    /// # Errors
    /// When the bytes are not exactly one command of a known version within the limits.
    pub fn decode(payload: &Bytes) -> Result<Command, DecodeError> {
        if payload.len() > COMMAND_LEN_MAX {
            let len = payload.len() as u64;
            return Err(DecodeError::TooLong { what: "command", len, max: COMMAND_LEN_MAX });
        }
        let mut from = Decoder::new(payload);
        version(&mut from)?;
        let command = match from.u8("kind of command")? {
            0 => Command::OpenSession,
            1 => Command::KeepSession { session: from.u64("session")? },
            2 => Command::CloseSession { session: from.u64("session")? },
            3 => {
                let (keyspace, mutation) = keyspace_and_mutation(&mut from)?;
                Command::Write { request_id: None, keyspace, mutation }
            }
            4 => {
                let request_id = RequestId {
                    session: from.u64("session")?,
                    sequence: from.u64("sequence")?,
                    acknowledged_below: from.u64("acknowledged sequence")?,
                };
                let (keyspace, mutation) = keyspace_and_mutation(&mut from)?;
                Command::Write { request_id: Some(request_id), keyspace, mutation }
            }
            MEMBER_KIND => Command::Member(MemberChange::decode(&mut from)?),
            tag => return Err(DecodeError::Tag { what: "kind of command", tag }),
        };
        from.finish()?;
        Ok(command)
    }
}

/// Whether `payload` is a command that only a member may propose by itself. A peer that sends one as the
/// write of a client is refused.
pub(crate) fn is_of_members(payload: &[u8]) -> bool {
    payload.starts_with(&[COMMAND_VERSION, MEMBER_KIND])
}

impl Operation {
    /// The bytes in which one node sends this operation to another.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u8(COMMAND_VERSION);
        match self {
            Operation::Read { keyspace, query, consistency } => {
                to.put_u8(match consistency {
                    Consistency::Linearizable => 0,
                    Consistency::Local => 1,
                });
                codec::put_bytes(&mut to, keyspace.as_bytes());
                put_query(&mut to, query);
            }
            Operation::Write { keyspace, mutation } => {
                to.reserve(32 + keyspace.as_bytes().len() + mutation_len(mutation));
                to.put_u8(2);
                codec::put_bytes(&mut to, keyspace.as_bytes());
                put_mutation(&mut to, mutation);
            }
        }
        to.freeze()
    }

    /// Reads what [`Operation::encode`] wrote. Keys and values are slices of `payload`, not copies.
    ///
    /// # Errors
    /// When the bytes are not exactly one operation of a known version within the limits.
    pub fn decode(payload: &Bytes) -> Result<Operation, DecodeError> {
        if payload.len() > COMMAND_LEN_MAX {
            let len = payload.len() as u64;
            return Err(DecodeError::TooLong { what: "operation", len, max: COMMAND_LEN_MAX });
        }
        let mut from = Decoder::new(payload);
        version(&mut from)?;
        let operation = match from.u8("kind of operation")? {
            kind @ (0 | 1) => {
                let keyspace = keyspace(&mut from)?;
                let query = query(&mut from)?;
                let consistency = if kind == 0 { Consistency::Linearizable } else { Consistency::Local };
                Operation::Read { keyspace, query, consistency }
            }
            2 => {
                let (keyspace, mutation) = keyspace_and_mutation(&mut from)?;
                Operation::Write { keyspace, mutation }
            }
            tag => return Err(DecodeError::Tag { what: "kind of operation", tag }),
        };
        from.finish()?;
        Ok(operation)
    }
}

fn session_command(kind: u8, session: u64) -> Bytes {
    let mut to = BytesMut::with_capacity(12);
    to.put_u8(COMMAND_VERSION);
    to.put_u8(kind);
    codec::put_u64(&mut to, session);
    to.freeze()
}

fn version(from: &mut Decoder<'_>) -> Result<(), DecodeError> {
    match from.u8("format version")? {
        COMMAND_VERSION => Ok(()),
        found => Err(DecodeError::Version { found }),
    }
}

fn keyspace(from: &mut Decoder<'_>) -> Result<KeyspaceName, DecodeError> {
    Ok(KeyspaceName::from_encoded(from.bytes("name of a keyspace", KEYSPACE_NAME_LEN_MAX)?)?)
}

fn put_query(to: &mut BytesMut, query: &Query) {
    match query {
        Query::Get { key } => {
            to.put_u8(0);
            codec::put_bytes(to, key);
        }
        Query::Range(range) => {
            to.put_u8(1);
            put_range(to, range);
        }
        Query::Scan { range, snapshot } => {
            to.put_u8(3);
            put_range(to, range);
            to.put_u8(snapshot.is_some().into());
            if let Some(SnapshotId { revision, number }) = snapshot {
                codec::put_u64(to, revision.get());
                codec::put_u64(to, *number);
            }
        }
        Query::Keyspaces => to.put_u8(2),
    }
}

fn put_range(to: &mut BytesMut, range: &RangeQuery) {
    codec::put_bytes(to, &range.start);
    match &range.end {
        None => to.put_u8(0),
        Some(end) => {
            to.put_u8(1);
            codec::put_bytes(to, end);
        }
    }
    codec::put_u64(to, range.limit.into());
    to.put_u8(range.reverse.into());
}

fn range(from: &mut Decoder<'_>) -> Result<RangeQuery, DecodeError> {
    Ok(RangeQuery {
        start: from.bytes("start of a range", KEY_LEN_MAX + 1)?,
        end: from
            .bool("presence of the end of a range")?
            .then(|| from.bytes("end of a range", KEY_LEN_MAX + 1))
            .transpose()?,
        limit: u32::try_from(from.len("limit of a range", limits::RANGE_ENTRIES_MAX as usize)?)
            .unwrap_or(limits::RANGE_ENTRIES_MAX),
        reverse: from.bool("direction of a range")?,
    })
}

fn query(from: &mut Decoder<'_>) -> Result<Query, DecodeError> {
    let query = match from.u8("kind of query")? {
        0 => Query::Get { key: key(from)? },
        1 => Query::Range(range(from)?),
        3 => {
            let range = range(from)?;
            let snapshot = match from.bool("presence of a snapshot")? {
                true => {
                    let revision = Revision::new(from.u64("revision")?);
                    Some(SnapshotId { revision, number: from.u64("snapshot")? })
                }
                false => None,
            };
            Query::Scan { range, snapshot }
        }
        2 => Query::Keyspaces,
        tag => return Err(DecodeError::Tag { what: "kind of query", tag }),
    };
    limits::check_query(&query)?;
    Ok(query)
}

/// Roughly how long the encoding gets, to allocate once.
fn mutation_len(mutation: &Mutation) -> usize {
    let expect_len = |expect: &Expect| if let Expect::Value(value) = expect { value.len() + 8 } else { 12 };
    match mutation {
        Mutation::Put { key, value } => key.len() + value.len(),
        Mutation::Delete { key } => key.len(),
        Mutation::CreateKeyspace | Mutation::DropKeyspace => 0,
        Mutation::CompareAndSwap { key, expect, value } => key.len() + value.len() + expect_len(expect),
        Mutation::Transaction(transaction) => {
            let conditions =
                transaction.conditions.iter().map(|it| it.key.len() + expect_len(&it.expect)).sum::<usize>();
            let actions = transaction.actions.iter().chain(&transaction.alternatives);
            let actions = actions.map(|action| match action {
                Action::Get { key } | Action::Delete { key } => key.len() + 8,
                Action::Put { key, value } => key.len() + value.len() + 8,
            });
            conditions + actions.sum::<usize>()
        }
    }
}

fn put_mutation(to: &mut BytesMut, mutation: &Mutation) {
    match mutation {
        Mutation::Put { key, value } => {
            to.put_u8(0);
            codec::put_bytes(to, key);
            codec::put_bytes(to, value);
        }
        Mutation::Delete { key } => {
            to.put_u8(1);
            codec::put_bytes(to, key);
        }
        Mutation::CompareAndSwap { key, expect, value } => {
            to.put_u8(2);
            codec::put_bytes(to, key);
            put_expect(to, expect);
            codec::put_bytes(to, value);
        }
        Mutation::CreateKeyspace => to.put_u8(4),
        Mutation::DropKeyspace => to.put_u8(5),
        Mutation::Transaction(transaction) => {
            to.put_u8(3);
            codec::put_u64(to, transaction.conditions.len() as u64);
            for Condition { key, expect } in &transaction.conditions {
                codec::put_bytes(to, key);
                put_expect(to, expect);
            }
            for actions in [&transaction.actions, &transaction.alternatives] {
                codec::put_u64(to, actions.len() as u64);
                for action in actions {
                    put_action(to, action);
                }
            }
        }
    }
}

fn put_expect(to: &mut BytesMut, expect: &Expect) {
    match expect {
        Expect::Absent => to.put_u8(0),
        Expect::Value(value) => {
            to.put_u8(1);
            codec::put_bytes(to, value);
        }
        Expect::Revision(revision) => {
            to.put_u8(2);
            codec::put_u64(to, revision.get());
        }
    }
}

fn put_action(to: &mut BytesMut, action: &Action) {
    match action {
        Action::Get { key } => {
            to.put_u8(0);
            codec::put_bytes(to, key);
        }
        Action::Put { key, value } => {
            to.put_u8(1);
            codec::put_bytes(to, key);
            codec::put_bytes(to, value);
        }
        Action::Delete { key } => {
            to.put_u8(2);
            codec::put_bytes(to, key);
        }
    }
}

fn keyspace_and_mutation(from: &mut Decoder<'_>) -> Result<(KeyspaceName, Mutation), DecodeError> {
    let keyspace = keyspace(from)?;
    let mutation = match from.u8("kind of write")? {
        0 => Mutation::Put { key: key(from)?, value: value(from)? },
        1 => Mutation::Delete { key: key(from)? },
        2 => Mutation::CompareAndSwap { key: key(from)?, expect: expect(from)?, value: value(from)? },
        3 => {
            let conditions = list(from, |from| Ok(Condition { key: key(from)?, expect: expect(from)? }))?;
            let actions = list(from, action)?;
            let alternatives = list(from, action)?;
            Mutation::Transaction(Transaction { conditions, actions, alternatives })
        }
        4 => Mutation::CreateKeyspace,
        5 => Mutation::DropKeyspace,
        tag => return Err(DecodeError::Tag { what: "kind of write", tag }),
    };
    limits::check_mutation(&keyspace, &mutation)?;
    Ok((keyspace, mutation))
}

fn list<T>(
    from: &mut Decoder<'_>,
    mut item: impl FnMut(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = from.len("count of operations", TRANSACTION_OPERATIONS_MAX)?;
    (0..count).map(|_| item(from)).collect()
}

fn action(from: &mut Decoder<'_>) -> Result<Action, DecodeError> {
    match from.u8("kind of action")? {
        0 => Ok(Action::Get { key: key(from)? }),
        1 => Ok(Action::Put { key: key(from)?, value: value(from)? }),
        2 => Ok(Action::Delete { key: key(from)? }),
        tag => Err(DecodeError::Tag { what: "kind of action", tag }),
    }
}

fn expect(from: &mut Decoder<'_>) -> Result<Expect, DecodeError> {
    match from.u8("kind of expectation")? {
        0 => Ok(Expect::Absent),
        1 => Ok(Expect::Value(value(from)?)),
        2 => Ok(Expect::Revision(Revision::new(from.u64("revision")?))),
        tag => Err(DecodeError::Tag { what: "kind of expectation", tag }),
    }
}

fn key(from: &mut Decoder<'_>) -> Result<Bytes, DecodeError> {
    from.bytes("key", KEY_LEN_MAX)
}

fn value(from: &mut Decoder<'_>) -> Result<Bytes, DecodeError> {
    from.bytes("value", VALUE_LEN_MAX)
}
