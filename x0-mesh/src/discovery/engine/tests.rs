//! The rules of the engine, and nodes on a segment in virtual time.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use x0_identity::NodeId;

use super::super::announcement::{Announcement, realm_of};
use super::super::{Discovery, DiscoveryInput, DiscoveryOptions, DiscoveryOutput, Hint, HintState};
use crate::random::SplitMix64;

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

fn options() -> DiscoveryOptions {
    DiscoveryOptions::new("mesh.test")
}

fn announcement(number: u64, port: u16) -> Vec<u8> {
    Announcement { realm: realm_of("mesh.test"), node: node(number), port }.encode().to_vec()
}

fn hear(end: &mut Discovery, now: Duration, host: u8, number: u64, port: u16) {
    end.handle(now, DiscoveryInput::Received { from: at(host, 9), bytes: &announcement(number, port) });
}

fn dials(end: &mut Discovery) -> Vec<SocketAddr> {
    let mut dials = Vec::new();
    while let Some(output) = end.poll_output() {
        if let DiscoveryOutput::Dial { address } = output {
            dials.push(address);
        }
    }
    dials
}

fn hint(end: &Discovery, address: SocketAddr) -> Hint {
    end.hints().find(|hint| hint.address == address).unwrap()
}

const ZERO: Duration = Duration::ZERO;

#[test]
fn the_lower_id_dials_at_once_and_the_other_one_waits() {
    let mut low = Discovery::new(node(1), 7001, 1, options());
    hear(&mut low, ZERO, 2, 2, 7002);
    assert_eq!(dials(&mut low), [at(2, 7002)]);
    let mut high = Discovery::new(node(3), 7003, 1, options());
    hear(&mut high, ZERO, 2, 2, 7002);
    assert_eq!(dials(&mut high), []);
    let courtesy = options().courtesy;
    high.handle(courtesy - Duration::from_millis(1), DiscoveryInput::Timeout);
    assert_eq!(dials(&mut high), []);
    // The other one has dialled in the meantime.
    high.handle(courtesy, DiscoveryInput::Neighbours { peers: &[node(2)] });
    assert_eq!(dials(&mut high), []);
    // The link to that address is gone.
    high.handle(courtesy, DiscoveryInput::Neighbours { peers: &[] });
    assert_eq!(dials(&mut high), [at(2, 7002)]);
}

#[test]
fn what_is_no_announcement_of_the_realm_is_counted_and_has_no_effect() {
    let mut end = Discovery::new(node(1), 7001, 1, options());
    let foreign = Announcement { realm: realm_of("other.test"), node: node(2), port: 1 }.encode();
    end.handle(ZERO, DiscoveryInput::Received { from: at(2, 9), bytes: &foreign });
    end.handle(ZERO, DiscoveryInput::Received { from: at(2, 9), bytes: b"hello" });
    for from in ["0.0.0.0:9", "224.0.0.1:9", "[ff02::1]:9"] {
        let from = from.parse().unwrap();
        end.handle(ZERO, DiscoveryInput::Received { from, bytes: &announcement(2, 7002) });
    }
    // The group gives this node's own announcements back.
    hear(&mut end, ZERO, 1, 1, 7001);
    let stats = end.stats();
    assert_eq!((stats.foreign, stats.malformed, stats.heard), (1, 4, 0));
    assert_eq!(end.hints().count(), 0);
    assert_eq!(dials(&mut end), []);
}

#[test]
fn failed_dials_wait_twice_as_long_each_time() {
    let mut end = Discovery::new(node(1), 7001, 1, options());
    let (mut now, address) = (ZERO, at(2, 7002));
    let mut pauses = Vec::new();
    hear(&mut end, now, 2, 2, 7002);
    assert_eq!(dials(&mut end), [address]);
    for round in 1..=12 {
        assert_eq!(hint(&end, address).state, HintState::Dialling);
        end.handle(now, DiscoveryInput::Ended { address });
        // A second report of the same thing has no effect.
        end.handle(now, DiscoveryInput::Ended { address });
        end.handle(now, DiscoveryInput::Reached { address });
        assert_eq!((hint(&end, address).state, hint(&end, address).failures), (HintState::Waiting, round));
        let begin = now;
        while dials(&mut end).is_empty() {
            now = end.poll_timeout().unwrap();
            hear(&mut end, now, 2, 2, 7002);
        }
        pauses.push(now - begin);
    }
    end.handle(now, DiscoveryInput::Reached { address });
    assert_eq!((hint(&end, address).state, hint(&end, address).failures), (HintState::Reached, 0));
    assert!(pauses[0] >= Duration::from_millis(250) && pauses[0] <= Duration::from_millis(500), "{pauses:?}");
    assert!(pauses[4] >= Duration::from_secs(4), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)), "{pauses:?}");
}

