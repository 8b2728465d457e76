//! Routers, links and packets in virtual time.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

use crate::liveness::{LivenessInput, LivenessOptions};
use crate::random::SplitMix64;
use crate::router::{Input, LinkCost, LinkId, Output, Packet, Report, Router, RouterOptions, Session};

mod check;
mod detection;
mod link;
mod topology;
mod travel;

pub use check::{Checks, FabricViolation};
use link::LinkState;
pub use link::{FabricLink, Forgery, Nat};
pub use topology::Topology;
pub use travel::{Loss, PacketOutcome};

/// Settings of a [`Fabric`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FabricOptions {
    /// The settings of each router; seed and first sequence number are set by the fabric.
    pub router: RouterOptions,
    /// The detection of production at both ends of each link; the instance is set by the fabric. Unless set,
    /// both ends are notified after fixed times, and no probes are simulated.
    pub liveness: Option<LivenessOptions>,
    /// How long after a cut both ends of a link report it as down, without
    /// [`FabricOptions::liveness`]. 50 ms unless set.
    pub detection: Duration,
    /// How long after a link was healed, or a node started, it is reported as up, without
    /// [`FabricOptions::liveness`]. 10 ms unless set.
    pub recovery: Duration,
    /// What is checked at each event. [`Checks::Changes`] unless set.
    pub checks: Checks,
    /// After how many hops a packet is dropped. 64 unless set.
    pub hops_max: u32,
}

impl Default for FabricOptions {
    fn default() -> FabricOptions {
        FabricOptions {
            router: RouterOptions::default(),
            liveness: None,
            detection: Duration::from_millis(50),
            recovery: Duration::from_millis(10),
            checks: Checks::Changes,
            hops_max: 64,
        }
    }
}

impl FabricOptions {
    /// Sets [`FabricOptions::router`].
    #[must_use]
    pub fn router(mut self, router: RouterOptions) -> FabricOptions {
        self.router = router;
        self
    }

    /// Sets [`FabricOptions::liveness`].
    #[must_use]
    pub fn liveness(mut self, liveness: LivenessOptions) -> FabricOptions {
        self.liveness = Some(liveness);
        self
    }

    /// Sets [`FabricOptions::detection`].
    #[must_use]
    pub fn detection(mut self, detection: Duration) -> FabricOptions {
        self.detection = detection;
        self
    }

    /// Sets [`FabricOptions::recovery`].
    #[must_use]
    pub fn recovery(mut self, recovery: Duration) -> FabricOptions {
        self.recovery = recovery;
        self
    }

    /// Sets [`FabricOptions::checks`].
    #[must_use]
    pub fn checks(mut self, checks: Checks) -> FabricOptions {
        self.checks = checks;
        self
    }

    /// Sets [`FabricOptions::hops_max`].
    #[must_use]
    pub fn hops_max(mut self, hops_max: u32) -> FabricOptions {
        self.hops_max = hops_max;
        self
    }
}

/// A change of the network at a time set in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Nothing passes in either direction.
    Cut(LinkId),
    /// Nothing passes from this end on.
    CutFrom(LinkId, NodeId),
    /// The link works again.
    Heal(LinkId),
    /// The process of a node ends; it has lost its state when it starts again.
    Crash(NodeId),
    /// The NAT in front of a node loses all mappings, as when it restarts: the next frame from inside gets
    /// another port.
    Remap(NodeId),
    /// A node starts, with links that are up after [`FabricOptions::recovery`].
    Start(NodeId),
}

/// Counts of a [`Fabric`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FabricStats {
    /// Events that were simulated.
    pub events: u64,
    /// Messages of routers that were sent.
    pub messages: u64,
    /// Bytes of these messages, without headers of lower layers.
    pub message_bytes: u64,
    /// Probes of the detection that were sent.
    pub probes: u64,
    /// Bytes of these probes, without headers of lower layers.
    pub probe_bytes: u64,
    /// Messages and packets that a link lost, or that found its queue full.
    pub lost: u64,
    /// Packets that reached their destination.
    pub delivered: u64,
    /// Hops of these packets.
    pub hops: u64,
    /// Route changes.
    pub route_changes: u64,
}

