//! The engine: its contract, its state, and what each input does.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use x0_identity::NodeId;

use super::io::{TraversalInput, TraversalOutput, TraversalStats};
use super::message::{CANDIDATES_MAX, Message};
use super::options::TraversalOptions;
use crate::random::SplitMix64;

#[cfg(test)]
mod tests;

/// How long an answer is waited for, at least.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Direct paths of one node. See the [module](super).
///
/// # Drain contract
/// `now` is the time since any origin; a `now` that runs backwards counts as the latest one. After each call
/// of [`handle`](Traversal::handle) take outputs with [`poll_output`](Traversal::poll_output) until there are
/// none, then wait for the next input or until [`poll_timeout`](Traversal::poll_timeout), and hand in
/// [`TraversalInput::Timeout`] then. Each [`TraversalOutput::Dial`] is followed by [`TraversalInput::Ended`],
/// with a [`TraversalInput::Reached`] before it if the dial succeeded.
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_mesh::traversal::{Traversal, TraversalInput, TraversalOptions, TraversalOutput};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (one, two) = (NodeId::new(1).ok_or("zero")?, NodeId::new(2).ok_or("zero")?);
/// let addresses: [SocketAddr; 2] = ["192.0.2.1:7001".parse()?, "198.51.100.2:7001".parse()?];
/// let now = Duration::ZERO;
/// let mut near = Traversal::new(1, TraversalOptions::default());
/// let mut far = Traversal::new(2, TraversalOptions::default());
/// near.handle(now, TraversalInput::Addresses { own: &addresses[..1] });
/// far.handle(now, TraversalInput::Addresses { own: &addresses[1..] });
///
/// // Node 1 sends to node 2 over a relay, and calls it.
/// near.handle(now, TraversalInput::Relayed { peer: two });
/// let Some(TraversalOutput::Send { to, bytes }) = near.poll_output() else { panic!("a call") };
/// assert_eq!(to, two);
///
/// // Node 2 answers, and dials at once; so does node 1 when it has the answer.
/// far.handle(now, TraversalInput::Message { from: one, bytes: &bytes });
/// let Some(TraversalOutput::Send { bytes, .. }) = far.poll_output() else { panic!("an answer") };
/// assert_eq!(far.poll_output(), Some(TraversalOutput::Dial { address: addresses[0] }));
/// near.handle(now, TraversalInput::Message { from: two, bytes: &bytes });
/// assert_eq!(near.poll_output(), Some(TraversalOutput::Dial { address: addresses[1] }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Traversal {
    options: TraversalOptions,
    now: Duration,
    own: Vec<SocketAddr>,
    neighbours: BTreeSet<NodeId>,
    peers: BTreeMap<NodeId, Peer>,
    /// Addresses that were dialled and have not ended: whether they were reached.
    dials: BTreeMap<SocketAddr, bool>,
    outputs: VecDeque<TraversalOutput>,
    random: SplitMix64,
    stats: TraversalStats,
}

#[derive(Debug, Default, Clone, Copy)]
struct Peer {
    /// When its last traffic or message was.
    used: Duration,
    /// Until when a direct path is wanted. In the past if only the peer wants one.
    wanted_until: Duration,
    call_at: Duration,
    calls: u32,
    /// Until when an answer is taken.
    answer_until: Option<Duration>,
    answered_at: Option<Duration>,
}

impl Traversal {
    /// A node without addresses. The seed spreads calls over time.
    #[must_use]
    pub fn new(seed: u64, options: TraversalOptions) -> Traversal {
        Traversal {
            options: options.bounded(),
            now: Duration::ZERO,
            own: Vec::new(),
            neighbours: BTreeSet::new(),
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
            outputs: VecDeque::new(),
            random: SplitMix64::new(seed),
            stats: TraversalStats::default(),
        }
    }

    /// Hands in what happened. No input is refused: one that does not fit the state has no effect.
    pub fn handle(&mut self, now: Duration, input: TraversalInput<'_>) {
        self.now = self.now.max(now);
        match input {
            TraversalInput::Relayed { peer } => self.relayed(peer),
            TraversalInput::Message { from, bytes } => self.message(from, bytes),
            TraversalInput::Addresses { own } => {
                self.own =
                    own.iter().copied().take(CANDIDATES_MAX).filter(|address| address.port() != 0).collect();
            }
            TraversalInput::Neighbours { peers } => self.neighbours = peers.iter().copied().collect(),
            TraversalInput::Reached { address } => self.reached(address),
            TraversalInput::Ended { address } => drop(self.dials.remove(&address)),
            TraversalInput::Timeout => {}
        }
        self.call();
    }

