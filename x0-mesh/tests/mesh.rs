//! Nodes of a mesh on tokio: handshakes, keys, QUIC over several hops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod quic_common;

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quic_common::{Domain, down, node, receive, send, soon, up};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::timeout;
use x0_identity::{Identity, NodeId};
use x0_mesh::datagram::is_frame;
use x0_mesh::link::{
    Link, LinkEvent, LinkFaultHandle, LinkFaultInjector, LinkRecvError, LinkSendError, MemorySegment,
    UdpLink, UdpLinkOptions,
};
use x0_mesh::liveness::{LivenessReason, LivenessState};
use x0_mesh::mesh::{Mesh, MeshOptions, MeshPort, StartError, address};
use x0_mesh::quic::{QuicOptions, QuicTransport, udp_socket};
use x0_mesh::router::Report;
use x0_mesh::{DownReason, Lane, PeerEvent, PeerEventKind, Transmit, Transport, TransportExt};

/// A line or ring of nodes, each link a memory segment of its own with a fault injector at one end.
struct Nodes {
    meshes: Vec<Mesh>,
    transports: Vec<QuicTransport>,
    faults: Vec<LinkFaultHandle>,
}

fn end(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

fn options_of(identity: &Identity, number: u64) -> MeshOptions {
    MeshOptions::new(node(number), identity.server_config(), identity.client_config())
}

impl Nodes {
    /// Links join positions. The first of each dials.
    fn start(domain: &Domain, count: u64, links: &[(usize, usize)]) -> Nodes {
        let identities: Vec<Identity> = (1..=count).map(|number| domain.identity(number)).collect();
        let mut ports: Vec<Vec<MeshPort>> = identities.iter().map(|_| Vec::new()).collect();
        let mut faults = Vec::new();
        for (one, other) in links {
            let segment = MemorySegment::new(1232);
            let (link, handle) = LinkFaultInjector::new(segment.link(end(1)), 1);
            faults.push(handle);
            ports[*one].push(MeshPort::new(link).neighbour(end(2)));
            ports[*other].push(MeshPort::new(segment.link(end(2))));
        }
        let (mut meshes, mut transports) = (Vec::new(), Vec::new());
        for ((identity, number), ports) in identities.iter().zip(1..).zip(ports) {
            let options = ports.into_iter().fold(options_of(identity, number), MeshOptions::port);
            let mesh = Mesh::start(options).unwrap();
            transports.push(transport(identity, number, count, &mesh));
            meshes.push(mesh);
        }
        Nodes { meshes, transports, faults }
    }

    fn line(domain: &Domain, count: u64) -> Nodes {
        let links: Vec<(usize, usize)> =
            (1..usize::try_from(count).unwrap()).map(|at| (at - 1, at)).collect();
        Nodes::start(domain, count, &links)
    }
}

/// The ends of epochs that were reported so far.
async fn ends(transport: &mut QuicTransport) -> Vec<PeerEvent> {
    let mut ends = Vec::new();
    while let Ok(event) = timeout(Duration::from_millis(1), transport.event()).await {
        if matches!(event.kind, PeerEventKind::Down { .. }) {
            ends.push(event);
        }
    }
    ends
}

/// Over the mesh, to all other nodes.
fn transport(identity: &Identity, number: u64, count: u64, mesh: &Mesh) -> QuicTransport {
    let (server, client) = (identity.server_config(), identity.client_config());
    let mut options = QuicOptions::new(node(number), address(node(number)), server, client)
        .datagram_len_max(1200)
        .idle_timeout(Duration::from_secs(10))
        .seed(number);
    for peer in (1..=count).filter(|peer| *peer != number) {
        options = options.peer(node(peer), address(node(peer)));
    }
    QuicTransport::bind_on(options, mesh.socket()).unwrap()
}

#[tokio::test]
async fn nodes_that_are_three_hops_apart_exchange_messages() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::line(&domain, 4);
    up(&mut nodes.transports[0], 4).await;
    let long: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    send(&mut nodes.transports[0], 4, Lane::Ordered(0), &long).await;
    send(&mut nodes.transports[0], 4, Lane::Bulk, &long).await;
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let (from, lane, payload) = receive(&mut nodes.transports[3]).await;
        assert_eq!(from, 1);
        assert!(payload == long);
        lanes.push(lane);
    }
    lanes.sort();
    assert_eq!(lanes, [Lane::Ordered(0), Lane::Bulk]);
    let relay = nodes.meshes[1].stats();
    assert!(relay.relayed_bytes > 600_000, "{relay:?}");
    let path = nodes.meshes[0].paths().into_iter().find(|path| path.destination == node(4)).unwrap();
    assert_eq!((path.next, path.mtu), (node(2), 1200));
    let peers = nodes.meshes[0].peers(&nodes.transports[0].peers());
    assert_eq!(peers.iter().map(|facts| facts.peer).collect::<Vec<_>>(), [2, 3, 4].map(node));
    let far = peers[2];
    assert_eq!((far.path, far.first_link.map(|link| link.peer)), (Some(path), Some(node(2))));
    let connection = far.connection.unwrap();
    assert!(connection.sent_bytes > 600_000 && connection.received_bytes > 1200, "{connection:?}");
    assert_eq!((connection.mtu, connection.rtt > Duration::ZERO), (1200, true));
    assert!(format!("{:?}", nodes.meshes[0]).contains("rtt"));
}

