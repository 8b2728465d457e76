//! Starts after a crash, and followers that lag.

use std::time::Duration;

use x0_consensus::{Entry, EntryKind, HardState, Options, Recovered, Replica, StartError, Storage as _};

use crate::cluster::{Cluster, id};
use crate::disk;
use crate::machine::Machine;

/// The log has entries that the state machine has not applied, committed ones and others.
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

/// A follower that lags by more entries than memory holds gets them from the storage.
#[test]
fn a_laggard_is_served_from_the_storage() {
    for seed in 0..5 {
        let mut cluster = Cluster::with(seed, 3, Machine::default(), |options| {
            options.cache_len_max = 4000;
            options.message_len_max = 4000;
        });
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        for _ in 0..50 {
            let tokens = cluster.propose_many(leader, 20, 300);
            cluster.run_until_done(&tokens);
        }
        cluster.heal();
        // The node catches up while further entries are proposed and written.
        for _ in 0..200 {
            cluster.propose(leader, 300);
            cluster.run_for(Duration::from_micros(500));
        }
        cluster.settle();
        let fetches = cluster.node(leader).fetches;
        // A thousand entries of 428 bytes, four messages of nine entries at a time.
        assert!((20..300).contains(&fetches), "{fetches}");
        assert_eq!(cluster.node(away).machine().restores, 0);
        cluster.assert_unharmed();
    }
}

#[test]
fn a_lost_log_and_a_lost_state_are_distinguished() {
    let mut cluster = Cluster::new(5, 1);
    let tokens = cluster.propose_many(1, 50, 100);
    cluster.run_until_done(&tokens);
    cluster.crash(1);
    let directory = cluster.node(1).directory.clone();
    let mut log = disk::open(&directory, 0);
    let recovered = log.recover().unwrap();
    let options = || Options::new(id(1)).bootstrap([id(1)]);
    let begin = |recovered: &Recovered, unapplied: &[Entry], durable| {
        Replica::new(options(), recovered.clone(), unapplied, durable, Duration::ZERO).map(|_| ())
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
fn options_out_of_bounds_are_refused() {
    let refused = |change: fn(&mut Options)| {
        let mut options = Options::new(id(1)).bootstrap([id(1)]);
        change(&mut options);
        let replica = Replica::new(options, Recovered::default(), &[], 0, Duration::ZERO);
        matches!(replica, Err(StartError::Options { .. }))
    };
    assert!(!refused(|_| {}));
    assert!(refused(|options| options.tick = Duration::ZERO));
    assert!(refused(|options| options.heartbeat_ticks = 0));
    assert!(refused(|options| options.election_ticks = options.heartbeat_ticks));
    assert!(refused(|options| options.chunk_len = 0));
    assert!(refused(|options| options.chunk_len = 2 << 20));
    assert!(refused(|options| options.chunks_in_flight_max = 0));
    assert!(refused(|options| options.message_len_max = 16 << 20));
    assert!(refused(|options| options.uncommitted_len_max = 0));
    assert!(refused(|options| options.in_flight_messages_max = 0));
}

/// The commit index is written together with other data only; a lost value is found again.
#[test]
fn a_commit_index_out_of_range_is_corrected() {
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
        let options = Options::new(id(1));
        let replica = Replica::new(options, recovered, &unapplied, durable, Duration::ZERO).unwrap();
        assert_eq!(replica.status().commit_index, expected);
    }
}

/// The power of all nodes fails at once, several times, during writes.
#[test]
fn nothing_acknowledged_is_lost_when_all_power_fails() {
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

/// The disk of the leader fills up: the leadership moves to a member with space, and the full member catches
/// up once it has space again.
#[test]
fn a_leader_without_space_transfers_its_leadership() {
    for seed in 0..10 {
        let mut cluster =
            Cluster::with(seed, 3, Machine::default(), |options| options.waits_for_space = true);
        let full = cluster.elect();
        let tokens = cluster.propose_many(full, 10, 500);
        cluster.run_until_done(&tokens);
        // No file may grow: the next segment cannot be created.
        cluster.node(full).directory.set_capacity_bytes(Some(0));
        while !cluster.node(full).is_full {
            let leader = cluster.elect();
            cluster.propose_many(leader, 10, 500);
            cluster.run_for(Duration::from_millis(50));
        }
        cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|leader| leader != full));
        for _ in 0..20 {
            cluster.put();
        }
        assert!(cluster.node(full).is_full, "seed {seed}: it does not have space by itself");
        cluster.node(full).directory.set_capacity_bytes(None);
        cluster.settle();
        assert!(!cluster.node(full).is_full);
        cluster.assert_unharmed();
    }
}
