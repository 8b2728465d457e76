//! The engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_identity::NodeId;

use super::link::LinkProfile;
use crate::random::SplitMix64;
use crate::{DownReason, Lane, PeerEvent, PeerEventKind, SendError};

/// Nodes and the links between them, in virtual time. It owns no clock: `now` is the time since any origin and never runs backwards.
///
/// After each call take outputs with [`poll_output`](Network::poll_output) until there are none, and again when
/// [`poll_timeout`](Network::poll_timeout) has come.
#[derive(Debug)]
pub struct Network {
    random: SplitMix64,
    profile: LinkProfile,
    profiles: BTreeMap<(NodeId, NodeId), LinkProfile>,
    /// How long a way may be cut before both ends take each other for lost.
    detection: Duration,
    nodes: BTreeMap<NodeId, Node>,
    /// Directions that nothing passes.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Both ends in order: the way between them.
    ways: BTreeMap<(NodeId, NodeId), Way>,
    /// When the last message of a lane arrives: no later one may arrive before.
    arrivals: BTreeMap<(NodeId, NodeId, Lane), Duration>,
    queue: BTreeMap<(Duration, u64), Happening>,
    /// What waits for a cut to be healed.
    held: Vec<Travelling>,
    numbers: u64,
    trace: u64,
}

#[derive(Debug)]
struct Node {
    is_up: bool,
}

/// The way between two nodes.
#[derive(Debug)]
struct Way {
    epoch: u64,
    is_up: bool,
}

#[derive(Debug)]
enum Happening {
    Arrive(Travelling),
    /// The ends of a way look whether it still stands.
    Detect {
        ends: (NodeId, NodeId),
        epoch: u64,
    },
}

#[derive(Debug)]
struct Travelling {
    epoch: u64,
    delivery: Delivery,
}

/// A message that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where.
    pub to: NodeId,
    /// Whence.
    pub from: NodeId,
    /// How it travelled.
    pub lane: Lane,
    /// The message.
    pub payload: Vec<u8>,
}

/// What a [`Network`] gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// A message has arrived.
    Deliver(Delivery),
    /// A node notices something about the way to a peer.
    Event {
        /// Which node.
        at: NodeId,
        /// What it notices.
        event: PeerEvent,
    },
}

