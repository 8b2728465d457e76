//! Gaps in what was seen are bounded, and what closes them is always taken in.

use x0_crdt::OrSet;
use x0_crdt::{ApplyError, Causal, Delta, Lattice, RANGES_MAX, ReplicaId};

type Set = Causal<OrSet<u32>>;

/// A set of one writer, with the delta of each of its changes.
fn source(changes: usize) -> (Set, Vec<Delta<OrSet<u32>>>) {
    let mut set = Set::new();
    let add = |item| set.change(ReplicaId::new(1), |set, change| set.add(change, item)).unwrap();
    let deltas = (0..u32::try_from(changes).unwrap()).map(add).collect();
    (set, deltas)
}

#[test]
fn gaps_are_bounded_and_can_always_be_closed() {
    let (whole, deltas) = source(2 * RANGES_MAX + 4);
    let mut here = Set::new();
    for delta in deltas.iter().step_by(2).take(RANGES_MAX) {
        assert_eq!(here.apply(delta), Ok(true));
    }
    assert_eq!(here.context().range_count(), RANGES_MAX);

    let (full, refused) = (here.clone(), Err(ApplyError::Fragmented { ranges: RANGES_MAX + 1 }));
    assert_eq!(here.apply(&deltas[2 * RANGES_MAX]), refused);
    let mut one_more = Set::new();
    one_more.apply(&deltas[2 * RANGES_MAX]).unwrap();
    assert_eq!(here.merge(&one_more), refused);
    assert_eq!(here, full, "nothing changed");

    // One that is over the limit, joined without one, may not get worse, but better.
    let mut over = full;
    over.join(&one_more);
    let mut another = Set::new();
    another.apply(&deltas[2 * RANGES_MAX + 2]).unwrap();
    assert_eq!(over.merge(&another), Err(ApplyError::Fragmented { ranges: RANGES_MAX + 2 }));
    over.join(&another);
    assert_eq!(over.apply(&deltas[2 * RANGES_MAX - 1]), Ok(true));
    assert_eq!(over.context().range_count(), RANGES_MAX + 1);

    assert_eq!(here.apply(&deltas[1]), Ok(true), "a gap less");
    assert_eq!(here.apply(&deltas[2 * RANGES_MAX]), Ok(true));
    assert_eq!(here.merge(&whole), Ok(true));
    assert_eq!(here, whole);
    assert_eq!(here.context().range_count(), 1);
}
