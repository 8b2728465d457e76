//! The protocol engine: one member of a Raft group.

mod degraded;
mod events;
mod fence;
mod incarnations;
mod pace;
mod pump;
mod reads;
mod receive;
mod send;
mod traces;
mod validate;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft::{ProgressState, RawNode, StateRole};
use x0_identity::NodeId;

pub use self::events::{Class, DropReason, FailReason, HandleError, Input, Output, StageStep};
pub use self::fence::{Fence, FencedRequest};
pub use self::incarnations::{Acknowledged, Standing};
use self::incarnations::{Founding, Incarnations};
use self::pump::Flight;
use self::reads::Reads;
use self::receive::Receiving;
use self::send::Sending;
pub(crate) use self::traces::TracedEntry;
use self::traces::Traces;
use self::view::{View, to_raft_hard_state};
use crate::entry::{Entry, HardState, LogBase, Membership, SnapshotMeta};
use crate::membership::from_conf_state;
use crate::options::Options;
use crate::random::SplitMix64;
use crate::storage::{Recovered, Write};
use crate::trace::Context;

/// How often a replica asks for votes again after a few ticks: longer, on average, than the lease of the
/// others lasts, whatever the phases of their ticks are.
const ASK_AGAIN_MAX: u32 = 6;
/// The longest pause before it asks again, in ticks.
const ASK_AGAIN_TICKS_MAX: u64 = 3;

/// One member of a Raft group. A protocol engine: it owns no socket, file, clock, thread or random source.
///
/// # The drain contract
///
/// 1. Feed inputs to [`handle`](Replica::handle): messages, requests, and the results of its outputs. `now`
///    is the time since any origin and never goes back.
/// 2. Call [`poll_output`](Replica::poll_output) until it returns `None`. Outputs are made while they are
///    drained, so that many inputs before one draining make one append and one message of many proposals.
/// 3. Feed [`Input::Timeout`] once [`poll_timeout`](Replica::poll_timeout) has come. A later time is allowed,
///    and counts as a pause.
///
/// Outputs of one kind are carried out in their order; appending, applying and copying snapshots may run side
/// by side. The results ([`Input::Persisted`], [`Input::Applied`] and so on) may arrive at any later time, in
/// the order of the outputs. Only an [`Output::Send`] may be dropped.
/// [`driver::Executor`](crate::driver::Executor) keeps this contract for a driver.
///
/// An error of `handle` documents its effect; all errors but [`HandleError::Failed`] leave the replica
/// unchanged.
///
/// # Degraded paths
/// A transport may keep the connection to a silent peer, because its path may heal:
/// [`Input::Degraded`]. A follower then waits one election timeout longer for its leader, and a leader counts
/// the peer as active in one more check of its quorum, so that a leader on a degraded path is not deposed at
/// once. A message of the peer or [`Input::Unreachable`] ends this grace. It has an effect only if the
/// transport reports the silence before the election timeout, and it concerns timers only: the guarantees of
/// Raft do not depend on them.
///
/// # Incarnations
/// Raft assumes that a member never loses what it has acknowledged. A member whose log was emptied or rolled
/// back, and that votes on under its id, makes a majority of members without an entry that a majority had
/// acknowledged: the entry is lost (amnesia). With [`Options::incarnation`] a replica knows whether its log
/// is the one that the group counts on:
///
/// - The incarnation is a random number that belongs to the log and is lost with it. The membership, which is
///   part of the replicated log, has the registered incarnation of each member.
/// - **Founding.** A founder with an empty log asks the other founders first. The group is founded when all
///   of them have answered with empty logs, and the incarnations of all are registered with it. If one of
///   them knows the group, this founder has lost its log.
/// - **Votes.** A replica whose incarnation is not the registered one does not campaign and grants no vote
///   and no pre-vote. A candidate names in each message which incarnation of the receiver it knows, and the
///   knowledge of the later entry decides.
/// - **Acknowledgements.** A leader reduces the acknowledgements of such a member to the commit index, so
///   that they control the flow of entries and commit none. Its heartbeat responses confirm no read and do
///   not keep the leader in office.
/// - **Return.** When the member has caught up, the leader registers its incarnation with an entry. That
///   entry is committed by a majority of the voters without the returned one. The member votes once it has
///   applied it. The number of voters is the same at every moment. Every member makes the commit index of
///   the entry durable when it applies it, so that the registration is known after a restart of all.
///
/// No entry is lost: let *m* of *n* voters be a majority. An entry that was committed with the
/// acknowledgement of the lost log is on *m* - 1 other voters. The registration is on *m* other voters, and
/// any *m* of the *n* - 1 others have one in common with those *m* - 1. So the leader of the registration has
/// the entry, or was not elected; and a candidate without the registration, which might lack the entry, needs
/// a vote of one that has it and refuses. For the same reason no second leader comes from a vote that the
/// lost log had granted and the new one grants again.
///
/// While too many voters have lost their logs at once, no registration is committed: the group has no leader,
/// and [`Standing`] says why. Limits:
///
/// - The only voter of a group cannot know that its log was emptied. Of two voters, one that was emptied is
///   registered only while the other one stays the leader.
/// - If all founders have lost their logs, they found a new group.
/// - A log that is rolled back together with its incarnation and its fingerprints (a snapshot of a whole
///   disk) is detected only by members that saw, as a leader, what it had acknowledged
///   ([`Replica::acknowledged`]); it stops with [`FailReason::LogLost`].
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use x0_consensus::{Options, Input, MemoryStorage, NodeId, Output, Replica, Storage};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id = NodeId::new(1).ok_or("zero")?;
/// let mut storage = MemoryStorage::new();
/// let mut replica = Replica::new(Options::new(id).bootstrap([id]), storage.recover()?, &[], 0, Duration::ZERO)?;
/// let (mut applied, mut proposed) = (Vec::new(), false);
/// let mut now = Duration::ZERO;
/// while applied.is_empty() {
///     now = replica.poll_timeout().unwrap_or(now);
///     replica.handle(now, Input::Timeout)?;
///     if replica.is_leader() && !proposed {
///         replica.handle(now, Input::Propose { token: 7, payload: Bytes::from("hello"), trace: None })?;
///         proposed = true;
///     }
///     while let Some(output) = replica.poll_output() {
///         match output {
///             Output::Append { number, write } => {
///                 storage.write(&[write])?;
///                 replica.handle(now, Input::Persisted { number })?;
///             }
///             Output::Apply { entries, proposals } => {
///                 let index = entries.last().map_or(0, |entry| entry.index);
///                 applied.extend(proposals);
///                 replica.handle(now, Input::Applied { index })?;
///             }
///             _ => {}
///         }
///     }
/// }
/// assert_eq!(applied[0].1, 7);
/// # Ok(())
/// # }
/// ```
pub struct Replica {
    options: Options,
    node: RawNode<View>,
    outputs: VecDeque<Output>,
    /// The time of the next tick.
    tick_at: Duration,
    failed: Option<FailReason>,
    /// Whether `handle` has returned the failure.
    is_failure_returned: bool,

