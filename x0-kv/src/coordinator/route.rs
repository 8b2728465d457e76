//! The target of an operation, and the next target after a failed attempt.

use std::collections::{BTreeMap, BTreeSet};

use x0_identity::NodeId;

use super::Coordinator;
use super::call::{Ask, Call, Entry, Place, Request, Turn};
use super::flight::Flights;
use super::options::Role;
use super::port::Output;
use super::random::Random;
use super::slab::Key;
use crate::coordinator::protocol::Body;
use crate::request::error::OperationError;
use crate::request::operation::{Consistency, Operation};

/// How often an operation follows a hint before it waits a little: two nodes may point at each other during
/// an election.
const REDIRECTS_MAX: u8 = 3;

/// The knowledge about the leader.
#[derive(Debug)]
pub(super) enum Route {
    /// The last report of the replica beside.
    Member {
        leader: Option<NodeId>,
        is_self: bool,
        term: u64,
    },
    Client(ClientRoute),
}

/// The reports of members to a client.
#[derive(Debug, Default)]
pub(super) struct ClientRoute {
    members: Vec<NodeId>,
    cursor: usize,
    leader: Option<NodeId>,
    /// The last report of each member that is connected: its term and leader.
    reports: BTreeMap<NodeId, (u64, Option<NodeId>)>,
    /// Members that did not answer in time and have sent nothing since.
    suspects: BTreeSet<NodeId>,
}

/// Where an operation is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) to: NodeId,
    /// Whether the member is asked to pass it on.
    pub(super) is_relay: bool,
}

impl ClientRoute {
    /// The latest report says that there is no leader.
    fn is_leaderless(&self) -> bool {
        !self.reports.is_empty() && self.leader.is_none()
    }

    fn direct(&self) -> Option<NodeId> {
        self.leader.or_else(|| self.members.get(self.cursor).copied())
    }

    fn target(&self, flights: &Flights) -> Option<Target> {
        // The operation is sent as soon as a member reports the next leader.
        if self.is_leaderless() {
            return None;
        }
        let direct = self.direct()?;
        let is_good = |member: &NodeId| flights.is_up(*member) && !self.suspects.contains(member);
        if !flights.is_any_up() || is_good(&direct) {
            return Some(Target { to: direct, is_relay: false });
        }
        let others = self.members.iter().cycle().skip(self.cursor).take(self.members.len());
        match others.copied().find(is_good) {
            Some(to) => Some(Target { to, is_relay: self.leader.is_some() }),
            None => Some(Target { to: direct, is_relay: false }),
        }
    }

    fn next(&mut self) {
        self.leader = None;
        self.cursor = (self.cursor + 1) % self.members.len().max(1);
    }

    /// The leader by the latest of the reports.
    fn conclude(&mut self) {
        // Of one term a report that names the leader is later than one that knows of none.
        let latest = self.reports.values().max_by_key(|(term, leader)| (*term, leader.is_some()));
        if let Some((_, leader)) = latest {
            self.leader = *leader;
        }
    }
}

impl Route {
    pub(super) fn new(role: &Role, random: &mut Random) -> Route {
        match role {
            Role::Member => Route::Member { leader: None, is_self: false, term: 0 },
            Role::Client { members } => {
                let cursor = random.below(members.len() as u64);
                let cursor = usize::try_from(cursor).unwrap_or_default();
                Route::Client(ClientRoute { members: members.clone(), cursor, ..ClientRoute::default() })
            }
        }
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        match self {
            Route::Member { leader, .. } => *leader,
            Route::Client(route) => route.leader,
        }
    }

    pub(super) fn is_member(&self) -> bool {
        matches!(self, Route::Member { .. })
    }

    pub(super) fn is_self(&self) -> bool {
        matches!(self, Route::Member { is_self: true, .. })
    }

    /// Term and leader, on a member.
    pub(super) fn of_member(&self) -> Option<(u64, Option<NodeId>)> {
        match self {
            Route::Member { leader, term, .. } => Some((*term, *leader)),
            Route::Client(_) => None,
        }
    }

    /// The node to send an operation to that cannot be carried out here.
    pub(super) fn target(&self, flights: &Flights) -> Option<Target> {
        match self {
            Route::Member { leader, .. } => leader.map(|to| Target { to, is_relay: false }),
            Route::Client(route) => route.target(flights),
        }
    }

    /// A node did not answer, or cannot be reached: a client without reports turns to the next one.
    pub(super) fn fail(&mut self, node: NodeId) {
        if let Route::Client(route) = self
            && route.reports.is_empty()
            && route.direct() == Some(node)
        {
            route.next();
        }
    }

