//! [`SignedMap`](x0_crdt::SignedMap)s over a lossy network in virtual time, with disks that take their time
//! and lose what they have not confirmed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "chain/keys.rs"]
#[allow(dead_code, reason = "shared with the tests of chains alone")]
mod keys;
#[path = "signed_map/net.rs"]
mod net;

use std::collections::BTreeSet;
use std::time::Duration;

use keys::{Key, Random, Ring};
use net::Net;
use x0_crdt::{
    CHAIN_PREFIX, CausalMap, ChainKeys, OpenError, ReplicaId, SignBatchError, SignedHandleError, SignedInput,
    SignedMap, SignedMapOptions, SignedOutput, SignedWriteError, Verification, Version,
};

/// Seeds to try: as many as `X0_CRDT_SEEDS` says; `X0_CRDT_SEED` is the only one.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    number("X0_CRDT_SEED").map_or(0..number("X0_CRDT_SEEDS").unwrap_or(default), |seed| seed..seed + 1)
}

#[test]
fn values_of_honest_writers_become_valid_on_all_replicas_and_chains_shrink_to_one_head_each() {
    for seed in seeds(30) {
        let mut random = Random(seed);
        let mut net = Net::new(4, seed);
        for _ in 0..random.below(250) {
            let at = random.below(4);
            match random.below(30) {
                0 | 1 => net.crash(at),
                2..=8 => net.run(Duration::from_millis(random.below(300) as u64)),
                9 => drop(net.nodes[at].signed.sign().unwrap()),
                _ => net.write(&mut random, at),
            }
        }
        let what = format!("seed {seed}");
        net.settle(&what);
        // Longer than a value may stay unsigned.
        net.run(Duration::from_secs(3));
        net.settle(&what);
        for node in &net.nodes {
            for entry in node.signed.range(b"") {
                for (held, verification) in entry.siblings() {
                    let key = entry.key().escape_ascii();
                    assert_eq!(verification, Verification::Valid, "{what}: {key} {}", held.dot);
                }
            }
            let stats = node.signed.stats();
            // Evidence may be published: a batch that arrives before the one it continues looks like a jump.
            assert_eq!((stats.invalid, stats.garbage, stats.quarantined), (0, 0, 0), "{what}");
            assert_eq!(node.signed.proofs().count(), 0, "{what}: an honest writer has signed two histories");
        }
        assert_eq!(net.impostors, 0, "{what}: an event left before it was durable");

        let keys: Vec<Vec<u8>> = net.nodes[2].signed.range(b"").map(|entry| entry.key().to_vec()).collect();
        for key in &keys {
            net.nodes[2].signed.remove(key).unwrap();
        }
        net.settle(&what);
        // Heartbeats, pruning and forgetting follow from the lease alone.
        net.run(Duration::from_secs(200));
        net.settle(&what);
        for node in &net.nodes {
            assert!(node.signed.range(b"").next().is_none(), "{what}");
            assert!(
                node.signed.map().prefix(CHAIN_PREFIX).count() <= 4,
                "{what}: more than one head per writer"
            );
            assert_eq!(node.signed.map().removal_count(), 0, "{what}");
        }
    }
}

/// A long state arrives by ranges, which restarts of its receiver do not lose.
#[test]
fn a_long_state_goes_on_after_a_restart() {
    let mut net = Net::new(2, 1);
    net.cut(0, 1);
    for number in 0..600_u32 {
        net.nodes[0].signed.put(&number.to_be_bytes().repeat(4), 0, &number.to_le_bytes()).unwrap();
    }
    net.nodes[0].signed.sign().unwrap();
    net.run(Duration::from_secs(30));
    net.heal();
    let ranges = |net: &Net| net.nodes[1].disk().iter().filter(|record| record[0] == 3).count();
    let mut at_crash = Vec::new();
    for _ in 0..400 {
        net.run(Duration::from_millis(25));
        if ranges(&net) >= 2 * (at_crash.len() + 1) && at_crash.len() < 3 {
            net.crash(1);
            at_crash.push(ranges(&net));
        }
    }
    net.settle("ranges");
    assert_eq!(at_crash.len(), 3, "{at_crash:?}");
    assert!(ranges(&net) <= 40, "{}: no restart begins again", ranges(&net));
    assert!(net.nodes[1].signed.range(b"").count() == 600);
    net.crash(1);
    assert_eq!(net.nodes[1].signed.range(b"").count(), 600, "the disk holds it");
}

