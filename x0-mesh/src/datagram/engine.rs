//! The engine: its contract, its state, and what each input does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use x0_identity::NodeId;

use super::facts::{DatagramStats, LinkFacts, PathFacts};
use super::flood::Seen;
use super::frame::{FLOOD_OVERHEAD, Flood, control};
use super::link::Link;
use super::links::Links;
use super::outputs::Outputs;
use super::silence::Silence;
use super::{
    Batch, DatagramError, DatagramOptions, FrameKeys, HandleError, Input, Output, PortId, PortOptions,
};
use crate::liveness::{LivenessInput, LivenessOutput, LivenessReason, LivenessState};
use crate::random::SplitMix64;
use crate::router::{self, LinkCost, LinkId, Router};
use crate::traversal::encode_address;

mod receive;
mod routes;
mod send;

use routes::Routes;

/// A link that is down for longer is probed less often.
const DOWN_RECENTLY: Duration = Duration::from_secs(60);
/// Probes to all links that are down for longer, in a second.
const DOWN_PROBES_PER_SECOND: u32 = 160;
/// A link that is down for so long may lead to another address of the neighbour. A link that has its first
/// keys comes up sooner, unless its path has round trips of about as long.
const DOWN_REUSABLE: Duration = Duration::from_secs(1);
/// A link that is down for so long may be ended in favour of a new neighbour.
const DOWN_REPLACEABLE: Duration = Duration::from_secs(10);

/// Datagrams of one node over the links of its ports. See the [module](super).
///
/// # Drain contract
/// `now` is the time since any origin and must not run backwards. After each call of
/// [`handle`](Datagrams::handle), [`send`](Datagrams::send) and [`flood`](Datagrams::flood), successful or
/// not, take outputs with [`poll_output`](Datagrams::poll_output) until there are none, then wait for the
/// next input or until [`poll_timeout`](Datagrams::poll_timeout), and hand in [`Input::Timeout`] then. Hand
/// in frames that wait on a port before a timeout that is due: they are the better evidence. An error says
/// what happened to the state; the engine remains usable.
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_mesh::datagram::{DatagramOptions, Datagrams, FrameKeys, Input, Output, PortId, PortOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let nodes = [NodeId::new(1).ok_or("zero")?, NodeId::new(2).ok_or("zero")?];
/// let addresses: [SocketAddr; 2] = ["[fe80::1]:1".parse()?, "[fe80::2]:1".parse()?];
/// let port = PortId(0);
/// let mut now = Duration::ZERO;
/// // Exported from the neighbours' mutual-TLS connection.
/// let material = [7; FrameKeys::MATERIAL_LEN];
/// let mut ends = [0, 1].map(|at| Datagrams::new(nodes[at], DatagramOptions::new(at as u64 + 1)));
/// for at in [0, 1] {
///     ends[at].add_port(port, PortOptions::new(1232));
///     let (peer, address) = (nodes[1 - at], addresses[1 - at]);
///     let keys = FrameKeys::new(&material, at == 0);
///     ends[at].handle(now, Input::Keyed { port, peer, number: 0, address, keys })?;
/// }
/// let mut arrived = None;
/// while arrived.is_none() {
///     if ends[0].mtu(nodes[1]).is_some() {
///         ends[0].send(now, nodes[1], b"hello")?;
///     }
///     for at in [0, 1] {
///         while let Some(output) = ends[at].poll_output() {
///             match output {
///                 Output::Transmit { mut frames, .. } => {
///                     for frame in frames.items_mut() {
///                         ends[1 - at].handle(now, Input::Frame { port, from: addresses[at], frame })?;
///                     }
///                 }
///                 Output::Datagrams { source, payloads, .. } => {
///                     arrived = payloads.items().next().map(|payload| (source, payload.to_vec()));
///                 }
///                 _ => {}
///             }
///         }
///     }
///     now = ends.iter().filter_map(Datagrams::poll_timeout).min().unwrap_or(now).max(now);
///     for end in &mut ends {
///         end.handle(now, Input::Timeout)?;
///     }
/// }
/// assert_eq!(arrived, Some((nodes[0], b"hello".to_vec())));
/// assert_eq!(ends[0].mtu(nodes[1]), Some(1200));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Datagrams {
    local: NodeId,
    options: DatagramOptions,
    now: Duration,
    routes: Routes,
    ports: BTreeMap<PortId, PortOptions>,
    /// Ports with a queue: what they send is marked.
    busy: BTreeSet<PortId>,
    links: Links,
    by_peer: BTreeMap<(PortId, NodeId, u8), LinkId>,
    /// Two links may have the same index.
    by_index: BTreeMap<u32, Vec<LinkId>>,
    links_made: u32,
    /// Links that are down, the one that is down for longest first.
    down: BTreeSet<(Duration, LinkId)>,
    /// Links that are up, and for which the router has no room.
    refused: BTreeSet<LinkId>,
    /// Links whose detection may have outputs.
    touched: Vec<LinkId>,
    outputs: Outputs,
    /// The frames that are being taken have waited: what they carry is marked.
    is_late: bool,
    silence: Silence,
    seen: Seen,
    random: SplitMix64,
    stats: DatagramStats,
}

