//! Fifty replicas that join, leave, fall silent beyond their lease and come back with old state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use x0_crdt::internal::Transfer;
use x0_crdt::{CausalMap, CausalReplica, Members, ReplicaId, Session, SessionInput, SessionOptions};

use super::net::{Link, Net};
use super::random::Random;
use super::subject::{Composed, KEY, Subject};

const LEASE: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_secs(10);

struct Churn<R: Subject> {
    net: Net<R>,
    random: Random,
    /// Every key ever written, once; and those that were removed.
    added: BTreeSet<Vec<u8>>,
    removed: BTreeSet<Vec<u8>>,
    /// The values that each replica has seen removed: it must never see them again.
    gone: Vec<BTreeSet<Vec<u8>>>,
    /// Saved states of earlier, and what was added since by that replica alone.
    backups: BTreeMap<usize, Vec<u8>>,
    silent_until: BTreeMap<usize, Duration>,
    next_key: u64,
}

impl<R: Subject> Churn<R> {
    fn new(replicas: usize, seed: u64, transfer_len_max: usize) -> Self {
        let options = SessionOptions::default()
            .transfer_len_max(transfer_len_max)
            .retry_min(Duration::from_millis(100))
            .announce_every(Duration::from_secs(5))
            .join_items_max(super::steps::items_max(seed + 1));
        let link = Link {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(20),
            loss: 5,
            doubled: 2,
            ..Link::default()
        };
        let mut net = Net::<R>::sparse(replicas, seed, &options, link);
        for at in 0..replicas {
            *net.map_mut(at).members_mut() = Members::new(LEASE);
        }
        Self {
            net,
            random: Random::new(seed ^ 0xc4),
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
            gone: vec![BTreeSet::new(); replicas],
            backups: BTreeMap::new(),
            silent_until: BTreeMap::new(),
            next_key: 0,
        }
    }

    fn heartbeat(&mut self) {
        let now = self.net.now();
        for at in 0..self.gone.len() {
            if self.net.is_online(at) {
                self.net.map_mut(at).heartbeat(now);
            }
        }
    }

    fn step(&mut self) {
        let at = self.random.below(self.gone.len() as u64) as usize;
        match self.random.below(20) {
            // Also by replicas that are silent at the moment.
            0..=8 => {
                self.next_key += 1;
                let key = format!("element-{:06}", self.next_key).into_bytes();
                self.net.map_mut(at).put_value(&key, 0, b"");
                self.added.insert(key);
                self.net.changed(at);
            }
            9..=14 => {
                let keys = self.net.map(at).keys();
                if !keys.is_empty() {
                    let key = keys[self.random.below(keys.len() as u64) as usize].clone();
                    assert!(self.net.map_mut(at).remove_key(&key));
                    self.gone[at].insert(key.clone());
                    self.removed.insert(key);
                    self.net.changed(at);
                }
            }
            15 => self.fall_silent(at),
            16 => {
                // A backup of a moment at which another replica has all of it.
                if self.known_elsewhere(at) {
                    self.backups.insert(at, self.net.map(at).saved());
                }
            }
            17 => self.return_to_backup(at),
            _ => {
                let time = Duration::from_millis(self.random.below(3_000));
                self.net.run(time);
            }
        }
        let now = self.net.now();
        let back: Vec<usize> =
            self.silent_until.iter().filter(|(_, until)| **until <= now).map(|(at, _)| *at).collect();
        for at in back {
            self.silent_until.remove(&at);
            self.net.set_online(at, true);
        }
    }

    fn fall_silent(&mut self, at: usize) {
        if self.silent_until.len() < self.gone.len() / 3 && self.net.is_online(at) {
            let time = Duration::from_secs(self.random.below(4 * LEASE.as_secs()));
            self.silent_until.insert(at, self.net.now() + time);
            self.net.set_online(at, false);
        }
    }

    fn known_elsewhere(&self, at: usize) -> bool {
        let version = self.net.map(at).version();
        (0..self.gone.len()).any(|other| other != at && version.is_within(&self.net.map(other).version()))
    }

    /// The disk of a replica is replaced by an old one: it forgets what it saw, and others know what it wrote
    /// since.
    fn return_to_backup(&mut self, at: usize) {
        if !self.known_elsewhere(at) {
            return;
        }
        if let Some(saved) = self.backups.remove(&at) {
            self.net.boot(at, &saved, &mut self.random);
            // The replica may see values again that it saw removed before its restart.
            self.gone[at].clear();
        }
    }

