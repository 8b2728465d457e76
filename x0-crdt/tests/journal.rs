//! The journal of a map: crashes at any byte, damage, snapshots, ranges.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test")]

#[path = "support/pump.rs"]
mod pump;
#[path = "map/random.rs"]
mod random;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pump::{Seen, pump};
use random::Random;
use x0_crdt::internal::{journal_of, replay_journal};
use x0_crdt::{
    CausalMap, HashKey, Journal, JournalError, Members, ReplicaId, Session, SessionInput, SessionOptions,
    SessionOutput,
};

const KEY: HashKey = HashKey::new(*b"a key of a test.");
const ID: ReplicaId = ReplicaId::new(1);

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("x0-crdt-{}-{number}", std::process::id())))
    }

    fn open(&self) -> Result<(Journal, CausalMap), JournalError> {
        Journal::open(&self.0, ID, KEY)
    }

    /// The one file with records.
    fn file(&self) -> PathBuf {
        let mut files = files(&self.0);
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| !path.ends_with("journal.lock")).collect()
}

fn change(map: &mut CausalMap, random: &mut Random) {
    let key = format!("key-{}", random.below(12)).into_bytes();
    if random.below(3) == 0 {
        map.remove(&key);
    } else {
        map.put(&key, random.below(9), &random.next().to_le_bytes()).unwrap();
    }
}

/// The states after each record, and the lengths of the file.
fn written(folder: &Folder, records: usize, random: &mut Random) -> Vec<(u64, Vec<u8>)> {
    let (mut journal, mut map) = folder.open().unwrap();
    let len = |folder: &Folder| fs::metadata(folder.file()).unwrap().len();
    let mut states = vec![(len(folder), map.encode_state())];
    while states.len() <= records {
        change(&mut map, random);
        if journal.record(&map).unwrap() {
            states.push((len(folder), map.encode_state()));
        }
    }
    states
}

#[test]
fn a_crash_at_any_byte_leaves_the_records_before_it() {
    let (folder, mut random) = (Folder::new(), Random::new(1));
    let states = written(&folder, 12, &mut random);
    let (file, bytes) = (folder.file(), fs::read(folder.file()).unwrap());
    for len in states[0].0..=bytes.len() as u64 {
        let mut torn = bytes[..len as usize].to_vec();
        if len % 3 == 0 {
            // The system has made the file longer, and not written all of it.
            torn.extend_from_slice(&[0; 40]);
        }
        fs::write(&file, &torn).unwrap();
        let (mut journal, mut map) = folder.open().unwrap();
        let (whole, state) = states.iter().rev().find(|(end, _)| *end <= len).unwrap();
        assert_eq!(map.encode_state(), *state, "{len}");
        assert_eq!(fs::metadata(&file).unwrap().len(), *whole, "the rest is cut off");
        // And it goes on.
        map.put(b"after", 1, b"the crash").unwrap();
        journal.record(&map).unwrap();
        drop(journal);
        assert_eq!(folder.open().unwrap().1.encode_state(), map.encode_state());
    }
}

#[test]
fn damage_before_the_last_record_is_an_error_and_changes_nothing() {
    let (folder, mut random) = (Folder::new(), Random::new(2));
    let states = written(&folder, 6, &mut random);
    let (file, bytes) = (folder.file(), fs::read(folder.file()).unwrap());
    let last = states[states.len() - 2].0;
    for at in 0..bytes.len() as u64 {
        let mut damaged = bytes.clone();
        damaged[at as usize] ^= 1 << random.below(8);
        fs::write(&file, &damaged).unwrap();
        match folder.open() {
            Ok((_, map)) => {
                assert!(at >= last, "{at}");
                assert_eq!(map.encode_state(), states[states.len() - 2].1, "the last record is not there");
            }
            Err(JournalError::Damaged { .. } | JournalError::HashKey { .. }) => {
                assert!(at < last, "{at}");
                assert_eq!(fs::read(&file).unwrap(), damaged);
            }
            Err(error) => panic!("{error}"),
        }
    }
    fs::write(&file, &bytes).unwrap();
    let other = Journal::open(&folder.0, ID, HashKey::new([1; 16]));
    assert!(matches!(other, Err(JournalError::HashKey { .. })));
}

