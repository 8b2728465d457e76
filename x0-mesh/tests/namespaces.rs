//! A ring of five nodes in network namespaces, joined by veth pairs: cuts of the link that carries traffic.
//! Needs root and the program `nft`; without them the test says so, and passes outside of CI only.
//!
//! `X0_MESH_CUTS=30 cargo test -p x0-mesh --all-features --test namespaces -- --nocapture` prints the gaps.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that prints what it measures, and fails by panicking"
)]

mod quic_common;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quic_common::{Domain, node, soon};
use x0_ebpf::testing::{Gap, Namespace, Prober, VethPair};
use x0_mesh::link::{UdpLink, UdpLinkOptions};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};

const NODES: usize = 5;
const PORT: u16 = 7100;

/// The position of the prober, the node that is probed, and the link that is cut: from node 2 to node 3.
const FROM: usize = 0;
const TO: usize = 2;
const VICTIM: usize = 1;

struct Ring {
    /// The pair at position n joins the nodes n and n + 1.
    pairs: Vec<VethPair>,
    meshes: Vec<Arc<Mesh>>,
}

impl Ring {
    fn start(domain: &Domain) -> Option<Ring> {
        let namespaces: Vec<Namespace> = (0..NODES).map(|_| Namespace::new().ok()).collect::<Option<_>>()?;
        let pairs: Vec<VethPair> = (0..NODES)
            .map(|at| {
                let mut pair = VethPair::new(&namespaces[at], &namespaces[(at + 1) % NODES]).unwrap();
                pair.assign_addresses().unwrap();
                pair
            })
            .collect();
        let meshes = (0..NODES).map(|at| {
            let (left, right) = (&pairs[at], &pairs[(at + NODES - 1) % NODES]);
            // The left end dials.
            let ends =
                [(left.left().address(), Some(left.right().address())), (right.right().address(), None)];
            let identity = domain.identity(at as u64 + 1);
            let mut options =
                MeshOptions::new(node(at as u64 + 1), identity.server_config(), identity.client_config());
            // The link is cut again and again, and has to be used in between.
            options.datagrams.router = options.datagrams.router.damping(false);
            for (local, neighbour) in ends {
                let runtime = tokio::runtime::Handle::current();
                let open = || {
                    let _inside = runtime.enter();
                    UdpLink::open(&UdpLinkOptions::new(SocketAddr::from((local, PORT)))).unwrap()
                };
                let mut port = MeshPort::new(namespaces[at].run(open).unwrap());
                if let Some(neighbour) = neighbour {
                    port = port.neighbour(SocketAddr::from((neighbour, PORT)));
                }
                options = options.port(port);
            }
            Arc::new(Mesh::start(options).unwrap())
        });
        let meshes = meshes.collect();
        Some(Ring { pairs, meshes })
    }

    /// Traffic in both directions crosses the victim link, and nowhere is a detour in use.
    async fn settled(&self) {
        let path = |at: usize, to: usize, next: usize| {
            let (to, next) = (node(to as u64 + 1), node(next as u64 + 1));
            soon(self.meshes[at].until(move |mesh| {
                mesh.paths().iter().any(|path| path.destination == to && path.next == next)
            }))
        };
        path(VICTIM, TO, TO).await;
        path(FROM, TO, VICTIM).await;
        path(TO, FROM, VICTIM).await;
    }
}

/// The longest run of missing probes from `first` on, one that has not ended included.
async fn gap(mesh: &Mesh, prober: &Prober, first: u64, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut gap = Gap::after(first);
    while let Ok((_, probe)) = tokio::time::timeout_at(end.into(), mesh.recv()).await {
        gap.arrived(u64::from_le_bytes(probe.try_into().unwrap()));
    }
    gap.longest(prober.sent())
}

fn report(name: &str, mut gaps: Vec<u64>) -> u64 {
    gaps.sort_unstable();
    let at = |share: usize| gaps[(gaps.len() * share).div_ceil(100).max(1) - 1];
    println!(
        "{name}: {} cuts, gap median {} ms, p99 {} ms, longest {} ms",
        gaps.len(),
        at(50),
        at(99),
        at(100)
    );
    at(50)
}

/// A kind of cut: its name, and how it begins (true) and ends.
type Kind<'a> = (&'static str, &'a dyn Fn(&mut VethPair, bool));

/// Percent of what arrives at the left and at the right end.
fn lose(pair: &mut VethPair, [left, right]: [u32; 2], is_on: bool) {
    if is_on { pair.set_loss(left, right) } else { pair.set_loss(0, 0) }.unwrap();
}

#[test]
fn cuts_of_a_ring_are_short() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cuts: usize = std::env::var("X0_MESH_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(3);
    let has_nft = Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_ok();
    runtime.block_on(async {
        let domain = Domain::new("mesh.test");
        let begin = Instant::now();
        let Some(mut ring) = Ring::start(&domain).filter(|_| has_nft) else {
            assert!(std::env::var_os("CI").is_none(), "needs root and nft");
            println!("skipped: needs root and nft");
            return;
        };
        soon(ring.meshes[FROM].reached(node(TO as u64 + 1))).await;
        println!("cold start: a path after {:?}", begin.elapsed());
        ring.settled().await;
        let sender = Arc::clone(&ring.meshes[FROM]);
        let prober = Prober::start(move |number| {
            // A probe without a route is a missing one.
            let _ = sender.send(node(TO as u64 + 1), &number.to_le_bytes());
        });
        let receiver = Arc::clone(&ring.meshes[TO]);
        // Router messages of the start keep links active for a second.
        gap(&receiver, &prober, u64::MAX, Duration::from_secs(3)).await;
        let before: u64 =
            ring.meshes.iter().flat_map(|mesh| mesh.links()).map(|link| link.control_bytes).sum();
        let counted = Instant::now();
        let control = gap(&receiver, &prober, prober.sent() + 50, Duration::from_secs(2)).await;
        println!("no cut: gap {control} ms");
        let after: u64 =
            ring.meshes.iter().flat_map(|mesh| mesh.links()).map(|link| link.control_bytes).sum();
        let rate = (after - before) as f64 / counted.elapsed().as_secs_f64() / NODES as f64;
        println!("control: {rate:.0} B/s for each node, payloads of UDP, beside probes each ms on two links");
        let kinds: [Kind<'_>; 4] = [
            ("silent cut", &|pair, is_on| lose(pair, [100, 100], is_on)),
            ("one-way cut", &|pair, is_on| lose(pair, [0, 100], is_on)),
            ("link down", &|pair, is_on| if is_on { pair.cut() } else { pair.mend() }.unwrap()),
            ("30 % loss", &|pair, is_on| lose(pair, [30, 30], is_on)),
        ];
        for (name, change) in kinds {
            let mut gaps = Vec::new();
            for number in 0..cuts {
                ring.settled().await;
                // Not in step with the probes of the detection.
                gap(&receiver, &prober, u64::MAX, Duration::from_millis(300 + 7 * number as u64)).await;
                let first = prober.sent();
                change(&mut ring.pairs[VICTIM], true);
                gaps.push(gap(&receiver, &prober, first, Duration::from_millis(700)).await);
                change(&mut ring.pairs[VICTIM], false);
            }
            let median = report(name, gaps);
            // The goal is 80 ms; a machine with other work on it is slower.
            assert!(median < 500, "{name}: {median} ms");
        }
    });
}
