//! `x0-faultbench sim`: the healers of a group in a model world of virtual time.
//!
//! Healthy days must end without a disruptive action: daily load, rolling restarts, a scale-out, checkpoints
//! and bursts that make all disks slow at once. In the faulty runs one member becomes slow, starved or dead,
//! and the first action must be the right one on the right member; or one crashes, and all others must know
//! it. The healers are those of `x0_mapek::kv`, with their messages and claims, and the detectors those of
//! `x0_mapek::suspicion`; what they read is drawn from the model. In the faulted hours the same healers run
//! beside whole nodes in the simulated world of `x0_kv::sim`, which checks the answers of clients. One seed
//! gives one decision log, byte for byte.

mod cluster;
mod crash;
mod world;

use std::collections::BTreeMap;
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
    /// The hours of whole nodes with faults of every kind
    #[arg(long, default_value_t = 4)]
    cluster_hours: u64,
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

/// A gray fault must be answered within this time, in this share of the runs.
const GRAY: (Duration, f64) = (Duration::from_secs(7), 0.9);
/// A crash must be known to all within this time, in this share of the runs.
const CRASH: (Duration, f64) = (Duration::from_secs(2), 0.99);
/// A thousand healthy days take this long on two processors, at most.
const DAYS_LIMIT: Duration = Duration::from_secs(1800);
/// A healthy day that acted is printed up to this number.
const PRINTED_MAX: usize = 5;
/// One of so many runs is played again.
const AGAIN: u64 = 100;
/// The length of a history of whole nodes.
const HOUR: Duration = Duration::from_secs(3600);

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
    /// How long the days took, and on how many threads.
    days_took_s: f64,
    threads: usize,
    /// Faulty runs by fault.
    faults: Vec<Row>,
    cluster: Cluster,
    /// Records of all healers, and what does not follow from one of them alone.
    records: u64,
    wrong_records: Vec<String>,
    /// Runs that were played again, and those whose decision log was another one.
    again: u64,
    differed: u64,
    /// A digest of all decision logs.
    digest: u64,
    took_s: f64,
}

/// The faulty runs of one fault.
#[derive(Debug, Clone, Default, Serialize)]
struct Row {
    fault: &'static str,
    runs: u64,
    /// Runs whose first action was the right one on the right member; of a crash, those in which all others
    /// knew of it.
    right: u64,
    /// Of these, within the limit, from the time at which the fault was one.
    limit_s: u64,
    in_time: u64,
    /// The share that must be.
    share: f64,
    /// Actions on another member, or of another kind; verdicts on one that is well.
    wrong: u64,
    /// The time to the first right action, in ms.
    median_ms: u64,
    worst_ms: u64,
}

/// The hours of whole nodes.
#[derive(Debug, Clone, Default, Serialize)]
struct Cluster {
    hours: f64,
    operations: u64,
    faults: u64,
    /// Violations, in words.
    violations: Vec<String>,
    by_minority: u64,
    actions: BTreeMap<&'static str, u64>,
    took_s: f64,
}

/// Plays all runs. Whether all limits hold.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let threads =
        options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let begun = Instant::now();
    let progress = ProgressBar::new(options.seeds + options.faults + options.cluster_hours);
    progress.set_style(ProgressStyle::with_template(
        "{bar:24} {pos}/{len} runs, {elapsed}, {eta} left  {wide_msg}",
    )?);
    let mut report = Report { threads, ..Report::default() };
    healthy_days(options, &progress, &mut report);
    faulty_runs(options, &progress, &mut report);
    cluster_hours(options, &progress, &mut report);
    progress.finish_and_clear();
    report.took_s = begun.elapsed().as_secs_f64();
    let verdicts = verdicts(&report);
    print!("{}", table(&report, &verdicts));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(verdicts.iter().all(|(holds, _)| *holds))
}