/// Frames with right checksums whose payloads are damaged, left out, repeated and in another order: refused,
/// or another map, which can be saved.
#[test]
fn frames_of_any_payload_are_refused_or_another_map() {
    let mut random = Random::new(8);
    let mut fetching = Fetching::new(200, &mut random);
    for round in 0..400_u64 {
        fetching.step((round % 2) as usize, || false);
        if round % 40 == 0 {
            change(&mut fetching.map, &mut random);
            fetching.journal.record(&fetching.map).unwrap();
        }
    }
    let bytes = fs::read(fetching.folder.file()).unwrap();
    let frames = frames_of(&bytes);
    let kinds: std::collections::BTreeSet<u8> = frames.iter().map(|(kind, _)| *kind).collect();
    assert!(kinds.contains(&0) && kinds.contains(&1) && kinds.contains(&2), "{kinds:?}");
    assert_eq!(journal_of(frames.iter().map(|(kind, payload)| (*kind, &payload[..])), KEY), bytes);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let mut frames = frames.clone();
        for _ in 0..=random.below(2) {
            let at = random.below(frames.len() as u64) as usize;
            let (kind, payload) = &mut frames[at];
            match random.below(6) {
                0 => *kind = random.below(6) as u8,
                1 => payload.truncate(random.below(payload.len() as u64 + 1) as usize),
                2 | 3 if !payload.is_empty() => {
                    let at = random.below(payload.len() as u64) as usize;
                    payload[at] ^= 1 << random.below(8);
                }
                4 => drop(frames.remove(at)),
                _ => {
                    let copy = frames[at].clone();
                    frames.insert(random.below(frames.len() as u64 + 1) as usize, copy);
                }
            }
            if frames.is_empty() {
                break;
            }
        }
        let bytes = journal_of(frames.iter().map(|(kind, payload)| (*kind, &payload[..])), KEY);
        match replay_journal(&bytes, ID, KEY) {
            Some(map) => {
                read += 1;
                CausalMap::restore(&map.save(), ID, KEY).unwrap();
            }
            None => refused += 1,
        }
    }
    assert!(read > 100 && refused > 1_000, "{read} {refused}");
}

/// The kinds and payloads of the frames of a file: after the head of 16 bytes each has its length, a checksum
/// of it, the body and a checksum.
fn frames_of(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut rest = &bytes[16..];
    while let Some((len, after)) = rest.split_first_chunk() {
        let (body, after) = after[4..].split_at(u64::from_le_bytes(*len) as usize);
        frames.push((body[0], body[1..].to_vec()));
        rest = &after[8..];
    }
    frames
}

/// A crash while a snapshot takes the place of the records leaves one of the two.
#[test]
fn a_crash_during_a_snapshot_leaves_the_records_or_the_snapshot() {
    let (folder, mut random) = (Folder::new(), Random::new(3));
    written(&folder, 5, &mut random);
    let (mut journal, mut map) = folder.open().unwrap();
    let old = folder.file();
    let old_bytes = fs::read(&old).unwrap();
    let recorded = map.encode_state();
    change(&mut map, &mut random);
    map.put(b"new", 1, b"value").unwrap();
    *map.members_mut() = Members::new(Duration::from_secs(7));
    map.heartbeat(Duration::ZERO);
    journal.snapshot(&map).unwrap();
    drop(journal);
    let new = folder.file();
    assert_ne!(new, old, "a new generation");
    let new_bytes = fs::read(&new).unwrap();
    for (name, len) in (0..new_bytes.len()).map(|len| ("journal.new", len)).step_by(7) {
        fs::remove_file(&new).ok();
        fs::write(&old, &old_bytes).unwrap();
        fs::write(folder.0.join(name), &new_bytes[..len]).unwrap();
        assert_eq!(folder.open().unwrap().1.encode_state(), recorded, "{len}");
    }
    fs::remove_file(folder.0.join("journal.new")).unwrap();
    // The snapshot has its name, and the records before it are still there.
    fs::write(&new, &new_bytes).unwrap();
    let (_, opened) = folder.open().unwrap();
    assert_eq!(opened.encode_state(), map.encode_state());
    assert_eq!(opened.members().lease(), Duration::from_secs(7));
    assert_eq!(opened.members().leased().collect::<Vec<_>>(), [ID]);
    assert_eq!(folder.file(), new, "the records before it are removed");
}