    /// Writes that are not persisted, oldest first.
    flights: VecDeque<Flight>,
    writes: u64,
    /// A commit index that will be written with the next write.
    unwritten: Option<HardState>,
    /// The term and vote that were written last, and the number of that write.
    vote: (u64, Option<NodeId>),
    vote_write: u64,

    /// Proposals of this replica that are not committed: term, index, token. Ascending.
    proposals: VecDeque<(u64, u64, u64)>,
    reads: Reads,

    /// Memberships since the base: each is valid from its index on.
    memberships: VecDeque<(u64, Membership)>,
    applied: u64,
    /// The last index that was handed out to be applied.
    handed: u64,
    /// The batches that are handed out and not applied: last index, and when they were handed out. Ascending.
    applying: VecDeque<(u64, Duration)>,
    /// How long the last write took to become durable, and the last batch to be applied.
    write_latency: Option<Duration>,
    apply_latency: Option<Duration>,
    leader: Option<NodeId>,
    role: StateRole,
    /// When each member sent its last valid message.
    last_messages: BTreeMap<NodeId, Duration>,
    /// The ticks without a message of the leader, of those that `raft` does not see.
    silent_ticks: u32,
    /// How often it has asked for votes again after a few ticks, since it last followed a leader or stood for
    /// election.
    asked_again: u32,
    /// Members on degraded paths, and whether each has counted as active since.
    degraded: BTreeMap<NodeId, bool>,
    term: u64,

    fetching: Option<view::Wanted>,
    transfers: u64,
    sending: Vec<Sending>,
    /// Members that have received a snapshot and have not caught up since, with its index.
    continuing: BTreeMap<NodeId, u64>,
    /// The time of the last input.
    now: Duration,
    receiving: Option<Receiving>,
    /// The snapshot that is installed and that the state machine has not restored.
    restoring: Option<u64>,

    /// Payload bytes appended since the last checkpoint was requested.
    log_grown: usize,
    /// Payload bytes of the log that a checkpoint covers and that a member still needs.
    log_kept: usize,
    checkpointing: bool,
    saving: Option<u64>,