#[test]
fn hints_expire_unless_they_are_in_use() {
    let mut end = Discovery::new(node(1), 7001, 1, options());
    hear(&mut end, ZERO, 2, 2, 7002);
    hear(&mut end, ZERO, 3, 3, 7003);
    end.handle(ZERO, DiscoveryInput::Reached { address: at(2, 7002) });
    end.handle(ZERO, DiscoveryInput::Ended { address: at(3, 7003) });
    let late = options().expiry + Duration::from_secs(1);
    end.handle(late, DiscoveryInput::Timeout);
    assert_eq!(end.hints().map(|hint| hint.address).collect::<Vec<_>>(), [at(2, 7002)]);
    // The hint expired while it was in use.
    end.handle(late, DiscoveryInput::Ended { address: at(2, 7002) });
    assert_eq!(end.hints().count(), 0);
    assert_eq!(end.stats().ended, 2);
}

/// The scope of a link-local address is that of the interface that received it.
#[test]
fn an_address_keeps_its_interface() {
    let mut end = Discovery::new(node(1), 7001, 1, options());
    let ip: Ipv6Addr = "fe80::2".parse().unwrap();
    let from = SocketAddr::V6(SocketAddrV6::new(ip, 9, 0, 5));
    end.handle(ZERO, DiscoveryInput::Received { from, bytes: &announcement(2, 7002) });
    assert_eq!(dials(&mut end), [SocketAddr::V6(SocketAddrV6::new(ip, 7002, 0, 5))]);
}

/// An attacker announces many addresses: few are dialled, and the true one is found among them.
#[test]
fn a_flood_of_forged_announcements_costs_little_and_hides_nothing_for_long() {
    let mut end = Discovery::new(node(1), 7001, 3, options());
    let mut random = SplitMix64::new(9);
    let (mut now, truth) = (ZERO, at(250, 7250));
    let mut running: BTreeMap<SocketAddr, Duration> = BTreeMap::new();
    let mut is_found = false;
    let mut announcements = 0;
    // 1000 forged addresses a second over a minute; each dial takes a second.
    for step in 0..60_000 {
        now = Duration::from_millis(step);
        let [host, port, ..] = random.next().to_le_bytes();
        hear(&mut end, now, host % 200, 2 + random.below(1000), u16::from(port) + 1);
        if step % 10_000 == 0 {
            hear(&mut end, now, 250, 5000, 7250);
        }
        let over: Vec<SocketAddr> = running
            .iter()
            .filter(|(_, since)| now >= **since + Duration::from_secs(1))
            .map(|(at, _)| *at)
            .collect();
        for address in over {
            running.remove(&address);
            end.handle(now, DiscoveryInput::Ended { address });
        }
        while let Some(output) = end.poll_output() {
            match output {
                DiscoveryOutput::Dial { address } if address == truth => {
                    is_found = true;
                    end.handle(now, DiscoveryInput::Reached { address });
                }
                DiscoveryOutput::Dial { address } => {
                    running.insert(address, now);
                }
                DiscoveryOutput::Announce { .. } => announcements += 1,
            }
        }
        assert!(running.len() <= 4 && end.hints().count() <= 256);
    }
    assert!(is_found, "{:?}", end.stats());
    // In use, so that no forged one replaces it.
    assert_eq!(hint(&end, truth).state, HintState::Reached);
    assert!(end.stats().dials <= 4 * 61, "{:?}", end.stats());
    assert!(announcements <= 60 * 4 + 1, "{announcements}");
    assert!(end.stats().replaced + end.stats().dropped > 10_000, "{:?}", end.stats());
    assert!(now > ZERO);
}

#[test]
fn one_address_cannot_fill_the_table() {
    let mut end = Discovery::new(node(1), 7001, 3, options());
    for port in 1..100 {
        hear(&mut end, ZERO, 2, 100 + u64::from(port), port);
    }
    hear(&mut end, ZERO, 3, 3, 7003);
    assert_eq!(end.hints().count(), 9);
    assert_eq!(end.stats().dropped, 91);
    // All slots of the table are in use: a new address finds no room.
    let mut full = Discovery::new(node(1), 7001, 3, options().limits(2, 2, 8));
    for host in 2..=4 {
        hear(&mut full, ZERO, host, u64::from(host), 7000);
    }
    assert_eq!((full.hints().count(), full.stats().dropped), (2, 1));
}

#[test]
fn a_port_of_zero_announces_nothing() {
    let mut end = Discovery::new(node(1), 0, 1, options());
    assert_eq!(end.poll_timeout(), None);
    end.handle(Duration::from_secs(60), DiscoveryInput::Timeout);
    assert_eq!(end.poll_output(), None);
}

