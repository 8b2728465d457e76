//! Single fields: the only varint codec of this crate.

use bytes::{Buf, BufMut, Bytes};
use x0_identity::NodeId;

use super::DecodeError;

/// Appends a number as LEB128: seven bits a byte, the lowest first.
pub(crate) fn put_u64(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    to.put_u8(value.to_le_bytes()[0]);
}

pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(to, bytes.len() as u64);
    to.put_slice(bytes);
}

/// Reads fields from the front of a message.
#[derive(Debug)]
pub(crate) struct Fields {
    rest: Bytes,
}

impl Fields {
    pub(crate) fn new(rest: Bytes) -> Fields {
        Fields { rest }
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.rest.try_get_u8().map_err(|_| DecodeError::Truncated { field })
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and a last byte of zero would be a second encoding of the
            // same number.
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(DecodeError::Invalid { field });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid { field })
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid { field }),
        }
    }

    pub(crate) fn node(&mut self, field: &'static str) -> Result<NodeId, DecodeError> {
        NodeId::new(self.u64(field)?).ok_or(DecodeError::Invalid { field })
    }

    /// A count of items of at least `each` bytes, bounded by the rest of the message.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        each: usize,
        max: usize,
    ) -> Result<usize, DecodeError> {
        let len = self.u64(field)?;
        let max = max.min(self.len() / each.max(1));
        match usize::try_from(len) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(DecodeError::TooLong { field, len, max: max as u64 }),
        }
    }

    pub(crate) fn bytes(&mut self, field: &'static str, max: usize) -> Result<Bytes, DecodeError> {
        let len = self.u64(field)?;
        match usize::try_from(len) {
            Ok(count) if count <= max && count <= self.rest.len() => Ok(self.rest.split_to(count)),
            Ok(count) if count <= max => Err(DecodeError::Truncated { field }),
            _ => Err(DecodeError::TooLong { field, len, max: max as u64 }),
        }
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { extra }),
        }
    }
}
