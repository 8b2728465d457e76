//! The operations service: callers, the coordinator, and reads of the local state.

use std::task::{Context, Poll};
use std::time::Duration;

use x0_mesh::{DownReason, Lane, Mux, PeerEventKind, is_guest};

use super::super::channel::ChannelSpec;
use super::super::inbox::Inbox;
use super::super::outbox::Outbox;
use super::super::readers::{Length, Readers};
use super::super::service::{Bus, RECEIVED_MAX, Service};
use super::super::{NodeError, StartError};
use crate::coordinator::{Coordinator, DropReason, HandleError, Input, Output, RequestLimits};
use crate::request::error::OperationError;
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::{Operation, Query};
use crate::request::outcome::Outcome;
use crate::request::pending::{Answer, Completion};
use crate::state::storage::Reader;
use crate::telemetry::{OperationTelemetry, RedirectTelemetry, ServingTelemetry};
use crate::trace::{Trace, Tracing};

/// Requests and answers: one lane, in order.
const LANE: Lane = Lane::Ordered(0);

pub(crate) const CHANNEL: ChannelSpec = ChannelSpec {
    name: "x0.kv.operations",
    lane: LANE,
    message_len_min: crate::coordinator::MESSAGE_LEN_MAX,
    waiting_len_max: 32 << 20,
};
/// Opens the channel with the versions up to this one.
pub(crate) fn open(mux: &Mux, version_max: u16) -> Result<Outbox, StartError> {
    let (first, last) = crate::coordinator::PROTOCOL_VERSIONS.into_inner();
    CHANNEL.open_versions(mux, first..=last.min(version_max).max(first))
}

/// The most operations that wait in the inbox; the coordinator has a bound of its own for those that it has
/// accepted.
const CALLS_MAX: usize = 1 << 16;

/// The result of a read of the local state, by the coordinator's token.
pub(crate) type Queried = (u64, Result<Outcome, OperationError>);

/// The callers' side of the service.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    inbox: Inbox<Call>,
    tracing: Tracing,
}

/// An operation, its caller, the time at which the caller gives up (after the configured timeout if `None`),
/// and its trace.
type Call = (Operation, Completion, Option<Duration>, Trace);

impl Calls {
    pub(crate) fn new(inbox: Inbox<Call>) -> Calls {
        Calls { inbox, tracing: Tracing::default() }
    }

    /// With traces of the operations.
    pub(crate) fn tracing(mut self, tracing: Tracing) -> Calls {
        self.tracing = tracing;
        self
    }

    /// Hands over an operation.
    pub(crate) fn call(&self, operation: Operation) -> Answer {
        self.call_until(operation, None)
    }

    /// Hands over an operation whose caller gives up at `deadline`, in the time of the event loop.
    pub(crate) fn call_until(&self, operation: Operation, deadline: Option<Duration>) -> Answer {
        let (completion, answer) = Answer::waiting();
        let trace = Trace::submitted(&self.tracing, &operation);
        match self.inbox.try_put(CALLS_MAX, || (operation, completion, deadline, trace)) {
            Ok(()) => answer,
            Err(error) => Answer::ready(Err(error)),
        }
    }
}

/// The local state of a member.
pub(crate) struct LocalState {
    pub(crate) reader: Reader,
    pub(crate) readers: Box<dyn Readers>,
    /// Receives the results of `readers`.
    pub(crate) queried: Inbox<Queried>,
}

/// The operations service; see the [module](self).
pub(crate) struct Operations {
    outbox: Outbox,
    coordinator: Coordinator,
    calls: Calls,
    waiting: Waiting,
    /// `None` on a client.
    state: Option<LocalState>,
    limits: Option<Inbox<RequestLimits>>,
    taken_limits: Vec<RequestLimits>,
    taken_calls: Vec<Call>,
    taken_queried: Vec<Queried>,
    telemetry: RedirectTelemetry,
    serving: ServingTelemetry,
    times: OperationTelemetry,
}

impl Operations {
    pub(crate) fn new(
        outbox: Outbox,
        coordinator: Coordinator,
        calls: Calls,
        state: Option<LocalState>,
    ) -> Operations {
        Operations {
            outbox,
            coordinator,
            calls,
            waiting: Waiting::default(),
            state,
            limits: None,
            taken_limits: Vec::new(),
            taken_calls: Vec::new(),
            taken_queried: Vec::new(),
            telemetry: RedirectTelemetry::new(),
            serving: ServingTelemetry::new(),
            times: OperationTelemetry::new(),
        }
    }

    /// Takes changes of the limits of requests from this inbox.
    pub(crate) fn limits(mut self, limits: Inbox<RequestLimits>) -> Operations {
        self.limits = Some(limits);
        self
    }

    fn handle(&mut self, now: Duration, bus: &Bus, input: Input) {
        if let Err(HandleError::Decode { from, .. }) = self.coordinator.handle(now, input) {
            bus.peers.decode_error(from);
        }
    }

