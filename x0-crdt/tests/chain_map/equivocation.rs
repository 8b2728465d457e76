//! A writer that tells two halves of the network two histories.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_crdt::internal::chain::{CHAIN_PREFIX, Verification};
use x0_crdt::{Dot, ReplicaId};

use super::keys::{Random, Ring};
use super::net::{KNOWN, Net};

const EQUIVOCATING: ReplicaId = ReplicaId::new(5);

fn write(net: &mut Net, random: &mut Random, at: usize, touched: &mut BTreeSet<Vec<u8>>) {
    let replica = &mut net.replicas[at];
    let key = format!("{}-{:02}", replica.map.replica().node, random.below(20)).into_bytes();
    if random.chance(85) {
        replica.map.put(&key, random.below(5) as u64, &random.next().to_le_bytes()).unwrap();
    } else {
        replica.map.remove(&key);
    }
    touched.insert(key);
    let signs = random.chance(15);
    let signed = if signs {
        replica.chains.sign_pending(&mut replica.map)
    } else {
        replica.chains.sign_full(&mut replica.map)
    };
    // Only the equivocating writer may be refused a signature.
    assert!(signed.is_ok() || replica.map.replica() == EQUIVOCATING);
    net.changed(at);
}

struct Fork {
    net: Net,
    /// The end of the common history, as far as it is signed.
    head: u64,
    /// The values of the equivocating writer at that time.
    stood: BTreeSet<(Vec<u8>, Dot)>,
    touched: BTreeSet<Vec<u8>>,
    /// A replica has forgotten what only its memory knew, so that the proof may reach less deep.
    crashed: bool,
}

/// Four honest replicas, of which two hear one history of the fifth and two another one.
fn fork(seed: u64, random: &mut Random) -> Fork {
    let what = format!("seed {seed}");
    let mut net = Net::new(5, seed);
    let mut touched = BTreeSet::new();
    for _ in 0..random.below(60) {
        let at = random.below(5);
        write(&mut net, random, at, &mut touched);
        if random.chance(10) {
            net.run(Duration::from_millis(300));
        }
    }
    // The common beginning of both histories is signed, so that neither signs it alone and alike.
    let equivocating = &mut net.replicas[4];
    equivocating.chains.sign_pending(&mut equivocating.map).unwrap();
    net.changed(4);
    net.settle(&what);
    if random.chance(50) {
        net.tidy();
        net.settle(&what);
    }
    let equivocating = net.replicas[4].map.clone();
    let head = net.replicas[4].chains.head(EQUIVOCATING).unwrap().seq;
    let stood = net.replicas[4].values().into_keys().filter(|(_, dot)| dot.replica == EQUIVOCATING).collect();
    let twin = net.add(equivocating);
    net.cut(4, twin);
    for [a, b] in [[0, 2], [0, 3], [1, 2], [1, 3]] {
        net.cut(a, b);
    }
    for [equivocating, deaf] in [[4, 2], [4, 3], [twin, 0], [twin, 1]] {
        net.cut(equivocating, deaf);
    }
    touched.clear();
    let mut crashed = false;
    for side in [4, twin] {
        for _ in 0..=random.below(60) {
            write(&mut net, random, side, &mut touched);
            if random.chance(30) {
                let at = random.below(4);
                write(&mut net, random, at, &mut BTreeSet::new());
            }
            if random.chance(10) {
                net.run(Duration::from_millis(300));
            }
            if random.chance(2) {
                net.crash(random.below(4));
                crashed = true;
            }
        }
        // At least one value, so that there is something to sign.
        let replica = &mut net.replicas[side];
        let last = format!("5-last-{side}").into_bytes();
        replica.map.put(&last, 0, &random.next().to_le_bytes()).unwrap();
        replica.chains.sign_pending(&mut replica.map).unwrap();
        net.changed(side);
    }
    net.run(Duration::from_secs(20));
    for side in [4, twin] {
        assert!(
            net.replicas[side].chains.proof(EQUIVOCATING).is_none(),
            "seed {seed}: no replica can know yet"
        );
    }
    Fork { net, head, stood, touched, crashed }
}

fn check(net: &Net, fork_head: u64, expected: &BTreeSet<(Vec<u8>, Dot)>, seed: u64) {
    let ring = Ring::of(KNOWN);
    for replica in net.online() {
        let me = replica.map.replica();
        let proof = replica
            .chains
            .proof(EQUIVOCATING)
            .unwrap_or_else(|| panic!("seed {seed}: no proof at {me}\n{}", net.dump()));
        assert_eq!(proof.verify(&ring), Ok(()));
        assert_eq!(
            (proof.writer(), proof.kept()),
            (EQUIVOCATING, fork_head),
            "seed {seed} at {me}\n{}",
            net.dump()
        );
        assert_eq!(replica.chains.proofs().count(), 1, "seed {seed}: an honest writer is accused");
        let proofs = [CHAIN_PREFIX, b"p"].concat();
        let proofs: Vec<usize> = replica.map.prefix(&proofs).map(|entry| entry.siblings().count()).collect();
        assert_eq!(proofs, [1], "seed {seed}: one proof, however many found one");
        let evidence = [CHAIN_PREFIX, b"t", &EQUIVOCATING.node.to_be_bytes()].concat();
        assert_eq!(replica.map.prefix(&evidence).count(), 0, "seed {seed}: a proof says it all");
        let values = replica.values();
        let held: BTreeSet<_> =
            values.keys().filter(|(_, dot)| dot.replica == EQUIVOCATING).cloned().collect();
        assert_eq!(&held, expected, "seed {seed} at {me}\n{}", net.dump());
        let verifications: BTreeMap<_, _> =
            values.iter().filter(|(_, (_, verification))| *verification != Verification::Valid).collect();
        assert!(
            verifications.values().all(|(_, verification)| *verification == Verification::Unsigned),
            "seed {seed} at {me}: {verifications:?}"
        );
        // The kept values are still proven.
        assert!(
            verifications.keys().all(|(_, dot)| dot.replica != EQUIVOCATING),
            "seed {seed} at {me}: {verifications:?}"
        );
    }
}

