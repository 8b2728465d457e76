//! Suites for implementations of the seams. Each function panics at the first rule that is broken, and names
//! it.
//!
//! ```
//! use x0_ml::index::{ExactIndex, Metric};
//!
//! x0_ml::conformance::vector_index(&|metric| Box::new(ExactIndex::new(8, metric).unwrap()));
//! x0_ml::conformance::embedder(&x0_ml::embed::HashedWords::new(32));
//! x0_ml::conformance::knowledge_store(&mut x0_ml::knowledge::MemoryStore::new());
//! ```
#![allow(clippy::panic, clippy::unwrap_used, reason = "a suite fails by panicking")]

mod embedder;
mod knowledge_store;
mod vector_index;

pub use embedder::embedder;
pub use knowledge_store::knowledge_store;
pub use vector_index::vector_index;
