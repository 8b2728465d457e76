//! Replicas with slow disks, and lossy links between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use x0_crdt::{
    ChainKeys, ChainOptions, HashKey, JoinError, PersistToken, ReplicaId, SessionError, SessionOptions,
    SignedHandleError, SignedInput, SignedMap, SignedMapOptions, SignedOutput,
};

use super::keys::{Key, Random, Ring};

pub(crate) const KEY: HashKey = HashKey::new(*b"a key of a test.");

fn options() -> SignedMapOptions {
    let session = SessionOptions::default()
        .datagram_len_max(600)
        .announce_every(Duration::from_secs(2))
        .retry_max(Duration::from_secs(2))
        // Longer states come by key ranges.
        .transfer_len_max(3_000);
    SignedMapOptions::default()
        .chain(ChainOptions::default().batch_len_max(8))
        .session(session)
        .lease(Duration::from_secs(40))
}

pub(crate) struct Node {
    pub(crate) signed: SignedMap,
    id: ReplicaId,
    disk: Vec<Vec<u8>>,
    /// Records on their way to the disk: when they are there.
    writing: VecDeque<(Duration, Vec<u8>, bool, PersistToken)>,
    pub(crate) online: bool,
    pub(crate) equivocations: BTreeSet<ReplicaId>,
}

impl Node {
    pub(crate) fn disk(&self) -> &[Vec<u8>] {
        &self.disk
    }
}

pub(crate) struct Net {
    now: Duration,
    random: Random,
    pub(crate) nodes: Vec<Node>,
    wire: BTreeMap<(Duration, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    cuts: BTreeSet<(usize, usize)>,
    /// Deltas refused because they hold events of the receiver that it has not written: it has lost what it
    /// had sent.
    pub(crate) impostors: u64,
}

impl Net {
    pub(crate) fn new(nodes: u64, seed: u64) -> Self {
        let mut net = Self {
            now: Duration::ZERO,
            random: Random(seed ^ 0x006e_6574),
            nodes: Vec::new(),
            wire: BTreeMap::new(),
            sent: 0,
            cuts: BTreeSet::new(),
            impostors: 0,
        };
        for node in 1..=nodes {
            net.add(ReplicaId::new(node), &[]);
        }
        net
    }

    fn open(&mut self, id: ReplicaId, disk: &[Vec<u8>]) -> SignedMap {
        let keys = ChainKeys::new(Key::of(id.node), Ring::of(1..=9));
        let seed = self.random.next();
        if disk.is_empty() {
            return SignedMap::new(id, KEY, keys, &options(), seed);
        }
        SignedMap::restore(disk.iter().map(Vec::as_slice), id, KEY, keys, &options(), seed).unwrap()
    }

    fn add(&mut self, id: ReplicaId, disk: &[Vec<u8>]) -> usize {
        let signed = self.open(id, disk);
        let at = self.nodes.len();
        self.nodes.push(Node {
            signed,
            id,
            disk: disk.to_vec(),
            writing: VecDeque::new(),
            online: true,
            equivocations: BTreeSet::new(),
        });
        for other in 0..at {
            self.connect(at, other);
            self.connect(other, at);
        }
        at
    }

    fn connect(&mut self, at: usize, other: usize) {
        let input = SignedInput::Connected { peer: other as u64 };
        self.nodes[at].signed.handle(self.now, input).unwrap();
    }

    /// A second process goes on from a copy of the disk.
    pub(crate) fn fork(&mut self, at: usize) -> usize {
        let (id, disk) = (self.nodes[at].id, self.nodes[at].disk.clone());
        self.add(id, &disk)
    }

    /// Memory is lost, and so are the records that were on their way to the disk.
    pub(crate) fn crash(&mut self, at: usize) {
        self.pump();
        let (id, disk) = (self.nodes[at].id, self.nodes[at].disk.clone());
        self.nodes[at].signed = self.open(id, &disk);
        self.nodes[at].writing.clear();
        for other in 0..self.nodes.len() {
            if other != at {
                self.connect(at, other);
            }
        }
    }

