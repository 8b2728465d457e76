//! Reconciliation of two nearly equal sets without further knowledge.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use x0_crdt::internal::{CodedSymbols, SketchDecoder};

use super::systems::{self, HASH_KEY};
use super::{Work, choose_bits, processor_time};
use crate::case::{Case, Metric};
use crate::random::Random;

const BYTES: Metric = Metric { name: "wire", unit: "B" };
const TO_LIMIT: Metric = Metric { name: "to the limit", unit: "x" };
const UNCACHED: Metric = Metric { name: "cpu of both", unit: "ms" };
const CACHED: Metric = Metric { name: "cpu of both, cached", unit: "ms" };

/// How far above the information limit the bytes may be, from ten differences on.
const LIMIT_TIMES: f64 = 2.9;
/// How many sets a turn takes the mean of, where single ones lie far apart: the fewer differences, the more
/// luck.
const SETS: u32 = 10;
/// Beyond this `riblt` takes minutes: it looks at every symbol for each item that it finds.
const RIBLT_MAX: u32 = 1_000;

/// The two sides' sets.
struct Sides {
    here: Vec<u64>,
    there: Vec<u64>,
    differences: u32,
}

/// The cost of one reconciliation, or the mean of several.
struct Took {
    bytes: f64,
    uncached: f64,
    cached: Option<f64>,
}

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    [1, 10, 100, 1_000, 10_000]
        .into_iter()
        .filter(|differences| *differences <= work.options.keys / 10)
        .map(|differences| case(work, differences))
        .collect()
}

fn case(work: &Work<'_>, differences: u32) -> Result<Case> {
    // One of 2^64 at a time; the order of the differences says nothing.
    let limit = choose_bits(2_f64.powi(64), differences) / 8.0;
    let sets = (1_000 / differences).clamp(1, SETS);
    let names = [
        format!("{} sketch", systems::named("x0-crdt")),
        systems::named("riblt"),
        systems::named("negentropy"),
    ];
    let how = format!(
        "{} items on both sides, {differences} of them on one side only; one side is to know all of these. Items are 64-bit hashes, with\n\
         negentropy 256-bit ones (it takes no other). Wire: the symbols until the last difference is found (riblt: 16 B and the count as a\n\
         varint), negentropy all messages in both directions. Limit: log2(C(2^64, d)) bits, {limit:.0} B. CPU of the thread, encoding and\n\
         decoding, from the items; cached: from symbols that both sides have kept. Each turn the mean of {sets} pairs of sets.",
        work.options.keys
    );
    let mut case = Case::new("crdt", format!("unknown histories, {differences}"), how, names.to_vec());
    if differences > RIBLT_MAX {
        case.miss(1, "its peeling is quadratic and takes minutes");
    }
    work.turns(&format!("unknown histories, {differences}"), names.len(), |turn, system| {
        if case.is_missing(system) {
            return Ok(());
        }
        let mut took = Vec::new();
        for set in 0..u64::from(sets) {
            let sides = Sides::new(work, differences, turn as u64 + 1_000 * set);
            took.push(match system {
                0 => x0(&sides)?,
                1 => riblt(&sides)?,
                _ => negentropy(&sides)?,
            });
        }
        let mean = |of: fn(&Took) -> f64| took.iter().map(of).sum::<f64>() / f64::from(sets);
        let bytes = mean(|took| took.bytes);
        case.add(BYTES, system, bytes);
        case.add(TO_LIMIT, system, bytes / limit);
        case.add(UNCACHED, system, mean(|took| took.uncached) * 1e3);
        if took.iter().all(|took| took.cached.is_some()) {
            case.add(CACHED, system, mean(|took| took.cached.unwrap_or_default()) * 1e3);
        }
        Ok(())
    })?;
    if differences >= 10 {
        case.aim("bytes to the limit", case.median(TO_LIMIT, 0), LIMIT_TIMES, "x");
    }
    let tenth = case.median(UNCACHED, 0).unwrap_or(f64::NAN) / 10.0;
    case.aim("cpu cached, to a tenth of uncached", case.median(CACHED, 0), tenth, "ms");
    Ok(case)
}

impl Sides {
    fn new(work: &Work<'_>, differences: u32, seed: u64) -> Self {
        let mut random = Random::new(work.options.seed + seed);
        let all: Vec<u64> = (0..work.options.keys + differences.div_ceil(2)).map(|_| random.next()).collect();
        let common = all.len() - differences as usize;
        let half = common + differences as usize / 2;
        Self { here: all[..half].to_vec(), there: [&all[..common], &all[half..]].concat(), differences }
    }
}

