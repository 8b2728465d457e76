//! Routers of x0-mesh in `sim::Fabric` beside those of babel-protocol in an event queue of the same kind: a
//! grid in virtual time, each link with a delay of 1 ms.
//!
//! Both are engines without I/O. Babel's packets are encoded and decoded as on a socket, and its engine gets
//! a tick each 100 ms; it runs with its recommended options, Hellos each 4 s and updates each 16 s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use babel_protocol::{
    Action, DecodeContext, Engine, EngineConfig, Event, RouteKey, RouterId, decode_packet, encode_packets,
};
use x0_identity::NodeId;
use x0_mesh::liveness::LivenessOptions;
use x0_mesh::sim::{Checks, Fabric, FabricLink, FabricOptions, LinkProfile, Topology};

/// The payload of a packet.
const PACKET_LEN_MAX: usize = 1200;
const DELAY: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(100);

/// What a run of a grid took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) wall: Duration,
    /// Allocated at the end, for each pair of nodes.
    pub(crate) bytes_per_pair: f64,
    /// Payloads of control messages and probes.
    pub(crate) control_per_node_second: f64,
}

fn found(start: Instant, nodes: usize, virtual_time: Duration, held: usize, control: u64) -> Found {
    let pairs = (nodes * (nodes - 1)) as f64;
    Found {
        wall: start.elapsed(),
        bytes_per_pair: held as f64 / pairs,
        control_per_node_second: control as f64 / nodes as f64 / virtual_time.as_secs_f64(),
    }
}

/// A grid of routers of x0-mesh. `allocated` says how many bytes the process has allocated.
pub(crate) fn fabric(side: usize, virtual_time: Duration, allocated: fn() -> usize) -> Result<Found> {
    let (start, before) = (Instant::now(), allocated());
    // With the detection of production: Babel's Hellos detect cuts as well.
    let options = FabricOptions::default().checks(Checks::None).liveness(LivenessOptions::default());
    let mut fabric = Fabric::new(1, options);
    let profile = LinkProfile { delay_min: DELAY, delay_max: DELAY, ..LinkProfile::default() };
    let grid = Topology::Grid { width: side, height: side };
    let nodes = fabric.build(&grid, FabricLink::default().profile(profile));
    fabric.run_until(virtual_time);
    let control = fabric.stats().message_bytes + fabric.stats().probe_bytes;
    let found = found(start, nodes.len(), virtual_time, allocated() - before, control);
    for node in &nodes {
        let routes = fabric.router(*node).map_or(0, |router| router.routes().count());
        ensure!(routes == nodes.len() - 1, "{node} has {routes} routes");
    }
    Ok(found)
}

/// What a large network under churn took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) nodes: usize,
    /// Until every node knew every route, and from then to the end.
    pub(crate) wall: [Duration; 2],
    /// Of the beginning, in virtual time.
    pub(crate) started: Duration,
    /// The most that was allocated at the end of any of the steps.
    pub(crate) peak: usize,
    /// Nodes that crashed and started again.
    pub(crate) restarts: usize,
    pub(crate) control_per_node_second: f64,
}

/// How long the nodes have to learn all routes.
const START_MAX: Duration = Duration::from_secs(120);
const CHURN: Duration = Duration::from_secs(10);
/// After the last start of a node.
const REST: Duration = Duration::from_secs(10);
/// How many nodes crash in [`CHURN`], nearly.
const CRASHES: u32 = 20;
const MEAN_DOWN: Duration = Duration::from_secs(2);

/// A grid of routers of x0-mesh, with the detection of production, of which some crash and start again.
/// `allocated` says how many bytes the process has allocated.
pub(crate) fn crowd(side: usize, allocated: fn() -> usize) -> Result<Crowd> {
    let (start, before) = (Instant::now(), allocated());
    let options = FabricOptions::default().checks(Checks::None).liveness(LivenessOptions::default());
    let mut fabric = Fabric::new(1, options);
    let profile = LinkProfile { delay_min: DELAY, delay_max: DELAY, ..LinkProfile::default() };
    let grid = Topology::Grid { width: side, height: side };
    let nodes = fabric.build(&grid, FabricLink::default().profile(profile));
    let mut peak = 0;
    let mut step = |fabric: &mut Fabric| {
        fabric.run_until(fabric.now() + TICK);
        peak = peak.max(allocated().saturating_sub(before));
    };
    let knows_all = |fabric: &Fabric, node: &NodeId| {
        fabric.router(*node).is_some_and(|router| router.routes().count() == nodes.len() - 1)
    };
    // The last of those that lack a route is asked first, so that few are asked each time.
    let mut lacking: Vec<NodeId> = nodes.clone();
    while !lacking.is_empty() {
        ensure!(fabric.now() < START_MAX, "{} nodes have no route to some node", lacking.len());
        step(&mut fabric);
        while lacking.last().is_some_and(|node| knows_all(&fabric, node)) {
            lacking.pop();
        }
    }
    let (started, start_wall) = (fabric.now(), start.elapsed());
    // Each node crashes after up to twice the mean time.
    let mean_up = CHURN * u32::try_from(nodes.len())? / (2 * CRASHES);
    fabric.churn(started + CHURN, mean_up, MEAN_DOWN);
    let mut restarts = 0;
    let mut down = BTreeSet::new();
    while fabric.now() < started + CHURN + REST {
        step(&mut fabric);
        let now: BTreeSet<NodeId> =
            nodes.iter().copied().filter(|node| fabric.router(*node).is_none()).collect();
        restarts += down.difference(&now).count();
        down = now;
    }
    ensure!(restarts > 0, "no node crashed");
    let found = nodes.iter().filter(|node| !knows_all(&fabric, node)).count();
    ensure!(found == 0, "after the churn {found} nodes have no route to some node");
    let control = fabric.stats().message_bytes + fabric.stats().probe_bytes;
    Ok(Crowd {
        nodes: nodes.len(),
        wall: [start_wall, start.elapsed() - start_wall],
        started,
        peak,
        restarts,
        control_per_node_second: control as f64 / nodes.len() as f64 / fabric.now().as_secs_f64(),
    })
}

