//! Turns of channels that share a lane of the transport.

use std::collections::BTreeMap;

use x0_identity::NodeId;

use crate::Lane;

/// How many bytes a channel sends on a lane for which another one waits, before that one has its turn.
const QUANTUM: usize = 64 << 10;

/// Lanes of the transport that were full, and which channels wait for them.
///
/// A lane that has room again wakes every channel that waits, and the first to run could take all of it each
/// time. So a channel that sent [`QUANTUM`] bytes while others wait gives way once: it wakes them, then
/// itself.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<(NodeId, Lane), Turn>);

#[derive(Debug, Default)]
struct Turn {
    waiting: Vec<usize>,
    sender: usize,
    sent_len: usize,
}

impl Turns {
    /// The lane did not take a message of this channel.
    pub(super) fn full(&mut self, to: NodeId, lane: Lane, slot: usize) {
        let turn = self.0.entry((to, lane)).or_default();
        if !turn.waiting.contains(&slot) {
            turn.waiting.push(slot);
        }
    }

    /// The channels whose turn it is before this one may send again; empty if it may send now.
    pub(super) fn give_way(&mut self, to: NodeId, lane: Lane, slot: usize) -> Vec<usize> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let Some(turn) = self.0.get_mut(&(to, lane)) else { return Vec::new() };
        let is_over = turn.sender == slot && turn.sent_len >= QUANTUM;
        if !is_over || turn.waiting.iter().all(|other| *other == slot) {
            return Vec::new();
        }
        turn.sent_len = 0;
        let mut others = std::mem::replace(&mut turn.waiting, vec![slot]);
        others.retain(|other| *other != slot);
        others
    }

    /// The lane took a message of this channel.
    pub(super) fn sent(&mut self, to: NodeId, lane: Lane, slot: usize, len: usize) {
        if self.0.is_empty() {
            return;
        }
        let Some(turn) = self.0.get_mut(&(to, lane)) else { return };
        turn.waiting.retain(|other| *other != slot);
        if turn.waiting.is_empty() {
            self.0.remove(&(to, lane));
            return;
        }
        if turn.sender != slot {
            turn.sender = slot;
            turn.sent_len = 0;
        }
        turn.sent_len += len;
    }

    pub(super) fn forget_peer(&mut self, peer: NodeId) {
        self.0.retain(|(to, _), _| *to != peer);
    }

    pub(super) fn forget_channel(&mut self, slot: usize) {
        self.0.retain(|_, turn| {
            turn.waiting.retain(|other| *other != slot);
            !turn.waiting.is_empty()
        });
    }
}
