//! Bytes from a peer that does not play by the rules.

use std::collections::BTreeSet;
use std::time::Duration;

use x0_crdt::{CausalMap, CausalReplica, ReplicaId, Session, SessionInput, SessionOptions, SessionOutput};

use super::pump::{Seen, pump};
use super::random::Random;
use super::subject::{Composed, Subject};

/// The datagrams of two honest sessions of one kind of state, without and with a limit that their states are
/// above.
fn recorded<R: Subject>() -> Vec<Vec<u8>> {
    let mut said = Vec::new();
    for transfer_len_max in [8 << 20, 700] {
        let options = SessionOptions::default().datagram_len_max(200).transfer_len_max(transfer_len_max);
        let mut maps = [1, 2].map(|node| R::create(ReplicaId::new(node)));
        let mut sessions = [1, 2].map(|seed| Session::new(&options, seed));
        let mut now = Duration::ZERO;
        for round in 0..4_u8 {
            for (at, map) in maps.iter_mut().enumerate() {
                for number in 0..40 {
                    map.put_value(format!("key-{at}-{number}").as_bytes(), 0, &[round; 9]);
                }
                map.remove_key(format!("key-{at}-{round}").as_bytes());
                map.heartbeat(now);
                if round > 1 {
                    let version = map.version();
                    map.collect_tombstones(&version);
                }
            }
            for side in 0..2 {
                let _ = sessions[side].handle(now, SessionInput::Changed, &mut maps[side]);
            }
            exchange(&mut now, &mut maps, &mut sessions, &mut said);
            // A small change of replicas in sync is pushed.
            maps[0].put_value(&[b'k', round], 0, b"pushed");
            let _ = sessions[0].handle(now, SessionInput::Changed, &mut maps[0]);
            exchange(&mut now, &mut maps, &mut sessions, &mut said);
            assert_eq!(maps[0].frontier(), maps[1].frontier());
        }
    }
    // More than a complete delta may have, for a replica that holds nothing.
    let mut maps = [1, 2].map(|node| R::create(ReplicaId::new(node)));
    for number in 0..5_000 {
        maps[0].put_value(format!("key-{number}").as_bytes(), 0, b"value");
    }
    let version = maps[0].version();
    maps[0].collect_tombstones(&version);
    let options = SessionOptions::default();
    let mut sessions = [1, 2].map(|seed| Session::new(&options, seed));
    let mut now = Duration::ZERO;
    exchange(&mut now, &mut maps, &mut sessions, &mut said);
    assert_eq!(maps[0].frontier(), maps[1].frontier());
    // A value that no transfer may hold.
    let mut maps = [1, 2].map(|node| R::create(ReplicaId::new(node)));
    let mut random = Random::new(1);
    let value: Vec<u8> = (0..900).map(|_| random.next() as u8).collect();
    maps[0].put_value(b"key", 0, &value);
    let options = SessionOptions::default().transfer_len_max(700);
    let mut sessions = [1, 2].map(|seed| Session::new(&options, seed));
    let mut now = Duration::ZERO;
    exchange(&mut now, &mut maps, &mut sessions, &mut said);
    assert_ne!(maps[0].frontier(), maps[1].frontier());
    said.sort();
    said.dedup();
    said
}

/// Ten seconds of two sessions, without a loss.
fn exchange<R: Subject>(
    now: &mut Duration,
    maps: &mut [R; 2],
    sessions: &mut [Session<R>; 2],
    said: &mut Vec<Vec<u8>>,
) {
    for _ in 0..2_000 {
        for side in 0..2 {
            pump(*now, side, maps, sessions, |_, _, seen| {
                let Seen::Output(SessionOutput::Send(datagram)) = seen else { return None };
                said.push(datagram.clone());
                Some(datagram)
            });
        }
        *now += Duration::from_millis(5);
    }
}

