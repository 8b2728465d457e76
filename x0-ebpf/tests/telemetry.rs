//! The metrics of links.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use x0_ebpf::stats::{BackendKind, LinkCounters};
use x0_ebpf::telemetry::{LINKS_MAX, LinkTelemetry, describe};

fn link(index: u32, name: &str, count: u64) -> LinkCounters {
    let mut link = LinkCounters::new(Some(index), name);
    (link.rx.packets, link.rx.bytes, link.rx.errors, link.rx.drops) =
        (count, 10 * count, 2 * count, 3 * count);
    (link.tx.packets, link.tx.bytes) = (4 * count, 40 * count);
    link
}

#[test]
fn links_are_counted_exactly_also_when_they_are_created_again() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        describe();
        let mut telemetry = LinkTelemetry::new(BackendKind::Rtnetlink);
        for (index, count) in [(2, 5), (2, 9), (3, 4), (3, 6)] {
            telemetry.publish(&link(index, "veth0", count));
        }
        // Names beyond the limit do not become series.
        for number in 0..2 * LINKS_MAX {
            telemetry.publish(&link(9, &format!("l{number}"), 1));
        }
    });
    let values: BTreeMap<String, u64> = recorder
        .snapshotter()
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, description, value)| {
            assert!(description.is_some(), "{key:?} is not described");
            let DebugValue::Counter(count) = value else { panic!("{key:?}") };
            let labels: String = key.key().labels().map(|label| format!(" {}", label.value())).collect();
            (format!("{}{labels}", key.key().name()), count)
        })
        .collect();
    let value = |name: &str, way: &str| values[&format!("x0_ebpf_link_{name}_total veth0 {way} rtnetlink")];
    // Nine of the first link and six of the second one.
    assert_eq!((value("packets", "received"), value("bytes", "received")), (15, 150));
    assert_eq!((value("errors", "received"), value("drops", "received")), (30, 45));
    assert_eq!((value("packets", "sent"), value("bytes", "sent"), value("drops", "sent")), (60, 600, 0));
    assert_eq!(values.len(), LINKS_MAX * 2 * 4);
}
