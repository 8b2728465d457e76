//! Two replicas in sync with some keys changed on one: bytes on the wire and cost on both sides.

use anyhow::{Result, ensure};

use super::systems::{self, System, X0Bare};
use super::{Work, choose_bits, processor_time};
use crate::case::{Case, Metric};

const BYTES: Metric = Metric { name: "wire", unit: "B/difference" };
const TO_LIMIT: Metric = Metric { name: "to the limit", unit: "x" };
const CPU: Metric = Metric { name: "cpu of both", unit: "ms" };

/// How far above the information limit the bytes may be.
const LIMIT_TIMES: f64 = 2.4;

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    let options = work.options;
    let changes = f64::from(options.changes);
    let limit = choose_bits(f64::from(options.keys), options.changes) / 8.0 / changes + 4.0;
    let mut systems: Vec<Box<dyn System>> = systems::all();
    systems.insert(1, Box::new(X0Bare { own_times: false }));
    systems.insert(2, Box::new(X0Bare { own_times: true }));
    let names = systems.iter().map(|system| system.name()).collect();
    let how = format!(
        "Two replicas in sync, {} random keys given new values on one, in one transaction. Wire: all bytes in both directions until\n\
         both know that they hold the same (x0: datagrams of at most 1200 B of two sessions; automerge: its sync protocol with states\n\
         kept; yrs: state vector and v2 update; loro: version vector and updates; crdts: its whole state in postcard, it has no\n\
         differences). Limit: which keys, and 4 B of value: {limit:.2} B. CPU: of the thread, for both sides, encoding and applying.",
        options.changes
    );
    let mut case = Case::new("crdt", "differences", how, names);
    let fill = work.fill();
    let mut couples = Vec::new();
    for system in &systems {
        work.progress.set_message(format!("differences: filling {}", system.name()));
        couples.push(system.couple(&fill)?);
    }
    // One turn that does not count: allocators and caches are warm, and the second replica has once been
    // written to.
    for couple in &mut couples {
        couple.put(&work.changes(usize::MAX >> 32, options.changes))?;
        couple.sync()?;
    }
    work.turns("differences", systems.len(), |turn, system| {
        let changes_made = work.changes(turn, options.changes);
        let couple = &mut couples[system];
        couple.put(&changes_made)?;
        let (bytes, seconds) = processor_time(|| couple.sync());
        let bytes = bytes? as f64 / changes;
        for (key, value) in &changes_made {
            ensure!(couple.there(key) == Some(*value), "{} has lost {key}", systems[system].name());
        }
        case.add(BYTES, system, bytes);
        case.add(TO_LIMIT, system, bytes / limit);
        case.add(CPU, system, seconds * 1e3);
        Ok(())
    })?;
    case.aim("bytes to the limit", case.median(TO_LIMIT, 0), LIMIT_TIMES, "x");
    let least = (3..systems.len()).filter_map(|peer| case.median(CPU, peer)).fold(f64::MAX, f64::min);
    case.aim("cpu beside the least of the peers", case.median(CPU, 0), least, "ms");
    Ok(vec![case])
}
