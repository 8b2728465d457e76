//! The client process of a trial: an open-loop load of puts, and the check that none of the acknowledged ones
//! is lost.
//!
//! A request is sent at its own time whatever happened to the earlier ones, and its latency counts from that
//! time: a service that stalls delays every request of the stall, as it does for callers who do not wait for
//! each other.

mod etcd;
mod http;
mod x0;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout};

pub(crate) use self::http::post;
use crate::history;
use crate::trial::Sample;

/// A request without an answer after this time is given up. Late answers before it are errors of the
/// indicator, and yet acknowledged writes.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(1);
/// How long the check tries to read everything.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// The options of the client process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    mode: Mode,
    /// The client's configuration, as `x0-node init` writes it
    #[arg(long, required_unless_present = "etcd")]
    config: Option<PathBuf>,
    /// The addresses of etcd's HTTP gateway
    #[arg(long, value_delimiter = ',', conflicts_with = "config")]
    etcd: Vec<SocketAddr>,
    /// The file of the requests and their answers
    #[arg(long)]
    requests: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Mode {
    /// Put at a fixed rate
    Put {
        #[arg(long)]
        rate: u32,
        #[arg(long)]
        milliseconds: u64,
    },
    /// Read everything back, and print the acknowledged writes that are not there, as JSON
    Check,
}

/// What the check prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checked {
    pub(crate) acknowledged: usize,
    /// The numbers of acknowledged writes that are not there.
    pub(crate) lost: Vec<u64>,
}

/// The requests of a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// The begin of the load, in nanoseconds of the clock that all processes share.
    pub(crate) begun_ns: u64,
    /// In the order in which they were to be sent. The place is the number of the key.
    pub(crate) samples: Vec<Sample>,
}

/// A client of either system.
#[derive(Clone)]
enum Client {
    X0(Rc<x0::X0>),
    Etcd(Rc<etcd::Etcd>),
}

impl Client {
    fn connect(options: &Options, patience: Duration) -> Result<Client> {
        match &options.config {
            Some(config) => Ok(Client::X0(Rc::new(x0::X0::connect(config, patience)?))),
            None => Ok(Client::Etcd(Rc::new(etcd::Etcd::new(options.etcd.clone())))),
        }
    }

    /// Writes a key. Whether the write was acknowledged.
    async fn put(&self, number: u64, patience: Duration) -> bool {
        match self {
            Client::X0(client) => client.put(number).await,
            Client::Etcd(client) => client.put(number, patience).await,
        }
    }

    /// The numbers of all keys that are there with their whole values.
    async fn numbers(&self) -> Result<BTreeSet<u64>> {
        match self {
            Client::X0(client) => client.numbers().await,
            Client::Etcd(client) => client.numbers().await,
        }
    }
}

/// The key of a request.
fn key(number: u64) -> String {
    format!("load/{number:08}")
}

/// The number of a key.
fn number(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key.strip_prefix(b"load/")?).ok()?.parse().ok()
}

/// Runs the client process to its end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    LocalSet::new().block_on(&runtime, async {
        match options.mode {
            Mode::Put { rate, milliseconds } => {
                let client = Client::connect(options, GIVE_UP)?;
                let requests = load(client, rate, Duration::from_millis(milliseconds)).await?;
                write(&options.requests, &requests)
            }
            Mode::Check => {
                let checked = check(options).await?;
                serde_json::to_writer(std::io::stdout().lock(), &checked)
                    .context("cannot write to standard output")
            }
        }
    })
}

