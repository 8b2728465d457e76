//! Vectors in clusters, and the comparison with the exact index.

use std::collections::HashSet;

use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions, Metric, Search, VectorId, VectorIndex};

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// About normal, mean 0.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum()
    }
}

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
