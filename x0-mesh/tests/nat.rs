//! Two nodes behind NATs and a relay, in network namespaces: direct paths by hole punching, ports that
//! change, NATs that cannot be passed, mappings that live for seconds. Needs root, `ip` and `nft`.
//!
//!     node 2 ── NAT ──┐
//!                     ├── bridge ── node 1, the relay
//!     node 3 ── NAT ──┘
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that prints what it measures, and fails by panicking"
)]

mod netns_common;
mod quic_common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netns_common::{namespaces, run, sysctl};
use quic_common::{Domain, node, receive, send, soon, up};
use tokio::task::JoinHandle;
use x0_ebpf::testing::{Namespace, VethPair};
use x0_mesh::link::{UdpLink, UdpLinkOptions};
use x0_mesh::liveness::LivenessState;
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort, address};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::traversal::TraversalOptions;
use x0_mesh::{Lane, PeerEventKind, TransportExt};

const RELAY: &str = "198.51.100.1:7001";

/// The source ports of a NAT.
#[derive(Debug, Clone, Copy)]
enum Ports {
    /// The ports of the node, whatever the destination.
    Same,
    /// This one, whatever the destination.
    One(u16),
    /// Another one for each destination: it cannot be passed.
    ByDestination,
}

struct World {
    relay: Arc<Mesh>,
    one: Arc<Mesh>,
    two: Arc<Mesh>,
    domain: Domain,
    nats: [Namespace; 2],
    /// The device of each NAT that leads to the bridge.
    outside: [String; 2],
    _namespaces: Vec<Namespace>,
    _pairs: Vec<VethPair>,
}

/// A NAT answers nothing from outside but what belongs to a mapping, by address and port. What it drops
/// leaves no mapping: else a packet that arrives before the node's own would make Linux choose another port.
fn rules(outside: &str, ports: Ports) -> String {
    let to = |port: u16| format!("oifname {outside} meta l4proto udp masquerade to :{port}-{port}\n");
    let masquerade = match ports {
        Ports::Same => format!("oifname {outside} masquerade\n"),
        Ports::One(port) => to(port),
        // Linux takes the same port for all destinations wherever it may, also out of a range.
        Ports::ByDestination => format!("ip daddr 198.51.100.1 {}{}", to(40_000), to(50_000)),
    };
    let filter = |hook: &str| {
        format!(
            "chain {hook} {{\n type filter hook {hook} priority 0;\n iifname {outside} ct state established accept\n \
             iifname {outside} drop\n }}\n"
        )
    };
    let (input, forward) = (filter("input"), filter("forward"));
    format!(
        "flush ruleset\ntable ip nat {{\n chain post {{\n type nat hook postrouting priority 100;\n \
         {masquerade} }}\n}}\ntable ip guard {{\n{input}{forward}}}\n"
    )
}

fn start(domain: &Domain, namespace: &Namespace, number: u64, relay: Option<SocketAddr>) -> Arc<Mesh> {
    let identity = domain.identity(number);
    let runtime = tokio::runtime::Handle::current();
    let open = || {
        let _inside = runtime.enter();
        UdpLink::open(&UdpLinkOptions::new("0.0.0.0:7001".parse().unwrap())).unwrap()
    };
    let mut port = MeshPort::new(namespace.run(open).unwrap()).traverse();
    if let Some(relay) = relay {
        port = port.neighbour(relay);
    }
    let interval = Duration::from_millis(200);
    let mut options = MeshOptions::new(node(number), identity.server_config(), identity.client_config())
        .traversal(TraversalOptions::default().interval(interval, interval * 5))
        .port(port);
    // Links are cut again and again, and have to be used in between.
    options.datagrams.router = options.datagrams.router.damping(false);
    Arc::new(Mesh::start(options).unwrap())
}

