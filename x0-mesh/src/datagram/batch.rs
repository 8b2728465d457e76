//! Byte strings in one buffer.

use alloc::vec::Vec;
use core::fmt;

/// The longest batch, in bytes. One system call sends it over UDP.
pub(super) const BATCH_LEN_MAX: usize = 64_000;

/// Frames or datagrams that travel together: one after the other in one buffer. All have the same length,
/// but the last one may be shorter. A batch is never empty; a single datagram may be.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    item_len: usize,
}

impl Batch {
    /// A batch of one item.
    pub(super) fn one(item: Vec<u8>) -> Batch {
        Batch { item_len: item.len(), bytes: item }
    }

    /// All items, one after the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of each item but the last, in bytes.
    #[must_use]
    pub fn item_len(&self) -> usize {
        self.item_len
    }

    /// The items.
    pub fn items(&self) -> impl Iterator<Item = &[u8]> {
        // A single item without bytes.
        let empty = self.bytes.is_empty().then_some(&[][..]);
        empty.into_iter().chain(self.bytes.chunks(self.item_len.max(1)))
    }

    /// The items, to be decrypted in place.
    pub fn items_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let empty = self.bytes.is_empty().then_some(&mut [][..]);
        empty.into_iter().chain(self.bytes.chunks_mut(self.item_len.max(1)))
    }

    /// Whether an item of this length can be added.
    pub(super) fn takes(&self, len: usize) -> bool {
        let is_open = self.item_len > 0 && self.bytes.len().is_multiple_of(self.item_len);
        is_open && (1..=self.item_len).contains(&len) && self.bytes.len() + len <= BATCH_LEN_MAX
    }

    /// The space that the batch occupies, without its items.
    pub(super) fn into_space(self) -> Vec<u8> {
        let mut space = self.bytes;
        space.clear();
        space
    }

    /// The bytes that the batch occupies: at least those of its items.
    pub(crate) fn space_len(&self) -> usize {
        self.bytes.capacity()
    }

    /// Where an item that [`Batch::takes`] allows is appended.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl From<&[u8]> for Batch {
    /// A batch of one item.
    fn from(item: &[u8]) -> Batch {
        Batch::one(item.to_vec())
    }
}

impl fmt::Debug for Batch {
    /// The lengths only.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Batch")
            .field("len", &self.bytes.len())
            .field("item_len", &self.item_len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_have_one_length_but_the_last() {
        let mut batch = Batch::one(b"abc".to_vec());
        for (item, is_taken) in [("def", true), ("", false), ("long", false), ("g", true), ("h", false)] {
            assert_eq!(batch.takes(item.len()), is_taken, "{item}");
            if is_taken {
                batch.end().extend_from_slice(item.as_bytes());
            }
        }
        assert_eq!(batch.items().collect::<Vec<_>>(), [&b"abc"[..], b"def", b"g"]);
        assert_eq!(batch.items_mut().count(), 3);
        let mut long = Batch::one(alloc::vec![0; 32_000]);
        assert!(long.takes(32_000));
        long.end().extend_from_slice(&[0; 32_000]);
        assert!(!long.takes(1));
        // A single datagram without bytes is one.
        let mut empty = Batch::one(Vec::new());
        assert_eq!((empty.items().count(), empty.items_mut().count(), empty.takes(1)), (1, 1, false));
    }
}
