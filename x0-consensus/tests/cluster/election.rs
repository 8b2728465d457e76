//! Elections and leadership transfers.

use std::time::Duration;

use x0_consensus::{DropReason, Fence, FencedRequest, Input, MembershipChange};

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

/// The first member that misses the leader may ask while the other one still waits for it, by the phases of
/// their ticks, and asks again soon: it does not wait for another election time.
#[test]
fn a_lost_leader_is_replaced_after_one_election_time() {
    for phase in 0..10 {
        // In the fourth term member 1 draws an election time of 10 ticks, and member 2 one of 20.
        let mut cluster =
            Cluster::with(phase, 3, Machine::default(), |options| options.seed = options.id.get());
        while cluster.status(3).term < 3 {
            let other = if cluster.elect() == 1 { 2 } else { 1 };
            cluster.elect_this(other);
        }
        cluster.elect_this(3);
        cluster.put();
        // The ticks of a member begin with its process.
        cluster.crash(1);
        cluster.run_for(Duration::from_millis(200 + phase * 5));
        cluster.start(1);
        cluster.run_for(Duration::from_secs(2));
        assert_eq!((cluster.leader(), cluster.status(3).term), (Some(3), 4));
        cluster.crash(3);
        let died = cluster.now;
        cluster.run_until("another leader", |cluster| cluster.leader().is_some());
        // 952 ms in most phases if it asks again after another election time.
        assert!(cluster.now - died < Duration::from_millis(700), "{:?}", cluster.now - died);
        cluster.settle();
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

/// The paths of a leader are cut for longer than an election timeout, and the transports say that they keep
/// the connections.
#[test]
fn a_leader_on_a_degraded_path_is_not_deposed() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        let term = cluster.status(leader).term;
        cluster.isolate(&[leader]);
        let lasting = cluster.propose(leader, 8);
        cluster.run_for(Duration::from_millis(300));
        for other in (1..=3).filter(|other| *other != leader) {
            cluster.feed(leader, Input::Degraded { peer: id(other) });
            cluster.feed(other, Input::Degraded { peer: id(leader) });
        }
        cluster.run_for(Duration::from_millis(500));
        cluster.heal();
        cluster.run_until_done(&[lasting]);
        cluster.run_for(Duration::from_secs(5));
        assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term), "seed {seed}");
        cluster.settle();
        cluster.assert_unharmed();
    }
}

/// The grace of a leader that has failed is bounded, and ends with the connection.
#[test]
fn a_crashed_leader_on_a_degraded_path_is_replaced() {
    for (is_kept, limit) in [(true, 2700), (false, 2200)] {
        for seed in 0..10 {
            let mut cluster = Cluster::new(seed, 3);
            let first = cluster.elect();
            cluster.crash(first);
            let died = cluster.now;
            for other in (1..=3).filter(|other| *other != first) {
                cluster.feed(other, Input::Degraded { peer: id(first) });
                if !is_kept {
                    cluster.feed(other, Input::Unreachable { peer: id(first) });
                }
            }
            assert_ne!(cluster.elect(), first);
            assert!(cluster.now - died < Duration::from_millis(limit), "{:?}", cluster.now - died);
            cluster.assert_unharmed();
        }
    }
}

/// The leader's messages arrive and no answers return: it steps down, and does not prevent the others from
/// electing a leader.
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
    assert_eq!(cluster.dropped(refused), Some(DropReason::Transferring));
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
    let change = MembershipChange::default().remove(id(1));
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

/// A leader that is well keeps its lease, and a voter takes over nevertheless; at the next moment nothing
/// else has changed.
#[test]
fn a_voter_takes_over_from_a_leader_that_does_not_answer() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.elect();
        cluster.settle();
        let heir = (1..=3).find(|node| *node != leader).unwrap();
        let (begun, term) = (cluster.now, cluster.status(leader).term);
        cluster.feed(heir, Input::TakeOver);
        cluster.run_until("the heir leads", |cluster| cluster.leader() == Some(heir));
        assert!(cluster.now - begun < Duration::from_millis(50), "seed {seed}: without an election time");
        assert_eq!(cluster.status(heir).term, term + 1, "seed {seed}");
        cluster.settle();
        cluster.assert_unharmed();
    }
}

/// A leader and a learner take over nothing, and a voter whose log is shorter is not elected.
#[test]
fn only_a_voter_with_a_whole_log_takes_over() {
    let mut cluster = Cluster::new(9, 3);
    let leader = cluster.elect();
    cluster.join(4);
    let token = cluster.change(leader, MembershipChange::default().learner(id(4)));
    cluster.run_until_done(&[token]);
    cluster.settle();
    let term = cluster.status(leader).term;
    cluster.feed(leader, Input::TakeOver);
    cluster.feed(4, Input::TakeOver);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
    let late = (1..=3).find(|node| *node != leader).unwrap();
    cluster.isolate(&[late]);
    let tokens = cluster.propose_many(leader, 20, 64);
    cluster.run_until_done(&tokens);
    cluster.heal();
    cluster.feed(late, Input::TakeOver);
    cluster.run_until("somebody leads in a later term", |cluster| {
        cluster.leader().is_some_and(|leader| cluster.status(leader).term > term)
    });
    assert_ne!(cluster.leader(), Some(late));
    cluster.settle();
    cluster.assert_unharmed();
}

