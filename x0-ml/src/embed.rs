//! Texts to vectors.
//!
//! ```
//! use x0_ml::embed::{Embedder, HashedWords};
//!
//! let embedder = HashedWords::new(64);
//! let mut vectors = vec![0.0; 2 * embedder.dimensions()];
//! let embedded = embedder.embed(&["a node", "a link"], &mut vectors)?;
//! assert_eq!((embedded.tokens, embedded.truncated), (4, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod embedder;
mod hashed_words;
#[cfg(feature = "minilm")]
mod minilm;

pub(crate) use cache::read_vector;
pub use cache::{Compacted, EmbeddingCache, Opened};
pub use embedder::{EmbedError, Embedded, Embedder, ModelId, Overflow};
pub use hashed_words::HashedWords;
#[cfg(feature = "minilm")]
pub use minilm::{LoadError, MiniLm, MiniLmOptions, MiniLmTokens};