/// The epoch of an end-to-end connection outlives a cut of the link that carries it. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_cut_link_is_left_and_no_epoch_is_lost() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::start(&domain, 4, &[(0, 1), (1, 2), (2, 3), (3, 0)]);
    let epoch = up(&mut nodes.transports[0], 2).await;
    nodes.meshes[0].reached(node(3)).await;
    nodes.faults[0].cut();
    let begin = tokio::time::Instant::now();
    send(&mut nodes.transports[0], 2, Lane::Ordered(0), b"around").await;
    let (from, _, payload) = receive(&mut nodes.transports[1]).await;
    assert_eq!((from, &payload[..]), (1, &b"around"[..]));
    println!("a message passed {:?} after the cut", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_millis(150), "{:?}", begin.elapsed());
    let path = nodes.meshes[0].paths().into_iter().find(|path| path.destination == node(2)).unwrap();
    assert_eq!(path.next, node(4));
    nodes.faults[0].mend();
    send(&mut nodes.transports[1], 1, Lane::Ordered(0), b"back").await;
    assert_eq!(receive(&mut nodes.transports[0]).await.2, b"back");
    assert!(ends(&mut nodes.transports[0]).await.is_empty(), "epoch {epoch} is kept");
}

/// A path that loses long frames only: probes and short messages pass, and packets of QUIC do not.
#[tokio::test]
async fn a_link_that_loses_long_frames_is_left_and_no_epoch_is_lost() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::start(&domain, 3, &[(0, 1), (1, 2), (2, 0)]);
    up(&mut nodes.transports[0], 2).await;
    // The other end may still wait for the last packet of the handshake, which is a long one.
    up(&mut nodes.transports[1], 1).await;
    soon(nodes.meshes[0].until(|mesh| mesh.paths().iter().all(|path| path.next == path.destination))).await;
    nodes.faults[0].lose_longer(600);
    let long: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    send(&mut nodes.transports[0], 2, Lane::Ordered(0), &long).await;
    let (from, _, payload) = receive(&mut nodes.transports[1]).await;
    assert!(from == 1 && payload == long);
    soon(nodes.meshes[0].until(|mesh| {
        mesh.paths().iter().any(|path| (path.destination, path.next, path.mtu) == (node(2), node(3), 1200))
    }))
    .await;
    let link = nodes.meshes[0].links().into_iter().find(|link| link.peer == node(2)).unwrap();
    assert_eq!((link.state, link.reason), (LivenessState::Degraded, Some(LivenessReason::LongFramesLost)));
    // Healed, it can be used again.
    nodes.faults[0].mend();
    soon(nodes.meshes[0].until(|mesh| {
        let link = mesh.links().into_iter().find(|link| link.peer == node(2));
        link.is_some_and(|link| (link.state, link.mtu) == (LivenessState::Up, 1200))
    }))
    .await;
    assert!(ends(&mut nodes.transports[0]).await.is_empty());
}

/// Cuts of a single path, up to three quarters of the idle timeout of a plain QUIC connection. In virtual
/// time.
#[tokio::test(start_paused = true)]
async fn blips_of_a_single_path_lose_no_epoch() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::line(&domain, 3);
    up(&mut nodes.transports[0], 3).await;
    // Far below the idle timeout of the transports, and above the longest cut.
    for (mesh, transport) in nodes.meshes.iter_mut().zip(&nodes.transports) {
        mesh.end_without_route(transport.peers(), Duration::from_secs(2));
    }
    for cut in [200, 500, 800, 1000, 1300, 1500] {
        let [sender, _, receiver] = &mut nodes.transports[..] else { panic!("three") };
        nodes.faults[1].cut();
        let mut number = 0_u32;
        // Messages are offered during the cut, as of a busy service.
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let begin = tokio::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(cut) {
            send(sender, 3, Lane::Ordered(0), &number.to_le_bytes()).await;
            number += 1;
            pace.tick().await;
        }
        nodes.faults[1].mend();
        let healed = tokio::time::Instant::now();
        for expected in 0..number {
            let (_, _, payload) = receive(receiver).await;
            assert_eq!(payload, expected.to_le_bytes(), "after a cut of {cut} ms");
        }
        println!("cut of {cut} ms: {number} messages, all delivered {:?} after healing", healed.elapsed());
        assert!(healed.elapsed() < Duration::from_millis(100), "{cut}: {:?}", healed.elapsed());
    }
    for transport in &mut nodes.transports {
        assert_eq!(ends(transport).await, []);
    }
}

/// The mesh knows that there is no path long before the idle timeout of 10 s.
#[tokio::test]
async fn an_epoch_without_a_path_ends_before_the_idle_timeout() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::line(&domain, 3);
    let epoch = up(&mut nodes.transports[0], 3).await;
    let after = Duration::from_millis(500);
    for (mesh, transport) in nodes.meshes.iter_mut().zip(&nodes.transports) {
        mesh.end_without_route(transport.peers(), after);
    }
    nodes.faults[1].cut();
    let begin = Instant::now();
    assert_eq!(down(&mut nodes.transports[0], 3).await, (epoch, DownReason::NoRoute));
    let waited = begin.elapsed();
    println!("the epoch ended {waited:?} after the cut");
    assert!(waited >= after && waited < Duration::from_secs(5), "{waited:?}");
    // The lost epoch is followed by another one after the cut.
    nodes.faults[1].mend();
    let again = up(&mut nodes.transports[0], 3).await;
    assert!(again > epoch);
    send(&mut nodes.transports[0], 2, Lane::Ordered(0), b"kept").await;
    assert_eq!(receive(&mut nodes.transports[1]).await.2, b"kept");
    assert!(ends(&mut nodes.transports[0]).await.is_empty());
}

