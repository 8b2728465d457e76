//! The admin service: requests of operators, and the engine that decides about them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use x0_identity::NodeId;
use x0_mesh::{Lane, PeerEventKind};

use super::super::NodeError;
use super::super::channel::ChannelSpec;
use super::super::inbox::Inbox;
use super::super::outbox::Outbox;
use super::super::service::{Bus, RECEIVED_MAX, Service};
use crate::admin::message::{self, MESSAGE_LEN_MAX, Message};
use crate::admin::{
    AdminEngine, AdminError, AdminReply, AdminRequest, HandleError, Input, Output, PeerRoles,
};
use crate::request::error::OperationError;

/// Requests and results: one lane, in order.
const LANE: Lane = Lane::Ordered(0);
/// How long a client waits for a member that it reaches, and for the result.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// The most requests of a client that wait.
const CALLS_MAX: usize = 64;

pub(crate) const CHANNEL: ChannelSpec = ChannelSpec {
    name: "x0.kv.admin",
    lane: LANE,
    message_len_min: MESSAGE_LEN_MAX,
    waiting_len_max: 4 << 20,
};

/// The result of a request.
pub(crate) type AdminResult = Result<AdminReply, AdminError>;

/// A request of a caller.
#[derive(Debug)]
pub(crate) struct AdminCall {
    pub(crate) request: AdminRequest,
    pub(crate) answer: oneshot::Sender<AdminResult>,
}

/// The callers' side of the service.
#[derive(Debug, Clone)]
pub(crate) struct AdminCalls(Inbox<AdminCall>);

impl AdminCalls {
    pub(crate) fn new(inbox: Inbox<AdminCall>) -> AdminCalls {
        AdminCalls(inbox)
    }

    /// Hands over a request and waits for its result.
    pub(crate) async fn call(&self, request: AdminRequest) -> AdminResult {
        // A member could not decode it, and would not answer.
        request.check()?;
        let (answer, result) = oneshot::channel();
        self.0.put(AdminCall { request, answer });
        result.await.unwrap_or(Err(AdminError::Closed))
    }
}

/// The admin service of a member; see the [module](self).
pub(crate) struct Admin {
    outbox: Outbox,
    engine: AdminEngine,
    roles: PeerRoles,
    calls: AdminCalls,
    waiting: BTreeMap<u64, oneshot::Sender<AdminResult>>,
    calls_made: u64,
    taken: Vec<AdminCall>,
}

impl Admin {
    pub(crate) fn new(outbox: Outbox, engine: AdminEngine, roles: PeerRoles, calls: AdminCalls) -> Admin {
        Admin { outbox, engine, roles, calls, waiting: BTreeMap::new(), calls_made: 0, taken: Vec::new() }
    }

    fn handle(&mut self, now: Duration, bus: &Bus, input: Input) {
        match self.engine.handle(now, input) {
            Ok(()) => {}
            Err(HandleError::Role { .. }) => bus.peers.refused(CHANNEL.name),
            Err(HandleError::Decode { from, .. }) => bus.peers.decode_error(from),
        }
    }

    fn carry_out(&mut self, cx: &mut Context<'_>, now: Duration, bus: &mut Bus) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { to, payload } => {
                    if self.outbox.send(cx, to, LANE, payload).is_err() {
                        self.handle(now, bus, Input::Unreachable { peer: to });
                    }
                }
                Output::Reply { token, result } => {
                    if let Some(answer) = self.waiting.remove(&token) {
                        // The caller may have stopped waiting.
                        let _ = answer.send(result);
                    }
                }
                step => bus.admin_steps.push_back(step),
            }
        }
        for peer in self.outbox.flush(cx) {
            self.handle(now, bus, Input::Unreachable { peer });
        }
    }
}

impl Service for Admin {
    fn wants(&self, bus: &Bus) -> bool {
        bus.admin.as_ref().is_some_and(|inputs| !inputs.is_empty())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = false;
        if is_raised {
            let mut calls = std::mem::take(&mut self.taken);
            self.calls.0.take(&mut calls);
            for AdminCall { request, answer } in calls.drain(..) {
                is_busy = true;
                self.calls_made += 1;
                let token = self.calls_made;
                self.waiting.insert(token, answer);
                self.handle(now, bus, Input::Call { token, request });
            }
            self.taken = calls;
        }
        while let Some(input) = bus.admin.as_mut().and_then(VecDeque::pop_front) {
            is_busy = true;
            self.handle(now, bus, input);
        }
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            if let PeerEventKind::Down { .. } = event.kind {
                self.handle(now, bus, Input::Unreachable { peer: event.peer });
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            let (from, role) = (received.from, self.roles.of(received.from));
            self.handle(now, bus, Input::Message { from, role, payload });
        }
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            is_busy = true;
            self.handle(now, bus, Input::Timeout);
        }
        self.carry_out(cx, now, bus);
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.engine.poll_timeout()
    }

    fn close(&mut self, error: &OperationError) {
        self.calls.0.close(error);
        // Dropping the senders answers `Closed`.
        self.waiting.clear();
    }
}

