//! Snapshots: for members that lag too far, and to shorten the log.

use std::time::Duration;

use x0_consensus::{MembershipChange, Storage as _};

use crate::cluster::{Cluster, id};
use crate::machine::Machine;

fn volatile() -> Machine {
    Machine { snapshot_len: 100_000, ..Machine::default() }
}

fn durable() -> Machine {
    Machine { is_durable: true, ..volatile() }
}

/// Logs are shortened after every 20 KB to the last 20 entries, and a snapshot has a hundred chunks.
fn small(seed: u64, machine: Machine) -> Cluster {
    of_size(seed, 3, machine)
}

fn of_size(seed: u64, size: u64, machine: Machine) -> Cluster {
    Cluster::with(seed, size, machine, |options| {
        options.checkpoint_log_len = 20_000;
        options.retained_entries = 20;
        options.chunk_len = 1000;
    })
}

fn base(cluster: &mut Cluster, node: u64) -> u64 {
    let process = cluster.nodes.get_mut(&node).unwrap().process.as_mut().unwrap();
    let first = process.replica().status().applied_index;
    (1..=first).rev().find(|index| process.log.storage().term(*index).unwrap().is_none()).unwrap_or(0)
}

fn fill(cluster: &mut Cluster, count: u64) {
    for _ in 0..count.div_ceil(10) {
        let leader = cluster.elect();
        let tokens = cluster.propose_many(leader, 10, 500);
        cluster.run_until("ends", |cluster| tokens.iter().all(|token| cluster.end(*token).is_some()));
    }
}

#[test]
fn a_volatile_machine_has_its_snapshot_saved_and_the_log_shortened() {
    let mut cluster = small(1, volatile());
    cluster.elect();
    fill(&mut cluster, 300);
    cluster.settle();
    for node in 1..=3 {
        assert!(cluster.node(node).machine().checkpoints >= 5);
        assert!(base(&mut cluster, node) > 200, "{}", base(&mut cluster, node));
        cluster.crash(node);
        cluster.start(node);
        assert_eq!(cluster.node(node).machine().state.applied, 0, "it starts from an empty state");
        cluster.settle();
        assert_eq!(cluster.node(node).machine().restores, 1, "from the snapshot");
    }
    cluster.assert_unharmed();
}

#[test]
fn a_durable_machine_takes_checkpoints() {
    let mut cluster = small(2, durable());
    cluster.elect();
    fill(&mut cluster, 300);
    cluster.settle();
    for node in 1..=3 {
        assert!(base(&mut cluster, node) > 200);
        cluster.crash(node);
        assert!(cluster.node(node).machine().state.applied > 200, "what it had made durable");
        cluster.start(node);
        cluster.settle();
        assert_eq!(cluster.node(node).machine().restores, 0, "it needs no snapshot");
    }
    cluster.assert_unharmed();
}

#[test]
fn a_member_that_was_away_too_long_gets_a_snapshot() {
    for (seed, machine) in [(3, volatile()), (4, durable())] {
        let mut cluster = small(seed, machine);
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        fill(&mut cluster, 300);
        cluster.heal();
        cluster.settle();
        assert_eq!(cluster.node(away).machine().restores, 1);
        cluster.crash(away);
        cluster.start(away);
        cluster.settle();
        cluster.assert_unharmed();
    }
}

/// A follower learns of the removal from the membership of a snapshot, and its status forgets the member too.
#[test]
fn a_snapshot_without_a_member_forgets_its_last_message() {
    let mut cluster = of_size(5, 5, durable());
    let leader = cluster.elect();
    cluster.settle();
    let mut others = (1..=5).filter(|node| *node != leader);
    let (away, removed) = (others.next().unwrap(), others.next().unwrap());
    // Followers hear of each other in elections.
    cluster.isolate(&[leader]);
    cluster.run_for(Duration::from_secs(5));
    cluster.heal();
    cluster.settle();
    let known = |cluster: &mut Cluster| cluster.status(away).last_messages.contains_key(&id(removed));
    assert!(known(&mut cluster), "choose another seed: {away} has heard of {removed}");
    cluster.isolate(&[away]);
    let leader = cluster.elect();
    let token = cluster.change(leader, MembershipChange::default().remove(id(removed)));
    cluster.run_until_done(&[token]);
    fill(&mut cluster, 300);
    cluster.heal();
    cluster.settle();
    assert_eq!(cluster.node(away).machine().restores, 1);
    assert!(!known(&mut cluster));
}