#[test]
fn two_histories_yield_a_proof_everywhere_and_all_keep_the_same() {
    for seed in super::seeds(60) {
        let mut random = Random(seed);
        let Fork { mut net, mut head, stood, touched, crashed } = fork(seed, &mut random);
        // One of the two processes may still receive the proof; it is then refused a signature.
        net.replicas[5].online = false;
        net.cuts.clear();
        net.cut(4, 5);
        net.run(Duration::from_millis(random.below(5_000) as u64));
        net.replicas[4].online = false;
        net.settle(&format!("seed {seed}"));
        // Members may have different ideas of what is news, so that they compare once more.
        net.run(Duration::from_secs(30));
        net.settle(&format!("seed {seed}"));
        net.check(&format!("seed {seed}"));
        if crashed {
            let kept = net.replicas[0].chains.kept(EQUIVOCATING).unwrap();
            assert!(kept >= head, "seed {seed}: what both sides agree on is kept");
            head = kept;
        }
        let mut expected: BTreeSet<_> =
            stood.into_iter().filter(|(key, dot)| dot.seq <= head && !touched.contains(key)).collect();
        if crashed {
            expected =
                net.replicas[0].values().into_keys().filter(|(_, dot)| dot.replica == EQUIVOCATING).collect();
            assert!(expected.iter().all(|(_, dot)| dot.seq <= head), "seed {seed}");
        }
        check(&net, head, &expected, seed);

        // A restart forgets nothing of it, and who comes new learns it.
        for at in 0..4 {
            net.crash(at);
            let replica = &net.replicas[at];
            assert_eq!(replica.chains.kept(EQUIVOCATING), Some(head), "seed {seed}");
            assert!(replica.values().keys().all(|(_, dot)| dot.replica != EQUIVOCATING || dot.seq <= head));
        }
        net.settle(&format!("seed {seed}"));
        check(&net, head, &expected, seed);
        let late = net.add(x0_crdt::CausalMap::new(ReplicaId::new(9), super::net::KEY));
        net.settle(&format!("seed {seed}"));
        net.run(Duration::from_secs(30));
        net.check(&format!("seed {seed}"));
        check(&net, head, &expected, seed);

        // The equivocating writer returns and goes on: no replica accepts its events.
        net.replicas[5].online = true;
        net.cut(5, 4);
        let twin = &mut net.replicas[5];
        twin.map.put(b"5-more", 0, b"other").unwrap();
        let _ = twin.chains.sign_pending(&mut twin.map);
        net.changed(5);
        net.run(Duration::from_secs(30));
        net.replicas[5].online = false;
        net.settle(&format!("seed {seed}"));
        net.check(&format!("seed {seed}"));
        check(&net, head, &expected, seed);
        assert!(net.replicas[late].map.get(b"5-more").is_none());
    }
}

/// While all replicas are connected, one history may replace the other before any replica can know; replicas
/// may not differ, and no other writer may be accused.
#[test]
fn two_histories_among_replicas_that_hear_each_other_leave_them_alike() {
    for seed in super::seeds(40) {
        let what = format!("seed {seed}");
        let mut random = Random(seed ^ 0x3127);
        let mut net = Net::new(5, seed);
        let mut touched = BTreeSet::new();
        for _ in 0..random.below(40) {
            let at = random.below(5);
            write(&mut net, &mut random, at, &mut touched);
        }
        net.settle(&what);
        let twin = net.replicas[4].map.clone();
        let twin = net.add(twin);
        net.cut(4, twin);
        // Each of the two is heard by some.
        for at in 0..4 {
            net.cut(if random.chance(50) { 4 } else { twin }, at);
        }
        for _ in 0..random.below(120) {
            let at = [random.below(4), 4, twin][random.below(3)];
            write(&mut net, &mut random, at, &mut touched);
            if random.chance(20) {
                net.run(Duration::from_millis(random.below(400) as u64));
            }
        }
        for side in [4, twin] {
            let replica = &mut net.replicas[side];
            replica.map.put(format!("5-last-{side}").as_bytes(), 0, b"last").unwrap();
            let _ = replica.chains.sign_pending(&mut replica.map);
            net.changed(side);
        }
        net.run(Duration::from_secs(20));
        net.replicas[4].online = false;
        net.replicas[twin].online = false;
        net.settle(&what);
        net.run(Duration::from_secs(20));
        net.settle(&what);
        net.check(&what);
        let kept = net.replicas[0].chains.kept(EQUIVOCATING);
        for replica in net.online() {
            assert_eq!(replica.chains.kept(EQUIVOCATING), kept, "{what}");
            assert!(replica.chains.proofs().all(|proof| proof.writer() == EQUIVOCATING), "{what}");
            for ((_, dot), (_, verification)) in replica.values() {
                assert!(kept.is_none_or(|kept| dot.replica != EQUIVOCATING || dot.seq <= kept), "{what}");
                assert!(
                    [Verification::Valid, Verification::Unsigned].contains(&verification),
                    "{what}: {dot} {verification:?}"
                );
            }
        }
    }
}
