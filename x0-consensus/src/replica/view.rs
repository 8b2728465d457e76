//! The log as `raft` reads it: the last entries in memory, and the terms of all entries.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use raft::eraftpb::{Entry as RaftEntry, HardState as RaftHardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

use super::pace::{BACKLOG_LEN, PACED_LEN, Pace};
use crate::codec::to_raft_entry;
use crate::entry::{Entry, LogBase, SnapshotMeta};
use crate::membership::to_conf_state;
use crate::storage::TermRun;

/// The bytes by which an entry counts beyond its payload.
const ENTRY_OVERHEAD_LEN: usize = 128;

/// A range of the log that `raft` has requested and that is not in memory.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) context: GetEntriesContext,
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// The log as `raft` reads it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) initial: RaftState,
    pub(crate) base: LogBase,
    terms: Vec<TermRun>,
    /// The last entries of the log. Entries that are not applied are always here.
    cache: VecDeque<RaftEntry>,
    /// The index of the first entry in memory, or the index after the end.
    cache_first: u64,
    cache_len: usize,
    /// Entries that were fetched, until `raft` has read them.
    fetched: RefCell<Vec<RaftEntry>>,
    wanted: RefCell<VecDeque<Wanted>>,
    /// The start of the range that is being fetched.
    fetching: Cell<Option<u64>>,
    /// Members that need a snapshot.
    snapshot_wanted: RefCell<Vec<u64>>,
    /// The snapshots that are open, with the member for which they are.
    pub(crate) snapshots: Vec<(u64, SnapshotMeta)>,
    /// The pace of members that lag, and their requests that it holds back.
    pub(super) pace: Pace,
    held: RefCell<Vec<Wanted>>,
}

fn entry_len(entry: &RaftEntry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_LEN
}

impl View {
    pub(crate) fn new(base: LogBase, terms: Vec<TermRun>, last_index: u64) -> View {
        View {
            initial: RaftState { conf_state: to_conf_state(&base.membership), ..RaftState::default() },
            base,
            terms,
            cache: VecDeque::new(),
            cache_first: last_index + 1,
            cache_len: 0,
            fetched: RefCell::default(),
            wanted: RefCell::default(),
            fetching: Cell::default(),
            snapshot_wanted: RefCell::default(),
            snapshots: Vec::new(),
            pace: Pace::new(),
            held: RefCell::default(),
        }
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.cache_first + self.cache.len() as u64 - 1
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last_index() {
            return None;
        }
        // The run of the index is the last one that starts at or before it.
        let behind = self.terms.partition_point(|run| run.first_index <= index);
        Some(self.terms.get(behind.checked_sub(1)?)?.term)
    }

    fn place(&self, index: u64) -> Option<usize> {
        let place = usize::try_from(index.checked_sub(self.cache_first)?).ok()?;
        (place < self.cache.len()).then_some(place)
    }

