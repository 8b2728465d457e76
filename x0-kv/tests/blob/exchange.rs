//! Blobs over any network, with restarts on either side.

use std::time::Duration;

use x0_consensus::sim::Unsynced;
use x0_kv::blob::{
    BlobExchange, BlobId, CHUNK_LEN, ExchangeInput, ExchangeOptions, ExchangeOutput, FetchFailure, MARK,
    Piece,
};

use crate::random::{Random, seeds};
use crate::world::{World, node};

const HOUR: Duration = Duration::from_secs(3600);

/// A blob of some chunks, the last one short now and then.
fn some_bytes(random: &mut Random, chunks_max: u64) -> Vec<u8> {
    let chunks = random.below(chunks_max + 1) as usize;
    let rest = [0, 1, random.below(CHUNK_LEN as u64) as usize][random.below(3) as usize];
    random.bytes(chunks * CHUNK_LEN + rest)
}

#[test]
fn a_blob_comes_whole_over_any_network_whoever_restarts() {
    for seed in seeds(60) {
        let mut random = Random(seed ^ 0xABCD);
        let servers = 1 + random.below(3);
        let mut world = World::new(seed, 1 + servers);
        world.lost = [0, 0, 100, 300][random.below(4) as usize];
        world.doubled = [0, 200][random.below(2) as usize];
        let bytes = some_bytes(&mut random, 8);
        let id = BlobId::of(&bytes);
        for server in 0..servers {
            world.store(2 + server).add(&bytes[..]).unwrap();
        }
        world.fetch(1, id, bytes.len() as u64);
        for _ in 0..random.below(4) {
            let steps = random.below(60);
            for _ in 0..steps {
                world.step(HOUR);
            }
            let fate = [
                None,
                Some(Unsynced::Lost),
                Some(Unsynced::Kept),
                Some(Unsynced::Sectors(seed)),
                Some(Unsynced::Cut(seed)),
            ][random.below(5) as usize];
            let which = 1 + random.below(1 + servers);
            world.restart(which, fate, random.below(2) == 0);
            if which == 1 {
                world.fetch(1, id, bytes.len() as u64);
            }
        }
        let ended = world.run(1, id, 10 * HOUR);
        assert_eq!(ended, Some(Ok(())), "seed {seed}");
        assert_eq!(world.store(1).read(&id).unwrap(), bytes, "seed {seed}");
        assert_eq!(world.store(1).verify(&id).unwrap(), Vec::<u32>::new(), "seed {seed}");
        assert!(world.host(1).misbehaving.is_empty(), "seed {seed}");
    }
}

#[test]
fn held_chunks_are_not_requested_again() {
    for seed in seeds(30) {
        for fate in [None, Some(Unsynced::Lost)] {
            let mut world = World::new(seed, 3);
            let bytes = Random(seed).bytes(10 * CHUNK_LEN + 99);
            let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
            world.store(2).add(&bytes[..]).unwrap();
            world.store(3).add(&bytes[..]).unwrap();
            world.fetch(1, id, len);
            let held_at_kill = 1 + (seed % 9) as u32;
            while world.held(1, &id) < held_at_kill {
                assert!(world.step(HOUR));
            }
            let (asked, kept) = {
                let exchange = &world.host(1).exchange;
                (exchange.asked_chunks() as u64, exchange.totals())
            };
            world.restart(1, fate, true);
            let held = world.held(1, &id);
            // Without power, what the last commit said of itself is lost, which is one chunk here.
            assert!(
                held + u32::from(fate.is_some()) >= held_at_kill,
                "seed {seed}: {held} of {held_at_kill}"
            );
            assert!(held > 0 || held_at_kill == 1);
            world.fetch(1, id, len);
            assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
            assert_eq!(world.store(1).read(&id).unwrap(), bytes);
            let after = world.host(1).exchange.totals();
            assert_eq!(after.asked_chunks, u64::from(11 - held), "seed {seed}: what is missing, once");
            assert_eq!(after.timeouts, 0);
            // In bytes: all lives together received the blob, and what was under way or not durable when the
            // first ended.
            let received = kept.received_chunk_bytes + after.received_chunk_bytes;
            let wasted = (asked + u64::from(held_at_kill - held.min(held_at_kill)) + 1) * CHUNK_LEN as u64;
            assert!(received <= len + wasted, "seed {seed}: {received} for {len}");
            let served: u64 =
                [2, 3].map(|number| world.host(number).exchange.totals().served_chunk_bytes).iter().sum();
            assert!(served <= len + wasted, "seed {seed}: {served} served for {len}");
        }
    }
}

