//! Bytes from outside given to the decoders of saved states and of deltas, and what decodes given to a map:
//! nothing panics.
#![no_main]

use core::time::Duration;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use x0_crdt::internal::{JoinSource, JoinStep, StageBegin, Transfer};
use x0_crdt::{CausalMap, CausalReplica, HashKey, MapDelta, OrMap, OrSet, ReplicaId, Version};

const KEY: HashKey = HashKey::new([1; 16]);

type Composed = CausalReplica<OrMap<u8, OrSet<u64>>>;

/// A state that waits for a slice since a version of the peer that is not empty.
static IN_SECOND_PASS: LazyLock<Composed> = LazyLock::new(|| {
    let [mut peer, mut receiver] = [2, 1].map(|node| Composed::new(ReplicaId::new(node), KEY));
    let StageBegin::Ready(claim) = receiver.begin_stage(Duration::ZERO, None, Duration::ZERO, true) else {
        unreachable!("no other session fetches")
    };
    let add = |peer: &mut Composed, key| {
        let _ = peer.change(|map, change| map.update(change, key, |set, change| set.add(change, 7)));
    };
    add(&mut peer, 0);
    add(&mut peer, 1);
    // The first slice has one event, and the peer changes before the second one.
    for len_max in [1, 4096] {
        let (since, from) = receiver.stage_needs().unwrap_or_default();
        let slice = peer.encode_range(&since, &from, len_max).unwrap_or_default();
        let _ = receiver.take_range(Duration::ZERO, Some(claim), &slice);
        add(&mut peer, 2);
    }
    assert!(receiver.stage_needs().is_some_and(|(since, _)| !since.is_empty()));
    receiver
});

fuzz_target!(|data: &[u8]| {
    let mut map = CausalMap::new(ReplicaId::new(1), KEY);
    let _ = map.put(b"key-1", 1, b"here");
    if let Ok(restored) = CausalMap::restore(data, ReplicaId::new(2), KEY) {
        assert!(CausalMap::restore(&restored.save(), ReplicaId::new(2), KEY).is_ok());
    }
    if map.replay_range(data).is_ok() {
        map.replay_ranges();
        assert!(CausalMap::restore(&map.save(), ReplicaId::new(2), KEY).is_ok());
    }
    let _ = Composed::restore(data, ReplicaId::new(2), KEY);
    for (mut composed, renew) in
        [(Composed::new(ReplicaId::new(1), KEY), true), (IN_SECOND_PASS.clone(), false)]
    {
        if let StageBegin::Ready(claim) = composed.begin_stage(Duration::ZERO, None, Duration::ZERO, renew) {
            let _ = composed.take_range(Duration::ZERO, Some(claim), data);
            assert!(Composed::restore(&composed.save(), ReplicaId::new(2), KEY).is_ok());
            composed.step_stage();
        }
    }
    for base in [Version::new(), map.version()] {
        // With the names of values, and with the hash of a content.
        let _ = map.clone().join_encoded(data, &base, |_| Vec::new());
        for source in [JoinSource::History, JoinSource::News, JoinSource::Chosen(Vec::new())] {
            let mut map = map.clone();
            let mut step = map.begin_join(data, &base, source, 1);
            while let Ok(JoinStep::More(joining)) = step {
                step = map.step_join(joining);
            }
        }
        if let Ok(delta) = MapDelta::decode(data, &base) {
            let _ = map.join(&delta);
            let again = delta.encode(&base);
            assert!(MapDelta::decode(&again, &base).is_ok());
        }
    }
});
