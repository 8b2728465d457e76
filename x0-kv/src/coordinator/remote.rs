//! Messages of other nodes: their requests, and their responses to requests of this node.

use bytes::Bytes;
use x0_identity::NodeId;

use super::call::{Entry, Place, Request};
use super::dropped::DropReason;
use super::port::{HandleError, Output};
use super::slab::Key;
use super::{Coordinator, WATCHERS_MAX};
use crate::coordinator::protocol::{Body, Frames};
use crate::request::applied::encode_applied;
use crate::request::command::is_of_members;
use crate::request::error::OperationError;
use crate::request::operation::Operation;
use crate::request::outcome::Outcome;
use crate::trace::{Context, Trace};

impl Coordinator {
    pub(super) fn message(&mut self, from: NodeId, payload: &Bytes) -> Result<(), HandleError> {
        let refused = |source| HandleError::Decode { from, source };
        let (header, frames) = Frames::new(payload).map_err(refused)?;
        self.outgoing.received_from(from, header.from);
        self.flights.received_from(from, self.now);
        self.route.trust(from);
        for frame in frames {
            let frame = frame.map_err(refused)?;
            match frame.body {
                Body::Propose { command } => self.asked_to_propose(from, frame.request, command, frame.trace),
                Body::Read { operation } => self.asked_to_read(from, frame.request, &operation, frame.trace),
                Body::RelayPropose { command } => {
                    self.asked_to_relay(from, frame.request, Body::Propose { command }, frame.trace);
                }
                Body::RelayRead { operation } => {
                    self.asked_to_relay(from, frame.request, Body::Read { operation }, frame.trace);
                }
                Body::Watch => self.watched(from),
                Body::Leader { term, leader } if header.to == self.instance => {
                    self.leader_reported(from, term, leader);
                }
                body if header.to == self.instance => self.response(from, frame.request, body),
                // For an earlier coordinator of this node.
                _ => {}
            }
        }
        Ok(())
    }

    /// The command goes into the log as it came: if it is none, every replica refuses it alike. The member
    /// table is not changed this way: the peer may be a client.
    fn asked_to_propose(&mut self, from: NodeId, number: u64, command: Bytes, context: Option<Context>) {
        if !self.route.is_self() {
            self.respond_to(from, number, &Body::NotLeader { leader: self.route.leader() });
            return;
        }
        if command.is_empty() || is_of_members(&command) {
            self.respond_to(from, number, &Body::Rejected);
            return;
        }
        let instance = self.outgoing.instance(from);
        let (begun, is_local) = (self.now, false);
        let request = Request {
            from,
            instance,
            number,
            is_proposed: true,
            relayed_to: None,
            begun,
            is_local,
            query: None,
            trace: self.served_trace(from, true, context),
        };
        let trace = request.trace.context();
        if let Some(key) = self.begin_request(request) {
            self.outputs.push_back(Output::Propose { token: key.token(0), payload: command, trace });
        }
    }

    fn asked_to_read(&mut self, from: NodeId, number: u64, operation: &Bytes, context: Option<Context>) {
        let (is_local, query) = match Operation::decode(operation) {
            Ok(operation @ Operation::Read { .. }) if self.route.is_member() => {
                let is_local = Coordinator::is_local(&operation);
                let Operation::Read { keyspace, query, .. } = operation else { return };
                (is_local, (keyspace, query))
            }
            _ => {
                self.respond_to(from, number, &Body::Rejected);
                return;
            }
        };
        if !is_local && !self.route.is_self() {
            self.respond_to(from, number, &Body::NotLeader { leader: self.route.leader() });
            return;
        }
        let instance = self.outgoing.instance(from);
        let query = Some(query);
        let request = Request {
            from,
            instance,
            number,
            is_proposed: false,
            relayed_to: None,
            begun: self.now,
            is_local,
            query,
            trace: self.served_trace(from, false, context),
        };
        let Some(key) = self.begin_request(request) else { return };
        if is_local {
            self.query(key);
        } else {
            self.reads.wait(key);
        }
    }

    /// A client that does not reach the leader asks this member to pass a request on.
    fn asked_to_relay(&mut self, from: NodeId, number: u64, body: Body, context: Option<Context>) {
        if !self.route.is_member() {
            self.respond_to(from, number, &Body::Rejected);
            return;
        }
        let is_proposed = match body {
            Body::Propose { command } if self.route.is_self() => {
                return self.asked_to_propose(from, number, command, context);
            }
            Body::Read { operation } if self.route.is_self() => {
                return self.asked_to_read(from, number, &operation, context);
            }
            // The leader takes what this member sends for a member's own.
            Body::Propose { ref command } if command.is_empty() || is_of_members(command) => {
                self.respond_to(from, number, &Body::Rejected);
                return;
            }
            Body::Propose { .. } => true,
            _ => false,
        };
        let Some(leader) = self.route.leader().filter(|leader| *leader != from) else {
            self.respond_to(from, number, &Body::NotLeader { leader: None });
            return;
        };
        let instance = self.outgoing.instance(from);
        let relayed_to = Some(leader);
        let (begun, is_local) = (self.now, false);
        let trace = self.served_trace(from, is_proposed, context);
        let passed_on = self.trace_to(leader, trace.context());
        let request =
            Request { from, instance, number, is_proposed, relayed_to, begun, is_local, query: None, trace };
        let Some(key) = self.begin_request(request) else { return };
        let (batch_len, number) = (self.options.batch_len, key.token(0));
        if !self.outgoing.put_traced(leader, batch_len, number, &body, passed_on.as_ref()) {
            self.respond(key, &Body::Busy);
        }
    }