#[test]
fn two_histories_of_one_writer_yield_a_proof_everywhere_and_all_keep_the_same() {
    let writer = ReplicaId::new(5);
    for seed in seeds(30) {
        let what = format!("seed {seed}");
        let mut random = Random(seed ^ 0x5eed);
        let mut net = Net::new(5, seed);
        for _ in 0..60 {
            let at = random.below(5);
            net.write(&mut random, at);
        }
        net.nodes[4].signed.put(b"common", 0, b"kept").unwrap();
        net.settle(&what);
        net.run(Duration::from_secs(3));
        net.settle(&what);
        let head = net.nodes[0].signed.head(writer).unwrap().seq;

        // A second process goes on from a copy of the disk, heard by the other half.
        let twin = net.fork(4);
        net.cut(4, twin);
        for at in 0..4 {
            net.cut(if at < 2 { 4 } else { twin }, at);
        }
        net.cut(0, 2);
        net.cut(0, 3);
        net.cut(1, 2);
        net.cut(1, 3);
        for (at, value) in [(4, b"left"), (twin, b"rite")] {
            for number in 0..10 {
                net.nodes[at].signed.put(format!("of-5-{number}").as_bytes(), 1, value).unwrap();
            }
            net.nodes[at].signed.sign().unwrap();
        }
        net.run(Duration::from_secs(20));
        for at in 0..4 {
            assert_eq!(net.nodes[at].signed.proof(writer), None, "{what}: no replica can know yet");
        }
        net.nodes[4].online = false;
        net.nodes[twin].online = false;
        net.heal();
        net.settle(&what);
        net.run(Duration::from_secs(30));
        net.settle(&what);
        let ring = Ring::of(1..=9);
        let mut kept = BTreeSet::new();
        for at in 0..4 {
            let signed = &net.nodes[at].signed;
            let proof = signed.proof(writer).unwrap_or_else(|| panic!("{what}: no proof at {at}"));
            assert_eq!((proof.verify(&ring), proof.kept() >= head), (Ok(()), true), "{what}");
            kept.insert(proof.kept());
            assert_eq!(signed.proofs().count(), 1, "{what}: an honest writer is accused");
            assert!(
                (0..10).all(|number| signed.get(format!("of-5-{number}").as_bytes()).is_none()),
                "{what}"
            );
            assert_eq!(signed.get(b"common").unwrap().latest().unwrap().value, b"kept", "{what}");
            assert!(net.nodes[at].equivocations.contains(&writer), "{what}: the driver is notified at {at}");
        }
        assert_eq!(kept.len(), 1, "{what}: all keep the same");
    }
}

fn map(node: u64) -> SignedMap {
    let options = SignedMapOptions::default();
    SignedMap::new(
        ReplicaId::new(node),
        net::KEY,
        ChainKeys::new(Key::of(node), Ring::of(1..=9)),
        &options,
        node,
    )
}

#[test]
fn nothing_is_sent_before_the_record_it_depends_on_is_durable() {
    let mut signed = map(1);
    signed.put(b"key", 1, b"value").unwrap();
    signed.sign().unwrap();
    signed.handle(Duration::ZERO, SignedInput::Connected { peer: 2 }).unwrap();
    let Some(SignedOutput::Persist { record, replaces: true, token }) = signed.poll_output() else {
        panic!("the record comes before the greeting")
    };
    assert_eq!(signed.poll_output(), None, "the greeting waits");
    // A change while the record is on its way belongs to the next one, and does not overtake the first.
    signed.put(b"other", 1, b"value").unwrap();
    assert_eq!(signed.poll_output(), None);
    signed.handle(Duration::ZERO, SignedInput::Persisted(token)).unwrap();
    let mut outputs = Vec::new();
    while let Some(output) = signed.poll_output() {
        outputs.push(output);
    }
    assert!(
        outputs.iter().any(|output| matches!(output, SignedOutput::Persist { replaces: false, .. })),
        "{outputs:?}"
    );
    let options = SignedMapOptions::default();
    let keys = || ChainKeys::new(Key::of(1), Ring::of(1..=9));
    let restored =
        SignedMap::restore([&record[..]], ReplicaId::new(1), net::KEY, keys(), &options, 2).unwrap();
    assert_eq!(restored.get(b"key").unwrap().latest().unwrap().value, b"value");
    // The token of another map confirms nothing.
    let mut other = map(3);
    other.put(b"key", 1, b"value").unwrap();
    let Some(SignedOutput::Persist { token, .. }) = other.poll_output() else { panic!("a record is due") };
    assert_eq!(map(4).handle(Duration::ZERO, SignedInput::Persisted(token)), Err(SignedHandleError::Token));
    // Damaged and misplaced records are refused.
    let refused = |records: &[&[u8]]| {
        SignedMap::restore(records.iter().copied(), ReplicaId::new(1), net::KEY, keys(), &options, 2).err()
    };
    assert_eq!(refused(&[]), Some(OpenError::NoSnapshot));
    assert_eq!(refused(&[&[2, 0]]), Some(OpenError::NoSnapshot));
    assert!(matches!(refused(&[&record, &[]]), Some(OpenError::Decode { index: 1, .. })));
    assert!(matches!(refused(&[&record, &[9]]), Some(OpenError::Decode { index: 1, .. })));
    assert!(matches!(refused(&[&record, &[2, 7]]), Some(OpenError::Delta { index: 1, .. })));
    assert!(matches!(refused(&[&record[..record.len() - 1]]), Some(OpenError::Snapshot { index: 0, .. })));
}

