//! Rankings by meaning, and vectors of passages.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use x0_ml::chunk::{ChunkId, TokenSpans};
use x0_ml::embed::{Embedder, EmbeddingCache};
use x0_ml::file::DiskFolder;
use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions, Metric, Neighbour, Search, VectorId, VectorIndex};

use super::Chunks;
use super::corpus::Corpus;
use crate::peer::debian;

/// Chunks of one call of the model.
const BATCH: usize = 64;

/// A model.
pub(crate) struct Dense {
    model: Box<dyn Embedder>,
    tokens: Box<dyn TokenSpans + Send + Sync>,
}

impl Dense {
    #[cfg(feature = "minilm")]
    pub(crate) fn load(folder: &Path, threads: usize) -> Result<Self> {
        use x0_ml::embed::{MiniLm, MiniLmOptions, Overflow};
        let options = MiniLmOptions::new().threads(threads).overflow(Overflow::Truncate);
        let model = MiniLm::from_folder(folder, options)?;
        let tokens = Box::new(model.tokens());
        Ok(Self { model: Box::new(model), tokens })
    }

    #[cfg(not(feature = "minilm"))]
    pub(crate) fn load(folder: &Path, _threads: usize) -> Result<Self> {
        anyhow::bail!("cannot load {}: build x0-bench with --features minilm", folder.display())
    }

    pub(crate) fn tokens(&self) -> &dyn TokenSpans {
        &*self.tokens
    }

    /// The vectors of texts that fit the model, in their order.
    pub(crate) fn embed(&self, texts: &[&str]) -> Result<Vec<f32>> {
        let mut vectors = vec![0.0; texts.len() * self.model.dimensions()];
        self.model.embed(texts, &mut vectors)?;
        Ok(vectors)
    }

    /// The vectors of texts, in their order. They are kept in the file `name` in x0-bench's folder, so that
    /// another run does not compute them again.
    pub(crate) fn vectors(&self, name: &str, texts: &[(ChunkId, &str)]) -> Result<Vec<f32>> {
        let dimensions = self.model.dimensions();
        let mut folder = DiskFolder::new(debian::root("rag-vectors"))?;
        let (mut cache, _) = EmbeddingCache::open(&mut folder, name, *self.model.model(), dimensions)?;
        let missing: Vec<_> = texts.iter().filter(|(id, _)| !cache.contains(id)).collect();
        let (begun, mut tokens) = (Instant::now(), 0);
        for (done, batch) in missing.chunks(BATCH).enumerate() {
            let texts: Vec<&str> = batch.iter().map(|(_, text)| *text).collect();
            let mut vectors = vec![0.0; texts.len() * dimensions];
            tokens += self.model.embed(&texts, &mut vectors)?.tokens;
            let records: Vec<_> =
                batch.iter().map(|(id, _)| *id).zip(vectors.chunks_exact(dimensions)).collect();
            cache.put(&mut folder, &records)?;
            let (done, seconds) = (done * BATCH + batch.len(), begun.elapsed().as_secs_f64());
            eprintln!(
                "embedded {done} of {} texts, {:.1} texts/s, {:.0} tokens/s",
                missing.len(),
                done as f64 / seconds,
                tokens as f64 / seconds
            );
        }
        let mut vectors = vec![0.0; texts.len() * dimensions];
        for ((id, _), vector) in texts.iter().zip(vectors.chunks_exact_mut(dimensions)) {
            ensure!(cache.get(&mut folder, id, vector)?, "a vector is missing in the cache");
        }
        Ok(vectors)
    }

    /// Indexes over all chunks, and the vectors of the queries.
    pub(crate) fn index(&self, corpus: &Corpus, chunks: &Chunks) -> Result<Indexed> {
        let dimensions = self.model.dimensions();
        let texts: Vec<_> = chunks
            .chunks
            .iter()
            .map(|(page, chunk)| (chunk.id, &corpus.pages[*page].text[chunk.span.clone()]))
            .collect();
        let vectors = self.vectors("quality.cache", &texts)?;
        let mut exact = ExactIndex::new(dimensions, Metric::Cosine)?;
        let mut graph = HnswIndex::new(HnswOptions::new(dimensions, Metric::Cosine).scan_len_max(0))?;
        for (id, vector) in vectors.chunks_exact(dimensions).enumerate() {
            exact.insert(VectorId(id as u64), vector)?;
            graph.insert(VectorId(id as u64), vector)?;
        }
        let mut queries = vec![0.0; corpus.queries.len() * dimensions];
        for (batch, vectors) in corpus.queries.chunks(BATCH).zip(queries.chunks_mut(BATCH * dimensions)) {
            let texts: Vec<&str> = batch.iter().map(|query| query.text.as_str()).collect();
            self.model.embed(&texts, vectors)?;
        }
        Ok(Indexed { exact, graph, queries, dimensions })
    }
}

pub(crate) struct Indexed {
    exact: ExactIndex,
    graph: HnswIndex,
    queries: Vec<f32>,
    dimensions: usize,
}

impl Indexed {
    fn vector(&self, query: usize) -> &[f32] {
        &self.queries[query * self.dimensions..][..self.dimensions]
    }

    pub(crate) fn exact(&self, query: usize, k: usize) -> Result<Vec<Neighbour>> {
        Ok(self.exact.search(&Search::new(self.vector(query), k))?)
    }

    pub(crate) fn graph(&self, query: usize, k: usize) -> Result<Vec<Neighbour>> {
        Ok(self.graph.search(&Search::new(self.vector(query), k))?)
    }
}
