//! Keys by reference: the bytes of an overwrite or a removal do not grow with the key.

use std::collections::VecDeque;
use std::time::Duration;

use x0_crdt::internal::{JoinSource, JoinStep, Transfer};
use x0_crdt::{
    CausalMap, DeltaError, ReplicaId, Session, SessionError, SessionInput, SessionOptions, SessionOutput,
};

use super::net::{Link, Net};
use super::random::Random;
use super::subject::{KEY, Subject};

/// Random keys of `len` bytes.
fn keys(count: u32, len: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let key = |_| (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(len).collect();
    (0..count).map(key).collect()
}

fn value(random: &mut Random) -> [u8; 4] {
    (random.next() as u32).to_le_bytes()
}

/// Two replicas of `count` random keys, in sync, of which no history is left.
fn couple(keys: &[Vec<u8>], random: &mut Random) -> Net<CausalMap> {
    let mut net = Net::<CausalMap>::new(2, 1, &SessionOptions::default(), Link::default());
    for key in keys {
        net.map_mut(0).put(key, 1_760_000_000_000, &value(random)).unwrap();
    }
    net.fast_forward();
    for at in 0..2 {
        let version = net.map(at).version();
        net.map_mut(at).collect_tombstones(&version);
    }
    net.run(Duration::from_secs(10));
    net
}

/// Some keys, in random order.
fn some(keys: &[Vec<u8>], count: usize, random: &mut Random) -> Vec<Vec<u8>> {
    let mut keys = keys.to_vec();
    for at in 0..count {
        let other = at + random.below((keys.len() - at) as u64) as usize;
        keys.swap(at, other);
    }
    keys.truncate(count);
    keys
}

/// Bytes in both directions until both know that they hold the same, for each change; and those of the delta.
fn sync(net: &mut Net<CausalMap>, changes: usize) -> (f64, f64) {
    let delta = net.map(0).encode_named_since(&net.map(1).version()).map_or(0, |delta| delta.len());
    let before = net.bytes();
    net.changed(0);
    net.run_until_in_sync(Duration::from_secs(600));
    net.check(1);
    ((net.bytes() - before) as f64 / changes as f64, delta as f64 / changes as f64)
}

fn sizes() -> (u32, [usize; 2]) {
    if cfg!(debug_assertions) { (20_000, [200, 100]) } else { (100_000, [1_000, 100]) }
}

#[test]
fn overwrites_and_removals_do_not_grow_with_the_key() {
    let (count, changes) = sizes();
    for len in [8, 16, 32, 64] {
        for changes in changes {
            let mut random = Random::new(len as u64);
            let keys = keys(count, len, &mut random);
            let mut net = couple(&keys, &mut random);
            for key in some(&keys, changes, &mut random) {
                net.map_mut(0).put(&key, 1_770_000_000_000, &value(&mut random)).unwrap();
            }
            let (overwrite, overwrite_delta) = sync(&mut net, changes);
            net.run(Duration::from_secs(10));
            for key in some(&keys, changes, &mut random) {
                net.map_mut(0).remove(&key).unwrap();
            }
            let (removal, removal_delta) = sync(&mut net, changes);
            println!(
                "{count} keys of {len} B, {changes} changed: {overwrite:.2} B per overwrite ({overwrite_delta:.2} in the \
                 delta), {removal:.2} B per removal ({removal_delta:.2})"
            );
            assert!(overwrite <= 9.0, "{overwrite}");
            assert!(removal <= 3.0, "{removal}");
        }
    }
}

#[test]
fn overwrites_of_twenty_writers_take_a_little_more() {
    let (count, [changes, _]) = sizes();
    let mut random = Random::new(7);
    let keys = keys(count, 16, &mut random);
    let mut net = couple(&keys, &mut random);
    let saved = net.map(0).save();
    let changed = some(&keys, changes, &mut random);
    for (writer, keys) in (100_u64..).zip(changed.chunks(changes / 20)) {
        let mut map = CausalMap::restore(&saved, ReplicaId::new(writer), KEY).unwrap();
        for key in keys {
            map.put(key, 1_770_000_000_000, &value(&mut random)).unwrap();
        }
        net.map_mut(0).take_from(&map, false);
    }
    let (bytes, delta) = sync(&mut net, changes);
    println!("20 writers: {bytes:.2} B per overwrite ({delta:.2} in the delta)");
    assert!(bytes <= if changes < 1_000 { 16.0 } else { 12.0 }, "{bytes}");
    // And once more over values of twenty writers.
    net.run(Duration::from_secs(10));
    for key in some(&keys, changes, &mut random) {
        net.map_mut(0).put(&key, 1_780_000_000_000, &value(&mut random)).unwrap();
    }
    let (bytes, delta) = sync(&mut net, changes);
    println!("over them: {bytes:.2} B per overwrite ({delta:.2} in the delta)");
    assert!(bytes <= 12.0, "{bytes}");
}

#[test]
fn one_overwrite_of_a_long_key_is_pushed_in_as_many_bytes_as_one_of_a_short_key() {
    let mut random = Random::new(7);
    let mut sent = Vec::new();
    for len in [8, 1_000] {
        let keys = keys(50, len, &mut random);
        let mut net = couple(&keys, &mut random);
        net.run(Duration::from_secs(3));
        net.map_mut(0).put(&keys[3], 1, &value(&mut random)).unwrap();
        sent.push(sync(&mut net, 1).0);
    }
    println!("one overwrite: {sent:?} B with its answer");
    assert!(sent.iter().all(|bytes| *bytes <= 80.0), "{sent:?}");
}

/// Both sides have replaced the named values, with and without history of it.
#[test]
fn values_that_both_sides_have_replaced_are_found_or_sent_again() {
    for forgets in [false, true] {
        let mut random = Random::new(9);
        let keys = keys(3_000, 24, &mut random);
        let mut net = couple(&keys, &mut random);
        net.set_cut(true);
        for key in &keys[..200] {
            net.map_mut(0).put(key, 2, &value(&mut random)).unwrap();
        }
        for (number, key) in keys[100..300].iter().enumerate() {
            if number % 4 == 0 {
                net.map_mut(1).remove(key).unwrap();
            } else {
                net.map_mut(1).put(key, 2, &value(&mut random)).unwrap();
            }
        }
        if forgets {
            // The trail is not saved.
            for at in 0..2 {
                let saved = net.map(at).save();
                net.boot_as(at, &saved, ReplicaId::new(at as u64 + 1), 50);
            }
        }
        net.set_cut(false);
        net.changed(0);
        net.changed(1);
        net.run_until_in_sync(Duration::from_secs(60));
        net.check(1);
        let siblings = net.map(0).range(b"").filter(|entry| entry.siblings().count() == 2).count();
        assert_eq!(siblings, 75, "{forgets}: no write was lost");
    }
}

const FIRST: &[u8] = b"the first of two keys that are longer than what names them in a short delta";
const OTHER: &[u8] = b"the other of two keys that are longer than what names them in a short delta";

/// A writer that has used one dot for two keys: a name must not bring a later value to the wrong one.
#[test]
fn a_name_that_stands_for_two_keys_is_refused() {
    let mut twins = [1, 1].map(|id| CausalMap::create(ReplicaId::new(id)));
    for (twin, key) in twins.iter_mut().zip([FIRST, OTHER]) {
        twin.put(key, 1, b"value").unwrap();
    }
    let [first, mut second] = twins;
    let mut writer = CausalMap::create(ReplicaId::new(2));
    writer.take_from(&first, false);
    let seen = second.version();
    writer.put(FIRST, 2, b"newer").unwrap();
    let bytes = writer.encode_named_since(&seen).unwrap();
    assert!(bytes.len() < writer.encode_since(&seen).unwrap().len(), "it is named");
    let before = second.state_bytes();
    let result = second.join_encoded(&bytes, &seen, |_| Vec::new());
    assert_eq!(result.unwrap_err(), SessionError::Delta(DeltaError::Reference));
    assert_eq!(second.state_bytes(), before);
    // With whole keys it is joined.
    second.join_encoded(&writer.encode_since(&seen).unwrap(), &seen, |_| Vec::new()).unwrap();
    assert!(second.holds(FIRST));
}

/// With forgotten history: each overwritten entry, end to end.
#[test]
fn overwrites_without_history_cost_what_differs() {
    let count = sizes().0;
    for len in [16, 64] {
        for changes in [10, 100, 1_000] {
            let mut random = Random::new(changes as u64);
            let keys = keys(count, len, &mut random);
            let mut net = couple(&keys, &mut random);
            for key in some(&keys, changes, &mut random) {
                net.map_mut(0).put(&key, 1_770_000_000_000, &value(&mut random)).unwrap();
            }
            let version = net.map(0).version();
            net.map_mut(0).collect_tombstones(&version);
            let (bytes, _) = sync(&mut net, changes);
            assert!(net.session(1).stats().reconciliations > 0, "history does not reach back");
            println!("{count} keys of {len} B, {changes} overwritten without history: {bytes:.2} B each");
            assert!(changes < 100 || bytes <= 25.0, "{bytes}");
        }
    }
}

/// With forgotten history on both sides, each of which has overwritten, removed and added: each entry that
/// differs, end to end, whatever the length of its key.
#[test]
fn changes_of_both_sides_without_history_cost_what_differs() {
    let count = sizes().0;
    for len in [16, 64] {
        for changes in [100, 1_000] {
            let mut random = Random::new(changes as u64);
            let keys = keys(count, len, &mut random);
            let mut net = couple(&keys, &mut random);
            net.set_cut(true);
            let changed = some(&keys, changes, &mut random);
            for (number, key) in changed.iter().enumerate() {
                let map = net.map_mut(number % 2);
                match number / 2 % 4 {
                    0 => drop(map.remove(key).unwrap()),
                    _ => drop(map.put(key, 1_770_000_000_000, &value(&mut random)).unwrap()),
                }
            }
            for at in 0..2 {
                let version = net.map(at).version();
                net.map_mut(at).collect_tombstones(&version);
            }
            net.set_cut(false);
            net.changed(1);
            let (bytes, _) = sync(&mut net, changes);
            println!(
                "{count} keys of {len} B, {changes} changed by both sides without history: {bytes:.2} B each"
            );
            let reconciliations = [0, 1].map(|at| net.session(at).stats().reconciliations);
            assert!(reconciliations.iter().sum::<u64>() > 0, "history does not reach back");
            // Both sides compare their states, and each value that one of them has replaced counts for both.
            assert!(bytes <= 60.0, "{bytes}");
        }
    }
}

/// The values of one side that the other has not announced are not compared. The other one gets them in
/// another way before it answers, and its answer must not take them from the first.
#[test]
fn values_that_a_peer_gets_during_a_reconciliation_stay() {
    for forgets in [false, true] {
        let mut random = Random::new(4);
        let keys = keys(400, 16, &mut random);
        let mut maps = [1, 2].map(|id| CausalMap::create(ReplicaId::new(id)));
        for key in &keys {
            maps[0].put(key, 1, &value(&mut random)).unwrap();
        }
        let [first, second] = &mut maps;
        second.take_from(first, true);
        for (number, key) in keys.iter().take(120).enumerate() {
            maps[number % 2].put(key, 2, &value(&mut random)).unwrap();
        }
        for map in &mut maps {
            map.collect_tombstones(&map.version());
        }
        let mut sessions = [1, 2].map(|seed| Session::<CausalMap>::new(&SessionOptions::default(), seed));
        let (mut now, mut has_met) = (Duration::ZERO, false);
        while maps[0].frontier() != maps[1].frontier() {
            assert!(now < Duration::from_secs(60));
            for side in [1, 0] {
                let mut waiting = VecDeque::from([(side, None::<Vec<u8>>)]);
                while let Some((to, datagram)) = waiting.pop_front() {
                    // The first request for coded symbols.
                    if to == 1 && !has_met && datagram.as_ref().is_some_and(|bytes| bytes[0] == 0x17) {
                        has_met = true;
                        let [first, second] = &mut maps;
                        second.take_from(first, true);
                        if forgets {
                            first.put(b"later", 3, b"value").unwrap();
                            first.collect_tombstones(&first.version());
                        }
                    }
                    let input = datagram.as_deref().map_or(SessionInput::Timeout, SessionInput::Datagram);
                    sessions[to].handle(now, input, &mut maps[to]).unwrap();
                    while let Some(output) = sessions[to].poll_output() {
                        if let SessionOutput::Send(datagram) = output {
                            waiting.push_back((1 - to, Some(datagram)));
                        }
                    }
                }
            }
            now += Duration::from_millis(5);
        }
        assert!(has_met, "the states are compared");
        assert!(keys.iter().all(|key| maps[0].holds(key) && maps[1].holds(key)), "{forgets}");
        assert_eq!(maps[0].holds(b"later"), forgets);
    }
}

/// A single overwrite of a value whose history was collected is sent with its key, because a receiver would
/// have to look for the name in its whole map. A few names are worth that.
#[test]
fn names_do_not_cost_a_pass_over_a_large_map() {
    let mut random = Random::new(5);
    let keys = keys(3_000, 24, &mut random);
    let mut net = couple(&keys, &mut random);
    let seen = net.map(1).version();
    let is_named = |net: &Net<CausalMap>| {
        let map = net.map(0);
        map.encode_named_since(&seen).unwrap().len() < map.encode_since(&seen).unwrap().len()
    };
    for (number, key) in keys.iter().take(3).enumerate() {
        net.map_mut(0).put(key, 2, &value(&mut random)).unwrap();
        assert_eq!(is_named(&net), number == 2, "{number}");
    }
    // A value with history is found at once.
    let mut net = couple(&keys, &mut random);
    net.map_mut(0).put(&keys[7], 2, &value(&mut random)).unwrap();
    net.changed(0);
    net.run_until_in_sync(Duration::from_secs(60));
    let seen = net.map(1).version();
    net.map_mut(0).put(&keys[7], 3, &value(&mut random)).unwrap();
    let map = net.map(0);
    assert!(map.encode_named_since(&seen).unwrap().len() < map.encode_since(&seen).unwrap().len());
}

/// Damaged names are refused, or are others; nothing panics.
#[test]
fn damaged_names_are_refused_or_others() {
    let mut random = Random::new(3);
    for changes in [3, 60] {
        let keys = keys(300, 20, &mut random);
        let mut net = couple(&keys, &mut random);
        for key in &keys[..changes] {
            net.map_mut(0).put(key, 2, &value(&mut random)).unwrap();
        }
        net.map_mut(0).remove(&keys[changes]).unwrap();
        net.map_mut(0).put(b"a new key", 2, b"value").unwrap();
        let seen = net.map(1).version();
        let bytes = net.map(0).encode_named_since(&seen).unwrap();
        assert_eq!(bytes[0], if changes < 16 { 5 } else { 4 });
        let mut map = net.map(1).clone();
        for _ in 0..super::seeds(20_000) {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(damaged.len() as u64) as usize;
                match random.below(4) {
                    0 => damaged.truncate(at + 1),
                    1 => damaged[at] ^= 1 << random.below(8),
                    2 => damaged[at] = random.next() as u8,
                    _ => damaged.insert(at, random.next() as u8),
                }
            }
            let result = map.join_encoded(&damaged, &seen, |_| Vec::new()).map(Some);
            let news = [&net.map(0).frontier().content.to_le_bytes()[..], &damaged].concat();
            let is_refused = result.is_err()
                && matches!(
                    map.begin_join(&news, &seen, JoinSource::News, usize::MAX),
                    Err(_) | Ok(JoinStep::Unfit)
                );
            if is_refused {
                assert_eq!(map.frontier(), net.map(1).frontier());
            } else {
                map = net.map(1).clone();
            }
        }
    }
}
