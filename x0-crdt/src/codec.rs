//! The canonical codec: equal values have equal bytes, and bytes that decode encode to themselves.
//!
//! Integers are base-128, low bits first, in their shortest form (signed ones zigzag); byte strings carry
//! their length before them; collections carry their count and are in ascending order without repetition. A
//! decoder accepts nothing else, and allocates nothing that the bytes at hand could not hold.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::str;

/// Why bytes cannot be decoded. No state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end in the middle of {what}: fetch them again")]
    Truncated {
        /// The value that was being read.
        what: &'static str,
    },
    /// The format is of another version.
    #[error("format version {found} is unknown: bring both sides to the same release")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A tag has no meaning.
    #[error("tag {tag} is not a known {what}: the bytes are damaged, or of a newer release")]
    Tag {
        /// The kind of thing that the tag names.
        what: &'static str,
        /// The tag.
        tag: u8,
    },
    /// A number is outside its range.
    #[error("{what} is out of range: the bytes are damaged or forged")]
    Range {
        /// The number.
        what: &'static str,
    },
    /// A value is not in its one canonical form: an integer that is too long, items out of order or repeated.
    #[error("{what} is not in canonical form: the bytes are damaged or forged")]
    NotCanonical {
        /// The value that was being read.
        what: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8: the bytes are damaged, or of another type")]
    Text,
    /// Bytes are left over.
    #[error("{len} bytes follow the end of the value: the bytes are damaged, or of another type")]
    Trailing {
        /// How many.
        len: usize,
    },
}

/// A reader over bytes that are being decoded.
#[derive(Debug, Clone)]
pub struct ByteReader<'a> {
    rest: &'a [u8],
}

impl<'a> ByteReader<'a> {
    /// Starts at the beginning of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether none are left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes of `what`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there are fewer; nothing is taken then.
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes of `what`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there are fewer.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte of `what`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there is none.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// An integer of `what`.
    ///
    /// # Errors
    /// Truncated, or not in its shortest form.
    pub fn integer(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::NotCanonical { what });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::NotCanonical { what });
                }
                return Ok(value);
            }
        }
        Err(DecodeError::NotCanonical { what })
    }

    /// A count or length of `what`, of things that take at least `each_min` bytes: no more than the bytes
    /// left can hold.
    ///
    /// # Errors
    /// Truncated, also when the count promises more than is there.
    pub fn count(&mut self, each_min: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.integer(what)?).map_err(|_| DecodeError::Truncated { what })?;
        if count.saturating_mul(each_min) > self.rest.len() {
            return Err(DecodeError::Truncated { what });
        }
        Ok(count)
    }

    /// A byte string of `what`.
    ///
    /// # Errors
    /// Truncated.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1, what)?;
        self.take(len, what)
    }

    /// Checks that no byte is left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { len: self.rest.len() }) }
    }
}

/// Appends an integer in its shortest form: 1 byte below 128, at most 10.
pub(crate) fn put_integer(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a byte string with its length before it.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_integer(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A value with exactly one encoding.
///
/// Contract: `decode(encode(v)) == v`; equal values have equal bytes; bytes that decode encode to themselves;
/// `decode` never panics and reads exactly what `encode` wrote.
pub trait Canonical: Sized {
    /// Appends the bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the value and leaves what follows.
    ///
    /// # Errors
    /// Bytes that `encode` cannot have written. `input` may have been advanced.
    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError>;
}

/// The version of every envelope that [`to_bytes`] writes.
pub(crate) const ENVELOPE_VERSION: u8 = 1;

/// The canonical bytes of a value in an envelope that carries the version of the format.
///
/// ```
/// use x0_crdt::{from_bytes, to_bytes};
///
/// let bytes = to_bytes(&7_u64);
/// assert_eq!(from_bytes::<u64>(&bytes)?, 7);
/// # Ok::<(), x0_crdt::DecodeError>(())
/// ```
#[must_use]
pub fn to_bytes<T: Canonical>(value: &T) -> Vec<u8> {
    let mut out = alloc::vec![ENVELOPE_VERSION];
    value.encode(&mut out);
    out
}

/// Reads back what [`to_bytes`] wrote.
///
/// # Errors
/// Another version, malformed bytes, or bytes after the end.
pub fn from_bytes<T: Canonical>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut input = ByteReader::new(bytes);
    let found = input.byte("the version")?;
    if found != ENVELOPE_VERSION {
        return Err(DecodeError::Version { found });
    }
    let value = T::decode(&mut input)?;
    input.finish()?;
    Ok(value)
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl Canonical for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                put_integer(u64::from(*self), out);
            }

            fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
                const WHAT: &str = concat!("a ", stringify!($type));
                Self::try_from(input.integer(WHAT)?).map_err(|_| DecodeError::Range { what: WHAT })
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

impl Canonical for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_integer(((self << 1) ^ (self >> 63)).cast_unsigned(), out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let zigzag = input.integer("an i64")?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }
}

impl Canonical for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        match input.byte("a flag")? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Tag { what: "flag", tag }),
        }
    }
}

impl Canonical for () {
    fn encode(&self, _out: &mut Vec<u8>) {}

    fn decode(_input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Canonical for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        Ok(str::from_utf8(input.bytes("text")?).map_err(|_| DecodeError::Text)?.into())
    }
}

impl Canonical for Box<[u8]> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        Ok(input.bytes("bytes")?.into())
    }
}

impl<T: Canonical> Canonical for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        if bool::decode(input)? { T::decode(input).map(Some) } else { Ok(None) }
    }
}

impl<A: Canonical, B: Canonical> Canonical for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(input)?, B::decode(input)?))
    }
}

impl<K: Canonical + Ord, V: Canonical> Canonical for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_integer(self.len() as u64, out);
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        const WHAT: &str = "a map";
        // Nothing is allocated by the count: the map grows with its entries. Each takes bytes of the input,
        // or repeats a key and is refused.
        let count = input.integer(WHAT)?;
        let mut map = Self::new();
        for _ in 0..count {
            let key = K::decode(input)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::NotCanonical { what: WHAT });
            }
            let value = V::decode(input)?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl<T: Canonical + Ord> Canonical for BTreeSet<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_integer(self.len() as u64, out);
        for item in self {
            item.encode(out);
        }
    }

    fn decode(input: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        const WHAT: &str = "a set";
        let count = input.integer(WHAT)?;
        let mut set = Self::new();
        for _ in 0..count {
            let item = T::decode(input)?;
            if set.last().is_some_and(|last| *last >= item) {
                return Err(DecodeError::NotCanonical { what: WHAT });
            }
            set.insert(item);
        }
        Ok(set)
    }
}
