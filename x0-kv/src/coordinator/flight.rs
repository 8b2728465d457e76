//! Requests on their way to each peer, and the time that the peer takes to answer.

use std::collections::BTreeMap;
use std::time::Duration;

use x0_identity::NodeId;

use super::options::CoordinatorOptions;

/// The speed that a connection has at least, in bytes per second: a longer transmission is waited for longer.
const SPEED_MIN: u64 = 4 << 20;
/// An attempt is given up after so many round trips without any answer of its peer.
const ROUND_TRIPS: u32 = 8;
/// How often the patience doubles for one operation.
const DOUBLINGS_MAX: u8 = 4;

/// The requests on their way, by peer.
#[derive(Debug, Default)]
pub(super) struct Flights {
    peers: BTreeMap<NodeId, Flight>,
    /// When any peer last answered an operation.
    answered_at: Duration,
}

#[derive(Debug, Default)]
struct Flight {
    /// The driver has reported that the peer is connected.
    is_up: bool,
    requests: usize,
    len: usize,
    heard_at: Duration,
    /// The smoothed round-trip time (RFC 6298 §2), with the work of the peer in it.
    round_trip: Option<Duration>,
}

impl Flights {
    pub(super) fn up(&mut self, peer: NodeId) {
        self.peers.entry(peer).or_default().is_up = true;
    }

    pub(super) fn down(&mut self, peer: NodeId) {
        if let Some(flight) = self.peers.get_mut(&peer) {
            flight.is_up = false;
        }
        self.forget(peer);
    }

    pub(super) fn is_up(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|flight| flight.is_up)
    }

    pub(super) fn is_any_up(&self) -> bool {
        self.peers.values().any(|flight| flight.is_up)
    }

    /// Whether a request of this length may be sent: a single one always may.
    pub(super) fn has_room(&self, peer: NodeId, len: usize, len_max: usize) -> bool {
        self.peers.get(&peer).is_none_or(|flight| flight.requests == 0 || flight.len + len <= len_max)
    }

    pub(super) fn begin(&mut self, peer: NodeId, len: usize) {
        let flight = self.peers.entry(peer).or_default();
        flight.requests += 1;
        flight.len += len;
    }

    pub(super) fn end(&mut self, peer: NodeId, len: usize) {
        if let Some(flight) = self.peers.get_mut(&peer) {
            flight.requests = flight.requests.saturating_sub(1);
            flight.len = flight.len.saturating_sub(len);
        }
        self.forget(peer);
    }

    fn forget(&mut self, peer: NodeId) {
        if self.peers.get(&peer).is_some_and(|flight| !flight.is_up && flight.requests == 0) {
            self.peers.remove(&peer);
        }
    }

    /// A message of the peer has come.
    pub(super) fn received_from(&mut self, peer: NodeId, now: Duration) {
        if let Some(flight) = self.peers.get_mut(&peer) {
            flight.heard_at = now;
        }
    }

    pub(super) fn heard_at(&self, peer: NodeId) -> Duration {
        self.peers.get(&peer).map_or(Duration::ZERO, |flight| flight.heard_at)
    }

    /// An operation was answered.
    pub(super) fn moved_on(&mut self, now: Duration) {
        self.answered_at = now;
    }

    pub(super) fn answered_at(&self) -> Duration {
        self.answered_at
    }

    /// An attempt was answered that was made once (RFC 6298 §3).
    pub(super) fn answered(&mut self, peer: NodeId, took: Duration) {
        if let Some(flight) = self.peers.get_mut(&peer) {
            flight.round_trip = Some(flight.round_trip.map_or(took, |before| (before * 7 + took) / 8));
        }
    }

    /// How long an attempt waits for any answer of the peer, by what is on the way to it and by how often the
    /// operation was tried in vain.
    pub(super) fn patience(&self, peer: NodeId, options: &CoordinatorOptions, timeouts: u8) -> Duration {
        let (min, max) = (options.attempt_timeout_min.min(options.attempt_timeout), options.attempt_timeout);
        let flight = self.peers.get(&peer);
        let round_trips = flight.and_then(|flight| flight.round_trip);
        let base = round_trips.map_or(max, |time| time.saturating_mul(ROUND_TRIPS).clamp(min, max));
        let len = flight.map_or(0, |flight| flight.len as u64);
        let transmission = Duration::from_millis(len.saturating_mul(1000) / SPEED_MIN);
        base.saturating_mul(1 << timeouts.min(DOUBLINGS_MAX)).saturating_add(transmission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_round_trips_length_and_vain_attempts() {
        let peer = NodeId::new(1).unwrap();
        let options = CoordinatorOptions::member(peer);
        let mut flights = Flights::default();
        let ms = Duration::from_millis;
        assert_eq!(flights.patience(peer, &options, 0), options.attempt_timeout);
        flights.up(peer);
        flights.answered(peer, ms(1));
        assert_eq!(flights.patience(peer, &options, 0), options.attempt_timeout_min);
        assert_eq!(flights.patience(peer, &options, 2), options.attempt_timeout_min * 4);
        flights.begin(peer, 4 << 20);
        assert_eq!(flights.patience(peer, &options, 0), options.attempt_timeout_min + ms(1000));
        flights.end(peer, 4 << 20);
        for _ in 0..100 {
            flights.answered(peer, ms(100));
        }
        let patience = flights.patience(peer, &options, 0);
        assert!(patience > ms(750) && patience <= ms(800), "{patience:?}");
    }

    #[test]
    fn one_request_may_always_be_sent_and_peers_are_forgotten() {
        let peer = NodeId::new(1).unwrap();
        let mut flights = Flights::default();
        assert!(flights.has_room(peer, 100, 10));
        flights.begin(peer, 6);
        assert!(flights.has_room(peer, 4, 10) && !flights.has_room(peer, 5, 10));
        flights.end(peer, 6);
        flights.up(peer);
        flights.down(peer);
        assert!(flights.peers.is_empty());
    }
}