/// Nodes with routers, and single links between them, in virtual time.
///
/// Where [`Network`](super::Network) joins each node with each other, a fabric has the links that it was
/// given, and is made for thousands of nodes. It runs the router of production. After each event it checks
/// that the routes have no loop, that feasibility distances fall along each route, and that tables are within
/// their bounds; [`Fabric::violations`] has what it found. The same seed and the same calls give the same
/// run, bit for bit; [`Fabric::trace_hash`] is a digest of it.
///
/// ```
/// use std::time::Duration;
/// use x0_mesh::sim::{Fabric, FabricLink, FabricOptions, Topology};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut fabric = Fabric::new(7, FabricOptions::default());
/// let nodes = fabric.build(&Topology::Ring { nodes: 5 }, FabricLink::default());
/// fabric.run_until(Duration::from_secs(1));
///
/// let link = fabric.link_between(nodes[0], nodes[1]).ok_or("neighbours")?;
/// fabric.cut(link);
/// fabric.run_until(Duration::from_secs(2));
/// let route = fabric.router(nodes[0]).and_then(|router| router.route(nodes[1])).ok_or("the other way")?;
/// assert_eq!(route.next, nodes[4]);
/// assert!(fabric.violations().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Fabric {
    options: FabricOptions,
    random: SplitMix64,
    now: Duration,
    nodes: Vec<Node>,
    links: Vec<LinkState>,
    between: BTreeMap<(NodeId, NodeId), LinkId>,
    queue: BinaryHeap<Queued>,
    /// The events of the queue by their places, and the places that are free.
    events: Vec<Option<Event>>,
    free: Vec<u32>,
    numbers: u64,
    packets: u64,
    outcomes: VecDeque<PacketOutcome>,
    reports: Vec<(NodeId, Report)>,
    violations: Vec<FabricViolation>,
    stats: FabricStats,
    trace: u64,
}

#[derive(Debug)]
struct Node {
    id: NodeId,
    /// `None` while the process does not run.
    router: Option<Router>,
    starts: u32,
    links: Vec<LinkId>,
    wake: Option<Duration>,
    forgery: Option<Forgery>,
    nat: Option<Nat>,
}

