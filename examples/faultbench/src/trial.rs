//! `x0-faultbench run`: faults, systems and seeds in turn, each as one trial.
//!
//! A trial starts three machines, each with a network namespace, control groups and a disk of its own, and
//! one client process that puts keys at a fixed rate. Then a fault is injected and kept until the end of the
//! measurement. Then it ends, and every acknowledged write must be there.

mod cluster;
mod events;
mod fault;
mod inject;
mod judge;
mod machine;
mod measure;
mod result;
mod session;
mod system;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use self::fault::Fault;
#[cfg(test)]
pub(crate) use self::judge::Event;
pub(crate) use self::judge::Stage;
pub(crate) use self::measure::{Sample, Sli, between, median};
pub(crate) use self::result::Outcome;
#[cfg(test)]
pub(crate) use self::result::tests::example;
pub(crate) use self::system::System;
use crate::arena::private_mounts;
use crate::program;

/// The voters of a cluster, of every system.
const VOTERS: usize = 3;
/// The load before an injection, without which it has no baseline.
const WARM: Duration = Duration::from_secs(3);
/// The healer of x0 does nothing in its first ten seconds.
const GRACE: Duration = Duration::from_secs(11);
/// The time of a trial besides its fault, for the estimate of the time that is left.
const AROUND: Duration = Duration::from_secs(12);

/// The trials of a run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Only these faults; without it all
    #[arg(long, value_delimiter = ',', value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Only these systems; without it all that can run
    #[arg(long, value_delimiter = ',', value_name = "SYSTEM")]
    systems: Vec<System>,
    /// The number of seeds: 1, 2 and so on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// How long a fault lasts, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Ten faults of 10 s once on x0, and one of them on none and supervisord. Fails if x0 loses a write,
    /// makes a wrong action or does not bring the service back
    #[arg(long, conflicts_with_all = ["seeds", "seconds", "systems"])]
    quick: bool,
    /// The folder of the results; trials whose result is there are skipped
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The program of a node; without it `X0_NODE`, then `x0-node` beside this program
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
}

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trial {
    fault: Fault,
    system: System,
    seed: u64,
    seconds: u64,
}

impl Trial {
    fn takes(&self) -> Duration {
        let grace = if self.system.has_grace() { GRACE } else { WARM };
        AROUND + grace + Duration::from_secs(self.seconds)
    }
}

/// Prints faults and systems.
pub(crate) fn list() {
    println!("faults");
    for fault in Fault::ALL {
        let quick = if Fault::QUICK.contains(&fault) { " (quick)" } else { "" };
        println!("  {:<18} {}{quick}", fault.to_string(), fault.about());
    }
    println!("systems");
    for system in System::ALL {
        let missing = system.missing().map(|why| format!(" (skipped: {why})")).unwrap_or_default();
        println!("  {:<18} {}{missing}", system.to_string(), system.about());
    }
}

