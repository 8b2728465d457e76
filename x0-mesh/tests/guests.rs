//! Guests: workloads that are not nodes, of which any number of processes share one SVID.
#![cfg(feature = "quic")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};
use x0_mesh::quic::{QuicOptions, QuicTransport};
use x0_mesh::{DownReason, Lane, PeerEventKind, Transmit, Transport, TransportExt, is_guest};

const HOUR: Duration = Duration::from_secs(3600);
const LANE: Lane = Lane::Ordered(0);

struct Domain(Authority);

impl Domain {
    fn new() -> Domain {
        let domain = TrustDomain::parse("guests.test").unwrap();
        Domain(Authority::new(domain, &AuthorityOptions::default()).unwrap())
    }

    fn client_id(&self) -> SpiffeId {
        SpiffeId::from_segments(self.0.trust_domain(), &["client", "1"]).unwrap()
    }

    fn identity(&self, spiffe_id: &SpiffeId) -> Identity {
        Identity::new(self.0.issue(spiffe_id, HOUR).unwrap(), self.0.bundle()).unwrap()
    }

    fn node(&self, guests: bool) -> (QuicTransport, SocketAddr) {
        self.node_of(1, guests)
    }

    fn node_of(&self, number: u64, guests: bool) -> (QuicTransport, SocketAddr) {
        let identity = self.identity(&SpiffeId::for_node(self.0.trust_domain(), id(number)));
        let (server, client) = (identity.server_config(), identity.client_config());
        let options = QuicOptions::new(id(number), any(), server, client).guests(guests);
        let transport = QuicTransport::bind(options).unwrap();
        let address = transport.local_addr().unwrap();
        (transport, address)
    }

    fn guest(&self, to: SocketAddr) -> QuicTransport {
        let identity = self.identity(&self.client_id());
        let options = QuicOptions::guest(any(), identity.server_config(), identity.client_config());
        QuicTransport::bind(options.peer(id(1), to)).unwrap()
    }
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Generous: only a test that fails waits for it.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

async fn refusal(transport: &mut QuicTransport) -> DownReason {
    soon(async {
        loop {
            if let PeerEventKind::Down { reason, .. } = transport.event().await.kind {
                return reason;
            }
        }
    })
    .await
}

#[tokio::test]
async fn processes_of_one_identity_have_connections_of_their_own() {
    let domain = Domain::new();
    let (mut node, address) = domain.node(true);
    let book = node.peers();
    let mut guests: Vec<QuicTransport> = (0..4).map(|_| domain.guest(address)).collect();
    let mut seen = Vec::new();
    let mut payload = Vec::new();
    for (number, guest) in (0_u8..).zip(&mut guests) {
        assert!(is_guest(guest.local()));
        soon(guest.send(&Transmit { to: id(1), lane: LANE, payload: &[number] })).await.unwrap();
        let received = soon(node.recv(&mut payload)).await.unwrap();
        assert_eq!(payload, [number]);
        assert!(is_guest(received.from) && !seen.contains(&received.from));
        assert_eq!(book.guest_identity(received.from), Some(domain.client_id()));
        seen.push(received.from);
    }
    // All of them are still connected: each gets the answer that is for it.
    for (number, guest) in (0_u8..).zip(&seen) {
        soon(node.send(&Transmit { to: *guest, lane: LANE, payload: &[number] })).await.unwrap();
    }
    for (number, guest) in (0_u8..).zip(&mut guests) {
        soon(guest.recv(&mut payload)).await.unwrap();
        assert_eq!(payload, [number]);
    }
    while let Ok(event) = tokio::time::timeout(Duration::ZERO, node.event()).await {
        assert!(matches!(event.kind, PeerEventKind::Up { .. }), "{event:?}");
    }
    // A guest that is gone is forgotten once its last event was polled.
    drop(guests);
    for _ in 0..4 {
        let event = soon(node.event()).await;
        assert!(matches!(event.kind, PeerEventKind::Down { .. }), "{event:?}");
        assert_eq!(book.guest_identity(event.peer), None);
    }
}

#[tokio::test]
async fn a_node_accepts_guests_only_if_it_was_set_up_for_them() {
    let domain = Domain::new();
    let (_node, address) = domain.node(false);
    let mut guest = domain.guest(address);
    let reason = refusal(&mut guest).await;
    assert!(reason.to_string().contains("is not a node"), "{reason}");
}

#[tokio::test]
async fn a_node_cannot_take_the_id_of_a_guest() {
    let domain = Domain::new();
    let (_node, address) = domain.node(true);
    let (mut high, _) = domain.node_of(1 << 63 | 1, true);
    high.peers().set_peer(id(1), address);
    let reason = refusal(&mut high).await;
    assert!(reason.to_string().contains("reserved for guests"), "{reason}");
}
