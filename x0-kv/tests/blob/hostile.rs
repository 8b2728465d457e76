//! A peer that says anything at all: the fetch ends all the same, nothing grows, nothing panics.

use std::time::Duration;

use x0_kv::blob::{BlobId, CHUNK_LEN};

use crate::random::Random;
use crate::world::World;

/// Messages to try: more with `X0_KV_BLOB_FUZZ`.
fn rounds(default: u64) -> u64 {
    std::env::var("X0_KV_BLOB_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Something like a message that was sent, or not at all like one.
fn anything(random: &mut Random, tape: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = match random.below(8) {
        0 => {
            let len = random.below(200) as usize;
            random.bytes(len)
        }
        _ => tape[random.below(tape.len() as u64) as usize].clone(),
    };
    for _ in 0..random.below(4) {
        // The head is where the numbers are.
        let reach = if random.below(4) == 0 { bytes.len() as u64 } else { 60.min(bytes.len() as u64) };
        let at = random.below(reach) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
    }
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
        1 => {
            let len = random.below(300) as usize;
            let more = random.bytes(len);
            bytes.extend(more);
        }
        _ => {}
    }
    bytes
}

#[test]
fn a_peer_that_says_anything_keeps_nobody_from_the_blob() {
    // The hostile peer begins with the messages of an honest fetch of the same blob.
    let bytes = Random(77).bytes(5 * CHUNK_LEN + 1);
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    let mut honest = World::new(77, 2);
    honest.store(2).add(&bytes[..]).unwrap();
    honest.fetch(1, id, len);
    assert_eq!(honest.run(1, id, Duration::from_secs(60)), Some(Ok(())));
    let tape = honest.tape;
    assert!(tape.iter().any(|message| message.len() > CHUNK_LEN));

    let mut world = World::new(78, 3);
    let mut random = Random(79);
    world.fetch(1, id, len);
    let rounds = rounds(4000);
    for round in 0..rounds {
        // Now and then it says what is right, which is no harm, but ends the fetch.
        if world.host(1).done.contains_key(&id) {
            assert_eq!(world.store(1).read(&id).unwrap(), bytes);
            world.store(1).remove(&id).unwrap();
            world.restart(1, None, true);
            world.fetch(1, id, len);
        }
        world.message(1, 3, anything(&mut random, &tape).into());
        if round % 16 == 0 {
            world.step(Duration::MAX);
        }
        assert_eq!(
            world.store(1).verify(&id).unwrap_or_default(),
            Vec::<u32>::new(),
            "nothing wrong is kept"
        );
    }
    world.store(2).add(&bytes[..]).unwrap();
    assert_eq!(world.run(1, id, Duration::from_secs(36_000)), Some(Ok(())));
    assert_eq!(world.store(1).read(&id).unwrap(), bytes);
    assert!(world.host(1).exchange.totals().refused > 0 || rounds < 1000);
}
