//! Recorded bytes of every format must open: saved map and state, delta, session datagrams, chain, records of
//! a signed map, and a composed type. `X0_CRDT_RECORD=1` records what is missing; recorded files are never
//! rewritten.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "chain/keys.rs"]
#[allow(dead_code, reason = "shared with the tests of chains alone")]
mod keys;
#[path = "support/subject.rs"]
#[allow(dead_code, reason = "shared with the tests of sessions")]
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use keys::{Key, Ring};
use subject::{Composed, KEY, Subject};
use x0_crdt::internal::chain::{Batch, ChainWriter, Output};
use x0_crdt::{
    Causal, CausalMap, CausalReplica, ChainKeys, EquivocationProof, MapDelta, ReplicaId, Session,
    SessionInput, SessionOptions, SessionOutput, SignedMap, SignedMapOptions, SignedOutput, Verification,
    Version, from_bytes, to_bytes,
};

/// The recorded bytes of `name`; `make` records them once.
fn recorded(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if !path.exists() && std::env::var_os("X0_CRDT_RECORD").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Several byte strings in one file, each with its length before it.
fn pack(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_le_bytes()[..], part].concat()).collect()
}

fn unpack(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (part, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        parts.push(part.to_vec());
        bytes = rest;
    }
    parts
}

fn sample<R: Subject>(node: u64) -> R {
    let mut state = R::create(ReplicaId::new(node));
    for number in 0..30_u8 {
        state.put_value(format!("key-{number:02}").as_bytes(), u64::from(number), &[number; 5]);
    }
    state.put_value(b"key-07", 40, b"replaced");
    assert!(state.remove_key(b"key-08"));
    state
}

fn check_sample<R: Subject>(state: &R) {
    assert_eq!(state.keys().len(), 29);
    assert_eq!(state.values(b"key-07"), [b"replaced"]);
    assert!(!state.holds(b"key-08"));
    assert_eq!(state.values(b"key-29"), [[29; 5]]);
}

#[test]
fn a_saved_map_opens() {
    let map =
        CausalMap::restore_as(&recorded("map-1.saved", || sample::<CausalMap>(1).save()), ReplicaId::new(1));
    check_sample(&map);
    assert_eq!((map.history_len(), map.removal_count()), (30, 1), "with its history");
    assert_eq!(map.frontier(), sample::<CausalMap>(1).frontier());
}