    fn check_nothing_came_back(&mut self) {
        for at in 0..self.gone.len() {
            for key in &self.gone[at] {
                assert!(!self.net.map(at).holds(key), "{} came back at {at}", key.escape_ascii());
            }
            // A replica that has seen all events has seen the removal of each value that it does not hold.
            let map = self.net.map(at);
            let version = map.version();
            if (0..self.gone.len()).all(|other| self.net.map(other).version().is_within(&version)) {
                let seen: Vec<_> = self.removed.iter().filter(|key| !map.holds(key)).cloned().collect();
                self.gone[at].extend(seen);
            }
        }
    }

    fn finish(&mut self, seed: u64) {
        for at in 0..self.gone.len() {
            self.net.set_online(at, true);
        }
        self.silent_until.clear();
        self.net.run_until_in_sync(Duration::from_secs(3_600));
        let expected: BTreeSet<Vec<u8>> = self.added.difference(&self.removed).cloned().collect();
        for at in 0..self.gone.len() {
            let held: BTreeSet<Vec<u8>> = self.net.map(at).keys().into_iter().collect();
            let wrong: Vec<_> =
                held.symmetric_difference(&expected).map(|key| key.escape_ascii().to_string()).collect();
            assert!(wrong.is_empty(), "seed {seed}, replica {at}: lost or came back: {wrong:?}");
        }
        // Former lives fall silent for ever, all others have seen everything: nothing is left to remember.
        for _ in 0..30 {
            self.heartbeat();
            self.net.run(BEAT);
        }
        for at in 0..self.gone.len() {
            let map = self.net.map(at);
            assert_eq!(map.remembered(), 0, "seed {seed}, replica {at}");
            assert_eq!(map.members().leased().count(), self.gone.len(), "seed {seed}, replica {at}");
        }
    }
}

#[test]
fn fifty_replicas_with_churn_lose_nothing_and_nothing_comes_back() {
    churn::<CausalMap>(64 << 20, 300);
}

/// A range says nothing of the keys beside it: removed values stay removed.
#[test]
fn fifty_replicas_with_churn_lose_nothing_by_ranges_and_nothing_comes_back() {
    churn::<CausalMap>(1_500, 500);
}

#[test]
fn fifty_replicas_of_a_composed_type_with_churn_lose_nothing_and_nothing_comes_back() {
    churn::<CausalReplica<Composed>>(64 << 20, 300);
}

#[test]
fn fifty_replicas_of_a_composed_type_that_synchronize_by_slices_lose_nothing_and_nothing_comes_back() {
    churn::<CausalReplica<Composed>>(4_000, 300);
}

fn churn<R: Subject>(transfer_len_max: usize, steps: usize) {
    for seed in 0..super::seeds(1).min(200) {
        let mut churn = Churn::<R>::new(50, seed, transfer_len_max);
        let mut next_beat = Duration::ZERO;
        for step in 0..steps {
            churn.step();
            if churn.net.now() >= next_beat {
                churn.heartbeat();
                next_beat = churn.net.now() + BEAT;
            }
            if step % 50 == 0 {
                churn.check_nothing_came_back();
            }
        }
        churn.check_nothing_came_back();
        churn.finish(seed);
        assert_eq!(churn.net.staged.is_empty(), transfer_len_max > 1 << 20, "seed {seed}: it came by ranges");
    }
}

#[test]
fn a_silent_member_is_not_waited_for_after_its_lease_and_is_waited_for_again_when_it_returns() {
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    *here.members_mut() = Members::new(LEASE);
    let there = ReplicaId::new(2);
    here.put(b"a", 0, b"").unwrap();
    here.members_mut().heartbeat(Duration::ZERO, there, x0_crdt::Version::new());
    here.heartbeat(Duration::ZERO);
    assert_eq!(here.history_len(), 1, "the other has not seen it");
    here.heartbeat(LEASE);
    assert_eq!(here.history_len(), 1, "its lease is just not over");
    here.heartbeat(LEASE + Duration::from_secs(1));
    assert_eq!(here.history_len(), 0);
    here.put(b"b", 0, b"").unwrap();
    here.members_mut().heartbeat(LEASE * 2, there, x0_crdt::Version::new());
    here.heartbeat(LEASE * 2);
    assert_eq!(here.history_len(), 1);
}

