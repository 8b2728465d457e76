//! Random keys: what an overwrite and a removal cost whatever the length of the key, and a million of them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::systems::{self, Couple, Pair, System};
use super::{Work, processor_time};
use crate::case::{Case, Metric};
use crate::random::Random;

const OVERWRITE: Metric = Metric { name: "overwrite", unit: "B" };
const REMOVAL: Metric = Metric { name: "removal", unit: "B" };
const ENTRY: Metric = Metric { name: "differing entry", unit: "B" };
const CPU: Metric = Metric { name: "cpu of both", unit: "ms" };
const LONGEST: Metric = Metric { name: "longest call", unit: "ms" };

/// The lengths of the keys.
const LENS: [usize; 4] = [8, 16, 32, 64];
/// The length where only one is measured.
const LEN: usize = 16;
/// Writers of the overwrites that are not of one writer.
const WRITERS: usize = 20;
/// A million, beside the hundred thousand of the other cases.
const TIMES_KEYS: u32 = 10;

/// The most bytes of an overwrite, with one writer and with many, beside those of yrs, of a removal, and of
/// an entry that differs when the history is forgotten.
const OVERWRITE_MAX: f64 = 9.0;
const OVERWRITE_BY_MANY_MAX: f64 = 12.0;
const OVERWRITE_TO_YRS: f64 = 0.65;
const REMOVAL_MAX: f64 = 3.0;
const ENTRY_MAX: f64 = 25.0;
const LONGEST_MAX_MS: f64 = 20.0;
/// Half of what the first sync of a million keys once took on both sides.
const FIRST_MAX_MS: f64 = 6_400.0;

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for len in LENS {
        cases.extend(changed(work, len)?);
    }
    cases.push(by_many(work)?);
    cases.extend(forgotten(work)?);
    Ok(cases)
}

/// Text of random printable ASCII, because the peers take no other keys: 95 letters, which no system can
/// pack.
fn text(len: usize, random: &mut Random) -> String {
    let letter = |_| char::from(b' ' + u8::try_from(random.below(95)).unwrap_or(0));
    (0..len).map(letter).collect()
}

fn value(random: &mut Random) -> u32 {
    (random.next() >> 32) as u32
}

/// Keys that differ, in random order.
fn keys(count: u32, len: usize, random: &mut Random) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut keys = Vec::new();
    while keys.len() < count as usize {
        let key = text(len, random);
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    keys
}

/// The systems, and the keys that all of them hold.
struct Field<'a> {
    work: &'a Work<'a>,
    systems: Vec<Box<dyn System>>,
    fill: Vec<Pair>,
    /// The keys in another order than that in which they were written.
    keys: Vec<String>,
}

impl<'a> Field<'a> {
    fn new(work: &'a Work<'a>, count: u32, len: usize) -> Self {
        let mut random = Random::new(work.options.seed + len as u64);
        let mut keys = keys(count, len, &mut random);
        let fill: Vec<Pair> = keys.iter().map(|key| (key.clone(), value(&mut random))).collect();
        // The keys that change together must not have been written one after the other.
        for place in 0..keys.len() {
            let rest = u32::try_from(keys.len() - place).unwrap_or(u32::MAX);
            keys.swap(place, place + random.below(rest) as usize);
        }
        Self { work, systems: systems::with_differences(), fill, keys }
    }

    /// The same work, done by other systems.
    fn of(mut self, systems: Vec<Box<dyn System>>) -> Self {
        self.systems = systems;
        self
    }

    /// Two replicas of a system that hold the keys, of which none was ever overwritten or removed.
    fn couple(&self, system: usize) -> Result<Box<dyn Couple>> {
        self.systems[system].couple(&self.fill)
    }

    fn names(&self) -> Vec<String> {
        self.systems.iter().map(|system| system.name()).collect()
    }

