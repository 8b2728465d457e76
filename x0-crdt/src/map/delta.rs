//! [`MapDelta`]: the keys that changed, and all that is held at them, from one replica to another.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::small::{Key, Value};
use super::trail::Event;
use super::{CausalMap, KEY_LEN_MAX, VALUE_LEN_MAX, columns, short};
use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::version::{changes, put_changes};
use crate::{Dot, ReplicaId, Version};

/// The most values and removals of one delta of a peer.
pub const ITEM_MAX: usize = 1 << 22;

/// The same limit as the decoders apply it: unit tests reach it with few items.
pub(super) const PEER_ITEMS_MAX: usize = if cfg!(test) { 1 << 10 } else { ITEM_MAX };

const FORMAT: u8 = 1;

/// How a delta was made, and so what it says of values that are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeltaExtent {
    /// From history since the receiver's version: nothing else has changed.
    Since,
    /// All that the sender holds: a value that the sender has seen and that is not in it is gone.
    Complete,
    /// Values that the receiver requested by hash, and the sender's newer history. The receiver knows from a
    /// set reconciliation which of its values the sender does not hold.
    Chosen,
}

/// The state of one event at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// The event wrote this value, which is live.
    Live { time: u64, value: Value },
    /// A live value or a tombstone that the receiver has already.
    Known,
    /// A removal of the values that its writer had seen.
    Removed,
}

/// An event at a key of a delta; its writer is a number of the delta's own table.
#[derive(Debug, Clone)]
pub(super) struct DeltaItem {
    pub(super) writer: u32,
    pub(super) seq: u64,
    pub(super) item: Item,
}

/// The delta from a receiver's version to the sender's state, to be joined whole by [`CausalMap::join`].
#[derive(Debug, Clone)]
pub struct MapDelta {
    pub(super) extent: DeltaExtent,
    /// The events that the receiver must have seen: they are left out. Empty unless the extent is `Since`.
    pub(super) base: Version,
    /// All that the sender has seen.
    pub(super) context: Version,
    /// Up to where the sender has collected its history.
    pub(super) floor: Version,
    pub(super) writers: Vec<ReplicaId>,
    /// Keys, ascending, each with the end of its items in `items`.
    pub(super) entries: Vec<(Key, usize)>,
    pub(super) items: Vec<DeltaItem>,
    /// Of each entry a value that the receiver has seen at its key, if there is one. May be empty.
    pub(super) origins: Vec<Option<Dot>>,
}

/// Why bytes are not a delta. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// Malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Keys out of order.
    #[error("the keys of the delta are not in ascending order: the bytes are damaged or forged")]
    KeyOrder,
    /// Events of a key out of order, or an event twice.
    #[error(
        "the events of the delta are not in order, or one is in it twice: the bytes are damaged or forged"
    )]
    EventOrder,
    /// An event that is not in the sender's own version.
    #[error("the delta holds event {dot}, which is not in its own version: the bytes are damaged or forged")]
    Context {
        /// The event.
        dot: Dot,
    },
    /// The delta names a value that this replica does not hold, or holds at another key: the peer sends it
    /// again with whole keys.
    #[error(
        "the delta names a value that this replica has replaced or does not hold: request it with whole keys"
    )]
    Reference,
    /// More items than [`ITEM_MAX`], or more than its bytes may hold.
    #[error(
        "the delta claims {count} items, more than its bytes can hold or the limit of {ITEM_MAX}: refuse its sender"
    )]
    Items {
        /// The number that it claims.
        count: u64,
    },
}

impl MapDelta {
    /// The events that the sender has seen; after the join the receiver has seen them too.
    #[must_use]
    pub const fn context(&self) -> &Version {
        &self.context
    }

    /// How the delta was made.
    #[must_use]
    pub const fn extent(&self) -> DeltaExtent {
        self.extent
    }

    /// How many keys it touches.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it touches no key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes, as short as knowing `base`, the receiver's version, makes them.
    #[must_use]
    pub fn encode(&self, base: &Version) -> Vec<u8> {
        let columns = self.encode_columns(base);
        // Below a dozen items the columns' own headers are longer than the items.
        match self.encode_short(base) {
            Some(short) if short.len() < columns.len() => short,
            _ => columns,
        }
    }