/// A heartbeat takes bounded time: a million events at once would take 0.2 s.
#[test]
fn a_heartbeat_collects_a_part_of_a_long_history_and_the_next_ones_the_rest() {
    const COUNT: u32 = 20_000;
    const PART: usize = 8 * 1024;
    let pass = |from: &CausalMap, to: &mut CausalMap| {
        let seen = to.version();
        to.join(&from.delta(&seen)?).expect("the delta is sound");
        Ok::<(), x0_crdt::HistoryError>(())
    };
    let mut there = CausalMap::new(ReplicaId::new(2), KEY);
    for key in 0..COUNT {
        there.put(&key.to_be_bytes(), 0, b"there").unwrap();
    }
    let mut here = CausalMap::new(ReplicaId::new(1), KEY);
    pass(&there, &mut here).unwrap();
    for key in COUNT..2 * COUNT {
        here.put(&key.to_be_bytes(), 0, b"here").unwrap();
        if key == COUNT + 17_000 {
            pass(&here, &mut there).unwrap();
        }
    }
    for key in 0..COUNT / 4 {
        here.remove(&key.to_be_bytes()).unwrap();
    }
    assert_eq!((here.history_len(), here.removal_count()), (40_000, 5_000));
    let (mut whole, mut served) = (here.clone(), Vec::new());
    while here.history_len() > 0 {
        let before = here.history_len();
        here.heartbeat(Duration::ZERO);
        assert_eq!(before - here.history_len(), before.min(PART));
        // A peer that lags gets exactly what it lacks, or is refused.
        let mut peer = there.clone();
        served.push(pass(&here, &mut peer).is_ok());
        assert!(peer.frontier() == here.frontier() || !served.ends_with(&[true]));
    }
    assert_eq!(served, [true, true, false, false, false], "the peer has what two heartbeats collect");
    // Of a history that grows faster than that a heartbeat collects more, and sessions the rest in steps.
    for key in 0..2 * COUNT {
        here.put(&key.to_be_bytes(), 1, b"again").unwrap();
    }
    here.heartbeat(Duration::ZERO);
    assert_eq!(here.history_len(), 40_000 - 32_768);
    while here.has_reports() {
        here.step_stage();
    }
    assert_eq!(here.history_len(), 0);
    for key in 0..2 * COUNT {
        whole.put(&key.to_be_bytes(), 1, b"again").unwrap();
    }
    whole.collect_tombstones(&whole.version());
    assert_eq!((here.removal_count(), here.frontier()), (0, whole.frontier()));
}

/// No datagram of a peer is needed for it: a session wakes up.
#[test]
fn the_rest_of_a_long_history_is_collected_at_once_in_steps() {
    let mut map = CausalMap::new(ReplicaId::new(1), KEY);
    for key in 0..60_000_u32 {
        map.put(&key.to_be_bytes(), 0, b"value").unwrap();
    }
    map.heartbeat(Duration::ZERO);
    let mut left = map.history_len();
    assert!(left > 50_000, "{left}");
    let mut session = Session::<CausalMap>::new(&SessionOptions::default(), 1);
    let now = session.poll_timeout().unwrap();
    while session.poll_timeout().unwrap() <= now {
        session.handle(now, SessionInput::Timeout, &mut map).unwrap();
        while session.poll_output().is_some() {}
        assert!(left - map.history_len() <= 8 * 1024);
        left = map.history_len();
    }
    assert_eq!(left, 0);
}

/// Found by the signed maps: heartbeats of a restarted member were ignored until its count had reached that
/// of before.
#[test]
fn heartbeats_of_a_member_that_restarts_under_its_own_name_count_at_once() {
    let mut net = Net::<CausalMap>::new(2, 1, &SessionOptions::default(), Link::default());
    let beat = |net: &mut Net<CausalMap>, times| {
        for _ in 0..times {
            let now = net.now();
            for at in 0..2 {
                net.map_mut(at).heartbeat(now);
            }
            net.run(BEAT);
        }
    };
    for at in 0..2 {
        *net.map_mut(at).members_mut() = Members::new(LEASE);
    }
    beat(&mut net, 100);
    // Its state was durable, so it goes on as the same replica; what it knew of members was not.
    let (saved, id) = (net.map(1).save(), net.map(1).replica());
    net.boot_as(1, &saved, id, 5);
    *net.map_mut(1).members_mut() = Members::new(LEASE);
    net.map_mut(1).put(b"key", 0, b"").unwrap();
    net.changed(1);
    beat(&mut net, 10);
    assert_eq!(net.map(0).members().leased().count(), 2, "more than a lease later");
    assert_eq!([net.map(0).history_len(), net.map(1).history_len()], [0, 0]);
}
