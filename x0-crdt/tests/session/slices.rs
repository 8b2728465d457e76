//! Transfers of composed types by slices, each with the values of a range of events.

use std::time::Duration;

use x0_crdt::internal::{StageBegin, StageStep, StageTaken, Transfer};
use x0_crdt::{CausalReplica, ReplicaId, SessionOptions, Version};

use super::net::{Link, Net};
use super::random::Random;
use super::subject::{Composed, Subject};

type State = CausalReplica<Composed>;

const PATIENCE: Duration = Duration::from_secs(20);

fn key_of(random: &mut Random) -> Vec<u8> {
    format!("key-{:02}", random.below(40)).into_bytes()
}

/// A write, a removal, a join with another state or a collection of history.
fn change(states: &mut [State], at: usize, random: &mut Random) {
    match random.below(8) {
        0..=3 => states[at].put_value(&key_of(random), random.below(9), &random.next().to_le_bytes()),
        4 | 5 => drop(states[at].remove_key(&key_of(random))),
        6 => {
            let from = states[random.below(states.len() as u64) as usize].clone();
            states[at].take_from(&from, false);
        }
        _ => {
            // All that it has seen, or a part of it.
            let version: Version = if random.below(2) == 0 {
                states[at].version()
            } else {
                states[at].version().iter().map(|(writer, last)| (writer, random.below(last + 1))).collect()
            };
            states[at].collect_tombstones(&version);
        }
    }
}

fn begin(state: &mut State, renew: bool) -> u64 {
    match state.begin_stage(Duration::ZERO, None, Duration::ZERO, renew) {
        StageBegin::Ready(claim) => claim,
        // The stage was dropped, because the receiver has seen all that it held.
        StageBegin::None => begin(state, true),
        StageBegin::Busy => panic!("no other session fetches"),
    }
}

/// Slices of a peer that changes between them, for a receiver that changes as well and restarts.
#[test]
fn slices_bring_what_one_delta_brings_at_the_moment_of_the_last_one() {
    let (mut slices, mut passes, mut switched, mut complete, mut compared) = (0, 0, 0, 0, 0);
    for seed in 0..super::seeds(600) {
        let mut random = Random::new(seed);
        let mut states = [1, 2, 3].map(|node| State::create(ReplicaId::new(node)));
        for _ in 0..60 {
            let at = random.below(3) as usize;
            change(&mut states, at, &mut random);
        }
        let mut claim = begin(&mut states[1], true);
        let floor = states[0].floor().clone();
        let mut changes = random.below(60);
        let (mut last, mut is_history) = (None, true);
        loop {
            let Some((since, from)) = states[1].stage_needs() else {
                // Others have brought all that the stage held.
                claim = begin(&mut states[1], true);
                continue;
            };
            let reaches_back = states[0].floor().is_within(&since);
            passes += u32::from(from.is_empty());
            complete += u32::from(!reaches_back);
            is_history &= reaches_back;
            switched += u32::from(!from.is_empty() && last.is_some_and(|last| last != reaches_back));
            last = Some(reaches_back);
            let slice = states[0].encode_range(&since, &from, 150 + random.below(500) as usize).unwrap();
            slices += 1;
            let taken = states[1].take_range(Duration::ZERO, Some(claim), &slice).unwrap();
            if taken == StageTaken::Foreign {
                // The stage was dropped, because the receiver has seen all that it held.
                claim = begin(&mut states[1], true);
                continue;
            }
            if random.below(4) == 0 {
                states[1] = State::restore_as(&states[1].saved(), states[1].replica());
                claim = begin(&mut states[1], false);
            }
            let mut expected = states[1].clone();
            if let StageStep::Done(version, _) = states[1].step_stage() {
                assert_eq!(version, states[0].version(), "seed {seed}");
                // The stage holds more history than a peer that has collected some meanwhile.
                if is_history && *states[0].floor() == floor {
                    let mut by_history = expected.clone();
                    by_history.take_from(&states[0], false);
                    assert!(
                        states[1].saved() == by_history.saved(),
                        "seed {seed}: also the history is equal"
                    );
                    compared += 1;
                }
                expected.take_from(&states[0], true);
                assert_eq!(states[1].frontier(), expected.frontier(), "seed {seed}");
                assert_eq!(states[1].state_bytes(), expected.state_bytes(), "seed {seed}");
                break;
            }
            while changes > 0 && random.below(3) > 0 {
                changes -= 1;
                let at = random.below(3) as usize;
                change(&mut states, at, &mut random);
            }
        }
        assert!(states[1].stage_needs().is_none());
        // What came by slices is history for others.
        for (to, from) in [(2, 1), (0, 2), (1, 0), (2, 0)] {
            let from = states[from].clone();
            states[to].take_from(&from, false);
        }
        for state in &states {
            assert_eq!(state.state_bytes(), states[0].state_bytes(), "seed {seed}");
            assert_eq!(state.frontier(), states[0].frontier(), "seed {seed}");
        }
    }
    println!(
        "{slices} slices in {passes} passes, {complete} complete, {switched} times another extent, {compared} from history"
    );
    assert!(switched > 0 && complete > 0 && compared > 20, "{switched} {complete} {compared}");
}