impl World {
    fn start(ports: [Ports; 2]) -> Option<World> {
        let [bridge, relay, nat_one, one, nat_two, two] = namespaces(&["ip", "nft", "nsenter"])?;
        run(&bridge, "ip link add br0 type bridge", "");
        run(&bridge, "ip link set br0 up", "");
        let mut pairs = Vec::new();
        let mut join = |namespace: &Namespace, address: &str| {
            let pair = VethPair::new(&bridge, namespace).unwrap();
            run(&bridge, &format!("ip link set {} master br0", pair.left().name()), "");
            let device = pair.right().name().to_owned();
            run(namespace, &format!("ip addr add {address}/24 dev {device}"), "");
            pairs.push(pair);
            device
        };
        join(&relay, "198.51.100.1");
        let outside = [join(&nat_one, "198.51.100.10"), join(&nat_two, "198.51.100.20")];
        for (at, (nat, inner)) in [(&nat_one, &one), (&nat_two, &two)].into_iter().enumerate() {
            let pair = VethPair::new(nat, inner).unwrap();
            let network = format!("10.{}.0", at + 1);
            run(nat, &format!("ip addr add {network}.1/24 dev {}", pair.left().name()), "");
            run(inner, &format!("ip addr add {network}.2/24 dev {}", pair.right().name()), "");
            run(inner, &format!("ip route add default via {network}.1"), "");
            sysctl(nat, &[("ipv4/ip_forward", "1")]);
            run(nat, "nft -f -", &rules(&outside[at], ports[at]));
            pairs.push(pair);
        }
        let domain = Domain::new("mesh.test");
        let at = Some(RELAY.parse().unwrap());
        Some(World {
            relay: start(&domain, &relay, 1, None),
            one: start(&domain, &one, 2, at),
            two: start(&domain, &two, 3, at),
            domain,
            nats: [nat_one, nat_two],
            outside,
            _namespaces: vec![bridge, relay, one, two],
            _pairs: pairs,
        })
    }

    /// Sends a numbered probe from node 2 to node 3 each 10 ms.
    fn probes(&self) -> Probes {
        let one = Arc::clone(&self.one);
        let sending = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            for number in 0_u64.. {
                pace.tick().await;
                let _ = one.send(node(3), &number.to_le_bytes());
            }
        });
        Probes { sending, two: Arc::clone(&self.two) }
    }

    /// Waits until both nodes have a path to the other over this one.
    async fn paths(&self, next: [u64; 2]) {
        for (mesh, to, next) in [(&self.one, 3, next[0]), (&self.two, 2, next[1])] {
            soon(mesh.until(|mesh| {
                mesh.paths().iter().any(|path| path.destination == node(to) && path.next == node(next))
            }))
            .await;
        }
    }

    /// All mappings of a NAT end, and new ones have these ports: those of a masquerade end with its device.
    fn remap(&self, at: usize, ports: Ports) {
        let (nat, outside) = (&self.nats[at], &self.outside[at]);
        run(nat, "nft -f -", &rules(outside, ports));
        run(nat, &format!("ip link set {outside} down"), "");
        run(nat, &format!("ip link set {outside} up"), "");
    }
}

struct Probes {
    sending: JoinHandle<()>,
    two: Arc<Mesh>,
}