    fn encode_columns(&self, base: &Version) -> Vec<u8> {
        let mut out = alloc::vec![FORMAT, self.extent_tag()];
        // Against the receiver's version: one entry per writer that has written since, however many there
        // are.
        put_changes(&self.context.changes_since(base), &mut out);
        if self.extent != DeltaExtent::Since {
            // The floor mostly equals the context in a quiet group, and then takes one byte.
            put_changes(&self.floor.changes_since(&self.context), &mut out);
        }
        put_integer(self.writers.len() as u64, &mut out);
        for writer in &self.writers {
            writer.encode(&mut out);
        }
        put_integer(self.entries.len() as u64, &mut out);
        put_keys(self.entries.iter().map(|(key, _)| key), &mut out);
        put_items(self.lists(), &mut out);
        // Padded to a byte per item, so that the decoder can bound its allocations by the length of the
        // bytes.
        let len = out.len().max(self.items.len());
        out.resize(len, 0);
        out
    }

    pub(super) const fn extent_tag(&self) -> u8 {
        match self.extent {
            DeltaExtent::Since => 0,
            DeltaExtent::Complete => 1,
            DeltaExtent::Chosen => 2,
        }
    }

    /// The items of each entry.
    fn lists(&self) -> impl Iterator<Item = &[DeltaItem]> {
        let mut begin = 0;
        self.entries.iter().map(move |(_, end)| {
            let items = self.items.get(begin..*end).unwrap_or_default();
            begin = *end;
            items
        })
    }

    /// Reads what [`encode`](Self::encode) wrote for the same `base`.
    ///
    /// # Errors
    /// Anything that `encode` cannot have written, and more than [`ITEM_MAX`] items. Allocation is bounded by
    /// a small multiple of the bytes.
    pub fn decode(bytes: &[u8], base: &Version) -> Result<Self, DeltaError> {
        Self::decode_from(bytes, base, false)
    }

    /// Reads the same from this replica's own disk: of any number of items, because a map is not limited
    /// either, and with an event at two keys, which a map may hold until it has met its writer's twin.
    ///
    /// # Errors
    /// Anything that [`encode`](Self::encode) cannot have written. Allocation is bounded by a small multiple
    /// of the bytes.
    pub fn decode_trusted(bytes: &[u8], base: &Version) -> Result<Self, DeltaError> {
        Self::decode_from(bytes, base, true)
    }

    fn decode_from(bytes: &[u8], base: &Version, is_trusted: bool) -> Result<Self, DeltaError> {
        let items_max = if is_trusted { usize::MAX } else { PEER_ITEMS_MAX };
        let mut input = ByteReader::new(bytes);
        let found = input.byte("a delta")?;
        if found == short::FORMAT {
            let delta = Self::decode_short(&mut input, base)?;
            delta.check(is_trusted)?;
            return Ok(delta);
        }
        if found != FORMAT {
            return Err(DecodeError::Version { found }.into());
        }
        let extent = extent_of(input.byte("a delta")?)?;
        let context = base.clone().changed(&changes(&mut input)?);
        let floor = match extent {
            DeltaExtent::Since => Version::new(),
            DeltaExtent::Complete | DeltaExtent::Chosen => context.clone().changed(&changes(&mut input)?),
        };
        // A writer takes at least nine bytes, so the count is bounded before the table is allocated.
        let count = input.count(9, "writers")?;
        let writers = (0..count).map(|_| ReplicaId::decode(&mut input)).collect::<Result<Vec<_>, _>>()?;
        let claimed = input.integer("entries")?;
        // A constant column can claim any number of entries in two bytes: bounded by the length, see the
        // padding in `encode`.
        let count = bounded(claimed, bytes.len().min(items_max))?;
        let keys = keys(&mut input, count)?;
        let (ends, items) = items(&mut input, count, bytes.len().min(items_max))?;
        padding(&mut input, bytes.len(), items.len())?;
        let entries = keys.into_iter().zip(ends).collect();
        // The other extents hold all that is live, so they fit any receiver.
        let base = if extent == DeltaExtent::Since { base.clone() } else { Version::new() };
        let origins = Vec::new();
        let delta = Self { extent, base, context, floor, writers, entries, items, origins };
        delta.check(is_trusted)?;
        Ok(delta)
    }

