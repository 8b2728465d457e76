//! A ready healer for the nodes of a store on [`x0_kv`] (feature `kv`): it heals what Raft does not.
//!
//! Raft replaces a leader that is silent. It keeps one whose disk is slow, because heartbeats do not pass the
//! disk, and one whose process runs only part of the time, because some heartbeats arrive in time. It never
//! replaces a dead voter. Each node runs a [`Healer`]:
//!
//! | action | who decides | on what | needs |
//! |---|---|---|---|
//! | [`Act::Transfer`] | the leader, of itself | the age of its own writes, or the lateness of its own timers | a voter that is reached and does not lag; not for a slow disk if half of the other voters are slow too |
//! | [`Act::TakeOver`] | a follower | the silences of the leader | fresh suspicion of a majority of the voters, and the one successor that all select alike |
//! | [`Act::Replace`] | the leader | the silence of a voter, [`HealerOptions::replace_after`] | a claim, a learner that has caught up, a majority that does not reach the voter, and one that is reached afterwards |
//! | [`Act::Promote`] | the leader | fewer voters than [`HealerOptions::voters`] | a claim, a learner that has caught up, a majority of the voters after it that is reached |
//! | [`Act::Demote`] | the leader | more voters than that | a claim, a majority of the voters after it that is reached; of a dead voter also a majority that does not reach it |
//!
//! All guards of the [`Loop`] apply. A lost quorum is never forced back. [`load`] is a healer of its own, for
//! a node that more is asked of than it can serve.
//!
//! # Use
//! [`Healer`] is a protocol engine. Its driver takes an [`Observation`] every [`SAMPLE`], and carries out
//! each [`Output`]:
//!
//! ```
//! use std::time::Duration;
//! use x0_identity::NodeId;
//! use x0_mapek::Mode;
//! use x0_mapek::kv::{Healer, HealerOptions, Input, Observation, Output};
//!
//! let node = NodeId::new(1).ok_or("zero is no node")?;
//! let mut healer = Healer::new(node, &HealerOptions::new().mode(Mode::Active));
//! // In a program: Observation::of(&node), every 100 ms.
//! let observation = Observation::new(node);
//! healer.handle(Duration::from_millis(100), Input::Sample(&observation))?;
//! while let Some(output) = healer.poll_output() {
//!     match output {
//!         // node.transfer_leadership(to), then Input::Outcome
//!         Output::Transfer { .. } => {}
//!         // node.take_over(), then Input::Outcome
//!         Output::TakeOver { .. } => {}
//!         // an AdminRequest::Replace once `witnessed` agrees, then Input::Outcome
//!         Output::Replace { .. } => {}
//!         // an AdminRequest::Planned on these voters, then Input::Outcome
//!         Output::Promote { .. } | Output::Demote { .. } => {}
//!         // carry_out(store, ask), then Input::Stored
//!         Output::Ask(_) => {}
//!         // to the healers of these nodes, which pass it to Input::Received
//!         Output::Notify { .. } => {}
//!         Output::Record(record) => println!("{}", record.explain()),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod claims;
pub mod load;
#[cfg(test)]
mod model;
mod options;
mod samples;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;
use x0_kv::cluster::Node;

pub use self::action::{Act, ActionKind};
pub use self::claims::{Answer, Ask, KEYSPACE, carry_out};
use self::claims::{Claims, Next};
pub use self::options::HealerOptions;
pub use self::samples::SAMPLE;
use self::samples::Samples;
pub use self::view::{
    LEADER_GAPS, LEADER_SHARE, MISSING_VOTERS, Member, OwnCause, Place, SILENCE, STALLED_SHARE, STALLS,
    SURPLUS_VOTERS, View, WRITE_AGE,
};
use crate::diagnose::{Observer, OwnState, Sighting, Summary};
use crate::{Action as _, Command, HandleError, Loop, Reading, Record, WhyNot};

