//! One client process: it works on the cluster for a while and writes down what it asked and was answered.

mod accounts;
mod connect;
mod value;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use x0_kv::RangeQuery;

pub(crate) use self::accounts::{ACCOUNTS, BALANCE};
pub(crate) use self::connect::connect;
pub(crate) use self::value::{number_of, value_of};
use self::work::Worker;
use crate::history::{Asked, Recorder};

/// The options of one client process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    mode: Mode,
    /// The client's configuration, as `x0-node init` writes it
    #[arg(long)]
    config: PathBuf,
    /// The number of this client, which its values contain
    #[arg(long)]
    number: u64,
    /// The round, which has keys of its own
    #[arg(long)]
    round: u64,
    /// The history to write
    #[arg(long)]
    history: PathBuf,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Mode {
    /// Open the accounts
    Prepare,
    /// Random operations
    Work {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        keys: u64,
        #[arg(long)]
        milliseconds: u64,
    },
    /// Read every register of the round and all accounts
    Read {
        #[arg(long)]
        keys: u64,
    },
    /// Print the CRDT keys of the round on one member, as JSON
    Replica {
        /// The id of the member
        #[arg(long)]
        member: u64,
    },
}

/// How long one operation may take, in the storm and when all is well.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT_CALM: Duration = Duration::from_secs(30);

/// Runs one client process to its end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work(options))
}

async fn work(options: &Options) -> Result<()> {
    let (member, timeout) = match options.mode {
        Mode::Replica { member } => (Some(member), Duration::from_secs(10)),
        Mode::Work { .. } => (None, CALL_TIMEOUT),
        Mode::Prepare | Mode::Read { .. } => (None, CALL_TIMEOUT_CALM),
    };
    let client = connect(&options.config, member, timeout)?;
    let store = client.store().clone();
    if let Mode::Replica { .. } = options.mode {
        return replica(&store, options.round).await;
    }
    let recorder = Recorder::create(&options.history)?;
    let worker = Worker { store, recorder, number: options.number, round: options.round };
    match options.mode {
        Mode::Prepare => accounts::open(&worker.store).await?,
        Mode::Work { seed, keys, milliseconds } => {
            worker.storm(seed, keys, Duration::from_millis(milliseconds)).await?;
        }
        Mode::Read { keys } => {
            for key in 0..keys {
                worker.ask(Asked::Get { key }).await?;
            }
            worker.ask(Asked::Sum).await?;
        }
        Mode::Replica { .. } => {}
    }
    client.close().await;
    Ok(())
}

/// The prefix of the CRDT keys of a round.
pub(crate) fn added_prefix(round: u64) -> String {
    format!("torture/{round:06}/")
}

/// Prints key and value of each CRDT key of the round: what one replica has.
async fn replica(store: &x0_kv::Store, round: u64) -> Result<()> {
    let (crdt, prefix) = (store.crdt()?, added_prefix(round));
    let mut found: Vec<(u64, Option<u64>)> = Vec::new();
    let mut next = Some(RangeQuery::prefix(prefix.clone()));
    while let Some(range) = next {
        let page = crdt.range(&range).await?;
        for entry in &page.entries {
            let key = entry.key.strip_prefix(prefix.as_bytes()).and_then(|key| std::str::from_utf8(key).ok());
            let key = key.and_then(|key| key.parse().ok()).context("a key that nobody wrote")?;
            found.push((key, number_of(&entry.value)));
        }
        next = page.continuation.map(|continuation| range.resume(continuation));
    }
    serde_json::to_writer(std::io::stdout().lock(), &found).context("cannot write to standard output")
}
