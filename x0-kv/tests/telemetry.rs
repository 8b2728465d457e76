//! The metrics of a store count exactly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use x0_kv::{Expect, OperationError, RangeQuery, Store, Transaction, telemetry};

const COUNT: u32 = 100_000;

/// Each series with its value or its number of samples, and whether its name was described.
fn values(snapshotter: &Snapshotter) -> BTreeMap<String, (f64, bool)> {
    // Other crates of the family may be built with metrics too.
    let all = snapshotter.snapshot().into_vec().into_iter();
    let all = all.filter(|(key, ..)| key.key().name().starts_with("x0_kv_"));
    all.map(|(key, _, description, value)| {
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        };
        let labels: String = key.key().labels().map(|label| format!(" {}", label.value())).collect();
        (format!("{}{labels}", key.key().name()), (value, description.is_some()))
    })
    .collect()
}

/// The series after this many operations of each kind. Every tenth time errors are injected.
fn run(count: u32) -> BTreeMap<String, (f64, bool)> {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        telemetry::describe();
        let store = Store::open_in_memory();
        let crdt = store.crdt().unwrap();
        let missing = store.keyspace("missing").unwrap();
        let long = vec![0; x0_kv::limits::KEY_LEN_MAX + 1];
        let watch = store.watch("").unwrap();
        drop(store.watch("other").unwrap());
        store.create_keyspace("other").unwrap().wait().unwrap();
        let other = store.keyspace("other").unwrap();
        for number in 0..count {
            // Distinct keys of hostile bytes must not become series: ten of each round, so that there are a
            // million of them.
            let key = |kind: u8| [&b"\"\n\0\xff{}"[..], &[kind], &number.to_le_bytes()].concat();
            store.put(key(0), "value").wait().unwrap();
            store.get(key(0)).wait().unwrap();
            store.get_local(key(1)).wait().unwrap();
            store.delete(key(0)).wait().unwrap();
            store.compare_and_swap(key(2), Expect::Absent, "").wait().unwrap();
            store.transact(Transaction::new().put(key(3), "").get(key(4))).wait().unwrap();
            store.range(RangeQuery::prefix(key(5)).limit(1)).wait().unwrap();
            other.put(key(6), "").wait().unwrap();
            crdt.put(key(7), "").wait().unwrap();
            crdt.get(key(7)).wait().unwrap();
            crdt.siblings(key(8)).wait().unwrap();
            crdt.delete(key(9)).wait().unwrap();
            crdt.add("counter", 1).wait().unwrap();
            crdt.counter("counter").wait().unwrap();
            crdt.range(&RangeQuery::prefix(key(7)).limit(1)).wait().unwrap();
            if number % 10 == 0 {
                assert_eq!(missing.put(key(0), "").wait(), Err(OperationError::KeyspaceMissing));
                assert!(matches!(store.get(long.clone()).wait(), Err(OperationError::Limit(_))));
                assert!(matches!(crdt.put(long.clone(), "").wait(), Err(OperationError::CrdtLimit(_))));
            }
        }
        store.keyspaces().wait().unwrap();
        store.drop_keyspace("other").unwrap().wait().unwrap();
        // The answer is discarded, and counted.
        drop(store.put("dropped", ""));
        store.put("after it", "").wait().unwrap();
        drop(watch);
    });
    values(&recorder.snapshotter())
}

#[test]
fn operations_errors_and_watches_are_counted_exactly() {
    let values = run(COUNT);
    let value = |name: &str| values.get(&format!("x0_kv_{name}")).unwrap_or_else(|| panic!("{name}")).0;
    let (count, tenth) = (f64::from(COUNT), f64::from(COUNT / 10));
    // Get and range; of those of which a tenth is refused, as many more.
    assert_eq!(value("operation_seconds read linearizable"), 2.0 * count + tenth + 1.0);
    // Two puts, a delete, a compare-and-swap and a transaction; two keyspaces and two puts at the end.
    assert_eq!(value("operation_seconds write linearizable"), 5.0 * count + tenth + 4.0);
    assert_eq!(value("operation_seconds read local"), count);
    assert_eq!(value("operation_seconds read crdt"), 4.0 * count);
    // A key that is too long never becomes an operation of a CRDT keyspace.
    assert_eq!(value("operation_seconds write crdt"), 3.0 * count);
    assert_eq!(value("operation_errors_total write keyspace_missing"), tenth);
    assert_eq!(value("operation_errors_total read limit"), tenth);
    let errors = values.iter().filter(|(name, _)| name.starts_with("x0_kv_operation_errors_total"));
    assert_eq!(errors.map(|(_, (value, _))| value).sum::<f64>(), 2.0 * tenth);
    for (kind, expected) in [
        ("get", 2.0 * count + tenth),
        ("range", count),
        ("put", 2.0 * count + tenth + 2.0),
        ("delete", count),
        ("compare_and_swap", count),
        ("transaction", count),
        ("keyspaces", 1.0),
        ("create_keyspace", 1.0),
        ("drop_keyspace", 1.0),
    ] {
        assert_eq!(value(&format!("operations_total linearizable {kind}")), expected, "{kind}");
    }
    for kind in ["get", "siblings", "counter", "range", "put", "add", "delete"] {
        assert_eq!(value(&format!("operations_total crdt {kind}")), count, "{kind}");
    }
    assert_eq!((value("operations_waiting"), value("watches")), (0.0, 0.0));
    assert_eq!(values.len(), run(10).len(), "keys became series");

    let bare: Vec<_> = values.iter().filter(|(_, (_, described))| !described).collect();
    assert!(bare.is_empty(), "not described: {bare:?}");
}
