//! Set reconciliation against plain set differences.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "map/random.rs"]
mod random;

use std::collections::BTreeSet;

use random::Random;
use x0_crdt::HashKey;
use x0_crdt::internal::{CodedSymbols, SYMBOL_LEN, SketchDecoder, SketchError};

const KEY: HashKey = HashKey::new(*b"a key of a test.");

fn seeds(default: u64) -> u64 {
    std::env::var("X0_CRDT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn sets(shared: u64, only: [u64; 2], random: &mut Random) -> [BTreeSet<u64>; 2] {
    let mut sets = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..shared {
        let item = random.next();
        sets.iter_mut().for_each(|set| {
            set.insert(item);
        });
    }
    for (set, count) in sets.iter_mut().zip(only) {
        set.extend((0..count).map(|_| random.next()));
    }
    sets
}

fn sorted(items: &[u64]) -> Vec<u64> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items
}

#[test]
fn any_two_sets_reconcile_over_repeated_and_reordered_ranges() {
    for seed in 0..seeds(300) {
        let mut random = Random::new(seed);
        let only = [random.below(60), random.below(60)];
        let [local, remote] = sets(random.below(300), only, &mut random);
        let mut theirs = CodedSymbols::new(KEY, remote.iter().copied());
        let mut decoder = SketchDecoder::new(CodedSymbols::new(KEY, local.iter().copied()));
        while !decoder.is_complete() {
            let wanted = decoder.len();
            let from = (wanted + random.below(9) as usize).saturating_sub(random.below(12) as usize);
            let bytes = theirs.encode(from, 1 + random.below(20) as usize);
            match decoder.add(from, &bytes) {
                Ok(()) => assert!(from <= wanted),
                Err(error) => assert_eq!(error, SketchError::Gap { from, wanted }),
            }
            assert!(wanted < 1_000, "seed {seed} does not end");
        }
        let difference = |a: &BTreeSet<u64>, b: &BTreeSet<u64>| a.difference(b).copied().collect::<Vec<_>>();
        assert_eq!(sorted(decoder.remote_only()), difference(&remote, &local), "seed {seed}");
        assert_eq!(sorted(decoder.local_only()), difference(&local, &remote), "seed {seed}");
    }
}

#[test]
fn symbols_kept_up_to_date_are_those_of_the_set() {
    for seed in 0..seeds(100) {
        let mut random = Random::new(seed);
        let [mut set, _] = sets(50, [50, 0], &mut random);
        let mut kept = CodedSymbols::new(KEY, set.iter().copied());
        for _ in 0..100 {
            match random.below(4) {
                0 => {
                    let item = random.next();
                    assert!(kept.insert(item) && set.insert(item) && !kept.insert(item));
                }
                1 => {
                    if let Some(item) = set.pop_first() {
                        assert!(kept.remove(item) && !kept.remove(item));
                    }
                }
                _ => drop(kept.encode(random.below(300) as usize, 5)),
            }
        }
        let mut fresh = CodedSymbols::new(KEY, set.iter().copied());
        assert_eq!(kept.encode(0, 500), fresh.encode(0, 500), "seed {seed}");
    }
}

#[test]
fn the_bytes_of_a_difference_stay_within_what_was_asked() {
    // The limit: log2 of the number of ways to choose d of 2^64 items.
    let limit = |d: u64| {
        let bits: f64 = (1..=d).map(|i| 64.0 - (i as f64).log2()).sum();
        bits / 8.0
    };
    for (differences, rounds) in [(10, 101), (100, 51), (1_000, 21)] {
        let mut bytes: Vec<usize> = (0..rounds)
            .map(|seed| {
                let mut random = Random::new(seed);
                let [local, remote] =
                    sets(5_000, [differences / 2, differences - differences / 2], &mut random);
                let mut theirs = CodedSymbols::new(KEY, remote);
                let mut decoder = SketchDecoder::new(CodedSymbols::new(KEY, local));
                while !decoder.is_complete() {
                    let from = decoder.len();
                    decoder.add(from, &theirs.encode(from, 1)).unwrap();
                }
                decoder.len() * SYMBOL_LEN
            })
            .collect();
        bytes.sort_unstable();
        let median = bytes[bytes.len() / 2] as f64;
        println!(
            "{differences}: {:.1} B each, {:.2}x",
            median / differences as f64,
            median / limit(differences)
        );
        assert!(median <= 2.9 * limit(differences), "{differences}: {median}");
    }
}

#[test]
fn hostile_symbols_end_in_an_error_or_in_nothing() {
    let local: Vec<u64> = (0..100).collect();
    for seed in 0..seeds(2_000) {
        let mut random = Random::new(seed);
        let mut decoder = SketchDecoder::new(CodedSymbols::new(KEY, local.iter().copied()));
        let mut honest = CodedSymbols::new(KEY, (50..150).chain(1_000..1_000 + random.below(40)));
        let mut bytes = honest.encode(0, 1 + random.below(100) as usize);
        for _ in 0..random.below(8) {
            let place = random.below(bytes.len() as u64) as usize;
            bytes[place] = random.next() as u8;
        }
        if random.below(4) == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        let _ = decoder.add(random.below(2) as usize, &bytes);
        let _ = decoder.add(0, &bytes);
        assert!(decoder.remote_only().len() + decoder.local_only().len() <= decoder.len());
    }
}
