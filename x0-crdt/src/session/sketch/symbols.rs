//! [`CodedSymbols`]: the coded symbols of a set, as far as they were requested.

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
    items: Items,
    symbols: Vec<Symbol>,
    growth: Option<Growth>,
}

/// Symbols that are being made.
#[derive(Debug, Clone, Copy)]
struct Growth {
    /// How many symbols were there before.
    made: usize,
    /// How many items are in the new ones.
    at: usize,
}

impl CodedSymbols {
    /// The symbols of `items`, of which one that comes twice counts once. Both sides must have the same key.
    #[must_use]
    pub fn new(key: HashKey, items: impl IntoIterator<Item = u64>) -> Self {
        let items = items.into_iter();
        let mut symbols = Self::with_capacity(key, items.size_hint().0);
        for item in items {
            symbols.insert(item);
        }
        symbols
    }

    /// The symbols of no item, with room for so many.
    pub(crate) fn with_capacity(key: HashKey, capacity: usize) -> Self {
        Self { key, items: Items::with_capacity(capacity), symbols: Vec::new(), growth: None }
    }

    /// Adds an item. Returns whether it is new.
    pub fn insert(&mut self, item: u64) -> bool {
        if self.contains(item) {
            return false;
        }
        let mapping = self.toggle(item);
        self.items.push(item, mapping);
        true
    }

    /// Removes an item. Returns whether it was there.
    pub fn remove(&mut self, item: u64) -> bool {
        // The item may be in some of the new symbols only.
        while self.step_growth(usize::MAX) {}
        let there = self.items.remove(item);
        if there {
            self.toggle(item);
        }
        there
    }

    /// Whether an item is there.
    #[must_use]
    pub fn contains(&self, item: u64) -> bool {
        self.items.find(item).is_some()
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.list.is_empty()
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
    pub(super) fn grow(&mut self, len: usize) {
        self.begin_growth(len);
        while self.step_growth(usize::MAX) {}
    }

    /// How many symbols are made.
    pub(crate) fn made(&self) -> usize {
        self.growth.map_or(self.symbols.len(), |growth| growth.made)
    }

    /// Whether symbols are being made.
    pub(crate) const fn is_growing(&self) -> bool {
        self.growth.is_some()
    }

    /// Begins to make at least so many symbols.
    pub(crate) fn begin_growth(&mut self, len: usize) {
        if len <= self.symbols.len() {
            return;
        }
        // One growth after the other.
        while self.step_growth(usize::MAX) {}
        let made = self.symbols.len();
        let len = len.max(made * 2).clamp(64, SYMBOLS_MAX.max(len));
        self.symbols.resize(len, Symbol::default());
        if !self.is_empty() {
            self.growth = Some(Growth { made, at: 0 });
        }
    }

    /// Puts up to `count` items into the new symbols. Returns whether there are more.
    pub(crate) fn step_growth(&mut self, count: usize) -> bool {
        let Some(growth) = &mut self.growth else { return false };
        let end = growth.at.saturating_add(count).min(self.items.list.len());
        let part = self.items.list.get_mut(core::mem::replace(&mut growth.at, end)..end);
        for (item, mapping) in part.unwrap_or_default() {
            if mapping.next < self.symbols.len() as u64 {
                let (check, _) = map(self.key, *item);
                put(&mut self.symbols, *item, check, mapping);
            }
        }
        if end == self.items.list.len() {
            self.growth = None;
        }
        self.growth.is_some()
    }

    /// Adds or removes an item in all symbols that are made, and returns its place beyond them.
    fn toggle(&mut self, item: u64) -> Mapping {
        let (check, mut mapping) = map(self.key, item);
        put(&mut self.symbols, item, check, &mut mapping);
        mapping
    }
}

/// Items in a list, and their places there in an open hash table with linear probing. A tree of a million
/// items takes a tenth of a second to be dropped.
#[derive(Debug, Clone)]
struct Items {
    list: Vec<(u64, Mapping)>,
    /// One more than a place in the list, or 0: a power of two of them, at least twice as many as items.
    slots: Vec<u32>,
}

impl Items {
    fn with_capacity(capacity: usize) -> Self {
        let slots = (capacity.max(8) * 2).next_power_of_two();
        Self { list: Vec::with_capacity(capacity), slots: alloc::vec![0; slots] }
    }

    /// The slot of an item, or the one for it.
    fn slot(&self, item: u64) -> usize {
        // Items are keyed hashes already.
        let mask = self.slots.len() - 1;
        let mut slot = usize::try_from(item & mask as u64).unwrap_or(0);
        while self.at(slot).is_some_and(|(other, _)| *other != item) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The place in the list that a slot names.
    fn place(&self, slot: usize) -> Option<usize> {
        (self.slots.get(slot).copied().unwrap_or(0) as usize).checked_sub(1)
    }

    fn at(&self, slot: usize) -> Option<&(u64, Mapping)> {
        self.list.get(self.place(slot)?)
    }

    fn find(&self, item: u64) -> Option<usize> {
        self.place(self.slot(item))
    }

    fn set(&mut self, slot: usize, number: u32) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = number;
        }
    }

    /// Adds an item that is not there.
    fn push(&mut self, item: u64, mapping: Mapping) {
        // Beyond 2^32 - 1 items, which take 100 GB, the last ones are not found.
        let Ok(number) = u32::try_from(self.list.len() + 1) else { return };
        self.list.push((item, mapping));
        if self.list.len() * 2 > self.slots.len() {
            let len = self.slots.len() * 2;
            self.slots = alloc::vec![0; len];
            for (number, place) in (1_u32..).zip(0..self.list.len()) {
                let Some((item, _)) = self.list.get(place).copied() else { continue };
                let slot = self.slot(item);
                self.set(slot, number);
            }
        } else {
            let slot = self.slot(item);
            self.set(slot, number);
        }
    }

    /// Removes an item. Returns whether it was there.
    fn remove(&mut self, item: u64) -> bool {
        let mut hole = self.slot(item);
        let Some(place) = self.place(hole) else { return false };
        // The last item takes its place in the list.
        if let Some((last, _)) = self.list.last().copied() {
            let slot = self.slot(last);
            self.set(slot, u32::try_from(place + 1).unwrap_or(0));
        }
        self.list.swap_remove(place);
        self.set(hole, 0);
        // Items after the hole that were put there because it was taken move up.
        let mask = self.slots.len() - 1;
        let mut slot = (hole + 1) & mask;
        while let Some((other, _)) = self.at(slot) {
            let home = usize::try_from(*other & mask as u64).unwrap_or(0);
            // Whether the way from its home to its slot leads over the hole.
            if slot.wrapping_sub(home) & mask >= slot.wrapping_sub(hole) & mask {
                let number = self.slots.get(slot).copied().unwrap_or(0);
                self.set(hole, number);
                self.set(slot, 0);
                hole = slot;
            }
            slot = (slot + 1) & mask;
        }
        true
    }
}

/// Toggles an item in those of `symbols` that are from its `next` on.
pub(super) fn put(symbols: &mut [Symbol], item: u64, check: u32, mapping: &mut Mapping) {
    while let Some(symbol) = usize::try_from(mapping.next).ok().and_then(|place| symbols.get_mut(place)) {
        symbol.toggle(item, check);
        mapping.advance();
    }
}
