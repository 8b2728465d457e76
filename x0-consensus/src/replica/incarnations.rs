//! The part of the protocol that knows which log speaks for a member: founding, votes, acknowledgements, and
//! the return of a member that has lost its log. The rules are in the docs of [`Replica`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{Message, MessageType};
use raft::{INVALID_INDEX, ProgressState};
use x0_identity::NodeId;

use super::{Class, FailReason, HandleError, Output, Replica};
use crate::codec::{Envelope, Hello, seal_contexts};
use crate::entry::{LogBase, Membership, Registration};
use crate::membership::MembershipChange;
use crate::random::SplitMix64;
use crate::storage::Write;
use crate::trace::Context;

/// The most entries by which a returned member may lag when it is registered.
const LAG_MAX: u64 = 1024;

/// Whether a replica may vote and acknowledge in its group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Standing {
    /// The replica is a member, and its log speaks for it. Also a replica without an incarnation.
    #[default]
    Member,
    /// The replica is a founder with an empty log, and waits until all founders have answered.
    Founding {
        /// The founders that have not answered.
        missing: BTreeSet<NodeId>,
    },
    /// The replica is a member, and another log is registered for it: its own was lost, restored or adopted.
    /// It receives entries and neither votes nor counts for commits. The leader registers it by itself when
    /// it has caught up; that needs a majority of the voters without this one.
    Rejoining {
        /// The incarnation that is registered.
        registered: u64,
    },
    /// The replica is not a member of any group that it knows of, and waits to be added to one.
    Outsider,
}

/// The highest index that a member was seen to have acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Acknowledged {
    /// The incarnation of the member.
    pub incarnation: u64,
    /// The index, which is committed: no later leader replaces it.
    pub index: u64,
}

impl Acknowledged {
    /// The member's incarnation and the index.
    #[must_use]
    pub fn new(incarnation: u64, index: u64) -> Acknowledged {
        Acknowledged { incarnation, index }
    }
}

/// A founder that waits for the others.
#[derive(Debug)]
pub(super) struct Founding {
    /// The incarnations of the founders that have answered, this one included.
    heard: BTreeMap<NodeId, u64>,
    /// The ticks until the next round of messages.
    ticks_left: u32,
}

/// Facts about the incarnations in a group that the membership does not contain.
#[derive(Debug, Default)]
pub(super) struct Incarnations {
    pub(super) founding: Option<Founding>,
    /// An outsider learned that another incarnation is registered for it.
    pub(super) replaced: Option<u64>,
    /// The incarnation that each member used last.
    pub(super) seen: BTreeMap<NodeId, u64>,
    pub(super) acknowledged: BTreeMap<NodeId, Acknowledged>,
    /// The last index through which the log is that of the leader, and the term of that leader.
    pub(super) matched: (u64, u64),
    /// As it was reported last.
    pub(super) standing: Standing,
}

impl Founding {
    pub(super) fn new(id: NodeId, incarnation: u64) -> Founding {
        Founding { heard: BTreeMap::from([(id, incarnation)]), ticks_left: 0 }
    }
}

/// The membership of a new group.
pub(super) fn founded(founders: &Membership, incarnations: &BTreeMap<NodeId, u64>) -> Membership {
    // Made of all incarnations, so that founders of two groups never agree by accident.
    let mix = |hash: u64, number: u64| SplitMix64(hash ^ number).next_u64();
    let cluster =
        incarnations.iter().fold(0, |hash, (node, incarnation)| mix(mix(hash, node.get()), *incarnation));
    let registration = |incarnation: &u64| Registration { incarnation: *incarnation, index: 0 };
    Membership {
        cluster: cluster.max(1),
        incarnations: incarnations.iter().map(|(node, number)| (*node, registration(number))).collect(),
        ..founders.clone()
    }
}

impl Replica {
    fn membership(&self) -> Option<&Membership> {
        self.memberships.back().map(|(_, membership)| membership)
    }

    /// The registration of a member, as far as this replica has applied the log.
    fn registration(&self, node: NodeId) -> Option<Registration> {
        self.membership().and_then(|membership| membership.incarnations.get(&node)).copied()
    }

    /// Whether this replica speaks for its id, as far as it knows.
    pub(super) fn is_registered(&self) -> bool {
        let own = self.options.incarnation;
        let Some(membership) = self.membership().filter(|_| own != 0) else { return own == 0 };
        // No other member could have counted on a log that is lost.
        let is_alone = membership.voters.len() == 1
            && membership.voters.contains(&self.options.id)
            && !membership.is_joint();
        is_alone
            || match membership.incarnations.get(&self.options.id) {
                Some(registration) => registration.incarnation == own,
                // A group of a release without incarnations, until its leader has registered them.
                None => !membership.is_empty(),
            }
    }

