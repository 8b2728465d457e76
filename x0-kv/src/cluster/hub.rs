//! The task in which everything meets: transport, coordinator, and the way to the replica.
//!
//! It decides nothing. Each time it is woken it takes everything that has come, hands it over, and only then carries out what the
//! coordinator wants, so that what came together travels on together.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};
use x0_consensus::{Class, Event, Handle};
use x0_identity::NodeId;
use x0_mesh::{PeerEvent, PeerEventKind, Transport};

#[cfg(feature = "blob")]
use super::blob::BlobSide;
#[cfg(feature = "crdt")]
use super::crdt::CrdtSide;
use super::inspection::{self, Inspection};
use super::mailbox::{Letters, Mailbox, Question};
use super::membership::{Change, Changes};
use super::outgoing::{Outgoing, Road};
use super::peers::Peers;
use super::{NodeEvent, NodeStatus};
#[cfg(feature = "blob")]
use crate::blob::Blobs;
use crate::coordinator::{Coordinator, DropReason, Input, Output};
use crate::request::error::OperationError;
use crate::request::outcome::Outcome;
use crate::request::pending::Completion;
use crate::state::storage::Reader;

/// How many messages are taken in before what they ask for is carried out.
const RECEIVED_MAX: usize = 1024;
/// How often everything is looked at before others get a turn.
const ROUNDS_MAX: usize = 8;

/// The replica's side, on a node of the cluster.
pub(crate) struct ReplicaSide {
    pub(super) handle: Handle,
    pub(super) reader: Reader,
}

/// What is told to whoever observes the node.
pub(crate) type Observe = Box<dyn FnMut(NodeEvent) + Send>;

