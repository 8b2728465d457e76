//! [`Range`]: what a replica holds at the keys of one range, and what it knows of them.

use alloc::vec::Vec;
use core::ops::Bound;

use super::super::cell::Cell;
use super::super::delta::{Collector, DeltaError, DeltaExtent, MapDelta};
use super::super::small::Key;
use super::super::{CausalMap, seq_of};
use crate::Version;
use crate::codec::{ByteReader, Canonical, DecodeError, put_bytes};
use crate::session::WHOLE_LEN_MAX;

const FORMAT: u8 = 3;

/// The most values and tombstones of a range of several keys, and the most keys that are visited for it.
const ITEMS_MAX: usize = 4096;
const VISITED_MAX: usize = 1 << 14;

/// The most events of a delta that is made at once.
pub(in crate::map) const WHOLE_EVENTS_MAX: usize = 1 << 15;

/// The most items and bytes of a complete delta, which is joined at once: more come by ranges.
const COMPLETE_ITEMS_MAX: usize = ITEMS_MAX;
const COMPLETE_LEN_MAX: usize = 1 << 20;

/// The bytes that an item may take besides its key and its value.
pub(in crate::map) const ITEM_LEN: usize = 24;

/// What a replica holds at the keys from `from` on, below `end`: a delta that says nothing of other keys.
#[derive(Debug, Clone)]
pub(in crate::map) struct Range {
    pub(super) from: Vec<u8>,
    /// `None`: all keys from `from` on.
    pub(super) end: Option<Vec<u8>>,
    pub(super) delta: MapDelta,
}

impl Range {
    pub(super) fn encode(&self, since: &Version) -> Vec<u8> {
        let mut out = alloc::vec![FORMAT];
        put_bytes(&self.from, &mut out);
        self.end.is_some().encode(&mut out);
        if let Some(end) = &self.end {
            put_bytes(end, &mut out);
        }
        out.extend_from_slice(&self.delta.encode(since));
        out
    }

    /// Reads what [`encode`](Self::encode) wrote for the same `since`.
    pub(super) fn decode(bytes: &[u8], since: &Version) -> Result<Self, DeltaError> {
        let mut input = ByteReader::new(bytes);
        let found = input.byte("a range")?;
        if found != FORMAT {
            return Err(DecodeError::Version { found }.into());
        }
        let from = input.bytes("a range")?.to_vec();
        let end = if bool::decode(&mut input)? { Some(input.bytes("a range")?.to_vec()) } else { None };
        // Otherwise a range could bring nothing, and be requested for ever.
        if end.as_ref().is_some_and(|end| *end <= from) {
            return Err(DecodeError::Range { what: "the end of a range" }.into());
        }
        let delta = MapDelta::decode(input.take(input.len(), "a range")?, since)?;
        let is_outside = |key: &Key| {
            key.as_slice() < from.as_slice() || end.as_ref().is_some_and(|end| key.as_slice() >= end)
        };
        // Ascending, as the delta has checked.
        if [delta.entries.first(), delta.entries.last()].into_iter().flatten().any(|(key, _)| is_outside(key))
        {
            return Err(DeltaError::KeyOrder);
        }
        Ok(Self { from, end, delta })
    }
}

/// Counts the items of a delta until it is too long.
struct Budget {
    items: usize,
    bytes: usize,
}

impl Budget {
    /// Whether the key is still within the budget.
    fn take(&mut self, map: &CausalMap, key: &Key) -> bool {
        let siblings = map.cells.get(key).map(Cell::siblings).unwrap_or_default();
        let removals = map.removals.get(key).map_or(0, Vec::len);
        let values: usize = siblings.iter().map(|sibling| sibling.value.as_slice().len()).sum();
        let items = siblings.len() + removals;
        let bytes = key.as_slice().len() + values + items * ITEM_LEN;
        let fits = self.items >= items && self.bytes >= bytes;
        (self.items, self.bytes) = (self.items.saturating_sub(items), self.bytes.saturating_sub(bytes));
        fits
    }
}

