//! Snapshots of all counters.

use anyhow::Result;
use x0_ebpf::testing::measure_snapshot;

use super::Options;
use crate::case::{Case, Metric};

const TIME: Metric = Metric { name: "snapshot", unit: "ms" };
const ENTRIES: u32 = 50_000;
/// The required speed-up over the iterator.
const FASTER: f64 = 5.0;

pub(super) fn measure(options: &Options) -> Result<Vec<Case>> {
    let name = format!("snapshot of {ENTRIES} entries");
    let how = "A map with a value for each CPU, read in batches (x0-ebpf) and entry by entry (the iterator of aya), one after the other.";
    let mut case = Case::new("ebpf", name, how, vec!["x0-ebpf".into(), "aya's iterator".into()]);
    for _ in 0..options.turns {
        let times = measure_snapshot(ENTRIES)?;
        case.add(TIME, 0, times.batches.as_secs_f64() * 1e3);
        case.add(TIME, 1, times.iterator.as_secs_f64() * 1e3);
    }
    let most = case.median(TIME, 1).unwrap_or(f64::NAN) / FASTER;
    case.aim("snapshot, beside a fifth of the iterator", case.median(TIME, 0), most, "ms");
    Ok(vec![case])
}