/// A hint that is announced under another node id before its dial is that of the last announcement.
#[test]
fn the_last_announcement_of_an_address_counts() {
    let mut end = Discovery::new(node(9), 7001, 1, options());
    hear(&mut end, ZERO, 2, 2, 7002);
    hear(&mut end, ZERO, 2, 3, 7002);
    assert_eq!(hint(&end, at(2, 7002)).node, node(3));
}

/// Engines on a segment that loses announcements. A dial takes 20 ms and links both ends.
struct Segment {
    ends: Vec<Discovery>,
    links: BTreeSet<(usize, usize)>,
    handshakes: Vec<(Duration, usize, usize)>,
    random: SplitMix64,
    loss: f64,
    now: Duration,
}

impl Segment {
    fn new(count: usize, seed: u64, loss: f64) -> Segment {
        let end = |at: usize| Discovery::new(node(at as u64 + 1), 7000, seed ^ (at as u64) << 32, options());
        Segment {
            ends: (0..count).map(end).collect(),
            links: BTreeSet::new(),
            handshakes: Vec::new(),
            random: SplitMix64::new(seed),
            loss,
            now: ZERO,
        }
    }

    fn host(at: usize) -> u8 {
        u8::try_from(at + 1).unwrap()
    }

    fn step(&mut self) {
        let next = self.ends.iter().filter_map(Discovery::poll_timeout).min().unwrap();
        let handshake = self.handshakes.iter().map(|(at, ..)| *at).min();
        self.now = handshake.map_or(next, |at| at.min(next)).max(self.now);
        let now = self.now;
        let done: Vec<_> = self.handshakes.iter().filter(|(at, ..)| *at <= now).copied().collect();
        self.handshakes.retain(|(at, ..)| *at > now);
        for (_, from, to) in done {
            self.links.insert((from.min(to), from.max(to)));
            self.ends[from].handle(now, DiscoveryInput::Reached { address: at(Segment::host(to), 7000) });
            for end in [from, to] {
                let peers: Vec<NodeId> = self
                    .links
                    .iter()
                    .filter(|(a, b)| *a == end || *b == end)
                    .map(|(a, b)| node((a + b - end) as u64 + 1))
                    .collect();
                self.ends[end].handle(now, DiscoveryInput::Neighbours { peers: &peers });
            }
        }
        for from in 0..self.ends.len() {
            self.ends[from].handle(now, DiscoveryInput::Timeout);
            while let Some(output) = self.ends[from].poll_output() {
                match output {
                    DiscoveryOutput::Announce { bytes } => {
                        for to in 0..self.ends.len() {
                            if !self.random.happens(self.loss) {
                                let from = at(Segment::host(from), 9);
                                self.ends[to].handle(now, DiscoveryInput::Received { from, bytes: &bytes });
                            }
                        }
                    }
                    DiscoveryOutput::Dial { address } => {
                        let to = (0..self.ends.len()).find(|to| address == at(Segment::host(*to), 7000));
                        self.handshakes.push((now + Duration::from_millis(20), from, to.unwrap()));
                    }
                }
            }
        }
    }
}

#[test]
fn all_nodes_of_a_segment_find_each_other() {
    for (count, loss, limit) in [(2, 0.0, 1), (8, 0.0, 2), (20, 0.5, 25)] {
        for seed in 1..=5 {
            let mut segment = Segment::new(count, seed, loss);
            let pairs = count * (count - 1) / 2;
            while segment.links.len() < pairs {
                segment.step();
                assert!(
                    segment.now < Duration::from_secs(limit),
                    "{count} nodes, seed {seed}: {:?}",
                    segment.now
                );
            }
            // No pair has more than one handshake, but those that a loss made the higher id dial.
            let dials: u64 = segment.ends.iter().map(|end| end.stats().dials).sum();
            assert!(dials <= pairs as u64 * 2 && (loss > 0.0 || dials == pairs as u64), "{dials} of {pairs}");
            // Then the pauses grow to the longest.
            let before: u64 = segment.ends.iter().map(|end| end.stats().announced).sum();
            let until = segment.now + Duration::from_secs(60);
            while segment.now < until {
                segment.step();
            }
            let after: u64 = segment.ends.iter().map(|end| end.stats().announced).sum();
            assert!(after - before <= 18 * count as u64, "{}", after - before);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut segment = Segment::new(6, seed, 0.3);
        (0..300)
            .map(|_| {
                segment.step();
                (segment.now, segment.links.len())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(trace(4), trace(4));
    assert_ne!(trace(4), trace(5));
}