    /// A member that is connected did not answer in time.
    fn suspect(&mut self, node: NodeId) {
        if let Route::Client(route) = self {
            route.suspects.insert(node);
        }
    }

    /// A member has sent something.
    pub(super) fn trust(&mut self, node: NodeId) {
        if let Route::Client(route) = self {
            route.suspects.remove(&node);
        }
    }
}

impl Coordinator {
    /// Brings a call to where it can be carried out.
    pub(super) fn route_call(&mut self, key: Key) {
        if self.is_idle_opening(key) {
            return self.give_up_opening(key);
        }
        self.release(key);
        self.end_turn(key);
        let Some(call) = self.call_mut(key) else { return };
        call.attempt = call.attempt.wrapping_add(1);
        let (attempt, deadline) = (call.attempt, call.deadline);
        if self.route.is_self() {
            let Some(Entry::Call(call)) = self.entries.get_mut(key) else { return };
            let payload = match &call.ask {
                Ask::Command { command, .. } => command.clone(),
                Ask::OpenSession => crate::Command::OpenSession.encode(),
                Ask::Read(_) => {
                    call.place = Place::Reading;
                    self.reads.wait(key);
                    self.arm(key, deadline);
                    return;
                }
                // Neither is routed.
                Ask::Write { .. } | Ask::Taken => return,
            };
            call.place = Place::Proposed;
            let trace = call.trace;
            self.outputs.push_back(Output::Propose { token: key.token(attempt), payload, trace });
            self.arm(key, deadline);
        } else if let Some(target) = self.route.target(&self.flights) {
            self.send_call(key, target);
        } else {
            if let Some(call) = self.call_mut(key) {
                call.place = Place::Parked;
            }
            self.arm(key, deadline);
        }
    }

    fn send_call(&mut self, key: Key, Target { to, is_relay }: Target) {
        let (batch_len, now) = (self.options.batch_len, self.now);
        let reads_contexts = self.peer(to).reads_contexts;
        let Some(Entry::Call(call)) = self.entries.get_mut(key) else { return };
        let Some(body) = call.ask.body(is_relay) else { return };
        let trace = call.trace.filter(|_| reads_contexts);
        let len = body.len_max();
        if !self.flights.has_room(to, len, self.options.in_flight_len_max) {
            return self.hold(key);
        }
        if self.outgoing.put_traced(to, batch_len, key.token(call.attempt), &body, trace.as_ref()) {
            self.flights.begin(to, len);
            call.place = Place::Sent { to };
            (call.sent, call.sent_at, call.is_relayed) = (Some((to, len)), now, is_relay);
            let patience = self.flights.patience(to, &self.options, call.timeouts);
            self.arm(key, now.saturating_add(patience));
        } else {
            self.delay(key);
        }
    }

    /// The bytes of a call are not on the way any more, or its answer is not waited for.
    pub(super) fn release(&mut self, key: Key) {
        if let Some((to, len)) = self.call_mut(key).and_then(|call| call.sent.take()) {
            self.flights.end(to, len);
        }
    }

    /// Puts a call behind those that wait for room. Its time stands still meanwhile: no node is silent, the
    /// calls before it are long. It ends early only if none of these is answered, or at its limit.
    fn hold(&mut self, key: Key) {
        let (now, call_timeout) = (self.now, self.options.call_timeout);
        let Some(call) = self.call_mut(key) else { return };
        call.place = Place::Held;
        if call.limit > call.deadline {
            call.turn = Some(Turn { begun: now, time_left: call.deadline.saturating_sub(now) });
            call.deadline = call.limit;
        }
        self.held.push_back(key);
        self.arm(key, now.saturating_add(call_timeout));
    }

    /// Ends a call that waits for its turn while no operation at all is answered, or lets it wait on.
    pub(super) fn wait_for_turn(&mut self, key: Key) {
        let (now, answered_at) = (self.now, self.flights.answered_at());
        let call_timeout = self.options.call_timeout;
        let Some(call) = self.call_mut(key) else { return };
        let (deadline, turn) = (call.deadline, call.turn);
        let due = turn.map_or(deadline, |turn| turn.begun.max(answered_at).saturating_add(call_timeout));
        if due <= now { self.time_out(key) } else { self.arm(key, due) }
    }

    /// The time of a call goes on, if it stood still.
    fn end_turn(&mut self, key: Key) {
        let now = self.now;
        let Some(call) = self.call_mut(key) else { return };
        if let Some(turn) = call.turn.take() {
            call.deadline = now.saturating_add(turn.time_left).min(call.limit);
        }
    }