fn ends(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

impl Network {
    /// A network without nodes.
    #[must_use]
    pub fn new(seed: u64) -> Network {
        Network {
            random: SplitMix64::new(seed),
            profile: LinkProfile::default(),
            profiles: BTreeMap::new(),
            detection: Duration::from_secs(1),
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            ways: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            queue: BTreeMap::new(),
            held: Vec::new(),
            numbers: 0,
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// What every link does that has no profile of its own, to messages sent from now on.
    pub fn set_profile(&mut self, profile: LinkProfile) {
        self.profile = profile;
    }

    /// What the link does in this direction, to messages sent from now on.
    pub fn set_link_profile(&mut self, from: NodeId, to: NodeId, profile: LinkProfile) {
        self.profiles.insert((from, to), profile);
    }

    /// How long a way may be cut before its ends take each other for lost. 1 s unless set.
    pub fn set_detection(&mut self, detection: Duration) {
        self.detection = detection;
    }

    /// Starts a node, for the first time or again. It is reached by every node that is up and not cut off.
    pub fn start(&mut self, now: Duration, node: NodeId) -> Vec<Output> {
        let mut told = Vec::new();
        let again = self.nodes.insert(node, Node { is_up: true }).is_some();
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            if again {
                self.end_way(ends(node, other), Some(node), &DownReason::Replaced, &mut told);
            }
            self.begin_way(now, ends(node, other), &mut told);
        }
        self.note(&told);
        told
    }

    /// Ends a node as if its process were killed: what is on its way to it is lost, and its peers notice in time.
    pub fn crash(&mut self, now: Duration, node: NodeId) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.is_up = false;
        }
        self.watch_ways(now, |one, other| one == node || other == node);
    }

    /// Lets nothing pass from `from` to `to`. The other direction is not touched.
    pub fn cut(&mut self, now: Duration, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
        self.watch_ways(now, |one, other| ends(from, to) == (one, other));
    }

    /// Lets nothing pass between nodes of different groups; nodes of no group are one more. Other cuts are mended.
    pub fn partition(&mut self, now: Duration, groups: &[&[NodeId]]) -> Vec<Output> {
        let told = self.heal(now);
        let group = |node: &NodeId| groups.iter().position(|group| group.contains(node));
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for from in &nodes {
            for to in nodes.iter().filter(|to| group(to) != group(from)) {
                self.cut(now, *from, *to);
            }
        }
        told
    }

    /// Mends every cut. What waited for that arrives after the usual time, if its epoch lasts.
    pub fn heal(&mut self, now: Duration) -> Vec<Output> {
        self.cuts.clear();
        for travelling in std::mem::take(&mut self.held) {
            let Delivery { from, to, lane, .. } = travelling.delivery;
            let at = self.arrival(now, from, to, lane);
            self.enqueue(at, Happening::Arrive(travelling));
        }
        let mut told = Vec::new();
        let broken: Vec<_> = self.ways.iter().filter(|(_, way)| !way.is_up).map(|(ends, _)| *ends).collect();
        for ends in broken {
            self.begin_way(now, ends, &mut told);
        }
        self.note(&told);
        told
    }

    /// Whether messages sent from one to the other go into an epoch.
    #[must_use]
    pub fn is_up(&self, from: NodeId, to: NodeId) -> bool {
        self.ways.get(&ends(from, to)).is_some_and(|way| way.is_up)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`SendError::ToSelf`], [`SendError::UnknownPeer`] if the peer was never started, and [`SendError::Unreachable`] between two
    /// epochs. Nothing was sent.
    pub fn send(
        &mut self,
        now: Duration,
        from: NodeId,
        to: NodeId,
        lane: Lane,
        payload: Vec<u8>,
    ) -> Result<(), SendError> {
        if from == to {
            return Err(SendError::ToSelf);
        }
        let Some(way) = self.ways.get(&ends(from, to)) else {
            return Err(SendError::UnknownPeer { peer: to });
        };
        if !way.is_up {
            return Err(SendError::Unreachable { peer: to });
        }
        let epoch = way.epoch;
        let travelling = |payload| Travelling { epoch, delivery: Delivery { to, from, lane, payload } };
        if lane == Lane::Datagram {
            let profile = self.profile(from, to);
            for delay in profile.datagram(&mut self.random).into_iter().flatten() {
                self.enqueue(now + delay, Happening::Arrive(travelling(payload.clone())));
            }
        } else {
            let at = self.arrival(now, from, to, lane);
            self.enqueue(at, Happening::Arrive(travelling(payload)));
        }
        Ok(())
    }

    /// When something happens next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// What has happened by now, in order; empty when there is no more. One thing that happens may be noticed at both ends.
    pub fn poll_output(&mut self, now: Duration) -> Vec<Output> {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), happening) = entry.remove_entry();
            let mut told = Vec::new();
            match happening {
                Happening::Arrive(travelling) => self.arrive(travelling, &mut told),
                Happening::Detect { ends, epoch } => {
                    if self.ways.get(&ends).is_some_and(|way| way.epoch == epoch) && !self.stands(ends) {
                        self.end_way(ends, None, &DownReason::TimedOut, &mut told);
                        self.begin_way(at, ends, &mut told);
                    }
                }
            }
            if !told.is_empty() {
                self.note(&told);
                return told;
            }
        }
        Vec::new()
    }

    /// A digest of everything given out so far: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace
    }

    fn arrive(&mut self, travelling: Travelling, told: &mut Vec<Output>) {
        let Delivery { from, to, lane, .. } = travelling.delivery;
        let is_current =
            self.ways.get(&ends(from, to)).is_some_and(|way| way.is_up && way.epoch == travelling.epoch);
        if !is_current || !self.nodes.get(&to).is_some_and(|node| node.is_up) {
            return;
        }
        if !self.cuts.contains(&(from, to)) {
            told.push(Output::Deliver(travelling.delivery));
        } else if lane != Lane::Datagram {
            self.held.push(travelling);
        }
    }

    fn profile(&self, from: NodeId, to: NodeId) -> LinkProfile {
        self.profiles.get(&(from, to)).copied().unwrap_or(self.profile)
    }

    /// When a message of a reliable lane arrives. On an ordered one not before those sent earlier.
    fn arrival(&mut self, now: Duration, from: NodeId, to: NodeId, lane: Lane) -> Duration {
        let at = now + self.profile(from, to).reliable(&mut self.random);
        if lane == Lane::Bulk {
            return at;
        }
        let last = self.arrivals.entry((from, to, lane)).or_default();
        *last = at.max(*last);
        *last
    }

    fn enqueue(&mut self, at: Duration, happening: Happening) {
        self.numbers += 1;
        self.queue.insert((at, self.numbers), happening);
    }

    /// Whether both ends run and nothing is cut.
    fn stands(&self, (one, other): (NodeId, NodeId)) -> bool {
        let runs = |node| self.nodes.get(&node).is_some_and(|node| node.is_up);
        runs(one) && runs(other) && !self.cuts.contains(&(one, other)) && !self.cuts.contains(&(other, one))
    }

    fn watch_ways(&mut self, now: Duration, concerns: impl Fn(NodeId, NodeId) -> bool) {
        let watched = self.ways.iter().filter(|((one, other), way)| way.is_up && concerns(*one, *other));
        let watched: Vec<_> = watched.map(|(ends, way)| (*ends, way.epoch)).collect();
        for (ends, epoch) in watched {
            self.enqueue(now + self.detection, Happening::Detect { ends, epoch });
        }
    }

    fn begin_way(&mut self, now: Duration, ends: (NodeId, NodeId), told: &mut Vec<Output>) {
        let stands = self.stands(ends);
        let way = self.ways.entry(ends).or_insert(Way { epoch: 0, is_up: false });
        if way.is_up || !stands {
            return;
        }
        way.is_up = true;
        way.epoch += 1;
        let epoch = way.epoch;
        self.arrivals.retain(|(from, to, _), last| {
            // The streams of an epoch begin with it.
            if self::ends(*from, *to) == ends {
                *last = now;
            }
            true
        });
        let (one, other) = ends;
        for (at, peer) in [(one, other), (other, one)] {
            told.push(Output::Event { at, event: PeerEvent { peer, kind: PeerEventKind::Up { epoch } } });
        }
    }

    /// Both ends take each other for lost; who has just begun knows of nothing.
    fn end_way(
        &mut self,
        ends: (NodeId, NodeId),
        begun: Option<NodeId>,
        reason: &DownReason,
        told: &mut Vec<Output>,
    ) {
        let Some(way) = self.ways.get_mut(&ends).filter(|way| way.is_up) else { return };
        way.is_up = false;
        let epoch = way.epoch;
        self.held.retain(|held| self::ends(held.delivery.from, held.delivery.to) != ends);
        let (one, other) = ends;
        for (at, peer) in [(one, other), (other, one)] {
            if begun != Some(at) && self.nodes.get(&at).is_some_and(|node| node.is_up) {
                let kind = PeerEventKind::Down { epoch, reason: reason.clone() };
                told.push(Output::Event { at, event: PeerEvent { peer, kind } });
            }
        }
    }

    fn note(&mut self, told: &[Output]) {
        for output in told {
            match output {
                // The message as it is: to write it out as text would take most of a simulation's time.
                Output::Deliver(Delivery { to, from, lane, payload }) => {
                    self.note_bytes(format!("{from} {to} {lane} {}", payload.len()).as_bytes());
                    self.note_bytes(payload);
                }
                Output::Event { .. } => self.note_bytes(format!("{output:?}").as_bytes()),
            }
        }
    }

    /// FNV-1a.
    fn note_bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
