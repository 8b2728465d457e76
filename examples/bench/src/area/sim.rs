//! Hours of a five-node cluster in virtual time, under faults of every kind, with checked histories.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use x0_kv::sim::{Report, Scenario, run as play};

use crate::row::{self, Row};

/// A cluster in virtual time, with faults of every kind and checked histories.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Cluster-hours to simulate, each with a seed of its own
    #[arg(long, default_value_t = 100)]
    pub(crate) hours: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads; by default as many as there are processors
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Simulate this many short histories in which folders are damaged, emptied and rolled back, instead of
    /// hours
    #[arg(long, value_name = "N", conflicts_with_all = ["hours", "dense"])]
    pub(crate) histories: Option<u64>,
    /// Simulate minutes full of faults instead of hours with a fault every few seconds; `hours` counts both
    #[arg(long)]
    pub(crate) dense: bool,
    /// Write the counts as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Simulates until the hours are complete or a violation is found.
pub(crate) fn run(options: &Options) -> Result<()> {
    let threads = match options.threads {
        Some(threads) => threads.max(1),
        None => std::thread::available_parallelism()?.get(),
    };
    let (count, unit) = match options.histories {
        Some(histories) => (histories, "histories"),
        None => (options.hours, "hours"),
    };
    let progress = ProgressBar::new(count);
    let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{elapsed}} of {{duration}}  {{wide_msg}}");
    progress.set_style(ProgressStyle::with_template(&template)?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Report::default());
    let violation = Mutex::new(None);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || lock(&violation).is_some() {
                return;
            }
            match hour(options, options.seed + number) {
                Ok(report) => lock(&total).add(&report),
                Err(found) => *lock(&violation) = Some(found),
            }
            progress.inc(1);
            let seen = lock(&total);
            progress.set_message(format!(
                "{} operations, {} crashes, {} elections",
                seen.operations, seen.crashes, seen.elections
            ));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    progress.finish_and_clear();
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{:<22} {:>16.1}", "virtual hours", total.virtual_hours());
    for (name, count) in total.counts() {
        println!("{name:<22} {count:>16}");
    }
    println!("{:<22} {:>16.1}", "minutes it took", begun.elapsed().as_secs_f64() / 60.0);
    if let Some(path) = &options.json {
        let hours = ("virtual hours", total.virtual_hours());
        // Counts are far below 2^53.
        let counts = total.counts().into_iter().map(|(name, count)| (name, count as f64));
        let rows: Vec<Row> =
            std::iter::once(hours).chain(counts).map(|(metric, value)| alone(metric, value)).collect();
        row::write(path, &rows)?;
    }
    match violation.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(violation) => bail!("{violation}"),
        None => Ok(()),
    }
}

fn alone(metric: &'static str, value: f64) -> Row {
    let (case, peer_name) = ("five nodes".to_owned(), "none: a simulation has no peer".to_owned());
    Row { area: "sim", case, metric, unit: "1", x0: Some(value), peer: None, peer_name, ratio: None }
}

/// One hour, of one scenario or of many short ones; or one short history.
fn hour(options: &Options, seed: u64) -> Result<Report, String> {
    let tell = |violation: Box<x0_kv::sim::Violation>| violation.to_string();
    if options.histories.is_some() {
        return play(&Scenario::amnesia(seed)).map_err(tell);
    }
    if !options.dense {
        return play(&Scenario::hour(seed)).map_err(tell);
    }
    let mut total = Report::default();
    for minute in 0.. {
        if total.virtual_hours() >= 1.0 {
            break;
        }
        total.add(&play(&Scenario::new(seed * 1000 + minute)).map_err(tell)?);
    }
    Ok(total)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
