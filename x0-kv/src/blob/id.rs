//! The name of a blob.

use std::fmt;
use std::str::FromStr;

use super::merkle::{self, Digest};

/// The name of a blob, computed from its bytes alone: equal bytes have equal names, and finding other bytes
/// of the same name is infeasible.
///
/// A blob id is `SHA-256(0x02, length as 8 bytes big-endian, root)`, the root being that of the Merkle tree
/// of RFC 9162 §2.1.1 over chunks of [`CHUNK_LEN`](super::CHUNK_LEN) bytes. So the id fixes the length too,
/// and each chunk can be verified by itself. Written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(Digest);

impl BlobId {
    /// Bytes of a name.
    pub const LEN: usize = 32;

    /// The name of the blob of `len` bytes whose chunks have this root.
    #[must_use]
    pub fn new(len: u64, root: &[u8; 32]) -> BlobId {
        BlobId(merkle::name(len, root))
    }

    /// The name of the blob that holds `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> BlobId {
        let leaves: Vec<Digest> = bytes.chunks(super::CHUNK_LEN).map(merkle::leaf).collect();
        BlobId::new(bytes.len() as u64, &merkle::tree(&leaves).1)
    }

    /// The name that these bytes are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> BlobId {
        BlobId(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits distinguish two blobs in a log line.
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text is not the name of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a blob is 64 lower-case hex digits")]
#[non_exhaustive]
pub struct BlobIdError;

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<BlobId, BlobIdError> {
        // One text for one name, so that file names cannot differ in case.
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(BlobIdError);
        }
        for (to, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let [high, low] = pair else { return Err(BlobIdError) };
            *to = digit(*high).ok_or(BlobIdError)? << 4 | digit(*low).ok_or(BlobIdError)?;
        }
        Ok(BlobId(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_in_one_way() {
        let id = BlobId::of(b"some bytes");
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse::<BlobId>(), Err(BlobIdError));
        assert_eq!(text[1..].parse::<BlobId>(), Err(BlobIdError));
        assert_eq!("é".repeat(32).parse::<BlobId>(), Err(BlobIdError));
    }
}