/// The time of an event, in the order of time and then of its number. A heap moves its entries often, so the
/// event itself is elsewhere.
#[derive(Debug)]
struct Queued {
    at: Duration,
    number: u64,
    /// The place of the event.
    place: u32,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// The heap yields the greatest: the earliest.
    fn cmp(&self, other: &Queued) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[derive(Debug)]
enum Event {
    Message {
        link: LinkId,
        to: NodeId,
        message: Vec<u8>,
    },
    Packet {
        link: LinkId,
        to: NodeId,
        travelling: Travelling,
    },
    Wake {
        node: NodeId,
    },
    Probe {
        link: LinkId,
        to: NodeId,
        probe: Vec<u8>,
    },
    DetectorWake {
        link: LinkId,
        node: NodeId,
    },
    /// An end of a link learns whether it is up, unless the link has changed again since.
    Notice {
        link: LinkId,
        at: NodeId,
        change: u32,
    },
    Change(Change),
}

/// A packet on a link.
#[derive(Debug, Clone, Copy)]
struct Travelling {
    number: u64,
    from: NodeId,
    packet: Packet,
    hops: u32,
    sent_at: Duration,
    /// The sender's session with the receiver.
    session: Session,
}

impl Fabric {
    /// A fabric without nodes.
    #[must_use]
    pub fn new(seed: u64, options: FabricOptions) -> Fabric {
        Fabric {
            options,
            random: SplitMix64::new(seed),
            now: Duration::ZERO,
            nodes: Vec::new(),
            links: Vec::new(),
            between: BTreeMap::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            numbers: 0,
            packets: 0,
            outcomes: VecDeque::new(),
            reports: Vec::new(),
            violations: Vec::new(),
            stats: FabricStats::default(),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Adds a topology of new nodes, and returns them in its order. See [`Topology`] for the changes that
    /// come with it.
    pub fn build(&mut self, topology: &Topology, link: FabricLink) -> Vec<NodeId> {
        let plan = topology.plan(&mut self.random);
        let nodes: Vec<NodeId> = (0..plan.nodes).map(|_| self.add_node()).collect();
        for (one, other) in plan.links {
            self.connect(nodes[one], nodes[other], link);
        }
        for (at, is_cut, (one, other)) in plan.changes {
            if let Some(link) = self.link_between(nodes[one], nodes[other]) {
                self.schedule(self.now + at, if is_cut { Change::Cut(link) } else { Change::Heal(link) });
            }
        }
        nodes
    }

    /// Adds a node, which runs from now on. Nodes are numbered from 1.
    pub fn add_node(&mut self) -> NodeId {
        let number = std::num::NonZeroU64::MIN.saturating_add(self.nodes.len() as u64);
        let id = NodeId::from(number);
        self.nodes.push(Node {
            id,
            router: None,
            starts: 0,
            links: Vec::new(),
            wake: None,
            forgery: None,
            nat: None,
        });
        self.start(id);
        id
    }

    /// Joins two nodes.
    ///
    /// # Panics
    /// If a node is not of this fabric.
    pub fn connect(&mut self, one: NodeId, other: NodeId, link: FabricLink) -> LinkId {
        let id = LinkId(u32::try_from(self.links.len()).unwrap_or(u32::MAX));
        let mut state = LinkState::new([one, other], link);
        state.nats = [one, other].map(|end| self.node_mut(end).nat);
        self.links.push(state);
        for end in [one, other] {
            self.node_mut(end).links.push(id);
        }
        self.between.insert((one.min(other), one.max(other)), id);
        for end in [one, other] {
            self.reset_detector(id, end, self.router(end).is_some());
        }
        self.notify(id, self.options.recovery);
        id
    }

    /// The link that joins two nodes; the last one, if there are several.
    #[must_use]
    pub fn link_between(&self, one: NodeId, other: NodeId) -> Option<LinkId> {
        self.between.get(&(one.min(other), one.max(other))).copied()
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The router of a node, `None` while it does not run.
    #[must_use]
    pub fn router(&self, node: NodeId) -> Option<&Router> {
        self.nodes.get(position(node))?.router.as_ref()
    }

    /// All nodes, those included that do not run.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().map(|node| node.id)
    }

    /// Cuts a link in both directions.
    pub fn cut(&mut self, link: LinkId) {
        self.change(Change::Cut(link));
    }

    /// Makes a change now.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Cut(link) => self.set_cut(link, [true, true]),
            Change::CutFrom(link, from) => {
                let Some(state) = self.links.get(link.0 as usize) else { return };
                let cut = [0, 1].map(|end| state.is_cut[end] || state.ends[end] == from);
                self.set_cut(link, cut);
            }
            Change::Heal(link) => self.set_cut(link, [false, false]),
            Change::Crash(node) => self.crash(node),
            Change::Remap(node) => {
                for link in self.node_mut(node).links.clone() {
                    if let Some(state) = self.links.get_mut(link.0 as usize) {
                        state.unmap(node);
                    }
                }
            }
            Change::Start(node) => self.start(node),
        }
    }

    /// Makes a change at a time to come.
    pub fn schedule(&mut self, at: Duration, change: Change) {
        self.enqueue(at, Event::Change(change));
    }

    /// Schedules crashes and starts of all nodes: each runs, and then does not run, for times drawn evenly
    /// from zero to twice these means.
    pub fn churn(&mut self, until: Duration, mean_up: Duration, mean_down: Duration) {
        for node in self.nodes().collect::<Vec<_>>() {
            let mut at = self.now;
            loop {
                at += self.draw(mean_up * 2);
                let start = at + self.draw(mean_down * 2);
                if start >= until {
                    break;
                }
                self.schedule(at, Change::Crash(node));
                self.schedule(start, Change::Start(node));
                at = start;
            }
        }
    }

    /// Makes a node forge distances in all messages of its router from now on, or ends that. The node is left
    /// out of the checks.
    pub fn set_forgery(&mut self, node: NodeId, forgery: Option<Forgery>) {
        self.node_mut(node).forgery = forgery;
    }

