//! Bit rot in the files of a stopped store: log, snapshot, redb file, journal of the CRDT store, and blobs.
//!
//! One bit is flipped anywhere, and the store is opened and read as a whole. It must return the right values,
//! or an error that names the file (for a blob, its id, which is the name of the file).
//!
//! `X0_KV_FLIP_SEEDS=1000 X0_KV_SEED_FLIPS=200` for the full number, with `TMPDIR` on a tmpfs: 400,000 flips,
//! 4.3 ms of a processor each (2026-11-28). `X0_KV_FLIP_FIRST` splits the seeds over several processes.
#![cfg(all(feature = "redb", feature = "crdt", feature = "blob"))]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use x0_consensus::{RecoverError, Wal, WalOptions};
use x0_kv::blob::{BlobId, BlobOptions};
use x0_kv::verify::{FolderPart, verify_folder};
use x0_kv::{CrdtOptions, Engine, RangeQuery, RedbOptions, Store, StoreOptions};

const KEYS: usize = 60;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
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

fn options(engine: &Engine) -> StoreOptions {
    let mut log = WalOptions::default().segment_len(16 << 10);
    log.spare_in_background = false;
    StoreOptions::new()
        .engine(engine.clone())
        .log(log)
        .crdt(CrdtOptions::new([7; 16]))
        .blobs(BlobOptions::default())
}

fn redb() -> Engine {
    let mut options = RedbOptions::default().cache_len(1 << 20).overlay_len_max(8 << 10);
    options.background = false;
    Engine::Redb(options)
}

fn key(number: usize) -> String {
    format!("key {number:03}")
}

fn value(number: usize, round: usize) -> String {
    format!("value {number:03} of round {round} {}", "v".repeat(number * 7 % 300))
}

fn blob(number: usize) -> Vec<u8> {
    let mut random = Random(number as u64);
    (0..3000 + number * 1000).map(|_| random.below(256).to_le_bytes()[0]).collect()
}

/// Everything that a store held when it was closed.
struct Held {
    blobs: Vec<BlobId>,
}

fn fill(folder: &Path, engine: &Engine) -> Held {
    let store = Store::open_with(folder, &options(engine)).unwrap();
    let crdt = store.crdt().unwrap();
    for round in 0..3 {
        for number in 0..KEYS {
            store.put(key(number), value(number, round)).wait().unwrap();
            if round == 2 {
                crdt.put(key(number), value(number, round)).wait().unwrap();
            }
        }
    }
    let blobs = (0..3).map(|number| store.blobs().unwrap().add(&blob(number)[..]).unwrap().id).collect();
    store.close();
    Held { blobs }
}

/// Reads everything. Counts the errors, which must name `file`, and panics on a wrong value.
fn read(store: &Store, held: &Held, file: &Path, context: &str) -> u64 {
    let mut errors = 0;
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let mut check = |error: &dyn Error| {
        let text = causes(error);
        let stem = name.trim_end_matches(".blob");
        assert!(text.contains(&name) || text.contains(stem), "{context}: {text}");
        errors += 1;
    };
    for number in 0..KEYS {
        match store.get(key(number)).wait() {
            Ok(found) => {
                let found = found.unwrap_or_else(|| panic!("{context}: key {number} is lost"));
                assert!(found.value == value(number, 2), "{context}: a wrong value of key {number}");
            }
            Err(error) => check(&error),
        }
        match store.crdt().unwrap().get(key(number)).wait() {
            Ok(found) => {
                let found = found.unwrap_or_else(|| panic!("{context}: CRDT key {number} is lost"));
                assert!(found.value == value(number, 2), "{context}: a wrong value of CRDT key {number}");
            }
            Err(error) => check(&error),
        }
    }
    match store.range(RangeQuery::all()).wait() {
        Ok(page) => assert_eq!(page.entries.len(), KEYS, "{context}"),
        Err(error) => check(&error),
    }
    for (number, id) in held.blobs.iter().enumerate() {
        match store.blobs().unwrap().read(id) {
            Ok(bytes) => assert!(bytes == blob(number), "{context}: a wrong blob"),
            Err(error) => check(&error),
        }
    }
    errors
}

fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn files_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for item in std::fs::read_dir(&next).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The part of the folder that a file belongs to, or `None` if it has no data.
fn part(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?.file_name()?.to_str()?;
    match (folder, name) {
        (_, "lock") => None,
        ("log", name) if name.starts_with("snapshot") => Some("snapshot"),
        ("log", _) => Some("log"),
        ("crdt", _) => Some("journal"),
        ("blobs", _) => Some("blobs"),
        (_, "data.redb") => Some("data"),
        _ => None,
    }
}

