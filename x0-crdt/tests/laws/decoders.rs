//! Bytes from outside never make a decoder of the types panic, what decodes encodes to the same bytes, and
//! can be worked with like any other state. Shared with the fuzz target.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use x0_crdt::DotStore;
use x0_crdt::{Canonical, Causal, Context, Delta, Dot, Lattice, ReplicaId, dot_store_struct, lattice_struct};
use x0_crdt::{Flag, GCounter, LwwRegister, Max, Min, MvRegister, OrMap, OrSet, Plain, PnCounter, Stamp};
use x0_crdt::{from_bytes, to_bytes};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Min<u64>,
    pub(crate) names: BTreeMap<String, Option<Max<i64>>>,
}
lattice_struct!(Span { first, names });

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Contact {
    pub(crate) name: LwwRegister<String>,
    pub(crate) mails: OrSet<String>,
    pub(crate) calls: OrMap<Box<[u8]>, PnCounter>,
}
dot_store_struct!(Contact { name, mails, calls });

/// Gives `data` to every decoder. Says how many took it.
pub(crate) fn check(data: &[u8]) -> usize {
    let plain = [
        canonical::<Stamp>(data),
        canonical::<Dot>(data),
        canonical::<bool>(data),
        canonical::<i64>(data),
        canonical::<BTreeSet<String>>(data),
        canonical::<BTreeMap<(), ()>>(data),
        lattice::<Max<i64>>(data),
        lattice::<Option<Min<Stamp>>>(data),
        lattice::<(Max<u8>, BTreeMap<u16, Max<String>>)>(data),
        lattice::<Span>(data),
        lattice::<Context>(data),
    ];
    let stores = [
        store::<Flag>(data),
        store::<MvRegister<u64>>(data),
        store::<LwwRegister<u64>>(data),
        store::<GCounter>(data),
        store::<PnCounter>(data),
        store::<OrSet<u8>>(data),
        store::<OrSet<String>>(data),
        store::<Plain<Max<u64>>>(data),
        store::<(OrSet<u8>, LwwRegister<u64>)>(data),
        store::<OrMap<u8, OrSet<u8>>>(data),
        store::<OrMap<u8, OrMap<u8, OrSet<u8>>>>(data),
        store::<OrMap<u8, PnCounter>>(data),
        store::<OrMap<u8, GCounter>>(data),
        store::<OrMap<u8, OrMap<u8, MvRegister<u64>>>>(data),
        store::<OrMap<u8, LwwRegister<u64>>>(data),
        store::<OrMap<u8, Plain<Max<u64>>>>(data),
        store::<OrMap<u8, (Flag, MvRegister<u64>)>>(data),
        store::<Contact>(data),
    ];
    plain.iter().chain(&stores).sum()
}

fn canonical<T: Canonical>(data: &[u8]) -> usize {
    from_bytes::<T>(data).map_or(0, |value| {
        assert_eq!(to_bytes(&value), data);
        1
    })
}

fn lattice<L: Lattice + Debug>(data: &[u8]) -> usize {
    let Ok(value) = from_bytes::<L>(data) else { return 0 };
    assert_eq!(to_bytes(&value), data);
    let mut joined = L::bottom();
    assert_eq!(joined.join(&value), !value.is_bottom());
    assert_eq!(joined, value);
    assert!(!joined.join(&value));
    assert!(value.delta(&value).is_bottom());
    assert_eq!(value.delta(&L::bottom()), value);
    1
}

fn store<S: DotStore + Debug>(data: &[u8]) -> usize {
    let states = lattice::<Causal<S>>(data);
    if let Ok(mut state) = from_bytes::<Causal<S>>(data) {
        let before = state.clone();
        let replica = ReplicaId::default();
        // The writer may have used its last event, if the bytes say so.
        if let Ok(removal) = state.change(replica, |store, change| change.remove(store)) {
            assert!(state.store().is_empty());
            assert_eq!(from_bytes::<Delta<S>>(&to_bytes(&removal)).as_ref(), Ok(&removal));
            let mut again = before;
            again.apply(&removal).expect("few ranges");
            assert_eq!(again, state);
        }
    }
    let Ok(delta) = from_bytes::<Delta<S>>(data) else { return states };
    assert_eq!(to_bytes(&delta), data);
    let mut twice = delta.clone();
    twice.join(&delta);
    assert_eq!(twice, delta);
    let mut state = Causal::new();
    assert_eq!(state.apply(&delta), Ok(!delta.context().is_empty()));
    assert_eq!(state.apply(&delta), Ok(false));
    assert_eq!(from_bytes::<Causal<S>>(&to_bytes(&state)), Ok(state));
    states + 1
}
