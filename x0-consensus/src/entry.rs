//! The parts of a replicated log.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use x0_identity::NodeId;

/// One place of the replicated log.
///
/// Cloning is cheap: the payload is shared and never copied on its way from the proposer to the state
/// machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that created it.
    pub term: u64,
    /// The index in the log: counted from 1, without gaps.
    pub index: u64,
    /// The receiver of the entry.
    pub kind: EntryKind,
    /// The bytes. Empty for the entry with which a leader opens its term.
    pub payload: Bytes,
}

/// The receiver of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The state machine.
    Normal,
    /// The replica itself: a change of the membership.
    Membership,
}

impl Entry {
    /// Whether it is a command. The others are changes of the membership and the empty entry with which a
    /// leader opens its term.
    #[must_use]
    pub fn is_command(&self) -> bool {
        self.kind == EntryKind::Normal && !self.payload.is_empty()
    }
}

/// The state of a replica that must survive a restart: `currentTerm` and `votedFor` (Ongaro 2014, figure
/// 3.1). `commit` is optional and saves work after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term that the replica has seen; 0 before the first.
    pub term: u64,
    /// The candidate that received its vote in that term.
    pub vote: Option<NodeId>,
    /// The last index that it knows to be committed.
    pub commit: u64,
}

/// The incarnation of a member that may vote and acknowledge: see the docs of
/// [`Replica`](crate::Replica#incarnations).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Registration {
    /// The incarnation.
    pub incarnation: u64,
    /// The index of the entry that registered it; 0 if the group was founded with it.
    pub index: u64,
}

/// The members of a group as of some index.
///
/// Outside a change only `voters` and `learners` are set. During a joint change (Ongaro 2014, section 4.3) a
/// decision needs a majority of `voters` and a majority of `voters_outgoing`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// The members that vote and may lead.
    pub voters: BTreeSet<NodeId>,
    /// The voters before the current joint change.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// The members that receive the log and do not vote.
    pub learners: BTreeSet<NodeId>,
    /// Voters of the outgoing set that become learners when the change ends.
    pub learners_next: BTreeSet<NodeId>,
    /// Whether the leader ends the joint change by itself once it is committed.
    pub auto_leave: bool,
    /// The id of the group, made of its founders' incarnations; 0 for a group that was founded without them.
    pub cluster: u64,
    /// The registered incarnation of each member that has one.
    pub incarnations: BTreeMap<NodeId, Registration>,
}

impl Membership {
    /// A membership of these voters without learners.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Membership {
        Membership { voters: voters.into_iter().collect(), ..Membership::default() }
    }

    /// Whether there are no members, as in a log that was never written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.learners.is_empty()
    }

    /// Whether a joint change has not ended.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether there is a cluster id or an incarnation.
    pub(crate) fn has_identity(&self) -> bool {
        self.cluster != 0 || !self.incarnations.is_empty()
    }

    /// Whether Raft can produce this membership: there is a voter, no member is a voter and a learner, and
    /// only a joint change has `learners_next` and `auto_leave`.
    pub(crate) fn is_consistent(&self) -> bool {
        !self.voters.is_empty()
            && self.learners.is_disjoint(&self.voters)
            && self.learners.is_disjoint(&self.voters_outgoing)
            && self.learners_next.is_subset(&self.voters_outgoing)
            && self.learners_next.is_disjoint(&self.voters)
            && (self.is_joint() || !self.auto_leave)
            && self.incarnations.keys().all(|node| self.contains(*node))
    }

    /// Whether this node is a member in any role.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes().any(|member| member == node)
    }

    /// All members in all roles. A member with two roles comes twice.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        [&self.voters, &self.voters_outgoing, &self.learners, &self.learners_next]
            .into_iter()
            .flat_map(|role| role.iter().copied())
    }
}

/// The position before the first entry of a log, and what is known of the entries that were removed.
///
/// The first entry of the log has the index `index + 1`. A log that was never shortened has the default base:
/// index 0, term 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogBase {
    /// The last index that was removed.
    pub index: u64,
    /// The term of the entry at that index.
    pub term: u64,
    /// The membership as of that index. The `Membership` entries after the base change it.
    pub membership: Membership,
}

/// The state that a snapshot holds. The bytes of the snapshot are defined by the state machine and are
/// streamed separately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// The last index whose effects are in it.
    pub index: u64,
    /// The term of the entry at that index.
    pub term: u64,
    /// The membership as of that index.
    pub membership: Membership,
}

impl From<SnapshotMeta> for LogBase {
    fn from(meta: SnapshotMeta) -> LogBase {
        LogBase { index: meta.index, term: meta.term, membership: meta.membership }
    }
}
