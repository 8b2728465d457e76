//! One node with 200 neighbours and no traffic: bytes, packets and CPU time for each neighbour, beside the
//! keep-alives of QUIC connections without the mesh. Over the loopback link of a namespace. Needs root.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use x0_ebpf::testing::Namespace;
use x0_identity::{Identity, NodeId};
use x0_mesh::link::{UdpLink, UdpLinkOptions};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};
use x0_mesh::quic::{QuicOptions, QuicTransport};

use super::load::{identities, thread_cpu};
use super::{Options, runtime};
use crate::case::{Case, Metric};

const NEIGHBOURS: usize = 200;
const PORT: u16 = 7400;
/// The keep-alives of x0-mesh's QUIC on an idle machine.
const BYTES_MOST: f64 = 265.0;
const PACKETS_MOST: f64 = 4.1;

/// The loopback link counts no headers below IP.
const BYTES: Metric = Metric { name: "bytes of IP for each neighbour", unit: "B/s" };
const PACKETS: Metric = Metric { name: "packets for each neighbour", unit: "1/s" };
const CPU: Metric = Metric { name: "CPU of the node for each neighbour", unit: "us/s" };

/// The parts that one end of a neighbourhood keeps open.
#[derive(Debug)]
#[expect(dead_code, reason = "held until it is dropped")]
enum Kept {
    Mesh(Box<Mesh>),
    Quic(Box<QuicTransport>),
}

fn hub() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))
}

fn mesh((node, identity): &(NodeId, Identity), is_hub: bool) -> Result<Mesh> {
    let address = if is_hub { hub() } else { (Ipv4Addr::LOCALHOST, 0).into() };
    let port = MeshPort::new(UdpLink::open(&UdpLinkOptions::new(address))?);
    let port = if is_hub { port } else { port.neighbour(hub()) };
    let mut options = MeshOptions::new(*node, identity.server_config(), identity.client_config()).port(port);
    options.incoming_max = NEIGHBOURS;
    options.dial_timeout = Duration::from_secs(30);
    Ok(Mesh::start(options)?)
}

fn quic((node, identity): &(NodeId, Identity), hub_node: Option<NodeId>) -> Result<QuicTransport> {
    let address = if hub_node.is_none() { hub() } else { (Ipv4Addr::LOCALHOST, 0).into() };
    let options = QuicOptions::new(*node, address, identity.server_config(), identity.client_config())
        .dial_timeout(Duration::from_secs(30));
    Ok(QuicTransport::bind(match hub_node {
        Some(node) => options.peer(node, hub()),
        None => options,
    })?)
}

/// Bytes and packets that the loopback link of this thread's namespace has carried.
fn carried() -> Result<(u64, u64)> {
    let counters = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line =
        counters.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("a loopback link")?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // proc(5): eight fields of what was received.
    fields.first().copied().zip(fields.get(1).copied()).context("counters")
}

/// The figures of one system, for each neighbour and second.
fn measure(is_mesh: bool, time: Duration) -> Result<[f64; 3]> {
    let nodes = identities(NEIGHBOURS + 1)?;
    let (nodes, (stop, stopped)) = (&nodes, watch::channel(false));
    Namespace::new().context("it needs root")?.run(|| {
        std::thread::scope(|scope| {
            let mut ended = stopped.clone();
            // In the namespace of the thread that starts it.
            let leaves = scope.spawn(move || {
                runtime()?.block_on(async {
                    let mut kept = Vec::new();
                    for node in &nodes[1..] {
                        kept.push(if is_mesh {
                            Kept::Mesh(Box::new(mesh(node, false)?))
                        } else {
                            Kept::Quic(Box::new(quic(node, Some(nodes[0].0))?))
                        });
                        // Handshakes one after the other: they are not measured.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    let _ = ended.changed().await;
                    anyhow::Ok(())
                })
            });
            let measured = runtime()?.block_on(async {
                let _kept = if is_mesh {
                    let mesh = mesh(&nodes[0], true)?;
                    let all = mesh.until(|mesh| mesh.paths().len() == NEIGHBOURS);
                    tokio::time::timeout(Duration::from_secs(180), all).await?;
                    Kept::Mesh(Box::new(mesh))
                } else {
                    let transport = quic(&nodes[0], None)?;
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    Kept::Quic(Box::new(transport))
                };
                // The effects of the start have passed.
                tokio::time::sleep(Duration::from_secs(15)).await;
                let (begin, cpu, (bytes, packets)) = (Instant::now(), thread_cpu(), carried()?);
                tokio::time::sleep(time).await;
                let (seconds, cpu) = (begin.elapsed().as_secs_f64(), thread_cpu() - cpu);
                let after = carried()?;
                let share = |sum: f64| sum / seconds / NEIGHBOURS as f64;
                let (bytes, packets) = ((after.0 - bytes) as f64, (after.1 - packets) as f64);
                anyhow::Ok([share(bytes), share(packets), share(cpu.as_secs_f64() * 1e6)])
            });
            let _ = stop.send(true);
            match leaves.join() {
                Ok(served) => served.and(measured),
                Err(_) => measured,
            }
        })
    })?
}

/// The case, if its name contains the text of the options.
pub(super) fn cases(options: &Options) -> Result<Vec<Case>> {
    let name = "200 neighbours of one node, idle";
    if !name.contains(&options.case) {
        return Ok(Vec::new());
    }
    let time = Duration::from_secs(if options.quick { 10 } else { 60 });
    let how = format!("{} s without traffic; bytes and packets of both directions.", time.as_secs());
    let systems = ["x0-mesh, links", "x0-mesh's QUIC without the mesh"].map(str::to_owned).to_vec();
    let mut case = Case::new("mesh", name, how, systems);
    for (system, is_mesh) in [true, false].into_iter().enumerate() {
        let figures = measure(is_mesh, time)?;
        for (metric, figure) in [BYTES, PACKETS, CPU].into_iter().zip(figures) {
            case.add(metric, system, figure);
        }
    }
    let quic_cpu = case.median(CPU, 1).unwrap_or_default();
    // On a loaded machine keep-alives are late, and fewer than those that the aims are of.
    for (metric, most) in [(BYTES, BYTES_MOST), (PACKETS, PACKETS_MOST), (CPU, quic_cpu)] {
        let found = case.median(metric, 0);
        case.aim(metric.name, found, most, metric.unit);
    }
    Ok(vec![case])
}