impl Datagrams {
    /// How many links to one neighbour a port has at most, each for another address: four that this node has
    /// dialled, and as many that the neighbour has, the first one shared.
    pub const LINK_NUMBERS: u8 = 7;

    /// A node without ports.
    #[must_use]
    pub fn new(local: NodeId, options: DatagramOptions) -> Datagrams {
        Datagrams {
            local,
            now: Duration::ZERO,
            routes: Routes::new(Router::new(local, options.router.clone())),
            ports: BTreeMap::new(),
            busy: BTreeSet::new(),
            links: Links::default(),
            by_peer: BTreeMap::new(),
            by_index: BTreeMap::new(),
            links_made: 0,
            down: BTreeSet::new(),
            refused: BTreeSet::new(),
            touched: Vec::new(),
            outputs: Outputs::default(),
            is_late: false,
            silence: Silence::default(),
            seen: Seen::default(),
            random: SplitMix64::new(options.router.seed.rotate_left(31) ^ local.get()),
            stats: DatagramStats::default(),
            options,
        }
    }

    /// This node.
    #[must_use]
    pub fn local(&self) -> NodeId {
        self.local
    }

    /// Adds a port, or changes its settings; links that it has keep their cost until it is measured again.
    pub fn add_port(&mut self, port: PortId, options: PortOptions) {
        self.ports.insert(port, options);
    }

