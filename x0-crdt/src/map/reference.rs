//! The form of a delta that names values which the receiver holds instead of their keys.
//!
//! An overwrite or a removal has replaced a value. If the receiver has seen that value, its dot stands for
//! the key, and the bytes do not grow with the key. A receiver that has replaced the value too finds the key
//! by its own trail. The sum of all named keys is checked, because a writer that has used one dot twice has
//! it at two keys. A delta whose names cannot be resolved is refused, and requested with whole keys.

use alloc::vec::Vec;

use super::delta::{DeltaError, DeltaExtent, DeltaItem, MapDelta, PEER_ITEMS_MAX, bounded};
use super::search::Search;
use super::small::Key;
use super::trail::Event;
use super::{CausalMap, KEY_LEN_MAX, columns, seq_of};
use crate::codec::{ByteReader, Canonical, DecodeError, put_bytes, put_integer};
use crate::version::{changes_of, put_changes_of};
use crate::{Dot, HashKey, ReplicaId, Version};

/// The first byte of the columns with references, and of the short form with them.
const FORMAT: u8 = 4;
const SHORT_FORMAT: u8 = 5;

/// The flags of the tables that are left out: that of the writers of events, who are those of the version's
/// changes, and that of the writers of named values, who are those of the events.
const CHANGED: u8 = 1;
const SAME: u8 = 2;

/// The most entries and items of a short delta.
const SHORT_MAX: usize = 16;

/// How many keys of the map one name may cost a receiver whose history does not have the named value: about
/// as much time as the bytes of a key take on a slow link.
const VISITS_PER_NAME: usize = 1024;

/// Keys are named if their bytes, without what they share with the key before, are more than this on average.
const TAIL_LEN_MIN: usize = 3;

/// A name: the writer's place in the table of names, and the event's number.
type Name = (u64, u64);

/// A delta whose named keys are still to be searched.
#[derive(Debug)]
pub(super) struct Unresolved {
    /// Without its entries, if it has names.
    delta: MapDelta,
    named: Option<Named>,
    pub(super) search: Search,
}

/// The entries of a delta with names: those with whole keys, then the named ones.
#[derive(Debug)]
struct Named {
    keys: Vec<Key>,
    ends: Vec<usize>,
    items: Vec<DeltaItem>,
    expected: u32,
}

impl Unresolved {
    /// How many entries the delta has.
    pub(super) fn len(&self) -> usize {
        self.named.as_ref().map_or(self.delta.entries.len(), |named| named.ends.len())
    }

    /// The delta, when the search has come to its end.
    pub(super) fn resolve(self, key: HashKey) -> Result<MapDelta, DeltaError> {
        let Self { mut delta, named, search } = self;
        let Some(Named { mut keys, ends, items, expected }) = named else { return Ok(delta) };
        let found = search.found().ok_or(DeltaError::Reference)?;
        if check(key, found.iter()) != expected {
            return Err(DeltaError::Reference);
        }
        keys.extend(found);
        // Back into the order of keys.
        let mut begin = 0;
        let mut lists: Vec<(Key, core::ops::Range<usize>)> = keys
            .into_iter()
            .zip(ends)
            .map(|(key, end)| (key, core::mem::replace(&mut begin, end)..end))
            .collect();
        lists.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut items: Vec<Option<DeltaItem>> = items.into_iter().map(Some).collect();
        for (key, range) in lists {
            delta.items.extend(items.get_mut(range).unwrap_or_default().iter_mut().filter_map(Option::take));
            delta.entries.push((key, delta.items.len()));
        }
        delta.check(false)?;
        Ok(delta)
    }
}

impl MapDelta {
    /// The bytes for a receiver that has seen `base` and can resolve names.
    pub(super) fn encode_named(&self, base: &Version, key: HashKey) -> Vec<u8> {
        if self.origins.iter().all(Option::is_none) {
            return self.encode(base);
        }
        if self.entries.len() <= SHORT_MAX && self.items.len() <= SHORT_MAX {
            let plain = self.encode(base);
            let named = self.encode_named_form(base, key, true);
            return if plain.len() <= named.len() { plain } else { named };
        }
        self.encode_named_form(base, key, false)
    }