/// The entries by which the next leader or voter may lag.
const LAG_MAX: u64 = 1000;
/// The distance of two messages to the other healers.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What a node knows of itself and its group at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observation {
    /// This node.
    pub node: NodeId,
    /// The term of the node.
    pub term: u64,
    /// The leader, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last log index that it knows to be on a majority's disks.
    pub committed: u64,
    /// The voters.
    pub voters: BTreeSet<NodeId>,
    /// The learners.
    pub learners: BTreeSet<NodeId>,
    /// The other nodes that it reaches now.
    pub reached: BTreeSet<NodeId>,
    /// The highest index that each other member was seen to have acknowledged, by this node as a leader.
    pub acknowledged: BTreeMap<NodeId, u64>,
    /// Identifies the oldest write that is not on the disk yet: its time on any clock.
    pub writing_since: Option<Duration>,
    /// Identifies the last message of another node that leads: its time on any clock.
    pub leader_last_message: Option<Duration>,
    /// The members that do not answer, each with those that accuse it, by the detectors of
    /// [`suspicion`](crate::suspicion). A transport takes longer to notice a process that is gone. The driver
    /// sets them.
    pub suspects: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// How long each of them has been silent ([`silent_since`](crate::suspicion::Suspect::silent_since)):
    /// longer than it has been suspect. Two seconds count at most. The driver sets them.
    pub silent: BTreeMap<NodeId, Duration>,
}

impl Observation {
    /// An observation of a node that knows nothing yet.
    #[must_use]
    pub fn new(node: NodeId) -> Observation {
        Observation {
            node,
            term: 0,
            leader: None,
            committed: 0,
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            reached: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            writing_since: None,
            leader_last_message: None,
            suspects: BTreeMap::new(),
            silent: BTreeMap::new(),
        }
    }

    /// What a running node knows now.
    #[must_use]
    pub fn of(node: &Node) -> Observation {
        let status = node.status();
        Observation {
            node: status.node,
            term: status.term,
            leader: status.leader,
            committed: status.committed,
            voters: status.membership.voters,
            learners: status.membership.learners,
            reached: status.reached,
            acknowledged: status.acknowledged,
            writing_since: node.writing_since(),
            leader_last_message: node.leader_last_message(),
            suspects: BTreeMap::new(),
            silent: BTreeMap::new(),
        }
    }

    /// Whether a voter is silent: it is not reached, or a majority of the voters accuses it.
    fn is_silent(&self, voter: NodeId) -> bool {
        let accusers = self.suspects.get(&voter).into_iter().flatten();
        let count = accusers.filter(|accuser| self.voters.contains(accuser)).count();
        !self.reached.contains(&voter) || count * 2 > self.voters.len()
    }

    /// Of these members, the one that is reached and whose log lags least, if it lags little.
    fn best(&self, members: &BTreeSet<NodeId>) -> Option<NodeId> {
        let others = members.iter().filter(|member| **member != self.node);
        let reached = others.filter(|member| self.reached.contains(member));
        let indexes = reached.filter_map(|member| Some((*self.acknowledged.get(member)?, *member)));
        indexes.filter(|(index, _)| index + LAG_MAX >= self.committed).max().map(|(_, member)| member)
    }

    /// The place of the node in its group, if it is another one than before.
    fn place(&self, before: &Place) -> Option<Place> {
        let (heir, spare) = (self.best(&self.voters), self.best(&self.learners));
        let is_same = (before.leader, before.term, before.heir, before.spare)
            == (self.leader, self.term, heir, spare)
            && before.voters == self.voters
            && before.reached == self.reached;
        (!is_same).then(|| Place {
            is_leader: self.leader == Some(self.node),
            leader: self.leader,
            term: self.term,
            heir,
            spare,
            voters: self.voters.clone(),
            reached: self.reached.clone(),
        })
    }
}