    /// Whether this replica is the registered one, and may vote for the sender of a message: by its own
    /// knowledge or that of the sender, whichever is of the later entry.
    fn may_vote(&self, claimed: Registration) -> bool {
        let own = self.options.incarnation;
        match self.registration(self.options.id) {
            _ if own == 0 => true,
            Some(known) if known.index >= claimed.index || claimed.incarnation == 0 => {
                known.incarnation == own
            }
            _ if claimed.incarnation != 0 => claimed.incarnation == own,
            _ => self.is_registered(),
        }
    }

    /// Whether acknowledgements of this incarnation of a member count for commits, reads and the leadership.
    fn counts(&self, node: NodeId, incarnation: u64) -> bool {
        let Some(membership) = self.membership() else { return true };
        // Of two voters the leader holds every committed entry, and no other leader was possible without it.
        let is_pair = membership.voters.len() == 2 && !membership.is_joint();
        is_pair || membership.incarnations.get(&node).is_none_or(|held| held.incarnation == incarnation)
    }

    /// Whether the messages of this member count, by the incarnation that it used last.
    pub(super) fn is_counted(&self, node: NodeId) -> bool {
        self.incarnations.seen.get(&node).is_none_or(|incarnation| self.counts(node, *incarnation))
    }

    /// Emits a message.
    pub(super) fn send(&mut self, to: NodeId, class: Class, payload: Vec<u8>) {
        let payload = self.sealed(to, payload);
        self.outputs.push_back(Output::Send { to, class, payload });
    }

    /// Emits a message whose entries have these trace contexts.
    pub(super) fn send_traced(&mut self, to: NodeId, payload: Vec<u8>, contexts: &[(u32, Context)]) {
        let mut payload = self.sealed(to, payload);
        seal_contexts(&mut payload, contexts);
        self.outputs.push_back(Output::Send { to, class: Class::Message, payload });
    }

    /// A message with its envelope.
    fn sealed(&self, to: NodeId, mut payload: Vec<u8>) -> Vec<u8> {
        let incarnation = self.options.incarnation;
        if incarnation != 0 {
            let registered = self.registration(to).unwrap_or_default();
            let acknowledged = self.incarnations.acknowledged.get(&to);
            let acknowledged = acknowledged.filter(|seen| seen.incarnation == registered.incarnation);
            let envelope = Envelope {
                cluster: self.membership().map_or(0, |membership| membership.cluster),
                incarnation,
                registered,
                acknowledged: acknowledged.map_or(0, |seen| seen.index),
            };
            envelope.seal(&mut payload);
        }
        payload
    }

    /// Takes note of the sender of a message, and checks that both belong to one group.
    pub(super) fn note_sender(&mut self, from: NodeId, envelope: &Envelope) -> Result<(), HandleError> {
        let own = self.membership().map_or(0, |membership| membership.cluster);
        if own != 0 && envelope.cluster != 0 && own != envelope.cluster {
            return Err(HandleError::Refused { reason: "the sender belongs to another cluster" });
        }
        // Entries that were committed and acknowledged by this log are gone: the disk was rolled back.
        let is_own =
            envelope.registered.incarnation == self.options.incarnation && self.options.incarnation != 0;
        let last_index = self.node.raft.raft_log.last_index();
        // Also of a log that was rolled back to the time before it had a membership.
        if is_own && envelope.acknowledged > last_index && self.may_vote(envelope.registered) {
            return self.fail(from.get(), envelope, FailReason::LogLost);
        }
        self.note_replaced(envelope.registered.incarnation);
        if envelope.incarnation == 0 || self.node.raft.prs().get(from.get()).is_none() {
            return Ok(());
        }
        let before = self.incarnations.seen.insert(from, envelope.incarnation);
        if self.is_leader() && before.is_some_and(|before| before != envelope.incarnation) {
            self.reset_progress(from);
        }
        Ok(())
    }

    /// An outsider that is no founder learns from any message of a member that another log is registered for
    /// it: it was emptied, and returns.
    fn note_replaced(&mut self, registered: u64) {
        let own = self.options.incarnation;
        let is_outsider = self.incarnations.founding.is_none()
            && !self.membership().is_some_and(|membership| membership.contains(self.options.id));
        if is_outsider && own != 0 && registered != 0 && registered != own {
            self.be_replaced(Some(registered));
        }
    }