fn x0(sides: &Sides) -> Result<Took> {
    let symbols_of = |items: &[u64]| CodedSymbols::new(HASH_KEY, items.iter().copied());
    let reconcile = |from: &mut CodedSymbols, to: CodedSymbols| -> Result<(usize, usize)> {
        let mut decoder = SketchDecoder::new(to);
        let mut bytes = 0;
        while !decoder.is_complete() {
            ensure!(
                decoder.len() < 100 + 10 * sides.differences as usize,
                "x0's sketch does not come to an end"
            );
            // One by one at first, then a hundredth more each time.
            let symbols = from.encode(decoder.len(), decoder.len() / 100 + 1);
            bytes += symbols.len();
            decoder.add(decoder.len(), &symbols)?;
        }
        Ok((bytes, decoder.remote_only().len() + decoder.local_only().len()))
    };
    let (done, uncached) =
        processor_time(|| reconcile(&mut symbols_of(&sides.there), symbols_of(&sides.here)));
    let (bytes, found) = done?;
    ensure!(found == sides.differences as usize, "x0's sketch found {} differences", found);
    // As many symbols kept as will be asked for.
    let (mut there, mut here) = (symbols_of(&sides.there), symbols_of(&sides.here));
    let count = bytes / x0_crdt::internal::SYMBOL_LEN;
    let _ = there.encode(0, count);
    let _ = here.encode(0, count);
    let (done, cached) = processor_time(|| reconcile(&mut there, here));
    done?;
    Ok(Took { bytes: bytes as f64, uncached, cached: Some(cached) })
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Item(u64);

impl riblt::Symbol for Item {
    const BYTE_ARRAY_LENGTH: usize = 8;

    fn encode_to_bytes(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn decode_from_bytes(bytes: &Vec<u8>) -> Self {
        Self(bytes.as_slice().try_into().map_or(0, u64::from_le_bytes))
    }
}

fn riblt(sides: &Sides) -> Result<Took> {
    use riblt::{RatelessIBLT, UnmanagedRatelessIBLT};
    let items = |side: &[u64]| side.iter().copied().map(Item).collect::<HashSet<_>>();
    let (here, there) = (items(&sides.here), items(&sides.there));
    let attempt = |local: &mut RatelessIBLT<Item, HashSet<Item>>,
                   remote: &mut RatelessIBLT<Item, HashSet<Item>>,
                   count: usize| {
        let mut copy = UnmanagedRatelessIBLT::new();
        let mut bytes = 0;
        for index in 0..count {
            let symbol = remote.get_coded_symbol(index);
            bytes += 16 + postcard::to_allocvec(&symbol.count).map_or(0, |count| count.len());
            copy.add_coded_symbol(&symbol);
        }
        let mut difference = local.collapse(&copy);
        let found = difference.peel_all_symbols().len();
        (bytes, difference.is_empty().then_some(found))
    };
    let (mut local, mut remote) = (RatelessIBLT::new(here.clone()), RatelessIBLT::new(there.clone()));
    let mut count = sides.differences as usize;
    let bytes = loop {
        let (bytes, found) = attempt(&mut local, &mut remote, count);
        if found == Some(sides.differences as usize) {
            break bytes;
        }
        ensure!(count < 100 + 10 * sides.differences as usize, "riblt does not come to an end");
        count += count / 100 + 1;
    };
    // Now that the number is known, once for the time, without the attempts.
    let (_, uncached) =
        processor_time(|| attempt(&mut RatelessIBLT::new(here), &mut RatelessIBLT::new(there), count));
    let (_, cached) = processor_time(|| attempt(&mut local, &mut remote, count));
    Ok(Took { bytes: bytes as f64, uncached, cached: Some(cached) })
}

fn negentropy(sides: &Sides) -> Result<Took> {
    let storage = |items: &[u64]| -> Result<NegentropyStorageVector> {
        let mut storage = NegentropyStorageVector::with_capacity(items.len());
        for item in items {
            let mut random = Random::new(*item);
            let id: Vec<u8> = (0..4).flat_map(|_| random.next().to_le_bytes()).collect();
            storage.insert(item >> 32, Id::from_slice(&id)?)?;
        }
        storage.seal()?;
        Ok(storage)
    };
    let reconcile = || -> Result<(usize, usize)> {
        let (here, there) = (storage(&sides.here)?, storage(&sides.there)?);
        let (mut client, mut server) = (Negentropy::borrowed(&here, 0)?, Negentropy::borrowed(&there, 0)?);
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let mut query = Some(client.initiate()?);
        let mut bytes = 0;
        while let Some(message) = query {
            let answer = server.reconcile(&message)?;
            bytes += message.len() + answer.len();
            query = client.reconcile_with_ids(&answer, &mut have, &mut need)?;
        }
        Ok((bytes, have.len() + need.len()))
    };
    let (done, uncached) = processor_time(reconcile);
    let (bytes, found) = done.context("negentropy")?;
    ensure!(found == sides.differences as usize, "negentropy found {found} differences");
    Ok(Took { bytes: bytes as f64, uncached, cached: None })
}