    incarnations: Incarnations,
    /// The position of a snapshot on its way through `raft`, which carries no incarnations.
    arriving: Option<SnapshotMeta>,
    traces: Traces,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.options.id)
            .field("term", &self.term)
            .field("leader", &self.leader)
            .field("last", &self.node.raft.raft_log.last_index())
            .field("commit", &self.node.raft.raft_log.committed)
            .field("applied", &self.applied)
            .field("membership", &self.memberships.back())
            .field("base", &self.node.raft.raft_log.store.base.index)
            .field("sending", &self.sending)
            .field("receiving", &self.receiving)
            .finish_non_exhaustive()
    }
}

/// The state of a replica, and what it knows about its group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The id of the replica.
    pub id: NodeId,
    /// The term of the replica.
    pub term: u64,
    /// The leader of that term, if it knows one.
    pub leader: Option<NodeId>,
    /// The last index of its log.
    pub last_index: u64,
    /// The last index it knows to be committed.
    pub commit_index: u64,
    /// The last index its state machine has applied.
    pub applied_index: u64,
    /// The membership.
    pub membership: Membership,
    /// The index of the entry that made the membership, or of the base of the log before the first such
    /// entry. Two replicas with one index have one membership.
    pub membership_index: u64,
    /// When the oldest write that is not durable yet was handed out, on the clock of [`Replica::handle`].
    /// A log on a slow disk is seen here first: heartbeats do not wait for the disk.
    pub writing_since: Option<Duration>,
    /// When the last message of the leader arrived, on the clock of [`Replica::handle`]; `None` for the
    /// leader itself, and before the first message. A leader that runs only part of the time is seen here by
    /// its followers: some of its heartbeats arrive in time.
    pub leader_last_message: Option<Duration>,
    /// When the last valid message of each other member arrived at this replica, leader or not, on the clock
    /// of [`Replica::handle`]. A member without an entry has sent none to this process. Followers exchange
    /// messages at elections only, so that the silence of a follower means nothing to another one.
    pub last_messages: BTreeMap<NodeId, Duration>,
    /// How long the last durable write took, from when it was handed out; `None` before the first.
    pub write_latency: Option<Duration>,
    /// How long the state machine took for the last batch that it applied, from when the batch was handed
    /// out; `None` before the first.
    pub apply_latency: Option<Duration>,
    /// Whether it may vote and acknowledge.
    pub standing: Standing,
    /// See [`Replica::acknowledged`].
    pub acknowledged: BTreeMap<NodeId, Acknowledged>,
}

impl Status {
    /// The state on which a request may be planned.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { term: self.term, membership: self.membership.clone() }
    }

    /// The age of the oldest write that is not durable, at `now`; zero without one.
    #[must_use]
    pub fn write_age(&self, now: Duration) -> Duration {
        self.writing_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// The progress of a member, as its leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberProgress {
    /// The member.
    pub id: NodeId,
    /// The last index that is known to be durable on the member.
    pub matched_index: u64,
    /// How the leader replicates to the member.
    pub replication: Replication,
    /// When the leader received the last message of the member, on the clock of [`Replica::handle`]; `None`
    /// if it received none in this process.
    pub last_message: Option<Duration>,
    /// Whether its acknowledgements count. Otherwise it has another log than the registered one, and is
    /// registered when it has caught up.
    pub is_counted: bool,
}

/// How a leader replicates to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replication {
    /// One message at a time, until the leader knows where the logs match.
    Probe,
    /// A pipeline of entries: the usual state.
    Replicate,
    /// A snapshot is being sent, or is being opened for the member.
    Snapshot,
}

/// A replica cannot start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state machine lacks entries that the log no longer holds, and there is no snapshot.
    #[error(
        "the state machine has lost its state: it is at index {durable}, the log starts after {base} and there is no \
         snapshot; move the whole folder away and let this member rejoin with an empty one"
    )]
    StateLost {
        /// The durable index of the state machine.
        durable: u64,
        /// The base of the log.
        base: u64,
    },
    /// The log lacks entries that the state machine has applied.
    #[error(
        "the log has lost entries: the state machine is at index {durable}, the log ends at {last}; move the whole folder \
         away and let this member rejoin with an empty one"
    )]
    LogLost {
        /// The durable index of the state machine.
        durable: u64,
        /// The last index of the log.
        last: u64,
    },
    /// The entries are not those of [`Recovered::unapplied`].
    #[error(
        "the entries are not the ones that the state machine lacks: read the range of `Recovered::unapplied` from the storage"
    )]
    Unapplied,
    /// The options are out of bounds.
    #[error("the options of the replica are out of bounds: {reason}")]
    Options {
        /// The bound.
        reason: &'static str,
    },
}