/// After a cut of any length the transports are connected within 150 ms of healing, wherever the pause of
/// their diallers was. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_peer_is_up_soon_after_a_long_cut() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::line(&domain, 3);
    for (mesh, transport) in nodes.meshes.iter_mut().zip(&nodes.transports) {
        mesh.end_without_route(transport.peers(), Duration::from_secs(2));
        mesh.dial_with_route(transport.peers());
    }
    let mut epoch = up(&mut nodes.transports[0], 3).await;
    let (mut longest, mut sum, mut count) = (Duration::ZERO, Duration::ZERO, 0);
    for cut in [3, 10, 60] {
        for phase in 0..12 {
            nodes.faults[1].cut();
            let (ended, reason) = down(&mut nodes.transports[0], 3).await;
            assert_eq!((ended, reason), (epoch, DownReason::NoRoute));
            let rest = Duration::from_secs(cut - 2) + Duration::from_millis(phase * 83);
            tokio::time::sleep(rest).await;
            nodes.faults[1].mend();
            let healed = tokio::time::Instant::now();
            epoch = up(&mut nodes.transports[0], 3).await;
            let waited = healed.elapsed();
            assert!(waited <= Duration::from_millis(150), "cut of {cut} s, phase {phase}: {waited:?}");
            up(&mut nodes.transports[2], 1).await;
            let waited = healed.elapsed();
            assert!(waited <= Duration::from_millis(150), "cut of {cut} s, phase {phase}: {waited:?}");
            (longest, sum, count) = (longest.max(waited), sum + waited, count + 1);
            // The epochs of the other node, and events of this one that came before.
            tokio::time::sleep(Duration::from_secs(1)).await;
            for transport in &mut nodes.transports {
                ends(transport).await;
            }
        }
    }
    println!("up {:?} after healing in the mean, {longest:?} at most, of {count} cuts", sum / count);
}

/// The silence of a peer is reported before it ends the epoch, and so is its end.
#[tokio::test]
async fn a_silent_peer_is_degraded() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::line(&domain, 2);
    let epoch = up(&mut nodes.transports[0], 2).await;
    nodes.faults[0].cut();
    let next = soon(nodes.transports[0].event()).await;
    assert_eq!((next.peer, next.kind), (node(2), PeerEventKind::Degraded));
    nodes.faults[0].mend();
    let next = soon(nodes.transports[0].event()).await;
    assert_eq!((next.peer, next.kind), (node(2), PeerEventKind::Up { epoch }));
}

/// A hub is in the middle of few handshakes at once, and takes many neighbours in a second. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_hub_takes_many_neighbours_soon() {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1232);
    let hub = MeshPort::new(segment.link(end(1)));
    let hub = Mesh::start(options_of(&domain.identity(1), 1).port(hub).incoming_max(2)).unwrap();
    let begin = tokio::time::Instant::now();
    let leaves: Vec<Mesh> = (2..=13)
        .map(|number| {
            let port = MeshPort::new(segment.link(end(number))).neighbour(end(1));
            let number = u64::from(number);
            Mesh::start(options_of(&domain.identity(number), number).port(port)).unwrap()
        })
        .collect();
    let is_up = |mesh: &Mesh| mesh.links().iter().filter(|link| link.state == LivenessState::Up).count();
    soon(hub.until(|mesh| is_up(mesh) == leaves.len())).await;
    // With two of them for the two seconds that a connection is kept, it took twelve.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_stranger_is_no_neighbour() {
    let (domain, strangers) = (Domain::new("mesh.test"), Domain::new("other.test"));
    let segment = MemorySegment::new(1232);
    let (identity, stranger) = (domain.identity(1), strangers.identity(2));
    let port = MeshPort::new(segment.link(end(1))).neighbour(end(2));
    let mesh = Mesh::start(options_of(&identity, 1).port(port)).unwrap();
    let port = MeshPort::new(segment.link(end(2))).neighbour(end(1));
    let other = Mesh::start(options_of(&stranger, 2).port(port)).unwrap();
    // And a trusted one, which shows that the port works.
    let port = MeshPort::new(segment.link(end(3))).neighbour(end(1));
    let friend = Mesh::start(options_of(&domain.identity(3), 3).port(port)).unwrap();
    soon(friend.reached(node(1))).await;
    soon(mesh.reached(node(3))).await;
    assert_eq!(mesh.links().iter().map(|link| link.peer).collect::<Vec<_>>(), [node(3)]);
    assert!(other.links().is_empty());
}

/// A federated domain is trusted, and its nodes are no neighbours.
#[tokio::test]
async fn a_node_of_a_federated_trust_domain_is_no_neighbour() {
    let (domain, others) = (Domain::new("mesh.test"), Domain::new("other.test"));
    let segment = MemorySegment::new(1232);
    let own = domain.federated(1, &others);
    let port = MeshPort::new(segment.link(end(1))).neighbour(end(2));
    let options = options_of(&own, 1).trust_domain(own.spiffe_id().trust_domain().clone());
    let mesh = Mesh::start(options.port(port)).unwrap();
    let port = MeshPort::new(segment.link(end(2))).neighbour(end(1));
    let other = Mesh::start(options_of(&others.federated(2, &domain), 2).port(port)).unwrap();
    // And one of the own domain, which shows that the port works.
    let port = MeshPort::new(segment.link(end(3))).neighbour(end(1));
    let friend = Mesh::start(options_of(&domain.identity(3), 3).port(port)).unwrap();
    soon(friend.reached(node(1))).await;
    soon(mesh.reached(node(3))).await;
    assert_eq!(mesh.links().iter().map(|link| link.peer).collect::<Vec<_>>(), [node(3)]);
    drop(other);
}

