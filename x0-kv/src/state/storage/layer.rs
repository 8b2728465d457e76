//! A sorted map of keys to what was last written to them.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::request::outcome::Versioned;

/// What an entry is counted as beyond its bytes: its place in the tree and its two allocations.
const ENTRY_OVERHEAD_LEN: usize = 96;

/// The latest write of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) revision: u64,
    /// `None` says that the key was deleted, and hides what lies beneath.
    pub(crate) value: Option<Bytes>,
}

impl Slot {
    pub(crate) fn live(&self) -> Option<Versioned> {
        self.value.as_ref().map(|value| Versioned { value: value.clone(), revision: self.revision })
    }
}

/// From where to where, as the standard library's maps and redb take it.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Writes in memory.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    slots: BTreeMap<Box<[u8]>, Slot>,
    len_bytes: usize,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What it takes in memory, roughly.
    #[cfg_attr(
        not(feature = "redb"),
        allow(dead_code, reason = "only what a checkpoint can shorten has a bound")
    )]
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.slots.get(key)
    }

    /// Key and value are copied: as slices they would keep the network message or log block they came in alive, which
    /// can be a thousand times their size.
    pub(crate) fn put(&mut self, key: &[u8], revision: u64, value: Option<&[u8]>) {
        self.insert(key, Slot { revision, value: value.map(Bytes::copy_from_slice) });
    }

    fn insert<K: AsRef<[u8]> + Into<Box<[u8]>>>(&mut self, key: K, slot: Slot) {
        let len = slot.value.as_ref().map_or(0, Bytes::len);
        // Looked up first so that an overwrite, the common case, does not allocate its key.
        if let Some(current) = self.slots.get_mut(key.as_ref()) {
            self.len_bytes -= current.value.as_ref().map_or(0, Bytes::len);
            *current = slot;
        } else {
            self.len_bytes += key.as_ref().len() + ENTRY_OVERHEAD_LEN;
            self.slots.insert(key.into(), slot);
        }
        self.len_bytes += len;
    }

    /// Takes over an entry of the layer above: a deletion removes the key, for nothing lies beneath.
    pub(crate) fn absorb(&mut self, key: Box<[u8]>, slot: Slot) {
        if slot.value.is_none() {
            self.remove(&key);
        } else {
            self.insert(key, slot);
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some((key, slot)) = self.slots.remove_entry(key) {
            self.len_bytes -= key.len() + slot.value.map_or(0, |value| value.len()) + ENTRY_OVERHEAD_LEN;
        }
    }

    pub(crate) fn pop_first(&mut self) -> Option<(Box<[u8]>, Slot)> {
        let (key, slot) = self.slots.pop_first()?;
        self.len_bytes -= key.len() + slot.value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_LEN;
        Some((key, slot))
    }

    /// The entries within `bounds`, which must not be empty or inverted.
    pub(crate) fn range<'a>(&'a self, bounds: Bounds<'_>, reverse: bool) -> LayerIter<'a> {
        let entries = self.slots.range::<[u8], _>(bounds).map(|(key, slot)| (&**key, slot));
        if reverse { Box::new(entries.rev()) } else { Box::new(entries) }
    }
}

pub(crate) type LayerEntry<'a> = (&'a [u8], &'a Slot);
pub(crate) type LayerIter<'a> = Box<dyn Iterator<Item = LayerEntry<'a>> + 'a>;

/// Layers as one: where several hold a key, the first of them wins.
pub(crate) struct Merged<'a> {
    /// The next entry of each layer and the rest of it, newest layer first.
    sources: Vec<(Option<LayerEntry<'a>>, LayerIter<'a>)>,
    reverse: bool,
}

impl<'a> Merged<'a> {
    pub(crate) fn new(
        layers: impl IntoIterator<Item = &'a Layer>,
        bounds: Bounds<'_>,
        reverse: bool,
    ) -> Merged<'a> {
        let sources = layers.into_iter().filter(|layer| !layer.is_empty()).map(|layer| {
            let mut rest = layer.range(bounds, reverse);
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
