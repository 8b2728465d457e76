//! [`Key`] and [`Value`]: byte strings that are stored inline when they are short.

use alloc::boxed::Box;
use core::cmp::Ordering;
use core::ops::Deref;

/// A byte string, stored inline up to `N` bytes.
#[derive(Clone)]
pub(super) enum Small<const N: usize, H> {
    /// Its length and its bytes.
    Inline(u8, [u8; N]),
    /// On the heap.
    Heap(H),
}

/// A key. 24 bytes; most keys need nothing else.
pub(super) type Key = Small<22, Box<[u8]>>;

/// A value. A double box keeps it at 16 bytes, so that a map of short values stays small.
pub(super) type Value = Small<14, Box<Box<[u8]>>>;

impl<const N: usize, H: Deref<Target: AsRef<[u8]>>> Small<N, H> {
    fn make(bytes: &[u8], heap: impl FnOnce(Box<[u8]>) -> H) -> Self {
        let mut inline = [0; N];
        match (u8::try_from(bytes.len()), inline.get_mut(..bytes.len())) {
            (Ok(len), Some(space)) => {
                space.copy_from_slice(bytes);
                Self::Inline(len, inline)
            }
            _ => Self::Heap(heap(bytes.into())),
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            // `make` writes the length together with the bytes, so the slice is always in range.
            Self::Inline(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Heap(bytes) => bytes.deref().as_ref(),
        }
    }
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self::make(bytes, |long| long)
    }
}

impl Value {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self::make(bytes, HeapValue::new)
    }
}

/// The heap part of a `Value`.
type HeapValue = Box<Box<[u8]>>;

impl<const N: usize, H: Deref<Target: AsRef<[u8]>>> PartialEq for Small<N, H> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<const N: usize, H: Deref<Target: AsRef<[u8]>>> Eq for Small<N, H> {}

impl<const N: usize, H: Deref<Target: AsRef<[u8]>>> PartialOrd for Small<N, H> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const N: usize, H: Deref<Target: AsRef<[u8]>>> Ord for Small<N, H> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Unused bytes are zero, and no byte is below zero. Most pairs differ in the first 16 bytes,
            // which compare as one number.
            (Self::Inline(len, bytes), Self::Inline(other_len, other)) => {
                let head = |bytes: &[u8; N]| bytes.first_chunk().copied().map(u128::from_be_bytes);
                head(bytes).cmp(&head(other)).then_with(|| bytes.cmp(other)).then(len.cmp(other_len))
            }
            _ => self.as_slice().cmp(other.as_slice()),
        }
    }
}

impl<const N: usize, H: Deref<Target: AsRef<[u8]>>> core::borrow::Borrow<[u8]> for Small<N, H> {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl<const N: usize, H: Deref<Target: AsRef<[u8]>>> core::fmt::Debug for Small<N, H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "b\"{}\"", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ones_are_in_place_and_all_read_back() {
        for len in 0..64_u8 {
            let bytes: alloc::vec::Vec<u8> = (0..len).collect();
            assert_eq!(Key::new(&bytes).as_slice(), bytes);
            assert_eq!(Value::new(&bytes).as_slice(), bytes);
            assert_eq!(matches!(Key::new(&bytes), Small::Inline(..)), len <= 22);
            assert_eq!(matches!(Value::new(&bytes), Small::Inline(..)), len <= 14);
        }
        assert_eq!((size_of::<Key>(), size_of::<Value>()), (24, 16));
    }
}