    /// Sends the calls that wait for room, as far as there is any.
    pub(super) fn send_held(&mut self) {
        while let Some(key) = self.held.front().copied() {
            let Some(call) = self.call_mut(key).filter(|call| call.place == Place::Held) else {
                self.held.pop_front();
                continue;
            };
            let len = call.ask.body(false).map_or(0, |body| body.len_max());
            if !self.route.is_self()
                && let Some(target) = self.route.target(&self.flights)
                && !self.flights.has_room(target.to, len, self.options.in_flight_len_max)
            {
                return;
            }
            self.held.pop_front();
            self.route_call(key);
        }
    }

    /// The answer to an attempt has not come in time.
    pub(super) fn lose_patience(&mut self, key: Key, to: NodeId) {
        let now = self.now;
        let Some(call) = self.call_mut(key) else { return };
        let (timeouts, sent_at) = (call.timeouts, call.sent_at);
        let patience = self.flights.patience(to, &self.options, timeouts);
        // A peer that answers others, in order, comes to this one.
        let heard_at = self.flights.heard_at(to).max(sent_at);
        let due = heard_at.saturating_add(patience);
        let may_wait = now < sent_at.saturating_add(self.options.carried_limit());
        if due > now && may_wait {
            return self.arm(key, due);
        }
        let Some(call) = self.call_mut(key) else { return };
        call.timeouts = timeouts.saturating_add(1);
        self.note_unanswered(to);
        if self.flights.is_up(to) {
            self.route.suspect(to);
            // The connection still has it, and would only carry it twice.
            if may_wait && self.route.target(&self.flights).is_some_and(|target| target.to == to) {
                let patience = self.flights.patience(to, &self.options, timeouts.saturating_add(1));
                return self.arm(key, now.saturating_add(patience));
            }
        } else {
            self.route.fail(to);
        }
        self.abandon_attempt(key);
        self.route_call(key);
    }

    /// Tries a call again after a while.
    pub(super) fn delay(&mut self, key: Key) {
        self.release(key);
        let Some(call) = self.call_mut(key) else { return };
        let delays = call.delays;
        call.delays = delays.saturating_add(1);
        call.redirects = 0;
        call.place = Place::Delayed;
        let (min, max) = (self.options.retry_delay_min, self.options.retry_delay_max);
        let mean = min.saturating_mul(1 << delays.min(16)).min(max);
        let wake = self.now.saturating_add(self.random.around(mean));
        self.arm(key, wake);
    }

    /// The fate of the attempt under way will not be known.
    pub(super) fn abandon_attempt(&mut self, key: Key) {
        if let Some(call) = self.call_mut(key) {
            call.is_ambiguous |= call.ask.is_write();
        }
    }

    /// A node said that it does not lead, and who may.
    pub(super) fn redirect(&mut self, key: Key, from: NodeId, hint: Option<NodeId>) {
        let hint = hint.filter(|hint| *hint != from);
        // The replica beside a member reports by itself.
        if let Route::Client(route) = &mut self.route {
            match hint {
                _ if route.direct() != Some(from) => {
                    // It was asked to pass the operation on and knows no leader: it was removed from the
                    // cluster, or is cut off. Others are asked until it sends something.
                    if hint.is_none() {
                        route.suspects.insert(from);
                    }
                }
                Some(_) => route.leader = hint,
                None => route.next(),
            }
        }
        let target = self.route.target(&self.flights).map(|target| target.to);
        let is_known = self.route.is_self() || (target.is_some() && target != Some(from));
        let Some(call) = self.call_mut(key) else { return };
        if is_known && hint.is_some() && call.redirects < REDIRECTS_MAX {
            call.redirects += 1;
            self.redirects += 1;
            self.route_call(key);
        } else {
            self.delay(key);
        }
    }

