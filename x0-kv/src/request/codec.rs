//! The primitives of all encodings of this crate: integers, byte strings and their bounds.
//!
//! Integers are little-endian base-128 (as in protobuf and WebAssembly) in their shortest form, byte strings
//! carry their length before them. Every length is checked against its limit and against what is left before
//! anything is kept, and byte strings are slices of the input, not copies. Decoding what was encoded gives
//! the same value, and a decoded value encodes to the same bytes.

use bytes::{BufMut, Bytes};

/// Bytes are not a valid encoding. No state has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end in the middle of {what}")]
    Truncated {
        /// The field.
        what: &'static str,
    },
    /// The format is of another version.
    #[error("format version {found} is not known to this version of the crate")]
    Version {
        /// The version found.
        found: u8,
    },
    /// A tag has no meaning.
    #[error("tag {tag} is not a known {what}")]
    Tag {
        /// The field.
        what: &'static str,
        /// The tag.
        tag: u8,
    },
    /// A length or count is above its limit.
    #[error("{what} of length {len} is above the limit of {max}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// An integer is not in its shortest form or overflows.
    #[error("an integer in {what} is not in its shortest form")]
    Integer {
        /// The field.
        what: &'static str,
    },
    /// The items of a list are not in ascending order, or one of them is not valid at its place.
    #[error("the list of {what} is not in order")]
    Order {
        /// The list.
        what: &'static str,
    },
    /// Bytes are left over.
    #[error("{len} bytes follow the end")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// The value breaks a limit of the store.
    #[error(transparent)]
    Limit(#[from] crate::request::limits::LimitError),
    /// A request breaks a limit of the CRDT store.
    #[cfg(feature = "crdt")]
    #[error(transparent)]
    CrdtLimit(#[from] crate::crdt::limits::CrdtLimitError),
}

pub(crate) fn put_u64(to: &mut impl BufMut, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return to.put_u8(low);
        }
        to.put_u8(low | 0x80);
    }
}

pub(crate) fn put_bytes(to: &mut impl BufMut, bytes: &[u8]) {
    put_u64(to, bytes.len() as u64);
    to.put_slice(bytes);
}

/// Reads from the front of a byte string.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a Bytes) -> Decoder<'a> {
        Decoder { bytes, at: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated { what })?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Tag { what, tag }),
        }
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let part = u64::from(byte & 0x7f);
            // The tenth byte holds one bit; a last byte of zero would be a longer form of a shorter number.
            if (shift == 63 && part > 1) || (byte == 0 && shift > 0) {
                return Err(DecodeError::Integer { what });
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Integer { what })
    }

    /// Four bytes, little-endian.
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let bytes = rest.first_chunk().ok_or(DecodeError::Truncated { what })?;
        self.at += 4;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// A length or count of at most `max`.
    pub(crate) fn len(&mut self, what: &'static str, max: usize) -> Result<usize, DecodeError> {
        let len = self.u64(what)?;
        match usize::try_from(len) {
            Ok(fits) if fits <= max => Ok(fits),
            _ => Err(DecodeError::TooLong { what, len, max }),
        }
    }

    pub(crate) fn bytes(&mut self, what: &'static str, max: usize) -> Result<Bytes, DecodeError> {
        let len = self.len(what, max)?;
        if len > self.remaining() {
            return Err(DecodeError::Truncated { what });
        }
        let slice = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(slice)
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            len => Err(DecodeError::Trailing { len }),
        }
    }
}