    /// As many keys of the turn, the same for all systems. The keys of two turns differ, if there are enough.
    fn some(&self, turn: usize, count: usize) -> &[String] {
        // The keys are in random order.
        let begin = turn * count % (self.keys.len() - count + 1);
        &self.keys[begin..begin + count]
    }

    fn new_values(&self, turn: usize, count: usize) -> Vec<Pair> {
        let mut random = Random::new(self.work.options.seed + 77_000 + turn as u64);
        self.some(turn, count).iter().map(|key| (key.clone(), value(&mut random))).collect()
    }

    /// The bytes and the processor time until the second replica holds what the first one does.
    fn sync(&self, system: usize, couple: &mut dyn Couple, pairs: &[Pair]) -> Result<(f64, f64)> {
        let (bytes, seconds) = processor_time(|| couple.sync());
        for (key, value) in pairs {
            ensure!(couple.there(key) == Some(*value), "{} has lost {key:?}", self.systems[system].name());
        }
        Ok((bytes? as f64, seconds))
    }
}

const HOW: &str = "Two replicas in sync; the keys are random printable ASCII. Wire: all bytes in both directions until both know that they hold\n\
     the same, as in `differences`; a value is 4 B.";

/// Overwrites and removals of a hundredth and of a thousandth of the keys.
fn changed(work: &Work<'_>, len: usize) -> Result<Vec<Case>> {
    let field = Field::new(work, work.options.keys, len);
    let mut cases = Vec::new();
    for share in [100, 1_000] {
        let count = (work.options.keys / share).max(1) as usize;
        let name = format!("random keys of {len} B, {count} changed");
        let how = format!(
            "{HOW} {count} of {} keys of {len} B overwritten, and then as many others removed.",
            work.options.keys
        );
        let mut case = Case::new("crdt", name.clone(), how, field.names());
        work.turns(&name, field.systems.len(), |turn, system| {
            let mut couple = field.couple(system)?;
            let pairs = field.new_values(turn * 2, count);
            couple.put(&pairs)?;
            let (bytes, _) = field.sync(system, &mut *couple, &pairs)?;
            case.add(OVERWRITE, system, bytes / count as f64);
            let removed = field.some(turn * 2 + 1, count);
            couple.remove(removed)?;
            let (bytes, _) = field.sync(system, &mut *couple, &[])?;
            let left = removed.iter().find(|key| couple.there(key).is_some());
            ensure!(left.is_none(), "{} still has {left:?}", field.systems[system].name());
            case.add(REMOVAL, system, bytes / count as f64);
            Ok(())
        })?;
        aim_overwrite(&mut case, &field, OVERWRITE_MAX);
        case.aim("removal", case.median(REMOVAL, 0), REMOVAL_MAX, "B");
        cases.push(case);
    }
    Ok(cases)
}

fn aim_overwrite(case: &mut Case, field: &Field<'_>, most: f64) {
    case.aim("overwrite", case.median(OVERWRITE, 0), most, "B");
    let yrs = field.systems.iter().position(|system| system.name().starts_with("yrs"));
    if let Some(bytes) = yrs.and_then(|yrs| case.median(OVERWRITE, yrs)) {
        case.aim("overwrite beside yrs", case.median(OVERWRITE, 0), OVERWRITE_TO_YRS * bytes, "B");
    }
}

/// Overwrites of several writers, which the first replica then brings to the second.
fn by_many(work: &Work<'_>) -> Result<Case> {
    let field = Field::new(work, work.options.keys, LEN);
    let count = (work.options.keys / 100).max(1) as usize;
    let name = format!("random keys of {LEN} B, {count} changed by {WRITERS} writers");
    let how = format!(
        "{HOW} {count} of {} keys of {LEN} B overwritten by {WRITERS} writers, each of which knows what was there.",
        work.options.keys
    );
    let mut case = Case::new("crdt", name.clone(), how, field.names());
    work.turns(&name, field.systems.len(), |turn, system| {
        let pairs = field.new_values(turn, count);
        let lists: Vec<&[Pair]> = pairs.chunks(count.div_ceil(WRITERS)).collect();
        let mut couple = field.couple(system)?;
        couple.put_by(&lists)?;
        let (bytes, _) = field.sync(system, &mut *couple, &pairs)?;
        case.add(OVERWRITE, system, bytes / count as f64);
        Ok(())
    })?;
    case.aim("overwrite", case.median(OVERWRITE, 0), OVERWRITE_BY_MANY_MAX, "B");
    Ok(case)
}

