//! The seam of embedding models.

use std::fmt;

use crate::hash::{Digest, digest_of};

/// Name of a model: the SHA-256 of its weights and settings.
///
/// Vectors of two names are never compared: an index, a cache and a query belong to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(Digest);

impl ModelId {
    /// The name of the model that `parts` describe completely. Each part is hashed with its length.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(digest_of("x0-ml model", parts))
    }

    /// A name from its 32 bytes, as read from a file or a store.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest(bytes))
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Treatment of a text with more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// An error; nothing is embedded.
    #[default]
    Refuse,
    /// The tokens at the end are left out, and the text is counted in [`Embedded::truncated`].
    Truncate,
}

/// Counts of one call of [`Embedder::embed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Embedded {
    /// Tokens that the model read, special ones included.
    pub tokens: usize,
    /// Texts of which tokens were left out.
    pub truncated: usize,
}

impl Embedded {
    /// The counts of one call: tokens embedded, and texts truncated.
    #[must_use]
    pub fn new(tokens: usize, truncated: usize) -> Self {
        Self { tokens, truncated }
    }
}

/// A model that turns texts into vectors.
///
/// # Contract
/// Equal texts give equal vectors, whatever other texts are in the call, to a cosine of 0.999999 at least.
/// Every component is finite. A text longer than [`tokens_max`](Self::tokens_max) is an error or is counted
/// as truncated.
pub trait Embedder: Send + Sync {
    /// The name of the model.
    fn model(&self) -> &ModelId;

    /// Components of a vector.
    fn dimensions(&self) -> usize;

    /// Tokens of the longest text, special ones included.
    fn tokens_max(&self) -> usize;

    /// Writes the vectors of `texts`, one after the other, to `vectors`.
    ///
    /// # Errors
    /// [`EmbedError`]; `vectors` may then hold a part.
    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError>;
}

/// Texts were not embedded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The place for the vectors has another length.
    #[error(
        "{found} components do not hold the vectors of these texts, which have {expected}; pass texts times dimensions"
    )]
    Room {
        /// Components of all vectors.
        expected: usize,
        /// Components given.
        found: usize,
    },
    /// A text is too long.
    #[error(
        "text {text} of the call has {tokens} tokens and the model takes {tokens_max}; cut it or allow truncation"
    )]
    TooLong {
        /// Place of the text in the call.
        text: usize,
        /// Tokens of the text, special ones included.
        tokens: usize,
        /// The model's limit.
        tokens_max: usize,
    },
    /// The model failed.
    #[error("the model cannot embed these texts")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),
}
