//! Retrieval for the nodes of a mesh: chunks, vector indexes and their files, without a server.
//!
//! ```
//! use x0_ml::chunk::{ChunkOptions, Chunker, WordTokens};
//! use x0_ml::index::{HnswIndex, HnswOptions, Metric, Search, VectorId, VectorIndex};
//!
//! let chunker = Chunker::new(ChunkOptions::new(), WordTokens)?;
//! for chunk in chunker.chunks("A node that loses its link asks its other neighbours.")? {
//!     println!("{} {:?}", chunk.id, chunk.span);
//! }
//!
//! let mut index = HnswIndex::new(HnswOptions::new(3, Metric::Cosine))?;
//! index.insert(VectorId(1), &[0.1, 0.9, 0.0])?;
//! assert_eq!(index.search(&Search::new(&[0.0, 1.0, 0.0], 5))?.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Parts
//! - [`chunk`]: texts cut at paragraphs and sentences into overlapping chunks of a bounded number of tokens, named by content.
//! - [`index`]: [`VectorIndex`](index::VectorIndex) (the seam), [`HnswIndex`](index::HnswIndex),
//!   [`ExactIndex`](index::ExactIndex).
//! - [`simd`]: dot products with the same bits on every processor.
//! - [`file`](mod@file): files with versions and checksums, replaced whole.
//!
//! # Glossary
//! - *Chunk*: a byte range of a document; its [`ChunkId`](chunk::ChunkId) is a hash of its text.
//! - *Codes*: a vector in 8 bits a component, with one scale.
//! - *Walk*: a search over the links of a graph. *Scan*: a comparison with every vector.
//! - *Version* of an index: what readers see after [`publish`](index::VectorIndex::publish).
//!
//! # Guarantees
//! - A removed vector is not returned again, and its bytes are in no file that is saved afterwards.
//! - One seed and one order of changes give the same index file on every processor.
//! - Damaged files are errors that name an offset. What is allocated follows the bytes that are present, not what they promise.
//! - A search never waits for the writer.
//!
//! # Dependencies
//! The crate depends on no other x0 crate, starts no thread and opens no socket. `unsafe` is denied outside of [`simd`].

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod chunk;
pub mod file;
mod hash;
pub mod index;
pub mod simd;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
