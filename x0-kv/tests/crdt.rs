//! CRDT keyspaces and watches through the handle that programs hold.
#![cfg(feature = "crdt")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use x0_kv::{
    CrdtOptions, Expect, Keyspace, OpenError, OperationError, RangeQuery, Store, StoreOptions, Transaction,
    limits::LimitError,
};

fn options(key: u8) -> StoreOptions {
    let mut options = StoreOptions::default();
    options.crdt = Some(CrdtOptions::new([key; 16]));
    options
}

#[test]
fn what_was_acknowledged_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4_i64 {
        let store = Store::open_with(folder.path(), &options(1)).unwrap();
        let crdt = store.keyspace(Keyspace::Crdt);
        assert_eq!(crdt.counter("rounds").wait().unwrap(), round);
        for number in 0..round {
            let value = crdt.get(format!("key-{number}")).wait().unwrap().unwrap().value;
            assert_eq!(value, number.to_string());
        }
        assert_eq!(crdt.add("rounds", 1).wait().unwrap(), round + 1);
        crdt.put(format!("key-{round}"), round.to_string()).wait().unwrap();
        crdt.put("gone", "for now").wait().unwrap();
        assert!(crdt.delete("gone").wait().unwrap());
        assert!(!crdt.delete("gone").wait().unwrap());
        // Half the time as a process that ends, half the time in order.
        if round % 2 == 0 {
            crdt.close();
            assert!(matches!(crdt.get("rounds").wait(), Err(OperationError::Closed)));
        }
    }
    let error = Store::open_with(folder.path(), &options(2)).unwrap_err();
    assert!(matches!(error, OpenError::Journal(_)), "{error}");
    assert!(error.to_string().contains("hash key"), "{error}");
}

#[test]
fn the_two_kinds_of_keyspace_are_apart() {
    let folder = tempfile::tempdir().unwrap();
    for store in [Store::open_in_memory(), Store::open_with(folder.path(), &options(1)).unwrap()] {
        let crdt = store.keyspace(Keyspace::Crdt);
        store.put("key", "agreed").wait().unwrap();
        assert_eq!(crdt.get("key").wait().unwrap(), None);
        let revision = crdt.put("key", "written").wait().unwrap();
        assert_eq!(store.get("key").wait().unwrap().unwrap().value, "agreed");
        let held = crdt.get("key").wait().unwrap().unwrap();
        assert_eq!((&*held.value, held.revision), (&b"written"[..], revision));
        assert!(crdt.put("key", "again").wait().unwrap() > revision);
        assert_eq!(crdt.siblings("key").wait().unwrap().len(), 1);

        // What needs an agreement is refused in the one, what needs none in the other.
        let swap = crdt.compare_and_swap("key", Expect::Absent, "swapped").wait();
        assert!(matches!(swap, Err(OperationError::Unsupported { .. })), "{swap:?}");
        let transaction = crdt.transact(Transaction::default()).wait();
        assert!(matches!(transaction, Err(OperationError::Unsupported { .. })));
        assert!(matches!(store.add("key", 1).wait(), Err(OperationError::Unsupported { .. })));
        let long = crdt.put("key", vec![0; 65_537]).wait();
        let limit = OperationError::Limit(LimitError::CrdtValueTooLong { len: 65_537 });
        assert_eq!(long, Err(limit));
        crdt.put("key", vec![0; 65_536]).wait().unwrap();
        assert!(matches!(crdt.get("").wait(), Err(OperationError::Limit(LimitError::KeyEmpty))));
    }
    // Without one it says so.
    let folder = tempfile::tempdir().unwrap();
    let crdt = Store::open(folder.path()).unwrap().keyspace(Keyspace::Crdt);
    assert!(matches!(crdt.get("key").wait(), Err(OperationError::Unsupported { .. })));
    assert!(crdt.watch("").is_err());
}

#[test]
fn pages_cover_a_range_in_either_direction() {
    let crdt = Store::open_in_memory().keyspace(Keyspace::Crdt);
    let names: Vec<String> = (0..50).map(|number| format!("key/{number:02}")).collect();
    for name in &names {
        crdt.put(name.clone(), vec![1; 60_000]).wait().unwrap();
    }
    crdt.put("other", "").wait().unwrap();
    for reverse in [false, true] {
        let mut found = Vec::new();
        let mut next =
            Some(if reverse { RangeQuery::prefix("key/").reverse() } else { RangeQuery::prefix("key/") });
        let mut pages = 0;
        while let Some(range) = next {
            let page = crdt.range(range.clone()).wait().unwrap();
            found.extend(page.entries.into_iter().map(|entry| entry.key));
            next = page.continuation.map(|continuation| range.resume(continuation));
            pages += 1;
        }
        assert!(pages > 1, "a page holds two MiB");
        if reverse {
            found.reverse();
        }
        assert_eq!(found, names);
        let first = crdt.range(RangeQuery::prefix("key/").limit(1)).wait().unwrap();
        assert_eq!(first.entries.len(), 1);
        assert_eq!(crdt.range(RangeQuery::between("b", "a")).wait().unwrap().entries.len(), 0);
    }
}

#[test]
fn a_watch_tells_what_changed_and_ends_with_the_store() {
    let folder = tempfile::tempdir().unwrap();
    for store in [Store::open_in_memory(), Store::open_with(folder.path(), &options(1)).unwrap()] {
        for keyspace in [Keyspace::Linearizable, Keyspace::Crdt] {
            let handle = store.keyspace(keyspace);
            let mut watch = handle.watch("a/").unwrap();
            let dropped = handle.watch("").unwrap();
            for key in ["a/1", "b/1", "a/2", "a/1"] {
                handle.put(key, "value").wait().unwrap();
            }
            drop(dropped);
            handle.delete("a/3").wait().unwrap();
            handle.put("a/4", "").wait().unwrap();
            handle.delete("a/4").wait().unwrap();
            let mut keys = std::collections::BTreeSet::new();
            while !keys.contains(&b"a/4"[..]) {
                let changes = watch.wait().unwrap();
                assert!(!changes.is_cut);
                keys.extend(changes.keys);
            }
            keys.remove(&b"a/3"[..]);
            assert!(keys.iter().eq(["a/1", "a/2", "a/4"]), "{keys:?}");
        }
        // More than are held are said to be more.
        let crdt = store.keyspace(Keyspace::Crdt);
        let mut watch = crdt.watch("").unwrap();
        let writes: Vec<_> = (0..x0_kv::WATCH_KEYS_MAX + 9).map(|at| crdt.put(format!("{at}"), "")).collect();
        for write in writes {
            write.wait().unwrap();
        }
        let mut agreed = store.watch("").unwrap();
        store.close();
        let changes = watch.wait().unwrap();
        assert!(changes.is_cut && changes.keys.len() == x0_kv::WATCH_KEYS_MAX);
        assert_eq!((watch.wait(), agreed.wait()), (None, None));
        assert_eq!(crdt.watch("").unwrap().wait(), None);
    }
}
