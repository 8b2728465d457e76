//! Imports and exports: how a writer goes on after one, and what is refused.

use crdts::{CmRDT, CvRDT, GCounter as TheirGCounter, MVReg, Orswot, PNCounter};
use x0_crdt::compat::{self, ExportError, ImportError};
use x0_crdt::{Causal, ChangeError, Dot, Lattice, ReplicaId};
use x0_crdt::{GCounter, MvRegister, OrSet, PnCounter};

const ANN: ReplicaId = ReplicaId::new(1);
const BOB: ReplicaId = ReplicaId::new(2);

fn replica(name: &&str) -> ReplicaId {
    if *name == "ann" { ANN } else { BOB }
}

fn name(replica: ReplicaId) -> &'static str {
    if replica == ANN { "ann" } else { "bob" }
}

#[test]
fn a_set_goes_on_after_an_import_and_after_an_export() {
    let mut there = Orswot::<u8, _>::new();
    for (actor, item) in [("ann", 1), ("ann", 2), ("bob", 3)] {
        there.apply(there.add(item, there.read_ctx().derive_add_ctx(actor)));
    }
    there.apply(there.rm(2, there.contains(&2).derive_rm_ctx()));
    let mut here = compat::import_set(&there, replica).unwrap();
    assert!(here.store().iter().eq(&[1, 3]));

    // A removed value stays removed, and a new event is none of the old.
    let mut older = Orswot::<u8, _>::new();
    for item in [1, 2] {
        older.apply(older.add(item, older.read_ctx().derive_add_ctx("ann")));
    }
    here.join(&compat::import_set(&older, replica).unwrap());
    assert!(here.store().iter().eq(&[1, 3]));
    here.change(ANN, |set, change| set.add(change, 4)).unwrap();
    here.change(BOB, |set, change| set.remove(change, &3)).unwrap();

    let mut back = compat::export_set(&here, name).unwrap();
    assert_eq!(back.clock().get(&"ann"), 3);
    assert_eq!(back.clock().get(&"bob"), 2, "the removal is an event here");
    back.apply(back.rm(1, back.contains(&1).derive_rm_ctx()));
    back.merge(compat::export_set(&here, name).unwrap());
    assert_eq!(back.read().val, [4].into());
}

#[test]
fn items_that_were_added_together_are_refused() {
    let mut there = Orswot::<u8, _>::new();
    there.apply(there.add_all([1, 2], there.read_ctx().derive_add_ctx("ann")));
    let dot = Dot::new(ANN, 1);
    assert_eq!(compat::import_set(&there, replica), Err(ImportError::AddedTogether { dot }));

    there.apply(there.rm(1, there.contains(&1).derive_rm_ctx()));
    assert!(compat::import_set(&there, replica).unwrap().store().contains(&2));
}

#[test]
fn a_state_with_gaps_is_not_exported() {
    let (mut here, mut late) = (Causal::<OrSet<u8>>::new(), Causal::new());
    here.change(ANN, |set, change| set.add(change, 1)).unwrap();
    late.apply(&here.change(ANN, |set, change| set.add(change, 2)).unwrap()).unwrap();
    assert_eq!(compat::export_set(&late, name), Err(ExportError::Gap { replica: ANN }));

    let (mut here, mut late) = (Causal::<MvRegister<u8>>::new(), Causal::<MvRegister<u8>>::new());
    here.change(ANN, |register, change| register.write(change, 1)).unwrap();
    here.change(BOB, |register, change| register.write(change, 2)).unwrap();
    let third = here.change(ANN, |register, change| register.write(change, 3)).unwrap();
    let fourth = here.change(ANN, |register, change| register.write(change, 4)).unwrap();
    late.apply(&fourth).unwrap();
    // The fourth write has undone the third, but nothing says what became of the first.
    assert_eq!(compat::export_register(&late, name), Err(ExportError::Gap { replica: ANN }));
    late.apply(&third).unwrap();
    assert!(compat::export_register(&late, name).is_err());
    late.join(&here);
    assert_eq!(compat::export_register(&late, name).unwrap().read().val, [4]);
}

#[test]
fn a_register_with_two_values_goes_there_and_is_written_over() {
    let (mut here, mut there) = (Causal::<MvRegister<u8>>::new(), Causal::<MvRegister<u8>>::new());
    here.change(ANN, |register, change| register.write(change, 1)).unwrap();
    there.change(BOB, |register, change| register.write(change, 2)).unwrap();
    here.join(&there);
    let exported = compat::export_register(&here, name).unwrap();
    assert_eq!(exported.read().val, [1, 2]);

    // Imported, both values are of one writer: theirs cannot say that, so it is refused on the way back until
    // one is written.
    let mut imported = compat::import_register(&exported, ANN).unwrap();
    assert!(imported.store().values().eq(&[1, 2]));
    assert_eq!(compat::export_register(&imported, name), Err(ExportError::SameWriter { replica: ANN }));
    imported.change(ANN, |register, change| register.write(change, 3)).unwrap();
    assert_eq!(compat::export_register(&imported, name).unwrap().read().val, [3]);

    // In whatever order the values arrived there.
    let arrived = |values: [u8; 2]| {
        let mut there = MVReg::<u8, &str>::new();
        for (actor, value) in ["ann", "bob"].into_iter().zip(values) {
            there.apply(MVReg::new().write(value, MVReg::<u8, _>::new().read_ctx().derive_add_ctx(actor)));
        }
        compat::import_register(&there, ANN).unwrap()
    };
    assert_eq!(arrived([1, 2]), arrived([2, 1]));

    let nothing = compat::import_register(&MVReg::<u8, &str>::new(), ANN).unwrap();
    assert!(nothing.is_bottom());
}

