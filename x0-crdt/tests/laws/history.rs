//! Random histories: operations, deltas that are lost, repeated, late and joined on the way, full states,
//! differences of states.

use x0_crdt::{Causal, Delta, Lattice, ReplicaId};
use x0_crdt::{from_bytes, to_bytes};

use crate::laws;
use crate::model::{Model, Path};
use crate::random::Random;
use crate::subject::{Subject, items};

struct Replica<S> {
    id: ReplicaId,
    state: Causal<S>,
    /// The operations of the model that the replica knows.
    known: u64,
}

/// Runs the history of a seed and checks all there is to check.
pub(crate) fn run<S: Subject>(seed: u64) {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let count = 3 + random.below(2);
    let mut replicas: Vec<Replica<S>> =
        (0..count).map(|n| Replica { id: ReplicaId::new(n), state: Causal::new(), known: 0 }).collect();
    let mut deltas: Vec<(Delta<S>, u64)> = Vec::new();
    for _ in 0..6 + random.below(14) {
        let at = random.index(replicas.len());
        match random.below(10) {
            0..4 => deltas.extend(operate(&mut replicas[at], &mut model, &mut random)),
            4 => deltas.extend(operate_together(&mut replicas[at], &mut model, &mut random)),
            5..8 if !deltas.is_empty() => {
                let (mut delta, mut known) = deltas[random.index(deltas.len())].clone();
                if random.one_in(3) {
                    let (more, more_known) = &deltas[random.index(deltas.len())];
                    delta.join(more);
                    known |= more_known;
                }
                let to = &mut replicas[at];
                let before = to.state.clone();
                let changed = to.state.apply(&delta).unwrap();
                assert_eq!(changed, to.state != before);
                to.known |= known;
            }
            _ => {
                let from = random.index(replicas.len());
                let (state, known) = (replicas[from].state.clone(), replicas[from].known);
                let to = &mut replicas[at];
                if random.one_in(2) {
                    to.state.join(&state);
                } else {
                    let delta = state.delta(&to.state);
                    to.state.join(&delta);
                }
                to.known |= known;
            }
        }
    }
    for replica in &replicas {
        assert_eq!(items(&replica.state), model.items(replica.known), "the state is what the operations say");
        assert!(replica.state.context().dots().eq(model.dots(replica.known)), "what was seen");
    }
    let states: Vec<&Causal<S>> = replicas.iter().map(|replica| &replica.state).collect();
    laws::check(states[0], states[1], states[2], seed.is_multiple_of(8));
    let [from, to] = [states[0], states[1]];
    let since = from.delta_since(to.context());
    assert_eq!(laws::joined(to, &since), laws::joined(to, from), "the context alone yields what is missing");
    if let Some(((a, _), (b, _), (c, _))) = three(&deltas, &mut random) {
        check_deltas(a, b, c);
    }

    // Healed by states in one order and by deltas in another, everyone has the same.
    let mut whole = states[0].clone();
    states.iter().for_each(|state| {
        whole.join(state);
    });
    let mut by_deltas = Causal::<S>::new();
    for at in random_order(deltas.len(), &mut random) {
        by_deltas.apply(&deltas[at].0).unwrap();
    }
    assert_eq!(whole, by_deltas, "all deltas are as good as all states");
    assert_eq!(items(&whole), model.items(u64::MAX >> (64 - model.len().max(1))));
}

fn operate<S: Subject>(
    replica: &mut Replica<S>,
    model: &mut Model,
    random: &mut Random,
) -> Option<(Delta<S>, u64)> {
    let mut act = None;
    let delta = replica
        .state
        .change(replica.id, |store, change| {
            let (store, made) = store.operate(change, Path::default(), random);
            act = Some(made);
            store
        })
        .unwrap();
    let known = model.make(replica.known, replica.id, act.unwrap());
    assert_eq!(known == 0, delta.context().is_empty(), "an event if and only if something happened");
    replica.known |= known;
    (known != 0).then_some((delta, known))
}

/// Several operations in one transaction, of which each sees those before.
fn operate_together<S: Subject>(
    replica: &mut Replica<S>,
    model: &mut Model,
    random: &mut Random,
) -> Option<(Delta<S>, u64)> {
    let (mut known, before, id) = (0, replica.known, replica.id);
    let delta = replica.state.transaction(id, |transaction| {
        for _ in 0..random.below(4) {
            transaction.change(|store, change| {
                let (store, made) = store.operate(change, Path::default(), random);
                known |= model.make(before | known, id, made);
                store
            });
        }
    });
    let delta = delta.unwrap();
    assert_eq!(known == 0, delta.context().is_empty(), "an event if and only if something happened");
    replica.known |= known;
    (known != 0).then_some((delta, known))
}

fn three<'a, T>(items: &'a [T], random: &mut Random) -> Option<(&'a T, &'a T, &'a T)> {
    if items.is_empty() {
        return None;
    }
    let mut one = || &items[random.index(items.len())];
    Some((one(), one(), one()))
}

fn check_deltas<S: Subject>(a: &Delta<S>, b: &Delta<S>, c: &Delta<S>) {
    let joined = |a: &Delta<S>, b: &Delta<S>| {
        let mut result = a.clone();
        result.join(b);
        result
    };
    let ab = joined(a, b);
    assert_eq!(ab, joined(b, a), "deltas: commutative");
    assert_eq!(joined(&ab, c), joined(a, &joined(b, c)), "deltas: associative");
    assert_eq!(joined(a, a), *a, "deltas: idempotent");
    assert_eq!(from_bytes::<Delta<S>>(&to_bytes(&ab)).as_ref(), Ok(&ab));
}

fn random_order(len: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for at in (1..len).rev() {
        order.swap(at, random.index(at + 1));
    }
    order
}

/// Two replicas write under one name, so that one dot has two values: no replica may diverge for it, as far
/// as states are joined, or deltas with deltas.
pub(crate) fn equivocate<S: Subject>(seed: u64) {
    let mut random = Random::new(seed);
    let mut states = [Causal::<S>::new(), Causal::new(), Causal::new()];
    let mut deltas: Vec<Delta<S>> = Vec::new();
    for _ in 0..4 + random.below(10) {
        let at = random.index(states.len());
        if random.one_in(4) {
            let other = states[random.index(states.len())].clone();
            states[at].join(&other);
        } else {
            let id = ReplicaId::new(random.below(2));
            let change = |store: &S, change: &mut _| store.operate(change, Path::default(), &mut random).0;
            deltas.push(states[at].change(id, change).unwrap());
        }
    }
    let [a, b, c] = &states;
    laws::check(a, b, c, false);
    if let Some((a, b, c)) = three(&deltas, &mut random) {
        check_deltas(a, b, c);
    }
    assert_eq!(laws::joined(&laws::joined(a, b), c), laws::joined(&laws::joined(c, a), b));
}