    /// The next thing to do, `None` when there is nothing until the next input.
    pub fn poll_output(&mut self) -> Option<TraversalOutput> {
        self.outputs.pop_front()
    }

    /// When [`TraversalInput::Timeout`] is due, `None` while no direct path is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let wanted = self.peers.iter().filter(|(id, peer)| self.wants(**id, peer));
        wanted.map(|(_, peer)| peer.call_at).min()
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> TraversalStats {
        self.stats
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    fn wants(&self, id: NodeId, peer: &Peer) -> bool {
        peer.wanted_until > self.now && !self.neighbours.contains(&id)
    }

    /// A node, which replaces the one that was used least recently if there are too many.
    fn peer(&mut self, id: NodeId) -> &mut Peer {
        if !self.peers.contains_key(&id) && self.peers.len() >= self.options.peers_max {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.used).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.peers.remove(&oldest);
            }
        }
        let now = self.now;
        let peer = self.peers.entry(id).or_default();
        peer.used = now;
        peer
    }

    fn relayed(&mut self, id: NodeId) {
        if self.neighbours.contains(&id) {
            return;
        }
        let (now, hold) = (self.now, self.options.hold);
        let peer = self.peer(id);
        // After a pause of the traffic attempts begin again.
        if peer.wanted_until <= now {
            peer.calls = 0;
        }
        peer.wanted_until = now + hold;
    }

    /// Calls the nodes whose time has come.
    fn call(&mut self) {
        let is_due =
            |(id, peer): (&NodeId, &Peer)| (self.wants(*id, peer) && peer.call_at <= self.now).then_some(*id);
        let due: Vec<NodeId> = self.peers.iter().filter_map(is_due).collect();
        for id in due {
            let (now, calls) = (self.now, self.peers.get(&id).map_or(0, |peer| peer.calls));
            let pause =
                self.options.interval_min.saturating_mul(1 << calls.min(16)).min(self.options.interval_max);
            let pause = self.spread(pause);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.calls = calls.saturating_add(1);
                peer.call_at = now + pause;
                peer.answer_until = Some(now + ANSWER_TIME);
            }
            self.stats.calls += 1;
            self.send(id, true);
        }
    }

    /// Between the whole of a duration and one and a half of it.
    fn spread(&mut self, whole: Duration) -> Duration {
        let nanos = u64::try_from((whole / 2).as_nanos()).unwrap_or(u64::MAX);
        whole + Duration::from_nanos(self.random.below(nanos.saturating_add(1)))
    }

    fn send(&mut self, to: NodeId, is_call: bool) {
        let bytes = Message { is_call, candidates: self.own.clone() }.encode();
        self.outputs.push_back(TraversalOutput::Send { to, bytes });
    }

    fn message(&mut self, from: NodeId, bytes: &[u8]) {
        let Some(message) = Message::decode(bytes) else {
            self.stats.malformed += 1;
            return;
        };
        // A neighbour has a better way already.
        if self.neighbours.contains(&from) {
            return;
        }
        let (now, interval) = (self.now, self.options.interval_min);
        if message.is_call {
            let peer = self.peer(from);
            if peer.answered_at.is_some_and(|at| now < at + interval) {
                self.stats.dropped += 1;
                return;
            }
            peer.answered_at = Some(now);
            self.stats.answers += 1;
            self.send(from, false);
        } else {
            let until = self.peers.get_mut(&from).and_then(|peer| peer.answer_until.take());
            if until.is_none_or(|until| now > until) {
                self.stats.dropped += 1;
                return;
            }
        }
        for candidate in message.candidates {
            self.dial(candidate);
        }
    }

    fn dial(&mut self, address: SocketAddr) {
        let in_flight = self.dials.values().filter(|is_reached| !**is_reached).count();
        let is_usable = match address.ip() {
            IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        let is_local = address.ip().is_loopback() && !self.own.iter().any(|own| own.ip().is_loopback());
        let is_nowhere = address.ip().is_unspecified() || address.ip().is_multicast();
        if !is_usable
            || is_local
            || is_nowhere
            || in_flight >= self.options.dials_max
            || self.own.contains(&address)
            || self.dials.contains_key(&address)
        {
            return;
        }
        self.dials.insert(address, false);
        self.stats.dials += 1;
        self.outputs.push_back(TraversalOutput::Dial { address });
    }

    fn reached(&mut self, address: SocketAddr) {
        if let Some(is_reached) = self.dials.get_mut(&address)
            && !core::mem::replace(is_reached, true)
        {
            self.stats.reached += 1;
        }
    }
}
