//! Long deltas that are made and joined in steps: the result is that of one step, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use x0_crdt::internal::{Found, GatherStep, JoinSource, JoinStep, Transfer};
use x0_crdt::{
    CausalMap, DeltaError, Dot, Joined, ReplicaId, Session, SessionError, SessionOptions, Version,
};

use super::pump::{Seen, pump};
use super::random::Random;
use super::subject::{KEY, Subject};

/// How many items a session joins at once: few for most seeds, so that most deltas of a test are long.
pub(crate) fn items_max(seed: u64) -> usize {
    match seed % 4 {
        0 => SessionOptions::default().join_items_max,
        step => 2 * step as usize - 1,
    }
}

/// Keys long enough to be named, of which some are in both maps.
fn key(number: u64) -> Vec<u8> {
    format!("a key that is long enough to be named, {number:04}").into_bytes()
}

/// A random write or removal.
fn change(map: &mut CausalMap, keys: u64, random: &mut Random) {
    let key = key(random.below(keys));
    match random.below(4) {
        0 => drop(map.remove(&key)),
        1 => drop(map.put_own(&key, random.below(9), b"beside").unwrap()),
        _ => drop(map.put(&key, random.below(9), &random.next().to_le_bytes()).unwrap()),
    }
}

/// Three replicas with a common past, in which each then changes something.
fn maps(keys: u64, random: &mut Random) -> [CausalMap; 3] {
    let mut maps = [1, 2, 3].map(|id| CausalMap::new(ReplicaId::new(id), KEY));
    for at in [0, 1, 2, 0, 1, 2] {
        for _ in 0..keys / 2 {
            change(&mut maps[at], keys, random);
        }
        let from = maps[at].clone();
        for map in &mut maps {
            map.take_from(&from, false);
        }
    }
    if random.below(2) == 0 {
        // Names are found by a pass over the map.
        for map in &mut maps {
            map.collect_tombstones(&map.version());
        }
    }
    for map in &mut maps {
        for _ in 0..keys {
            change(map, keys, random);
        }
    }
    maps
}

/// Something that happens to a map while a delta is being made or joined.
fn meanwhile(map: &mut CausalMap, other: &CausalMap, random: &mut Random) {
    match random.below(60) {
        0..=7 => change(map, 90, random),
        8 => map.take_from(other, false),
        9 => map.collect_tombstones(&map.version()),
        10 => {
            // The driver replaces the map by one that it has saved.
            *map = CausalMap::restore_as(&map.save(), map.replica());
        }
        _ => {}
    }
}

/// What a join has done, without the order.
fn told(joined: &Joined) -> (usize, usize, Vec<Vec<u8>>) {
    assert!(joined.keys.is_sorted());
    (joined.conflicts, joined.contested_removals, joined.keys.clone())
}

#[test]
fn a_join_in_steps_does_what_a_join_at_once_does() {
    let (mut steps, mut restarted) = (0, 0);
    for seed in 0..super::seeds(500) {
        let mut random = Random::new(seed);
        let [from, mut map, other] = maps(20 + random.below(60), &mut random);
        let since = map.version();
        let mut bytes = from.encode_named_since(&since).unwrap();
        let (quiet, items_max) = (random.below(3) == 0, 1 + random.below(9) as usize);
        let mut step = map.begin_join(&bytes, &since, JoinSource::History, items_max);
        let (mut alone, mut count) = (map.clone(), 0);
        let (context, joined) = loop {
            match step {
                // A value was replaced on both sides, and its history forgotten: whole keys are requested
                // then.
                Err(SessionError::Delta(DeltaError::Reference)) => {
                    bytes = from.encode_since(&since).unwrap();
                    step = map.begin_join(&bytes, &since, JoinSource::History, items_max);
                }
                Err(error) => panic!("seed {seed}: {error}"),
                Ok(JoinStep::Unfit) => panic!("seed {seed}: no reconciliation"),
                Ok(JoinStep::Done(context, joined)) => break (context, joined),
                Ok(JoinStep::More(joining)) => {
                    assert_eq!(map.frontier(), alone.frontier(), "seed {seed}: nothing is visible");
                    assert!(map.state_bytes() == alone.state_bytes(), "seed {seed}");
                    if !quiet {
                        meanwhile(&mut map, &other, &mut random);
                        alone = map.clone();
                    }
                    count += 1;
                    step = map.step_join(joining);
                }
            }
        };
        // The value of a name may have been replaced after its key was found.
        let whole = from.encode_since(&since).unwrap();
        let at_once = alone.join_encoded(&bytes, &since, |_| Vec::new());
        let at_once = at_once.or_else(|_| alone.join_encoded(&whole, &since, |_| Vec::new()));
        let (expected_context, expected) = at_once.unwrap();
        assert_eq!(context, expected_context);
        assert!(told(&joined) == told(&expected), "seed {seed}: {joined:?} for {expected:?}");
        assert_eq!((joined.news, joined.redundant), (expected.news, expected.redundant), "seed {seed}");
        // With the changes laid over the map, while they are merged into it, and afterwards.
        loop {
            assert_eq!(map.frontier(), alone.frontier(), "seed {seed}");
            assert!(map.save() == alone.save(), "seed {seed}: also the history is equal");
            assert_eq!(map.len(), alone.len());
            assert_eq!(
                (map.history_len(), map.removal_count()),
                (alone.history_len(), alone.removal_count())
            );
            if !map.has_reports() {
                break;
            }
            if !quiet && random.below(8) == 0 {
                let key = key(random.below(90));
                for map in [&mut map, &mut alone] {
                    match seed % 3 {
                        0 => drop(map.remove(&key)),
                        1 => map.collect_tombstones(&map.version()),
                        _ => drop(map.put(&key, 1, b"written").unwrap()),
                    }
                }
            }
            map.step_stage();
        }
        steps += count;
        restarted += usize::from(count > 400);
    }
    println!("{steps} steps, {restarted} long ones");
    assert!(steps > 5_000, "{steps}");
}

