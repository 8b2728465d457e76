//! `x0-faultbench torture`: rounds of faults on a cluster of real processes, each with a check of what the
//! clients saw.
//!
//! A round is a storm and a calm. In the storm client processes work on registers, accounts and the CRDT
//! keyspace while faults come and go. Then all faults end, and must hold: the cluster is well within a
//! minute, all replicas hold the same, each register was linearizable, the sum of the accounts never changed,
//! and each acknowledged CRDT key is on all replicas.

mod check;
mod cluster;
mod fault;
mod folder;
mod node;
mod report;
mod storm;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use self::cluster::Cluster;
use self::fault::Fault;
use self::node::Start;
use self::report::Report;
use self::storm::Storm;
use crate::arena::private_mounts;
use crate::random::Random;
use crate::{history, program};

/// The load and the faults of a run, and its length.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How long to run, in minutes; the last round is completed
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// The seed of all chance; drawn and printed if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// The number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7))]
    nodes: u8,
    /// The number of client processes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    clients: u8,
    /// The length of a storm, in seconds
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    storm_s: u64,
    /// Only these faults
    #[arg(long, value_delimiter = ',', value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program of a node; without it `X0_NODE`, then `x0-node` beside this program
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Keep logs and histories in this folder, which must be empty or absent
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Registers of a round.
const KEYS: (u64, u64) = (4, 12);
/// The time in which the cluster must be well after the faults.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// The time in which the clients must end after the faults: their last operations may wait.
const CLIENTS_LIMIT: Duration = Duration::from_secs(30);
/// The time in which all replicas must have every acknowledged CRDT key.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(60);
/// The number of the client that prepares and reads back.
const READER: u64 = 7;

/// Runs until the time is over or something is wrong. Whether nothing was.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => history::now()? & 0xffff_ffff,
    };
    private_mounts()?;
    println!("seed {seed}");
    let temporary = tempfile::Builder::new().prefix("x0-torture-").tempdir()?;
    let root = match &options.dir {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.canonicalize()?
        }
        None => temporary.path().to_owned(),
    };
    let cluster = Cluster::new(program::node(options.node.as_deref())?, &root, options.nodes.into())?;
    let faults = if options.faults.is_empty() { Fault::ALL.to_vec() } else { options.faults.clone() };
    let report = Report::new(seed);
    let mut run =
        Run { options, root, cluster, report, random: Random::new(seed), faults, clients: Vec::new() };
    run.prepare()?;
    run.rounds()?;
    print!("{}", run.report.table());
    if let Some(path) = &options.json {
        run.report.write_json(path)?;
    }
    Ok(run.report.violations.is_empty())
}

struct Run<'a> {
    options: &'a Options,
    root: PathBuf,
    cluster: Cluster,
    report: Report,
    random: Random,
    faults: Vec<Fault>,
    clients: Vec<Child>,
}

