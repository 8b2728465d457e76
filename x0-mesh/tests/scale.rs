//! What a node of a large mesh costs: memory for each pair of nodes, and control bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use x0_mesh::liveness::LivenessOptions;
use x0_mesh::sim::{Checks, Fabric, FabricLink, FabricOptions, LinkProfile, Topology};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// The tests share the allocator: one after the other.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

const SECOND: Duration = Duration::from_secs(1);

/// A grid with the detection of production, and links of 1 ms.
fn grid(side: usize) -> Fabric {
    let options = FabricOptions::default().checks(Checks::None).liveness(LivenessOptions::default());
    let mut fabric = Fabric::new(1, options);
    let delay = Duration::from_millis(1);
    let profile = LinkProfile { delay_min: delay, delay_max: delay, ..LinkProfile::default() };
    fabric.build(&Topology::Grid { width: side, height: side }, FabricLink::default().profile(profile));
    fabric
}

/// Nodes of a grid, and the bytes that it holds when every node has all routes.
fn held(side: usize) -> (f64, f64) {
    let before = ALLOCATOR.allocated();
    let mut fabric = grid(side);
    let nodes: Vec<_> = fabric.nodes().collect();
    fabric.run_until(20 * SECOND);
    let held = ALLOCATOR.allocated() - before;
    for node in &nodes {
        assert_eq!(fabric.router(*node).unwrap().routes().count(), nodes.len() - 1);
    }
    (nodes.len() as f64, held as f64)
}

/// Some bytes for each node and some for each pair of nodes, of two grids. A fifth of the memory is left for
/// a state that churn makes larger for a while. `x0-bench mesh --case "routers with churn"` runs the network
/// itself.
#[test]
fn ten_thousand_nodes_would_fit_in_16_gib() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let [(few, few_held), (many, many_held)] = [11, 21].map(held);
    let per_pair = (many_held / many - few_held / few) / (many - few);
    let per_node = few_held / few - per_pair * few;
    let gib = (per_pair * 1e8 + per_node * 1e4) / f64::from(1 << 30);
    assert!(gib < 16.0 * 0.8, "{gib:.1} GiB: {per_pair:.0} B for each pair, {per_node:.0} B for each node");
    assert!(gib > 8.0, "{gib:.1} GiB: the measurement is not valid");
}

/// Babel needs 245 B/s for each of 100 nodes, its recommended options and the 60 s since the start of the
/// network included.
#[test]
fn a_hundred_nodes_send_fewer_control_bytes_than_babel() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut fabric = grid(10);
    let seconds = 60;
    fabric.run_until(seconds * SECOND);
    let stats = fabric.stats();
    let rate = |bytes: u64| bytes / 100 / u64::from(seconds);
    let (messages, probes) = (rate(stats.message_bytes), rate(stats.probe_bytes));
    assert!(messages + probes < 245, "{messages} B/s of messages and {probes} B/s of probes for each node");
}
