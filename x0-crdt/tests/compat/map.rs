//! The map of `crdts` diverges with registers in it; ours does not.

use crdts::{CmRDT, CvRDT, MVReg, Map};
use x0_crdt::{Causal, Lattice, ReplicaId};
use x0_crdt::{MvRegister, OrMap};

type Theirs = Map<u8, MVReg<u8, u64>, u64>;
type Ours = Causal<OrMap<u8, MvRegister<u8>>>;

/// A replica on both sides.
#[derive(Clone, Default)]
struct Pair {
    theirs: Theirs,
    ours: Ours,
}

impl Pair {
    fn write(&mut self, actor: u64, key: u8, value: u8) {
        let context = self.theirs.read_ctx().derive_add_ctx(actor);
        let op = self.theirs.update(key, context, |register, context| register.write(value, context));
        self.theirs.apply(op);
        self.ours
            .change(ReplicaId::new(actor), |map, change| {
                map.update(change, key, |register, change| register.write(change, value))
            })
            .unwrap();
    }

    fn merge(&mut self, other: &Self) {
        self.theirs.merge(other.theirs.clone());
        self.ours.join(&other.ours);
    }

    fn theirs(&self, key: u8) -> Vec<u8> {
        let mut values = self.theirs.get(&key).val.map_or_else(Vec::new, |register| register.read().val);
        values.sort_unstable();
        values
    }

    fn ours(&self, key: u8) -> Vec<u8> {
        let mut values: Vec<u8> = self
            .ours
            .store()
            .get(&key)
            .map_or_else(Vec::new, |register| register.values().copied().collect());
        values.sort_unstable();
        values
    }
}

fn merged(first: &Pair, then: &[&Pair]) -> Pair {
    let mut result = first.clone();
    then.iter().for_each(|other| result.merge(other));
    result
}

/// Three writes and two merges: cai has seen everything, and wrote over what bob wrote.
fn ann_bob_cai() -> [Pair; 3] {
    let [mut ann, mut bob, mut cai] = [Pair::default(), Pair::default(), Pair::default()];
    ann.write(1, 10, 1);
    bob.merge(&ann);
    bob.write(2, 20, 2);
    cai.merge(&bob);
    cai.write(3, 20, 3);
    [ann, bob, cai]
}

/// The smallest history on which the map of `crdts` diverges (see below). Each write's clock is that of the
/// whole map. A merge with ann, who has no key 20, strikes ann's event out of the clock of cai's value there,
/// though no replica removed it; so bob's value, which still names ann's event, no longer is older than
/// cai's, and comes back.
#[test]
fn their_map_of_registers_diverges_and_ours_does_not() {
    let [ann, bob, cai] = ann_bob_cai();
    let (bob_first, ann_first) = (merged(&cai, &[&bob, &ann]), merged(&cai, &[&ann, &bob]));

    assert_eq!((bob_first.theirs(10), bob_first.theirs(20)), (vec![1], vec![3]));
    assert_eq!(
        (ann_first.theirs(10), ann_first.theirs(20)),
        (vec![1], vec![2, 3]),
        "what cai replaced is back"
    );

    for all in orders(&[ann, bob, cai]) {
        assert_eq!((all.ours(10), all.ours(20)), (vec![1], vec![3]));
        assert_eq!(all.ours, ann_first.ours, "the same state, whatever the order");
    }
}

/// Three replicas joined in all orders.
fn orders([a, b, c]: &[Pair; 3]) -> [Pair; 6] {
    [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]]
        .map(|[first, then @ ..]| merged(first, &then))
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write { at: usize, key: u8 },
    Merge { to: usize, from: usize },
}

/// Every history of four steps, of three replicas and two keys. Of those of five steps, 24 of 248,832 diverge
/// there: the one above under other names.
#[test]
fn no_smaller_history_diverges() {
    let mut steps = Vec::new();
    for at in 0..3 {
        steps.extend([10, 20].map(|key| Step::Write { at, key }));
        steps.extend((0..3).filter(|from| *from != at).map(|from| Step::Merge { to: at, from }));
    }
    let len = 4;
    let mut count = 0;
    for number in 0..steps.len().pow(len) {
        let history = (0..len).map(|at| steps[number / steps.len().pow(at) % steps.len()]);
        let mut replicas: [Pair; 3] = [Pair::default(), Pair::default(), Pair::default()];
        for (value, step) in (0..).zip(history) {
            match step {
                Step::Write { at, key } => replicas[at].write(at as u64, key, value),
                Step::Merge { to, from } => {
                    let from = replicas[from].clone();
                    replicas[to].merge(&from);
                }
            }
        }
        let [first, others @ ..] = orders(&replicas);
        for other in others {
            assert_eq!(first.ours, other.ours);
            for key in [10, 20] {
                assert_eq!(first.theirs(key), other.theirs(key));
                assert_eq!(first.ours(key), first.theirs(key));
            }
        }
        count += 1;
    }
    assert_eq!(count, 20_736);
}
