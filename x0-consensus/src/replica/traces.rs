//! The trace contexts of entries that are not applied. They travel with the entries in messages and never
//! enter the log.

use std::collections::{BTreeSet, VecDeque};

use raft::StateRole;
use raft::eraftpb::Message;
use x0_identity::NodeId;

use super::Replica;
use crate::codec::CONTEXTS_MAX;
use crate::trace::Context;

/// Most entries whose context is held. Of further ones the oldest is forgotten.
const ENTRIES_MAX: usize = 4096;

/// An entry with a trace context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TracedEntry {
    pub(crate) index: u64,
    /// The term: an entry of another term at this index is another one.
    pub(crate) term: u64,
    /// The token of its proposal, if it was made here.
    #[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only spans need it"))]
    pub(crate) token: Option<u64>,
    pub(crate) context: Context,
}

/// The contexts of a replica.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Ascending by index.
    entries: VecDeque<TracedEntry>,
    /// Peers that read messages with contexts.
    readers: BTreeSet<NodeId>,
    /// The context of the election in which this replica asks for votes.
    pub(super) election: Option<Context>,
}

impl Traces {
    /// The entry at an index has a context.
    fn note(&mut self, entry: TracedEntry) {
        let at = self.entries.partition_point(|noted| noted.index < entry.index);
        match self.entries.get_mut(at) {
            Some(noted) if noted.index == entry.index => *noted = entry,
            _ => self.entries.insert(at, entry),
        }
        if self.entries.len() > ENTRIES_MAX {
            self.entries.pop_front();
        }
    }

    /// The entries up to this index are applied.
    pub(super) fn applied(&mut self, index: u64) {
        while self.entries.front().is_some_and(|first| first.index <= index) {
            self.entries.pop_front();
        }
    }

    /// The traced entries from `first` to `last`, those of replaced entries among them.
    pub(super) fn within(&self, first: u64, last: u64) -> impl Iterator<Item = &TracedEntry> {
        let begin = self.entries.partition_point(|entry| entry.index < first);
        self.entries.range(begin..).take_while(move |entry| entry.index <= last)
    }

    pub(super) fn negotiated(&mut self, peer: NodeId, reads_contexts: bool) {
        if reads_contexts {
            self.readers.insert(peer)
        } else {
            self.readers.remove(&peer)
        };
    }

    /// The contexts of the entries of a message to this peer, each with the place of its entry. None unless
    /// the message has room for them.
    pub(super) fn of_message(&self, to: NodeId, message: &Message, fits: bool) -> Vec<(u32, Context)> {
        let (Some(first), Some(last)) = (message.entries.first(), message.entries.last()) else {
            return Vec::new();
        };
        if self.entries.is_empty() || !fits || !self.readers.contains(&to) {
            return Vec::new();
        }
        let place = |traced: &TracedEntry| {
            let place = u32::try_from(traced.index - first.index).ok()?;
            let entry = message.entries.get(place as usize)?;
            (entry.term == traced.term).then_some((place, traced.context))
        };
        self.within(first.index, last.index).take(CONTEXTS_MAX).filter_map(place).collect()
    }
}

impl Replica {
    /// The last entry of the log is the proposal of this token, in this context.
    pub(super) fn note_trace(&mut self, token: u64, context: Context) {
        let (index, term) = (self.node.raft.raft_log.last_index(), self.node.raft.term);
        self.traces.note(TracedEntry { index, term, token: Some(token), context });
    }

    /// Whether it asks for votes.
    pub(crate) fn is_candidate(&self) -> bool {
        self.node.raft.state == StateRole::Candidate
    }

    /// If this replica wins the election, the entry that begins its term has this context.
    pub(crate) fn trace_election(&mut self, context: Context) {
        self.traces.election = Some(context);
    }

    /// The replica leads, and has appended the entry that begins its term.
    pub(super) fn note_election(&mut self) {
        let (index, term) = (self.node.raft.raft_log.last_index(), self.node.raft.term);
        if let Some(context) = self.traces.election.take()
            && self.has_entry(index, term)
        {
            self.traces.note(TracedEntry { index, term, token: None, context });
        }
    }

    /// The contexts of entries that have arrived after the position `index`, with the term of each.
    pub(super) fn note_arrived(&mut self, contexts: &[(u64, u64, Context)]) {
        for &(index, term, context) in contexts {
            // An entry that was refused, or that is applied already, has no further part in its trace.
            if index > self.handed && self.has_entry(index, term) {
                self.traces.note(TracedEntry { index, term, token: None, context });
            }
        }
    }

    /// The traced entries from `first` to `last`, ascending.
    pub(crate) fn traced(&self, first: u64, last: u64) -> impl Iterator<Item = &TracedEntry> {
        self.traces.within(first, last).filter(|entry| self.has_entry(entry.index, entry.term))
    }

    fn has_entry(&self, index: u64, term: u64) -> bool {
        self.node.raft.raft_log.term(index) == Ok(term)
    }
}