#[test]
fn records_are_replaced_by_a_snapshot_when_they_outweigh_it() {
    let (folder, mut random) = (Folder::new(), Random::new(4));
    let (mut journal, mut map) = folder.open().unwrap();
    let mut longest = 0;
    for _ in 0..100 {
        let value: Vec<u8> = (0..6_000).flat_map(|_| random.next().to_le_bytes()).collect();
        map.put(b"key", 1, &value).unwrap();
        assert!(journal.record(&map).unwrap());
        assert!(!journal.record(&map).unwrap(), "nothing has changed");
        longest = longest.max(fs::metadata(folder.file()).unwrap().len());
    }
    assert!((1 << 20..1_300_000).contains(&longest), "{longest}");
    drop(journal);
    assert_eq!(folder.open().unwrap().1.encode_state(), map.encode_state());
}

#[test]
fn two_processes_do_not_share_a_journal() {
    let folder = Folder::new();
    let first = folder.open().unwrap();
    assert!(matches!(folder.open(), Err(JournalError::Locked { .. })));
    drop(first);
    folder.open().unwrap();
}

/// A long state that arrives by ranges goes on after each restart, and counts only at its end.
#[test]
fn ranges_go_on_after_a_restart() {
    for keeps_ranges in [true, false] {
        let folder = Folder::new();
        let options = SessionOptions::default().transfer_len_max(4_000);
        let mut random = Random::new(5);
        let mut source = CausalMap::new(ReplicaId::new(2), KEY);
        for _ in 0..500 {
            source.put(&random.next().to_le_bytes(), 0, &random.next().to_le_bytes()).unwrap();
        }
        let (mut journal, map) = folder.open().unwrap();
        let mut maps = [map, source];
        let mut sessions = [1, 2].map(|seed| Session::<CausalMap>::new(&options, seed));
        let (mut now, mut kills, mut ranges) = (Duration::ZERO, 0, 0);
        while maps[0].frontier() != maps[1].frontier() {
            assert!(now < Duration::from_secs(600));
            for side in 0..2 {
                pump(now, side, &mut maps, &mut sessions, |of, map, seen| {
                    match seen {
                        Seen::Output(SessionOutput::Staged(record)) if of == 0 => {
                            ranges += 1;
                            if keeps_ranges {
                                journal.stage(&record).unwrap();
                            }
                        }
                        Seen::Output(SessionOutput::Joined(joined)) if of == 0 => {
                            journal.joined(&joined).unwrap();
                            journal.record(map).unwrap();
                        }
                        seen => return seen.datagram(),
                    }
                    None
                });
            }
            now += Duration::from_millis(1);
            if now.as_millis().is_multiple_of(4) && kills < 5 {
                kills += 1;
                maps[0].put(&[kills], 9, b"mine").unwrap();
                journal.record(&maps[0]).unwrap();
                drop(journal);
                let (reopened, opened) = folder.open().unwrap();
                assert_eq!(opened.frontier(), maps[0].frontier());
                (journal, maps[0]) = (reopened, opened);
                sessions[0] = Session::new(&options, u64::from(kills) + 10);
            }
        }
        assert!(kills > 0);
        assert!(!keeps_ranges || ranges <= 12, "{ranges}: a kill costs no range that was kept");
        drop(journal);
        assert_eq!(folder.open().unwrap().1.encode_state(), maps[1].encode_state());
    }
}

/// What is recorded is there after any sequence of changes, joins, collections and crashes.
#[test]
fn all_that_was_recorded_is_there_again() {
    for seed in 0..40 {
        let (folder, mut random) = (Folder::new(), Random::new(seed));
        let (mut journal, mut map) = folder.open().unwrap();
        let mut other = CausalMap::new(ReplicaId::new(2), KEY);
        let mut recorded = map.encode_state();
        for _ in 0..60 {
            match random.below(6) {
                0..=2 => change(&mut map, &mut random),
                3 => {
                    change(&mut other, &mut random);
                    map.join(&other.complete(&map.version())).unwrap();
                    // Before anything leaves this machine.
                    journal.record(&map).unwrap();
                    recorded = map.encode_state();
                    other.join(&map.complete(&other.version())).unwrap();
                }
                4 => {
                    let version = map.version();
                    map.collect_tombstones(&version);
                }
                _ => {
                    drop(journal);
                    (journal, map) = folder.open().unwrap();
                    assert_eq!(map.encode_state(), recorded, "seed {seed}");
                }
            }
            if random.below(2) == 0 {
                journal.record(&map).unwrap();
                recorded = map.encode_state();
            }
        }
    }
}

