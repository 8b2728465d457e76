//! A seeded run of what the fuzz target does for longer.

use std::collections::{BTreeMap, BTreeSet};

use x0_crdt::to_bytes;
use x0_crdt::{Causal, Context, Delta, Dot, ReplicaId};
use x0_crdt::{Max, Min, Stamp};

use crate::decoders::{Contact, Span, check};
use crate::model::Path;
use crate::random::Random;
use crate::subject::Subject;

/// The bytes of some states of a type, and of deltas of one and of two changes.
fn history<S: Subject>(seeds: &mut Vec<Vec<u8>>) {
    let mut random = Random::new(seeds.len() as u64);
    let mut states = [Causal::<S>::new(), Causal::new()];
    let mut last = Delta::new();
    for step in 0..16 {
        let at = random.index(states.len());
        let replica = ReplicaId::with_incarnation(random.below(2), u32::from(random.byte(2)));
        let change = |store: &S, change: &mut _| store.operate(change, Path::default(), &mut random).0;
        let delta = states[at].change(replica, change).unwrap();
        states[1 - at].apply(&delta).unwrap();
        last.join(&delta);
        if step % 4 == 0 {
            seeds.extend([to_bytes(&states[at]), to_bytes(&delta), to_bytes(&last)]);
            last = delta;
        }
    }
}

/// Genuine bytes of every kind.
fn seeds() -> Vec<Vec<u8>> {
    use x0_crdt::{Flag, GCounter, LwwRegister, MvRegister, OrMap, OrSet, Plain, PnCounter};

    let mut seeds = Vec::new();
    history::<Flag>(&mut seeds);
    history::<MvRegister<u64>>(&mut seeds);
    history::<LwwRegister<u64>>(&mut seeds);
    history::<GCounter>(&mut seeds);
    history::<PnCounter>(&mut seeds);
    history::<OrSet<u8>>(&mut seeds);
    history::<Plain<Max<u64>>>(&mut seeds);
    history::<(OrSet<u8>, LwwRegister<u64>)>(&mut seeds);
    history::<OrMap<u8, OrSet<u8>>>(&mut seeds);
    history::<OrMap<u8, OrMap<u8, OrSet<u8>>>>(&mut seeds);
    history::<OrMap<u8, PnCounter>>(&mut seeds);
    history::<OrMap<u8, OrMap<u8, MvRegister<u64>>>>(&mut seeds);
    history::<OrMap<u8, Plain<Max<u64>>>>(&mut seeds);

    let mut contact = Causal::<Contact>::new();
    for value in ["ann", "bob"] {
        let change = contact.change(ReplicaId::new(1), |contact, change| Contact {
            name: contact.name.set(change, Stamp::new(1_000, 3), value.into()),
            mails: contact.mails.add(change, value.into()),
            calls: contact
                .calls
                .update(change, value.as_bytes().into(), |calls, change| calls.add(change, -3)),
        });
        seeds.extend([to_bytes(&change.unwrap()), to_bytes(&contact)]);
    }
    let mut context = Context::new();
    for first in [1, 5, 1_000, u64::MAX - 9] {
        context.insert_range(ReplicaId::new(first), first, first + 2);
        context.insert_range(ReplicaId::new(7), first, first + 2);
    }
    let names = BTreeMap::from([("a".into(), None), ("b".into(), Some(Max::of(-1)))]);
    seeds.extend([
        to_bytes(&context),
        to_bytes(&Span { first: Min::of(300), names }),
        to_bytes(&Some(Min::of(Stamp::new(300, 9)))),
        to_bytes(&(Max::of(1_u8), BTreeMap::from([(300_u16, Max::of(String::from("x")))]))),
        to_bytes(&Dot::new(ReplicaId::new(1), 300)),
        to_bytes(&-1_i64),
        to_bytes(&true),
        to_bytes(&BTreeSet::from([String::from("a"), String::from("é")])),
    ]);
    seeds
}

fn bytes(len: u64, random: &mut Random) -> Vec<u8> {
    (0..len).map(|_| random.next().to_le_bytes()[0]).collect()
}

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = seeds[random.index(seeds.len())].clone();
    match random.below(10) {
        0 => data.truncate(random.index(data.len() + 1)),
        1 => {
            let len = random.below(40);
            data.extend(bytes(len, random));
        }
        2 => {
            let len = random.below(100);
            data = bytes(len, random);
            data.insert(0, 1);
        }
        3 => {
            // Pieces of two kinds, joined.
            let other = &seeds[random.index(seeds.len())];
            data.truncate(random.index(data.len()));
            data.extend_from_slice(&other[random.index(other.len())..]);
        }
        4 => {
            // A piece twice: what must not be repeated, or a count that is one too small.
            let at = random.index(data.len());
            let piece = data[at..(at + 1 + random.index(12)).min(data.len())].to_vec();
            data.splice(at..at, piece);
        }
        _ => {
            for _ in 0..=random.below(3) {
                let at = random.index(data.len());
                data[at] = match random.below(5) {
                    0 => 0xff,
                    1 => 0,
                    2 => data[at].wrapping_add(1),
                    3 => data[at].wrapping_sub(1),
                    _ => random.next().to_le_bytes()[0],
                };
            }
        }
    }
    data
}

/// As many inputs as `X0_FUZZ_INPUTS` says, 200,000 without it.
#[test]
fn no_bytes_make_a_decoder_panic() {
    let seeds = seeds();
    for seed in &seeds {
        assert!(check(seed) > 0, "genuine bytes are taken");
    }
    let inputs = crate::number("X0_FUZZ_INPUTS", 200_000);
    let mut random = Random::new(0x000c_4d75);
    let mut taken = 0;
    for _ in 0..inputs {
        taken += u64::from(check(&mutate(&seeds, &mut random)) > 0);
    }
    println!("{taken} of {inputs} damaged inputs are bytes of something else");
    assert!(taken > inputs / 10, "only {taken} got past a decoder: the mutations do not reach deep enough");
}

/// A store in which one event is at two keys decodes nowhere: it would be taken for gone where only one of
/// them is known.
#[test]
fn a_dot_at_two_places_is_refused() {
    use x0_crdt::OrSet;
    use x0_crdt::{DecodeError, from_bytes};

    let mut set = Causal::<OrSet<u8>>::new();
    for item in [1, 2] {
        set.change(ReplicaId::new(1), |set, change| set.add(change, item)).unwrap();
    }
    let mut bytes = to_bytes(&set);
    assert_eq!(from_bytes(&bytes), Ok(set));
    let last = bytes.len() - 1;
    assert_eq!(bytes[last], 2, "the number of the last event");
    bytes[last] = 1;
    let refused = DecodeError::NotCanonical { what: "a dot at two places" };
    assert_eq!(from_bytes::<Causal<OrSet<u8>>>(&bytes), Err(refused));
    assert_eq!(from_bytes::<Delta<OrSet<u8>>>(&bytes), Err(refused));
    bytes[last] = 3;
    let unseen = DecodeError::Range { what: "a dot in a store" };
    assert_eq!(from_bytes::<Causal<OrSet<u8>>>(&bytes), Err(unseen));
}
