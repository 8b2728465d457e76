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
