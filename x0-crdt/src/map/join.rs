//! Joining a delta.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Bound;

use super::cell::{Cell, Sibling};
use super::clash::Clashes;
use super::delta::{DeltaExtent, DeltaItem, Item, MapDelta};
use super::small::Key;
use super::{CausalMap, item_hash, seq_of};
use crate::{Dot, Version};

/// Why a delta was not joined. The state is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The delta leaves out an event that this replica lacks: it was made for another version.
    #[error(
        "the delta was made for a replica that has seen event {dot}, which this one lacks: request a delta for the current version"
    )]
    Base {
        /// The event.
        dot: Dot,
    },
    /// The delta holds events of this replica that it has not written, or has written otherwise: another
    /// process writes under its ID, or it lost its last events.
    #[error(
        "the delta holds event {dot} of this replica, which has not written it so among its {written} events: let the replica go on as a fresh incarnation (renew)"
    )]
    Impostor {
        /// The event.
        dot: Dot,
        /// The last one written here.
        written: u64,
    },
    /// All numbers of writers are used up.
    #[error("the map has 2^32 writers: start a new one")]
    Writers,
}

/// The result of a join.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Joined {
    /// The keys whose values changed, ascending. Of a state that arrived by key ranges: in no order, some of
    /// them twice, and a few thousand at a time, so that several results follow each other.
    pub keys: Vec<Vec<u8>>,
    /// Keys that now hold concurrent values and did not before.
    pub conflicts: usize,
    /// Keys at which values now survive a removal that had not seen them, and did not before.
    pub contested_removals: usize,
    /// Items of the delta that were new here.
    pub news: usize,
    /// Items that were not.
    pub redundant: usize,
    /// Events that arrived with another content than the one held, ascending: their writer equivocates, or
    /// lost its last events and wrote on under its old ID. Every replica keeps the same content: a value
    /// rather than a removal, and of two values the one with the greater time, then value, then key.
    pub equivocating: Vec<Dot>,
    /// Set if the state arrived by key ranges: the version of the peer that was joined. A journal that has
    /// the records of [`SessionOutput::Staged`](crate::SessionOutput::Staged) notes here that they count, see
    /// [`CausalMap::replay_ranges`].
    pub ranges: Option<Version>,
}

/// A delta in terms of the map's own numbers of writers.
pub(super) struct Incoming<'a> {
    pub(super) delta: &'a MapDelta,
    /// The number here of each of the delta's writers.
    pub(super) numbers: Vec<u32>,
    /// The last event that the sender has seen of each writer here.
    pub(super) context: Vec<u64>,
    pub(super) clashes: Clashes,
}

impl Incoming<'_> {
    fn number(&self, item: &DeltaItem) -> u32 {
        self.numbers.get(item.writer as usize).copied().unwrap_or(u32::MAX)
    }

    /// Whether the sender lists the event of a writer among `items`.
    fn lists(&self, items: &[DeltaItem], writer: u32, seq: u64) -> bool {
        items.iter().any(|item| item.seq == seq && self.number(item) == writer)
    }

    pub(super) fn had_seen(&self, writer: u32, seq: u64) -> bool {
        seq <= seq_of(&self.context, writer)
    }
}

impl CausalMap {
    /// Joins a delta: idempotent, in any order, after any number of others.
    ///
    /// # Errors
    /// A delta that was not made for this replica's version or an earlier one; nothing of it is joined then.
    pub fn join(&mut self, delta: &MapDelta) -> Result<Joined, JoinError> {
        self.join_and_drop(delta, &[])
    }