#[tokio::test]
async fn a_link_ends_with_the_svid_of_the_peer_and_renewal_keeps_it() {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1232);
    let lasting = domain.identity(1);
    let port = MeshPort::new(segment.link(end(1)));
    let mesh = Mesh::start(options_of(&lasting, 1).port(port)).unwrap();
    // One that is not renewed.
    let short = domain.identity_for(2, Duration::from_secs(2));
    let port = MeshPort::new(segment.link(end(2))).neighbour(end(1));
    let ending = Mesh::start(options_of(&short, 2).port(port)).unwrap();
    // One that is.
    let rotated = domain.identity_for(3, Duration::from_secs(2));
    let port = MeshPort::new(segment.link(end(3))).neighbour(end(1));
    let options = options_of(&rotated, 3).port(port).keys_lifetime(Duration::from_millis(300));
    let renewed = Mesh::start(options).unwrap();
    soon(mesh.reached(node(2))).await;
    soon(mesh.reached(node(3))).await;
    rotated.rotate(domain.svid(3, Duration::from_secs(3600))).unwrap();
    soon(mesh.until(|mesh| mesh.links().iter().all(|link| link.peer != node(2)))).await;
    assert_eq!(mesh.links().iter().map(|link| link.peer).collect::<Vec<_>>(), [node(3)]);
    assert_eq!(mesh.mtu(node(3)), Some(1200));
    drop((ending, renewed));
}

#[tokio::test]
async fn a_peer_that_restarts_is_reached_again() {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1232);
    let port = MeshPort::new(segment.link(end(1))).neighbour(end(2));
    let mesh = Mesh::start(options_of(&domain.identity(1), 1).port(port)).unwrap();
    let start = || {
        let port = MeshPort::new(segment.link(end(2)));
        Mesh::start(options_of(&domain.identity(2), 2).port(port)).unwrap()
    };
    let peer = start();
    soon(mesh.reached(node(2))).await;
    soon(peer.reached(node(1))).await;
    drop(peer);
    let peer = start();
    // The new process has no keys until it is dialled.
    soon(peer.reached(node(1))).await;
    assert_eq!(peer.mtu(node(1)), Some(1200));
}

#[tokio::test]
async fn udp_links_carry_a_mesh_and_floods() {
    let domain = Domain::new("mesh.test");
    let open = || UdpLink::open(&UdpLinkOptions::new("[::1]:0".parse().unwrap())).unwrap();
    let (one, two, three) = (open(), open(), open());
    let (two_at, three_at) = (two.local(), three.local());
    let start = |number, port| Mesh::start(options_of(&domain.identity(number), number).port(port)).unwrap();
    let one = start(1, MeshPort::new(one).neighbour(two_at));
    let two = start(2, MeshPort::new(two).neighbour(three_at));
    let three = start(3, MeshPort::new(three));
    soon(one.reached(node(3))).await;
    soon(three.reached(node(1))).await;
    one.flood(b"to all").unwrap();
    for mesh in [&two, &three] {
        assert_eq!(soon(mesh.recv_flood()).await, (node(1), b"to all".to_vec()));
    }
    let identity = domain.identity(1);
    let mut near = transport(&identity, 1, 3, &one);
    let mut far = transport(&domain.identity(3), 3, 3, &three);
    up(&mut near, 3).await;
    send(&mut near, 3, Lane::Ordered(0), b"over udp").await;
    assert_eq!(receive(&mut far).await.2, b"over udp");
    // The transport gives the socket back; then the mesh ends.
    soon(near.close()).await;
    drop(one);
    let _ = soon(down(&mut far, 1)).await;
}

/// Handshakes without a pause end there: in virtual time the time would stand still for them.
const PACKETS_MAX: usize = 1000;

/// A link that counts the packets of handshakes which it sends.
struct Watched<L> {
    link: L,
    /// The frames of this address are lost, in both directions, while it is set.
    lost: Arc<Mutex<Option<IpAddr>>>,
    packets: Arc<AtomicUsize>,
}

impl<L> Watched<L> {
    fn new(link: L) -> Watched<L> {
        Watched { link, lost: Arc::default(), packets: Arc::default() }
    }

    fn loses(&self, address: SocketAddr) -> bool {
        *self.lost.lock().unwrap() == Some(address.ip())
    }
}

impl<L: Link> Link for Watched<L> {
    fn local(&self) -> SocketAddr {
        self.link.local()
    }

