//! The gauges of the peers of a QUIC transport.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use x0_identity::NodeId;

use crate::quic::{PeerBook, PeerLink};

/// The shortest interval of the loss.
const LOSS_INTERVAL: Duration = Duration::from_secs(10);

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
    /// The counts at the begin of the interval of the loss, and when that was.
    before: Option<(Counts, Instant)>,
}

/// Packets of one epoch, since its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    epoch: u64,
    sent: u64,
    lost: u64,
}

/// The loss since the publication before, whose counts are known with the time since then, or else since the
/// epoch began. `None` if that is shorter than the interval; else NaN if no packet was sent.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn loss(before: Option<(Counts, Duration)>, now: Counts, age: Duration) -> Option<f64> {
    let (sent, lost, time) = match before.filter(|(before, _)| before.epoch == now.epoch) {
        Some((before, time)) => (before.sent, before.lost, time),
        None => (0, 0, age),
    };
    if time < LOSS_INTERVAL {
        return None;
    }
    Some(match now.sent.saturating_sub(sent) {
        0 => f64::NAN,
        // A packet may be found lost after the interval in which it was sent.
        sent => (now.lost.saturating_sub(lost) as f64 / sent as f64).min(1.0),
    })
}

impl Peer {
    fn new(peer: NodeId) -> Peer {
        let peer = peer.to_string();
        Peer {
            up: gauge!("x0_mesh_peer_up", "peer" => peer.clone()),
            rtt: gauge!("x0_mesh_peer_rtt_seconds", "peer" => peer.clone()),
            loss: gauge!("x0_mesh_peer_loss_ratio", "peer" => peer.clone(), "direction" => "sent"),
            age: gauge!("x0_mesh_peer_last_message_age_seconds", "peer" => peer),
            before: None,
        }
    }

    fn set(&mut self, link: &PeerLink) {
        self.age.set(link.last_message_age.map_or(f64::NAN, |age| age.as_secs_f64()));
        let Some(up) = &link.up else {
            self.up.set(0.0);
            self.rtt.set(f64::NAN);
            self.loss.set(f64::NAN);
            self.before = None;
            return;
        };
        self.up.set(1.0);
        self.rtt.set(up.rtt.as_secs_f64());
        let now = Counts { epoch: up.epoch, sent: up.sent_packets, lost: up.lost_packets };
        // Several readers would otherwise shorten each other's interval.
        let before = self.before.map(|(counts, at)| (counts, at.elapsed()));
        if let Some(loss) = loss(before, now, up.age) {
            self.loss.set(loss);
            self.before = Some((now, Instant::now()));
        } else if before.is_none_or(|(before, _)| before.epoch != now.epoch) {
            // The loss of the epoch before is not that of this one.
            self.loss.set(f64::NAN);
        }
    }

    /// The peer was removed.
    fn clear(&self) {
        for gauge in [&self.up, &self.rtt, &self.loss, &self.age] {
            gauge.set(f64::NAN);
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
        self.peers.retain(|peer, gauges| {
            let is_there = links.iter().any(|link| link.peer == *peer);
            if !is_there {
                gauges.clear();
            }
            is_there
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_share_of_one_interval() {
        let counts = |epoch, sent, lost| Counts { epoch, sent, lost };
        let (now, young) = (LOSS_INTERVAL, LOSS_INTERVAL / 2);
        let before = |sent, lost, time| Some((counts(1, sent, lost), time));
        assert_eq!(loss(before(100, 10, now), counts(1, 200, 35), now * 9), Some(0.25));
        assert_eq!(loss(before(100, 10, young), counts(1, 200, 35), now * 9), None, "the interval runs");
        assert_eq!(loss(None, counts(1, 50, 5), now), Some(0.1), "since the epoch began");
        assert_eq!(loss(None, counts(1, 50, 5), young), None, "the epoch is young");
        assert_eq!(loss(before(100, 10, now), counts(2, 50, 5), now), Some(0.1), "another epoch");
        assert_eq!(
            loss(before(100, 10, now), counts(2, 50, 5), young),
            None,
            "another epoch, which is young"
        );
        assert!(
            loss(before(100, 10, now), counts(1, 100, 12), now).is_some_and(f64::is_nan),
            "nothing was sent"
        );
        assert_eq!(loss(before(100, 0, now), counts(1, 101, 5), now), Some(1.0));
    }
}