    pub(super) fn check(&self, is_trusted: bool) -> Result<(), DeltaError> {
        if !self.entries.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(DeltaError::KeyOrder);
        }
        let mut seqs = Vec::with_capacity(self.writers.len());
        for writer in &self.writers {
            seqs.push(self.context.get(*writer));
        }
        if !self.writers.is_sorted_by(|a, b| a < b) {
            return Err(DeltaError::EventOrder);
        }
        let mut begin = 0;
        for (_, end) in &self.entries {
            let items = self.items.get(begin..*end).unwrap_or_default();
            if !items.is_sorted_by(|a, b| (a.writer, a.seq) < (b.writer, b.seq)) {
                return Err(DeltaError::EventOrder);
            }
            begin = *end;
        }
        for item in &self.items {
            let seq_max = seqs.get(item.writer as usize).copied();
            let Some(seq_max) = seq_max else {
                return Err(DecodeError::Range { what: "the number of a writer" }.into());
            };
            if item.seq == 0 || item.seq > seq_max {
                let replica = self.writers.get(item.writer as usize).copied().unwrap_or_default();
                return Err(DeltaError::Context { dot: Dot::new(replica, item.seq) });
            }
        }
        if is_trusted {
            return Ok(());
        }
        // An event twice, at two keys, would let one dot stand for two values.
        let mut events: Vec<_> = self.items.iter().map(|item| (item.writer, item.seq)).collect();
        events.sort_unstable();
        if events.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(DeltaError::EventOrder);
        }
        Ok(())
    }
}