    /// Takes in everything that has arrived.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        if is_raised {
            if let Some(limits) = &self.limits {
                limits.take(&mut self.taken_limits);
            }
            for limits in std::mem::take(&mut self.taken_limits) {
                is_busy = true;
                self.handle(now, bus, Input::Limits(limits));
            }
            let mut calls = std::mem::take(&mut self.taken_calls);
            self.calls.inbox.take(&mut calls);
            for (operation, completion, deadline, trace) in calls.drain(..) {
                is_busy = true;
                let context = trace.context();
                let token = self.waiting.insert(completion, trace);
                self.handle(now, bus, Input::Call { token, operation, deadline, trace: context });
            }
            self.taken_calls = calls;
            let mut queried = std::mem::take(&mut self.taken_queried);
            if let Some(state) = &self.state {
                state.queried.take(&mut queried);
            }
            for (token, answer) in queried.drain(..) {
                is_busy = true;
                if let Err(OperationError::Damaged(entry)) = &answer {
                    bus.damaged.push_back(entry.clone());
                }
                self.handle(now, bus, Input::Queried { token, answer });
            }
            self.taken_queried = queried;
        }
        while let Some(input) = bus.coordinator.pop_front() {
            is_busy = true;
            self.handle(now, bus, input);
        }
        // Events before messages: a message belongs to the epoch whose `Up` was polled last.
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            let peer = event.peer;
            match event.kind {
                PeerEventKind::Up { .. } => {
                    let (version, is_client) = (self.outbox.version(peer), is_guest(peer));
                    self.handle(now, bus, Input::Negotiated { peer, version, is_client });
                    self.handle(now, bus, Input::Reachable { peer });
                }
                PeerEventKind::Down { reason, .. } => {
                    self.handle(now, bus, Input::Unreachable { peer });
                    self.handle(now, bus, Input::Negotiated { peer, version: 1, is_client: false });
                    if reason == DownReason::OwnIdentityExpired {
                        self.handle(now, bus, Input::IdentityExpired);
                    }
                }
                _ => {}
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            self.handle(now, bus, Input::Message { from: received.from, payload });
        }
        if self.coordinator.poll_timeout().is_some_and(|due| due <= now) {
            is_busy = true;
            self.handle(now, bus, Input::Timeout);
        }
        Ok(is_busy)
    }

    /// Carries out what the coordinator wants, until it wants nothing more.
    fn carry_out(&mut self, cx: &mut Context<'_>, now: Duration, bus: &mut Bus) {
        while let Some(output) = self.coordinator.poll_output() {
            match output {
                Output::Reply { token, result } => self.waiting.complete(token, result),
                Output::Send { to, payload } => {
                    if self.outbox.send(cx, to, LANE, payload).is_err() {
                        self.handle(now, bus, Input::Unreachable { peer: to });
                    }
                }
                Output::Propose { token, payload, trace } if self.state.is_some() => {
                    bus.replica.push_back(x0_consensus::Input::Propose { token, payload, trace });
                }
                Output::ReadIndex { token } if self.state.is_some() => {
                    bus.replica.push_back(x0_consensus::Input::ReadIndex { token });
                }
                Output::Propose { token, .. } | Output::ReadIndex { token } => {
                    let reason = DropReason::NotLeader { leader: None };
                    self.handle(now, bus, Input::Dropped { token, reason });
                }
                Output::Query { token, keyspace, query } => {
                    if let Some(answer) = self.query(token, keyspace, query) {
                        if let Err(OperationError::Damaged(entry)) = &answer {
                            bus.damaged.push_back(entry.clone());
                        }
                        self.handle(now, bus, Input::Queried { token, answer });
                    }
                }
            }
        }
        for peer in self.outbox.flush(cx) {
            self.handle(now, bus, Input::Unreachable { peer });
        }
    }

    /// Reads the local state here if that takes some microseconds at most, or lets a reader do it: then there
    /// is no answer yet.
    fn query(
        &self,
        token: u64,
        keyspace: KeyspaceName,
        query: Query,
    ) -> Option<Result<Outcome, OperationError>> {
        let Some(state) = &self.state else {
            return Some(Err(OperationError::Unavailable { reason: "there is no replica here" }));
        };
        let in_memory = match &query {
            Query::Get { key } => state.reader.get_in_memory(&keyspace, key),
            _ => None,
        };
        if let Some(value) = in_memory {
            return Some(value.map(Outcome::Value).map_err(OperationError::from));
        }
        let length = if matches!(query, Query::Get { .. }) { Length::Short } else { Length::Long };
        let (reader, queried) = (state.reader.clone(), state.queried.clone());
        let read = Box::new(move || {
            queried.put((token, reader.query(&keyspace, &query)));
        });
        state.readers.read(length, read).err().map(|_| Err(OperationError::Overloaded))
    }
}

impl Service for Operations {
    fn wants(&self, bus: &Bus) -> bool {
        !bus.coordinator.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let is_busy = self.take_in(cx, now, is_raised, bus)?;
        self.carry_out(cx, now, bus);
        bus.peers.waiting().refresh(&self.coordinator);
        self.telemetry.redirects(self.coordinator.redirects());
        self.serving.requests(self.coordinator.requests());
        for served in self.coordinator.take_served() {
            self.times.served(served.kind, served.took, served.error.as_ref());
        }
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.coordinator.poll_timeout()
    }

    fn close(&mut self, error: &OperationError) {
        self.calls.inbox.close(error);
        if let Some(limits) = &self.limits {
            limits.close(error);
        }
        self.waiting.end(error);
    }
}

/// Callers that wait, by token.
#[derive(Debug, Default)]
struct Waiting {
    callers: Vec<Option<(Completion, Trace)>>,
    free: Vec<usize>,
}

impl Waiting {
    fn insert(&mut self, completion: Completion, trace: Trace) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.callers.push(None);
            self.callers.len() - 1
        });
        self.callers[index] = Some((completion, trace));
        index as u64
    }

    fn complete(&mut self, token: u64, result: Result<Outcome, OperationError>) {
        let Ok(index) = usize::try_from(token) else { return };
        if let Some((completion, trace)) = self.callers.get_mut(index).and_then(Option::take) {
            self.free.push(index);
            trace.end(result.as_ref().err());
            completion.complete(result);
        }
    }

    fn end(&mut self, error: &OperationError) {
        for (completion, trace) in self.callers.drain(..).flatten() {
            trace.end(Some(error));
            completion.complete(Err(error.clone()));
        }
    }
}
