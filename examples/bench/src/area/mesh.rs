//! A channel of an x0-mesh `Mux` beside the bare transport and beside plain quinn, over loopback, in this
//! process.
//!
//! Two nodes, each a thread with a runtime of its own. In every case the systems take turns, each turn begins
//! with another one and makes new connections. The medians over the turns are reported; a channel and the
//! transport are compared within each turn, because the speed of a machine drifts.
//!
//! Then a ring of namespaces whose links are cut, beside routing daemons; see [`ring`]. Transfers over the
//! mesh beside plain quinn, a steady service over a lossy path, and one node with 200 neighbours; see
//! [`load`], [`loss`] and [`neighbours`].
//!
//! Then grids of routers of x0-mesh beside those of babel-protocol, both in virtual time, and a grid of
//! 10,000 routers of which some restart; see [`routes`].

mod load;
mod loss;
mod neighbours;
mod plain;
mod ring;
mod routes;
mod x0;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use x0_identity::{Authority, AuthorityOptions, Identity, NodeId, SpiffeId, TrustDomain};

use crate::case::{Case, Metric};
use crate::row;
use crate::statistics::Histogram;

/// Messages over a channel of a mux, the bare transport, and plain quinn.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A tenth of the messages and five turns: for a first look, not for a claim
    #[arg(long)]
    pub(crate) quick: bool,
    /// Turns of each system in each case
    #[arg(long, default_value_t = 41)]
    pub(crate) turns: usize,
    /// Only the cases whose name contains this text
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) case: String,
    /// Cuts of each kind of the ring
    #[arg(long, default_value_t = 30)]
    pub(crate) cuts: usize,
    /// Seconds of the ring with oversubscribed cores, for each system
    #[arg(long, default_value_t = 600)]
    pub(crate) oversubscribed_s: u64,
    /// Nodes in a row and in a column of the large grid of routers
    #[arg(long, default_value_t = 15)]
    pub(crate) side: usize,
    /// Nodes in a row and in a column of the grid with churn
    #[arg(long, default_value_t = 100)]
    pub(crate) crowd: usize,
}

const P50: Metric = Metric { name: "round trip, median", unit: "us" };
const P99: Metric = Metric { name: "round trip, 99 %", unit: "us" };
const TIME: Metric = Metric { name: "time for each message", unit: "us" };

/// The most that a channel may take, as a multiple of the bare transport in the same turn.
const CHANNEL_MOST: f64 = 1.03;

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ordered,
    Bulk,
}

/// The measurements.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    way: Way,
    len: usize,
    count: usize,
    /// Whether each message waits for the echo of the one before.
    is_echoed: bool,
}

const LOADS: [Load; 5] = [
    Load {
        name: "echo of 300 bytes, ordered, one at a time",
        way: Way::Ordered,
        len: 300,
        count: 2_500,
        is_echoed: true,
    },
    Load {
        name: "300 bytes, ordered, one way",
        way: Way::Ordered,
        len: 300,
        count: 300_000,
        is_echoed: false,
    },
    Load {
        name: "16 KiB, ordered, one way",
        way: Way::Ordered,
        len: 16 << 10,
        count: 3_000,
        is_echoed: false,
    },
    Load { name: "64 KiB, bulk, one way", way: Way::Bulk, len: 64 << 10, count: 800, is_echoed: false },
    Load { name: "1 MiB, bulk, one way", way: Way::Bulk, len: 1 << 20, count: 60, is_echoed: false },
];

/// The result of one turn.
enum Found {
    RoundTrips(Histogram),
    Took(Duration),
}

const SYSTEMS: [&str; 3] = ["x0-mesh channel", "x0-mesh transport", "quinn"];
/// The place of plain quinn among them.
const PLAIN: usize = 2;

/// Both nodes' names, and the identities that all systems use.
struct Nodes {
    client: (NodeId, Identity),
    server: (NodeId, Identity),
}

