//! Frames of a journal, with right checksums, and bytes of any form: nothing panics, and what is read can be
//! saved.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_crdt::internal::{journal_of, replay_journal};
use x0_crdt::{CausalMap, HashKey, ReplicaId};

const KEY: HashKey = HashKey::new([1; 16]);
const ID: ReplicaId = ReplicaId::new(1);

fuzz_target!(|data: &[u8]| {
    let whole = CausalMap::new(ID, KEY).save();
    let mut frames = vec![(0, &whole[..])];
    let mut rest = data;
    // A frame: its kind, and its length in two bytes.
    while let Some(([kind, low, high], after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (payload, after) = after.split_at(len);
        frames.push((*kind % 5, payload));
        rest = after;
    }
    for bytes in [journal_of(frames, KEY), journal_of([(data.first().copied().unwrap_or(0), data)], KEY)] {
        if let Some(map) = replay_journal(&bytes, ID, KEY) {
            assert!(CausalMap::restore(&map.save(), ID, KEY).is_ok());
        }
    }
    let _ = replay_journal(data, ID, KEY);
});
