//! The same random histories on our types and on theirs: what is read must be the same at every step.
//!
//! Operations reach theirs in causal order, because those that arrive earlier are lost there; ours gets them
//! in any order too.

use core::fmt::Debug;

use crdts::{CmRDT, CvRDT, GCounter as TheirGCounter, MVReg, Orswot, PNCounter};
use x0_crdt::DotStore;
use x0_crdt::{Causal, Change, Delta, Lattice, ReplicaId, compat};
use x0_crdt::{GCounter, MvRegister, OrSet, PnCounter};

use crate::random::Random;

/// A type here, and there.
trait Flat: DotStore + Debug {
    type Theirs: CmRDT<Op: Clone> + CvRDT + Clone + Default + Debug;

    /// The same operation on both: the store of our delta, and their operation if there is one.
    fn operate(
        &self,
        theirs: &Self::Theirs,
        actor: u64,
        change: &mut Change,
        random: &mut Random,
    ) -> (Self, Option<<Self::Theirs as CmRDT>::Op>);

    /// Whether both read the same.
    fn is_as(&self, theirs: &Self::Theirs) -> bool;

    /// The condition between two replicas that have seen whole histories.
    fn compare(ours: [&Causal<Self>; 2], theirs: [&Self::Theirs; 2]);
}

fn replica(actor: &u64) -> ReplicaId {
    ReplicaId::new(*actor)
}

fn actor(replica: ReplicaId) -> u64 {
    replica.node
}

fn actors() -> impl Iterator<Item = (u64, ReplicaId)> {
    (0..REPLICAS).map(|actor| (actor, replica(&actor)))
}

fn joined<L: Lattice>(a: &L, b: &L) -> L {
    let mut result = a.clone();
    result.join(b);
    result
}

fn merged<T: CvRDT + Clone>(a: &T, b: &T) -> T {
    let mut result = a.clone();
    result.merge(b.clone());
    result
}

impl Flat for OrSet<u8> {
    type Theirs = Orswot<u8, u64>;

    fn operate(
        &self,
        theirs: &Self::Theirs,
        actor: u64,
        change: &mut Change,
        random: &mut Random,
    ) -> (Self, Option<crdts::orswot::Op<u8, u64>>) {
        let item = random.byte(4);
        match random.below(10) {
            0 => {
                let items: Vec<u8> = theirs.iter().map(|member| *member.val).collect();
                (self.clear(change), Some(theirs.rm_all(items, theirs.read_ctx().derive_rm_ctx())))
            }
            1..5 => {
                let context = theirs.contains(&item).derive_rm_ctx();
                (self.remove(change, &item), Some(theirs.rm(item, context)))
            }
            _ => {
                let context = theirs.read_ctx().derive_add_ctx(actor);
                (self.add(change, item), Some(theirs.add(item, context)))
            }
        }
    }

    fn is_as(&self, theirs: &Self::Theirs) -> bool {
        let mut items: Vec<u8> = theirs.iter().map(|member| *member.val).collect();
        items.sort_unstable();
        self.iter().copied().eq(items)
    }

    fn compare(ours: [&Causal<Self>; 2], theirs: [&Self::Theirs; 2]) {
        let exported = ours.map(|set| compat::export_set(set, actor).unwrap());
        let imported = theirs.map(|set| compat::import_set(set, replica).unwrap());
        for at in 0..2 {
            assert!(ours[at].store().is_as(&exported[at]));
            assert_eq!(compat::import_set(&exported[at], replica).as_ref(), Ok(ours[at]));
            assert!(imported[at].store().is_as(theirs[at]));
            assert_eq!(compat::export_set(&imported[at], actor).as_ref(), Ok(theirs[at]));
        }
        assert!(joined(ours[0], ours[1]).store().is_as(&merged(&exported[0], &exported[1])));
        assert!(joined(&imported[0], &imported[1]).store().is_as(&merged(theirs[0], theirs[1])));
    }
}

impl Flat for MvRegister<u8> {
    type Theirs = MVReg<u8, u64>;

    fn operate(
        &self,
        theirs: &Self::Theirs,
        actor: u64,
        change: &mut Change,
        random: &mut Random,
    ) -> (Self, Option<crdts::mvreg::Op<u8, u64>>) {
        let value = random.byte(100);
        let context = theirs.read_ctx().derive_add_ctx(actor);
        (self.write(change, value), Some(theirs.write(value, context)))
    }

    fn is_as(&self, theirs: &Self::Theirs) -> bool {
        let mut mine: Vec<u8> = self.values().copied().collect();
        let mut values = theirs.read().val;
        mine.sort_unstable();
        values.sort_unstable();
        mine == values
    }

    fn compare(ours: [&Causal<Self>; 2], theirs: [&Self::Theirs; 2]) {
        for at in 0..2 {
            let exported: MVReg<u8, u64> = compat::export_register(ours[at], actor).unwrap();
            assert!(ours[at].store().is_as(&exported));
            // A value must not hide the ones beside it, and a write must hide them all.
            assert!(ours[at].store().is_as(&merged(&exported, &exported)));
            let mut written = exported.clone();
            written.apply(exported.write(200, exported.read_ctx().derive_add_ctx(0)));
            assert_eq!(merged(&exported, &written).read().val, [200]);

            let imported = compat::import_register(theirs[at], ReplicaId::new(9)).unwrap();
            assert!(imported.store().is_as(theirs[at]));
        }
    }
}

impl Flat for GCounter {
    type Theirs = TheirGCounter<u64>;

    fn operate(
        &self,
        theirs: &Self::Theirs,
        actor: u64,
        change: &mut Change,
        random: &mut Random,
    ) -> (Self, Option<crdts::Dot<u64>>) {
        let amount = random.below(4);
        (self.increment(change, amount), Some(theirs.inc_many(actor, amount)))
    }