    fn encode_named_form(&self, base: &Version, key: HashKey, is_short: bool) -> Vec<u8> {
        let is_short = is_short && self.extent == DeltaExtent::Since;
        let mut writers: Vec<ReplicaId> = self.origins.iter().flatten().map(|dot| dot.replica).collect();
        writers.sort_unstable();
        writers.dedup();
        let place = |writer| writers.binary_search(&writer).unwrap_or(0) as u64;
        let (mut named, mut whole) = (Vec::new(), Vec::new());
        let mut begin = 0;
        for ((key, end), origin) in self.entries.iter().zip(&self.origins) {
            let items = self.items.get(begin..*end).unwrap_or_default();
            begin = *end;
            match origin {
                Some(dot) => named.push(((place(dot.replica), dot.seq), key, items)),
                None => whole.push((key, items)),
            }
        }
        // By the named dot, so that the column of these is short, or by the event, whose numbers then mostly
        // count up: of few of many values that is shorter, because it takes no permutation.
        named.sort_unstable_by_key(|(name, ..)| *name);
        if !is_short {
            let mut by_event = named.clone();
            by_event.sort_by_key(|(.., items)| items.first().map(|item| (item.writer, item.seq)));
            if ordered_len(&by_event) < ordered_len(&named) {
                named = by_event;
            }
        }
        let mut out = alloc::vec![if is_short { SHORT_FORMAT } else { FORMAT }];
        if !is_short {
            out.push(self.extent_tag());
        }
        let changes = self.context.changes_since(base);
        put_changes_of(base, &changes, &mut out);
        if self.extent != DeltaExtent::Since {
            put_changes_of(&self.context, &self.floor.changes_since(&self.context), &mut out);
        }
        // Mostly the events are of the writers that have written, and the named values of these too.
        let is_changed = self.writers.iter().eq(changes.iter().map(|(writer, _)| writer));
        let is_same = writers == self.writers;
        out.push(if is_changed { CHANGED } else { 0 } | if is_same { SAME } else { 0 });
        for table in
            [(!is_changed).then_some(&self.writers), (!is_same).then_some(&writers)].into_iter().flatten()
        {
            put_integer(table.len() as u64, &mut out);
            for writer in table {
                writer.encode(&mut out);
            }
        }
        put_integer(whole.len() as u64, &mut out);
        put_integer(named.len() as u64, &mut out);
        out.extend_from_slice(&check(key, named.iter().map(|(_, key, _)| *key)).to_le_bytes());
        let lists = whole.iter().map(|(_, items)| *items).chain(named.iter().map(|(.., items)| *items));
        if is_short {
            for (key, _) in &whole {
                put_bytes(key.as_slice(), &mut out);
            }
            for ((writer, seq), ..) in &named {
                put_integer(*writer, &mut out);
                put_integer(*seq, &mut out);
            }
            for items in lists {
                self.put_short_items(items, &mut out);
            }
            return out;
        }
        super::delta::put_keys(whole.iter().map(|(key, _)| *key), &mut out);
        columns::put_numbers(&named.iter().map(|((writer, _), ..)| *writer).collect::<Vec<_>>(), &mut out);
        columns::put_numbers(&named.iter().map(|((_, seq), ..)| *seq).collect::<Vec<_>>(), &mut out);
        super::delta::put_items(lists, &mut out);
        // As in the columns without names.
        let len = out.len().max(self.items.len());
        out.resize(len, 0);
        out
    }

    /// Reads what [`encode_named`](Self::encode_named) or [`encode`](Self::encode) wrote for the same `base`,
    /// as a delta for `map`.
    pub(super) fn decode_named(bytes: &[u8], base: &Version, map: &CausalMap) -> Result<Self, DeltaError> {
        let mut unresolved = Self::decode_unresolved(bytes, base, map)?;
        while map.search(&mut unresolved.search, usize::MAX) {}
        unresolved.resolve(map.hash_key)
    }