    /// Places a node behind a NAT, or removes the NAT. No mapping exists yet.
    pub fn set_nat(&mut self, node: NodeId, nat: Option<Nat>) {
        self.node_mut(node).nat = nat;
        for link in self.node_mut(node).links.clone() {
            if let Some(state) = self.links.get_mut(link.0 as usize) {
                let was_blocked = state.is_blocked();
                state.nats[state.end(node)] = nat;
                state.unmap(node);
                let is_blocked = state.is_blocked();
                if is_blocked != was_blocked {
                    let delay = if is_blocked { self.options.detection } else { self.options.recovery };
                    self.notify(link, delay);
                }
            }
        }
    }

    /// Simulates up to this time.
    pub fn run_until(&mut self, until: Duration) {
        while self.queue.peek().is_some_and(|next| next.at <= until) {
            let Some(Queued { at, place, .. }) = self.queue.pop() else { break };
            self.now = at;
            self.stats.events += 1;
            self.free.push(place);
            if let Some(event) = self.events.get_mut(place as usize).and_then(Option::take) {
                self.event(event);
            }
        }
        self.now = self.now.max(until);
    }

    /// Sends a packet; [`Fabric::poll_outcome`] reports what became of it, by the number returned here.
    pub fn send(&mut self, from: NodeId, destination: NodeId) -> u64 {
        self.packets += 1;
        let packet = Packet { destination, from: None, bound: None };
        self.forward(from, self.packets, packet, 0, self.now);
        self.packets
    }

    /// What became of a packet.
    pub fn poll_outcome(&mut self) -> Option<PacketOutcome> {
        self.outcomes.pop_front()
    }

    /// Reports of routers so far, with the node that made each.
    #[must_use]
    pub fn reports(&self) -> &[(NodeId, Report)] {
        &self.reports
    }