/// The values that a peer does not hold, as a reconciliation finds them: those of these hashes, and those of
/// later events.
fn absent(map: &CausalMap, local_only: &BTreeSet<u64>, since: &Version) -> Vec<(Vec<u8>, Dot)> {
    let mut absent = Vec::new();
    map.visit(&mut None, usize::MAX, |key, dot, hash| {
        if local_only.contains(&hash()) || !since.contains(dot) {
            absent.push((key.to_vec(), dot));
        }
    });
    absent
}

#[test]
fn a_reconciliation_in_steps_does_what_one_at_once_does() {
    let (mut steps, mut unfit, mut done, mut lost) = (0, 0, 0, 0);
    for seed in 0..super::seeds(500) {
        let mut random = Random::new(seed);
        let [mut from, mut map, other] = maps(20 + random.below(60), &mut random);
        for map in [&mut from, &mut map] {
            map.collect_tombstones(&map.version());
        }
        let (since, sketched) = (map.version(), from.version());
        let common = |map: &CausalMap| -> BTreeSet<u64> {
            let is_common = |dot| since.contains(dot) && sketched.contains(dot);
            map.item_hashes().filter(|(_, dot)| is_common(*dot)).map(|(hash, _)| hash).collect()
        };
        let (theirs, mine) = (common(&from), map.item_hashes().map(|(hash, _)| hash).collect());
        let missing: Vec<u64> = theirs.difference(&mine).copied().collect();
        let local_only: BTreeSet<u64> = mine.difference(&theirs).copied().collect();
        // Writes of the sender during its pass are in its history.
        let (mut at, mut found) = (None, Found { begin: from.version(), keys: Vec::new() });
        loop {
            let is_more = from.visit(&mut at, 1 + random.below(9) as usize, |key, dot, hash| {
                if !since.contains(dot) || missing.contains(&hash()) {
                    found.keys.push(key.to_vec());
                }
            });
            if !is_more {
                break;
            }
            change(&mut from, 90, &mut random);
        }
        let whole = random.below(2) == 0;
        let bytes = from.encode_chosen(&since, &sketched, &missing, whole, &found).unwrap();
        let is_lost = |error: &SessionError| *error == SessionError::Delta(DeltaError::Reference) && !whole;
        let (quiet, items_max) = (random.below(3) == 0, 1 + random.below(9) as usize);
        let source = JoinSource::Chosen(absent(&map, &local_only, &since));
        let mut alone = map.clone();
        let mut step = map.begin_join(&bytes, &since, source, items_max);
        loop {
            match step {
                Ok(JoinStep::Unfit) => unfit += 1,
                // A named value is not known here any more.
                Err(error) if is_lost(&error) => lost += 1,
                Err(error) => panic!("seed {seed}: {error}"),
                Ok(JoinStep::Done(context, _)) => {
                    let absent = absent(&alone, &local_only, &since);
                    let expected = alone.join_encoded(&bytes, &since, |_| absent);
                    // The value is found in steps, because a reconciliation has met it before it was
                    // replaced.
                    if expected.as_ref().is_err_and(is_lost) {
                        lost += 1;
                        break;
                    }
                    assert_eq!(context, expected.unwrap().0);
                    assert_eq!(map.frontier(), alone.frontier(), "seed {seed}");
                    assert!(map.encode_state() == alone.encode_state(), "seed {seed}");
                    assert!(map.save() == alone.save(), "seed {seed}: also the history is equal");
                    done += 1;
                }
                Ok(JoinStep::More(joining)) => {
                    assert_eq!(map.frontier(), alone.frontier(), "seed {seed}: nothing is visible");
                    if !quiet {
                        meanwhile(&mut map, &other, &mut random);
                        alone = map.clone();
                    }
                    steps += 1;
                    step = map.step_join(joining);
                    continue;
                }
            }
            break;
        }
    }
    println!("{steps} steps, {done} joined, {unfit} out of date, {lost} with names that are lost");
    assert!(steps > 5_000 && done > unfit * 4 && done > lost * 4, "{steps} {done} {unfit} {lost}");
}

