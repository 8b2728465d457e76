//! Linearizable reads.

use std::time::Duration;

use x0_consensus::DropReason;

use crate::cluster::Cluster;

#[test]
fn reads_see_what_was_acknowledged_before() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.apply_latency = Duration::from_millis(20);
        let leader = cluster.elect();
        let mut reads = Vec::new();
        for _ in 0..50 {
            cluster.propose(leader, 8);
            reads.push(cluster.read(leader));
            cluster.run_for(Duration::from_millis(3));
        }
        cluster.run_until_done(&reads);
        cluster.assert_unharmed();
    }
}

/// A new leader does not know the committed index: reads wait until its first entry is committed (Ongaro
/// 2014, section 6.4).
#[test]
fn a_read_waits_for_the_first_commit_of_the_term() {
    let mut cluster = Cluster::new(5, 3);
    cluster.disk_latency = Duration::from_millis(30);
    cluster.run_until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    assert_eq!(cluster.status(leader).commit_index, 0);
    let read = cluster.read(leader);
    cluster.run_until_done(&[read]);
    assert!(cluster.status(leader).applied_index > 0);
    cluster.assert_unharmed();
}

#[test]
fn a_deposed_leader_answers_no_read() {
    let mut cluster = Cluster::new(6, 3);
    let old = cluster.elect();
    cluster.isolate(&[old]);
    let reads: Vec<_> = (0..5).map(|_| cluster.read(old)).collect();
    cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|other| other != old));
    cluster.put();
    // The old leader may not have stepped down yet.
    let late = cluster.read(old);
    cluster.run_for(Duration::from_secs(2));
    for read in reads.into_iter().chain([late]) {
        assert!(
            matches!(cluster.dropped(read), Some(DropReason::NotLeader { .. })),
            "{:?}",
            cluster.end(read)
        );
    }
    cluster.heal();
    cluster.settle();
    cluster.assert_unharmed();
}

#[test]
fn the_only_voter_reads_by_itself() {
    let mut cluster = Cluster::new(7, 1);
    let read = cluster.read(1);
    cluster.run_until_done(&[read]);
    let token = cluster.put();
    let read = cluster.read(1);
    cluster.run_until_done(&[token, read]);
    cluster.assert_unharmed();
}

/// Rounds whose messages are lost are started again.
#[test]
fn reads_survive_lost_messages() {
    let mut cluster = Cluster::new(8, 3);
    let leader = cluster.elect();
    cluster.network.loss = 300;
    let mut reads = Vec::new();
    for _ in 0..30 {
        let leader = cluster.leader().unwrap_or(leader);
        reads.push(cluster.read(leader));
        cluster.run_for(Duration::from_millis(40));
    }
    cluster.run_until("all end", |cluster| reads.iter().all(|read| cluster.end(*read).is_some()));
    cluster.assert_unharmed();
}

#[test]
fn waiting_reads_are_bounded() {
    let mut cluster = Cluster::with(9, 3, Default::default(), |options| options.waiting_max = 10);
    let leader = cluster.elect();
    cluster.isolate(&[leader]);
    let reads: Vec<_> = (0..30).map(|_| cluster.read(leader)).collect();
    let full = reads.iter().filter(|read| cluster.dropped(**read) == Some(DropReason::Full)).count();
    assert_eq!(full, 30 - 1 - 10, "one is in a round, ten wait");
}