    /// Appends entries and replaces those at and after the first one (Ongaro 2014, section 3.5: a conflicting
    /// entry and all after it are deleted).
    pub(crate) fn append(&mut self, entries: &[RaftEntry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        while self.terms.last().is_some_and(|run| run.first_index >= first) {
            self.terms.pop();
        }
        // Entries that were already dropped from memory are replaced: all of memory is after them.
        if first < self.cache_first {
            self.cache.clear();
            self.cache_len = 0;
            self.cache_first = first;
        }
        while self.last_index() >= first {
            match self.cache.pop_back() {
                Some(replaced) => self.cache_len -= entry_len(&replaced),
                None => break,
            }
        }
        for entry in entries {
            let term = entry.term;
            if self.terms.last().is_none_or(|run| run.term != term) {
                self.terms.push(TermRun { first_index: entry.index, term });
            }
            self.cache_len += entry_len(entry);
            self.cache.push_back(entry.clone());
        }
    }

    /// Adds the entries that were read at the start. The memory holds none before.
    pub(crate) fn preload(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.cache_first = first.index;
        self.cache = entries.iter().map(to_raft_entry).collect();
        self.cache_len = self.cache.iter().map(entry_len).sum();
    }

    /// Drops entries up to `index` from memory while it holds more than `len_max` bytes.
    pub(crate) fn shrink(&mut self, index: u64, len_max: usize) {
        while self.cache_len > len_max && self.cache_first <= index {
            let Some(dropped) = self.cache.pop_front() else { break };
            self.cache_len -= entry_len(&dropped);
            self.cache_first += 1;
        }
    }

    /// Drops the entries up to and including the base.
    pub(crate) fn truncate(&mut self, base: LogBase) {
        while self.cache_first <= base.index
            && let Some(dropped) = self.cache.pop_front()
        {
            self.cache_len -= entry_len(&dropped);
            self.cache_first += 1;
        }
        let keep = self.terms.partition_point(|run| run.first_index <= base.index + 1);
        self.terms.drain(..keep.saturating_sub(1));
        if let Some(first) = self.terms.first_mut() {
            first.first_index = first.first_index.max(base.index + 1);
        }
        self.base = base;
    }

    /// Replaces the log by an empty one that starts after `base`.
    pub(crate) fn replace(&mut self, base: LogBase) {
        self.cache.clear();
        self.cache_len = 0;
        self.cache_first = base.index + 1;
        self.terms.clear();
        self.base = base;
    }

    pub(crate) fn set_fetched(&self, entries: &[Entry]) {
        self.fetching.set(None);
        *self.fetched.borrow_mut() = entries.iter().map(to_raft_entry).collect();
    }

    pub(crate) fn clear_fetched(&self) {
        self.fetching.set(None);
        self.fetched.borrow_mut().clear();
    }

    /// The index of the first entry in memory, or the index after the end.
    pub(crate) fn cache_first(&self) -> u64 {
        self.cache_first
    }

    pub(crate) fn take_wanted(&self) -> Option<Wanted> {
        let wanted = self.wanted.borrow_mut().pop_front();
        self.fetching.set(wanted.as_ref().map(|wanted| wanted.low));
        wanted
    }

    /// `raft` repeats its request with every proposal and heartbeat, and one fetch is enough. Of two members
    /// at the same index the second one requests it again later.
    fn want(&self, wanted: Wanted) {
        let mut queue = self.wanted.borrow_mut();
        if self.fetching.get() != Some(wanted.low) && queue.iter().all(|other| other.low != wanted.low) {
            queue.push_back(wanted);
        }
    }

    /// The requests that the pace has held back. Their members get entries with
    /// `RawNode::on_entries_fetched`, if the pace allows it by now.
    pub(super) fn take_held(&self) -> Vec<Wanted> {
        self.held.take()
    }

    /// How much a request from memory may get now; `None` while the pace holds it back.
    ///
    /// Entries that are committed without the member are a backlog: no proposal waits for them. Held back,
    /// they look like entries that are still being read from the disk, which `raft` allows.
    fn paced(&self, place: usize, len_max: u64) -> Option<u64> {
        let commit = self.pace.commit();
        let committed = self.cache.range(place..).take_while(|entry| entry.index <= commit);
        let mut lens = committed.scan(0, |sum, entry| {
            *sum += entry_len(entry) as u64;
            Some(*sum)
        });
        if !lens.any(|len| len >= BACKLOG_LEN) {
            return Some(len_max);
        }
        self.pace.note_backlog();
        if !self.pace.is_limiting() {
            return Some(len_max);
        }
        self.pace.may_send().then(|| {
            let len_max = len_max.min(PACED_LEN as u64);
            self.pace.charge(len_max);
            len_max
        })
    }

    pub(crate) fn take_snapshot_wanted(&self) -> Vec<u64> {
        std::mem::take(&mut self.snapshot_wanted.borrow_mut())
    }
}

impl raft::Storage for View {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        len_max: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        if low <= self.base.index {
            return Err(StorageError::Compacted.into());
        }
        let mut left = len_max.into().unwrap_or(u64::MAX);
        let place = self.place(low);
        if let Some(place) = place
            && context.can_async()
        {
            let Some(paced) = self.paced(place, left) else {
                // `raft` repeats its request with every proposal and heartbeat.
                let mut held = self.held.borrow_mut();
                if held.iter().all(|other| other.low != low) {
                    held.push(Wanted { context, low, high });
                }
                return Err(StorageError::LogTemporarilyUnavailable.into());
            };
            left = paced;
        }
        let mut take = |entries: &mut Vec<RaftEntry>, entry: &RaftEntry| {
            let len = entry_len(entry) as u64;
            let fits = entries.is_empty() || len <= left;
            if fits {
                left = left.saturating_sub(len);
                entries.push(entry.clone());
            }
            fits
        };
        let mut entries = Vec::new();
        if let Some(place) = place {
            for entry in self.cache.range(place..) {
                if entry.index >= high || !take(&mut entries, entry) {
                    break;
                }
            }
            return Ok(entries);
        }
        let fetched = self.fetched.borrow();
        if let Some(first) = fetched.first()
            && let Some(place) = low.checked_sub(first.index).and_then(|place| usize::try_from(place).ok())
            && place < fetched.len()
        {
            for entry in &fetched[place..] {
                if entry.index >= high || !take(&mut entries, entry) {
                    break;
                }
            }
            return Ok(entries);
        }
        // Only replication to followers can wait for a read of the disk; all other reads are of entries in
        // memory.
        if context.can_async() {
            self.want(Wanted { context, low, high });
            return Err(StorageError::LogTemporarilyUnavailable.into());
        }
        Err(StorageError::Unavailable.into())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_of(index) {
            Some(term) => Ok(term),
            None if index < self.base.index => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(View::last_index(self))
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // A snapshot that is already open for the member is used again, unless the member needs a newer one.
        if let Some((_, meta)) = self.snapshots.iter().find(|(member, _)| *member == to)
            && meta.index >= request_index
        {
            return Ok(to_raft_snapshot(meta));
        }
        let mut wanted = self.snapshot_wanted.borrow_mut();
        if !wanted.contains(&to) {
            wanted.push(to);
        }
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

pub(crate) fn to_raft_snapshot(meta: &SnapshotMeta) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = meta.index;
    metadata.term = meta.term;
    metadata.set_conf_state(to_conf_state(&meta.membership));
    snapshot
}

pub(crate) fn to_raft_hard_state(state: &crate::entry::HardState) -> RaftHardState {
    RaftHardState {
        term: state.term,
        vote: state.vote.map_or(0, x0_identity::NodeId::get),
        commit: state.commit,
        ..RaftHardState::default()
    }
}
