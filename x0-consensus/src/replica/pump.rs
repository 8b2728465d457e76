//! From the ready state of `raft` to outputs, and from their results back to `raft`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};
use raft::{Ready, StateRole};
use x0_identity::NodeId;

use super::pace::PACED_LEN;
use super::{Class, DropReason, FailReason, HandleError, Output, Replica};
use crate::codec::{encode_raft, from_raft_entry};
use crate::entry::{Entry, EntryKind, HardState, LogBase, SnapshotMeta};
use crate::membership::{MembershipChange, from_conf_state, to_conf_change};
use crate::storage::Write;

/// A write that is not persisted, and the messages that wait for it.
#[derive(Debug)]
pub(super) struct Flight {
    number: u64,
    /// When it was handed out.
    at: Duration,
    /// The latest ready of `raft` that is durable when this write is.
    ready: Option<u64>,
    /// Messages that must not be sent before the write is durable.
    messages: Vec<Message>,
    /// The snapshot that the write adopts.
    snapshot: Option<SnapshotMeta>,
}

/// Splits an append message whose entries do not follow its position.
///
/// With `batch_append`, `raft` joins entries to an append that has none yet, whatever the position of that
/// append is (`util::is_continuous_ents` of raft-rs 0.7), for instance after a member's progress went back to
/// an earlier index. A receiver that is raft-rs takes the index of each entry from the entry. On the wire of
/// this crate it follows from the position of the message, so that such a message would put entries at the
/// indexes of others. It becomes two: the append without entries, and the entries at their own position.
/// Without the term of that position the entries are dropped, as if the message were lost, and sent again
/// later.
fn align(mut message: Message, term_of: impl Fn(u64) -> Option<u64>) -> Vec<Message> {
    let position = message.entries.first().map(|first| first.index.saturating_sub(1));
    let Some(index) = position.filter(|position| *position != message.index) else { return vec![message] };
    let entries = message.take_entries();
    match term_of(index) {
        Some(log_term) => {
            let joined = Message { entries, index, log_term, ..message.clone() };
            vec![message, joined]
        }
        None => vec![message],
    }
}

/// Splits an append message. With `batch_append`, `raft` joins the appends to one follower into a message of
/// any length.
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

/// The most bytes that an entry takes in a message beyond its payload.
const ENTRY_OVERHEAD_LEN: usize = 24;
/// The length of a fetch, in messages: a lagging follower gets several messages from one read of the disk.
const LEN_PER_FETCH: usize = 4;

impl Replica {
    /// The next output, or `None` when the replica waits for inputs or the time.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.failed.is_none() {
            // After a panic the outputs are discarded: they may come from a half-changed state.
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

    /// Contains a panic: `raft` ends some impossible situations with one. Messages are validated before
    /// `raft` sees them; if it panics nevertheless, the replica fails and the process continues. A build that
    /// aborts on panics ends there.
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

    /// Takes one ready apart, in the order that `raft` demands: entries and hard state to the log, messages
    /// that need no durability at once, the others after the write.
    fn advance(&mut self) {
        let mut ready = self.node.ready();
        let number = ready.number();
        // The change of the leader comes before the outputs that depend on it.
        self.note_leader();
        self.note_reads(ready.take_read_states());
        let mut write = self.write_of(&mut ready);
        let mut messages = ready.take_persisted_messages();
        let is_vote_written = self.vote_write <= self.writes
            && self.flights.front().is_none_or(|flight| flight.number > self.vote_write);
        if is_vote_written {
            self.send_messages(ready.take_messages());
        } else {
            // A leader replicates its entries while it writes them to its own disk (Ongaro 2014, section
            // 10.2.1), but its term and vote must be durable before (section 3.8): the only voter of a group
            // leads at once, and after a crash it could lead the same term again with other entries.
            messages.extend(ready.take_messages());
        }
        // raft 0.7 hands a committed entry out once it is durable here, too, so that the state is never ahead
        // of the log. Section 10.2.1 would allow more.
        let committed = ready.take_committed_entries();
        let snapshot = write.snapshot.clone();
        self.node.advance_append_async(ready);
        if let Some(meta) = &snapshot {
            self.install(meta);
        }
        let is_registered = self.hand_out(&committed);
        // Without that commit index, a restart of all members would leave no one that knows the registered
        // incarnations: no member may count one that is not known to be committed.
        if is_registered && self.options.incarnation != 0 {
            write.hard_state = self.unwritten.take().or(write.hard_state);
            write.must_sync |= write.hard_state.is_some();
        }
        if !write.is_empty() {
            self.append(write, Some(number), messages);
        } else if let Some(flight) = self.flights.back_mut() {
            // Nothing to write, but an earlier write is not durable: the messages of this ready may depend on
            // it.
            flight.ready = Some(number);
            flight.messages.extend(messages);
        } else {
            self.node.on_persist_ready(number);
            self.send_messages(messages);
        }
        let view = self.node.mut_store();
        let spare = self.applied.min(self.handed);
        view.shrink(spare, self.options.cache_len_max);
    }