#[test]
fn a_snapshot_survives_losses_duplicates_and_disorder() {
    for seed in 10..20 {
        let mut cluster = small(seed, volatile());
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        fill(&mut cluster, 200);
        cluster.heal();
        cluster.network.loss = 100;
        cluster.network.duplication = 100;
        cluster.network.jitter = Duration::from_millis(5);
        cluster.settle();
        assert!(cluster.node(away).machine().restores >= 1);
        cluster.assert_unharmed();
    }
}

/// The acknowledgement of the whole snapshot is lost repeatedly.
#[test]
fn a_lost_end_is_requested_again() {
    let mut cluster = small(20, volatile());
    let leader = cluster.elect();
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.isolate(&[away]);
    fill(&mut cluster, 200);
    cluster.heal();
    cluster.run_until("it is there", |cluster| cluster.node(away).machine().restores == 1);
    cluster.network.cuts.insert((away, leader));
    cluster.run_for(Duration::from_millis(300));
    cluster.heal();
    cluster.settle();
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.node(leader).snapshots_begun, 1 + cluster.node(leader).machine().checkpoints);
    cluster.assert_unharmed();
}

#[test]
fn a_cut_connection_is_resumed() {
    let mut cluster = small(21, Machine { snapshot_len: 1_000_000, ..Machine::default() });
    cluster.network.delay_min = Duration::from_millis(5);
    let leader = cluster.elect();
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.isolate(&[away]);
    fill(&mut cluster, 200);
    let opened = cluster.node(leader).snapshots_begun;
    cluster.heal();
    for _ in 0..5 {
        cluster.run_for(Duration::from_millis(100));
        cluster.isolate(&[away]);
        cluster.run_for(Duration::from_millis(300));
        assert_eq!(cluster.node(away).machine().restores, 0, "it is still on its way");
        cluster.heal();
    }
    cluster.settle();
    assert_eq!(cluster.node(away).machine().restores, 1);
    assert_eq!(cluster.node(leader).snapshots_begun, opened + 1, "one transfer did it");
    cluster.assert_unharmed();
}

#[test]
fn a_receiver_that_crashes_gets_it_from_the_beginning() {
    for seed in 30..40 {
        let mut cluster = small(seed, volatile());
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        fill(&mut cluster, 200);
        cluster.heal();
        cluster.run_for(Duration::from_millis(seed * 3));
        cluster.crash(away);
        cluster.run_for(Duration::from_millis(100));
        cluster.start(away);
        let begun = cluster.now;
        cluster.settle();
        assert!(cluster.now - begun < Duration::from_millis(500), "{:?}", cluster.now - begun);
        cluster.assert_unharmed();
    }
}

#[test]
fn a_sender_that_crashes_is_replaced() {
    for seed in 40..50 {
        let mut cluster = small(seed, volatile());
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        fill(&mut cluster, 200);
        cluster.heal();
        cluster.run_for(Duration::from_millis(seed * 3));
        cluster.crash(leader);
        cluster.run_for(Duration::from_millis(100));
        cluster.settle();
        cluster.start(leader);
        cluster.settle();
        assert!(cluster.node(away).machine().restores >= 1);
        cluster.assert_unharmed();
    }
}

/// An election is due while a snapshot is installed and not restored.
#[test]
fn a_member_that_is_restoring_does_not_campaign() {
    for seed in 50..60 {
        let mut cluster = small(seed, volatile());
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        fill(&mut cluster, 200);
        cluster.heal();
        cluster.run_until("it comes", |cluster| cluster.node(away).snapshots_staged > 0);
        // The restoring takes far longer than an election.
        cluster.apply_latency = Duration::from_secs(20);
        cluster.run_until("the snapshot is installed", |cluster| cluster.status(away).commit_index > 100);
        cluster.crash(leader);
        cluster.run_for(Duration::from_secs(10));
        cluster.apply_latency = Duration::from_micros(100);
        cluster.start(leader);
        cluster.settle();
        cluster.assert_unharmed();
    }
}

/// A crash between installing a snapshot and restoring it.
#[test]
fn a_crash_before_restoring_restores_at_the_start() {
    for (seed, machine) in (60..70).flat_map(|seed| [(seed, volatile()), (seed, durable())]) {
        let mut cluster = small(seed, machine);
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        fill(&mut cluster, 200);
        cluster.heal();
        cluster.run_until("it comes", |cluster| cluster.node(away).snapshots_staged > 0);
        cluster.apply_latency = Duration::from_secs(20);
        cluster.run_until("the snapshot is installed", |cluster| cluster.status(away).commit_index > 100);
        cluster.run_for(Duration::from_millis(seed % 10));
        cluster.apply_latency = Duration::from_micros(100);
        cluster.crash(away);
        cluster.start(away);
        cluster.settle();
        cluster.assert_unharmed();
    }
}
