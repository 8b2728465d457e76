//! [`CausalMap`](x0_crdt::CausalMap) against a model that knows every event: values, deltas, and that no
//! removed value returns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod format;
mod model;
mod random;

use model::World;
use random::Random;
use x0_crdt::{CausalMap, HashKey, JoinError, MapDelta, ReplicaId};

/// Seeds to try: many more with `X0_CRDT_SEEDS`.
fn seeds(default: u64) -> u64 {
    std::env::var("X0_CRDT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn replicas_hold_what_the_model_says_after_any_history() {
    for seed in 0..seeds(3_000) {
        let mut random = Random::new(seed);
        let mut world = World::new(2 + random.below(3), random.below(2) == 0);
        for _ in 0..4 + random.below(40) {
            world.step(&mut random);
        }
        world.check(seed);
        world.converge(&mut random);
        world.check(seed);
        world.check_converged(seed);
    }
}

/// Found by the model checker: a peer that has forgotten a removal does not list it, which is not to say that
/// it was replaced.
#[test]
fn a_removal_is_passed_on_after_a_join_from_a_replica_that_collected_it() {
    let key = HashKey::new([1; 16]);
    let [mut a, mut b, mut c] = [1, 2, 3].map(|node| CausalMap::new(ReplicaId::new(node), key));
    let tell = |from: &CausalMap, to: &mut CausalMap| {
        let delta = from.delta(&to.version()).unwrap();
        to.join(&delta).unwrap();
    };
    b.put(b"key", 0, b"mine").unwrap();
    c.put(b"key", 0, b"to be removed").unwrap();
    tell(&c, &mut b);
    c.remove(b"key").unwrap();
    tell(&c, &mut a);
    c.collect_tombstones(&c.version());
    tell(&b, &mut c);
    tell(&c, &mut a);
    tell(&a, &mut b);
    assert_eq!(b.get(b"key").unwrap().siblings().map(|held| held.value).collect::<Vec<_>>(), [b"mine"]);
}

/// Values that a delta leaves out must be here: otherwise events would count as seen that never came.
#[test]
fn a_difference_for_a_later_version_is_refused() {
    let key = HashKey::new([1; 16]);
    let [mut a, mut b] = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), key));
    a.put(b"first", 0, b"value").unwrap();
    let since = a.version();
    a.put(b"second", 0, b"value").unwrap();
    a.remove(b"second");
    let bytes = a.delta(&since).unwrap().encode(&since);
    let delta = MapDelta::decode(&bytes, &since).unwrap();
    let before = b.version();
    assert!(matches!(b.join(&delta), Err(JoinError::Base { dot }) if dot.seq == 1));
    assert_eq!((b.version(), b.len()), (before, 0));
    let whole = a.delta(&b.version()).unwrap();
    b.join(&whole).unwrap();
    b.join(&delta).unwrap();
    assert_eq!(b.encode_state(), a.encode_state());
}

#[test]
fn a_join_counts_the_keys_that_concurrent_writers_disagree_on() {
    let mut maps = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), HashKey::new([1; 16])));
    let join_from =
        |from: &CausalMap, to: &mut CausalMap| to.join(&from.delta(&to.version()).unwrap()).unwrap();
    let [here, there] = &mut maps;
    here.put(b"door", 1, b"open").unwrap();
    let first = join_from(here, there);
    assert_eq!((first.conflicts, first.contested_removals), (0, 0));

    // Two values beside each other, and a removal that has not seen a value.
    here.put(b"lamp", 2, b"on").unwrap();
    there.put(b"lamp", 3, b"off").unwrap();
    here.remove(b"door");
    there.put(b"door", 4, b"shut").unwrap();
    let second = join_from(here, there);
    assert_eq!((second.conflicts, second.contested_removals), (1, 1));
    assert_eq!(there.get(b"door").unwrap().latest().value, b"shut");
    // Joined again it brings nothing new, and the other side counts the same from its view.
    let again = join_from(here, there);
    assert_eq!((again.conflicts, again.contested_removals), (0, 0));
    let back = join_from(there, here);
    assert_eq!((back.conflicts, back.contested_removals), (1, 1));

    // A write that has seen it all ends both.
    here.put(b"lamp", 5, b"off").unwrap();
    here.put(b"door", 5, b"open").unwrap();
    let last = join_from(here, there);
    assert_eq!((last.conflicts, last.contested_removals), (0, 0));
}
