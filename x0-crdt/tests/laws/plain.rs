//! The lattices without dots.

use std::collections::BTreeMap;

use x0_crdt::{Context, Dot, Lattice, Max, Min, ReplicaId, lattice_struct};

use crate::laws;
use crate::random::Random;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reading {
    first: Min<u8>,
    last: Max<u8>,
    by_sensor: BTreeMap<u8, Option<Max<u8>>>,
}
lattice_struct!(Reading { first, last, by_sensor });

fn max(random: &mut Random) -> Max<u8> {
    if random.one_in(4) { Max::new() } else { Max::of(random.byte(4)) }
}

fn min(random: &mut Random) -> Min<u8> {
    if random.one_in(4) { Min::new() } else { Min::of(random.byte(4)) }
}

fn option(random: &mut Random) -> Option<Max<u8>> {
    if random.one_in(3) { None } else { Some(max(random)) }
}

fn map(random: &mut Random) -> BTreeMap<u8, Option<Max<u8>>> {
    (0..random.below(4)).map(|_| (random.byte(3), option(random))).collect()
}

fn context(random: &mut Random) -> Context {
    let mut context = Context::new();
    for _ in 0..random.below(12) {
        // Near the end of the range too.
        let base = if random.one_in(4) { u64::MAX - 16 } else { 0 };
        let first = base + random.below(12);
        context.insert_range(ReplicaId::new(random.below(2)), first, first + random.below(4));
    }
    context
}

fn check<L: Lattice + core::fmt::Debug>(make: impl Fn(&mut Random) -> L) {
    for seed in 0..super::number("X0_CRDT_HISTORIES", 2_000) {
        let mut random = Random::new(seed);
        laws::check(&make(&mut random), &make(&mut random), &make(&mut random), true);
    }
}

#[test]
fn laws_of_plain_lattices() {
    check(|_| ());
    check(max);
    check(min);
    check(option);
    check(map);
    check(|random| (max(random), min(random)));
    check(|random| Reading { first: min(random), last: max(random), by_sensor: map(random) });
}

#[test]
fn laws_of_contexts() {
    check(context);
}

/// A context against a plain set of dots.
#[test]
fn a_context_is_a_set_of_dots() {
    for seed in 0..super::number("X0_CRDT_HISTORIES", 2_000) {
        let mut random = Random::new(seed);
        let (a, b) = (context(&mut random), context(&mut random));
        let set = |context: &Context| context.dots().collect::<std::collections::BTreeSet<Dot>>();
        let (mine, theirs) = (set(&a), set(&b));
        let difference: Vec<Dot> = mine.difference(&theirs).copied().collect();
        assert!(a.difference(&b).dots().eq(difference.iter().copied()));
        assert_eq!(a.is_subset(&b), mine.is_subset(&theirs));
        assert_eq!(set(&laws::joined(&a, &b)), mine.union(&theirs).copied().collect());
        assert_eq!(a.range_count(), a.ranges().count());
        assert_eq!(a, mine.iter().copied().collect(), "however it came about");
        for replica in [0, 1].map(ReplicaId::new) {
            for seq in (0..20).chain(u64::MAX - 20..=u64::MAX) {
                let dot = Dot::new(replica, seq);
                assert_eq!(a.contains(dot), mine.contains(&dot));
            }
            let greatest = mine.iter().filter(|dot| dot.replica == replica).map(|dot| dot.seq).max();
            assert_eq!(a.next(replica), greatest.unwrap_or(0).checked_add(1));
        }
    }
}
