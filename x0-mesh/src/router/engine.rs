//! The router: its contract, its state, and what each input does.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use x0_identity::NodeId;

use super::damping::Damping;
use super::message::{Entry, Header, Message};
use super::neighbour::{Admission, LinkState, Neighbour};
use super::table::{Removal, SELF, Slot, Table};
use super::{HandleError, Input, LinkCost, LinkId, Output, Report, RouterOptions, RouterStats};
use crate::random::SplitMix64;

mod forward;
mod request;
mod select;
mod send;

/// A degraded link costs this many times its metric.
const DEGRADED_FACTOR: u32 = 8;

/// Failed links that are remembered, or two for each link that is up if that is more, before those are
/// forgotten whose failures are long ago.
const DAMPING_KEPT: usize = 64;

/// Outputs of a usual input.
const OUTPUTS_KEPT: usize = 64;

/// The routes of one node, and the protocol that finds them.
///
/// # Drain contract
/// `now` is the time since any origin and must not run backwards. After each call of
/// [`handle`](Router::handle), successful or not, take outputs with [`poll_output`](Router::poll_output)
/// until there are none, then wait for the next input or until [`poll_timeout`](Router::poll_timeout), and
/// hand in [`Input::Timeout`] then. Outputs may be taken after several inputs instead of each one; updates
/// are then collected into fewer messages. An error of `handle` says what it did to the state; the router
/// remains usable. [`route`](Router::route) and [`forward`](Router::forward) may be called at any time.
///
/// Two routers over a link that delivers at once:
///
/// ```
/// use std::collections::VecDeque;
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_mesh::router::{Input, LinkCost, LinkId, Output, Router, RouterOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (one, two) = (NodeId::new(1).ok_or("zero")?, NodeId::new(2).ok_or("zero")?);
/// let mut routers = [Router::new(one, RouterOptions::new(1)), Router::new(two, RouterOptions::new(2))];
/// let link = LinkId(0);
/// let mut now = Duration::ZERO;
/// for (router, peer) in routers.iter_mut().zip([two, one]) {
///     router.handle(now, Input::LinkUp { link, peer, cost: LinkCost::new(256) })?;
/// }
/// while routers[0].route(two).is_none() {
///     for at in [0, 1] {
///         while let Some(output) = routers[at].poll_output() {
///             if let Output::Send { link, message, .. } = output {
///                 routers[1 - at].handle(now, Input::Message { link, message: &message })?;
///             }
///         }
///     }
///     now = routers.iter().filter_map(Router::poll_timeout).min().unwrap_or(now).max(now);
///     for router in &mut routers {
///         router.handle(now, Input::Timeout)?;
///     }
/// }
/// assert_eq!(routers[0].route(two).map(|route| (route.next, route.distance.metric)), Some((two, 256)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Router {
    local: NodeId,
    options: RouterOptions,
    now: Duration,
    /// When the first link came up.
    joined: Option<Duration>,
    seqno: u32,
    seqno_raised: Option<Duration>,
    /// A sequence number that was requested sooner than the next may be given.
    seqno_wanted: Option<u32>,
    table: Table,
    neighbours: Vec<Option<Neighbour>>,
    slots: BTreeMap<NodeId, Slot>,
    links: BTreeMap<LinkId, Slot>,
    damping: BTreeMap<LinkId, Damping>,
    /// By destination: what was requested, by this node or through it.
    requested: BTreeMap<u32, request::Requested>,
    /// When destinations without route may be removed.
    expiring: BTreeSet<(Duration, u32)>,
    outputs: VecDeque<Output>,
    /// Room for the candidates of one destination, empty between two uses.
    candidates_room: Vec<select::Candidate>,
    /// Nothing can be sent before the next input.
    is_drained: bool,
    random: SplitMix64,
    stats: RouterStats,
}

impl Router {
    /// A router without links. Options outside their range count as the nearest end of it.
    #[must_use]
    pub fn new(local: NodeId, options: RouterOptions) -> Router {
        let options = options.bounded();
        Router {
            local,
            now: Duration::ZERO,
            joined: None,
            seqno: options.seqno,
            seqno_raised: None,
            seqno_wanted: None,
            table: Table::new(local, options.region),
            neighbours: Vec::new(),
            slots: BTreeMap::new(),
            links: BTreeMap::new(),
            damping: BTreeMap::new(),
            requested: BTreeMap::new(),
            expiring: BTreeSet::new(),
            outputs: VecDeque::new(),
            candidates_room: Vec::new(),
            is_drained: false,
            random: SplitMix64::new(options.seed ^ local.get().rotate_left(29)),
            stats: RouterStats::default(),
            options,
        }
    }

    /// This node.
    #[must_use]
    pub fn local(&self) -> NodeId {
        self.local
    }

