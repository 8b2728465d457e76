//! The metrics of sessions.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use x0_crdt::SessionStats;
use x0_crdt::telemetry::{SessionTelemetry, describe};

#[test]
fn what_sessions_count_adds_up_exactly() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        describe();
        let (mut one, mut other) = (SessionTelemetry::new(), SessionTelemetry::default());
        let stats = |times: u64| SessionStats {
            sent_bytes: 100 * times,
            received_bytes: 90 * times,
            redundant_bytes: 7 * times,
            sent_datagrams: 5 * times,
            joins: 4 * times,
            retries: 3 * times,
            divergences: 2 * times,
            reconciliations: times,
        };
        for times in [1, 1, 10] {
            one.publish(stats(times));
        }
        other.publish(stats(1000));
    });
    let values: BTreeMap<String, u64> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, description, value)| {
            assert!(description.is_some(), "{key:?} is not described");
            let DebugValue::Counter(count) = value else { panic!("{key:?}") };
            (key.key().name().to_owned(), count)
        })
        .collect();
    let value = |name: &str| values[&format!("x0_crdt_session_{name}_total")];
    assert_eq!(
        (value("sent_bytes"), value("received_bytes"), value("redundant_bytes")),
        (101_000, 90_900, 7070)
    );
    assert_eq!((value("sent_datagrams"), value("joins"), value("retries")), (5050, 4040, 3030));
    assert_eq!((value("divergences"), value("reconciliations")), (2020, 1010));
    let table = include_str!("../src/telemetry.rs");
    assert!(values.len() == 8 && values.keys().all(|name| table.contains(&format!("//! | `{name}` |"))));
}
