//! The safety properties of Raft (Ongaro 2014, figure 3.2), and the promises to callers.

use std::collections::BTreeMap;

use bytes::Bytes;
use x0_consensus::{DropReason, Entry, EntryKind, Storage as _, Wal};

use crate::machine::{State, digest};

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Outcome(u64),
    Changed(u64),
    Ready(u64),
    Dropped(DropReason),
    /// The replica with the request crashed.
    Crashed,
}

#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Propose(Bytes),
    Read {
        /// The index that was acknowledged to any caller before.
        floor: u64,
    },
    Change,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) node: u64,
    pub(crate) asked: Asked,
    pub(crate) end: Option<End>,
}

/// The history of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    leaders: BTreeMap<u64, u64>,
    /// Entries that were durable on any node at any time.
    written: BTreeMap<(u64, u64), u64>,
    /// Entries that were handed out to be applied on any node.
    pub(crate) committed: BTreeMap<u64, Entry>,
    /// The term in which that happened first, which is not before the term in which the entry was committed.
    committed_in: BTreeMap<u64, u64>,
    states: BTreeMap<u64, State>,
    /// The index of the command of each token.
    commands: BTreeMap<u64, u64>,
    pub(crate) tokens: BTreeMap<u64, Token>,
    pub(crate) acknowledged: u64,
}

fn fingerprint(entry: &Entry) -> u64 {
    digest(u64::from(entry.kind == EntryKind::Membership), &entry.payload)
}

impl Invariants {
    pub(crate) fn ask(&mut self, node: u64, asked: Asked) -> u64 {
        let token = u64::try_from(self.tokens.len()).unwrap() + 1;
        self.tokens.insert(token, Token { node, asked, end: None });
        token
    }

    /// Election safety, and leader completeness: a leader has all entries that were committed in earlier
    /// terms.
    pub(crate) fn elected(&mut self, node: u64, term: u64, last_index: u64, log: &Wal) {
        let leader = *self.leaders.entry(term).or_insert(node);
        assert_eq!(leader, node, "term {term} has two leaders");
        for entry in self.committed.values().rev().take(200) {
            if self.committed_in[&entry.index] < term {
                assert!(
                    entry.index <= last_index,
                    "leader {node} of term {term} lacks entry {}",
                    entry.index
                );
                // Entries before the base are in a snapshot.
                let held = log.term(entry.index).unwrap().unwrap_or(entry.term);
                assert_eq!(
                    held, entry.term,
                    "leader {node} of term {term} has another entry {}",
                    entry.index
                );
            }
        }
    }

    /// Log matching: an index and a term identify an entry on all nodes.
    pub(crate) fn durable(&mut self, node: u64, entries: &[Entry]) {
        for entry in entries {
            let print = fingerprint(entry);
            let first = *self.written.entry((entry.index, entry.term)).or_insert(print);
            assert_eq!(
                first, print,
                "node {node} holds another entry {} of term {}",
                entry.index, entry.term
            );
        }
    }

    /// State machine safety: all nodes apply the same entry at an index.
    pub(crate) fn committed(&mut self, node: u64, term: u64, entry: &Entry) {
        self.committed_in.entry(entry.index).or_insert(term);
        let first = self.committed.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(first, entry, "node {node} applies another entry at {}", entry.index);
    }

    pub(crate) fn applied(&mut self, node: u64, entry: &Entry, state: State) {
        let first = *self.states.entry(entry.index).or_insert(state);
        assert_eq!(first, state, "node {node} has another state at {}", entry.index);
        if entry.is_command() {
            let token = u64::from_le_bytes(entry.payload[..8].try_into().unwrap());
            let first = *self.commands.entry(token).or_insert(entry.index);
            assert_eq!(first, entry.index, "token {token} was applied twice");
            let asked = &self.tokens[&token];
            assert!(matches!(&asked.asked, Asked::Propose(payload) if *payload == entry.payload));
            if let Some(End::Dropped(reason)) = asked.end {
                assert_eq!(reason, DropReason::Unknown, "token {token} was applied although dropped");
            }
        }
    }

    pub(crate) fn restored(&self, node: u64, state: State) {
        assert_eq!(
            self.states.get(&state.applied),
            Some(&state),
            "node {node} restored a state that no node had"
        );
    }

    /// Every token has one result, of the right kind.
    pub(crate) fn ended(&mut self, node: u64, token: u64, end: End) {
        let asked = self.tokens.get_mut(&token).unwrap();
        assert_eq!(asked.node, node, "token {token} has a result on another node");
        assert_eq!(asked.end, None, "token {token} has a second result, {end:?}");
        match (&asked.asked, &end) {
            (Asked::Propose(payload), End::Outcome(index)) => {
                assert_eq!(
                    self.committed[index].payload, payload,
                    "token {token} has the outcome of another one"
                );
            }
            (Asked::Change, End::Changed(index)) => {
                assert_eq!(self.committed[index].kind, EntryKind::Membership);
            }
            (Asked::Read { floor }, End::Ready(index)) => {
                assert!(index >= floor, "a read of {index} does not see {floor}, which was acknowledged");
            }
            (Asked::Propose(_), End::Dropped(DropReason::Unknown)) | (_, End::Dropped(_) | End::Crashed) => {
                let certain = !matches!(end, End::Dropped(DropReason::Unknown) | End::Crashed);
                assert!(
                    !certain || !self.commands.contains_key(&token),
                    "token {token} was dropped with {end:?} although applied"
                );
            }
            (asked, end) => panic!("{asked:?} ended in {end:?}"),
        }
        if let End::Outcome(index) | End::Changed(index) | End::Ready(index) = end {
            self.acknowledged = self.acknowledged.max(index);
        }
        asked.end = Some(end);
    }

    pub(crate) fn crashed(&mut self, node: u64) {
        for asked in self.tokens.values_mut().filter(|asked| asked.node == node) {
            asked.end.get_or_insert(End::Crashed);
        }
    }

    /// The largest committed index of all nodes.
    pub(crate) fn last_committed(&self) -> u64 {
        self.committed.keys().last().copied().unwrap_or(0)
    }
}