    fn mtu(&self) -> usize {
        self.link.mtu()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        let is_beyond = !is_frame(frame) && self.packets.fetch_add(1, Ordering::Relaxed) >= PACKETS_MAX;
        if is_beyond || self.loses(to) { Poll::Ready(Ok(())) } else { self.link.poll_send(cx, to, frame) }
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        loop {
            match std::task::ready!(self.link.poll_recv(cx, frame)) {
                Ok(from) if self.loses(from) => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        self.link.poll_event(cx)
    }
}

/// The links of a mesh to node 2 that are up: the port of the address, and whether the path takes it.
fn up_links(mesh: &Mesh) -> Vec<(SocketAddr, bool)> {
    let used = mesh.paths().into_iter().find(|path| path.destination == node(2)).map(|path| path.link);
    let links = mesh.links().into_iter().filter(|link| link.state == LivenessState::Up);
    links.map(|link| (link.address, used == Some(link.link))).collect()
}

/// A port of IPv6 writes an address of IPv4 in the form of IPv6. One dial to it is enough. In virtual time.
#[tokio::test(start_paused = true)]
async fn an_address_of_ipv4_is_dialled_once_from_a_port_of_ipv6() {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1232);
    let mapped = |number: u16| SocketAddr::new("::ffff:10.0.0.1".parse().unwrap(), number);
    let link = Watched::new(segment.link(mapped(1)));
    let packets = Arc::clone(&link.packets);
    let port = MeshPort::new(link).neighbour(end(2));
    let one = Mesh::start(options_of(&domain.identity(1), 1).port(port)).unwrap();
    let port = MeshPort::new(segment.link(mapped(2)));
    let _two = Mesh::start(options_of(&domain.identity(2), 2).port(port)).unwrap();
    soon(one.until(|mesh| up_links(mesh) == [(mapped(2), true)])).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    // A handshake has about five.
    let packets = packets.load(Ordering::Relaxed);
    assert!(packets < 20, "{packets}");
}

/// One port over IPv4 and IPv6: a neighbour with an address of each is reached by two links. When the one in
/// use carries nothing any more, the epoch goes on over the other one.
#[tokio::test]
async fn a_neighbour_with_two_addresses_is_reached_over_either() {
    let domain = Domain::new("mesh.test");
    let open = || UdpLink::open(&UdpLinkOptions::new("[::]:0".parse().unwrap())).unwrap();
    let (near, far) = (open(), open());
    let port = far.local().port();
    let [six, four, short_four] =
        ["::1", "::ffff:127.0.0.1", "127.0.0.1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), port));
    let near = Watched::new(near);
    let lost = Arc::clone(&near.lost);
    let port = MeshPort::new(near).neighbour(six).neighbour(short_four);
    let one = Mesh::start(options_of(&domain.identity(1), 1).port(port)).unwrap();
    let two = Mesh::start(options_of(&domain.identity(2), 2).port(MeshPort::new(far))).unwrap();
    soon(one.until(|mesh| up_links(mesh).len() == 2)).await;
    soon(two.until(|mesh| mesh.links().len() == 2)).await;
    let mut sender = transport(&domain.identity(1), 1, 2, &one);
    let mut receiver = transport(&domain.identity(2), 2, 2, &two);
    up(&mut sender, 2).await;
    for round in 0..3 {
        let used = |mesh: &Mesh| up_links(mesh).into_iter().find(|(_, is_used)| *is_used);
        // On a busy machine the link in use may be degraded at times.
        let used = soon(async {
            loop {
                one.until(|mesh| used(mesh).is_some()).await;
                if let Some((address, _)) = used(&one) {
                    return address;
                }
            }
        })
        .await;
        *lost.lock().unwrap() = Some(used.ip());
        send(&mut sender, 2, Lane::Ordered(0), &[round]).await;
        assert_eq!(receive(&mut receiver).await.2, [round]);
        let other = if used == six { four } else { six };
        soon(one.until(|mesh| up_links(mesh) == [(other, true)])).await;
        *lost.lock().unwrap() = None;
        soon(one.until(|mesh| up_links(mesh).len() == 2)).await;
    }
    assert_eq!((one.links().len(), two.links().len()), (2, 2));
    assert!(ends(&mut sender).await.is_empty());
}

/// One link over several segments: each has ten addresses, the first one those below 10.
struct Segments<L>(Vec<L>);

impl<L: Link> Link for Segments<L> {
    fn local(&self) -> SocketAddr {
        self.0[0].local()
    }

    fn mtu(&self) -> usize {
        self.0[0].mtu()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        self.0[usize::from(to.port() / 10)].poll_send(cx, to, frame)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        let received = self.0.iter_mut().map(|link| link.poll_recv(cx, frame)).find(Poll::is_ready);
        received.unwrap_or(Poll::Pending)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        self.0[0].poll_event(cx)
    }
}

/// A link that is down leads to the other address of the neighbour when that one answers, and the first
/// address gets a link of its own when it answers again. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_link_that_is_down_is_used_for_another_address() {
    let domain = Domain::new("mesh.test");
    let segments = [1232; 2].map(MemorySegment::new);
    let link = |number: u16| {
        let [first, second] = [0, 1].map(|at: usize| {
            let address = end(number + 10 * u16::try_from(at).unwrap());
            LinkFaultInjector::new(segments[at].link(address), 1)
        });
        (Segments(vec![first.0, second.0]), [first.1, second.1])
    };
    let ((near, faults), (far, _)) = (link(1), link(2));
    faults[1].cut();
    let port = MeshPort::new(near).neighbour(end(2)).neighbour(end(12));
    let one = Mesh::start(options_of(&domain.identity(1), 1).port(port)).unwrap();
    let two = Mesh::start(options_of(&domain.identity(2), 2).port(MeshPort::new(far))).unwrap();
    soon(one.until(|mesh| up_links(mesh) == [(end(2), true)])).await;
    faults[0].cut();
    soon(one.until(|mesh| up_links(mesh).is_empty())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    faults[1].mend();
    soon(one.until(|mesh| up_links(mesh) == [(end(12), true)])).await;
    assert_eq!((one.links().len(), two.links().len()), (1, 1));
    faults[0].mend();
    soon(one.until(|mesh| up_links(mesh).len() == 2)).await;
    soon(two.until(|mesh| mesh.links().iter().all(|link| link.state == LivenessState::Up))).await;
    let addresses = |mesh: &Mesh| mesh.links().iter().map(|link| link.address).collect::<Vec<_>>();
    assert_eq!(addresses(&one), [end(12), end(2)]);
    assert_eq!(addresses(&two), [end(11), end(1)]);
    // Each fails alone, and comes back with the keys that it has.
    for (at, other) in [(0, end(12)), (1, end(2))] {
        faults[at].cut();
        soon(one.until(|mesh| up_links(mesh) == [(other, true)])).await;
        faults[at].mend();
        let begin = tokio::time::Instant::now();
        soon(one.until(|mesh| up_links(mesh).len() == 2)).await;
        assert!(begin.elapsed() < Duration::from_millis(150), "{:?}", begin.elapsed());
    }
}

/// A neighbour is dialled at one address more than a node has numbers for links to it. That address is found
/// out once, and used as soon as another one is down for a second. In virtual time.
#[tokio::test(start_paused = true)]
async fn an_address_without_a_number_waits_for_one() {
    let domain = Domain::new("mesh.test");
    let segments = [1232; 5].map(MemorySegment::new);
    let link = |number: u16| {
        let links = (number..).step_by(10).zip(&segments);
        links.map(|(number, segment)| LinkFaultInjector::new(segment.link(end(number)), 1))
    };
    let (near, faults): (Vec<_>, Vec<_>) = link(1).unzip();
    let near = Watched::new(Segments(near));
    let packets = Arc::clone(&near.packets);
    let addresses: Vec<SocketAddr> = (2..).step_by(10).take(5).map(end).collect();
    let port = addresses.iter().fold(MeshPort::new(near), |port, address| port.neighbour(*address));
    let one = Mesh::start(options_of(&domain.identity(1), 1).port(port)).unwrap();
    let far = Segments(link(2).map(|(link, _)| link).collect());
    let _two = Mesh::start(options_of(&domain.identity(2), 2).port(MeshPort::new(far))).unwrap();
    soon(one.until(|mesh| up_links(mesh).len() == 4)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let unused = |mesh: &Mesh| {
        let used = up_links(mesh);
        let unused = addresses.iter().filter(|address| used.iter().all(|(used, _)| used != *address));
        unused.copied().collect::<Vec<_>>()
    };
    let [left] = unused(&one)[..] else { panic!("{:?}", one.links()) };
    let [finding] = one.findings()[..] else { panic!("{:?}", one.findings()) };
    assert_eq!(
        (finding.report, finding.count),
        (Report::AddressUnused { neighbour: node(2), address: left }, 1)
    );
    let before = packets.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(packets.load(Ordering::Relaxed), before);
    // The dials of the address that is cut are in vain.
    let at = (0..5).find(|at| addresses[*at] != left).unwrap();
    faults[at].cut();
    soon(one.until(|mesh| up_links(mesh).len() == 4 && unused(mesh) == [addresses[at]])).await;
}

/// Two paths between two nodes.
struct TwoPaths {
    domain: Domain,
    segments: [MemorySegment; 2],
}

impl TwoPaths {
    fn new() -> TwoPaths {
        TwoPaths { domain: Domain::new("mesh.test"), segments: [1232; 2].map(MemorySegment::new) }
    }

    /// A node that dials one address of the other, and what cuts the first path.
    fn start(&self, number: u16, neighbour: u16, is_first_cut: bool) -> (Mesh, LinkFaultHandle) {
        let ends = [number, number + 10].map(end);
        let [first, second] = [0, 1].map(|at: usize| self.segments[at].link(ends[at]));
        let ((first, fault), (second, _)) =
            (LinkFaultInjector::new(first, 1), LinkFaultInjector::new(second, 1));
        if is_first_cut {
            fault.cut();
        }
        let port = MeshPort::new(Segments(vec![first, second])).neighbour(end(neighbour));
        let number = u64::from(number);
        (Mesh::start(options_of(&self.domain.identity(number), number).port(port)).unwrap(), fault)
    }
}

/// Two nodes dial each other at the same moment, each at one address, over paths of their own: both choose
/// number 0 for their links. In virtual time.
#[tokio::test(start_paused = true)]
async fn both_paths_are_used_when_both_ends_dial_at_once() {
    let paths = TwoPaths::new();
    let ((one, _), (two, _)) = (paths.start(1, 2, false), paths.start(2, 11, false));
    let begin = tokio::time::Instant::now();
    for mesh in [&one, &two] {
        let is_up = |address| {
            move |mesh: &Mesh| {
                mesh.links().iter().any(|link| link.address == address && link.state == LivenessState::Up)
            }
        };
        let number = if mesh.local() == node(1) { 2 } else { 1 };
        soon(mesh.until(is_up(end(number)))).await;
        soon(mesh.until(is_up(end(number + 10)))).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

/// Each of two nodes dials one address of the other, over paths of their own. One restarts, and its dial
/// leads a link of the other node to its path: the other path gets another link. In virtual time.
#[tokio::test(start_paused = true)]
async fn both_paths_are_used_after_a_restart_of_one_end() {
    let paths = TwoPaths::new();
    let (two, _) = paths.start(2, 11, false);
    let (one, fault) = paths.start(1, 2, true);
    // The link that both share, number 0, is that of the path that node 2 dials.
    soon(one.until(|mesh| up_links(mesh) == [(end(12), true)])).await;
    fault.mend();
    soon(one.until(|mesh| up_links(mesh).len() == 2)).await;
    drop(one);
    let (one, _) = paths.start(1, 2, false);
    let begin = tokio::time::Instant::now();
    soon(one.until(|mesh| up_links(mesh).len() == 2)).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    // The link of the old process on the first path ends.
    soon(two.until(|mesh| mesh.links().len() == 2)).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    for (mesh, addresses) in [(&one, [end(2), end(12)]), (&two, [end(1), end(11)])] {
        let mut links: Vec<_> = mesh.links().iter().map(|link| (link.address, link.state)).collect();
        links.sort_by_key(|(address, _)| *address);
        assert_eq!(links, addresses.map(|address| (address, LivenessState::Up)));
    }
}

/// A node that is reached over the mesh by members and directly by others, on one transport.
#[tokio::test]
async fn a_transport_uses_the_mesh_and_a_socket_beside_it() {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1232);
    let one = domain.identity(1);
    let mesh = Mesh::start(options_of(&one, 1).port(MeshPort::new(segment.link(end(1))))).unwrap();
    let port = MeshPort::new(segment.link(end(2))).neighbour(end(1));
    let member = Mesh::start(options_of(&domain.identity(2), 2).port(port)).unwrap();
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let direct = udp_socket(local.parse().unwrap()).unwrap();
        let listening = direct.local_addr().unwrap();
        let options = QuicOptions::new(node(1), listening, one.server_config(), one.client_config());
        let mut both = QuicTransport::bind_on(options, mesh.socket_beside(direct)).unwrap();
        let mut near = transport(&domain.identity(2), 2, 1, &member);
        let mut config = domain.config(3);
        config.bind = local.parse().unwrap();
        let mut outside = QuicTransport::bind(config.peer(node(1), listening)).unwrap();
        for (number, other) in [(2, &mut near), (3, &mut outside)] {
            send(other, 1, Lane::Ordered(0), b"to both").await;
            let (from, _, payload) = receive(&mut both).await;
            assert_eq!((from, &payload[..]), (number, &b"to both"[..]));
            send(&mut both, number, Lane::Ordered(0), b"answer").await;
            assert_eq!(receive(other).await.2, b"answer");
        }
        soon(near.close()).await;
        soon(both.close()).await;
    }
}

/// A neighbour in the mesh that the transport dials by its UDP address.
#[tokio::test]
async fn a_peer_beside_the_mesh_has_no_path() {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1232);
    let [one, two] = [1, 2].map(|number| domain.identity(number));
    let mesh = Mesh::start(options_of(&one, 1).port(MeshPort::new(segment.link(end(1))))).unwrap();
    let port = MeshPort::new(segment.link(end(2))).neighbour(end(1));
    let _member = Mesh::start(options_of(&two, 2).port(port)).unwrap();
    let mut outside = QuicTransport::bind(domain.config(2)).unwrap();
    let direct = udp_socket("127.0.0.1:0".parse().unwrap()).unwrap();
    let local = direct.local_addr().unwrap();
    let options = QuicOptions::new(node(1), local, one.server_config(), one.client_config());
    let options = options.peer(node(2), outside.local_addr().unwrap());
    let both = QuicTransport::bind_on(options, mesh.socket_beside(direct)).unwrap();
    soon(mesh.reached(node(2))).await;
    let facts = || mesh.peers(&both.peers())[0];
    assert_eq!((facts().path, facts().first_link), (None, None));
    up(&mut outside, 1).await;
    assert_eq!((facts().path, facts().first_link), (None, None));
}

#[tokio::test]
async fn a_transport_on_an_ended_mesh_says_so() {
    let domain = Domain::new("mesh.test");
    let identity = domain.identity(1);
    let mesh = Mesh::start(options_of(&identity, 1)).unwrap();
    let mut transport = transport(&identity, 1, 2, &mesh);
    drop(mesh);
    let mut payload = Vec::new();
    assert!(soon(transport.recv(&mut payload)).await.is_err());
    let to: NodeId = node(2);
    let sent = soon(transport.send(&Transmit { to, lane: Lane::Bulk, payload: b"x" })).await;
    assert!(sent.is_err());
    assert_eq!(transport.local(), node(1));
}

/// The epochs of a transport end with its mesh, and a peer at an address that is no node's is unreachable:
/// neither keeps the transport from closing. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_transport_that_cannot_send_ends_its_epochs_and_closes() {
    let domain = Domain::new("mesh.test");
    for is_ended in [false, true] {
        let mut nodes = Nodes::line(&domain, 2);
        let epoch = up(&mut nodes.transports[0], 2).await;
        let mut transport = nodes.transports.remove(0);
        let nowhere = SocketAddr::from(([192, 0, 2, 1], 7));
        transport.peers().set_peer(node(9), nowhere);
        let reason = down(&mut transport, 9).await.1;
        assert_eq!(reason, DownReason::Unreachable);
        if is_ended {
            drop(nodes.meshes.remove(0));
            assert_eq!(down(&mut transport, 2).await.0, epoch);
        }
        let begin = tokio::time::Instant::now();
        soon(transport.close()).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "{is_ended}: {:?}", begin.elapsed());
    }
}