#[test]
fn several_servers_share_the_work_and_the_overhead_is_small() {
    let mut world = World::new(5, 4);
    let bytes = Random(5).bytes(32 * CHUNK_LEN);
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    for server in 2..=4 {
        world.store(server).add(&bytes[..]).unwrap();
    }
    world.fetch(1, id, len);
    assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
    for server in 2..=4 {
        let reads = world.host(server).reads;
        assert!((6..=16).contains(&reads), "server {server} served {reads} of 32");
    }
    let totals = world.host(1).exchange.totals();
    assert_eq!((totals.received_chunks, totals.redundant_bytes, totals.timeouts), (32, 0, 0));
    // 8 MiB: five hashes beside the way, the head of the message with its stamp, and what the three hold.
    let received = totals.received_bytes - len;
    println!("for 32 chunks {received} bytes received beside them, {} sent", totals.sent_bytes);
    assert!(received <= 32 * 204 + 3 * 80, "{received}");
    assert!(totals.sent_bytes <= 32 * 40 + 3 * 40, "{}", totals.sent_bytes);
}

/// Two nodes fetch the same from one: what one has of it, it serves to the other.
#[test]
fn partial_blobs_are_served() {
    let mut world = World::new(11, 3);
    let bytes = Random(11).bytes(40 * CHUNK_LEN);
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    world.store(3).add(&bytes[..]).unwrap();
    world.fetch(1, id, len);
    while world.held(1, &id) < 20 {
        assert!(world.step(HOUR));
    }
    // The only one with all of it goes; what is missing is nowhere.
    world.host(3).store.as_ref().unwrap().remove(&id).unwrap();
    world.fetch(2, id, len);
    world.run(2, id, Duration::from_secs(600));
    let held = world.held(1, &id);
    assert_eq!(world.held(2, &id), held);
    assert!((20..40).contains(&held));
    assert!(world.host(1).reads >= 20);
    // The peer comes back, and both fetches end.
    world.store(3).add(&bytes[..]).unwrap();
    assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
    assert_eq!(world.run(2, id, HOUR), Some(Ok(())));
    assert_eq!(world.store(2).read(&id).unwrap(), bytes);
}

#[test]
fn a_damaged_chunk_is_found_by_who_serves_it_and_fetched_again() {
    let mut world = World::new(13, 3);
    let bytes = Random(13).bytes(6 * CHUNK_LEN);
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    world.store(2).add(&bytes[..]).unwrap();
    world.store(3).add(&bytes[..]).unwrap();
    for number in [2, 3] {
        let disk = world.host(number).disk.clone();
        let name = format!("{id}.blob");
        let mut file = disk.contents(&name).unwrap();
        file[4096 + number as usize * CHUNK_LEN + 17] ^= 1;
        disk.replace_contents(&name, file);
    }
    world.fetch(1, id, len);
    assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
    assert_eq!(world.store(1).read(&id).unwrap(), bytes);
    assert!(world.host(1).misbehaving.is_empty(), "who finds its own damage is not misbehaving");
    for number in [2, 3] {
        let damaged = world.store(number).verify(&id).unwrap();
        assert!(damaged.is_empty() || damaged == [number as u32]);
        assert_eq!(world.held(number, &id), 5);
        world.fetch(number, id, len);
        assert_eq!(world.run(number, id, HOUR), Some(Ok(())));
        assert_eq!(world.store(number).read(&id).unwrap(), bytes);
    }
}

