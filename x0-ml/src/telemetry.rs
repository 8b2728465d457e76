//! Names and meaning of the crate's metrics (feature `metrics`).
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_ml_embeddings_total` | counter | `from`: model, cache | vectors of chunks, computed or taken from the cache |
//! | `x0_ml_embedding_tokens_total` | counter | – | tokens that the model read |
//! | `x0_ml_embeddings_truncated_total` | counter | – | texts of which tokens were left out |
//! | `x0_ml_cache_errors_total` | counter | – | writes to the cache that failed |
//! | `x0_ml_saved_bytes` | gauge | – | bytes of the last saved file |
//! | `x0_ml_chunks` | gauge | – | chunks in the indexes |
//! | `x0_ml_pending_documents` | gauge | – | changed documents that are not in the indexes yet |
//! | `x0_ml_applied_revision` | gauge | – | revision of the store up to which all changes are in the indexes |
//! | `x0_ml_rebuilds_total` | counter | `cause`: damage, settings | indexes built again because the saved file could not be used |
//!
//! Install a recorder before a [`KnowledgeBase`](crate::knowledge::KnowledgeBase) is opened: handles made
//! earlier stay silent.

#[cfg(feature = "metrics")]
mod recorded;
#[cfg(not(feature = "metrics"))]
mod silent;

#[cfg(feature = "metrics")]
pub(crate) use recorded::Telemetry;
#[cfg(feature = "metrics")]
pub use recorded::describe;
#[cfg(not(feature = "metrics"))]
pub(crate) use silent::Telemetry;
