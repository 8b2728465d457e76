//! The engine: its contract, its state, and what each input does.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::announcement::Announcement;
use super::io::{DiscoveryInput, DiscoveryOutput, DiscoveryStats, Hint, HintState};
use super::options::DiscoveryOptions;
use crate::random::SplitMix64;

#[cfg(test)]
mod tests;

/// Announcements of one link, and the addresses that other nodes announce. See the [module](super).
///
/// # Drain contract
/// `now` is the time since any origin; a `now` that runs backwards counts as the latest one. After each call
/// of [`handle`](Discovery::handle) take outputs with [`poll_output`](Discovery::poll_output) until there are
/// none, then wait for the next input or until [`poll_timeout`](Discovery::poll_timeout), and hand in
/// [`DiscoveryInput::Timeout`] then. Each [`DiscoveryOutput::Dial`] is followed by
/// [`DiscoveryInput::Ended`], with a [`DiscoveryInput::Reached`] before it if the dial succeeded.
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_mesh::discovery::{Discovery, DiscoveryInput, DiscoveryOptions, DiscoveryOutput};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (one, two) = (NodeId::new(1).ok_or("zero")?, NodeId::new(2).ok_or("zero")?);
/// let options = DiscoveryOptions::new("example.org");
/// let mut near = Discovery::new(one, 7001, 1, options.clone());
/// let mut far = Discovery::new(two, 7002, 2, options);
///
/// // The announcement of node 2 arrives at node 1, from any port of 192.0.2.2.
/// let mut now = Duration::ZERO;
/// let bytes = loop {
///     far.handle(now, DiscoveryInput::Timeout);
///     if let Some(DiscoveryOutput::Announce { bytes }) = far.poll_output() {
///         break bytes;
///     }
///     now = far.poll_timeout().ok_or("it announces for ever")?;
/// };
/// let from: SocketAddr = "192.0.2.2:49152".parse()?;
/// near.handle(now, DiscoveryInput::Received { from, bytes: &bytes });
/// let outputs: Vec<_> = std::iter::from_fn(|| near.poll_output()).collect();
/// let address: SocketAddr = "192.0.2.2:7002".parse()?;
/// assert!(outputs.contains(&DiscoveryOutput::Dial { address }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Discovery {
    announcement: Announcement,
    options: DiscoveryOptions,
    now: Duration,
    /// When the next announcement is due, and the pause after it.
    announce_at: Duration,
    interval: Duration,
    announced_at: Option<Duration>,
    hints: BTreeMap<SocketAddr, State>,
    neighbours: Vec<NodeId>,
    dialling: usize,
    outputs: VecDeque<DiscoveryOutput>,
    random: SplitMix64,
    stats: DiscoveryStats,
}

#[derive(Debug)]
struct State {
    node: NodeId,
    expires: Duration,
    /// When it may be dialled.
    due: Duration,
    failures: u32,
    state: HintState,
}

impl Discovery {
    /// A node with a link on UDP port `port`. The seed spreads announcements and dials over time, and must
    /// differ from node to node. Port 0 announces nothing.
    #[must_use]
    pub fn new(local: NodeId, port: u16, seed: u64, options: DiscoveryOptions) -> Discovery {
        let options = options.bounded();
        let mut random = SplitMix64::new(seed);
        let announce_at = spread(&mut random, options.interval_min / 2);
        Discovery {
            announcement: Announcement { realm: options.realm, node: local, port },
            now: Duration::ZERO,
            announce_at,
            interval: options.interval_min,
            announced_at: None,
            hints: BTreeMap::new(),
            neighbours: Vec::new(),
            dialling: 0,
            outputs: VecDeque::new(),
            random,
            stats: DiscoveryStats::default(),
            options,
        }
    }

    /// Hands in what happened. No input is refused: one that does not fit the state has no effect.
    pub fn handle(&mut self, now: Duration, input: DiscoveryInput<'_>) {
        self.now = self.now.max(now);
        match input {
            DiscoveryInput::Received { from, bytes } => self.received(from, bytes),
            DiscoveryInput::Neighbours { peers } => self.neighbours = peers.to_vec(),
            DiscoveryInput::Reached { address } => self.reached(address),
            DiscoveryInput::Ended { address } => self.ended(address),
            DiscoveryInput::Timeout => {}
        }
        self.hints.retain(|_, hint| hint.state != HintState::Waiting || hint.expires > self.now);
        self.announce();
        self.dial();
    }

    /// The next thing to do, `None` when there is nothing until the next input.
    pub fn poll_output(&mut self) -> Option<DiscoveryOutput> {
        self.outputs.pop_front()
    }

