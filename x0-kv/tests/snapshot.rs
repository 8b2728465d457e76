//! Snapshots: whole or refused, and consistent while writes go on.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Read;

use x0_kv::{
    Bytes, Command, KeyValue, KeyspaceName, Mutation, RangeQuery, RequestId, RestoreError, SNAPSHOT_VERSION,
    State, limits,
};

fn put(state: &mut State, key: impl Into<Bytes>, value: impl Into<Bytes>) {
    let mutation = Mutation::Put { key: key.into(), value: value.into() };
    let index = state.applied() + 1;
    let request_id =
        Some(RequestId { session: 1, sequence: index, acknowledged_below: index.saturating_sub(3) });
    state
        .apply(
            [(index, Some(&Command::encode_write(request_id, &KeyspaceName::DEFAULT, &mutation)))],
            &mut Vec::new(),
        )
        .unwrap();
}

fn filled(count: u32) -> State {
    let mut state = State::in_memory();
    state.apply([(1, Some(&Command::OpenSession.encode()))], &mut Vec::new()).unwrap();
    for number in 0..count {
        put(&mut state, format!("key {number:05}"), vec![b'v'; (number % 50) as usize]);
    }
    state
}

fn bytes_of(state: &mut State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.snapshot().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn any_changed_or_missing_byte_is_noticed_and_changes_nothing() {
    let bytes = bytes_of(&mut filled(20));
    let mut target = filled(3);
    let before = bytes_of(&mut target);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(target.restore(None, &mut &*damaged).is_err(), "byte {at}");
        assert!(target.restore(None, &mut &bytes[..at]).is_err(), "cut at {at}");
    }
    let longer = [&*bytes, &[0]].concat();
    assert!(matches!(target.restore(None, &mut &*longer), Err(RestoreError::Damaged { .. })));
    assert!(bytes_of(&mut target) == before);
    target.restore(Some(21), &mut &*bytes).unwrap();
    assert!(bytes_of(&mut target) == bytes);
}

#[test]
fn missing_and_repeated_blocks_are_noticed_although_each_is_whole() {
    let bytes = bytes_of(&mut filled(5000));
    // Cut into blocks: magic and version, then kind, length, payload, checksum.
    let mut blocks = Vec::new();
    let mut at = 9;
    while at < bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
        blocks.push(&bytes[at..at + 9 + len]);
        at += 9 + len;
    }
    assert!(blocks.len() > 5, "{}", blocks.len());
    let refused = |order: &[&[u8]]| {
        let bytes = [&bytes[..9], &order.concat()].concat();
        assert!(State::in_memory().restore(None, &mut &*bytes).is_err());
    };
    for left_out in 0..blocks.len() {
        let mut fewer = blocks.clone();
        fewer.remove(left_out);
        refused(&fewer);
        let mut more = blocks.clone();
        more.insert(left_out, blocks[left_out]);
        refused(&more);
    }
    blocks.swap(4, 5);
    refused(&blocks);
}

