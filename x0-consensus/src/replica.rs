//! The engine: one member of a Raft group.

mod events;
mod pump;
mod reads;
mod receive;
mod send;
mod validate;
mod view;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use raft::{RawNode, StateRole};
use x0_identity::NodeId;

pub use self::events::{Class, DropReason, FailReason, HandleError, Input, Output, StageStep};
use self::pump::Flight;
use self::reads::Reads;
use self::receive::Receiving;
use self::send::Sending;
use self::view::{View, to_raft_hard_state};
use crate::config::Config;
use crate::entry::{Entry, HardState, LogBase, Membership, SnapshotMeta};
use crate::membership::{from_conf_state, to_conf_state};
use crate::storage::{Recovered, Write};

/// One member of a Raft group, as an engine: it owns no socket, file, clock, thread or random source.
///
/// # The drain contract
///
/// 1. Feed it with [`handle`](Replica::handle): messages, proposals, and the answers to its outputs. `now` is the time since any
///    origin and never goes back.
/// 2. Then call [`poll_output`](Replica::poll_output) until it returns `None`. Outputs are made while they are drained, so that
///    feeding many inputs before draining makes one append and one message of many proposals.
/// 3. Feed [`Input::Timeout`] once [`poll_timeout`](Replica::poll_timeout) has come. Later is allowed, and counts as a pause.
///
/// Outputs are carried out in their order, each kind by whoever is made for it: appends by a log thread, applying by another. The
/// answers ([`Input::Persisted`], [`Input::Applied`] and so on) may come at any later time, in the order of their questions. Only a
/// [`Output::Send`] may be dropped.
///
/// An error of `handle` says what it did; all but [`HandleError::Failed`] left the replica as it was.
///
/// ```
/// use std::time::Duration;
/// use bytes::Bytes;
/// use x0_consensus::{Config, Input, MemoryStorage, NodeId, Output, Replica, Storage};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id = NodeId::new(1).ok_or("zero")?;
/// let mut storage = MemoryStorage::new();
/// let mut replica = Replica::new(Config::new(id).bootstrap([id]), storage.recover()?, &[], 0, Duration::ZERO)?;
/// let (mut applied, mut proposed) = (Vec::new(), false);
/// let mut now = Duration::ZERO;
/// while applied.is_empty() {
///     now = replica.poll_timeout().unwrap_or(now);
///     replica.handle(now, Input::Timeout)?;
///     if replica.is_leader() && !proposed {
///         replica.handle(now, Input::Propose { token: 7, payload: Bytes::from("hello") })?;
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
    config: Config,
    node: RawNode<View>,
    outputs: VecDeque<Output>,
    /// When the next tick is due.
    tick_at: Duration,
    failed: Option<FailReason>,
    /// Whether `handle` has said so.
    failure_told: bool,

    /// Writes that are not persisted yet.
    flights: VecDeque<Flight>,
    writes: u64,
    /// A commit index that waits to be written along with something else.
    unwritten: Option<HardState>,
    /// The term and vote written last, and the number of that write.
    vote: (u64, Option<NodeId>),
    vote_write: u64,

    /// Own proposals that wait to be committed: term, index, token. Ascending.
    proposals: VecDeque<(u64, u64, u64)>,
    reads: Reads,

    /// Memberships from the base on: each holds from its index.
    memberships: VecDeque<(u64, Membership)>,
    applied: u64,
    /// Up to where entries were handed out to be applied.
    handed: u64,
    leader: Option<NodeId>,
    role: StateRole,
    term: u64,

    fetching: Option<view::Wanted>,
    transfers: u64,
    sending: Vec<Sending>,
    receiving: Option<Receiving>,
    /// Snapshots that are installed but not restored by the state machine yet.
    restoring: Option<u64>,

    /// Payload bytes appended since the last checkpoint was asked for.
    log_grown: usize,
    checkpointing: bool,
    saving: Option<u64>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.config.id)
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

/// What a replica knows of itself and the group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Who it is.
    pub id: NodeId,
    /// Its term.
    pub term: u64,
    /// The leader of that term, if it knows of one.
    pub leader: Option<NodeId>,
    /// The last index of its log.
    pub last_index: u64,
    /// The last index it knows to be committed.
    pub commit_index: u64,
    /// The last index its state machine has applied.
    pub applied_index: u64,
    /// Who takes part.
    pub membership: Membership,
}

