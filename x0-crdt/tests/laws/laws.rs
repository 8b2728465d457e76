//! Laws of every lattice.

use core::fmt::Debug;

use x0_crdt::Lattice;
use x0_crdt::{from_bytes, to_bytes};

pub(crate) fn joined<L: Lattice + Debug>(a: &L, b: &L) -> L {
    let mut result = a.clone();
    let grew = result.join(b);
    assert_eq!(grew, result != *a, "what join says of {a:?} and {b:?}");
    result
}

/// The laws of three values. `thorough` adds the costly ones.
pub(crate) fn check<L: Lattice + Debug>(a: &L, b: &L, c: &L, thorough: bool) {
    let ab = joined(a, b);
    assert_eq!(ab, joined(b, a), "commutative");
    assert_eq!(joined(&ab, c), joined(a, &joined(b, c)), "associative");
    assert_eq!(joined(a, a), *a, "idempotent");
    assert_eq!(joined(&ab, b), ab, "a join is at least both");
    assert_eq!(joined(a, &L::bottom()), *a, "the bottom is least");
    check_bytes(a);
    assert_eq!(a == b, to_bytes(a) == to_bytes(b), "equal bytes if and only if equal");

    let delta = a.delta(b);
    assert_eq!(joined(b, &delta), ab, "a delta makes up the difference");
    assert!(a.delta(a).is_bottom());
    if !thorough {
        return;
    }
    let pieces = a.decompose();
    assert_eq!(joined_all(&pieces), *a, "the pieces join to the whole");
    for (at, piece) in pieces.iter().enumerate() {
        assert!(!piece.is_bottom());
        assert_eq!(piece.decompose(), std::slice::from_ref(piece), "a piece is irreducible");
        let others: Vec<L> =
            pieces.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, p)| p.clone()).collect();
        assert_ne!(joined_all(&others), *a, "no piece is too many");
    }
    // The smallest delta is that of the pieces that are missing, no more.
    let missing: Vec<L> = pieces.into_iter().filter(|piece| joined(b, piece) != *b).collect();
    assert_eq!(joined_all(&missing), delta, "the delta is the smallest");
}

fn joined_all<L: Lattice + Debug>(pieces: &[L]) -> L {
    pieces.iter().fold(L::bottom(), |whole, piece| joined(&whole, piece))
}

fn check_bytes<L: Lattice + Debug>(a: &L) {
    assert_eq!(from_bytes::<L>(&to_bytes(a)).as_ref(), Ok(a));
}
