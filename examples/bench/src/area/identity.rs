//! x0-identity beside its peers: validating chains, tokens, issuing, connections, and streams of the Workload
//! API.
//!
//! The systems of a case take turns, and each turn begins with another one. Servers run in processes of their
//! own, whose processor time is read from the kernel; the load comes from this process.

mod connections;
mod issue;
mod jwt;
mod load;
mod streams;
mod verify;
pub(crate) mod worker;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use x0_identity::{Authority, AuthorityOptions, SpiffeId, TrustDomain};

use crate::case::{Case, Metric};
use crate::row;

/// Validating, issuing, connections and the Workload API.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A tenth of the work: for a first look, not for a claim
    #[arg(long)]
    pub(crate) quick: bool,
    /// Turns of each system in each case
    #[arg(long, default_value_t = 5)]
    pub(crate) turns: usize,
    /// Only these parts: verify, jwt, issue, connections, streams
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    pub(crate) only: Vec<String>,
}

type Part = fn(&Options) -> Result<Case>;
const PARTS: [(&str, Part); 6] = [
    ("verify", verify::run),
    ("jwt", jwt::issue),
    ("jwt", jwt::validate),
    ("issue", issue::run),
    ("connections", connections::run),
    ("streams", streams::run),
];

impl Options {
    /// The repetitions of a turn.
    fn count(&self, full: u32) -> u32 {
        if self.quick { full.div_ceil(10) } else { full }
    }
}

/// cfssl and nginx, where they were found.
pub(crate) fn present() -> (Option<PathBuf>, Option<PathBuf>) {
    (issue::present(), connections::present())
}

/// Measures; prints tables and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.turns >= 5 || options.quick, "at least five turns, or a median says little");
    if let Some(unknown) = options.only.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        bail!("there is no part {unknown}: name verify, jwt, issue, connections or streams");
    }
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            let case = part(options)?;
            println!("{case}");
            rows.extend(case.rows());
        }
    }
    if let Some(path) = &options.json {
        row::write(path, &rows)?;
    }
    Ok(())
}

const CPU: Metric = Metric { name: "processor time of the server", unit: "us" };
const TIME: Metric = Metric { name: "processor time", unit: "us" };

const DAY: Duration = Duration::from_secs(24 * 3600);

fn authority() -> Result<Authority> {
    Ok(Authority::new(TrustDomain::parse("bench.example.org")?, &AuthorityOptions::default())?)
}

fn id(name: &str) -> Result<SpiffeId> {
    Ok(SpiffeId::parse(&format!("spiffe://bench.example.org/{name}"))?)
}

/// The processor time of one repetition on this thread, in microseconds.
fn each(count: u32, mut repeat: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = thread_time()?;
    for _ in 0..count {
        repeat()?;
    }
    Ok((thread_time()? - begun).as_secs_f64() * 1e6 / f64::from(count))
}

fn thread_time() -> Result<Duration> {
    Ok(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into()?)
}

/// Measures every system in each turn, another one first each time.
fn in_turns(
    case: &mut Case,
    metric: Metric,
    turns: usize,
    systems: &mut [&mut dyn FnMut() -> Result<f64>],
) -> Result<()> {
    for turn in 0..turns {
        for place in 0..systems.len() {
            let system = (place + turn) % systems.len();
            if !case.is_missing(system) {
                let found = systems[system]()?;
                case.add(metric, system, found);
            }
        }
    }
    Ok(())
}
