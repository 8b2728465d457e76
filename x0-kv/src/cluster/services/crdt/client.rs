//! The CRDT operations service of a client: calls that any member with such a keyspace can answer.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;
use x0_mesh::{Mux, PeerEventKind};

use super::operations::{self, CHANNEL};
use crate::cluster::event_loop::EventLoop;
use crate::cluster::inbox::Inbox;
use crate::cluster::outbox::Outbox;
use crate::cluster::service::{Bus, RECEIVED_MAX, Service};
use crate::cluster::{NodeError, StartError};
use crate::coordinator::{CoordinatorOptions, Role};
use crate::crdt::wire::{self, Failure, Message};
use crate::crdt::{CrdtOutcome, Request};
use crate::request::error::OperationError;
use crate::request::pending::{Answer, Completion};
use crate::trace::{Trace, Tracing};

/// The most calls of a client that wait.
const CALLS_MAX: usize = 4096;

/// A request, its caller and its trace.
pub(super) type Submitted = (Request, Caller);

/// The callers' side of the service.
#[derive(Debug, Clone)]
pub(crate) struct CrdtCalls {
    inbox: Inbox<Submitted>,
    tracing: Tracing,
}

/// A caller, and the trace of the call, which ends with the answer.
#[derive(Debug)]
pub(super) struct Caller {
    completion: Completion<CrdtOutcome>,
    trace: Trace,
}

impl Caller {
    fn complete(self, result: Result<CrdtOutcome, OperationError>) {
        self.trace.end(result.as_ref().err());
        self.completion.complete(result);
    }
}

impl CrdtCalls {
    pub(super) fn new(inbox: Inbox<Submitted>, tracing: Tracing) -> CrdtCalls {
        CrdtCalls { inbox, tracing }
    }

    /// Hands over a request.
    pub(crate) fn call(&self, request: Request) -> Answer<CrdtOutcome> {
        let (completion, answer) = Answer::waiting();
        let trace = Trace::crdt_submitted(&self.tracing, &request);
        match self.inbox.try_put(CALLS_MAX, || (request, Caller { completion, trace })) {
            Ok(()) => answer,
            Err(error) => Answer::ready(Err(error)),
        }
    }
}

/// The CRDT operations service of a client; see the [module](self).
pub(crate) struct CrdtClient {
    outbox: Outbox,
    calls: CrdtCalls,
    waiting: Waiting,
    taken: Vec<Submitted>,
}

/// Registers the service of a client with this configuration.
pub(super) fn start(
    event_loop: &mut EventLoop,
    mux: &Mux,
    calls: CrdtCalls,
    options: &CoordinatorOptions,
) -> Result<(), StartError> {
    let members = match &options.role {
        Role::Client { members } => members.clone(),
        Role::Member => Vec::new(),
    };
    let waiting = Waiting::new(members, options.call_timeout);
    event_loop.add(CrdtClient {
        outbox: operations::open(mux, u16::MAX)?,
        calls,
        waiting,
        taken: Vec::new(),
    });
    Ok(())
}

impl CrdtClient {
    fn send(&mut self, cx: &mut Context<'_>, messages: impl IntoIterator<Item = (NodeId, Bytes)>) {
        for (to, payload) in messages {
            // A request that is lost ends at its deadline, or when the member is down.
            let _ = self.outbox.send(cx, to, CHANNEL.lane, payload);
        }
    }
}

impl Service for CrdtClient {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            let messages = match event.kind {
                PeerEventKind::Up { .. } => {
                    let reads_traces = self.outbox.version(event.peer) >= 2;
                    self.waiting.up(event.peer, reads_traces)
                }
                PeerEventKind::Down { .. } => self.waiting.down(event.peer),
                _ => Vec::new(),
            };
            self.send(cx, messages);
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            match wire::decode(&payload) {
                Ok(Message::Answer { number, result }) => {
                    self.waiting.answer(received.from, number, result.map_err(Failure::error));
                }
                Ok(Message::Request { number, .. }) => {
                    let message = Message::Answer { number, result: Err(Failure::Unsupported) };
                    self.send(cx, [(received.from, wire::encode(&message))]);
                }
                Err(_) => bus.peers.decode_error(received.from),
            }
        }
        if is_raised {
            let mut calls = std::mem::take(&mut self.taken);
            self.calls.inbox.take(&mut calls);
            for (request, caller) in calls.drain(..) {
                is_busy = true;
                let message = self.waiting.call(now, request, caller);
                self.send(cx, message);
            }
            self.taken = calls;
        }
        self.waiting.expire(now);
        self.outbox.flush(cx);
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.poll_timeout()
    }

    fn close(&mut self, error: &OperationError) {
        self.calls.inbox.close(error);
        self.waiting.end(error);
    }
}

