//! Vectors, queries and the true neighbours, in files that every system reads.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use x0_ml::index::{ExactIndex, Metric, Search, VectorId, VectorIndex};

use super::Options;
use crate::random::Random;

/// A folder with `base.f32`, `queries.f32` and `truth.u32` (10 numbers a query).
pub(crate) struct Data {
    folder: tempfile::TempDir,
    pub(crate) source: String,
}

impl Data {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn make(options: &Options) -> Result<Self> {
        let count = options.vectors + options.queries;
        let (vectors, source) = match &options.from {
            Some(path) => (read(path, options.dimensions, count)?, format!("from {}", name(path))),
            None => (synthetic(options.dimensions, count, options.seed), "synthetic clusters".to_owned()),
        };
        let (base, queries) = vectors.split_at(options.vectors * options.dimensions);
        let mut exact = ExactIndex::new(options.dimensions, Metric::InnerProduct)?;
        for (id, vector) in base.chunks_exact(options.dimensions).enumerate() {
            exact.insert(VectorId(id as u64), vector)?;
        }
        let mut truth: Vec<u8> = Vec::new();
        for query in queries.chunks_exact(options.dimensions) {
            for near in exact.search(&Search::new(query, 10))? {
                truth.extend(u32::try_from(near.id.0)?.to_le_bytes());
            }
        }
        let folder = tempfile::Builder::new().prefix("x0-bench-rag-").tempdir_in("/var/tmp")?;
        let bytes =
            |numbers: &[f32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        std::fs::write(folder.path().join("base.f32"), bytes(base))?;
        std::fs::write(folder.path().join("queries.f32"), bytes(queries))?;
        std::fs::write(folder.path().join("truth.u32"), truth)?;
        Ok(Self { folder, source })
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Little-endian numbers of a file.
pub(crate) fn numbers(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn read(path: &Path, dimensions: usize, count: usize) -> Result<Vec<f32>> {
    let mut vectors = numbers(path)?;
    let found = vectors.len() / dimensions;
    ensure!(
        found >= count,
        "{} holds {found} vectors of {dimensions}, and {count} are needed",
        path.display()
    );
    vectors.truncate(count * dimensions);
    unit(&mut vectors, dimensions);
    Ok(vectors)
}

/// Unit vectors around centres, a fifth of them around centres of their own, as embeddings of texts lie.
pub(crate) fn synthetic(dimensions: usize, count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut normal = |scale: f32| {
        // The sum of four uniform numbers is close enough to normal.
        scale * (0..4).map(|_| (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>()
    };
    let clusters = (count / 50).max(1);
    let centres: Vec<f32> = (0..clusters * dimensions).map(|_| normal(1.0)).collect();
    let mut choice = Random::new(seed ^ 0x5eed);
    let mut vectors = Vec::with_capacity(count * dimensions);
    for _ in 0..count {
        let cluster = choice.below(u32::try_from(clusters).unwrap_or(u32::MAX)) as usize;
        let centre = &centres[cluster * dimensions..][..dimensions];
        vectors.extend(centre.iter().map(|centre| centre + normal(0.8)));
    }
    unit(&mut vectors, dimensions);
    vectors
}

fn unit(vectors: &mut [f32], dimensions: usize) {
    for vector in vectors.chunks_exact_mut(dimensions) {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        vector.iter_mut().for_each(|x| *x /= length);
    }
}
