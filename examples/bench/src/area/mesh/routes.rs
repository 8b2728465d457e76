//! Routers of x0-mesh in `sim::Fabric` beside those of babel-protocol in an event queue of the same kind: a
//! grid in virtual time, each link with a delay of 1 ms.
//!
//! Both are engines without I/O. Babel's packets are encoded and decoded as on a socket, and its engine gets
//! a tick each 100 ms; it runs with its recommended options, Hellos each 4 s and updates each 16 s.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use babel_protocol::{
    Action, DecodeContext, Engine, EngineConfig, Event, RouteKey, RouterId, decode_packet, encode_packets,
};
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