/// Appends keys in ascending order.
pub(super) fn put_keys<'a>(keys: impl Iterator<Item = &'a Key>, out: &mut Vec<u8>) {
    let (mut shared, mut lens, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    let mut last: &[u8] = &[];
    for key in keys {
        let key = key.as_slice();
        // Keys ascend, so neighbours share prefixes: only the tails are written.
        let same = key.iter().zip(last).take_while(|(a, b)| a == b).count();
        shared.push(same as u64);
        lens.push(key.len() as u64);
        tails.extend_from_slice(key.get(same..).unwrap_or_default());
        last = key;
    }
    columns::put_numbers(&lens, out);
    columns::put_numbers(&shared, out);
    columns::put_text(&tails, out);
}

/// Appends the items of entries, each entry's as one list.
pub(super) fn put_items<'a>(lists: impl Iterator<Item = &'a [DeltaItem]>, out: &mut Vec<u8>) {
    let (mut counts, mut items) = (Vec::new(), Vec::new());
    for list in lists {
        counts.push(list.len() as u64);
        items.extend(list);
    }
    // Mostly all ones: a constant column of two bytes.
    columns::put_numbers(&counts, out);
    let column = |of: &dyn Fn(&DeltaItem) -> u64| items.iter().map(|item| of(item)).collect::<Vec<_>>();
    columns::put_numbers(
        &column(&|item| match item.item {
            Item::Live { .. } => 0,
            Item::Known => 1,
            Item::Removed => 2,
        }),
        out,
    );
    columns::put_numbers(&column(&|item| u64::from(item.writer)), out);
    columns::put_numbers(&column(&|item| item.seq), out);
    let (mut times, mut lens, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for item in &items {
        if let Item::Live { time, value } = &item.item {
            times.push((item.writer, item.seq, *time));
            lens.push(value.as_slice().len() as u64);
            values.extend_from_slice(value.as_slice());
        }
    }
    // Sorted by event, in which order times mostly rise: the column of steps is then short.
    times.sort_unstable();
    columns::put_numbers(&times.iter().map(|(_, _, time)| *time).collect::<Vec<_>>(), out);
    columns::put_numbers(&lens, out);
    columns::put_text(&values, out);
}

/// The extent of a tag.
pub(super) const fn extent_of(tag: u8) -> Result<DeltaExtent, DecodeError> {
    match tag {
        0 => Ok(DeltaExtent::Since),
        1 => Ok(DeltaExtent::Complete),
        2 => Ok(DeltaExtent::Chosen),
        tag => Err(DecodeError::Tag { what: "extent of a delta", tag }),
    }
}

/// Reads the end of a delta of so many bytes and items: only padding may follow, and only as much as is
/// written.
pub(super) fn padding(input: &mut ByteReader<'_>, len: usize, items: usize) -> Result<(), DeltaError> {
    let padding = input.take(input.len(), "padding")?;
    if padding.iter().any(|byte| *byte != 0) || (!padding.is_empty() && len != items) {
        return Err(DecodeError::Trailing { len: padding.len() }.into());
    }
    Ok(())
}

/// A claimed count that is at most `max`.
pub(super) fn bounded(claimed: u64, max: usize) -> Result<usize, DeltaError> {
    usize::try_from(claimed).ok().filter(|count| *count <= max).ok_or(DeltaError::Items { count: claimed })
}

pub(super) fn keys(input: &mut ByteReader<'_>, count: usize) -> Result<Vec<Key>, DeltaError> {
    const WHAT: &str = "a key";
    let lens = columns::numbers(input, count, WHAT)?;
    let shared = columns::numbers(input, count, WHAT)?;
    let mut total = 0_usize;
    for (len, same) in lens.iter().zip(&shared) {
        let tail = len.checked_sub(*same).filter(|_| *len <= KEY_LEN_MAX as u64);
        let tail =
            tail.and_then(|tail| usize::try_from(tail).ok()).ok_or(DecodeError::Range { what: WHAT })?;
        total = total.saturating_add(tail);
    }
    // Packed text takes at least one bit per byte.
    if total > input.len().saturating_mul(8) {
        return Err(DecodeError::Truncated { what: WHAT }.into());
    }
    let tails = columns::text(input, total, WHAT)?;
    let mut rest = tails.as_slice();
    let mut last = Vec::new();
    let mut keys = Vec::with_capacity(count);
    for (len, same) in lens.iter().zip(&shared) {
        // Both were bounded above.
        let (len, same) = (usize::try_from(*len).unwrap_or(0), usize::try_from(*same).unwrap_or(0));
        // The first key shares nothing, and no key more than the one before it has.
        if same > last.len() {
            return Err(DecodeError::Range { what: WHAT }.into());
        }
        let (tail, after) = rest.split_at_checked(len - same).ok_or(DecodeError::Truncated { what: WHAT })?;
        rest = after;
        last.truncate(same);
        last.extend_from_slice(tail);
        keys.push(Key::new(&last));
    }
    Ok(keys)
}

pub(super) fn items(
    input: &mut ByteReader<'_>,
    entries: usize,
    items_max: usize,
) -> Result<(Vec<usize>, Vec<DeltaItem>), DeltaError> {
    const WHAT: &str = "an item";
    let counts = columns::numbers(input, entries, WHAT)?;
    let total = counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let count = bounded(total, items_max)?;
    let mut end = 0;
    let ends: Vec<usize> = counts
        .iter()
        .map(|count| {
            end += usize::try_from(*count).unwrap_or(0);
            end
        })
        .collect();
    let kinds = columns::numbers(input, count, WHAT)?;
    let writers = columns::numbers(input, count, WHAT)?;
    let seqs = columns::numbers(input, count, WHAT)?;
    let live = kinds.iter().filter(|kind| **kind == 0).count();
    let times = columns::numbers(input, live, WHAT)?;
    let mut by_event: Vec<(u64, u64, usize)> = Vec::with_capacity(live);
    for ((kind, writer), seq) in kinds.iter().zip(&writers).zip(&seqs) {
        if *kind == 0 {
            by_event.push((*writer, *seq, by_event.len()));
        }
    }
    // The times were written in this order, see `put_items`.
    by_event.sort_unstable();
    let mut by_place = alloc::vec![0; live];
    for ((_, _, place), time) in by_event.into_iter().zip(times) {
        if let Some(by_place) = by_place.get_mut(place) {
            *by_place = time;
        }
    }
    let mut times = by_place.into_iter();
    let lens = columns::numbers(input, live, WHAT)?;
    let mut total = 0_usize;
    for len in &lens {
        let len = usize::try_from(*len).ok().filter(|len| *len <= VALUE_LEN_MAX);
        total = total.saturating_add(len.ok_or(DecodeError::Range { what: "the length of a value" })?);
    }
    if total > input.len().saturating_mul(8) {
        return Err(DecodeError::Truncated { what: "values" }.into());
    }
    let values = columns::text(input, total, "values")?;
    let mut rest = values.as_slice();
    let mut lens = lens.into_iter();
    let mut items = Vec::with_capacity(count);
    for ((kind, writer), seq) in kinds.into_iter().zip(writers).zip(seqs) {
        let item = match kind {
            0 => {
                let len = lens.next().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
                let (value, after) =
                    rest.split_at_checked(len).ok_or(DecodeError::Truncated { what: "values" })?;
                rest = after;
                Item::Live { time: times.next().unwrap_or(0), value: Value::new(value) }
            }
            1 => Item::Known,
            2 => Item::Removed,
            _ => return Err(DecodeError::Range { what: "the kind of an item" }.into()),
        };
        let writer =
            u32::try_from(writer).map_err(|_| DecodeError::Range { what: "the number of a writer" })?;
        items.push(DeltaItem { writer, seq, item });
    }
    Ok((ends, items))
}

/// Collects keys of a map into a delta.
pub(super) struct Collector<'a> {
    map: &'a CausalMap,
    /// The last event that the receiver has seen of each of the map's writers.
    pub(super) since: Vec<u64>,
    keys: BTreeSet<&'a Key>,
    /// The hashes of values that the receiver requests though it has seen their events, sorted.
    pub(super) asked: &'a [u64],
}

impl<'a> Collector<'a> {
    pub(super) fn new(map: &'a CausalMap, since: &Version) -> Self {
        Self { map, since: map.writers.by_number(since), keys: BTreeSet::new(), asked: &[] }
    }

