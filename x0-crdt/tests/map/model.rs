//! The model: every event ever, what each replaced, and which replica has seen which.

use std::collections::{BTreeMap, BTreeSet};

use x0_crdt::{CausalMap, Dot, HashKey, MapDelta, ReplicaId, Version};

use super::random::Random;

struct Event {
    key: Vec<u8>,
    /// None for a removal.
    value: Option<(u64, Vec<u8>)>,
    replaces: BTreeSet<Dot>,
}

struct Replica {
    map: CausalMap,
    seen: BTreeSet<Dot>,
}

pub(crate) struct World {
    events: BTreeMap<Dot, Event>,
    replicas: Vec<Replica>,
    /// Deltas under way: the receiver, the version they were made for, the bytes, and the events they bring.
    mail: Vec<(usize, Version, Vec<u8>, BTreeSet<Dot>)>,
    /// Whether replicas forget more than they should.
    careless: bool,
    lives: u32,
}

const KEY: HashKey = HashKey::new(*b"a key of a test.");

impl World {
    pub(crate) fn new(replicas: u64, careless: bool) -> Self {
        let replica =
            |node| Replica { map: CausalMap::new(ReplicaId::new(node), KEY), seen: BTreeSet::new() };
        Self {
            events: BTreeMap::new(),
            replicas: (1..=replicas).map(replica).collect(),
            mail: Vec::new(),
            careless,
            lives: 0,
        }
    }

    pub(crate) fn step(&mut self, random: &mut Random) {
        let at = random.below(self.replicas.len() as u64) as usize;
        match random.below(16) {
            0..=4 => self.write(at, random),
            5 | 6 => self.remove(at, random),
            7..=11 => self.tell(at, random),
            12 | 13 => self.deliver(random),
            14 => self.collect_tombstones(at, random),
            _ => self.restart(at, random),
        }
    }

    fn key(random: &mut Random) -> Vec<u8> {
        match random.below(6) {
            0 => vec![b'k'; 40],
            other => format!("key-{other}").into_bytes(),
        }
    }

    /// The events at `key` that stand, for a replica that has seen `seen`.
    fn standing(&self, seen: &BTreeSet<Dot>, key: &[u8]) -> BTreeSet<Dot> {
        let at_key: Vec<_> = seen
            .iter()
            .filter_map(|dot| self.events.get_key_value(dot))
            .filter(|(_, e)| e.key == key)
            .collect();
        let replaced: BTreeSet<Dot> =
            at_key.iter().flat_map(|(_, event)| event.replaces.iter().copied()).collect();
        at_key
            .into_iter()
            .filter(|(dot, event)| event.value.is_some() && !replaced.contains(dot))
            .map(|(dot, _)| *dot)
            .collect()
    }

    fn write(&mut self, at: usize, random: &mut Random) {
        let key = Self::key(random);
        let (time, value) = (random.below(4), vec![random.below(3) as u8; random.below(20) as usize]);
        let standing = self.standing(&self.replicas[at].seen, &key);
        let replica = &mut self.replicas[at];
        let own = random.below(3) == 0;
        let (dot, replaces) = if own {
            let id = replica.map.replica();
            (
                replica.map.put_own(&key, time, &value),
                standing.into_iter().filter(|dot| dot.replica == id).collect(),
            )
        } else {
            (replica.map.put(&key, time, &value), standing)
        };
        let dot = dot.unwrap();
        replica.seen.insert(dot);
        assert!(self.events.insert(dot, Event { key, value: Some((time, value)), replaces }).is_none());
    }

    fn remove(&mut self, at: usize, random: &mut Random) {
        let key = Self::key(random);
        let replaces = self.standing(&self.replicas[at].seen, &key);
        let replica = &mut self.replicas[at];
        let dot = replica.map.remove(&key);
        assert_eq!(dot.is_some(), !replaces.is_empty());
        if let Some(dot) = dot {
            replica.seen.insert(dot);
            self.events.insert(dot, Event { key, value: None, replaces });
        }
    }

    /// One tells another what it lacks, as far as it remembers; else all, or what a reconciliation would
    /// find.
    fn tell(&mut self, from: usize, random: &mut Random) {
        let to = random.below(self.replicas.len() as u64) as usize;
        if from == to {
            return;
        }
        let (sender, receiver) = (&self.replicas[from], &self.replicas[to]);
        let since = receiver.map.version();
        let delta = match (random.below(8), sender.map.delta(&since)) {
            (0, _) | (_, Err(_)) if random.below(2) == 0 => sender.map.complete(&since),
            (0, _) | (_, Err(_)) => {
                self.reconcile(from, to);
                return;
            }
            (_, Ok(delta)) => delta,
        };
        self.mail.push((to, since.clone(), delta.encode(&since), sender.seen.clone()));
    }

