//! [`Search`]: finds the keys of values that a delta names by their dots.
//!
//! History knows the key of most events. A value that was replaced here is found by the trail, and one whose
//! history was collected by a pass over the map. All of it is done in bounded steps.

use alloc::vec::Vec;
use core::ops::Bound;

use super::small::Key;
use super::trail::Event;
use super::{CausalMap, Cell};

/// The bits of the filter for each name that is looked for in a pass over the map.
const FILTER_BITS: usize = 32;

/// How many keys a pass visits in the time of one look-up in history.
const VISITS: usize = 32;

/// A search for the keys of events.
#[derive(Debug, Default)]
pub(super) struct Search {
    events: Vec<Event>,
    keys: Vec<Option<Key>>,
    /// Keys of events that are known otherwise, ascending.
    hints: Vec<(Event, Key)>,
    pass: Option<Pass>,
}

/// A pass over the map for the events of which there is no history.
#[derive(Debug)]
pub(super) struct Pass {
    /// The events, ascending, with their places.
    rest: Vec<(Event, usize)>,
    filter: Filter,
    /// All keys up to this one were visited.
    visited: Option<Key>,
}

impl Pass {
    /// A pass for events, each with its place among the keys.
    pub(super) fn new(mut rest: Vec<(Event, usize)>) -> Self {
        rest.sort_unstable();
        let filter = Filter::new(&rest);
        Self { rest, filter, visited: None }
    }
}

/// Most values of a map are not looked for: a filter keeps the pass to one memory access for each.
#[derive(Debug)]
struct Filter(Vec<u64>);

impl Filter {
    fn new(events: &[(Event, usize)]) -> Self {
        let bits = (events.len() * FILTER_BITS).next_power_of_two();
        let mut filter = Self(alloc::vec![0; bits.div_ceil(64)]);
        for (event, _) in events {
            let (word, bit) = filter.place(*event);
            if let Some(word) = filter.0.get_mut(word) {
                *word |= bit;
            }
        }
        filter
    }

    /// The word of an event, and its bit there.
    fn place(&self, (writer, seq): Event) -> (usize, u64) {
        let mixed = (seq ^ u64::from(writer) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The upper bits, which all bits of the event have mixed into. The length is a power of two.
        let at = usize::try_from(mixed >> 32).unwrap_or(0);
        ((at / 64) & (self.0.len() - 1), 1 << (at % 64))
    }

    fn may_contain(&self, event: Event) -> bool {
        let (word, bit) = self.place(event);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl Search {
    pub(super) const fn new(events: Vec<Event>) -> Self {
        Self { events, keys: Vec::new(), hints: Vec::new(), pass: None }
    }

    /// Notes where events are, so that they are found without a pass.
    pub(super) fn set_hints(&mut self, mut hints: Vec<(Event, Key)>) {
        hints.sort_unstable();
        self.hints = hints;
    }

    fn hint(&self, event: &Event) -> Option<&Key> {
        let place = self.hints.binary_search_by(|(other, _)| other.cmp(event)).ok()?;
        self.hints.get(place).map(|(_, key)| key)
    }

    /// The keys in the order of the events, if all were found.
    pub(super) fn found(self) -> Option<Vec<Key>> {
        self.keys.into_iter().collect()
    }
}

impl CausalMap {
    /// Looks for up to `count` events, or does as much of the pass. Returns whether there is more to do.
    pub(super) fn search(&self, search: &mut Search, count: usize) -> bool {
        if let Some(pass) = &mut search.pass {
            return self.search_by_pass(pass, &mut search.keys, count);
        }
        let next = search.events.iter().skip(search.keys.len()).take(count);
        let find = |event| self.recent.get(event).or_else(|| search.hint(event)).cloned();
        let next: Vec<Option<Key>> = next.map(find).collect();
        search.keys.extend(next);
        if search.keys.len() < search.events.len() {
            return true;
        }
        if search.keys.iter().all(Option::is_some) {
            return false;
        }
        let missing = search.events.iter().zip(&search.keys).zip(0..);
        let missing: Vec<(Event, usize)> = missing
            .filter(|((_, key), _)| key.is_none())
            .map(|((event, _), place)| (*event, place))
            .collect();
        let events: Vec<Event> = missing.iter().map(|(event, _)| *event).collect();
        let later = self.trail.forward(&events, |later| self.recent.contains_key(&later));
        let mut rest: Vec<(Event, usize)> = Vec::new();
        for ((event, place), later) in missing.into_iter().zip(later) {
            match later.and_then(|later| self.recent.get(&later)) {
                Some(key) => {
                    if let Some(found) = search.keys.get_mut(place) {
                        *found = Some(key.clone());
                    }
                }
                None => rest.push((event, place)),
            }
        }
        if rest.is_empty() {
            return false;
        }
        search.pass = Some(Pass::new(rest));
        true
    }

    /// Visits as many keys as take the time of `count` look-ups. Returns whether there is more to do.
    pub(super) fn search_by_pass(&self, pass: &mut Pass, keys: &mut [Option<Key>], count: usize) -> bool {
        let from = pass.visited.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut missing =
            pass.rest.iter().filter(|(_, place)| keys.get(*place).is_some_and(Option::is_none)).count();
        let mut last: Option<&Key> = None;
        let mut left = count.saturating_mul(VISITS);
        for (key, cell) in self.cells.range::<Key, _>((from, Bound::Unbounded)) {
            if missing == 0 {
                return false;
            }
            if left == 0 {
                pass.visited = last.cloned();
                return true;
            }
            left -= 1;
            last = Some(key);
            for sibling in Cell::siblings(cell) {
                let event = (sibling.writer, sibling.seq);
                if !pass.filter.may_contain(event) {
                    continue;
                }
                let first = pass.rest.partition_point(|(other, _)| *other < event);
                for (_, place) in pass.rest.iter().skip(first).take_while(|(other, _)| *other == event) {
                    if let Some(found) = keys.get_mut(*place) {
                        missing = missing.saturating_sub(usize::from(found.is_none()));
                        *found = Some(key.clone());
                    }
                }
            }
        }
        false
    }
}