    /// Forgets what a member has acknowledged under another incarnation: its log is another one.
    fn reset_progress(&mut self, member: NodeId) {
        self.stop_sending(member);
        let last_index = self.node.raft.raft_log.last_index();
        if let Some(progress) = self.node.raft.mut_prs().get_mut(member.get()) {
            progress.matched = 0;
            progress.become_probe();
            progress.next_idx = last_index + 1;
            progress.pending_request_snapshot = INVALID_INDEX;
            progress.committed_index = 0;
        }
    }

    /// Applies the rules of incarnations to a message before `raft` sees it. Returns whether `raft` may.
    pub(super) fn admit(&mut self, message: &mut Message, envelope: &Envelope) -> bool {
        let is_suspended = self.is_leader()
            && NodeId::new(message.from).is_some_and(|from| !self.counts(from, envelope.incarnation));
        match message.msg_type {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
                if !self.may_vote(envelope.registered) =>
            {
                return false;
            }
            // A leader that counts on the lost log sends a commit index of that log. This one may be shorter,
            // or end in entries that were replaced since: only those that the leader has matched in its term
            // are its own.
            MessageType::MsgHeartbeat if !self.may_vote(envelope.registered) => {
                let (term, index) = self.incarnations.matched;
                let matched = if term == message.term { index } else { 0 };
                let log = &self.node.raft.raft_log;
                message.commit = message.commit.min(log.committed.max(matched.min(log.last_index())));
            }
            // An acknowledgement of committed entries moves nothing but the flow of entries to that member.
            MessageType::MsgAppendResponse if is_suspended && !message.reject => {
                message.index = message.index.min(self.node.raft.raft_log.committed);
            }
            // Without its context the response confirms no read.
            MessageType::MsgHeartbeatResponse if is_suspended => message.context.clear(),
            _ => {}
        }
        true
    }

    /// Whether `raft` may see messages: a founder first learns whether the group exists.
    pub(super) fn is_founded(&mut self, from: NodeId, envelope: &Envelope) -> bool {
        if self.incarnations.founding.is_none() {
            return true;
        }
        let own = Registration { incarnation: self.options.incarnation, index: 0 };
        if envelope.registered == own && self.options.bootstrap.contains(from) {
            // The sender has founded the group with this log, and answers with the membership.
            self.send(from, Class::Message, Hello::Fresh.encode());
            return false;
        }
        let registered = envelope.registered.incarnation;
        self.be_replaced((registered != own.incarnation && registered != 0).then_some(registered));
        true
    }

    /// One tick of `raft`. A leader does not stay one because of members whose messages do not count.
    pub(super) fn tick(&mut self) {
        let mut hidden = Vec::new();
        if self.is_leader() && self.options.incarnation != 0 {
            for node in self.incarnations.seen.keys().filter(|node| !self.is_counted(**node)) {
                hidden.push(*node);
            }
            hidden.retain(|node| self.set_active(*node, false));
        }
        self.node.tick();
        for node in hidden {
            // `raft` sends no snapshot to an inactive member.
            self.set_active(node, true);
        }
    }

    /// Returns whether the member was active.
    fn set_active(&mut self, node: NodeId, is_active: bool) -> bool {
        let progress = self.node.raft.mut_prs().get_mut(node.get());
        progress.is_some_and(|progress| std::mem::replace(&mut progress.recent_active, is_active))
    }

    /// The work that is due once per tick.
    pub(super) fn tick_incarnations(&mut self) {
        if self.options.incarnation == 0 {
            return;
        }
        if let Some(founding) = &mut self.incarnations.founding {
            match founding.ticks_left.checked_sub(1) {
                Some(left) => founding.ticks_left = left,
                None => self.call_founders(),
            }
        }
        if self.is_leader() {
            self.note_acknowledged();
            self.register_returned();
        }
        self.note_standing();
    }

    fn note_acknowledged(&mut self) {
        let committed = self.node.raft.raft_log.committed;
        let Replica { incarnations, node, memberships, .. } = self;
        let Some((_, membership)) = memberships.back() else { return };
        for (member, incarnation) in &incarnations.seen {
            let is_registered =
                membership.incarnations.get(member).is_some_and(|held| held.incarnation == *incarnation);
            let Some(progress) = node.raft.prs().get(member.get()).filter(|_| is_registered) else {
                continue;
            };
            let index = progress.matched.min(committed);
            let held = incarnations.acknowledged.entry(*member).or_default();
            if held.incarnation != *incarnation || held.index < index {
                *held = Acknowledged { incarnation: *incarnation, index };
            }
        }
        incarnations.acknowledged.retain(|member, _| membership.contains(*member));
    }

