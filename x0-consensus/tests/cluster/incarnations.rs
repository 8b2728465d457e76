//! Emptied and rolled-back folders: no committed entry is lost, the group refuses service while too many
//! folders are lost, and a member with a lost folder returns by itself.

use std::time::Duration;

use x0_consensus::sim::SimDirectory;
use x0_consensus::{DropReason, FailReason, Input, MembershipChange, Standing};

use crate::cluster::{Cluster, id};
use crate::machine::Machine;
use crate::network::pick;

fn cluster(seed: u64, size: u64) -> Cluster {
    Cluster::with_incarnations(seed, size, Machine::default(), |_| {})
}

fn standing(cluster: &Cluster, node: u64) -> Standing {
    cluster.status(node).standing
}

fn are_all_members(cluster: &Cluster) -> bool {
    let mut nodes = cluster.nodes.keys();
    nodes.all(|node| cluster.is_up(*node) && standing(cluster, *node) == Standing::Member)
}

/// The leader and the others.
fn roles(cluster: &mut Cluster) -> (u64, Vec<u64>) {
    let leader = cluster.elect();
    let others = cluster.nodes.keys().copied().filter(|node| *node != leader).collect();
    (leader, others)
}

#[test]
fn a_group_is_founded_when_all_founders_have_answered() {
    let mut cluster = Cluster::with_incarnations(1, 0, Machine::default(), |_| {});
    cluster.network.loss = 1000;
    cluster.found(3);
    cluster.crash(3);
    cluster.network.loss = 0;
    cluster.run_for(Duration::from_secs(20));
    assert_eq!(cluster.leader(), None, "the third founder may know a group");
    assert_eq!(standing(&cluster, 1), Standing::Founding { missing: [id(3)].into() });
    cluster.start(3);
    cluster.settle();
    assert!(are_all_members(&cluster));
    let membership = cluster.status(1).membership;
    assert!(membership.cluster != 0);
    for node in 1..=3 {
        let registered = membership.incarnations[&id(node)];
        assert_eq!(registered.incarnation, cluster.node(node).options.incarnation);
    }
    cluster.assert_unharmed();
}

/// The reproduction V2 of issue 10: C is down, A and B acknowledge, B is emptied, and C and B would be a
/// majority without the entry.
#[test]
fn an_emptied_member_does_not_make_a_majority_without_an_acknowledged_entry() {
    for seed in 0..20 {
        let mut cluster = cluster(seed, 3);
        cluster.settle();
        let (a, others) = roles(&mut cluster);
        let (b, c) = (others[0], others[1]);
        cluster.crash(c);
        let token = cluster.put();
        cluster.crash(a);
        cluster.crash(b);
        cluster.empty(b);
        cluster.start(b);
        cluster.start(c);
        cluster.run_for(Duration::from_secs(30));
        assert_eq!(cluster.leader(), None, "seed {seed}");
        assert!(matches!(standing(&cluster, b), Standing::Rejoining { registered } if registered != 0));
        cluster.start(a);
        cluster.settle();
        cluster.run_until("B votes again", are_all_members);
        assert!(cluster.is_done(token));
        assert_eq!(cluster.status(a).membership.voters.len(), 3, "the number of voters is as it was");
        // B counts again: with A down, B and C are a majority that has everything.
        cluster.settle();
        cluster.crash(a);
        cluster.put();
        cluster.assert_unharmed();
    }
}

/// Without incarnations the same steps lose the entry: the test above tests something.
#[test]
fn without_incarnations_the_entry_is_lost() {
    let mut cluster = Cluster::new(1, 3);
    cluster.settle();
    let (a, others) = roles(&mut cluster);
    cluster.crash(others[1]);
    cluster.put();
    cluster.crash(a);
    cluster.crash(others[0]);
    cluster.empty(others[0]);
    cluster.start(others[0]);
    cluster.start(others[1]);
    let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.elect()));
    assert!(lost.is_err(), "a leader without the entry was elected, and the harness did not notice");
}

#[test]
fn a_restored_copy_is_adopted_as_another_incarnation() {
    for seed in 0..20 {
        let mut cluster = cluster(seed, 3);
        cluster.settle();
        let (a, others) = roles(&mut cluster);
        let (b, c) = (others[0], others[1]);
        let backup = cluster.backup(b);
        cluster.crash(c);
        for _ in 0..20 {
            cluster.put();
        }
        cluster.crash(a);
        cluster.crash(b);
        cluster.replace_folder(b, backup.0, backup.1);
        cluster.start(b);
        cluster.start(c);
        cluster.run_for(Duration::from_secs(30));
        assert_eq!(cluster.leader(), None, "seed {seed}");
        cluster.start(a);
        cluster.settle();
        cluster.run_until("B votes again", are_all_members);
        cluster.assert_unharmed();
    }
}

