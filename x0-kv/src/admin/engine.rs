//! The engine: from the request of an operator to its result.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use x0_consensus::{Fence, Membership, MembershipChange};
use x0_identity::NodeId;

use super::decision::{self, Decision, Group};
use super::message::{self, Message};
use super::request::{AdminError, AdminReply, AdminRequest};
use super::role::PeerRole;
use crate::request::codec::DecodeError;
use crate::request::member::{MemberChange, Members};

/// The most requests that wait.
const JOBS_MAX: usize = 64;
/// How long a request may take.
const JOB_LIMIT: Duration = Duration::from_secs(10);
/// How long the request of a peer waits for a leader to be known, longer than an election. A member that was
/// removed hears of none ever: the peer then asks another member.
const PEER_PARKED_LIMIT: Duration = Duration::from_secs(2);
/// The pause before a request is tried again that found another change in progress.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often a member compares its addresses with the member table.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

/// An input of an [`AdminEngine`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The time of [`poll_timeout`](AdminEngine::poll_timeout) has come.
    Timeout,
    /// A local caller, who counts as an operator, asks for this. Answered by one [`Output::Reply`].
    Call {
        /// The caller's name for it.
        token: u64,
        /// The request.
        request: AdminRequest,
    },
    /// A peer sent this.
    Message {
        /// The sender, as the transport authenticated it.
        from: NodeId,
        /// The role of the sender's identity.
        role: PeerRole,
        /// The payload of the peer's [`Output::Send`].
        payload: Bytes,
    },
    /// Messages that were sent to a peer are lost, or will be.
    Unreachable {
        /// The peer.
        peer: NodeId,
    },
    /// The leader has changed, or the term.
    Leader {
        /// The leader, as far as it is known here.
        leader: Option<NodeId>,
        /// The term.
        term: u64,
    },
    /// The membership has changed, or the member table. Given once at the start.
    Members {
        /// The membership.
        membership: Membership,
        /// The member table.
        members: Arc<Members>,
    },
    /// Answers [`Output::Inspect`].
    Inspected {
        /// The output's.
        token: u64,
        /// The group as the local replica knows it.
        group: Group,
    },
    /// Answers [`Output::Change`] and [`Output::Propose`].
    Done {
        /// The output's.
        token: u64,
        /// Whether the change was made.
        result: Result<(), StepError>,
    },
}

/// Why a step of a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepError {
    /// This node is not the leader. Nothing was done.
    NotLeader,
    /// Another change is in progress, or was made since this one was planned. Nothing was done.
    InProgress,
    /// The change is not possible, or has no effect. Nothing was done.
    Invalid,
    /// The member table has no room. Nothing was done.
    Full,
    /// The step may or may not have been carried out.
    Unknown,
}

/// An output of an [`AdminEngine`].
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Send this to a peer. If that cannot be done, drop it and report [`Input::Unreachable`].
    Send {
        /// The receiver.
        to: NodeId,
        /// The bytes.
        payload: Bytes,
    },
    /// Report the state of the group: [`Input::Inspected`].
    Inspect {
        /// For the answer.
        token: u64,
    },
    /// Change the membership if the fence holds, and report [`Input::Done`].
    Change {
        /// For the answer.
        token: u64,
        /// The state on which the change was planned; otherwise [`StepError::InProgress`].
        fence: Fence,
        /// The change.
        change: MembershipChange,
    },
    /// Propose a change of the member table, and report [`Input::Done`].
    Propose {
        /// For the answer.
        token: u64,
        /// The change.
        change: MemberChange,
    },
    /// Hand the leadership over.
    Transfer {
        /// The next leader.
        to: NodeId,
    },
    /// The result of a call.
    Reply {
        /// The caller's name for it.
        token: u64,
        /// The result.
        result: Result<AdminReply, AdminError>,
    },
}

/// An input was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The payload is not a message of this protocol. It was dropped.
    #[error("cannot read an admin message of {from}: check that both nodes run compatible releases")]
    Decode {
        /// The sender.
        from: NodeId,
        /// The error in the message.
        source: DecodeError,
    },
    /// A peer sent a message that its role does not permit. It was dropped; a request was answered.
    #[error("refused an admin message of {from}: its identity is not that of an operator or a member")]
    Role {
        /// The sender.
        from: NodeId,
    },
}

