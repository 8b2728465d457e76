//! Members in virtual time: any network, any crash. Then the same on real files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use x0_consensus::{
    Entry, Membership, MemoryStorage, ReadError, RecoverError, Recovered, SnapshotMeta, SnapshotReadError,
    SnapshotReader, SnapshotWriteError, SnapshotWriter, Storage, Write as LogWrite, WriteError,
};
use x0_crdt::{CausalMap, HashKey, ReplicaId, Session, SessionInput, SessionOutput};
use x0_identity::NodeId;

use super::journal::{Journal, JournalError};
use super::replica::{CrdtReplica, HandleError, Input, Output, Staged};
use super::{CrdtOptions, Write};
use crate::crdt::outcome::CrdtOutcome;
use crate::trace::Context;

const LEASE: Duration = Duration::from_secs(60);
const START_MS: u64 = 1_700_000_000_000;

/// Seeds to try: more with `X0_KV_CRDT_SEEDS`.
fn seeds(default: u64) -> u64 {
    std::env::var("X0_KV_CRDT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// The part of a node that outlives its process.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<MemoryStorage>>);

impl Storage for Disk {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        self.0.lock().unwrap().recover()
    }
    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        self.0.lock().unwrap().term(index)
    }
    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        self.0.lock().unwrap().read(indexes, len_bytes_max)
    }
    fn write(&mut self, batch: &[LogWrite]) -> Result<(), WriteError> {
        self.0.lock().unwrap().write(batch)
    }
    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        self.0.lock().unwrap().snapshot_writer(meta)
    }
    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        self.0.lock().unwrap().snapshot_reader()
    }
}

impl Disk {
    /// The same contents on another disk.
    fn copy(&self) -> Disk {
        let recovered = self.clone().recover().unwrap();
        assert_eq!(recovered.base.index, 0, "nothing was removed yet");
        let entries = self.clone().read(1..recovered.last_index + 1, usize::MAX).unwrap();
        let mut storage = MemoryStorage::new();
        storage.write(&[LogWrite { entries, ..LogWrite::default() }]).unwrap();
        Disk(Arc::new(Mutex::new(storage)))
    }
}

struct Member {
    id: NodeId,
    disk: Disk,
    replica: CrdtReplica<()>,
    journal: Journal,
    /// The acknowledged writes of this member: its keys, and its part of the counter.
    keys: BTreeMap<Vec<u8>, Option<u64>>,
    counted: i64,
    /// Its clock is off by so much, in ms.
    skew_ms: u64,
}

fn options(key: u8) -> CrdtOptions {
    let mut options = CrdtOptions::new([key; 16]);
    options.lease = LEASE;
    options.session.datagram_len_max = 300;
    options
}

/// The number of a traced write.
fn number(trace: &Context) -> u64 {
    u64::from_be_bytes(trace.span_id())
}

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

