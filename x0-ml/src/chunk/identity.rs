//! Names of chunks.

use std::fmt;

use super::chunker::CHUNKER_VERSION;
use super::tokens::TokenizerId;
use crate::hash::{Digest, digest_of};

/// Name of a chunk: the SHA-256 of the chunker's version, the tokenizer's name and the text.
///
/// Time, path and document are not part of it. Unchanged text keeps its name when its document changes
/// elsewhere, and equal text in two documents has one name, so that it is embedded once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(Digest);

impl ChunkId {
    /// The name of a text, cut by the tokenizer of this name.
    #[must_use]
    pub fn of(tokenizer: TokenizerId, text: &str) -> Self {
        let version = CHUNKER_VERSION.to_le_bytes();
        Self(digest_of("x0-ml chunk", &[&version, tokenizer.as_bytes(), text.as_bytes()]))
    }

    /// A name from its 32 bytes, as read from a file or a store.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest(bytes))
    }

    /// The first eight bytes as a number: names are in the same order as their prefixes.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.as_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({})", self.0)
    }
}
