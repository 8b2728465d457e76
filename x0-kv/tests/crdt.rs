//! CRDT keyspaces and watches through the handle that programs hold.
#![cfg(feature = "crdt")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use x0_kv::crdt::limits::{CLEAR_KEYS_MAX, CrdtLimitError, KEY_LEN_MAX};
use x0_kv::{CrdtOptions, CrdtStore, OpenError, OperationError, RangeQuery, Store, StoreOptions};

fn options(key: u8) -> StoreOptions {
    StoreOptions::new().crdt(CrdtOptions::new([key; 16]))
}

#[test]
fn acknowledged_writes_are_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4_i64 {
        let store = Store::open_with(folder.path(), &options(1)).unwrap();
        let crdt = store.crdt().unwrap();
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
            store.close();
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
        let crdt = store.crdt().unwrap();
        store.put("key", "agreed").wait().unwrap();
        assert_eq!(crdt.get("key").wait().unwrap(), None);
        let timestamp = crdt.put("key", "written").wait().unwrap();
        assert_eq!(store.get("key").wait().unwrap().unwrap().value, "agreed");
        let held = crdt.get("key").wait().unwrap().unwrap();
        assert_eq!((&*held.value, held.timestamp), (&b"written"[..], timestamp));
        assert!(crdt.put("key", "again").wait().unwrap() > timestamp);
        assert_eq!(crdt.siblings("key").wait().unwrap().len(), 1);

        let limit = |error| Some(OperationError::CrdtLimit(error));
        let long = crdt.put("key", vec![0; 65_537]).wait();
        assert_eq!(long.err(), limit(CrdtLimitError::ValueTooLong { len: 65_537 }));
        crdt.put("key", vec![0; 65_536]).wait().unwrap();
        crdt.put(vec![b'k'; KEY_LEN_MAX], "").wait().unwrap();
        let long = crdt.delete(vec![b'k'; KEY_LEN_MAX + 1]).wait();
        assert_eq!(long.err(), limit(CrdtLimitError::KeyTooLong { len: KEY_LEN_MAX + 1 }));
        assert_eq!(crdt.get("").wait().err(), limit(CrdtLimitError::KeyEmpty));
        let none = crdt.range(&RangeQuery::all().limit(0)).wait();
        assert_eq!(none.err(), limit(CrdtLimitError::RangeLimit { limit: 0 }));
    }
    // A store without one says so.
    let folder = tempfile::tempdir().unwrap();
    let error = Store::open(folder.path()).unwrap().crdt().unwrap_err();
    assert!(error.to_string().contains("without a CRDT store"), "{error}");
}

fn keys(crdt: &CrdtStore, range: &RangeQuery) -> Vec<String> {
    let page = crdt.range(range).wait().unwrap();
    page.entries.iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).collect()
}

/// The same keys in keyspaces whose names are prefixes of each other, and keys that look like the names.
#[test]
fn keyspaces_of_a_crdt_store_are_isolated() {
    let folder = tempfile::tempdir().unwrap();
    for store in [Store::open_in_memory(), Store::open_with(folder.path(), &options(1)).unwrap()] {
        let crdt = store.crdt().unwrap();
        let names = ["a", "a/b", "aa", "b"];
        let spaces: Vec<_> = names.iter().map(|name| crdt.keyspace(name).unwrap()).collect();
        let mut all = vec![crdt.clone()];
        all.extend(spaces.iter().cloned());
        assert_eq!(crdt.keyspaces().wait().unwrap(), []);
        for (number, space) in all.iter().enumerate() {
            for key in ["a", "a/b", "b", "\u{0}", "\u{1}a"] {
                assert_eq!(space.get(key).wait().unwrap(), None);
                space.put(key, number.to_string()).wait().unwrap();
            }
            space.add("counter", i64::try_from(number).unwrap()).wait().unwrap();
        }
        let found = crdt.keyspaces().wait().unwrap();
        assert!(found.iter().map(x0_kv::KeyspaceName::as_str).eq(["a", "b", "aa", "a/b"]), "{found:?}");
        for (number, space) in all.iter().enumerate() {
            assert_eq!(space.get("a/b").wait().unwrap().unwrap().value, number.to_string());
            assert_eq!(space.counter("counter").wait().unwrap(), i64::try_from(number).unwrap());
            let expected = ["\u{0}", "\u{1}a", "a", "a/b", "b", "counter"];
            assert_eq!(keys(space, &RangeQuery::all()), expected);
            let mut reversed = keys(space, &RangeQuery::all().reverse());
            reversed.reverse();
            assert_eq!(reversed, expected);
            assert_eq!(keys(space, &RangeQuery::prefix("a")), ["a", "a/b"]);
            // Pages of one entry, in either direction.
            for range in [RangeQuery::all().limit(1), RangeQuery::all().limit(1).reverse()] {
                let (mut next, mut count) = (Some(range), 0);
                while let Some(range) = next {
                    let page = space.range(&range).wait().unwrap();
                    count += page.entries.len();
                    next = page.continuation.map(|continuation| range.resume(continuation));
                }
                assert_eq!(count, expected.len());
            }
        }
        // Emptying one leaves the others, and so does a watch of one.
        let mut watch = spaces[0].watch("a").unwrap();
        let cleared = spaces[1].clear().wait().unwrap();
        assert_eq!((cleared.removed, cleared.is_done), (6, true));
        assert_eq!(keys(&spaces[1], &RangeQuery::all()), Vec::<String>::new());
        assert_eq!(crdt.keyspaces().wait().unwrap().len(), 3);
        for space in [&all[0], &all[1], &all[3], &all[4]] {
            assert_eq!(keys(space, &RangeQuery::all()).len(), 6);
        }
        spaces[2].put("a", "").wait().unwrap();
        spaces[0].delete("a/b").wait().unwrap();
        let changes = watch.wait().unwrap();
        assert!(changes.keys.iter().eq(["a/b"]), "{changes:?}");
        assert!(crdt.keyspace("").is_err() && crdt.keyspace("no spaces").is_err());
    }
}