#[test]
fn a_request_on_an_old_plan_is_stale() {
    let mut cluster = Cluster::new(10, 3);
    let leader = cluster.elect();
    cluster.settle();
    let to = (1..=3).find(|node| *node != leader).unwrap();
    let requests = || {
        [
            FencedRequest::TakeOver,
            FencedRequest::TransferLeadership { to: id(to) },
            FencedRequest::ChangeMembership(MembershipChange::default().learner(id(to))),
        ]
    };
    let present = cluster.status(leader).fence();
    assert_eq!(present, cluster.status(to).fence(), "another member may plan");
    let mut smaller = present.clone();
    smaller.membership.voters.remove(&id(to));
    for fence in [Fence { term: present.term + 1, ..present.clone() }, smaller] {
        for request in requests() {
            let token = cluster.fenced(leader, fence.clone(), request);
            assert_eq!(cluster.dropped(token), Some(DropReason::Stale));
        }
    }
    cluster.run_for(Duration::from_secs(1));
    assert_eq!((cluster.leader(), cluster.status(leader).fence()), (Some(leader), present.clone()));
    // On the present one they take effect, and so the plans of the same moment are old.
    let [take_over, transfer, change] = requests();
    let token = cluster.fenced(leader, present.clone(), change);
    cluster.run_until_done(&[token]);
    cluster.settle();
    let token = cluster.fenced(leader, present, transfer);
    assert_eq!(cluster.dropped(token), Some(DropReason::Stale));
    let heir = (1..=3).find(|node| *node != leader && *node != to).unwrap();
    let fence = cluster.status(leader).fence();
    cluster.fenced(leader, fence, FencedRequest::TransferLeadership { to: id(heir) });
    cluster.run_until("the heir leads", |cluster| cluster.leader() == Some(heir));
    cluster.settle();
    let fence = cluster.status(leader).fence();
    cluster.fenced(leader, fence, take_over);
    cluster.run_until("the first leads again", |cluster| cluster.leader() == Some(leader));
    cluster.settle();
    cluster.assert_unharmed();
}

/// A slow disk shows in the age of the oldest write, and heartbeats hide it: the leader stays.
#[test]
fn the_age_of_the_oldest_write_shows_a_slow_disk() {
    let mut cluster = Cluster::new(11, 3);
    let leader = cluster.elect();
    cluster.settle();
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.status(leader).writing_since, None);
    assert_eq!(cluster.status(leader).write_age(cluster.now), Duration::ZERO);
    let begun = cluster.now;
    // Of the leader's disk alone: its write is handed to the disk before the next line.
    let usual = std::mem::replace(&mut cluster.disk_latency, Duration::from_secs(2000));
    cluster.propose(leader, 64);
    cluster.disk_latency = usual;
    cluster.propose(leader, 64);
    cluster.run_for(Duration::from_secs(3));
    let status = cluster.status(leader);
    assert_eq!((status.writing_since, status.leader), (Some(begun), Some(id(leader))));
    assert_eq!(status.write_age(cluster.now), Duration::from_secs(3));
}

/// A follower knows of each member when it sent last, and the status says how long log and state take.
#[test]
fn every_replica_reports_the_last_messages_and_latencies() {
    let mut cluster = Cluster::new(23, 3);
    let leader = cluster.elect();
    cluster.settle();
    let done = cluster.propose(leader, 64);
    cluster.run_until_done(&[done]);
    cluster.run_for(Duration::from_secs(1));
    let recent = cluster.now - Duration::from_millis(200);
    for node in 1..=3 {
        let status = cluster.status(node);
        assert!(!status.last_messages.contains_key(&id(node)), "of the others only");
        if node == leader {
            assert_eq!(status.last_messages.len(), 2);
            assert!(status.last_messages.values().all(|at| *at > recent), "they answer heartbeats");
        } else {
            assert!(status.last_messages[&id(leader)] > recent);
            assert_eq!(status.leader_last_message, Some(status.last_messages[&id(leader)]));
        }
        // The latency of the disk varies around its mean.
        let usual = cluster.disk_latency / 2..cluster.disk_latency * 10;
        assert!(status.write_latency.is_some_and(|took| usual.contains(&took)), "{status:?}");
        assert!(status.apply_latency.is_some(), "{status:?}");
    }
    let away = (1..=3).find(|node| *node != leader).unwrap();
    let before = cluster.status(leader).membership_index;
    cluster.isolate(&[away]);
    let cut_at = cluster.now;
    cluster.run_for(Duration::from_secs(1));
    assert!(cluster.status(leader).last_messages[&id(away)] <= cut_at, "it is silent");
    let change = MembershipChange::default().remove(id(away));
    let token = cluster.change(leader, change);
    cluster.run_until_done(&[token]);
    cluster.settle();
    let mut status = cluster.status(leader);
    assert!(!status.last_messages.contains_key(&id(away)), "a former member is forgotten");
    let other = (1..=3).find(|node| ![leader, away].contains(node)).unwrap();
    let mut fresh = cluster.status(other);
    fresh.id = status.id;
    cluster.refresh(other, &mut status);
    assert_eq!(status, fresh, "a refreshed status is a new one, but for the id");
    let status = cluster.status(leader);
    assert!(status.membership_index > before && status.membership_index <= status.applied_index);
}
