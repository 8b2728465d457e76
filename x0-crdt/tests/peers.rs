//! [`Peers`]: replicas on a network in virtual time that loses, doubles and reorders, with restarts and peers
//! that come and go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

#[path = "map/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use random::Random;
use x0_crdt::{
    CausalMap, HashKey, Members, Peers, PeersError, PeersInput, PeersOutput, ReplicaId, SessionOptions,
};

const KEY: HashKey = HashKey::new([7; 16]);
const LEASE: Duration = Duration::from_secs(60);

/// Seeds to try: many more with `X0_CRDT_SEEDS`.
fn seeds(default: u64) -> u64 {
    std::env::var("X0_CRDT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct World {
    random: Random,
    now: Duration,
    nodes: Vec<Peers<u64>>,
    /// Which nodes are peers: a ring and some chords.
    links: Vec<Vec<u64>>,
    /// Under way: when it arrives, a number to tell equal times apart, to, from.
    wire: BTreeMap<(Duration, u64), (u64, u64, Vec<u8>)>,
    sent: u64,
    loss: u64,
    lives: u32,
    /// What every replica must hold at the end, by key: each key has one writer.
    expected: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl World {
    fn new(nodes: u64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut links = vec![Vec::new(); nodes as usize];
        for at in 0..nodes {
            for other in [(at + 1) % nodes, random.below(nodes)] {
                if other != at && !links[at as usize].contains(&other) {
                    links[at as usize].push(other);
                    links[other as usize].push(at);
                }
            }
        }
        let loss = random.below(51);
        let mut world = Self {
            random,
            now: Duration::ZERO,
            nodes: Vec::new(),
            links,
            wire: BTreeMap::new(),
            sent: 0,
            loss,
            lives: 0,
            expected: BTreeMap::new(),
        };
        for at in 0..nodes {
            let node = world.start(at, CausalMap::new(ReplicaId::new(at), KEY));
            world.nodes.push(node);
        }
        world
    }

    fn start(&mut self, at: u64, mut map: CausalMap) -> Peers<u64> {
        *map.members_mut() = Members::new(LEASE);
        let options = SessionOptions::default().datagram_len_max(300).transfer_len_max(2_000);
        let mut node = Peers::new(map, &options, self.random.next());
        for peer in self.links[at as usize].clone() {
            assert!(node.add(self.now, peer));
            assert!(!node.add(self.now, peer));
        }
        node
    }

    fn restart(&mut self, at: u64) {
        self.lives += 1;
        let id = ReplicaId::with_incarnation(at, self.lives);
        let saved = self.nodes[at as usize].state().save();
        self.nodes[at as usize] = self.start(at, CausalMap::restore(&saved, id, KEY).unwrap());
    }

    fn pump(&mut self) {
        for (from, node) in (0_u64..).zip(&mut self.nodes) {
            while let Some(output) = node.poll_output() {
                let PeersOutput::Send { to, bytes } = output else { continue };
                let copies = match self.random.below(100) {
                    dice if dice < self.loss => 0,
                    dice if dice < self.loss + 5 => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    self.sent += 1;
                    let arrives = self.now + Duration::from_millis(1 + self.random.below(40));
                    self.wire.insert((arrives, self.sent), (to, from, bytes.clone()));
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.pump();
            let timeout = self.nodes.iter().filter_map(Peers::poll_timeout).min().unwrap();
            let arrival = self.wire.keys().next().map_or(Duration::MAX, |(at, _)| *at);
            let next = timeout.min(arrival).max(self.now + Duration::from_micros(1));
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= next) {
                let (to, from, bytes) = entry.remove();
                let input = PeersInput::Datagram { from: &from, bytes: &bytes };
                match self.nodes[to as usize].handle(next, input) {
                    Ok(()) | Err(PeersError::Unknown { .. }) => {}
                    Err(error) => panic!("no datagram of an honest peer is an error: {error:?}"),
                }
            }
            for node in &mut self.nodes {
                if node.poll_timeout().unwrap() <= next {
                    node.handle(next, PeersInput::Timeout).unwrap();
                }
            }
        }
    }

    fn step(&mut self) {
        let at = self.random.below(self.nodes.len() as u64);
        let now = self.now;
        match self.random.below(12) {
            0..=6 => {
                let key = format!("node-{at}/key-{}", self.random.below(20)).into_bytes();
                let value = self.random.next().to_le_bytes().repeat(1 + self.random.below(8) as usize);
                self.nodes[at as usize].change(now, |map| map.put(&key, 0, &value)).unwrap();
                self.expected.insert(key, Some(value));
            }
            7 | 8 => {
                let key = format!("node-{at}/key-{}", self.random.below(20)).into_bytes();
                self.nodes[at as usize].change(now, |map| map.remove(&key));
                self.expected.insert(key, None);
            }
            9 => self.restart(at),
            10 => {
                let other = self.links[at as usize][0];
                let node = &mut self.nodes[at as usize];
                assert!(node.remove(&other) && !node.remove(&other));
                assert!(node.add(now, other));
                node.handle(now, PeersInput::Reachable(&other)).unwrap();
            }
            _ => {
                let time = Duration::from_millis(self.random.below(5_000));
                self.run(time);
            }
        }
    }

    fn converge(&mut self, seed: u64) {
        let end = self.now + Duration::from_secs(3_600);
        let is_done = |world: &Self| {
            let frontier = world.nodes[0].state().frontier();
            world.nodes.iter().all(|node| node.state().frontier() == frontier && node.is_in_sync())
        };
        while !is_done(self) {
            assert!(self.now < end, "seed {seed}: not in sync");
            self.run(Duration::from_millis(500));
        }
        let bytes = self.nodes[0].state().encode_state();
        for node in &self.nodes {
            assert!(node.state().encode_state() == bytes, "seed {seed}");
            for (key, value) in &self.expected {
                let held = node.state().get(key).map(|entry| {
                    assert_eq!(entry.siblings().count(), 1, "seed {seed}");
                    entry.latest().value.to_vec()
                });
                assert_eq!(held, *value, "seed {seed}: {}", key.escape_ascii());
            }
        }
    }
}

#[test]
fn twenty_replicas_hold_what_was_written_after_any_network() {
    for seed in 0..seeds(8) {
        let mut world = World::new(20, seed);
        for _ in 0..300 {
            world.step();
        }
        world.converge(seed);
        // Former lives fall silent, and all others have seen everything: nothing is left to remember.
        world.run(LEASE * 12);
        for node in &world.nodes {
            assert_eq!(node.state().history_len(), 0, "seed {seed}");
            // Where many heartbeats are lost, some lease is over at any time.
            let leased = node.state().members().leased().count();
            assert!(leased == 20 || world.loss > 15 && leased < 20, "seed {seed}: {leased}");
        }
    }
}

#[test]
fn inputs_of_strangers_and_damaged_ones_are_errors_that_name_the_peer() {
    let mut node = Peers::new(CausalMap::new(ReplicaId::new(1), KEY), &SessionOptions::default(), 1);
    assert!(node.is_in_sync() && node.poll_output().is_none());
    let input = PeersInput::Datagram { from: &7, bytes: &[1, 2, 3] };
    assert_eq!(node.handle(Duration::ZERO, input), Err(PeersError::Unknown { peer: 7 }));
    assert!(node.add(Duration::ZERO, 7));
    assert!(matches!(node.poll_output(), Some(PeersOutput::Send { to: 7, .. })), "it announces itself");
    let error = node.handle(Duration::ZERO, input).unwrap_err();
    assert!(matches!(error, PeersError::Session { peer: 7, .. }), "{error:?}");
    assert!(error.to_string().contains("peer 7"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(node.sessions().count(), 1);
    // A change that changes nothing is no news.
    node.handle(Duration::from_secs(1), PeersInput::Timeout).unwrap();
    while node.poll_output().is_some() {}
    assert!(!node.change(Duration::from_secs(2), |map| map.remove(b"key").is_some()));
    assert_eq!(node.poll_output(), None);
    assert!(node.into_state().is_empty());
}
