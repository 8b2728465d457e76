//! Changes of the membership.

use std::time::Duration;

use x0_consensus::{DropReason, Membership, MembershipChange, Replication};

use crate::cluster::{Cluster, id};
use crate::machine::Machine;

fn change() -> MembershipChange {
    MembershipChange::default()
}

fn voters(nodes: &[u64]) -> Membership {
    Membership::of_voters(nodes.iter().copied().map(id))
}

#[test]
fn a_learner_receives_the_log_and_does_not_vote() {
    let mut cluster = Cluster::new(1, 3);
    let leader = cluster.elect();
    cluster.join(4);
    let token = cluster.change(leader, change().learner(id(4)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_eq!(cluster.node(4).machine().state, cluster.node(leader).machine().state);
    // One voter and the learner are no majority.
    let others: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
    cluster.crash(others[0]);
    cluster.crash(others[1]);
    let stuck = cluster.propose(leader, 8);
    cluster.run_for(Duration::from_secs(5));
    assert!(!cluster.is_done(stuck));
    assert_eq!(cluster.leader(), None);
    cluster.start(others[0]);
    cluster.settle();
    // As a voter it counts.
    let leader = cluster.elect();
    let token = cluster.change(leader, change().voter(id(4)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_eq!(cluster.status(4).membership, voters(&[1, 2, 3, 4]));
    cluster.assert_unharmed();
}

/// A joining node with an empty folder and no founders: only a snapshot contains the founders of the group.
#[test]
fn a_joining_node_without_founders_gets_a_snapshot() {
    let mut cluster = Cluster::new(2, 3);
    let leader = cluster.elect();
    let tokens = cluster.propose_many(leader, 30, 100);
    cluster.run_until_done(&tokens);
    cluster.join(4);
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.status(4).term, 0, "it does not campaign");
    let token = cluster.change(leader, change().learner(id(4)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_eq!(cluster.node(4).machine().restores, 1);
    assert_eq!(cluster.node(leader).snapshots_begun, 1, "one snapshot is enough");
    assert_eq!(cluster.status(4).membership, cluster.status(leader).membership);
    // The membership survives a restart.
    cluster.crash(4);
    cluster.start(4);
    cluster.settle();
    cluster.assert_unharmed();
}

#[test]
fn two_members_join_and_one_leaves_in_one_joint_change() {
    for seed in 10..20 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        let gone = (1..=3).find(|node| *node != leader).unwrap();
        cluster.join(4);
        cluster.join(5);
        let token = cluster.change(leader, change().voter(id(4)).voter(id(5)).remove(id(gone)));
        let second = cluster.change(leader, change().learner(id(9)));
        assert_eq!(cluster.dropped(second), Some(DropReason::ChangeInProgress));
        cluster.run_until_done(&[token]);
        let stay: Vec<_> = (1..=5).filter(|node| *node != gone).collect();
        cluster.run_until("the joint phase is left", |cluster| {
            stay.iter().all(|node| cluster.status(*node).membership == voters(&stay))
        });
        cluster.settle();
        // The removed member does not disturb the group.
        let term = cluster.status(leader).term;
        cluster.run_for(Duration::from_secs(5));
        assert_eq!(cluster.status(leader).term, term);
        cluster.assert_unharmed();
    }
}

#[test]
fn a_joint_phase_survives_its_leader() {
    for seed in 20..30 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        cluster.join(4);
        cluster.join(5);
        cluster.change(leader, change().voter(id(4)).voter(id(5)));
        // At a random moment of the change.
        let until = Duration::from_micros(seed % 10 * 500);
        cluster.run_for(until);
        cluster.crash(leader);
        cluster.run_for(Duration::from_secs(3));
        cluster.start(leader);
        cluster.settle();
        cluster.assert_unharmed();
    }
}

#[test]
fn a_leader_that_removes_itself_steps_down() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    let token = cluster.change(leader, change().remove(id(leader)));
    let behind = cluster.propose(leader, 8);
    cluster.run_until_done(&[token]);
    cluster.run_until("another leads", |cluster| cluster.leader().is_some_and(|other| other != leader));
    assert!(cluster.end(behind).is_some(), "a removed leader does not receive the result");
    let late = cluster.propose(leader, 8);
    assert!(matches!(cluster.dropped(late), Some(DropReason::NotLeader { .. })));
    cluster.settle();
    let term = cluster.status(cluster.leader().unwrap()).term;
    cluster.run_for(Duration::from_secs(10));
    assert_eq!(cluster.status(cluster.leader().unwrap()).term, term, "it lets the others be");
    cluster.assert_unharmed();
}

#[test]
fn a_leader_that_demotes_itself_steps_down() {
    let mut cluster = Cluster::new(4, 3);
    let leader = cluster.elect();
    let token = cluster.change(leader, change().learner(id(leader)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_ne!(cluster.leader(), Some(leader));
    assert_eq!(cluster.node(leader).machine().state, cluster.node(cluster.leader().unwrap()).machine().state);
    cluster.assert_unharmed();
}

#[test]
fn invalid_changes_are_refused() {
    let mut cluster = Cluster::new(5, 3);
    let leader = cluster.elect();
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let no_voter = change().remove(id(1)).remove(id(2)).remove(id(3));
    let crowd = (10..200).fold(change(), |change, node| change.learner(id(node)));
    for refused in [change(), change().voter(id(4)).remove(id(4)), no_voter, crowd] {
        let token = cluster.change(leader, refused);
        assert_eq!(cluster.dropped(token), Some(DropReason::ChangeInvalid));
    }
    let token = cluster.change(follower, change().learner(id(4)));
    assert_eq!(cluster.dropped(token), Some(DropReason::NotLeader { leader: Some(id(leader)) }));
    // Removing a node that is not a member, or adding a voter again, changes nothing.
    for harmless in [change().remove(id(9)), change().voter(id(1))] {
        let token = cluster.change(leader, harmless);
        cluster.run_until_done(&[token]);
    }
    assert_eq!(cluster.status(leader).membership, voters(&[1, 2, 3]));
    cluster.settle();
    cluster.assert_unharmed();
}

#[test]
fn a_group_of_one_grows_to_three_and_shrinks_again() {
    let mut cluster = Cluster::new(6, 1);
    cluster.put();
    for node in [2, 3] {
        cluster.join(node);
        let token = cluster.change(1, change().learner(id(node)));
        cluster.run_until_done(&[token]);
        cluster.settle();
        let token = cluster.change(1, change().voter(id(node)));
        cluster.run_until_done(&[token]);
        cluster.settle();
    }
    cluster.elect_this(3);
    let token = cluster.change(3, change().remove(id(1)).remove(id(2)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_eq!(cluster.status(3).membership, voters(&[3]));
    cluster.crash(1);
    cluster.crash(2);
    cluster.put();
    cluster.assert_unharmed();
}

/// The leader knows how far each member is: a member that is cut off keeps its index and its last message,
/// and gets a snapshot when it is connected again.
#[test]
fn a_leader_knows_the_progress_of_its_members() {
    let machine = Machine { snapshot_len: 200_000, ..Machine::default() };
    let mut cluster = Cluster::with(80, 3, machine, |options| {
        options.checkpoint_log_len = 20_000;
        options.retained_entries = 20;
        options.chunk_len = 1000;
    });
    let leader = cluster.elect();
    cluster.settle();
    let progress = |cluster: &Cluster| cluster.nodes[&leader].process.as_ref().unwrap().replica().progress();
    let members: Vec<u64> = progress(&cluster).iter().map(|member| member.id.get()).collect();
    assert_eq!(members, (1..=3).filter(|node| *node != leader).collect::<Vec<_>>());
    let away = members[0];
    let of = |cluster: &Cluster, node: u64| {
        progress(cluster).into_iter().find(|member| member.id == id(node)).unwrap()
    };
    assert_eq!(of(&cluster, away).replication, Replication::Replicate);
    cluster.isolate(&[away]);
    let (cut_at, matched) = (cluster.now, of(&cluster, away).matched_index);
    for _ in 0..30 {
        let tokens = cluster.propose_many(leader, 10, 500);
        cluster.run_until_done(&tokens);
    }
    cluster.run_for(Duration::from_secs(2));
    let behind = of(&cluster, away);
    assert_eq!(behind.matched_index, matched);
    assert!(behind.last_message.unwrap() <= cut_at);
    let other = of(&cluster, members[1]);
    assert_eq!(other.matched_index, cluster.status(leader).last_index);
    assert!(other.last_message.unwrap() + Duration::from_millis(200) > cluster.now, "it answers heartbeats");
    cluster.heal();
    cluster.run_until("a snapshot", |cluster| of(cluster, away).replication == Replication::Snapshot);
    cluster.settle();
    cluster.run_until("the usual state", |cluster| of(cluster, away).replication == Replication::Replicate);
    assert!(cluster.nodes[&away].process.as_ref().unwrap().replica().progress().is_empty());
    cluster.assert_unharmed();
}
