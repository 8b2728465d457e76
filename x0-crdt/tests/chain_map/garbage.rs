//! Peers that carry forgeries, write under the reserved prefix, or take away what others have signed.

use std::time::Duration;

use x0_crdt::internal::chain::{CHAIN_PREFIX, MapChains, Verification};
use x0_crdt::{CausalMap, ReplicaId};

use super::keys::{Key, Random, Ring};
use super::net::{KEY, KNOWN, Net, open, options};

fn write(net: &mut Net, random: &mut Random, at: usize, keys: usize) {
    let replica = &mut net.replicas[at];
    let key = format!("key-{:02}", random.below(keys)).into_bytes();
    replica.map.put(&key, random.below(5) as u64, &random.next().to_le_bytes()).unwrap();
    if random.chance(20) {
        replica.chains.sign_pending(&mut replica.map).unwrap();
    }
    net.changed(at);
}

fn sign_all(net: &mut Net, honest: usize) {
    for at in 0..honest {
        let replica = &mut net.replicas[at];
        if replica.chains.sign_pending(&mut replica.map).unwrap() {
            net.changed(at);
        }
    }
}

/// All values of honest writers are valid, and no proof exists.
fn check_signed(net: &Net, honest: u64, what: &str) {
    for replica in net.online() {
        assert_eq!(replica.chains.proofs().count(), 0, "{what}");
        for ((key, dot), (_, verification)) in replica.values() {
            let me = replica.map.replica();
            assert!(
                verification == Verification::Valid || dot.replica.node > honest,
                "{what}: {} {dot} at {me}: {verification:?}\n{}",
                key.escape_ascii(),
                net.dump()
            );
        }
    }
}

#[test]
fn an_entry_that_a_carrier_invents_for_another_writer_is_removed_without_blame() {
    for seed in super::seeds(60) {
        let what = format!("seed {seed}");
        let mut random = Random(seed);
        let mut net = Net::new(3, seed);
        for _ in 0..random.below(40) {
            let at = random.below(3);
            write(&mut net, &mut random, at, 20);
        }
        net.settle(&what);
        // The first cannot be heard and writes on.
        let victim = net.replicas[0].map.replica();
        let before = net.replicas[0].map.version().get(victim);
        net.cut(0, 1);
        net.cut(0, 2);
        for _ in 0..=random.below(20) {
            write(&mut net, &mut random, 0, 20);
        }
        sign_all(&mut net, 3);
        let written = net.replicas[0].map.version().get(victim) - before;
        // A carrier brings the second replica values in the name of the first.
        let carried = &mut net.replicas[1];
        let mut forger = CausalMap::restore(&carried.map.save(), victim, KEY).unwrap();
        for _ in 0..=random.below(written as usize) {
            let key = format!("key-{:02}", random.below(20)).into_bytes();
            forger.put(&key, u64::MAX, b"forged").unwrap();
        }
        let delta = forger.delta(&carried.map.version()).unwrap();
        let joined = carried.map.join(&delta).unwrap();
        let _ = carried.chains.review(&mut carried.map, &joined.keys);
        let values = carried.values();
        assert!(
            values
                .values()
                .any(|(value, verification)| value == b"forged" && *verification == Verification::Unsigned)
        );
        net.changed(1);
        net.run(Duration::from_secs(2));
        for ((_, dot), (value, verification)) in net.replicas[2].values() {
            assert!(value != b"forged" || verification == Verification::Unsigned, "{what}: {dot} is valid");
        }
        net.cuts.clear();
        net.settle(&what);
        sign_all(&mut net, 3);
        net.run(Duration::from_secs(20));
        net.settle(&what);
        net.check(&what);
        check_signed(&net, 3, &what);
        for replica in net.online() {
            let values = replica.values();
            assert!(values.values().all(|(value, _)| value != b"forged"), "{what}\n{}", net.dump());
        }
    }
}

