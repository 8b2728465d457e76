//! Keyspaces of a store in a folder, in each storage engine.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use x0_kv::limits::{KEYSPACE_NAME_LEN_MAX, KEYSPACES_MAX, LimitError};
use x0_kv::{Engine, Expect, OperationError, RangeQuery, Store, StoreOptions, Swap, Transaction};

fn engines() -> Vec<Engine> {
    #[cfg_attr(not(feature = "redb"), expect(unused_mut, reason = "there is no other engine"))]
    let mut engines = vec![Engine::Memory];
    #[cfg(feature = "redb")]
    engines.push(Engine::Redb(x0_kv::RedbOptions::default()));
    engines
}

fn open(path: &Path, engine: &Engine) -> Store {
    Store::open_with(path, &StoreOptions::new().engine(engine.clone())).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    store.keyspaces().wait().unwrap().iter().map(|name| name.as_str().to_owned()).collect()
}

#[test]
fn keyspaces_are_isolated_and_survive_reopening() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let store = open(folder.path(), &engine);
            assert_eq!(store.create_keyspace("a").unwrap().wait().unwrap(), round == 0);
            assert_eq!(store.create_keyspace("a/b").unwrap().wait().unwrap(), round == 0);
            assert_eq!(names(&store), ["a", "a/b"]);
            let spaces = [store.keyspace("a").unwrap(), store.keyspace("a/b").unwrap()];
            if round > 0 {
                assert_eq!(store.get("key").wait().unwrap().unwrap().value, "default");
                assert_eq!(spaces[0].get("key").wait().unwrap().unwrap().value, "a");
                assert_eq!(spaces[1].get("key").wait().unwrap(), None);
            }
            store.put("key", "default").wait().unwrap();
            let revision = spaces[0].put("key", "a").wait().unwrap();
            // A condition on a key of one keyspace does not see that of another.
            let swap = spaces[1].compare_and_swap("key", Expect::Revision(revision), "b").wait().unwrap();
            assert_eq!(swap, Swap::Kept { current: None });
            let transaction = Transaction::new().when("key", Expect::Absent).put("key", "b");
            assert!(spaces[1].transact(transaction).wait().unwrap().held);
            assert_eq!(spaces[0].range(RangeQuery::all()).wait().unwrap().entries.len(), 1);
            assert!(spaces[1].delete("key").wait().unwrap());
        }
    }
}

#[test]
fn a_dropped_keyspace_is_gone_and_one_of_its_name_is_empty() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), &engine);
        let items = store.keyspace("items").unwrap();
        assert_eq!(items.put("key", "").wait(), Err(OperationError::KeyspaceMissing));
        assert_eq!(items.get("key").wait(), Err(OperationError::KeyspaceMissing));
        assert!(!OperationError::KeyspaceMissing.is_ambiguous());
        assert!(!store.drop_keyspace("items").unwrap().wait().unwrap());
        store.create_keyspace("items").unwrap().wait().unwrap();
        let mut watch = items.watch("none").unwrap();
        for number in 0..3000 {
            items.put(format!("{number}"), vec![b'v'; 200]).wait().unwrap();
        }
        store.put("other", "stays").wait().unwrap();
        assert!(store.drop_keyspace("items").unwrap().wait().unwrap());
        assert!(watch.wait().unwrap().is_cut);
        assert_eq!(items.range(RangeQuery::all()).wait(), Err(OperationError::KeyspaceMissing));
        store.create_keyspace("items").unwrap().wait().unwrap();
        assert_eq!(items.range(RangeQuery::all()).wait().unwrap().entries, []);
        items.put("new", "").wait().unwrap();
        drop((items, watch, store));
        let store = open(folder.path(), &engine);
        let items = store.keyspace("items").unwrap();
        assert_eq!(items.range(RangeQuery::all()).wait().unwrap().entries.len(), 1);
        assert_eq!(store.get("other").wait().unwrap().unwrap().value, "stays");
    }
}

#[test]
fn names_and_their_number_are_bounded() {
    let store = Store::open_in_memory();
    let longest = "k".repeat(KEYSPACE_NAME_LEN_MAX);
    store.create_keyspace(&longest).unwrap().wait().unwrap();
    for name in ["", "a b", "ä", &format!("{longest}k"), "a\u{0}"] {
        assert!(matches!(store.create_keyspace(name), Err(LimitError::KeyspaceName { .. })), "{name:?}");
        assert!(store.keyspace(name).is_err() && store.drop_keyspace(name).is_err());
    }
    for number in 1..KEYSPACES_MAX {
        assert!(store.create_keyspace(&format!("{number}")).unwrap().wait().unwrap());
    }
    let more = store.create_keyspace("more").unwrap().wait();
    assert_eq!(more, Err(OperationError::KeyspacesExceeded));
    assert_eq!(store.create_keyspace("1").unwrap().wait(), Ok(false));
    assert!(store.drop_keyspace("1").unwrap().wait().unwrap());
    assert!(store.create_keyspace("more").unwrap().wait().unwrap());
    assert_eq!(names(&store).len(), KEYSPACES_MAX);
}