/// The first folder of a member returns after an emptied one was registered in its place.
#[test]
fn an_older_folder_is_another_incarnation_again() {
    let mut cluster = cluster(3, 3);
    cluster.settle();
    let (_, others) = roles(&mut cluster);
    let b = others[0];
    cluster.crash(b);
    let first = (cluster.node(b).directory.fork(), cluster.node(b).machine());
    let incarnation = cluster.node(b).options.incarnation;
    cluster.empty(b);
    cluster.start(b);
    cluster.run_until("the emptied folder votes", are_all_members);
    cluster.put();
    cluster.settle();
    cluster.crash(b);
    cluster.replace_folder(b, first.0, first.1);
    cluster.start(b);
    assert_eq!(cluster.node(b).options.incarnation, incarnation);
    cluster.run_until("the first folder votes", |cluster| {
        let registered = cluster.leader().map(|leader| cluster.status(leader).membership.incarnations);
        registered.is_some_and(|held| held[&id(b)].incarnation == incarnation) && are_all_members(cluster)
    });
    cluster.settle();
    cluster.assert_unharmed();
}

/// A disk that is rolled back as a whole has its old incarnation. The leader that saw the acknowledgements
/// knows better.
#[test]
fn a_disk_that_was_rolled_back_is_detected_by_a_leader_that_saw_more() {
    let mut cluster = cluster(4, 3);
    cluster.settle();
    let (a, others) = roles(&mut cluster);
    let b = others[0];
    let image = (cluster.node(b).directory.fork(), cluster.node(b).machine());
    image.0.crash(x0_consensus::sim::Unsynced::Lost);
    for _ in 0..20 {
        cluster.put();
    }
    cluster.settle();
    cluster.run_for(Duration::from_secs(1));
    let process = cluster.node(a).process.as_ref().unwrap();
    let seen = process.replica().acknowledged().clone();
    assert!(seen[&id(b)].index >= 20);
    cluster.crash(b);
    cluster.replace_folder(b, image.0, image.1);
    // Also after a restart, if the caller has kept it. The vote of the third member is not needed then.
    cluster.crash(others[1]);
    cluster.crash(a);
    cluster.nodes.get_mut(&a).unwrap().options.acknowledged = seen;
    cluster.start(a);
    cluster.start(b);
    cluster.run_until("the member notices", |cluster| cluster.node(b).failed.is_some());
    assert_eq!(cluster.node(b).failed, Some(FailReason::LogLost));
}

/// The leader became a member after the image was made, so that the log does not know it. It names the
/// incarnation of the log, and no stranger could.
#[test]
fn a_disk_that_was_rolled_back_is_detected_by_a_member_that_it_does_not_know() {
    let mut cluster = cluster(6, 3);
    cluster.settle();
    let (a, others) = roles(&mut cluster);
    let b = others[0];
    let image = (cluster.node(b).directory.fork(), cluster.node(b).machine());
    image.0.crash(x0_consensus::sim::Unsynced::Lost);
    cluster.join(4);
    let learner = cluster.change(a, MembershipChange::default().learner(id(4)));
    cluster.run_until_done(&[learner]);
    cluster.run_until("the learner is registered", |cluster| {
        cluster.status(a).membership.incarnations.contains_key(&id(4))
    });
    cluster.settle();
    let voter = cluster.change(a, MembershipChange::default().voter(id(4)));
    cluster.run_until_done(&[voter]);
    cluster.settle();
    cluster.elect_this(4);
    for _ in 0..20 {
        cluster.put();
    }
    cluster.settle();
    cluster.crash(b);
    cluster.replace_folder(b, image.0, image.1);
    cluster.start(b);
    cluster.run_until("the member notices", |cluster| cluster.node(b).failed.is_some());
    assert_eq!(cluster.node(b).failed, Some(FailReason::LogLost));
    // By the first message of the leader, and not by the answers to a campaign of its own.
    assert_eq!(cluster.node(b).refused, []);
}