fn healthy_days(options: &Options, progress: &ProgressBar, report: &mut Report) {
    progress.set_message("healthy days");
    let begun = Instant::now();
    let lasts = Duration::from_secs_f64(options.hours.max(0.0) * 3600.0);
    let play = |number| healthy(options.seed + number, lasts);
    let days = each(report.threads, options.seeds, progress, play);
    report.days_took_s = begun.elapsed().as_secs_f64();
    (report.days, report.hours) = (options.seeds, options.hours * options.seeds as f64);
    again(report, &days, play);
    for (seed, day) in (options.seed..).zip(days) {
        report.wrong_acts += day.done.len() as u64;
        report.wrong.extend(day.done.into_iter().map(|what| (seed, what)));
        report.note(day.digest, day.records, day.wrong_records);
    }
}

fn faulty_runs(options: &Options, progress: &ProgressBar, report: &mut Report) {
    progress.set_message("faults");
    // The crash is one more kind of fault.
    let kinds = Fault::ALL.len() + 1;
    let fault = |number: u64| Fault::ALL.get(usize::try_from(number).unwrap_or(0) % kinds).copied();
    let play = |number| match fault(number) {
        Some(fault) => world::faulty(options.seed + number, fault),
        None => {
            let crash::Crash { known_after, wrong, digest } = crash::crash(options.seed + number);
            world::Run { right_after: known_after, wrong, digest, ..world::Run::default() }
        }
    };
    let runs = each(report.threads, options.faults, progress, play);
    again(report, &runs, play);
    for kind in Fault::ALL.into_iter().map(Some).chain([None]) {
        let of_kind = (0..).zip(&runs).filter(|(number, _)| fault(*number) == kind).map(|(_, run)| run);
        let of_kind: Vec<_> = of_kind.collect();
        let mut times: Vec<Duration> = of_kind.iter().filter_map(|run| run.right_after).collect();
        times.sort_unstable();
        let ms =
            |time: Option<&Duration>| time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0));
        let (limit, share) = if kind.is_some() { GRAY } else { CRASH };
        report.faults.push(Row {
            fault: kind.map_or("crash", Fault::name),
            runs: of_kind.len() as u64,
            right: times.len() as u64,
            limit_s: limit.as_secs(),
            in_time: times.iter().filter(|time| **time <= limit).count() as u64,
            share,
            wrong: of_kind.iter().map(|run| run.wrong).sum(),
            median_ms: ms(times.get(times.len() / 2)),
            worst_ms: ms(times.last()),
        });
    }
    for run in runs {
        report.note(run.digest, run.records, run.wrong_records);
    }
}

fn cluster_hours(options: &Options, progress: &ProgressBar, report: &mut Report) {
    progress.set_message("hours of whole nodes");
    let begun = Instant::now();
    let play = |number| Hour::play(options.seed + number);
    let hours = each(report.threads, options.cluster_hours, progress, play);
    again(report, &hours, play);
    for Hour { deeds, report: played, violation } in hours {
        let cluster = &mut report.cluster;
        cluster.violations.extend(violation);
        cluster.hours += played.virtual_hours();
        cluster.operations += played.operations;
        cluster.faults += played.crashes + played.kills + played.pauses + played.partitions;
        cluster.faults += played.asymmetric_cuts + played.disks_full + played.disk_errors;
        cluster.by_minority += deeds.by_minority;
        for (kind, count) in deeds.actions {
            *cluster.actions.entry(kind).or_default() += count;
        }
        report.note(deeds.digest, deeds.records, deeds.wrong_records);
    }
    report.cluster.took_s = begun.elapsed().as_secs_f64();
}

/// A history of whole nodes.
#[derive(Debug, Clone, PartialEq)]
struct Hour {
    deeds: cluster::Deeds,
    report: x0_kv::sim::Report,
    violation: Option<String>,
}

impl Hour {
    fn play(seed: u64) -> Hour {
        let (deeds, played) = cluster::hour(seed, HOUR);
        match played {
            Ok(report) => Hour { deeds, report, violation: None },
            Err(violation) => {
                let violation = *violation;
                Hour { deeds, violation: Some(violation.to_string()), report: violation.report }
            }
        }
    }
}

