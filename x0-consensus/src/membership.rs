//! Changes of the membership.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};
use x0_identity::NodeId;

use crate::codec::{Fields, decode_change};
use crate::entry::{Entry, Membership};

/// A change of the membership. A change of one member is one step (Ongaro 2014, section 4.1); a change of
/// several goes through a joint phase (section 4.3), which the leader leaves by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembershipChange {
    /// Members that become voters: new ones, or learners that are promoted.
    pub voters: BTreeSet<NodeId>,
    /// Members that become learners: new ones, or voters that are demoted.
    pub learners: BTreeSet<NodeId>,
    /// Members that leave.
    pub removed: BTreeSet<NodeId>,
    /// Incarnations that are registered with the change. A leader adds that of a new member by itself.
    pub incarnations: BTreeMap<NodeId, u64>,
}

impl MembershipChange {
    /// The most members that a group may have, over all roles.
    pub const MEMBERS_MAX: usize = 128;

    /// Adds a voter, or promotes a learner.
    #[must_use]
    pub fn voter(mut self, node: NodeId) -> MembershipChange {
        self.voters.insert(node);
        self
    }

    /// Adds a learner, or demotes a voter.
    #[must_use]
    pub fn learner(mut self, node: NodeId) -> MembershipChange {
        self.learners.insert(node);
        self
    }

    /// Removes a member.
    #[must_use]
    pub fn remove(mut self, node: NodeId) -> MembershipChange {
        self.removed.insert(node);
        self
    }

    /// The change of an entry of kind `Membership`; `None` if it cannot be decoded, so that it has no effect.
    pub(crate) fn of_entry(entry: &Entry) -> Option<MembershipChange> {
        if entry.payload.is_empty() {
            return Some(MembershipChange::default());
        }
        let mut fields = Fields::new(entry.payload.clone());
        decode_change(&mut fields).and_then(|change| fields.finish().map(|()| change)).ok()
    }

    /// Whether the change is not empty, names no node twice, leaves a voter, and leaves at most
    /// [`MEMBERS_MAX`](Self::MEMBERS_MAX) members.
    pub(crate) fn is_possible(&self, before: &Membership) -> bool {
        let named = self.voters.len() + self.learners.len() + self.removed.len();
        let distinct: BTreeSet<_> = self.voters.iter().chain(&self.learners).chain(&self.removed).collect();
        let stays = |voter: &&NodeId| !self.learners.contains(*voter) && !self.removed.contains(*voter);
        let has_voter = !self.voters.is_empty() || before.voters.iter().any(|voter| stays(&voter));
        let members = before.voters.len() + before.learners.len() + named;
        named > 0 && distinct.len() == named && has_voter && members <= MembershipChange::MEMBERS_MAX
    }
}

/// The members of a role in the form of `raft`.
fn numbers(nodes: &BTreeSet<NodeId>) -> Vec<u64> {
    nodes.iter().map(|node| node.get()).collect()
}

fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
    numbers.iter().copied().filter_map(NodeId::new).collect()
}

pub(crate) fn to_conf_state(membership: &Membership) -> ConfState {
    ConfState {
        voters: numbers(&membership.voters),
        learners: numbers(&membership.learners),
        voters_outgoing: numbers(&membership.voters_outgoing),
        learners_next: numbers(&membership.learners_next),
        auto_leave: membership.auto_leave,
        ..ConfState::default()
    }
}

pub(crate) fn from_conf_state(state: &ConfState) -> Membership {
    Membership {
        voters: nodes(&state.voters),
        learners: nodes(&state.learners),
        voters_outgoing: nodes(&state.voters_outgoing),
        learners_next: nodes(&state.learners_next),
        auto_leave: state.auto_leave,
        ..Membership::default()
    }
}

/// An empty change makes `raft` leave a joint phase.
pub(crate) fn to_conf_change(change: &MembershipChange) -> ConfChangeV2 {
    let single = |change_type, node: &NodeId| ConfChangeSingle {
        change_type,
        node_id: node.get(),
        ..ConfChangeSingle::default()
    };
    let changes: Vec<_> = (change.removed.iter().map(|node| single(ConfChangeType::RemoveNode, node)))
        .chain(change.voters.iter().map(|node| single(ConfChangeType::AddNode, node)))
        .chain(change.learners.iter().map(|node| single(ConfChangeType::AddLearnerNode, node)))
        .collect();
    let mut conf_change = ConfChangeV2::default();
    conf_change.set_changes(changes.into());
    conf_change
}