struct World {
    random: Random,
    now: Duration,
    members: Vec<Member>,
    network: VecDeque<(NodeId, NodeId, Bytes, Option<Context>)>,
    /// Traced writes, and the datagrams and merges in their traces, with the member.
    traced: u64,
    carried: BTreeMap<(u64, NodeId), u32>,
    merged: u64,
    cut: BTreeSet<(NodeId, NodeId)>,
    lives: u64,
    /// Joined states that came by key ranges.
    joined: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let count = 2 + random.below(4);
        let mut world = World {
            random,
            now: Duration::ZERO,
            members: Vec::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            lives: seed << 20,
            joined: 0,
            traced: 0,
            carried: BTreeMap::new(),
            merged: 0,
        };
        for number in 1..=count {
            let skew_ms = world.random.below(30_000);
            let member = world.boot(node(number), Disk::default(), skew_ms);
            world.members.push(member);
        }
        world.meet();
        world
    }

    fn boot(&mut self, id: NodeId, disk: Disk, skew_ms: u64) -> Member {
        self.lives += 1;
        let fresh = u32::try_from(self.lives & 0xFFFF_FFFF).unwrap();
        let key = options(7).hash_key;
        let storage: Box<dyn Storage> = Box::new(disk.clone());
        let (journal, map) = Journal::open(storage, id, fresh, key).unwrap();
        let mut options = options(7);
        if id.get() % 2 == 1 {
            // Short enough for states to come by key ranges.
            options.session.transfer_len_max = 400;
        }
        let replica = CrdtReplica::new(options, self.lives, self.now, map);
        Member { id, disk, replica, journal, keys: BTreeMap::new(), counted: 0, skew_ms }
    }

    fn meet(&mut self) {
        let all: BTreeSet<NodeId> = self.members.iter().map(|member| member.id).collect();
        for at in 0..self.members.len() {
            self.round(at, vec![Input::Members(all.clone())], true);
        }
    }

    /// One round of a driver. It may die before what it did is durable: then nothing of it ever happened.
    fn round(&mut self, at: usize, inputs: Vec<Input<()>>, survives: bool) -> Vec<CrdtOutcome> {
        let (now, member) = (self.now, &mut self.members[at]);
        let wall_ms = START_MS + member.skew_ms + u64::try_from(now.as_millis()).unwrap();
        for input in inputs {
            let input = match input {
                Input::Write { write, trace, reply, .. } => Input::Write { write, wall_ms, trace, reply },
                input => input,
            };
            // A datagram for an earlier start of this member does not fit any more; the replica counts it.
            let _ = member.replica.handle(now, input);
        }
        let mut outputs = Vec::new();
        while let Some(output) = member.replica.poll_output() {
            outputs.push(output);
        }
        if !survives {
            self.restart(at);
            return Vec::new();
        }
        for staged in member.replica.take_staged() {
            self.joined += u64::from(matches!(staged, Staged::Joined(_)));
            member.journal.write(member.journal.staged(staged)).unwrap();
        }
        if let Some(record) = member.journal.record(member.replica.map()) {
            member.journal.write(record).unwrap();
        }
        let mut done = Vec::new();
        for output in outputs {
            match output {
                Output::Send { to, payload, trace } => {
                    if let Some(trace) = trace {
                        *self.carried.entry((number(&trace), to)).or_default() += 1;
                    }
                    self.network.push_back((member.id, to, payload.into(), trace));
                }
                Output::Merged { from, keys, trace } => {
                    assert!(keys > 0 && from != member.id && number(&trace) <= self.traced);
                    self.merged += 1;
                }
                Output::Reply { result, .. } => done.push(result.unwrap()),
                Output::Changed { .. } => {}
            }
        }
        done
    }

    fn restart(&mut self, at: usize) {
        let (id, disk, skew_ms) =
            (self.members[at].id, self.members[at].disk.clone(), self.members[at].skew_ms);
        let mut member = self.boot(id, disk, skew_ms);
        member.keys = std::mem::take(&mut self.members[at].keys);
        member.counted = self.members[at].counted;
        self.members[at] = member;
        let all: BTreeSet<NodeId> = self.members.iter().map(|member| member.id).collect();
        self.round(at, vec![Input::Members(all)], true);
    }

    fn write(&mut self, at: usize) {
        let own = format!("{}/{}", self.members[at].id, self.random.below(12)).into_bytes();
        let key = Bytes::from(own.clone());
        let survives = self.random.below(12) > 0;
        let value = self.random.below(u64::MAX);
        let write = match self.random.below(5) {
            0 if value.is_multiple_of(2) => Write::Delete { key },
            // With the times that the member holds, or with those of no value.
            0 => {
                let held = self.members[at].replica.map().get(&own);
                let seen =
                    held.into_iter().flat_map(|entry| entry.siblings().map(|held| held.time)).collect();
                Write::DeleteSeen { key, seen: if value % 4 == 1 { seen } else { vec![value] } }
            }
            1 => Write::Add { key: Bytes::from_static(b"counter"), amount: 1 },
            2 => Write::Put {
                key: Bytes::from_static(b"shared"),
                value: Bytes::from(value.to_le_bytes().to_vec()),
            },
            _ => Write::Put { key, value: Bytes::from(value.to_le_bytes().to_vec()) },
        };
        let is_traced = self.random.below(3) == 0;
        self.traced += u64::from(is_traced);
        let trace = Context::new([9; 16], self.traced.to_be_bytes(), 1).filter(|_| is_traced);
        let done = self.round(
            at,
            vec![Input::Write { write: write.clone(), wall_ms: 0, trace, reply: () }],
            survives,
        );
        let member = &mut self.members[at];
        match (done.first(), write) {
            (None, _) | (_, Write::Delete { .. }) if done.is_empty() => {}
            (_, Write::Delete { .. }) => drop(member.keys.insert(own, None)),
            (_, Write::DeleteSeen { seen, .. }) if seen.first() == Some(&value) => {}
            (_, Write::DeleteSeen { .. }) => drop(member.keys.insert(own, None)),
            (_, Write::Clear { .. }) => panic!("the model has no such step"),
            (_, Write::Add { .. }) => member.counted += 1,
            (_, Write::Put { key, .. }) if key == "shared" => {}
            (_, Write::Put { .. }) => drop(member.keys.insert(own, Some(value))),
        }
    }

    fn deliver(&mut self, lossy: bool) {
        let Some(len) = (self.network.len() as u64).checked_sub(1) else { return };
        let at = if lossy { self.random.below(len + 1) } else { 0 };
        let Some((from, to, payload, trace)) = self.network.remove(usize::try_from(at).unwrap()) else {
            return;
        };
        let fate = if lossy { self.random.below(8) } else { 7 };
        if fate == 0 || self.cut.contains(&(from, to)) {
            return;
        }
        if fate == 1 {
            self.network.push_back((from, to, payload.clone(), trace));
        }
        let at = self.members.iter().position(|member| member.id == to).unwrap();
        self.round(at, vec![Input::Datagram { from, payload, trace }], true);
    }

    fn step(&mut self) {
        let at = usize::try_from(self.random.below(self.members.len() as u64)).unwrap();
        match self.random.below(40) {
            0..=9 => self.write(at),
            10..=29 => self.deliver(true),
            30..=36 => {
                self.now += Duration::from_millis(self.random.below(200));
                self.round(at, vec![Input::Timeout], true);
            }
            37 => {
                let other = usize::try_from(self.random.below(self.members.len() as u64)).unwrap();
                let pair = (self.members[at].id, self.members[other].id);
                if !self.cut.remove(&pair) {
                    self.cut.insert(pair);
                }
            }
            38 => self.restart(at),
            _ => self.now += Duration::from_secs(self.random.below(40)),
        }
    }

    /// Lets everything arrive until all hold the same.
    fn converge(&mut self, seed: u64) {
        self.cut.clear();
        let deadline = self.now + Duration::from_secs(120);
        while self
            .members
            .windows(2)
            .any(|pair| pair[0].replica.map().frontier() != pair[1].replica.map().frontier())
        {
            assert!(self.now < deadline, "seed {seed}: not converged");
            self.pass();
        }
    }

    fn pass(&mut self) {
        while !self.network.is_empty() {
            self.deliver(false);
        }
        self.now += Duration::from_millis(10);
        for at in 0..self.members.len() {
            self.round(at, vec![Input::Timeout], true);
        }
    }
}

