//! The bytes of commands, operations and outcomes: what is written is read back, and no bytes panic or
//! allocate beyond their own length.

#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::collection::vec;
use proptest::prelude::*;
use x0_identity::NodeId;
use x0_kv::{
    Action, ActionResult, Bytes, Command, Condition, Consistency, DecodeError, Expect, KeyValue,
    KeyspaceName, MemberChange, Mutation, Operation, Outcome, Page, Query, RangeQuery, Refusal, RequestId,
    Revision, ScanPage, SnapshotId, Swap, Transaction, TransactionOutcome, Versioned, decode_applied,
    encode_applied, limits,
};

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 1..9), vec(any::<u8>(), limits::KEY_LEN_MAX)].prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn named() -> impl Strategy<Value = KeyspaceName> {
    "[a-zA-Z0-9._/-]{1,127}".prop_map(|name| KeyspaceName::new(&name).unwrap_or_default())
}

fn keyspace() -> impl Strategy<Value = KeyspaceName> {
    prop_oneof![Just(KeyspaceName::DEFAULT), named()]
}

fn revision() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision::new)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![Just(Expect::Absent), value().prop_map(Expect::Value), revision().prop_map(Expect::Revision)]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        key().prop_map(|key| Action::Get { key }),
        (key(), value()).prop_map(|(key, value)| Action::Put { key, value }),
        key().prop_map(|key| Action::Delete { key }),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Mutation::Put { key, value }),
        key().prop_map(|key| Mutation::Delete { key }),
        (key(), expect(), value()).prop_map(|(key, expect, value)| Mutation::CompareAndSwap {
            key,
            expect,
            value
        }),
        (
            vec((key(), expect()).prop_map(|(key, expect)| Condition { key, expect }), 0..3),
            vec(action(), 0..4),
            vec(action(), 0..4)
        )
            .prop_map(|(conditions, actions, alternatives)| {
                Mutation::Transaction(Transaction { conditions, actions, alternatives })
            }),
    ]
}

fn request_id() -> impl Strategy<Value = Option<RequestId>> {
    proptest::option::of((any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(session, sequence, acknowledged_below)| RequestId { session, sequence, acknowledged_below },
    ))
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::OpenSession),
        any::<u64>().prop_map(|session| Command::KeepSession { session }),
        any::<u64>().prop_map(|session| Command::CloseSession { session }),
        (request_id(), keyspace(), mutation()).prop_map(|(request_id, keyspace, mutation)| Command::Write {
            request_id,
            keyspace,
            mutation
        }),
        (request_id(), named(), any::<bool>()).prop_map(|(request_id, keyspace, creates)| Command::Write {
            request_id,
            keyspace,
            mutation: if creates { Mutation::CreateKeyspace } else { Mutation::DropKeyspace },
        }),
        member_change().prop_map(Command::Member),
    ]
}

