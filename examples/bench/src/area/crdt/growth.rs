//! What is left of what is gone: after overwriting, and after removing.

use anyhow::{Result, ensure};

use super::Work;
use super::systems::{self, Pair, Replica, System};
use crate::case::{Case, Metric};
use crate::memory;

const SAVED: Metric = Metric { name: "saved, to a fresh one", unit: "x" };
const MEMORY: Metric = Metric { name: "memory, to a fresh one", unit: "x" };

/// Writes in one transaction while overwriting.
const BATCH: usize = 100;

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    Ok(vec![overwritten(work)?, removed(work)?])
}

/// A replica made by `fill`, the bytes it holds, and its saved length.
struct Built {
    held: f64,
    saved: f64,
}

fn build(
    system: &dyn System,
    len: usize,
    fill: impl FnOnce(&mut dyn Replica) -> Result<()>,
) -> Result<Built> {
    let before = memory::allocated();
    let mut replica = system.replica()?;
    fill(&mut *replica)?;
    replica.settle();
    let held = memory::allocated().saturating_sub(before) as f64;
    ensure!(replica.len() == len, "{} holds {} of {len} keys", system.name(), replica.len());
    Ok(Built { held, saved: replica.save()?.len() as f64 })
}

fn compare(case: &mut Case, at: usize, built: &Built, fresh: &Built) {
    case.add(SAVED, at, built.saved / fresh.saved);
    case.add(MEMORY, at, built.held / fresh.held);
}

fn overwritten(work: &Work<'_>) -> Result<Case> {
    let systems = systems::all();
    let fill = work.fill();
    let how = format!(
        "{0} keys, then {0} overwrites of random keys, {BATCH} in a transaction, all seen by all (x0: `forget`); beside a replica that was\n\
         filled once with what it holds in the end. Memory and saved bytes as above.",
        work.options.keys
    );
    let mut case =
        Case::new("crdt", "growth, overwritten", how, systems.iter().map(|system| system.name()).collect());
    work.turns("overwritten", systems.len(), |turn, at| {
        let system = &*systems[at];
        let overwrites: Vec<Pair> = (0..work.options.keys.div_ceil(1_000))
            .flat_map(|round| work.changes(turn * 1_000 + round as usize, 1_000.min(work.options.keys)))
            .collect();
        let mut last: std::collections::BTreeMap<&str, u32> =
            fill.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        last.extend(overwrites.iter().map(|(key, value)| (key.as_str(), *value)));
        let last: Vec<Pair> = last.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let built = build(system, fill.len(), |replica| {
            replica.put(&fill)?;
            overwrites.chunks(BATCH).try_for_each(|batch| replica.put(batch))
        })?;
        let fresh = build(system, fill.len(), |replica| replica.put(&last))?;
        compare(&mut case, at, &built, &fresh);
        Ok(())
    })?;
    case.aim("saved, to a fresh one", case.median(SAVED, 0), 1.01, "x");
    case.aim("memory, to a fresh one", case.median(MEMORY, 0), 1.01, "x");
    Ok(case)
}

fn removed(work: &Work<'_>) -> Result<Case> {
    let systems = systems::all();
    let fill = work.fill();
    let how = "Nine of ten keys removed, at random, all seen by all (x0: `forget`); beside a replica that was filled with the rest. Memory\n\
               and saved bytes as above.";
    let mut case = Case::new(
        "crdt",
        "growth, nine tenths removed",
        how,
        systems.iter().map(|system| system.name()).collect(),
    );
    work.turns("removed", systems.len(), |turn, at| {
        let system = &*systems[at];
        let gone: Vec<String> =
            work.changes(turn, work.options.keys / 10 * 9).into_iter().map(|(key, _)| key).collect();
        let names: std::collections::BTreeSet<&String> = gone.iter().collect();
        let rest: Vec<Pair> = fill.iter().filter(|(key, _)| !names.contains(key)).cloned().collect();
        let built = build(system, rest.len(), |replica| {
            replica.put(&fill)?;
            replica.remove(&gone)
        })?;
        let fresh = build(system, rest.len(), |replica| replica.put(&rest))?;
        compare(&mut case, at, &built, &fresh);
        Ok(())
    })?;
    case.aim("saved, to a fresh one", case.median(SAVED, 0), 1.1, "x");
    case.aim("memory, to a fresh one", case.median(MEMORY, 0), 1.1, "x");
    Ok(case)
}
