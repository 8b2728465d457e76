//! The process that measures x0-ml.

use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use x0_ml::index::{
    ExactIndex, Filter, HnswIndex, HnswOptions, Metric, Neighbour, Rerank, Search, SourceError, VectorId,
    VectorIndex, VectorSource,
};

use super::{Churn, Filtered, Point, Report, data, graphs};
use crate::procfs;

/// The request to the worker.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    folder: PathBuf,
    dimensions: usize,
    m: usize,
    ef_construction: usize,
    rounds: usize,
    seed: u64,
    /// The system to measure
    #[arg(long, value_enum, default_value_t = System::Memory)]
    system: System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    /// x0-ml with the exact vectors in memory
    Memory,
    /// x0-ml with the exact vectors in the file
    Source,
    /// hnsw_rs
    HnswRs,
    /// usearch with 8-bit codes
    Usearch,
}

impl System {
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Source => "source",
            Self::HnswRs => "hnsw-rs",
            Self::Usearch => "usearch",
        }
    }
}

/// What is measured of every system.
pub(super) trait Graph {
    fn insert(&mut self, id: u64, vector: &[f32]) -> Result<()>;

    /// The 10 nearest, with this many candidates.
    fn search(&self, query: &[f32], ef: usize) -> Result<Vec<u64>>;

    /// The 10 nearest that pass.
    fn filtered(&self, query: &[f32], passes: Filter<'_>) -> Result<Vec<u64>>;
}

/// x0-ml's index.
struct Own(HnswIndex);

impl Graph for Own {
    fn insert(&mut self, id: u64, vector: &[f32]) -> Result<()> {
        Ok(self.0.insert(VectorId(id), vector)?)
    }

    fn search(&self, query: &[f32], ef: usize) -> Result<Vec<u64>> {
        Ok(ids(&self.0.search(&Search::new(query, 10).effort(ef))?))
    }

    fn filtered(&self, query: &[f32], passes: Filter<'_>) -> Result<Vec<u64>> {
        Ok(ids(&self.0.search(&Search::new(query, 10).filter(passes))?))
    }
}

fn ids(found: &[Neighbour]) -> Vec<u64> {
    found.iter().map(|near| near.id.0).collect()
}

/// Vectors in the file of the data.
struct File(std::fs::File);

impl VectorSource for File {
    fn read(&self, id: VectorId, vector: &mut [f32]) -> Result<(), SourceError> {
        let mut bytes = vec![0; vector.len() * 4];
        let offset = id.0 * bytes.len() as u64;
        let read = self.0.read_exact_at(&mut bytes, offset);
        read.map_err(|source| SourceError { id, source })?;
        for (component, bytes) in vector.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *component = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

/// Processor time of this process.
pub(super) fn cpu() -> Result<Duration> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(used.tv_sec)?, u32::try_from(used.tv_nsec)?))
}

fn resident() -> Result<f64> {
    Ok(procfs::resident(&[std::process::id()])? as f64)
}

