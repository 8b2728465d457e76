//! The size of a key in memory and in a saved state.

use anyhow::Result;

use super::Work;
use super::systems::{self, Pair};
use crate::case::{Case, Metric};
use crate::memory;

const MEMORY: Metric = Metric { name: "memory", unit: "B/key" };
const SAVED: Metric = Metric { name: "saved", unit: "B/key" };

/// The place of yrs among the systems.
const YRS: usize = 2;
/// How much of the memory of yrs a key may take.
const OF_YRS: f64 = 0.6;

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    let in_order = work.fill();
    let shuffled = work.changes(0, work.options.keys);
    Ok(vec![
        case(work, "space, filled in order of the keys", &in_order)?,
        case(work, "space, filled in random order", &shuffled)?,
    ])
}

fn case(work: &Work<'_>, name: &str, fill: &[Pair]) -> Result<Case> {
    let systems = systems::all();
    let how = "One replica, filled in one transaction. Memory: what a counting allocator sees it hold of what was asked for, keys and\n\
               values included, after the system has dropped what it can drop once all have seen everything (x0: `forget`; loro: its\n\
               caches). Saved: x0 `save`, automerge `save`, yrs a v2 update, loro a shallow snapshot, crdts postcard.";
    let mut case = Case::new("crdt", name, how, systems.iter().map(|system| system.name()).collect());
    work.turns(name, systems.len(), |_, system| {
        let before = memory::allocated();
        let mut replica = systems[system].replica()?;
        replica.put(fill)?;
        replica.settle();
        let held = memory::allocated().saturating_sub(before);
        case.add(MEMORY, system, held as f64 / fill.len() as f64);
        case.add(SAVED, system, replica.save()?.len() as f64 / fill.len() as f64);
        Ok(())
    })?;
    let yrs = case.median(MEMORY, YRS).unwrap_or(f64::NAN);
    case.aim("memory of a key to that of yrs", case.median(MEMORY, 0).map(|x0| x0 / yrs), OF_YRS, "x");
    Ok(case)
}