/// A value that may stand under the prefix, or something like it.
pub(crate) fn garbage(random: &mut Random, map: &CausalMap) -> (Vec<u8>, Vec<u8>) {
    let genuine: Vec<(Vec<u8>, Vec<u8>)> =
        map.prefix(CHAIN_PREFIX).map(|entry| (entry.key().to_vec(), entry.latest().value.to_vec())).collect();
    let noise = |random: &mut Random, len: usize| -> Vec<u8> {
        (0..random.below(len)).map(|_| random.next().to_le_bytes()[0]).collect()
    };
    let (mut key, mut value) = if genuine.is_empty() {
        (CHAIN_PREFIX.to_vec(), Vec::new())
    } else {
        let (a, b) = (random.below(genuine.len()), random.below(genuine.len()));
        (genuine[a].0.clone(), genuine[b].1.clone())
    };
    match random.below(6) {
        0 => key.extend(noise(random, 12)),
        1 => key = [CHAIN_PREFIX, &noise(random, 40)].concat(),
        2 => {
            let at = CHAIN_PREFIX.len() + random.below(key.len() - CHAIN_PREFIX.len() + 1);
            key.truncate(at);
        }
        3 => {
            let at = CHAIN_PREFIX.len() + random.below(key.len() - CHAIN_PREFIX.len() + 1);
            if let Some(byte) = key.get_mut(at) {
                *byte = b"bhpt\0\x01\xff"[random.below(7)];
            }
        }
        _ => {}
    }
    match random.below(6) {
        0 => value = noise(random, 300),
        1 => value.truncate(random.below(value.len() + 1)),
        2 => value.extend(noise(random, 200)),
        3 | 4 if !value.is_empty() => {
            let at = random.below(value.len());
            value[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
    (key, value)
}

#[test]
fn garbage_under_the_prefix_is_dropped_and_what_was_taken_away_comes_back() {
    for seed in super::seeds(30) {
        let what = format!("seed {seed}");
        let mut random = Random(seed);
        let mut net = Net::new(4, seed);
        let hostile = 3;
        for _ in 0..random.below(60) {
            let at = random.below(3);
            write(&mut net, &mut random, at, 30);
        }
        net.settle(&what);
        for _ in 0..random.below(60) {
            let map = &net.replicas[hostile].map;
            let (key, value) = garbage(&mut random, map);
            let map = &mut net.replicas[hostile].map;
            if random.chance(25) {
                map.remove(&key);
            } else {
                map.put(&key, random.next(), &value).unwrap();
            }
            net.changed(hostile);
            if random.chance(20) {
                net.run(Duration::from_millis(300));
            }
            if random.chance(20) {
                let at = random.below(3);
                write(&mut net, &mut random, at, 30);
            }
            if random.chance(3) {
                net.crash(random.below(3));
            }
        }
        sign_all(&mut net, 3);
        net.settle(&what);
        net.replicas[hostile].online = false;
        sign_all(&mut net, 3);
        net.run(Duration::from_secs(20));
        net.settle(&what);
        net.check(&what);
        check_signed(&net, 3, &what);
        for replica in net.online() {
            // Whatever is left of the hostile one's is its own chain, or what it says it has seen.
            let theirs = replica
                .map
                .prefix(CHAIN_PREFIX)
                .filter(|entry| entry.siblings().any(|held| held.dot.replica.node == 4));
            assert!(theirs.count() <= 8, "{what}\n{}", net.dump());
        }
    }
}

#[test]
fn thousands_of_claims_are_dropped_at_once() {
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    let mut chains = open(&mut here);
    here.put(b"key", 0, b"value").unwrap();
    assert_eq!(chains.sign_pending(&mut here), Ok(true));
    let mut hostile = CausalMap::new(ReplicaId::new(2), KEY);
    hostile.join(&here.delta(&hostile.version()).unwrap()).unwrap();
    let batch = hostile.prefix(CHAIN_PREFIX).next().unwrap().latest().value.to_vec();
    for number in 0..5_000_u64 {
        // Batches of its own name and of others', at places where nothing was written.
        let mut key = [CHAIN_PREFIX, b"b"].concat();
        key.extend_from_slice(&(1 + number % 3).to_be_bytes());
        key.extend_from_slice(&0_u32.to_be_bytes());
        key.extend_from_slice(&(number + 5).to_be_bytes());
        hostile.put(&key, 0, &batch).unwrap();
    }
    let joined = here.join(&hostile.delta(&here.version()).unwrap()).unwrap();
    assert_eq!(joined.keys.len(), 5_000);
    let reviewed = chains.review(&mut here, &joined.keys);
    assert_eq!((reviewed.keys.len(), chains.stats().garbage), (5_000, 5_000));
    assert_eq!(here.prefix(CHAIN_PREFIX).count(), 2, "the batch and the head");
    assert_eq!(chains.verification(b"key", &here.get(b"key").unwrap().latest()), Verification::Valid);
}

#[test]
fn values_of_a_writer_without_a_key_are_marked_and_its_batches_wait_for_the_key() {
    let mut there = CausalMap::new(ReplicaId::new(20), KEY);
    let mut chains = open(&mut there);
    for number in 0..50_u8 {
        there.put(&[number], 0, b"value").unwrap();
    }
    chains.sign_pending(&mut there).unwrap();
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    let mut chains = open(&mut here);
    let joined = here.join(&there.delta(&here.version()).unwrap()).unwrap();
    assert_eq!(chains.review(&mut here, &joined.keys).keys, Vec::<Vec<u8>>::new());
    let entry = here.get(&[7]).unwrap();
    assert_eq!(chains.verification(&[7], &entry.latest()), Verification::UnknownWriter);
    assert_eq!((chains.valid_values(&entry).count(), chains.latest(&entry)), (0, None));
    assert_eq!(here.frontier(), there.frontier(), "nothing was dropped");
    // Another one knows the key, but wants to hold few batches.
    let few = options().batches_max(2);
    let chains = MapChains::open(&mut here, &few, Box::new(Ring::of([1, 20])), None);
    let signed = |number: u8| chains.latest(&here.get(&[number]).unwrap()).is_some();
    assert_eq!((0..50).filter(|number| signed(*number)).count(), 16);
    assert!(signed(0) && !signed(49));
    let chains = MapChains::open(&mut here, &options(), Box::new(Ring::of([1, 20])), Some(Key::boxed(1)));
    assert!((0..50).all(|number| chains.latest(&here.get(&[number]).unwrap()).is_some()));
    assert!(!KNOWN.contains(&20));
}