/// An input of a [`Healer`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// What the node knows now. Every [`SAMPLE`].
    Sample(&'a Observation),
    /// A message of the healer of another node: see [`Output::Notify`]. What is no message is ignored.
    Received {
        /// The node, whose identity the transport has verified.
        from: NodeId,
        /// Its bytes.
        message: &'a [u8],
    },
    /// The answer to an [`Output::Ask`].
    Stored(Answer),
    /// The result of [`Output::Transfer`], [`Output::TakeOver`], [`Output::Replace`], [`Output::Promote`] or
    /// [`Output::Demote`].
    Outcome {
        /// The number of the action.
        id: u64,
        /// Why it was not carried out.
        result: Result<(), String>,
    },
    /// An order of an operator.
    Command(Command<Member>),
}

/// An output of a [`Healer`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Hand the leadership over, and pass the outcome back.
    Transfer {
        /// The number of the action.
        id: u64,
        /// The next leader.
        to: NodeId,
    },
    /// Campaign although there is a leader, and pass the outcome back.
    TakeOver {
        /// The number of the action.
        id: u64,
    },
    /// Replace a voter if [`witnessed`] agrees, and pass the outcome back.
    Replace {
        /// The number of the action.
        id: u64,
        /// The dead voter.
        dead: NodeId,
        /// The learner that takes its place.
        spare: NodeId,
    },
    /// Make a learner a voter if the voters are these, and pass the outcome back.
    Promote {
        /// The number of the action.
        id: u64,
        /// The learner.
        spare: NodeId,
        /// The voters on which the action was planned.
        voters: BTreeSet<NodeId>,
    },
    /// Make a voter a learner if the voters are these, of a dead one if [`witnessed`] agrees as well, and
    /// pass the outcome back.
    Demote {
        /// The number of the action.
        id: u64,
        /// The voter.
        voter: NodeId,
        /// Whether it is dead.
        is_dead: bool,
        /// The voters on which the action was planned.
        voters: BTreeSet<NodeId>,
    },
    /// Ask the store, and pass the answer back as [`Input::Stored`].
    Ask(Ask),
    /// Send these bytes to the healers of these nodes. A lost message is followed by the next.
    Notify {
        /// The other voters.
        to: Vec<NodeId>,
        /// A [`Summary`].
        message: Vec<u8>,
    },
    /// A decision or finding, to be kept.
    Record(Box<Record>),
}

/// The healer of one node: the [`Loop`] with its readings, claims and messages.
#[derive(Debug)]
pub struct Healer {
    engine: Loop<View, Act>,
    samples: Samples,
    claims: Claims,
    /// The messages that were sent, and the time of the last one.
    told: (u64, Option<Duration>),
    /// The leader and the term of the last sample.
    leader: (Option<NodeId>, u64),
    outputs: VecDeque<Output>,
    sampled: Option<Duration>,
}

impl Healer {
    /// A healer that knows nothing yet.
    #[must_use]
    pub fn new(node: NodeId, options: &HealerOptions) -> Healer {
        Healer {
            engine: options.engine(node, true),
            samples: Samples::default(),
            claims: Claims::new(node),
            told: (0, None),
            leader: (None, 0),
            outputs: VecDeque::new(),
            sampled: None,
        }
    }

    /// The loop, with its state and its knowledge.
    #[must_use]
    pub fn engine(&self) -> &Loop<View, Act> {
        &self.engine
    }

    /// Why nothing is done about a node.
    pub fn why_not(&mut self, now: Duration, node: NodeId) -> WhyNot {
        self.engine.why_not(now, &Member(node))
    }

