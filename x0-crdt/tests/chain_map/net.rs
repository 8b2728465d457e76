//! Replicas with signed chains, a session for each pair, and links that lose, double and reorder.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_crdt::internal::chain::{CHAIN_PREFIX, ChainOptions, MapChains, Verification};
use x0_crdt::{
    CausalMap, Dot, HashKey, MapDelta, Members, ReplicaId, Session, SessionInput, SessionOptions,
    SessionOutput, Version,
};

use super::keys::{Key, Random, Ring};

pub(crate) const KEY: HashKey = HashKey::new(*b"a key of a test.");

/// The nodes whose keys all replicas know.
pub(crate) const KNOWN: std::ops::RangeInclusive<u64> = 1..=9;

pub(crate) fn options() -> ChainOptions {
    ChainOptions::default().batch_len_max(8)
}

pub(crate) fn open(map: &mut CausalMap) -> MapChains {
    let node = map.replica().node;
    MapChains::open(map, &options(), Box::new(Ring::of(KNOWN)), Some(Key::boxed(node)))
}

/// A replica with signed chains and its disk.
pub(crate) struct Replica {
    pub(crate) map: CausalMap,
    pub(crate) chains: MapChains,
    /// A saved map, and the differences since, each with the version that it follows.
    journal: (Vec<u8>, Vec<(Version, Vec<u8>)>),
    pub(crate) online: bool,
}

impl Replica {
    pub(crate) fn new(mut map: CausalMap) -> Self {
        let chains = open(&mut map);
        let journal = (map.save(), Vec::new());
        Self { map, chains, journal, online: true }
    }

    /// Writes a record of what has changed since the last one.
    pub(crate) fn store(&mut self) {
        let since = match self.journal.1.last() {
            Some((base, bytes)) => MapDelta::decode(bytes, base).unwrap().context().clone(),
            None => CausalMap::restore(&self.journal.0, self.map.replica(), KEY).unwrap().version(),
        };
        match self.map.delta(&since) {
            // An eviction is no event, so that only a whole record holds it; the next start evicts again
            // without it.
            Ok(delta) if self.journal.1.len() < 20 => {
                self.journal.1.push((since.clone(), delta.encode(&since)));
            }
            _ => self.journal = (self.map.save(), Vec::new()),
        }
    }

    /// The content of the disk after a crash.
    pub(crate) fn replayed(&self) -> CausalMap {
        let mut map = CausalMap::restore(&self.journal.0, self.map.replica(), KEY).unwrap();
        for (base, bytes) in &self.journal.1 {
            map.replay(&MapDelta::decode(bytes, base).unwrap()).unwrap();
        }
        map
    }

    pub(crate) fn reserved(&self) -> usize {
        self.map.prefix(CHAIN_PREFIX).count()
    }

    /// The values that are for reading, with their dots, and the verification of each.
    pub(crate) fn values(&self) -> BTreeMap<(Vec<u8>, Dot), (Vec<u8>, Verification)> {
        let plain = self.map.range(b"").filter(|entry| !entry.key().starts_with(CHAIN_PREFIX));
        plain
            .flat_map(|entry| {
                let key = entry.key();
                entry.siblings().map(move |held| {
                    ((key.to_vec(), held.dot), (held.value.to_vec(), self.chains.verification(key, &held)))
                })
            })
            .collect()
    }
}

pub(crate) struct Net {
    now: Duration,
    random: Random,
    pub(crate) replicas: Vec<Replica>,
    sessions: BTreeMap<(usize, usize), Session>,
    options: SessionOptions,
    /// How often each session has met a peer that had seen the same and held something else.
    divergences: BTreeMap<(usize, usize), u64>,
    wire: BTreeMap<(Duration, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    /// Percent.
    pub(crate) loss: usize,
    /// Pairs that cannot hear each other.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
}

impl Net {
    pub(crate) fn new(replicas: u64, seed: u64) -> Self {
        let maps = (1..=replicas).map(|node| CausalMap::new(ReplicaId::new(node), KEY));
        let mut net = Self {
            now: Duration::ZERO,
            random: Random(seed ^ 0x6e65_7400),
            replicas: Vec::new(),
            sessions: BTreeMap::new(),
            options: SessionOptions::default()
                .datagram_len_max(600)
                .announce_every(Duration::from_secs(2))
                .retry_max(Duration::from_secs(2)),
            divergences: BTreeMap::new(),
            wire: BTreeMap::new(),
            sent: 0,
            loss: 10,
            cuts: BTreeSet::new(),
        };
        for map in maps {
            net.add(map);
        }
        net
    }

    /// Another replica, with a session with each that is there.
    pub(crate) fn add(&mut self, mut map: CausalMap) -> usize {
        let at = self.replicas.len();
        *map.members_mut() = Members::new(Duration::from_secs(60));
        self.replicas.push(Replica::new(map));
        for other in 0..at {
            self.connect(at, other);
        }
        at
    }

    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        for pair in [(a, b), (b, a)] {
            self.sessions.insert(pair, Session::new(&self.options, self.random.next()));
        }
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// A crash: what was not stored is lost, and so is all that was in memory.
    pub(crate) fn crash(&mut self, at: usize) {
        let mut map = self.replicas[at].replayed();
        // Members count their heartbeats, and are not part of what is saved: they live on, as if they had
        // been stored beside it.
        *map.members_mut() = self.replicas[at].map.members().clone();
        self.replicas[at].chains = open(&mut map);
        self.replicas[at].map = map;
        for ((from, _), session) in &mut self.sessions {
            if *from == at {
                *session = Session::new(&self.options, self.random.next());
            }
        }
        self.changed(at);
    }