#[test]
fn acknowledged_writes_are_everywhere_after_any_network_and_any_crash() {
    let (mut joined, mut merged) = (0, 0);
    for seed in 0..seeds(300) {
        let mut world = World::new(seed);
        for _ in 0..200 + world.random.below(600) {
            world.step();
        }
        world.converge(seed);
        joined += world.joined;
        merged += world.merged;
        assert!(world.carried.values().all(|datagrams| *datagrams <= 4), "seed {seed}: {:?}", world.carried);
        let state = world.members[0].replica.map().encode_state();
        let counted: i64 = world.members.iter().map(|member| member.counted).sum();
        for reader in &world.members {
            assert!(
                reader.replica.map().encode_state() == state,
                "seed {seed}: {} holds something else",
                reader.id
            );
            let counter = reader.replica.map().get(b"counter").map_or(0, |entry| entry.sum());
            assert_eq!(counter, counted, "seed {seed}: the counter at {}", reader.id);
            for writer in &world.members {
                for (key, value) in &writer.keys {
                    let entry = reader.replica.map().get(key);
                    let held = entry.map(|entry| entry.siblings().map(|held| held.value.to_vec()).collect());
                    let wanted = value.map(|value| vec![value.to_le_bytes().to_vec()]);
                    assert_eq!(
                        held,
                        wanted,
                        "seed {seed}: {:?} at {}",
                        String::from_utf8_lossy(key),
                        reader.id
                    );
                }
            }
        }
    }
    assert!(joined > 0, "some states came by key ranges");
    assert!(merged > 0, "some merges are in the trace of a write");
}

#[test]
fn tombstones_that_all_members_have_seen_are_collected() {
    let mut world = World::new(5);
    for at in 0..world.members.len() {
        for _ in 0..40 {
            world.write(at);
        }
    }
    world.converge(5);
    let end = world.now + LEASE / 2;
    while world.now < end {
        world.pass();
    }
    for member in &world.members {
        let status = member.replica.status();
        assert_eq!(status.history_events, 0, "{}", member.id);
        assert!(status.peers.values().all(|in_sync| *in_sync));
    }
}