/// Measures and prints the report.
pub(crate) fn run(options: &Options) -> Result<()> {
    let before = resident()?;
    let path = options.folder.join("base.f32");
    let mut settings = HnswOptions::new(options.dimensions, Metric::InnerProduct)
        .m(options.m)
        .ef_construction(options.ef_construction)
        .scan_len_max(0)
        .seed(options.seed);
    let report = match options.system {
        System::Memory => {
            let mut own = Own(HnswIndex::new(settings.clone())?);
            let mut report = measure(&mut own, options, before, true)?;
            if options.rounds > 0 {
                report.churn = Some(churn(&mut own.0, &settings, options)?);
            }
            report
        }
        System::Source => {
            settings = settings.rerank(Rerank::Source(Arc::new(File(std::fs::File::open(path)?))));
            measure(&mut Own(HnswIndex::new(settings)?), options, before, false)?
        }
        System::HnswRs | System::Usearch => {
            let count = usize::try_from(std::fs::metadata(path)?.len())? / (4 * options.dimensions);
            let mut graph =
                graphs::open(options.system, options.dimensions, options.m, options.ef_construction, count)?;
            measure(graph.as_mut(), options, before, true)?
        }
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn measure(graph: &mut dyn Graph, options: &Options, before: f64, is_filtered: bool) -> Result<Report> {
    // Read in parts, so that the process never holds all vectors beside the index.
    let file = std::fs::File::open(options.folder.join("base.f32"))?;
    let count = usize::try_from(file.metadata()?.len())? / (4 * options.dimensions);
    let mut bytes = vec![0; 4 * options.dimensions];
    let mut vector = vec![0.0; options.dimensions];
    let began = cpu()?;
    for id in 0..count as u64 {
        file.read_exact_at(&mut bytes, id * 4 * options.dimensions as u64)?;
        for (component, bytes) in vector.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *component = f32::from_le_bytes(*bytes);
        }
        graph.insert(id, &vector)?;
    }
    let build_s = (cpu()? - began).as_secs_f64();
    let memory_mb = (resident()? - before) / 1e6;
    let queries = data::numbers(&options.folder.join("queries.f32"))?;
    let truth = std::fs::read(options.folder.join("truth.u32"))?;
    let truth: Vec<u64> = truth.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id).into()).collect();
    let mut points = Vec::new();
    for ef in [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512] {
        let began = cpu()?;
        let mut found = Vec::new();
        for query in queries.chunks_exact(options.dimensions) {
            found.push(graph.search(query, ef)?);
        }
        let query_us = (cpu()? - began).as_secs_f64() * 1e6 / found.len() as f64;
        let hits: usize = found
            .iter()
            .zip(truth.chunks_exact(10))
            .map(|(found, truth)| found.iter().filter(|id| truth.contains(id)).count())
            .sum();
        points.push(Point { ef, recall: hits as f64 / (found.len() * 10) as f64, query_us });
    }
    let filters = if is_filtered { filters(graph, &queries, options, count)? } else { Vec::new() };
    let name = options.system.argument().to_owned();
    Ok(Report { name, build_s, memory_mb, points, churn: None, filters })
}

/// Queries with filters, beside two scans of the vectors that pass. The exact one compares `f32` vectors
/// where they are among all others. The other one takes the same kernels over 8-bit codes and the same
/// ranking, and its vectors lie side by side, as in an index of them alone. Both ask the filter for every
/// vector.
fn filters(graph: &dyn Graph, queries: &[f32], options: &Options, count: usize) -> Result<Vec<Filtered>> {
    let base = data::numbers(&options.folder.join("base.f32"))?;
    let vector = |id: usize| &base[id * options.dimensions..][..options.dimensions];
    let mut exact = ExactIndex::new(options.dimensions, Metric::InnerProduct)?;
    for id in 0..count {
        exact.insert(VectorId(id as u64), vector(id))?;
    }
    let mut reports = Vec::new();
    for one_of in [2_u64, 10, 100, 1000] {
        let passes = move |id: VectorId| (id.0.wrapping_mul(0x9e37_79b9) >> 7).is_multiple_of(one_of);
        let passing: Vec<usize> = (0..count).filter(|id| passes(VectorId(*id as u64))).collect();
        // A graph index of the passing vectors that always scans.
        let all = HnswOptions::new(options.dimensions, Metric::InnerProduct).m(2).ef_construction(2);
        let mut scan = HnswIndex::new(all.scan_len_max(usize::MAX))?;
        for id in &passing {
            scan.insert(VectorId(*id as u64), vector(*id))?;
        }
        let (mut hits, mut wanted) = (0, 0);
        let (mut walk_us, mut exact_us, mut scan_us) = (0.0, 0.0, 0.0);
        for query in queries.chunks_exact(options.dimensions) {
            let began = cpu()?;
            let found = graph.filtered(query, &passes)?;
            walk_us += (cpu()? - began).as_secs_f64() * 1e6;
            let began = cpu()?;
            exact.search(&Search::new(query, 10).filter(&passes))?;
            exact_us += (cpu()? - began).as_secs_f64() * 1e6;
            let began = cpu()?;
            // A scan has to know which vectors pass, and calls the same function as the search.
            let filter: Filter<'_> = std::hint::black_box(&passes);
            std::hint::black_box((0..count as u64).filter(|id| filter(VectorId(*id))).count());
            scan.search(&Search::new(query, 10))?;
            scan_us += (cpu()? - began).as_secs_f64() * 1e6;
            let truth: HashSet<u64> = nearest(query, &passing, &vector);
            wanted += truth.len();
            hits += found.iter().filter(|id| truth.contains(id)).count();
        }
        let asked = (queries.len() / options.dimensions) as f64;
        reports.push(Filtered {
            one_of: usize::try_from(one_of)?,
            recall: hits as f64 / (wanted as f64).max(1.0),
            query_us: walk_us / asked,
            exact_us: exact_us / asked,
            scan_us: scan_us / asked,
        });
    }
    Ok(reports)
}