/// Damage that its checksum hides: restoring still returns, and what it accepts it writes again in the same
/// bytes.
#[test]
fn blocks_changed_with_their_checksums_do_no_harm() {
    let bytes = bytes_of(&mut filled(6));
    let mut random = 3_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..30_000 {
        let mut damaged = bytes[..9].to_vec();
        let mut at = 9;
        while at < bytes.len() {
            let len = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap()) as usize;
            let mut payload = bytes[at + 5..at + 5 + len].to_vec();
            if next(3) == 0 && !payload.is_empty() {
                let byte = next(payload.len());
                payload[byte] =
                    if next(2) == 0 { next(256).to_le_bytes()[0] } else { next(4).to_le_bytes()[0] };
            }
            if next(40) == 0 {
                payload.truncate(next(len + 1));
            }
            let from = damaged.len();
            damaged.push(bytes[at]);
            damaged.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            damaged.extend_from_slice(&payload);
            let checksum = crc32c::crc32c(&damaged[from..]);
            damaged.extend_from_slice(&checksum.to_le_bytes());
            at += 9 + len;
        }
        let mut state = State::in_memory();
        match state.restore(None, &mut &*damaged) {
            Ok(()) => {
                taken += 1;
                assert!(bytes_of(&mut state) == damaged);
            }
            Err(_) => {
                refused += 1;
                assert_eq!((state.applied(), state.session_count()), (0, 0));
            }
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn another_version_and_another_index_are_named() {
    let mut bytes = bytes_of(&mut filled(1));
    let wrong = State::in_memory().restore(Some(7), &mut &*bytes);
    assert!(matches!(wrong, Err(RestoreError::Index { expected: 7, found: 2 })));
    bytes[8] = SNAPSHOT_VERSION + 1;
    let newer = State::in_memory().restore(None, &mut &*bytes);
    assert!(matches!(newer, Err(RestoreError::Version { found }) if found == SNAPSHOT_VERSION + 1));
    assert!(matches!(
        State::in_memory().restore(None, &mut &[b'?'; 99][..]),
        Err(RestoreError::NotASnapshot)
    ));
}

#[test]
fn the_largest_entries_travel() {
    let mut state = filled(0);
    for number in 0..3_u8 {
        put(&mut state, vec![number; limits::KEY_LEN_MAX], vec![number; limits::VALUE_LEN_MAX]);
    }
    let bytes = bytes_of(&mut state);
    let mut copy = State::in_memory();
    copy.restore(None, &mut &*bytes).unwrap();
    assert!(bytes_of(&mut copy) == bytes);
    // A page of the largest entries is cut by its length and can be continued.
    let page = copy.reader().range(&KeyspaceName::DEFAULT, &RangeQuery::all()).unwrap();
    assert_eq!(page.entries.len(), 1);
    let rest = copy
        .reader()
        .range(&KeyspaceName::DEFAULT, &RangeQuery::all().resume(page.continuation.unwrap()))
        .unwrap();
    assert_eq!(rest.entries.first().map(|entry| entry.key[0]), Some(1));
}

/// Readers of several snapshots, dropped at different times, leave exactly the writes behind.
#[test]
fn snapshots_overlap_with_writes_and_each_other() {
    let mut state = filled(500);
    let mut held: Vec<(Box<dyn Read + Send>, Vec<u8>)> = Vec::new();
    for round in 0..40_u32 {
        let expected = bytes_of(&mut state);
        held.push((state.snapshot(), expected));
        for number in 0..25 {
            let key = format!("key {:05}", (round * 37 + number * 11) % 600);
            if number % 5 == 0 {
                let index = state.applied() + 1;
                let delete = Command::encode_write(
                    None,
                    &KeyspaceName::DEFAULT,
                    &Mutation::Delete { key: key.into() },
                );
                state.apply([(index, Some(&delete))], &mut Vec::new()).unwrap();
            } else {
                put(&mut state, key, format!("round {round}"));
            }
        }
        if round % 3 == 0 {
            let (mut snapshot, expected) = held.remove(held.len() / 2);
            let mut bytes = Vec::new();
            snapshot.read_to_end(&mut bytes).unwrap();
            assert!(bytes == expected);
        }
    }
    let last = bytes_of(&mut state);
    held.clear();
    // With nothing held, writes move what gathered in layers back into the base.
    for _ in 0..500 {
        put(&mut state, "settle", "");
    }
    let mut copy = State::in_memory();
    copy.restore(None, &mut &*last).unwrap();
    let mut entries = state.reader().range(&KeyspaceName::DEFAULT, &RangeQuery::all()).unwrap().entries;
    entries.retain(|entry: &KeyValue| entry.key != "settle");
    assert_eq!(entries, copy.reader().range(&KeyspaceName::DEFAULT, &RangeQuery::all()).unwrap().entries);
}

/// Readers in other threads see each batch whole once they see its index, and time never runs backwards for
/// them.
#[test]
fn readers_see_applied_writes_while_more_are_applied() {
    let mut state = filled(0);
    let reader = state.reader();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader = reader.clone();
            scope.spawn(move || {
                let mut seen = 0;
                loop {
                    let applied = reader.applied();
                    let revision = reader
                        .get(&KeyspaceName::DEFAULT, b"key")
                        .unwrap()
                        .map_or(0, |found| found.revision.get());
                    assert!(revision >= seen, "from {seen} back to {revision}");
                    assert!(
                        applied < 2 || revision >= applied,
                        "{applied} is applied, {revision} is visible"
                    );
                    seen = revision;
                    if seen >= 20_001 {
                        break;
                    }
                }
            });
        }
        for number in 0..20_000_u32 {
            put(&mut state, "key", number.to_le_bytes().to_vec());
            if number % 5000 == 0 {
                assert!(bytes_of(&mut state).len() > 20);
            }
        }
    });
}
