//! The gauges of the peers of a QUIC transport.

use std::collections::BTreeMap;

use metrics::{Gauge, gauge};
use x0_identity::NodeId;

use crate::quic::{PeerBook, PeerLink};

/// The gauges of the peers of a [`QuicTransport`](crate::quic::QuicTransport), set when they are published:
/// a node that nobody reads does no work for them.
#[derive(Debug)]
pub struct PeerGauges {
    book: PeerBook,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug)]
struct Peer {
    up: Gauge,
    rtt: Gauge,
    loss: Gauge,
    age: Gauge,
    /// Epoch, packets sent and packets lost at the reading before.
    before: (u64, u64, u64),
}

impl Peer {
    fn new(peer: NodeId) -> Peer {
        let peer = peer.to_string();
        Peer {
            up: gauge!("x0_mesh_peer_up", "peer" => peer.clone()),
            rtt: gauge!("x0_mesh_peer_rtt_seconds", "peer" => peer.clone()),
            loss: gauge!("x0_mesh_peer_loss_ratio", "peer" => peer.clone(), "direction" => "sent"),
            age: gauge!("x0_mesh_peer_last_message_age_seconds", "peer" => peer),
            before: (0, 0, 0),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn set(&mut self, link: &PeerLink) {
        self.age.set(link.last_message_age.map_or(f64::NAN, |age| age.as_secs_f64()));
        let Some(up) = &link.up else {
            self.up.set(0.0);
            self.rtt.set(f64::NAN);
            self.loss.set(f64::NAN);
            return;
        };
        self.up.set(1.0);
        self.rtt.set(up.rtt.as_secs_f64());
        let (epoch, sent, lost) = self.before;
        // The counts of QUIC begin with the connection.
        let (sent, lost) = if epoch == up.epoch { (sent, lost) } else { (0, 0) };
        self.before = (up.epoch, up.sent_packets, up.lost_packets);
        let sent = up.sent_packets.saturating_sub(sent);
        if sent > 0 {
            // A packet may be found lost after the reading in which it was sent.
            self.loss.set((up.lost_packets.saturating_sub(lost) as f64 / sent as f64).min(1.0));
        }
    }
}

impl PeerGauges {
    /// The gauges of the peers in `book`, of the recorder that is installed when a peer is first published.
    #[must_use]
    pub fn new(book: PeerBook) -> PeerGauges {
        PeerGauges { book, peers: BTreeMap::new() }
    }

    /// Sets the gauges to the present state. May be called on any thread; it takes some microseconds for
    /// each peer.
    pub fn publish(&mut self) {
        let links = self.book.links();
        for link in &links {
            self.peers.entry(link.peer).or_insert_with(|| Peer::new(link.peer)).set(link);
        }
        for (peer, gauges) in &mut self.peers {
            if !links.iter().any(|link| link.peer == *peer) {
                gauges.set(&PeerLink { peer: *peer, last_message_age: None, up: None });
            }
        }
    }
}