/// The administration of a group: see the [module](super).
///
/// Hand over inputs with [`handle`](AdminEngine::handle), then take outputs with
/// [`poll_output`](AdminEngine::poll_output) until there are none, then wait for the next input or until
/// [`poll_timeout`](AdminEngine::poll_timeout). An error of `handle` leaves everything else as it was.
///
/// ```
/// use std::time::Duration;
/// use x0_identity::NodeId;
/// use x0_kv::admin::{AdminEngine, AdminError, AdminRequest, Input, Output};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = NodeId::new(1).ok_or("zero names no node")?;
/// let mut engine = AdminEngine::new(node, vec!["10.0.0.1:7401".into()]);
/// let start = Duration::ZERO;
/// engine.handle(start, Input::Call { token: 7, request: AdminRequest::Members })?;
/// assert_eq!(engine.poll_output(), None, "no leader is known yet");
/// let due = engine.poll_timeout().ok_or("the call has a deadline")?;
/// engine.handle(due, Input::Timeout)?;
/// let result = Err(AdminError::NoLeader);
/// assert_eq!(engine.poll_output(), Some(Output::Reply { token: 7, result }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AdminEngine {
    local: NodeId,
    /// The addresses of this node, for the member table.
    addresses: Vec<String>,
    leader: Option<NodeId>,
    jobs: BTreeMap<u64, Job>,
    jobs_begun: u64,
    outputs: VecDeque<Output>,
    membership: Membership,
    members: Arc<Members>,
    /// When to compare the own addresses with the member table again.
    announce_at: Option<Duration>,
}

#[derive(Debug)]
struct Job {
    origin: Origin,
    request: AdminRequest,
    place: Place,
    /// When it ends without a leader.
    parked_limit: Duration,
    deadline: Duration,
    /// When to try again, if it waits for that.
    retry: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A local caller.
    Call { token: u64 },
    /// A peer.
    Peer { node: NodeId, number: u64 },
    /// The engine itself, which announces the addresses of its node.
    Own,
}

/// Where a job is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Here, until a leader is known, or until a retry.
    Parked,
    /// At the leader.
    Forwarded { to: NodeId },
    /// At the local replica, which reports the group.
    Inspecting,
    /// At the local replica: the first of these steps is under way.
    Changing { steps: VecDeque<Step>, fence: Fence },
    /// The leadership is being handed over; then the next leader gets the request.
    Transferring,
}

/// One step of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Member(MemberChange),
    Membership(MembershipChange),
}

impl Job {
    /// When it ends in its present place.
    fn limit(&self) -> Duration {
        let is_without_leader = self.place == Place::Parked && self.retry.is_none();
        if is_without_leader { self.parked_limit.min(self.deadline) } else { self.deadline }
    }
}

impl AdminEngine {
    /// The engine of member `local`, whose peers reach it at `addresses`; the member table is left alone if
    /// there are none.
    #[must_use]
    pub fn new(local: NodeId, addresses: Vec<String>) -> AdminEngine {
        let announce_at = (!addresses.is_empty()).then_some(Duration::ZERO);
        AdminEngine {
            local,
            addresses,
            leader: None,
            jobs: BTreeMap::new(),
            jobs_begun: 0,
            outputs: VecDeque::new(),
            membership: Membership::default(),
            members: Arc::default(),
            announce_at,
        }
    }

