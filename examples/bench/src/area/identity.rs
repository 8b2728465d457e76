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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn options(only: &[&str], turns: usize, quick: bool) -> Options {
        Options { json: None, quick, turns, only: only.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn unknown_parts_and_too_few_turns_are_refused() {
        let error = run(&options(&["sign"], 5, false)).unwrap_err().to_string();
        assert!(error.contains("sign") && error.contains("verify, jwt"), "{error}");
        let error = run(&options(&[], 4, false)).unwrap_err().to_string();
        assert!(error.contains("five turns"), "{error}");
        assert_eq!((options(&[], 5, true).count(2_000), options(&[], 5, true).count(1)), (200, 1));
        assert_eq!(options(&[], 5, false).count(2_000), 2_000);
    }

    /// Each turn begins with another system, and one that is missing is not measured.
    #[test]
    fn systems_take_turns() {
        let order = RefCell::new(Vec::new());
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut case = Case::new("identity", "turns", "", names);
        case.miss(1, "not here");
        let measure = |system: usize, value: f64| {
            order.borrow_mut().push(system);
            Ok(value)
        };
        let mut turn = 0.0;
        in_turns(
            &mut case,
            TIME,
            3,
            &mut [
                &mut || {
                    turn += 1.0;
                    measure(0, turn)
                },
                &mut || measure(1, 0.0),
                &mut || measure(2, 4.0),
            ],
        )
        .unwrap();
        assert_eq!(*order.borrow(), [0, 2, 2, 0, 2, 0]);
        assert_eq!((case.median(TIME, 0), case.median(TIME, 1)), (Some(2.0), None));
        // Of the ratios 1/4, 2/4 and 3/4.
        assert_eq!(case.paired_ratio(TIME, 0, 2), Some(0.5));
    }

    #[test]
    fn a_failure_of_a_repetition_ends_the_turn() {
        let mut calls = 0;
        let failed = each(10, || {
            calls += 1;
            ensure!(calls < 3, "no more");
            Ok(())
        });
        assert_eq!((failed.unwrap_err().to_string().as_str(), calls), ("no more", 3));
        assert!(each(10, || Ok(())).unwrap() >= 0.0);
    }
}