/// Makes the folder what it was. Only files that differ are written.
fn restore(folder: &Path, image: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, found) in files_of(folder) {
        match image.get(&path) {
            None => std::fs::remove_file(&path).unwrap(),
            Some(bytes) if *bytes != found => std::fs::write(&path, bytes).unwrap(),
            Some(_) => {}
        }
    }
    for (path, bytes) in image {
        if !path.exists() {
            std::fs::write(path, bytes).unwrap();
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    refused: u64,
    errors: u64,
    harmless: u64,
    /// Flips that `verify_folder` reports.
    verified: u64,
}

#[test]
fn a_flipped_bit_never_becomes_a_wrong_value() {
    let (seeds, flips) = (number("X0_KV_FLIP_SEEDS", 4), number("X0_KV_SEED_FLIPS", 50));
    let first = number("X0_KV_FLIP_FIRST", 0);
    let mut counts = BTreeMap::<(&str, &str), Counts>::new();
    for (name, engine) in [("memory", Engine::Memory), ("redb", redb())] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let held = fill(path, &engine);
        // Once more: what an opening changes is part of the image.
        Store::open_with(path, &options(&engine)).unwrap().close();
        let mut opened = Vec::new();
        let verified = verify_folder(path, |progress| {
            // A node that starts meanwhile finds the folder in use, whichever part is being read.
            let log = Wal::open_path(path.join("log"), WalOptions::default());
            assert!(matches!(log, Err(RecoverError::Locked { .. })), "{progress:?}");
            opened.push(progress.part);
        });
        assert!(verified.unwrap().is_intact() && opened.contains(&FolderPart::Journal), "{opened:?}");
        let image = files_of(path);
        let parts: Vec<&str> = ["log", "snapshot", "data", "journal", "blobs"]
            .into_iter()
            .filter(|wanted| image.keys().any(|file| part(file) == Some(wanted)))
            .collect();
        for seed in first..first + seeds {
            let mut random = Random(seed << 8 | u64::from(name == "redb"));
            for flip in 0..flips {
                // Each part as often as the others, however short its files are.
                let wanted = parts[usize::try_from(random.below(parts.len() as u64)).unwrap()];
                let files: Vec<&PathBuf> = image.keys().filter(|file| part(file) == Some(wanted)).collect();
                let file = files[usize::try_from(random.below(files.len() as u64)).unwrap()];
                let mut bytes = image[file].clone();
                // Half of the flips where there is something: files are padded with zeros.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
                let bound = if random.below(2) == 0 { bytes.len() } else { used };
                let at = usize::try_from(random.below(bound.max(1) as u64)).unwrap();
                let Some(byte) = bytes.get_mut(at) else { continue };
                *byte ^= 1 << random.below(8);
                std::fs::write(file, &bytes).unwrap();
                let context = format!("{name}, seed {seed}, flip {flip}, byte {at} of {}", file.display());
                let counts = counts.entry((name, wanted)).or_default();
                let is_intact = verify_folder(path, |_| {}).unwrap().is_intact();
                counts.verified += u64::from(!is_intact);
                restore_except(path, &image, file, &bytes);
                match Store::open_with(path, &options(&engine)) {
                    Err(error) => {
                        let text = causes(&error);
                        let file_name = file.file_name().unwrap().to_string_lossy();
                        assert!(text.contains(&*file_name), "{context}: {text}");
                        assert!(!is_intact, "{context}: refused, but verified as intact: {text}");
                        counts.refused += 1;
                    }
                    Ok(store) => {
                        let errors = read(&store, &held, file, &context);
                        store.close();
                        if errors > 0 { counts.errors += 1 } else { counts.harmless += 1 }
                    }
                }
                restore(path, &image);
            }
        }
    }
    for ((engine, part), counts) in &counts {
        eprintln!("{engine} {part}: {counts:?}");
        assert!(counts.refused + counts.errors > 0, "no flip in {part} was found");
    }
}

/// As [`restore`], but `file` keeps `bytes`.
fn restore_except(folder: &Path, image: &BTreeMap<PathBuf, Vec<u8>>, file: &Path, bytes: &[u8]) {
    let mut image = image.clone();
    image.insert(file.to_owned(), bytes.to_vec());
    restore(folder, &image);
}