/// A longer slice would be refused, again and again.
#[test]
fn slices_of_short_values_are_not_longer_than_requested() {
    let (mut random, mut slices) = (Random::new(2), 0);
    for writers in 1..20 {
        let id = |writer| ReplicaId::with_incarnation(u64::MAX - writer, u32::MAX);
        let mut state = State::create(id(100));
        for writer in 0..writers {
            let mut other = State::restore_as(&state.saved(), id(writer));
            for _ in 0..random.below(60) {
                let at = std::slice::from_mut(&mut other);
                change(at, 0, &mut random);
            }
            for number in 0..20 {
                other.put_value(&[writer as u8, number], 0, b"value");
            }
            state.take_from(&other, false);
        }
        let mut receiver = State::create(ReplicaId::new(1));
        let claim = begin(&mut receiver, true);
        // Room for the versions and one event at least, which has replaced many.
        let len_max = 72 * writers as usize + 800 + random.below(300) as usize;
        while let Some((since, from)) = receiver.stage_needs() {
            let slice = state.encode_range(&since, &from, len_max).unwrap();
            assert!(slice.len() + 8 <= len_max, "{} of {len_max}", slice.len());
            let taken = receiver.take_range(Duration::ZERO, Some(claim), &slice).unwrap();
            assert!(matches!(taken, StageTaken::Taken(_)));
            slices += 1;
        }
        assert!(matches!(receiver.step_stage(), StageStep::Done(..)));
        assert_eq!(receiver.state_bytes(), state.state_bytes());
    }
    assert!(slices > 60, "{slices}");
}

/// A stage takes slices in order, and of peers that have seen what it holds.
#[test]
fn a_slice_that_does_not_continue_the_stage_is_not_taken() {
    let mut states = [1, 2, 3].map(|node| State::create(ReplicaId::new(node)));
    for number in 0..20_u8 {
        states[0].put_value(&[number], 0, &[number; 50]);
    }
    let behind = states[0].clone();
    states[0].put_value(b"later", 0, b"value");
    let claim = begin(&mut states[1], true);
    let (since, _) = states[1].stage_needs().unwrap();
    let first = states[0].encode_range(&since, &[], 400).unwrap();
    let last = states[0].encode_range(&since, &dot_bytes(30), 4_000).unwrap();
    let now = Duration::ZERO;
    let state = &mut states[1];
    assert_eq!(state.take_range(now, Some(claim + 1), &first), Ok(StageTaken::Foreign), "another session");
    assert!(matches!(state.take_range(now, Some(claim), &first), Ok(StageTaken::Taken(_))));
    let (_, from) = state.stage_needs().unwrap();
    assert!(!from.is_empty());
    assert!(behind.encode_range(&since, &[7], 400).is_none(), "no event");
    assert!(behind.encode_range(&since, &[&from[..], &[0]].concat(), 400).is_none(), "more than an event");
    let lacking = behind.encode_range(&since, &from, 400).unwrap();
    for other in [&first, &last, &lacking] {
        let mut state = state.clone();
        assert_eq!(state.take_range(now, Some(claim), other), Ok(StageTaken::Foreign));
        // The stage waits for the peer that it is of.
        assert_eq!(state.begin_stage(now, Some(claim), PATIENCE, true), StageBegin::Busy);
        assert!(matches!(state.begin_stage(now, None, PATIENCE, false), StageBegin::Ready(_)));
    }
    // Another session waits until this one has brought nothing for long, and a lease later nothing is left.
    assert_eq!(state.begin_stage(PATIENCE / 2, None, PATIENCE, false), StageBegin::Busy);
    let mut other = state.clone();
    assert!(matches!(other.begin_stage(PATIENCE, None, PATIENCE, true), StageBegin::Ready(_)));
    assert_eq!(other.stage_needs().unwrap().1, [0_u8; 0], "it begins again");
    let lease = state.members().lease();
    state.heartbeat(lease);
    assert!(state.stage_needs().is_some());
    state.heartbeat(lease + Duration::from_secs(1));
    assert!(state.stage_needs().is_none());
    assert_eq!(state.begin_stage(lease, None, PATIENCE, false), StageBegin::None);
}