impl Replica {
    /// Makes a replica that continues from the contents of its storage, with a state machine whose durable
    /// index is `durable_index`. `unapplied` are the entries of [`Recovered::unapplied`].
    ///
    /// The first output may be an [`Output::Restore`] of the storage's snapshot. The only voter of a group
    /// campaigns at once.
    ///
    /// # Errors
    /// When log and state machine do not fit together, or the options are out of bounds.
    pub fn new(
        options: Options,
        recovered: Recovered,
        unapplied: &[Entry],
        durable_index: u64,
        now: Duration,
    ) -> Result<Replica, StartError> {
        let wrong = |reason| Err(StartError::Options { reason });
        if options.tick.is_zero() {
            return wrong("tick is longer than 0");
        }
        if options.heartbeat_ticks == 0 || options.election_ticks <= options.heartbeat_ticks {
            return wrong("election_ticks is greater than heartbeat_ticks, which is at least 1");
        }
        if options.chunk_len == 0
            || options.chunk_len > crate::codec::CHUNK_LEN_MAX
            || options.chunks_in_flight_max == 0
        {
            return wrong("chunk_len is between 1 byte and 1 MiB, and chunks_in_flight_max at least 1");
        }
        if options.message_len_max > crate::codec::MESSAGE_LEN_MAX / 2 {
            return wrong("message_len_max is at most 8 MiB");
        }
        if options.uncommitted_len_max < options.message_len_max {
            return wrong("uncommitted_len_max is at least message_len_max");
        }
        let is_new = recovered.is_new();
        let wanted = recovered.unapplied(durable_index);
        let Recovered { mut hard_state, mut base, last_index, term_runs, membership_entries, snapshot } =
            recovered;
        // Only an empty storage is bootstrapped: founders that are set again after a restart must not replace
        // the membership of the log.
        let (id, incarnation) = (options.id, options.incarnation);
        let is_unfounded = base.membership.is_empty()
            && last_index == 0
            && snapshot.is_none()
            && !options.bootstrap.is_empty();
        let mut founding = None;
        if is_unfounded && incarnation == 0 {
            if is_new {
                base.membership = options.bootstrap.clone();
            }
        } else if is_unfounded && options.bootstrap.nodes().all(|founder| founder == id) {
            base.membership = incarnations::founded(&options.bootstrap, &BTreeMap::from([(id, incarnation)]));
        } else if is_unfounded {
            founding = Some(Founding::new(id, incarnation));
        }
        let is_founded = is_unfounded && !base.membership.is_empty();
        // A state machine that lacks entries before the snapshot starts from the snapshot.
        let restore = snapshot.filter(|meta| meta.index > durable_index);
        let applied = restore.as_ref().map_or(durable_index, |meta| meta.index);
        // The entries between the state and the base are lost: applying the later ones would give another
        // state than on other members.
        if applied < base.index {
            return Err(StartError::StateLost { durable: durable_index, base: base.index });
        }
        // The state machine has applied entries that the log no longer has: this member has acknowledged them
        // and could now vote for a leader without them.
        if applied > last_index {
            return Err(StartError::LogLost { durable: durable_index, last: last_index });
        }
        if !unapplied.iter().map(|entry| entry.index).eq(wanted) {
            return Err(StartError::Unapplied);
        }
        // The commit index is written without a synchronisation, so that a crash may lose its newest value:
        // applied entries were committed.
        hard_state.commit = hard_state.commit.clamp(applied, last_index.max(applied));

        let raft_state = to_raft_hard_state(&hard_state);
        let mut view = View::new(base.clone(), term_runs, last_index);
        view.initial.hard_state = raft_state;
        // raft reads committed entries synchronously when it hands them out, so that all unapplied ones must
        // be in memory.
        view.preload(unapplied);
        let Some(node) = make_raft(&options, view, applied) else {
            return wrong("raft refuses the combination of times and lengths");
        };
        let acknowledged = options.acknowledged.clone();
        let mut replica = Replica {
            tick_at: now + options.tick,
            term: hard_state.term,
            options,
            node,
            outputs: VecDeque::new(),
            failed: None,
            is_failure_returned: false,
            flights: VecDeque::new(),
            writes: 0,
            unwritten: None,
            vote: (hard_state.term, hard_state.vote),
            vote_write: 0,
            proposals: VecDeque::new(),
            reads: Reads::default(),
            memberships: VecDeque::from([(base.index, base.membership.clone())]),
            applied,
            handed: applied,
            applying: VecDeque::new(),
            write_latency: None,
            apply_latency: None,
            leader: None,
            role: StateRole::Follower,
            last_messages: BTreeMap::new(),
            silent_ticks: 0,
            asked_again: 0,
            degraded: BTreeMap::new(),
            fetching: None,
            transfers: 0,
            sending: Vec::new(),
            continuing: BTreeMap::new(),
            now: Duration::ZERO,
            receiving: None,
            restoring: None,
            log_grown: 0,
            log_kept: 0,
            checkpointing: false,
            saving: None,
            incarnations: Incarnations { founding, acknowledged, ..Incarnations::default() },
            arriving: None,
            traces: Traces::default(),
        };
        replica.replay(&membership_entries, applied);
        // The founders are durable before any message: without them it could found a second group after a
        // crash.
        if is_founded {
            replica.append(Write { base: Some(base), ..Write::default() }, None, Vec::new());
        }
        // The snapshot comes before the entries after it, which are handed out once it is restored.
        if let Some(meta) = restore {
            replica.restoring = Some(meta.index);
            replica.outputs.push_back(Output::Restore { meta });
        }
        replica.draw_election_time();
        replica.tick_incarnations();
        let membership = replica.status().membership;
        if membership.voters.len() == 1
            && membership.voters.contains(&replica.options.id)
            && !membership.is_joint()
        {
            // No other member can lead, so that an election timeout would only delay the start.
            let _ = replica.contain(|replica| {
                let _ = replica.node.campaign();
                Ok(())
            });
        }
        Ok(replica)
    }

