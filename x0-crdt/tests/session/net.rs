//! Replicas, a session for each pair, and the links between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_crdt::{
    Dot, JoinError, ReplicaId, Session, SessionError, SessionInput, SessionOptions, SessionOutput,
};

use super::random::Random;
use super::subject::Subject;

/// The faults of a link, in each direction by itself.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) bytes_per_second: u64,
    pub(crate) delay: Duration,
    /// Up to so much more, so that datagrams overtake each other.
    pub(crate) jitter: Duration,
    /// The percentage of datagrams that are lost, and that arrive twice.
    pub(crate) loss: u64,
    pub(crate) doubled: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            bytes_per_second: 1_000_000_000,
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            loss: 0,
            doubled: 0,
        }
    }
}

pub(crate) struct Net<R: Subject> {
    now: Duration,
    random: Random,
    options: SessionOptions,
    link: Link,
    cut: bool,
    maps: Vec<R>,
    sessions: BTreeMap<(usize, usize), Session<R>>,
    /// Under way: when it arrives, a number to tell equal times apart, from, to.
    wire: BTreeMap<(Duration, u64), (usize, usize, Vec<u8>)>,
    busy: BTreeMap<(usize, usize), Duration>,
    sent: u64,
    bytes: u64,
    /// Every key that was written.
    written: BTreeSet<Vec<u8>>,
    lives: u32,
    online: Vec<bool>,
    /// Whether a writer gives one event two contents.
    equivocates: bool,
    /// Replicas that were reported as impostors: they have lost events that others know.
    pub(crate) impostors: BTreeSet<usize>,
    /// Events that joins found with two contents.
    pub(crate) equivocating: BTreeSet<Dot>,
    /// The ranges that were staged, and where.
    pub(crate) staged: Vec<(usize, Vec<u8>)>,
    log: Vec<String>,
}

/// Short keys, and long ones, which deltas name by their values.
fn key_of(number: u64) -> Vec<u8> {
    let key = format!("key-{number}");
    if number.is_multiple_of(3) { key.repeat(8).into_bytes() } else { key.into_bytes() }
}

impl<R: Subject> Net<R> {
    pub(crate) fn new(replicas: usize, seed: u64, options: &SessionOptions, link: Link) -> Self {
        let all = |from| (0..replicas).filter(move |to| *to != from).map(move |to| (from, to));
        Self::of((0..replicas).flat_map(all), replicas, seed, options, link)
    }

    /// Replicas of which each talks to a few.
    pub(crate) fn sparse(replicas: usize, seed: u64, options: &SessionOptions, link: Link) -> Self {
        let mut random = Random::new(seed);
        let mut pairs = BTreeSet::new();
        for from in 0..replicas {
            for to in [(from + 1) % replicas, random.below(replicas as u64) as usize] {
                if from != to {
                    pairs.extend([(from, to), (to, from)]);
                }
            }
        }
        Self::of(pairs.into_iter(), replicas, seed, options, link)
    }