impl Probes {
    /// The longest time without a probe, until a condition has held for a moment.
    async fn gap(&self, is_over: impl Fn() -> bool) -> Duration {
        let (mut last, mut longest, begin) = (Instant::now(), Duration::ZERO, Instant::now());
        loop {
            let (from, _) = soon(self.two.recv()).await;
            assert_eq!(from, node(2));
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if is_over() {
                return longest;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "it takes too long");
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

fn is_direct(mesh: &Mesh, to: u64) -> bool {
    mesh.paths().iter().any(|path| path.destination == node(to) && path.next == node(to))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_direct_path_is_punched_and_survives_new_ports_and_short_mappings() {
    runtime().block_on(async {
        let begin = Instant::now();
        let Some(world) = World::start([Ports::Same, Ports::One(5000)]) else { return };
        soon(world.one.reached(node(3))).await;
        println!("relayed after {:?}", begin.elapsed());
        let probes = world.probes();
        let begin = Instant::now();
        world.paths([3, 2]).await;
        println!("direct {:?} after the first datagram", begin.elapsed());
        let seen: Vec<_> = world.two.links().iter().map(|link| link.seen_as.unwrap().port()).collect();
        assert_eq!(seen, [5000, 5000]);
        let address = |mesh: &Mesh, peer| {
            mesh.links().iter().find(|link| link.peer == node(peer)).map(|link| link.address.to_string())
        };
        assert_eq!(address(&world.one, 3).unwrap(), "198.51.100.20:5000");
        assert_eq!(address(&world.two, 2).unwrap(), "198.51.100.10:7001");

        // A NAT forgets all mappings and chooses another port.
        probes.gap(|| is_direct(&world.two, 2)).await;
        world.remap(0, Ports::One(6000));
        let moved = || {
            is_direct(&world.one, 3)
                && is_direct(&world.two, 2)
                && address(&world.two, 2).as_deref() == Some("198.51.100.10:6000")
        };
        let gap = probes.gap(moved).await;
        println!("new port: direct again, the longest gap was {gap:?}");
        // The goal is 200 ms; a machine with other work on it is slower.
        assert!(gap < Duration::from_secs(2), "{gap:?}");

        // Mappings that live for two seconds, and no traffic for six times as long: the pause between probes
        // follows.
        drop(probes);
        for nat in &world.nats {
            let of = |name| format!("netfilter/nf_conntrack_udp_timeout{name}");
            sysctl(nat, &[(&of(""), "2"), (&of("_stream"), "2")]);
        }
        let lost = world.one.until(|mesh| {
            mesh.links().iter().any(|link| link.state != LivenessState::Up) || !is_direct(mesh, 3)
        });
        assert!(
            tokio::time::timeout(Duration::from_secs(12), lost).await.is_err(),
            "{:?}",
            world.one.links()
        );
        for mesh in [&world.one, &world.two] {
            let pauses: Vec<Duration> = mesh.links().iter().map(|link| link.keep_alive).collect();
            println!("pauses between probes: {pauses:?}");
            assert!(pauses.iter().all(|pause| *pause < Duration::from_secs(4)), "{pauses:?}");
        }
        // The first datagram of each end passes the mapping.
        world.two.send(node(2), b"to one").unwrap();
        assert_eq!(soon(world.one.recv()).await, (node(3), b"to one".to_vec()));
    });
}

/// A connection of a service over the mesh, through a NAT that forgets its mappings and chooses other ports.
#[test]
fn a_quic_epoch_outlives_a_nat_that_changes_its_port() {
    runtime().block_on(async {
        let Some(world) = World::start([Ports::Same, Ports::One(5000)]) else { return };
        let quic = |mesh: &Mesh, number: u64, peer: u64| {
            let identity = world.domain.identity(number);
            let (server, client) = (identity.server_config(), identity.client_config());
            let options = QuicOptions::new(node(number), address(node(number)), server, client)
                .peer(node(peer), address(node(peer)))
                .datagram_len_max(1200)
                .seed(number);
            QuicTransport::bind_on(options, mesh.socket()).unwrap()
        };
        let (mut one, mut two) = (quic(&world.one, 2, 3), quic(&world.two, 3, 2));
        let epochs = [up(&mut one, 3).await, up(&mut two, 2).await];
        world.paths([3, 2]).await;
        let mut longest = Duration::ZERO;
        for port in [6000, 6001, 6002] {
            world.remap(0, Ports::One(port));
            for number in 0..100_u64 {
                let begin = Instant::now();
                send(&mut one, 3, Lane::Ordered(0), &number.to_le_bytes()).await;
                assert_eq!(receive(&mut two).await, (2, Lane::Ordered(0), number.to_le_bytes().to_vec()));
                longest = longest.max(begin.elapsed());
            }
        }
        for (transport, epoch) in [(&mut one, epochs[0]), (&mut two, epochs[1])] {
            let more = tokio::time::timeout(Duration::from_millis(100), transport.event()).await;
            // At most the silence during a change was reported, and its end.
            let is_kept = |kind: &PeerEventKind| {
                matches!(kind, PeerEventKind::Degraded) || *kind == PeerEventKind::Up { epoch }
            };
            assert!(more.as_ref().is_err() || more.is_ok_and(|event| is_kept(&event.kind)));
        }
        println!("new ports under QUIC: epochs {epochs:?} are kept, the longest delay was {longest:?}");
        assert!(longest < Duration::from_secs(2), "{longest:?}");
    });
}

#[test]
fn nodes_behind_two_hard_nats_remain_relayed() {
    runtime().block_on(async {
        let Some(world) = World::start([Ports::ByDestination, Ports::ByDestination]) else { return };
        soon(world.one.reached(node(3))).await;
        let probes = world.probes();
        let begin = Instant::now();
        // Some attempts are made in this time.
        let gap = probes.gap(|| begin.elapsed() > Duration::from_secs(4)).await;
        println!("hard NATs: the longest gap was {gap:?}");
        assert!(gap < Duration::from_secs(1), "{gap:?}");
        let stats = world.one.traversal_stats().unwrap();
        assert!(stats.dials >= 2 && stats.reached == 0, "{stats:?} {:?}", world.one.links());
        world.paths([1, 1]).await;
        assert!(world.relay.stats().relayed > 100, "{:?}", world.relay.stats());
        // The mappings can be passed now.
        for at in [0, 1] {
            world.remap(at, Ports::Same);
        }
        world.paths([3, 2]).await;
    });
}