impl Run<'_> {
    /// Starts the cluster and opens the accounts.
    fn prepare(&mut self) -> Result<()> {
        for place in 0..self.cluster.nodes.len() {
            if let Start::Refused(why) = self.cluster.start(place)? {
                bail!("node {} does not start: {why}", place + 1);
            }
        }
        self.cluster.wait_until_well(RECOVERY_LIMIT)?.map_err(anyhow::Error::msg)?;
        let history = self.root.join("prepare");
        self.client(READER, &history, &["prepare"])
            .and_then(|child| succeed(child, "open the accounts"))
            .map(drop)
    }

    fn rounds(&mut self) -> Result<()> {
        let lasts = Duration::from_secs_f64(self.options.minutes.max(0.0) * 60.0);
        let progress = ProgressBar::new(lasts.as_secs());
        progress.set_style(ProgressStyle::with_template("{bar:24} {elapsed} of {msg}")?);
        let begun = Instant::now();
        while begun.elapsed() < lasts && !self.report.is_over() {
            self.round(&progress, begun, lasts)?;
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn round(&mut self, progress: &ProgressBar, begun: Instant, lasts: Duration) -> Result<()> {
        self.report.begin_round();
        let round = self.report.rounds;
        let keys = self.random.between(KEYS.0, KEYS.1);
        let mut histories = Vec::new();
        for number in 0..u64::from(self.options.clients) {
            let history = self.root.join(format!("history-{round}-{number}"));
            let milliseconds = (self.options.storm_s * 1000).to_string();
            let (seed, keys) = (self.random.next().to_string(), keys.to_string());
            let mode = ["work", "--seed", &seed, "--keys", &keys, "--milliseconds", &milliseconds];
            let child = self.client(number, &history, &mode)?;
            self.clients.push(child);
            histories.push(history);
        }
        let violations = self.report.violations.len();
        let (operations, adds) = (self.report.counts.operations, self.report.counts.adds);
        let tick = || {
            progress.set_position(begun.elapsed().as_secs());
            let left = lasts.saturating_sub(begun.elapsed()).as_secs();
            progress.set_message(format!(
                "{} min, {left} s left; round {round}, {operations} operations, {adds} CRDT keys, {violations} violations",
                lasts.as_secs() / 60
            ));
        };
        let Run { cluster, report, random, faults, clients, .. } = self;
        let lost_at = Storm::new(cluster, report, random, faults, clients)?
            .run(Duration::from_secs(self.options.storm_s), tick)?;
        self.calm(round, keys, &histories, lost_at)?;
        self.replace_flipped()
    }

    /// Flipped bits that no read has met are still there: the node gets an empty folder, and rejoins.
    fn replace_flipped(&mut self) -> Result<()> {
        for place in 0..self.cluster.nodes.len() {
            let node = &mut self.cluster.nodes[place];
            node.is_damaged = false;
            if !std::mem::take(&mut node.has_flips) {
                continue;
            }
            node.kill()?;
            folder::empty(&node.data())?;
            if let Start::Refused(why) = self.cluster.start(place)? {
                self.report.violation(&format!("node {} refuses an empty folder: {why}", place + 1));
            }
            let is_well = self.cluster.wait_until_well(RECOVERY_LIMIT)?;
            is_well.unwrap_or_else(|why| self.report.violation(&format!("after an emptied folder: {why}")));
        }
        Ok(())
    }

    /// All faults are over: everything must be well again, and what was seen must fit.
    fn calm(&mut self, round: u64, keys: u64, histories: &[PathBuf], lost_at: Option<u64>) -> Result<()> {
        let begun = Instant::now();
        let is_well = self.cluster.wait_until_well(RECOVERY_LIMIT)?;
        self.report.recovery_max = self.report.recovery_max.max(begun.elapsed());
        if let Err(why) = is_well {
            self.report
                .violation(&format!("the cluster is not well {RECOVERY_LIMIT:?} after the faults: {why}"));
        }
        self.end_clients()?;
        let mut operations = Vec::new();
        for history in histories {
            // A client that was killed at once has none.
            if history.exists() {
                operations.extend(history::read(history)?);
            }
        }
        let read = self.root.join(format!("history-{round}-read"));
        let child = self.client(READER, &read, &["read", "--keys", &keys.to_string()])?;
        succeed(child, "read back")?;
        let found = history::read(&read)?;
        for operation in &found {
            if let Some((_, history::Answer::Refused(why))) = &operation.returned {
                self.report.violation(&format!("{:?} fails although all is well: {why}", operation.asked));
            }
        }
        operations.extend(found);
        let mut counts = self.report.counts;
        let wrong = check::histories(&operations, &mut counts);
        self.report.counts = counts;
        wrong.into_iter().for_each(|what| self.report.violation(&what));
        self.check_crdt(round, &check::added(&operations, lost_at))?;
        self.cluster.wait_until_well(RECOVERY_LIMIT)?.unwrap_or_else(|why| self.report.violation(&why));
        if let Err(why) = self.cluster.compare()? {
            self.report.violation(&why);
        }
        if self.options.dir.is_none() {
            for history in histories.iter().chain([&read]).filter(|history| history.exists()) {
                std::fs::remove_file(history)?;
            }
        }
        Ok(())
    }

    /// Each acknowledged CRDT key is on all replicas in the end.
    fn check_crdt(&mut self, round: u64, added: &check::Added) -> Result<()> {
        self.report.counts.adds += (added.kept.len() + added.risked.len()) as u64;
        let begun = Instant::now();
        loop {
            // A replica that cannot be read in time is a finding about the node, and the next rounds can
            // still tell more.
            let why = match self.replicas() {
                Ok(replicas) => check::replicas(added, &replicas),
                Err(error) => Some(format!("{error:#}")),
            };
            match why {
                None => return Ok(()),
                Some(why) if begun.elapsed() > CONVERGENCE_LIMIT => {
                    self.report.violation(&format!("{why} of round {round}"));
                    return Ok(());
                }
                Some(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// The CRDT keys of the round on each node.
    fn replicas(&self) -> Result<Vec<check::Replica>> {
        let unused = self.root.join("replica");
        let read = |node: &node::Node| {
            let child = self.client(READER, &unused, &["replica", "--member", &node.number().to_string()])?;
            let output = succeed(child, &format!("read the CRDT keys of node {}", node.number()))?;
            let keys: Vec<(u64, Option<u64>)> = serde_json::from_slice(&output)?;
            Ok(keys.into_iter().collect())
        };
        self.cluster.nodes.iter().map(read).collect()
    }

    /// Starts a client process in the namespace of the clients.
    fn client(&self, number: u64, history: &Path, mode: &[&str]) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("client").arg("--config").arg(self.cluster.client_config());
        command.args(["--number", &number.to_string(), "--round", &self.report.rounds.to_string()]);
        command.arg("--history").arg(history).args(mode);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.cluster.arena.spawn(self.cluster.arena.clients(), &mut command)
    }

    /// Waits for the clients of the storm. One that does not end is killed, and what it waited for is
    /// unknown.
    fn end_clients(&mut self) -> Result<()> {
        let begun = Instant::now();
        for mut client in std::mem::take(&mut self.clients) {
            loop {
                if let Some(status) = client.try_wait()? {
                    if !status.success() {
                        let output = client.wait_with_output()?;
                        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                        self.report.violation(&format!("a client failed: {why}"));
                    }
                    break;
                }
                if begun.elapsed() > CLIENTS_LIMIT {
                    self.report
                        .violation(&format!("a client had no answer {CLIENTS_LIMIT:?} after the faults"));
                    client.kill()?;
                    client.wait()?;
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        for client in &mut self.clients {
            // Fails only if it has ended already.
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

/// The output of a client, which must succeed.
fn succeed(child: Child, what: &str) -> Result<Vec<u8>> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("a client could not {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}