/// One replica with a journal, and a session with a peer that has none.
struct Fetching {
    /// Records before the outputs are taken, against the documented order.
    records_first: bool,
    /// The bytes of the ranges.
    staged_len: u64,
    folder: Folder,
    journal: Journal,
    map: CausalMap,
    source: CausalMap,
    sessions: [Session<CausalMap>; 2],
    now: Duration,
    ranges: u64,
}

impl Fetching {
    fn new(keys: u64, random: &mut Random) -> Self {
        let folder = Folder::new();
        let (journal, map) = folder.open().unwrap();
        let mut source = CausalMap::new(ReplicaId::new(2), KEY);
        for _ in 0..keys {
            source.put(&random.next().to_le_bytes(), 0, &random.next().to_le_bytes()).unwrap();
        }
        let sessions = [1, 2].map(|_| Session::new(&Self::options(), random.next()));
        Self {
            records_first: true,
            staged_len: 0,
            folder,
            journal,
            map,
            source,
            sessions,
            now: Duration::ZERO,
            ranges: 0,
        }
    }

    fn options() -> SessionOptions {
        SessionOptions::default().transfer_len_max(1_500).retry_min(Duration::from_millis(5))
    }

    /// Handles an input, and carries out the outputs.
    fn handle(&mut self, side: usize, datagram: Option<&[u8]>) -> Vec<Vec<u8>> {
        let state = if side == 0 { &mut self.map } else { &mut self.source };
        let input = datagram.map_or(SessionInput::Timeout, SessionInput::Datagram);
        self.sessions[side].handle(self.now, input, state).unwrap();
        if side == 0 && self.records_first {
            self.journal.record(&self.map).unwrap();
        }
        let mut datagrams = Vec::new();
        while let Some(output) = self.sessions[side].poll_output() {
            match output {
                SessionOutput::Send(datagram) => datagrams.push(datagram),
                SessionOutput::Staged(record) if side == 0 => {
                    self.ranges += 1;
                    self.staged_len += record.len() as u64;
                    self.journal.stage(&record).unwrap();
                }
                SessionOutput::Joined(joined) if side == 0 => self.journal.joined(&joined).unwrap(),
                SessionOutput::Staged(_) | SessionOutput::Joined(_) => {}
            }
        }
        if side == 0 && !self.records_first {
            self.journal.record(&self.map).unwrap();
        }
        datagrams
    }

    /// One side's timeout, and all the datagrams that follow from it, except those that are `lost`.
    fn step(&mut self, side: usize, mut lost: impl FnMut() -> bool) {
        let mut waiting = vec![(side, None)];
        while let Some((to, datagram)) = waiting.pop() {
            let sent = self.handle(to, datagram.as_deref());
            waiting.extend(sent.into_iter().filter(|_| !lost()).map(|datagram| (1 - to, Some(datagram))));
        }
        self.now += Duration::from_millis(1);
    }

    /// The machine goes down, and starts again.
    fn reopen(&mut self, seed: u64) {
        let other = Folder::new();
        // A folder is open once.
        let (journal, _) = Journal::open(&other.0, ID, KEY).unwrap();
        drop(std::mem::replace(&mut self.journal, journal));
        let opened = self.folder.open();
        assert!(opened.is_ok(), "seed {seed}: {:?}", opened.err());
        let (journal, map) = opened.unwrap();
        assert_eq!(map.frontier(), self.map.frontier(), "seed {seed}");
        (self.journal, self.map) = (journal, map);
    }
}

/// In the documented order a state that arrives by ranges is written as ranges, and not once more.
#[test]
fn a_state_that_arrives_by_ranges_is_written_once() {
    let mut fetching = Fetching::new(2_000, &mut Random::new(8));
    fetching.records_first = false;
    while fetching.source.frontier() != fetching.map.frontier() {
        assert!(fetching.now < Duration::from_secs(600));
        fetching.step(0, || false);
        fetching.step(1, || false);
    }
    let (len, staged) = (fs::metadata(fetching.folder.file()).unwrap().len(), fetching.staged_len);
    assert!(fetching.ranges > 10 && len < staged * 6 / 5, "{len} bytes for {staged}");
    for round in 0..3 {
        fetching.reopen(1);
        fetching.map.put(b"after", round, b"the restart").unwrap();
        fetching.journal.record(&fetching.map).unwrap();
    }
}