/// The image of the disk is of the time before the group was founded, so that the log has no membership.
#[test]
fn a_disk_that_was_rolled_back_to_the_time_before_the_founding_is_detected() {
    // The others know the founding only from a snapshot.
    let compact = |options: &mut x0_consensus::Options| {
        (options.checkpoint_log_len, options.retained_entries) = (2000, 0);
    };
    let mut cluster = Cluster::with_incarnations(9, 3, Machine::default(), compact);
    let images: Vec<_> =
        (1..=3).map(|node| (cluster.node(node).directory.fork(), cluster.node(node).machine())).collect();
    cluster.settle();
    let (a, others) = roles(&mut cluster);
    let b = others[0];
    for _ in 0..10 {
        cluster.propose_many(a, 10, 100);
        cluster.settle();
    }
    cluster.run_for(Duration::from_secs(1));
    cluster.crash(b);
    cluster.crash(others[1]);
    let image = images.into_iter().nth(usize::try_from(b).unwrap() - 1).unwrap();
    image.0.crash(x0_consensus::sim::Unsynced::Kept);
    cluster.replace_folder(b, image.0, image.1);
    let seen = cluster.node(a).process.as_ref().unwrap().replica().acknowledged().clone();
    cluster.crash(a);
    cluster.nodes.get_mut(&a).unwrap().options.acknowledged = seen;
    cluster.start(b);
    cluster.start(a);
    cluster.run_until("the member notices", |cluster| cluster.node(b).failed.is_some());
    assert_eq!(cluster.node(b).failed, Some(FailReason::LogLost));
    assert_eq!(cluster.leader(), None, "it has voted before it noticed");
}

/// The copy ends in entries that were never committed, and that the group has replaced since.
#[test]
fn a_restored_copy_does_not_commit_the_entries_at_its_end() {
    let mut cluster = cluster(11, 3);
    cluster.settle();
    let (a, _) = roles(&mut cluster);
    cluster.isolate(&[a]);
    cluster.propose_many(a, 5, 100);
    cluster.run_for(Duration::from_millis(100));
    let backup = cluster.backup(a);
    cluster.crash(a);
    cluster.heal();
    cluster.elect();
    for _ in 0..20 {
        cluster.put();
    }
    cluster.start(a);
    cluster.settle();
    cluster.crash(a);
    // Nothing is under way to the copy: its first message is a heartbeat of the leader, which counts on the
    // lost folder until it receives a message of the new one.
    cluster.run_for(Duration::from_secs(1));
    cluster.replace_folder(a, backup.0, backup.1);
    cluster.start(a);
    cluster.run_until("the copy votes", are_all_members);
    cluster.settle();
    cluster.assert_unharmed();
}

/// No write follows a registration, all members restart, and another one has lost its folder meanwhile.
#[test]
fn a_registration_is_known_after_a_restart_of_all() {
    for seed in 0..10 {
        let mut cluster = cluster(seed, 3);
        cluster.settle();
        let (_, others) = roles(&mut cluster);
        cluster.crash(others[0]);
        cluster.empty(others[0]);
        cluster.start(others[0]);
        cluster.run_until("the emptied folder votes", are_all_members);
        cluster.run_for(Duration::from_secs(1));
        (1..=3).for_each(|node| cluster.crash(node));
        cluster.empty(others[1]);
        (1..=3).for_each(|node| cluster.start(node));
        cluster.run_until("the second emptied folder votes", are_all_members);
        cluster.settle();
        cluster.assert_unharmed();
    }
}

#[test]
fn with_too_many_folders_lost_there_is_no_service() {
    let mut cluster = cluster(5, 3);
    cluster.settle();
    for node in 2..=3 {
        cluster.crash(node);
        cluster.empty(node);
    }
    cluster.crash(1);
    cluster.start(2);
    cluster.start(3);
    cluster.run_for(Duration::from_secs(10));
    assert_eq!(standing(&cluster, 2), Standing::Founding { missing: [id(1)].into() });
    cluster.start(1);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(cluster.leader(), None);
    for node in 2..=3 {
        assert!(matches!(standing(&cluster, node), Standing::Rejoining { .. }));
    }
}

#[test]
fn a_voter_that_was_never_heard_of_is_refused() {
    let mut cluster = cluster(6, 3);
    cluster.settle();
    cluster.join(4);
    assert_eq!(standing(&cluster, 4), Standing::Outsider);
    let (leader, _) = roles(&mut cluster);
    let refused = cluster.change(leader, MembershipChange::default().voter(id(4)));
    assert_eq!(cluster.dropped(refused), Some(DropReason::ChangeInvalid));
    let learner = cluster.change(leader, MembershipChange::default().learner(id(4)));
    cluster.run_until_done(&[learner]);
    cluster.run_until("the learner is registered", |cluster| {
        cluster.status(leader).membership.incarnations.contains_key(&id(4))
    });
    cluster.settle();
    let leader = cluster.elect();
    let voter = cluster.change(leader, MembershipChange::default().voter(id(4)));
    cluster.run_until_done(&[voter]);
    cluster.settle();
    cluster.assert_unharmed();
}

#[test]
fn the_only_voter_and_a_pair_have_leaders() {
    let mut one = cluster(7, 1);
    one.settle();
    one.assert_unharmed();
    let mut pair = cluster(8, 2);
    pair.settle();
    let (_, others) = roles(&mut pair);
    pair.crash(others[0]);
    pair.empty(others[0]);
    pair.start(others[0]);
    pair.run_until("the emptied member votes", are_all_members);
    pair.settle();
    pair.assert_unharmed();
}

