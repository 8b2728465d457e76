//! Vectors, queries and the true neighbours, in files that every system reads.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use x0_ml::index::{ExactIndex, Metric, Search, VectorId, VectorIndex};

use super::{Options, passages};
use crate::random::Random;

/// A folder with `base.f32`, `queries.f32`, `truth.u32` (10 numbers a query), and for churn `churn.f32`: a
/// quarter of new vectors for each round.
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
            None if cfg!(feature = "minilm") && !options.synthetic => passages::vectors(options, count)?,
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
        let mut churn = std::io::BufWriter::new(std::fs::File::create(folder.path().join("churn.f32"))?);
        let mut random = Random::new(options.seed ^ 0xc4);
        for _ in 0..options.rounds {
            for _ in 0..options.vectors / 4 {
                churn.write_all(&bytes(&near(base, options.dimensions, &mut random)))?;
            }
        }
        churn.flush()?;
        Ok(Self { folder, source })
    }
}

/// A unit vector near a random one of `base`: at a cosine of about 0.93 for 384 components.
fn near(base: &[f32], dimensions: usize, random: &mut Random) -> Vec<f32> {
    let count = u32::try_from(base.len() / dimensions).unwrap_or(u32::MAX);
    let start = random.below(count) as usize * dimensions;
    let mut vector = base[start..start + dimensions].to_vec();
    vector.iter_mut().for_each(|x| *x += normal(random, 0.035));
    unit(&mut vector, dimensions);
    vector
}

/// The sum of four uniform numbers is close enough to normal; its deviation is 0.58 times `scale`.
fn normal(random: &mut Random, scale: f32) -> f32 {
    scale * (0..4).map(|_| (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>()
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
fn synthetic(dimensions: usize, count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let clusters = (count / 50).max(1);
    let centres: Vec<f32> = (0..clusters * dimensions).map(|_| normal(&mut random, 1.0)).collect();
    let mut choice = Random::new(seed ^ 0x5eed);
    let mut vectors = Vec::with_capacity(count * dimensions);
    for _ in 0..count {
        let cluster = choice.below(u32::try_from(clusters).unwrap_or(u32::MAX)) as usize;
        let centre = &centres[cluster * dimensions..][..dimensions];
        vectors.extend(centre.iter().map(|centre| centre + normal(&mut random, 0.8)));
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