    /// After a write: durable first, then the sessions are notified.
    pub(crate) fn changed(&mut self, at: usize) {
        self.replicas[at].store();
        for ((from, _), session) in &mut self.sessions {
            if *from == at {
                session.handle(self.now, SessionInput::Changed, &mut self.replicas[at].map).unwrap();
            }
        }
        self.pump();
    }

    fn pump(&mut self) {
        loop {
            let mut joined: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
            // First all that was joined: nothing leaves before it is reviewed and stored.
            let mut sending = Vec::new();
            for ((from, to), session) in &mut self.sessions {
                while let Some(output) = session.poll_output() {
                    match output {
                        SessionOutput::Joined(news) => joined.entry(*from).or_default().extend(news.keys),
                        SessionOutput::Staged(_) => {}
                        SessionOutput::Send(datagram) => sending.push((*from, *to, datagram)),
                    }
                }
            }
            // A session that met an equal version with other contents asks for evidence.
            for ((from, to), session) in &self.sessions {
                let replica = &mut self.replicas[*from];
                let divergences = session.stats().divergences;
                let before = self.divergences.insert((*from, *to), divergences).unwrap_or(0);
                if divergences > before {
                    let reviewed = replica.chains.diverged(&mut replica.map);
                    joined.entry(*from).or_default().extend(reviewed.keys);
                }
            }
            let is_done = joined.is_empty();
            for (at, keys) in joined {
                let keys: Vec<Vec<u8>> = keys.into_iter().collect();
                let replica = &mut self.replicas[at];
                let _ = replica.chains.review(&mut replica.map, &keys);
                replica.store();
                for ((from, _), session) in &mut self.sessions {
                    if *from == at {
                        session.handle(self.now, SessionInput::Changed, &mut self.replicas[at].map).unwrap();
                    }
                }
            }
            for (from, to, datagram) in sending {
                self.send(from, to, &datagram);
            }
            if is_done {
                return;
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, datagram: &[u8]) {
        let is_cut = self.cuts.contains(&(from, to));
        if is_cut || !self.replicas[from].online || !self.replicas[to].online || self.random.chance(self.loss)
        {
            return;
        }
        let copies = 1 + usize::from(self.random.chance(5));
        for _ in 0..copies {
            let late = Duration::from_micros(1_000 + self.random.below(4_000) as u64);
            self.sent += 1;
            self.wire.insert((self.now + late, self.sent), (from, to, datagram.to_vec()));
        }
    }

    fn advance(&mut self, end: Duration) {
        let live = self.sessions.iter().filter(|((from, _), _)| self.replicas[*from].online);
        let timeout = live.filter_map(|(_, session)| session.poll_timeout()).min().unwrap_or(end);
        let arrival = self.wire.keys().next().map_or(Duration::MAX, |(at, _)| *at);
        let next = timeout.min(arrival).max(self.now);
        if next > end {
            self.now = end;
            return;
        }
        self.now =
            if next == self.now && arrival > self.now { next + Duration::from_micros(1) } else { next };
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, datagram) = entry.remove();
            if self.replicas[to].online {
                let session = self.sessions.get_mut(&(to, from)).unwrap();
                // Equivocating writers make deltas that fit no replica; the session goes on.
                let _ =
                    session.handle(self.now, SessionInput::Datagram(&datagram), &mut self.replicas[to].map);
            }
        }
        for ((from, _), session) in &mut self.sessions {
            if self.replicas[*from].online && session.poll_timeout().is_some_and(|due| due <= self.now) {
                session.handle(self.now, SessionInput::Timeout, &mut self.replicas[*from].map).unwrap();
            }
        }
        self.pump();
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.advance(end);
        }
    }

    /// Until those that are online hold the same, and nothing is under way.
    pub(crate) fn settle(&mut self, what: &str) {
        let end = self.now + Duration::from_secs(600);
        loop {
            self.run(Duration::from_millis(200));
            let mut frontiers: Vec<_> = self.online().map(|replica| replica.map.frontier()).collect();
            frontiers.dedup();
            if frontiers.len() == 1 {
                return;
            }
            assert!(self.now < end, "{what}: no agreement: {frontiers:?}\n{}", self.dump());
        }
    }

    pub(crate) fn online(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.online)
    }

    /// Word of who has seen what goes around, so that what all have seen is forgotten, and what is not needed
    /// is taken away.
    pub(crate) fn tidy(&mut self) {
        for _ in 0..4 {
            for at in 0..self.replicas.len() {
                if self.replicas[at].online {
                    let replica = &mut self.replicas[at];
                    replica.map.heartbeat(self.now);
                    if replica.chains.tidy(&mut replica.map) > 0 {
                        self.changed(at);
                    }
                }
            }
            self.run(Duration::from_secs(5));
        }
    }

    /// All hold the same, byte for byte.
    pub(crate) fn check(&self, what: &str) {
        let states: Vec<_> = self.online().map(|replica| replica.map.encode_state()).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{what}: states differ\n{}", self.dump());
    }

    pub(crate) fn dump(&self) -> String {
        let mut text = String::new();
        for replica in self.online() {
            text += &format!("{} {:?}\n", replica.map.replica(), replica.chains);
            for (writer, seq) in replica.map.version().iter() {
                text += &format!("  {writer}:{seq}");
            }
            text += "\n";
            for entry in replica.map.range(b"") {
                for held in entry.siblings() {
                    let hash = KEY.hash_for_test(held.value);
                    text += &format!("    {} {} {hash:x}\n", entry.key().escape_ascii(), held.dot);
                }
            }
        }
        text
    }
}

trait HashForTest {
    fn hash_for_test(&self, bytes: &[u8]) -> u64;
}

impl HashForTest for HashKey {
    fn hash_for_test(&self, bytes: &[u8]) -> u64 {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        hasher.finish()
    }
}
