//! The system `static`: a process on each machine that starts the node, puts through it twice a second, and
//! restarts it by fixed limits.
//!
//! The process runs the loop of x0-mapek with the policy of its module `limits`: a healer with thresholds
//! that a person chose, without detectors, diagnosis or other observers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use x0_mapek::limits::{Limits, RestartBeyondLimits};
use x0_mapek::{Input, Loop, LoopOptions, Mode, Reading};

/// The time between two puts.
const PERIOD: Duration = Duration::from_millis(500);
/// A put without an answer is given up after this time.
const GIVE_UP: Duration = Duration::from_secs(1);
/// The limits of a put in seconds. A healthy one takes less than 0.1 with the start of its process.
const LIMITS: [(f64, &str); 2] = [(0.3, "slow"), (1.0, "hang")];
/// The time in which a put must be fast again after a restart.
const WITHIN: Duration = Duration::from_secs(3);
/// The time in which an orderly stop must end.
const STOP_LIMIT: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(10);

/// The options of the process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The program of the node
    #[arg(long)]
    node: PathBuf,
    /// The configuration of the node
    #[arg(long)]
    config: PathBuf,
    /// The configuration of a client that knows this node alone
    #[arg(long)]
    client: PathBuf,
}

/// Keeps a node running until SIGTERM.
pub(crate) fn run(options: &Options) -> Result<()> {
    let is_over = terminated()?;
    let limits = LIMITS
        .iter()
        .fold(Limits::new(["node"]), |limits, (value, cause)| limits.limit("put_seconds", *value, cause));
    let settings = LoopOptions::new().mode(Mode::Active).grace(Duration::from_secs(10));
    let mut healer = Loop::new(limits, Box::new(RestartBeyondLimits::new(WITHIN)), settings);
    let begun = Instant::now();
    let mut node = start(options)?;
    let mut next = PERIOD;
    while !is_over.load(Ordering::Relaxed) {
        if begun.elapsed() < next {
            std::thread::sleep(POLL);
            continue;
        }
        next = begun.elapsed() + PERIOD;
        let value = put(options).as_secs_f64();
        let reading = Reading { subject: "node", signal: "put_seconds", value };
        healer.handle(begun.elapsed(), Input::Reading(reading))?;
        let restarted = healer.drain(begun.elapsed(), |_| {
            end(&mut node, Signal::SIGKILL).map_err(|error| error.to_string())?;
            node = start(options).map_err(|error| error.to_string())?;
            Ok(())
        });
        for record in restarted? {
            eprintln!("{}", record.explain());
        }
    }
    end(&mut node, Signal::SIGTERM)
}

/// A flag that SIGTERM sets.
fn terminated() -> Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // Before the thread starts, which waits for it. Processes that are started do not inherit it.
    signals.thread_block().context("cannot block a signal")?;
    let flag = Arc::new(AtomicBool::new(false));
    let of_thread = Arc::clone(&flag);
    let wait = move || {
        let _ = signals.wait();
        of_thread.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().spawn(wait).context("cannot start a thread")?;
    Ok(flag)
}

fn start(options: &Options) -> Result<Child> {
    let mut command = Command::new(&options.node);
    command.args(["run", "--config"]).arg(&options.config).stdin(Stdio::null());
    command.spawn().with_context(|| format!("cannot start {}", options.node.display()))
}

/// Ends the node, with SIGKILL if it does not end by itself.
fn end(node: &mut Child, signal: Signal) -> Result<()> {
    // Fails only if it has ended.
    let _ = kill(Pid::from_raw(i32::try_from(node.id())?), signal);
    if !wait(node, STOP_LIMIT)? {
        node.kill()?;
        node.wait()?;
    }
    Ok(())
}

/// Whether a process ends within this time.
fn wait(process: &mut Child, limit: Duration) -> Result<bool> {
    let until = Instant::now() + limit;
    while process.try_wait()?.is_none() {
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
    Ok(true)
}

/// How long a put through the node took; [`GIVE_UP`] if it failed.
fn put(options: &Options) -> Duration {
    let begun = Instant::now();
    match try_put(&options.node, &options.client) {
        Ok(true) => begun.elapsed().min(GIVE_UP),
        _ => GIVE_UP,
    }
}

fn try_put(node: &Path, client: &Path) -> Result<bool> {
    let mut command = Command::new(node);
    command.args(["kv", "put", "static", "1", "--config"]).arg(client);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn()?;
    if wait(&mut process, GIVE_UP)? {
        return Ok(process.wait()?.success());
    }
    process.kill()?;
    process.wait()?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_that_fails_counts_as_the_longest() {
        let options =
            |program: &str| Options { node: program.into(), config: PathBuf::new(), client: PathBuf::new() };
        assert_eq!(put(&options("false")), GIVE_UP);
        assert_eq!(put(&options("/no/such/program")), GIVE_UP);
        assert!(put(&options("true")) <= GIVE_UP);
    }

    #[test]
    fn a_process_that_ignores_its_end_is_killed() {
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(!wait(&mut process, Duration::from_millis(20)).unwrap());
        end(&mut process, Signal::SIGTERM).unwrap();
        assert!(process.try_wait().unwrap().is_some());
    }
}
