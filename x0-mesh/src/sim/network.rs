//! The simulated network, as a protocol engine without a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

use super::link::LinkProfile;
use crate::random::SplitMix64;
use crate::{DownReason, Lane, PeerEvent, PeerEventKind, SendError};

/// Nodes and the links between them, in virtual time. The network owns no clock: `now` is the time since any
/// origin and never runs backwards.
///
/// # The drain contract
/// Nodes start and links fail by the methods of the network; messages and the time are inputs of
/// [`handle`](Network::handle). After each of both take outputs with [`poll_output`](Network::poll_output)
/// until there are none. Feed [`Input::Timeout`] when [`poll_timeout`](Network::poll_timeout) has come, again
/// and again until it has a later time: each input is one occurrence.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_mesh::Lane;
/// use x0_mesh::sim::{Input, Network, Output};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (from, to) = (NodeId::new(1).ok_or("zero")?, NodeId::new(2).ok_or("zero")?);
/// let mut network = Network::new(42);
/// network.start(Duration::ZERO, from);
/// network.start(Duration::ZERO, to);
/// let (lane, payload) = (Lane::Ordered(0), b"hello".to_vec());
/// network.handle(Duration::ZERO, Input::Send { from, to, lane, payload })?;
///
/// let mut received = Vec::new();
/// loop {
///     while let Some(output) = network.poll_output() {
///         if let Output::Deliver(delivery) = output {
///             received.push(delivery.payload);
///         }
///     }
///     let Some(now) = network.poll_timeout() else { break };
///     network.handle(now, Input::Timeout)?;
/// }
/// assert_eq!(received, [b"hello"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Network {
    random: SplitMix64,
    profile: LinkProfile,
    profiles: BTreeMap<(NodeId, NodeId), LinkProfile>,
    /// How long a connection may be cut before both ends give it up.
    detection: Duration,
    /// How long an end hears nothing before it reports that.
    silence: Duration,
    nodes: BTreeMap<NodeId, Node>,
    /// Directions in which nothing passes.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Both ends in order: the connection between them.
    connections: BTreeMap<(NodeId, NodeId), Connection>,
    /// When the last message of a lane arrives: no later one may arrive before.
    arrivals: BTreeMap<(NodeId, NodeId, Lane), Duration>,
    queue: BTreeMap<(Duration, u64), Occurrence>,
    /// Messages that wait for the end of a cut.
    held: Vec<Travelling>,
    numbers: u64,
    outputs: VecDeque<Output>,
    trace: u64,
}

#[derive(Debug)]
struct Node {
    is_up: bool,
}

/// The connection between two nodes.
#[derive(Debug)]
struct Connection {
    epoch: u64,
    is_up: bool,
    /// Whether each end has reported that it hears nothing.
    is_degraded: [bool; 2],
}

#[derive(Debug)]
enum Occurrence {
    Arrive(Travelling),
    /// The ends of a connection check whether it is still whole.
    Detect {
        ends: (NodeId, NodeId),
        epoch: u64,
    },
    /// An end of a connection checks whether it hears its peer.
    Listen {
        at: NodeId,
        peer: NodeId,
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
    /// The receiver.
    pub to: NodeId,
    /// The sender.
    pub from: NodeId,
    /// The lane on which it travelled.
    pub lane: Lane,
    /// The message.
    pub payload: Vec<u8>,
}

/// An input of a [`Network`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// A node sends a message.
    Send {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
        /// The lane.
        lane: Lane,
        /// The message.
        payload: Vec<u8>,
    },
    /// The time of [`poll_timeout`](Network::poll_timeout) has come: the next occurrence that is due takes
    /// place.
    Timeout,
}

