//! Misbehaving servers: found, not asked again, and nothing of what they say is kept.

use std::time::Duration;

use x0_kv::blob::{BlobId, CHUNK_LEN, ChunkSet, FetchFailure, Holding, Misbehavior, Piece};

use crate::random::Random;
use crate::world::{Served, Tamper, World, node};

const HOUR: Duration = Duration::from_secs(3600);

type Change = fn(&mut Served<'_>);

/// Each kind of wrong answer, and the misbehavior that it is found to be.
fn cases() -> Vec<(&'static str, Misbehavior, Change)> {
    fn piece(served: &mut Served<'_>, change: impl FnOnce(u32, &mut Vec<[u8; 32]>, &mut Vec<u8>)) {
        if let Served::Piece(index, Some(piece)) = served {
            let (mut path, mut bytes) = (piece.path.clone(), piece.bytes.to_vec());
            change(*index, &mut path, &mut bytes);
            *piece = Piece::new(path, bytes.into());
        }
    }
    fn holding(served: &mut Served<'_>, change: impl FnOnce(&mut u64, &mut [u8; 32])) {
        if let Served::Holding(Some(holding)) = served {
            let (mut len, mut root) = (holding.len, holding.root);
            change(&mut len, &mut root);
            *holding = Holding::new(len, root, ChunkSet::all(len.div_ceil(CHUNK_LEN as u64) as u32));
        }
    }
    vec![
        ("one bit of the bytes", Misbehavior::Chunk, |served| piece(served, |_, _, bytes| bytes[0] ^= 1)),
        ("the last bit of the bytes", Misbehavior::Chunk, |served| {
            piece(served, |_, _, bytes| *bytes.last_mut().unwrap() ^= 0x80);
        }),
        ("no bytes", Misbehavior::Chunk, |served| piece(served, |_, _, bytes| bytes.clear())),
        ("a byte less", Misbehavior::Chunk, |served| {
            piece(served, |_, _, bytes| bytes.truncate(bytes.len() - 1));
        }),
        ("one bit of the way", Misbehavior::Chunk, |served| piece(served, |_, path, _| path[0][31] ^= 1)),
        ("the top of the way", Misbehavior::Chunk, |served| {
            piece(served, |_, path, _| path.last_mut().unwrap()[0] ^= 4);
        }),
        ("a shorter way", Misbehavior::Chunk, |served| {
            piece(served, |_, path, _| path.truncate(path.len() - 1));
        }),
        ("a longer way", Misbehavior::Chunk, |served| piece(served, |_, path, _| path.push([0; 32]))),
        ("a way upside down", Misbehavior::Chunk, |served| piece(served, |_, path, _| path.reverse())),
        ("a greater length", Misbehavior::Holding, |served| holding(served, |len, _| *len += 1)),
        ("the greatest length", Misbehavior::Holding, |served| holding(served, |len, _| *len = 64 << 30)),
        ("no length", Misbehavior::Holding, |served| holding(served, |len, _| *len = 0)),
        ("another root", Misbehavior::Holding, |served| holding(served, |_, root| root[3] ^= 1)),
    ]
}

fn bytes() -> Vec<u8> {
    // Five chunks: ways of three hashes and one of one.
    Random(1).bytes(4 * CHUNK_LEN + 1000)
}

#[test]
fn a_misbehaving_server_is_found_and_the_blob_comes_from_an_honest_one() {
    for (name, misbehavior, change) in cases() {
        for seed in 0..4 {
            let mut world = World::new(seed, 3);
            let bytes = bytes();
            let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
            world.store(2).add(&bytes[..]).unwrap();
            world.host(2).tamper = Some(Box::new(change) as Tamper);
            world.fetch(1, id, len);
            // The misbehaving server is first; without it nothing would be found.
            while world.host(1).misbehaving.is_empty() {
                assert!(world.step(HOUR), "{name}");
            }
            let window = u64::from(world.options.window_max);
            assert!(world.host(2).reads <= window, "{name}");
            world.store(3).add(&bytes[..]).unwrap();
            assert_eq!(world.run(1, id, HOUR), Some(Ok(())), "{name}");
            assert_eq!(world.store(1).read(&id).unwrap(), bytes, "{name}");
            assert_eq!(world.host(1).misbehaving, [(node(2), misbehavior)], "{name}: reported once");
            assert!(world.host(2).reads <= window, "{name}: not asked again");
            let totals = world.host(1).exchange.totals();
            assert_eq!((totals.misbehaving, totals.received_chunks), (1, 5), "{name}");
        }
    }
}

#[test]
fn among_liars_only_nothing_is_kept_and_the_fetch_waits() {
    for (name, _, change) in cases() {
        let mut world = World::new(7, 3);
        let bytes = bytes();
        let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
        for server in [2, 3] {
            world.store(server).add(&bytes[..]).unwrap();
            world.host(server).tamper = Some(Box::new(change) as Tamper);
        }
        world.fetch(1, id, len);
        assert_eq!(world.run(1, id, HOUR), None, "{name}");
        assert_eq!(world.host(1).misbehaving.len(), 2, "{name}");
        // A misbehavior about one chunk in five may leave others right (a way of one hash has no other end);
        // of the wrong nothing is kept.
        assert_eq!(world.store(1).verify(&id).unwrap_or_default(), Vec::<u32>::new(), "{name}");
        assert!(world.held(1, &id) < 5, "{name}");
        let reads = world.host(2).reads + world.host(3).reads;
        world.run(1, id, HOUR);
        assert_eq!(world.host(2).reads + world.host(3).reads, reads, "{name}: nobody is asked again");
    }
}

#[test]
fn a_reference_that_lies_about_the_length_is_found_by_an_honest_server() {
    let bytes = bytes();
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    for stated in [0, 1, len - 1, len + 1, len + CHUNK_LEN as u64, 64 << 30] {
        let mut world = World::new(9, 2);
        world.store(2).add(&bytes[..]).unwrap();
        world.fetch(1, id, stated);
        assert_eq!(world.run(1, id, HOUR), Some(Err(FetchFailure::Length { actual: len })));
        assert!(world.store(1).list().is_empty(), "nothing was begun");
        assert!(world.host(1).misbehaving.is_empty());
    }
}

#[test]
fn unrequested_chunks_are_not_kept() {
    let mut world = World::new(3, 3);
    let bytes = bytes();
    let id = BlobId::of(&bytes);
    world.store(2).add(&bytes[..]).unwrap();
    // A fetch that the second node answers, watched.
    world.fetch(1, id, bytes.len() as u64);
    assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
    world.store(1).remove(&id).unwrap();
    // The same chunks, without a fetch.
    world.fetch(3, id, bytes.len() as u64);
    assert_eq!(world.run(3, id, HOUR), Some(Ok(())));
    assert_eq!(world.held(1, &id), 0);
}
