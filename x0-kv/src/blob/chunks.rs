//! Which chunks of a blob.

/// A set of the chunks of one blob, a bit for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSet {
    count: u32,
    held: u32,
    bits: Vec<u8>,
}

impl ChunkSet {
    /// No chunk of `count`.
    #[must_use]
    pub fn none(count: u32) -> ChunkSet {
        ChunkSet { count, held: 0, bits: vec![0; count.div_ceil(8) as usize] }
    }

    /// All chunks of `count`.
    #[must_use]
    pub fn all(count: u32) -> ChunkSet {
        ChunkSet::from_bytes(count, &vec![0xFF; count.div_ceil(8) as usize])
    }

    /// The chunks of `count` whose bits are set in `bytes`, the lowest bit of the first byte first. What is
    /// missing in `bytes` is not in the set, and what is beyond `count` is left out.
    #[must_use]
    pub fn from_bytes(count: u32, bytes: &[u8]) -> ChunkSet {
        let mut set = ChunkSet::none(count);
        for (to, from) in set.bits.iter_mut().zip(bytes) {
            *to = *from;
        }
        if !count.is_multiple_of(8)
            && let Some(last) = set.bits.last_mut()
        {
            *last &= (1 << (count % 8)) - 1;
        }
        set.held = set.bits.iter().map(|byte| byte.count_ones()).sum();
        set
    }

    /// The bits, as [`from_bytes`](ChunkSet::from_bytes) takes them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// How many chunks the blob has.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many of them are in the set.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Whether all are.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.held == self.count
    }

    /// Whether chunk `index` is.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        self.bits.get(index as usize / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// Puts chunk `index` in; one that the blob does not have is left out.
    pub fn insert(&mut self, index: u32) {
        if index < self.count && !self.contains(index) {
            self.bits[index as usize / 8] |= 1 << (index % 8);
            self.held += 1;
        }
    }

    /// Takes chunk `index` out.
    pub fn remove(&mut self, index: u32) {
        if self.contains(index) {
            self.bits[index as usize / 8] &= !(1 << (index % 8));
            self.held -= 1;
        }
    }

    /// The chunks that are not in the set, in order.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count).filter(|index| !self.contains(*index))
    }

    /// How many bytes of a blob of `len` bytes these chunks are.
    #[must_use]
    pub fn held_bytes(&self, len: u64) -> u64 {
        let Some(last) = self.count.checked_sub(1) else { return 0 };
        let full = self.held - u32::from(self.contains(last));
        let last_len = if self.contains(last) { super::merkle::chunk_len(len, last) } else { 0 };
        u64::from(full) * super::CHUNK_LEN as u64 + last_len as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_beyond_the_count_do_not_count() {
        for count in 0..40 {
            let set = ChunkSet::from_bytes(count, &[0xFF; 9]);
            assert_eq!(set, ChunkSet::all(count));
            assert_eq!((set.held(), set.is_whole()), (count, true));
            assert!(!set.contains(count));
            let mut set = ChunkSet::from_bytes(count, &[]);
            assert_eq!(set.missing().count(), count as usize);
            for index in (0..count + 3).rev() {
                set.insert(index);
                set.insert(index);
                assert_eq!(set.held(), (count - index.min(count)).min(count));
            }
            assert!(set.is_whole());
            set.remove(0);
            assert_eq!(set.is_whole(), count == 0);
        }
    }

    #[test]
    fn held_bytes_know_that_the_last_chunk_is_short() {
        let len = 2 * super::super::CHUNK_LEN as u64 + 7;
        let mut set = ChunkSet::none(3);
        set.insert(2);
        assert_eq!(set.held_bytes(len), 7);
        set.insert(0);
        assert_eq!(set.held_bytes(len), 7 + super::super::CHUNK_LEN as u64);
        assert_eq!(ChunkSet::all(3).held_bytes(len), len);
        assert_eq!(ChunkSet::all(0).held_bytes(0), 0);
    }
}
