//! Where an operation goes, and where next.

use std::time::Duration;

use x0_identity::NodeId;

use super::Coordinator;
use super::call::{Ask, Call, Entry, Place, Request};
use super::config::Role;
use super::port::Output;
use super::random::Random;
use super::slab::Key;
use crate::coordinator::protocol::Body;
use crate::request::operation::{Consistency, Operation};

/// How often an operation follows a hint before it waits a little: two nodes may point at each other during
/// an election.
const REDIRECTS_MAX: u8 = 3;

/// What is known of who leads.
#[derive(Debug)]
pub(super) enum Route {
    /// What the replica beside tells.
    Member { leader: Option<NodeId>, is_self: bool, term: u64 },
    /// Reports of members.
    Client { members: Vec<NodeId>, cursor: usize, leader: Option<NodeId> },
}

impl Route {
    pub(super) fn new(role: &Role, random: &mut Random) -> Route {
        match role {
            Role::Member => Route::Member { leader: None, is_self: false, term: 0 },
            Role::Client { members } => {
                let cursor = random.below(members.len() as u64);
                let cursor = usize::try_from(cursor).unwrap_or_default();
                Route::Client { members: members.clone(), cursor, leader: None }
            }
        }
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        match self {
            Route::Member { leader, .. } | Route::Client { leader, .. } => *leader,
        }
    }

    pub(super) fn is_member(&self) -> bool {
        matches!(self, Route::Member { .. })
    }

    pub(super) fn is_self(&self) -> bool {
        matches!(self, Route::Member { is_self: true, .. })
    }

    /// The member to send an operation to that cannot be carried out here.
    fn target(&self) -> Option<NodeId> {
        match self {
            Route::Member { leader, .. } => *leader,
            Route::Client { members, cursor, leader } => leader.or_else(|| members.get(*cursor).copied()),
        }
    }

    /// A node did not answer, or cannot be reached: a client turns to the next one.
    pub(super) fn fail(&mut self, node: NodeId) {
        if self.target() == Some(node) {
            self.next();
        }
    }

    fn next(&mut self) {
        if let Route::Client { members, cursor, leader } = self {
            *leader = None;
            *cursor = (*cursor + 1) % members.len().max(1);
        }
    }
}

impl Coordinator {
    /// Brings a call to where it can be carried out.
    pub(super) fn route_call(&mut self, key: Key) {
        if self.is_idle_opening(key) {
            return self.give_up_opening(key);
        }
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
            self.outputs.push_back(Output::Propose { token: key.token(attempt), payload });
            self.arm(key, deadline);
        } else if let Some(to) = self.route.target() {
            self.send_call(key, to);
        } else {
            if let Some(call) = self.call_mut(key) {
                call.place = Place::Parked;
            }
            self.arm(key, deadline);
        }
    }

    fn send_call(&mut self, key: Key, to: NodeId) {
        let until = self.now.saturating_add(self.config.attempt_timeout);
        let batch_len = self.config.batch_len;
        let Some(Entry::Call(call)) = self.entries.get_mut(key) else { return };
        let body = match &call.ask {
            Ask::Command { command, .. } => Body::Propose { command: command.clone() },
            Ask::OpenSession => Body::Propose { command: crate::Command::OpenSession.encode() },
            Ask::Read(operation) => Body::Read { operation: operation.encode() },
            Ask::Write { .. } | Ask::Taken => return,
        };
        if self.outgoing.put(to, batch_len, key.token(call.attempt), &body) {
            call.place = Place::Sent { to };
            self.arm(key, until);
        } else {
            self.delay(key);
        }
    }

    /// Tries a call again after a while.
    pub(super) fn delay(&mut self, key: Key) {
        let Some(call) = self.call_mut(key) else { return };
        let delays = call.delays;
        call.delays = delays.saturating_add(1);
        call.redirects = 0;
        call.place = Place::Delayed;
        let (min, max) = (self.config.retry_delay_min, self.config.retry_delay_max);
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
        match &mut self.route {
            Route::Client { leader, cursor, members } => {
                let target = leader.or_else(|| members.get(*cursor).copied());
                if target == Some(from) {
                    match hint {
                        Some(_) => *leader = hint,
                        None => self.route.next(),
                    }
                }
            }
            // The replica beside will hear of it.
            Route::Member { .. } => {}
        }
        let target = self.route.target();
        let is_known = self.route.is_self() || (target.is_some() && target != Some(from));
        let Some(call) = self.call_mut(key) else { return };
        if is_known && hint.is_some() && call.redirects < REDIRECTS_MAX {
            call.redirects += 1;
            self.route_call(key);
        } else {
            self.delay(key);
        }
    }

    /// Whatever waits for `peer` is tried again, elsewhere if there is one.
    pub(super) fn unreachable(&mut self, peer: NodeId) {
        self.route.fail(peer);
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            if self.call_mut(key).is_some_and(|call| call.place == Place::Sent { to: peer }) {
                self.abandon_attempt(key);
                self.delay(key);
            }
        }
    }

    pub(super) fn leader_changed(&mut self, new: Option<NodeId>, new_term: u64, new_is_self: bool) {
        let Route::Member { leader, is_self, term } = &mut self.route else { return };
        if new_term < *term {
            return;
        }
        let was_self = std::mem::replace(is_self, new_is_self);
        (*leader, *term) = (new, new_term);
        if was_self && !new_is_self {
            self.hand_over();
        }
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
                // The replica tells its fate in any case, but that can take until the partition ends.
                Place::Proposed if !new_is_self => {
                    self.abandon_attempt(key);
                    self.route_call(key);
                }
                _ => {}
            }
        }
    }

    /// This node leads no more. Reads that no round was begun for are tried at the next leader. Nodes that
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

    pub(super) fn deadline(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or_else(|| self.now.saturating_add(self.config.call_timeout))
    }
}
