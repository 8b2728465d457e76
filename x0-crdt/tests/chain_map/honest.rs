//! Honest writers: all values become valid on all replicas, no proof arises, and chain entries without use
//! are removed.

use std::time::Duration;

use x0_crdt::internal::chain::Verification;

use super::keys::Random;
use super::net::Net;

fn write(net: &mut Net, random: &mut Random, at: usize, keys: usize) {
    let replica = &mut net.replicas[at];
    let key = format!("key-{:03}", random.below(keys)).into_bytes();
    if random.chance(80) {
        replica.map.put(&key, random.below(5) as u64, &random.next().to_le_bytes()).unwrap();
    } else if random.chance(50) {
        replica.map.add(&key, 0, 1).unwrap();
    } else {
        replica.map.remove(&key);
    }
    replica.chains.sign_full(&mut replica.map).unwrap();
    net.changed(at);
}

fn sign_all(net: &mut Net) {
    for at in 0..net.replicas.len() {
        let replica = &mut net.replicas[at];
        if replica.chains.sign_pending(&mut replica.map).unwrap() {
            net.changed(at);
        }
    }
}

fn check_signed(net: &Net, seed: u64) {
    for replica in &net.replicas {
        let me = replica.map.replica();
        for ((key, dot), (_, verification)) in replica.values() {
            assert_eq!(
                verification,
                Verification::Valid,
                "seed {seed}: {} {dot} at {me}",
                key.escape_ascii()
            );
        }
        assert_eq!(replica.chains.proofs().count(), 0, "seed {seed}");
        let stats = replica.chains.stats();
        assert_eq!((stats.invalid, stats.garbage, stats.quarantined), (0, 0, 0), "seed {seed} at {me}");
        assert_eq!((stats.evidence, stats.restored), (0, 0), "seed {seed} at {me}");
    }
}

#[test]
fn all_of_honest_writers_is_signed_everywhere_and_chains_shrink_to_one_head_each() {
    for seed in super::seeds(40) {
        let mut random = Random(seed);
        let mut net = Net::new(4, seed);
        for _ in 0..random.below(300) {
            let at = random.below(4);
            match random.below(30) {
                0 => net.crash(at),
                1 => net.tidy(),
                2 => sign_all(&mut net),
                3..=8 => net.run(Duration::from_millis(random.below(800) as u64)),
                _ => write(&mut net, &mut random, at, 40),
            }
        }
        sign_all(&mut net);
        net.settle(&format!("seed {seed}"));
        net.check(&format!("seed {seed}"));
        check_signed(&net, seed);

        // One writes over everything and all see it: the others' batches cover nothing any more.
        let keys: Vec<Vec<u8>> = net.replicas[0].values().into_keys().map(|(key, _)| key).collect();
        for key in &keys {
            net.replicas[0].map.put(key, 9, b"last").unwrap();
        }
        sign_all(&mut net);
        net.changed(0);
        net.settle(&format!("seed {seed}"));
        net.tidy();
        net.tidy();
        net.settle(&format!("seed {seed}"));
        check_signed(&net, seed);
        let batches = keys.len().div_ceil(8);
        let reserved = net.replicas[1].reserved();
        assert!(
            reserved <= 4 + batches,
            "seed {seed}: {reserved} entries, {batches} batches, floor {:?}\n{}",
            net.replicas[1].map.floor(),
            net.dump()
        );

        for key in &keys {
            net.replicas[2].map.remove(key);
        }
        net.changed(2);
        net.settle(&format!("seed {seed}"));
        net.tidy();
        net.tidy();
        net.settle(&format!("seed {seed}"));
        net.check(&format!("seed {seed}"));
        for replica in &net.replicas {
            assert!(replica.reserved() <= 4, "seed {seed}: {} entries\n{}", replica.reserved(), net.dump());
            assert_eq!(replica.values().len(), 0);
            assert_eq!((replica.map.history_len(), replica.map.removal_count()), (0, 0), "seed {seed}");
        }
    }
}
