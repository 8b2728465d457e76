//! A store in a folder, with nothing else running.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use x0_kv::{Engine, Expect, OpenError, OperationError, RangeQuery, Store, StoreOptions, Swap, Transaction};

fn engines() -> Vec<Engine> {
    #[cfg_attr(not(feature = "redb"), expect(unused_mut, reason = "there is no other engine"))]
    let mut engines = vec![Engine::Memory];
    #[cfg(feature = "redb")]
    engines.push(Engine::Redb(x0_kv::RedbOptions::default()));
    engines
}

fn open(path: &Path, engine: &Engine) -> Store {
    let mut options = StoreOptions::default();
    options.engine = engine.clone();
    Store::open_with(path, &options).unwrap()
}

#[test]
fn acknowledged_writes_are_there_after_a_restart() {
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for round in 0..4 {
            let store = open(folder.path(), &engine);
            for (key, value) in &expected {
                assert_eq!(
                    store.get(String::clone(key)).wait().unwrap().unwrap().value,
                    String::clone(value)
                );
            }
            for number in 0..50 {
                let (key, value) = (format!("{round}/{number}"), "v".repeat(number * 10));
                store.put(key.clone(), value.clone()).wait().unwrap();
                expected.push((key, value));
            }
            assert!(store.delete(format!("{round}/0")).wait().unwrap());
            expected.retain(|(key, _)| *key != format!("{round}/0"));
        }
        let store = open(folder.path(), &engine);
        assert_eq!(store.range(RangeQuery::all()).wait().unwrap().entries.len(), expected.len());
    }
}

/// Each thread adds to the same counter by compare-and-swap; none is lost, and revisions only rise.
#[test]
fn threads_share_a_store() {
    const THREADS: usize = 4;
    const ADDITIONS: usize = 100;
    for engine in engines() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), &engine);
        store.put("count", "0").wait().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut last = x0_kv::Revision::default();
                    for _ in 0..ADDITIONS {
                        loop {
                            let found = store.get("count").wait().unwrap().unwrap();
                            assert!(found.revision >= last);
                            last = found.revision;
                            let count: usize = str::from_utf8(&found.value).unwrap().parse().unwrap();
                            let expect = Expect::Revision(found.revision);
                            let swap = store
                                .compare_and_swap("count", expect, (count + 1).to_string())
                                .wait()
                                .unwrap();
                            if matches!(swap, Swap::Swapped { .. }) {
                                break;
                            }
                        }
                    }
                });
            }
        });
        drop(store);
        let found = open(folder.path(), &engine).get("count").wait().unwrap().unwrap();
        assert_eq!(found.value, (THREADS * ADDITIONS).to_string());
    }
}

#[test]
fn many_writes_wait_together_and_transactions_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let pending: Vec<_> = (0..2000).map(|number| store.put(format!("k{number}"), "x")).collect();
    let mut revisions: Vec<x0_kv::Revision> =
        pending.into_iter().map(|pending| pending.wait().unwrap()).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 2000);
    let outcome =
        store.transact(Transaction::new().when("k1", Expect::Absent).put("k1", "y").put("k2", "y")).wait();
    assert!(outcome.is_ok());
    assert_eq!(store.get("k2").wait().unwrap().unwrap().value, "x");
}

#[test]
fn a_folder_serves_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let second = Store::open(folder.path());
    assert!(matches!(second, Err(OpenError::Log(_))), "{second:?}");
    let clone = store.clone();
    store.close();
    assert!(matches!(clone.get("x").wait(), Err(OperationError::Closed)));
    assert!(matches!(clone.put("x", "y").wait(), Err(OperationError::Closed)));
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_damaged_log_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for number in 0..100 {
        store.put(format!("k{number}"), "x".repeat(100)).wait().unwrap();
    }
    drop(store);
    let log = std::fs::read_dir(folder.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).min().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[2000] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let said = Store::open(folder.path()).unwrap_err().to_string();
    assert!(said.contains(log.to_str().unwrap()) && said.contains("damaged"), "{said}");
    // The damage was not repaired silently.
    assert_eq!(std::fs::read(&log).unwrap(), bytes);
}
