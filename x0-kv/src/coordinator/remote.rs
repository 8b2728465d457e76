//! What other nodes send: their requests, and their responses to ours.

use bytes::Bytes;
use x0_identity::NodeId;

use super::Coordinator;
use super::call::{Entry, Place, Request};
use super::dropped::DropReason;
use super::port::{HandleError, Output};
use super::slab::Key;
use crate::coordinator::protocol::{Body, Frames};
use crate::request::applied::encode_applied;
use crate::request::command::is_of_members;
use crate::request::error::OperationError;
use crate::request::operation::Operation;
use crate::request::outcome::Outcome;

impl Coordinator {
    pub(super) fn message(&mut self, from: NodeId, payload: &Bytes) -> Result<(), HandleError> {
        let refused = |source| HandleError::Decode { from, source };
        let (header, frames) = Frames::new(payload).map_err(refused)?;
        self.outgoing.heard(from, header.from);
        for frame in frames {
            let frame = frame.map_err(refused)?;
            match frame.body {
                Body::Propose { command } => self.asked_to_propose(from, frame.request, command),
                Body::Read { operation } => self.asked_to_read(from, frame.request, &operation),
                body if header.to == self.instance => self.response(from, frame.request, body),
                // For an earlier coordinator of this node.
                _ => {}
            }
        }
        Ok(())
    }

    /// The command goes into the log as it came: if it is none, every replica refuses it alike. The member
    /// table is not changed this way: the peer may be a client.
    fn asked_to_propose(&mut self, from: NodeId, number: u64, command: Bytes) {
        if !self.route.is_self() {
            return self.respond_to(from, number, &Body::NotLeader { leader: self.route.leader() });
        }
        if command.is_empty() || is_of_members(&command) {
            return self.respond_to(from, number, &Body::Rejected);
        }
        let instance = self.outgoing.instance(from);
        let request = Request { from, instance, number, is_proposed: true, query: None };
        if let Some(key) = self.begin_request(request) {
            self.outputs.push_back(Output::Propose { token: key.token(0), payload: command });
        }
    }

    fn asked_to_read(&mut self, from: NodeId, number: u64, operation: &Bytes) {
        let (is_local, query) = match Operation::decode(operation) {
            Ok(operation @ Operation::Read { .. }) if self.route.is_member() => {
                let is_local = Coordinator::is_local(&operation);
                let Operation::Read { keyspace, query, .. } = operation else { return };
                (is_local, (keyspace, query))
            }
            _ => return self.respond_to(from, number, &Body::Rejected),
        };
        if !is_local && !self.route.is_self() {
            return self.respond_to(from, number, &Body::NotLeader { leader: self.route.leader() });
        }
        let instance = self.outgoing.instance(from);
        let request = Request { from, instance, number, is_proposed: false, query: Some(query) };
        let Some(key) = self.begin_request(request) else { return };
        if is_local {
            self.query(key);
        } else {
            self.reads.wait(key);
        }
    }

    /// Makes room for a request, or turns it away.
    fn begin_request(&mut self, request: Request) -> Option<Key> {
        let (from, number) = (request.from, request.number);
        let has_room = self.requests < self.config.requests_max
            && self.outgoing.requests(from) < self.config.requests_per_peer_max;
        let key = has_room.then(|| self.entries.insert(Entry::Request(request))).flatten();
        if key.is_some() {
            self.requests += 1;
            self.outgoing.begin_request(from);
        } else {
            self.respond_to(from, number, &Body::Busy);
        }
        key
    }

    fn respond_to(&mut self, to: NodeId, number: u64, body: &Body) {
        // What finds no room is asked for again.
        self.outgoing.put(to, self.config.batch_len, number, body);
    }

    /// Ends a request with its response.
    pub(super) fn respond(&mut self, key: Key, body: &Body) {
        if let Some(Entry::Request(request)) = self.entries.remove(key) {
            self.requests -= 1;
            self.outgoing.end_request(request.from);
            // A requester that has started again since then does not wait for the answer.
            if self.outgoing.instance(request.from) == request.instance {
                self.respond_to(request.from, request.number, body);
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

    /// A response, to whichever of our requests. One that nobody waits for, or from another node than was
    /// asked, is passed over.
    fn response(&mut self, from: NodeId, number: u64, body: Body) {
        let Some((key, attempt)) = Key::of(number) else { return };
        let Some(call) = self.call_mut(key).filter(|call| call.place == Place::Sent { to: from }) else {
            return;
        };
        let is_latest = call.attempt == attempt;
        match body {
            // Of whichever attempt at this node: the stamp makes writes the same, and a read was made after
            // the call.
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
            Body::Propose { .. } | Body::Read { .. } => {}
        }
    }
}