    /// When [`DiscoveryInput::Timeout`] is due. May be in the past, and then is due at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let announce = (self.announcement.port != 0).then_some(self.announce_at);
        let is_full = self.dialling >= self.options.dials_max;
        let waiting = self.hints.values().filter(|hint| hint.state == HintState::Waiting);
        let hints = waiting.map(|hint| {
            if is_full || self.neighbours.contains(&hint.node) {
                hint.expires
            } else {
                hint.due.min(hint.expires)
            }
        });
        hints.chain(announce).min()
    }

    /// All hints, by address.
    pub fn hints(&self) -> impl Iterator<Item = Hint> {
        self.hints.iter().map(|(address, hint)| Hint {
            address: *address,
            node: hint.node,
            state: hint.state,
            failures: hint.failures,
            expires: hint.expires,
        })
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> DiscoveryStats {
        self.stats
    }

    fn received(&mut self, from: SocketAddr, bytes: &[u8]) {
        let is_host = !from.ip().is_unspecified() && !from.ip().is_multicast();
        let Some(announcement) = Announcement::decode(bytes).filter(|_| is_host) else {
            self.stats.malformed += 1;
            return;
        };
        if announcement.realm != self.announcement.realm {
            self.stats.foreign += 1;
            return;
        }
        let node = announcement.node;
        // This node's own, which the group gives back.
        if node == self.announcement.node {
            return;
        }
        self.stats.heard += 1;
        let mut address = from;
        address.set_port(announcement.port);
        let expires = self.now + self.options.expiry;
        // The node with the lower id dials, so that there is one handshake and not two.
        let courtesy = if self.announcement.node < node { Duration::ZERO } else { self.options.courtesy };
        if let Some(hint) = self.hints.get_mut(&address) {
            hint.expires = expires;
            if hint.state == HintState::Waiting {
                hint.node = node;
            }
        } else if self.make_room(address) {
            let due = self.now + courtesy;
            self.hints.insert(address, State { node, expires, due, failures: 0, state: HintState::Waiting });
        } else {
            self.stats.dropped += 1;
            return;
        }
        // A node that has just started learns of this one soon.
        if !self.neighbours.contains(&node) {
            let soon = self.now + spread(&mut self.random, self.options.interval_min);
            let earliest = self.announced_at.map_or(soon, |at| soon.max(at + self.options.interval_min));
            self.announce_at = self.announce_at.min(earliest);
        }
    }

    /// Whether there is room for an address, after another one may have been removed for it.
    fn make_room(&mut self, address: SocketAddr) -> bool {
        let of_ip = self.hints.keys().filter(|other| other.ip() == address.ip()).count();
        if of_ip >= self.options.hints_per_ip_max {
            return false;
        }
        if self.hints.len() < self.options.hints_max {
            return true;
        }
        let waiting = |(address, hint): (&SocketAddr, &State)| {
            (hint.state == HintState::Waiting).then_some((hint.failures, *address))
        };
        let mut candidates: Vec<(u32, SocketAddr)> = self.hints.iter().filter_map(waiting).collect();
        // Those that failed most often, and any of them: an attacker cannot tell which one is replaced.
        let most = candidates.iter().map(|(failures, _)| *failures).max();
        candidates.retain(|(failures, _)| Some(*failures) == most);
        let Some((_, replaced)) = self.choose(&candidates) else { return false };
        self.hints.remove(&replaced);
        self.stats.replaced += 1;
        true
    }

    fn choose<T: Copy>(&mut self, candidates: &[T]) -> Option<T> {
        let place = self.random.below(candidates.len() as u64);
        candidates.get(usize::try_from(place).ok()?).copied()
    }

    fn reached(&mut self, address: SocketAddr) {
        let Some(hint) = self.hints.get_mut(&address) else { return };
        if hint.state == HintState::Dialling {
            hint.state = HintState::Reached;
            hint.failures = 0;
            self.dialling -= 1;
        }
    }

    fn ended(&mut self, address: SocketAddr) {
        let Some(hint) = self.hints.get_mut(&address) else { return };
        match hint.state {
            HintState::Waiting => return,
            HintState::Dialling => self.dialling -= 1,
            HintState::Reached => {}
        }
        hint.state = HintState::Waiting;
        self.stats.ended += 1;
        let doublings = hint.failures.min(16);
        hint.failures = hint.failures.saturating_add(1);
        let backoff = self.options.backoff_min.saturating_mul(1 << doublings).min(self.options.backoff_max);
        hint.due = self.now + spread(&mut self.random, backoff);
    }

    fn announce(&mut self) {
        if self.announcement.port == 0 || self.now < self.announce_at {
            return;
        }
        self.outputs.push_back(DiscoveryOutput::Announce { bytes: self.announcement.encode() });
        self.stats.announced += 1;
        self.announced_at = Some(self.now);
        // Half of a pause at least: never below the least one, because pauses begin with twice of it.
        self.interval = (self.interval * 2).min(self.options.interval_max.max(self.options.interval_min * 2));
        self.announce_at = self.now + spread(&mut self.random, self.interval);
    }

    /// Dials hints that are due, in an order that the seed chooses.
    fn dial(&mut self) {
        while self.dialling < self.options.dials_max {
            let due = |(address, hint): (&SocketAddr, &State)| {
                let is_due = hint.state == HintState::Waiting
                    && hint.due <= self.now
                    && !self.neighbours.contains(&hint.node);
                is_due.then_some(*address)
            };
            let due: Vec<SocketAddr> = self.hints.iter().filter_map(due).collect();
            let Some(address) = self.choose(&due) else { return };
            let Some(hint) = self.hints.get_mut(&address) else { return };
            hint.state = HintState::Dialling;
            self.dialling += 1;
            self.stats.dials += 1;
            self.outputs.push_back(DiscoveryOutput::Dial { address });
        }
    }
}

/// Between half of a duration and all of it.
fn spread(random: &mut SplitMix64, whole: Duration) -> Duration {
    let half = whole / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(random.below(nanos.saturating_add(1)))
}
