//! Three-node x0-kv beside three-node peers, on one machine, fsync on commit in all.
//!
//! A cell is an operation and a number of clients. In each cell the systems take turns, one window each,
//! until each has enough windows with a healthy disk; the figure is the median over the windows of a system.
//! Only the system whose turn it is has load; the others are idle.

mod report;
mod systems;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::disk::{Disk, Fsync};
use crate::load::{KeySpace, Measured, Operation, Window};
use crate::process;
use crate::row;
use report::Report;
use systems::{Kind, Running};

/// Writes per probe of the disk; the probes before and after a window together decide whether it counts.
const PROBES: usize = 128;
/// A window with a higher p99 of fsync does not count, because the disk dominates its figures.
const SICK_MS: f64 = 10.0;
/// Attempts for one good window, over a whole cell.
const ATTEMPTS_PER_WINDOW: usize = 3;

/// Three-node x0-kv beside three-node etcd and ZooKeeper.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Short windows of one second, for a first look
    #[arg(long)]
    pub(crate) quick: bool,
    /// Good windows per system and cell
    #[arg(long, default_value_t = 5)]
    pub(crate) windows: usize,
    /// Measured seconds of a window
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Seconds of load before the measured ones
    #[arg(long, default_value_t = 0.7)]
    pub(crate) warm_up: f64,
    /// Numbers of clients, each with one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    pub(crate) clients: Vec<usize>,
    /// Only these operations
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Operation::Put, Operation::Get])]
    pub(crate) operations: Vec<Operation>,
    /// Only these systems
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    pub(crate) only: Vec<Kind>,
    /// Clients that share one connection, for every system
    #[arg(long, default_value_t = 64)]
    pub(crate) clients_per_connection: usize,
    /// Keys written beforehand, from which operations choose at random
    #[arg(long, default_value_t = 10_000)]
    pub(crate) keys: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    pub(crate) value_len: usize,
    /// Seed of keys and values
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Folder for the systems' data; on a disk, not in memory
    #[arg(long, default_value = "/var/tmp")]
    pub(crate) folder: PathBuf,
}

/// An operation by a number of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cell {
    pub(crate) operation: Operation,
    pub(crate) clients: usize,
}

/// The windows of one system in one cell.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    pub(crate) good: Vec<(Measured, Fsync)>,
    /// Windows dropped because the disk was slow.
    pub(crate) sick: usize,
    /// Windows dropped because a request failed, with the last reason.
    pub(crate) failed: usize,
    pub(crate) failure: Option<String>,
}

impl Windows {
    fn attempts(&self) -> usize {
        self.good.len() + self.sick + self.failed
    }

    /// Whether a further turn is needed.
    fn wants_more(&self, windows: usize) -> bool {
        self.good.len() < windows && self.attempts() < windows * ATTEMPTS_PER_WINDOW
    }
}

/// Runs the comparison; prints it and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut options = options.clone();
    if options.quick {
        options.seconds = options.seconds.min(1.0);
        options.warm_up = options.warm_up.min(0.3);
    }
    if options.windows == 0
        || options.keys == 0
        || options.clients.contains(&0)
        || options.clients_per_connection == 0
    {
        bail!("windows, keys, clients and clients per connection must be at least 1");
    }
    let (warm_up, measure) =
        (Duration::try_from_secs_f64(options.warm_up)?, Duration::try_from_secs_f64(options.seconds)?);
    let data = process::data_folder(&options.folder)?;
    let mut disk = Disk::new(data.path())?;
    let settle = Duration::from_secs(if options.quick { 1 } else { 3 });
    let keys = KeySpace { keys: options.keys, value_len: options.value_len };

    let progress = ProgressBar::new(0);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {wide_msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let mut report = Report::new(&options, Fsync::of(disk.probe(8 * PROBES)?));
    let mut running: Vec<Running> = Vec::new();
    for kind in &options.only {
        progress.set_message(format!("starting {}", kind.name()));
        match Running::start(*kind, data.path(), keys, settle) {
            Ok(system) => running.push(system),
            Err(error) => report.missing(*kind, format!("{error:#}")),
        }
    }
    for system in &running {
        report.present(system.kind, &system.name);
    }

    let cells = options.operations.iter().flat_map(|operation| {
        options.clients.iter().map(|clients| Cell { operation: *operation, clients: *clients })
    });
    let cells: Vec<Cell> = cells.collect();
    progress.set_length((cells.len() * running.len() * options.windows) as u64);
    let mut before = disk.probe(PROBES)?;
    for cell in cells {
        let mut seed = options.seed;
        let mut windows: Vec<Windows> = running.iter().map(|_| Windows::default()).collect();
        while windows.iter().any(|windows| windows.wants_more(options.windows)) {
            seed += 1; // The same keys for every system of this turn.
            for (system, windows) in running.iter_mut().zip(&mut windows) {
                if !windows.wants_more(options.windows) {
                    continue;
                }
                progress.set_message(format!(
                    "{} by {}: {}",
                    cell.operation.name(),
                    cell.clients,
                    system.name
                ));
                let order = Window {
                    operation: cell.operation,
                    clients: cell.clients,
                    connections: cell.clients.div_ceil(options.clients_per_connection),
                    warm_up,
                    measure,
                    seed,
                    servers: system.pids(),
                };
                let measured = system.window(&order);
                let after = disk.probe(PROBES)?;
                let fsync = Fsync::of(before.iter().chain(&after).copied());
                before = after;
                match (measured, fsync) {
                    (Ok(measured), Some(fsync)) if fsync.p99_ms <= SICK_MS => {
                        windows.good.push((measured, fsync));
                        progress.inc(1);
                    }
                    (Ok(_), _) => windows.sick += 1,
                    (Err(error), _) => {
                        windows.failed += 1;
                        windows.failure = Some(format!("{error:#}"));
                    }
                }
            }
        }
        for (system, windows) in running.iter().zip(windows) {
            report.add(cell, system.kind, windows);
        }
    }
    progress.finish_and_clear();
    drop(running);
    print!("{report}");
    if let Some(path) = &options.json {
        row::write(path, &report.rows())?;
    }
    report.verdict()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_redone_up_to_a_bound() {
        let mut windows = Windows::default();
        assert!(windows.wants_more(5));
        windows.sick = 14;
        assert!(windows.wants_more(5));
        windows.failed = 1;
        assert!(!windows.wants_more(5));
    }
}
