//! Knowledge: what a node knows of the connections to its peers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use x0_identity::NodeId;

use super::{LinkSample, Observation};
use crate::adapter::Readings;
use crate::detect::ReadingError;
use crate::{Evidence, Knowledge, Reading};

/// Signal of a peer that owes messages: how long none has arrived while its connection was up.
pub const SILENCE: &str = "silent_seconds";
/// Signal of a peer: its new connections within [`FLAP_WINDOW`].
pub const CONNECTIONS: &str = "new_connections";
/// The time in which new connections are counted.
pub const FLAP_WINDOW: Duration = Duration::from_secs(30);
/// The most peers; those beyond it are left out.
pub const PEERS_MAX: usize = 1024;

/// The signals, each with the largest value that is a measurement. The longest silence is 100 years.
const SIGNALS: [(&str, f64); 2] = [(SILENCE, 3.2e9), (CONNECTIONS, CONNECTIONS_MAX as f64)];
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(2);
/// New connections of a peer that are remembered.
const CONNECTIONS_MAX: usize = 100;

/// A peer as a subject of the loop: records name it by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(
    /// The node.
    pub NodeId,
);

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// What is remembered of a peer.
#[derive(Debug, Default)]
struct History {
    /// The connection of the last sample.
    epoch: Option<u64>,
    /// Since when it has been up.
    up_since: Duration,
    /// When connections began, the oldest first. The first one of a peer is no sign of anything.
    begun: VecDeque<Duration>,
    was_up: bool,
}

/// What a node knows of its connections.
#[derive(Debug)]
pub struct View {
    silent_max: f64,
    flaps_max: f64,
    peers: BTreeMap<NodeId, History>,
    readings: Readings<Peer>,
    /// The peers that this node keeps away from, and until when.
    quarantines: BTreeMap<NodeId, Duration>,
}

impl View {
    pub(super) fn new(silent_max: Duration, flaps_max: u32) -> View {
        View {
            silent_max: silent_max.as_secs_f64(),
            flaps_max: f64::from(flaps_max),
            peers: BTreeMap::new(),
            readings: Readings::new(),
            quarantines: BTreeMap::new(),
        }
    }

    /// The peers of the last sample.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// The last value of a signal.
    #[must_use]
    pub fn reading(&self, peer: NodeId, signal: &'static str) -> Option<f64> {
        self.readings.value(&Peer(peer), signal)
    }

    /// Whether the peer is connected, as of the last sample.
    #[must_use]
    pub fn is_up(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|history| history.epoch.is_some())
    }

    /// Whether this node keeps away from the peer.
    #[must_use]
    pub fn is_quarantined(&self, peer: NodeId) -> bool {
        self.quarantines.contains_key(&peer)
    }

    /// Whether more than half of the members, this node among them, are connected without this peer.
    pub(super) fn has_majority_without(&self, peer: NodeId) -> bool {
        let is_left = |other: &NodeId| *other != peer && !self.is_quarantined(*other) && self.is_up(*other);
        let left = 1 + self.peers().filter(is_left).count();
        left * 2 > self.peers.len() + 1
    }

    pub(super) fn begin_quarantine(&mut self, peer: NodeId, until: Duration) {
        self.quarantines.insert(peer, until);
    }

    /// Ends the quarantine of a peer. Whether there was one.
    pub(super) fn end_quarantine(&mut self, peer: NodeId) -> bool {
        self.quarantines.remove(&peer).is_some()
    }

    /// Ends the quarantines that are over, and returns their peers.
    pub(super) fn end_quarantines(&mut self, now: Duration) -> Vec<NodeId> {
        let over: Vec<_> =
            self.quarantines.iter().filter(|(_, until)| **until <= now).map(|(peer, _)| *peer).collect();
        self.quarantines.retain(|_, until| *until > now);
        over
    }

    /// Takes a sample, and returns the readings that follow from it.
    pub(super) fn set(&mut self, now: Duration, observation: &Observation) -> Vec<Reading<Peer>> {
        let known = || observation.links.keys().take(PEERS_MAX);
        let mut before = std::mem::take(&mut self.peers);
        self.peers = known().map(|peer| (*peer, before.remove(peer).unwrap_or_default())).collect();
        let peers = &self.peers;
        self.readings.retain(|Peer(peer)| peers.contains_key(peer));
        let mut readings = Vec::new();
        for (peer, history) in &mut self.peers {
            let Some(link) = observation.links.get(peer) else { continue };
            // A peer in quarantine disturbs nobody: its connections do not count.
            history.take(now, link, !self.quarantines.contains_key(peer));
            let reading = |signal, value| Reading { subject: Peer(*peer), signal, value };
            readings.push(reading(CONNECTIONS, history.begun.len() as f64));
            // A connection that has just begun is not to blame for the silence before it.
            let silent = link.silent.filter(|_| history.epoch.is_some());
            if let Some(silent) = silent {
                let value = silent.min(now.saturating_sub(history.up_since)).as_secs_f64();
                readings.push(reading(SILENCE, value));
            }
        }
        readings
    }

    /// The readings that make a peer unhealthy; empty if it is not.
    #[must_use]
    pub fn evidence(&self, now: Duration, peer: NodeId) -> Vec<Evidence> {
        self.stuck(now, peer).into_iter().chain(self.flapping(now, peer)).collect()
    }

    /// The reading of a peer whose connection is up and carries nothing.
    pub(super) fn stuck(&self, now: Duration, peer: NodeId) -> Option<Evidence> {
        let silent = self.readings.beyond(now, &Peer(peer), SILENCE, self.silent_max, STALE);
        silent.filter(|_| self.is_up(peer) && !self.is_quarantined(peer))
    }

    /// The reading of a peer whose connections do not last.
    pub(super) fn flapping(&self, now: Duration, peer: NodeId) -> Option<Evidence> {
        let flaps = self.readings.beyond(now, &Peer(peer), CONNECTIONS, self.flaps_max, STALE);
        flaps.filter(|_| !self.is_quarantined(peer))
    }
}

impl History {
    fn take(&mut self, now: Duration, link: &LinkSample, counts: bool) {
        while self.begun.front().is_some_and(|at| *at + FLAP_WINDOW <= now) {
            self.begun.pop_front();
        }
        if link.epoch == self.epoch {
            return;
        }
        self.epoch = link.epoch;
        if self.epoch.is_none() {
            return;
        }
        self.up_since = now;
        let is_first = !std::mem::replace(&mut self.was_up, true);
        if counts && !is_first && self.begun.len() < CONNECTIONS_MAX {
            self.begun.push_back(now);
        }
    }
}

impl Knowledge for View {
    type Subject = Peer;

    fn observe(&mut self, now: Duration, reading: &Reading<Peer>) -> Result<(), ReadingError> {
        if !self.peers.contains_key(&reading.subject.0) {
            return Err(ReadingError::Unknown);
        }
        self.readings.take(now, reading, &SIGNALS)
    }

    fn subject_count(&self) -> usize {
        self.peers.len()
    }

    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Peer)) {
        let is_bad = |peer: &NodeId| !self.evidence(now, *peer).is_empty();
        self.peers().filter(is_bad).for_each(|peer| each(&Peer(peer)));
    }
}