    /// Reads the same, and leaves the keys of the names to be searched.
    pub(super) fn decode_unresolved(
        bytes: &[u8],
        base: &Version,
        map: &CausalMap,
    ) -> Result<Unresolved, DeltaError> {
        let mut input = ByteReader::new(bytes);
        let is_short = match input.byte("a delta")? {
            FORMAT => false,
            SHORT_FORMAT => true,
            _ => {
                let delta = Self::decode(bytes, base)?;
                return Ok(Unresolved { delta, named: None, search: Search::default() });
            }
        };
        let extent =
            if is_short { DeltaExtent::Since } else { super::delta::extent_of(input.byte("a delta")?)? };
        let changes = changes_of(base, &mut input)?;
        let context = base.clone().changed(&changes);
        let floor = match extent {
            DeltaExtent::Since => Version::new(),
            DeltaExtent::Complete | DeltaExtent::Chosen => {
                context.clone().changed(&changes_of(&context, &mut input)?)
            }
        };
        let flags = input.byte("flags")?;
        if flags & !(CHANGED | SAME) != 0 {
            return Err(DecodeError::Tag { what: "flag", tag: flags }.into());
        }
        let is_changed = flags & CHANGED != 0;
        let writers =
            if is_changed { changes.iter().map(|(writer, _)| *writer).collect() } else { table(&mut input)? };
        let namers = if flags & SAME != 0 { writers.clone() } else { table(&mut input)? };
        let items_max = bytes.len().min(PEER_ITEMS_MAX);
        let whole = bounded(input.integer("entries")?, items_max)?;
        let named = bounded(input.integer("entries")?, items_max)?;
        let expected = u32::from_le_bytes(input.array("a hash")?);
        let base = if extent == DeltaExtent::Since { base.clone() } else { Version::new() };
        let delta = Self {
            extent,
            base,
            context,
            floor,
            writers,
            entries: Vec::new(),
            items: Vec::new(),
            origins: Vec::new(),
        };
        let (keys, names, ends, items) = if is_short {
            delta.short_columns(&mut input, whole, named)?
        } else {
            let keys = super::delta::keys(&mut input, whole)?;
            let of = columns::numbers(&mut input, named, "a name")?;
            let seqs = columns::numbers(&mut input, named, "a name")?;
            let names: Vec<Name> = of.into_iter().zip(seqs).collect();
            let (ends, items) = super::delta::items(&mut input, whole + named, items_max)?;
            super::delta::padding(&mut input, bytes.len(), items.len())?;
            (keys, names, ends, items)
        };
        input.finish()?;
        let search = Search::new(map.events(&names, &namers)?);
        Ok(Unresolved { delta, named: Some(Named { keys, ends, items, expected }), search })
    }

    #[expect(clippy::type_complexity, reason = "the columns of one delta, in the order of the bytes")]
    fn short_columns(
        &self,
        input: &mut ByteReader<'_>,
        whole: usize,
        named: usize,
    ) -> Result<(Vec<Key>, Vec<Name>, Vec<usize>, Vec<DeltaItem>), DeltaError> {
        if whole + named > SHORT_MAX {
            return Err(DeltaError::Items { count: (whole + named) as u64 });
        }
        let (mut keys, mut names, mut ends, mut items) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..whole {
            let key = input.bytes("a key")?;
            if key.len() > KEY_LEN_MAX {
                return Err(DecodeError::Range { what: "a key" }.into());
            }
            keys.push(Key::new(key));
        }
        for _ in 0..named {
            names.push((input.integer("a name")?, input.integer("a name")?));
        }
        for _ in 0..whole + named {
            self.short_items(input, &mut items)?;
            ends.push(items.len());
        }
        if items.len() > SHORT_MAX {
            return Err(DeltaError::Items { count: items.len() as u64 });
        }
        Ok((keys, names, ends, items))
    }
}