/// See the [module](self).
pub(crate) struct Hub<T> {
    local: NodeId,
    transport: T,
    coordinator: Coordinator,
    replica: Option<ReplicaSide>,
    mailbox: Mailbox,
    peers: Arc<Peers>,
    observe: Option<Observe>,
    outgoing: Outgoing,
    calls: Calls,
    questions: BTreeMap<NodeId, Vec<Question>>,
    changes: Changes,
    #[cfg(feature = "crdt")]
    crdt: CrdtSide,
    #[cfg(feature = "blob")]
    blobs: BlobSide,
    letters: Letters,
    buffer: Vec<u8>,
    origin: Instant,
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` is set to.
    wake: Option<Duration>,
}

/// Why the hub ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// The replica or the transport failed.
    Failed(Arc<str>),
}

impl<T: Transport> Hub<T> {
    pub(crate) fn new(
        transport: T,
        coordinator: Coordinator,
        replica: Option<ReplicaSide>,
        mailbox: Mailbox,
        peers: Arc<Peers>,
        observe: Option<Observe>,
        #[cfg(feature = "crdt")] crdt: CrdtSide,
    ) -> Hub<T> {
        Hub {
            local: transport.local(),
            transport,
            coordinator,
            replica,
            mailbox,
            peers,
            observe,
            outgoing: Outgoing::default(),
            calls: Calls::default(),
            questions: BTreeMap::new(),
            changes: Changes::default(),
            #[cfg(feature = "crdt")]
            crdt,
            #[cfg(feature = "blob")]
            blobs: BlobSide::default(),
            letters: Letters::default(),
            buffer: Vec::new(),
            origin: Instant::now(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            wake: None,
        }
    }

    /// With the blobs of a member.
    #[cfg(feature = "blob")]
    pub(crate) fn with_blobs(self, blobs: Option<Blobs>) -> Hub<T> {
        Hub { blobs: BlobSide(blobs), ..self }
    }

    /// Runs until it is stopped or fails. Callers have had their answers by then.
    pub(crate) async fn run(mut self) -> End {
        #[cfg(any(feature = "crdt", feature = "blob"))]
        if let Some(replica) = &self.replica {
            let membership = replica.handle.status().membership;
            self.members(&membership);
        }
        let end = poll_fn(|cx| self.poll(cx)).await;
        let error = match &end {
            End::Stopped => OperationError::Closed,
            End::Failed(reason) => OperationError::failed(&**reason),
        };
        self.mailbox.close(error.clone());
        self.calls.end(&error);
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS_MAX {
            let now = self.origin.elapsed();
            let mut is_busy = false;
            let mut letters = std::mem::take(&mut self.letters);
            if self.mailbox.take(&mut letters, cx.waker()) {
                is_busy = true;
                if let Some(end) = self.open(cx, now, &mut letters) {
                    return Poll::Ready(end);
                }
            }
            self.letters = letters;
            while let Poll::Ready(event) = self.transport.poll_event(cx) {
                is_busy = true;
                self.peer(cx, now, event);
            }
            match self.receive(cx, now) {
                Ok(received) => is_busy |= received,
                Err(end) => return Poll::Ready(end),
            }
            if self.coordinator.poll_timeout().is_some_and(|due| due <= now) {
                is_busy = true;
                self.tell(now, Input::Tick);
            }
            #[cfg(feature = "crdt")]
            self.crdt.expire(now);
            self.carry_out(cx, now);
            self.flush(cx, now);
            if !is_busy && !self.sleeps_no_more(cx) {
                return Poll::Pending;
            }
        }
        // Others first; then on.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let due = self.coordinator.poll_timeout();
        #[cfg(feature = "crdt")]
        let due = due.into_iter().chain(self.crdt.poll_timeout()).min();
        due
    }

    /// Sets the timer to what the coordinator waits for. Whether that time has come already.
    fn sleeps_no_more(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(due) = self.poll_timeout() else { return false };
        // A timer that goes off too early costs less than moving it with each call: it is only ever moved forwards in time when it has
        // gone off.
        if self.wake.is_none_or(|wake| due < wake) {
            self.wake = Some(due);
            self.sleep.as_mut().reset(self.origin + due);
        }
        let gone_off = self.sleep.as_mut().poll(cx).is_ready();
        if gone_off {
            self.wake = None;
        }
        gone_off
    }

    fn open(&mut self, cx: &mut Context<'_>, now: Duration, letters: &mut Letters) -> Option<End> {
        for event in letters.events.drain(..) {
            if let Some(end) = self.event(now, event) {
                return Some(end);
            }
        }
        for (operation, completion) in letters.calls.drain(..) {
            let token = self.calls.insert(completion);
            self.tell(now, Input::Call { token, operation, deadline: None });
        }
        for (to, class, payload) in letters.messages.drain(..) {
            let road = match class {
                Class::Message => Road::Consensus,
                Class::Snapshot => Road::Snapshot,
            };
            self.send(cx, now, to, road, payload);
        }
        #[cfg(feature = "crdt")]
        {
            for (request, completion) in letters.crdt.calls.drain(..) {
                if let Some((to, message)) = self.crdt.call(now, request, completion) {
                    self.send(cx, now, to, Road::CrdtOperations, message);
                }
            }
            for (to, road, payload) in letters.crdt.messages.drain(..) {
                self.send(cx, now, to, road, payload);
            }
        }
        #[cfg(feature = "blob")]
        for (to, payload) in letters.blobs.drain(..) {
            self.send(cx, now, to, Road::Blob, payload);
        }
        for question in letters.questions.drain(..) {
            let to = question.node;
            let asked = self.questions.entry(to).or_default();
            asked.retain(|asked| !asked.answer.is_closed());
            asked.push(question);
            self.send(cx, now, to, Road::Inspection, inspection::encode_question());
        }
        for Change { change, answer } in letters.changes.drain(..) {
            if let Some(replica) = &self.replica {
                replica.handle.change_membership(self.changes.insert(answer), change);
            }
        }
        letters.is_stopping.then_some(End::Stopped)
    }

    /// What the replica tells.
    fn event(&mut self, now: Duration, event: Event) -> Option<End> {
        match event {
            Event::Outcome { token, index, outcome } => {
                self.tell(now, Input::Outcome { token, index, outcome });
            }
            Event::ReadReady { token, index } => self.tell(now, Input::ReadReady { token, index }),
            Event::Dropped { token, reason } if !self.changes.dropped(token, reason) => {
                self.tell(now, Input::Dropped { token, reason: drop_reason(reason) });
            }
            Event::Leader { leader, term, is_self } => {
                self.tell(now, Input::Leader { leader, term, is_self });
                self.observed(NodeEvent::Leader { leader, term });
            }
            Event::Membership { membership } => {
                #[cfg(any(feature = "crdt", feature = "blob"))]
                self.members(&membership);
                self.observed(NodeEvent::Membership { membership });
            }
            Event::Changed { token, .. } => self.changes.made(token),
            Event::Failed(failure) => return Some(End::Failed(failure.to_string().into())),
            _ => {}
        }
        None
    }

    #[cfg(any(feature = "crdt", feature = "blob"))]
    fn members(&self, membership: &x0_consensus::Membership) {
        #[cfg(feature = "crdt")]
        self.crdt.members(nodes_of(membership));
        #[cfg(feature = "blob")]
        self.blobs.members(nodes_of(membership));
    }

    fn observed(&mut self, event: NodeEvent) {
        if let Some(observe) = &mut self.observe {
            observe(event);
        }
    }

    /// What the transport tells of a peer.
    #[cfg_attr(not(feature = "crdt"), expect(unused_variables, reason = "only CRDT calls are sent again"))]
    fn peer(&mut self, cx: &mut Context<'_>, now: Duration, event: PeerEvent) {
        self.peers.event(&event);
        let peer = event.peer;
        #[cfg(feature = "crdt")]
        {
            let letters = match event.kind {
                PeerEventKind::Up { .. } => self.crdt.up(peer),
                PeerEventKind::Down { .. } => self.crdt.down(peer),
                _ => Vec::new(),
            };
            for (to, message) in letters {
                self.send(cx, now, to, Road::CrdtOperations, message);
            }
        }
        #[cfg(feature = "blob")]
        match event.kind {
            PeerEventKind::Up { .. } => self.blobs.up(peer),
            PeerEventKind::Down { .. } => self.blobs.down(peer),
            _ => {}
        }
        if let PeerEventKind::Down { .. } = event.kind {
            self.outgoing.forget(peer);
            self.questions.remove(&peer);
            self.unreachable(now, peer);
        }
        self.observed(NodeEvent::Peer(event));
    }

    fn unreachable(&mut self, now: Duration, peer: NodeId) {
        self.tell(now, Input::Unreachable { peer });
        if let Some(replica) = &self.replica {
            replica.handle.unreachable(peer);
        }
    }

    /// Takes in what has come. Whether there was anything.
    fn receive(&mut self, cx: &mut Context<'_>, now: Duration) -> Result<bool, End> {
        for count in 0..RECEIVED_MAX {
            match self.transport.poll_recv(cx, &mut self.buffer) {
                Poll::Pending => return Ok(count > 0),
                Poll::Ready(Err(error)) => return Err(End::Failed(error.to_string().into())),
                Poll::Ready(Ok(received)) => {
                    let payload = Bytes::from(std::mem::take(&mut self.buffer));
                    let from = received.from;
                    match (Road::of(received.lane, &payload), &self.replica) {
                        (Some(Road::Consensus | Road::Snapshot), Some(replica)) => {
                            replica.handle.deliver(from, payload);
                        }
                        (Some(Road::Operations), _) => self.tell(now, Input::Message { from, payload }),
                        (Some(Road::Inspection), _) => self.inspection(cx, now, from, &payload),
                        #[cfg(feature = "crdt")]
                        (Some(Road::Crdt), _) => self.crdt.datagram(from, payload),
                        #[cfg(feature = "crdt")]
                        (Some(Road::CrdtOperations), _) => self.crdt_operation(cx, now, from, &payload),
                        #[cfg(feature = "blob")]
                        (Some(Road::Blob), _) => self.blobs.message(from, payload),
                        #[cfg(not(feature = "blob"))]
                        (Some(Road::Blob), _) => {}
                        #[cfg(not(feature = "crdt"))]
                        (Some(Road::Crdt | Road::CrdtOperations), _) => {}
                        // Not for us: a client has no replica, and nobody uses other lanes.
                        (Some(Road::Consensus | Road::Snapshot), None) | (None, _) => {}
                    }
                }
            }
        }
        Ok(true)
    }

    fn inspection(&mut self, cx: &mut Context<'_>, now: Duration, from: NodeId, payload: &Bytes) {
        match inspection::decode(payload) {
            Ok(Inspection::Question) => {
                if let Some(status) = self.status() {
                    self.send(cx, now, from, Road::Inspection, inspection::encode_answer(&status));
                }
            }
            Ok(Inspection::Answer(status)) if status.node == from => {
                for question in self.questions.remove(&from).unwrap_or_default() {
                    // Who no longer waits is not disappointed.
                    let _ = question.answer.send(NodeStatus::clone(&status));
                }
            }
            Ok(Inspection::Answer(_)) | Err(_) => self.peers.misunderstood(from),
        }
    }

    #[cfg(feature = "crdt")]
    fn crdt_operation(&mut self, cx: &mut Context<'_>, now: Duration, from: NodeId, payload: &Bytes) {
        match self.crdt.message(&self.mailbox, from, payload) {
            Ok(Some((to, answer))) => self.send(cx, now, to, Road::CrdtOperations, answer),
            Ok(None) => {}
            Err(_) => self.peers.misunderstood(from),
        }
    }

    fn status(&self) -> Option<NodeStatus> {
        let replica = self.replica.as_ref()?;
        Some(NodeStatus::new(self.local, &replica.handle.status(), &self.peers))
    }

    fn tell(&mut self, now: Duration, input: Input) {
        if let Err(crate::coordinator::HandleError::Decode { from, .. }) = self.coordinator.handle(now, input)
        {
            self.peers.misunderstood(from);
        }
    }

    /// Does what the coordinator wants, until it wants nothing more.
    fn carry_out(&mut self, cx: &mut Context<'_>, now: Duration) {
        while let Some(output) = self.coordinator.poll_output() {
            match (output, &self.replica) {
                (Output::Reply { token, result }, _) => self.calls.complete(token, result),
                (Output::Send { to, payload }, _) => self.send(cx, now, to, Road::Operations, payload),
                (Output::Propose { token, payload }, Some(replica)) => replica.handle.propose(token, payload),
                (Output::ReadIndex { token }, Some(replica)) => replica.handle.read_index(token),
                (Output::Query { token, keyspace, query }, Some(replica)) => {
                    let answer = replica.reader.query(&keyspace, &query);
                    self.tell(now, Input::Queried { token, answer });
                }
                (Output::Propose { token, .. } | Output::ReadIndex { token }, None) => {
                    self.tell(now, Input::Dropped { token, reason: DropReason::NotLeader { leader: None } });
                }
                (Output::Query { token, .. }, None) => {
                    let answer = Err(OperationError::Unavailable { reason: "there is no replica here" });
                    self.tell(now, Input::Queried { token, answer });
                }
            }
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, now: Duration, to: NodeId, road: Road, payload: Bytes) {
        if self.outgoing.send(cx, &mut self.transport, to, road, payload).is_err() {
            self.lost(now, to, road);
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, now: Duration) {
        let mut lost = Vec::new();
        self.outgoing.flush(cx, &mut self.transport, |to, road| lost.push((to, road)));
        for (to, road) in lost {
            self.lost(now, to, road);
        }
    }

    fn lost(&mut self, now: Duration, to: NodeId, road: Road) {
        match (road, &self.replica) {
            (Road::Consensus | Road::Snapshot, Some(replica)) => replica.handle.unreachable(to),
            (Road::Operations, _) => self.tell(now, Input::Unreachable { peer: to }),
            (Road::Inspection, _) => drop(self.questions.remove(&to)),
            (Road::Consensus | Road::Snapshot, None) => {}
            // Sessions repeat what was lost, and calls have their time.
            (Road::Crdt | Road::CrdtOperations, _) => {}
            // Who fetches asks again.
            (Road::Blob, _) => {}
        }
    }
}

#[cfg(any(feature = "crdt", feature = "blob"))]
fn nodes_of(membership: &x0_consensus::Membership) -> std::collections::BTreeSet<NodeId> {
    let x0_consensus::Membership { voters, voters_outgoing, learners, learners_next, .. } = membership;
    [voters, voters_outgoing, learners, learners_next].into_iter().flatten().copied().collect()
}

/// In the words of the coordinator.
fn drop_reason(reason: x0_consensus::DropReason) -> DropReason {
    use x0_consensus::DropReason as Replica;
    match reason {
        Replica::NotLeader { leader } => DropReason::NotLeader { leader },
        Replica::Full => DropReason::Full,
        Replica::Length => DropReason::Length,
        Replica::Transferring => DropReason::Transferring,
        Replica::Superseded => DropReason::Superseded,
        // What is not known to be safe to repeat is not.
        _ => DropReason::Unknown,
    }
}

/// Callers that wait, by token.
#[derive(Debug, Default)]
struct Calls {
    waiting: Vec<Option<Completion>>,
    free: Vec<usize>,
}

impl Calls {
    fn insert(&mut self, completion: Completion) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        self.waiting[index] = Some(completion);
        index as u64
    }

    fn complete(&mut self, token: u64, result: Result<Outcome, OperationError>) {
        let Ok(index) = usize::try_from(token) else { return };
        if let Some(completion) = self.waiting.get_mut(index).and_then(Option::take) {
            self.free.push(index);
            completion.complete(result);
        }
    }

    fn end(&mut self, error: &OperationError) {
        for completion in self.waiting.drain(..).flatten() {
            completion.complete(Err(error.clone()));
        }
    }
}
