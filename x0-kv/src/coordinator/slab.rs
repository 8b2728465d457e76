//! Entries under tokens that are never mistaken for one another.
//!
//! A token is an index (24 bits), the number of an attempt (8 bits) and the entry's generation (30 bits). Its
//! two top bits are zero.

const INDEX_BITS: u32 = 24;
const GENERATION_SHIFT: u32 = 32;
const GENERATION_MASK: u32 = (1 << 30) - 1;

/// Most entries of one slab.
pub(super) const ENTRIES_MAX: usize = 1 << INDEX_BITS;

/// The name of an entry, with or without regard to the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(super) fn token(self, attempt: u8) -> u64 {
        u64::from(self.index)
            | u64::from(attempt) << INDEX_BITS
            | u64::from(self.generation) << GENERATION_SHIFT
    }

    /// The entry and the attempt that a token names, whether or not they are there.
    #[expect(clippy::cast_possible_truncation, reason = "the parts of the token are masked to their widths")]
    pub(super) fn of(token: u64) -> Option<(Key, u8)> {
        let generation = (token >> GENERATION_SHIFT) as u32;
        let index = token as u32 & ((1 << INDEX_BITS) - 1);
        let attempt = (token >> INDEX_BITS) as u8;
        (generation <= GENERATION_MASK).then_some((Key { index, generation }, attempt))
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

/// Entries in one allocation, found by index; a key of an entry that is gone finds nothing.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }

    /// `None` when the slab is full.
    pub(super) fn insert(&mut self, entry: T) -> Option<Key> {
        if let Some(index) = self.free.pop() {
            let slot = self.slots.get_mut(index as usize)?;
            slot.entry = Some(entry);
            return Some(Key { index, generation: slot.generation });
        }
        let index = u32::try_from(self.slots.len()).ok().filter(|index| (*index as usize) < ENTRIES_MAX)?;
        self.slots.push(Slot { generation: 0, entry: Some(entry) });
        Some(Key { index, generation: 0 })
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.entry.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(entry)
    }

    /// The key of the entry at `position`, if there is one: to walk over the slab while changing it.
    pub(super) fn key_at(&self, position: usize) -> Option<Key> {
        let slot = self.slots.get(position).filter(|slot| slot.entry.is_some())?;
        Some(Key { index: u32::try_from(position).ok()?, generation: slot.generation })
    }

    /// One more than the greatest position in use.
    pub(super) fn positions(&self) -> usize {
        self.slots.len()
    }
}
