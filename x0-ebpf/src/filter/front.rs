//! The front filter: one word per key rules out nearly all addresses that no rule covers, before any table is
//! read.
//!
//! A blocked Bloom filter (Putze, Sanders, Singler 2007) with two bits of one 64-bit word per key. The hashes
//! are those of bpf/include/rules.h, bit for bit.

use std::io;

use super::halves;
use crate::sys::Map;

/// The words of the filter and their map in the kernel.
#[derive(Debug)]
pub(crate) struct Front {
    map: Map,
    seed: u64,
    shift: u32,
    words: Vec<u64>,
    /// Words that were not written to the kernel yet.
    changed: Vec<u32>,
    /// Rules that were removed since the last rebuild.
    pub(crate) stale: usize,
}

/// The hash of an IPv4 prefix.
pub(crate) fn hash_v4(seed: u64, address: u32, length: u8) -> u64 {
    ((u64::from(address) << 8 | u64::from(length)) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The hash of an IPv6 prefix.
pub(crate) fn hash_v6(seed: u64, address: u128, length: u8) -> u64 {
    let (high, low) = halves(address);
    let hash = (high ^ seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash ^ hash >> 32)
        .wrapping_add(low)
        .wrapping_add(u64::from(length) << 56)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Front {
    /// The number of words for `rules_max` rules: eight bits per rule, a power of two.
    pub(crate) fn words_of(rules_max: u32) -> u32 {
        (rules_max / 8).max(64).next_power_of_two()
    }

    /// The constant `front_shift` of the program.
    pub(crate) fn shift_of(rules_max: u32) -> u32 {
        64 - Self::words_of(rules_max).trailing_zeros()
    }

    pub(crate) fn open(map: Map, seed: u64) -> io::Result<Self> {
        let count = map.entries_max();
        let mut words = vec![0; count as usize];
        map.for_each(4096, |key, value| {
            let index = key.try_into().map_or(0, u32::from_ne_bytes) as usize;
            if let (Some(word), Ok(value)) = (words.get_mut(index), value.try_into()) {
                *word = u64::from_ne_bytes(value);
            }
        })?;
        Ok(Self { map, seed, shift: 64 - count.trailing_zeros(), words, changed: Vec::new(), stale: 0 })
    }

    fn add(&mut self, hash: u64) {
        let index = hash >> self.shift;
        let bits = 1 << ((hash >> 32) & 63) | 1 << ((hash >> 38) & 63);
        if let (Ok(index), Ok(number)) = (usize::try_from(index), u32::try_from(index))
            && let Some(word) = self.words.get_mut(index)
            && *word & bits != bits
        {
            *word |= bits;
            self.changed.push(number);
        }
    }

    pub(crate) fn add_v4(&mut self, address: u32, length: u8) {
        self.add(hash_v4(self.seed, address, length));
    }

    pub(crate) fn add_v6(&mut self, address: u128, length: u8) {
        self.add(hash_v6(self.seed, address, length));
    }

    /// Clears all words. The kernel keeps the old ones until [`flush`](Self::flush), so that every rule stays
    /// visible.
    pub(crate) fn begin_again(&mut self) {
        self.words.fill(0);
        self.changed = (0..self.map.entries_max()).collect();
        self.stale = 0;
    }

    /// Writes the changed words to the kernel; each write is atomic.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        self.changed.sort_unstable();
        self.changed.dedup();
        let keys: Vec<u8> = self.changed.iter().flat_map(|index| index.to_ne_bytes()).collect();
        let values: Vec<u8> = self
            .changed
            .iter()
            .flat_map(|&index| self.words.get(index as usize).copied().unwrap_or(0).to_ne_bytes())
            .collect();
        self.map.update_batch(&keys, &values)?;
        self.changed.clear();
        Ok(())
    }
}
