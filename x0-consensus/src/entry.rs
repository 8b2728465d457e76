//! What a replicated log is made of.

use std::collections::BTreeSet;

use bytes::Bytes;
use x0_identity::NodeId;

/// One place of the replicated log.
///
/// Cloning is cheap: the payload is shared and never copied on its way from the proposer to the state
/// machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: u64,
    /// Its place, counted from 1, without gaps.
    pub index: u64,
    /// Who it is for.
    pub kind: EntryKind,
    /// What it says. Empty for the entry with which a leader opens its term.
    pub payload: Bytes,
}

/// Who an [`Entry`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The state machine.
    Normal,
    /// Consensus itself: a change of who takes part.
    Membership,
}

impl Entry {
    /// Whether it is somebody's command. The others are changes of the membership and the empty entry with which a leader begins.
    #[must_use]
    pub fn is_command(&self) -> bool {
        self.kind == EntryKind::Normal && !self.payload.is_empty()
    }
}

/// What a node must not forget between two elections (Raft §5.2: `currentTerm`, `votedFor`; `commit` spares
/// work).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term this node has seen; 0 before the first.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The last index it knows to be committed.
    pub commit: u64,
}

/// Who takes part in a log, as of some index.
///
/// Outside a change only `voters` and `learners` are filled. During a joint change (Raft dissertation §4.3) a
/// decision needs a majority of `voters` and one of `voters_outgoing`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// They decide and may lead.
    pub voters: BTreeSet<NodeId>,
    /// The voters before the change under way.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// They receive the log and decide nothing.
    pub learners: BTreeSet<NodeId>,
    /// Voters of the outgoing set that become learners when the change ends.
    pub learners_next: BTreeSet<NodeId>,
    /// Whether the leader ends the change by itself once it is committed.
    pub auto_leave: bool,
}

impl Membership {
    /// These voters and nobody else.
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Membership {
        Membership { voters: voters.into_iter().collect(), ..Membership::default() }
    }

    /// Whether nobody takes part: true of a log that was never written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.learners.is_empty()
    }

    /// Whether a joint change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether Raft could have come to it: there is a voter, nobody decides and learns at once, and only a joint change has what
    /// ends with it.
    pub(crate) fn is_consistent(&self) -> bool {
        !self.voters.is_empty()
            && self.learners.is_disjoint(&self.voters)
            && self.learners.is_disjoint(&self.voters_outgoing)
            && self.learners_next.is_subset(&self.voters_outgoing)
            && self.learners_next.is_disjoint(&self.voters)
            && (self.is_joint() || !self.auto_leave)
    }

    /// Whether this node takes part in any role.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes().any(|member| member == node)
    }

    /// Everybody, in any role; some perhaps twice.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        [&self.voters, &self.voters_outgoing, &self.learners, &self.learners_next]
            .into_iter()
            .flat_map(|role| role.iter().copied())
    }
}

/// Where a log begins: all that is known of the entries that are no longer held.
///
/// The first entry held has the index `index + 1`. A log that was never truncated has the default base: index
/// 0, term 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogBase {
    /// The last index that is no longer held.
    pub index: u64,
    /// The term of the entry at that index.
    pub term: u64,
    /// Who took part as of that index. The `Membership` entries behind the base tell the rest.
    pub membership: Membership,
}

/// Which state a snapshot holds. Its bytes are the state machine's own and are streamed apart from this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// The last index whose effects it holds.
    pub index: u64,
    /// The term of the entry at that index.
    pub term: u64,
    /// Who took part as of that index.
    pub membership: Membership,
}

impl From<SnapshotMeta> for LogBase {
    fn from(meta: SnapshotMeta) -> LogBase {
        LogBase { index: meta.index, term: meta.term, membership: meta.membership }
    }
}
