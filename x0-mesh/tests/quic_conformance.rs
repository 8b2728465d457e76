//! The contract of `Transport`, held against QUIC on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod mux_common;
mod quic_common;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use mux_common::{Muxes, Service};
use quic_common::Domain;
use x0_identity::NodeId;
use x0_mesh::FaultInjector;
use x0_mesh::conformance::{self, Bench};
use x0_mesh::quic::{PeerBook, QuicTransport};
#[cfg(feature = "mesh")]
use x0_mesh::{
    Lane,
    link::MemorySegment,
    mesh::{Mesh, MeshOptions, MeshPort, PriceLimiter, PriceLimits, address},
    quic::QuicOptions,
    router::{Cost, Etx},
};

/// Nodes on loopback, driven by one runtime. Both dial each other.
struct Loopback {
    runtime: tokio::runtime::Runtime,
    domain: Domain,
    nodes: BTreeMap<NodeId, (SocketAddr, PeerBook)>,
}

impl Loopback {
    fn new() -> Loopback {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Loopback { runtime, domain: Domain::new("conformance.test"), nodes: BTreeMap::new() }
    }

    fn bind(&mut self, node: NodeId) -> QuicTransport {
        let _inside = self.runtime.enter();
        let mut config = self.domain.config(node.get());
        // Long, so that a busy machine does not end an epoch inside of a rule; a node that stops says so.
        config.idle_timeout = Duration::from_secs(20);
        config.keep_alive = Duration::from_millis(250);
        config.backoff_max = Duration::from_millis(100);
        let transport = QuicTransport::bind(config).unwrap();
        let address = transport.local_addr().unwrap();
        let book = transport.peers();
        for (peer, (peer_address, peer_book)) in self.nodes.iter().filter(|(peer, _)| **peer != node) {
            book.set_peer(*peer, *peer_address);
            peer_book.set_peer(node, address);
        }
        self.nodes.insert(node, (address, book));
        transport
    }
}

impl Bench for Loopback {
    type Transport = FaultInjector<QuicTransport>;

    fn start(&mut self, node: NodeId) -> FaultInjector<QuicTransport> {
        // Nodes of the rule before are gone.
        if node.get() == 1 {
            self.nodes.clear();
        }
        FaultInjector::new(self.bind(node)).0
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        self.runtime.block_on(async {
            let mut asked_again = tokio::time::interval(Duration::from_millis(1));
            let waited = poll_fn(|cx| {
                // Rules that watch two things at once are asked again soon, whichever waker was kept.
                while asked_again.poll_tick(cx).is_ready() {}
                poll(cx)
            });
            tokio::time::timeout(Duration::from_secs(60), waited).await.expect("the transport stalls");
        });
    }
}

#[test]
fn quic_keeps_the_contract() {
    let report = conformance::check(&mut Loopback::new());
    assert_eq!((report.passed.len(), report.skipped.len()), (16, 0));
}

/// Channels on such nodes.
struct Channels {
    inner: Loopback,
    muxes: Muxes,
}

impl Bench for Channels {
    type Transport = Service;

    fn start(&mut self, node: NodeId) -> Service {
        self.muxes.start(self.inner.start(node))
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        self.inner.wait(&mut |cx| {
            self.muxes.drive(cx);
            poll(cx)
        });
    }
}

#[test]
fn a_channel_over_quic_keeps_the_contract() {
    let report = conformance::check(&mut Channels { inner: Loopback::new(), muxes: Muxes::default() });
    assert_eq!((report.passed.len(), report.skipped.len()), (16, 0));
}

/// Nodes of a mesh, with limits that the only path keeps: no message waits for another path.
/// `tests/prices.rs` has those that do.
#[cfg(feature = "mesh")]
struct Limited {
    inner: Loopback,
    segment: MemorySegment,
    meshes: BTreeMap<NodeId, Mesh>,
}

#[cfg(feature = "mesh")]
impl Bench for Limited {
    type Transport = PriceLimiter<QuicTransport>;

    fn start(&mut self, node: NodeId) -> PriceLimiter<QuicTransport> {
        let _inside = self.inner.runtime.enter();
        // Nodes of the rule before are gone.
        if node.get() == 1 {
            self.meshes.clear();
            self.segment = MemorySegment::new(1232);
        }
        let peer = quic_common::node(3 - node.get());
        let end = |node: NodeId| SocketAddr::from(([10, 0, 0, 1], u16::try_from(node.get()).unwrap()));
        let identity = self.inner.domain.identity(node.get());
        let (server, client) = (identity.server_config(), identity.client_config());
        let port = MeshPort::new(self.segment.link(end(node))).neighbour(end(peer));
        let port = port.metric(Cost::new(Etx).price(9));
        let options = MeshOptions::new(node, server.clone(), client.clone()).port(port);
        let mut mesh = Mesh::start(options).unwrap();
        let mut config = QuicOptions::new(node, address(node), server, client).peer(peer, address(peer));
        config.idle_timeout = Duration::from_secs(20);
        config.keep_alive = Duration::from_millis(250);
        config.backoff_max = Duration::from_millis(100);
        let transport = QuicTransport::bind_on(config, mesh.socket()).unwrap();
        let lanes = (0..=u8::MAX).map(Lane::Ordered).chain([Lane::Bulk, Lane::Datagram]);
        let limits = lanes.fold(PriceLimits::new(), |limits, lane| limits.lane(lane, 9));
        let limiter = mesh.limit_prices(transport, limits);
        self.meshes.insert(node, mesh);
        limiter
    }

    fn wait(&mut self, poll: &mut dyn FnMut(&mut Context<'_>) -> Poll<()>) {
        self.inner.wait(poll);
    }
}

#[cfg(feature = "mesh")]
#[test]
fn a_price_limiter_over_quic_keeps_the_contract() {
    let (segment, meshes) = (MemorySegment::new(1232), BTreeMap::new());
    let report = conformance::check(&mut Limited { inner: Loopback::new(), segment, meshes });
    assert_eq!((report.passed.len(), report.skipped.len()), (16, 0));
}
