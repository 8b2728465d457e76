//! Sorted maps from keys to their latest writes, one for each keyspace.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::EngineError;
use super::entry::{self, Place, Space, Stored};
use crate::request::outcome::Versioned;
use crate::request::revision::Revision;

/// The memory that an entry takes beyond its bytes: its place in the tree and its two allocations.
pub(crate) const ENTRY_OVERHEAD_LEN: usize = 96;

/// The latest write of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) revision: u64,
    /// `None` says that the key was deleted, and hides what lies beneath.
    pub(crate) value: Option<Bytes>,
    /// The checksum of the entry; 0 for a deletion.
    pub(crate) checksum: u32,
}

impl Slot {
    /// The entry of `key`, compared with its checksum. `None` if it was deleted.
    pub(crate) fn stored(&self, space: &Space, key: &[u8]) -> Result<Option<Stored>, EngineError> {
        let Some(value) = &self.value else { return Ok(None) };
        entry::verify(space, key, self.revision, value, self.checksum, &Place::Memory)?;
        let (key, value) = (Bytes::copy_from_slice(key), value.clone());
        Ok(Some(Stored { key, value, revision: self.revision, checksum: self.checksum }))
    }

    /// The entry of `key`, compared with its checksum. `Err` with the key if it was deleted.
    pub(crate) fn into_stored(self, space: &Space, key: Bytes) -> Result<Result<Stored, Bytes>, EngineError> {
        let Slot { revision, value, checksum } = self;
        let Some(value) = value else { return Ok(Err(key)) };
        entry::verify(space, &key, revision, &value, checksum, &Place::Memory)?;
        Ok(Ok(Stored { key, value, revision, checksum }))
    }

    /// The value of `key` and its revision, compared with their checksum. `None` if it was deleted.
    pub(crate) fn versioned(&self, space: &Space, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        let Some(value) = &self.value else { return Ok(None) };
        entry::verify(space, key, self.revision, value, self.checksum, &Place::Memory)?;
        Ok(Some(Versioned { value: value.clone(), revision: Revision::new(self.revision) }))
    }