    fn of(
        pairs: impl Iterator<Item = (usize, usize)>,
        replicas: usize,
        seed: u64,
        options: &SessionOptions,
        link: Link,
    ) -> Self {
        let sessions = pairs.map(|pair| (pair, Session::new(options, seed))).collect();
        Self {
            now: Duration::ZERO,
            random: Random::new(seed ^ 0x5e55_1013),
            options: options.clone(),
            link,
            cut: false,
            maps: (1..=replicas as u64).map(|node| R::create(ReplicaId::new(node))).collect(),
            sessions,
            wire: BTreeMap::new(),
            busy: BTreeMap::new(),
            sent: 0,
            bytes: 0,
            written: BTreeSet::new(),
            lives: 0,
            online: vec![true; replicas],
            equivocates: false,
            impostors: BTreeSet::new(),
            equivocating: BTreeSet::new(),
            staged: Vec::new(),
            log: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many pairs of replicas have sessions.
    pub(crate) fn links(&self) -> usize {
        self.sessions.len() / 2
    }

    /// How many datagrams were sent.
    pub(crate) fn datagrams(&self) -> u64 {
        self.sessions.values().map(|session| session.stats().sent_datagrams).sum()
    }

    pub(crate) fn map(&self, at: usize) -> &R {
        &self.maps[at]
    }

    pub(crate) fn map_mut(&mut self, at: usize) -> &mut R {
        &mut self.maps[at]
    }

    pub(crate) fn session(&self, at: usize) -> &Session<R> {
        self.sessions.iter().find(|((from, _), _)| *from == at).unwrap().1
    }

    pub(crate) fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    pub(crate) fn expect_equivocation(&mut self) {
        self.equivocates = true;
    }

    pub(crate) fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// A write of a life that ends with it.
    pub(crate) fn write_as(&mut self, at: usize, incarnation: u32, key: &[u8], value: &[u8]) {
        let id = ReplicaId::with_incarnation(1, incarnation);
        let mut map = R::restore_as(&self.maps[at].saved(), id);
        map.put_value(key, 0, value);
        self.maps[at] = map;
    }

    /// Everyone gets everything at once, without a network.
    pub(crate) fn fast_forward(&mut self) {
        let link = std::mem::take(&mut self.link);
        self.run_until_in_sync(Duration::from_secs(600));
        self.link = link;
    }

    pub(crate) fn changed(&mut self, at: usize) {
        let of_it: Vec<_> = self.sessions.keys().copied().filter(|(from, _)| *from == at).collect();
        for ends in of_it {
            self.handle(ends, SessionInput::Changed);
        }
        self.pump();
    }

    fn pump(&mut self) {
        loop {
            let mut joined = BTreeSet::new();
            for ((from, to), session) in &mut self.sessions {
                while let Some(output) = session.poll_output() {
                    match output {
                        SessionOutput::Joined(done) => {
                            self.log.push(format!("{:?}: {from} joined from {to}: {done:?}", self.now));
                            self.equivocating.extend(R::equivocating(&done));
                            joined.insert((*from, *to));
                        }
                        SessionOutput::Staged(record) => {
                            self.log.push(format!("{:?}: {from} staged from {to}", self.now));
                            self.staged.push((*from, record));
                        }
                        SessionOutput::Send(datagram) => {
                            assert!(datagram.len() <= self.options.datagram_len_max);
                            self.bytes += datagram.len() as u64;
                            let nanos = datagram.len() as u64 * 1_000_000_000 / self.link.bytes_per_second;
                            let busy = self.busy.entry((*from, *to)).or_default();
                            *busy = (*busy).max(self.now) + Duration::from_nanos(nanos);
                            let copies = match self.random.below(100) {
                                _ if self.cut || !self.online[*from] || !self.online[*to] => 0,
                                dice if dice < self.link.loss => 0,
                                dice if dice < self.link.loss + self.link.doubled => 2,
                                _ => 1,
                            };
                            for _ in 0..copies {
                                let jitter = self.link.jitter.as_micros() as u64 + 1;
                                let late = Duration::from_micros(self.random.below(jitter));
                                self.sent += 1;
                                let arrives = *busy + self.link.delay + late;
                                self.wire.insert((arrives, self.sent), (*from, *to, datagram.clone()));
                            }
                        }
                    }
                }
            }
            if joined.is_empty() {
                return;
            }
            for (at, with) in joined {
                let others: Vec<_> =
                    self.sessions.keys().copied().filter(|(from, to)| *from == at && *to != with).collect();
                for ends in others {
                    self.handle(ends, SessionInput::Changed);
                }
            }
        }
    }

    /// Goes to the next moment at which something happens, but not beyond `end`.
    fn advance(&mut self, end: Duration) {
        let online = self.sessions.iter().filter(|((from, _), _)| self.online[*from]);
        let timeout = online.filter_map(|(_, session)| session.poll_timeout()).min().unwrap_or(end);
        let arrival = self.wire.keys().next().map_or(Duration::MAX, |(at, _)| *at);
        let next = timeout.min(arrival).max(self.now);
        if next > end {
            self.now = end;
            return;
        }
        self.check_versions();
        // A session that wants to be called at once, again and again, would stop the world.
        self.now =
            if next == self.now && arrival > self.now { next + Duration::from_micros(1) } else { next };
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, datagram) = entry.remove();
            if !self.online[to] {
                continue;
            }
            self.handle((to, from), SessionInput::Datagram(&datagram));
        }
        let now = self.now;
        let is_due = |session: &Session<R>| session.poll_timeout().is_some_and(|due| due <= now);
        let sessions = self.sessions.iter();
        let due: Vec<_> = sessions
            .filter(|((at, _), session)| self.online[*at] && is_due(session))
            .map(|(ends, _)| *ends)
            .collect();
        for ends in due {
            self.handle(ends, SessionInput::Timeout);
        }
        self.pump();
    }

    /// Gives an input to the session of the first replica with the second one.
    fn handle(&mut self, ends: (usize, usize), input: SessionInput<'_>) {
        let session = self.sessions.get_mut(&ends).unwrap();
        match session.handle(self.now, input, &mut self.maps[ends.0]) {
            Ok(()) => {}
            // Also of a delta that arrived before and is joined in steps.
            Err(SessionError::Join(JoinError::Impostor { dot, .. })) if self.equivocates => {
                self.impostors.insert(ends.0);
                self.equivocating.insert(dot);
            }
            Err(error) => panic!("no datagram of an honest peer is an error: {error:?}"),
        }
    }