#[test]
fn counters_are_imported_with_all_their_actors_or_not_at_all() {
    let mut there = TheirGCounter::new();
    there.apply(there.inc_many("ann", 5));
    there.apply(there.inc_many("bob", 7));
    let import = |actors: &[(&'static str, ReplicaId)]| {
        compat::import_g_counter(&there, actors.iter().copied()).map(|counter| counter.store().value())
    };
    assert_eq!(import(&[("ann", ANN), ("bob", BOB)]), Ok(12));
    assert_eq!(import(&[("ann", ANN), ("eve", ReplicaId::new(3)), ("bob", BOB)]), Ok(12));
    assert_eq!(import(&[("ann", ANN)]), Err(ImportError::UnknownActor));
    assert_eq!(import(&[("ann", ANN), ("bob", ANN)]), Err(ImportError::DoesNotFit));
    assert_eq!(import(&[("bob", ANN), ("ann", ANN)]), Err(ImportError::DoesNotFit));

    let mut there = PNCounter::new();
    there.apply(there.inc_many("ann", 5));
    there.apply(there.inc_many("bob", 7));
    there.apply(there.dec_many("bob", 7));
    let import = |actors: &[(&'static str, ReplicaId)]| {
        compat::import_pn_counter(&there, actors.iter().copied()).map(|counter| counter.store().value())
    };
    assert_eq!(import(&[("ann", ANN), ("bob", BOB)]), Ok(5));
    assert_eq!(import(&[("ann", ANN)]), Err(ImportError::UnknownActor), "though bob comes to 0");
    assert_eq!(import(&[("ann", ANN), ("bob", ANN)]), Err(ImportError::DoesNotFit));
}

#[test]
fn a_counter_goes_on_after_an_import() {
    let mut there = PNCounter::new();
    there.apply(there.inc_many("ann", 5));
    there.apply(there.dec_many("ann", 2));
    let actors = [("ann", ANN), ("bob", BOB)];
    let mut here = compat::import_pn_counter(&there, actors).unwrap();
    here.change(ANN, |counter, change| counter.add(change, -10)).unwrap();
    here.change(BOB, |counter, change| counter.add(change, 1)).unwrap();
    here.join(&compat::import_pn_counter(&there, actors).unwrap());
    assert_eq!(here.store().value(), -6);
    assert_eq!(compat::export_pn_counter(&here, name).read(), (-6).into());
}

#[test]
fn the_ends_of_the_range_are_refused_and_not_passed() {
    let mut there = TheirGCounter::new();
    there.apply(there.inc_many("ann", u64::MAX));
    let mut full = compat::import_g_counter(&there, [("ann", ANN)]).unwrap();
    assert_eq!(compat::export_g_counter(&full, name), there);
    let again = full.change(ANN, |counter, change| counter.increment(change, 1));
    assert_eq!(again, Err(ChangeError::Exhausted { replica: ANN }));

    let mut there = PNCounter::new();
    there.apply(there.inc_many("ann", u64::MAX));
    there.apply(there.dec_many("ann", 1));
    assert_eq!(compat::import_pn_counter(&there, [("ann", ANN)]), Err(ImportError::DoesNotFit));

    // A writer that counts under one name in two places comes to two sums side by side.
    let mut one = Causal::<GCounter>::new();
    one.change(ANN, |counter, change| counter.increment(change, u64::MAX)).unwrap();
    let mut two = Causal::new();
    two.change(ANN, |counter: &GCounter, change| counter.increment(change, 1)).unwrap();
    two.change(ANN, GCounter::clear).unwrap();
    one.apply(&two.change(ANN, |counter, change| counter.increment(change, 1)).unwrap()).unwrap();
    assert_eq!(one.store().value(), u128::from(u64::MAX) + 1);
    assert_eq!(compat::export_g_counter(&one, name).read(), u64::MAX.into());

    let mut one = Causal::<PnCounter>::new();
    (0..3).for_each(|_| {
        one.change(ANN, |counter, change| counter.add(change, i64::MIN)).unwrap();
    });
    let mut two = Causal::new();
    (0..3).for_each(|_| {
        two.change(ANN, |counter: &PnCounter, change| counter.add(change, -1)).unwrap();
    });
    two.change(ANN, PnCounter::clear).unwrap();
    one.apply(&two.change(ANN, |counter, change| counter.add(change, -1)).unwrap()).unwrap();
    assert_eq!(one.store().value(), -i128::from(u64::MAX) - 1);
    assert_eq!(compat::export_pn_counter(&one, name).read(), (-i128::from(u64::MAX)).into());
}