impl Nodes {
    fn new() -> Result<Nodes> {
        let authority =
            Authority::new(TrustDomain::parse("bench.example.org")?, &AuthorityOptions::default())?;
        let node = |number| {
            let node = NodeId::new(number).ok_or_else(|| anyhow::anyhow!("zero names no node"))?;
            let spiffe_id = SpiffeId::for_node(authority.trust_domain(), node);
            let svid = authority.issue(&spiffe_id, Duration::from_secs(24 * 3600))?;
            Ok::<_, anyhow::Error>((node, Identity::new(svid, authority.bundle())?))
        };
        Ok(Nodes { client: node(1)?, server: node(2)? })
    }
}

/// Measures; prints tables and writes the rows.
pub(crate) fn run(options: &Options) -> Result<()> {
    let turns = if options.quick { 5 } else { options.turns };
    ensure!(turns >= 5, "at least five turns, or a median says little");
    println!("Loopback, mutual TLS 1.3, two threads; medians of {turns} turns.\n");
    let nodes = Nodes::new()?;
    let mut rows = Vec::new();
    for load in LOADS.iter().filter(|load| load.name.contains(&options.case)) {
        let count = if options.quick { load.count / 10 } else { load.count };
        let load = Load { count, ..*load };
        let case = measure(&nodes, load, turns)?;
        println!("{case}");
        rows.extend(case.rows());
    }
    let sides = if options.quick { [6, 6] } else { [10, options.side] };
    for (side, is_large) in sides.into_iter().zip([false, true]) {
        let name = format!("routers of a {side} by {side} grid");
        if name.contains(&options.case) {
            let case = grids(name, side, is_large)?;
            println!("{case}");
            rows.extend(case.rows());
        }
    }
    let name = format!("{} routers with churn", options.crowd * options.crowd);
    // Minutes, and 12 GiB: not for a first look, unless it is asked for.
    if name.contains(&options.case) && (!options.quick || !options.case.is_empty()) {
        let case = crowd(name, options.crowd)?;
        println!("{case}");
        rows.extend(case.rows());
    }
    for cases in [ring::cases, load::cases, loss::cases, neighbours::cases] {
        for case in cases(options)? {
            println!("{case}");
            rows.extend(case.rows());
        }
    }
    if let Some(path) = &options.json {
        row::write(path, &rows)?;
    }
    Ok(())
}

fn measure(nodes: &Nodes, load: Load, turns: usize) -> Result<Case> {
    let how = format!("{} messages in each turn; plain quinn sends a tenth of them one way.", load.count);
    let mut case = Case::new("mesh", load.name, how, SYSTEMS.map(str::to_owned).to_vec());
    let fewer = Load { count: (load.count / 10).max(10), ..load };
    for turn in 0..turns {
        for place in 0..SYSTEMS.len() {
            let system = (place + turn) % SYSTEMS.len();
            let found = match system {
                0 => x0::channel(nodes, load)?,
                1 => x0::transport(nodes, load)?,
                // It takes 30 times as long for short messages, and its time for each needs fewer of them.
                _ if !load.is_echoed => plain::measure(nodes, fewer)?,
                _ => plain::measure(nodes, load)?,
            };
            match found {
                Found::RoundTrips(times) => {
                    for (metric, share) in [(P50, 0.5), (P99, 0.99)] {
                        let Some(nanoseconds) = times.percentile(share) else { continue };
                        case.add(metric, system, nanoseconds as f64 / 1e3);
                    }
                }
                Found::Took(time) => {
                    let count = if system == PLAIN { fewer.count } else { load.count };
                    case.add(TIME, system, time.as_secs_f64() * 1e6 / count as f64);
                }
            }
        }
    }
    let metrics: &[Metric] = if load.is_echoed { &[P50, P99] } else { &[TIME] };
    for metric in metrics {
        let ratio = case.paired_ratio(*metric, 0, 1);
        let what = format!("{} of a channel beside the transport in the same turn", metric.name);
        case.aim(what, ratio, CHANNEL_MOST, "x");
    }
    Ok(case)
}

const WALL: Metric = Metric { name: "wall time", unit: "s" };
const MEMORY: Metric = Metric { name: "memory for each pair", unit: "B" };
const CONTROL: Metric = Metric { name: "control bytes of a node", unit: "B/s" };
/// By how much a grid has to be simulated faster, and in less memory, than one of babel-protocol.
const WALL_RATIO: f64 = 100.0;
const MEMORY_RATIO: f64 = 12.0;

