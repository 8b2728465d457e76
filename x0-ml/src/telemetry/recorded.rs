//! Handles of the metrics.

use std::time::Instant;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::Stage;
use crate::embed::Embedded;
use crate::index::RestoreError;
use crate::knowledge::{Knowledge, KnowledgeError};

/// Describes each name to the installed recorder.
pub fn describe() {
    describe_counter!(
        "x0_ml_embeddings_total",
        Unit::Count,
        "Vectors of chunks, computed or taken from the cache"
    );
    describe_counter!("x0_ml_embedding_tokens_total", Unit::Count, "Tokens that the model read");
    describe_counter!("x0_ml_embeddings_truncated_total", Unit::Count, "Texts of which tokens were left out");
    describe_counter!("x0_ml_cache_errors_total", Unit::Count, "Writes to the cache that failed");
    describe_gauge!("x0_ml_saved_bytes", Unit::Bytes, "Bytes of the last saved file");
    describe_gauge!("x0_ml_chunks", Unit::Count, "Chunks in the indexes");
    describe_gauge!(
        "x0_ml_pending_documents",
        Unit::Count,
        "Changed documents that are not in the indexes yet"
    );
    describe_gauge!(
        "x0_ml_applied_revision",
        Unit::Count,
        "Revision up to which all changes are in the indexes"
    );
    describe_gauge!(
        "x0_ml_lag_revisions",
        Unit::Count,
        "Revisions between the applied one and the newest that the store reported"
    );
    describe_counter!(
        "x0_ml_rebuilds_total",
        Unit::Count,
        "Indexes built again because the saved file could not be used"
    );
    describe_histogram!(
        "x0_ml_stage_seconds",
        Unit::Seconds,
        "Time of one step of indexing, and of one query without its embedding"
    );
}

pub(crate) struct Telemetry {
    from_model: Counter,
    from_cache: Counter,
    tokens: Counter,
    truncated: Counter,
    cache_errors: Counter,
    saved: Gauge,
    chunks: Gauge,
    pending: Gauge,
    applied: Gauge,
    lag: Gauge,
    damage: Counter,
    settings: Counter,
    /// In the order of [`Stage`].
    stages: [Histogram; 9],
}

impl Telemetry {
    pub(crate) fn new() -> Self {
        Self {
            from_model: counter!("x0_ml_embeddings_total", "from" => "model"),
            from_cache: counter!("x0_ml_embeddings_total", "from" => "cache"),
            tokens: counter!("x0_ml_embedding_tokens_total"),
            truncated: counter!("x0_ml_embeddings_truncated_total"),
            cache_errors: counter!("x0_ml_cache_errors_total"),
            saved: gauge!("x0_ml_saved_bytes"),
            chunks: gauge!("x0_ml_chunks"),
            pending: gauge!("x0_ml_pending_documents"),
            applied: gauge!("x0_ml_applied_revision"),
            lag: gauge!("x0_ml_lag_revisions"),
            damage: counter!("x0_ml_rebuilds_total", "cause" => "damage"),
            settings: counter!("x0_ml_rebuilds_total", "cause" => "settings"),
            stages: ["list", "read", "chunk", "embed", "insert", "remove", "publish", "save", "query"]
                .map(|stage| histogram!("x0_ml_stage_seconds", "stage" => stage)),
        }
    }

    pub(crate) fn begin() -> Instant {
        Instant::now()
    }

    pub(crate) fn ended(&self, stage: Stage, begun: Instant) {
        self.stages[stage as usize].record(begun.elapsed());
    }

    pub(crate) fn cached(&self, vectors: usize) {
        self.from_cache.increment(vectors as u64);
    }

    pub(crate) fn embedded(&self, vectors: usize, embedded: Embedded) {
        self.from_model.increment(vectors as u64);
        self.tokens.increment(embedded.tokens as u64);
        self.truncated(embedded);
    }

    pub(crate) fn truncated(&self, embedded: Embedded) {
        self.truncated.increment(embedded.truncated as u64);
    }

    pub(crate) fn cache_written(&self, is_written: bool) {
        self.cache_errors.increment(u64::from(!is_written));
    }

    pub(crate) fn saved(&self, len: usize) {
        self.saved.set(len as f64);
    }

    pub(crate) fn state(&self, engine: &Knowledge) {
        let applied = engine.applied();
        self.chunks.set(engine.passages().chunks_len() as f64);
        self.pending.set(engine.pending() as f64);
        self.applied.set(applied as f64);
        self.lag.set(engine.seen().saturating_sub(applied) as f64);
    }

    pub(crate) fn rebuilt(&self, cause: &KnowledgeError) {
        match cause {
            KnowledgeError::Settings { .. } | KnowledgeError::Restore(RestoreError::Options { .. }) => {
                self.settings.increment(1);
            }
            _ => self.damage.increment(1),
        }
    }
}
