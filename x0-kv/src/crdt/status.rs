//! The status of a CRDT keyspace.

use std::collections::{BTreeMap, BTreeSet};

use x0_crdt::Frontier;
use x0_identity::NodeId;

/// The status of a CRDT keyspace on one node, as the node itself reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrdtStatus {
    /// Equal on nodes that hold the same.
    pub frontier: Frontier,
    /// How many keys hold something.
    pub keys: usize,
    /// How many values they hold: more than keys where concurrent writes wait to be resolved.
    pub siblings: usize,
    /// How many events are remembered for members that may lack them, removals among them: 0 when all members
    /// have seen all.
    pub history_events: usize,
    /// Each other member, and whether both had one frontier at its last message.
    pub peers: BTreeMap<NodeId, bool>,
    /// The members with another hash key: nothing is synchronized with them until both have the same one.
    pub mismatching: BTreeSet<NodeId>,
    /// Bytes held of transfers that are not whole yet.
    pub pending_bytes: usize,
    /// Counts since the start.
    pub totals: CrdtTotals,
}

/// Counts of a CRDT keyspace since the start of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CrdtTotals {
    /// Differences taken in.
    pub joins: u64,
    /// Keys at which values of several writers came to stand beside each other.
    pub conflicts: u64,
    /// Keys at which a value stays beside a removal that had not seen it.
    pub contested_removals: u64,
    /// Events that came with two contents: a writer with two lives under one name, or one that equivocates.
    pub equivocations: u64,
    /// Bytes sent to other members.
    pub sent_bytes: u64,
    /// Bytes received from them.
    pub received_bytes: u64,
    /// Bytes among them that were there already.
    pub redundant_bytes: u64,
    /// Times that histories did not reach back far enough and states were reconciled.
    pub reconciliations: u64,
    /// Datagrams that were malformed or did not fit.
    pub refused: u64,
    /// Times that a member with the same events had other contents: some writer has given two contents to one
    /// event.
    pub divergences: u64,
    /// Times that a member had events of this node that it does not hold itself, so that it went on as a
    /// fresh incarnation: its folder is an old copy, or in use twice.
    pub renewals: u64,
}