    /// Registers the incarnation of a member that has caught up. The entry is committed by the others: until
    /// then this leader counts no acknowledgement of the new incarnation.
    fn register_returned(&mut self) {
        let raft = &self.node.raft;
        let log = &raft.raft_log;
        let is_busy = raft.lead_transferee.is_some()
            || raft.pending_conf_index > log.applied
            || self.membership().is_none_or(Membership::is_joint);
        if is_busy {
            return;
        }
        let own = (self.options.id, self.options.incarnation);
        let returned = self.incarnations.seen.iter().map(|(node, incarnation)| (*node, *incarnation));
        let returned = returned.chain([own]).find(|(node, incarnation)| {
            let is_caught_up = *node == self.options.id
                || raft.prs().get(node.get()).is_some_and(|progress| {
                    // The member has received something, and it receives entries and no snapshot. `raft` may
                    // still probe it: a reduced acknowledgement does not end that.
                    progress.matched > 0
                        && progress.state != ProgressState::Snapshot
                        && progress.matched.saturating_add(LAG_MAX) >= log.committed
                });
            let is_member = self.membership().is_some_and(|membership| membership.contains(*node));
            let registered = self.registration(*node).map(|held| held.incarnation);
            is_member && registered != Some(*incarnation) && is_caught_up
        });
        let Some((node, incarnation)) = returned else { return };
        // The change names the present role, so that it changes the incarnation alone.
        let is_voter = self.membership().is_some_and(|membership| membership.voters.contains(&node));
        let mut change = MembershipChange::default();
        change = if is_voter { change.voter(node) } else { change.learner(node) };
        change.incarnations.insert(node, incarnation);
        // If `raft` has no room for the entry, the next tick tries again.
        let _ = self.propose_change(&change);
    }

    /// Adds to a change the incarnations of the members that it adds. An error if a new voter has none: it
    /// could not be counted on after it had lost its log.
    pub(super) fn complete_change(&self, change: &MembershipChange) -> Result<MembershipChange, ()> {
        let mut change = change.clone();
        if self.options.incarnation == 0 {
            return Ok(change);
        }
        for node in change.voters.iter().chain(&change.learners) {
            if self.registration(*node).is_none()
                && let Some(incarnation) = self.incarnations.seen.get(node)
            {
                change.incarnations.entry(*node).or_insert(*incarnation);
            }
        }
        let is_known =
            |node: &NodeId| self.registration(*node).is_some() || change.incarnations.contains_key(node);
        let is_complete = change.voters.iter().all(|node| *node == self.options.id || is_known(node));
        is_complete.then_some(change).ok_or(())
    }

    /// The membership after a change, whose roles `raft` has computed.
    pub(super) fn with_identity(
        &self,
        roles: Membership,
        change: &MembershipChange,
        index: u64,
    ) -> Membership {
        let mut membership = roles;
        if let Some(before) = self.membership() {
            membership.cluster = before.cluster;
            membership.incarnations.clone_from(&before.incarnations);
        }
        for (node, incarnation) in &change.incarnations {
            membership.incarnations.insert(*node, Registration { incarnation: *incarnation, index });
        }
        let members: BTreeSet<NodeId> = membership.nodes().collect();
        membership.incarnations.retain(|node, _| members.contains(node));
        membership
    }

    /// Forgets nodes that are no longer members.
    pub(super) fn forget_strangers(&mut self, membership: &Membership) {
        self.incarnations.seen.retain(|node, _| membership.contains(*node));
        self.last_messages.retain(|member, _| membership.contains(*member));
        self.degraded.retain(|member, _| membership.contains(*member));
    }

    fn call_founders(&mut self) {
        let heartbeat = self.options.heartbeat_ticks;
        if let Some(founding) = &mut self.incarnations.founding {
            founding.ticks_left = heartbeat;
        }
        for founder in self.other_founders() {
            self.send(founder, Class::Message, Hello::Fresh.encode());
        }
    }

    fn other_founders(&self) -> Vec<NodeId> {
        self.options.bootstrap.nodes().filter(|founder| *founder != self.options.id).collect()
    }