/// Members in sync receive a write in a few round trips, not when they next compare.
#[test]
fn a_write_is_told_at_once() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.converge(seed);
        for _ in 0..300 {
            world.pass();
        }
        let at = world.now;
        let write = Write::Put { key: "key".into(), value: "value".into() };
        let trace = Context::new([9; 16], [1; 8], 1);
        world.traced = u64::MAX;
        world.round(0, vec![Input::Write { write, wall_ms: 0, trace, reply: () }], true);
        world.converge(seed);
        assert_eq!(world.merged, world.members.len() as u64 - 1, "seed {seed}: a merge on each other member");
        assert!(world.now - at < Duration::from_millis(200), "seed {seed}: after {:?}", world.now - at);
    }
}

/// The clock of one member is an hour ahead: what it writes is seen, but does not win over concurrent writes
/// for an hour.
#[test]
fn a_clock_that_runs_ahead_wins_nothing_by_it() {
    let mut world = World::new(1);
    (world.members[0].skew_ms, world.members[1].skew_ms) = (3_600_000, 0);
    for (at, value) in [(0, "ahead"), (1, "right")] {
        let write = Write::Put { key: "key".into(), value: value.into() };
        world.round(at, vec![Input::Write { write, wall_ms: 0, trace: None, reply: () }], true);
    }
    world.converge(1);
    for member in &world.members[1..] {
        let wall_ms = START_MS + u64::try_from(world.now.as_millis()).unwrap();
        let read = |read| super::reading::read(member.replica.map(), member.replica.time_max(wall_ms), &read);
        let CrdtOutcome::Value(Some(found)) = read(super::Read::Get { key: "key".into() }) else {
            panic!("nothing")
        };
        assert_eq!(found.value, "right");
        let CrdtOutcome::Siblings(siblings) = read(super::Read::Siblings { key: "key".into() }) else {
            panic!()
        };
        assert_eq!(siblings.iter().map(|value| value.value.clone()).collect::<Vec<_>>(), ["ahead", "right"]);
    }
    // A writer that has seen it is later than it, or at least replaces it.
    let write = Write::Put { key: "key".into(), value: "after".into() };
    world.round(1, vec![Input::Write { write, wall_ms: 0, trace: None, reply: () }], true);
    world.converge(1);
    let entry = world.members[0].replica.map().get(b"key").unwrap();
    assert_eq!(entry.siblings().map(|held| held.value).collect::<Vec<_>>(), [b"after"]);
}

#[test]
fn a_complete_map_is_written_when_deltas_outweigh_it() {
    let (disk, key) = (Disk::default(), HashKey::new([1; 16]));
    let (mut journal, mut map) = Journal::open(Box::new(disk.clone()), node(1), 9, key).unwrap();
    for round in 0..400_u64 {
        let value: Vec<u8> = (0..60_000_u64).map(|at| ((at * (round + 31)) >> 3).to_le_bytes()[0]).collect();
        map.put(b"key", round, &value).unwrap();
        journal.write(journal.record(&map).unwrap()).unwrap();
    }
    let recovered = disk.clone().recover().unwrap();
    let held = recovered.last_index - recovered.base.index;
    assert!(recovered.base.index > 300 && held < 50, "{held} entries of {} are held", recovered.last_index);
    let (_, found) = Journal::open(Box::new(disk), node(1), 10, key).unwrap();
    assert_eq!((found.frontier(), found.replica()), (map.frontier(), map.replica()));
}

