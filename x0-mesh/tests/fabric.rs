//! Loop-freedom, feasibility and bounds in simulated networks, at every event.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::time::Duration;

use x0_identity::NodeId;
use x0_mesh::liveness::LivenessOptions;
use x0_mesh::router::{LinkCost, Report, RouteKind, RouterOptions};
use x0_mesh::sim::{
    Change, Checks, Fabric, FabricLink, FabricOptions, Forgery, LinkProfile, Loss, Nat, PacketOutcome,
    Topology,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Frames are lost, doubled, and overtaken by frames sent much later.
fn bad_link() -> FabricLink {
    FabricLink::default().profile(LinkProfile {
        delay_min: MS / 10,
        delay_max: 3 * MS,
        loss: 0.2,
        duplication: 0.1,
        reordering: 0.3,
    })
}

/// Small tables, short times: more happens in a second.
fn quick() -> FabricOptions {
    FabricOptions::default().checks(Checks::All).router(RouterOptions::default().hold_down(2 * SECOND))
}

fn assert_sound(fabric: &mut Fabric, context: &str) {
    fabric.check_all();
    assert!(fabric.violations().is_empty(), "{context}: {}", fabric.violations()[0]);
}

/// Every node that runs reaches every other that does, by routes that are feasible.
fn assert_connected(fabric: &Fabric, context: &str) {
    let running: Vec<NodeId> = fabric.nodes().filter(|node| fabric.router(*node).is_some()).collect();
    for from in &running {
        for to in running.iter().filter(|to| *to != from) {
            let route = fabric.router(*from).unwrap().route(*to);
            let kind = route.map(|route| route.kind);
            assert_eq!(kind, Some(RouteKind::Feasible), "{context}: {from} to {to}");
        }
    }
}

fn topologies() -> Vec<Topology> {
    vec![
        Topology::Line { nodes: 5 },
        Topology::Ring { nodes: 5 },
        Topology::Grid { width: 3, height: 3 },
        Topology::Tree { nodes: 7, arity: 2 },
        Topology::Geometric { nodes: 8, radius: 0.5 },
        Topology::Satellites { planes: 3, per_plane: 3, handover: SECOND, until: 5 * SECOND },
    ]
}

/// Cuts, one-way cuts, crashes, restarts within the detection time, changes of cost: drawn from the seed.
fn disturb(fabric: &mut Fabric, seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let nodes: Vec<NodeId> = fabric.nodes().collect();
    let pick = |number: u64| nodes[usize::try_from(number).unwrap()];
    let count = nodes.len() as u64;
    for _ in 0..30 {
        let (one, other) = (pick(draw(count)), pick(draw(count)));
        let link = fabric.link_between(one, other);
        match (draw(6), link) {
            (0, Some(link)) => fabric.change(Change::Cut(link)),
            (1, Some(link)) => fabric.change(Change::CutFrom(link, one)),
            (2, _) => fabric.change(Change::Crash(one)),
            (3, _) => fabric.change(Change::Start(one)),
            (4, Some(link)) => {
                let metric = u32::try_from(draw(900)).unwrap();
                fabric.set_cost(link, LinkCost::new(metric));
            }
            (_, Some(link)) => fabric.change(Change::Heal(link)),
            _ => {
                fabric.send(one, other);
            }
        }
        fabric.run_until(fabric.now() + MS * u32::try_from(draw(200)).unwrap());
    }
}

/// Ends all faults, and leaves out what the links lose.
fn heal(fabric: &mut Fabric) {
    let nodes: Vec<NodeId> = fabric.nodes().collect();
    for one in &nodes {
        if fabric.router(*one).is_none() {
            fabric.change(Change::Start(*one));
        }
        for other in &nodes {
            if let Some(link) = fabric.link_between(*one, *other) {
                fabric.change(Change::Heal(link));
            }
        }
    }
}

#[test]
fn no_loop_under_loss_disorder_cuts_and_restarts() {
    for (number, topology) in topologies().into_iter().enumerate() {
        for seed in 0..40 {
            let context = format!("topology {number}, seed {seed}");
            let mut fabric = Fabric::new(seed, quick());
            fabric.build(&topology, bad_link());
            disturb(&mut fabric, seed);
            assert_sound(&mut fabric, &context);
            if matches!(topology, Topology::Satellites { .. }) {
                continue;
            }
            heal(&mut fabric);
            fabric.run_until(fabric.now() + 15 * SECOND);
            assert_sound(&mut fabric, &context);
            assert_connected(&fabric, &context);
        }
    }
}

#[test]
fn no_loop_among_honest_nodes_when_one_forges_distances() {
    let forgeries = [Forgery::Metric, Forgery::Seqno(3), Forgery::MetricAndSeqno(1000)];
    for (number, topology) in topologies().into_iter().enumerate() {
        for seed in 0..12 {
            for forgery in forgeries {
                let context = format!("topology {number}, seed {seed}, {forgery:?}");
                let mut fabric = Fabric::new(seed, quick());
                let nodes = fabric.build(&topology, bad_link());
                fabric.run_until(SECOND);
                let member = nodes[usize::try_from(seed).unwrap() % nodes.len()];
                fabric.set_forgery(member, Some(forgery));
                disturb(&mut fabric, seed);
                assert_sound(&mut fabric, &context);
            }
        }
    }
}

/// Forged sequence numbers reach the node whose number they are, and it reports and outbids them. A neighbour
/// of that node takes a forged route only while the direct link is cut, and keeps it afterwards, because the
/// direct route has the older number.
#[test]
fn forged_sequence_numbers_are_reported_and_outbid() {
    let mut fabric = Fabric::new(1, quick());
    let nodes = fabric.build(&Topology::Ring { nodes: 5 }, FabricLink::default());
    fabric.run_until(5 * SECOND);
    fabric.set_forgery(nodes[0], Some(Forgery::MetricAndSeqno(2)));
    // A restart makes it advertise everything again.
    fabric.change(Change::Start(nodes[0]));
    fabric.run_until(6 * SECOND);
    let direct = fabric.link_between(nodes[1], nodes[2]).unwrap();
    fabric.cut(direct);
    fabric.run_until(7 * SECOND);
    fabric.change(Change::Heal(direct));
    fabric.run_until(8 * SECOND);
    let forged = fabric
        .reports()
        .iter()
        .filter(|(_, report)| matches!(report, Report::ForgedSeqno { seqno, own, .. } if seqno > own))
        .count();
    assert!(forged > 0, "{:?}", fabric.reports());
    fabric.set_forgery(nodes[0], None);
    fabric.change(Change::Start(nodes[0]));
    fabric.run_until(20 * SECOND);
    assert_sound(&mut fabric, "after the forgery");
    assert_connected(&fabric, "after the forgery");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut fabric = Fabric::new(seed, quick().checks(Checks::Changes));
        fabric.build(&Topology::Geometric { nodes: 30, radius: 0.3 }, bad_link());
        fabric.churn(5 * SECOND, SECOND, SECOND);
        fabric.run_until(6 * SECOND);
        (fabric.trace_hash(), fabric.stats())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

/// Probes each millisecond around a ring whose link is cut: the gap, and what the routers sent.
fn ring_failover(nodes: usize, seed: u64) -> (Duration, u64) {
    let mut fabric = Fabric::new(seed, FabricOptions::default());
    let ring = fabric.build(&Topology::Ring { nodes }, FabricLink::default());
    fabric.run_until(2 * SECOND);
    assert_connected(&fabric, "ring");
    let link = fabric.link_between(ring[1], ring[2]).unwrap();
    let before = fabric.stats();
    let mut arrived = Vec::new();
    for probe in 0..1000 {
        if probe == 500 {
            fabric.cut(link);
        }
        fabric.send(ring[0], ring[2]);
        fabric.run_until(fabric.now() + MS);
        while let Some(outcome) = fabric.poll_outcome() {
            if let PacketOutcome::Delivered { sent_at, .. } = outcome {
                arrived.push(sent_at);
            }
        }
    }
    assert_sound(&mut fabric, "ring");
    // Probes overtake each other on the links.
    arrived.sort_unstable();
    let gap = arrived.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    (gap, fabric.stats().message_bytes - before.message_bytes)
}

/// The gap is the detection of 50 ms, which this test sets, and at most two probes: nothing is asked before
/// packets take the other way round.
#[test]
fn a_ring_fails_over_as_soon_as_the_cut_is_noticed() {
    for seed in 0..10 {
        for nodes in [4, 5, 7] {
            let (gap, bytes) = ring_failover(nodes, seed);
            assert!(gap <= 53 * MS, "{nodes} nodes, seed {seed}: {gap:?}");
            // All nodes, in the second around the cut.
            assert!(bytes < 2350 * nodes as u64, "{nodes} nodes, seed {seed}: {bytes} bytes");
        }
    }
}

/// The whole of it, with the detection of production: a ring of five, a probe packet each millisecond from
/// the first to the third node, the link before the third cut silently. The gaps, and the control bytes of a
/// node in each second before the cut, with 100 bytes of headers for each frame.
#[test]
fn a_ring_fails_over_within_100_ms_of_a_silent_cut() {
    const HEADERS: u64 = 100;
    let mut gaps = Vec::new();
    let mut control = Vec::new();
    for seed in 0..60 {
        let mut fabric = Fabric::new(seed, FabricOptions::default().liveness(LivenessOptions::default()));
        let ring = fabric.build(&Topology::Ring { nodes: 5 }, FabricLink::default());
        fabric.run_until(550 * MS);
        assert_connected(&fabric, "cold start");
        fabric.run_until(3 * SECOND);
        let link = fabric.link_between(ring[1], ring[2]).unwrap();
        let (mut before, mut after) = (fabric.stats(), fabric.stats());
        let mut arrived = Vec::new();
        let cut = 3000 + u32::try_from(seed).unwrap() * 7;
        for probe in 0..cut + 1000 {
            if probe == 2000 {
                before = fabric.stats();
            }
            if probe == cut {
                after = fabric.stats();
                fabric.cut(link);
            }
            fabric.send(ring[0], ring[2]);
            fabric.run_until(fabric.now() + MS);
            while let Some(outcome) = fabric.poll_outcome() {
                if let PacketOutcome::Delivered { sent_at, .. } = outcome {
                    arrived.push(sent_at);
                }
            }
        }
        assert_sound(&mut fabric, "ring");
        arrived.sort_unstable();
        gaps.push(arrived.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap());
        let frames = after.messages + after.probes - before.messages - before.probes;
        let bytes = after.message_bytes + after.probe_bytes - before.message_bytes - before.probe_bytes;
        let time = f64::from(cut - 2000) / 1000.0;
        control.push((bytes + HEADERS * frames) as f64 / time / 5.0);
    }
    gaps.sort_unstable();
    control.sort_by(f64::total_cmp);
    println!(
        "gap: median {:?}, longest {:?}; control: median {:.0} B/s/node",
        gaps[30], gaps[59], control[30]
    );
    assert!(gaps[30] <= 80 * MS, "median {:?}", gaps[30]);
    assert!(gaps[59] < 100 * MS, "longest {:?}", gaps[59]);
    assert!(control[30] <= 2350.0, "{} B/s/node", control[30]);
}

/// A tenth of all frames is lost on each link: no link goes down, so that no route changes because of it.
#[test]
fn loss_of_a_tenth_causes_no_failover() {
    let lossy = FabricLink::default().profile(LinkProfile { loss: 0.1, ..LinkProfile::default() });
    let mut fabric = Fabric::new(3, FabricOptions::default().liveness(LivenessOptions::default()));
    let ring = fabric.build(&Topology::Ring { nodes: 5 }, lossy);
    fabric.run_until(5 * SECOND);
    assert_connected(&fabric, "ring");
    let before = fabric.stats().route_changes;
    for _ in 0..60_000 {
        fabric.send(ring[0], ring[2]);
        fabric.run_until(fabric.now() + 2 * MS);
        while fabric.poll_outcome().is_some() {}
    }
    assert_sound(&mut fabric, "ring");
    assert_eq!(fabric.stats().route_changes, before);
}

/// Detection and routing together under everything that the network does to them.
#[test]
fn no_loop_with_the_detection_of_production() {
    for (number, topology) in topologies().into_iter().enumerate() {
        for seed in 100..110 {
            let context = format!("topology {number}, seed {seed}");
            let mut fabric = Fabric::new(seed, quick().liveness(LivenessOptions::default()));
            fabric.build(&topology, bad_link());
            disturb(&mut fabric, seed);
            assert_sound(&mut fabric, &context);
        }
    }
}

/// Two nodes behind NATs with a link between them, and a relay that has a link to each. The pause of idle
/// links follows the mappings, up to 15 s.
fn behind_nats(seed: u64, nats: [Nat; 2]) -> (Fabric, [NodeId; 3]) {
    let liveness = LivenessOptions::default().interval_idle_max(15 * SECOND);
    let mut fabric = Fabric::new(seed, FabricOptions::default().checks(Checks::All).liveness(liveness));
    let [one, other, relay] = [(); 3].map(|()| fabric.add_node());
    for (from, to) in [(one, other), (one, relay), (other, relay)] {
        fabric.connect(from, to, FabricLink::default());
    }
    fabric.set_nat(one, Some(nats[0]));
    fabric.set_nat(other, Some(nats[1]));
    fabric.run_until(2 * SECOND);
    (fabric, [one, other, relay])
}

fn next(fabric: &Fabric, from: NodeId, to: NodeId) -> Option<NodeId> {
    fabric.router(from).and_then(|router| router.route(to)).map(|route| route.next)
}

/// Sends a packet each millisecond; the longest time without one that arrives, at its destination.
fn longest_gap(fabric: &mut Fabric, from: NodeId, to: NodeId, until: Duration) -> Duration {
    let (mut last, mut longest) = (fabric.now(), Duration::ZERO);
    while fabric.now() < until {
        fabric.send(from, to);
        fabric.run_until(fabric.now() + MS);
        while let Some(outcome) = fabric.poll_outcome() {
            if let PacketOutcome::Delivered { at, .. } = outcome {
                longest = longest.max(at.saturating_sub(last));
                last = last.max(at);
            }
        }
    }
    longest.max(until.saturating_sub(last))
}

/// Both ends of a link send probes, and so open both mappings.
#[test]
fn nats_that_keep_the_port_are_passed_directly() {
    for seed in 0..10 {
        let (fabric, [one, other, _]) = behind_nats(seed, [Nat::easy(30 * SECOND); 2]);
        assert_eq!([next(&fabric, one, other), next(&fabric, other, one)], [Some(other), Some(one)]);
        // A hard NAT and an easy one as well.
        let nats = [Nat::hard(30 * SECOND), Nat::easy(30 * SECOND)];
        let (fabric, [one, other, _]) = behind_nats(seed, nats);
        assert_eq!([next(&fabric, one, other), next(&fabric, other, one)], [Some(other), Some(one)]);
    }
}

#[test]
fn hard_nats_on_both_sides_are_passed_over_a_relay() {
    for seed in 0..10 {
        let (mut fabric, [one, other, relay]) = behind_nats(seed, [Nat::hard(30 * SECOND); 2]);
        assert_eq!([next(&fabric, one, other), next(&fabric, other, one)], [Some(relay), Some(relay)]);
        let until = fabric.now() + SECOND;
        let gap = longest_gap(&mut fabric, one, other, until);
        assert!(gap < 10 * MS, "seed {seed}: {gap:?}");
        // Fixed times of detection know of it as well, also on links that are up.
        let mut fabric = Fabric::new(seed, FabricOptions::default());
        let nodes = fabric.build(&Topology::Ring { nodes: 3 }, FabricLink::default());
        for (nat, hop) in [(Some(Nat::hard(SECOND)), nodes[2]), (None, nodes[1])].repeat(2) {
            fabric.set_nat(nodes[0], nat);
            fabric.set_nat(nodes[1], nat);
            fabric.run_until(fabric.now() + SECOND);
            assert_eq!(next(&fabric, nodes[0], nodes[1]), Some(hop));
        }
    }
}

#[test]
fn nothing_comes_in_without_a_mapping() {
    let (mut fabric, [one, other, relay]) = behind_nats(1, [Nat::easy(Duration::ZERO), Nat::easy(SECOND)]);
    assert_eq!([next(&fabric, one, other), next(&fabric, other, one)], [None; 2]);
    assert_eq!(next(&fabric, other, relay), Some(relay));
    fabric.set_nat(one, None);
    fabric.run_until(fabric.now() + SECOND);
    assert_eq!([next(&fabric, one, other), next(&fabric, other, one)], [Some(other), Some(one)]);
}

/// The worst case: the NAT of the receiver changes the port, of which its node notices nothing.
#[test]
fn a_nat_that_changes_its_ports_interrupts_for_less_than_200_ms() {
    let mut worst = Duration::ZERO;
    for seed in 0..10 {
        let (mut fabric, [one, other, _]) = behind_nats(seed, [Nat::easy(30 * SECOND); 2]);
        for (from, to) in [(one, other), (other, one)] {
            let now = fabric.now();
            longest_gap(&mut fabric, from, to, now + 2 * SECOND);
            let now = fabric.now();
            // Between two probes of the receiver, which are 25 ms apart.
            fabric.schedule(now + 110 * MS, Change::Remap(one));
            let gap = longest_gap(&mut fabric, from, to, now + 5 * SECOND);
            assert!(gap < 200 * MS, "seed {seed}, from {from}: {gap:?}");
            worst = worst.max(gap);
            // The direct path is used again.
            assert_eq!(next(&fabric, from, to), Some(to), "seed {seed}");
        }
    }
    // Until the receiver sends a probe.
    assert!(worst > 5 * MS, "{worst:?}");
}

/// An hour without traffic: few probes keep the mappings open, whatever their lifetime, and the first packet
/// passes.
#[test]
fn mappings_are_kept_open_without_traffic() {
    for (seed, lifetime) in [(0, 30_u32), (1, 30), (2, 10), (3, 4)] {
        let (mut fabric, [one, other, _]) = behind_nats(seed, [Nat::easy(SECOND * lifetime); 2]);
        // The pauses grow meanwhile.
        fabric.run_until(600 * SECOND);
        let before = fabric.stats();
        fabric.run_until(4200 * SECOND);
        let probes = fabric.stats().probes - before.probes;
        // Six ends of links; a pause of a third of the lifetime at least, and never more than 15 s.
        let pause = f64::from(6 * 3600) / probes as f64;
        assert!(pause > f64::from(lifetime.min(30)) / 3.0, "seed {seed}: a probe each {pause} s");
        assert_eq!([next(&fabric, one, other), next(&fabric, other, one)], [Some(other), Some(one)]);
        for (from, to) in [(one, other), (other, one)] {
            let until = fabric.now() + SECOND;
            let gap = longest_gap(&mut fabric, from, to, until);
            assert!(gap < 200 * MS, "seed {seed}: {gap:?}");
        }
    }
}

#[test]
fn a_calm_network_sends_nothing() {
    let mut fabric = Fabric::new(9, FabricOptions::default());
    fabric.build(&Topology::Grid { width: 10, height: 10 }, FabricLink::default());
    fabric.run_until(10 * SECOND);
    assert_connected(&fabric, "grid");
    assert_sound(&mut fabric, "grid");
    let before = fabric.stats();
    fabric.run_until(60 * SECOND);
    assert_eq!(fabric.stats().messages, before.messages);
}

/// A better path is taken, a degraded one is left while it still works, and no packet is lost by either.
#[test]
fn a_degraded_link_is_left_without_loss() {
    let mut fabric = Fabric::new(5, FabricOptions::default());
    let ring = fabric.build(&Topology::Ring { nodes: 3 }, FabricLink::default());
    fabric.run_until(2 * SECOND);
    let direct = fabric.link_between(ring[0], ring[1]).unwrap();
    let next = |fabric: &Fabric| fabric.router(ring[0]).unwrap().route(ring[1]).unwrap().next;
    assert_eq!(next(&fabric), ring[1]);
    let mut delivered = 0;
    for probe in 0..400 {
        if probe == 100 {
            fabric.degrade(direct);
        }
        if probe == 300 {
            fabric.set_cost(direct, LinkCost::new(256));
        }
        fabric.send(ring[0], ring[1]);
        fabric.run_until(fabric.now() + MS);
        if probe == 290 {
            assert_eq!(next(&fabric), ring[2]);
        }
    }
    fabric.run_until(fabric.now() + SECOND);
    while let Some(outcome) = fabric.poll_outcome() {
        delivered += usize::from(matches!(outcome, PacketOutcome::Delivered { .. }));
    }
    assert_eq!(delivered, 400);
    assert_eq!(next(&fabric), ring[1]);
    assert_sound(&mut fabric, "degraded");
}

/// Two links between the same nodes, as for two addresses: the cheaper one is used while it works.
#[test]
fn the_cheaper_of_two_links_to_a_neighbour_is_used_while_it_works() {
    for seed in 0..10 {
        let options = FabricOptions::default().checks(Checks::All).liveness(LivenessOptions::default());
        let mut fabric = Fabric::new(seed, options);
        let [one, other, last] = [(); 3].map(|()| fabric.add_node());
        let slow = fabric.connect(one, other, FabricLink::default().cost(LinkCost::new(600)));
        let fast = fabric.connect(one, other, FabricLink::default().cost(LinkCost::new(256)));
        fabric.connect(other, last, FabricLink::default());
        fabric.run_until(2 * SECOND);
        let used = |fabric: &Fabric| {
            let route = fabric.router(one).unwrap().route(last).unwrap();
            (route.next, route.link)
        };
        assert_eq!(used(&fabric), (other, fast));
        fabric.cut(fast);
        let until = fabric.now() + SECOND;
        let gap = longest_gap(&mut fabric, one, last, until);
        assert!(gap <= 100 * MS, "{gap:?}");
        assert_eq!(used(&fabric), (other, slow));
        fabric.change(Change::Heal(fast));
        let until = fabric.now() + 5 * SECOND;
        let gap = longest_gap(&mut fabric, one, last, until);
        assert!(gap <= 10 * MS, "{gap:?}");
        assert_eq!(used(&fabric), (other, fast));
        fabric.cut(slow);
        let until = fabric.now() + SECOND;
        let gap = longest_gap(&mut fabric, one, last, until);
        assert!(gap <= 10 * MS, "{gap:?}");
        assert_sound(&mut fabric, "two links");
    }
}

/// A narrow link delays, and loses what its queue does not hold.
#[test]
fn bandwidth_and_queues() {
    let mut fabric = Fabric::new(5, FabricOptions::default());
    let narrow = FabricLink::default().bandwidth(120_000, 12_000);
    let line = fabric.build(&Topology::Line { nodes: 2 }, narrow);
    fabric.run_until(SECOND);
    for _ in 0..100 {
        fabric.send(line[0], line[1]);
    }
    fabric.run_until(3 * SECOND);
    let mut latest = Duration::ZERO;
    let mut delivered = 0;
    while let Some(PacketOutcome::Delivered { sent_at, at, .. }) = fabric.poll_outcome() {
        delivered += 1;
        latest = latest.max(at - sent_at);
    }
    assert!((10..=12).contains(&delivered), "{delivered}");
    assert!(latest > 90 * MS && latest < 130 * MS, "{latest:?}");
    assert_eq!(fabric.stats().lost, 100 - delivered);
}

/// Nodes that are gone are forgotten, and packets to them are dropped and not passed in circles.
#[test]
fn a_node_that_is_gone_is_forgotten() {
    let mut fabric = Fabric::new(6, quick());
    let grid = fabric.build(&Topology::Grid { width: 3, height: 3 }, FabricLink::default());
    fabric.run_until(2 * SECOND);
    fabric.change(Change::Crash(grid[4]));
    let mut losses = Vec::new();
    for _ in 0..500 {
        fabric.send(grid[0], grid[4]);
        fabric.run_until(fabric.now() + MS);
    }
    while let Some(outcome) = fabric.poll_outcome() {
        match outcome {
            PacketOutcome::Dropped { loss, .. } => losses.push(loss),
            PacketOutcome::Delivered { at, .. } => assert!(at < 2 * SECOND + 2 * MS),
            _ => {}
        }
    }
    assert!(losses.contains(&Loss::NoRoute), "{losses:?}");
    assert!(!losses.contains(&Loss::Hops));
    fabric.run_until(20 * SECOND);
    for node in fabric.nodes().filter(|node| *node != grid[4]) {
        let router = fabric.router(node).unwrap();
        assert_eq!(router.stats().destinations, 8, "{node}");
        assert_eq!(router.feasibility_distance(grid[4]), None);
    }
    fabric.change(Change::Start(grid[4]));
    fabric.run_until(25 * SECOND);
    assert_connected(&fabric, "back");
    assert_sound(&mut fabric, "back");
}

/// A planted fault has to be found: routers that do not keep their feasibility distance would loop here.
#[test]
fn the_checks_find_a_planted_loop() {
    // A node that restarts under its old sessions, with links that stay up, is what sessions protect from:
    // without the check of sessions, its neighbours' routes through it would count.
    let mut fabric = Fabric::new(8, quick().detection(5 * SECOND));
    let ring = fabric.build(&Topology::Ring { nodes: 4 }, FabricLink::default());
    fabric.run_until(2 * SECOND);
    let old = fabric.router(ring[0]).unwrap().session(ring[1]).unwrap();
    fabric.change(Change::Start(ring[1]));
    // Its neighbour has not noticed: the session differs at both ends, so that its packets are refused.
    assert_eq!(fabric.router(ring[1]).unwrap().session(ring[0]), None);
    assert_eq!(fabric.router(ring[0]).unwrap().session(ring[1]), Some(old));
    fabric.run_until(3 * SECOND);
    let new = fabric.router(ring[0]).unwrap().session(ring[1]).unwrap();
    assert_ne!(new.remote, old.remote);
    assert_connected(&fabric, "restarted");
    assert_sound(&mut fabric, "restarted");
}