/// The event of the first replica with this number, as a session names it.
fn dot_bytes(seq: u8) -> Vec<u8> {
    [&1_u64.to_be_bytes()[..], &[0, seq]].concat()
}

/// The first pass of a transfer, in which the peer writes something. Returns the version since which the
/// second one is, and the number of the session.
fn first_pass(peer: &mut State, receiver: &mut State) -> (Version, u64) {
    let (base, claim) = (receiver.version(), begin(receiver, true));
    loop {
        let (since, from) = receiver.stage_needs().unwrap();
        if since != base {
            assert!(from.is_empty());
            return (since, claim);
        }
        let slice = peer.encode_range(&since, &from, 150).unwrap();
        let taken = receiver.take_range(Duration::ZERO, Some(claim), &slice).unwrap();
        assert!(matches!(taken, StageTaken::Taken(_)));
        if from.is_empty() {
            peer.put_value(b"later", 0, b"value");
        }
    }
}

/// The second pass, in one slice.
fn second_pass(peer: &State, receiver: &mut State, since: &Version, claim: u64) {
    let slice = peer.encode_range(since, &[], 4_000).unwrap();
    let taken = receiver.take_range(Duration::ZERO, Some(claim), &slice).unwrap();
    assert!(matches!(taken, StageTaken::Taken(_)));
    assert!(matches!(receiver.step_stage(), StageStep::Done(..)));
    assert_eq!(receiver.state_bytes(), peer.state_bytes());
}

/// A member sends an event, whose value the stage holds, at another key: with it at both, the receiver could
/// not start from its own state.
#[test]
fn an_event_of_an_earlier_pass_at_another_key_is_refused() {
    let [mut peer, mut receiver] = [1, 2].map(|node| State::create(ReplicaId::new(node)));
    for key in [b"a", b"b", b"c"] {
        peer.put_value(key, 0, b"value");
    }
    let (since, claim) = first_pass(&mut peer, &mut receiver);
    let mut forged = State::create(peer.replica());
    for key in [b"w", b"x", b"y", b"z"] {
        forged.put_value(key, 0, b"value");
    }
    assert_eq!(forged.version(), peer.version());
    // All events, as to a receiver that has seen none.
    let slice = forged.encode_range(&Version::new(), &[], 4_000).unwrap();
    let taken = receiver.take_range(Duration::ZERO, Some(claim), &slice);
    assert!(State::restore(&receiver.save(), receiver.replica(), super::subject::KEY).is_ok());
    assert!(taken.is_err(), "{taken:?}");
    second_pass(&peer, &mut receiver, &since, claim);
}

/// The record of a removal is in the first pass. The peer then collects it, and overwrites the key again.
#[test]
fn a_removal_that_the_peer_collects_between_two_passes_is_not_lost() {
    let [mut peer, mut receiver] = [1, 2].map(|node| State::create(ReplicaId::new(node)));
    peer.put_value(b"key", 0, b"first");
    receiver.take_from(&peer, false);
    for key in [b"a", b"b", b"c"] {
        peer.put_value(key, 0, b"value");
    }
    peer.put_value(b"key", 0, b"second");
    let (since, claim) = first_pass(&mut peer, &mut receiver);
    peer.collect_tombstones(&since);
    peer.put_value(b"key", 0, b"third");
    second_pass(&peer, &mut receiver, &since, claim);
    assert_eq!(receiver.values(b"key"), [b"third"]);
}