    /// The trace of a request, which came with this context or without.
    fn served_trace(&self, from: NodeId, is_write: bool, context: Option<Context>) -> Trace {
        if context.is_none() && !self.options.tracing.is_on() {
            return Trace::default();
        }
        let (nodes, draws) = ((self.options.local, from), self.peer(from).is_client);
        Trace::served(&self.options.tracing, context, nodes, is_write, draws)
    }

    /// Requests that were passed on to another node than `leader` get an answer: their fate is not known.
    pub(super) fn end_relays(&mut self, is_lost: impl Fn(NodeId) -> bool) {
        for position in 0..self.entries.positions() {
            let Some(key) = self.entries.key_at(position) else { continue };
            if let Some(Entry::Request(request)) = self.entries.get_mut(key)
                && request.relayed_to.is_some_and(&is_lost)
            {
                let body = if request.is_proposed { Body::Unknown } else { Body::Busy };
                self.respond(key, &body);
            }
        }
    }

    /// A peer wants to know the leader from now on.
    fn watched(&mut self, from: NodeId) {
        let Some((term, leader)) = self.route.of_member() else { return };
        if self.watchers.len() < WATCHERS_MAX || self.watchers.contains(&from) {
            self.watchers.insert(from);
            self.outgoing.watch(from);
        }
        self.respond_to(from, 0, &Body::Leader { term, leader });
    }

    /// Reports the leader to the peers that want to know it.
    pub(super) fn report_leader(&mut self) {
        let Some((term, leader)) = self.route.of_member() else { return };
        for watcher in self.watchers.iter().copied().collect::<Vec<_>>() {
            self.respond_to(watcher, 0, &Body::Leader { term, leader });
        }
    }

    /// Makes room for a request, or turns it away.
    fn begin_request(&mut self, request: Request) -> Option<Key> {
        let (from, number) = (request.from, request.number);
        let has_room = self.requests < self.options.requests_max
            && self.outgoing.requests(from) < self.options.requests_per_peer_max;
        let key = has_room.then(|| self.entries.insert(Entry::Request(request))).flatten();
        if key.is_some() {
            self.requests += 1;
            self.outgoing.begin_request(from);
        } else {
            self.respond_to(from, number, &Body::Busy);
        }
        key
    }

    fn respond_to(&mut self, to: NodeId, number: u64, body: &Body) -> bool {
        self.outgoing.put(to, self.options.batch_len, number, body)
    }

    /// Ends a request with its response.
    pub(super) fn respond(&mut self, key: Key, body: &Body) {
        if let Some(Entry::Request(request)) = self.entries.remove(key) {
            self.requests -= 1;
            self.outgoing.end_request(request.from);
            self.served.note(&request, self.now, body);
            // A requester that has started again since then does not wait for the answer.
            if self.outgoing.instance(request.from) == request.instance
                && !self.respond_to(request.from, request.number, body)
            {
                // A long answer finds no room: a short one makes the requester ask again.
                let body = if request.is_proposed { Body::Unknown } else { Body::Busy };
                self.respond_to(request.from, request.number, &body);
            }
        }
    }

    pub(super) fn respond_applied(&mut self, key: Key, applied: Bytes) {
        self.respond(key, &Body::Answer { applied });
    }

    pub(super) fn respond_queried(&mut self, key: Key, answer: Result<Outcome, OperationError>) {
        match answer {
            Ok(outcome) => self.respond(key, &Body::Answer { applied: encode_applied(&Ok(outcome)) }),
            Err(error) => match error.refusal() {
                Some(refusal) => self.respond(key, &Body::Answer { applied: encode_applied(&Err(refusal)) }),
                // The state failed: another node may serve it.
                None => self.respond(key, &Body::Busy),
            },
        }
    }

    pub(super) fn respond_dropped(&mut self, key: Key, reason: DropReason) {
        let body = match reason {
            DropReason::NotLeader { leader } => Body::NotLeader { leader },
            DropReason::Superseded => Body::NotLeader { leader: self.route.leader() },
            DropReason::Full | DropReason::Transferring => Body::Busy,
            DropReason::NoSpace => Body::NoSpace,
            DropReason::Length => Body::Rejected,
            DropReason::Unknown => Body::Unknown,
        };
        self.respond(key, &body);
    }

    /// A response to a request of this node. A response without a waiting call, or of another node than the
    /// call was sent to, is ignored.
    fn response(&mut self, from: NodeId, number: u64, body: Body) {
        let Some((key, attempt)) = Key::of(number) else { return };
        if let Some(Entry::Request(request)) = self.entries.get_mut(key)
            && request.relayed_to == Some(from)
        {
            // The leader has changed: this member does not know the next one better than its requester.
            let body = if let Body::NotLeader { .. } = body { Body::Busy } else { body };
            return self.respond(key, &body);
        }
        let now = self.now;
        let Some(call) = self.call_mut(key).filter(|call| call.place == Place::Sent { to: from }) else {
            return;
        };
        let is_latest = call.attempt == attempt;
        let (took, is_first) = (now.saturating_sub(call.sent_at), call.timeouts == 0);
        if is_latest && is_first && matches!(body, Body::Answer { .. }) {
            self.flights.answered(from, took);
        }
        if matches!(body, Body::Answer { .. }) {
            self.flights.moved_on(now);
        }
        match body {
            // The answer to any attempt at this node is valid: all attempts of a write carry one request id,
            // and a read was made after the call.
            Body::Answer { applied } => self.answered(key, &applied),
            _ if !is_latest => {}
            Body::NotLeader { leader } => self.redirect(key, from, leader),
            Body::Busy => self.delay(key),
            Body::NoSpace => self.no_space(key),
            Body::Unknown => {
                self.abandon_attempt(key);
                self.delay(key);
            }
            Body::Rejected => self.refused_for_good(key, OperationError::NotUnderstood),
            _ => {}
        }
    }
}