    pub(super) fn add(&mut self, key: &'a Key) {
        self.keys.insert(key);
    }

    /// Adds the keys of all remembered events that the receiver has not seen.
    pub(super) fn add_recent(&mut self) {
        for (writer, (seen, last)) in (0_u32..).zip(self.since.iter().zip(&self.map.version)) {
            if seen < last {
                let events = self.map.recent.range((writer, seen + 1)..=(writer, *last));
                self.keys.extend(events.map(|(_, key)| key));
            }
        }
    }

    pub(super) fn finish(self, extent: DeltaExtent) -> MapDelta {
        let map = self.map;
        let mut entries = Vec::with_capacity(self.keys.len());
        let mut items: Vec<DeltaItem> = Vec::with_capacity(self.keys.len());
        // Of each entry a value that the receiver has.
        let mut held: Vec<Option<Event>> = Vec::with_capacity(self.keys.len());
        for key in self.keys {
            // An entry without items is a key at which nothing is left: the receiver drops what it holds
            // there.
            entries.push((key.clone(), items.len()));
            held.push(map.collect_key(key, &self.since, self.asked, &mut items));
        }
        map.collected(extent, &self.since, entries, items, &held)
    }
}

impl CausalMap {
    /// Appends the items of a key for a receiver that has seen `since`, with the map's own numbers of
    /// writers. Returns a value that the receiver has, if there is one.
    pub(super) fn collect_key(
        &self,
        key: &Key,
        since: &[u64],
        asked: &[u64],
        items: &mut Vec<DeltaItem>,
    ) -> Option<Event> {
        let known = |writer: u32, seq: u64| seq <= super::seq_of(since, writer);
        // Siblings that the receiver has are listed without their value: leaving one out would say that it is
        // gone.
        let mut held = None;
        for sibling in self.cells.get(key).map(super::Cell::siblings).unwrap_or_default() {
            let is_asked = || {
                let hash = super::item_hash(self.hash_key, &self.writers, key, sibling);
                asked.binary_search(&hash).is_ok()
            };
            let item = if known(sibling.writer, sibling.seq) && (asked.is_empty() || !is_asked()) {
                held = Some((sibling.writer, sibling.seq));
                Item::Known
            } else {
                Item::Live { time: sibling.time, value: sibling.value.clone() }
            };
            items.push(DeltaItem { writer: sibling.writer, seq: sibling.seq, item });
        }
        for (writer, seq) in self.removals.get(key).map(Vec::as_slice).unwrap_or_default() {
            let item = if known(*writer, *seq) { Item::Known } else { Item::Removed };
            items.push(DeltaItem { writer: *writer, seq: *seq, item });
        }
        held
    }

    /// The delta of collected keys. Each entry has the begin of its items, and `held` a value of each that
    /// the receiver has.
    pub(super) fn collected(
        &self,
        extent: DeltaExtent,
        since: &[u64],
        mut entries: Vec<(Key, usize)>,
        mut items: Vec<DeltaItem>,
        held: &[Option<Event>],
    ) -> MapDelta {
        let map = self;
        let origins = match extent {
            // Mostly to a receiver that holds nothing.
            DeltaExtent::Complete => Vec::new(),
            DeltaExtent::Since | DeltaExtent::Chosen => map.origins(extent, since, &entries, &items, held),
        };
        // The delta numbers its writers by ascending ID, so that equal deltas have equal bytes whatever the
        // sender's own numbers are.
        let mut used: Vec<u32> = items.iter().map(|item| item.writer).collect();
        used.sort_unstable();
        used.dedup();
        used.sort_unstable_by_key(|writer| map.writers.id(*writer));
        let mut number = alloc::vec![0_u32; map.writers.len()];
        for (new, old) in (0_u32..).zip(&used) {
            if let Some(place) = number.get_mut(*old as usize) {
                *place = new;
            }
        }
        for item in &mut items {
            item.writer = number.get(item.writer as usize).copied().unwrap_or(0);
        }
        let mut end = items.len();
        for (_, place) in entries.iter_mut().rev() {
            let begin = *place;
            if let Some(of_key) = items.get_mut(begin..end) {
                of_key.sort_unstable_by_key(|item| (item.writer, item.seq));
            }
            *place = end;
            end = begin;
        }
        MapDelta {
            extent,
            base: Version::new(),
            context: map.version(),
            floor: map.floor(),
            writers: used.iter().map(|writer| map.writers.id(*writer)).collect(),
            entries,
            items,
            origins,
        }
    }
}
