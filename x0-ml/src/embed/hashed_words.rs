//! An embedder without a model.

use super::embedder::{EmbedError, Embedded, Embedder, ModelId, Overflow};
use crate::lexical::words;
use crate::simd::Path;

/// Words hashed into components (feature hashing): texts that share words have near vectors.
///
/// The embedder knows no meaning. Tests, examples and nodes without a model use it; retrieval quality needs a
/// model.
#[derive(Debug, Clone)]
pub struct HashedWords {
    model: ModelId,
    dimensions: usize,
    tokens_max: usize,
    overflow: Overflow,
}

impl HashedWords {
    /// An embedder into vectors of `dimensions` components (at least 1).
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        let dimensions = dimensions.max(1);
        let model = ModelId::of(&[b"hashed words 1", &(dimensions as u64).to_le_bytes()]);
        Self { model, dimensions, tokens_max: 4096, overflow: Overflow::Refuse }
    }

    /// Sets the words of the longest text.
    #[must_use]
    pub fn with_tokens_max(mut self, tokens: usize) -> Self {
        self.tokens_max = tokens;
        self
    }

    /// Sets the treatment of longer texts.
    #[must_use]
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }
}

impl Embedder for HashedWords {
    fn model(&self) -> &ModelId {
        &self.model
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        let expected = texts.len() * self.dimensions;
        if vectors.len() != expected {
            return Err(EmbedError::Room { expected, found: vectors.len() });
        }
        let mut embedded = Embedded::default();
        for (text, (content, vector)) in texts.iter().zip(vectors.chunks_mut(self.dimensions)).enumerate() {
            vector.fill(0.0);
            let mut tokens = 0;
            words(content, &mut |word| {
                tokens += 1;
                if tokens <= self.tokens_max {
                    let hash = fnv(word.as_bytes());
                    let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
                    // Below the length of the slice, which is a usize.
                    let place = usize::try_from(hash % self.dimensions as u64).unwrap_or(0);
                    vector[place] += sign;
                }
            });
            if tokens > self.tokens_max {
                if self.overflow == Overflow::Refuse {
                    return Err(EmbedError::TooLong { text, tokens, tokens_max: self.tokens_max });
                }
                embedded.truncated += 1;
            }
            embedded.tokens += tokens.min(self.tokens_max);
            let length = Path::detect().dot_f32(vector, vector).sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|component| *component /= length);
            } else {
                // Words that cancel each other, or none: one fixed direction, so that the cosine exists.
                vector[0] = 1.0;
            }
        }
        Ok(embedded)
    }
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