/// Calls that wait for the answer of a member.
#[derive(Debug)]
struct Waiting {
    members: Vec<NodeId>,
    /// The members that are up, and whether they read the contexts of traces.
    reached: BTreeMap<NodeId, bool>,
    timeout: Duration,
    next: u64,
    calls: BTreeMap<u64, Call>,
}

#[derive(Debug)]
struct Call {
    request: Request,
    caller: Caller,
    deadline: Duration,
    /// The member that was asked, if one was reached.
    asked: Option<NodeId>,
}

impl Call {
    /// The message to a member, with the context of the trace if the member reads it.
    fn message(&self, number: u64, reads_traces: Option<&bool>) -> Bytes {
        let trace = self.caller.trace.context().filter(|_| reads_traces == Some(&true));
        wire::encode(&Message::Request { number, trace, request: self.request.clone() })
    }
}

impl Waiting {
    fn new(members: Vec<NodeId>, timeout: Duration) -> Waiting {
        Waiting { members, reached: BTreeMap::new(), timeout, next: 0, calls: BTreeMap::new() }
    }

    /// The first of the members that is reached: the same one as long as it is, so that a client reads its
    /// own writes.
    fn member(&self) -> Option<NodeId> {
        self.members.iter().copied().find(|member| self.reached.contains_key(member))
    }

    fn call(&mut self, now: Duration, request: Request, caller: Caller) -> Option<(NodeId, Bytes)> {
        if self.calls.len() >= CALLS_MAX {
            caller.complete(Err(OperationError::Overloaded));
            return None;
        }
        let number = self.next;
        self.next += 1;
        let asked = self.member();
        let call = Call { request, caller, deadline: now + self.timeout, asked };
        let message = asked.map(|member| (member, call.message(number, self.reached.get(&member))));
        self.calls.insert(number, call);
        message
    }

    fn answer(&mut self, from: NodeId, number: u64, result: Result<CrdtOutcome, OperationError>) {
        if self.calls.get(&number).is_some_and(|call| call.asked == Some(from))
            && let Some(call) = self.calls.remove(&number)
        {
            call.caller.complete(result);
        }
    }

    fn up(&mut self, node: NodeId, reads_traces: bool) -> Vec<(NodeId, Bytes)> {
        self.reached.insert(node, reads_traces);
        self.ask()
    }

    /// Sends the calls that no member was asked for yet.
    fn ask(&mut self) -> Vec<(NodeId, Bytes)> {
        let Some(member) = self.member() else { return Vec::new() };
        let reads_traces = self.reached.get(&member);
        let unasked = self.calls.iter_mut().filter(|(_, call)| call.asked.is_none());
        unasked
            .map(|(number, call)| {
                call.asked = Some(member);
                (member, call.message(*number, reads_traces))
            })
            .collect()
    }

    fn down(&mut self, node: NodeId) -> Vec<(NodeId, Bytes)> {
        self.reached.remove(&node);
        let asked: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.asked == Some(node))
            .map(|(number, _)| *number)
            .collect();
        for number in asked {
            let Some(call) = self.calls.get_mut(&number) else { continue };
            match call.request {
                // Another member can answer as well.
                Request::Read(_) => call.asked = None,
                // The write may have been done, and sending it to another member would be a second write.
                Request::Write(_) => self.give_up(number),
            }
        }
        self.ask()
    }

    fn expire(&mut self, now: Duration) {
        let due: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.deadline <= now).map(|(number, _)| *number).collect();
        for number in due {
            self.give_up(number);
        }
    }

    fn give_up(&mut self, number: u64) {
        if let Some(call) = self.calls.remove(&number) {
            let ambiguous = call.asked.is_some() && matches!(call.request, Request::Write(_));
            call.caller.complete(Err(OperationError::TimedOut { ambiguous }));
        }
    }

    /// When the next call is given up.
    fn poll_timeout(&self) -> Option<Duration> {
        self.calls.values().map(|call| call.deadline).min()
    }

    fn end(&mut self, error: &OperationError) {
        for call in std::mem::take(&mut self.calls).into_values() {
            call.caller.complete(Err(error.clone()));
        }
    }
}
