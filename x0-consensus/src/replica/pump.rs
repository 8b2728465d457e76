//! Turning what raft has ready into outputs, and the answers to them back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};
use raft::{Ready, StateRole};
use x0_identity::NodeId;

use super::{Class, DropReason, FailReason, HandleError, Output, Replica};
use crate::codec::{Fields, decode_change, encode_raft, from_raft_entry};
use crate::entry::{Entry, EntryKind, HardState, LogBase, SnapshotMeta};
use crate::membership::{MembershipChange, from_conf_state, to_conf_change};
use crate::storage::Write;

/// A write that is not persisted yet, and what waits for it.
#[derive(Debug)]
pub(super) struct Flight {
    number: u64,
    /// The latest ready that is durable when this write is.
    ready: Option<u64>,
    /// What must not be sent before.
    messages: Vec<Message>,
    /// The snapshot it installs.
    snapshot: Option<SnapshotMeta>,
}

/// Raft joins the appends to one follower into a message without a bound. Cuts it into such as may travel.
fn cut(mut message: Message, len_max: usize) -> Vec<Message> {
    let len_of = |entry: &RaftEntry| entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_LEN;
    if message.entries.iter().map(len_of).sum::<usize>() <= len_max {
        return vec![message];
    }
    let mut parts = Vec::new();
    let mut part_len = 0;
    for entry in message.take_entries().into_vec() {
        part_len += len_of(&entry);
        if let Some(last) = message.entries.last()
            && part_len > len_max
        {
            let (index, log_term) = (last.index, last.term);
            let next = Message { entries: Vec::new().into(), index, log_term, ..message.clone() };
            parts.push(std::mem::replace(&mut message, next));
            part_len = len_of(&entry);
        }
        message.entries.push(entry);
    }
    parts.push(message);
    parts
}

/// What an entry takes in a message beyond its payload, at most.
const ENTRY_OVERHEAD_LEN: usize = 24;
/// How many steps of a fetch one input may cause.
const LEN_PER_FETCH: usize = 4;

