//! The consensus service: the replica, the jobs that it gives to workers, and changes of the membership.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use x0_consensus::driver::{Effect, Executor};
use x0_consensus::{
    Class, DropReason, Event, FencedRequest, HandleError, Input, MemberProgress, Membership,
    MembershipChange, Replication,
};
use x0_identity::NodeId;
use x0_mesh::{Lane, Mux, PeerEventKind};

use super::super::channel::ChannelSpec;
use super::super::inbox::Inbox;
use super::super::membership::ChangeError;
use super::super::outbox::Outbox;
use super::super::service::{Bus, RECEIVED_MAX, Service};
use super::super::workers::Workers;
use super::super::{NodeError, NodeEvent, StartError};
use crate::admin::{self, StepError};
use crate::coordinator;
use crate::request::applied::decode_applied;
use crate::request::command::Command;
use crate::request::error::OperationError;
use crate::request::member::Members;
use crate::request::outcome::{Outcome, Refusal};
use crate::space::{Lack, Space};
use crate::state::storage::Reader;

/// Raft repairs loss, but a lane in order spares it the repair.
const LANE: Lane = Lane::Ordered(0);

pub(crate) const CHANNEL: ChannelSpec = ChannelSpec {
    name: "x0.kv.consensus",
    lane: LANE,
    message_len_min: coordinator::MESSAGE_LEN_MAX,
    waiting_len_max: 32 << 20,
};

/// Opens the channel with the versions up to this one.
pub(crate) fn open(mux: &Mux, version_max: u16) -> Result<Outbox, StartError> {
    let (first, last) = x0_consensus::PROTOCOL_VERSIONS.into_inner();
    CHANNEL.open_versions(mux, first..=last.min(version_max).max(first))
}

/// Tokens with this bit are those of membership changes: the coordinator never uses it.
const CHANGE_TOKEN: u64 = 1 << 62;

/// The time that the next leader gets before writes are refused for lack of space.
const HAND_OVER_LIMIT: Duration = Duration::from_millis(500);
/// The time after which the leadership is handed over again.
const HAND_OVER_AFTER: Duration = Duration::from_secs(2);

/// A request of a caller to the replica.
#[derive(Debug)]
pub(crate) enum Request {
    /// Change the membership.
    Change { change: MembershipChange, answer: oneshot::Sender<Result<(), ChangeError>> },
    /// Hand the leadership over.
    TransferLeadership { to: NodeId },
    /// Campaign although there is a leader.
    TakeOver,
}

/// The status of the replica, kept by the service and read by any thread, and the member table.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaStatus {
    held: Arc<Mutex<Held>>,
    state: Reader,
}

/// The status, and the time of the event loop at which it was taken.
#[derive(Debug)]
struct Held {
    status: x0_consensus::Status,
    as_of: Duration,
}

impl ReplicaStatus {
    /// The status of the replica of `executor`, whose state `state` reads.
    pub(crate) fn new(executor: &Executor, state: Reader) -> ReplicaStatus {
        let held = Held { status: executor.replica().status(), as_of: Duration::ZERO };
        ReplicaStatus { held: Arc::new(Mutex::new(held)), state }
    }

    /// The member table as of the last batch that was applied.
    pub(crate) fn members(&self) -> Arc<Members> {
        self.state.members()
    }

    /// The status as of the end of the last poll.
    pub(crate) fn get(&self) -> x0_consensus::Status {
        self.lock().status.clone()
    }