fn member_change() -> impl Strategy<Value = MemberChange> {
    let node = || (1..=u64::MAX).prop_map(|node| NodeId::new(node).unwrap());
    prop_oneof![
        (node(), vec("[!-~]{1,255}", 0..=limits::MEMBER_ADDRESSES_MAX))
            .prop_map(|(node, addresses)| MemberChange::Addresses { node, addresses }),
        node().prop_map(|node| MemberChange::Remove { node }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let query = prop_oneof![
        key().prop_map(|key| Query::Get { key }),
        (value(), proptest::option::of(value()), 1..=limits::RANGE_ENTRIES_MAX, any::<bool>())
            .prop_map(|(start, end, limit, reverse)| Query::Range(RangeQuery { start, end, limit, reverse })),
        Just(Query::Keyspaces),
        (value(), 1..=limits::RANGE_ENTRIES_MAX, proptest::option::of((revision(), any::<u64>()))).prop_map(
            |(start, limit, snapshot)| Query::Scan {
                range: RangeQuery { start, end: None, limit, reverse: false },
                snapshot: snapshot.map(|(revision, number)| SnapshotId { revision, number }),
            }
        ),
    ];
    prop_oneof![
        (keyspace(), query, any::<bool>()).prop_map(|(keyspace, query, local)| Operation::Read {
            keyspace,
            query,
            consistency: if local { Consistency::Local } else { Consistency::Linearizable },
        }),
        (keyspace(), mutation()).prop_map(|(keyspace, mutation)| Operation::Write { keyspace, mutation }),
    ]
}

fn versioned() -> impl Strategy<Value = Versioned> {
    (value(), revision()).prop_map(|(value, revision)| Versioned { value, revision })
}

fn applied() -> impl Strategy<Value = Result<Outcome, Refusal>> {
    let entry =
        (key(), value(), revision()).prop_map(|(key, value, revision)| KeyValue { key, value, revision });
    let result = prop_oneof![
        proptest::option::of(versioned()).prop_map(ActionResult::Value),
        Just(ActionResult::Put),
        any::<bool>().prop_map(|existed| ActionResult::Delete { existed }),
    ];
    prop_oneof![
        proptest::option::of(versioned()).prop_map(|value| Ok(Outcome::Value(value))),
        (vec(entry, 0..5), proptest::option::of(key()))
            .prop_map(|(entries, continuation)| Ok(Outcome::Page(Page { entries, continuation }))),
        revision().prop_map(|revision| Ok(Outcome::Put { revision })),
        any::<bool>().prop_map(|existed| Ok(Outcome::Delete { existed })),
        revision().prop_map(|revision| Ok(Outcome::CompareAndSwap(Swap::Swapped { revision }))),
        proptest::option::of(versioned())
            .prop_map(|current| Ok(Outcome::CompareAndSwap(Swap::Kept { current }))),
        (any::<bool>(), revision(), vec(result, 0..4)).prop_map(|(held, revision, results)| Ok(
            Outcome::Transaction(TransactionOutcome { held, revision, results })
        )),
        any::<u64>().prop_map(|session| Ok(Outcome::SessionOpened { session })),
        Just(Ok(Outcome::SessionKept)),
        Just(Err(Refusal::SessionExpired)),
        Just(Err(Refusal::SequenceAcknowledged)),
        Just(Err(Refusal::WindowExceeded)),
        Just(Err(Refusal::ResultTooLong)),
        Just(Err(Refusal::Malformed)),
        Just(Err(Refusal::KeyspaceMissing)),
        Just(Err(Refusal::SnapshotExpired)),
        (revision(), any::<u64>()).prop_map(|(revision, number)| {
            let page = Page { entries: Vec::new(), continuation: Some("next".into()) };
            Ok(Outcome::ScanPage(ScanPage { page, snapshot: SnapshotId { revision, number } }))
        }),
        Just(Err(Refusal::KeyspacesExceeded)),
        Just(Err(Refusal::MembersExceeded)),
        Just(Ok(Outcome::MemberChanged)),
        any::<bool>().prop_map(|is_new| Ok(Outcome::KeyspaceCreated { is_new })),
        any::<bool>().prop_map(|existed| Ok(Outcome::KeyspaceDropped { existed })),
        vec(named(), 0..4).prop_map(|names| Ok(Outcome::Keyspaces(names))),
    ]
}

/// Whatever the bytes, decoding returns; and what it accepts is the one encoding of what it returned.
fn check_any(bytes: &Bytes) {
    if let Ok(command) = Command::decode(bytes) {
        assert_eq!(command.encode(), bytes);
    }
    if let Ok(operation) = Operation::decode(bytes) {
        assert_eq!(operation.encode(), bytes);
    }
    if let Ok(applied) = decode_applied(bytes) {
        assert_eq!(encode_applied(&applied), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn commands_return(command in command()) {
        prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
    }

    #[test]
    fn operations_return(operation in operation()) {
        prop_assert_eq!(Operation::decode(&operation.encode()), Ok(operation));
    }

    #[test]
    fn outcomes_return(applied in applied()) {
        prop_assert_eq!(decode_applied(&encode_applied(&applied)), Ok(applied));
    }

    #[test]
    fn nothing_is_a_prefix_of_something_else(command in command(), cut in any::<prop::sample::Index>()) {
        let bytes = command.encode();
        prop_assert!(Command::decode(&bytes.slice(..cut.index(bytes.len()))).is_err());
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(Command::decode(&longer.into()).is_err());
    }

    #[test]
    fn mutations_do_no_harm(
        encoded in prop_oneof![
            command().prop_map(|command| command.encode()),
            operation().prop_map(|operation| operation.encode()),
            applied().prop_map(|applied| encode_applied(&applied)),
        ],
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encoded.to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            // Low numbers are tags and lengths: try them more often.
            bytes[at] = if byte < 128 { byte % 16 } else { byte };
        }
        check_any(&bytes.into());
    }

    #[test]
    fn noise_does_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        check_any(&bytes.into());
    }
}

#[test]
fn hostile_lengths_are_refused_before_anything_is_allocated() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let put = [&[1, 3, 0, 0][..], &huge].concat();
    assert!(matches!(Command::decode(&put.into()), Err(DecodeError::TooLong { what: "key", .. })));
    let transaction = [&[1, 3, 0, 3][..], &huge].concat();
    assert!(matches!(Command::decode(&transaction.into()), Err(DecodeError::TooLong { .. })));
    let page = [&[1][..], &huge].concat();
    assert!(matches!(decode_applied(&page.into()), Err(DecodeError::TooLong { .. })));
}

#[test]
fn invalid_commands_are_named() {
    assert_eq!(Command::decode(&Bytes::from_static(&[9, 0])), Err(DecodeError::Version { found: 9 }));
    // A keyspace whose name has a space in it, and the creation of the default one.
    let elsewhere = Bytes::from_static(&[1, 3, 3, b'a', b' ', b'b', 1, 1, b'k']);
    let invalid = |reason| Err(DecodeError::Limit(limits::LimitError::KeyspaceName { reason }));
    assert_eq!(Command::decode(&elsewhere), invalid("it contains another character"));
    let default = Bytes::from_static(&[1, 3, 0, 4]);
    assert_eq!(Command::decode(&default), invalid("the default keyspace is neither created nor dropped"));
    // The longer form of the length 1.
    let longer = Bytes::from_static(&[1, 3, 0, 1, 0x81, 0x00, b'k']);
    assert_eq!(Command::decode(&longer), Err(DecodeError::Integer { what: "key" }));
}

#[test]
fn limits_hold_at_their_edges() {
    let put = |key: usize, value: usize| {
        let mutation = Mutation::Put { key: vec![1; key].into(), value: vec![1; value].into() };
        let keyspace = KeyspaceName::DEFAULT;
        Command::decode(&Command::Write { request_id: None, keyspace, mutation }.encode()).is_ok()
    };
    assert!(put(1, 0) && put(limits::KEY_LEN_MAX, limits::VALUE_LEN_MAX));
    assert!(!put(0, 0) && !put(limits::KEY_LEN_MAX + 1, 0) && !put(1, limits::VALUE_LEN_MAX + 1));
    // The longest command that the limits allow fits the log entry that is promised for it.
    let chunk = (limits::TRANSACTION_LEN_MAX / limits::TRANSACTION_OPERATIONS_MAX) - limits::KEY_LEN_MAX;
    let mut transaction = Transaction::new();
    for _ in 0..limits::TRANSACTION_OPERATIONS_MAX {
        transaction = transaction.put(vec![1; limits::KEY_LEN_MAX], vec![1; chunk]);
    }
    let request_id = Some(RequestId { session: u64::MAX, sequence: u64::MAX, acknowledged_below: u64::MAX });
    let encoded = {
        let name = KeyspaceName::new(&"k".repeat(limits::KEYSPACE_NAME_LEN_MAX)).unwrap();
        Command::encode_write(request_id, &name, &Mutation::Transaction(transaction))
    };
    assert!(encoded.len() <= limits::COMMAND_LEN_MAX && Command::decode(&encoded).is_ok());
}