/// A member whose folder was restored from a backup lacks events of its own: it goes on as a fresh
/// incarnation, also after a restart, and no write is lost but those whose numbers were used twice.
#[test]
fn a_member_that_was_restored_from_a_backup_goes_on_as_a_fresh_incarnation() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..6 {
            world.write(0);
            world.write(1);
        }
        world.converge(seed);
        let backup = world.members[0].disk.copy();
        for _ in 0..6 {
            world.write(0);
        }
        world.converge(seed);
        let old = world.members[0].replica.map().replica();
        world.members[0].disk = backup;
        world.restart(0);
        assert_eq!(world.members[0].replica.map().replica(), old);
        let put = |world: &mut World, key: &str| {
            let write = Write::Put { key: key.to_owned().into(), value: "value".into() };
            world.round(0, vec![Input::Write { write, wall_ms: 0, trace: None, reply: () }], true);
        };
        put(&mut world, "a number that is used twice");
        world.converge(seed);
        let fresh = world.members[0].replica.map().replica();
        assert!(fresh != old && fresh.node == old.node, "seed {seed}");
        assert_eq!(world.members[0].replica.status().totals.renewals, 1, "seed {seed}");
        put(&mut world, "after the renewal");
        world.restart(0);
        assert_eq!(world.members[0].replica.map().replica(), fresh, "seed {seed}: the journal has it");
        put(&mut world, "after a restart");
        world.converge(seed);
        let status = world.members[0].replica.status();
        assert_eq!((status.totals.renewals, status.mismatching.len()), (0, 0), "seed {seed}");
        for member in &world.members {
            let map = member.replica.map();
            assert!(map.get(b"after the renewal").is_some() && map.get(b"after a restart").is_some());
        }
    }
}

/// A member that claims events of this node again and again, as one does whose folder is in use twice.
#[test]
fn a_node_is_renewed_after_a_pause_and_a_renewal_that_is_not_durable_counts_for_nothing() {
    let [here, there] = [node(1), node(2)];
    let mut options = options(7);
    options.session.retry_max = Duration::from_secs(10);
    let empty = |id: NodeId| CausalMap::new(ReplicaId::new(id.get()), options.hash_key);
    let mut replica = CrdtReplica::<()>::new(options.clone(), 1, Duration::ZERO, empty(here));
    replica.handle(Duration::ZERO, Input::Members([here, there].into())).unwrap();
    let claim = |replica: &mut CrdtReplica<()>, now: Duration| {
        let mut forged = CausalMap::new(replica.map().replica(), options.hash_key);
        let mut map = empty(there);
        // Another content each time: a session does not try the same twice.
        forged.put(b"forged", now.as_secs(), b"value").unwrap();
        map.join(&forged.delta(&map.version()).unwrap()).unwrap();
        let mut session = Session::new(&options.session, now.as_micros().try_into().unwrap());
        session.handle(now, SessionInput::Reachable, &mut map).unwrap();
        replica.handle(now, Input::Up(there)).unwrap();
        // The session of the replica pauses after an attempt that failed.
        for step in 0..500 {
            let now = now + step * Duration::from_millis(20);
            let mut is_refused = false;
            session.handle(now, SessionInput::Timeout, &mut map).unwrap();
            replica.handle(now, Input::Timeout).unwrap();
            while let Some(output) = session.poll_output() {
                let SessionOutput::Send(payload) = output else { continue };
                let input = Input::Datagram { from: there, payload: payload.into(), trace: None };
                is_refused |= replica.handle(now, input) == Err(HandleError::Impostor { from: there });
            }
            while let Some(output) = replica.poll_output() {
                if let Output::Send { payload, .. } = output {
                    session.handle(now, SessionInput::Datagram(&payload), &mut map).unwrap();
                }
            }
            if is_refused {
                return replica.status().totals.renewals;
            }
        }
        panic!("the claim at {now:?} is not refused");
    };
    for second in 0..4 {
        assert_eq!(claim(&mut replica, Duration::from_secs(second)), 1);
    }
    // The claims are not forgotten: the pause ends without a further one.
    replica.handle(options.session.retry_max - Duration::from_secs(1), Input::Timeout).unwrap();
    assert_eq!(replica.status().totals.renewals, 1);
    // The first claim was not made before some steps.
    let pause = options.session.retry_max + Duration::from_secs(1);
    replica.handle(pause, Input::Timeout).unwrap();
    assert_eq!(replica.status().totals.renewals, 2);
    assert_eq!(claim(&mut replica, pause), 2);
    // After a quiet lease the next one waits for nothing.
    replica.handle(pause + 2 * options.lease, Input::Timeout).unwrap();
    let late = pause + 4 * options.lease;
    assert_eq!(claim(&mut replica, late), 4);
    // A renewal that is durable stays when a later record could not be written.
    let renewed = replica.reports().renewed;
    replica.reset(CausalMap::new(replica.map().replica(), options.hash_key));
    assert_eq!(replica.reports().renewed, renewed);
    assert_eq!(claim(&mut replica, late), 4);
    // A renewal that could not be written is undone, and the next claim renews the replica again.
    replica.reset(empty(here));
    assert_eq!((replica.reports().renewed, replica.status().totals.renewals), (None, 3));
    assert_eq!(claim(&mut replica, late), 4);
}

