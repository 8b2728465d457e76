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
            // The epoch is too young for a share.
            assert!(now[&format!("x0_mesh_peer_loss_ratio {peer} sent")].0.is_nan());
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
    // The peer was removed.
    assert!(value(&format!("peer_up {peer}")).is_nan());
    assert!(value(&format!("peer_rtt_seconds {peer}")).is_nan());

    let bare: Vec<_> = now.iter().filter(|(_, (_, described))| !described).collect();
    assert!(bare.is_empty(), "not described: {bare:?}");
    let table = table();
    for name in now.keys().filter_map(|name| name.split(' ').next()) {
        assert!(table.contains(name), "{name} is not in the table");
    }
    // All names but those of a mux and of a mesh, which the transport alone has not.
    let live: BTreeSet<_> = now.keys().filter_map(|name| name.split(' ').next()).collect();
    let missing: Vec<_> = table.iter().filter(|name| !live.contains(name.as_str())).collect();
    let elsewhere = [
        "x0_mesh_mux_",
        "x0_mesh_link_",
        "x0_mesh_path_",
        "x0_mesh_relayed_",
        "x0_mesh_route_",
        "x0_mesh_failovers_",
        "x0_mesh_flood_",
        "x0_mesh_unanswered_",
        "x0_mesh_forged_",
    ];
    let is_elsewhere = |name: &&String| elsewhere.iter().any(|start| name.starts_with(start));
    assert!(missing.iter().all(is_elsewhere), "{missing:?}");
}

/// Three nodes in a line: a path over the middle one, and its end.
#[cfg(feature = "mesh")]
#[test]
fn links_and_paths_of_a_mesh_are_published() {
    use std::net::SocketAddr;

    use x0_mesh::link::MemorySegment;
    use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        telemetry::describe();
        runtime.block_on(async {
            let domain = Domain::new("example.org");
            let end = |number: u16| SocketAddr::from(([10, 0, 0, 1], number));
            let start = |number, ports: Vec<MeshPort>| {
                let identity = domain.identity(number);
                let options =
                    MeshOptions::new(node(number), identity.server_config(), identity.client_config());
                Mesh::start(ports.into_iter().fold(options, MeshOptions::port)).unwrap()
            };
            let (left, right) = (MemorySegment::new(1232), MemorySegment::new(1232));
            let one = start(1, vec![MeshPort::new(left.link(end(1))).neighbour(end(2))]);
            let middle = vec![MeshPort::new(left.link(end(2))), MeshPort::new(right.link(end(2)))];
            let two = start(2, middle);
            let three = start(3, vec![MeshPort::new(right.link(end(3))).neighbour(end(2))]);
            let mut gauges = telemetry::PathGauges::new();
            gauges.publish(&one);
            soon(one.reached(node(3))).await;
            soon(three.reached(node(1))).await;
            one.send(node(3), &[7; 1000]).unwrap();
            assert_eq!(soon(three.recv()).await.1.len(), 1000);
            gauges.publish(&one);
            let now = values(&snapshotter);
            let value = |name: &str| now[&format!("x0_mesh_{name}")].0;
            let (near, far) = (node(2).to_string(), node(3).to_string());
            assert_eq!(value(&format!("link_up {near} 0 0")), 1.0);
            assert_eq!(value(&format!("link_mtu_bytes {near} 0 0")), 1200.0);
            assert_eq!(value(&format!("path_next_hop {far} {near}")), 1.0);
            assert_eq!(value(&format!("path_mtu_bytes {far}")), 1200.0);
            assert!(value(&format!("path_metric {far}")) > value(&format!("path_metric {near}")));
            let sent = value(&format!("link_bytes_total {near} 0 0 sent"));
            let control = value(&format!("link_control_bytes_total {near} 0 0"));
            assert!(sent >= control + 1000.0, "{sent} {control}");
            assert!(value(&format!("link_bytes_total {near} 0 0 received")) > 0.0);
            for name in ["link_rtt_seconds", "link_quality"] {
                assert!(
                    now.keys().any(|key| key.starts_with(&format!("x0_mesh_{name} {near} 0 0"))),
                    "{name}"
                );
            }
            let mut relay = telemetry::PathGauges::new();
            relay.publish(&two);
            assert_eq!(values(&snapshotter)["x0_mesh_relayed_bytes_total"].0, 1000.0);

            drop(two);
            soon(one.until(|mesh| mesh.paths().is_empty())).await;
            gauges.publish(&one);
            let now = values(&snapshotter);
            let value = |name: &str| now[&format!("x0_mesh_{name}")].0;
            assert_eq!(value(&format!("link_up {near} 0 0")), 0.0);
            assert_eq!(value(&format!("path_next_hop {far} {near}")), 0.0);
            assert_eq!(value(&format!("path_mtu_bytes {far}")), 0.0);
            assert!(value(&format!("path_metric {far}")).is_nan());
            let table = table();
            for (key, (_, is_described)) in &now {
                let name = key.split(' ').next().unwrap();
                assert!(table.contains(name) && *is_described, "{name}");
            }
        });
    });
}
