//! Bytes that are not a difference.

use x0_crdt::{CausalMap, HashKey, MapDelta, ReplicaId, Version};

use super::random::Random;

fn sample() -> (CausalMap, Version) {
    let mut map = CausalMap::new(ReplicaId::new(1), HashKey::new([1; 16]));
    for number in 0..40_u64 {
        map.put(format!("key-{number:03}").as_bytes(), number, &number.to_le_bytes()).unwrap();
    }
    let since = map.version();
    for number in 0..10_u64 {
        map.put(format!("key-{number:03}").as_bytes(), 1_000 + number, b"changed").unwrap();
    }
    map.remove(b"key-020");
    (map, since)
}

#[test]
fn damaged_bytes_are_refused_or_are_another_difference_but_never_a_panic() {
    let (map, since) = sample();
    let bytes = map.delta(&since).unwrap().encode(&since);
    let mut random = Random::new(5);
    for end in 0..bytes.len() {
        assert!(MapDelta::decode(&bytes[..end], &since).is_err(), "{end}");
    }
    for _ in 0..super::seeds(100_000) {
        let mut damaged = bytes.clone();
        for _ in 0..=random.below(3) {
            let place = random.below(damaged.len() as u64) as usize;
            damaged[place] = random.next() as u8;
        }
        let mut other = map.clone();
        if let Ok(delta) = MapDelta::decode(&damaged, &since) {
            let _ = other.join(&delta);
        }
    }
}

#[test]
fn saved_bytes_are_refused_when_damaged() {
    let (map, _) = sample();
    let saved = map.save();
    for end in 0..saved.len() {
        let key = HashKey::new([1; 16]);
        assert!(CausalMap::restore(&saved[..end], ReplicaId::new(1), key).is_err(), "{end}");
    }
}

#[test]
fn a_thousand_changes_among_many_keys_take_about_eight_bytes_each() {
    let mut map = CausalMap::new(ReplicaId::new(1), HashKey::new([1; 16]));
    let mut random = Random::new(1);
    for number in 0..20_000_u64 {
        map.put(format!("key-{number:06}").as_bytes(), 0, &random.next().to_le_bytes()[..4]).unwrap();
    }
    let since = map.version();
    for _ in 0..1_000 {
        let key = format!("key-{:06}", random.below(20_000));
        map.put(key.as_bytes(), 0, &random.next().to_le_bytes()[..4]).unwrap();
    }
    let len = map.delta(&since).unwrap().encode(&since).len();
    assert!(len < 9_000, "{len}");
}