/// One grid of each system over the same virtual time, one after the other.
fn grids(name: String, side: usize, is_large: bool) -> Result<Case> {
    let time = Duration::from_secs(60);
    let how = format!(
        "{} nodes over {} s of virtual time from their start, one run. Control bytes are payloads: Babel's contain its \
         Hellos, those of x0-mesh the probes that detect cuts, without the 25 bytes by which a frame protects each.",
        side * side,
        time.as_secs()
    );
    let systems = ["x0-mesh router", "babel-protocol 0.8.1"].map(str::to_owned).to_vec();
    let mut case = Case::new("mesh", name, how, systems);
    let x0 = routes::fabric(side, time, crate::memory::allocated)?;
    let babel = routes::babel(side, time, crate::memory::allocated)?;
    for (system, found) in [&x0, &babel].into_iter().enumerate() {
        case.add(WALL, system, found.wall.as_secs_f64());
        case.add(MEMORY, system, found.bytes_per_pair);
        case.add(CONTROL, system, found.control_per_node_second);
    }
    if is_large {
        let most = babel.wall.as_secs_f64() / WALL_RATIO;
        case.aim(WALL.name, Some(x0.wall.as_secs_f64()), most, WALL.unit);
        case.aim(MEMORY.name, Some(x0.bytes_per_pair), babel.bytes_per_pair / MEMORY_RATIO, MEMORY.unit);
    } else {
        let most = babel.control_per_node_second;
        case.aim(CONTROL.name, Some(x0.control_per_node_second), most, CONTROL.unit);
    }
    Ok(case)
}

const PEAK: Metric = Metric { name: "memory at the peak", unit: "GiB" };
const START: Metric = Metric { name: "wall time until every route is known", unit: "s" };
const CHURN: Metric = Metric { name: "wall time of the churn", unit: "s" };
/// What 10,000 nodes may take at the peak.
const PEAK_MOST: f64 = 16.0;

/// One large grid of which some nodes restart.
fn crowd(name: String, side: usize) -> Result<Case> {
    let found = routes::crowd(side, crate::memory::allocated)?;
    let how = format!(
        "A {side} by {side} grid with the detection of production and links of 1 ms: {:.1} s of virtual time until every node has a \
         route to every other, then 10 s in which {} nodes crash and start again, then 10 s until every node has all routes again. One run. \
         The memory is what is allocated, without the overhead of the allocator.",
        found.started.as_secs_f64(),
        found.restarts,
    );
    let mut case = Case::new("mesh", name, how, vec!["x0-mesh router".to_owned()]);
    let peak = found.peak as f64;
    let pairs = (found.nodes * (found.nodes - 1)) as f64;
    let [start, churn] = found.wall.map(|wall| wall.as_secs_f64());
    let control = found.control_per_node_second;
    let gib = peak / (1_u64 << 30) as f64;
    for (metric, value) in
        [(START, start), (CHURN, churn), (PEAK, gib), (MEMORY, peak / pairs), (CONTROL, control)]
    {
        case.add(metric, 0, value);
    }
    case.aim(PEAK.name, Some(gib), PEAK_MOST, PEAK.unit);
    Ok(case)
}

/// A message begins with what the receiver does with it. The end of a turn says how many messages came before
/// it, because bulk messages may come later.
mod mark {
    pub(super) const COUNT: u8 = 0;
    pub(super) const ECHO: u8 = 1;
    pub(super) const END: u8 = 2;
}

fn end_of(count: usize) -> [u8; 9] {
    let mut end = [mark::END; 9];
    end[1..].copy_from_slice(&(count as u64).to_le_bytes());
    end
}

/// How many messages come before the end of a turn, if this is one.
fn count_of(message: &[u8]) -> Option<u64> {
    let (mark, count) = message.split_first()?;
    if *mark != mark::END {
        return None;
    }
    count.try_into().ok().map(u64::from_le_bytes)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    /// `Case` looks at the text.
    #[test]
    fn a_small_crowd_is_described() {
        super::crowd("crowd".to_owned(), 4).unwrap();
    }
}
