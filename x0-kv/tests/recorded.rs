//! Recorded files and messages of version 1 of each format: they must open, and mean what they meant.
//!
//! `X0_KV_RECORD=1 cargo test -p x0-kv --features redb --test recorded` writes them again, which is only
//! right as long as nothing is released.
#![cfg(feature = "redb")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::path::{Path, PathBuf};

use x0_identity::NodeId;
use x0_kv::{
    ActionResult, Applied, Bytes, Command, Expect, KeyspaceName, Member, MemberChange, Mutation, Outcome,
    Page, RedbOptions, Refusal, RequestId, Revision, State, Swap, Transaction, TransactionOutcome, Versioned,
    decode_applied, encode_applied,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn items() -> KeyspaceName {
    KeyspaceName::new("items").unwrap()
}

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn commands() -> Vec<Command> {
    let request_id = |sequence| Some(RequestId { session: 1, sequence, acknowledged_below: 1 });
    let write = |request_id, keyspace, mutation| Command::Write { request_id, keyspace, mutation };
    let put = |key: &'static str, value: &'static str| Mutation::Put { key: key.into(), value: value.into() };
    let swap = |expect| Mutation::CompareAndSwap { key: "swapped".into(), expect, value: "new".into() };
    let transaction = Transaction::new()
        .when("key", Expect::Value("value".into()))
        .when("none", Expect::Absent)
        .get("key")
        .put("written", "")
        .delete("key")
        .otherwise(|alternative| alternative.get("key"));
    vec![
        Command::OpenSession,
        Command::KeepSession { session: 1 },
        write(None, items(), Mutation::CreateKeyspace),
        write(request_id(1), KeyspaceName::DEFAULT, put("key", "value")),
        write(request_id(2), items(), put("key", "of items")),
        write(None, items(), swap(Expect::Absent)),
        write(None, items(), swap(Expect::Revision(Revision::new(6)))),
        write(request_id(3), KeyspaceName::DEFAULT, Mutation::Transaction(transaction)),
        write(None, KeyspaceName::DEFAULT, Mutation::Delete { key: "none".into() }),
        write(None, KeyspaceName::new("gone").unwrap(), Mutation::CreateKeyspace),
        write(None, KeyspaceName::new("gone").unwrap(), Mutation::DropKeyspace),
        write(None, KeyspaceName::new("gone").unwrap(), put("key", "value")),
        Command::OpenSession,
        Command::CloseSession { session: 13 },
        Command::Member(MemberChange::Addresses {
            node: node(2),
            addresses: vec!["10.0.0.2:7401".into(), "[fd00::2]:7401".into()],
        }),
        Command::Member(MemberChange::Addresses { node: node(300), addresses: Vec::new() }),
        Command::Member(MemberChange::Addresses { node: node(3), addresses: Vec::new() }),
        Command::Member(MemberChange::Remove { node: node(3) }),
    ]
}

fn outcomes() -> Vec<Applied> {
    let revision = Revision::new;
    let value = Versioned { value: "value".into(), revision: revision(4) };
    let results =
        vec![ActionResult::Value(Some(value)), ActionResult::Put, ActionResult::Delete { existed: true }];
    vec![
        Ok(Outcome::SessionOpened { session: 1 }),
        Ok(Outcome::SessionKept),
        Ok(Outcome::KeyspaceCreated { is_new: true }),
        Ok(Outcome::Put { revision: revision(4) }),
        Ok(Outcome::Put { revision: revision(5) }),
        Ok(Outcome::CompareAndSwap(Swap::Swapped { revision: revision(6) })),
        Ok(Outcome::CompareAndSwap(Swap::Swapped { revision: revision(7) })),
        Ok(Outcome::Transaction(TransactionOutcome { held: true, revision: revision(8), results })),
        Ok(Outcome::Delete { existed: false }),
        Ok(Outcome::KeyspaceCreated { is_new: true }),
        Ok(Outcome::KeyspaceDropped { existed: true }),
        Err(Refusal::KeyspaceMissing),
        Ok(Outcome::SessionOpened { session: 13 }),
        Ok(Outcome::SessionKept),
        Ok(Outcome::MemberChanged),
        Ok(Outcome::MemberChanged),
        Ok(Outcome::MemberChanged),
        Ok(Outcome::MemberChanged),
    ]
}

fn options() -> RedbOptions {
    let mut options = RedbOptions::new().cache_len(1 << 20);
    options.background = false;
    options
}

fn play(state: &mut State) -> Vec<Bytes> {
    let mut outcomes = Vec::new();
    for (index, command) in (1..).zip(commands()) {
        state.apply([(index, Some(&command.encode()))], &mut outcomes).unwrap();
    }
    outcomes
}

fn snapshot(state: &mut State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.snapshot().read_to_end(&mut bytes).unwrap();
    bytes
}

/// A line of hexadecimal digits for each message.
fn lines(messages: &[Bytes]) -> String {
    let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    messages.iter().map(hex).collect()
}

fn messages(text: &str) -> Vec<Bytes> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect::<Vec<_>>().into()).collect()
}

