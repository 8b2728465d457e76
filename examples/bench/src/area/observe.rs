//! The cost of observation: three x0 nodes with every output off; scraped; and scraped with JSON logs and 1 %
//! of the operations traced. Beside them, three etcd servers that are scraped the same way. With
//! `--receivers`, receivers of traces that fail instead; with `--flat`, the memory of nodes that nobody
//! scrapes.
//!
//! The systems take turns, one window each, so that all of them see the same machine. While a scraped system
//! has its window, each of its servers is asked for `/metrics` every second.

mod flat;
mod receiver;
mod scraper;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use self::receiver::{Answer, Receiver};
use self::scraper::{Scraper, Scrapes};
use crate::load::{KeySpace, Load, Measured, Operation, Window};
use crate::peer::{Cluster, etcd, x0};
use crate::row::{self, Better, Row, ratio};
use crate::statistics::median;
use crate::{process, procfs};

/// The time in which a cluster must respond after the start.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Scrapes of each server for the processor time of one.
const SCRAPES: u32 = 200;
/// The receivers of `--receivers`.
const FAILING: [(&str, Answer); 4] = [
    ("x0, receiver absent", Answer::Absent),
    ("x0, receiver refuses", Answer::Refuse),
    ("x0, receiver hangs", Answer::Hang),
    ("x0, receiver: garbage", Answer::Garbage),
];

/// The cost of metrics, traces and JSON logs, beside etcd that is scraped the same way.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Windows of each system
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// Measured seconds of a window
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Numbers of clients, each with one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    clients: Vec<usize>,
    /// The share of the operations that is traced
    #[arg(long, default_value_t = 0.01)]
    trace_ratio: f64,
    /// Measure x0 alone
    #[arg(long)]
    without_etcd: bool,
    /// Measure nodes whose receiver of traces is absent, refuses, hangs or answers garbage, beside nodes with
    /// all outputs off
    #[arg(long)]
    receivers: bool,
    /// Measure the memory of nodes with metrics that nobody scrapes, under puts for this many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "receivers")]
    flat: Option<u32>,
    /// Write the rows as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder for the systems' data; on a disk, not in memory
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
}

struct System {
    name: &'static str,
    /// Declared before the cluster, so that it ends first.
    load: Load,
    cluster: Cluster,
    /// Ports that serve `/metrics`; none if the system is not scraped.
    metrics: Vec<u16>,
    windows: Vec<Measured>,
    scrapes: Scrapes,
}

/// Runs the measurement and prints it.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.windows == 0 || options.clients.contains(&0) {
        bail!("windows and clients must be at least 1");
    }
    let measure = Duration::try_from_secs_f64(options.seconds)?;
    let data = process::data_folder(&options.folder)?;
    let keys = KeySpace { keys: 10_000, value_len: 256 };
    if let Some(seconds) = options.flat {
        let rows = flat::run(options, seconds, keys, data.path())?;
        return options.json.as_ref().map_or(Ok(()), |path| row::write(path, &rows));
    }
    let mut systems = Vec::new();
    let live = Receiver::start(Answer::Accept)?;
    let traces = |receiver: &Receiver| Some((receiver.port(), options.trace_ratio));
    let off = x0::Outputs::default();
    let scraped = x0::Outputs { metrics: true, ..off };
    let mut variants = vec![("x0, all off", off)];
    if options.receivers {
        for (name, answer) in FAILING {
            variants.push((name, x0::Outputs { traces: traces(&Receiver::start(answer)?), ..off }));
        }
    } else {
        let traced = x0::Outputs { json_logs: true, traces: traces(&live), ..scraped };
        variants.extend([("x0, scraped", scraped), ("x0, + traces, JSON logs", traced)]);
    }
    for (name, outputs) in variants {
        let (cluster, metrics) = x0::start_with(data.path(), outputs)?;
        systems.push(system(name, cluster, metrics, keys)?);
    }
    if !options.without_etcd && !options.receivers {
        let cluster = etcd::start(data.path(), false)?;
        let metrics = cluster.client_ports();
        systems.push(system("etcd, scraped", cluster, metrics, keys)?);
    }
    let mut all = Vec::new();
    for clients in &options.clients {
        for turn in 0..options.windows {
            for system in &mut systems {
                let window = Window {
                    operation: Operation::Put,
                    clients: *clients,
                    connections: clients.div_ceil(64),
                    warm_up: Duration::from_millis(700),
                    measure,
                    seed: 1 + turn as u64,
                    servers: system.cluster.pids(),
                };
                let scraper = Scraper::start(&system.metrics);
                let measured = system.load.window(&window).map_err(|error| system.cluster.why(error))?;
                system.scrapes.add(scraper.stop());
                system.windows.push(measured);
            }
        }
        let taken: Vec<_> =
            systems.iter_mut().map(|system| Ok((system.name, take(system)?))).collect::<Result<_>>()?;
        print(*clients, options.windows, &taken);
        all.extend(rows(*clients, &taken));
    }
    all.extend(scrape_cpu(&mut systems)?);
    println!("{} traced puts have arrived at the receiver in {} requests", live.puts(), live.requests());
    if let Some(path) = &options.json {
        row::write(path, &all)?;
    }
    Ok(())
}

