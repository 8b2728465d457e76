//! Starts on what a crash has left, and followers that are behind.

use std::time::Duration;

use x0_consensus::{Config, Entry, EntryKind, HardState, Recovered, Replica, StartError, Storage as _};

use crate::cluster::{Cluster, id};
use crate::disk;
use crate::machine::Machine;

/// The log holds more than the state machine was given, committed and not.
#[test]
fn a_restart_applies_the_tail_of_the_log() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        let tokens = cluster.propose_many(leader, 100, 64);
        cluster.run_until_done(&tokens);
        cluster.apply_latency = Duration::from_secs(30);
        cluster.propose_many(leader, 100, 64);
        cluster.run_for(Duration::from_millis(1 + seed));
        for node in 1..=3 {
            cluster.crash(node);
        }
        cluster.apply_latency = Duration::from_micros(100);
        for node in 1..=3 {
            cluster.start(node);
        }
        cluster.settle();
        assert!(tokens.iter().all(|token| cluster.is_done(*token)));
        assert!(cluster.node(leader).machine().state.applied > 100);
        cluster.assert_unharmed();
    }
}

/// A follower that is behind by more than memory holds is served from the log.
#[test]
fn a_laggard_is_served_from_the_storage() {
    for seed in 0..5 {
        let mut cluster = Cluster::with(seed, 3, Machine::default(), |config| {
            config.cache_len_max = 4000;
            config.message_len_max = 4000;
        });
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        for _ in 0..50 {
            let tokens = cluster.propose_many(leader, 20, 300);
            cluster.run_until_done(&tokens);
        }
        cluster.heal();
        // It catches up while more comes, with writes on their way all the time.
        for _ in 0..200 {
            cluster.propose(leader, 300);
            cluster.run_for(Duration::from_micros(500));
        }
        cluster.settle();
        let fetches = cluster.node(leader).fetches;
        // A thousand entries of 428 bytes, four messages of nine entries at a time.
        assert!((20..200).contains(&fetches), "{fetches}");
        assert_eq!(cluster.node(away).machine().restores, 0);
        cluster.assert_unharmed();
    }
}

#[test]
fn a_log_and_a_state_machine_that_do_not_fit_are_told_apart() {
    let mut cluster = Cluster::new(5, 1);
    let tokens = cluster.propose_many(1, 50, 100);
    cluster.run_until_done(&tokens);
    cluster.crash(1);
    let directory = cluster.node(1).directory.clone();
    let mut log = disk::open(&directory);
    let recovered = log.recover().unwrap();
    let config = || Config::new(id(1)).bootstrap([id(1)]);
    let begin = |recovered: &Recovered, unapplied: &[Entry], durable| {
        Replica::new(config(), recovered.clone(), unapplied, durable, Duration::ZERO).map(|_| ())
    };
    let all = log.read(recovered.unapplied(0), usize::MAX).unwrap();
    assert!(begin(&recovered, &all, 0).is_ok());
    assert!(matches!(begin(&recovered, &all[1..], 0), Err(StartError::Unapplied)));
    assert!(matches!(begin(&recovered, &all, 7), Err(StartError::Unapplied)));
    assert!(begin(&recovered, &all[7..], 7).is_ok());
    assert!(matches!(begin(&recovered, &[], 1000), Err(StartError::LogLost { durable: 1000, .. })));
    let mut truncated = recovered;
    truncated.base.index = 20;
    truncated.base.term = 1;
    assert!(matches!(begin(&truncated, &[], 10), Err(StartError::StateLost { durable: 10, base: 20 })));
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = Config::new(id(1)).bootstrap([id(1)]);
        change(&mut config);
        let replica = Replica::new(config, Recovered::default(), &[], 0, Duration::ZERO);
        matches!(replica, Err(StartError::Config { .. }))
    };
    assert!(!refused(|_| {}));
    assert!(refused(|config| config.tick = Duration::ZERO));
    assert!(refused(|config| config.heartbeat_ticks = 0));
    assert!(refused(|config| config.election_ticks = config.heartbeat_ticks));
    assert!(refused(|config| config.chunk_len = 0));
    assert!(refused(|config| config.chunk_len = 2 << 20));
    assert!(refused(|config| config.chunks_in_flight_max = 0));
    assert!(refused(|config| config.message_len_max = 16 << 20));
    assert!(refused(|config| config.uncommitted_len_max = 0));
    assert!(refused(|config| config.in_flight_messages_max = 0));
}

/// The commit index is written along with other things only; what is lost of it is learnt again.
#[test]
fn a_commit_index_behind_or_ahead_of_the_log_is_mended() {
    let entry = |index| Entry { term: 1, index, kind: EntryKind::Normal, payload: "x".into() };
    let mut storage = x0_consensus::MemoryStorage::new();
    let mut write = x0_consensus::Write { entries: (1..=9).map(entry).collect(), ..Default::default() };
    write.hard_state = Some(HardState { term: 1, vote: None, commit: 4 });
    storage.write(&[write]).unwrap();
    for (commit, durable, expected) in [(4, 0, 4), (4, 7, 7), (100, 0, 9)] {
        let mut recovered = storage.recover().unwrap();
        recovered.base.membership = x0_consensus::Membership::of_voters([id(1), id(2)]);
        recovered.hard_state.commit = commit;
        let unapplied = storage.read(recovered.unapplied(durable), usize::MAX).unwrap();
        let config = Config::new(id(1));
        let replica = Replica::new(config, recovered, &unapplied, durable, Duration::ZERO).unwrap();
        assert_eq!(replica.status().commit_index, expected);
    }
}

/// Power goes everywhere at once, again and again, in the midst of writes.
#[test]
fn nothing_acknowledged_is_lost_when_all_power_goes() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.disk_latency = Duration::from_millis(3);
        for round in 0..8 {
            let leader = cluster.elect();
            cluster.propose_many(leader, 30, 200);
            cluster.run_for(Duration::from_micros(700 * round));
            for node in 1..=3 {
                cluster.crash(node);
            }
            for node in 1..=3 {
                cluster.start(node);
            }
        }
        cluster.settle();
        cluster.assert_unharmed();
    }
}