    /// Calls that wait for `peer` are tried again, at another member if there is one.
    pub(super) fn unreachable(&mut self, peer: NodeId) {
        self.flights.down(peer);
        self.watchers.remove(&peer);
        self.outgoing.down(peer);
        if let Route::Client(route) = &mut self.route {
            route.suspects.remove(&peer);
            if route.reports.remove(&peer).is_some() {
                route.conclude();
            }
        }
        self.route.fail(peer);
        // At once only to a peer that is connected. Each loss marks its peer as not connected, so that this
        // ends; two peers that are not connected would hand a call to each other for ever.
        let is_other_up =
            |target: Target| target.to != peer && !self.route.is_member() && self.flights.is_up(target.to);
        let other = self.route.target(&self.flights).is_some_and(is_other_up);
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            if self.call_mut(key).is_some_and(|call| call.place == Place::Sent { to: peer }) {
                self.abandon_attempt(key);
                if other { self.route_call(key) } else { self.delay(key) }
            }
        }
        self.end_relays(|leader| leader == peer);
        self.wake_parked();
    }

    pub(super) fn reachable(&mut self, peer: NodeId) {
        self.flights.up(peer);
        self.is_expired = false;
        if let Route::Client(_) = self.route {
            self.outgoing.put(peer, self.options.batch_len, 0, &Body::Watch);
        }
    }

    /// Calls that wait for a leader are tried, if a client has no report any more that there is none.
    fn wake_parked(&mut self) {
        if self.route.is_member() || self.route.target(&self.flights).is_none() {
            return;
        }
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            if self.call_mut(key).is_some_and(|call| call.place == Place::Parked) {
                self.route_call(key);
            }
        }
    }

    /// A member has reported the leader to this client.
    pub(super) fn leader_reported(&mut self, from: NodeId, term: u64, leader: Option<NodeId>) {
        let Route::Client(route) = &mut self.route else { return };
        // Reports of nodes that are not connected would stay.
        if !self.flights.is_up(from) {
            return;
        }
        let before = route.leader;
        route.reports.insert(from, (term, leader));
        route.conclude();
        let Some(new) = route.leader else { return };
        let has_changed = before != Some(new);
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            let Some(call) = self.call_mut(key) else { continue };
            match call.place {
                Place::Parked => self.route_call(key),
                Place::Delayed if has_changed => self.route_call(key),
                Place::Sent { to } if has_changed && to != new && !call.is_relayed => {
                    self.abandon_attempt(key);
                    self.route_call(key);
                }
                _ => {}
            }
        }
    }

    /// No member accepts the identity of this client: its calls end.
    pub(super) fn identity_expired(&mut self) {
        if self.route.is_member() || self.flights.is_any_up() {
            return;
        }
        self.is_expired = true;
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            let Some(call) = self.call_mut(key).filter(|call| call.caller.is_some()) else { continue };
            let ambiguous = call.may_be_applied();
            self.reply(key, Err(OperationError::IdentityExpired { ambiguous }));
        }
    }

    pub(super) fn leader_changed(&mut self, new: Option<NodeId>, new_term: u64, new_is_self: bool) {
        let Route::Member { leader, is_self, term } = &mut self.route else { return };
        if new_term < *term {
            return;
        }
        let was_self = std::mem::replace(is_self, new_is_self);
        let has_changed = (*leader, *term) != (new, new_term);
        (*leader, *term) = (new, new_term);
        if has_changed {
            self.report_leader();
        }
        if was_self && !new_is_self {
            self.hand_over();
        }
        self.end_relays(|relayed| new != Some(relayed));
        if new.is_none() {
            return;
        }
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            let Some(call) = self.call_mut(key) else { continue };
            match call.place {
                Place::Parked | Place::Delayed => self.route_call(key),
                Place::Sent { to } if Some(to) != new => {
                    self.abandon_attempt(key);
                    self.route_call(key);
                }
                // The replica reports its fate in any case, but that can take until the partition ends.
                Place::Proposed if !new_is_self => {
                    self.abandon_attempt(key);
                    self.route_call(key);
                }
                _ => {}
            }
        }
    }

    /// The node leads no more. Reads that no round was begun for are tried at the next leader. Nodes that
    /// wait for a write are notified to ask there, too: the result may be known there long before it is known
    /// here.
    fn hand_over(&mut self) {
        let waiting = self.reads.take_waiting();
        for key in &waiting {
            self.read_dropped(*key);
        }
        self.reads.recycle(waiting);
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            if matches!(self.entries.get_mut(key), Some(Entry::Request(request)) if request.is_proposed) {
                self.respond(key, &Body::Unknown);
            }
        }
    }

    /// A read that could not be made sure of here.
    pub(super) fn read_dropped(&mut self, key: Key) {
        match self.entries.get_mut(key) {
            Some(Entry::Call(Call { place: Place::Reading, .. })) => self.delay(key),
            Some(Entry::Request(Request { query: Some(_), .. })) => {
                let is_busy = self.route.is_self();
                let leader = self.route.leader();
                self.respond(key, &if is_busy { Body::Busy } else { Body::NotLeader { leader } });
            }
            _ => {}
        }
    }

    /// A read that the local state may answer as it is.
    pub(super) fn is_local(operation: &Operation) -> bool {
        matches!(operation, Operation::Read { consistency: Consistency::Local, .. })
    }
}
