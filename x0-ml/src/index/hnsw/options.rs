//! Settings of the graph.

use crate::index::rerank::Rerank;
use crate::index::vector::Metric;
use crate::index::vector_index::{OptionsError, check_dimensions};
use crate::simd::Path;

/// Settings of a [`HnswIndex`](super::HnswIndex).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HnswOptions {
    /// Components of a vector.
    pub dimensions: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// Links of a node in the upper layers, and half of those in the lowest; 16 by default, 2 to 64.
    pub m: usize,
    /// Candidates for the links of a new node; 200 by default, at least `m`.
    pub ef_construction: usize,
    /// Candidates of a search; 64 by default. At least the `k` of the search.
    pub ef_search: usize,
    /// Vectors up to which a search compares with all of them instead of walking; 1,000 by default.
    pub scan_len_max: usize,
    /// The source of the exact vectors; [`Rerank::Memory`] by default.
    pub rerank: Rerank,
    /// Seed of the layers that nodes are put on; 0 by default.
    pub seed: u64,
    /// Vector instructions; the fastest of this processor by default. All give the same results.
    pub path: Path,
}

impl HnswOptions {
    /// The defaults for vectors of this many components.
    #[must_use]
    pub fn new(dimensions: usize, metric: Metric) -> Self {
        Self {
            dimensions,
            metric,
            m: 16,
            ef_construction: 200,
            ef_search: 64,
            scan_len_max: 1000,
            rerank: Rerank::Memory,
            seed: 0,
            path: Path::detect(),
        }
    }

    /// Sets the links of a node.
    #[must_use]
    pub fn m(mut self, links: usize) -> Self {
        self.m = links;
        self
    }

    /// Sets the candidates for links.
    #[must_use]
    pub fn ef_construction(mut self, candidates: usize) -> Self {
        self.ef_construction = candidates;
        self
    }

    /// Sets the candidates of a search.
    #[must_use]
    pub fn ef_search(mut self, candidates: usize) -> Self {
        self.ef_search = candidates;
        self
    }

    /// Sets the size up to which a search compares with every vector.
    #[must_use]
    pub fn scan_len_max(mut self, vectors: usize) -> Self {
        self.scan_len_max = vectors;
        self
    }

    /// Sets where exact vectors come from.
    #[must_use]
    pub fn rerank(mut self, rerank: Rerank) -> Self {
        self.rerank = rerank;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the vector instructions.
    #[must_use]
    pub fn path(mut self, path: Path) -> Self {
        self.path = path;
        self
    }

    pub(super) fn check(&self) -> Result<(), OptionsError> {
        check_dimensions(self.dimensions)?;
        if !(2..=64).contains(&self.m) {
            return Err(OptionsError { reason: "`m` is not between 2 and 64" });
        }
        if self.ef_construction < self.m {
            return Err(OptionsError { reason: "`ef_construction` is below `m`" });
        }
        Ok(())
    }

    /// Links that a node may have on a layer.
    pub(super) fn links_max(&self, layer: usize) -> usize {
        if layer == 0 { 2 * self.m } else { self.m }
    }
}