/// An output of a [`Network`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// A message has arrived.
    Deliver(Delivery),
    /// A node notices a change of the connection to a peer.
    Event {
        /// The node.
        at: NodeId,
        /// The change.
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
            silence: Duration::from_millis(375),
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            connections: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            queue: BTreeMap::new(),
            held: Vec::new(),
            numbers: 0,
            outputs: VecDeque::new(),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Sets the profile of every link without one of its own, for messages sent from now on.
    pub fn set_profile(&mut self, profile: LinkProfile) {
        self.profile = profile;
    }

    /// Sets the profile of a link in this direction, for messages sent from now on.
    pub fn set_link_profile(&mut self, from: NodeId, to: NodeId, profile: LinkProfile) {
        self.profiles.insert((from, to), profile);
    }

    /// Sets how long a connection may be cut before its ends give it up. 1 s unless set.
    pub fn set_detection(&mut self, detection: Duration) {
        self.detection = detection;
    }

    /// Sets how long an end of a connection hears nothing before it reports [`PeerEventKind::Degraded`]. An
    /// end that hears its peer again reports `Up` after a sixteenth of that time. 375 ms unless set: in the
    /// usual settings of QUIC it is at most three quarters of the time after which a peer is given up, and at
    /// least three eighths.
    pub fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// Starts a node, for the first time or again. It is reached by every node that is up and not cut off.
    pub fn start(&mut self, now: Duration, node: NodeId) {
        let again = self.nodes.insert(node, Node { is_up: true }).is_some();
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            if again {
                self.disconnect(ends(node, other), Some(node), &DownReason::Replaced);
            }
            self.connect(now, ends(node, other));
        }
    }

    /// Ends a node as if its process were killed: messages on the way to it are lost, and its peers notice
    /// after the detection time.
    pub fn crash(&mut self, now: Duration, node: NodeId) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.is_up = false;
        }
        self.watch(now, |one, other| one == node || other == node);
    }

    /// Lets nothing pass from `from` to `to`. The other direction is not touched.
    pub fn cut(&mut self, now: Duration, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
        self.watch(now, |one, other| ends(from, to) == (one, other));
    }

    /// Lets nothing pass between nodes of different groups; the nodes of no group are one more group. Other
    /// cuts end.
    pub fn partition(&mut self, now: Duration, groups: &[&[NodeId]]) {
        self.heal(now);
        let group = |node: &NodeId| groups.iter().position(|group| group.contains(node));
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for from in &nodes {
            for to in nodes.iter().filter(|to| group(to) != group(from)) {
                self.cut(now, *from, *to);
            }
        }
    }

    /// Ends every cut. Messages that waited for that arrive after the usual time, if their epoch lasts.
    pub fn heal(&mut self, now: Duration) {
        self.cuts.clear();
        for travelling in std::mem::take(&mut self.held) {
            let Delivery { from, to, lane, .. } = travelling.delivery;
            let at = self.arrival(now, from, to, lane);
            self.enqueue(at, Occurrence::Arrive(travelling));
        }
        let degraded: Vec<_> =
            self.connections.iter().filter(|(_, connection)| connection.is_degraded != [false; 2]).collect();
        let degraded: Vec<_> =
            degraded.into_iter().map(|(ends, connection)| (*ends, connection.epoch)).collect();
        for (ends, epoch) in degraded {
            self.listen(now + self.silence / 16, ends, epoch);
        }
        let broken: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.is_up)
            .map(|(ends, _)| *ends)
            .collect();
        for ends in broken {
            self.connect(now, ends);
        }
    }

    /// Ends the epoch between two nodes, with all that is on the way, and begins the next one unless
    /// something is cut.
    pub fn reset(&mut self, now: Duration, one: NodeId, other: NodeId) {
        let reason = DownReason::Failed { detail: "reset by the simulation".into() };
        self.disconnect(ends(one, other), None, &reason);
        self.connect(now, ends(one, other));
    }

    /// Whether messages sent from one to the other go into an epoch.
    #[must_use]
    pub fn is_up(&self, from: NodeId, to: NodeId) -> bool {
        self.connections.get(&ends(from, to)).is_some_and(|connection| connection.is_up)
    }

    /// Takes an input.
    ///
    /// # Errors
    /// For a message that cannot be sent: [`SendError::ToSelf`], [`SendError::UnknownPeer`] if the peer was
    /// never started, and [`SendError::Unreachable`] between two epochs. Nothing was sent.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), SendError> {
        match input {
            Input::Send { from, to, lane, payload } => self.send(now, from, to, lane, payload),
            Input::Timeout => {
                self.occur(now);
                Ok(())
            }
        }
    }

    fn send(
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
        let Some(connection) = self.connections.get(&ends(from, to)) else {
            return Err(SendError::UnknownPeer { peer: to });
        };
        if !connection.is_up {
            return Err(SendError::Unreachable { peer: to });
        }
        let epoch = connection.epoch;
        let travelling = |payload| Travelling { epoch, delivery: Delivery { to, from, lane, payload } };
        if lane == Lane::Datagram {
            let profile = self.profile(from, to);
            for delay in profile.datagram(&mut self.random).into_iter().flatten() {
                self.enqueue(now + delay, Occurrence::Arrive(travelling(payload.clone())));
            }
        } else {
            let at = self.arrival(now, from, to, lane);
            self.enqueue(at, Occurrence::Arrive(travelling(payload)));
        }
        Ok(())
    }

    /// The time of the next occurrence.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// The next output, or `None` when the network waits for inputs or the time.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Lets the next occurrence that is due by now take place. An occurrence that no node notices is none.
    fn occur(&mut self, now: Duration) {
        let before = self.outputs.len();
        while self.outputs.len() == before
            && let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now)
        {
            let ((at, _), occurrence) = entry.remove_entry();
            match occurrence {
                Occurrence::Arrive(travelling) => self.arrive(travelling),
                Occurrence::Detect { ends, epoch } => {
                    if self.connections.get(&ends).is_some_and(|connection| connection.epoch == epoch)
                        && !self.stands(ends)
                    {
                        self.disconnect(ends, None, &DownReason::TimedOut);
                        self.connect(at, ends);
                    }
                }
                Occurrence::Listen { at, peer, epoch } => self.judge(at, peer, epoch),
            }
        }
    }

    /// A digest of all outputs so far: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace
    }

    fn arrive(&mut self, travelling: Travelling) {
        let Delivery { from, to, lane, .. } = travelling.delivery;
        let is_current = self
            .connections
            .get(&ends(from, to))
            .is_some_and(|connection| connection.is_up && connection.epoch == travelling.epoch);
        if !is_current || !self.nodes.get(&to).is_some_and(|node| node.is_up) {
            return;
        }
        if !self.cuts.contains(&(from, to)) {
            self.output(Output::Deliver(travelling.delivery));
        } else if lane != Lane::Datagram {
            self.held.push(travelling);
        }
    }

    fn profile(&self, from: NodeId, to: NodeId) -> LinkProfile {
        self.profiles.get(&(from, to)).copied().unwrap_or(self.profile)
    }

    /// The arrival time of a message on a reliable lane. On an ordered one it is not before that of earlier
    /// messages.
    fn arrival(&mut self, now: Duration, from: NodeId, to: NodeId, lane: Lane) -> Duration {
        let at = now + self.profile(from, to).reliable(&mut self.random);
        if lane == Lane::Bulk {
            return at;
        }
        let last = self.arrivals.entry((from, to, lane)).or_default();
        *last = at.max(*last);
        *last
    }

    fn enqueue(&mut self, at: Duration, occurrence: Occurrence) {
        self.numbers += 1;
        self.queue.insert((at, self.numbers), occurrence);
    }

    /// Whether both ends run and nothing is cut.
    fn stands(&self, (one, other): (NodeId, NodeId)) -> bool {
        self.runs(one)
            && self.runs(other)
            && !self.cuts.contains(&(one, other))
            && !self.cuts.contains(&(other, one))
    }

    fn watch(&mut self, now: Duration, concerns: impl Fn(NodeId, NodeId) -> bool) {
        let watched = self
            .connections
            .iter()
            .filter(|((one, other), connection)| connection.is_up && concerns(*one, *other));
        let watched: Vec<_> = watched.map(|(ends, connection)| (*ends, connection.epoch)).collect();
        for (ends, epoch) in watched {
            self.enqueue(now + self.detection, Occurrence::Detect { ends, epoch });
            self.listen(now + self.silence, ends, epoch);
        }
    }

    fn listen(&mut self, due: Duration, (one, other): (NodeId, NodeId), epoch: u64) {
        for (at, peer) in [(one, other), (other, one)] {
            self.enqueue(due, Occurrence::Listen { at, peer, epoch });
        }
    }

    /// Reports at one end of an epoch whether it hears the other one, if that has changed.
    fn judge(&mut self, at: NodeId, peer: NodeId, epoch: u64) {
        let is_silent = self.cuts.contains(&(peer, at)) || !self.runs(peer);
        if !self.runs(at) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&ends(at, peer)) else { return };
        if !connection.is_up || connection.epoch != epoch {
            return;
        }
        let is_degraded = &mut connection.is_degraded[usize::from(at > peer)];
        if std::mem::replace(is_degraded, is_silent) != is_silent {
            let kind = if is_silent { PeerEventKind::Degraded } else { PeerEventKind::Up { epoch } };
            self.output(Output::Event { at, event: PeerEvent { peer, kind } });
        }
    }

    fn runs(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.is_up)
    }

    fn connect(&mut self, now: Duration, ends: (NodeId, NodeId)) {
        let stands = self.stands(ends);
        let connection = self.connections.entry(ends).or_insert(Connection {
            epoch: 0,
            is_up: false,
            is_degraded: [false; 2],
        });
        if connection.is_up || !stands {
            return;
        }
        connection.is_up = true;
        connection.epoch += 1;
        let epoch = connection.epoch;
        self.arrivals.retain(|(from, to, _), last| {
            // The streams of an epoch begin with it.
            if self::ends(*from, *to) == ends {
                *last = now;
            }
            true
        });
        let (one, other) = ends;
        for (at, peer) in [(one, other), (other, one)] {
            self.output(Output::Event { at, event: PeerEvent { peer, kind: PeerEventKind::Up { epoch } } });
        }
    }

    /// Both ends give the connection up; the node that has just started knows nothing of it.
    fn disconnect(&mut self, ends: (NodeId, NodeId), started: Option<NodeId>, reason: &DownReason) {
        let Some(connection) = self.connections.get_mut(&ends).filter(|connection| connection.is_up) else {
            return;
        };
        (connection.is_up, connection.is_degraded) = (false, [false; 2]);
        let epoch = connection.epoch;
        self.held.retain(|held| self::ends(held.delivery.from, held.delivery.to) != ends);
        let (one, other) = ends;
        for (at, peer) in [(one, other), (other, one)] {
            if started != Some(at) && self.nodes.get(&at).is_some_and(|node| node.is_up) {
                let kind = PeerEventKind::Down { epoch, reason: reason.clone() };
                self.output(Output::Event { at, event: PeerEvent { peer, kind } });
            }
        }
    }

    fn output(&mut self, output: Output) {
        match &output {
            // The bytes of the message, not their text: formatting took most of a simulation's time.
            Output::Deliver(Delivery { to, from, lane, payload }) => {
                let lane = match lane {
                    Lane::Datagram => 0x100,
                    Lane::Bulk => 0x101,
                    Lane::Ordered(number) => u64::from(*number),
                };
                for word in [from.get(), to.get(), lane, payload.len() as u64] {
                    self.note_word(word);
                }
                self.note_bytes(payload);
            }
            Output::Event { .. } => self.note_bytes(format!("{output:?}").as_bytes()),
        }
        self.outputs.push_back(output);
    }

    /// In words: byte by byte this is most of the cost of a message.
    fn note_bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.note_word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.note_word(u64::from_le_bytes(last));
    }

    /// FNV-1a on words, with a rotation: a product carries nothing from the high bits to the low ones.
    fn note_word(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
}