/// A chunk that is on its way is not requested again, however slow the link is.
#[test]
fn a_slow_link_carries_each_chunk_about_once() {
    for rate in [1_000, 5_000, 20_000, 100_000, 1_000_000] {
        let mut world = World::new(31, 2);
        world.rate = Some(rate);
        let bytes = Random(31).bytes(24 * CHUNK_LEN);
        let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
        world.store(2).add(&bytes[..]).unwrap();
        world.fetch(1, id, len);
        assert_eq!(world.run(1, id, 100 * HOUR), Some(Ok(())));
        let served = world.host(2).exchange.totals().served_chunks;
        let ideal = Duration::from_secs(len / rate);
        println!("{rate} B/s: {served} chunks served for 24, {:.0?} for {ideal:.0?}", world.now);
        assert!(served <= 24 + 4, "{rate} B/s: {served} chunks served for 24");
        assert!(
            world.now <= ideal * 5 / 4 + Duration::from_secs(1),
            "{rate} B/s: {:?} for {ideal:?}",
            world.now
        );
    }
}

#[test]
fn chunks_of_a_lost_peer_are_requested_of_another_at_once() {
    let mut world = World::new(37, 3);
    let bytes = Random(37).bytes(12 * CHUNK_LEN);
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    world.store(2).add(&bytes[..]).unwrap();
    world.fetch(1, id, len);
    while world.held(1, &id) < 4 || world.host(1).exchange.asked_chunks() < 3 {
        assert!(world.step(HOUR));
    }
    world.store(3).add(&bytes[..]).unwrap();
    world.cut(2);
    world.input(node(1), ExchangeInput::Down(node(2)));
    assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
    let totals = world.host(1).exchange.totals();
    assert_eq!(totals.timeouts, 0);
    assert!(totals.asked_chunks > 12, "something was owed");
}

#[test]
fn chunks_that_a_peer_lost_are_requested_of_another_at_once() {
    let mut world = World::new(41, 3);
    let bytes = Random(41).bytes(12 * CHUNK_LEN);
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    world.store(2).add(&bytes[..]).unwrap();
    world.fetch(1, id, len);
    while world.held(1, &id) < 4 || world.host(1).exchange.asked_chunks() < 3 {
        assert!(world.step(HOUR));
    }
    world.store(2).remove(&id).unwrap();
    world.store(3).add(&bytes[..]).unwrap();
    assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
    let totals = world.host(1).exchange.totals();
    assert_eq!(totals.timeouts, 0);
    assert!(totals.asked_chunks > 12, "something was owed");
}

#[test]
fn a_blob_that_nobody_holds_is_waited_for_quietly() {
    let mut world = World::new(17, 3);
    let bytes = Random(17).bytes(3 * CHUNK_LEN);
    let (id, len) = (BlobId::of(&bytes), bytes.len() as u64);
    world.fetch(1, id, len);
    assert_eq!(world.run(1, id, 10 * HOUR), None);
    let asked = world.host(1).exchange.totals().sent_bytes;
    // Each minute in the end, of two nodes, 36 bytes.
    assert!(asked < 10 * 61 * 2 * 40, "{asked}");
    world.store(3).add(&bytes[..]).unwrap();
    assert_eq!(world.run(1, id, HOUR), Some(Ok(())));
}

#[test]
fn too_many_fetches_are_refused_and_cancelled_ones_are_forgotten() {
    let mut world = World::new(19, 2);
    let max = world.options.fetches_max as u64;
    for number in 0..=max {
        let id = BlobId::of(&number.to_le_bytes());
        world.fetch(1, id, 8);
        let refused = world.host(1).done.get(&id).copied();
        assert_eq!(refused, (number == max).then_some(Err(FetchFailure::TooMany)));
    }
    let first = BlobId::of(&0_u64.to_le_bytes());
    world.input(node(1), ExchangeInput::Cancel { id: first });
    assert_eq!(world.host(1).exchange.fetching().count() as u64, max - 1);
    world.fetch(1, first, 8);
    assert!(!world.host(1).done.contains_key(&first));
}