/// A peer that knows events of this replica that it has not written, before the stage is joined and with it.
#[test]
fn an_impostor_is_found_by_slices() {
    use x0_crdt::{JoinError, SessionError};
    let id = ReplicaId::new(2);
    let mut peer = State::create(ReplicaId::new(1));
    let mut lost = State::create(id);
    lost.put_value(b"key", 0, b"lost");
    peer.take_from(&lost, false);
    let mut restored = State::create(id);
    let claim = begin(&mut restored, true);
    let (since, from) = restored.stage_needs().unwrap();
    let slice = peer.encode_range(&since, &from, 1_000).unwrap();
    let result = restored.take_range(Duration::ZERO, Some(claim), &slice);
    assert!(matches!(result, Err(SessionError::Join(JoinError::Impostor { .. }))), "{result:?}");
    // As many events, and others.
    restored.put_value(b"key", 0, b"other");
    assert!(matches!(restored.take_range(Duration::ZERO, Some(claim), &slice), Ok(StageTaken::Taken(_))));
    let before = restored.state_bytes();
    let step = restored.step_stage();
    assert!(matches!(step, StageStep::Failed(JoinError::Impostor { .. })), "{step:?}");
    assert_eq!(restored.state_bytes(), before);
    assert!(restored.stage_needs().is_none());
}

#[test]
fn damaged_slices_and_stages_are_refused_or_are_others() {
    let mut random = Random::new(3);
    let mut states = [1, 2, 3].map(|node| State::create(ReplicaId::new(node)));
    for number in 0..80_u8 {
        let at = random.below(3) as usize;
        change(&mut states, at, &mut random);
        states[0].put_value(&[number], 0, b"value");
    }
    let id = ReplicaId::with_incarnation(2, 1);
    states[1] = State::create(id);
    let claim = begin(&mut states[1], true);
    let (mut recorded, mut passes) = (Vec::new(), 0);
    while passes < 3 {
        let (since, from) = states[1].stage_needs().unwrap();
        let slice = states[0].encode_range(&since, &from, 400).unwrap();
        recorded.push((states[1].clone(), slice.clone()));
        assert!(matches!(
            states[1].take_range(Duration::ZERO, Some(claim), &slice),
            Ok(StageTaken::Taken(_))
        ));
        if from.is_empty() {
            passes += 1;
            for number in 0..8_u8 {
                states[0].put_value(&[number], 1, b"later");
            }
        }
    }
    let saved = states[1].saved();
    assert_eq!(saved[0], 3, "with a stage");
    let mut taken = 0;
    for _ in 0..super::seeds(6_000) {
        let (state, slice) = &recorded[random.below(recorded.len() as u64) as usize];
        let (mut slice, mut bytes) = (slice.clone(), saved.clone());
        for of in [&mut slice, &mut bytes] {
            for _ in 0..=random.below(2) {
                let at = random.below(of.len() as u64) as usize;
                match random.below(8) {
                    0 => of.truncate(at.max(1)),
                    1..=4 => of[at] ^= 1 << random.below(8),
                    _ => of[at] = random.next() as u8,
                }
            }
        }
        let mut state = state.clone();
        if let Ok(StageTaken::Taken(_)) = state.take_range(Duration::ZERO, Some(claim), &slice) {
            taken += 1;
            assert!(State::restore(&state.save(), id, super::subject::KEY).is_ok());
        }
        state.step_stage();
        if let Ok(mut restored) = State::restore(&bytes, id, super::subject::KEY) {
            assert!(State::restore(&restored.save(), id, super::subject::KEY).is_ok());
            restored.begin_stage(Duration::ZERO, None, PATIENCE, false);
            restored.step_stage();
            let version: Version = restored.version();
            restored.collect_tombstones(&version);
        }
    }
    assert!(taken > 0);
}

/// The length of a value that a slice is too short for.
#[test]
fn an_event_longer_than_a_slice_is_a_slice_of_its_own() {
    let options = SessionOptions::default().transfer_len_max(3_000);
    let link = Link { loss: 10, ..Link::default() };
    let mut net = Net::<State>::new(2, 1, &options, link);
    for number in 0..40_u8 {
        net.map_mut(0).put_value(&[number], 0, &[number; 2_700]);
    }
    net.changed(0);
    net.run_until_in_sync(Duration::from_secs(60));
    net.check(1);
    assert!(net.staged.len() >= 40, "{}", net.staged.len());
}