    /// Joins a delta and drops the values of `dots` that the sender has seen: those that the receiver holds
    /// and that a set reconciliation has not found on the sender.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_and_drop(&mut self, delta: &MapDelta, dots: &[Dot]) -> Result<Joined, JoinError> {
        self.check(delta)?;
        self.take_in(delta, dots, None)
    }

    /// Joins a delta from this replica's own journal: as [`join`](Self::join), but it may hold events of this
    /// replica, which from a peer would show an impostor.
    ///
    /// A journal is a [`save`](Self::save), and after it, again and again, the encoded [`delta`](Self::delta)
    /// since the version of the last record, read by [`MapDelta::decode_trusted`]. Where `delta` is refused,
    /// because the history since then was collected, the journal starts over with a `save`.
    ///
    /// # Errors
    /// A delta that was not made for this version; nothing of it is joined then.
    pub fn replay(&mut self, delta: &MapDelta) -> Result<Joined, JoinError> {
        self.check_base(delta)?;
        // The records that follow may continue the stage: the replica that wrote them prunes it when it joins
        // a delta of a peer, and not when it writes, and the records of both are alike.
        let stage = self.stage.take();
        let joined = self.take_in(delta, &[], None);
        self.stage = stage;
        joined
    }

    /// Joins a delta, and drops `dots`, which are at `keys` if these are known.
    pub(super) fn take_in(
        &mut self,
        delta: &MapDelta,
        dots: &[Dot],
        keys: Option<Vec<Key>>,
    ) -> Result<Joined, JoinError> {
        let numbers = self.number_writers(delta)?;
        let clashes = self.clashes(delta, &numbers);
        let incoming = Incoming { delta, numbers, context: self.writers.by_number(&delta.context), clashes };
        let mut joined = Joined::default();
        if !incoming.clashes.is_empty() {
            joined.equivocating.extend(incoming.clashes.dots());
            joined.keys = self.take_out(&incoming.clashes);
        }
        self.join_entries(&incoming, &mut joined);
        match delta.extent {
            DeltaExtent::Since => {}
            DeltaExtent::Complete => self.drop_unlisted(&incoming, &[], None, &mut joined),
            DeltaExtent::Chosen => self.drop_dots(&incoming, dots, keys, &mut joined),
        }
        // After the keys, because `join_key` decides by the version before the join whether an item is new.
        for (mine, theirs) in self.version.iter_mut().zip(&incoming.context) {
            *mine = (*mine).max(*theirs);
        }
        self.raise_floor(delta);
        // A key may be touched twice, as listed and as dropped.
        joined.keys.sort_unstable();
        joined.keys.dedup();
        joined.equivocating.sort_unstable();
        joined.equivocating.dedup();
        self.resolutions += joined.equivocating.len() as u64;
        self.prune_stage();
        Ok(joined)
    }

    /// Joins a delta that says nothing of keys below `from` and from `end` on. The version stays.
    pub(super) fn take_in_range(
        &mut self,
        delta: &MapDelta,
        from: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Joined, JoinError> {
        let numbers = self.number_writers(delta)?;
        let context = self.writers.by_number(&delta.context);
        // One event with two contents is found when the contents are compared.
        let incoming = Incoming { delta, numbers, context, clashes: Clashes::default() };
        let mut joined = Joined::default();
        self.join_entries(&incoming, &mut joined);
        if delta.extent == DeltaExtent::Complete {
            self.drop_unlisted(&incoming, from, end, &mut joined);
        }
        self.raise_floor(delta);
        joined.keys.sort_unstable();
        Ok(joined)
    }

    /// Gives the writers of a delta numbers here. Returns those of its table.
    pub(super) fn number_writers(&mut self, delta: &MapDelta) -> Result<Vec<u32>, JoinError> {
        let mut numbers = Vec::with_capacity(delta.writers.len());
        // Writers that only the context names get numbers too: their events count as seen after the join.
        for (replica, _) in delta.context.iter() {
            self.writers.intern(replica).ok_or(JoinError::Writers)?;
        }
        for replica in &delta.writers {
            numbers.push(self.writers.intern(*replica).ok_or(JoinError::Writers)?);
        }
        // The vectors by writer grow with the table, so that every number has a place in them.
        self.version.resize(self.writers.len(), 0);
        self.floor.resize(self.writers.len(), 0);
        Ok(numbers)
    }

    fn join_entries(&mut self, incoming: &Incoming<'_>, joined: &mut Joined) {
        let mut begin = 0;
        for (key, end) in &incoming.delta.entries {
            let items = incoming.delta.items.get(begin..*end).unwrap_or_default();
            begin = *end;
            self.join_key(incoming, key, items, joined);
        }
    }

    pub(super) fn raise_floor(&mut self, delta: &MapDelta) {
        if delta.extent == DeltaExtent::Since {
            return;
        }
        // The sender cannot name what it has collected: a peer that requests more from here is brought up
        // from state as well.
        let floor = self.writers.by_number(&delta.floor);
        for (mine, theirs) in self.floor.iter_mut().zip(floor) {
            *mine = (*mine).max(theirs);
        }
        // The floor rose, and with it history that this replica still held.
        self.drop_below_floor();
    }

    pub(super) fn check(&self, delta: &MapDelta) -> Result<(), JoinError> {
        self.check_searched(delta, false)
    }

    /// Checks a delta of which a pass has looked for clashes already.
    pub(super) fn check_searched(&self, delta: &MapDelta, is_searched: bool) -> Result<(), JoinError> {
        let written = seq_of(&self.version, self.me);
        let claimed = delta.context.get(self.replica);
        if claimed > written {
            return Err(JoinError::Impostor { dot: Dot::new(self.replica, claimed), written });
        }
        // As many events as it has written, but not the same ones: a restored copy that wrote on.
        if let Some(dot) = self.foreign_own_event(delta, is_searched) {
            return Err(JoinError::Impostor { dot, written });
        }
        self.check_base(delta)
    }

    fn check_base(&self, delta: &MapDelta) -> Result<(), JoinError> {
        // A delta from history says nothing of the events up to its base: without them the version would get
        // a gap.
        for (replica, seq) in delta.base.iter() {
            let seen = self.writers.number(replica).map_or(0, |number| seq_of(&self.version, number));
            if seen < seq.min(delta.context.get(replica)) {
                return Err(JoinError::Base { dot: Dot::new(replica, seen + 1) });
            }
        }
        let seen: Vec<u64> = delta
            .writers
            .iter()
            .map(|writer| self.writers.number(*writer).map_or(0, |number| seq_of(&self.version, number)))
            .collect();
        for item in &delta.items {
            // `Known` carries no value, so it must be here already.
            if item.item == Item::Known && item.seq > seq_of(&seen, item.writer) {
                let replica = delta.writers.get(item.writer as usize).copied().unwrap_or_default();
                return Err(JoinError::Base { dot: Dot::new(replica, item.seq) });
            }
        }
        Ok(())
    }

    pub(super) fn join_key(
        &mut self,
        incoming: &Incoming<'_>,
        key: &Key,
        items: &[DeltaItem],
        joined: &mut Joined,
    ) {
        // The cell keeps its place in the map and is looked up once: most keys hold a value before and after
        // the join.
        let mut place = self.cells.get_mut(key);
        let mut siblings = place.as_deref_mut().map(Cell::take).unwrap_or_default();
        let before = siblings.len();
        let mut changed = false;
        let mut replaced = None;
        // The causal join: a value stays if the sender has not seen it, or has seen it and still lists it.
        siblings.retain(|sibling| {
            let keep = !incoming.had_seen(sibling.writer, sibling.seq)
                || incoming.lists(items, sibling.writer, sibling.seq)
                || incoming.keeps(sibling.writer, sibling.seq);
            if !keep {
                let hash = item_hash(self.hash_key, &self.writers, key, sibling);
                self.content = self.content.wrapping_sub(hash);
                self.siblings -= 1;
                self.recent.remove(&(sibling.writer, sibling.seq));
                changed = true;
                replaced = Some(((sibling.writer, sibling.seq), hash));
            }
            keep
        });
        // Tombstones stay even if the sender does not list them: it may have replaced them, or only collected
        // them.
        let mut removals =
            if self.removals.is_empty() { Vec::new() } else { self.removals.remove(key).unwrap_or_default() };
        // Counted once per key, not again with each later delta.
        let was_contested = before > 0 && !removals.is_empty();
        for item in items {
            let writer = incoming.number(item);
            // A stage holds events that its version does not have yet.
            let is_held = siblings.iter().any(|mine| (mine.writer, mine.seq) == (writer, item.seq))
                || removals.contains(&(writer, item.seq));
            let seen =
                (item.seq <= seq_of(&self.version, writer) && !incoming.admits(writer, item.seq)) || is_held;
            match &item.item {
                // `check_base` has made sure that it is here, or was removed since.
                Item::Known => joined.redundant += 1,
                Item::Removed if seen => joined.redundant += 1,
                // The values that it removed are gone by the rule above; the tombstone is for peers that lag
                // behind.
                Item::Removed => {
                    joined.news += 1;
                    if let Some(old) = replaced {
                        self.trail.note((writer, item.seq), old, self.siblings);
                    }
                    removals.push((writer, item.seq));
                    self.recent.insert((writer, item.seq), key.clone());
                }
                Item::Live { time, value } if seen => {
                    joined.redundant += 1;
                    let mine = siblings.iter_mut().find(|mine| mine.writer == writer && mine.seq == item.seq);
                    if let Some(mine) = mine.filter(|mine| (mine.time, &mine.value) != (*time, value)) {
                        joined.equivocating.push(Dot::new(self.writers.id(writer), item.seq));
                        // Both contents have one dot, so neither is the older one.
                        // Any fixed order would do, as long as every replica keeps the same content.
                        if (*time, value) > (mine.time, &mine.value) {
                            let old = item_hash(self.hash_key, &self.writers, key, mine);
                            mine.time = *time;
                            mine.value = value.clone();
                            let new = item_hash(self.hash_key, &self.writers, key, mine);
                            self.content = self.content.wrapping_sub(old).wrapping_add(new);
                            changed = true;
                        }
                    }
                }
                Item::Live { time, value } => {
                    joined.news += 1;
                    if let Some(old) = replaced {
                        self.trail.note((writer, item.seq), old, self.siblings);
                    }
                    changed = true;
                    let sibling = Sibling { seq: item.seq, time: *time, value: value.clone(), writer };
                    let hash = item_hash(self.hash_key, &self.writers, key, &sibling);
                    self.content = self.content.wrapping_add(hash);
                    self.siblings += 1;
                    siblings.push(sibling);
                    self.recent.insert((writer, item.seq), key.clone());
                }
            }
        }
        if before < 2 && siblings.len() > 1 {
            joined.conflicts += 1;
        }
        if !was_contested && !siblings.is_empty() && !removals.is_empty() {
            joined.contested_removals += 1;
        }
        if changed {
            joined.keys.push(key.as_slice().to_vec());
        }
        match (Cell::new(siblings), place) {
            (Some(cell), Some(place)) => *place = cell,
            (Some(cell), None) => drop(self.cells.insert(key.clone(), cell)),
            (None, Some(_)) => drop(self.cells.remove(key)),
            (None, None) => {}
        }
        if !removals.is_empty() {
            removals.sort_unstable();
            self.removals.insert(key.clone(), removals);
        }
    }

    /// After a complete delta of the keys from `from` on, below `end`: drops the values that the sender has
    /// seen and does not hold, at keys that it does not list.
    fn drop_unlisted(
        &mut self,
        incoming: &Incoming<'_>,
        from: &[u8],
        end: Option<&[u8]>,
        joined: &mut Joined,
    ) {
        let listed: BTreeSet<&[u8]> = incoming.delta.entries.iter().map(|(key, _)| key.as_slice()).collect();
        // Collected first: `join_key` changes the maps that are iterated.
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(from)));
        let span = (Bound::Included(from), end);
        let cells = self.cells.range::<[u8], _>(span).map(|(key, _)| key);
        let removals = self.removals.range::<[u8], _>(span).map(|(key, _)| key);
        let rest: Vec<Key> =
            cells.chain(removals).filter(|key| !listed.contains(key.as_slice())).cloned().collect();
        for key in rest {
            self.join_key(incoming, &key, &[], joined);
        }
    }

    /// Drops the values of `dots` that the sender has seen: at `keys`, or wherever they are.
    pub(super) fn drop_dots(
        &mut self,
        incoming: &Incoming<'_>,
        dots: &[Dot],
        keys: Option<Vec<Key>>,
        joined: &mut Joined,
    ) {
        // Keys that the delta lists are joined already: there the sender holds what it lists, even if it did
        // not when the reconciliation began. An event that it lists at another key than this replica is no
        // reason to keep it here.
        let listed: BTreeSet<&[u8]> = incoming.delta.entries.iter().map(|(key, _)| key.as_slice()).collect();
        let gone: BTreeSet<(u32, u64)> = dots
            .iter()
            .filter_map(|dot| Some((self.writers.number(dot.replica)?, dot.seq)))
            .filter(|event| incoming.had_seen(event.0, event.1) && !incoming.keeps(event.0, event.1))
            .collect();
        // The usual case after a reconciliation that only added values; it spares the pass below.
        if gone.is_empty() {
            return;
        }
        let holds = |cell: &Cell| cell.siblings().iter().any(|s| gone.contains(&(s.writer, s.seq)));
        let is_due = |key: &Key, cell: &Cell| !listed.contains(key.as_slice()) && holds(cell);
        let keys: BTreeSet<Key> = match keys {
            Some(keys) => {
                let is_due = |key: &Key| self.cells.get(key).is_some_and(|cell| is_due(key, cell));
                keys.into_iter().filter(is_due).collect()
            }
            None => {
                let cells = self.cells.iter().filter(|(key, cell)| is_due(key, cell));
                cells.map(|(key, _)| key.clone()).collect()
            }
        };
        for key in keys {
            let mut siblings = self.cells.remove(&key).map(Cell::into_siblings).unwrap_or_default();
            siblings.retain(|sibling| {
                let keep = !gone.contains(&(sibling.writer, sibling.seq));
                if !keep {
                    self.lose(&key, sibling);
                }
                keep
            });
            joined.keys.push(key.as_slice().to_vec());
            if let Some(cell) = Cell::new(siblings) {
                self.cells.insert(key, cell);
            }
        }
    }
}