fn record() {
    let folder = folder();
    let commands: Vec<_> = commands().iter().map(Command::encode).collect();
    std::fs::write(folder.join("commands.hex"), lines(&commands)).unwrap();
    let path = folder.join("data.redb");
    let _ = std::fs::remove_file(&path);
    let mut state = State::redb(&path, options()).unwrap();
    let outcomes = play(&mut state);
    std::fs::write(folder.join("outcomes.hex"), lines(&outcomes)).unwrap();
    std::fs::write(folder.join("state.snapshot"), snapshot(&mut state)).unwrap();
    state.checkpoint().unwrap();
}

#[test]
fn recorded_files_open() {
    if std::env::var_os("X0_KV_RECORD").is_some() {
        record();
    }
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let recorded = messages(str::from_utf8(&read("commands.hex")).unwrap());
    let decoded: Vec<_> = recorded.iter().map(|bytes| Command::decode(bytes).unwrap()).collect();
    assert_eq!(decoded, commands());
    assert_eq!(lines(&commands().iter().map(Command::encode).collect::<Vec<_>>()), lines(&recorded));

    let recorded = messages(str::from_utf8(&read("outcomes.hex")).unwrap());
    let decoded: Vec<_> = recorded.iter().map(|bytes| decode_applied(bytes).unwrap()).collect();
    assert_eq!(decoded, outcomes());
    assert_eq!(outcomes().iter().map(encode_applied).collect::<Vec<_>>(), recorded);

    let mut played = State::in_memory();
    assert_eq!(play(&mut played), recorded);
    let recorded = read("state.snapshot");
    assert!(snapshot(&mut played) == recorded);
    let mut restored = State::in_memory();
    restored.restore(Some(18), &mut &*recorded).unwrap();
    assert!(snapshot(&mut restored) == recorded);

    // A copy, for opening a file writes to it.
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("data.redb");
    std::fs::write(&path, read("data.redb")).unwrap();
    let mut opened = State::redb(&path, options()).unwrap();
    assert_eq!(opened.applied(), 18);
    assert!(snapshot(&mut opened) == recorded);
    let members = opened.reader().members();
    assert_eq!(members.iter().map(|(node, _)| node.get()).collect::<Vec<_>>(), [2, 300]);
    let addresses = vec!["10.0.0.2:7401".into(), "[fd00::2]:7401".into()];
    assert_eq!(members.get(node(2)), Some(&Member { addresses }));
    assert_eq!(restored.reader().members(), members);
    let page = opened.reader().range(&items(), &x0_kv::RangeQuery::all()).unwrap();
    assert_eq!(page, Page { continuation: None, ..page.clone() });
    assert_eq!(page.entries.len(), 2);
}
