//! Proposals: each has one result, and the queues are bounded.

use std::time::Duration;

use x0_consensus::DropReason;

use crate::cluster::{Cluster, id};
use crate::machine::Machine;

#[test]
fn followers_name_the_leader() {
    let mut cluster = Cluster::new(1, 3);
    let before = cluster.propose(2, 8);
    assert_eq!(cluster.dropped(before), Some(DropReason::NotLeader { leader: None }));
    let leader = cluster.elect();
    cluster.settle();
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let token = cluster.propose(follower, 8);
    assert_eq!(cluster.dropped(token), Some(DropReason::NotLeader { leader: Some(id(leader)) }));
}

#[test]
fn waiting_proposals_are_bounded_in_number() {
    let mut cluster = Cluster::with(2, 3, Machine::default(), |options| options.waiting_max = 50);
    let leader = cluster.elect();
    let tokens = cluster.propose_many(leader, 60, 8);
    let (taken, refused) = tokens.split_at(50);
    assert!(refused.iter().all(|token| cluster.dropped(*token) == Some(DropReason::Full)));
    cluster.run_until_done(taken);
    let more = cluster.propose(leader, 8);
    cluster.run_until_done(&[more]);
    cluster.assert_unharmed();
}

#[test]
fn uncommitted_proposals_are_bounded_in_bytes() {
    let mut cluster = Cluster::with(3, 3, Machine::default(), |options| {
        options.message_len_max = 1000;
        options.uncommitted_len_max = 10_000;
    });
    let leader = cluster.elect();
    for other in (1..=3).filter(|other| *other != leader) {
        cluster.crash(other);
    }
    let tokens = cluster.propose_many(leader, 20, 1000);
    let refused = tokens.iter().filter(|token| cluster.dropped(**token) == Some(DropReason::Full)).count();
    assert!((9..=11).contains(&refused), "{refused}");
    for other in (1..=3).filter(|other| *other != leader) {
        cluster.start(other);
    }
    cluster.settle();
    assert!(tokens.iter().all(|token| cluster.end(*token).is_some()));
    cluster.assert_unharmed();
}

#[test]
fn a_payload_that_is_too_long_is_refused() {
    let mut cluster = Cluster::new(4, 3);
    let leader = cluster.elect();
    let token = cluster.propose(leader, x0_consensus::PAYLOAD_LEN_MAX + 1);
    assert_eq!(cluster.dropped(token), Some(DropReason::Length));
    let token = cluster.propose(leader, x0_consensus::PAYLOAD_LEN_MAX);
    cluster.run_until_done(&[token]);
    cluster.settle();
    cluster.assert_unharmed();
}

/// `raft` joins the appends to one follower into a message of any length; the replica splits it.
#[test]
fn a_burst_travels_in_messages_of_bounded_length() {
    let mut cluster = Cluster::with(5, 3, Machine::default(), |options| options.message_len_max = 64 << 10);
    let leader = cluster.elect();
    let tokens = cluster.propose_many(leader, 3000, 1000);
    let tiny = cluster.propose_many(leader, 30_000, 8);
    cluster.run_until_done(&tokens);
    cluster.run_until_done(&tiny);
    assert!(cluster.node(leader).messages_len_max < 70 << 10, "{}", cluster.node(leader).messages_len_max);
    // The same for a follower that catches up.
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.crash(away);
    let tokens = cluster.propose_many(leader, 2000, 1000);
    cluster.run_until_done(&tokens);
    cluster.start(away);
    cluster.settle();
    assert!(cluster.node(leader).messages_len_max < 70 << 10, "{}", cluster.node(leader).messages_len_max);
    cluster.assert_unharmed();
}

/// Proposals of an old leader that entries of another leader replace.
#[test]
fn superseded_proposals_are_dropped_exactly_once() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let old = cluster.elect();
        cluster.settle();
        cluster.isolate(&[old]);
        let lost = cluster.propose_many(old, 30, 16);
        cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|other| other != old));
        let new = cluster.elect();
        cluster.heal();
        // One entry of the new leader, at the first of thirty indexes, decides the result of all.
        cluster
            .run_until("all have a result", |cluster| lost.iter().all(|token| cluster.end(*token).is_some()));
        assert!(lost.iter().all(|token| cluster.dropped(*token) == Some(DropReason::Superseded)));
        assert_eq!(cluster.leader(), Some(new));
        cluster.settle();
        cluster.assert_unharmed();
    }
}

/// The node leads again before the indexes of its old proposals are filled: the new proposals get their own
/// results.
#[test]
fn a_leader_that_comes_back_keeps_old_and_new_proposals_apart() {
    let mut cluster = Cluster::new(11, 3);
    cluster.elect_this(1);
    cluster.settle();
    cluster.isolate(&[1]);
    let old = cluster.propose_many(1, 30, 16);
    cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|other| other != 1));
    cluster.heal();
    cluster.elect_this(1);
    let new = cluster.propose_many(1, 5, 16);
    cluster.run_until_done(&new);
    assert!(old.iter().all(|token| cluster.dropped(*token) == Some(DropReason::Superseded)));
    cluster.settle();
    cluster.assert_unharmed();
}

/// The entries were replicated without an acknowledgement to the old leader: the next leader commits them.
#[test]
fn an_old_leaders_proposals_may_be_committed_by_the_next() {
    let mut cluster = Cluster::new(12, 3);
    let old = cluster.elect();
    cluster.settle();
    for other in (1..=3).filter(|other| *other != old) {
        cluster.network.cuts.insert((other, old));
    }
    let tokens = cluster.propose_many(old, 10, 16);
    cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|other| other != old));
    cluster.heal();
    cluster.run_until_done(&tokens);
    cluster.settle();
    cluster.assert_unharmed();
}

/// The leader is cut off from the majority; all its requests have a result when it is connected again.
#[test]
fn nothing_hangs_after_a_change_of_leaders_in_an_idle_group() {
    let mut cluster = Cluster::new(13, 5);
    let old = cluster.elect();
    let near = (1..=5).find(|node| *node != old).unwrap();
    cluster.isolate(&[old, near]);
    let mut tokens = cluster.propose_many(old, 10, 16);
    tokens.push(cluster.read(old));
    cluster.run_for(Duration::from_secs(5));
    cluster.heal();
    cluster.run_for(Duration::from_secs(2));
    assert!(tokens.iter().all(|token| cluster.end(*token).is_some()));
    cluster.assert_unharmed();
}