    /// Hands in what happened.
    ///
    /// # Errors
    /// [`HandleError`]; nothing changed.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) -> Result<(), HandleError> {
        self.now = self.now.max(now);
        let result = match input {
            Input::Keyed { port, peer, number, address, keys } => {
                self.keyed((port, peer, number), address, keys)
            }
            Input::Ended { link } => self.ended(link),
            Input::Frame { port, from, frame } => {
                self.frame(port, from, frame);
                Ok(())
            }
            Input::Frames { port, from, frames, frame_len, is_late } => {
                let frame_len = frame_len.max(1);
                self.is_late = is_late;
                self.outputs.expected = frames.len().div_ceil(frame_len);
                for frame in frames.chunks_mut(frame_len) {
                    self.frame(port, from, frame);
                }
                self.outputs.expected = 1;
                self.is_late = false;
                Ok(())
            }
            Input::MtuChanged { port, mtu } => self.mtu_changed(port, mtu),
            Input::AddressChanged { port } => self.address_changed(port),
            Input::PortBusy { port, is_busy } => self.port_busy(port, is_busy),
            Input::Timeout => {
                self.timeout();
                Ok(())
            }
        };
        self.settle();
        result
    }

    /// The next thing to do, `None` when there is nothing until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// Takes back a batch of an output that was handled, so that its space is used again. Optional, and
    /// without any other effect.
    pub fn reuse(&mut self, batch: Batch) {
        self.outputs.reuse(batch);
    }

    /// When [`Input::Timeout`] is due. May be in the past, and then is due at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.links.timeout().into_iter().chain(self.routes.timeout()).min()
    }

    /// The longest datagram that the current path to a destination carries, in bytes; `None` without a route.
    #[must_use]
    pub fn mtu(&self, to: NodeId) -> Option<usize> {
        self.routes.router().route(to).map(|route| usize::from(route.mtu))
    }

    /// The port over which datagrams to a destination leave; `None` without a route.
    #[must_use]
    pub fn port_to(&self, to: NodeId) -> Option<PortId> {
        let link = self.routes.router().route(to)?.link;
        self.links.get(link).map(|link| link.port)
    }

    /// All paths, in no particular order.
    pub fn paths(&self) -> impl Iterator<Item = PathFacts> {
        self.routes.router().routes().map(PathFacts::of)
    }

    /// The path to a node, `None` if there is none.
    #[must_use]
    pub fn path(&self, to: NodeId) -> Option<PathFacts> {
        self.routes.router().route(to).map(PathFacts::of)
    }

    /// All links, in the order in which they were made.
    pub fn links(&self) -> impl Iterator<Item = LinkFacts> {
        self.links.values().map(|link| {
            let sample = link.detection.liveness().sample();
            LinkFacts {
                link: link.id,
                port: link.port,
                peer: link.peer,
                number: link.number,
                address: link.address,
                seen_as: link.seen_as,
                state: link.state(),
                reason: link.reason,
                rtt: sample.rtt,
                receive_ratio: sample.receive_ratio,
                send_ratio: sample.send_ratio,
                keep_alive: link.detection.liveness().keep_alive(),
                cost: link.cost.unwrap_or_else(|| self.cost(link)),
                mtu: link.mtu(),
                sent_frames: link.sent_frames,
                sent_bytes: link.sent_bytes,
                control_bytes: link.control_bytes,
                received_frames: link.received_frames,
                received_bytes: link.received_bytes,
            }
        })
    }

    /// The link with this number to a peer on a port, once it has keys.
    #[must_use]
    pub fn link(&self, port: PortId, peer: NodeId, number: u8) -> Option<LinkId> {
        self.by_peer.get(&(port, peer, number)).copied()
    }

    /// The number of the link that this node makes by dialling a peer at an address: that of the link which
    /// leads there, else of one that has been down for a second or more, else a free one. `None` if all are
    /// in use, for other addresses.
    ///
    /// Numbers above 0 that one node chooses are odd, those of the other even, so that ends that dial each
    /// other at once do not choose the same number for different addresses.
    #[must_use]
    pub fn link_number(&self, port: PortId, peer: NodeId, address: SocketAddr) -> Option<u8> {
        let links = || {
            let ids = self.by_peer.range((port, peer, 0)..=(port, peer, u8::MAX));
            ids.filter_map(|(_, id)| self.links.get(*id))
        };
        if let Some(link) = links().find(|link| link.address == address) {
            return Some(link.number);
        }
        let is_own = |number: u8| number == 0 || (number % 2 == 1) == (self.local < peer);
        let is_over = |link: &&Link| link.down_since.is_some_and(|since| since + DOWN_REUSABLE <= self.now);
        let own = || links().filter(|link| is_own(link.number));
        let is_free = |number: &u8| is_own(*number) && !self.by_peer.contains_key(&(port, peer, *number));
        let free = (0..Datagrams::LINK_NUMBERS).find(is_free);
        own().find(is_over).map(|link| link.number).or(free)
    }

    /// The state of a link, `None` if there is no such link.
    #[must_use]
    pub fn link_state(&self, link: LinkId) -> Option<LivenessState> {
        self.links.get(link).map(Link::state)
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> DatagramStats {
        self.stats
    }

    /// The router, for its routes and counts.
    #[must_use]
    pub fn router(&self) -> &Router {
        self.routes.router()
    }

    fn keyed(
        &mut self,
        (port, peer, number): (PortId, NodeId, u8),
        address: SocketAddr,
        keys: FrameKeys,
    ) -> Result<(), HandleError> {
        let settings = self.ports.get(&port).ok_or(HandleError::UnknownPort { port })?;
        let (mtu, mut liveness) = (settings.mtu, self.options.liveness.clone());
        liveness.interval_idle_max = settings.interval_idle_max.unwrap_or(liveness.interval_idle_max);
        if peer == self.local {
            return Err(HandleError::LinkToSelf { port });
        }
        let numbers = Datagrams::LINK_NUMBERS;
        if number >= numbers {
            return Err(HandleError::Number { peer, number, numbers });
        }
        let id = if let Some(id) = self.by_peer.get(&(port, peer, number)) {
            *id
        } else {
            self.make_room(peer)?;
            let id = LinkId(self.links_made);
            // After 2^32 links numbers are used again, of links that ended long ago.
            self.links_made = self.links_made.wrapping_add(1);
            self.by_peer.insert((port, peer, number), id);
            self.links.insert(Link::new(id, (port, peer, number), address, mtu, liveness));
            id
        };
        let Some(link) = self.links.get_mut(id) else { return Err(HandleError::UnknownLink { link: id }) };
        // The path that the link leaves may deliver frames late, and each that is the newest under its keys
        // would lead the link back.
        let is_led_elsewhere =
            link.address != address && link.down_since.is_some_and(|since| since + DOWN_REUSABLE <= self.now);
        let mut dropped = if is_led_elsewhere { link.take_keys() } else { Vec::new() };
        dropped.extend(link.add_keys(keys));
        link.address = address;
        let indices: Vec<u32> = link.indices().collect();
        if link.detection.liveness().state() == LivenessState::Down {
            // The peer answers again.
            self.set_down(id, true);
        }
        let Some(link) = self.links.get_mut(id) else { return Err(HandleError::UnknownLink { link: id }) };
        link.detection.handle(self.now, LivenessInput::Timeout);
        self.touched.push(id);
        for dropped in dropped {
            self.forget_index(dropped, id);
        }
        for index in indices {
            let links = self.by_index.entry(index).or_default();
            if !links.contains(&id) {
                links.push(id);
            }
        }
        Ok(())
    }

    /// Ends the link that is down for longest if there are as many links as there may be.
    fn make_room(&mut self, peer: NodeId) -> Result<(), HandleError> {
        let links_max = self.options.links_max;
        if self.links.len() < links_max {
            return Ok(());
        }
        let oldest = self.down.first().copied();
        match oldest.filter(|(since, _)| *since + DOWN_REPLACEABLE <= self.now) {
            Some((_, id)) => self.ended(id),
            None => Err(HandleError::Full { peer, links_max }),
        }
    }

    /// Notes that a link is down from now on, or not down.
    fn set_down(&mut self, id: LinkId, is_down: bool) {
        let Some(link) = self.links.get_mut(id) else { return };
        if let Some(since) = link.down_since.take() {
            self.down.remove(&(since, id));
        }
        link.up_since = if is_down { None } else { link.up_since.or(Some(self.now)) };
        if is_down {
            link.down_since = Some(self.now);
            self.down.insert((self.now, id));
            link.detection.set_interval_down(self.options.liveness.interval_down);
        }
    }

    /// Whether a link is down while another link to the same address of the peer works: it is up, and was
    /// heard a second after it came up and after the link went down. If both ends had the keys of the link,
    /// it would be up as well. Only new keys bring it up, and a dial to the address renews those of the other
    /// link: after a restart, for example, the peer has chosen another number for the address.
    ///
    /// Two links whose keys both ends have go down one after the other in an outage, and come up one after
    /// the other after it, not in the same order at each end. An end that did not wait would end another link
    /// than its peer, and no link would be left.
    fn is_superseded(&self, link: &Link) -> bool {
        let Some(down_since) = link.down_since else { return false };
        let works = |other: &Link| {
            let since = other.up_since.map(|since| since.max(down_since) + DOWN_REUSABLE);
            since.zip(other.heard_at).is_some_and(|(since, heard_at)| since <= heard_at)
        };
        let mut ids = self.by_peer.range((link.port, link.peer, 0)..=(link.port, link.peer, u8::MAX));
        ids.any(|(_, id)| {
            self.links.get(*id).is_some_and(|other| other.address == link.address && works(other))
        })
    }

    /// The pause between two probes of a link that is down since then. Neighbours that have departed would
    /// else be probed 20 times a second each, until their SVIDs expire.
    fn interval_down(&self, since: Duration) -> Duration {
        let interval = self.options.liveness.interval_down;
        if self.now < since + DOWN_RECENTLY {
            return interval;
        }
        let links = u32::try_from(self.down.len()).unwrap_or(u32::MAX);
        (interval * 2).max(Duration::from_secs(1) / DOWN_PROBES_PER_SECOND * links)
    }

    fn forget_index(&mut self, index: u32, id: LinkId) {
        if let Some(links) = self.by_index.get_mut(&index) {
            links.retain(|link| *link != id);
            if links.is_empty() {
                self.by_index.remove(&index);
            }
        }
    }

    fn ended(&mut self, id: LinkId) -> Result<(), HandleError> {
        let waiting = self.links.get_mut(id).map_or(0, |link| link.take_waiting().len());
        self.stats.unlabelled += waiting as u64;
        self.set_down(id, false);
        let link = self.links.remove(id).ok_or(HandleError::UnknownLink { link: id })?;
        self.by_peer.remove(&(link.port, link.peer, link.number));
        for index in link.indices() {
            self.forget_index(index, id);
        }
        self.refused.remove(&id);
        if link.cost.is_some() {
            self.unlinked(id);
        }
        let (peer, state) = (link.peer, LivenessState::Down);
        self.outputs.push(Output::LinkChanged { link: id, peer, state, reason: None });
        Ok(())
    }

    fn mtu_changed(&mut self, port: PortId, mtu: usize) -> Result<(), HandleError> {
        self.ports.get_mut(&port).ok_or(HandleError::UnknownPort { port })?.mtu = mtu;
        // With the same MTU, the measured limits of the paths behind the port remain.
        let is_changed = |link: &&Link| link.port == port && link.lengths.max() != mtu;
        let ids: Vec<LinkId> = self.links.values().filter(is_changed).map(|link| link.id).collect();
        for id in ids {
            self.examine(id, |link| link.lengths.set_max(mtu));
        }
        Ok(())
    }

    fn address_changed(&mut self, port: PortId) -> Result<(), HandleError> {
        if !self.ports.contains_key(&port) {
            return Err(HandleError::UnknownPort { port });
        }
        let ids: Vec<LinkId> =
            self.links.values().filter(|link| link.port == port).map(|link| link.id).collect();
        for id in ids {
            // An idle link asks its neighbour as if there were traffic; an active one sends within
            // `LivenessOptions::interval_active`.
            self.sent(id);
        }
        Ok(())
    }

    fn port_busy(&mut self, port: PortId, is_busy: bool) -> Result<(), HandleError> {
        if !self.ports.contains_key(&port) {
            return Err(HandleError::UnknownPort { port });
        }
        if is_busy {
            self.busy.insert(port);
        } else {
            self.busy.remove(&port);
        }
        Ok(())
    }

    fn timeout(&mut self) {
        let now = self.now;
        for id in self.links.due(now) {
            let Some(link) = self.links.get(id) else { continue };
            if self.is_superseded(link) {
                // A link that exists can be ended.
                let _ = self.ended(id);
                continue;
            }
            let interval = link.down_since.map(|since| self.interval_down(since));
            let Some(link) = self.links.get_mut(id) else { continue };
            if let Some(interval) = interval {
                link.detection.set_interval_down(interval);
            }
            link.detection.handle(now, LivenessInput::Timeout);
            self.touched.push(id);
            self.notify(id);
            self.ask_length(id);
            let Some(link) = self.links.get_mut(id) else { continue };
            let (peer, port, address) = (link.peer, link.port, link.address);
            let announcements = link.announcements_due(now);
            let sessions = self.routes.sessions(peer);
            let Some(link) = self.links.get_mut(id) else { continue };
            let Some(sessions) = sessions else {
                link.give_up_announcements(now);
                continue;
            };
            for nodes in announcements {
                if let Some(frame) = link.announce(now, nodes, Some(sessions)) {
                    self.outputs.control(port, address, frame);
                }
            }
        }
        if self.routes.router().poll_timeout().is_some_and(|at| at <= now) {
            // A timeout is never refused.
            let _ = self.routes.change().handle(now, router::Input::Timeout);
        }
    }

    /// What a link costs. Its ratios are those of a perfect link until they are measured: it came up by
    /// frames that arrived.
    fn cost(&self, link: &Link) -> LinkCost {
        let mut sample = link.detection.liveness().sample();
        sample.receive_ratio.get_or_insert(1.0);
        sample.send_ratio.get_or_insert(1.0);
        let port = self.ports.get(&link.port);
        sample.throughput = port.and_then(|port| port.throughput);
        let cost = port.map_or(LinkCost::new(1), |port| port.metric.cost(&sample));
        cost.mtu(cost.mtu.min(u16::try_from(link.mtu()).unwrap_or(u16::MAX - 1)))
    }

    /// Reports the cost of a link to the router if it has changed.
    fn rate(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id).filter(|link| link.cost.is_some()) else { return };
        let cost = self.cost(link);
        // A degraded link has a cost of its own until it recovers.
        if link.cost == Some(cost) || link.state() != LivenessState::Up {
            return;
        }
        let peer = link.peer;
        if let Some(link) = self.links.get_mut(id) {
            link.cost = Some(cost);
        }
        // The link is up already, so it cannot be refused.
        let _ = self.routes.change().handle(self.now, router::Input::LinkUp { link: id, peer, cost });
    }

    /// Asks the neighbour whether a long frame arrives, if that is due.
    fn ask_length(&mut self, id: LinkId) {
        let now = self.now;
        let mut request = None;
        self.examine(id, |link| {
            request = link.length_request(now).map(|frame| (link.port, link.address, frame));
        });
        if let Some((port, to, frame)) = request {
            self.outputs.control(port, to, frame);
        }
    }

    /// Reports to the router, and to the driver, what a change of the lengths of a link means.
    fn examine(&mut self, id: LinkId, change: impl FnOnce(&mut Link)) {
        let Some(link) = self.links.get_mut(id) else { return };
        let before = (link.lengths.limit(), link.state());
        change(link);
        let (limit, state) = (link.lengths.limit(), link.state());
        if (limit, state) == before {
            return;
        }
        let peer = link.peer;
        let is_degraded = state == LivenessState::Degraded;
        if state != before.1 {
            let reason = if is_degraded { LivenessReason::LongFramesLost } else { LivenessReason::Heard };
            link.reason = Some(reason);
            self.outputs.push(Output::LinkChanged { link: id, peer, state, reason: Some(reason) });
        }
        // A link that is down, or that the router has refused, has no cost.
        if link.cost.is_none() {
            return;
        }
        let Some(cost) = self.links.get(id).map(|link| self.cost(link)) else { return };
        let Some(link) = self.links.get_mut(id) else { return };
        link.cost = Some(cost);
        let input = if state == before.1 || is_degraded {
            router::Input::LinkCost { link: id, cost }
        } else {
            router::Input::LinkUp { link: id, peer, cost }
        };
        // The link is up already, so no input can be refused. Its low MTU comes after another path was
        // sought.
        if is_degraded {
            let _ = self.routes.change().handle(self.now, router::Input::LinkDegraded { link: id });
        }
        let _ = self.routes.change().handle(self.now, input);
    }

    /// Does what detection and router want, until neither wants anything.
    fn settle(&mut self) {
        let mut is_busy = true;
        while core::mem::take(&mut is_busy) {
            let mut touched = core::mem::take(&mut self.touched);
            for id in touched.drain(..) {
                while let Some(output) = self.links.get_mut(id).and_then(|link| link.detection.poll_output())
                {
                    is_busy = true;
                    self.detected(id, output);
                }
            }
            // With its space, unless it is in use again.
            if self.touched.is_empty() {
                self.touched = touched;
            }
            while let Some(output) = self.routes.poll_output() {
                is_busy = true;
                self.routed(output);
            }
        }
        self.links.refresh();
    }

    fn detected(&mut self, id: LinkId, output: LivenessOutput) {
        match output {
            LivenessOutput::Probe(probe) => {
                self.send_control(id, &[&[control::PROBE], &probe]);
            }
            LivenessOutput::Changed { state, reason } => {
                let Some(link) = self.links.get(id) else { return };
                let (peer, was_known) = (link.peer, link.cost.is_some());
                let now = self.now;
                self.set_down(id, state == LivenessState::Down);
                let (mut state, mut reason) = (state, reason);
                if let Some(link) = self.links.get_mut(id) {
                    match state {
                        LivenessState::Down => {
                            link.lengths.link_down();
                            // Sent when the link is up again, they would be long out of date.
                            self.stats.unlabelled += link.take_waiting().len() as u64;
                        }
                        _ => link.lengths.link_up(now),
                    }
                    // A link that lost long frames before is not trusted until they arrive.
                    if state == LivenessState::Up && link.state() == LivenessState::Degraded {
                        (state, reason) = (LivenessState::Degraded, LivenessReason::LongFramesLost);
                    }
                    link.reason = Some(reason);
                }
                match state {
                    LivenessState::Up => self.offer(id),
                    LivenessState::Degraded => {
                        if !was_known {
                            self.offer(id);
                        }
                        // Without effect on a link that the router has refused.
                        let _ = self.routes.change().handle(now, router::Input::LinkDegraded { link: id });
                    }
                    LivenessState::Down => self.withdraw(id),
                }
                self.outputs.push(Output::LinkChanged { link: id, peer, state, reason: Some(reason) });
                self.notify(id);
            }
        }
    }

    /// Hands a link to the router. One neighbour too many is refused: the link waits until there is room.
    fn offer(&mut self, id: LinkId) {
        let Some(link) = self.links.get(id) else { return };
        let (peer, cost) = (link.peer, self.cost(link));
        let up = router::Input::LinkUp { link: id, peer, cost };
        let is_taken = self.routes.change().handle(self.now, up).is_ok();
        if let Some(link) = self.links.get_mut(id) {
            link.cost = is_taken.then_some(cost);
        }
        if is_taken {
            self.refused.remove(&id);
        } else {
            self.refused.insert(id);
        }
    }

    /// Takes a link from the router, and offers those that it had no room for.
    fn withdraw(&mut self, id: LinkId) {
        self.refused.remove(&id);
        if self.links.get_mut(id).and_then(|link| link.cost.take()).is_some() {
            self.unlinked(id);
        }
    }

    /// A link that the router has taken is gone.
    fn unlinked(&mut self, id: LinkId) {
        // Known to the router, so it cannot refuse.
        let _ = self.routes.change().handle(self.now, router::Input::LinkDown { link: id });
        for id in core::mem::take(&mut self.refused) {
            self.offer(id);
            if self.links.get(id).is_some_and(|link| link.state() == LivenessState::Degraded) {
                let _ = self.routes.change().handle(self.now, router::Input::LinkDegraded { link: id });
            }
            self.notify(id);
        }
    }

    /// Notifies a neighbour of the address that its frames come from, if that is due.
    fn notify(&mut self, id: LinkId) {
        let now = self.now;
        if let Some(address) = self.links.get_mut(id).and_then(|link| link.takes_notification(now)) {
            self.send_control(id, &[&[control::ADDRESS], &encode_address(address)]);
        }
    }

    fn routed(&mut self, output: router::Output) {
        match output {
            router::Output::Send { link, message, .. } => {
                self.send_control(link, &[&[control::ROUTER], &message]);
                self.sent(link);
            }
            router::Output::RouteChanged { destination, next } => {
                self.outputs.push(Output::RouteChanged { destination, next });
            }
            router::Output::Report(report) => self.outputs.push(Output::Report(report)),
        }
    }

    /// False if the frame does not fit the link.
    fn send_control(&mut self, id: LinkId, parts: &[&[u8]]) -> bool {
        let Some(link) = self.links.get_mut(id) else { return false };
        let (port, to) = (link.port, link.address);
        let frame = link.control(parts);
        let is_sent = frame.is_some();
        if let Some(frame) = frame {
            self.outputs.control(port, to, frame);
        }
        if link.takes_renewal() {
            self.outputs.push(Output::RenewKeys { link: id });
        }
        is_sent
    }

    /// Traffic was sent over a link.
    fn sent(&mut self, id: LinkId) {
        let link = self.links.get_mut(id);
        if link.is_some_and(|link| link.detection.handle(self.now, LivenessInput::Sent)) {
            self.touched.push(id);
        }
    }

    /// Sends a message to all nodes that can be reached, this one not included. A node receives it once, as
    /// long as it is not lost on all ways.
    ///
    /// # Errors
    /// [`DatagramError::TooLong`]: it does not fit the shortest link of this node. Nothing was sent.
    pub fn flood(&mut self, now: Duration, payload: &[u8]) -> Result<(), DatagramError> {
        self.now = self.now.max(now);
        let shortest = self.links.values().map(|link| link.lengths.max()).min();
        let mtu = shortest.unwrap_or(usize::MAX).saturating_sub(FLOOD_OVERHEAD);
        if payload.len() > mtu {
            return Err(DatagramError::TooLong { len: payload.len(), mtu });
        }
        let number = self.random.next();
        let flood = Flood { hop_limit: self.options.hop_limit, origin: self.local, number };
        self.seen.insert(self.local, number);
        self.spread(flood, payload, None);
        self.settle();
        Ok(())
    }

    /// Sends a flooded message to each neighbour but one.
    fn spread(&mut self, flood: Flood, payload: &[u8], from: Option<NodeId>) {
        let mut last = None;
        // Over one link to each neighbour. Links of one neighbour need not be next to each other in the
        // table.
        let mut links: Vec<(NodeId, u32, LinkId)> = self
            .links
            .values()
            .filter_map(|link| Some((link.peer, link.cost?.metric, link.id)))
            .filter(|(peer, ..)| Some(*peer) != from && *peer != flood.origin)
            .collect();
        links.sort_unstable();
        for (peer, _, id) in links {
            // The next link of a neighbour is tried if the message does not fit the first.
            if last == Some(peer) {
                continue;
            }
            if self.send_control(id, &[&flood.encode(), payload]) {
                last = Some(peer);
                self.sent(id);
            } else {
                self.stats.flood_too_long += 1;
            }
        }
    }
}
