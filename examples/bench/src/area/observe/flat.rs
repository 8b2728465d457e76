//! The memory of nodes whose metrics nobody scrapes, under puts at full rate: what a node keeps for the next
//! scrape must not grow.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Options, system};
use crate::load::{KeySpace, Operation, Window};
use crate::peer::x0;
use crate::row::{Better, Row, ratio};

/// The time of one reading of the memory.
const STEP: Duration = Duration::from_secs(10);
/// Caches fill first.
const WARM_UP_STEPS: usize = 6;

/// Measures nodes without outputs and nodes with metrics, one after the other, each for this many seconds.
pub(super) fn run(options: &Options, seconds: u32, keys: KeySpace, data: &Path) -> Result<Vec<Row>> {
    let clients = *options.clients.first().context("no number of clients")?;
    let steps = usize::try_from(seconds / 10)?;
    if steps <= WARM_UP_STEPS {
        bail!("--flat needs more than 60 seconds: the memory of the first minute does not count");
    }
    let mut grown = Vec::new();
    let off = x0::Outputs::default();
    for (name, outputs) in
        [("x0, all off", off), ("x0, metrics, unread", x0::Outputs { metrics: true, ..off })]
    {
        let (cluster, _) = x0::start_with(data, outputs)?;
        let mut system = system(name, cluster, Vec::new(), keys)?;
        let mut read = Vec::new();
        for step in 0..steps {
            let window = Window {
                operation: Operation::Put,
                clients,
                connections: clients.div_ceil(64),
                warm_up: Duration::ZERO,
                measure: STEP,
                seed: 1 + step as u64,
                servers: system.cluster.pids(),
            };
            let measured = system.load.window(&window).map_err(|error| system.cluster.why(error))?;
            let mib = mib(measured.resident_bytes) / window.servers.len() as f64;
            println!(
                "{name:<22} {:>5} s {:>9.0} puts/s {mib:>8.2} MiB a server",
                (step + 1) * 10,
                measured.operations as f64 / measured.elapsed.as_secs_f64()
            );
            read.push(mib);
        }
        grown.push(growth(&read[WARM_UP_STEPS..]));
    }
    println!(
        "growth after the first minute: {:.2} MiB a server with all off, {:.2} with metrics",
        grown[0], grown[1]
    );
    Ok(vec![Row {
        area: "observe",
        case: format!("put, {clients} clients, {seconds} s without a scrape"),
        metric: "growth of memory after a minute",
        unit: "MiB/server",
        x0: Some(grown[1]),
        peer: Some(grown[0]),
        peer_name: "x0, all off".to_owned(),
        ratio: ratio(Better::Less, Some(grown[1]), Some(grown[0])),
    }])
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How far the readings rise above the first one.
fn growth(read: &[f64]) -> f64 {
    let first = read.first().copied().unwrap_or_default();
    read.iter().fold(0.0, |most, one| f64::max(most, one - first))
}

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn growth_is_the_greatest_rise_above_the_first_reading() {
        assert_eq!(growth(&[5.0, 7.5, 6.0, 4.0]), 2.5);
        assert_eq!(growth(&[5.0, 4.0]), 0.0);
        assert_eq!(growth(&[]), 0.0);
    }
}
