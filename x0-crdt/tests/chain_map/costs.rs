//! The costs of signed chains, in bytes: printed, and held to bounds.

use std::time::Instant;

use x0_crdt::internal::chain::{CHAIN_PREFIX, ChainOptions, MapChains};
use x0_crdt::{CausalMap, MapDelta, ReplicaId, Version};

use super::keys::{Key, Random, Ring};
use super::net::KEY;

const EVENTS: usize = 4_096;

struct Cost {
    /// Bytes of a difference with all events, each alive, above the same without a chain.
    sent: f64,
    /// The same after all of a batch but one event in it are gone, for each event that is left.
    alone: f64,
    /// Chain entries and their bytes when nothing is alive and all have seen it.
    rest: (usize, usize),
}

fn fill(map: &mut CausalMap, random: &mut Random) {
    for number in 0..EVENTS {
        map.put(format!("key-{number:05}").as_bytes(), number as u64, &random.next().to_le_bytes()).unwrap();
    }
}

fn reserved(map: &CausalMap) -> (usize, usize) {
    let entries = map.prefix(CHAIN_PREFIX);
    entries
        .fold((0, 0), |(count, len), entry| (count + 1, len + entry.key().len() + entry.latest().value.len()))
}

fn cost(batch_len_max: usize) -> Cost {
    let options = ChainOptions::default().batch_len_max(batch_len_max);
    let mut plain = CausalMap::new(ReplicaId::new(1), KEY);
    fill(&mut plain, &mut Random(1));
    let without = plain.delta(&Version::new()).unwrap().encode(&Version::new()).len();

    let mut map = CausalMap::new(ReplicaId::new(1), KEY);
    let mut chains = MapChains::open(&mut map, &options, Box::new(Ring::of([1])), Some(Key::boxed(1)));
    fill(&mut map, &mut Random(1));
    let begun = Instant::now();
    chains.sign_pending(&mut map).unwrap();
    let signed_in = begun.elapsed() / EVENTS as u32;
    let bytes = map.delta(&Version::new()).unwrap().encode(&Version::new());
    let sent = (bytes.len() - without) as f64 / EVENTS as f64;

    let mut there = CausalMap::new(ReplicaId::new(2), KEY);
    let mut reader = MapChains::open(&mut there, &options, Box::new(Ring::of([1])), None);
    let joined = there.join(&MapDelta::decode(&bytes, &Version::new()).unwrap()).unwrap();
    let begun = Instant::now();
    let reviewed = reader.review(&mut there, &joined.keys);
    let review = begun.elapsed() / EVENTS as u32;
    assert!(reviewed.keys.is_empty());
    assert!(there.range(b"key").all(|entry| reader.latest(&entry).is_some()));
    println!("batches of {batch_len_max}: signed in {signed_in:?} an event, reviewed in {review:?}");

    let stable = |map: &mut CausalMap| {
        let version = map.version();
        map.collect_tombstones(&version);
    };
    // One event of each batch stays.
    for number in (0..EVENTS).filter(|number| number % batch_len_max != 0) {
        map.remove(format!("key-{number:05}").as_bytes());
    }
    stable(&mut map);
    chains.tidy(&mut map);
    let alone = reserved(&map).1 as f64 / (EVENTS / batch_len_max) as f64;
    for number in (0..EVENTS).step_by(batch_len_max) {
        map.remove(format!("key-{number:05}").as_bytes());
    }
    stable(&mut map);
    chains.tidy(&mut map);
    stable(&mut map);
    Cost { sent, alone, rest: reserved(&map) }
}

#[test]
fn a_chain_costs_a_digest_for_each_value_and_little_else() {
    for (batch, sent_max, alone_max) in [(16, 50.0, 400.0), (64, 40.0, 460.0), (256, 38.0, 600.0)] {
        let Cost { sent, alone, rest } = cost(batch);
        println!("  {sent:.1} bytes an event, {alone:.0} for one alone in its batch, {rest:?} in the end");
        assert!(sent < sent_max && alone < alone_max);
        assert_eq!(rest, (1, 20 + 152), "the head stays");
    }
}