    /// The same with the time of that poll, on the clock of the event loop.
    pub(crate) fn get_as_of(&self) -> (x0_consensus::Status, Duration) {
        let held = self.lock();
        (held.status.clone(), held.as_of)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing that can panic runs under the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a change came from.
#[derive(Debug)]
enum Asker {
    Caller(oneshot::Sender<Result<(), ChangeError>>),
    /// The admin engine, with its token.
    Admin(u64),
}

/// The consensus service; see the [module](self).
pub(crate) struct Consensus {
    outbox: Outbox,
    executor: Executor,
    workers: Box<dyn Workers>,
    requests: Inbox<Request>,
    changes: BTreeMap<u64, Asker>,
    changes_made: u64,
    status: ReplicaStatus,
    /// The version of the member table that was reported last.
    members_version: u64,
    is_membership_reported: bool,
    taken: Vec<Request>,
    local: NodeId,
    membership: Membership,
    space: Space,
    /// When the leadership was last handed to a member with space.
    handed_over: Option<Duration>,
}

impl Consensus {
    pub(crate) fn new(
        outbox: Outbox,
        executor: Executor,
        workers: Box<dyn Workers>,
        requests: Inbox<Request>,
        status: ReplicaStatus,
    ) -> Consensus {
        let x0_consensus::Status { id, membership, .. } = executor.replica().status();
        Consensus {
            outbox,
            executor,
            workers,
            requests,
            changes: BTreeMap::new(),
            changes_made: 0,
            status,
            members_version: 0,
            is_membership_reported: false,
            taken: Vec::new(),
            local: id,
            membership,
            space: Space::default(),
            handed_over: None,
        }
    }

    /// Sets where the lack of space is reported.
    pub(crate) fn space(mut self, space: Space) -> Consensus {
        self.space = space;
        self
    }

    /// Gives the replica an input. A failure is reported by the executor's last event.
    fn handle(&mut self, now: Duration, input: Input) {
        let _ = self.executor.handle(now, input);
    }

    /// Gives the replica a message, and counts it if it is not one.
    fn message(&mut self, now: Duration, bus: &Bus, from: NodeId, payload: bytes::Bytes) {
        match self.executor.handle(now, Input::Message { from, payload }) {
            Ok(()) | Err(HandleError::Failed(_)) => {}
            Err(_) => bus.peers.decode_error(from),
        }
    }

    fn request(&mut self, now: Duration, request: Request) {
        match request {
            Request::Change { change, answer } => {
                let token = self.asked(Asker::Caller(answer));
                self.handle(now, Input::ChangeMembership { token, change });
            }
            Request::TransferLeadership { to } => self.handle(now, Input::TransferLeadership { to }),
            Request::TakeOver => self.handle(now, Input::TakeOver),
        }
    }

    /// Why a leader must not take a proposal: it, or a quorum, has no space on its disk.
    fn refusal(&self, now: Duration, bus: &Bus) -> Option<coordinator::DropReason> {
        let is_leader = self.executor.replica().is_leader();
        if !is_leader || !bus.space.refuses_writes(self.local, &self.membership) {
            return None;
        }
        // The next leader takes it in a moment.
        let is_handing_over = self.handed_over.is_some_and(|at| now < at + HAND_OVER_LIMIT);
        Some(match is_handing_over {
            true => coordinator::DropReason::Transferring,
            false => coordinator::DropReason::NoSpace,
        })
    }

    /// Hands the leadership to a voter with space, if there is one.
    fn hand_over(&mut self, now: Duration, bus: &Bus) {
        if !self.executor.replica().is_leader()
            || self.handed_over.is_some_and(|at| now < at + HAND_OVER_AFTER)
        {
            return;
        }
        let reached = bus.peers.reached();
        let has_space = |voter: &&NodeId| **voter != self.local && !bus.space.lacking.contains(*voter);
        let voters = self.membership.voters.iter();
        if let Some(to) = voters.filter(has_space).copied().find(|voter| reached.contains(voter)) {
            self.handed_over = Some(now);
            self.handle(now, Input::TransferLeadership { to });
        }
    }

    /// A token of the replica for a request of this asker.
    fn asked(&mut self, asker: Asker) -> u64 {
        self.changes_made += 1;
        let token = CHANGE_TOKEN | self.changes_made;
        self.changes.insert(token, asker);
        token
    }

    /// Carries out a step of the admin engine.
    fn admin_step(&mut self, now: Duration, step: admin::Output, bus: &mut Bus) {
        match step {
            admin::Output::Inspect { token } => {
                let group = self.group(now);
                bus.admin(|| admin::Input::Inspected { token, group });
            }
            admin::Output::Change { token, fence, change } => {
                let token = self.asked(Asker::Admin(token));
                let request = FencedRequest::ChangeMembership(change);
                self.handle(now, Input::Fenced { token, fence, request });
            }
            admin::Output::Propose { token, change } => {
                let (token, payload) = (self.asked(Asker::Admin(token)), Command::Member(change).encode());
                self.handle(now, Input::Propose { token, payload, trace: None });
            }
            admin::Output::Transfer { to } => self.handle(now, Input::TransferLeadership { to }),
            // For the admin service itself.
            admin::Output::Send { .. } | admin::Output::Reply { .. } => {}
        }
    }

    /// The group as this replica knows it.
    fn group(&self, now: Duration) -> admin::Group {
        let replica = self.executor.replica();
        let status = replica.status();
        let progress = |member: MemberProgress| admin::Progress {
            node: member.id,
            matched: member.matched_index,
            is_receiving_snapshot: member.replication == Replication::Snapshot,
            // A voter that has lost its folder counts for no quorum until it is registered again.
            silent_for: member
                .last_message
                .filter(|_| member.is_counted)
                .map(|last| now.saturating_sub(last)),
        };
        admin::Group {
            local: status.id,
            term: status.term,
            committed: status.commit_index,
            membership: status.membership,
            members: self.status.members(),
            progress: replica.progress().into_iter().map(progress).collect(),
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
            let mut requests = std::mem::take(&mut self.taken);
            self.requests.take(&mut requests);
            for request in requests.drain(..) {
                is_busy = true;
                self.request(now, request);
            }
            self.taken = requests;
        }
        while let Some(input) = bus.replica.pop_front() {
            is_busy = true;
            match input {
                // Snapshot messages come from another channel, and can be malformed like any message.
                Input::Message { from, payload } => self.message(now, bus, from, payload),
                Input::Propose { token, payload, trace } => match self.refusal(now, bus) {
                    Some(reason) => {
                        bus.coordinator.push_back(coordinator::Input::Dropped { token, reason });
                    }
                    None => self.handle(now, Input::Propose { token, payload, trace }),
                },
                input => self.handle(now, input),
            }
        }
        if bus.space.own.refuses_writes() {
            self.hand_over(now, bus);
        }
        while let Some(step) = bus.admin_steps.pop_front() {
            is_busy = true;
            self.admin_step(now, step, bus);
        }
        while let Poll::Ready(event) = self.outbox.poll_event(cx) {
            is_busy = true;
            match event.kind {
                PeerEventKind::Up { .. } => {
                    let version = self.outbox.version(event.peer);
                    self.handle(now, Input::Negotiated { peer: event.peer, version });
                }
                PeerEventKind::Down { .. } => {
                    self.handle(now, Input::Unreachable { peer: event.peer });
                    self.handle(now, Input::Negotiated { peer: event.peer, version: 1 });
                }
                // A leader whose path is about to heal is not deposed. A message of it ends the degradation.
                PeerEventKind::Degraded => self.handle(now, Input::Degraded { peer: event.peer }),
                _ => {}
            }
        }
        for _ in 0..RECEIVED_MAX {
            let Poll::Ready(received) = self.outbox.poll_recv(cx) else { break };
            is_busy = true;
            let (received, payload) = received?;
            self.message(now, bus, received.from, payload);
        }
        while let Poll::Ready(done) = self.workers.poll_done(cx) {
            is_busy = true;
            self.executor.complete(now, done);
        }
        if self.executor.poll_timeout().is_some_and(|due| due <= now) {
            is_busy = true;
            self.handle(now, Input::Timeout);
        }
        Ok(is_busy)
    }

    /// Carries out what the replica wants, until it wants nothing more. Whether a job was done meanwhile.
    fn carry_out(&mut self, cx: &mut Context<'_>, now: Duration, bus: &mut Bus) -> Result<bool, NodeError> {
        let mut is_busy = false;
        loop {
            while let Some(effect) = self.executor.poll_output() {
                match effect {
                    Effect::Send { to, class: Class::Snapshot, payload } => {
                        bus.snapshots.push_back((to, payload.into()));
                    }
                    Effect::Send { to, payload, .. } => {
                        let sent = self.outbox.send(cx, to, LANE, payload.into());
                        sent.unwrap_or_else(|_| self.executor.congested(now, to));
                    }
                    Effect::Event(event) => self.event(event, bus)?,
                    _ => {}
                }
            }
            self.workers.take_jobs(&mut self.executor);
            // A job that was small enough is done already.
            let Poll::Ready(done) = self.workers.poll_done(cx) else { break };
            is_busy = true;
            self.executor.complete(now, done);
        }
        for peer in self.outbox.flush(cx) {
            self.executor.congested(now, peer);
        }
        Ok(is_busy)
    }

    fn event(&mut self, event: Event, bus: &mut Bus) -> Result<(), NodeError> {
        match event {
            Event::Outcome { token, outcome, .. } if token & CHANGE_TOKEN != 0 => {
                let result = match decode_applied(&outcome) {
                    Ok(Ok(Outcome::MemberChanged)) => Ok(()),
                    Ok(Err(Refusal::MembersExceeded)) => Err(StepError::Full),
                    _ => Err(StepError::Unknown),
                };
                self.answer_admin(token, result, bus);
            }
            Event::Outcome { token, index, outcome } => {
                bus.coordinator.push_back(coordinator::Input::Outcome { token, index, outcome });
            }
            Event::ReadReady { token, index } => {
                bus.coordinator.push_back(coordinator::Input::ReadReady { token, index });
            }
            Event::Changed { token, .. } => self.answer(token, Ok(()), bus),
            Event::Dropped { token, reason } if token & CHANGE_TOKEN != 0 => {
                self.answer(token, Err(reason), bus);
            }
            Event::Dropped { token, reason } => {
                let reason = drop_reason(reason);
                bus.coordinator.push_back(coordinator::Input::Dropped { token, reason });
            }
            Event::Leader { leader, term, is_self } => {
                bus.coordinator.push_back(coordinator::Input::Leader { leader, term, is_self });
                bus.admin(|| admin::Input::Leader { leader, term });
                bus.leader = leader;
                bus.observed(NodeEvent::Leader { leader, term });
            }
            Event::Membership { membership } => {
                self.membership = membership.clone();
                bus.membership = Some(membership.clone());
                // Reported with the member table, also when that stays as it is.
                self.is_membership_reported = false;
                bus.observed(NodeEvent::Membership { membership });
            }
            Event::NoSpace(_) => self.space.set(Lack::Log, true),
            Event::SpaceAvailable => self.space.set(Lack::Log, false),
            Event::Standing { standing } => bus.observed(NodeEvent::Standing { standing }),
            Event::Failed(cause) => return Err(NodeError::Replica(cause)),
            _ => {}
        }
        Ok(())
    }

    /// Reports the member table if it has changed.
    fn report_members(&mut self, bus: &mut Bus) {
        let version = self.status.state.members_version();
        let has_changed = std::mem::replace(&mut self.members_version, version) != version;
        if !has_changed && self.is_membership_reported {
            return;
        }
        self.is_membership_reported = true;
        let members = self.status.members();
        let membership = self.executor.replica().status().membership;
        let input = admin::Input::Members { membership, members: Arc::clone(&members) };
        bus.admin(|| input);
        if has_changed {
            bus.observed(NodeEvent::Members { members });
        }
    }

    fn answer(&mut self, token: u64, result: Result<(), DropReason>, bus: &mut Bus) {
        match self.changes.remove(&token) {
            Some(Asker::Caller(answer)) => {
                // The caller may have stopped waiting.
                let _ = answer.send(result.map_err(change_error));
            }
            Some(Asker::Admin(token)) => {
                let result = result.map_err(step_error);
                bus.admin(|| admin::Input::Done { token, result });
            }
            None => {}
        }
    }

    fn answer_admin(&mut self, token: u64, result: Result<(), StepError>, bus: &mut Bus) {
        if let Some(Asker::Admin(token)) = self.changes.remove(&token) {
            bus.admin(|| admin::Input::Done { token, result });
        }
    }
}

impl Service for Consensus {
    fn wants(&self, bus: &Bus) -> bool {
        !bus.replica.is_empty() || !bus.admin_steps.is_empty()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Duration,
        is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        let mut is_busy = self.take_in(cx, now, is_raised, bus)?;
        is_busy |= self.carry_out(cx, now, bus)?;
        self.report_members(bus);
        if is_busy {
            let status = self.status.clone();
            let mut held = status.lock();
            held.as_of = now;
            self.executor.refresh(&mut held.status);
        }
        Ok(is_busy)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.executor.poll_timeout()
    }

    fn close(&mut self, error: &OperationError) {
        self.requests.close(error);
        // Dropping the senders answers `Closed`.
        self.changes.clear();
    }
}

fn change_error(reason: DropReason) -> ChangeError {
    match reason {
        DropReason::NotLeader { leader } => ChangeError::NotLeader { leader },
        DropReason::ChangeInProgress | DropReason::Full | DropReason::Transferring => ChangeError::InProgress,
        DropReason::ChangeInvalid | DropReason::Length => ChangeError::Invalid,
        _ => ChangeError::Unknown,
    }
}

fn step_error(reason: DropReason) -> StepError {
    match reason {
        DropReason::NotLeader { .. } | DropReason::Superseded => StepError::NotLeader,
        // After another change the leader decides again.
        DropReason::ChangeInProgress | DropReason::Full | DropReason::Transferring | DropReason::Stale => {
            StepError::InProgress
        }
        DropReason::ChangeInvalid | DropReason::Length => StepError::Invalid,
        _ => StepError::Unknown,
    }
}

/// The replica's reason as the coordinator knows it.
fn drop_reason(reason: DropReason) -> coordinator::DropReason {
    match reason {
        DropReason::NotLeader { leader } => coordinator::DropReason::NotLeader { leader },
        DropReason::Full => coordinator::DropReason::Full,
        DropReason::Length => coordinator::DropReason::Length,
        DropReason::Transferring => coordinator::DropReason::Transferring,
        DropReason::Superseded => coordinator::DropReason::Superseded,
        DropReason::NoSpace => coordinator::DropReason::NoSpace,
        // A proposal must not be repeated unless it is certain that the first attempt has no effect.
        _ => coordinator::DropReason::Unknown,
    }
}
