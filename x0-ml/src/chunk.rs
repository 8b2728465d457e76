//! Documents cut into overlapping chunks, each named by its content.
//!
//! ```
//! use x0_ml::chunk::{Chunker, ChunkOptions, WordTokens};
//!
//! let chunker = Chunker::new(ChunkOptions::new().tokens_max(12).special_tokens(2), WordTokens)?;
//! let text = "A node reads a page. It cuts the page into chunks. It embeds each chunk once.";
//! let chunks = chunker.chunks(text)?;
//! assert_eq!(&text[chunks[0].span.clone()], "A node reads a page. It cuts the page ");
//! assert_eq!(chunks.last().unwrap().span.end, text.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod boundary;
mod chunker;
mod identity;
mod tokens;

pub use chunker::{CHUNKER_VERSION, Chunk, ChunkError, ChunkOptions, Chunker};
pub use identity::ChunkId;
pub use tokens::{TokenError, TokenSpans, TokenizerId, WordTokens};
