//! Changes of who takes part.

use std::time::Duration;

use x0_consensus::{DropReason, Membership, MembershipChange};

use crate::cluster::{Cluster, id};

fn change() -> MembershipChange {
    MembershipChange::default()
}

fn voters(nodes: &[u64]) -> Membership {
    Membership::of_voters(nodes.iter().copied().map(id))
}

#[test]
fn a_learner_follows_and_does_not_decide() {
    let mut cluster = Cluster::new(1, 3);
    let leader = cluster.elect();
    cluster.join(4);
    let token = cluster.change(leader, change().learner(id(4)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_eq!(cluster.node(4).machine().state, cluster.node(leader).machine().state);
    // With one voter and the learner there is no quorum.
    let others: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
    cluster.crash(others[0]);
    cluster.crash(others[1]);
    let stuck = cluster.propose(leader, 8);
    cluster.run_for(Duration::from_secs(5));
    assert!(!cluster.is_done(stuck));
    assert_eq!(cluster.leader(), None);
    cluster.start(others[0]);
    cluster.settle();
    // Promoted, it counts.
    let leader = cluster.elect();
    let token = cluster.change(leader, change().voter(id(4)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_eq!(cluster.status(4).membership, voters(&[1, 2, 3, 4]));
    cluster.assert_unharmed();
}

/// A joiner whose folder is empty and who was told of nobody: only a snapshot says who founded the group.
#[test]
fn a_joiner_with_an_empty_membership_is_brought_in_by_a_snapshot() {
    let mut cluster = Cluster::new(2, 3);
    let leader = cluster.elect();
    let tokens = cluster.propose_many(leader, 30, 100);
    cluster.run_until_done(&tokens);
    cluster.join(4);
    cluster.run_for(Duration::from_secs(2));
    assert_eq!(cluster.status(4).term, 0, "nobody disturbs it, and it disturbs nobody");
    let token = cluster.change(leader, change().learner(id(4)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    assert_eq!(cluster.node(4).machine().restores, 1);
    assert_eq!(cluster.node(leader).snapshots_begun, 1, "one snapshot is enough");
    assert_eq!(cluster.status(4).membership, cluster.status(leader).membership);
    // And it is remembered.
    cluster.crash(4);
    cluster.start(4);
    cluster.settle();
    cluster.assert_unharmed();
}

#[test]
fn two_come_and_one_goes_in_one_joint_change() {
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
        // The one that is gone disturbs nobody.
        let term = cluster.status(leader).term;
        cluster.run_for(Duration::from_secs(5));
        assert_eq!(cluster.status(leader).term, term);
        cluster.assert_unharmed();
    }
}

#[test]
fn a_joint_phase_outlives_its_leader() {
    for seed in 20..30 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        cluster.join(4);
        cluster.join(5);
        cluster.change(leader, change().voter(id(4)).voter(id(5)));
        // At some moment of the change.
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
    assert!(cluster.end(behind).is_some(), "nobody would tell it of it any more");
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
fn changes_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(5, 3);
    let leader = cluster.elect();
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let nobody = change().remove(id(1)).remove(id(2)).remove(id(3));
    let crowd = (10..200).fold(change(), |change, node| change.learner(id(node)));
    for refused in [change(), change().voter(id(4)).remove(id(4)), nobody, crowd] {
        let token = cluster.change(leader, refused);
        assert_eq!(cluster.dropped(token), Some(DropReason::ChangeInvalid));
    }
    let token = cluster.change(follower, change().learner(id(4)));
    assert_eq!(cluster.dropped(token), Some(DropReason::NotLeader { leader: Some(id(leader)) }));
    // Removing who is not there, and adding who is, changes nothing.
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
