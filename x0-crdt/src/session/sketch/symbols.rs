//! [`CodedSymbols`]: the coded symbols of a set, as far as they were requested.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::mapping::{Mapping, map};
use crate::hash::HashKey;

/// The bytes of a coded symbol.
pub const SYMBOL_LEN: usize = 12;

/// The most symbols of a set: enough for some 700,000 differing items. More are cheaper sent whole.
pub const SYMBOLS_MAX: usize = 1 << 20;

/// One symbol: sums, by exclusive or, of items and of their check values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Symbol {
    pub(super) sum: u64,
    pub(super) check: u32,
}

impl Symbol {
    pub(super) const fn toggle(&mut self, item: u64, check: u32) {
        self.sum ^= item;
        self.check ^= check;
    }
}

/// The coded symbols of a set of items, kept up to date as it changes.
#[derive(Debug, Clone)]
pub struct CodedSymbols {
    key: HashKey,
    /// Each item, and its first symbol beyond those that are made.
    items: BTreeMap<u64, Mapping>,
    symbols: Vec<Symbol>,
}

impl CodedSymbols {
    /// The symbols of `items`, of which one that comes twice counts once. Both sides must have the same key.
    #[must_use]
    pub fn new(key: HashKey, items: impl IntoIterator<Item = u64>) -> Self {
        let items = items.into_iter().map(|item| (item, map(key, item).1)).collect();
        Self { key, items, symbols: Vec::new() }
    }

    /// Adds an item. Returns whether it is new.
    pub fn insert(&mut self, item: u64) -> bool {
        if self.items.contains_key(&item) {
            return false;
        }
        let mapping = self.toggle(item);
        self.items.insert(item, mapping);
        true
    }

    /// Removes an item. Returns whether it was there.
    pub fn remove(&mut self, item: u64) -> bool {
        let there = self.items.remove(&item).is_some();
        if there {
            self.toggle(item);
        }
        there
    }

    /// Whether an item is there.
    #[must_use]
    pub fn contains(&self, item: u64) -> bool {
        self.items.contains_key(&item)
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The bytes of up to `count` symbols from number `from` on, [`SYMBOL_LEN`] each: fewer at
    /// [`SYMBOLS_MAX`].
    #[must_use]
    pub fn encode(&mut self, from: usize, count: usize) -> Vec<u8> {
        let end = from.saturating_add(count).min(SYMBOLS_MAX);
        self.grow(end);
        let symbols = self.symbols.get(from..end).unwrap_or_default();
        let mut out = Vec::with_capacity(symbols.len() * SYMBOL_LEN);
        for symbol in symbols {
            out.extend_from_slice(&symbol.sum.to_le_bytes());
            out.extend_from_slice(&symbol.check.to_le_bytes());
        }
        out
    }

    pub(super) const fn key(&self) -> HashKey {
        self.key
    }

    /// The symbol of that number.
    pub(super) fn symbol(&mut self, number: usize) -> Symbol {
        self.grow(number + 1);
        self.symbols.get(number).copied().unwrap_or_default()
    }

    /// Makes at least so many symbols. At least doubles them, because each growth costs a pass over all
    /// items.
    fn grow(&mut self, len: usize) {
        let made = self.symbols.len();
        if len <= made {
            return;
        }
        let len = len.max(made * 2).clamp(64, SYMBOLS_MAX.max(len));
        self.symbols.resize(len, Symbol::default());
        for (item, mapping) in &mut self.items {
            if mapping.next < len as u64 {
                let (check, _) = map(self.key, *item);
                put(&mut self.symbols, *item, check, mapping);
            }
        }
    }

    /// Adds or removes an item in all symbols that are made, and returns its place beyond them.
    fn toggle(&mut self, item: u64) -> Mapping {
        let (check, mut mapping) = map(self.key, item);
        put(&mut self.symbols, item, check, &mut mapping);
        mapping
    }
}

/// Toggles an item in those of `symbols` that are from its `next` on.
pub(super) fn put(symbols: &mut [Symbol], item: u64, check: u32, mapping: &mut Mapping) {
    while let Some(symbol) = usize::try_from(mapping.next).ok().and_then(|place| symbols.get_mut(place)) {
        symbol.toggle(item, check);
        mapping.advance();
    }
}