    /// Hands in what happened.
    ///
    /// # Errors
    /// [`HandleError`] says what happened to the state.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) -> Result<(), HandleError> {
        self.now = self.now.max(now);
        self.is_drained = false;
        match input {
            Input::LinkUp { link, peer, cost } => self.link_up(link, peer, cost),
            Input::LinkDegraded { link } => {
                let slot = *self.links.get(&link).ok_or(HandleError::UnknownLink { link })?;
                self.change_link(slot, link, |state| state.is_degraded = true);
                Ok(())
            }
            Input::LinkCost { link, cost } => {
                let slot = *self.links.get(&link).ok_or(HandleError::UnknownLink { link })?;
                self.change_link(slot, link, |state| state.cost = cost);
                Ok(())
            }
            Input::LinkDown { link } => {
                let slot = self.links.remove(&link).ok_or(HandleError::UnknownLink { link })?;
                self.penalise(link);
                self.unlink(slot, link);
                Ok(())
            }
            Input::Message { link, message } => {
                let result = self.message(link, message);
                self.stats.refused_messages += u64::from(result.is_err());
                result
            }
            Input::Timeout => {
                self.timeout();
                Ok(())
            }
        }
    }

    /// When [`Input::Timeout`] is due. May be in the past, and then is due at once.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let neighbours = self.neighbours.iter().flatten().filter_map(Neighbour::timeout);
        let damping = self.damping.values().filter_map(Damping::timeout);
        let expiring = self.expiring.first().map(|(at, _)| *at);
        neighbours.chain(damping).chain(expiring).chain(self.request_timeout()).min()
    }

    /// The next thing to do, `None` when there is nothing until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        // A lost neighbour changes many routes at once, seldom.
        self.outputs.shrink_to(OUTPUTS_KEPT);
        if self.is_drained {
            return None;
        }
        let end = Slot::try_from(self.neighbours.len()).unwrap_or(Slot::MAX);
        let output = (0..end).find_map(|slot| self.send(slot));
        self.is_drained = output.is_none();
        output
    }

    /// Counts, and sizes of tables.
    #[must_use]
    pub fn stats(&self) -> RouterStats {
        RouterStats { destinations: self.table.len(), neighbours: self.slots.len(), ..self.stats }
    }

    fn neighbour(&self, slot: Slot) -> Option<&Neighbour> {
        self.neighbours.get(usize::from(slot))?.as_ref()
    }

    fn neighbour_mut(&mut self, slot: Slot) -> Option<&mut Neighbour> {
        self.neighbours.get_mut(usize::from(slot))?.as_mut()
    }

    fn link_up(&mut self, link: LinkId, peer: NodeId, cost: LinkCost) -> Result<(), HandleError> {
        if peer == self.local {
            return Err(HandleError::LinkToSelf { link });
        }
        self.joined.get_or_insert(self.now);
        if let Some(slot) = self.links.get(&link).copied() {
            if self.neighbour(slot).is_some_and(|neighbour| neighbour.peer == peer) {
                self.change_link(slot, link, |state| {
                    state.cost = cost;
                    state.is_degraded = false;
                });
                return Ok(());
            }
            // Another node answers on the link now.
            self.links.remove(&link);
            self.unlink(slot, link);
        }
        let state = LinkState { id: link, cost, is_degraded: false };
        if let Some(slot) = self.slots.get(&peer).copied() {
            let links_max = self.options.links_max;
            if let Some(neighbour) = self.neighbour_mut(slot) {
                if neighbour.links.len() >= links_max {
                    let what = "links to one neighbour";
                    return Err(HandleError::Full { link, peer, what, limit: links_max });
                }
                neighbour.links.push(state);
            }
            self.links.insert(link, slot);
            self.rate(slot);
            return Ok(());
        }
        let limit = self.options.neighbours_max;
        if self.slots.len() >= limit {
            return Err(HandleError::Full { link, peer, what: "neighbours", limit });
        }
        let session = self.draw_session();
        let neighbour = Neighbour::new(peer, state, session, self.now, self.options.update_interval_min);
        let free = self.neighbours.iter().position(Option::is_none).unwrap_or(self.neighbours.len());
        // At most 4096.
        let slot = Slot::try_from(free).unwrap_or(Slot::MAX);
        if free == self.neighbours.len() {
            self.neighbours.push(Some(neighbour));
        } else {
            self.neighbours[free] = Some(neighbour);
        }
        self.slots.insert(peer, slot);
        self.links.insert(link, slot);
        self.rate(slot);
        Ok(())
    }

    /// Counts the failure of a link. Links that failed long ago are forgotten: a link that ends and is made
    /// again has another number, and each wake-up looks at all entries.
    fn penalise(&mut self, link: LinkId) {
        if !self.options.damping {
            return;
        }
        let now = self.now;
        if self.damping.len() >= DAMPING_KEPT.max(2 * self.links.len()) {
            // The end of a damping is handled by `timeout`, which rates the link again.
            self.damping.retain(|_, state| state.is_damped || !state.is_over(now));
        }
        self.damping.entry(link).or_default().fail(now);
    }

    /// Sessions are not 0, which stands for none.
    fn draw_session(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.random.next().to_le_bytes();
        u32::from_le_bytes([a, b, c, d]).max(1)
    }

    fn change_link(&mut self, slot: Slot, link: LinkId, change: impl Fn(&mut LinkState)) {
        if let Some(neighbour) = self.neighbour_mut(slot) {
            neighbour.links.iter_mut().filter(|state| state.id == link).for_each(change);
        }
        self.rate(slot);
    }

    /// Removes a link that is no longer in `links`, and with the last one the neighbour.
    fn unlink(&mut self, slot: Slot, link: LinkId) {
        let Some(neighbour) = self.neighbour_mut(slot) else { return };
        neighbour.links.retain(|state| state.id != link);
        if !neighbour.links.is_empty() {
            self.rate(slot);
            return;
        }
        let peer = neighbour.peer;
        self.neighbours[usize::from(slot)] = None;
        self.slots.remove(&peer);
        self.evaluate_all();
    }

    /// Finds the best link of a neighbour, and new routes if its cost has changed.
    fn rate(&mut self, slot: Slot) {
        let damping = &self.damping;
        let Some(neighbour) = self.neighbours.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            return;
        };
        let effective = |state: &LinkState| {
            let damped = damping.get(&state.id).map_or(state.cost.metric, |d| d.metric(state.cost.metric));
            let factor = if state.is_degraded { DEGRADED_FACTOR } else { 1 };
            // An MTU of 0 counts as 1: neighbours refuse a message with it.
            let mtu = state.cost.mtu.max(1);
            LinkCost { metric: damped.saturating_mul(factor), mtu, ..state.cost }
        };
        let rated = neighbour.links.iter().map(|state| (state.id, effective(state)));
        let Some(best) = rated.min_by_key(|(id, cost)| (cost.metric, *id)) else { return };
        let is_changed = core::mem::replace(&mut neighbour.best, best).1 != best.1;
        if is_changed {
            self.evaluate_all();
        }
    }

    fn message(&mut self, link: LinkId, bytes: &[u8]) -> Result<(), HandleError> {
        let slot = *self.links.get(&link).ok_or(HandleError::UnknownLink { link })?;
        let now = self.now;
        let table = &self.table;
        let Some(neighbour) = self.neighbours.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            return Err(HandleError::UnknownLink { link });
        };
        let peer = neighbour.peer;
        let message = Message::decode(bytes).map_err(|source| HandleError::Message { peer, source })?;
        for entry in message.entries() {
            // Only a node itself is at no distance, and it is at none.
            if let Entry::Update { node, advert, .. } = entry
                && (node == peer) != (advert.distance.metric == 0)
            {
                let metric = advert.distance.metric;
                return Err(HandleError::FalseMetric { peer, destination: node, metric });
            }
        }
        let Header { session, to_session, number } = message.header;
        let is_current = match neighbour.admit(session, to_session) {
            Admission::Ignored => false,
            Admission::Current => true,
            Admission::Begun => {
                let is_established = neighbour.is_established;
                for (index, _) in table.iter() {
                    neighbour.mark(index);
                }
                self.evaluate_all();
                is_established
            }
        };
        if !is_current {
            return Ok(());
        }
        if let Some(neighbour) = self.neighbour_mut(slot) {
            for ack in message.acks() {
                neighbour.acknowledge(ack, now);
            }
        }
        if let Some(number) = number
            && self.neighbour_mut(slot).is_some_and(|neighbour| neighbour.receive(number, now))
        {
            for entry in message.entries() {
                self.entry(slot, peer, entry);
            }
        }
        Ok(())
    }

    fn entry(&mut self, slot: Slot, peer: NodeId, entry: Entry) {
        match entry {
            Entry::Update { node, advert, .. } if node == self.local => {
                self.own_seqno_seen(peer, advert.distance.seqno);
            }
            Entry::Update { node, advert, region } => {
                let Some(index) = self.find_or_insert(slot, node) else { return };
                if let Some(destination) = self.table.get_mut(index) {
                    destination.region = region;
                }
                if self.neighbour_mut(slot).is_some_and(|neighbour| neighbour.set_advert(index, advert)) {
                    self.evaluate(index);
                }
            }
            Entry::Retraction { node } => {
                let Some(index) = self.table.find(node).filter(|index| *index != SELF) else { return };
                let none = super::message::Advert::NONE;
                if self.neighbour_mut(slot).is_some_and(|neighbour| neighbour.set_advert(index, none)) {
                    self.evaluate(index);
                }
            }
            Entry::Request { node, seqno, hops } => self.handle_request(slot, node, seqno, hops),
        }
    }

    fn find_or_insert(&mut self, slot: Slot, node: NodeId) -> Option<u32> {
        if let Some(index) = self.table.find(node) {
            return Some(index);
        }
        let destinations_max = self.options.destinations_max;
        if self.table.len() < destinations_max {
            return Some(self.table.insert(node));
        }
        self.stats.ignored_destinations += 1;
        if let Some(neighbour) = self.neighbour_mut(slot).filter(|neighbour| !neighbour.is_full_reported) {
            neighbour.is_full_reported = true;
            let report = Report::TableFull { destination: node, destinations_max };
            self.outputs.push_back(Output::Report(report));
        }
        None
    }

    fn timeout(&mut self) {
        let now = self.now;
        for neighbour in self.neighbours.iter_mut().flatten() {
            if neighbour.retransmit(now) {
                self.stats.retransmissions += 1;
            }
            if !neighbour.is_established && neighbour.hello_at <= now {
                neighbour.hello_due = true;
            }
        }
        let reused: Vec<LinkId> =
            self.damping.iter_mut().filter_map(|(link, state)| state.update(now).then_some(*link)).collect();
        for link in reused {
            self.damping.remove(&link);
            if let Some(slot) = self.links.get(&link).copied() {
                self.rate(slot);
            }
        }
        self.request_due();
        while let Some((at, index)) = self.expiring.first().copied().filter(|(at, _)| *at <= now) {
            self.expiring.remove(&(at, index));
            self.expire(index);
        }
    }

    /// Removes a destination once no neighbour can hold a route through this node. Before that, its
    /// feasibility distance is what prevents a loop.
    fn expire(&mut self, index: u32) {
        let Some(destination) = self.table.get_mut(index) else { return };
        if destination.selection.slot().is_some() {
            destination.removal = Removal::None;
            return;
        }
        let is_postponed = core::mem::replace(&mut destination.removal, Removal::Due) == Removal::Postponed;
        if is_postponed || !self.neighbours.iter().flatten().all(|neighbour| neighbour.is_clear_of(index)) {
            self.expiring.insert((self.now + self.options.hold_down, index));
            return;
        }
        self.table.remove(index);
        self.requested.remove(&index);
        for neighbour in self.neighbours.iter_mut().flatten() {
            neighbour.clear(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each link has a number of its own, and fails once.
    #[test]
    fn failures_of_links_that_are_gone_are_forgotten() {
        let [one, other] = [1, 2].map(|number| NodeId::new(number).unwrap());
        let mut router = Router::new(one, RouterOptions::new(1));
        for number in 0..5000_u32 {
            let now = Duration::from_secs(10) * number;
            let (link, cost) = (LinkId(number), LinkCost::new(256));
            router.handle(now, Input::LinkUp { link, peer: other, cost }).unwrap();
            router.handle(now, Input::LinkDown { link }).unwrap();
        }
        assert!(router.damping.len() <= DAMPING_KEPT, "{}", router.damping.len());
    }

    /// A link to another neighbour fails at the moment at which the damping of a link ends, before the
    /// timeout is handled.
    #[test]
    fn the_end_of_a_damping_is_not_forgotten() {
        let [one, other, third] = [1, 2, 3].map(|number| NodeId::new(number).unwrap());
        let mut router = Router::new(one, RouterOptions::new(1));
        let up = |link, peer| Input::LinkUp { link, peer, cost: LinkCost::new(256) };
        let damped = LinkId(1000);
        let mut now = Duration::from_secs(100);
        for _ in 0..3 {
            router.handle(now, up(damped, other)).unwrap();
            router.handle(now, Input::LinkDown { link: damped }).unwrap();
            now += Duration::from_millis(500);
        }
        router.handle(now, up(damped, other)).unwrap();
        let metric = |router: &Router| router.neighbour(router.links[&damped]).unwrap().best.1.metric;
        assert_eq!(metric(&router), 8 * 256);
        let failed = |router: &mut Router, now, number| {
            router.handle(now, up(LinkId(number), third)).unwrap();
            router.handle(now, Input::LinkDown { link: LinkId(number) }).unwrap();
        };
        for number in 0..u32::try_from(DAMPING_KEPT).unwrap() {
            failed(&mut router, now, number);
        }
        while let Some(at) = router.damping[&damped].timeout() {
            now = at;
            failed(&mut router, now, 2000);
            router.handle(now, Input::Timeout).unwrap();
            if !router.damping.contains_key(&damped) {
                break;
            }
        }
        assert_eq!(metric(&router), 256);
    }
}
