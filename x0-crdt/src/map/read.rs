//! Reading a [`CausalMap`].

use core::ops::Bound;

use super::{CausalMap, Cell, Frontier, Key, Sibling, item_hash};
use crate::{Dot, ReplicaId, Version};

/// One value at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// The event that wrote it.
    pub dot: Dot,
    /// The time its writer gave it.
    pub time: u64,
    /// The value.
    pub value: &'a [u8],
}

/// The values at one key, at least one.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    map: &'a CausalMap,
    key: &'a Key,
    cell: &'a Cell,
}

impl<'a> Entry<'a> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key.as_slice()
    }

    /// All values that no later write has replaced, in no particular order.
    pub fn siblings(&self) -> impl ExactSizeIterator<Item = Held<'a>> + use<'a> {
        let map = self.map;
        self.cell.siblings().iter().map(move |sibling| map.held(sibling))
    }

    /// The value of a last-writer-wins register: of the siblings the one with the greatest time, then dot,
    /// then value. Equal on all replicas that have seen the same events.
    #[must_use]
    pub fn latest(&self) -> Held<'a> {
        let [first, rest @ ..] = self.cell.siblings() else {
            // A cell holds at least one sibling; `Cell::new` makes no other.
            return Held { dot: Dot::new(ReplicaId::default(), 0), time: 0, value: &[] };
        };
        let order = |held: &Held<'a>| (held.time, held.dot, held.value);
        rest.iter()
            .map(|sibling| self.map.held(sibling))
            .fold(self.map.held(first), |best, next| if order(&next) > order(&best) { next } else { best })
    }

    /// The latest of the values whose time is at most `time_max`, so that a clock that runs ahead does not
    /// win: later values stay visible in [`siblings`](Self::siblings). `None` if all are later.
    #[must_use]
    pub fn latest_until(&self, time_max: u64) -> Option<Held<'a>> {
        self.siblings()
            .filter(|held| held.time <= time_max)
            .max_by_key(|held| (held.time, held.dot, held.value))
    }

    /// The value of a counter: the sum of its parts, saturating. Values that are not eight bytes count
    /// nothing.
    #[must_use]
    pub fn sum(&self) -> i64 {
        self.cell.siblings().iter().filter_map(part).fold(0, i64::saturating_add)
    }

    /// The part of `replica` in the counter.
    #[must_use]
    pub fn part_of(&self, replica: ReplicaId) -> Option<i64> {
        // A writer without a number has written nothing here.
        let number = self.map.writers.number(replica)?;
        self.cell.siblings().iter().find(|sibling| sibling.writer == number).and_then(part)
    }
}

fn part(sibling: &Sibling) -> Option<i64> {
    sibling.value.as_slice().try_into().ok().map(i64::from_le_bytes)
}

impl CausalMap {
    /// The entry at `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        let (key, cell) = self.cells.get_key_value(key)?;
        Some(Entry { map: self, key, cell })
    }

    /// All entries in ascending order of their keys, from `first` on (inclusive).
    pub fn range<'a>(&'a self, first: &[u8]) -> impl DoubleEndedIterator<Item = Entry<'a>> + use<'a> {
        self.between(first, None)
    }

    /// The entries from `first` on (inclusive) up to `end` (exclusive), ascending. Empty if `end` is below
    /// `first`.
    pub fn between<'a>(
        &'a self,
        first: &[u8],
        end: Option<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Entry<'a>> + use<'a> {
        // `BTreeMap::range` panics on inverted bounds.
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(first)));
        self.cells.range::<[u8], _>((Bound::Included(first), end)).map(move |(key, cell)| Entry {
            map: self,
            key,
            cell,
        })
    }

    /// The entries whose keys begin with `prefix`, ascending.
    pub fn prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Entry<'a>> {
        self.range(prefix).take_while(move |entry| entry.key().starts_with(prefix))
    }

    /// How many keys hold a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether no key holds a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// How many values are held: more than keys where there are siblings.
    #[must_use]
    pub const fn sibling_count(&self) -> usize {
        self.siblings
    }

    /// How many events are in the history for peers that may lack them. Zero when all members have seen all
    /// events.
    #[must_use]
    pub fn history_len(&self) -> usize {
        self.recent.len()
    }

    /// How many of those are tombstones.
    #[must_use]
    pub fn removal_count(&self) -> usize {
        self.removals.values().map(alloc::vec::Vec::len).sum()
    }

    /// The events seen.
    #[must_use]
    pub fn version(&self) -> Version {
        self.writers.version(&self.version)
    }

    /// The version up to which history was collected.
    #[must_use]
    pub fn floor(&self) -> Version {
        self.writers.version(&self.floor)
    }

    /// The last event written here.
    #[must_use]
    pub fn last_dot(&self) -> Option<Dot> {
        // After a restart as the same replica this includes the events of earlier runs.
        let seq = super::seq_of(&self.version, self.me);
        (seq > 0).then_some(Dot::new(self.replica, seq))
    }

    /// The hashes of version and content, to compare with other replicas.
    #[must_use]
    pub fn frontier(&self) -> Frontier {
        Frontier { version: self.version().hash(self.hash_key), content: self.content }
    }

    /// The hash of each value held, with its dot: the items of a set reconciliation.
    pub fn item_hashes(&self) -> impl Iterator<Item = (u64, Dot)> + '_ {
        self.cells.iter().flat_map(move |(key, cell)| {
            cell.siblings().iter().map(move |sibling| {
                let hash = item_hash(self.hash_key, &self.writers, key, sibling);
                (hash, Dot::new(self.writers.id(sibling.writer), sibling.seq))
            })
        })
    }

    fn held<'a>(&self, sibling: &'a Sibling) -> Held<'a> {
        Held {
            dot: Dot::new(self.writers.id(sibling.writer), sibling.seq),
            time: sibling.time,
            value: sibling.value.as_slice(),
        }
    }
}
