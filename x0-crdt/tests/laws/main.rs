//! The laws of all types: in random histories, joins are commutative, associative and idempotent; deltas,
//! states and a model of plain operations agree; equal states have equal bytes, and come back from them; a
//! state is the join of its irreducible pieces.
//!
//! `X0_CRDT_HISTORIES` sets how many histories of each type are run (2,000 if unset), `X0_CRDT_SEED` where
//! they start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod decoders;
mod ends;
mod fragmented;
mod fuzz;
mod history;
mod laws;
mod model;
mod plain;
mod random;
#[cfg(feature = "serde")]
mod serde_bytes;
mod subject;

use x0_crdt::{Flag, GCounter, LwwRegister, Max, MvRegister, OrMap, OrSet, Plain, PnCounter};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn all<S: subject::Subject>() {
    let histories = number("X0_CRDT_HISTORIES", 2_000);
    let first = number("X0_CRDT_SEED", 1);
    for seed in first..first + histories {
        let run = std::panic::catch_unwind(|| {
            history::run::<S>(seed);
            if seed.is_multiple_of(8) {
                history::equivocate::<S>(seed);
            }
        });
        assert!(run.is_ok(), "seed {seed} of {}", std::any::type_name::<S>());
    }
    println!("{histories} histories of {}", std::any::type_name::<S>());
}

macro_rules! types {
    ($($name:ident: $type:ty;)*) => {$(
        #[test]
        fn $name() {
            all::<$type>();
        }
    )*};
}
types! {
    flag: Flag;
    mv_register: MvRegister<u64>;
    lww_register: LwwRegister<u64>;
    g_counter: GCounter;
    pn_counter: PnCounter;
    or_set: OrSet<u8>;
    plain_max: Plain<Max<u64>>;
    pair: (OrSet<u8>, LwwRegister<u64>);
    fields: subject::Fields;
    map_of_pairs: OrMap<u8, (Flag, MvRegister<u64>)>;
    map_of_fields: OrMap<u8, subject::Fields>;
    map_of_sets: OrMap<u8, OrSet<u8>>;
    map_of_maps_of_sets: OrMap<u8, OrMap<u8, OrSet<u8>>>;
    map_of_pn_counters: OrMap<u8, PnCounter>;
    map_of_g_counters: OrMap<u8, GCounter>;
    map_of_mv_registers: OrMap<u8, MvRegister<u64>>;
    map_of_maps_of_mv_registers: OrMap<u8, OrMap<u8, MvRegister<u64>>>;
    map_of_lww_registers: OrMap<u8, LwwRegister<u64>>;
    map_of_plain_max: OrMap<u8, Plain<Max<u64>>>;
    map_of_flags: OrMap<u8, Flag>;
}