/// The bytes of the columns that depend on the order of the named entries.
fn ordered_len(named: &[(Name, &Key, &[DeltaItem])]) -> usize {
    let mut out = Vec::new();
    let mut put = |numbers: Vec<u64>| columns::put_numbers(&numbers, &mut out);
    put(named.iter().map(|((writer, _), ..)| *writer).collect());
    put(named.iter().map(|((_, seq), ..)| *seq).collect());
    let items = || named.iter().flat_map(|(.., items)| *items);
    put(items().map(|item| u64::from(item.writer)).collect());
    put(items().map(|item| item.seq).collect());
    out.len()
}

fn table(input: &mut ByteReader<'_>) -> Result<Vec<ReplicaId>, DecodeError> {
    // A writer takes at least nine bytes, so the count is bounded before the table is allocated.
    let count = input.count(9, "writers")?;
    (0..count).map(|_| ReplicaId::decode(input)).collect()
}

/// The check value of named keys.
fn check<'a>(key: HashKey, keys: impl Iterator<Item = &'a Key>) -> u32 {
    let keys: Vec<&[u8]> = [&b"names"[..]].into_iter().chain(keys.map(Key::as_slice)).collect();
    u32::try_from(key.hash(&keys) >> 32).unwrap_or(0)
}

impl CausalMap {
    /// The dot that may stand for the key of each entry, for a receiver that has seen `since`. `held` are
    /// values of each entry that the receiver has. Empty if the keys are short.
    pub(super) fn origins(
        &self,
        extent: DeltaExtent,
        since: &[u64],
        entries: &[(Key, usize)],
        items: &[DeltaItem],
        held: &[Option<Event>],
    ) -> Vec<Option<Dot>> {
        let (mut tails, mut last) = (0, &[][..]);
        for (key, _) in entries {
            let key = key.as_slice();
            tails += key.len() - key.iter().zip(last).take_while(|(a, b)| a == b).count();
            last = key;
        }
        if tails <= TAIL_LEN_MIN * entries.len() || since.iter().all(|seq| *seq == 0) {
            return Vec::new();
        }
        let is_seen = |(writer, seq): Event| seq <= seq_of(since, writer);
        let ends = entries.iter().skip(1).map(|(_, begin)| *begin).chain([items.len()]);
        let ranges = entries.iter().zip(ends).map(|((_, begin), end)| *begin..end);
        // The values that the receiver has lost by an event of the delta, of entries that keep none of its
        // values.
        let (mut events, mut of): (Vec<Event>, Vec<usize>) = (Vec::new(), Vec::new());
        for (place, (range, _)) in ranges.zip(held).enumerate().filter(|(_, (_, held))| held.is_none()) {
            for item in items.get(range).unwrap_or_default() {
                events.push((item.writer, item.seq));
                of.push(place);
            }
        }
        let mut origins = held.to_vec();
        for (place, found) in of.into_iter().zip(self.trail.backward(&events, is_seen)) {
            if let Some(origin) = origins.get_mut(place) {
                *origin = origin.or(found);
            }
        }
        // What is collected here is collected there too, as a rule, and found by a pass over the whole map.
        let is_collected = |origin: &Event| origin.1 <= seq_of(&self.floor, origin.0);
        let collected = origins.iter().flatten().filter(|origin| is_collected(origin)).count();
        if extent == DeltaExtent::Since && collected.saturating_mul(VISITS_PER_NAME) < self.cells.len() {
            for origin in &mut origins {
                origin.take_if(|origin| is_collected(origin));
            }
        }
        let dot = |(writer, seq): Event| Dot::new(self.writers.id(writer), seq);
        origins.into_iter().map(|origin| origin.map(dot)).collect()
    }

    /// The named events, by the numbers of writers here.
    fn events(&self, names: &[Name], writers: &[ReplicaId]) -> Result<Vec<Event>, DeltaError> {
        let numbers: Vec<Option<u32>> = writers.iter().map(|writer| self.writers.number(*writer)).collect();
        let mut events = Vec::with_capacity(names.len());
        for (writer, seq) in names {
            let number = usize::try_from(*writer).ok().and_then(|place| numbers.get(place));
            let number = number.ok_or(DecodeError::Range { what: "the number of a writer" })?;
            events.push((number.ok_or(DeltaError::Reference)?, *seq));
        }
        Ok(events)
    }
}