    /// Takes an input at `now`, a time since any origin.
    ///
    /// # Errors
    /// See [`HandleError`]: only a command or an outcome is refused. Nothing has changed then.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) -> Result<(), HandleError> {
        let result = match input {
            Input::Sample(observation) => {
                self.sample(now, observation);
                Ok(())
            }
            Input::Received { from, message } => {
                self.heard(now, from, message);
                Ok(())
            }
            Input::Stored(answer) => {
                let next = self.claims.answer(now, answer);
                self.follow(now, next);
                Ok(())
            }
            Input::Outcome { id, result } => self.engine.handle(now, crate::Input::Outcome { id, result }),
            Input::Command(command) => self.engine.handle(now, crate::Input::Command(command)),
        };
        self.work(now);
        result
    }

    /// The next output; `None` when everything is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the next [`Input::Sample`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.sampled.map_or(Duration::ZERO, |sampled| sampled.saturating_add(SAMPLE))
    }

    fn sample(&mut self, now: Duration, observation: &Observation) {
        self.sampled = Some(now);
        let node = observation.node;
        let other = observation.leader.filter(|leader| *leader != node);
        if (observation.leader, observation.term) != self.leader {
            self.leader = (observation.leader, observation.term);
            self.samples.forget_leader();
        }
        if let Some(place) = observation.place(self.engine.knowledge().place()) {
            self.engine.knowledge_mut().set(place);
        }
        let heard = observation.leader_last_message.filter(|_| other.is_some());
        let sample = self.samples.take(now, observation.writing_since, heard);
        let own = [
            (node, STALLS, f64::from(sample.stalls)),
            (node, STALLED_SHARE, sample.stalled_share),
            (node, WRITE_AGE, sample.write_age.as_secs_f64()),
        ];
        let counts = self.engine.knowledge().voter_counts();
        let counts = counts.into_iter().flatten().map(|(signal, count)| (node, signal, count));
        let others = observation.voters.iter().copied().filter(|voter| *voter != node);
        let reached = |voter| !observation.is_silent(voter);
        let silences = self.samples.silences(now, others, reached, &observation.silent);
        let silences = silences.into_iter().map(|(voter, silent)| (voter, SILENCE, silent.as_secs_f64()));
        let leader = other.map(|leader| {
            let gaps = (leader, LEADER_GAPS, f64::from(sample.leader_gaps));
            [gaps, (leader, LEADER_SHARE, sample.leader_share)]
        });
        let own = own.into_iter().chain(counts);
        for (subject, signal, value) in own.chain(leader.into_iter().flatten()).chain(silences) {
            // Time does not run backwards, and what is out of range is refused and counted by the loop.
            let reading = Reading { subject: Member(subject), signal, value };
            let _ = self.engine.handle(now, crate::Input::Reading(reading));
        }
        self.tell(now, observation, sample.write_age);
        let engine = &self.engine;
        let next = self.claims.tick(now, |id| engine.in_flight().any(|(flight, _)| flight == id));
        self.follow(now, next);
    }

    /// Notifies the other voters of what they cannot see: that the writes of this node wait for its disk, and
    /// that the leader runs only part of the time as seen from here. Otherwise nothing is sent.
    fn tell(&mut self, now: Duration, observation: &Observation, write_age: Duration) {
        let view = self.engine.knowledge();
        let suspect = view.leader_cause(now);
        let is_pressed = view.is_pressed(write_age);
        let is_early = self.told.1.is_some_and(|last| now.saturating_sub(last) < TELL_EVERY);
        if is_early || !is_pressed && suspect.is_none() {
            return;
        }
        self.told = (self.told.0 + 1, Some(now));
        let durable_age = if is_pressed { write_age } else { Duration::ZERO };
        let own = OwnState { durable_age, ..OwnState::default() };
        let mut summary = Summary::new(Observer::Member(observation.node.get()), self.told.0).own(own);
        if let Some((leader, _)) = suspect {
            // The gaps are the calls of the leader that did not come in time.
            let gaps = view.reading(leader, LEADER_GAPS).unwrap_or_default();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            let sighting = Sighting { timeouts: gaps as u32, ..Sighting::default() };
            summary = summary.sighting(leader.get(), sighting);
        }
        let to = observation.voters.iter().copied().filter(|voter| *voter != observation.node).collect();
        self.outputs.push_back(Output::Notify { to, message: summary.to_bytes() });
    }

    /// What the healer of another node says of that node, and of the leader.
    fn heard(&mut self, now: Duration, from: NodeId, message: &[u8]) {
        let Ok(summary) = Summary::from_bytes(message) else { return };
        // A node speaks for itself alone.
        if summary.observer != Observer::Member(from.get()) {
            return;
        }
        let view = self.engine.knowledge_mut();
        view.heard(now, from, summary.own.durable_age);
        let suspects = summary.sightings().iter().filter(|(_, sighting)| sighting.timeouts > 0);
        for leader in suspects.filter_map(|(leader, _)| NodeId::new(*leader)) {
            view.suspected(now, from, leader);
        }
    }

    /// Turns what the loop decided into outputs.
    fn work(&mut self, now: Duration) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                crate::Output::Claim { id, action } => {
                    let next = match action {
                        // What needs no claim: see the table of the module. The term is the fence.
                        Act::Transfer { .. } | Act::TakeOver { .. } => {
                            Next::Decided { id, fence: Some(self.engine.knowledge().place().term) }
                        }
                        Act::Replace { .. } | Act::Promote { .. } | Act::Demote { .. } => {
                            self.claims.claim(id, action.kind(), &format!("{:?}", action.subject()))
                        }
                    };
                    self.follow(now, next);
                }
                crate::Output::Execute {
                    id,
                    action: Act::Replace { .. } | Act::Promote { .. } | Act::Demote { .. },
                    fence,
                } => {
                    let next = self.claims.execute(id, fence);
                    self.follow(now, next);
                }
                crate::Output::Execute { id, action, .. } | crate::Output::Undo { id, action, .. } => {
                    self.execute(id, action);
                }
                crate::Output::Record(record) => self.outputs.push_back(Output::Record(record)),
                // The record says the same.
                crate::Output::Approve { .. } | crate::Output::Escalate { .. } => {}
            }
        }
    }

    fn execute(&mut self, id: u64, action: Act) {
        let voters = self.engine.knowledge().place().voters.clone();
        self.outputs.push_back(match action {
            Act::Transfer { to, .. } => Output::Transfer { id, to },
            Act::TakeOver { .. } => Output::TakeOver { id },
            Act::Replace { dead: Member(dead), spare } => Output::Replace { id, dead, spare },
            Act::Promote { spare: Member(spare) } => Output::Promote { id, spare, voters },
            Act::Demote { voter: Member(voter), is_dead } => Output::Demote { id, voter, is_dead, voters },
        });
    }

    /// Does what follows from a claim.
    fn follow(&mut self, now: Duration, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Ask(ask) => self.outputs.push_back(Output::Ask(ask)),
            Next::Decided { id, fence } => {
                // The loop has given up on a claim that took too long.
                let _ = self.engine.handle(now, crate::Input::Claim { id, fence });
            }
            Next::Begin { id, result: Ok(()) } => {
                let action = self.engine.in_flight().find(|(flight, _)| *flight == id);
                let Some(action) = action.map(|(_, action)| *action) else { return };
                // The group may have changed while the claim was made.
                let view = self.engine.knowledge();
                match action.precondition(view).and_then(|()| action.is_safe(view)) {
                    Ok(()) => self.execute(id, action),
                    Err(reason) => {
                        let result = Err(reason.into_owned());
                        // The loop has given up on it too.
                        let _ = self.engine.handle(now, crate::Input::Outcome { id, result });
                    }
                }
            }
            Next::Begin { id, result } => {
                // The loop has given up on it too.
                let _ = self.engine.handle(now, crate::Input::Outcome { id, result });
            }
        }
    }
}

/// Whether a majority of the voters does not reach a dead voter: this node, and those of `answers`, each with
/// its node and whether that reaches the voter.
///
/// # Errors
/// The reason why the voter must not be replaced.
pub fn witnessed(
    voters: &BTreeSet<NodeId>,
    answers: impl Iterator<Item = (NodeId, bool)>,
) -> Result<(), String> {
    let mut witnesses = 1;
    for (node, is_reached) in answers {
        if is_reached {
            return Err(format!("node {node} reaches it"));
        }
        witnesses += 1;
    }
    match witnesses * 2 > voters.len() {
        true => Ok(()),
        false => Err(format!("only {witnesses} of {} voters say that it is not reached", voters.len())),
    }
}

/// The messages of an error and its causes, each once: some messages already contain that of their cause.
fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
