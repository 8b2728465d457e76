//! Names and meaning of the crate's metrics (feature `metrics`).
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_ml_embeddings_total` | counter | `from`: model, cache | vectors of chunks, computed or taken from the cache |
//! | `x0_ml_embedding_tokens_total` | counter | – | tokens that the model read |
//! | `x0_ml_embeddings_truncated_total` | counter | – | chunks and queries of which tokens were left out |
//! | `x0_ml_cache_errors_total` | counter | – | writes to the cache that failed |
//! | `x0_ml_saved_bytes` | gauge | – | bytes of the last saved file |
//! | `x0_ml_chunks` | gauge | – | chunks in the indexes |
//! | `x0_ml_pending_documents` | gauge | – | changed documents that are not in the indexes yet |
//! | `x0_ml_applied_revision` | gauge | – | revision of the store up to which all changes are in the indexes |
//! | `x0_ml_lag_revisions` | gauge | – | revisions between the applied one and the newest that the store reported; of a CRDT collection, in bits of its timestamps |
//! | `x0_ml_rebuilds_total` | counter | `cause`: damage, settings | indexes built again because the saved file could not be used |
//! | `x0_ml_stage_seconds` | histogram | `stage`: list, read, chunk, embed, insert, remove, publish, save, query | time of one step of indexing, and of one query without its embedding |
//!
//! Install a recorder before a [`KnowledgeBase`](crate::knowledge::KnowledgeBase) is opened: handles made
//! earlier stay silent.

use crate::knowledge::Output;

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

/// Steps by which a [`KnowledgeBase`](crate::knowledge::KnowledgeBase) is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    List,
    Read,
    Chunk,
    Embed,
    Insert,
    Remove,
    Publish,
    Save,
    Query,
}

impl Stage {
    /// The stage of an output of the engine.
    pub(crate) fn of(output: &Output) -> Self {
        match output {
            Output::List { .. } => Self::List,
            // A document that is left out was read in vain.
            Output::Read { .. } | Output::LeftOut { .. } => Self::Read,
            Output::Chunk { .. } => Self::Chunk,
            Output::Embed { .. } => Self::Embed,
            Output::Insert { .. } => Self::Insert,
            Output::Remove { .. } => Self::Remove,
            Output::Publish => Self::Publish,
            Output::Save { .. } => Self::Save,
        }
    }
}
