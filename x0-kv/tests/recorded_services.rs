//! Recorded messages of the services, and recorded folders of blobs and of the CRDT journal: version 1 of
//! each format must be readable, and mean what it meant.
//!
//! `X0_KV_RECORD=1 cargo test -p x0-kv --features blob,crdt,mesh --test recorded_services` records again,
//! which is right only as long as nothing is released.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use x0_identity::NodeId;
use x0_kv::blob::{self, BlobExchange, BlobId, BlobStore, BlobStoreOptions, ExchangeOptions};
use x0_kv::coordinator::{Coordinator, CoordinatorOptions, Input, Output};
use x0_kv::{Bytes, CrdtOptions, KeyspaceName, Mutation, Operation, Store, StoreOptions};

const CONTENT: &[u8] = b"the content of a recorded blob";
/// The length of a file of the journal. Its end is zeros, which are not recorded.
const JOURNAL_LEN: u64 = 1 << 20;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/services")
}

fn is_recording() -> bool {
    std::env::var_os("X0_KV_RECORD").is_some()
}

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn hex(messages: &[Bytes]) -> String {
    let line = |message: &Bytes| message.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    messages.iter().map(line).collect()
}

fn unhex(text: &str) -> Vec<Bytes> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>().into()).collect()
}

/// The messages recorded under `name`, which `made` must still be equal to.
fn recorded(name: &str, made: &[Bytes]) -> Vec<Bytes> {
    let path = data().join(name);
    if is_recording() {
        std::fs::create_dir_all(data()).unwrap();
        std::fs::write(&path, hex(made)).unwrap();
    }
    let messages = unhex(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(messages, made, "{name}: the encoding has changed");
    messages
}

fn put() -> Operation {
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
    Operation::Write { keyspace: KeyspaceName::DEFAULT, mutation: Mutation::Put { key, value } }
}

#[test]
fn messages_of_coordinators() {
    let mut client = Coordinator::new(CoordinatorOptions::client(node(9), vec![node(1)]), 1);
    client
        .handle(Duration::ZERO, Input::Call { token: 1, operation: put(), deadline: None, trace: None })
        .unwrap();
    let mut sent = Vec::new();
    while let Some(output) = client.poll_output() {
        if let Output::Send { payload, .. } = output {
            sent.push(payload);
        }
    }
    assert!(!sent.is_empty());
    for payload in recorded("coordinator.hex", &sent) {
        let mut member = Coordinator::new(CoordinatorOptions::member(node(1)), 2);
        let leader = Input::Leader { leader: Some(node(1)), term: 1, is_self: true };
        member.handle(Duration::ZERO, leader).unwrap();
        member.handle(Duration::ZERO, Input::Message { from: node(9), payload }).unwrap();
        assert!(matches!(member.poll_output(), Some(Output::Propose { .. })), "it opens a session");
    }
}

#[test]
fn messages_of_blob_exchanges() {
    let mut exchange = BlobExchange::new(ExchangeOptions::default(), 1);
    let now = Duration::ZERO;
    exchange.handle(now, blob::ExchangeInput::Sources([node(2)].into())).unwrap();
    exchange.handle(now, blob::ExchangeInput::Up(node(2))).unwrap();
    let id = BlobId::of(CONTENT);
    exchange
        .handle(now, blob::ExchangeInput::Fetch { id, len: CONTENT.len() as u64, holding: None })
        .unwrap();
    let mut sent = Vec::new();
    while let Some(output) = exchange.poll_output() {
        if let blob::ExchangeOutput::Send { payload, .. } = output {
            sent.push(payload.into());
        }
    }
    assert!(!sent.is_empty());
    for payload in recorded("blob.hex", &sent) {
        let mut server = BlobExchange::new(ExchangeOptions::default(), 2);
        server.handle(now, blob::ExchangeInput::Up(node(1))).unwrap();
        server.handle(now, blob::ExchangeInput::Message { from: node(1), payload }).unwrap();
        assert!(
            matches!(server.poll_output(), Some(blob::ExchangeOutput::Look { .. })),
            "it looks the blob up"
        );
    }
}

/// Copies a recorded folder, so that opening it changes no recorded file.
fn copied(name: &str, len: Option<u64>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(name);
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(data().join(name)).unwrap() {
        let file = file.unwrap();
        let copy = to.join(file.file_name());
        std::fs::copy(file.path(), &copy).unwrap();
        if let Some(len) = len.filter(|_| copy.extension().is_some_and(|extension| extension == "wal")) {
            std::fs::File::options().write(true).open(&copy).unwrap().set_len(len).unwrap();
        }
    }
    folder
}

/// Records the files of `from`, without the zeros at their ends if `trims`.
fn record(name: &str, from: &Path, trims: bool) {
    let to = data().join(name);
    let _ = std::fs::remove_dir_all(&to);
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let mut bytes = std::fs::read(file.path()).unwrap();
        let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if trims {
            bytes.truncate(len);
        }
        // A lock file, or a spare file of the log, holds nothing.
        if len > 0 {
            std::fs::write(to.join(file.file_name()), bytes).unwrap();
        }
    }
}

#[test]
fn a_folder_of_blobs() {
    if is_recording() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blobs");
        BlobStore::open(&path, BlobStoreOptions::default()).unwrap().add(CONTENT).unwrap();
        record("blobs", &path, false);
    }
    let folder = copied("blobs", None);
    let store = BlobStore::open(folder.path().join("blobs"), BlobStoreOptions::default()).unwrap();
    let read = store.read(&BlobId::of(CONTENT)).unwrap();
    assert_eq!(read, CONTENT);
}

fn options() -> StoreOptions {
    StoreOptions::new().crdt(CrdtOptions::new([7; 16]))
}

#[test]
fn a_journal_of_a_crdt_store() {
    if is_recording() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with(folder.path(), &options()).unwrap();
        store.crdt().unwrap().put("key", "value").wait().unwrap();
        store.crdt().unwrap().add("counter", 5).wait().unwrap();
        store.close();
        record("crdt", &folder.path().join("crdt"), true);
    }
    let folder = copied("crdt", Some(JOURNAL_LEN));
    let store = Store::open_with(folder.path(), &options()).unwrap();
    let crdt = store.crdt().unwrap();
    assert_eq!(crdt.get("key").wait().unwrap().unwrap().value, "value");
    assert_eq!(crdt.counter("counter").wait().unwrap(), 5);
}