impl CausalMap {
    /// Whether the delta since `since`, or a complete one, is too long to be made at once.
    pub(in crate::map) fn is_long(&self, since: &Version, complete: bool) -> bool {
        if complete {
            let mut budget = Budget { items: COMPLETE_ITEMS_MAX, bytes: COMPLETE_LEN_MAX };
            return !self.cells.keys().chain(self.removals.keys()).all(|key| budget.take(self, key));
        }
        let mut budget = Budget { items: WHOLE_EVENTS_MAX, bytes: WHOLE_LEN_MAX };
        // Counted first, without a look at any value.
        let is_many = self.recent_since(since).nth(WHOLE_EVENTS_MAX).is_some();
        // Without history no delta is made at all.
        self.floor().is_within(since)
            && (is_many || self.recent_since(since).any(|key| !budget.take(self, key)))
    }

    /// The keys of the events that a receiver with `since` has not seen; some of them twice.
    pub(in crate::map) fn recent_since(&self, since: &Version) -> impl Iterator<Item = &Key> {
        let since = self.writers.by_number(since);
        let writers = (0_u32..).zip(since).zip(&self.version);
        writers.filter(|((_, seen), last)| seen < *last).flat_map(|((writer, seen), last)| {
            self.recent.range((writer, seen + 1)..=(writer, *last)).map(|(_, key)| key)
        })
    }

    /// What is held at the keys from `from` on that a receiver with `since` lacks: as many keys as take about
    /// `len_max` bytes, at least one.
    pub(in crate::map) fn encode_range_from(&self, since: &Version, from: &[u8], len_max: usize) -> Vec<u8> {
        let floor = self.floor();
        let reaches_back = floor.is_within(since);
        let extent = if reaches_back { DeltaExtent::Since } else { DeltaExtent::Complete };
        let mut collector = Collector::new(self, since);
        // The version of the delta takes its share.
        let overhead = self.version().changes_since(since).len() * 16 + from.len() * 2 + 64;
        let bytes = (len_max / 8 * 7).saturating_sub(overhead);
        // Few changes are found by their events, without a pass over the keys.
        let mut budget = Budget { items: ITEMS_MAX, bytes };
        if reaches_back && from.is_empty() && self.recent_since(since).all(|key| budget.take(self, key)) {
            collector.add_recent();
            return self.encode_collected(collector, extent, since, from, None);
        }
        let mut budget = Budget { items: ITEMS_MAX, bytes };
        let (mut count, mut visited, mut end) = (0_usize, 0_usize, None);
        let known = self.writers.by_number(since);
        let is_news = |writer: u32, seq: u64| seq > seq_of(&known, writer);
        let first = (Bound::Included(from), Bound::Unbounded);
        let mut cells = self.cells.range::<[u8], _>(first).peekable();
        let mut removals = self.removals.range::<[u8], _>(first).peekable();
        loop {
            // The smaller key of both, and both where they are equal.
            let key = match (cells.peek(), removals.peek()) {
                (Some((key, _)), Some((other, _))) => (*key).min(*other),
                (Some((key, _)), None) | (None, Some((key, _))) => *key,
                (None, None) => break,
            };
            let cell = cells.next_if(|(at, _)| *at == key).map(|(_, cell)| cell.siblings());
            let events = removals.next_if(|(at, _)| *at == key).map(|(_, events)| events.as_slice());
            let has_news = cell.unwrap_or_default().iter().any(|held| is_news(held.writer, held.seq))
                || events.unwrap_or_default().iter().any(|(writer, seq)| is_news(*writer, *seq));
            let is_listed = !reaches_back || has_news;
            // A range has at least one key, or it would never be passed.
            if visited > 0 && (visited >= VISITED_MAX || is_listed && !budget.take(self, key) && count > 0) {
                end = Some(key.as_slice().to_vec());
                break;
            }
            if visited == 0 && is_listed {
                budget.take(self, key);
            }
            visited += 1;
            if is_listed {
                count += 1;
                collector.add(key);
            }
        }
        self.encode_collected(collector, extent, since, from, end)
    }

    fn encode_collected(
        &self,
        collector: Collector<'_>,
        extent: DeltaExtent,
        since: &Version,
        from: &[u8],
        end: Option<Vec<u8>>,
    ) -> Vec<u8> {
        let mut delta = collector.finish(extent);
        if extent == DeltaExtent::Since {
            delta.base = since.clone();
        }
        Range { from: from.to_vec(), end, delta }.encode(since)
    }
}
