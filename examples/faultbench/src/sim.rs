//! `x0-faultbench sim`: the healers of a group in a model world of virtual time.
//!
//! Healthy days must end without a disruptive action: daily load, rolling restarts, a scale-out, checkpoints
//! and bursts that make all disks slow at once. In the faulty runs one member becomes slow, starved or dead,
//! and the first action must be the right one on the right member. The healers are those of `x0_mapek::kv`,
//! with their messages and claims; what they read is drawn from the model. One seed gives one decision log,
//! byte for byte.

mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::world::{Fault, World};
use crate::random::Random;

/// The seeds and the length of a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The seeds of healthy days
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The length of a healthy day, in hours
    #[arg(long, default_value_t = 24.0)]
    hours: f64,
    /// The faulty runs
    #[arg(long, default_value_t = 1000)]
    faults: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The threads; all processors unless set
    #[arg(long)]
    threads: Option<usize>,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A gray fault must be answered within this time.
const GRAY_LIMIT: Duration = Duration::from_secs(7);
/// A healthy day that acted is printed up to this number.
const PRINTED_MAX: usize = 5;

/// The result of all runs.
#[derive(Debug, Clone, Default, Serialize)]
struct Report {
    /// Healthy days, and the hours of all of them.
    days: u64,
    hours: f64,
    /// Disruptive actions in healthy days.
    wrong_acts: u64,
    /// The days with one, by seed, and what was done.
    wrong: Vec<(u64, String)>,
    /// Faulty runs by fault.
    faults: Vec<Row>,
    /// A digest of all decision logs.
    digest: u64,
    took_s: f64,
}

/// The faulty runs of one fault.
#[derive(Debug, Clone, Default, Serialize)]
struct Row {
    fault: &'static str,
    runs: u64,
    /// Runs whose first action was the right one on the right member.
    right: u64,
    /// Of these, within [`GRAY_LIMIT`] of the time at which the fault was one.
    in_time: u64,
    /// Actions on another member, or of another kind.
    wrong: u64,
    /// The time to the first right action, in ms.
    median_ms: u64,
    worst_ms: u64,
}

/// Plays all runs. Whether no action was wrong.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let threads =
        options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let begun = Instant::now();
    let lasts = Duration::from_secs_f64(options.hours.max(0.0) * 3600.0);
    let progress = ProgressBar::new(options.seeds + options.faults);
    progress.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len} runs, {elapsed}, {eta} left")?);
    let days = each(threads, options.seeds, &progress, |number| healthy(options.seed + number, lasts));
    let faulty = each(threads, options.faults, &progress, |number| {
        let fault = Fault::ALL[usize::try_from(number).unwrap_or(0) % Fault::ALL.len()];
        (fault, world::faulty(options.seed + number, fault))
    });
    progress.finish_and_clear();

    let mut report =
        Report { days: options.seeds, hours: options.hours * options.seeds as f64, ..Report::default() };
    for (seed, (done, digest)) in days {
        report.wrong_acts += done.len() as u64;
        report.wrong.extend(done.into_iter().map(|what| (seed, what)));
        report.digest = fold(report.digest, digest);
    }
    for fault in Fault::ALL {
        let runs: Vec<_> = faulty.iter().filter(|(of, _)| *of == fault).map(|(_, run)| run).collect();
        let mut times: Vec<Duration> = runs.iter().filter_map(|run| run.right_after).collect();
        times.sort_unstable();
        let ms =
            |time: Option<&Duration>| time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0));
        report.faults.push(Row {
            fault: fault.name(),
            runs: runs.len() as u64,
            right: times.len() as u64,
            in_time: times.iter().filter(|time| **time <= GRAY_LIMIT).count() as u64,
            wrong: runs.iter().map(|run| run.wrong).sum(),
            median_ms: ms(times.get(times.len() / 2)),
            worst_ms: ms(times.last()),
        });
    }
    for (_, run) in &faulty {
        report.digest = fold(report.digest, run.digest);
    }
    report.took_s = begun.elapsed().as_secs_f64();
    print!("{}", table(&report));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.wrong_acts == 0 && report.faults.iter().all(|row| row.wrong == 0))
}

/// The disruptive actions of a healthy day, and the digest of its decision log.
fn healthy(seed: u64, lasts: Duration) -> (u64, (Vec<String>, u64)) {
    let mut world = World::new(seed);
    world.run_healthy(lasts);
    (seed, (world.done().iter().map(ToString::to_string).collect(), world.digest()))
}

/// Runs `count` numbered pieces of work on some threads. The results in the order of their numbers.
fn each<T: Send>(
    threads: usize,
    count: u64,
    progress: &ProgressBar,
    work: impl Fn(u64) -> T + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(0);
    let piece = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, work(number)));
            progress.inc(1);
        }
    };
    let mut all: Vec<(u64, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(piece)).collect();
        // A panic of a run is one of this program.
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, result)| result).collect()
}

/// Adds a number to a digest; the order counts.
fn fold(digest: u64, number: u64) -> u64 {
    Random::new(digest.rotate_left(1) ^ number).next()
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{} healthy days, {:.0} hours: {} disruptive actions\n",
        report.days, report.hours, report.wrong_acts
    );
    for (seed, what) in report.wrong.iter().take(PRINTED_MAX) {
        text.push_str(&format!("  seed {seed}: {what}\n"));
    }
    if report.faults.iter().any(|row| row.runs > 0) {
        text.push_str("\n  fault              runs  right  within 7 s  wrong   median    worst\n");
    }
    for row in report.faults.iter().filter(|row| row.runs > 0) {
        text.push_str(&format!(
            "  {:16} {:6} {:6} {:11} {:6} {:5} ms {:5} ms\n",
            row.fault, row.runs, row.right, row.in_time, row.wrong, row.median_ms, row.worst_ms
        ));
    }
    text.push_str(&format!("\ndecision log {:016x}, in {:.0} s\n", report.digest, report.took_s));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_hours_pass_without_an_action_and_one_seed_gives_one_log() {
        let lasts = Duration::from_secs(2 * 3600);
        let progress = ProgressBar::hidden();
        let days = each(2, 4, &progress, |number| healthy(number, lasts));
        assert!(days.iter().all(|(_, (done, _))| done.is_empty()), "{days:?}");
        assert_eq!(days[2], healthy(2, lasts));
        assert_ne!(days[2].1.1, days[3].1.1);
    }

    #[test]
    fn faults_are_answered_on_the_right_member() {
        for seed in 0..30 {
            for fault in Fault::ALL {
                let run = world::faulty(seed, fault);
                assert_eq!(run.wrong, 0, "{fault:?}, seed {seed}");
                assert!(run.right_after.is_some(), "{fault:?}, seed {seed}");
                assert_eq!(run, world::faulty(seed, fault));
            }
        }
    }
}
