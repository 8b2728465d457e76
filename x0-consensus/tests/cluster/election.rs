//! Elections and leadership transfers.

use std::time::Duration;

use x0_consensus::Input;

use crate::cluster::{Cluster, id};
use crate::machine::Machine;

#[test]
fn three_elect_one_and_replicate() {
    let mut cluster = Cluster::new(1, 3);
    let leader = cluster.elect();
    let tokens = cluster.propose_many(leader, 100, 64);
    cluster.run_until_done(&tokens);
    cluster.settle();
    assert_eq!(cluster.leaders.len(), 1, "one election is enough");
    cluster.assert_unharmed();
}

#[test]
fn the_only_voter_leads_at_once() {
    let mut cluster = Cluster::new(2, 1);
    assert!(cluster.nodes[&1].process.as_ref().unwrap().replica().is_leader());
    let token = cluster.propose(1, 8);
    cluster.run_until_done(&[token]);
    assert!(cluster.now < Duration::from_millis(50), "without a tick");
    cluster.crash(1);
    cluster.start(1);
    assert!(cluster.nodes[&1].process.as_ref().unwrap().replica().is_leader());
    cluster.put();
    cluster.assert_unharmed();
}

#[test]
fn a_crashed_leader_is_replaced() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let first = cluster.elect();
        let before = cluster.propose_many(first, 10, 32);
        cluster.run_until_done(&before);
        cluster.crash(first);
        let died = cluster.now;
        let second = cluster.elect();
        assert_ne!(first, second);
        // At most two election timeouts, and again if the two remaining members draw the same one.
        assert!(cluster.now - died < Duration::from_millis(2200), "{:?}", cluster.now - died);
        cluster.put();
        cluster.start(first);
        cluster.settle();
        assert_eq!(cluster.status(first).leader, Some(id(second)), "the old leader follows");
        cluster.assert_unharmed();
    }
}

/// Pre-vote: a member that was cut off does not return with a term that deposes the leader.
#[test]
fn a_member_that_was_cut_off_does_not_disturb_the_leader() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    let term = cluster.status(leader).term;
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.isolate(&[away]);
    cluster.run_for(Duration::from_secs(20));
    assert_eq!(cluster.status(away).term, term);
    assert_eq!(cluster.status(away).leader, None);
    cluster.heal();
    cluster.run_for(Duration::from_secs(5));
    assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
    cluster.settle();
    cluster.assert_unharmed();
}

/// Check-quorum: a leader without messages of a majority steps down.
#[test]
fn a_leader_that_is_cut_off_steps_down() {
    let mut cluster = Cluster::new(4, 3);
    let leader = cluster.elect();
    cluster.isolate(&[leader]);
    let lost = cluster.propose(leader, 8);
    let read = cluster.read(leader);
    // The leader steps down after an election timeout without a majority; the timeout that was running when
    // it was cut off may count.
    cluster.run_for(Duration::from_millis(1100));
    assert!(!cluster.nodes[&leader].process.as_ref().unwrap().replica().is_leader());
    assert!(cluster.dropped(read).is_some(), "no quorum has confirmed it");
    assert_eq!(cluster.end(lost), None, "its fate is not known");
    let other = cluster.elect();
    assert_ne!(other, leader);
    cluster.heal();
    cluster.settle();
    assert!(cluster.dropped(lost).is_some());
    cluster.assert_unharmed();
}

/// Its messages arrive and no answers return: it steps down, and does not prevent the others from electing a
/// leader.
#[test]
fn a_leader_that_hears_nothing_steps_down() {
    let mut cluster = Cluster::new(5, 3);
    let leader = cluster.elect();
    for other in (1..=3).filter(|other| *other != leader) {
        cluster.network.cuts.insert((other, leader));
    }
    cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|other| other != leader));
    cluster.heal();
    cluster.settle();
    cluster.assert_unharmed();
}

#[test]
fn leadership_is_transferred() {
    let mut cluster = Cluster::new(6, 3);
    let leader = cluster.elect();
    let to = (1..=3).find(|node| *node != leader).unwrap();
    cluster.propose_many(leader, 50, 1000);
    let begun = cluster.now;
    cluster.feed(leader, Input::TransferLeadership { to: id(to) });
    let refused = cluster.propose(leader, 8);
    assert_eq!(cluster.dropped(refused), Some(x0_consensus::DropReason::Transferring));
    cluster.run_until("the other leads", |cluster| cluster.leader() == Some(to));
    assert!(cluster.now - begun < Duration::from_millis(50), "without an election time");
    cluster.settle();
    cluster.assert_unharmed();
}

/// A transfer that is requested from a follower has no effect.
#[test]
fn only_a_leader_transfers_the_leadership() {
    let mut cluster = Cluster::new(7, 3);
    let leader = cluster.elect();
    let [one, two] = [1, 2, 3].into_iter().filter(|node| *node != leader).collect::<Vec<_>>()[..] else {
        panic!("there are two others")
    };
    cluster.feed(one, Input::TransferLeadership { to: id(two) });
    cluster.run_for(Duration::from_secs(3));
    assert_eq!(cluster.leader(), Some(leader));
    // A transfer to a node that is down is abandoned after an election timeout.
    cluster.feed(leader, Input::TransferLeadership { to: id(77) });
    cluster.crash(one);
    cluster.feed(leader, Input::TransferLeadership { to: id(one) });
    cluster.run_for(Duration::from_secs(2));
    cluster.put();
    cluster.assert_unharmed();
}

#[test]
fn a_voter_does_not_campaign_before_its_log_is_durable() {
    // A group of two whose leader removes itself: the other member is the only voter while its disk hangs.
    let mut cluster = Cluster::new(8, 2);
    cluster.elect_this(1);
    cluster.settle();
    let change = x0_consensus::MembershipChange::default().remove(id(1));
    let token = cluster.change(1, change);
    cluster.run_until_done(&[token]);
    cluster.run_until("the other leads", |cluster| cluster.leader() == Some(2));
    cluster.put();
    cluster.assert_unharmed();
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut cluster = Cluster::with(seed, 5, Machine::default(), |_| {});
        cluster.trace = Some(0);
        cluster.network.loss = 100;
        cluster.network.jitter = Duration::from_millis(20);
        for round in 0..5 {
            let leader = cluster.elect();
            cluster.propose_many(leader, 20, 50);
            cluster.crash(leader);
            cluster.run_for(Duration::from_millis(700 + 100 * round));
            cluster.start(leader);
        }
        (cluster.trace, cluster.leaders)
    };
    assert_eq!(run(9), run(9));
    assert_ne!(run(9).0, run(10).0);
}