/// Why a replica cannot start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state machine is behind what the log still holds, and there is no snapshot to bridge it.
    #[error(
        "the state machine has lost its state: it is at index {durable}, the log begins behind {base} and there is no \
         snapshot; restore it from a backup, or let this member join again with empty folders"
    )]
    StateLost {
        /// The index the state machine is at.
        durable: u64,
        /// The index the log begins behind.
        base: u64,
    },
    /// The state machine is ahead of the log.
    #[error(
        "the log has lost entries: the state machine is at index {durable}, the log ends at {last}; restore it from a \
         backup, or let this member join again with empty folders"
    )]
    LogLost {
        /// The index the state machine is at.
        durable: u64,
        /// The last index of the log.
        last: u64,
    },
    /// The entries given are not those of [`Recovered::unapplied`].
    #[error(
        "the entries given are not those that the state machine lacks: read them from the storage that was recovered"
    )]
    Unapplied,
    /// The configuration cannot work.
    #[error("the configuration cannot work: {reason}")]
    Config {
        /// What is wrong.
        reason: &'static str,
    },
}

/// Mixes a number well (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl Replica {
    /// A replica that goes on from what its storage held, with a state machine whose durable index is `durable_index`.
    /// `unapplied` are the log's entries of [`Recovered::unapplied`].
    ///
    /// The first outputs may ask for a [`Output::Restore`] of the storage's snapshot. The only voter of a group campaigns at
    /// once.
    ///
    /// # Errors
    /// When log and state machine do not fit together, or the configuration cannot work.
    pub fn new(
        config: Config,
        recovered: Recovered,
        unapplied: &[Entry],
        durable_index: u64,
        now: Duration,
    ) -> Result<Replica, StartError> {
        let wrong = |reason| Err(StartError::Config { reason });
        if config.tick.is_zero() {
            return wrong("a tick must take some time");
        }
        if config.heartbeat_ticks == 0 || config.election_ticks <= config.heartbeat_ticks {
            return wrong("an election must wait for more than one heartbeat");
        }
        if config.chunk_len == 0
            || config.chunk_len > crate::codec::CHUNK_LEN_MAX
            || config.chunks_in_flight_max == 0
        {
            return wrong("a snapshot must travel in chunks of 1 byte to 1 MiB, at least one at a time");
        }
        if config.message_len_max > crate::codec::MESSAGE_LEN_MAX / 2 {
            return wrong("a message may hold 8 MiB of entries at most");
        }
        if config.uncommitted_len_max < config.message_len_max {
            return wrong("what is not committed must be allowed to fill a message");
        }
        let is_new = recovered.is_new();
        let wanted = recovered.unapplied(durable_index);
        let Recovered { mut hard_state, mut base, last_index, term_runs, membership_entries, snapshot } =
            recovered;
        if is_new {
            base.membership = config.bootstrap.clone();
        }
        // A state machine behind the log's first entry begins from the snapshot.
        let restore = snapshot.filter(|meta| meta.index > durable_index);
        let applied = restore.as_ref().map_or(durable_index, |meta| meta.index);
        if applied < base.index {
            return Err(StartError::StateLost { durable: durable_index, base: base.index });
        }
        if applied > last_index {
            return Err(StartError::LogLost { durable: durable_index, last: last_index });
        }
        if !unapplied.iter().map(|entry| entry.index).eq(wanted) {
            return Err(StartError::Unapplied);
        }
        // What a crash may have kept from being written along.
        hard_state.commit = hard_state.commit.clamp(applied, last_index.max(applied));

        let initial = raft::RaftState {
            hard_state: to_raft_hard_state(&hard_state),
            conf_state: to_conf_state(&base.membership),
        };
        let election = config.election_ticks as usize;
        let raft_config = raft::Config {
            id: config.id.get(),
            election_tick: election,
            heartbeat_tick: config.heartbeat_ticks as usize,
            applied,
            max_size_per_msg: config.message_len_max as u64,
            max_inflight_msgs: config.in_flight_messages_max,
            check_quorum: true,
            pre_vote: true,
            min_election_tick: election,
            max_election_tick: 2 * election + 1,
            skip_bcast_commit: true,
            batch_append: true,
            max_uncommitted_size: config.uncommitted_len_max as u64,
            max_committed_size_per_ready: 4 << 20,
            ..raft::Config::default()
        };
        let mut view = View::new(initial, base.clone(), term_runs, last_index);
        view.preload(unapplied);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let Ok(node) = RawNode::new(&raft_config, view, &logger) else {
            return wrong("raft refuses it: the times or lengths contradict each other");
        };
        let mut replica = Replica {
            tick_at: now + config.tick,
            term: hard_state.term,
            config,
            node,
            outputs: VecDeque::new(),
            failed: None,
            failure_told: false,
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
            leader: None,
            role: StateRole::Follower,
            fetching: None,
            transfers: 0,
            sending: Vec::new(),
            receiving: None,
            restoring: None,
            log_grown: 0,
            checkpointing: false,
            saving: None,
        };
        replica.replay(&membership_entries, applied);
        if is_new && !base.membership.is_empty() {
            replica.append(Write { base: Some(base), ..Write::default() }, None, Vec::new());
        }
        if let Some(meta) = restore {
            replica.restoring = Some(meta.index);
            replica.outputs.push_back(Output::Restore { meta });
        }
        replica.draw_election_time();
        let membership = replica.status().membership;
        if membership.voters.len() == 1
            && membership.voters.contains(&replica.config.id)
            && !membership.is_joint()
        {
            // Nobody else can lead, so that there is nothing to wait for.
            let _ = replica.contain(|replica| {
                let _ = replica.node.campaign();
                Ok(())
            });
        }
        Ok(replica)
    }

    /// Brings the membership up to what is applied.
    fn replay(&mut self, membership_entries: &[Entry], applied: u64) {
        for entry in membership_entries.iter().filter(|entry| entry.index <= applied) {
            self.apply_membership(entry);
        }
    }

    /// Takes one input in.
    ///
    /// # Errors
    /// See [`HandleError`]: only [`HandleError::Failed`] is final.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        if let Some(reason) = self.failed {
            self.failure_told = true;
            return Err(HandleError::Failed(reason));
        }
        let result = self.contain(|replica| replica.take(now, input));
        self.failure_told = self.failed.is_some();
        self.draw_election_time();
        result
    }

    fn take(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        match input {
            Input::Timeout => self.elapse(now),
            Input::Message { from, payload } => self.receive(from, payload)?,
            Input::Propose { token, payload } => self.propose(token, payload),
            Input::ReadIndex { token } => self.read_index(token),
            Input::ChangeMembership { token, change } => self.change_membership(token, &change),
            // Raft would pass it on to the leader, who would take the one that passed it on for the one meant.
            Input::TransferLeadership { to } if self.is_leader() => self.node.transfer_leader(to.get()),
            Input::TransferLeadership { .. } => {}
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
            Input::Unreachable { peer } => self.node.report_unreachable(peer.get()),
        }
        Ok(())
    }

    /// Why it cannot go on, once that is so.
    pub(crate) fn failure(&self) -> Option<FailReason> {
        self.failed
    }

    /// Whether this replica leads its term, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// What it knows.
    #[must_use]
    pub fn status(&self) -> Status {
        let log = &self.node.raft.raft_log;
        Status {
            id: self.config.id,
            term: self.node.raft.term,
            leader: NodeId::new(self.node.raft.leader_id),
            last_index: log.last_index(),
            commit_index: log.committed,
            applied_index: self.applied,
            membership: from_conf_state(&self.node.raft.prs().conf().to_conf_state()),
        }
    }

    /// Brings what [`status`](Replica::status) gave before up to date, which is cheaper.
    pub(crate) fn refresh(&self, status: &mut Status) {
        let log = &self.node.raft.raft_log;
        status.term = self.node.raft.term;
        status.leader = NodeId::new(self.node.raft.leader_id);
        status.last_index = log.last_index();
        status.commit_index = log.committed;
        status.applied_index = self.applied;
        let membership = self.memberships.back();
        if membership.is_some_and(|(_, membership)| *membership != status.membership) {
            status.membership = from_conf_state(&self.node.raft.prs().conf().to_conf_state());
        }
    }

    /// When [`Input::Timeout`] is due. `None` once it has failed and [`handle`](Replica::handle) has said so.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!self.failure_told).then_some(self.tick_at)
    }

    /// Lets the ticks happen that are due. Of a long pause only an election time's worth counts, so that a process that was
    /// stopped does not call an election for every tick it missed.
    fn elapse(&mut self, now: Duration) {
        let mut ticks = 0;
        while self.tick_at <= now && ticks <= self.config.election_ticks {
            if self.is_leader() || self.may_campaign() {
                self.node.tick();
                self.draw_election_time();
            }
            self.tick_at += self.config.tick;
            ticks += 1;
        }
        if ticks > 0 {
            if self.tick_at <= now {
                self.tick_at = now + self.config.tick;
            }
            self.resend_chunks();
            self.reads.tick();
        }
    }

    /// Whether an election may begin. Raft looks through what is committed and not applied, which is not there while a snapshot is
    /// being restored, and takes it that the log of whoever is elected is durable to its end.
    fn may_campaign(&self) -> bool {
        let log = &self.node.raft.raft_log;
        log.applied >= self.node.store().base.index && log.persisted == log.last_index()
    }

    /// Puts a time of our own in place of the one that raft draws from the thread's random source whenever it begins anew. It hangs
    /// on seed and term alone, so that it does not matter when raft has drawn; a split vote begins another term, with other times.
    fn draw_election_time(&mut self) {
        let election = u64::from(self.config.election_ticks);
        let id = self.config.id.get();
        let extra = mix(mix(self.config.seed ^ id.rotate_left(32)) ^ self.node.raft.term) % (election + 1);
        let ticks = usize::try_from(election + extra).unwrap_or(self.config.election_ticks as usize);
        self.node.raft.set_randomized_election_timeout(ticks);
    }

    fn propose(&mut self, token: u64, payload: Bytes) {
        let leader = self.leader_hint();
        let reason = if !self.is_leader() {
            DropReason::NotLeader { leader }
        } else if payload.len() > crate::codec::PAYLOAD_LEN_MAX {
            DropReason::Length
        } else if self.proposals.len() >= self.config.waiting_max {
            DropReason::Full
        } else {
            let len = payload.len();
            let entry = raft::eraftpb::Entry { data: payload, ..Default::default() };
            match self.step_proposal(entry) {
                Ok(()) => {
                    self.log_grown += len;
                    return self.note_proposal(token);
                }
                Err(reason) => reason,
            }
        };
        self.outputs.push_back(Output::Dropped { token, reason });
    }

    fn step_proposal(&mut self, entry: raft::eraftpb::Entry) -> Result<(), DropReason> {
        let message = raft::eraftpb::Message {
            msg_type: raft::eraftpb::MessageType::MsgPropose,
            from: self.config.id.get(),
            entries: vec![entry].into(),
            ..Default::default()
        };
        if self.node.raft.lead_transferee.is_some() {
            return Err(DropReason::Transferring);
        }
        self.node.raft.step(message).map_err(|_| DropReason::Full)
    }

    fn note_proposal(&mut self, token: u64) {
        let raft = &self.node.raft;
        self.proposals.push_back((raft.term, raft.raft_log.last_index(), token));
    }

    fn leader_hint(&self) -> Option<NodeId> {
        NodeId::new(self.node.raft.leader_id).filter(|leader| *leader != self.config.id)
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
            // Raft would put an empty entry in its place without a word.
            DropReason::ChangeInProgress
        } else {
            let mut payload = Vec::new();
            crate::codec::encode_change(&mut payload, change);
            match self.node.propose_conf_change(payload, crate::membership::to_conf_change(change)) {
                Ok(()) => return self.note_proposal(token),
                Err(_) => DropReason::Full,
            }
        };
        self.outputs.push_back(Output::Dropped { token, reason });
    }

    /// The membership that held once `index` was applied.
    fn membership_at(&self, index: u64) -> Membership {
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