/// An honest member holds events that were forged under each incarnation of a node: the node joins nothing of
/// it, and its own writes are lost, until it goes on as another one.
#[test]
fn events_forged_towards_others_block_a_node_for_a_pause_that_grows_to_a_lease() {
    let mut options = options(7);
    options.session.retry_max = Duration::from_secs(10);
    let members: BTreeSet<NodeId> = [node(1), node(2)].into();
    let mut replicas = [1, 2].map(|id| {
        let map = CausalMap::new(ReplicaId::new(id), options.hash_key);
        let mut replica = CrdtReplica::<()>::new(options.clone(), id, Duration::ZERO, map);
        replica.handle(Duration::ZERO, Input::Members(members.clone())).unwrap();
        replica
    });
    /// Runs until a condition holds. Returns after which time it does.
    fn run(
        replicas: &mut [CrdtReplica<()>; 2],
        now: &mut Duration,
        is_done: impl Fn(&[CrdtReplica<()>; 2], Duration) -> bool,
    ) -> Duration {
        let begin = *now;
        while !is_done(replicas, *now) {
            assert!(*now < begin + LEASE * 3, "nothing happens");
            *now += Duration::from_millis(100);
            for at in 0..2 {
                // Refusals are counted.
                let _ = replicas[at].handle(*now, Input::Timeout);
                while let Some(output) = replicas[at].poll_output() {
                    let Output::Send { payload, .. } = output else { continue };
                    let from = node(at as u64 + 1);
                    let _ = replicas[1 - at]
                        .handle(*now, Input::Datagram { from, payload: payload.into(), trace: None });
                }
            }
        }
        *now - begin
    }
    let mut now = Duration::ZERO;
    let mut pauses = Vec::new();
    for round in 0..8_u8 {
        if round == 6 {
            let end = now + LEASE * 2;
            run(&mut replicas, &mut now, |_, now| now >= end);
        }
        let life = replicas[0].map().replica();
        let mut forged = CausalMap::new(life, options.hash_key);
        for number in 0..10 {
            forged.put(&[round, number], 0, b"forged").unwrap();
        }
        let held = replicas[1].map();
        let mut map = CausalMap::restore(&held.save(), held.replica(), options.hash_key).unwrap();
        map.join(&forged.delta(&map.version()).unwrap()).unwrap();
        replicas[1].reset(map);
        let is_renewed = |replicas: &[CrdtReplica<()>; 2], _| replicas[0].map().replica() != life;
        pauses.push(run(&mut replicas, &mut now, is_renewed).as_secs());
        let write = Write::Put { key: Bytes::copy_from_slice(&[round]), value: "written".into() };
        replicas[0].handle(now, Input::Write { write, wall_ms: START_MS, trace: None, reply: () }).unwrap();
        let is_same =
            |replicas: &[CrdtReplica<()>; 2], _| replicas[0].map().frontier() == replicas[1].map().frontier();
        let after = run(&mut replicas, &mut now, is_same);
        assert!(after < Duration::from_secs(5), "{after:?} after the renewal");
        for replica in &replicas {
            assert!(replica.map().get(&[round]).is_some() && replica.map().get(&[round, 9]).is_some());
        }
    }
    let expected = [0, 10, 20, 40, 60, 60, 0, 10];
    let is_near = |(pause, expected): (&u64, &u64)| *pause <= *expected + 1 && *pause + 4 > *expected;
    assert!(pauses.iter().zip(&expected).all(is_near), "{pauses:?}");
}

/// More values of one key than a client receives.
#[test]
fn a_key_with_many_values_is_removed_by_their_times() {
    let options = options(7);
    let map = |id: u64| CausalMap::new(ReplicaId::new(id), options.hash_key);
    let mut all = map(1);
    for id in 2..42 {
        let mut writer = map(id);
        writer.put(b"\x05itemskey", 100 + id, b"value").unwrap();
        all.join(&writer.delta(&all.version()).unwrap()).unwrap();
    }
    let seen: Vec<u64> = all.get(b"\x05itemskey").unwrap().siblings().map(|value| value.time).collect();
    assert_eq!(seen.len(), 40);
    let mut replica = CrdtReplica::<u8>::new(options.clone(), 1, Duration::ZERO, all);
    let key = Bytes::from_static(b"\x05itemskey");
    for (seen, is_gone) in [(seen[1..].to_vec(), false), (seen, true)] {
        let write = Write::DeleteSeen { key: key.clone(), seen };
        replica.handle(Duration::ZERO, Input::Write { write, wall_ms: 0, trace: None, reply: 0 }).unwrap();
        let done = std::iter::from_fn(|| replica.poll_output()).find_map(|output| match output {
            Output::Reply { result, .. } => Some(result),
            _ => None,
        });
        assert_eq!(done, Some(Ok(CrdtOutcome::Deleted(is_gone))));
    }
}