/// A node of another group is refused.
#[test]
fn members_of_two_clusters_do_not_mix() {
    let mut ours = cluster(9, 3);
    ours.settle();
    let mut other = cluster(10, 3);
    other.settle();
    let stranger = (other.node(3).directory.fork(), other.node(3).machine());
    stranger.0.crash(x0_consensus::sim::Unsynced::Lost);
    ours.crash(3);
    ours.replace_folder(3, stranger.0, stranger.1);
    ours.start(3);
    ours.run_for(Duration::from_secs(5));
    assert!(!ours.node(3).refused.is_empty());
    assert!(ours.node(3).refused[0].to_string().contains("another cluster"), "{}", ours.node(3).refused[0]);
}

/// The number of nodes whose folders do not count now.
fn lost(cluster: &Cluster) -> usize {
    let counts = |node: u64| cluster.is_up(node) && standing(cluster, node) == Standing::Member;
    cluster.nodes.keys().filter(|node| !counts(**node)).count()
}

/// A random fault or request.
fn act(cluster: &mut Cluster, backups: &mut [Option<(SimDirectory, Machine)>]) {
    let all: Vec<_> = cluster.nodes.keys().copied().collect();
    let (up, down): (Vec<_>, Vec<_>) = all.iter().partition(|node| cluster.is_up(**node));
    let Some(one) = pick(&mut cluster.random, &all) else { return };
    let place = usize::try_from(one - 1).unwrap();
    let minority = (all.len() - 1) / 2;
    match cluster.random.below(100) {
        0..35 => {
            let leader = cluster.leader().or(pick(&mut cluster.random, &up));
            if let Some(leader) = leader {
                let count = cluster.random.below(8);
                cluster.propose_many(leader, count, 100);
            }
        }
        35..45 => {
            if let Some(node) = pick(&mut cluster.random, &up) {
                cluster.read(node);
            }
        }
        45..55 if down.len() < minority || cluster.random.chance(200) => cluster.crash(one),
        55..68 => {
            if let Some(node) = pick(&mut cluster.random, &down) {
                cluster.start(node);
            }
        }
        68..73 => cluster.isolate(&[one]),
        73..82 => cluster.heal(),
        82..86 => {
            if let Some(leader) = cluster.leader() {
                cluster.feed(leader, Input::TransferLeadership { to: id(one) });
            }
        }
        86..90 => backups[place] = Some(cluster.backup(one)),
        // Folders are lost while the others that count are a majority: then the group recovers.
        90..100 if lost(cluster) < minority || !cluster.is_up(one) && lost(cluster) <= minority => {
            cluster.crash(one);
            match backups[place].take().filter(|_| cluster.random.chance(500)) {
                Some((directory, machine)) => cluster.replace_folder(one, directory, machine),
                None => cluster.empty(one),
            }
            if cluster.random.chance(800) {
                cluster.start(one);
            }
        }
        _ => {}
    }
}

fn storm(seed: u64) -> u64 {
    let size = [3, 3, 5][usize::try_from(seed % 3).unwrap()];
    let machine = Machine { is_durable: seed.is_multiple_of(2), snapshot_len: 500, ..Machine::default() };
    let mut cluster = Cluster::with_incarnations(seed, size, machine, |options| {
        options.checkpoint_log_len = 4000;
        options.retained_entries = 30;
        options.cache_len_max = 5000;
        options.message_len_max = 2000;
        options.chunk_len = 300;
    });
    cluster.settle();
    let mut backups: Vec<Option<(SimDirectory, Machine)>> = (0..size).map(|_| None).collect();
    for _ in 0..200 {
        act(&mut cluster, &mut backups);
        let pause = Duration::from_micros(cluster.random.below(150_000));
        cluster.run_for(pause);
    }
    cluster.heal();
    for node in 1..=size {
        if !cluster.is_up(node) {
            cluster.start(node);
        }
    }
    cluster.settle();
    cluster.run_until("all members vote again", are_all_members);
    cluster.settle();
    let leader = cluster.elect();
    assert_eq!(cluster.status(leader).membership.voters.len() as u64, size);
    cluster.assert_unharmed();
    cluster.invariants.last_committed()
}

/// Amnesia and rollback at random moments. The invariants of the harness hold at each step: no leader lacks a
/// committed entry, no term has two leaders, no read is stale. `X0_SEEDS=1000..2000` runs other seeds.
#[test]
fn storms_with_lost_folders_violate_no_invariant() {
    let mut committed = 0;
    for seed in crate::random::seeds(0..60) {
        let result = std::panic::catch_unwind(|| storm(seed));
        let Ok(ran) = result else { panic!("seed {seed}") };
        committed += ran;
    }
    assert!(committed > 1000, "{committed}: nothing was tested");
}
