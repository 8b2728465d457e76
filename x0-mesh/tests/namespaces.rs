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

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quic_common::{Domain, node, soon};
use x0_ebpf::testing::{Namespace, VethPair};
use x0_mesh::link::{UdpLink, UdpLinkOptions};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort};

const NODES: usize = 5;
const PORT: u16 = 7100;

/// The position of the prober, the node that is probed, and the link that is cut: from node 2 to node 3.
const FROM: usize = 0;
const TO: usize = 2;
const VICTIM: usize = 1;

/// Rules of nft that drop all, or this share, of what arrives on a device.
fn rules(device: &str, share: Option<u32>, is_on: bool) -> String {
    if !is_on {
        return "delete table netdev cut\n".to_owned();
    }
    let rule = share.map(|percent| format!("numgen random mod 100 < {percent} drop\n")).unwrap_or_default();
    let policy = if share.is_some() { "accept" } else { "drop" };
    let chain = format!("type filter hook ingress device {device} priority 0; policy {policy};\n");
    format!("table netdev cut {{\n chain c {{\n {chain} {rule}}}\n}}\n")
}

struct Ring {
    namespaces: Vec<Namespace>,
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
        Some(Ring { namespaces, pairs, meshes })
    }

    /// What arrives at these ends of the victim link (its left one, its right one) is dropped, or is not any
    /// more. The programs wait for their rules, so that both ends change at nearly the same time.
    fn cut(&self, ends: [bool; 2], share: Option<u32>, is_on: bool) {
        let pair = &self.pairs[VICTIM];
        // The end that probes arrive at comes first: a gap never begins after its detection.
        let sides = [(VICTIM + 1, pair.right().name(), ends[1]), (VICTIM, pair.left().name(), ends[0])];
        let sides = sides.into_iter().filter(|(.., is_cut)| *is_cut);
        let mut programs: Vec<(Child, String)> = sides
            .map(|(at, device, _)| {
                let path = self.namespaces[at].path();
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", path.display()))
                    .args(["nft", "-f", "-"])
                    .stdin(Stdio::piped());
                (command.spawn().unwrap(), rules(device, share, is_on))
            })
            .collect();
        for (program, rules) in &mut programs {
            program.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        }
        for (program, rules) in &mut programs {
            assert!(program.wait().unwrap().success(), "nft takes {rules}");
        }
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

/// Sends a numbered probe each millisecond, from a thread of its own, until it is dropped.
struct Prober {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Prober {
    fn start(mesh: Arc<Mesh>) -> Prober {
        let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, number) = (Arc::clone(&is_over), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            while !over.load(Ordering::Relaxed) {
                let probe = number.fetch_add(1, Ordering::Relaxed).to_le_bytes();
                let _ = mesh.send(node(TO as u64 + 1), &probe);
                // Absolute deadlines: a late probe does not delay the next.
                due += Duration::from_millis(1);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Prober { is_over, sent, thread: Some(thread) }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Probes that may be on their way.
const ON_THE_WAY: u64 = 30;

/// The longest run of missing probes from `first` on, one that has not ended included.
async fn gap(mesh: &Mesh, prober: &Prober, first: u64, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut last = first;
    let mut longest = 0;
    while let Ok((_, probe)) = tokio::time::timeout_at(end.into(), mesh.recv()).await {
        let number = u64::from_le_bytes(probe.try_into().unwrap());
        if number > last {
            longest = longest.max(number - last - 1);
            last = number;
        }
    }
    longest.max(prober.sent.load(Ordering::Relaxed).saturating_sub(last.saturating_add(ON_THE_WAY)))
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
type Kind<'a> = (&'static str, &'a dyn Fn(&mut Ring, bool));

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
        let prober = Prober::start(Arc::clone(&ring.meshes[FROM]));
        let receiver = Arc::clone(&ring.meshes[TO]);
        // Router messages of the start keep links active for a second.
        gap(&receiver, &prober, u64::MAX, Duration::from_secs(3)).await;
        let before: u64 =
            ring.meshes.iter().flat_map(|mesh| mesh.links()).map(|link| link.control_bytes).sum();
        let counted = Instant::now();
        let control =
            gap(&receiver, &prober, prober.sent.load(Ordering::Relaxed) + 50, Duration::from_secs(2)).await;
        println!("no cut: gap {control} ms");
        let after: u64 =
            ring.meshes.iter().flat_map(|mesh| mesh.links()).map(|link| link.control_bytes).sum();
        let rate = (after - before) as f64 / counted.elapsed().as_secs_f64() / NODES as f64;
        println!("control: {rate:.0} B/s for each node, payloads of UDP, beside probes each ms on two links");
        let kinds: [Kind<'_>; 4] = [
            ("silent cut", &|ring, is_on| ring.cut([true, true], None, is_on)),
            ("one-way cut", &|ring, is_on| ring.cut([false, true], None, is_on)),
            ("link down", &|ring, is_on| {
                if is_on { ring.pairs[VICTIM].cut() } else { ring.pairs[VICTIM].mend() }.unwrap();
            }),
            ("30 % loss", &|ring, is_on| ring.cut([true, true], Some(30), is_on)),
        ];
        for (name, change) in kinds {
            let mut gaps = Vec::new();
            for number in 0..cuts {
                ring.settled().await;
                // Not in step with the probes of the detection.
                gap(&receiver, &prober, u64::MAX, Duration::from_millis(300 + 7 * number as u64)).await;
                let first = prober.sent.load(Ordering::Relaxed);
                change(&mut ring, true);
                gaps.push(gap(&receiver, &prober, first, Duration::from_millis(700)).await);
                change(&mut ring, false);
            }
            let median = report(name, gaps);
            // The goal is 80 ms; a machine with other work on it is slower.
            assert!(median < 500, "{name}: {median} ms");
        }
    });
}
