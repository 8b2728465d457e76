//! The metrics of a QUIC transport.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod quic_common;

use std::collections::{BTreeMap, BTreeSet};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use quic_common::*;
use x0_mesh::{DownReason, Lane, telemetry};

/// Each series with its value, and whether its name was described.
fn values(snapshotter: &Snapshotter) -> BTreeMap<String, (f64, bool)> {
    // Other crates of the family may be built with metrics too.
    let all = snapshotter.snapshot().into_vec().into_iter();
    let all = all.filter(|(key, ..)| key.key().name().starts_with("x0_mesh_"));
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

fn table() -> BTreeSet<String> {
    let lines = include_str!("../src/telemetry.rs").lines().filter(|line| line.starts_with("//! | `"));
    lines.filter_map(|line| line.split('`').nth(1)).map(str::to_owned).collect()
}

/// One runtime thread: the local recorder is that of the thread.
#[test]
fn peers_datagrams_reconnections_and_refusals_are_counted_exactly() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        telemetry::describe();
        runtime.block_on(async {
            let domain = Domain::new("example.org");
            let (mut server, address) = bind(domain.config(1));
            let (mut client, _) = bind(domain.config(2).peer(node(1), address));
            let mut gauges = telemetry::PeerGauges::new(client.peers());
            gauges.publish();
            up(&mut client, 1).await;
            up(&mut server, 2).await;
            for _ in 0..3 {
                send(&mut client, 1, Lane::Datagram, b"datagram").await;
                receive(&mut server).await;
            }
            send(&mut server, 2, Lane::Ordered(0), b"message").await;
            receive(&mut client).await;
            gauges.publish();
            let now = values(&snapshotter);
            let peer = node(1).to_string();
            let gauge = |name: &str| now[&format!("x0_mesh_peer_{name} {peer}")].0;
            assert_eq!(gauge("up"), 1.0);
            // A snapshot sets the counters to 0.
            for way in ["sent", "received"] {
                assert_eq!(now[&format!("x0_mesh_datagrams_total {way}")].0, 3.0);
            }
            assert!(gauge("rtt_seconds") > 0.0 && gauge("last_message_age_seconds") >= 0.0);
            assert_eq!(now[&format!("x0_mesh_peer_loss_ratio {peer} sent")].0, 0.0);
            // Guests and peers without an address have no series: the server lists none.
            assert!(server.peers().links().is_empty());

            client.peers().reconnect(node(1));
            assert_eq!(down(&mut client, 1).await.1, DownReason::Local);
            down(&mut server, 2).await;
            up(&mut client, 1).await;
            up(&mut server, 2).await;
            // A foreign authority: refused by the side that is dialled, and reported to the one that dials.
            let stranger = Domain::new("example.com");
            let (mut refused, _) = bind(stranger.config(3).peer(node(1), address));
            down(&mut refused, 1).await;
            soon(refused.close()).await;

            client.peers().remove_peer(node(1));
            down(&mut client, 1).await;
            gauges.publish();
        });
    });
    let now = values(&snapshotter);
    let value = |name: &str| now[&format!("x0_mesh_{name}")].0;
    // The server has no address of the client, and forgets it once it is down.
    assert_eq!(value("reconnections_total"), 1.0);
    assert!(value("handshake_failures_total untrusted") >= 1.0);
    assert_eq!(value("handshake_failures_total wrong_identity"), 0.0);
    let peer = node(1).to_string();
    assert_eq!(value(&format!("peer_up {peer}")), 0.0);
    assert!(value(&format!("peer_rtt_seconds {peer}")).is_nan());

    let bare: Vec<_> = now.iter().filter(|(_, (_, described))| !described).collect();
    assert!(bare.is_empty(), "not described: {bare:?}");
    let table = table();
    for name in now.keys().filter_map(|name| name.split(' ').next()) {
        assert!(table.contains(name), "{name} is not in the table");
    }
    // All names but those of a mux, which the transport alone has not.
    let live: BTreeSet<_> = now.keys().filter_map(|name| name.split(' ').next()).collect();
    let missing: Vec<_> = table.iter().filter(|name| !live.contains(name.as_str())).collect();
    assert!(missing.iter().all(|name| name.starts_with("x0_mesh_mux_")), "{missing:?}");
}