#[test]
fn a_large_keyspace_is_emptied_in_steps() {
    let crdt = Store::open_in_memory().crdt().unwrap().keyspace("many").unwrap();
    let count = CLEAR_KEYS_MAX * 2 + 7;
    for number in 0..count {
        crdt.put(format!("{number:06}"), "").wait().unwrap();
    }
    let mut removed = Vec::new();
    loop {
        let cleared = crdt.clear().wait().unwrap();
        removed.push(cleared.removed);
        if cleared.is_done {
            break;
        }
    }
    assert_eq!(removed, [CLEAR_KEYS_MAX, CLEAR_KEYS_MAX, 7]);
    assert_eq!(crdt.range(&RangeQuery::all()).wait().unwrap().entries.len(), 0);
}

#[test]
fn pages_cover_a_range_in_either_direction() {
    let crdt = Store::open_in_memory().crdt().unwrap();
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
            let page = crdt.range(&range).wait().unwrap();
            found.extend(page.entries.into_iter().map(|entry| entry.key));
            next = page.continuation.map(|continuation| range.resume(continuation));
            pages += 1;
        }
        assert!(pages > 1, "a page holds two MiB");
        if reverse {
            found.reverse();
        }
        assert_eq!(found, names);
        let first = crdt.range(&RangeQuery::prefix("key/").limit(1)).wait().unwrap();
        assert_eq!(first.entries.len(), 1);
        assert_eq!(crdt.range(&RangeQuery::between("b", "a")).wait().unwrap().entries.len(), 0);
    }
}

fn crdt_changes(crdt: &CrdtStore) {
    let mut watch = crdt.watch("a/").unwrap();
    let dropped = crdt.watch("").unwrap();
    for key in ["a/1", "b/1", "a/2", "a/1"] {
        crdt.put(key, "value").wait().unwrap();
    }
    drop(dropped);
    crdt.delete("a/3").wait().unwrap();
    crdt.put("a/4", "").wait().unwrap();
    crdt.delete("a/4").wait().unwrap();
    check_changes(&mut watch);
}

fn check_changes(watch: &mut x0_kv::Watch) {
    let mut keys = std::collections::BTreeSet::new();
    while !keys.contains(&b"a/4"[..]) {
        let changes = watch.wait().unwrap();
        assert!(!changes.is_cut);
        keys.extend(changes.keys);
    }
    keys.remove(&b"a/3"[..]);
    assert!(keys.iter().eq(["a/1", "a/2", "a/4"]), "{keys:?}");
}

#[test]
fn a_watch_tells_what_changed_and_ends_with_the_store() {
    let folder = tempfile::tempdir().unwrap();
    for store in [Store::open_in_memory(), Store::open_with(folder.path(), &options(1)).unwrap()] {
        let crdt = store.crdt().unwrap();
        crdt_changes(&crdt);
        let mut watch = store.watch("a/").unwrap();
        let dropped = store.watch("").unwrap();
        for key in ["a/1", "b/1", "a/2", "a/1"] {
            store.put(key, "value").wait().unwrap();
        }
        drop(dropped);
        store.delete("a/3").wait().unwrap();
        store.put("a/4", "").wait().unwrap();
        store.delete("a/4").wait().unwrap();
        check_changes(&mut watch);
        // More than are held are said to be more.
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
