//! One event with two contents: its writer equivocates, or lost its last events and wrote on under its old
//! ID.
//!
//! An honest event has one content at one key. A dot at two keys, a dot with two values, and a value against
//! a removal under one dot are resolved alike on every replica: a value wins over a removal, and of two
//! values the one with the greater time, then value, then key. Whichever way the two contents meet, all
//! replicas then hold the same one.
//!
//! If neither content is left to compare, there is nothing to resolve: a later write at the key of one
//! content, of a writer that knew the other one, counts as a removal of it, like any write of a replica that
//! has seen an event and does not hold its value.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::cell::Sibling;
use super::delta::{DeltaItem, Item, MapDelta};
use super::join::Incoming;
use super::small::Key;
use super::{CausalMap, Cell, seq_of};
use crate::Dot;

/// An event by the number of its writer.
type Event = (u32, u64);

/// The events of a delta that meet another content here, and what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Clashes {
    /// Values of the delta that replace the content here although their events were seen.
    pub(super) admitted: BTreeSet<Event>,
    /// Values here that stay although the sender has seen their events and does not list them at their key.
    pub(super) kept: BTreeSet<Event>,
    /// Values and tombstones here that values of the delta replace.
    replaced: Vec<(Key, Event)>,
    /// The events, each once.
    dots: BTreeSet<Dot>,
}

impl Clashes {
    pub(super) fn is_empty(&self) -> bool {
        self.dots.is_empty()
    }

    pub(super) fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.dots.iter().copied()
    }
}

