//! Scans: every page from one applied state, whatever is written meanwhile, within their bounds.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use x0_kv::limits::{SCAN_WRITTEN_LEN_MAX, SCANS_MAX};
use x0_kv::{Engine, KeyValue, OperationError, RangeQuery, Store, StoreOptions};

const KEYS: usize = 500;

fn stores() -> Vec<(Store, Option<tempfile::TempDir>)> {
    let mut stores = vec![(Store::open_in_memory(), None)];
    #[cfg_attr(not(feature = "redb"), expect(unused_mut, reason = "there is no other engine"))]
    let mut engines = vec![Engine::Memory];
    #[cfg(feature = "redb")]
    {
        let mut options = x0_kv::RedbOptions::default();
        // So small that checkpoints run while a scan is read.
        (options.cache_len, options.overlay_len_max) = (1 << 20, 64 << 10);
        engines.push(Engine::Redb(options));
    }
    for engine in engines {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with(folder.path(), &StoreOptions::new().engine(engine)).unwrap();
        stores.push((store, Some(folder)));
    }
    stores
}

fn fill(store: &Store, value: &str) {
    let writes: Vec<_> =
        (0..KEYS).map(|number| store.put(format!("key/{number:04}"), value.to_owned())).collect();
    for write in writes {
        write.wait().unwrap();
    }
}

fn check(entries: &[KeyValue], value: &str) {
    let keys: Vec<_> = (0..KEYS).map(|number| format!("key/{number:04}")).collect();
    assert!(entries.iter().map(|entry| &entry.key[..]).eq(keys.iter().map(String::as_bytes)));
    assert!(entries.iter().all(|entry| entry.value == value));
}

/// Between any two pages everything is written again, some keys are deleted and others are added.
#[test]
fn pages_of_a_scan_are_from_one_state() {
    for (store, _folder) in stores() {
        fill(&store, "before");
        let mut scan = store.scan(RangeQuery::prefix("key/").limit(50)).into_iter();
        let mut reverse = store.scan(RangeQuery::prefix("key/").limit(70).reverse()).into_iter();
        let (mut entries, mut reversed) = (Vec::new(), Vec::new());
        for round in 0..KEYS / 25 {
            entries.extend(scan.by_ref().take(25).map(Result::unwrap));
            reversed.extend(reverse.by_ref().take(25).map(Result::unwrap));
            fill(&store, &format!("round {round}"));
            store.put(format!("key/{:04}/new", round * 20), "new").wait().unwrap();
            store.delete(format!("key/{:04}", KEYS - 1 - round)).wait().unwrap();
        }
        assert!(scan.next().is_none() && reverse.next().is_none());
        check(&entries, "before");
        reversed.reverse();
        check(&reversed, "before");
        let revision = scan.revision().unwrap();
        assert!(entries.iter().all(|entry| entry.revision <= revision));
    }
}

#[test]
fn a_scan_is_a_stream() {
    for (store, _folder) in stores() {
        fill(&store, "v");
        let mut scan = pin!(store.scan(RangeQuery::all().limit(100)));
        let mut entries = Vec::new();
        let mut all = pin!(async {
            while let Some(entry) = poll_fn(|cx| scan.as_mut().poll_next(cx)).await {
                entries.push(entry.unwrap());
            }
        });
        let mut cx = Context::from_waker(Waker::noop());
        while Future::poll(Pin::as_mut(&mut all), &mut cx) == Poll::Pending {
            std::thread::yield_now();
        }
        check(&entries, "v");
    }
}

/// A scan of a keyspace that is dropped meanwhile reads what the keyspace was.
#[test]
fn a_scan_outlives_its_keyspace() {
    for (store, _folder) in stores() {
        store.create_keyspace("items").unwrap().wait().unwrap();
        let items = store.keyspace("items").unwrap();
        for number in 0..100 {
            items.put(format!("{number}"), "v").wait().unwrap();
        }
        let mut scan = items.scan(RangeQuery::all().limit(10)).into_iter();
        scan.next().unwrap().unwrap();
        store.drop_keyspace("items").unwrap().wait().unwrap();
        fill(&store, "default");
        assert_eq!(scan.map(Result::unwrap).count(), 99);
        let missing = items.scan(RangeQuery::all()).into_iter().next().unwrap();
        assert_eq!(missing, Err(OperationError::KeyspaceMissing));
    }
}

#[test]
fn snapshots_are_bounded_in_number() {
    for (store, _folder) in stores() {
        fill(&store, "v");
        let mut scans: Vec<_> = (0..=SCANS_MAX)
            .map(|_| {
                let mut scan = store.scan(RangeQuery::all().limit(100)).into_iter();
                scan.next().unwrap().unwrap();
                scan
            })
            .collect();
        let mut first = scans.remove(0);
        assert_eq!(first.by_ref().take(99).filter(Result::is_ok).count(), 99);
        assert_eq!(first.next(), Some(Err(OperationError::SnapshotExpired)));
        assert_eq!(first.next(), None);
        for scan in scans {
            assert_eq!(scan.map(Result::unwrap).count(), KEYS - 1);
        }
        // Finished scans make room first: those that are being read stay.
        let mut long = store.scan(RangeQuery::all().limit(100)).into_iter();
        long.next().unwrap().unwrap();
        for _ in 0..2 * SCANS_MAX {
            assert_eq!(store.scan(RangeQuery::all().limit(400)).into_iter().count(), KEYS);
        }
        assert_eq!(long.map(Result::unwrap).count(), KEYS - 1);
    }
}

#[test]
fn a_snapshot_is_released_when_too_much_was_written() {
    let store = Store::open_in_memory();
    fill(&store, "v");
    let mut scan = store.scan(RangeQuery::all().limit(100)).into_iter();
    scan.next().unwrap().unwrap();
    let value = vec![b'v'; 1 << 20];
    for _ in 0..SCAN_WRITTEN_LEN_MAX / (1 << 20) - 1 {
        store.put("large", value.clone()).wait().unwrap();
    }
    assert!(scan.by_ref().take(100).all(|entry| entry.is_ok()));
    for _ in 0..2 {
        store.put("large", value.clone()).wait().unwrap();
    }
    assert_eq!(scan.by_ref().take(99).filter(Result::is_ok).count(), 99);
    assert_eq!(scan.next(), Some(Err(OperationError::SnapshotExpired)));
}
