//! Bit rot in the redb file: a read ends in the right value or in an error that names the file.
#![cfg(feature = "redb")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use x0_kv::verify::{VerifyError, verify};
use x0_kv::{Bytes, Command, EngineError, KeyspaceName, Mutation, Place, ReadError, RedbOptions, State};

const KEYS: u64 = 400;

/// Flips to try: more with `X0_KV_FLIPS`.
fn flips() -> u64 {
    std::env::var("X0_KV_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
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

fn options(verify_on_open: bool) -> RedbOptions {
    let mut options = RedbOptions::default();
    (options.cache_len, options.background, options.verify_on_open) = (1 << 20, false, verify_on_open);
    options
}

fn items() -> KeyspaceName {
    KeyspaceName::new("items").unwrap()
}

fn key(number: u64) -> Bytes {
    format!("key {number:04}").into()
}

fn value(number: u64, round: u64) -> Bytes {
    format!("value {number:04} of round {round} {}", "v".repeat(usize::try_from(number % 200).unwrap()))
        .into()
}

fn bytes_of(state: &mut State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.snapshot().read_to_end(&mut bytes).unwrap();
    bytes
}

/// A file of three checkpoints, and the snapshot of the state at each of them.
fn build(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    let (mut state, mut memory) = (State::redb(path, options(true)).unwrap(), State::in_memory());
    let mut checkpoints = BTreeMap::from([(0, bytes_of(&mut memory))]);
    let mut index = 0;
    let mut log = vec![Command::OpenSession.encode()];
    let create = Mutation::CreateKeyspace;
    log.push(Command::encode_write(None, &items(), &create));
    for round in 0..3 {
        for number in 0..KEYS {
            let keyspace = if number % 2 == 0 { KeyspaceName::DEFAULT } else { items() };
            let put = Mutation::Put { key: key(number), value: value(number, round) };
            log.push(Command::encode_write(None, &keyspace, &put));
        }
        for payload in log.drain(..) {
            index += 1;
            state.apply([(index, Some(&payload))], &mut Vec::new()).unwrap();
            memory.apply([(index, Some(&payload))], &mut Vec::new()).unwrap();
        }
        assert_eq!(state.checkpoint().unwrap(), index);
        checkpoints.insert(index, bytes_of(&mut memory));
    }
    checkpoints
}

fn names(error: &EngineError, path: &Path) -> bool {
    match error {
        EngineError::File { path: named, .. }
        | EngineError::Corrupt { path: named, .. }
        | EngineError::Panicked { path: named, .. } => named == path,
        EngineError::Damaged(entry) => entry.place == Place::File(path.to_owned()),
        _ => false,
    }
}

/// Any single bit of the file: the state is that of a checkpoint, whole, or opening or reading says what is
/// damaged.
#[test]
fn a_flipped_bit_ends_in_an_error_or_a_whole_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.redb");
    let checkpoints = build(&path);
    let image = std::fs::read(&path).unwrap();
    let (mut refused, mut unused, mut older) = (0, 0, 0);
    let newest = *checkpoints.keys().last().unwrap();
    for seed in 0..flips() {
        let mut random = Random(seed);
        let mut damaged = image.clone();
        let at = usize::try_from(random.below(image.len() as u64)).unwrap();
        damaged[at] ^= 1 << random.below(8);
        std::fs::write(&path, &damaged).unwrap();
        match State::redb(&path, options(true)) {
            Err(error) => {
                assert!(names(&error, &path), "seed {seed}: {error:?}");
                refused += 1;
            }
            Ok(mut state) => {
                let found = bytes_of(&mut state);
                assert!(checkpoints.get(&state.applied()) == Some(&found), "seed {seed}, byte {at}");
                if state.applied() == newest { unused += 1 } else { older += 1 }
            }
        }
    }
    eprintln!("{refused} refused, {unused} in unused bytes, {older} at an older checkpoint");
    assert!(refused > 0 && unused > 0);
}

/// Without the check at the start: a damaged value is never returned, a damaged page panics in nobody's
/// thread.
#[test]
fn a_damaged_value_is_never_returned_by_a_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.redb");
    build(&path);
    let image = std::fs::read(&path).unwrap();
    let (mut errors, mut right) = (0, 0);
    for seed in 0..flips() {
        let mut random = Random(seed ^ 0x5eed);
        let mut damaged = image.clone();
        let number = random.below(KEYS);
        // Half of the flips anywhere, half of them in the newest copy of the value of a key.
        let text = value(number, 2);
        let place = image.windows(text.len()).rposition(|window| window == text);
        let at = match place.filter(|_| seed % 2 == 0) {
            Some(from) => from + usize::try_from(random.below(text.len() as u64)).unwrap(),
            None => usize::try_from(random.below(image.len() as u64)).unwrap(),
        };
        damaged[at] ^= 1 << random.below(8);
        std::fs::write(&path, &damaged).unwrap();
        let state = match State::redb(&path, options(false)) {
            Ok(state) => state,
            Err(error) => {
                assert!(names(&error, &path), "seed {seed}: {error:?}");
                errors += 1;
                continue;
            }
        };
        for number in 0..KEYS {
            let keyspace = if number % 2 == 0 { KeyspaceName::DEFAULT } else { items() };
            match state.reader().get(&keyspace, &key(number)) {
                Ok(Some(found)) => {
                    let rounds = (0..3).map(|round| value(number, round));
                    assert!(rounds.into_iter().any(|value| found.value == value), "seed {seed}");
                    right += 1;
                }
                // A damaged page may hide a key: that is why the file is checked when it is opened.
                Ok(None) => {}
                Err(ReadError::Engine(error)) => {
                    assert!(names(&error, &path), "seed {seed}: {error:?}");
                    errors += 1;
                }
                Err(error) => panic!("seed {seed}: {error:?}"),
            }
        }
    }
    assert!(errors > 10 && right > 0, "{errors} errors, {right} right");
}

#[test]
fn verify_finds_a_damaged_value_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.redb");
    build(&path);
    let mut steps = 0;
    let report = verify(folder.path(), |progress| {
        assert!(progress.entries <= KEYS);
        steps += 1;
    })
    .unwrap();
    assert_eq!((report.entries, report.keyspaces), (KEYS, 2));
    assert!(steps > 0 && report.bytes > 0);
    let mut image = std::fs::read(&path).unwrap();
    let text = value(7, 2);
    let places: Vec<usize> = image
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| *window == text)
        .map(|(at, _)| at)
        .collect();
    for at in places {
        image[at + 3] ^= 1;
    }
    std::fs::write(&path, &image).unwrap();
    let error = verify(folder.path(), |_| {}).unwrap_err();
    assert!(matches!(&error, VerifyError::Engine(cause) if names(cause, &path)), "{error:?}");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(verify(empty.path(), |_| {}), Err(VerifyError::NothingToVerify { .. })));
}