fn system(name: &'static str, mut cluster: Cluster, metrics: Vec<u16>, keys: KeySpace) -> Result<System> {
    let mut load = Load::start(&cluster.target, keys)?;
    load.ready(READY_LIMIT).map_err(|error| cluster.why(error))?;
    load.fill().map_err(|error| cluster.why(error))?;
    Ok(System { name, load, cluster, metrics, windows: Vec::new(), scrapes: Scrapes::default() })
}

/// The processor time of a scrape, of x0 beside etcd.
fn scrape_cpu(systems: &mut [System]) -> Result<Vec<Row>> {
    let mut measured = Vec::new();
    for system in systems.iter_mut().filter(|system| !system.metrics.is_empty()) {
        let cpu = scraper::cpu(&system.metrics, &system.cluster.pids(), SCRAPES)?.as_secs_f64() * 1e6;
        println!("{:<26} {cpu:>9.0} us of CPU for a scrape", system.name);
        measured.push((system.name, cpu));
    }
    let [own, .., peer] = measured.as_slice() else { return Ok(Vec::new()) };
    if !peer.0.starts_with("etcd") {
        return Ok(Vec::new());
    }
    Ok(vec![Row {
        area: "observe",
        case: "scrape, no load".to_owned(),
        metric: "server cpu",
        unit: "us",
        x0: Some(own.1),
        peer: Some(peer.1),
        peer_name: peer.0.to_owned(),
        ratio: ratio(Better::Less, Some(own.1), Some(peer.1)),
    }])
}

/// The medians of the windows of a system.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rate: f64,
    p99_ms: f64,
    cpu_us: f64,
    resident_mib: f64,
    scrape_p50_ms: f64,
    scrape_p99_ms: f64,
    scrape_bytes: f64,
}

/// The metrics of the rows: name, unit, direction and figure.
type Metric = (&'static str, &'static str, Better, fn(&Figures) -> f64);
const METRICS: [Metric; 6] = [
    ("operations", "1/s", Better::More, |figures| figures.rate),
    ("p99", "ms", Better::Less, |figures| figures.p99_ms),
    ("server cpu", "us/op", Better::Less, |figures| figures.cpu_us),
    ("resident memory", "MiB/server", Better::Less, |figures| figures.resident_mib),
    ("scrape p99", "ms", Better::Less, |figures| figures.scrape_p99_ms),
    ("scrape length", "bytes", Better::Less, |figures| figures.scrape_bytes),
];