impl Report {
    fn note(&mut self, digest: u64, records: u64, wrong: Vec<String>) {
        self.digest = fold(self.digest, digest);
        self.records += records;
        self.wrong_records.extend(wrong);
    }
}

/// Plays one of [`AGAIN`] runs again, and the first one, and compares all that they did.
fn again<T: PartialEq>(report: &mut Report, runs: &[T], play: impl Fn(u64) -> T) {
    for (number, run) in (0..).zip(runs).step_by(usize::try_from(AGAIN).unwrap_or(usize::MAX)) {
        report.again += 1;
        report.differed += u64::from(*run != play(number));
    }
}

/// A healthy day: its disruptive actions, and its decision log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Day {
    done: Vec<String>,
    digest: u64,
    records: u64,
    wrong_records: Vec<String>,
}

fn healthy(seed: u64, lasts: Duration) -> Day {
    let mut world = World::new(seed);
    world.run_healthy(lasts);
    let done = world.done().iter().map(ToString::to_string).collect();
    let (digest, records, wrong_records) = world.log();
    Day { done, digest, records, wrong_records }
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

/// Each limit: whether it holds, and the figures.
fn verdicts(report: &Report) -> Vec<(bool, String)> {
    let mut all = Vec::new();
    if report.days > 0 {
        let what = format!(
            "{} disruptive actions in {} healthy days of {:.0} hours in all",
            report.wrong_acts, report.days, report.hours
        );
        all.push((report.wrong_acts == 0, what));
        // A few days say little about the time.
        if report.days >= 1000 {
            // As for two processors.
            let limit =
                DAYS_LIMIT.as_secs_f64() * report.hours / 24_000.0 * 2.0 / report.threads.max(1) as f64;
            let took = report.days_took_s;
            all.push((took <= limit, format!("the healthy days took {took:.0} s, of at most {limit:.0} s")));
        }
    }
    let gray: Vec<_> = report.faults.iter().filter(|row| row.share < CRASH.1).collect();
    let crashes: Vec<_> = report.faults.iter().filter(|row| row.share >= CRASH.1).collect();
    for (rows, what, (limit, share)) in
        [(gray, "faults answered rightly", GRAY), (crashes, "crashes known to all", CRASH)]
    {
        let runs: u64 = rows.iter().map(|row| row.runs).sum();
        if runs == 0 {
            continue;
        }
        let in_time: u64 = rows.iter().map(|row| row.in_time).sum();
        let found = in_time as f64 / runs as f64;
        let seconds = limit.as_secs();
        let what = format!(
            "{in_time} of {runs} {what} within {seconds} s: {:.1} %, of at least {:.0} %",
            found * 100.0,
            share * 100.0
        );
        all.push((found >= share, what));
        let wrong: u64 = rows.iter().map(|row| row.wrong).sum();
        all.push((wrong == 0, format!("{wrong} of them on a wrong member, or of a wrong kind")));
    }
    let Cluster { hours, operations, faults, violations, by_minority, actions, took_s } = &report.cluster;
    if *hours > 0.0 {
        let what = format!(
            "{} violations in {hours:.1} hours of whole nodes with {operations} operations and {faults} \
             faults, in {took_s:.0} s",
            violations.len()
        );
        all.push((violations.is_empty(), what));
        let actions: Vec<String> = actions.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let what = format!("{by_minority} actions by a minority; in all {}", actions.join(", "));
        all.push((*by_minority == 0, what));
    }
    let wrong = report.wrong_records.len();
    all.push((
        wrong == 0,
        format!("{wrong} of {} records have a number that does not follow", report.records),
    ));
    let (again, differed) = (report.again, report.differed);
    all.push((
        differed == 0,
        format!("{differed} of {again} runs gave another decision log when played again"),
    ));
    all
}

fn table(report: &Report, verdicts: &[(bool, String)]) -> String {
    let mut text = String::new();
    if report.faults.iter().any(|row| row.runs > 0) {
        text.push_str("  fault              runs  right  in time  wrong   median    worst\n");
    }
    for row in report.faults.iter().filter(|row| row.runs > 0) {
        text.push_str(&format!(
            "  {:16} {:6} {:6} {:8} {:6} {:5} ms {:5} ms\n",
            row.fault, row.runs, row.right, row.in_time, row.wrong, row.median_ms, row.worst_ms
        ));
    }
    text.push('\n');
    for (holds, what) in verdicts {
        text.push_str(&format!("{} {what}\n", if *holds { "holds" } else { "FAILS" }));
    }
    let wrong = report.wrong.iter().map(|(seed, what)| format!("  day of seed {seed}: {what}\n"));
    let violations = report.cluster.violations.iter().map(|what| format!("  {what}\n"));
    let records = report.wrong_records.iter().map(|what| format!("  {what}\n"));
    text.extend(wrong.take(PRINTED_MAX).chain(violations.take(PRINTED_MAX)).chain(records.take(PRINTED_MAX)));
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
        assert!(days.iter().all(|day| day.done.is_empty()), "{days:?}");
        assert!(days.iter().all(|day| day.records > 0 && day.wrong_records.is_empty()), "{days:?}");
        assert_eq!(days[2], healthy(2, lasts));
        assert_ne!(days[2].digest, days[3].digest);
        let mut report = Report::default();
        again(&mut report, &days, |number| healthy(number, lasts));
        assert_eq!((report.again, report.differed), (1, 0));
        again(&mut report, &days, |number| healthy(number + 1, lasts));
        assert_eq!((report.again, report.differed), (2, 1));
    }

    #[test]
    fn faults_are_answered_on_the_right_member() {
        for seed in 0..30 {
            for fault in Fault::ALL {
                let run = world::faulty(seed, fault);
                assert_eq!(run.wrong, 0, "{fault:?}, seed {seed}");
                assert!(run.right_after.is_some(), "{fault:?}, seed {seed}");
                assert!(run.records > 0 && run.wrong_records.is_empty(), "{fault:?}, seed {seed}: {run:?}");
                assert_eq!(run, world::faulty(seed, fault));
            }
        }
    }

    /// A report in which every limit holds, just so.
    fn good() -> Report {
        let row = |share, in_time| Row { runs: 100, right: in_time, in_time, share, ..Row::default() };
        Report {
            days: 1000,
            hours: 24_000.0,
            days_took_s: 1800.0,
            threads: 2,
            faults: vec![row(GRAY.1, 90), row(CRASH.1, 99)],
            cluster: Cluster { hours: 200.0, ..Cluster::default() },
            records: 7,
            again: 3,
            ..Report::default()
        }
    }

    #[test]
    fn every_limit_fails_the_run() {
        assert!(verdicts(&good()).iter().all(|(holds, _)| *holds), "{:?}", verdicts(&good()));
        let breaks: [fn(&mut Report); 10] = [
            |report| report.wrong_acts = 1,
            |report| report.days_took_s = 1801.0,
            |report| report.faults[0].in_time = 89,
            |report| report.faults[1].in_time = 98,
            |report| report.faults[0].wrong = 1,
            |report| report.faults[1].wrong = 1,
            |report| report.cluster.violations.push("lost".into()),
            |report| report.cluster.by_minority = 1,
            |report| report.wrong_records.push("damaged".into()),
            |report| report.differed = 1,
        ];
        for (number, break_it) in breaks.into_iter().enumerate() {
            let mut report = good();
            break_it(&mut report);
            let failed = verdicts(&report).iter().filter(|(holds, _)| !holds).count();
            assert_eq!(failed, 1, "{number}");
            assert!(table(&report, &verdicts(&report)).contains("FAILS"), "{number}");
        }
    }
}
