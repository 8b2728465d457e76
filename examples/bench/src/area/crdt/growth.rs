//! The memory that overwritten and removed entries leave.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use super::Work;
use super::systems::{self, Pair, Replica, System};
use crate::case::{Case, Metric};
use crate::memory;

const SAVED: Metric = Metric { name: "saved, to a fresh one", unit: "x" };
const SAVED_ALIKE: Metric = Metric { name: "saved, to one filled in the same order", unit: "x" };
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
         filled once with what it holds in the end: in the order of the keys, and in that in which they were written last. The first order\n\
         takes no bytes to say, the second about 17 bits a key wherever an event has a name. Memory and saved bytes as above.",
        work.options.keys
    );
    let mut case =
        Case::new("crdt", "growth, overwritten", how, systems.iter().map(|system| system.name()).collect());
    work.turns("overwritten", systems.len(), |turn, at| {
        let system = &*systems[at];
        let overwrites: Vec<Pair> = (0..work.options.keys.div_ceil(1_000))
            .flat_map(|round| work.changes(turn * 1_000 + round as usize, 1_000.min(work.options.keys)))
            .collect();
        let mut last: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
        last.extend(
            fill.iter().chain(&overwrites).enumerate().map(|(at, (key, value))| (key.as_str(), (at, *value))),
        );
        let pair = |(key, (_, value)): (&str, (usize, u32))| (key.to_owned(), value);
        let by_key: Vec<Pair> = last.iter().map(|(key, write)| pair((*key, *write))).collect();
        let mut writes: Vec<(&str, (usize, u32))> = last.into_iter().collect();
        writes.sort_unstable_by_key(|(_, (at, _))| *at);
        let by_write: Vec<Pair> = writes.into_iter().map(pair).collect();
        let built = build(system, fill.len(), |replica| {
            replica.put(&fill)?;
            overwrites.chunks(BATCH).try_for_each(|batch| replica.put(batch))
        })?;
        let fresh = build(system, fill.len(), |replica| replica.put(&by_key))?;
        compare(&mut case, at, &built, &fresh);
        let alike = build(system, fill.len(), |replica| replica.put(&by_write))?;
        case.add(SAVED_ALIKE, at, built.saved / alike.saved);
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
        let names: BTreeSet<&String> = gone.iter().collect();
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
