//! One false claim of a writer at a time.

use x0_crdt::internal::chain::{
    Batch, CHAIN_PREFIX, ChainLimits, ChainWriter, Digest, MapChains, SignBatchError, Verification,
};
use x0_crdt::{CausalMap, ReplicaId, Version};

use super::keys::{Key, Ring, drain};
use super::net::{KEY, KNOWN, open, options};

/// The entries under the prefix, by their kind.
fn entry(map: &CausalMap, kind: u8) -> (Vec<u8>, Vec<u8>) {
    let prefix = [CHAIN_PREFIX, &[kind]].concat();
    let entry = map.prefix(&prefix).next().unwrap();
    (entry.key().to_vec(), entry.latest().value.to_vec())
}

/// The fifth, with three values that it has signed, and a reader of them.
fn pair() -> (CausalMap, MapChains, CausalMap, MapChains) {
    let mut there = CausalMap::new(ReplicaId::new(5), KEY);
    let mut writer = open(&mut there);
    for key in [b"a", b"b", b"c"] {
        there.put(key, 7, b"value").unwrap();
    }
    assert_eq!(writer.sign_pending(&mut there), Ok(true));
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    let mut reader = open(&mut here);
    send(&there, &mut here, &mut reader);
    assert_eq!(reader.latest(&here.get(b"b").unwrap()).unwrap().value, b"value");
    (there, writer, here, reader)
}

fn send(from: &CausalMap, to: &mut CausalMap, chains: &mut MapChains) -> Vec<Vec<u8>> {
    let joined = to.join(&from.delta(&to.version()).unwrap()).unwrap();
    chains.review(to, &joined.keys).keys
}

/// A batch as it stands in a map, all of it alive.
fn value_of(batch: &Batch) -> Vec<u8> {
    let count = batch.digests().len();
    let bits = |set: bool| (0..count.div_ceil(8)).map(move |at| if set { mask(count - at * 8) } else { 0 });
    let mut value = batch.checkpoint().encode();
    value.extend(bits(true).chain(bits(false)));
    value.extend(batch.digests().iter().flat_map(|digest| digest.0));
    value
}

fn mask(bits: usize) -> u8 {
    if bits >= 8 { 0xff } else { (1 << bits) - 1 }
}

/// The signature of the fifth writer over its first `count` events, with any content.
fn signed(count: u64) -> Batch {
    let mut chain = ChainWriter::new(ReplicaId::new(5), 64, Key::boxed(5)).unwrap();
    for seq in 1..=count {
        chain.append_digest(seq, Digest([9; 32])).unwrap();
    }
    chain.flush();
    drain(&mut chain).remove(0)
}

#[test]
fn a_batch_in_the_form_of_the_map_is_what_a_writer_signs() {
    // So that the tests below are refused for their claims and not for their form.
    let mut there = CausalMap::new(ReplicaId::new(5), KEY);
    let (key, _) = entry(&pair().0, b'b');
    for other in [b"x", b"y", b"z"] {
        there.put(other, 0, b"").unwrap();
    }
    there.put(&key, 0, &value_of(&signed(3))).unwrap();
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    let mut reader = open(&mut here);
    // Three values go, for the batch says otherwise; the batch stays.
    assert_eq!(send(&there, &mut here, &mut reader), [b"x", b"y", b"z"].map(|key| key.to_vec()));
    assert_eq!(entry(&here, b'b').1, value_of(&signed(3)));
}

#[test]
fn a_claim_on_events_that_nobody_has_seen_is_dropped() {
    let mut there = CausalMap::new(ReplicaId::new(5), KEY);
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    let mut reader = open(&mut here);
    let (key, _) = entry(&pair().0, b'b');
    there.put(b"x", 0, b"").unwrap();
    there.put(&key, 0, &value_of(&signed(9))).unwrap();
    assert_eq!(send(&there, &mut here, &mut reader), [key]);
    let (key, _) = entry(&pair().0, b'h');
    there.put(&key, 0, &signed(9).checkpoint().encode()).unwrap();
    assert_eq!(send(&there, &mut here, &mut reader), [key]);
    assert_eq!((reader.stats().garbage, reader.head(there.replica())), (2, None));
    assert_eq!(here.prefix(CHAIN_PREFIX).count(), 0);
}