    /// Brings the membership up to the applied index.
    fn replay(&mut self, membership_entries: &[Entry], applied: u64) {
        for entry in membership_entries.iter().filter(|entry| entry.index <= applied) {
            self.apply_membership(entry);
        }
    }

    /// Takes one input.
    ///
    /// # Errors
    /// See [`HandleError`]: only [`HandleError::Failed`] is final.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        // After a failure the state of raft is not trusted, and nothing more is derived from it.
        if let Some(reason) = self.failed {
            self.is_failure_returned = true;
            return Err(HandleError::Failed(reason));
        }
        let result = self.contain(|replica| replica.take(now, input));
        self.is_failure_returned = self.failed.is_some();
        self.draw_election_time();
        result
    }

    fn take(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        self.now = now;
        match input {
            Input::Timeout => self.elapse(now),
            Input::Message { from, payload } => {
                self.receive(from, payload)?;
                // Only members: their number is bounded, that of other senders is not.
                if self.node.raft.prs().get(from.get()).is_some() {
                    self.last_messages.insert(from, now);
                    self.degraded.remove(&from);
                }
            }
            Input::Propose { token, payload, trace } => self.propose(token, payload, trace),
            Input::ReadIndex { token } => self.read_index(token),
            Input::ChangeMembership { token, change } => self.change_membership(token, &change),
            Input::TransferLeadership { to } => self.transfer_leadership(to),
            Input::TakeOver => self.take_over(),
            Input::Fenced { token, fence, request } => self.fenced(token, &fence, request),
            Input::Persisted { number } => self.persisted(number),
            Input::Applied { index } => self.mark_applied(index),
            Input::Fetched { entries } => self.fetched(&entries),
            Input::SnapshotOpened { transfer, index } => self.snapshot_opened(transfer, index),
            Input::ChunkRead { transfer, bytes, last } => self.chunk_read(transfer, bytes, last),
            Input::SnapshotClosed { transfer } => self.abort_sending(transfer),
            Input::Staged { transfer, ok } => self.staged(transfer, ok)?,
            Input::Restored { index } => self.restored(index),
            Input::Checkpointed { index } => self.checkpointed(index),
            Input::SnapshotSaved { meta } => self.snapshot_saved(meta),
            Input::Unreachable { peer } => {
                self.degraded.remove(&peer);
                self.node.report_unreachable(peer.get());
            }
            Input::Degraded { peer } => self.path_degraded(peer),
            Input::Negotiated { peer, version } => {
                self.traces.negotiated(peer, version >= crate::CONTEXTS_PROTOCOL);
            }
        }
        Ok(())
    }

    /// The reason why it cannot continue, if it cannot.
    pub(crate) fn failure(&self) -> Option<FailReason> {
        self.failed
    }

    /// The progress of the other members, by id; empty unless this replica is the leader. It shows whether a
    /// learner has caught up, and whether a member can be removed without losing the majority.
    #[must_use]
    pub fn progress(&self) -> Vec<MemberProgress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let mut members: Vec<_> = self
            .node
            .raft
            .prs()
            .iter()
            .filter_map(|(id, progress)| {
                let id = NodeId::new(*id).filter(|id| *id != self.options.id)?;
                let is_sending = self.sending.iter().any(|sending| sending.to() == id);
                let replication = match progress.state {
                    ProgressState::Snapshot => Replication::Snapshot,
                    _ if is_sending => Replication::Snapshot,
                    ProgressState::Probe => Replication::Probe,
                    ProgressState::Replicate => Replication::Replicate,
                };
                let last_message = self.last_messages.get(&id).copied();
                Some(MemberProgress {
                    id,
                    matched_index: progress.matched,
                    replication,
                    last_message,
                    is_counted: self.is_counted(id),
                })
            })
            .collect();
        members.sort_unstable_by_key(|member| member.id);
        members
    }

    /// The voter to which this leader transfers its leadership best: one that it has heard of recently, with
    /// the longest log.
    pub(crate) fn successor(&self) -> Option<NodeId> {
        let raft = &self.node.raft;
        let voters = raft.prs().conf().to_conf_state().voters;
        let progress = voters.iter().filter(|voter| **voter != self.options.id.get()).filter_map(|voter| {
            let progress = raft.prs().get(*voter)?;
            NodeId::new(*voter).filter(|voter| self.is_counted(*voter))?;
            progress.recent_active.then_some((progress.matched, *voter))
        });
        progress.max().filter(|_| self.is_leader()).and_then(|(_, voter)| NodeId::new(voter))
    }

    /// Whether this replica is the leader of its term, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> Status {
        let log = &self.node.raft.raft_log;
        Status {
            id: self.options.id,
            term: self.node.raft.term,
            leader: NodeId::new(self.node.raft.leader_id),
            last_index: log.last_index(),
            commit_index: log.committed,
            applied_index: self.applied,
            membership: self.present_membership(),
            membership_index: self.membership_index(),
            writing_since: self.writing_since(),
            leader_last_message: self.leader_last_message(),
            last_messages: self.last_messages.clone(),
            write_latency: self.write_latency,
            apply_latency: self.apply_latency,
            standing: self.incarnations.standing.clone(),
            acknowledged: self.incarnations.acknowledged.clone(),
        }
    }

    /// When the last message of another node that leads arrived.
    fn leader_last_message(&self) -> Option<Duration> {
        let leader = NodeId::new(self.node.raft.leader_id).filter(|leader| *leader != self.options.id)?;
        self.last_messages.get(&leader).copied()
    }

    /// The index of the entry that made the newest membership.
    fn membership_index(&self) -> u64 {
        self.memberships.back().map_or(0, |(index, _)| *index)
    }

    fn present_membership(&self) -> Membership {
        let roles = from_conf_state(&self.node.raft.prs().conf().to_conf_state());
        self.with_identity(roles, &crate::membership::MembershipChange::default(), 0)
    }

    /// Updates an earlier [`status`](Replica::status), which costs less than a new one: the membership is
    /// compared and not rebuilt.
    pub(crate) fn refresh(&self, status: &mut Status) {
        let log = &self.node.raft.raft_log;
        status.term = self.node.raft.term;
        status.leader = NodeId::new(self.node.raft.leader_id);
        status.last_index = log.last_index();
        status.commit_index = log.committed;
        status.applied_index = self.applied;
        status.writing_since = self.writing_since();
        status.leader_last_message = self.leader_last_message();
        refresh_times(&mut status.last_messages, &self.last_messages);
        status.write_latency = self.write_latency;
        status.apply_latency = self.apply_latency;
        status.membership_index = self.membership_index();
        let membership = self.memberships.back();
        if membership.is_some_and(|(_, membership)| *membership != status.membership) {
            status.membership = self.present_membership();
        }
        if status.standing != self.incarnations.standing {
            status.standing = self.incarnations.standing.clone();
        }
        if status.acknowledged != self.incarnations.acknowledged {
            status.acknowledged.clone_from(&self.incarnations.acknowledged);
        }
    }

    /// When [`Input::Timeout`] is due. `None` once [`handle`](Replica::handle) has returned
    /// [`HandleError::Failed`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!self.is_failure_returned).then_some(self.tick_at)
    }

    /// Performs the ticks that are due. After a long pause only one election timeout of ticks counts: a
    /// process that was stopped must not start an election for every timeout that it missed, and messages of
    /// the leader may already wait in its inbox.
    fn elapse(&mut self, now: Duration) {
        let mut ticks = 0;
        while self.tick_at <= now && ticks <= self.options.election_ticks {
            // A follower that may not campaign does not count ticks: its timeout starts when it may.
            if self.is_leader() || self.may_campaign() {
                self.grant_grace();
                self.tick();
                self.draw_election_time();
                self.ask_again_soon();
            } else {
                self.end_lease();
            }
            self.tick_incarnations();
            self.tick_at += self.options.tick;
            ticks += 1;
        }
        if ticks > 0 {
            // The rest of a long pause is skipped.
            if self.tick_at <= now {
                self.tick_at = now + self.options.tick;
            }
            self.resend_chunks();
            self.reads.tick();
            let is_sending = !self.sending.is_empty();
            self.node.mut_store().pace.tick(now, is_sending);
            self.send_held();
        }
    }

    /// One tick without `raft`, which refuses votes as long as it has heard of a leader within an election
    /// timeout of its own ticks (Ongaro 2014, section 6.4.1). The lease of a leader that is silent for that
    /// time ends here too; a new voter without a log would otherwise never vote for another one.
    fn end_lease(&mut self) {
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        if self.silent_ticks >= self.options.election_ticks {
            self.node.raft.leader_id = raft::INVALID_ID;
        }
    }

    /// Whether an election may start. `raft` reads the committed entries that are not applied, which do not
    /// exist while a snapshot is being restored. It also assumes that the log of a new leader is durable to
    /// its end: with asynchronous appends a leader could otherwise count its own entries before they are on
    /// its disk (Ongaro 2014, section 10.2.1). A candidate votes for itself, and may not if another log is
    /// registered for its id.
    fn may_campaign(&self) -> bool {
        let log = &self.node.raft.raft_log;
        log.applied >= self.node.store().base.index
            && log.persisted == log.last_index()
            && self.is_registered()
    }

    /// Replaces the randomised election timeout (Ongaro 2014, section 3.4) that `raft` draws from the
    /// thread's random source whenever its role changes. The value depends on seed and term only, so that it
    /// does not matter when `raft` has drawn, and a simulation is repeated bit for bit. A split vote starts
    /// another term, which has other timeouts.
    fn draw_election_time(&mut self) {
        let election = u64::from(self.options.election_ticks);
        let id = self.options.id.get();
        let of_replica = SplitMix64(self.options.seed ^ id.rotate_left(32)).next_u64();
        let extra = SplitMix64(of_replica ^ self.node.raft.term).below(election + 1);
        let grace = u64::from(self.grace_ticks());
        let ticks = usize::try_from(election + extra + grace).unwrap_or(self.options.election_ticks as usize);
        self.node.raft.set_randomized_election_timeout(ticks);
    }

    /// Lets a replica that has just asked the others whether they would elect it (pre-vote, Ongaro 2014,
    /// section 9.6) ask again after a few ticks. It is the first to miss the leader, by the phase of its
    /// ticks or a heartbeat that only others received, and they refuse as long as their lease of the leader
    /// lasts (section 6.4.1). `raft` asks again after another election time, which doubles the time without a
    /// leader.
    ///
    /// Asking changes no term and no vote. A replica that is cut off asks a few times more in each outage,
    /// and then as often as `raft` does.
    fn ask_again_soon(&mut self) {
        if self.node.raft.state != StateRole::PreCandidate {
            self.asked_again = 0;
        } else if self.node.raft.election_elapsed == 0 && self.asked_again < ASK_AGAIN_MAX {
            self.asked_again += 1;
            // Different for each replica, so that two of them do not keep asking at the same time.
            let of_replica = self.options.seed ^ self.options.id.get().rotate_left(32);
            let pause = 1 + SplitMix64(of_replica ^ u64::from(self.asked_again)).below(ASK_AGAIN_TICKS_MAX);
            let time = self.node.raft.randomized_election_timeout();
            self.node.raft.election_elapsed = time.saturating_sub(usize::try_from(pause).unwrap_or(time));
        }
    }

    fn propose(&mut self, token: u64, payload: Bytes, trace: Option<Context>) {
        let leader = self.leader_hint();
        let reason = if !self.is_leader() {
            DropReason::NotLeader { leader }
        } else if payload.len() > crate::codec::PAYLOAD_LEN_MAX {
            DropReason::Length
        } else if self.proposals.len() >= self.options.waiting_max {
            DropReason::Full
        } else {
            let len = payload.len();
            let entry = raft::eraftpb::Entry { data: payload, ..Default::default() };
            match self.step_proposal(entry) {
                Ok(()) => {
                    self.log_grown += len;
                    if let Some(context) = trace {
                        self.note_trace(token, context);
                    }
                    return self.note_proposal(token, len);
                }
                Err(reason) => reason,
            }
        };
        self.outputs.push_back(Output::Dropped { token, reason });
    }

    fn step_proposal(&mut self, entry: raft::eraftpb::Entry) -> Result<(), DropReason> {
        let message = raft::eraftpb::Message {
            msg_type: raft::eraftpb::MessageType::MsgPropose,
            from: self.options.id.get(),
            entries: vec![entry].into(),
            ..Default::default()
        };
        // Accepting proposals would keep the transferee from catching up (section 3.10, step 1).
        if self.node.raft.lead_transferee.is_some() {
            return Err(DropReason::Transferring);
        }
        self.node.raft.step(message).map_err(|_| DropReason::Full)
    }

    fn note_proposal(&mut self, token: u64, len: usize) {
        let raft = &self.node.raft;
        // Term and index identify the entry (log matching, section 3.5): the token gets the outcome of this
        // entry and of no other.
        let index = raft.raft_log.last_index();
        self.proposals.push_back((raft.term, index, token));
        let now = self.now;
        self.node.mut_store().pace.proposed(now, index, len);
    }

    fn leader_hint(&self) -> Option<NodeId> {
        NodeId::new(self.node.raft.leader_id).filter(|leader| *leader != self.options.id)
    }

    fn change_membership(&mut self, token: u64, change: &crate::membership::MembershipChange) {
        let raft = &self.node.raft;
        let reason = if !self.is_leader() {
            DropReason::NotLeader { leader: self.leader_hint() }
        } else if !change.is_possible(&self.status().membership) {
            DropReason::ChangeInvalid
        } else if raft.lead_transferee.is_some() {
            DropReason::Transferring
        } else if self.status().membership.is_joint() || raft.pending_conf_index > raft.raft_log.applied {
            // One change at a time (Ongaro 2014, section 4.1), and only once the entries of earlier terms are
            // applied (Ongaro's correction of 2015 to single-server changes). raft would replace the change
            // by an empty entry without an error.
            DropReason::ChangeInProgress
        } else {
            let proposed = self.complete_change(change).map_err(|()| DropReason::ChangeInvalid);
            match proposed.and_then(|change| self.propose_change(&change)) {
                Ok(()) => return self.note_proposal(token, 0),
                Err(reason) => reason,
            }
        };
        self.outputs.push_back(Output::Dropped { token, reason });
    }

    fn propose_change(&mut self, change: &crate::membership::MembershipChange) -> Result<(), DropReason> {
        let mut payload = Vec::new();
        crate::codec::encode_change(&mut payload, change);
        let proposed = self.node.propose_conf_change(payload, crate::membership::to_conf_change(change));
        proposed.map_err(|_| DropReason::Full)
    }

    /// The membership after the entry at `index` was applied.
    fn membership_at(&self, index: u64) -> Membership {
        // Searched from the end: most calls are for the newest membership.
        let found = self.memberships.iter().rev().find(|(from, _)| *from <= index);
        found.map_or_else(Membership::default, |(_, membership)| membership.clone())
    }

    fn base_at(&self, index: u64) -> Option<LogBase> {
        let term = self.node.raft.raft_log.term(index).ok()?;
        Some(LogBase { index, term, membership: self.membership_at(index) })
    }

    fn meta_at(&self, index: u64) -> Option<SnapshotMeta> {
        let LogBase { index, term, membership } = self.base_at(index)?;
        Some(SnapshotMeta { index, term, membership })
    }
}