    /// Takes an input at the time `now`, which never runs backwards.
    ///
    /// # Errors
    /// When a message of a peer cannot be read or is not permitted.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        let mut handled = Ok(());
        match input {
            Input::Timeout => {}
            Input::Call { token, request } => self.begin(now, Origin::Call { token }, request),
            Input::Message { from, role, payload } => handled = self.message(now, from, role, &payload),
            Input::Unreachable { peer } => self.unreachable(peer),
            Input::Leader { leader, term: _ } => self.leader_changed(leader),
            Input::Members { membership, members } => {
                (self.membership, self.members) = (membership, members);
                self.announce_at = self.announce_at.map(|_| now);
            }
            Input::Inspected { token, group } => self.inspected(token, &group),
            Input::Done { token, result } => self.done(now, token, result),
        }
        self.expire(now);
        self.announce(now);
        handled
    }

    /// The next thing to do. To be called until there is none, before the next wait.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due, in the time that is passed to [`handle`](AdminEngine::handle).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let jobs = self.jobs.values().map(|job| job.retry.map_or(job.limit(), |at| at.min(job.limit())));
        jobs.chain(self.announce_at.filter(|_| self.must_announce())).min()
    }

    /// How many requests are under way.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    fn message(
        &mut self,
        now: Duration,
        from: NodeId,
        role: PeerRole,
        payload: &Bytes,
    ) -> Result<(), HandleError> {
        let decoded = message::decode(payload).map_err(|source| HandleError::Decode { from, source })?;
        let (number, request) = match decoded {
            Message::Response { number, result } => {
                let is_from_leader =
                    self.jobs.get(&number).is_some_and(|job| job.place == Place::Forwarded { to: from });
                if is_from_leader {
                    self.end(number, result);
                }
                return Ok(());
            }
            Message::Request { number, request } if role == PeerRole::Operator => (number, request),
            // A member speaks for the operators that it has authenticated, and for its own addresses.
            Message::Forwarded { number, request } if role == PeerRole::Member => (number, request),
            Message::Request { number, request: request @ AdminRequest::SetAddresses { node, .. } }
                if role == PeerRole::Member && node == from =>
            {
                (number, request)
            }
            Message::Request { number, .. } | Message::Forwarded { number, .. } => {
                self.respond(from, number, Err(AdminError::NotAnOperator));
                return Err(HandleError::Role { from });
            }
        };
        self.begin(now, Origin::Peer { node: from, number }, request);
        Ok(())
    }

    fn begin(&mut self, now: Duration, origin: Origin, request: AdminRequest) {
        let refused = match request.check() {
            Ok(()) if self.jobs.len() >= JOBS_MAX => Err(AdminError::Overloaded),
            checked => checked,
        };
        if let Err(error) = refused {
            return self.reply(origin, Err(error));
        }
        self.jobs_begun += 1;
        let token = self.jobs_begun;
        let deadline = now.saturating_add(JOB_LIMIT);
        let parked_limit = match origin {
            Origin::Peer { .. } => now.saturating_add(PEER_PARKED_LIMIT),
            Origin::Call { .. } | Origin::Own => deadline,
        };
        let job = Job { origin, request, place: Place::Parked, parked_limit, deadline, retry: None };
        self.jobs.insert(token, job);
        self.route(token);
    }

    /// Brings a job to the leader.
    fn route(&mut self, token: u64) {
        let Some(job) = self.jobs.get_mut(&token) else { return };
        job.retry = None;
        match self.leader {
            None => job.place = Place::Parked,
            Some(leader) if leader == self.local => {
                job.place = Place::Inspecting;
                self.outputs.push_back(Output::Inspect { token });
            }
            Some(leader) => {
                // A member forwards once: the receiver may know another leader only after it lost its term,
                // and then the deadline ends a circle.
                job.place = Place::Forwarded { to: leader };
                let request = job.request.clone();
                let message = match job.origin {
                    Origin::Own => Message::Request { number: token, request },
                    Origin::Call { .. } | Origin::Peer { .. } => {
                        Message::Forwarded { number: token, request }
                    }
                };
                self.outputs.push_back(Output::Send { to: leader, payload: message::encode(&message) });
            }
        }
    }

    fn leader_changed(&mut self, leader: Option<NodeId>) {
        if self.leader == leader {
            return;
        }
        self.leader = leader;
        for token in self.jobs.keys().copied().collect::<Vec<_>>() {
            let Some(job) = self.jobs.get(&token) else { continue };
            match job.place {
                Place::Parked => self.route(token),
                // A transfer is done when another node leads.
                Place::Transferring if leader.is_some_and(|leader| leader != self.local) => {
                    match job.request.plain() {
                        AdminRequest::Transfer { .. } => self.end(token, Ok(AdminReply::Done)),
                        _ => self.route(token),
                    }
                }
                // Reads and addresses have no effect, or the same one twice. The former leader may have begun
                // the others, and answers them: a leader that is removed hands its request over.
                Place::Forwarded { to } if Some(to) != leader => match job.request.plain() {
                    AdminRequest::Members | AdminRequest::SetAddresses { .. } => self.route(token),
                    _ => {}
                },
                _ => {}
            }
        }
    }

    fn unreachable(&mut self, peer: NodeId) {
        for token in self.jobs.keys().copied().collect::<Vec<_>>() {
            let Some(job) = self.jobs.get_mut(&token) else { continue };
            if matches!(job.origin, Origin::Peer { node, .. } if node == peer) && job.place == Place::Parked {
                self.jobs.remove(&token);
            } else if job.place == (Place::Forwarded { to: peer }) {
                self.end(token, Err(AdminError::Unknown));
            }
        }
    }

    /// Decides about a job, on the leader.
    fn inspected(&mut self, token: u64, group: &Group) {
        let Some(job) = self.jobs.get_mut(&token).filter(|job| job.place == Place::Inspecting) else {
            return;
        };
        match decision::decide(&job.request, group) {
            Err(error) => self.end(token, Err(error)),
            Ok(Decision::Done) => self.end(token, Ok(AdminReply::Done)),
            Ok(Decision::Members(list)) => self.end(token, Ok(AdminReply::Members(list))),
            Ok(Decision::Transfer { to }) => {
                job.place = Place::Transferring;
                self.outputs.push_back(Output::Transfer { to });
            }
            Ok(Decision::Steps(steps)) => {
                let fence = Fence { term: group.term, membership: group.membership.clone() };
                job.place = Place::Changing { steps: steps.into(), fence };
                self.next_step(token);
            }
        }
    }

    /// Begins the first of the remaining steps of a job, or ends it.
    fn next_step(&mut self, token: u64) {
        let Some(job) = self.jobs.get(&token) else { return };
        let Place::Changing { steps, fence } = &job.place else { return };
        let output = match steps.front().cloned() {
            None => return self.end(token, Ok(AdminReply::Done)),
            Some(Step::Member(change)) => Output::Propose { token, change },
            Some(Step::Membership(change)) => Output::Change { token, fence: fence.clone(), change },
        };
        self.outputs.push_back(output);
    }

    fn done(&mut self, now: Duration, token: u64, result: Result<(), StepError>) {
        let Some(job) = self.jobs.get_mut(&token) else { return };
        let Place::Changing { steps, .. } = &mut job.place else { return };
        match result {
            Ok(()) => {
                steps.pop_front();
                self.next_step(token);
            }
            // Nothing was done by this step, and the steps before it do no harm when they are repeated.
            Err(StepError::NotLeader | StepError::InProgress) => {
                job.place = Place::Parked;
                job.retry = Some(now.saturating_add(RETRY_PAUSE));
            }
            Err(StepError::Invalid) => self.end(token, Err(AdminError::InProgress)),
            Err(StepError::Full) => self.end(token, Err(AdminError::Full)),
            Err(StepError::Unknown) => self.end(token, Err(AdminError::Unknown)),
        }
    }

    fn expire(&mut self, now: Duration) {
        let due = |job: &Job| job.limit() <= now || job.retry.is_some_and(|at| at <= now);
        let tokens: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| due(job)).map(|(token, _)| *token).collect();
        for token in tokens {
            let Some(job) = self.jobs.get(&token) else { continue };
            if job.limit() > now {
                self.route(token);
                continue;
            }
            let error = match job.place {
                Place::Parked if job.retry.is_some() => AdminError::InProgress,
                Place::Parked => AdminError::NoLeader,
                _ => AdminError::Unknown,
            };
            self.end(token, Err(error));
        }
    }

    /// Whether the member table lacks the addresses of this member.
    fn must_announce(&self) -> bool {
        let Membership { voters, learners, .. } = &self.membership;
        let is_member = voters.contains(&self.local) || learners.contains(&self.local);
        let registered = self.members.get(self.local).map(|member| &member.addresses);
        self.leader.is_some() && is_member && registered != Some(&self.addresses)
    }

    fn announce(&mut self, now: Duration) {
        if self.announce_at.is_none_or(|at| at > now) || !self.must_announce() {
            return;
        }
        self.announce_at = Some(now.saturating_add(ANNOUNCE_PAUSE));
        if !self.jobs.values().any(|job| job.origin == Origin::Own) {
            let addresses = self.addresses.clone();
            self.begin(now, Origin::Own, AdminRequest::SetAddresses { node: self.local, addresses });
        }
    }

    fn end(&mut self, token: u64, result: Result<AdminReply, AdminError>) {
        if let Some(job) = self.jobs.remove(&token) {
            self.reply(job.origin, result);
        }
    }

    fn reply(&mut self, origin: Origin, result: Result<AdminReply, AdminError>) {
        match origin {
            Origin::Call { token } => self.outputs.push_back(Output::Reply { token, result }),
            Origin::Peer { node, number } => self.respond(node, number, result),
            // Tried again until the member table has them.
            Origin::Own => {}
        }
    }

    fn respond(&mut self, to: NodeId, number: u64, result: Result<AdminReply, AdminError>) {
        let payload = message::encode(&Message::Response { number, result });
        self.outputs.push_back(Output::Send { to, payload });
    }
}
