//! The cost of the healer of x0-node: puts on three nodes whose healer acts, beside three whose healer is
//! off.
//!
//! The two clusters take turns, one window each, and the one that begins changes from turn to turn.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::ProgressBar;

use crate::case::{Case, Metric};
use crate::load::{KeySpace, Load, Operation, Target, Window};
use crate::peer::{Cluster, SERVERS, x0};
use crate::process;

/// Clients, each with one request in flight.
const CLIENTS: usize = 64;
/// The time in which a cluster must respond after the start.
const READY_LIMIT: Duration = Duration::from_secs(60);

const TIME: Metric = Metric { name: "time for a put", unit: "us" };
const P99: Metric = Metric { name: "99th percentile", unit: "ms" };
const CPU: Metric = Metric { name: "server processor time of a put", unit: "us" };
const MEMORY: Metric = Metric { name: "resident memory of a node", unit: "MiB" };
const RECORDS: Metric = Metric { name: "records of a node on disk", unit: "KiB" };
const SYSTEMS: [&str; 2] = ["x0, healer active", "x0, healer off"];
/// The mode of `[heal]` of each system.
const MODES: [&str; 2] = ["active", "off"];

/// The least share of the puts without a healer.
const SHARE: f64 = 0.99;
/// The most memory that a healer takes, in MiB.
const MEMORY_MAX: f64 = 4.0;
/// The most that records take on the disk of a node, in KiB, as the README of x0-node states it.
const RECORDS_MAX: f64 = 512.0;

/// Puts on both clusters in turn.
pub(super) fn measure(turns: u32, seconds: f64, folder: &Path, progress: &ProgressBar) -> Result<Case> {
    let how = format!(
        "Puts of 256 bytes by {CLIENTS} clients on three nodes, {turns} windows of {seconds} s each, in turn. The idle \
         cluster runs on the same machine meanwhile, so that what its healers do in the background slows both: the \
         processor time of a put has that of its own cluster alone. The failure detector runs on both."
    );
    let mut case = Case::new("mapek", "healer of x0-node", how, SYSTEMS.map(str::to_owned).to_vec());
    let (measure, data) = (Duration::try_from_secs_f64(seconds)?, process::data_folder(folder)?);
    let keys = KeySpace { keys: 10_000, value_len: 256 };
    let mut clusters = Vec::new();
    for mode in MODES {
        let outputs = x0::Outputs { heal: Some(mode), ..x0::Outputs::default() };
        let (mut cluster, _) = x0::start_with(data.path(), outputs)?;
        let mut load = Load::start(&cluster.target, keys)?;
        load.ready(READY_LIMIT).map_err(|error| cluster.why(error))?;
        load.fill().map_err(|error| cluster.why(error))?;
        // The load is declared first, so that it ends first.
        clusters.push((load, cluster));
    }
    let mut memory = Vec::new();
    for turn in 0..turns {
        progress.set_message("healer of x0-node");
        let mut resident = [0.0; 2];
        for place in 0..2 {
            let system = (place + turn as usize) % 2;
            let (load, cluster) = &mut clusters[system];
            let window = Window {
                operation: Operation::Put,
                clients: CLIENTS,
                connections: 1,
                warm_up: Duration::from_millis(700),
                measure,
                seed: 1 + u64::from(turn),
                servers: cluster.pids(),
            };
            let measured = load.window(&window).map_err(|error| cluster.why(error))?;
            ensure!(measured.operations > 0, "no put of {} was answered", SYSTEMS[system]);
            let puts = measured.operations as f64;
            case.add(TIME, system, measured.elapsed.as_secs_f64() * 1e6 / puts);
            case.add(P99, system, measured.p99.as_secs_f64() * 1e3);
            case.add(CPU, system, measured.server_cpu.as_secs_f64() * 1e6 / puts);
            resident[system] = measured.resident_bytes as f64 / f64::from(1 << 20) / SERVERS as f64;
            case.add(MEMORY, system, resident[system]);
            case.add(RECORDS, system, records(cluster)? as f64 / 1024.0);
        }
        memory.push(resident[0] - resident[1]);
        progress.inc(1);
    }
    case.aim("time for a put beside that without a healer", case.paired_ratio(TIME, 0, 1), 1.0 / SHARE, "x");
    case.aim(
        "server processor time of a put beside that without a healer",
        case.paired_ratio(CPU, 0, 1),
        1.0 / SHARE,
        "x",
    );
    case.aim("more resident memory of a node", crate::statistics::median(&memory), MEMORY_MAX, "MiB");
    case.aim("records of a node on disk", case.median(RECORDS, 0), RECORDS_MAX, "KiB");
    Ok(case)
}

/// The bytes of the records of the node that keeps the most.
fn records(cluster: &Cluster) -> Result<u64> {
    let Target::X0 { client, .. } = &cluster.target else { return Ok(0) };
    let root = client.parent().unwrap_or(client);
    let folders = (1..=SERVERS).map(|node| root.join(format!("node-{node}/data/heal")));
    let sizes = folders.map(|folder| size(&folder)).collect::<Result<Vec<_>>>()?;
    Ok(sizes.into_iter().max().unwrap_or_default())
}

/// The bytes of the files in a folder; none if there is no folder.
fn size(folder: &Path) -> Result<u64> {
    if !folder.exists() {
        return Ok(0);
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        // A file may be replaced meanwhile.
        sum += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(sum)
}
