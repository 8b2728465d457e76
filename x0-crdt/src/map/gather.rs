//! [`Gather`]: a long delta that is made in bounded steps.
//!
//! The keys of the events that the receiver lacks are collected first, then what is held at some of them in
//! each step. Keys that change meanwhile are noted, and looked at again in the last step, so that the delta
//! is of that moment.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;

use super::delta::{DeltaExtent, DeltaItem, Item};
use super::gradual::Token;
use super::small::Key;
use super::stage::{ITEM_LEN, WHOLE_EVENTS_MAX};
use super::trail::Event;
use super::{CausalMap, HistoryError};
use crate::Version;
use crate::session::{GatherStep, WHOLE_LEN_MAX};

/// How often the work starts over before the delta is made at once.
const RESTARTS_MAX: u32 = 4;

/// What became of a part of the work.
type Step = GatherStep<Box<Gather>>;

/// See the [module](self).
#[derive(Debug)]
pub struct Gather {
    since: Version,
    /// `since` by the numbers of the map's writers.
    seen: Vec<u64>,
    /// The delta has whole keys.
    whole: bool,
    items_max: usize,
    restarts: u32,
    token: Token,
    /// What the map had seen at the beginning.
    begin: Version,
    /// The keys, ascending, with the places of their items, and a value of each that the receiver has.
    keys: Vec<(Key, Range<usize>, Option<Event>)>,
    at: usize,
    items: Vec<DeltaItem>,
    bytes: usize,
}

impl CausalMap {
    /// Makes the delta since `since` from history, at once if at most `items_max` events are not in it.
    pub(super) fn begin_gather(
        &mut self,
        since: &Version,
        whole: bool,
        items_max: usize,
    ) -> Result<Step, HistoryError> {
        if self.recent_since(since).nth(items_max).is_none() {
            return Ok(if self.is_long(since, false) {
                GatherStep::Long
            } else {
                GatherStep::Done(self.encode_from_history(since, whole)?)
            });
        }
        self.check_history(since)?;
        if self.recent_since(since).nth(WHOLE_EVENTS_MAX).is_some() {
            return Ok(GatherStep::Long);
        }
        Ok(GatherStep::More(self.gather(since.clone(), whole, items_max, 0)))
    }

    fn gather(&mut self, since: Version, whole: bool, items_max: usize, restarts: u32) -> Box<Gather> {
        let mut keys: Vec<_> = self.recent_since(&since).map(|key| (key.clone(), 0..0, None)).collect();
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        keys.dedup_by(|a, b| a.0 == b.0);
        Box::new(Gather {
            seen: self.writers.by_number(&since),
            since,
            whole,
            items_max,
            restarts,
            token: self.watch(),
            begin: self.version(),
            keys,
            at: 0,
            items: Vec::new(),
            bytes: 0,
        })
    }

    /// Does a part of the work.
    pub(super) fn step_gather(&mut self, mut gather: Box<Gather>) -> Result<Step, HistoryError> {
        if !self.is_watched(&gather.token) {
            return self.gather_again(*gather);
        }
        if gather.at == gather.keys.len() {
            return self.finish_gather(*gather);
        }
        for _ in 0..gather.items_max {
            if !gather.look_at(self, gather.at) {
                break;
            }
            gather.at += 1;
        }
        Ok(if gather.bytes > WHOLE_LEN_MAX { GatherStep::Long } else { GatherStep::More(gather) })
    }

    fn gather_again(&mut self, gather: Gather) -> Result<Step, HistoryError> {
        let Gather { since, whole, items_max, restarts, .. } = gather;
        self.check_history(&since)?;
        if restarts >= RESTARTS_MAX {
            return Ok(GatherStep::Done(self.encode_from_history(&since, whole)?));
        }
        Ok(GatherStep::More(self.gather(since, whole, items_max, restarts + 1)))
    }

    /// Looks again at what has changed, and makes the delta.
    fn finish_gather(&mut self, mut gather: Gather) -> Result<Step, HistoryError> {
        // History may have been collected meanwhile.
        self.check_history(&gather.since)?;
        let Some((values, removals)) = self.noted(&gather.token) else { return self.gather_again(gather) };
        let place = |key: &Key| gather.keys.binary_search_by(|(other, ..)| other.cmp(key)).ok();
        let changed: BTreeSet<usize> = values.iter().chain(removals).filter_map(place).collect();
        let news: BTreeSet<&Key> = self
            .recent_since(&gather.begin)
            .filter(|key| place(key).is_none())
            .take(gather.items_max + 1)
            .collect();
        if changed.len() + news.len() > gather.items_max {
            return self.gather_again(gather);
        }
        for place in changed {
            gather.look_at(self, place);
        }
        let first = gather.keys.len();
        gather.keys.extend(news.into_iter().map(|key| (key.clone(), 0..0, None)));
        for place in first..gather.keys.len() {
            gather.look_at(self, place);
        }
        let Gather { since, seen, whole, mut keys, items: mut pool, .. } = gather;
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let (mut entries, mut items, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for (key, places, known) in keys {
            entries.push((key, items.len()));
            held.push(known);
            // The place of an item is used once.
            let taken = pool.get_mut(places).unwrap_or_default().iter_mut();
            items.extend(taken.map(|item| {
                let value = core::mem::replace(&mut item.item, Item::Known);
                DeltaItem { writer: item.writer, seq: item.seq, item: value }
            }));
        }
        let mut delta = self.collected(DeltaExtent::Since, &seen, entries, items, &held);
        delta.base = since.clone();
        Ok(GatherStep::Done(if whole {
            delta.encode(&since)
        } else {
            delta.encode_named(&since, self.hash_key)
        }))
    }

    fn encode_from_history(&self, since: &Version, whole: bool) -> Result<Vec<u8>, HistoryError> {
        let delta = self.delta(since)?;
        Ok(if whole { delta.encode(since) } else { delta.encode_named(since, self.hash_key) })
    }
}

impl Gather {
    /// Notes what the map holds at a key. Returns whether there is this place.
    fn look_at(&mut self, map: &CausalMap, place: usize) -> bool {
        let Some((key, places, held)) = self.keys.get_mut(place) else { return false };
        let begin = self.items.len();
        *held = map.collect_key(key, &self.seen, &[], &mut self.items);
        *places = begin..self.items.len();
        let values = self.items.get(begin..).unwrap_or_default().iter().map(|item| match &item.item {
            Item::Live { value, .. } => value.as_slice().len() + ITEM_LEN,
            Item::Known | Item::Removed => ITEM_LEN,
        });
        self.bytes += key.as_slice().len() + values.sum::<usize>();
        true
    }
}
