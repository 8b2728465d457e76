//! Vectors in clusters, and the comparison with the exact index.

use std::collections::HashSet;

use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions, Metric, Search, VectorId, VectorIndex};

use crate::random::Random;

/// Vectors around centres, as embeddings lie: `spread` is their distance from the centre.
pub(crate) struct Vectors {
    centres: Vec<Vec<f32>>,
    random: Random,
    spread: f32,
}

impl Vectors {
    pub(crate) fn new(dimensions: usize, centres: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let centres = (0..centres).map(|_| (0..dimensions).map(|_| random.normal()).collect()).collect();
        Self { centres, random, spread: 0.7 }
    }

    pub(crate) fn next(&mut self) -> Vec<f32> {
        let centre = self.random.below(self.centres.len());
        let random = &mut self.random;
        self.centres[centre].iter().map(|c| c + self.spread * random.normal()).collect()
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Vec<f32>> {
        (0..count).map(|_| self.next()).collect()
    }
}

pub(crate) fn hnsw(options: HnswOptions, vectors: &[Vec<f32>]) -> HnswIndex {
    let mut index = HnswIndex::new(options).unwrap();
    for (id, vector) in vectors.iter().enumerate() {
        index.insert(VectorId(id as u64), vector).unwrap();
    }
    index
}

pub(crate) fn exact(dimensions: usize, metric: Metric, vectors: &[Vec<f32>]) -> ExactIndex {
    let mut index = ExactIndex::new(dimensions, metric).unwrap();
    for (id, vector) in vectors.iter().enumerate() {
        index.insert(VectorId(id as u64), vector).unwrap();
    }
    index
}

/// The share of the 10 nearest that `index` finds.
pub(crate) fn recall(index: &dyn VectorIndex, exact: &dyn VectorIndex, queries: &[Vec<f32>]) -> f64 {
    let mut found = 0;
    for query in queries {
        let search = Search::new(query, 10);
        let truth: HashSet<VectorId> = exact.search(&search).unwrap().iter().map(|near| near.id).collect();
        found += index.search(&search).unwrap().iter().filter(|near| truth.contains(&near.id)).count();
    }
    found as f64 / (queries.len() * 10) as f64
}