    /// Replicas with equal versions hold the same at every moment, among honest writers.
    fn check_versions(&self) {
        if self.maps.len() > 5 || self.equivocates {
            return;
        }
        for (at, map) in self.maps.iter().enumerate() {
            for other in &self.maps[..at] {
                let differ = map.version() == other.version() && map.frontier() != other.frontier();
                assert!(
                    !differ,
                    "{} and {} diverged:\n{}",
                    map.replica(),
                    other.replica(),
                    self.log.join("\n")
                );
            }
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.advance(end);
        }
    }

    pub(crate) fn is_agreed(&self) -> bool {
        let frontier = self.maps[0].frontier();
        self.maps.iter().all(|map| map.frontier() == frontier)
    }

    fn converged(&self) -> bool {
        self.is_agreed() && self.sessions.values().all(Session::is_in_sync)
    }

    /// Until all hold the same, whether they know it or not.
    pub(crate) fn run_until_agreed(&mut self, limit: Duration) {
        let end = self.now + limit;
        while !self.is_agreed() {
            assert!(self.now < end, "not the same after {limit:?}: {:?}", self.sessions);
            self.advance(end);
        }
    }

    pub(crate) fn run_until_in_sync(&mut self, limit: Duration) {
        let end = self.now + limit;
        while !self.converged() {
            assert!(self.now < end, "not in sync after {limit:?}: {:?}", self.sessions);
            self.advance(end);
        }
    }

    /// Writes, removals, forgetting, restarts, cuts: anything but a lost disk.
    pub(crate) fn misbehave(&mut self, random: &mut Random, steps: u64) {
        for _ in 0..steps {
            let at = random.below(self.maps.len() as u64) as usize;
            match random.below(12) {
                0..=5 => {
                    let key = key_of(random.below(30));
                    self.maps[at].put_value(&key, random.below(5), &random.next().to_le_bytes());
                    self.log.push(format!(
                        "{:?} put {at} {} {:?}",
                        self.now,
                        key.escape_ascii(),
                        self.maps[at].version()
                    ));
                    self.written.insert(key);
                    self.changed(at);
                }
                6 => {
                    let key = key_of(random.below(30));
                    self.maps[at].remove_key(&key);
                    self.log.push(format!("{:?} remove {at} {}", self.now, key.escape_ascii()));
                    self.changed(at);
                }
                7 => {
                    let version = self.maps[at].version();
                    self.maps[at].collect_tombstones(&version);
                    self.log.push(format!("{:?} forget {at}", self.now));
                }
                8 => self.restart(at, random),
                9 => self.cut = !self.cut,
                _ => {
                    let time = Duration::from_millis(random.below(3_000));
                    self.run(time);
                }
            }
        }
    }

    fn restart(&mut self, at: usize, random: &mut Random) {
        self.log.push(format!("{:?} restart {at}", self.now));
        let saved = self.maps[at].saved();
        self.boot(at, &saved, random);
    }

    pub(crate) fn is_online(&self, at: usize) -> bool {
        self.online[at]
    }

    pub(crate) fn set_online(&mut self, at: usize, online: bool) {
        self.online[at] = online;
    }

    /// A replica starts from what was saved once, as another life.
    pub(crate) fn boot(&mut self, at: usize, saved: &[u8], random: &mut Random) {
        self.lives += 1;
        let id = ReplicaId::with_incarnation(at as u64 + 1, self.lives);
        self.boot_as(at, saved, id, random.next());
    }

    pub(crate) fn boot_as(&mut self, at: usize, saved: &[u8], id: ReplicaId, seed: u64) {
        let lease = self.maps[at].members().lease();
        self.maps[at] = R::restore_as(saved, id);
        self.maps[at].members_mut().set_lease(lease);
        for ((from, _), session) in &mut self.sessions {
            if *from == at {
                *session = Session::new(&self.options, seed);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut = false;
    }

    pub(crate) fn check(&self, seed: u64) {
        let first = self.maps[0].state_bytes();
        for map in &self.maps {
            assert_eq!(map.state_bytes(), first, "seed {seed}");
        }
        for session in self.sessions.values() {
            assert_eq!(session.stats().divergences, 0, "seed {seed}");
            assert_eq!(session.pending_bytes(), 0, "seed {seed}");
        }
    }
}
