//! The cost of links on which nothing changes but the heartbeats of members.

use std::time::Duration;

use x0_crdt::{CausalMap, Members, ReplicaId, SessionOptions};

use super::net::{Link, Net};

const LEASE: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_secs(12);

/// Bytes a second and link, both directions, and how many members each replica counts at the end.
fn idle(replicas: usize, loss: u64, writes: bool) -> (f64, Vec<usize>) {
    let link =
        Link { delay: Duration::from_millis(20), jitter: Duration::from_millis(20), loss, ..Link::default() };
    let mut net = Net::<CausalMap>::sparse(replicas, 1, &SessionOptions::default(), link);
    for at in 0..replicas {
        *net.map_mut(at).members_mut() = Members::new(LEASE);
        net.map_mut(at).put(format!("key-{at}").as_bytes(), 0, b"value").unwrap();
        net.changed(at);
    }
    net.run_until_in_sync(Duration::from_secs(600));
    let beat = |net: &mut Net<CausalMap>, rounds: usize| {
        for round in 0..rounds {
            for at in 0..replicas {
                let now = net.now();
                net.map_mut(at).heartbeat(now);
                if writes && (at + round) % replicas == 0 {
                    net.map_mut(at).put(b"shared", 0, &round.to_le_bytes()).unwrap();
                    net.changed(at);
                }
                net.run(BEAT / replicas as u32);
            }
        }
    };
    beat(&mut net, 6);
    let (begin, before) = (net.now(), net.bytes());
    beat(&mut net, 5);
    let seconds = (net.now() - begin).as_secs_f64();
    let bytes = (net.bytes() - before) as f64 / seconds / (net.links() as f64);
    (bytes, (0..replicas).map(|at| net.map(at).members().leased().count()).collect())
}

#[test]
fn an_idle_link_costs_at_most_ten_bytes_a_second_at_a_hundred_members() {
    for (replicas, loss, bytes_max) in [(20, 0, 8.0), (100, 0, 10.0), (40, 10, 12.0)] {
        let (bytes, members) = idle(replicas, loss, false);
        println!("{replicas} members, {loss} % loss: {bytes:.1} B/s a link");
        assert!(bytes <= bytes_max, "{replicas} members: {bytes}");
        assert!(members.iter().all(|count| *count == replicas), "all are counted: {members:?}");
    }
}

/// What members have seen of changes travels at once, and history is collected.
#[test]
fn history_is_collected_while_members_write() {
    let (bytes, members) = idle(20, 5, true);
    println!("with a write every 12 s: {bytes:.1} B/s a link");
    assert!(members.iter().all(|count| *count == 20), "{members:?}");
}

/// The lease of a group that sets none is an hour; what a write leaves behind is collected within seconds.
#[test]
fn tombstones_do_not_wait_for_a_part_of_the_lease() {
    let mut net = Net::<CausalMap>::new(3, 1, &SessionOptions::default(), Link::default());
    for at in 0..3 {
        net.map_mut(at).put(format!("key-{at}").as_bytes(), 0, b"value").unwrap();
        net.changed(at);
    }
    let beat = |net: &mut Net<CausalMap>, times: usize| {
        for _ in 0..times {
            for at in 0..3 {
                let now = net.now();
                net.map_mut(at).heartbeat(now);
            }
            net.run(BEAT);
        }
    };
    beat(&mut net, 6);
    net.map_mut(1).remove(b"key-0").unwrap();
    net.changed(1);
    beat(&mut net, 6);
    let left: Vec<usize> = (0..3).map(|at| net.map(at).history_len()).collect();
    assert_eq!(left, [0, 0, 0]);
    assert_eq!(net.map(0).members().leased().count(), 3);
    assert!(net.map(2).members().leased().any(|member| member == ReplicaId::new(1)));
}