#[test]
fn a_member_with_another_hash_key_is_named() {
    let [here, there] = [node(1), node(2)];
    let all: BTreeSet<NodeId> = [here, there].into();
    let mut replicas = [(here, 7), (there, 8)].map(|(id, key)| {
        let map = CausalMap::new(ReplicaId::new(id.get()), options(key).hash_key);
        CrdtReplica::<()>::new(options(key), id.get(), Duration::ZERO, map)
    });
    for replica in &mut replicas {
        replica.handle(Duration::ZERO, Input::Members(all.clone())).unwrap();
    }
    let mut found = None;
    while let Some(output) = replicas[0].poll_output() {
        if let Output::Send { payload, .. } = output {
            let input = Input::Datagram { from: here, payload: payload.into(), trace: None };
            found = replicas[1].handle(Duration::ZERO, input).err().or(found);
        }
    }
    assert_eq!(found, Some(HandleError::KeyMismatch { from: here }));
    assert_eq!(replicas[1].status().mismatching, [here].into());
    let input = Input::Datagram { from: here, payload: Bytes::from_static(b"\xFF"), trace: None };
    assert_eq!(replicas[1].handle(Duration::ZERO, input), Err(HandleError::Refused { from: here }));
    assert_eq!(replicas[1].status().totals.renewals, 0);
}

/// A complete map above the length of an entry is a snapshot of the log, and what follows counts as well.
#[test]
fn a_long_complete_map_is_a_snapshot_of_the_log() {
    let (disk, key) = (Disk::default(), HashKey::new([1; 16]));
    let (mut journal, mut map) = Journal::open(Box::new(disk.clone()), node(1), 9, key).unwrap();
    let reopened = |map: &CausalMap| {
        let (journal, found) = Journal::open(Box::new(disk.clone()), node(1), 10, key).unwrap();
        assert_eq!((found.frontier(), found.replica()), (map.frontier(), map.replica()));
        (journal, disk.clone().recover().unwrap())
    };
    let value = |seed: u64| -> Vec<u8> {
        (0..60_000_u64).map(|at| ((at * (seed + 31)) >> 3).to_le_bytes()[0]).collect()
    };
    // A delta above the length of an entry: the complete map takes its place.
    for number in 0..4_u8 {
        map.put(&[number], 1, &value(u64::from(number))).unwrap();
    }
    journal.write(journal.record(&map).unwrap()).unwrap();
    let (_, recovered) = reopened(&map);
    assert_eq!((recovered.base.index, recovered.last_index), (2, 2));
    assert_eq!(recovered.snapshot.map(|meta| meta.index), Some(2));
    // Deltas after it, and a complete map after those.
    let mut journal = journal;
    for round in 0..60 {
        map.put(b"key", round, &value(round)).unwrap();
        journal.write(journal.record(&map).unwrap()).unwrap();
        if round % 7 == 0 {
            journal = reopened(&map).0;
        }
    }
    let (_, recovered) = reopened(&map);
    assert!(recovered.base.index > 20 && recovered.last_index > recovered.base.index, "{recovered:?}");
    assert_eq!(recovered.snapshot.map(|meta| meta.index), Some(recovered.base.index));
    // A map that has become short is an entry again, and the snapshot before it counts no more.
    for number in 0..4_u8 {
        map.remove(&[number]);
    }
    journal.write(journal.whole(&map)).unwrap();
    let (_, recovered) = reopened(&map);
    assert_eq!(recovered.last_index, recovered.base.index + 1);
    let unread = Box::new(WithoutSnapshot(disk.clone()));
    let (_, found) = Journal::open(unread, node(1), 10, key).unwrap();
    assert_eq!(found.frontier(), map.frontier());
}

/// A disk on which the snapshot must not be read.
struct WithoutSnapshot(Disk);

impl Storage for WithoutSnapshot {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        self.0.recover()
    }
    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        self.0.term(index)
    }
    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        self.0.read(indexes, len_bytes_max)
    }
    fn write(&mut self, batch: &[LogWrite]) -> Result<(), WriteError> {
        self.0.write(batch)
    }
    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        self.0.snapshot_writer(meta)
    }
    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        panic!("the snapshot is read although the log begins with a complete map")
    }
}