/// A state that arrived by ranges is recorded before the journal is notified of them.
#[test]
fn a_record_before_the_outputs_does_not_damage_the_journal() {
    // One range, and several.
    for keys in [30, 90, 300] {
        let mut fetching = Fetching::new(keys, &mut Random::new(keys));
        while fetching.source.frontier() != fetching.map.frontier() {
            assert!(fetching.now < Duration::from_secs(600));
            fetching.step(0, || false);
            fetching.step(1, || false);
        }
        assert!(keys == 30 || fetching.ranges > 1, "{keys}: {}", fetching.ranges);
        for round in 0..3 {
            fetching.reopen(keys);
            fetching.map.put(b"after", round, b"the restart").unwrap();
            fetching.journal.record(&fetching.map).unwrap();
        }
    }
}

/// Another peer brings all that the stage is to hold, at any moment of the transfer, and then the replica and
/// its peer write: the replica goes on with a stage that a write does not prune.
#[test]
fn a_write_between_ranges_that_others_have_overtaken_does_not_damage_the_journal() {
    let mut ranges = 0;
    for before in 0..24_u64 {
        let mut random = Random::new(before);
        let mut fetching = Fetching::new(300, &mut random);
        // So many datagrams arrive.
        let budget = |mut left: u64| {
            move || {
                left = left.saturating_sub(1);
                left == 0
            }
        };
        fetching.step(0, budget(before + 1));
        fetching.map.join(&fetching.source.delta(&fetching.map.version()).unwrap()).unwrap();
        fetching.journal.record(&fetching.map).unwrap();
        for round in 0..3 {
            fetching.now += Duration::from_millis(50);
            fetching.step(0, budget(6 + before % 5));
            fetching.map.put(b"mine", round, b"between the ranges").unwrap();
            fetching.journal.record(&fetching.map).unwrap();
            change(&mut fetching.source, &mut random);
        }
        while fetching.source.frontier() != fetching.map.frontier() {
            assert!(fetching.now < Duration::from_secs(60), "{before}");
            fetching.step(0, || false);
            fetching.step(1, || false);
        }
        fetching.reopen(before);
        ranges += fetching.ranges;
    }
    assert!(ranges > 10, "{ranges}");
}

/// Deltas of others, writes, snapshots and restarts, all between the ranges of a transfer.
#[test]
fn whatever_comes_between_ranges_does_not_damage_the_journal() {
    let (mut ranges, mut pruned) = (0, 0);
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let keys = 40 + random.below(300);
        let mut fetching = Fetching::new(keys, &mut random);
        let mut third = CausalMap::new(ReplicaId::new(3), KEY);
        let end = Duration::from_millis(40 + random.below(120));
        while fetching.now < end {
            match random.below(12) {
                0 => {
                    change(&mut fetching.map, &mut random);
                    fetching.journal.record(&fetching.map).unwrap();
                }
                1 => change(&mut fetching.source, &mut random),
                2 if random.below(4) == 0 => {
                    change(&mut third, &mut random);
                    third.join(&fetching.source.complete(&third.version())).unwrap();
                }
                3 => {
                    fetching.map.join(&third.delta(&fetching.map.version()).unwrap()).unwrap();
                    fetching.journal.record(&fetching.map).unwrap();
                    pruned += 1;
                }
                4 if random.below(3) == 0 => fetching.journal.snapshot(&fetching.map).unwrap(),
                5 => {
                    fetching.reopen(seed);
                    fetching.sessions[0] = Session::new(&Fetching::options(), random.next());
                }
                6 => {
                    let map = &fetching.map;
                    fetching.source.join(&map.delta(&fetching.source.version()).unwrap()).unwrap();
                }
                _ => {
                    let side = usize::from(random.below(2) == 0);
                    fetching.step(side, || random.below(20) == 0);
                }
            }
        }
        fetching.reopen(seed);
        ranges += fetching.ranges;
    }
    assert!(ranges > 300 && pruned > 100, "{ranges} {pruned}");
}
