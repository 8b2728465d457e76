//! The cost of observation: three x0 nodes with every output off, scraped, and scraped with JSON logs, beside
//! three etcd servers that are scraped the same way.
//!
//! The systems take turns, one window each, so that all of them see the same machine. While a scraped system
//! has its window, each of its servers is asked for `/metrics` every second. Traces are not measured: x0-node
//! does not emit any.

mod scraper;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use self::scraper::{Scraper, Scrapes};
use crate::load::{KeySpace, Load, Measured, Operation, Window};
use crate::peer::{Cluster, etcd, x0};
use crate::process;
use crate::statistics::median;

/// The time in which a cluster must respond after the start.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The cost of metrics and JSON logs, beside etcd that is scraped the same way.
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
    /// Measure x0 alone
    #[arg(long)]
    without_etcd: bool,
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
    let mut systems = Vec::new();
    for (name, outputs) in [
        ("x0, all off", x0::Outputs::default()),
        ("x0, scraped", x0::Outputs { metrics: true, json_logs: false }),
        ("x0, scraped, JSON logs", x0::Outputs { metrics: true, json_logs: true }),
    ] {
        let (cluster, metrics) = x0::start_with(data.path(), outputs)?;
        systems.push(system(name, cluster, metrics, keys)?);
    }
    if !options.without_etcd {
        let cluster = etcd::start(data.path(), false)?;
        let metrics = cluster.client_ports();
        systems.push(system("etcd, scraped", cluster, metrics, keys)?);
    }
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
        report(*clients, &mut systems);
    }
    Ok(())
}

fn system(name: &'static str, mut cluster: Cluster, metrics: Vec<u16>, keys: KeySpace) -> Result<System> {
    let mut load = Load::start(&cluster.target, keys)?;
    load.ready(READY_LIMIT).map_err(|error| cluster.why(error))?;
    load.fill().map_err(|error| cluster.why(error))?;
    Ok(System { name, load, cluster, metrics, windows: Vec::new(), scrapes: Scrapes::default() })
}

/// Prints the medians of the windows, and takes them.
fn report(clients: usize, systems: &mut [System]) {
    println!("puts of 256 bytes by {clients} clients, medians of {} windows", systems[0].windows.len());
    println!(
        "{:<24} {:>9} {:>6} {:>9} {:>9} {:>6} {:>12} {:>12} {:>10}",
        "system", "puts/s", "ratio", "p99 ms", "CPU us/op", "ratio", "scrape p50", "scrape p99", "bytes"
    );
    let mut base = None;
    for system in systems {
        let windows = std::mem::take(&mut system.windows);
        let scrapes = std::mem::take(&mut system.scrapes);
        let of = |value: fn(&Measured) -> f64| {
            median(&windows.iter().map(value).collect::<Vec<_>>()).unwrap_or(f64::NAN)
        };
        let rate = of(|window| window.operations as f64 / window.elapsed.as_secs_f64());
        let cpu = of(|window| window.server_cpu.as_secs_f64() * 1e6 / window.operations.max(1) as f64);
        let p99 = of(|window| window.p99.as_secs_f64() * 1e3);
        let (rate_base, cpu_base) = *base.get_or_insert((rate, cpu));
        println!(
            "{:<24} {rate:>9.0} {:>6.3} {p99:>9.2} {cpu:>9.1} {:>6.3} {:>9.2} ms {:>9.2} ms {:>10}",
            system.name,
            rate / rate_base,
            cpu / cpu_base,
            scrapes.percentile_ms(0.5),
            scrapes.percentile_ms(0.99),
            scrapes.bytes
        );
    }
}
