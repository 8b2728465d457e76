//! One event with two contents: a process that was restored from an old copy wrote on under its old ID.

use std::collections::BTreeSet;
use std::time::Duration;

use x0_crdt::{CausalMap, CausalReplica, Dot, JoinError, ReplicaId, SessionError, SessionOptions};

use super::net::{Link, Net};
use super::random::Random;
use super::subject::{Composed, Subject};

#[test]
fn one_event_with_two_contents_keeps_one_of_them_on_all_replicas() {
    fork::<CausalMap>();
    fork::<CausalReplica<Composed>>();
}

fn fork<R: Subject>() {
    let mut unequal = 0;
    for seed in 0..super::seeds(300) {
        let mut random = Random::new(seed ^ 0xc1a5);
        let link = Link { loss: random.below(30), doubled: random.below(10), ..Link::default() };
        let replicas = 2 + random.below(3) as usize;
        let options = SessionOptions::default().join_items_max(super::steps::items_max(seed));
        let mut net = Net::<R>::new(replicas, seed, &options, link);
        net.expect_equivocation();

        // Both processes go on from one copy, which all know.
        let mut first = R::create(ReplicaId::new(9));
        for number in 0..random.below(30) {
            first.put_value(format!("common-{number}").as_bytes(), 0, b"common");
        }
        for at in 0..replicas {
            net.map_mut(at).take_from(&first, false);
        }
        let mut twins = [first.clone(), first];
        for (side, twin) in twins.iter_mut().enumerate() {
            for number in 0..1 + random.below(5) {
                if random.below(4) == 0 {
                    twin.remove_key(format!("common-{}", random.below(30)).as_bytes());
                } else {
                    // The first events at one key or at two, the later ones at keys of their own.
                    let side = if number > 0 || random.below(2) == 0 { side } else { 2 };
                    let key = format!("key-{side}-{number}").into_bytes();
                    twin.put_value(&key, random.below(3), &random.next().to_le_bytes());
                }
            }
        }
        let collects = random.below(4) == 0;
        for (at, twin) in twins.iter().enumerate() {
            net.map_mut(at).take_from(twin, random.below(2) == 0);
            if collects && random.below(2) == 0 {
                let version = net.map(at).version();
                net.map_mut(at).collect_tombstones(&version);
            }
            net.changed(at);
        }
        for number in 0..random.below(10) {
            let at = random.below(replicas as u64) as usize;
            net.map_mut(at).put_value(format!("other-{number}").as_bytes(), 0, b"other");
            net.changed(at);
            net.run(Duration::from_millis(random.below(20)));
        }
        net.run_until_in_sync(Duration::from_secs(600));
        net.run(Duration::from_secs(30));
        let state = net.map(0).state_bytes();
        for at in 1..replicas {
            assert_eq!(net.map(at).state_bytes(), state, "seed {seed}: replica {at} differs");
        }

        let [a, b] = twins.each_ref().map(Subject::contents);
        let kept = net.map(0).contents();
        let both: BTreeSet<&Dot> =
            a.keys().filter(|dot| b.get(dot).is_some_and(|other| *other != a[dot])).collect();
        for dot in both {
            unequal += 1;
            let content = kept.get(dot).unwrap_or_else(|| panic!("seed {seed}: {dot} is lost"));
            assert!(*content == a[dot] || *content == b[dot], "seed {seed}: {dot}");
            assert!(net.equivocating.contains(dot), "seed {seed}: {dot} is not reported");
        }
    }
    assert!(unequal > 100, "{unequal}");
}

#[test]
fn a_value_wins_over_a_removal_of_the_same_event() {
    value_and_removal::<CausalMap>();
    value_and_removal::<CausalReplica<Composed>>();
}

fn value_and_removal<R: Subject>() {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut copy = R::create(ReplicaId::new(9));
        copy.put_value(b"common", 0, b"common");
        let mut twins = [copy.clone(), copy.clone()];
        twins[0].put_value(b"key", 0, b"value");
        assert!(twins[1].remove_key(b"common"));
        let mut readers = [1, 2].map(|node| R::create(ReplicaId::new(node)));
        readers[0].take_from(&twins[first], false);
        readers[1].take_from(&twins[second], false);
        let [a, b] = &mut readers;
        let mut found = BTreeSet::new();
        // As long as they differ, each sends all that it holds.
        for _ in 0..3 {
            found.extend(a.try_take_from(b, true).unwrap());
            found.extend(b.try_take_from(a, true).unwrap());
        }
        assert_eq!(a.state_bytes(), b.state_bytes());
        assert_eq!(a.values(b"key"), [b"value"]);
        assert!(!found.is_empty(), "it is reported");
    }
}

#[test]
fn a_replica_whose_own_events_have_other_contents_elsewhere_is_reported_as_impostor() {
    impostor::<CausalMap>();
    impostor::<CausalReplica<Composed>>();
}

fn impostor<R: Subject>() {
    let id = ReplicaId::new(1);
    let mut writer = R::create(id);
    writer.put_value(b"k0", 0, b"v0");
    let copy = writer.saved();
    writer.put_value(b"k1", 0, b"v1");
    let mut other = R::create(ReplicaId::new(2));
    other.take_from(&writer, false);
    // Restored from the copy under its old ID, it has soon written as many events as the others know.
    let mut restored = R::restore_as(&copy, id);
    restored.put_value(b"k2", 0, b"v2");
    let before = restored.state_bytes();
    for all in [false, true] {
        if let Err(error) = restored.try_take_from(&other, all) {
            let SessionError::Join(JoinError::Impostor { dot, .. }) = error else { panic!("{error}") };
            assert_eq!(dot.replica, id);
            assert!(all, "a delta from history lists no event that both have seen");
        }
    }
    assert!(matches!(
        restored.try_take_from(&other, true),
        Err(SessionError::Join(JoinError::Impostor { .. }))
    ));
    assert_eq!(restored.state_bytes(), before, "nothing was joined");
    // As a fresh incarnation it joins, and all hold the same.
    let mut fresh = R::restore_as(&restored.saved(), ReplicaId::with_incarnation(1, 1));
    for _ in 0..3 {
        fresh.take_from(&other, true);
        other.take_from(&fresh, true);
    }
    assert_eq!(fresh.state_bytes(), other.state_bytes());
    assert_eq!(fresh.values(b"k1").len() + fresh.values(b"k2").len(), 1, "one content of the event is kept");
}

/// The content of a frontier is the sum over what is held, after every change.
#[test]
fn the_frontier_changes_with_every_content() {
    for seed in 0..super::seeds(100) {
        let mut random = Random::new(seed);
        let mut map = CausalMap::create(ReplicaId::new(1));
        let mut seen = BTreeSet::from([map.frontier()]);
        for _ in 0..40 {
            let key = format!("key-{}", random.below(8)).into_bytes();
            let changed = if random.below(3) == 0 {
                map.remove_key(&key)
            } else {
                map.put_value(&key, random.below(3), &random.next().to_le_bytes());
                true
            };
            let sum = map.item_hashes().fold(0_u64, |sum, (hash, _)| sum.wrapping_add(hash));
            assert_eq!(map.frontier().content, sum, "seed {seed}");
            assert_eq!(seen.insert(map.frontier()), changed, "seed {seed}");
        }
    }
}
