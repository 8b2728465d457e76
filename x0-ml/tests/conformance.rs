//! The seams' suites against the crate's own implementations, and against broken ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use x0_ml::conformance;
use x0_ml::embed::{EmbedError, Embedded, Embedder, HashedWords, ModelId, Overflow};
use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions};
use x0_ml::knowledge::MemoryStore;

#[test]
fn own_implementations_keep_the_contracts() {
    conformance::vector_index(&|metric| Box::new(ExactIndex::new(8, metric).unwrap()));
    conformance::vector_index(&|metric| Box::new(HnswIndex::new(HnswOptions::new(8, metric)).unwrap()));
    let walking = |metric| HnswOptions::new(8, metric).scan_len_max(0).m(4).ef_construction(50);
    conformance::vector_index(&|metric| Box::new(HnswIndex::new(walking(metric)).unwrap()));
    conformance::embedder(&HashedWords::new(16));
    conformance::embedder(&HashedWords::new(16).with_tokens_max(5000).with_overflow(Overflow::Truncate));
    conformance::knowledge_store(&mut MemoryStore::new());
}

#[cfg(feature = "hnsw_rs")]
#[test]
fn the_index_on_hnsw_rs_keeps_the_contract() {
    use x0_ml::index::{HnswRsIndex, HnswRsOptions};
    conformance::vector_index(&|metric| Box::new(HnswRsIndex::new(HnswRsOptions::new(8, metric)).unwrap()));
    let walking = |metric| HnswRsOptions::new(8, metric).scan_len_max(0);
    conformance::vector_index(&|metric| Box::new(HnswRsIndex::new(walking(metric)).unwrap()));
}

/// Embeds a text differently when others are in the call, as a model with wrong padding does.
struct Padded(HashedWords);

impl Embedder for Padded {
    fn model(&self) -> &ModelId {
        self.0.model()
    }
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }
    fn tokens_max(&self) -> usize {
        self.0.tokens_max()
    }
    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        let embedded = self.0.embed(texts, vectors)?;
        if texts.len() > 1 {
            vectors.iter_mut().for_each(|component| *component += 0.01);
        }
        Ok(embedded)
    }
}

#[test]
#[should_panic(expected = "a text has one vector")]
fn a_vector_that_depends_on_its_neighbours_is_found() {
    conformance::embedder(&Padded(HashedWords::new(16)));
}