    /// Broken invariants so far.
    #[must_use]
    pub fn violations(&self) -> &[FabricViolation] {
        &self.violations
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> FabricStats {
        self.stats
    }

    /// A digest of all messages and route changes so far: equal for equal runs.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Message { link, to, message } => {
                self.detect(link, to, LivenessInput::Received);
                // A message can arrive before the link is reported as up, or after it was reported as down.
                self.input(to, Input::Message { link, message: &message });
            }
            Event::Packet { link, to, travelling } => {
                self.detect(link, to, LivenessInput::Received);
                self.arrive(link, to, travelling);
            }
            Event::Probe { link, to, probe } => self.detect(link, to, LivenessInput::Probe(&probe)),
            Event::DetectorWake { link, node } => self.wake_detector(link, node),
            Event::Wake { node } => {
                let now = self.now;
                let state = self.node_mut(node);
                if state.wake == Some(now) {
                    state.wake = None;
                    self.input(node, Input::Timeout);
                }
            }
            Event::Notice { link, at, change } => self.notice(link, at, change),
            Event::Change(change) => self.change(change),
        }
    }

    fn node_mut(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[position(node)]
    }

    fn draw(&mut self, bound: Duration) -> Duration {
        Duration::from_nanos(self.random.below(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn enqueue(&mut self, at: Duration, event: Event) {
        self.numbers += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            // Memory ends before the numbers do.
            u32::try_from(self.events.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(free) = self.events.get_mut(place as usize) {
            *free = Some(event);
        }
        self.queue.push(Queued { at, number: self.numbers, place });
    }

    fn record(&mut self, words: [u64; 4]) {
        for word in words {
            // FNV-1a, a word at a time.
            self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    fn crash(&mut self, node: NodeId) {
        let state = self.node_mut(node);
        state.router = None;
        state.wake = None;
        for link in state.links.clone() {
            self.reset_detector(link, node, false);
            self.notify(link, self.options.detection);
        }
    }

    fn start(&mut self, node: NodeId) {
        if self.router(node).is_some() {
            self.crash(node);
        }
        let seed = self.random.next();
        let state = &mut self.nodes[position(node)];
        state.starts += 1;
        // As a clock in seconds would give it.
        let seconds = u32::try_from(self.now.as_secs()).unwrap_or(u32::MAX);
        let mut options = self.options.router.clone().seqno(seconds + state.starts);
        options.seed = seed;
        state.router = Some(Router::new(node, options));
        for link in state.links.clone() {
            if let Some(state) = self.links.get_mut(link.0 as usize) {
                state.is_up[state.end(node)] = false;
            }
            self.reset_detector(link, node, true);
            self.notify(link, self.options.recovery);
        }
    }

    fn set_cut(&mut self, link: LinkId, is_cut: [bool; 2]) {
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        state.is_cut = is_cut;
        let delay = if is_cut == [false; 2] { self.options.recovery } else { self.options.detection };
        self.notify(link, delay);
    }

    /// Both ends look at a link after some time.
    fn notify(&mut self, link: LinkId, delay: Duration) {
        if self.options.liveness.is_some() {
            return;
        }
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        state.changes += 1;
        let (ends, change) = (state.ends, state.changes);
        let due = self.now + delay;
        for at in ends {
            self.enqueue(due, Event::Notice { link, at, change });
        }
    }

    fn notice(&mut self, link: LinkId, at: NodeId, change: u32) {
        let Some(state) = self.links.get(link.0 as usize) else { return };
        if state.changes != change || self.router(at).is_none() {
            return;
        }
        let end = state.end(at);
        let peer = state.ends[1 - end];
        let cost = state.link.cost;
        let works = state.is_cut == [false; 2] && !state.is_blocked() && self.router(peer).is_some();
        let was_up = std::mem::replace(&mut self.links[link.0 as usize].is_up[end], works);
        if works {
            self.input(at, Input::LinkUp { link, peer, cost });
        } else if was_up {
            self.input(at, Input::LinkDown { link });
        }
    }

    /// Changes the cost of a link for both of its ends, at once.
    pub fn set_cost(&mut self, link: LinkId, cost: LinkCost) {
        let Some(state) = self.links.get_mut(link.0 as usize) else { return };
        state.link.cost = cost;
        let (ends, is_up) = (state.ends, state.is_up);
        for end in [0, 1] {
            if is_up[end] {
                self.input(ends[end], Input::LinkUp { link, peer: ends[1 - end], cost });
            }
        }
    }

    /// Reports a link as degraded to both of its ends, at once.
    pub fn degrade(&mut self, link: LinkId) {
        let Some(state) = self.links.get(link.0 as usize) else { return };
        for at in state.ends {
            self.input(at, Input::LinkDegraded { link });
        }
    }

    /// Hands an input to a router and does what it outputs.
    fn input(&mut self, node: NodeId, input: Input<'_>) {
        let now = self.now;
        let Some(router) = self.nodes[position(node)].router.as_mut() else { return };
        // A refused input changes nothing, and the router counts it.
        let _ = router.handle(now, input);
        let mut changed = Vec::new();
        while let Some(output) = self.nodes[position(node)].router.as_mut().and_then(Router::poll_output) {
            match output {
                Output::Send { link, peer, message } => self.transmit(node, link, peer, message),
                Output::RouteChanged { destination, next } => {
                    self.stats.route_changes += 1;
                    let next = next.map_or(0, NodeId::get);
                    self.record([nanoseconds(now), node.get(), destination.get(), next]);
                    changed.push(destination);
                }
                Output::Report(report) => self.reports.push((node, report)),
            }
        }
        self.check(node, &changed);
        let state = &mut self.nodes[position(node)];
        let timeout = state.router.as_ref().and_then(Router::poll_timeout).map(|at| at.max(now));
        if let Some(at) = timeout
            && state.wake.is_none_or(|wake| at < wake)
        {
            state.wake = Some(at);
            self.enqueue(at, Event::Wake { node });
        }
    }
}

/// Where a node stands in the list: nodes are numbered from 1.
fn position(node: NodeId) -> usize {
    usize::try_from(node.get() - 1).unwrap_or(usize::MAX)
}

/// A time of a simulation, which is shorter than centuries.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
