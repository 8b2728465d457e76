//! Replicas that are restored from old backups under their own ID.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_crdt::{CausalMap, Dot, SessionOptions};

use super::net::{Link, Net};
use super::random::Random;

/// An acknowledged write or removal.
struct Event {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

struct World {
    net: Net<CausalMap>,
    random: Random,
    replicas: u64,
    /// All that was acknowledged; more than one under a number that was used twice.
    events: BTreeMap<Dot, Vec<Event>>,
    /// Events that a disk has lost before another replica had them.
    lost: BTreeSet<Dot>,
    backups: Vec<Option<Vec<u8>>>,
    keys: u64,
    restored: usize,
}

impl World {
    fn new(replicas: u64, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xbacc);
        let link = Link {
            delay: Duration::from_millis(5 + random.below(50)),
            jitter: Duration::from_millis(random.below(50)),
            loss: random.below(30),
            doubled: random.below(10),
            ..Link::default()
        };
        let options = SessionOptions::default()
            .retry_min(Duration::from_millis(200))
            .join_items_max(super::steps::items_max(seed));
        let mut net = Net::sparse(replicas as usize, seed, &options, link);
        net.expect_equivocation();
        Self {
            net,
            random,
            replicas,
            events: BTreeMap::new(),
            lost: BTreeSet::new(),
            backups: vec![None; replicas as usize],
            keys: 0,
            restored: 0,
        }
    }

    /// The driver of a replica that was reported restarts it as a fresh incarnation.
    fn renew(&mut self) {
        for at in std::mem::take(&mut self.net.impostors) {
            let saved = self.net.map(at).save();
            self.net.boot(at, &saved, &mut self.random);
            // A backup of the old incarnation is one of the new one no more.
            self.backups[at] = None;
            self.net.changed(at);
        }
    }

    fn step(&mut self) {
        let at = self.random.below(self.replicas) as usize;
        match self.random.below(16) {
            0..=5 => {
                // Each write has a key of its own, some of them long.
                self.keys += 1;
                let key = format!("key-{}", self.keys).repeat(1 + 7 * (self.keys % 2) as usize).into_bytes();
                let value = self.random.next().to_le_bytes().to_vec();
                let dot = self.net.map_mut(at).put(&key, 0, &value).unwrap();
                self.events.entry(dot).or_default().push(Event { key, value: Some(value) });
                self.net.changed(at);
            }
            6 => {
                let held: Vec<Vec<u8>> =
                    self.net.map(at).range(b"").map(|entry| entry.key().to_vec()).collect();
                if held.is_empty() {
                    return;
                }
                let key = held[self.random.below(held.len() as u64) as usize].clone();
                let dot = self.net.map_mut(at).remove(&key).unwrap();
                self.events.entry(dot).or_default().push(Event { key, value: None });
                self.net.changed(at);
            }
            7 => self.backups[at] = Some(self.net.map(at).save()),
            8 => {
                let Some(saved) = self.backups[at].clone() else { return };
                let (id, last) = (self.net.map(at).replica(), self.net.map(at).last_dot());
                let seed = self.random.next();
                self.net.boot_as(at, &saved, id, seed);
                self.restored += 1;
                let first = self.net.map(at).last_dot().map_or(1, |dot| dot.seq + 1);
                for seq in first..=last.map_or(0, |dot| dot.seq) {
                    let dot = Dot::new(id, seq);
                    let others = (0..self.replicas as usize).filter(|other| *other != at);
                    if !others.into_iter().any(|other| self.net.map(other).version().contains(dot)) {
                        self.lost.insert(dot);
                    }
                }
            }
            _ => {
                let time = Duration::from_millis(self.random.below(1_500));
                self.net.run(time);
            }
        }
        self.renew();
    }

    /// The numbers that were used twice are reported: to the replicas that compared both contents, or to the
    /// writer, which learns of the first of them. One that no other replica had seen before is no number that
    /// was used twice. Neither is a removal, or a value that was removed, a content that could be compared: a
    /// write under such a number counts as removed.
    fn check_reports(&self, seed: u64) -> (usize, usize) {
        let removed = self.removed();
        let is_held = |event: &Event| event.value.is_some() && !removed.contains(event.key.as_slice());
        let is_comparable = |events: &[Event]| events.len() > 1 && events.iter().all(is_held);
        let twice =
            self.events.iter().filter(|(dot, events)| is_comparable(events) && !self.lost.contains(dot));
        let (mut exactly, mut count) = (0, 0);
        for (dot, _) in twice {
            let is_reported = self.net.equivocating.iter().any(|other| other.replica == dot.replica);
            assert!(is_reported, "seed {seed}: {dot} was used twice and is not reported");
            exactly += usize::from(self.net.equivocating.contains(dot));
            count += 1;
        }
        (count, exactly)
    }

    /// The keys that were removed.
    fn removed(&self) -> BTreeSet<&[u8]> {
        let removals = self.events.values().flatten().filter(|event| event.value.is_none());
        removals.map(|event| event.key.as_slice()).collect()
    }

    fn check(&self, seed: u64) {
        let map = self.net.map(0);
        let state = map.encode_state();
        for at in 1..self.replicas as usize {
            assert!(self.net.map(at).encode_state() == state, "seed {seed}: replica {at} differs");
        }
        let removed = self.removed();
        for (dot, events) in &self.events {
            let [event] = events.as_slice() else { continue };
            let Some(value) = &event.value else { continue };
            if self.lost.contains(dot) || removed.contains(event.key.as_slice()) {
                continue;
            }
            let held = map.get(&event.key).map(|entry| entry.latest().value.to_vec());
            assert_eq!(held.as_ref(), Some(value), "seed {seed}: {dot} is lost");
        }
    }
}

#[test]
fn backups_under_the_own_id_lose_only_events_whose_number_was_used_twice() {
    let (mut twice, mut exactly, mut restored) = (0, 0, 0);
    for seed in 0..super::seeds(30) {
        let mut world = World::new(if seed % 4 == 3 { 20 } else { 8 }, seed);
        for _ in 0..200 {
            world.step();
        }
        let end = world.net.now() + Duration::from_secs(7_200);
        while !world.net.is_agreed() || !world.net.impostors.is_empty() {
            assert!(world.net.now() < end, "seed {seed}: not the same");
            world.renew();
            world.net.run(Duration::from_millis(500));
        }
        world.check(seed);
        restored += world.restored;
        let (used, named) = world.check_reports(seed);
        (twice, exactly) = (twice + used, exactly + named);
    }
    println!("{restored} backups restored, {twice} numbers used twice, of which {exactly} are named");
    assert!(restored > 0 && twice > 0);
}