/// Runs all trials whose results are not there yet. Whether none of x0 failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if let Some(why) = machine::missing() {
        bail!("faults cannot be injected here: {why}");
    }
    private_mounts()?;
    machine::clean_up();
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot create {}", options.out.display()))?;
    let node = program::node(options.node.as_deref())?;
    let trials = trials(options)?;
    let is_done = |trial: &&Trial| {
        let (fault, system) = (trial.fault.to_string(), trial.system.to_string());
        Outcome::is_there(&options.out, &fault, &system, trial.seed, trial.seconds)
    };
    let open: Vec<&Trial> = trials.iter().filter(|trial| !is_done(trial)).collect();
    let total: Duration = open.iter().map(|trial| trial.takes()).sum();
    let minutes = total.as_secs().div_ceil(60);
    println!(
        "{} trials, {} of them are done; the others take about {}:{:02} h",
        trials.len(),
        trials.len() - open.len(),
        minutes / 60,
        minutes % 60
    );
    let bar = ProgressBar::new(total.as_secs());
    bar.set_style(ProgressStyle::with_template("{bar:24} {elapsed_precise}, {msg}")?);
    let (mut is_good, mut done) = (true, Duration::ZERO);
    for (place, trial) in open.iter().enumerate() {
        let name = format!("{} on {}, seed {}", trial.fault, trial.system, trial.seed);
        let left = total.saturating_sub(done).as_secs();
        bar.set_position(done.as_secs());
        bar.set_message(format!("{}:{:02} left; {}/{}: {name}", left / 60, left % 60, place + 1, open.len()));
        let cannot = || format!("the trial {name} could not be run");
        let mut outcome = calm(trial, &node).with_context(cannot);
        if let Ok(first) = &outcome
            && options.quick
            && is_only_late(trial, first)
        {
            // The processors of a checking machine may be taken for a while. A lost write and a wrong action
            // count.
            bar.suspend(|| println!("{}; once again", line(first, true)));
            outcome = calm(trial, &node).with_context(cannot);
        }
        done += trial.takes();
        match outcome {
            Ok(outcome) => {
                outcome.write(&options.out)?;
                let is_fine = trial.system != System::X0 || is_fine(&outcome);
                is_good &= is_fine || !options.quick;
                bar.suspend(|| println!("{}", line(&outcome, is_fine || !options.quick)));
                if !is_fine {
                    bar.suspend(|| print!("{}", actions(&outcome)));
                }
            }
            Err(error) if options.quick => return Err(error),
            // The others are worth having; a later run tries this one again.
            Err(error) => bar.suspend(|| eprintln!("x0-faultbench: {error:#}")),
        }
    }
    bar.finish_and_clear();
    Ok(is_good)
}

/// The trials that were asked for, seed by seed, fault by fault and the systems in turn: what disturbs the
/// machine for a while disturbs all systems.
fn trials(options: &Options) -> Result<Vec<Trial>> {
    let all = if options.quick { &Fault::QUICK[..] } else { &Fault::ALL[..] };
    let faults = if options.faults.is_empty() { all.to_vec() } else { options.faults.clone() };
    let asked = match (options.quick, options.systems.is_empty()) {
        (true, _) => vec![System::X0, System::None, System::Supervisord],
        (false, true) => System::ALL.to_vec(),
        (false, false) => options.systems.clone(),
    };
    let systems = system::available(&asked)?;
    let seconds = if options.quick { 10 } else { options.seconds };
    let mut trials = Vec::new();
    for seed in 1..=options.seeds {
        for fault in &faults {
            for system in &systems {
                let is_possible = !(fault.is_for_x0_only() && system.is_etcd());
                // The first fault beside the others shows that the comparison works.
                let is_wanted = !options.quick || *system == System::X0 || Some(fault) == faults.first();
                if is_possible && is_wanted {
                    let seconds = seconds.max(fault.seconds_min());
                    trials.push(Trial { fault: *fault, system: *system, seed, seconds });
                }
            }
        }
    }
    Ok(trials)
}

/// Whether a trial of x0 failed only because the service was not back in time.
fn is_only_late(trial: &Trial, outcome: &Outcome) -> bool {
    let measures = outcome.measures();
    trial.system == System::X0 && measures.mttr_ms.is_none() && measures.lost == 0 && measures.wrong == 0
}

fn is_fine(outcome: &Outcome) -> bool {
    let measures = outcome.measures();
    let is_recorded = outcome.wrong_records.is_empty();
    measures.lost == 0 && measures.wrong == 0 && is_recorded && measures.mttr_ms.is_some()
}

/// A trial as one line.
fn line(outcome: &Outcome, is_fine: bool) -> String {
    let measures = outcome.measures();
    let mttr =
        measures.mttr_ms.map_or_else(|| "not back".to_owned(), |mttr| format!("back after {mttr:.0} ms"));
    format!(
        "{}{:<17} {:<11} seed {}: {mttr}, {:.2} error-seconds, gap {:.0} ms, {} actions, {} wrong, {} of {} writes lost",
        if is_fine { "" } else { "FAILED " },
        outcome.fault,
        outcome.system,
        outcome.seed,
        measures.error_seconds,
        measures.gap_ms,
        measures.actions,
        measures.wrong,
        measures.lost,
        outcome.acknowledged
    )
}