/// A node's end of a link: the interface, the node at the other end, and its interface.
struct End {
    interface: usize,
    peer: usize,
    peer_interface: usize,
}

/// The receiver, its interface, the sender, and the bytes of a packet.
type OnTheWay = (usize, usize, usize, Vec<u8>);

fn address(node: usize) -> IpAddr {
    Ipv6Addr::from((0xfe80_u128 << 112) | (node as u128 + 1)).into()
}

fn name(interface: usize) -> String {
    format!("i{interface}")
}

/// The same grid of routers of babel-protocol.
pub(crate) fn babel(side: usize, virtual_time: Duration, allocated: fn() -> usize) -> Result<Found> {
    let (start, before) = (Instant::now(), allocated());
    let count = side * side;
    let mut ends: Vec<Vec<End>> = (0..count).map(|_| Vec::new()).collect();
    let right = (0..count).filter(|at| (at + 1) % side != 0).map(|at| (at, at + 1));
    let down = (0..count - side).map(|at| (at, at + side));
    for (one, other) in right.chain(down).collect::<Vec<_>>() {
        let (interface, peer_interface) = (ends[one].len(), ends[other].len());
        ends[one].push(End { interface, peer: other, peer_interface });
        ends[other].push(End { interface: peer_interface, peer: one, peer_interface: interface });
    }
    let mut engines = Vec::new();
    let mut queue = BTreeMap::<_, OnTheWay>::new();
    let (mut number, mut control) = (0_u64, 0_u64);
    let mut act = |queue: &mut BTreeMap<_, _>, node: usize, now_ms: u64, actions: Vec<Action>| {
        for action in actions {
            let Action::Send { interface, packet, .. } = action else { continue };
            let Some(end) = ends[node].iter().find(|end| name(end.interface) == interface) else { continue };
            for bytes in encode_packets(&packet, PACKET_LEN_MAX)? {
                number += 1;
                control += bytes.len() as u64;
                queue.insert((now_ms + 1, number), (end.peer, end.peer_interface, node, bytes));
            }
        }
        anyhow::Ok(())
    };
    for (node, ends) in ends.iter().enumerate() {
        let id = (node as u64 + 1).to_be_bytes();
        let mut engine =
            Engine::try_new(EngineConfig::recommended(RouterId::new(id).context("a router id")?))?;
        for end in ends {
            let local_addresses = vec![address(node)];
            let up = Event::InterfaceUp { interface: name(end.interface), local_addresses, now_ms: 0 };
            let actions = engine.try_handle(up)?;
            act(&mut queue, node, 0, actions)?;
        }
        let key =
            RouteKey::new(format!("2001:db8::{:x}/128", node + 1).parse()?, None).context("a route key")?;
        let actions = engine.try_handle(Event::Originate { key, metric: 0, now_ms: 0 })?;
        act(&mut queue, node, 0, actions)?;
        engines.push(engine);
    }
    let until = u64::try_from(virtual_time.as_millis())?;
    let tick = u64::try_from(TICK.as_millis())?;
    for now_ms in 1..=until {
        while let Some(entry) = queue.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let (node, interface, from, bytes) = entry.remove();
            let source = address(from);
            let packet = decode_packet(&bytes, DecodeContext { source })?;
            let interface = name(interface);
            let actions =
                engines[node].try_handle(Event::PacketReceived { interface, source, packet, now_ms })?;
            act(&mut queue, node, now_ms, actions)?;
        }
        // Nodes do not tick at the same moment.
        for node in (0..count).filter(|node| (now_ms + *node as u64).is_multiple_of(tick)) {
            let actions = engines[node].try_handle(Event::Tick { now_ms })?;
            act(&mut queue, node, now_ms, actions)?;
        }
    }
    drop(queue);
    let found = found(start, count, virtual_time, allocated() - before, control);
    for (node, engine) in engines.iter().enumerate() {
        let routes = engine.selected_routes().len();
        ensure!(routes + 1 >= count, "node {node} of babel-protocol has {routes} routes");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_crowd_knows_all_routes_after_some_of_it_restarted() {
        // So many nodes that some restart within the time of the churn.
        let crowd = super::crowd(16, crate::memory::allocated).unwrap();
        assert_eq!(crowd.nodes, 256);
        assert!(crowd.restarts > 0 && crowd.peak > 256 * 255 * 48, "{crowd:?}");
    }
}