/// A socket that cannot send while that is set.
#[derive(Debug)]
struct Failing(Arc<dyn AsyncUdpSocket>, AtomicBool);

impl AsyncUdpSocket for Failing {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [quinn::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// quinn abandons a connection whose socket fails, and never takes it out of its endpoint. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_transport_closes_although_its_socket_fails() {
    let domain = Domain::new("mesh.test");
    let mut nodes = Nodes::line(&domain, 2);
    nodes.transports.remove(0).close().await;
    let socket = Arc::new(Failing(nodes.meshes[0].socket(), AtomicBool::new(false)));
    let identity = domain.identity(1);
    let (server, client) = (identity.server_config(), identity.client_config());
    let options = QuicOptions::new(node(1), address(node(1)), server, client).peer(node(2), address(node(2)));
    let mut transport = QuicTransport::bind_on(options, Arc::clone(&socket) as _).unwrap();
    up(&mut transport, 2).await;
    socket.1.store(true, Ordering::Relaxed);
    send(&mut transport, 2, Lane::Ordered(0), b"lost").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(socket);
    let begin = tokio::time::Instant::now();
    soon(transport.close()).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn what_cannot_start_says_why() {
    let domain = Domain::new("mesh.test");
    let identity = domain.identity(1);
    assert!(matches!(Mesh::start(options_of(&identity, 1)), Err(StartError::NoRuntime)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let port = MeshPort::new(MemorySegment::new(1000).link(end(1)));
    let refused = Mesh::start(options_of(&identity, 1).port(port)).unwrap_err();
    assert!(refused.to_string().contains("1000"), "{refused}");
}

/// Carries handshakes and no frames while that is set, as a path does that passes the first packets only.
struct HandshakesOnly<L>(L, Arc<AtomicBool>);

impl<L: Link> Link for HandshakesOnly<L> {
    fn local(&self) -> SocketAddr {
        self.0.local()
    }

    fn mtu(&self) -> usize {
        self.0.mtu()
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: SocketAddr,
        frame: &[u8],
    ) -> Poll<Result<(), LinkSendError>> {
        if is_frame(frame) && self.1.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        self.0.poll_send(cx, to, frame)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        frame: &mut Vec<u8>,
    ) -> Poll<Result<SocketAddr, LinkRecvError>> {
        self.0.poll_recv(cx, frame)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        self.0.poll_event(cx)
    }
}

/// Over the mesh, QUIC finds the longest packets of the path. In virtual time: the next search after one that
/// found nothing begins within a minute.
#[tokio::test(start_paused = true)]
async fn quic_finds_the_longest_packets_over_the_mesh() {
    let domain = Domain::new("mesh.test");
    let segment = MemorySegment::new(1472);
    let ports = [MeshPort::new(segment.link(end(1))).neighbour(end(2)), MeshPort::new(segment.link(end(2)))];
    let (mut meshes, mut transports) = (Vec::new(), Vec::new());
    for (number, port) in [1, 2].into_iter().zip(ports) {
        let identity = domain.identity(number);
        let mesh = Mesh::start(options_of(&identity, number).port(port)).unwrap();
        let options = QuicOptions::new(
            node(number),
            address(node(number)),
            identity.server_config(),
            identity.client_config(),
        );
        let options = options.peer(node(3 - number), address(node(3 - number)));
        transports.push(QuicTransport::bind_on(options, mesh.socket()).unwrap());
        meshes.push(mesh);
    }
    up(&mut transports[0], 2).await;
    let long: Vec<u8> = (0..=255).cycle().take(256 << 10).collect();
    let frames = |mesh: &Mesh| mesh.links().iter().map(|link| (link.sent_frames, link.sent_bytes)).next();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(150);
    while tokio::time::Instant::now() < deadline {
        let before = frames(&meshes[0]).unwrap();
        send(&mut transports[0], 2, Lane::Bulk, &long).await;
        let (from, _, payload) = receive(&mut transports[1]).await;
        assert!(from == 1 && payload == long);
        let after = frames(&meshes[0]).unwrap();
        let mean = (after.1 - before.1) / (after.0 - before.0);
        if mean > 1350 {
            return;
        }
    }
    panic!("packets remain short: {:?}", meshes[0].links());
}

/// Nodes 1 and 2 with a direct link, and node 3 as a relay between them. The link of node 1 carries
/// handshakes only while the flag is set.
fn triangle(is_broken: bool) -> ([Mesh; 3], Arc<AtomicBool>) {
    let domain = Domain::new("mesh.test");
    let [direct, near, far] = [1232; 3].map(MemorySegment::new);
    let start = |number, ports: [MeshPort; 2]| {
        let options = ports.into_iter().fold(options_of(&domain.identity(number), number), MeshOptions::port);
        Mesh::start(options).unwrap()
    };
    let is_broken = Arc::new(AtomicBool::new(is_broken));
    let broken = HandshakesOnly(direct.link(end(1)), Arc::clone(&is_broken));
    let broken = MeshPort::new(broken).neighbour(end(2));
    let one = start(1, [broken, MeshPort::new(near.link(end(1))).neighbour(end(3))]);
    let two = start(2, [MeshPort::new(direct.link(end(2))), MeshPort::new(far.link(end(2)))]);
    let relay =
        start(3, [MeshPort::new(near.link(end(3))), MeshPort::new(far.link(end(3))).neighbour(end(2))]);
    ([one, two, relay], is_broken)
}

/// The next hop from the first node to node 2.
fn next_hop(mesh: &Mesh) -> Option<NodeId> {
    mesh.paths().into_iter().find(|path| path.destination == node(2)).map(|path| path.next)
}

/// A direct path whose handshakes go on and whose frames do not arrive any more: traffic takes the relay, and
/// stays there while the dialler completes one handshake after the other. In virtual time.
#[tokio::test(start_paused = true)]
async fn a_path_that_carries_handshakes_only_is_left() {
    let ([one, two, _relay], is_broken) = triangle(false);
    soon(one.until(|mesh| next_hop(mesh) == Some(node(2)))).await;
    soon(one.until(|mesh| mesh.links().len() == 2)).await;
    soon(two.reached(node(3))).await;
    is_broken.store(true, Ordering::Relaxed);
    let (mut longest, mut last) = (Duration::ZERO, tokio::time::Instant::now());
    for round in 0..1000 {
        one.send(node(2), b"probe").unwrap();
        while timeout(Duration::from_millis(10), two.recv()).await.is_ok() {
            longest = longest.max(last.elapsed());
            last = tokio::time::Instant::now();
        }
        assert!(round < 20 || next_hop(&one) == Some(node(3)), "round {round}: {:?}", one.paths());
    }
    longest = longest.max(last.elapsed());
    assert!(longest < Duration::from_millis(150), "{longest:?}");
    let direct = one.links().into_iter().find(|link| link.peer == node(2)).unwrap();
    assert_eq!((direct.state, direct.number), (LivenessState::Down, 0));
    is_broken.store(false, Ordering::Relaxed);
    soon(one.until(|mesh| next_hop(mesh) == Some(node(2)))).await;
}

#[tokio::test]
async fn a_link_that_carries_handshakes_only_is_no_path() {
    let ([one, two, _relay], _) = triangle(true);
    soon(one.reached(node(2))).await;
    soon(two.reached(node(1))).await;
    // The handshake is complete.
    soon(one.until(|mesh| mesh.links().iter().any(|link| link.peer == node(2)))).await;
    one.send(node(2), b"around").unwrap();
    assert_eq!(soon(two.recv()).await, (node(1), b"around".to_vec()));
    let path = one.paths().into_iter().find(|path| path.destination == node(2)).unwrap();
    assert_eq!(path.next, node(3));
    assert!(one.links().iter().all(|link| link.peer != node(2) || link.state != LivenessState::Up));
}