/// What the healers of a trial did, for the person who asks why it failed.
fn actions(outcome: &Outcome) -> String {
    let truth = outcome.truth();
    let injected_ms = outcome.injected().as_secs_f64() * 1000.0;
    let mut text = String::new();
    for event in &outcome.events {
        let wrong = if truth.is_wrong(event) { "WRONG " } else { "" };
        text.push_str(&format!(
            "  {wrong}{:+.0} ms, node {}: {:?} of {} of node {}: {}\n",
            event.at_ms - injected_ms,
            event.by,
            event.stage,
            event.kind,
            event.subject,
            event.text
        ));
    }
    text
}

/// A trial, and once again if the service was not well before the injection: something else had the
/// processors.
fn calm(trial: &Trial, node: &Path) -> Result<Outcome> {
    let first = session::play(trial, node)?;
    if first.was_calm() { Ok(first) } else { session::play(trial, node) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(quick: bool) -> Options {
        Options {
            faults: vec![],
            systems: vec![System::None, System::X0],
            seeds: 2,
            seconds: 6,
            quick,
            out: PathBuf::new(),
            node: None,
        }
    }

    #[test]
    fn systems_take_turns_within_a_fault() {
        let trials = trials(&options(false)).unwrap();
        assert_eq!(trials.len(), 2 * 2 * Fault::ALL.len());
        assert_eq!((trials[0].fault, trials[0].system), (Fault::KillLeader, System::None));
        assert_eq!((trials[1].fault, trials[1].system), (Fault::KillLeader, System::X0));
        assert!(trials[0].seed == 1 && trials.last().unwrap().seed == 2);
        let dead = trials.iter().find(|trial| trial.fault == Fault::DeadVoter).unwrap();
        assert_eq!((trials[0].seconds, dead.seconds), (6, Fault::DeadVoter.seconds_min()));
        assert!(trials[1].takes() > trials[0].takes(), "the healer has a grace");
    }

    #[test]
    fn a_quick_run_plays_its_faults_once_on_x0() {
        let trials = trials(&Options { seeds: 1, ..options(true) }).unwrap();
        let of = |system| trials.iter().filter(|trial| trial.system == system).count();
        assert_eq!((of(System::X0), of(System::None)), (Fault::QUICK.len(), 1));
        let takes: Duration = trials.iter().map(Trial::takes).sum();
        assert!(takes < Duration::from_secs(8 * 60), "{takes:?}");
    }

    #[test]
    fn a_result_of_x0_fails_for_each_of_three_reasons() {
        let good = example("kill-leader", "x0", 1, 500);
        assert!(is_fine(&good) && line(&good, true).starts_with("kill-leader"));
        assert!(!is_fine(&Outcome { lost: vec![1], ..good.clone() }));
        assert!(!is_fine(&Outcome { wrong_records: vec!["damaged".into()], ..good.clone() }));
        let other = Outcome { faulty: [3].into(), ..good };
        assert!(
            !is_fine(&other)
                && actions(&other).contains("WRONG +1000 ms, node 1: Action of restart of node 1")
        );
        let gone = example("kill-leader", "x0", 1, 60_000);
        let trial = Trial { fault: Fault::KillLeader, system: System::X0, seed: 1, seconds: 10 };
        assert!(is_only_late(&trial, &gone) && !is_only_late(&trial, &other));
        assert!(!is_only_late(&trial, &Outcome { lost: vec![1], ..gone.clone() }));
        assert!(!is_only_late(&Trial { system: System::None, ..trial }, &gone));
        assert!(
            !is_fine(&gone)
                && line(&gone, false).contains("FAILED")
                && line(&gone, false).contains("not back")
        );
    }
}