/// A map with a state that arrives by key ranges, and the records of its ranges.
fn staged() -> (CausalMap, Vec<Vec<u8>>) {
    let options = SessionOptions::default().transfer_len_max(500);
    let mut maps = [sample::<CausalMap>(1), CausalMap::create(ReplicaId::new(2))];
    for number in 0..40_u64 {
        let value = (1..6_u64).flat_map(|n| (number * n).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        maps[0].put_value(&number.to_be_bytes(), number, &value.collect::<Vec<_>>());
    }
    maps[1].put_value(b"mine", 1, b"value");
    let mut sessions = [1, 2].map(|seed| Session::new(&options, seed));
    let (mut records, mut now) = (Vec::new(), Duration::ZERO);
    while records.len() < 2 {
        assert!(now < Duration::from_secs(60), "it comes by ranges");
        for side in 0..2 {
            sessions[side].handle(now, SessionInput::Timeout, &mut maps[side]).unwrap();
            while let Some(output) = sessions[side].poll_output() {
                match output {
                    SessionOutput::Send(datagram) => {
                        let input = SessionInput::Datagram(&datagram);
                        sessions[1 - side].handle(now, input, &mut maps[1 - side]).unwrap();
                    }
                    SessionOutput::Staged(record) if side == 1 => records.push(record),
                    _ => {}
                }
            }
        }
        now += Duration::from_millis(5);
    }
    let [_, map] = maps;
    (map, records)
}

#[test]
fn a_saved_map_with_a_stage_opens_and_so_do_the_records_of_ranges() {
    let id = ReplicaId::new(2);
    let map = CausalMap::restore_as(&recorded("map-2.saved", || staged().0.save()), id);
    assert_eq!(map.frontier(), staged().0.frontier());
    assert_eq!(map.keys(), [b"mine"]);
    let mut map = CausalMap::create(id);
    map.put_value(b"mine", 1, b"value");
    for record in unpack(&recorded("map-2.ranges", || pack(&staged().1))) {
        map.replay_range(&record).unwrap();
    }
    assert_eq!(map.keys(), [b"mine"]);
}

#[test]
fn a_delta_of_a_map_decodes() {
    let base = Version::from_iter([(ReplicaId::new(1), 20)]);
    let bytes = recorded("map-1.delta", || sample::<CausalMap>(1).delta(&base).unwrap().encode(&base));
    let delta = MapDelta::decode(&bytes, &base).unwrap();
    assert_eq!((delta.len(), delta.context().get(ReplicaId::new(1))), (12, 32));
    assert_eq!(delta.encode(&base), bytes);
}

#[test]
fn a_saved_state_of_a_composed_type_opens() {
    type State = CausalReplica<Composed>;
    let bytes = recorded("composed-1.saved", || sample::<State>(1).save());
    let state = State::restore_as(&bytes, ReplicaId::new(1));
    check_sample(&state);
    assert_eq!(state.frontier(), sample::<State>(1).frontier());
    let bytes = recorded("composed-1.causal", || to_bytes(sample::<State>(1).state()));
    let causal: Causal<Composed> = from_bytes(&bytes).unwrap();
    assert_eq!(&causal, state.state());
}

/// All datagrams of two sessions that meet with different states, history collected on one side.
fn datagrams<R: Subject>() -> Vec<Vec<u8>> {
    let options = SessionOptions::default().datagram_len_max(200);
    let mut states = [sample::<R>(1), R::create(ReplicaId::new(2))];
    states[0].heartbeat(Duration::ZERO);
    for number in 0..40_u8 {
        states[1].put_value(format!("other-{number:02}").as_bytes(), 0, &[number; 5]);
    }
    let version = states[0].version();
    states[0].collect_tombstones(&version);
    let mut sessions = [1, 2].map(|seed| Session::new(&options, seed));
    let mut sent = Vec::new();
    let mut now = Duration::ZERO;
    while states[0].frontier() != states[1].frontier() || now < Duration::from_secs(1) {
        for side in 0..2 {
            sessions[side].handle(now, SessionInput::Timeout, &mut states[side]).unwrap();
            while let Some(output) = sessions[side].poll_output() {
                if let SessionOutput::Send(datagram) = output {
                    let input = SessionInput::Datagram(&datagram);
                    sessions[1 - side].handle(now, input, &mut states[1 - side]).unwrap();
                    sent.push([&[side as u8][..], &datagram].concat());
                }
            }
        }
        now += Duration::from_millis(5);
    }
    sent
}

/// Hands the recorded datagrams to fresh sessions of the same seeds: they converge on nothing else.
fn replay<R: Subject>(name: &str) {
    let recorded = unpack(&recorded(name, || pack(&datagrams::<R>())));
    let kinds: std::collections::BTreeSet<u8> = recorded.iter().map(|datagram| datagram[1] & 0x0f).collect();
    assert!(kinds.len() >= 6, "recorded only {kinds:?}");
    let mut states = [sample::<R>(1), R::create(ReplicaId::new(2))];
    states[0].heartbeat(Duration::ZERO);
    for number in 0..40_u8 {
        states[1].put_value(format!("other-{number:02}").as_bytes(), 0, &[number; 5]);
    }
    let version = states[0].version();
    states[0].collect_tombstones(&version);
    let options = SessionOptions::default().datagram_len_max(200);
    let mut sessions = [1, 2].map(|seed| Session::new(&options, seed));
    for datagram in recorded {
        let (from, bytes) = datagram.split_first().unwrap();
        let to = usize::from(1 - from);
        // The recorded answers fit the requests of these sessions only if both still make the same ones.
        sessions[usize::from(*from)]
            .handle(Duration::ZERO, SessionInput::Timeout, &mut states[usize::from(*from)])
            .unwrap();
        while sessions[usize::from(*from)].poll_output().is_some() {}
        sessions[to].handle(Duration::ZERO, SessionInput::Datagram(bytes), &mut states[to]).unwrap();
        while sessions[to].poll_output().is_some() {}
    }
    assert_eq!(states[0].frontier(), states[1].frontier());
    assert_eq!(states[0].keys().len(), 29 + 40);
}

#[test]
fn datagrams_of_sessions_are_understood() {
    replay::<CausalMap>("map-1.datagrams");
    replay::<CausalReplica<Composed>>("composed-1.datagrams");
}

#[test]
fn a_chain_a_batch_and_a_proof_open() {
    let writer = ReplicaId::with_incarnation(1, 3);
    let chain = |side: u8| {
        let mut chain = ChainWriter::new(writer, 64, Key::boxed(1)).unwrap();
        for seq in 1..=5 {
            chain.append(seq, &[side, seq as u8]).unwrap();
        }
        chain.flush();
        let Ok(Some(Output::Persist { number, state })) = chain.poll_output() else {
            panic!("a batch is due")
        };
        chain.persisted(number).unwrap();
        let Ok(Some(Output::Send(batch))) = chain.poll_output() else { panic!("it is durable") };
        (state, batch)
    };
    let state = recorded("chain-1.state", || chain(0).0);
    assert_eq!(ChainWriter::restore(writer, &state, 64, Key::boxed(1)).unwrap().next_seq(), 6);
    let batch = Batch::decode(&recorded("chain-1.batch", || chain(0).1.encode())).unwrap();
    let ring = Ring::of([1]);
    assert_eq!((batch.checkpoint().verify(&ring), batch.covers(5, &[0, 5])), (Ok(()), true));
    let proof = recorded("chain-1.proof", || {
        let [first, second] = [0, 1].map(|side| chain(side).1.checkpoint().clone());
        EquivocationProof::new(first, second).unwrap().encode()
    });
    let proof = EquivocationProof::decode(&proof).unwrap();
    assert_eq!((proof.verify(&ring), proof.writer(), proof.kept()), (Ok(()), writer, 0));
}

#[test]
fn records_of_a_signed_map_open() {
    let (id, options) = (ReplicaId::new(1), SignedMapOptions::default());
    let keys = || ChainKeys::new(Key::of(1), Ring::of([1]));
    let records = recorded("signed-1.records", || {
        let mut signed = SignedMap::new(id, KEY, keys(), &options, 1);
        let mut records = Vec::new();
        for key in [b"a", b"b"] {
            signed.put(key, 7, b"value").unwrap();
            signed.sign().unwrap();
            while let Some(output) = signed.poll_output() {
                if let SignedOutput::Persist { record, token, .. } = output {
                    records.push(record);
                    signed.handle(Duration::ZERO, x0_crdt::SignedInput::Persisted(token)).unwrap();
                }
            }
        }
        pack(&records)
    });
    let records = unpack(&records);
    assert_eq!(records.len(), 2, "a whole map and a delta");
    let signed = SignedMap::restore(records.iter().map(Vec::as_slice), id, KEY, keys(), &options, 1).unwrap();
    for key in [b"a", b"b"] {
        let entry = signed.get(key).unwrap();
        assert!(entry.siblings().all(|(held, verification)| {
            (held.value, verification) == (&b"value"[..], Verification::Valid)
        }));
    }
}

/// Damaged bytes of every recorded format are an error or another valid state, and never a panic.
#[test]
fn damaged_records_never_panic() {
    let read = |name: &str| recorded(name, || panic!("{name} is recorded"));
    let (map, composed, records) =
        (read("map-1.saved"), read("composed-1.saved"), unpack(&read("signed-1.records")));
    let id = ReplicaId::new(1);
    let mut random = keys::Random(7);
    for _ in 0..2_000 {
        let mut damage = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes[at] = random.next() as u8,
                    _ => bytes[at] ^= 1 << random.below(8),
                }
            }
            bytes
        };
        let _ = CausalMap::restore(&damage(&map), id, KEY);
        let _ = CausalReplica::<Composed>::restore(&damage(&composed), id, KEY);
        let damaged: Vec<Vec<u8>> = records.iter().map(|record| damage(record)).collect();
        let keys = ChainKeys::new(Key::of(1), Ring::of([1]));
        let options = SignedMapOptions::default();
        let _ = SignedMap::restore(damaged.iter().map(Vec::as_slice), id, KEY, keys, &options, 1);
    }
}
