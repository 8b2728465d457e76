//! The encoding of memberships and their changes, in entries and in chunks of snapshots.

use std::collections::{BTreeMap, BTreeSet};

use x0_identity::NodeId;

use super::{DecodeError, Fields, put_u64};
use crate::entry::{Membership, Registration};
use crate::membership::MembershipChange;

/// The bit of the leave flag that says that cluster and incarnations follow.
const IDENTITY: u8 = 2;

pub(crate) fn encode_membership(to: &mut Vec<u8>, membership: &Membership) {
    for role in
        [&membership.voters, &membership.learners, &membership.voters_outgoing, &membership.learners_next]
    {
        put_nodes(to, role);
    }
    let has_identity = membership.has_identity();
    to.push(u8::from(membership.auto_leave) | if has_identity { IDENTITY } else { 0 });
    if has_identity {
        put_u64(to, membership.cluster);
        put_u64(to, membership.incarnations.len() as u64);
        for (node, Registration { incarnation, index }) in &membership.incarnations {
            [node.get(), *incarnation, *index].iter().for_each(|number| put_u64(to, *number));
        }
    }
}

pub(crate) fn decode_membership(from: &mut Fields) -> Result<Membership, DecodeError> {
    let mut membership = Membership {
        voters: nodes(from, "voters")?,
        learners: nodes(from, "learners")?,
        voters_outgoing: nodes(from, "outgoing voters")?,
        learners_next: nodes(from, "next learners")?,
        ..Membership::default()
    };
    let flags = from.u8("leave flag")?;
    if flags & !(1 | IDENTITY) != 0 {
        return Err(DecodeError::Invalid { field: "leave flag" });
    }
    membership.auto_leave = flags & 1 != 0;
    if flags & IDENTITY != 0 {
        membership.cluster = from.u64("cluster")?;
        for _ in 0..from.count("incarnations", 3, MembershipChange::MEMBERS_MAX)? {
            let node = next_node(from, membership.incarnations.last_key_value().map(|(last, _)| *last))?;
            let incarnation = from.u64("incarnation")?;
            let index = from.u64("index of an incarnation")?;
            membership.incarnations.insert(node, Registration { incarnation, index });
        }
    }
    Ok(membership)
}

pub(crate) fn encode_change(to: &mut Vec<u8>, change: &MembershipChange) {
    put_nodes(to, &change.voters);
    put_nodes(to, &change.learners);
    put_nodes(to, &change.removed);
    // Absent in entries of releases without incarnations.
    if !change.incarnations.is_empty() {
        put_u64(to, change.incarnations.len() as u64);
        for (node, incarnation) in &change.incarnations {
            put_u64(to, node.get());
            put_u64(to, *incarnation);
        }
    }
}

pub(crate) fn decode_change(from: &mut Fields) -> Result<MembershipChange, DecodeError> {
    let mut change = MembershipChange {
        voters: nodes(from, "new voters")?,
        learners: nodes(from, "new learners")?,
        removed: nodes(from, "removed members")?,
        incarnations: BTreeMap::new(),
    };
    if from.len() > 0 {
        for _ in 0..from.count("new incarnations", 2, MembershipChange::MEMBERS_MAX)? {
            let node = next_node(from, change.incarnations.last_key_value().map(|(last, _)| *last))?;
            change.incarnations.insert(node, from.u64("incarnation")?);
        }
    }
    Ok(change)
}

/// Reads the node of an ascending list.
fn next_node(from: &mut Fields, last: Option<NodeId>) -> Result<NodeId, DecodeError> {
    let node = from.node("member")?;
    if last.is_some_and(|last| last >= node) {
        return Err(DecodeError::Invalid { field: "member" });
    }
    Ok(node)
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