#[test]
fn a_value_that_its_writer_has_not_signed_is_not_valid_and_a_forgery_is_dropped() {
    let (mut writer, mut reader) = (map(1), map(2));
    writer.put(b"door", 1, b"open").unwrap();
    writer.sign().unwrap();
    let delta = |from: &CausalMap, to: &SignedMap| from.delta(&to.map().version()).unwrap();
    reader.join(&delta(writer.map(), &reader)).unwrap();
    assert_eq!(reader.get(b"door").unwrap().latest().unwrap().value, b"open");
    // A carrier writes in the writer's name.
    let mut forger = CausalMap::restore(&writer.map().save(), ReplicaId::new(1), net::KEY).unwrap();
    forger.put(b"door", 2, b"shut").unwrap();
    let joined = reader.join(&delta(&forger, &reader)).unwrap();
    assert_eq!(joined.keys, [b"door"]);
    let entry = reader.get(b"door").unwrap();
    assert_eq!(entry.latest(), None);
    assert_eq!(
        entry.siblings().map(|(_, verification)| verification).collect::<Vec<_>>(),
        [Verification::Unsigned]
    );
    assert!(matches!(reader.poll_output(), Some(SignedOutput::Changed { keys }) if keys == [b"door"]));
}

#[test]
fn reserved_keys_unknown_peers_and_a_missing_own_key_are_errors() {
    let mut signed = map(1);
    let reserved = [CHAIN_PREFIX, b"x"].concat();
    assert_eq!(signed.put(&reserved, 1, b""), Err(SignedWriteError::ReservedKey));
    assert_eq!(signed.add(&reserved, 1, 1), Err(SignedWriteError::ReservedKey));
    assert_eq!(signed.remove(&reserved), Err(SignedWriteError::ReservedKey));
    assert!(signed.put(&[0; 5000], 1, b"").is_err());
    let input = SignedInput::Datagram { peer: 7, bytes: b"" };
    assert_eq!(signed.handle(Duration::ZERO, input), Err(SignedHandleError::UnknownPeer { peer: 7 }));
    signed.handle(Duration::ZERO, SignedInput::Connected { peer: 7 }).unwrap();
    let input = SignedInput::Datagram { peer: 7, bytes: b"" };
    assert!(matches!(signed.handle(Duration::ZERO, input), Err(SignedHandleError::Session { peer: 7, .. })));
    signed.handle(Duration::ZERO, SignedInput::Disconnected { peer: 7 }).unwrap();
    assert_eq!(signed.peers().count(), 0);
    assert!(signed.poll_output().is_none(), "the greeting to the peer is dropped with it");

    signed.add(b"count", 1, 3).unwrap();
    assert_eq!(signed.sign(), Ok(true));
    assert_eq!(signed.get(b"count").unwrap().sum(), 3);
    let record = loop {
        match signed.poll_output() {
            Some(SignedOutput::Persist { record, .. }) => break record,
            Some(_) => {}
            None => panic!("a record is due"),
        }
    };
    // The verifier of the next start does not know this replica's own key.
    let keys = ChainKeys::new(Key::of(1), Ring::of(2..=9));
    let options = SignedMapOptions::default().sign_after(Duration::ZERO);
    let mut restarted =
        SignedMap::restore([&record[..]], ReplicaId::new(1), net::KEY, keys, &options, 2).unwrap();
    restarted.put(b"more", 1, b"").unwrap();
    assert_eq!(restarted.sign(), Err(SignBatchError::UnknownSelf));
    restarted.handle(Duration::ZERO, SignedInput::Timeout).unwrap();
    let failed = |output: Option<SignedOutput>| {
        matches!(output, Some(SignedOutput::SigningFailed { error: SignBatchError::UnknownSelf }))
    };
    assert!(failed(restarted.poll_output()));
    assert!(restarted.get(b"more").is_some(), "the value stays");

    let mut reader = SignedMap::new(
        ReplicaId::new(3),
        net::KEY,
        ChainKeys::read_only(Ring::of([])),
        &SignedMapOptions::default(),
        1,
    );
    reader.join(&signed.map().delta(&Version::new()).unwrap()).unwrap();
    let verification = reader.get(b"count").unwrap().siblings().next().unwrap().1;
    assert_eq!(verification, Verification::UnknownWriter);
    reader.put(b"mine", 1, b"").unwrap();
    assert_eq!(reader.sign(), Err(SignBatchError::ReadOnly));
}