#[test]
fn a_peer_cannot_make_a_server_queue_without_bound() {
    let mut world = World::new(23, 2);
    let bytes = Random(23).bytes(9 * CHUNK_LEN);
    let id = BlobId::of(&bytes);
    world.store(1).add(&bytes[..]).unwrap();
    // All chunks that a blob may have, and the same again and again.
    let mut want = vec![MARK, 1, 1];
    want.extend(id.as_bytes());
    want.extend([0, 1, 0, 0x80, 0x80, 0x10]);
    for _ in 0..1000 {
        world.message(1, 2, want.clone().into());
    }
    let totals = world.host(1).exchange.totals();
    assert_eq!(totals.refused, 1000, "the rest of the range was not heard, and not looked at");
    while world.step(world.now + HOUR) {}
    let totals = world.host(1).exchange.totals();
    assert!(totals.served_chunks <= 9 * 1000 && totals.served_chunks >= 9, "{totals:?}");
    assert_eq!(world.host(1).exchange.pending_bytes(), 0);
}

/// A transport that takes nothing: what is read for peers stays bounded, and the next is read when something
/// has left.
#[test]
fn no_more_is_read_for_peers_than_may_be_under_way() {
    let options = ExchangeOptions::default();
    let mut exchange = BlobExchange::new(options.clone(), 1);
    let id = BlobId::of(b"any");
    let mut want = vec![MARK, 1, 1];
    want.extend(id.as_bytes());
    want.extend([0, 1, 0, 60]);
    let (mut sent, mut left) = (Vec::new(), 0);
    let mut drain = |exchange: &mut BlobExchange| {
        while let Some(output) = exchange.poll_output() {
            match output {
                ExchangeOutput::Read { ticket, .. } => {
                    let piece = Some(Piece::new(Vec::new(), vec![0; CHUNK_LEN].into()));
                    exchange.handle(Duration::ZERO, ExchangeInput::Read { ticket, piece }).unwrap();
                }
                ExchangeOutput::Send { to, ticket, .. } => sent.push((to, ticket.unwrap())),
                other => panic!("{other:?}"),
            }
            assert!(exchange.pending_bytes() <= options.serving_bytes_total_max);
        }
        sent.clone()
    };
    for peer in 1..=20 {
        exchange
            .handle(Duration::ZERO, ExchangeInput::Message { from: node(peer), payload: want.clone().into() })
            .unwrap();
        let sent = drain(&mut exchange);
        let own = sent.iter().filter(|(to, _)| *to == node(peer)).count();
        assert!(own * CHUNK_LEN <= options.serving_bytes_max, "peer {peer}: {own}");
    }
    let sent = drain(&mut exchange);
    assert!(sent.len() >= options.serving_bytes_total_max / CHUNK_LEN - 2, "{}", sent.len());
    // A chunk that was sent makes room for as much, peer after peer, until each peer has all of its chunks.
    while let Some((_, ticket)) = drain(&mut exchange).get(left).copied() {
        exchange.handle(Duration::ZERO, ExchangeInput::Left { ticket }).unwrap();
        left += 1;
    }
    assert_eq!((left, exchange.pending_bytes()), (20 * 60, 0));
    // The queue of a peer that disconnects is dropped.
    exchange.handle(Duration::ZERO, ExchangeInput::Message { from: node(1), payload: want.into() }).unwrap();
    drain(&mut exchange);
    assert!(exchange.pending_bytes() > 0);
    exchange.handle(Duration::ZERO, ExchangeInput::Down(node(1))).unwrap();
    assert_eq!(exchange.pending_bytes(), 0);
}