/// The figures of the windows since the last call.
fn take(system: &mut System) -> Result<Figures> {
    let windows = std::mem::take(&mut system.windows);
    let scrapes = std::mem::take(&mut system.scrapes);
    let of = |value: fn(&Measured) -> f64| {
        median(&windows.iter().map(value).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let pids = system.cluster.pids();
    Ok(Figures {
        rate: of(|window| window.operations as f64 / window.elapsed.as_secs_f64()),
        p99_ms: of(|window| window.p99.as_secs_f64() * 1e3),
        cpu_us: of(|window| window.server_cpu.as_secs_f64() * 1e6 / window.operations.max(1) as f64),
        resident_mib: procfs::resident(&pids)? as f64 / f64::from(1 << 20) / pids.len() as f64,
        scrape_p50_ms: scrapes.percentile_ms(0.5),
        scrape_p99_ms: scrapes.percentile_ms(0.99),
        scrape_bytes: scrapes.bytes as f64,
    })
}

fn print(clients: usize, windows: usize, systems: &[(&'static str, Figures)]) {
    println!("puts of 256 bytes by {clients} clients, medians of {windows} windows");
    println!(
        "{:<26} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>7} {:>12} {:>12} {:>10}",
        "system",
        "puts/s",
        "ratio",
        "p99 ms",
        "ratio",
        "CPU us/op",
        "ratio",
        "MiB",
        "scrape p50",
        "scrape p99",
        "bytes"
    );
    let Some((_, base)) = systems.first() else { return };
    for (name, own) in systems {
        println!(
            "{name:<26} {:>9.0} {:>6.3} {:>9.2} {:>6.3} {:>9.1} {:>6.3} {:>7.1} {:>9.2} ms {:>9.2} ms {:>10.0}",
            own.rate,
            own.rate / base.rate,
            own.p99_ms,
            own.p99_ms / base.p99_ms,
            own.cpu_us,
            own.cpu_us / base.cpu_us,
            own.resident_mib,
            own.scrape_p50_ms,
            own.scrape_p99_ms,
            own.scrape_bytes
        );
    }
}

/// The rows of one number of clients: each variant of x0 beside x0 with all outputs off, and x0 as it is
/// scraped beside etcd.
fn rows(clients: usize, systems: &[(&'static str, Figures)]) -> Vec<Row> {
    let (Some(base), Some(scraped)) = (systems.first(), systems.get(1)) else { return Vec::new() };
    let mut rows = Vec::new();
    for other in &systems[1..] {
        let is_variant = other.0.starts_with("x0");
        let (own, peer) = if is_variant { (other, base) } else { (scraped, other) };
        for (metric, unit, better, figure) in METRICS {
            // NaN is a figure that does not exist.
            let figure = |of: &Figures| Some(figure(of)).filter(|figure| figure.is_finite());
            let (x0, peer_figure) = (figure(&own.1), figure(&peer.1));
            if x0.is_some() {
                rows.push(Row {
                    area: "observe",
                    case: format!("put, {clients} clients, {}", own.0),
                    metric,
                    unit,
                    x0,
                    peer: peer_figure,
                    peer_name: peer.0.to_owned(),
                    ratio: ratio(better, x0, peer_figure),
                });
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_compare_with_all_off_and_with_etcd() {
        let figures = |rate| Figures {
            rate,
            p99_ms: 1.0,
            cpu_us: 2.0,
            resident_mib: 3.0,
            scrape_p50_ms: f64::NAN,
            scrape_p99_ms: f64::NAN,
            scrape_bytes: 0.0,
        };
        let systems = [("x0, all off", figures(10.0)), ("x0, scraped", figures(9.0)), ("etcd", figures(3.0))];
        let rows = rows(64, &systems);
        let ratios: Vec<_> =
            rows.iter().filter(|row| row.metric == "operations").map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(0.9), Some(3.0)]);
        assert!(rows.iter().all(|row| row.metric != "scrape p99" && row.case.ends_with("x0, scraped")));
    }
}
