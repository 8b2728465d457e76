//! Nodes of one trust domain, and what tests wait for.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;
use x0_identity::{
    Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustBundleSet, TrustDomain, X509Svid,
};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{DownReason, Lane, PeerEventKind, Received, Transmit, Transport, TransportExt};

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

pub(crate) struct Domain(Authority);

impl Domain {
    pub(crate) fn new(name: &str) -> Domain {
        let trust_domain = TrustDomain::parse(name).unwrap();
        Domain(Authority::new(trust_domain, &AuthorityOptions::default()).unwrap())
    }

    pub(crate) fn svid(&self, number: u64, validity: Duration) -> X509Svid {
        let spiffe_id = SpiffeId::for_node(self.0.trust_domain(), node(number));
        self.0.issue(&spiffe_id, validity).unwrap()
    }

    pub(crate) fn identity(&self, number: u64) -> Identity {
        self.identity_for(number, Duration::from_secs(3600))
    }

    pub(crate) fn identity_for(&self, number: u64, validity: Duration) -> Identity {
        Identity::new(self.svid(number, validity), self.0.bundle()).unwrap()
    }

    /// An identity that trusts another domain as well.
    pub(crate) fn federated(&self, number: u64, other: &Domain) -> Identity {
        let mut bundles = TrustBundleSet::new();
        bundles.insert(self.0.bundle());
        bundles.insert(other.0.bundle());
        let svid = self.svid(number, Duration::from_secs(3600));
        Identity::with_source(svid, std::sync::Arc::new(bundles)).unwrap()
    }

    /// On any port.
    pub(crate) fn config(&self, number: u64) -> QuicOptions {
        self.config_of(number, &self.identity(number))
    }

    pub(crate) fn config_of(&self, number: u64, identity: &Identity) -> QuicOptions {
        let bind = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config =
            QuicOptions::new(node(number), bind, identity.server_config(), identity.client_config());
        config.seed = number;
        config.identity = Some(identity.clone());
        config
    }
}

pub(crate) fn bind(config: QuicOptions) -> (QuicTransport, SocketAddr) {
    let transport = QuicTransport::bind(config).unwrap();
    let address = transport.local_addr().unwrap();
    (transport, address)
}

/// Generous: only a test that fails waits for it.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

pub(crate) async fn up(transport: &mut QuicTransport, peer: u64) -> u64 {
    soon(async {
        loop {
            let event = transport.event().await;
            if let PeerEventKind::Up { epoch } = event.kind
                && event.peer == node(peer)
            {
                return epoch;
            }
        }
    })
    .await
}

pub(crate) async fn down(transport: &mut QuicTransport, peer: u64) -> (u64, DownReason) {
    soon(async {
        loop {
            let event = transport.event().await;
            if let PeerEventKind::Down { epoch, reason } = event.kind
                && event.peer == node(peer)
            {
                return (epoch, reason);
            }
        }
    })
    .await
}

pub(crate) async fn send(transport: &mut QuicTransport, to: u64, lane: Lane, payload: &[u8]) {
    soon(transport.send(&Transmit { to: node(to), lane, payload })).await.unwrap();
}

pub(crate) async fn receive(transport: &mut QuicTransport) -> (u64, Lane, Vec<u8>) {
    let mut payload = b"to be replaced".to_vec();
    let Received { from, lane } = soon(transport.recv(&mut payload)).await.unwrap();
    (from.get(), lane, payload)
}

/// Whether the lane takes a message now.
pub(crate) fn offer(transport: &mut QuicTransport, to: u64, lane: Lane, payload: &[u8]) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match transport.poll_send(&mut cx, &Transmit { to: node(to), lane, payload }) {
        std::task::Poll::Ready(sent) => {
            sent.unwrap();
            true
        }
        std::task::Poll::Pending => false,
    }
}