/// Makes `to` equal to `from`. Most refreshes change times alone and allocate nothing.
fn refresh_times(to: &mut BTreeMap<NodeId, Duration>, from: &BTreeMap<NodeId, Duration>) {
    if to.keys().eq(from.keys()) {
        to.values_mut().zip(from.values()).for_each(|(to, from)| *to = *from);
    } else {
        to.clone_from(from);
    }
}

/// `raft` with these options on this log.
fn make_raft(options: &Options, view: View, applied: u64) -> Option<RawNode<View>> {
    let election = options.election_ticks as usize;
    let raft_config = raft::Config {
        id: options.id.get(),
        election_tick: election,
        heartbeat_tick: options.heartbeat_ticks as usize,
        applied,
        max_size_per_msg: options.message_len_max as u64,
        max_inflight_msgs: options.in_flight_messages_max,
        // A leader without a majority steps down, so that its clients find the next one (Ongaro 2014, section
        // 6.2), and members with a leader refuse votes, so that a removed member does not disturb the group
        // (section 4.2.3).
        check_quorum: true,
        // A member that was cut off asks before it raises its term (section 9.6).
        pre_vote: true,
        min_election_tick: election,
        // The largest time that is drawn, and the grace of a leader on a degraded path.
        max_election_tick: 3 * election + 1,
        // The commit index travels with the next append or heartbeat, which saves a message per commit.
        skip_bcast_commit: true,
        batch_append: true,
        max_uncommitted_size: options.uncommitted_len_max as u64,
        // Bounds one batch of the state machine, so that messages are not delayed by applying a long backlog.
        max_committed_size_per_ready: 4 << 20,
        ..raft::Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&raft_config, view, &logger).ok()
}

/// `raft` on an empty log with this base.
fn make_node(
    options: &Options,
    hard_state: &raft::eraftpb::HardState,
    base: &LogBase,
    applied: u64,
) -> Option<RawNode<View>> {
    let mut view = View::new(base.clone(), Vec::new(), base.index);
    view.initial.hard_state = hard_state.clone();
    make_raft(options, view, applied)
}
