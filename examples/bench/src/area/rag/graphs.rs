//! Graph indexes of other crates (feature `graphs`).

use anyhow::Result;

use super::worker::{Graph, System};

#[cfg(not(feature = "graphs"))]
pub(super) fn open(
    system: System,
    _dimensions: usize,
    _m: usize,
    _ef_construction: usize,
    _count: usize,
) -> Result<Box<dyn Graph>> {
    anyhow::bail!("cannot measure {}: build x0-bench with --features graphs", system.argument())
}

#[cfg(feature = "graphs")]
pub(super) use crates::open;

#[cfg(feature = "graphs")]
mod crates {
    use hnsw_rs::prelude::{DistDot, Hnsw};
    use usearch::{Index, IndexOptions, MetricKind, ScalarKind};
    use x0_ml::index::{Filter, VectorId};

    use super::{Graph, Result, System};

    /// Candidates of a search with a filter.
    const FILTERED: usize = 128;

    pub(crate) fn open(
        system: System,
        dimensions: usize,
        m: usize,
        ef_construction: usize,
        count: usize,
    ) -> Result<Box<dyn Graph>> {
        if system == System::HnswRs {
            return Ok(Box::new(HnswRs(Hnsw::new(m, count, 16, ef_construction, DistDot {}))));
        }
        let index = Index::new(&IndexOptions {
            dimensions,
            metric: MetricKind::Cos,
            quantization: ScalarKind::I8,
            connectivity: m,
            expansion_add: ef_construction,
            expansion_search: 64,
            multi: false,
        })?;
        index.reserve(count)?;
        Ok(Box::new(Usearch(index)))
    }

    struct HnswRs(Hnsw<'static, f32, DistDot>);

    impl Graph for HnswRs {
        fn insert(&mut self, id: u64, vector: &[f32]) -> Result<()> {
            self.0.insert_slice((vector, usize::try_from(id)?));
            Ok(())
        }

        fn search(&self, query: &[f32], ef: usize) -> Result<Vec<u64>> {
            Ok(self.0.search(query, 10, ef).iter().map(|near| near.d_id as u64).collect())
        }

        fn filtered(&self, query: &[f32], passes: Filter<'_>) -> Result<Vec<u64>> {
            let passes = |id: &usize| passes(VectorId(*id as u64));
            // The search panics when no candidate of a step passes: an answer without results then.
            let search = || self.0.search_filter(query, 10, FILTERED, Some(&passes));
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(search)).unwrap_or_default();
            Ok(found.iter().map(|near| near.d_id as u64).collect())
        }
    }

    struct Usearch(Index);

    impl Graph for Usearch {
        fn insert(&mut self, id: u64, vector: &[f32]) -> Result<()> {
            Ok(self.0.add(id, vector)?)
        }

        fn search(&self, query: &[f32], ef: usize) -> Result<Vec<u64>> {
            self.0.change_expansion_search(ef);
            Ok(self.0.search(query, 10)?.keys)
        }

        fn filtered(&self, query: &[f32], passes: Filter<'_>) -> Result<Vec<u64>> {
            self.0.change_expansion_search(FILTERED);
            Ok(self.0.filtered_search(query, 10, |id| passes(VectorId(id)))?.keys)
        }
    }
}