/// The same on files, which do not grow with each complete map.
#[test]
fn long_complete_maps_replace_each_other_in_the_folder() {
    let (folder, options) = (tempfile::tempdir().unwrap(), options(1));
    let open = || {
        let log = super::journal_in(folder.path(), &options, node(1)).unwrap();
        Journal::open(Box::new(log), node(1), 9, options.hash_key).unwrap()
    };
    let (mut journal, mut map) = open();
    for round in 0..40_u64 {
        let mut random = Random(round);
        let value: Vec<u8> = (0..60_000).map(|_| random.below(256).to_le_bytes()[0]).collect();
        map.put(&[round.to_le_bytes()[0] % 5], round, &value).unwrap();
        journal.write(journal.record(&map).unwrap()).unwrap();
        if round % 9 == 8 {
            journal.write(journal.whole(&map)).unwrap();
        }
        if round % 6 == 5 {
            drop(journal);
            let (reopened, found) = open();
            assert_eq!((found.frontier(), found.replica()), (map.frontier(), map.replica()), "{round}");
            (journal, map) = (reopened, found);
        }
    }
    let files = std::fs::read_dir(folder.path().join("crdt")).unwrap();
    let len: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!((300_000..6_000_000).contains(&len), "{len}");
}

/// What a crash leaves of a snapshot that was not adopted does not count.
#[test]
fn a_disk_that_is_full_leaves_what_was_written_before() {
    let (disk, key) = (Disk::default(), HashKey::new([1; 16]));
    let (mut journal, mut map) = Journal::open(Box::new(disk.clone()), node(1), 9, key).unwrap();
    map.put(b"key", 1, b"value").unwrap();
    journal.write(journal.record(&map).unwrap()).unwrap();
    let before = map.frontier();
    let meta = SnapshotMeta { index: 3, term: 1, membership: Membership::default() };
    let mut writer = disk.clone().snapshot_writer(&meta).unwrap();
    writer.write_all(b"half of a map").unwrap();
    writer.finish().unwrap();
    let (_, found) = Journal::open(Box::new(disk), node(1), 10, key).unwrap();
    assert_eq!(found.frontier(), before);
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    assert!(JournalError::SnapshotWrite(full()).is_full());
    assert!(JournalError::Snapshot(SnapshotWriteError::Full { file: "snapshot".into() }).is_full());
    assert!(!JournalError::SnapshotBytes(full()).is_full() && !JournalError::HashKey.is_full());
}

#[test]
fn a_journal_of_another_is_refused() {
    let (disk, key) = (Disk::default(), HashKey::new([1; 16]));
    drop(Journal::open(Box::new(disk.clone()), node(1), 9, key).unwrap());
    let error = Journal::open(Box::new(disk.clone()), node(2), 9, key).err().unwrap();
    assert!(matches!(error, JournalError::Node { found: 1, .. }), "{error}");
    let error = Journal::open(Box::new(disk), node(1), 9, HashKey::new([2; 16])).err().unwrap();
    assert!(matches!(error, JournalError::HashKey), "{error}");
}

/// Every entry of a journal with each byte changed in turn: refused, or something else, but never a panic.
#[test]
fn a_damaged_journal_does_no_harm() {
    let key = HashKey::new([1; 16]);
    let disk = Disk::default();
    let (mut journal, mut map) = Journal::open(Box::new(disk.clone()), node(1), 9, key).unwrap();
    for round in 0..4 {
        map.put(format!("key-{round}").as_bytes(), round, b"value").unwrap();
        map.remove(b"key-1");
        journal.write(journal.record(&map).unwrap()).unwrap();
    }
    let entries = { disk }.read(1..6, usize::MAX).unwrap();
    for (at, entry) in entries.iter().enumerate() {
        for byte in 0..entry.payload.len() {
            for change in [1, 0x80, 0xFF] {
                let mut entries = entries.clone();
                let mut payload = entry.payload.to_vec();
                payload[byte] ^= change;
                entries[at].payload = payload.into();
                let mut damaged = MemoryStorage::new();
                damaged.write(&[LogWrite { entries, ..LogWrite::default() }]).unwrap();
                drop(Journal::open(Box::new(damaged), node(1), 9, key));
            }
        }
    }
}
