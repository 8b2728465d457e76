//! Retrieval for the nodes of a mesh: from documents in a store to ranked passages, without a server.
//!
//! ```
//! use std::time::Duration;
//! use x0_ml::embed::HashedWords;
//! use x0_ml::file::DiskFolder;
//! use x0_ml::knowledge::{KnowledgeBase, KnowledgeBaseOptions, KnowledgeStore, MemoryStore};
//! use x0_ml::retrieve::{Document, Mode};
//!
//! # let path = std::env::temp_dir().join(format!("x0-ml-lib-{}", std::process::id()));
//! let mut store = MemoryStore::new();
//! store.put(&"links".into(), Document::new("A node that loses its link asks its other neighbours."))?;
//! let folder = DiskFolder::new(&path)?;
//! let mut base = KnowledgeBase::open(KnowledgeBaseOptions::new(), store, HashedWords::new(64), folder)?;
//! base.run(Duration::ZERO)?;
//! for hit in base.query("which node asks neighbours?", 5, Mode::Hybrid)? {
//!     println!("{} {:?}: dense {:?}, lexical {:?}", hit.document, hit.span, hit.rank_dense, hit.rank_lexical);
//! }
//! # std::fs::remove_dir_all(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Parts
//! - [`chunk`]: texts cut at paragraphs and sentences into overlapping chunks of a bounded number of tokens,
//!   named by content.
//! - [`embed`]: [`Embedder`](embed::Embedder) (the seam) and a cache of vectors by chunk.
//! - [`index`]: [`VectorIndex`](index::VectorIndex) (the seam), [`HnswIndex`](index::HnswIndex),
//!   [`ExactIndex`](index::ExactIndex), and with the feature `hnsw_rs` an index on that crate.
//! - [`lexical`]: BM25 with removals in place.
//! - [`retrieve`]: fusion of both lists, filters, passages that can be cited.
//! - [`knowledge`]: the protocol engine that keeps the indexes equal to a store, the seam
//!   [`KnowledgeStore`](knowledge::KnowledgeStore), a driver, and its handle for queries on other threads.
//! - [`file`](mod@file): files with versions and checksums, replaced whole. [`simd`]: dot products with the
//!   same bits on every processor. [`telemetry`]: the names of the metrics.
//!
//! Features: `kv` (collections in a store of x0-kv), `minilm` (all-MiniLM-L6-v2 and its kind on candle: 130
//! more crates), `hnsw_rs` (a third index, for comparison: 80 more crates), `conformance` (suites for the
//! seams), `metrics`. The default is none of them.
//!
//! # Glossary
//! - *Document*: a text with a name and a revision. *Chunk*: a byte range of a document; its
//!   [`ChunkId`](chunk::ChunkId) is a hash of its text. *Passage*: a chunk, or overlapping chunks of one
//!   document, as a query returns it.
//! - *Codes*: a vector in 8 bits a component, with one scale.
//! - *Walk*: a search over the links of a graph. *Scan* of an index: a comparison with every vector. *Scan*
//!   of a store: a comparison of all revisions.
//! - *Version* of an index: what readers see after [`publish`](index::VectorIndex::publish).
//! - *Catalogue*: the documents and chunks that the indexes hold, as bytes.
//!
//! # Guarantees
//! - A removed vector or text is not returned again, and its bytes are in no index file that is saved
//!   afterwards. The vector of a withdrawn text leaves the cache with a save that the caller asks for, and
//!   otherwise within minutes ([`withdrawn_max`](knowledge::KnowledgeBaseOptions::withdrawn_max)).
//! - After a crash at any moment the indexes become those of the store again. Text that was embedded before
//!   is not embedded again, unless its document was missing in this store for longer than `withdrawn_max`.
//! - One seed and one order of changes give the same index file on every processor.
//! - Damaged files are errors that name an offset. What is allocated follows the bytes that are present, not
//!   what they promise: at most 20 times their number (a file of one vector in each 8 slots).
//! - A search of vectors never waits for the writer. A query of a knowledge base waits for changes in memory,
//!   and never for a store or a model ([`Searcher`](knowledge::Searcher)). It reads a file, for which changes
//!   and other queries can wait, with [`ExactVectors::Cache`](knowledge::ExactVectors::Cache) only.
//!
//! # Limitations
//! [`HashedWords`](embed::HashedWords) knows words and no meaning; meaning needs the feature `minilm` or a
//! model of the caller. A lexical index by itself is searched by its owner only, not beside the writer.
//! Near-duplicates are recognised by their words, not by their meaning.
//!
//! # Dependencies
//! The crate depends on no other x0 crate but with the feature `kv`, opens no socket, and starts no thread
//! without the feature `minilm`. `unsafe` is denied outside of [`simd`].

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod chunk;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod embed;
pub mod file;
mod hash;
pub mod index;
pub mod knowledge;
pub mod lexical;
pub mod retrieve;
pub mod simd;
pub mod telemetry;

/// Unit tests use the simulated folder of the integration tests, which names this crate.
#[cfg(all(test, feature = "kv"))]
extern crate self as x0_ml;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