impl CausalMap {
    /// The items of a delta whose events were seen here, with their keys. In a delta from history these are
    /// few: values beside new ones.
    fn seen_items<'a>(&self, delta: &'a MapDelta, numbers: &[u32]) -> Vec<(Event, &'a Key, &'a DeltaItem)> {
        let mut seen = Vec::new();
        let mut begin = 0;
        for (key, end) in &delta.entries {
            for item in delta.items.get(begin..*end).unwrap_or_default() {
                let writer = numbers.get(item.writer as usize).copied().unwrap_or(u32::MAX);
                if item.seq <= seq_of(&self.version, writer) {
                    seen.push(((writer, item.seq), key, item));
                }
            }
            begin = *end;
        }
        seen
    }

    /// Finds the events of a delta that have another content here. Changes nothing.
    pub(super) fn clashes(&self, delta: &MapDelta, numbers: &[u32]) -> Clashes {
        let mut clashes = Clashes::default();
        // A value at the same key is the usual case, and the cheap one: `join_key` compares it.
        let elsewhere = |(event, key, _): &(Event, &Key, &DeltaItem)| {
            let cell = self.cells.get(*key);
            !cell.is_some_and(|cell| cell.siblings().iter().any(|held| (held.writer, held.seq) == *event))
        };
        let suspects: Vec<_> = self.seen_items(delta, numbers).into_iter().filter(elsewhere).collect();
        if suspects.is_empty() {
            return clashes;
        }
        let events: BTreeSet<Event> = suspects.iter().map(|(event, ..)| *event).collect();
        let held = self.find(&events);
        for (event, key, item) in suspects {
            let here = held.get(&event);
            let tombstone = self
                .recent
                .get(&event)
                .filter(|at| self.removals.get(*at).is_some_and(|removals| removals.contains(&event)));
            let dot = Dot::new(self.writers.id(event.0), event.1);
            match (&item.item, here, tombstone) {
                (Item::Live { time, value }, Some((at, mine)), _) => {
                    clashes.dots.insert(dot);
                    if (*time, value, key) > (mine.time, &mine.value, at) {
                        clashes.admitted.insert(event);
                        clashes.replaced.push((at.clone(), event));
                    } else {
                        clashes.kept.insert(event);
                    }
                }
                // Without its value the other content cannot be compared, and a removal never wins: the
                // sender is the one to change.
                (Item::Known | Item::Removed, Some(_), _) => {
                    clashes.dots.insert(dot);
                    clashes.kept.insert(event);
                }
                (Item::Live { .. }, None, Some(at)) => {
                    clashes.dots.insert(dot);
                    clashes.admitted.insert(event);
                    clashes.replaced.push((at.clone(), event));
                }
                // Replaced or removed here by a later event, or the same tombstone.
                _ => {}
            }
        }
        clashes
    }

    /// The values of these events, with their keys: one pass over the map, which only a clash can cause.
    fn find(&self, events: &BTreeSet<Event>) -> BTreeMap<Event, (Key, Sibling)> {
        let mut found = BTreeMap::new();
        // History names the keys of recent events; a pass is needed only for events below the floor.
        let is_recent = |event: &Event| event.1 > seq_of(&self.floor, event.0);
        if events.iter().all(is_recent) {
            for event in events {
                let Some(key) = self.recent.get(event) else { continue };
                let cell = self.cells.get(key).map(Cell::siblings).unwrap_or_default();
                let sibling = cell.iter().find(|held| (held.writer, held.seq) == *event);
                found.extend(sibling.map(|sibling| (*event, (key.clone(), sibling.clone()))));
            }
            return found;
        }
        for (key, cell) in &self.cells {
            for sibling in cell.siblings() {
                let event = (sibling.writer, sibling.seq);
                if events.contains(&event) {
                    found.insert(event, (key.clone(), sibling.clone()));
                }
            }
        }
        found
    }

    /// Takes out what values of the delta replace. Returns the keys whose values changed.
    pub(super) fn take_out(&mut self, clashes: &Clashes) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        for (key, event) in &clashes.replaced {
            if let Some(removals) = self.removals.get_mut(key) {
                removals.retain(|removal| removal != event);
                if removals.is_empty() {
                    self.removals.remove(key);
                }
            }
            self.recent.remove(event);
            let Some(cell) = self.cells.remove(key) else { continue };
            let mut siblings = cell.into_siblings();
            siblings.retain(|sibling| {
                let keep = (sibling.writer, sibling.seq) != *event;
                if !keep {
                    self.lose(key, sibling);
                    keys.push(key.as_slice().to_vec());
                }
                keep
            });
            if let Some(cell) = Cell::new(siblings) {
                self.cells.insert(key.clone(), cell);
            }
        }
        keys
    }

    /// The first event of this replica that a delta holds with another content than the one written here.
    /// Another process writes under its ID, or it was restored from an old copy and wrote on. `is_searched`:
    /// a pass has found none of its events at other keys than in the delta.
    pub(super) fn foreign_own_event(&self, delta: &MapDelta, is_searched: bool) -> Option<Dot> {
        let mine = delta.writers.iter().position(|writer| *writer == self.replica)?;
        let numbers: Vec<u32> =
            (0..delta.writers.len()).map(|at| if at == mine { self.me } else { u32::MAX }).collect();
        let differs = |key: &Key, item: &DeltaItem| {
            let cell = self.cells.get(key).map(Cell::siblings).unwrap_or_default();
            let held = cell.iter().find(|held| held.writer == self.me && held.seq == item.seq)?;
            match &item.item {
                Item::Live { time, value } => Some((held.time, &held.value) != (*time, value)),
                Item::Known => Some(false),
                Item::Removed => Some(true),
            }
        };
        let seen = self.seen_items(delta, &numbers);
        let unequal = seen.iter().find(|(_, key, item)| differs(key, item) == Some(true));
        let elsewhere = || (!is_searched).then(|| self.clashes(delta, &numbers).dots.first().copied())?;
        unequal.map(|(event, ..)| Dot::new(self.replica, event.1)).or_else(elsewhere)
    }
}

impl Incoming<'_> {
    /// Whether a value here stays although the sender has seen its event and does not list it at its key.
    pub(super) fn keeps(&self, writer: u32, seq: u64) -> bool {
        !self.clashes.is_empty() && self.clashes.kept.contains(&(writer, seq))
    }

    /// Whether a value of the delta is taken although its event was seen here.
    pub(super) fn admits(&self, writer: u32, seq: u64) -> bool {
        !self.clashes.is_empty() && self.clashes.admitted.contains(&(writer, seq))
    }
}
