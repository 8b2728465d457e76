//! Members that catch up under load.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::machine::Machine;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Proposes `count` commands of `len` bytes, ten at a time.
fn fill(cluster: &mut Cluster, count: u64, len: usize) {
    for _ in 0..count.div_ceil(10) {
        let leader = cluster.elect();
        let tokens = cluster.propose_many(leader, 10, len);
        cluster.run_until("ends", |cluster| tokens.iter().all(|token| cluster.end(*token).is_some()));
    }
}

/// How long a member takes to get 4 MiB of entries that it missed. With a load, a small proposal is always on
/// its way, and proposals are slower than before the member returned.
fn catch_up(seed: u64, is_loaded: bool, change: fn(&mut x0_consensus::Options)) -> Duration {
    let mut cluster = Cluster::with(seed, 3, Machine { is_durable: true, ..Machine::default() }, change);
    let leader = cluster.elect();
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.isolate(&[away]);
    fill(&mut cluster, 512, 8192);
    // The usual latency is known.
    for _ in 0..200 {
        fill(&mut cluster, 10, 10);
    }
    let missing = cluster.status(leader).last_index;
    if is_loaded {
        cluster.disk_latency = 20 * MILLISECOND;
    }
    cluster.heal();
    cluster.run_until("the member is heard", |cluster| {
        let progress = cluster.nodes[&leader].process.as_ref().unwrap().replica().progress();
        progress.iter().any(|member| member.id.get() == away && member.matched_index > 0)
    });
    let begun = cluster.now;
    while cluster.status(away).last_index < missing {
        if is_loaded {
            fill(&mut cluster, 1, 10);
        } else {
            cluster.run_for(MILLISECOND);
        }
        assert!(cluster.now - begun < Duration::from_secs(60), "the member never catches up");
    }
    let took = cluster.now - begun;
    // 512 KiB each, and not one for every proposal.
    let fetches = cluster.node(leader).fetches;
    assert!(fetches <= 20, "{fetches} fetches of 4 MiB");
    cluster.settle();
    cluster.assert_unharmed();
    took
}

/// From memory, and from the disk.
const SOURCES: [fn(&mut x0_consensus::Options); 2] = [|_| (), |options| options.cache_len_max = 100_000];

#[test]
fn a_backlog_yields_to_proposals_and_still_arrives() {
    for (seed, source) in (100..).zip(SOURCES) {
        let (loaded, alone) = (catch_up(seed, true, source), catch_up(seed, false, source));
        // The floor of 128 KiB per tick of 50 ms.
        let floor = Duration::from_millis(50 * 4096 / 128);
        assert!(loaded >= floor / 2 && loaded < floor * 3 / 2, "{loaded:?}, {floor:?} at the floor");
        assert!(alone < floor / 2, "{alone:?} without proposals");
    }
}

/// A snapshot that takes longer than the log lasts between two checkpoints would be followed by another one,
/// without end.
#[test]
fn the_log_after_a_snapshot_that_is_sent_is_kept() {
    for seed in 110..120 {
        let machine = Machine { snapshot_len: 100_000, is_durable: true, ..Machine::default() };
        let mut cluster = Cluster::with(seed, 3, machine, |options| {
            options.checkpoint_log_len = 20_000;
            options.retained_entries = 10;
            options.chunk_len = 1000;
        });
        cluster.network.delay_min = 5 * MILLISECOND;
        let leader = cluster.elect();
        let away = (1..=3).find(|node| *node != leader).unwrap();
        cluster.isolate(&[away]);
        fill(&mut cluster, 200, 500);
        cluster.heal();
        let checkpoints = cluster.node(leader).machine().checkpoints;
        while cluster.node(away).machine().restores == 0 {
            fill(&mut cluster, 10, 500);
        }
        let passed = cluster.node(leader).machine().checkpoints - checkpoints;
        assert!(passed >= 2, "{passed} checkpoints while the snapshot was sent: the test shows nothing");
        cluster.settle();
        assert_eq!(cluster.node(away).machine().restores, 1, "entries followed the snapshot");
        // Once the member has caught up, the log is shortened again.
        fill(&mut cluster, 200, 500);
        cluster.settle();
        let process = cluster.nodes.get_mut(&leader).unwrap().process.as_mut().unwrap();
        let applied = process.replica().status().applied_index;
        let kept = (1..=applied).filter(|index| {
            use x0_consensus::Storage as _;
            process.log.storage().term(*index).unwrap().is_some()
        });
        assert!(kept.count() < 120, "the log was not shortened");
        cluster.assert_unharmed();
    }
}
