//! Bytes from outside given to the decoders of saved states and of deltas, and what decodes given to a map:
//! nothing panics.
#![no_main]

use core::time::Duration;

use libfuzzer_sys::fuzz_target;
use x0_crdt::internal::{JoinSource, JoinStep, StageBegin, Transfer};
use x0_crdt::{CausalMap, CausalReplica, HashKey, MapDelta, OrMap, OrSet, ReplicaId, Version};

const KEY: HashKey = HashKey::new([1; 16]);

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
    let _ = CausalReplica::<OrMap<u8, OrSet<u64>>>::restore(data, ReplicaId::new(2), KEY);
    let mut composed = CausalReplica::<OrMap<u8, OrSet<u64>>>::new(ReplicaId::new(1), KEY);
    if let StageBegin::Ready(claim) = composed.begin_stage(Duration::ZERO, None, Duration::ZERO, true) {
        let _ = composed.take_range(Duration::ZERO, Some(claim), data);
        assert!(CausalReplica::<OrMap<u8, OrSet<u64>>>::restore(&composed.save(), ReplicaId::new(2), KEY).is_ok());
        composed.step_stage();
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