    fn is_as(&self, theirs: &Self::Theirs) -> bool {
        theirs.read() == self.value().into()
    }

    fn compare(ours: [&Causal<Self>; 2], theirs: [&Self::Theirs; 2]) {
        let exported = ours.map(|counter| compat::export_g_counter(counter, actor));
        let imported = theirs.map(|counter| compat::import_g_counter(counter, actors()).unwrap());
        for at in 0..2 {
            assert_eq!(exported[at], *theirs[at]);
            assert_eq!(compat::export_g_counter(&imported[at], actor), *theirs[at]);
        }
        let both = joined(&imported[0], &imported[1]);
        assert_eq!(compat::export_g_counter(&both, actor), merged(theirs[0], theirs[1]));
    }
}

impl Flat for PnCounter {
    type Theirs = PNCounter<u64>;

    fn operate(
        &self,
        theirs: &Self::Theirs,
        actor: u64,
        change: &mut Change,
        random: &mut Random,
    ) -> (Self, Option<crdts::pncounter::Op<u64>>) {
        let amount = random.below(4);
        let signed = i64::try_from(amount).unwrap();
        if random.one_in(2) {
            (self.add(change, signed), Some(theirs.inc_many(actor, amount)))
        } else {
            (self.add(change, -signed), Some(theirs.dec_many(actor, amount)))
        }
    }

    fn is_as(&self, theirs: &Self::Theirs) -> bool {
        theirs.read() == self.value().into()
    }

    fn compare(ours: [&Causal<Self>; 2], theirs: [&Self::Theirs; 2]) {
        let exported = ours.map(|counter| compat::export_pn_counter(counter, actor));
        let imported = theirs.map(|counter| compat::import_pn_counter(counter, actors()).unwrap());
        for at in 0..2 {
            assert_eq!(exported[at], *theirs[at]);
            assert_eq!(compat::export_pn_counter(&imported[at], actor), *theirs[at]);
        }
        let both = joined(&imported[0], &imported[1]);
        assert_eq!(compat::export_pn_counter(&both, actor), merged(theirs[0], theirs[1]));
    }
}

const REPLICAS: u64 = 4;

/// A replica on both sides.
struct Pair<S: Flat> {
    ours: Causal<S>,
    theirs: S::Theirs,
    /// The operations it knows, as bits.
    known: u64,
}

struct Operation<S: Flat> {
    delta: Delta<S>,
    op: Option<<S::Theirs as CmRDT>::Op>,
    /// The events that its maker knew.
    after: u64,
}

fn run<S: Flat>(seed: u64) {
    let mut random = Random::new(seed);
    let mut pairs: Vec<Pair<S>> =
        (0..REPLICAS).map(|_| Pair { ours: Causal::new(), theirs: S::Theirs::default(), known: 0 }).collect();
    let mut operations: Vec<Operation<S>> = Vec::new();
    for _ in 0..10 + random.below(50) {
        let at = random.below(REPLICAS);
        let index = usize::try_from(at).unwrap();
        match random.below(4) {
            0 => {
                let pair = &mut pairs[index];
                let mut op = None;
                let make = |store: &S, change: &mut Change| {
                    let (store, made) = store.operate(&pair.theirs, at, change, &mut random);
                    op = made;
                    store
                };
                let delta = pair.ours.change(ReplicaId::new(at), make).unwrap();
                op.clone().into_iter().for_each(|op| pair.theirs.apply(op));
                operations.push(Operation { delta, op, after: pair.known });
                pair.known |= 1 << (operations.len() - 1);
            }
            1 | 2 if !operations.is_empty() => {
                // Any operation, the known ones too, if all that it follows is known.
                let which = random.index(operations.len());
                let (operation, pair) = (&operations[which], &mut pairs[index]);
                if operation.after & !pair.known == 0 {
                    pair.ours.apply(&operation.delta).unwrap();
                    operation.op.clone().into_iter().for_each(|op| pair.theirs.apply(op));
                    pair.known |= 1 << which;
                }
            }
            _ => {
                let from = &pairs[random.index(pairs.len())];
                let (ours, theirs, known) = (from.ours.clone(), from.theirs.clone(), from.known);
                let pair = &mut pairs[index];
                pair.ours.join(&ours);
                pair.theirs.merge(theirs);
                pair.known |= known;
            }
        }
        let pair = &pairs[index];
        assert!(pair.ours.store().is_as(&pair.theirs), "{:?}\n{:?}", pair.ours, pair.theirs);
    }
    S::compare([&pairs[0].ours, &pairs[1].ours], [&pairs[0].theirs, &pairs[1].theirs]);

    let mut ours = Causal::<S>::new();
    for at in (0..operations.len()).rev() {
        ours.apply(&operations[at].delta).unwrap();
    }
    let mut theirs = S::Theirs::default();
    operations.into_iter().filter_map(|operation| operation.op).for_each(|op| theirs.apply(op));
    assert!(ours.store().is_as(&theirs), "backwards here, forwards there");
}

fn all<S: Flat>() {
    let histories = std::env::var("X0_CRDT_HISTORIES").map_or(5_000, |text| text.parse().expect("a number"));
    for seed in 1..=histories {
        let run = std::panic::catch_unwind(|| run::<S>(seed));
        assert!(run.is_ok(), "seed {seed} of {}", std::any::type_name::<S>());
    }
}

#[test]
fn sets_read_the_same() {
    all::<OrSet<u8>>();
}

#[test]
fn registers_read_the_same() {
    all::<MvRegister<u8>>();
}

#[test]
fn counters_read_the_same() {
    all::<GCounter>();
}

#[test]
fn counters_up_and_down_read_the_same() {
    all::<PnCounter>();
}
