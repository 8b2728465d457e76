//! The encoding of memberships and their changes, in entries and in chunks of snapshots.

use std::collections::BTreeSet;

use x0_identity::NodeId;

use super::{DecodeError, Fields, put_u64};
use crate::entry::Membership;
use crate::membership::MembershipChange;

pub(crate) fn encode_membership(to: &mut Vec<u8>, membership: &Membership) {
    for role in
        [&membership.voters, &membership.learners, &membership.voters_outgoing, &membership.learners_next]
    {
        put_nodes(to, role);
    }
    to.push(u8::from(membership.auto_leave));
}

pub(crate) fn decode_membership(from: &mut Fields) -> Result<Membership, DecodeError> {
    Ok(Membership {
        voters: nodes(from, "voters")?,
        learners: nodes(from, "learners")?,
        voters_outgoing: nodes(from, "outgoing voters")?,
        learners_next: nodes(from, "next learners")?,
        auto_leave: from.bool("leave flag")?,
    })
}

pub(crate) fn encode_change(to: &mut Vec<u8>, change: &MembershipChange) {
    put_nodes(to, &change.voters);
    put_nodes(to, &change.learners);
    put_nodes(to, &change.removed);
}

pub(crate) fn decode_change(from: &mut Fields) -> Result<MembershipChange, DecodeError> {
    Ok(MembershipChange {
        voters: nodes(from, "new voters")?,
        learners: nodes(from, "new learners")?,
        removed: nodes(from, "removed members")?,
    })
}

fn put_nodes(to: &mut Vec<u8>, nodes: &BTreeSet<NodeId>) {
    put_u64(to, nodes.len() as u64);
    for node in nodes {
        put_u64(to, node.get());
    }
}

/// Reads a set of nodes: ascending and without repetition, so that a set has one encoding.
fn nodes(from: &mut Fields, field: &'static str) -> Result<BTreeSet<NodeId>, DecodeError> {
    let mut nodes = BTreeSet::new();
    for _ in 0..from.count(field, 1, MembershipChange::MEMBERS_MAX)? {
        let node = from.node(field)?;
        if nodes.last().is_some_and(|last| *last >= node) {
            return Err(DecodeError::Invalid { field });
        }
        nodes.insert(node);
    }
    Ok(nodes)
}
