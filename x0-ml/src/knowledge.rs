//! A store of documents, kept in indexes.
//!
//! [`Knowledge`] is the protocol engine: it decides which documents to read, which chunks to embed and what
//! to remove, and does no I/O. [`KnowledgeStore`] is the seam to the documents. [`KnowledgeBase`] is a driver
//! without threads for one store, one embedder and one folder. Documents of a cluster live in a collection of
//! x0-kv: module `kv`, by the feature of that name.
//!
//! ```
//! use std::time::Duration;
//! use x0_ml::embed::HashedWords;
//! use x0_ml::file::DiskFolder;
//! use x0_ml::knowledge::{KnowledgeBase, KnowledgeBaseOptions, KnowledgeStore, MemoryStore};
//! use x0_ml::retrieve::{Document, Mode};
//!
//! # let path = std::env::temp_dir().join(format!("x0-ml-doc-{}", std::process::id()));
//! let mut store = MemoryStore::new();
//! store.put(&"handbook".into(), Document::new("To attach the filter, run xdp-loader as root."))?;
//!
//! let folder = DiskFolder::new(&path)?;
//! let options = KnowledgeBaseOptions::new();
//! let mut base = KnowledgeBase::open(options, store, HashedWords::new(64), folder)?;
//! base.run(Duration::ZERO)?;                          // reads, embeds and indexes all that changed
//! let hits = base.query("xdp-loader", 3, Mode::Hybrid)?;
//! assert_eq!(hits[0].document.as_str(), "handbook");
//!
//! base.store_mut().remove(&"handbook".into())?;
//! base.run(Duration::from_secs(1))?;
//! assert!(base.query("xdp-loader", 3, Mode::Hybrid)?.is_empty());
//! # std::fs::remove_dir_all(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod base;
mod cached_vectors;
mod catalogue;
mod engine;
#[cfg(feature = "kv")]
pub mod kv;
mod message;
mod options;
mod saving;
mod searcher;
mod snapshot;
mod store;
mod waiting;

pub use base::{ExactVectors, KnowledgeBase, KnowledgeBaseOptions, KnowledgeError, MakeIndex, Opening};
pub use engine::{HandleError, Knowledge, KnowledgeStats};
pub use message::{Input, NewChunk, Output};
pub use options::KnowledgeOptions;
pub use saving::SaveJob;
pub use searcher::{EngineRef, Searcher};
pub use snapshot::Snapshot;
pub use store::{Change, KnowledgeStore, MemoryStore, Page, StoreError};