    fn write_of(&mut self, ready: &mut Ready) -> Write {
        let raft_entries = ready.take_entries();
        let mut write = Write { must_sync: ready.must_sync(), ..Write::default() };
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let roles = from_conf_state(metadata.get_conf_state());
            // `raft` has the roles alone; it hands out the snapshot that it received last.
            let arrived = self.arriving.take();
            let arrived = arrived.filter(|meta| (meta.index, meta.term) == (metadata.index, metadata.term));
            let membership = arrived.map_or(roles, |meta| meta.membership);
            let meta = SnapshotMeta { index: metadata.index, term: metadata.term, membership };
            // The entries that follow in the same ready continue the snapshot.
            self.node.mut_store().replace(LogBase::from(meta.clone()));
            write.snapshot = Some(meta);
        }
        self.node.mut_store().append(&raft_entries);
        // A leader has counted its proposals when it accepted them.
        if !self.is_leader() {
            self.log_grown += raft_entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        }
        write.entries = raft_entries.iter().map(from_raft_entry).collect();
        if let Some(state) = ready.hs() {
            let hard_state =
                HardState { term: state.term, vote: NodeId::new(state.vote), commit: state.commit };
            if self.vote != (hard_state.term, hard_state.vote) {
                self.vote = (hard_state.term, hard_state.vote);
                // The next write has it, which is the write of this ready.
                self.vote_write = self.writes + 1;
            }
            self.unwritten = Some(hard_state);
        }
        // The commit index need not be durable (section 3.8: it is found again from the log). It is written
        // with the next write and causes none by itself.
        if write.must_sync || !write.is_empty() {
            write.hard_state = self.unwritten.take();
        }
        write
    }

    pub(super) fn append(&mut self, write: Write, ready: Option<u64>, messages: Vec<Message>) {
        self.writes += 1;
        let snapshot = write.snapshot.clone();
        self.flights.push_back(Flight { number: self.writes, at: self.now, ready, messages, snapshot });
        self.outputs.push_back(Output::Append { number: self.writes, write });
    }

    /// When the oldest write that is not durable was handed out.
    pub(super) fn writing_since(&self) -> Option<Duration> {
        self.flights.front().map(|flight| flight.at)
    }

    pub(super) fn persisted(&mut self, number: u64) {
        while self.flights.front().is_some_and(|flight| flight.number <= number) {
            let Some(flight) = self.flights.pop_front() else { break };
            self.write_latency = Some(self.now.saturating_sub(flight.at));
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

    /// Whether nothing follows from the durability of the writes in flight until another member acknowledges
    /// entries: no message waits for them, no committed entry waits to be applied, and with these entries
    /// alone nothing is committed.
    pub(crate) fn can_wait_for_log(&self) -> bool {
        let (raft, own) = (&self.node.raft, self.options.id.get());
        let is_awaited = |flight: &Flight| !flight.messages.is_empty() || flight.snapshot.is_some();
        if !self.is_leader()
            || raft.prs().conf().voters().is_singleton()
            || self.flights.iter().any(is_awaited)
            // Handed out once they are durable here, too.
            || raft.raft_log.committed > raft.raft_log.persisted
        {
            return false;
        }
        // An entry that another member has acknowledged may be committed with this replica's write.
        let committed = raft.raft_log.committed;
        raft.prs().iter().all(|(member, progress)| *member == own || progress.matched <= committed)
    }

    pub(super) fn send_messages(&mut self, messages: Vec<Message>) {
        for message in messages {
            let Some(to) = NodeId::new(message.to) else { continue };
            if message.msg_type == MessageType::MsgAppendResponse && !message.reject {
                self.incarnations.matched = (message.term, message.index);
            }
            // A snapshot does not fit into a message: it is streamed in chunks, and raft gets the result
            // later.
            if message.msg_type == MessageType::MsgSnapshot {
                self.begin_sending(to);
                continue;
            }
            for message in align(message, |index| self.node.store().term_of(index)) {
                for part in cut(message, self.options.message_len_max) {
                    let Some(payload) = encode_raft(&part) else { continue };
                    // A longer message has one entry, which may fill what the transport carries.
                    let fits = payload.len() <= self.options.message_len_max;
                    let contexts = self.traces.of_message(to, &part, fits);
                    if contexts.is_empty() {
                        self.send(to, Class::Message, payload);
                    } else {
                        self.send_traced(to, payload, &contexts);
                    }
                }
            }
        }
    }

    /// Hands committed entries out to be applied, and performs the changes of the membership among them.
    /// Returns whether there were any.
    fn hand_out(&mut self, committed: &[RaftEntry]) -> bool {
        let Some(last) = committed.last().map(|entry| entry.index) else { return false };
        let entries: Vec<Entry> = committed.iter().map(from_raft_entry).collect();
        let mut proposals = Vec::new();
        let mut is_changed = false;
        for entry in &entries {
            if entry.kind == EntryKind::Membership {
                is_changed = true;
                self.apply_membership(entry);
                let membership = self.membership_at(entry.index);
                self.outputs.push_back(Output::Membership(membership));
            }
            // Terms do not decrease along a log (section 3.5): no proposal of an earlier term or index can be
            // committed after this entry. A proposal at the same index with another term was replaced by an
            // entry of another leader.
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
        let now = self.now;
        self.node.mut_store().pace.committed(now, last);
        self.applying.push_back((last, now));
        self.outputs.push_back(Output::Apply { entries, proposals });
        self.leave_if_removed();
        is_changed
    }

    /// A leader that was removed as a voter steps down once that entry is committed (Ongaro 2014, section
    /// 4.2.2); `raft` leaves that to its caller. A member that was removed does not receive the fate of its
    /// proposals.
    fn leave_if_removed(&mut self) {
        let membership = self.membership_at(self.handed);
        let id = self.options.id;
        if self.is_leader() && !membership.voters.contains(&id) && !membership.voters_outgoing.contains(&id) {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        if !membership.is_empty() && !membership.contains(id) {
            self.give_up_proposals();
        }
    }

    /// Drops the proposals of this replica with an unknown result: each may be committed later.
    pub(crate) fn give_up_proposals(&mut self) {
        for (_, _, token) in std::mem::take(&mut self.proposals) {
            self.outputs.push_back(Output::Dropped { token, reason: DropReason::Unknown });
        }
    }

    /// Performs a change of the membership. A change that cannot be decoded, or that `raft` refuses, has no
    /// effect. That must be so on every replica alike, since all of them apply the same entry.
    pub(super) fn apply_membership(&mut self, entry: &Entry) {
        if let Some(change) = MembershipChange::of_entry(entry)
            && let Ok(state) = self.node.apply_conf_change(&to_conf_change(&change))
        {
            let membership = self.with_identity(from_conf_state(&state), &change, entry.index);
            self.forget_strangers(&membership);
            self.memberships.push_back((entry.index, membership));
            self.note_standing();
        }
    }

    /// Installs a snapshot, which replaces the log.
    fn install(&mut self, meta: &SnapshotMeta) {
        self.restoring = Some(meta.index);
        self.handed = meta.index;
        self.applying.clear();
        self.memberships.clear();
        self.memberships.push_back((meta.index, meta.membership.clone()));
        self.outputs.push_back(Output::Membership(meta.membership.clone()));
        self.forget_strangers(&meta.membership);
        self.note_standing();
        // The proposals may or may not have been applied before the snapshot was taken.
        self.give_up_proposals();
    }

    pub(super) fn restored(&mut self, index: u64) {
        if self.restoring == Some(index) {
            self.restoring = None;
            self.mark_applied(index);
        }
    }

    pub(super) fn mark_applied(&mut self, index: u64) {
        // A result that was for entries before an installed snapshot must not move the index beyond what was
        // handed out.
        let index = index.min(self.handed);
        if index > self.applied {
            self.applied = index;
            self.node.advance_apply_to(index);
            self.traces.applied(index);
            while let Some((_, at)) = self.applying.front().filter(|(last, _)| *last <= index) {
                self.apply_latency = Some(self.now.saturating_sub(*at));
                self.applying.pop_front();
            }
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
        // A leader of a later term cannot confirm the reads of an earlier one, and raft forgets the progress
        // of followers with the term.
        if led && (role != StateRole::Leader || term != self.term) {
            self.drop_reads(leader);
            self.end_sending();
        }
        let is_self = role == StateRole::Leader;
        match role {
            StateRole::Leader => self.note_election(),
            StateRole::Follower => self.traces.election = None,
            StateRole::PreCandidate | StateRole::Candidate => {}
        }
        if leader != self.leader || term != self.term || is_self != led {
            self.outputs.push_back(Output::Leader { leader, term, is_self });
        }
        (self.leader, self.role, self.term) = (leader, role, term);
    }

    /// Entries to fetch, snapshots to open, a log to shorten.
    fn look_for_work(&mut self) {
        // What is no longer in memory is for a member that lags.
        while self.fetching.is_none()
            && self.node.store().pace.may_send()
            && let Some(wanted) = self.node.store().take_wanted()
        {
            // Entries from `cache_first` on are in memory and may not be in the storage yet.
            let range = wanted.low..wanted.high.min(self.node.store().cache_first());
            if range.is_empty() {
                self.node.store().clear_fetched();
            } else {
                let pace = &self.node.store().pace;
                pace.note_backlog();
                let message_len = match pace.is_limiting() {
                    true => self.options.message_len_max.min(PACED_LEN),
                    false => self.options.message_len_max,
                };
                let len_max = message_len.saturating_mul(LEN_PER_FETCH);
                self.outputs.push_back(Output::Fetch { range, len_max });
                self.fetching = Some(wanted);
            }
        }
        for member in self.node.store().take_snapshot_wanted() {
            self.open_snapshot(member);
        }
        // One at a time: a second checkpoint or snapshot would start before the first has shortened the log.
        if self.log_grown >= self.options.checkpoint_log_len && !self.checkpointing && self.saving.is_none() {
            self.log_kept = self.log_kept.saturating_add(std::mem::take(&mut self.log_grown));
            self.checkpointing = true;
            self.outputs.push_back(Output::Checkpoint);
        }
    }

    pub(super) fn fetched(&mut self, entries: &[Entry]) {
        let Some(wanted) = self.fetching.take() else { return };
        self.node.store().pace.charge(entries.iter().map(|entry| entry.payload.len() as u64).sum());
        self.node.store().set_fetched(entries);
        if entries.is_empty() {
            // raft requests them again with the next heartbeat.
            return;
        }
        self.node.on_entries_fetched(wanted.context);
        self.node.store().clear_fetched();
    }

    /// The durable state of the state machine covers the log up to `index`. 0: it is in memory, and a
    /// snapshot is saved instead.
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
        // A snapshot of the leader that was installed meanwhile makes this one obsolete.
        if meta.index <= self.node.raft.raft_log.applied && meta.index > self.node.store().base.index {
            let index = meta.index;
            self.shorten(index, Some(meta));
        }
    }

    /// Removes the log up to `covered` except for a tail: followers that lag a little get entries and not a
    /// snapshot (Ongaro 2014, section 5.1.2 discusses when to take snapshots). What a member needs after the
    /// snapshot that it receives stays, too.
    fn shorten(&mut self, covered: u64, snapshot: Option<SnapshotMeta>) {
        let wanted = covered.min(self.applied).saturating_sub(self.options.retained_entries);
        let needed = self.needed_log().filter(|needed| *needed < wanted);
        if needed.is_none() {
            self.log_kept = 0;
        }
        let index = needed.unwrap_or(wanted);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn append(index: u64, log_term: u64, entries: &[(u64, u64)]) -> Message {
        let entries: Vec<_> = entries
            .iter()
            .map(|(index, term)| RaftEntry { index: *index, term: *term, ..RaftEntry::default() })
            .collect();
        Message {
            msg_type: MessageType::MsgAppend,
            index,
            log_term,
            entries: entries.into(),
            ..Message::default()
        }
    }

    /// `raft` joins entries to an empty append at another position; the wire format has no index for each
    /// entry.
    #[test]
    fn entries_travel_at_their_own_position() {
        let term_of = |index| (index >= 3).then_some(index / 2);
        let joined = append(7, 3, &[(5, 2), (6, 3)]);
        assert_eq!(align(joined, term_of), [append(7, 3, &[]), append(4, 2, &[(5, 2), (6, 3)])]);
        // The log no longer holds the term of the position: the entries are dropped, as if they were lost.
        assert_eq!(align(append(7, 3, &[(2, 1)]), term_of), [append(7, 3, &[])]);
        for message in [append(7, 3, &[(8, 3)]), append(7, 3, &[])] {
            assert_eq!(align(message.clone(), term_of), [message]);
        }
    }
}
