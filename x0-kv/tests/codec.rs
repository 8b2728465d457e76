//! The bytes of commands, operations and outcomes: what is written is read back, and no bytes panic or allocate beyond
//! their own length.

use proptest::collection::vec;
use proptest::prelude::*;
use x0_kv::{
    Action, ActionResult, Bytes, Command, Condition, Consistency, DecodeError, Expect, KeyValue, Mutation,
    Operation, Outcome, Page, Query, RangeQuery, Refusal, Stamp, Swap, Transaction, TransactionOutcome,
    Versioned, decode_applied, encode_applied, limits,
};

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 1..9), vec(any::<u8>(), limits::KEY_LEN_MAX)].prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        value().prop_map(Expect::Value),
        any::<u64>().prop_map(Expect::Revision)
    ]
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

fn stamp() -> impl Strategy<Value = Option<Stamp>> {
    proptest::option::of(
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(session, sequence, acknowledged_below)| {
            Stamp { session, sequence, acknowledged_below }
        }),
    )
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::OpenSession),
        any::<u64>().prop_map(|session| Command::KeepSession { session }),
        any::<u64>().prop_map(|session| Command::CloseSession { session }),
        (stamp(), mutation()).prop_map(|(stamp, mutation)| Command::Write { stamp, mutation }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let query = prop_oneof![
        key().prop_map(|key| Query::Get { key }),
        (value(), proptest::option::of(value()), 1..=limits::RANGE_ENTRIES_MAX, any::<bool>())
            .prop_map(|(start, end, limit, reverse)| Query::Range(RangeQuery { start, end, limit, reverse })),
    ];
    prop_oneof![
        (query, any::<bool>()).prop_map(|(query, local)| Operation::Read {
            query,
            consistency: if local { Consistency::Local } else { Consistency::Linearizable },
        }),
        mutation().prop_map(Operation::Write),
    ]
}

fn versioned() -> impl Strategy<Value = Versioned> {
    (value(), any::<u64>()).prop_map(|(value, revision)| Versioned { value, revision })
}

fn applied() -> impl Strategy<Value = Result<Outcome, Refusal>> {
    let entry =
        (key(), value(), any::<u64>()).prop_map(|(key, value, revision)| KeyValue { key, value, revision });
    let result = prop_oneof![
        proptest::option::of(versioned()).prop_map(ActionResult::Value),
        Just(ActionResult::Put),
        any::<bool>().prop_map(|existed| ActionResult::Delete { existed }),
    ];
    prop_oneof![
        proptest::option::of(versioned()).prop_map(|value| Ok(Outcome::Value(value))),
        (vec(entry, 0..5), proptest::option::of(key()))
            .prop_map(|(entries, continuation)| Ok(Outcome::Page(Page { entries, continuation }))),
        any::<u64>().prop_map(|revision| Ok(Outcome::Put { revision })),
        any::<bool>().prop_map(|existed| Ok(Outcome::Delete { existed })),
        any::<u64>().prop_map(|revision| Ok(Outcome::CompareAndSwap(Swap::Swapped { revision }))),
        proptest::option::of(versioned())
            .prop_map(|current| Ok(Outcome::CompareAndSwap(Swap::Kept { current }))),
        (any::<bool>(), any::<u64>(), vec(result, 0..4)).prop_map(|(held, revision, results)| Ok(
            Outcome::Transaction(TransactionOutcome { held, revision, results })
        )),
        any::<u64>().prop_map(|session| Ok(Outcome::SessionOpened { session })),
        Just(Ok(Outcome::SessionKept)),
        Just(Err(Refusal::SessionExpired)),
        Just(Err(Refusal::SequenceAcknowledged)),
        Just(Err(Refusal::WindowExceeded)),
        Just(Err(Refusal::ResultTooLong)),
        Just(Err(Refusal::Malformed)),
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
fn what_this_version_does_not_know_is_named() {
    assert_eq!(Command::decode(&Bytes::from_static(&[9, 0])), Err(DecodeError::Version { found: 9 }));
    let elsewhere = Bytes::from_static(&[1, 3, 7, 1, 1, b'k']);
    assert_eq!(Command::decode(&elsewhere), Err(DecodeError::Keyspace { id: 7 }));
    // The longer form of the length 1.
    let longer = Bytes::from_static(&[1, 3, 0, 1, 0x81, 0x00, b'k']);
    assert_eq!(Command::decode(&longer), Err(DecodeError::Integer { what: "key" }));
}

#[test]
fn limits_hold_at_their_edges() {
    let put = |key: usize, value: usize| {
        let mutation = Mutation::Put { key: vec![1; key].into(), value: vec![1; value].into() };
        Command::decode(&Command::Write { stamp: None, mutation }.encode()).is_ok()
    };
    assert!(put(1, 0) && put(limits::KEY_LEN_MAX, limits::VALUE_LEN_MAX));
    assert!(!put(0, 0) && !put(limits::KEY_LEN_MAX + 1, 0) && !put(1, limits::VALUE_LEN_MAX + 1));
    // The longest command that the limits allow fits the log entry that is promised for it.
    let chunk = (limits::TRANSACTION_LEN_MAX / limits::TRANSACTION_OPERATIONS_MAX) - limits::KEY_LEN_MAX;
    let mut transaction = Transaction::new();
    for _ in 0..limits::TRANSACTION_OPERATIONS_MAX {
        transaction = transaction.put(vec![1; limits::KEY_LEN_MAX], vec![1; chunk]);
    }
    let stamp = Some(Stamp { session: u64::MAX, sequence: u64::MAX, acknowledged_below: u64::MAX });
    let encoded = Command::encode_write(stamp, &Mutation::Transaction(transaction));
    assert!(encoded.len() <= limits::COMMAND_LEN_MAX && Command::decode(&encoded).is_ok());
}
