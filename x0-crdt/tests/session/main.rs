//! [`Session`](x0_crdt::Session)s over a network in virtual time: loss, doubling, reordering, partitions,
//! restarts, slow links.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod backups;
mod churn;
mod clash;
mod hostile;
mod idle;
mod net;
#[path = "../support/pump.rs"]
mod pump;
mod push;
#[path = "../map/random.rs"]
mod random;
mod ranges;
mod references;
mod slices;
mod stalemate;
mod steps;
#[path = "../support/subject.rs"]
mod subject;

use std::time::Duration;

use net::{Link, Net};
use random::Random;
use subject::{Composed, Subject};
use x0_crdt::{CausalMap, CausalReplica, ReplicaId, SessionOptions};

/// Seeds to try: many more with `X0_CRDT_SEEDS`.
fn seeds(default: u64) -> u64 {
    std::env::var("X0_CRDT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn fill<R: Subject>(map: &mut R, keys: u64, random: &mut Random) {
    for number in 0..keys {
        map.put_value(format!("key-{number:06}").as_bytes(), 0, &random.next().to_le_bytes()[..4]);
    }
}

#[test]
fn replicas_in_sync_spend_28_bytes_to_know_it_with_a_thousand_writers_retired() {
    let mut net = Net::<CausalMap>::new(2, 1, &SessionOptions::default(), Link::default());
    let mut writer = 0;
    for _ in 0..1_000 {
        writer += 1;
        net.write_as(0, writer, b"shared", b"value");
    }
    net.run_until_in_sync(Duration::from_secs(60));
    net.run(Duration::from_secs(5));
    assert_eq!(net.map(0).version().len(), 1_000);
    // Both ask at once, for they came to be in sync at once: neither answers what its own question answers.
    let before = net.bytes();
    net.run(Duration::from_secs(9));
    assert_eq!(net.bytes() - before, 28);
    // One asks, the other answers.
    net.run(Duration::from_secs(5));
    let before = net.bytes();
    net.changed(0);
    net.run(Duration::from_secs(4));
    assert_eq!(net.bytes() - before, 28);
}

/// A radio.
fn radio() -> SessionOptions {
    SessionOptions::default()
        .datagram_len_max(256)
        .bytes_per_second(1_000)
        .retry_min(Duration::from_millis(200))
}

/// A thousand changes over a link of one kilobyte a second, cut for half a minute at `cut`: how long that
/// takes, and how many bytes.
fn cross(loss: u64, cut: Option<Duration>, seed: u64) -> (Duration, u64) {
    let link = Link { bytes_per_second: 1_000, delay: Duration::from_millis(50), loss, ..Link::default() };
    let mut random = Random::new(seed);
    let mut net = Net::<CausalMap>::new(2, seed, &radio(), Link::default());
    fill(net.map_mut(0), 20_000, &mut random);
    net.fast_forward();
    net.set_link(link);
    for _ in 0..1_000 {
        let key = format!("key-{:06}", random.below(20_000));
        net.map_mut(0).put(key.as_bytes(), 0, &random.next().to_le_bytes()[..4]).unwrap();
    }
    net.changed(0);
    let begin = net.now();
    let before = net.bytes();
    if let Some(cut) = cut {
        net.run(cut);
        net.set_cut(true);
        net.run(Duration::from_secs(30));
        net.set_cut(false);
    }
    net.run_until_agreed(Duration::from_secs(120));
    let took = net.now() - begin;
    net.run_until_in_sync(Duration::from_secs(120));
    (took, net.bytes() - before)
}

fn median<T: Ord + Copy>(all: impl Iterator<Item = T>) -> T {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn a_thousand_changes_cross_a_link_of_one_kilobyte_a_second_that_loses_a_third() {
    let (_, lossless) = cross(0, None, 1);
    let crossed: Vec<_> = (0..20).map(|seed| cross(30, None, seed)).collect();
    let worst = crossed.iter().map(|(took, _)| *took).max().unwrap();
    assert!(worst < Duration::from_secs(20), "{worst:?}");
    let took = median(crossed.iter().map(|(took, _)| *took));
    let bytes = median(crossed.iter().map(|(_, bytes)| *bytes));
    println!("lossless {lossless} B; with 30 % loss {bytes} B in {took:?} (medians of 20)");
    assert!(bytes * 10 <= lossless * 16, "{bytes} of {lossless}");
    assert!(took <= Duration::from_secs(15), "{took:?}");
}

/// A third is lost, so 1.43 times the bytes are owed to that; a cut may not cost much more, wherever it
/// comes.
#[test]
fn a_cut_of_half_a_minute_on_top_of_losses_costs_little_wherever_it_comes() {
    let (_, lossless) = cross(0, None, 1);
    for cut in (500..10_000).step_by(3_000).map(Duration::from_millis) {
        let bytes = median((0..20).map(|seed| cross(30, Some(cut), seed).1));
        println!("cut after {cut:?}: {bytes} of {lossless} B");
        assert!(bytes * 10 <= lossless * 16, "cut after {cut:?}: {bytes} of {lossless} B");
    }
}

#[test]
fn a_peer_that_falls_silent_is_sent_no_more_than_it_may_take_to_notice() {
    let mut random = Random::new(3);
    let link = Link { bytes_per_second: 1_000, delay: Duration::from_millis(50), ..Link::default() };
    let mut net = Net::<CausalMap>::new(2, 1, &radio(), link);
    fill(net.map_mut(0), 5_000, &mut random);
    net.changed(0);
    net.run(Duration::from_secs(5));
    assert!(!net.session(0).is_in_sync());
    net.set_cut(true);
    let before = net.session(0).stats().sent_bytes;
    net.run(Duration::from_secs(300));
    let in_vain = net.session(0).stats().sent_bytes - before;
    // Four fifths of a second of parts, and a greeting now and then.
    assert!((500..2_500).contains(&in_vain), "{in_vain}");
    net.set_cut(false);
    net.run_until_in_sync(Duration::from_secs(300));
}

#[test]
fn a_partition_in_the_middle_of_a_transfer_costs_no_part_twice() {
    let link = Link { bytes_per_second: 1_000, delay: Duration::from_millis(50), ..Link::default() };
    let mut random = Random::new(1);
    let mut net = Net::<CausalMap>::new(2, 1, &radio(), link);
    fill(net.map_mut(0), 1_000, &mut random);
    net.changed(0);
    net.run(Duration::from_secs(4));
    net.set_cut(true);
    net.run(Duration::from_secs(60));
    net.set_cut(false);
    net.run_until_in_sync(Duration::from_secs(60));
    let redundant = net.session(1).stats().redundant_bytes;
    assert!(redundant <= 1_024, "{redundant}");
}

#[test]
fn states_without_a_common_history_cost_what_differs() {
    // Some 80 values differ; all of the state would be 100 kB.
    reconcile::<CausalMap>(12_000);
    // Two values for each key, each with its path and its dot.
    reconcile::<CausalReplica<Composed>>(24_000);
}

fn reconcile<R: Subject>(bytes_max: u64) {
    let mut net = Net::<R>::new(2, 1, &SessionOptions::default(), Link::default());
    let mut random = Random::new(1);
    fill(net.map_mut(0), 10_000, &mut random);
    net.fast_forward();
    // Each side changes, removes and adds, and then forgets how.
    for at in 0..2 {
        for number in 0..30 {
            let key = format!("key-{:06}", random.below(10_000));
            match number % 3 {
                0 => net.map_mut(at).put_value(key.as_bytes(), 0, b"changed"),
                1 => drop(net.map_mut(at).remove_key(key.as_bytes())),
                _ => net.map_mut(at).put_value(format!("new-{at}-{number}").as_bytes(), 0, b"new"),
            }
        }
        let version = net.map(at).version();
        net.map_mut(at).collect_tombstones(&version);
        net.changed(at);
    }
    let before = net.bytes();
    net.run_until_in_sync(Duration::from_secs(60));
    net.check(1);
    let bytes = net.bytes() - before;
    let reconciliations: u64 = (0..2).map(|at| net.session(at).stats().reconciliations).sum();
    assert!(reconciliations >= 1);
    assert!(bytes < bytes_max, "{bytes}");
}

/// A writer that gives two replicas two contents of its events, without any chain that could tell.
#[test]
fn contents_of_one_event_that_differ_become_the_same() {
    resolve::<CausalMap>();
    resolve::<CausalReplica<Composed>>();
}

fn resolve<R: Subject>() {
    // Many values are compared by sketches; few are sent as a whole.
    for (keys, same_key) in [(5, true), (5, false), (200, true), (200, false)] {
        let mut net = Net::<R>::new(2, 1, &SessionOptions::default(), Link::default());
        let mut honest = R::create(ReplicaId::new(7));
        for number in 0..keys {
            honest.put_value(format!("key-{number}").as_bytes(), 0, b"value");
        }
        for at in 0..2 {
            let mut equivocating = R::create(ReplicaId::new(9));
            let place = if same_key { 0 } else { at };
            equivocating.put_value(format!("event-{place}").as_bytes(), 0, &[at as u8; 3]);
            for from in [&honest, &equivocating] {
                net.map_mut(at).take_from(from, false);
            }
        }
        net.expect_equivocation();
        assert_eq!(net.map(0).version(), net.map(1).version());
        assert_ne!(net.map(0).frontier(), net.map(1).frontier());
        net.changed(0);
        net.changed(1);
        net.run_until_in_sync(Duration::from_secs(10));
        assert_eq!(net.map(0).state_bytes(), net.map(1).state_bytes());
        let kept: Vec<_> =
            ["event-0", "event-1"].iter().flat_map(|key| net.map(0).values(key.as_bytes())).collect();
        assert_eq!(kept, [[1; 3]], "{keys} keys: the greater value is kept, at one key");
    }
}

#[test]
fn any_network_converges() {
    converge::<CausalMap>(|_| 64 << 20);
}

/// The same by key ranges of a few values: kills, removals, collected tombstones and other peers meanwhile.
#[test]
fn any_network_converges_by_ranges() {
    converge::<CausalMap>(|random| 450 + random.below(300) as usize);
}

#[test]
fn composed_types_converge_over_any_network() {
    converge::<CausalReplica<Composed>>(|_| 64 << 20);
}

/// The same by slices of a few events.
#[test]
fn composed_types_converge_over_any_network_by_slices() {
    converge::<CausalReplica<Composed>>(|random| 1_000 + random.below(500) as usize);
}

fn converge<R: Subject>(transfer_len_max: impl Fn(&mut Random) -> usize) {
    let only: Option<u64> = std::env::var("X0_CRDT_SEED").ok().and_then(|text| text.parse().ok());
    let (mut staged, mut is_short) = (0, false);
    for seed in only.map_or(0..seeds(300), |seed| seed..seed + 1) {
        let mut random = Random::new(seed);
        let options = SessionOptions::default()
            .datagram_len_max(128 + random.below(1_000) as usize)
            .bytes_per_second(2_000 + random.below(100_000))
            .retry_min(Duration::from_millis(20 + random.below(200)))
            .transfer_len_max(transfer_len_max(&mut Random::new(seed)))
            .join_items_max(steps::items_max(seed));
        let link = Link {
            bytes_per_second: 2_000 + random.below(100_000),
            delay: Duration::from_millis(random.below(100)),
            jitter: Duration::from_millis(random.below(100)),
            loss: random.below(50),
            doubled: random.below(20),
        };
        let mut net = Net::<R>::new(2 + random.below(3) as usize, seed, &options, link);
        net.misbehave(&mut random, 60);
        net.heal();
        net.run_until_in_sync(Duration::from_secs(3_600));
        net.check(seed);
        staged += net.staged.len();
        is_short |= options.transfer_len_max < 1 << 20;
    }
    assert!(!is_short || staged > 0, "it came by ranges");
}
