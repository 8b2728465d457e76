//! Vectors, found by nearness.
//!
//! [`HnswIndex`] is a graph for many vectors; [`ExactIndex`] compares with all of them. Both implement
//! [`VectorIndex`].
//!
//! ```
//! use x0_ml::index::{HnswIndex, HnswOptions, Metric, Search, VectorId, VectorIndex};
//!
//! let mut index = HnswIndex::new(HnswOptions::new(2, Metric::Cosine))?;
//! index.insert(VectorId(7), &[1.0, 0.0])?;
//! index.insert(VectorId(8), &[0.0, 1.0])?;
//! let found = index.search(&Search::new(&[0.9, 0.1], 1))?;
//! assert_eq!(found[0].id, VectorId(7));
//!
//! let reader = index.reader();                    // Send and Sync: searches what was published last
//! assert!(reader.search(&Search::new(&[0.9, 0.1], 1))?.is_empty());
//! index.publish();
//! index.remove(VectorId(7));                      // not visible to readers before the next `publish`
//! assert_eq!(reader.search(&Search::new(&[0.9, 0.1], 1))?[0].id, VectorId(7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod exact;
mod hnsw;
#[cfg(feature = "hnsw_rs")]
mod hnsw_rs;
mod rerank;
mod vector;
mod vector_index;

pub use exact::ExactIndex;
pub use hnsw::{HnswIndex, HnswOptions};
#[cfg(feature = "hnsw_rs")]
pub use hnsw_rs::{HnswRsIndex, HnswRsOptions};
pub use rerank::{Rerank, SourceError, VectorSource};
pub use vector::{DIMENSIONS_MAX, Metric, Neighbour, VectorId};
pub use vector_index::{
    Filter, Frozen, InsertError, OptionsError, RestoreError, Search, SearchError, VectorIndex, VectorReader,
};