/// The 10 nearest of `among` by `f32` inner products.
fn nearest<'a>(query: &[f32], among: &[usize], vector: &dyn Fn(usize) -> &'a [f32]) -> HashSet<u64> {
    let path = x0_ml::simd::Path::detect();
    let mut scores: Vec<(f32, usize)> =
        among.iter().map(|id| (path.dot_f32(query, vector(*id)), *id)).collect();
    scores.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scores.into_iter().take(10).map(|(_, id)| id as u64).collect()
}

/// Rounds that each replace a quarter of the vectors by new ones, then recall of this index and of a fresh
/// one.
fn churn(index: &mut HnswIndex, settings: &HnswOptions, options: &Options) -> Result<Churn> {
    let dimensions = options.dimensions;
    let mut live = data::numbers(&options.folder.join("base.f32"))?;
    let queries = data::numbers(&options.folder.join("queries.f32"))?;
    let count = live.len() / dimensions;
    let quarter = count / 4;
    let file = std::fs::File::open(options.folder.join("churn.f32"))?;
    let mut bytes = vec![0; 4 * dimensions];
    let before = index.memory_len() as f64;
    for change in 0..options.rounds * quarter {
        let id = change % quarter + (change / quarter * quarter) % count;
        file.read_exact_at(&mut bytes, (change * 4 * dimensions) as u64)?;
        let vector = &mut live[id % count * dimensions..][..dimensions];
        for (component, bytes) in vector.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *component = f32::from_le_bytes(*bytes);
        }
        index.remove(VectorId((id % count) as u64));
        index.insert(VectorId((id % count) as u64), vector)?;
    }
    let memory = index.memory_len() as f64 / before;
    let mut fresh = HnswIndex::new(settings.clone())?;
    for (id, vector) in live.chunks_exact(dimensions).enumerate() {
        fresh.insert(VectorId(id as u64), vector)?;
    }
    let all: Vec<usize> = (0..count).collect();
    let vector = |id: usize| &live[id * dimensions..][..dimensions];
    let (mut churned, mut built, mut wanted) = (0, 0, 0);
    for query in queries.chunks_exact(dimensions) {
        let truth = nearest(query, &all, &vector);
        let hits = |index: &HnswIndex| -> Result<usize> {
            let found = index.search(&Search::new(query, 10).effort(128))?;
            Ok(found.iter().filter(|near| truth.contains(&near.id.0)).count())
        };
        churned += hits(index)?;
        built += hits(&fresh)?;
        wanted += truth.len();
    }
    let share = |hits: usize| hits as f64 / wanted as f64;
    Ok(Churn { recall: share(churned), fresh_recall: share(built), memory })
}