    /// The exchange of a session with sketches, without the sketches.
    fn reconcile(&mut self, from: usize, to: usize) {
        let (sender, receiver) = (&self.replicas[from], &self.replicas[to]);
        let theirs: BTreeMap<u64, Dot> = sender.map.item_hashes().collect();
        let mine: BTreeMap<u64, Dot> = receiver.map.item_hashes().collect();
        let wanted: Vec<u64> = theirs.keys().filter(|hash| !mine.contains_key(hash)).copied().collect();
        let unknown: Vec<Dot> =
            mine.iter().filter(|(hash, _)| !theirs.contains_key(hash)).map(|(_, dot)| *dot).collect();
        let since = receiver.map.version();
        let sketched = sender.map.version();
        let delta = sender.map.chosen(&since, &sketched, &wanted).unwrap();
        let bytes = delta.encode(&since);
        let seen = sender.seen.clone();
        let receiver = &mut self.replicas[to];
        receiver.map.join_and_drop(&MapDelta::decode(&bytes, &since).unwrap(), &unknown).unwrap();
        receiver.seen.extend(seen);
    }

    /// Mail arrives in any order, or is lost, or arrives again.
    fn deliver(&mut self, random: &mut Random) {
        if self.mail.is_empty() {
            return;
        }
        let which = random.below(self.mail.len() as u64) as usize;
        let (to, base, bytes, events) = match random.below(4) {
            0 => self.mail[which].clone(),
            1 => {
                self.mail.swap_remove(which);
                return;
            }
            _ => self.mail.swap_remove(which),
        };
        let receiver = &mut self.replicas[to];
        if !base.is_within(&receiver.map.version()) {
            return; // Made for the life before.
        }
        receiver.map.join(&MapDelta::decode(&bytes, &base).unwrap()).unwrap();
        receiver.seen.extend(events);
    }

    fn collect_tombstones(&mut self, at: usize, random: &mut Random) {
        let mut stable = self.replicas[at].map.version();
        if !(self.careless && random.below(2) == 0) {
            for replica in &self.replicas {
                stable.meet(&replica.map.version());
            }
        }
        self.replicas[at].map.collect_tombstones(&stable);
    }

    /// A replica goes on from its saved state, sometimes as another life.
    fn restart(&mut self, at: usize, random: &mut Random) {
        let replica = &mut self.replicas[at];
        let saved = replica.map.save();
        let mut id = replica.map.replica();
        if random.below(2) == 0 {
            self.lives += 1;
            id.incarnation = self.lives;
        }
        let restored = CausalMap::restore(&saved, id, KEY).unwrap();
        assert_eq!(restored.encode_state(), replica.map.encode_state());
        assert_eq!(restored.frontier(), replica.map.frontier());
        assert_eq!(restored.history_len(), replica.map.history_len());
        replica.map = restored;
    }

    pub(crate) fn converge(&mut self, random: &mut Random) {
        self.mail.clear();
        let count = self.replicas.len();
        for _ in 0..2 {
            for step in 0..count {
                let (from, to) = (step, (step + 1) % count);
                let since = self.replicas[to].map.version();
                let delta = match self.replicas[from].map.delta(&since) {
                    Ok(delta) => delta,
                    Err(_) if random.below(2) == 0 => self.replicas[from].map.complete(&since),
                    Err(_) => {
                        self.reconcile(from, to);
                        continue;
                    }
                };
                let seen = self.replicas[from].seen.clone();
                let receiver = &mut self.replicas[to];
                let joined = receiver.map.join(&delta).unwrap();
                assert_eq!(joined.equivocating, []);
                receiver.seen.extend(seen);
                let again = receiver.map.join(&delta).unwrap();
                assert_eq!((again.news, again.keys.len()), (0, 0), "a join is idempotent");
            }
        }
    }

    pub(crate) fn check(&self, seed: u64) {
        for (at, replica) in self.replicas.iter().enumerate() {
            let keys: BTreeSet<&Vec<u8>> = self.events.values().map(|event| &event.key).collect();
            let mut held = 0;
            for key in keys {
                let expected: BTreeMap<Dot, (u64, Vec<u8>)> = self
                    .standing(&replica.seen, key)
                    .into_iter()
                    .map(|dot| (dot, self.events[&dot].value.clone().unwrap()))
                    .collect();
                let found: BTreeMap<Dot, (u64, Vec<u8>)> = replica
                    .map
                    .get(key)
                    .map(|entry| {
                        entry.siblings().map(|held| (held.dot, (held.time, held.value.to_vec()))).collect()
                    })
                    .unwrap_or_default();
                assert_eq!(found, expected, "seed {seed}, replica {at}, key {}", key.escape_ascii());
                held += expected.len();
            }
            assert_eq!(replica.map.sibling_count(), held, "seed {seed}");
            let version: Version = self.version_of(&replica.seen);
            assert_eq!(replica.map.version(), version, "seed {seed}");
        }
    }

    fn version_of(&self, seen: &BTreeSet<Dot>) -> Version {
        let mut version = Version::new();
        for dot in seen {
            version.set(dot.replica, version.get(dot.replica).max(dot.seq));
        }
        version
    }

    pub(crate) fn check_converged(&mut self, seed: u64) {
        let first = self.replicas[0].map.encode_state();
        let stable = self.replicas[0].map.version();
        for replica in &mut self.replicas {
            assert_eq!(replica.map.encode_state(), first, "seed {seed}");
            assert_eq!(replica.map.frontier().version, stable.hash(KEY), "seed {seed}");
            replica.map.collect_tombstones(&stable);
            assert_eq!((replica.map.history_len(), replica.map.removal_count()), (0, 0), "seed {seed}");
        }
        let frontier = self.replicas[0].map.frontier();
        assert!(self.replicas.iter().all(|replica| replica.map.frontier() == frontier), "seed {seed}");
    }
}