#[test]
fn a_delta_made_in_steps_is_that_of_the_last_moment() {
    let mut steps = 0;
    for seed in 0..super::seeds(500) {
        let mut random = Random::new(seed);
        let [mut from, map, other] = maps(20 + random.below(60), &mut random);
        let (since, whole, quiet) = (map.version(), random.below(2) == 0, random.below(3) == 0);
        let mut step = from.begin_gather(&since, whole, 1 + random.below(9) as usize);
        let made = loop {
            match step {
                Ok(GatherStep::Done(bytes)) => break Some(bytes),
                Ok(GatherStep::Long) => panic!("seed {seed}: it is short"),
                // History was collected meanwhile.
                Err(_) => break None,
                Ok(GatherStep::More(gathering)) => {
                    if !quiet {
                        meanwhile(&mut from, &other, &mut random);
                    }
                    steps += 1;
                    step = from.step_gather(gathering);
                }
            }
        };
        let expected = if whole { from.encode_since(&since) } else { from.encode_named_since(&since) };
        assert_eq!(made, expected.ok(), "seed {seed}");
    }
    assert!(steps > 5_000, "{steps}");
}

/// Values of more bytes than a delta may have: the work ends, and the state goes by ranges.
#[test]
fn a_delta_that_grows_too_long_is_given_up() {
    let mut map = CausalMap::new(ReplicaId::new(1), KEY);
    for number in 0..100 {
        map.put(&key(number), 0, &vec![7; 60_000]).unwrap();
    }
    let mut step = map.begin_gather(&Version::new(), false, 10).unwrap();
    let mut steps = 0;
    while let GatherStep::More(gathering) = step {
        steps += 1;
        step = map.step_gather(gathering).unwrap();
    }
    assert!(matches!(step, GatherStep::Long));
    assert!((3..100).contains(&steps), "{steps}");
}

/// A replica with the ID of another one: the error comes with a step, in which no datagram was at fault.
#[test]
fn a_delta_refused_in_a_later_step_is_reported() {
    let mut maps = [1, 2].map(|id| CausalMap::new(ReplicaId::new(id), KEY));
    for number in 0..50 {
        maps[0].put(&key(number), 0, b"value").unwrap();
    }
    // Writes of the second replica that it does not know of.
    let mut twin = CausalMap::new(ReplicaId::new(2), KEY);
    twin.put(&key(99), 0, b"of the twin").unwrap();
    maps[0].take_from(&twin, false);
    let options = SessionOptions::default().join_items_max(4);
    let mut sessions = [1, 2].map(|seed| Session::<CausalMap>::new(&options, seed));
    let (mut now, mut errors) = (Duration::ZERO, Vec::new());
    while errors.is_empty() {
        assert!(now < Duration::from_secs(60));
        for side in 0..2 {
            pump(now, side, &mut maps, &mut sessions, |_, _, seen| match seen {
                Seen::Error(error) => {
                    errors.push(error);
                    None
                }
                seen => seen.datagram(),
            });
        }
        now += Duration::from_millis(1);
    }
    let expected = "a delta of the peer does not fit this replica; the state is as it was";
    assert_eq!(errors[0].to_string(), expected);
    assert!(maps[1].is_empty());
}
