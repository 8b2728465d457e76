//! What a node of a large mesh costs: memory for each pair of nodes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use x0_mesh::liveness::LivenessOptions;
use x0_mesh::sim::{Checks, Fabric, FabricLink, FabricOptions, LinkProfile, Topology};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

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

/// 16 GiB are 171 bytes for each pair of 10,000 nodes. A third of that is left for a state that churn makes
/// larger for a while. `x0-bench mesh --case "10,000"` runs the network itself.
#[test]
fn ten_thousand_nodes_would_fit_in_16_gib() {
    let before = ALLOCATOR.allocated();
    let mut fabric = grid(18);
    let nodes: Vec<_> = fabric.nodes().collect();
    fabric.run_until(20 * SECOND);
    let pairs = nodes.len() * (nodes.len() - 1);
    let per_pair = (ALLOCATOR.allocated() - before) / pairs;
    for node in &nodes {
        assert_eq!(fabric.router(*node).unwrap().routes().count(), nodes.len() - 1);
    }
    assert!(per_pair < 125, "{per_pair} B for each pair");
}