async fn load(client: Client, rate: u32, lasts: Duration) -> Result<Requests> {
    if rate == 0 {
        bail!("the rate is 0: ask for at least one request a second");
    }
    let every = Duration::from_secs(1) / rate;
    let (begun_ns, begun) = (history::now()?, Instant::now());
    let count = lasts.as_nanos() / every.as_nanos();
    let mut waiting = Vec::new();
    for number in 0..u64::try_from(count)? {
        let at = begun + every * u32::try_from(number)?;
        sleep_until(at).await;
        let client = client.clone();
        waiting.push(tokio::task::spawn_local(async move {
            // A client that was late itself has less time left: the deadline is absolute.
            let patience = (at + GIVE_UP).saturating_duration_since(Instant::now());
            let is_done = timeout(patience, client.put(number, patience)).await.unwrap_or(false);
            is_done.then(|| at.elapsed())
        }));
    }
    let mut samples = Vec::new();
    for (place, task) in waiting.into_iter().enumerate() {
        let at_us = micros(every * u32::try_from(place)?);
        samples.push(Sample { at_us, latency_us: task.await?.map(micros) });
    }
    Ok(Requests { begun_ns, samples })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

async fn check(options: &Options) -> Result<Checked> {
    let requests = read(&options.requests)?;
    let begun = Instant::now();
    let numbers = loop {
        let client = Client::connect(options, Duration::from_secs(10))?;
        match timeout(Duration::from_secs(15), client.numbers()).await {
            Ok(Ok(numbers)) => break numbers,
            _ if begun.elapsed() < CHECK_LIMIT => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(Err(error)) => return Err(error).context("cannot read the keys back"),
            Err(_) => bail!("cannot read the keys back: no answer"),
        }
    };
    Ok(lost(&requests.samples, &numbers))
}

/// The acknowledged writes that are not among the numbers.
fn lost(samples: &[Sample], found: &BTreeSet<u64>) -> Checked {
    let acknowledged = (0_u64..).zip(samples).filter(|(_, sample)| sample.latency_us.is_some());
    let numbers: Vec<u64> = acknowledged.map(|(number, _)| number).collect();
    let lost = numbers.iter().copied().filter(|number| !found.contains(number)).collect();
    Checked { acknowledged: numbers.len(), lost }
}

fn write(path: &Path, requests: &Requests) -> Result<()> {
    let mut text = format!("{}\n", requests.begun_ns);
    for Sample { at_us, latency_us } in &requests.samples {
        // Writing to a string cannot fail.
        let _ = match latency_us {
            Some(latency) => writeln!(text, "{at_us} {latency}"),
            None => writeln!(text, "{at_us} -"),
        };
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what the load has written.
pub(crate) fn read(path: &Path) -> Result<Requests> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not the file of a load", path.display()))
}

fn parse(text: &str) -> Option<Requests> {
    let mut lines = text.lines();
    let begun_ns = lines.next()?.parse().ok()?;
    let sample = |line: &str| {
        let (at, latency) = line.split_once(' ')?;
        let latency_us = if latency == "-" { None } else { Some(latency.parse().ok()?) };
        Some(Sample { at_us: at.parse().ok()?, latency_us })
    };
    Some(Requests { begun_ns, samples: lines.map(sample).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        let samples = [Some(900), None, Some(0)].into_iter().enumerate();
        let samples =
            samples.map(|(at, latency_us)| Sample { at_us: at as u64 * 5000, latency_us }).collect();
        let requests = Requests { begun_ns: 77, samples };
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), &requests).unwrap();
        assert_eq!(read(file.path()).unwrap(), requests);
        for broken in ["", "x\n", "1\n5\n", "1\n5 x\n"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn an_acknowledged_write_that_is_not_there_is_lost() {
        let sample = |latency_us| Sample { at_us: 0, latency_us };
        let samples = [sample(Some(1)), sample(None), sample(Some(2_000_000)), sample(None)];
        // Number 1 was not acknowledged: it may be there or not.
        let found = [0, 1].into();
        assert_eq!(lost(&samples, &found), Checked { acknowledged: 2, lost: vec![2] });
        assert!(lost(&samples, &[0, 2].into()).lost.is_empty());
    }

    #[test]
    fn a_key_has_its_number() {
        assert_eq!(number(key(1234).as_bytes()), Some(1234));
        assert_eq!((number(b"load/x"), number(b"other/1"), number(&[0xff])), (None, None, None));
    }
}
