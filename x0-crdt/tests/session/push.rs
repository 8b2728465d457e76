//! Small changes that travel with the announcement, and deltas that are refused.

use std::time::Duration;

use x0_crdt::{CausalMap, CausalReplica, ReplicaId, Session, SessionError, SessionOptions, SessionOutput};

use super::net::{Link, Net};
use super::pump::{Seen, pump};
use super::random::Random;
use super::subject::{Composed, KEY, Subject};

#[test]
fn one_put_takes_one_trip_and_at_most_80_bytes() {
    let link = Link { delay: Duration::from_millis(50), ..Link::default() };
    let mut net = Net::<CausalMap>::new(2, 1, &SessionOptions::default(), link);
    super::fill(net.map_mut(0), 1_000, &mut Random::new(1));
    net.changed(0);
    net.run_until_in_sync(Duration::from_secs(60));
    net.run(Duration::from_secs(1));
    let (begin, before, datagrams) = (net.now(), net.bytes(), net.datagrams());
    net.map_mut(0).put(b"key-000007", 12, b"1234").unwrap();
    net.changed(0);
    net.run_until_agreed(Duration::from_secs(1));
    assert!(net.now() - begin <= Duration::from_millis(51), "{:?}", net.now() - begin);
    net.run_until_in_sync(Duration::from_secs(1));
    let (bytes, datagrams) = (net.bytes() - before, net.datagrams() - datagrams);
    println!("one put: {bytes} B in {datagrams} datagrams, the answer included");
    assert!(bytes <= 80 && datagrams <= 2, "{bytes} B in {datagrams} datagrams");
}

#[test]
fn puts_on_a_link_that_loses_a_third_arrive_on_all_replicas() {
    losing::<CausalMap>();
    losing::<CausalReplica<Composed>>();
}

fn losing<R: Subject>() {
    for seed in 0..super::seeds(40) {
        let link = Link { delay: Duration::from_millis(20), loss: 30, doubled: 5, ..Link::default() };
        let mut random = Random::new(seed);
        let mut net = Net::<R>::new(3, seed, &SessionOptions::default(), link);
        for round in 0..30_u64 {
            let at = random.below(3) as usize;
            let key = format!("key-{}", random.below(6));
            match random.below(4) {
                0 => drop(net.map_mut(at).remove_key(key.as_bytes())),
                _ => net.map_mut(at).put_value(key.as_bytes(), round, &round.to_le_bytes()),
            }
            net.changed(at);
            net.run(Duration::from_millis(random.below(400)));
        }
        net.run_until_in_sync(Duration::from_secs(600));
        net.check(seed);
    }
}

/// A state above the limit of the receiver that has no key ranges, and a key whose values are above it: both
/// sides learn of it, and it costs a few datagrams.
#[test]
fn a_delta_above_the_limit_is_refused_with_the_limit() {
    let mut composed = [1, 2].map(|node| CausalReplica::<Composed>::create(ReplicaId::new(node)));
    composed[0].put_value(b"one", 0, &value(&mut Random::new(1), 30_000));
    refuse(composed);
    let mut maps = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), KEY));
    for node in 3..7 {
        let mut other = CausalMap::new(ReplicaId::new(node), KEY);
        other.put(b"siblings", 0, &value(&mut Random::new(node), 8_000)).unwrap();
        maps[0].take_from(&other, false);
    }
    refuse(maps);
}

fn value(random: &mut Random, words: usize) -> Vec<u8> {
    (0..words).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn refuse<R: Subject>(mut maps: [R; 2]) {
    let small = SessionOptions::default().transfer_len_max(100_000);
    let mut sessions = [Session::new(&SessionOptions::default(), 1), Session::new(&small, 2)];
    let mut errors = [Vec::new(), Vec::new()];
    let (mut now, mut sent) = (Duration::ZERO, [0, 0]);
    while now < Duration::from_secs(600) {
        for side in 0..2 {
            pump(now, side, &mut maps, &mut sessions, |of, _, seen| match seen {
                Seen::Error(error) => {
                    errors[of].push(error);
                    None
                }
                Seen::Output(SessionOutput::Send(datagram)) => {
                    sent[of] += datagram.len();
                    Some(datagram)
                }
                Seen::Output(_) => None,
            });
        }
        now += Duration::from_millis(20);
    }
    assert!(matches!(errors[0][0], SessionError::Refused { len: 200_000.., limit: 100_000 }), "{errors:?}");
    assert!(errors[0][0].to_string().contains("transfer_len_max"), "{}", errors[0][0]);
    assert!(matches!(errors[1][0], SessionError::TooLong { len: 200_000.., limit: 100_000 }), "{errors:?}");
    assert!(errors[1][0].to_string().contains("transfer_len_max"), "{}", errors[1][0]);
    assert!(sent[0] < 300_000, "{sent:?}");
    assert!(maps[1].keys().is_empty());
}