    pub(crate) fn write(&mut self, random: &mut Random, at: usize) {
        let key = format!("key-{:03}", random.below(40)).into_bytes();
        let signed = &mut self.nodes[at].signed;
        if random.chance(80) {
            signed.put(&key, random.below(5) as u64, &random.next().to_le_bytes()).unwrap();
        } else if random.chance(50) {
            signed.add(&key, 0, 1).unwrap();
        } else {
            signed.remove(&key).unwrap();
        }
        self.pump();
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    fn pump(&mut self) {
        for at in 0..self.nodes.len() {
            while let Some(output) = self.nodes[at].signed.poll_output() {
                match output {
                    SignedOutput::Persist { record, replaces, token } => {
                        let late = Duration::from_micros(self.random.below(400_000) as u64);
                        self.nodes[at].writing.push_back((self.now + late, record, replaces, token));
                    }
                    SignedOutput::Send { peer, datagram } => self.send(at, peer as usize, &datagram),
                    SignedOutput::Equivocation { writer } => {
                        self.nodes[at].equivocations.insert(writer);
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, datagram: &[u8]) {
        let is_down = self.cuts.contains(&(from, to)) || !self.nodes[from].online || !self.nodes[to].online;
        if is_down || self.random.chance(10) {
            return;
        }
        for _ in 0..1 + usize::from(self.random.chance(5)) {
            let late = Duration::from_micros(1_000 + self.random.below(4_000) as u64);
            self.sent += 1;
            self.wire.insert((self.now + late, self.sent), (from, to, datagram.to_vec()));
        }
    }

    fn handle(&mut self, at: usize, input: SignedInput<'_>) {
        match self.nodes[at].signed.handle(self.now, input) {
            Err(SignedHandleError::Session {
                source: SessionError::Join(JoinError::Impostor { .. }),
                ..
            }) => {
                self.impostors += 1;
            }
            // Two histories of one writer make deltas that fit no replica; the sessions go on.
            Err(SignedHandleError::Session { .. }) | Ok(()) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn advance(&mut self, end: Duration) {
        let online = || self.nodes.iter().filter(|node| node.online);
        let timeout = online().filter_map(|node| node.signed.poll_timeout()).min().unwrap_or(end);
        let disk = online().filter_map(|node| node.writing.front()).map(|(at, ..)| *at).min().unwrap_or(end);
        let arrival = self.wire.keys().next().map_or(end, |(at, _)| *at);
        let next = timeout.min(arrival).min(disk).max(self.now);
        if next > end {
            self.now = end;
            return;
        }
        self.now = if next == self.now && arrival.min(disk) > self.now {
            next + Duration::from_micros(1)
        } else {
            next
        };
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, datagram) = entry.remove();
            if self.nodes[to].online {
                self.handle(to, SignedInput::Datagram { peer: from as u64, bytes: &datagram });
            }
        }
        for at in 0..self.nodes.len() {
            if !self.nodes[at].online {
                continue;
            }
            while self.nodes[at].writing.front().is_some_and(|(due, ..)| *due <= self.now) {
                let Some((_, record, replaces, token)) = self.nodes[at].writing.pop_front() else { break };
                if replaces {
                    self.nodes[at].disk.clear();
                }
                self.nodes[at].disk.push(record);
                self.handle(at, SignedInput::Persisted(token));
            }
            if self.nodes[at].signed.poll_timeout().is_some_and(|due| due <= self.now) {
                self.handle(at, SignedInput::Timeout);
            }
        }
        self.pump();
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.pump();
        while self.now < end {
            self.advance(end);
        }
    }

    /// Until all replicas that are online hold the same, byte for byte.
    pub(crate) fn settle(&mut self, what: &str) {
        let end = self.now + Duration::from_secs(600);
        loop {
            self.run(Duration::from_millis(300));
            let online = self.nodes.iter().filter(|node| node.online);
            let frontiers: BTreeSet<_> = online.clone().map(|node| node.signed.frontier()).collect();
            if frontiers.len() == 1 {
                let states: BTreeSet<_> = online.map(|node| node.signed.map().encode_state()).collect();
                assert_eq!(states.len(), 1, "{what}: equal frontiers of unequal states");
                return;
            }
            assert!(self.now < end, "{what}: no agreement: {frontiers:?}");
        }
    }
}