    fn value_len(&self) -> usize {
        self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// The bounds of a range, as the standard library's maps and redb take them.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The keys of one keyspace.
pub(crate) type Slots = BTreeMap<Box<[u8]>, Slot>;

/// Writes in memory.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    spaces: BTreeMap<u64, (Slots, usize)>,
    count: usize,
    len_bytes: usize,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The memory that it takes, roughly.
    #[cfg_attr(
        not(feature = "redb"),
        allow(dead_code, reason = "only what a checkpoint can shorten has a bound")
    )]
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(crate) fn get(&self, space: u64, key: &[u8]) -> Option<&Slot> {
        self.spaces.get(&space)?.0.get(key)
    }

    /// Sets or, with no value, deletes `key`. `checksum` is that of the entry.
    ///
    /// Key and value are copied: as slices they would keep the network message or log block that they came in
    /// alive, which can be a thousand times their size.
    pub(crate) fn put(&mut self, space: u64, key: &[u8], revision: u64, value: Option<&[u8]>, checksum: u32) {
        self.insert(space, key, Slot { revision, value: value.map(Bytes::copy_from_slice), checksum });
    }

    fn insert<K: AsRef<[u8]> + Into<Box<[u8]>>>(&mut self, space: u64, key: K, slot: Slot) {
        let (slots, len_bytes) = self.spaces.entry(space).or_default();
        let before = *len_bytes;
        *len_bytes += slot.value_len();
        // Looked up first so that an overwrite, the common case, does not allocate its key.
        if let Some(current) = slots.get_mut(key.as_ref()) {
            *len_bytes -= current.value_len();
            *current = slot;
        } else {
            *len_bytes += key.as_ref().len() + ENTRY_OVERHEAD_LEN;
            slots.insert(key.into(), slot);
            self.count += 1;
        }
        self.len_bytes = self.len_bytes + *len_bytes - before;
    }

    /// Takes over an entry of the layer above: a deletion removes the key, for nothing lies beneath.
    pub(crate) fn absorb(&mut self, space: u64, key: Box<[u8]>, slot: Slot) {
        if slot.value.is_none() {
            self.remove(space, &key);
        } else {
            self.insert(space, key, slot);
        }
    }

    pub(crate) fn remove(&mut self, space: u64, key: &[u8]) {
        if let Some((slots, len_bytes)) = self.spaces.get_mut(&space)
            && let Some((key, slot)) = slots.remove_entry(key)
        {
            let len = key.len() + slot.value_len() + ENTRY_OVERHEAD_LEN;
            *len_bytes -= len;
            self.len_bytes -= len;
            self.count -= 1;
        }
    }

    /// Takes out all keys of a keyspace, in constant time.
    pub(crate) fn take_space(&mut self, space: u64) -> Slots {
        let (slots, len_bytes) = self.spaces.remove(&space).unwrap_or_default();
        self.len_bytes -= len_bytes;
        self.count -= slots.len();
        slots
    }

    pub(crate) fn pop_first(&mut self) -> Option<(u64, Box<[u8]>, Slot)> {
        loop {
            let mut first = self.spaces.first_entry()?;
            let space = *first.key();
            let (slots, len_bytes) = first.get_mut();
            let Some((key, slot)) = slots.pop_first() else {
                first.remove();
                continue;
            };
            let len = key.len() + slot.value_len() + ENTRY_OVERHEAD_LEN;
            *len_bytes -= len;
            self.len_bytes -= len;
            self.count -= 1;
            return Some((space, key, slot));
        }
    }

    /// Whether it has an entry of this keyspace.
    #[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only a base in a file needs it"))]
    pub(crate) fn has_space(&self, space: u64) -> bool {
        self.spaces.get(&space).is_some_and(|(slots, _)| !slots.is_empty())
    }

    /// The entries of a keyspace within `bounds`, which must not be empty or inverted.
    pub(crate) fn range<'a>(&'a self, space: u64, bounds: Bounds<'_>, reverse: bool) -> LayerIter<'a> {
        let Some((slots, _)) = self.spaces.get(&space) else { return Box::new(std::iter::empty()) };
        let entries = slots.range::<[u8], _>(bounds).map(|(key, slot)| (&**key, slot));
        if reverse { Box::new(entries.rev()) } else { Box::new(entries) }
    }
}

pub(crate) type LayerEntry<'a> = (&'a [u8], &'a Slot);
pub(crate) type LayerIter<'a> = Box<dyn Iterator<Item = LayerEntry<'a>> + 'a>;

/// The entries of one keyspace in several layers: where several layers hold a key, the first of them wins.
pub(crate) struct Merged<'a> {
    /// The next entry of each layer and the rest of it, newest layer first.
    sources: Vec<(Option<LayerEntry<'a>>, LayerIter<'a>)>,
    reverse: bool,
}

impl<'a> Merged<'a> {
    pub(crate) fn new(
        layers: impl IntoIterator<Item = &'a Layer>,
        space: u64,
        bounds: Bounds<'_>,
        reverse: bool,
    ) -> Merged<'a> {
        let sources = layers.into_iter().filter(|layer| !layer.is_empty()).map(|layer| {
            let mut rest = layer.range(space, bounds, reverse);
            (rest.next(), rest)
        });
        Merged { sources: sources.collect(), reverse }
    }

    pub(crate) fn peek_key(&self) -> Option<&'a [u8]> {
        let keys = self.sources.iter().filter_map(|(next, _)| next.map(|(key, _)| key));
        if self.reverse { keys.max() } else { keys.min() }
    }
}

impl<'a> Iterator for Merged<'a> {
    type Item = LayerEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.peek_key()?;
        let mut newest = None;
        for (next, rest) in &mut self.sources {
            if next.is_some_and(|(candidate, _)| candidate == key) {
                let taken = std::mem::replace(next, rest.next());
                newest = newest.or(taken);
            }
        }
        newest
    }
}