impl Replica {
    /// The next thing to be done, or `None` when all is said.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.failed.is_none() {
            // What an invariant's break leaves behind is not sent to anyone.
            let _ = self.contain(|replica| {
                replica.start_reads();
                while replica.node.has_ready() {
                    replica.advance();
                }
                replica.look_for_work();
                Ok(())
            });
            self.draw_election_time();
        }
        self.outputs.pop_front()
    }

    /// Raft ends some impossible situations with a panic. What comes from outside is checked before it gets there; should one of
    /// them happen nevertheless, this replica stops, and not the process it is part of. A build that aborts on panics dies there.
    pub(super) fn contain<T>(
        &mut self,
        run: impl FnOnce(&mut Replica) -> Result<T, HandleError>,
    ) -> Result<T, HandleError> {
        let result = catch_unwind(AssertUnwindSafe(|| run(self)));
        let result = result.unwrap_or(Err(HandleError::Failed(FailReason::Internal)));
        if let Err(HandleError::Failed(reason)) = result {
            self.failed = Some(reason);
            self.outputs.clear();
        }
        result
    }

    /// Takes one ready apart.
    fn advance(&mut self) {
        let mut ready = self.node.ready();
        let number = ready.number();
        self.note_leader();
        self.note_reads(ready.take_read_states());
        let write = self.write_of(&mut ready);
        let mut messages = ready.take_persisted_messages();
        let is_vote_written = self.vote_write <= self.writes
            && self.flights.front().is_none_or(|flight| flight.number > self.vote_write);
        if is_vote_written {
            self.send_messages(ready.take_messages());
        } else {
            // A leader's messages go out while its entries are being written (Raft dissertation §10.2.1), but not before its term
            // and vote are: the only voter of a group leads at once, and could after a crash lead the same term again.
            messages.extend(ready.take_messages());
        }
        let committed = ready.take_committed_entries();
        let snapshot = write.snapshot.clone();
        self.node.advance_append_async(ready);
        if let Some(meta) = &snapshot {
            self.install(meta);
        }
        self.hand_out(&committed);
        if !write.is_empty() {
            self.append(write, Some(number), messages);
        } else if let Some(flight) = self.flights.back_mut() {
            flight.ready = Some(number);
            flight.messages.extend(messages);
        } else {
            self.node.on_persist_ready(number);
            self.send_messages(messages);
        }
        let view = self.node.mut_store();
        let spare = self.applied.min(self.handed);
        view.shrink(spare, self.config.cache_len_max);
    }

    fn write_of(&mut self, ready: &mut Ready) -> Write {
        let raft_entries = ready.take_entries();
        let mut write = Write { must_sync: ready.must_sync(), ..Write::default() };
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let meta = SnapshotMeta {
                index: metadata.index,
                term: metadata.term,
                membership: from_conf_state(metadata.get_conf_state()),
            };
            self.node.mut_store().replace(LogBase::from(meta.clone()));
            write.snapshot = Some(meta);
        }
        self.node.mut_store().append(&raft_entries);
        if !self.is_leader() {
            self.log_grown += raft_entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        }
        write.entries = raft_entries.iter().map(from_raft_entry).collect();
        if let Some(state) = ready.hs() {
            let hard_state =
                HardState { term: state.term, vote: NodeId::new(state.vote), commit: state.commit };
            if self.vote != (hard_state.term, hard_state.vote) {
                self.vote = (hard_state.term, hard_state.vote);
                // It goes into the next write, which is this one.
                self.vote_write = self.writes + 1;
            }
            self.unwritten = Some(hard_state);
        }
        // A commit index by itself is not worth a write: it comes along with the next one.
        if write.must_sync || !write.is_empty() {
            write.hard_state = self.unwritten.take();
        }
        write
    }

    pub(super) fn append(&mut self, write: Write, ready: Option<u64>, messages: Vec<Message>) {
        self.writes += 1;
        let snapshot = write.snapshot.clone();
        self.flights.push_back(Flight { number: self.writes, ready, messages, snapshot });
        self.outputs.push_back(Output::Append { number: self.writes, write });
    }

    pub(super) fn persisted(&mut self, number: u64) {
        while self.flights.front().is_some_and(|flight| flight.number <= number) {
            let Some(flight) = self.flights.pop_front() else { break };
            if let Some(ready) = flight.ready {
                self.node.on_persist_ready(ready);
            }
            self.send_messages(flight.messages);
            if let Some(meta) = flight.snapshot
                && self.restoring == Some(meta.index)
            {
                self.outputs.push_back(Output::Restore { meta });
            }
        }
    }

    pub(super) fn send_messages(&mut self, messages: Vec<Message>) {
        for message in messages {
            let Some(to) = NodeId::new(message.to) else { continue };
            if message.msg_type == MessageType::MsgSnapshot {
                self.begin_sending(to);
                continue;
            }
            for part in cut(message, self.config.message_len_max) {
                if let Some(payload) = encode_raft(&part) {
                    self.outputs.push_back(Output::Send { to, class: Class::Message, payload });
                }
            }
        }
    }

    /// Hands committed entries out, and carries out the changes of membership among them.
    fn hand_out(&mut self, committed: &[RaftEntry]) {
        let Some(last) = committed.last().map(|entry| entry.index) else { return };
        let entries: Vec<Entry> = committed.iter().map(from_raft_entry).collect();
        let mut proposals = Vec::new();
        for entry in &entries {
            if entry.kind == EntryKind::Membership {
                self.apply_membership(entry);
                let membership = self.membership_at(entry.index);
                self.outputs.push_back(Output::Membership(membership));
            }
            // Terms never fall along a log: behind a committed entry of this term nothing of an earlier one can follow.
            while let Some((term, index, token)) = self.proposals.front().copied()
                && (term, index) <= (entry.term, entry.index)
            {
                self.proposals.pop_front();
                if (term, index) == (entry.term, entry.index) {
                    proposals.push((index, token));
                } else {
                    self.outputs.push_back(Output::Dropped { token, reason: DropReason::Superseded });
                }
            }
        }
        self.handed = last;
        self.outputs.push_back(Output::Apply { entries, proposals });
        self.leave_if_removed();
    }

    /// A leader that is no voter any more steps down once that is committed (Raft dissertation §4.2.2); raft leaves that to its
    /// caller. What becomes of the proposals of a member that was removed, nobody tells it.
    fn leave_if_removed(&mut self) {
        let membership = self.membership_at(self.handed);
        let id = self.config.id;
        if self.is_leader() && !membership.voters.contains(&id) && !membership.voters_outgoing.contains(&id) {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        if !membership.is_empty() && !membership.contains(id) {
            self.give_up_proposals();
        }
    }

    fn give_up_proposals(&mut self) {
        for (_, _, token) in std::mem::take(&mut self.proposals) {
            self.outputs.push_back(Output::Dropped { token, reason: DropReason::Unknown });
        }
    }

    /// A change that cannot be read, or that raft refuses, changes nothing: on every replica alike.
    pub(super) fn apply_membership(&mut self, entry: &Entry) {
        let change = if entry.payload.is_empty() {
            Ok(MembershipChange::default())
        } else {
            let mut fields = Fields::new(entry.payload.clone());
            decode_change(&mut fields).and_then(|change| fields.finish().map(|()| change))
        };
        if let Ok(change) = change
            && let Ok(state) = self.node.apply_conf_change(&to_conf_change(&change))
        {
            self.memberships.push_back((entry.index, from_conf_state(&state)));
        }
    }

    /// A snapshot takes the place of the log.
    fn install(&mut self, meta: &SnapshotMeta) {
        self.restoring = Some(meta.index);
        self.handed = meta.index;
        self.memberships.clear();
        self.memberships.push_back((meta.index, meta.membership.clone()));
        self.outputs.push_back(Output::Membership(meta.membership.clone()));
        // Whether they were applied before the snapshot was taken is not known.
        self.give_up_proposals();
    }

    pub(super) fn restored(&mut self, index: u64) {
        if self.restoring == Some(index) {
            self.restoring = None;
            self.mark_applied(index);
        }
    }

    pub(super) fn mark_applied(&mut self, index: u64) {
        let index = index.min(self.handed);
        if index > self.applied {
            self.applied = index;
            self.node.advance_apply_to(index);
            self.release_reads();
        }
    }

    fn note_leader(&mut self) {
        let raft = &self.node.raft;
        let (leader, role, term) = (NodeId::new(raft.leader_id), raft.state, raft.term);
        if (leader, role, term) == (self.leader, self.role, self.term) {
            return;
        }
        let led = self.role == StateRole::Leader;
        if led && (role != StateRole::Leader || term != self.term) {
            self.drop_reads(leader);
            self.end_sending();
        }
        let is_self = role == StateRole::Leader;
        if leader != self.leader || term != self.term || is_self != led {
            self.outputs.push_back(Output::Leader { leader, term, is_self });
        }
        (self.leader, self.role, self.term) = (leader, role, term);
    }

    /// Entries to fetch, snapshots to open, a log to shorten.
    fn look_for_work(&mut self) {
        while self.fetching.is_none()
            && let Some(wanted) = self.node.store().take_wanted()
        {
            // What lies behind is in memory, and perhaps not in the storage yet.
            let range = wanted.low..wanted.high.min(self.node.store().cache_first());
            if range.is_empty() {
                self.node.store().clear_fetched();
            } else {
                let len_max = self.config.message_len_max.saturating_mul(LEN_PER_FETCH);
                self.outputs.push_back(Output::Fetch { range, len_max });
                self.fetching = Some(wanted);
            }
        }
        for member in self.node.store().take_snapshot_wanted() {
            self.open_snapshot(member);
        }
        if self.log_grown >= self.config.checkpoint_log_len && !self.checkpointing && self.saving.is_none() {
            self.log_grown = 0;
            self.checkpointing = true;
            self.outputs.push_back(Output::Checkpoint);
        }
    }

    pub(super) fn fetched(&mut self, entries: &[Entry]) {
        let Some(wanted) = self.fetching.take() else { return };
        self.node.store().set_fetched(entries);
        if entries.is_empty() {
            // Raft asks again with the next heartbeat.
            return;
        }
        self.node.on_entries_fetched(wanted.context);
        self.node.store().clear_fetched();
    }

    /// The state machine's own state covers the log up to `index`; 0 says that it keeps none and needs a snapshot.
    pub(super) fn checkpointed(&mut self, index: u64) {
        self.checkpointing = false;
        if index == 0 {
            self.transfers += 1;
            self.saving = Some(self.transfers);
            self.outputs.push_back(Output::OpenSnapshot { transfer: self.transfers });
        } else {
            self.shorten(index, None);
        }
    }

    pub(super) fn snapshot_saved(&mut self, meta: SnapshotMeta) {
        self.saving = None;
        // An installed snapshot has overtaken it.
        if meta.index <= self.node.raft.raft_log.applied && meta.index > self.node.store().base.index {
            let index = meta.index;
            self.shorten(index, Some(meta));
        }
    }

    /// Forgets the log up to `covered`, but for a tail that spares followers a snapshot.
    fn shorten(&mut self, covered: u64, snapshot: Option<SnapshotMeta>) {
        let index = covered.min(self.applied).saturating_sub(self.config.retained_entries);
        let base = (index > self.node.store().base.index).then(|| self.base_at(index)).flatten();
        if snapshot.is_none() && base.is_none() {
            return;
        }
        if let Some(base) = &base {
            self.node.mut_store().truncate(base.clone());
            while self.memberships.get(1).is_some_and(|(from, _)| *from <= base.index) {
                self.memberships.pop_front();
            }
        }
        self.append(Write { snapshot, base, ..Write::default() }, None, Vec::new());
    }
}