#[test]
fn a_batch_at_the_place_of_another_is_dropped() {
    let (mut there, _, mut here, mut reader) = pair();
    let (mut key, value) = entry(&there, b'b');
    *key.last_mut().unwrap() = 1;
    there.put(&key, 0, &value).unwrap();
    assert_eq!(send(&there, &mut here, &mut reader), [key]);
    assert_eq!(reader.verification(b"b", &here.get(b"b").unwrap().latest()), Verification::Valid);
}

#[test]
fn unsigned_values_are_dropped() {
    let (mut there, _, mut here, mut reader) = pair();
    for kind in *b"bh" {
        let (key, mut value) = entry(&there, kind);
        value[100] ^= 1;
        there.put(&key, 0, &value).unwrap();
        assert_eq!(send(&there, &mut here, &mut reader)[0], key);
        assert!(here.get(&key).is_none());
    }
    assert_eq!(reader.stats().garbage, 2);
    assert_eq!(reader.verification(b"b", &here.get(b"b").unwrap().latest()), Verification::Unsigned);
}

#[test]
fn a_foreign_value_in_place_of_a_batch_is_dropped_and_the_writer_restores_its_own() {
    let (mut there, mut writer, mut here, mut reader) = pair();
    let mut hostile = CausalMap::new(ReplicaId::new(6), KEY);
    hostile.join(&there.delta(&Version::new()).unwrap()).unwrap();
    for kind in *b"bh" {
        let (key, value) = entry(&hostile, kind);
        hostile.put(&key, 0, &value).unwrap();
        assert_eq!(send(&hostile, &mut here, &mut reader)[0], key);
        let back = send(&hostile, &mut there, &mut writer);
        assert!(back.contains(&key), "{back:?}");
        assert_eq!(there.get(&key).unwrap().latest().dot.replica, there.replica());
    }
    send(&there, &mut here, &mut reader);
    assert_eq!(reader.verification(b"b", &here.get(b"b").unwrap().latest()), Verification::Valid);
    assert_eq!((writer.stats().restored, reader.stats().garbage), (2, 2));
    assert_eq!(reader.kept(there.replica()), None);
}

#[test]
fn a_value_with_another_time_or_at_another_key_is_not_the_one_that_was_signed() {
    let (there, _, here, reader) = pair();
    let entry = here.get(b"b").unwrap();
    let held = entry.latest();
    assert_eq!(reader.verification(b"b", &held), Verification::Valid);
    assert_eq!(reader.verification(b"a", &held), Verification::Invalid);
    assert_eq!(reader.verification(b"b", &x0_crdt::Held { time: 8, ..held }), Verification::Invalid);
    assert_eq!(reader.verification(b"b", &x0_crdt::Held { value: b"valve", ..held }), Verification::Invalid);
    let dot = x0_crdt::Dot::new(there.replica(), 1);
    assert_eq!(reader.verification(b"b", &x0_crdt::Held { dot, ..held }), Verification::Invalid);
    // The batch's own event is void, and what follows is not covered.
    let at = |seq| x0_crdt::Held { dot: x0_crdt::Dot::new(there.replica(), seq), ..held };
    assert_eq!(reader.verification(b"b", &at(4)), Verification::Unsigned);
}

#[test]
fn a_batch_stays_until_all_have_seen_it() {
    let (mut there, mut writer, mut here, mut reader) = pair();
    for key in [b"a", b"b", b"c"] {
        there.remove(key);
    }
    assert_eq!(writer.tidy(&mut there), 0, "no member is known to have seen it");
    send(&there, &mut here, &mut reader);
    let version = there.version();
    there.collect_tombstones(&version);
    assert_eq!(writer.tidy(&mut there), 1);
    assert_eq!(there.prefix(CHAIN_PREFIX).count(), 1);
    // A batch that is followed by one that was never seen jumps.
    assert_eq!(reader.stats().evidence, 0);
}

#[test]
fn removals_and_batches_ask_for_no_batch() {
    let (mut there, mut writer, ..) = pair();
    assert_eq!(writer.sign_pending(&mut there), Ok(false));
    there.remove(b"a");
    assert_eq!(writer.sign_pending(&mut there), Ok(false));
    there.put(b"b", 8, b"new").unwrap();
    assert_eq!(writer.sign_full(&mut there), Ok(false), "one event is not a batch of eight");
    assert_eq!(writer.sign_pending(&mut there), Ok(true));
    assert_eq!(writer.sign_pending(&mut there), Ok(false));
    assert_eq!(writer.head(there.replica()).unwrap().seq, 7);
    assert_eq!(writer.stats().signed, 2);
}

