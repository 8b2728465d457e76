//! Texts, found by their words (BM25).
//!
//! ```
//! use x0_ml::index::VectorId;
//! use x0_ml::lexical::{LexicalIndex, LexicalOptions};
//!
//! let mut index = LexicalIndex::new(LexicalOptions::new());
//! index.insert(VectorId(1), "attach xdp_filter to the interface");
//! index.insert(VectorId(2), "build the index with --ef 200");
//! assert_eq!(index.search("xdp_filter", 5, None)[0].id, VectorId(1));
//! assert_eq!(index.search("--ef", 5, None)[0].id, VectorId(2));
//! assert!(index.remove(VectorId(1)));
//! assert!(index.search("interface", 5, None).is_empty());
//! ```

mod bm25;
mod file;
mod stem;
mod words;

pub use bm25::{LexicalIndex, LexicalOptions};
pub use stem::{Stemming, stem_english};
pub use words::words;