#[test]
fn no_datagrams_make_a_session_panic_or_hold_more_than_its_limit() {
    let mut recorded = [recorded::<CausalMap>(), recorded::<CausalReplica<Composed>>()].concat();
    // The keep-alive of a slow transfer, which none of these is.
    recorded.push(vec![0x19]);
    let kinds: BTreeSet<u8> = recorded.iter().map(|datagram| datagram[0] & 0x0f).collect();
    assert_eq!(kinds, (1..=15).collect());
    bombard::<CausalMap>(&recorded);
    bombard::<CausalReplica<Composed>>(&recorded);
}

fn bombard<R: Subject>(recorded: &[Vec<u8>]) {
    let options = SessionOptions::default().transfer_len_max(10_000);
    let mut random = Random::new(1);
    let mut map = R::create(ReplicaId::new(3));
    let mut session = Session::new(&options, 3);
    let mut now = Duration::ZERO;
    for turn in 0..super::seeds(200_000) {
        if turn % 1_000 == 0 {
            map = R::create(ReplicaId::new(3));
            session = Session::new(&options, turn);
            for number in 0..random.below(40) {
                map.put_value(format!("key-1-{number}").as_bytes(), 0, b"here");
            }
            if random.below(2) == 0 {
                let version = map.version();
                map.collect_tombstones(&version);
            }
        }
        let mut datagram = recorded[random.below(recorded.len() as u64) as usize].clone();
        for _ in 0..random.below(4) {
            match random.below(4) {
                0 => datagram.truncate(random.below(datagram.len() as u64 + 1) as usize),
                1 => datagram.push(random.next() as u8),
                _ if datagram.is_empty() => {}
                _ => {
                    let place = random.below(datagram.len() as u64) as usize;
                    datagram[place] = random.next() as u8;
                }
            }
        }
        let before = map.frontier();
        let refused = session.handle(now, SessionInput::Datagram(&datagram), &mut map).is_err();
        assert!(!refused || map.frontier() == before, "an error leaves the map as it was");
        now += Duration::from_millis(random.below(50));
        if random.below(4) == 0 {
            let _ = session.handle(now, SessionInput::Timeout, &mut map);
        }
        while session.poll_output().is_some() {}
        assert!(session.pending_bytes() <= 4 * options.transfer_len_max);
    }
}

#[test]
fn damage_on_the_way_delays_but_changes_nothing() {
    damage::<CausalMap>();
    damage::<CausalReplica<Composed>>();
}

fn damage<R: Subject>() {
    for seed in 0..super::seeds(200).min(100_000) {
        let mut random = Random::new(seed);
        let options = SessionOptions::default()
            .datagram_len_max(128 + random.below(300) as usize)
            .retry_max(Duration::from_millis(500));
        let mut maps = [1, 2].map(|node| R::create(ReplicaId::new(node)));
        let mut sessions = [1, 2].map(|salt| Session::new(&options, seed * 2 + salt));
        for (at, map) in maps.iter_mut().enumerate() {
            for number in 0..random.below(60) {
                map.put_value(format!("key-{at}-{number}").as_bytes(), 0, &random.next().to_le_bytes());
            }
            if random.below(2) == 0 {
                let version = map.version();
                map.collect_tombstones(&version);
            }
        }
        let all = maps[0].keys().len() + maps[1].keys().len();
        let mut now = Duration::ZERO;
        let mut turns = 0;
        while maps[0].frontier() != maps[1].frontier() {
            for side in 0..2 {
                pump(now, side, &mut maps, &mut sessions, |_, _, seen| {
                    let Seen::Output(SessionOutput::Send(mut datagram)) = seen else { return None };
                    if turns < 2_000 && random.below(5) == 0 {
                        let place = random.below(datagram.len() as u64) as usize;
                        datagram[place] ^= 1 << random.below(8);
                    }
                    Some(datagram)
                });
            }
            now += Duration::from_millis(10);
            turns += 1;
            assert!(turns < 20_000, "seed {seed} does not converge: {sessions:?}");
        }
        assert_eq!((maps[0].keys().len(), maps[1].keys().len()), (all, all), "seed {seed}");
    }
}