#[test]
fn a_batch_that_contradicts_an_old_one_is_found_by_the_old_one_in_the_map() {
    let (mut there, mut writer, ..) = pair();
    for number in 0..40_u8 {
        there.put(&[number], 7, b"value").unwrap();
    }
    writer.sign_pending(&mut there).unwrap();
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    let mut few = options();
    few.limits.checkpoints_max = 1;
    let mut reader = MapChains::open(&mut here, &few, Box::new(Ring::of(KNOWN)), Some(Key::boxed(1)));
    send(&there, &mut here, &mut reader);
    let (key, _) = entry(&there, b'b');
    there.put(&key, 0, &value_of(&signed(2))).unwrap();
    send(&there, &mut here, &mut reader);
    assert_eq!(reader.kept(there.replica()), Some(0));
    assert!(here.range(b"").all(|entry| entry.key().starts_with(CHAIN_PREFIX)), "nothing is kept");
}

#[test]
fn a_writer_that_hides_a_stretch_of_its_history_is_found_by_who_saw_it() {
    let (_, _, mut here, mut reader) = pair();
    // The same writer, from the start, for others.
    let mut twin = CausalMap::new(ReplicaId::new(5), KEY);
    let mut equivocating = open(&mut twin);
    for number in 0..30_u8 {
        for more in 0..4 {
            twin.put(&[number, more], 0, b"other").unwrap();
        }
        equivocating.sign_pending(&mut twin).unwrap();
    }
    let mut witness = CausalMap::new(ReplicaId::new(2), KEY);
    let mut other = open(&mut witness);
    send(&twin, &mut witness, &mut other);
    // The reader, which has seen the first history, is shown the end of the second only.
    let prefix = [CHAIN_PREFIX, b"b"].concat();
    let batches: Vec<Vec<u8>> = twin.prefix(&prefix).map(|entry| entry.key().to_vec()).take(10).collect();
    for key in batches {
        twin.remove(&key);
    }
    send(&twin, &mut here, &mut reader);
    assert_eq!((reader.kept(twin.replica()), reader.stats().evidence), (None, 1));
    send(&here, &mut witness, &mut other);
    assert_eq!(other.kept(twin.replica()), Some(0));
    send(&witness, &mut here, &mut reader);
    assert_eq!(reader.proof(twin.replica()), other.proof(twin.replica()));
    for map in [&here, &witness] {
        assert!(map.range(b"").all(|entry| entry.key().starts_with(CHAIN_PREFIX)), "nothing is kept");
    }
}

#[test]
fn a_writer_goes_on_where_its_chain_stands_or_not_at_all() {
    let (mut there, mut writer, ..) = pair();
    // Another writer, earlier in every order, whose chain is there too.
    let mut other = CausalMap::new(ReplicaId::new(2), KEY);
    let mut its = open(&mut other);
    other.put(b"d", 7, b"value").unwrap();
    its.sign_pending(&mut other).unwrap();
    send(&other, &mut there, &mut writer);
    let head = writer.head(there.replica());
    drop(writer);
    let one = options().limits(ChainLimits::default().writers_max(1));
    let restarted = MapChains::open(&mut there, &one, Box::new(Ring::of(KNOWN)), Some(Key::boxed(5)));
    assert_eq!(restarted.head(there.replica()), head, "the only place is its own");
    let one = options().limits(ChainLimits::default().writers_max(0));
    for options in [&options(), &one] {
        let mut restarted =
            MapChains::open(&mut there, options, Box::new(Ring::of([2])), Some(Key::boxed(5)));
        there.put(b"a", 8, b"more").unwrap();
        assert_eq!(restarted.sign_pending(&mut there), Err(SignBatchError::UnknownSelf));
    }
    let mut restarted = open(&mut there);
    assert_eq!(restarted.sign_pending(&mut there), Ok(true));
    assert_eq!(restarted.kept(there.replica()), None);
    let mut reader = CausalMap::new(ReplicaId::new(1), KEY);
    let mut chains = open(&mut reader);
    send(&there, &mut reader, &mut chains);
    assert_eq!(chains.verification(b"a", &reader.get(b"a").unwrap().latest()), Verification::Valid);
}