    /// Takes the message of a founder, or the answer to one.
    pub(super) fn receive_hello(&mut self, from: NodeId, envelope: &Envelope, hello: Hello) {
        let is_founder = self.options.bootstrap.contains(from);
        let own = Registration { incarnation: self.options.incarnation, index: 0 };
        match (&mut self.incarnations.founding, hello) {
            (Some(founding), Hello::Fresh) if is_founder && envelope.incarnation != 0 => {
                // The sender may have missed an earlier message, and waits for nothing else.
                if founding.heard.insert(from, envelope.incarnation) != Some(envelope.incarnation) {
                    self.send(from, Class::Message, Hello::Fresh.encode());
                }
                self.found_if_complete();
            }
            (Some(_), Hello::Founded(membership)) if is_founder => {
                let mine = membership.incarnations.get(&self.options.id);
                if mine == Some(&own) {
                    return self.found(membership);
                }
                self.be_replaced(mine.map(|held| held.incarnation));
            }
            (Some(_), Hello::Exists(registered)) if is_founder => {
                let is_replaced = registered.incarnation != own.incarnation && registered.incarnation != 0;
                self.be_replaced(is_replaced.then_some(registered.incarnation));
            }
            (None, Hello::Fresh) => self.answer_founder(from),
            _ => {}
        }
    }

    fn answer_founder(&mut self, from: NodeId) {
        let Some((index, first)) = self.memberships.front() else { return };
        let is_known = self.membership().is_some_and(|membership| membership.contains(from));
        if first.is_empty() || first.cluster == 0 || !(is_known || self.options.bootstrap.contains(from)) {
            return;
        }
        let hello = match *index {
            0 => Hello::Founded(first.clone()),
            // The founder starts from a snapshot of the leader.
            _ => Hello::Exists(self.registration(from).unwrap_or_default()),
        };
        self.send(from, Class::Message, hello.encode());
    }

    /// The group was founded without this log.
    fn be_replaced(&mut self, registered: Option<u64>) {
        self.incarnations.founding = None;
        self.incarnations.replaced = registered;
        self.note_standing();
    }

    fn found_if_complete(&mut self) {
        let Some(founding) = &self.incarnations.founding else { return };
        if self.options.bootstrap.nodes().all(|founder| founding.heard.contains_key(&founder)) {
            self.found(founded(&self.options.bootstrap, &founding.heard));
        }
    }

    /// Founds the group, or joins those that have founded it.
    fn found(&mut self, membership: Membership) {
        self.incarnations.founding = None;
        let base = LogBase { index: 0, term: 0, membership: membership.clone() };
        // `raft` has received no message since the start, so that its state is the recovered one.
        let hard_state = self.node.raft.hard_state();
        let Some(node) = super::make_node(&self.options, &hard_state, &base, 0) else { return };
        self.node = node;
        self.memberships = VecDeque::from([(0, membership.clone())]);
        // Durable before any message that depends on it: without it this founder could found a second group
        // after a crash.
        self.append(Write { base: Some(base), ..Write::default() }, None, Vec::new());
        self.outputs.push_back(Output::Membership(membership));
        self.note_standing();
        self.draw_election_time();
    }

    fn present_standing(&self) -> Standing {
        let id = self.options.id;
        let Incarnations { founding, replaced, .. } = &self.incarnations;
        if let Some(founding) = founding {
            let missing = self.options.bootstrap.nodes().filter(|node| !founding.heard.contains_key(node));
            return Standing::Founding { missing: missing.collect() };
        }
        let membership = self.membership().filter(|membership| membership.contains(id));
        match (membership, replaced) {
            _ if self.options.incarnation == 0 => Standing::Member,
            (Some(_), _) if self.is_registered() => Standing::Member,
            (Some(membership), _) => Standing::Rejoining {
                registered: membership.incarnations.get(&id).map_or(0, |held| held.incarnation),
            },
            (None, Some(registered)) => Standing::Rejoining { registered: *registered },
            (None, None) => Standing::Outsider,
        }
    }

    /// Reports the standing if it has changed.
    pub(super) fn note_standing(&mut self) {
        let standing = self.present_standing();
        if standing != self.incarnations.standing {
            self.incarnations.standing = standing.clone();
            self.outputs.push_back(Output::Standing(standing));
        }
    }

    /// The highest committed index that each other member was seen to have acknowledged, by this replica as a
    /// leader. A caller that keeps it over a restart, in [`Options::acknowledged`](crate::Options), lets the
    /// member detect that its disk was rolled back as a whole.
    #[must_use]
    pub fn acknowledged(&self) -> &BTreeMap<NodeId, Acknowledged> {
        &self.incarnations.acknowledged
    }
}