/// The admin service of a client: it sends requests to a member that it reaches.
pub(crate) struct AdminClient {
    outbox: Outbox,
    members: Vec<NodeId>,
    reached: BTreeSet<NodeId>,
    calls: AdminCalls,
    waiting: BTreeMap<u64, ClientCall>,
    calls_made: u64,
    taken: Vec<AdminCall>,
}

#[derive(Debug)]
struct ClientCall {
    call: AdminCall,
    /// The member that has the request.
    asked: Option<NodeId>,
    /// Members that knew no leader, one of which may have been removed from the cluster.
    leaderless: BTreeSet<NodeId>,
    deadline: Duration,
}

/// The member to ask next: the first that is reached and has not said that it knows no leader.
fn next_member(members: &[NodeId], reached: &BTreeSet<NodeId>, call: &ClientCall) -> Option<NodeId> {
    members.iter().copied().find(|member| reached.contains(member) && !call.leaderless.contains(member))
}

impl AdminClient {
    pub(crate) fn new(outbox: Outbox, members: Vec<NodeId>, calls: AdminCalls) -> AdminClient {
        AdminClient {
            outbox,
            members,
            reached: BTreeSet::new(),
            calls,
            waiting: BTreeMap::new(),
            calls_made: 0,
            taken: Vec::new(),
        }
    }

    /// Sends the requests that no member has.
    fn ask(&mut self, cx: &mut Context<'_>) {
        for (number, call) in &mut self.waiting {
            if call.asked.is_none()
                && let Some(member) = next_member(&self.members, &self.reached, call)
            {
                let message = Message::Request { number: *number, request: call.call.request.clone() };
                if self.outbox.send(cx, member, LANE, message::encode(&message)).is_ok() {
                    call.asked = Some(member);
                }
            }
        }
    }

    /// The member that had the request has answered. One that knows no leader has done nothing, so that
    /// others are asked before the caller gets this result.
    fn answered(&mut self, number: u64, from: NodeId, result: AdminResult) {
        let Some(call) = self.waiting.get_mut(&number).filter(|call| call.asked == Some(from)) else {
            return;
        };
        if result == Err(AdminError::NoLeader) {
            call.leaderless.insert(from);
            if next_member(&self.members, &self.reached, call).is_some() {
                call.asked = None;
                return;
            }
        }
        self.end(number, result);
    }

    fn end(&mut self, number: u64, result: AdminResult) {
        if let Some(call) = self.waiting.remove(&number) {
            // The caller may have stopped waiting.
            let _ = call.call.answer.send(result);
        }
    }

    /// A member is gone: a list is requested of another one, and the result of a change is not known.
    fn down(&mut self, member: NodeId) {
        self.reached.remove(&member);
        for number in self.waiting.keys().copied().collect::<Vec<_>>() {
            let Some(call) = self.waiting.get_mut(&number).filter(|call| call.asked == Some(member)) else {
                continue;
            };
            match call.call.request.plain() {
                AdminRequest::Members => call.asked = None,
                _ => self.end(number, Err(AdminError::Unknown)),
            }
        }
    }

    fn expire(&mut self, now: Duration) {
        let due = self.waiting.iter().filter(|(_, call)| call.deadline <= now).map(|(number, _)| *number);
        for number in due.collect::<Vec<_>>() {
            let is_asked = self.waiting.get(&number).is_some_and(|call| call.asked.is_some());
            self.end(number, Err(if is_asked { AdminError::Unknown } else { AdminError::NoMember }));
        }
    }
}

impl Service for AdminClient {
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
            match event.kind {
                PeerEventKind::Up { .. } => drop(self.reached.insert(event.peer)),
                PeerEventKind::Down { .. } => self.down(event.peer),
                _ => {}
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            match message::decode(&payload) {
                Ok(Message::Response { number, result }) => self.answered(number, received.from, result),
                Ok(_) | Err(_) => bus.peers.decode_error(received.from),
            }
        }
        if is_raised {
            let mut calls = std::mem::take(&mut self.taken);
            self.calls.0.take(&mut calls);
            for call in calls.drain(..) {
                is_busy = true;
                if self.waiting.len() >= CALLS_MAX {
                    let _ = call.answer.send(Err(AdminError::Overloaded));
                    continue;
                }
                self.calls_made += 1;
                let deadline = now.saturating_add(CALL_LIMIT);
                let call = ClientCall { call, asked: None, leaderless: BTreeSet::new(), deadline };
                self.waiting.insert(self.calls_made, call);
            }
            self.taken = calls;
        }
        self.expire(now);
        self.ask(cx);
        for peer in self.outbox.flush(cx) {
            self.down(peer);
        }
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.values().map(|call| call.deadline).min()
    }

    fn close(&mut self, error: &OperationError) {
        self.calls.0.close(error);
        self.waiting.clear();
    }
}