/// Overwrites whose history was forgotten before the other replica had them.
fn forgotten(work: &Work<'_>) -> Result<Vec<Case>> {
    let field = Field::new(work, work.options.keys, LEN);
    let mut cases = Vec::new();
    for count in [100, 1_000, 10_000].into_iter().filter(|count| count * 10 <= field.keys.len()) {
        let name = format!("random keys of {LEN} B, {count} changed, history forgotten");
        let how = format!(
            "{HOW} {count} of {} keys of {LEN} B overwritten; then the first replica forgets all history (automerge: both forget the\n\
             states of the sync protocol, and keep all changes).",
            work.options.keys
        );
        let mut case = Case::new("crdt", name.clone(), how, field.names());
        work.turns(&name, field.systems.len(), |turn, system| {
            if case.is_missing(system) {
                return Ok(());
            }
            let mut couple = field.couple(system)?;
            let pairs = field.new_values(turn, count);
            couple.put(&pairs)?;
            if !couple.forget() {
                case.miss(system, "it keeps all history");
                return Ok(());
            }
            let (bytes, _) = field.sync(system, &mut *couple, &pairs)?;
            case.add(ENTRY, system, bytes / count as f64);
            Ok(())
        })?;
        case.aim("differing entry", case.median(ENTRY, 0), ENTRY_MAX, "B");
        cases.push(case);
    }
    Ok(cases)
}

/// The processor time for ten times the keys: a delta of a hundredth of them, and all to an empty replica.
pub(super) fn measure_million(work: &Work<'_>) -> Result<Vec<Case>> {
    let count = work.options.keys.saturating_mul(TIMES_KEYS);
    let field = Field::new(work, count, LEN).of(systems::of_a_million());
    let mut couples = Vec::new();
    for (number, system) in field.systems.iter().enumerate() {
        work.progress.set_message(format!("a million keys: filling {}", system.name()));
        couples.push(field.couple(number)?);
    }
    let changes = (count / 100) as usize;
    let how =
        "CPU: of the thread, for both sides, encoding and applying. Longest call: of `Session::handle`.";
    let mut delta = Case::new(
        "crdt",
        format!("{count} random keys, {changes} changed"),
        format!("{changes} keys of {LEN} B overwritten on one side. {how}"),
        field.names(),
    );
    let mut first = Case::new(
        "crdt",
        format!("{count} random keys to an empty replica"),
        format!("{count} keys of {LEN} B with values of 4 B. {how}"),
        field.names(),
    );
    work.turns("a million keys", field.systems.len(), |turn, system| {
        let couple = &mut *couples[system];
        let pairs = field.new_values(turn, changes);
        couple.put(&pairs)?;
        // The calls so far do not count.
        couple.longest_call();
        for (number, case) in [&mut delta, &mut first].into_iter().enumerate() {
            if number > 0 {
                couple.empty()?;
            }
            let (_, seconds) = field.sync(system, couple, &pairs)?;
            case.add(CPU, system, seconds * 1e3);
            if let Some(seconds) = couple.longest_call() {
                case.add(LONGEST, system, seconds * 1e3);
            }
        }
        Ok(())
    })?;
    for case in [&mut delta, &mut first] {
        case.aim("longest call", case.median(LONGEST, 0), LONGEST_MAX_MS, "ms");
    }
    let most = FIRST_MAX_MS * f64::from(count) / 1e6;
    first.aim("cpu of both", first.median(CPU, 0), most, "ms");
    Ok(vec![delta, first])
}
