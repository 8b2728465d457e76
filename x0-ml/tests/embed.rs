//! The cache of embeddings, and the embedder without a model.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

#[path = "knowledge/folder.rs"]
mod folder;
#[path = "index/random.rs"]
mod random;

use std::path::PathBuf;

use folder::SimFolder;
use random::Random;
use x0_ml::chunk::ChunkId;
use x0_ml::embed::{Compacted, EmbedError, Embedder, EmbeddingCache, HashedWords, ModelId, Overflow};
use x0_ml::file::{DiskFolder, FileError, Folder};

const NAME: &str = "vectors";

fn chunk(number: u8) -> ChunkId {
    ChunkId::from_bytes([number; 32])
}

fn model(number: u8) -> ModelId {
    ModelId::of(&[&[number]])
}

fn filled(folder: &mut SimFolder, count: u8) -> EmbeddingCache {
    let (mut cache, _) = EmbeddingCache::open(folder, NAME, model(1), 3).unwrap();
    for number in 0..count {
        cache.put(folder, &[(chunk(number), &[f32::from(number), 1.0, -1.0])]).unwrap();
    }
    cache
}

fn get(cache: &EmbeddingCache, folder: &mut SimFolder, number: u8) -> Option<f32> {
    let mut vector = [0.0; 3];
    cache.get(folder, &chunk(number), &mut vector).unwrap().then_some(vector[0])
}

#[test]
fn vectors_survive_a_restart_and_a_compaction() {
    let mut folder = SimFolder::new(1);
    let mut cache = filled(&mut folder, 10);
    cache.put(&mut folder, &[(chunk(3), &[33.0, 0.0, 0.0]), (chunk(11), &[11.0, 0.0, 0.0])]).unwrap();
    for _ in 0..2 {
        assert_eq!((get(&cache, &mut folder, 3), get(&cache, &mut folder, 9)), (Some(33.0), Some(9.0)));
        assert_eq!(get(&cache, &mut folder, 99), None);
        let (again, opened) = EmbeddingCache::open(&mut folder, NAME, model(1), 3).unwrap();
        assert_eq!((opened.dropped_len, opened.was_replaced, again.len()), (0, false, 11));
        cache = again;
    }
    let before = folder.read(NAME).unwrap().unwrap().len();
    cache.compact(&mut folder, &|id| *id != chunk(9)).unwrap();
    assert_eq!((cache.len(), cache.contains(&chunk(9)), cache.is_empty()), (10, false, false));
    assert_eq!(get(&cache, &mut folder, 11), Some(11.0));
    assert!(folder.read(NAME).unwrap().unwrap().len() < before);
    cache.put(&mut folder, &[(chunk(9), &[99.0, 0.0, 0.0])]).unwrap();
    let (cache, _) = EmbeddingCache::open(&mut folder, NAME, model(1), 3).unwrap();
    assert_eq!(get(&cache, &mut folder, 9), Some(99.0));
}

/// The folder cannot be synced after the new file took the name: places are those of the new file.
#[test]
fn a_compaction_that_is_not_durable_leaves_the_vectors_readable() {
    let mut folder = SimFolder::new(1);
    let mut cache = filled(&mut folder, 10);
    // One write, one block of records, a sync and a rename come before.
    folder.fail(4, 1);
    let before = cache.len();
    assert!(cache.compact(&mut folder, &|id| *id != chunk(0)).is_err());
    assert_eq!((before, cache.len()), (10, 9));
    for _ in 0..2 {
        assert_eq!((get(&cache, &mut folder, 1), get(&cache, &mut folder, 9)), (Some(1.0), Some(9.0)));
        cache.put(&mut folder, &[(chunk(20), &[20.0, 0.0, 0.0])]).unwrap();
    }
    assert_eq!((get(&cache, &mut folder, 0), get(&cache, &mut folder, 20)), (None, Some(20.0)));
}

#[test]
fn another_model_begins_empty() {
    let mut folder = SimFolder::new(1);
    filled(&mut folder, 4);
    let (cache, opened) = EmbeddingCache::open(&mut folder, NAME, model(2), 3).unwrap();
    assert!(opened.was_replaced && cache.is_empty());
    let (_, opened) = EmbeddingCache::open(&mut folder, NAME, model(2), 5).unwrap();
    assert!(opened.was_replaced);
}

#[test]
fn a_torn_end_is_dropped_and_damage_before_it_is_an_error() {
    let mut folder = SimFolder::new(1);
    filled(&mut folder, 8);
    let file = folder.read(NAME).unwrap().unwrap();
    let (header, record) = (52, 32 + 12 + 4);
    assert_eq!(file.len(), header + 8 * record);
    for len in 0..file.len() {
        folder.write(NAME, &file[..len]).unwrap();
        let opened = EmbeddingCache::open(&mut folder, NAME, model(1), 3);
        if len < header && len > 0 {
            assert!(matches!(opened, Err(FileError::Damaged { .. })), "{len}");
            continue;
        }
        let (cache, opened) = opened.unwrap();
        let whole = len.saturating_sub(header) / record;
        assert_eq!(cache.len(), whole);
        assert_eq!(opened.dropped_len, if len == 0 { 0 } else { len - header - whole * record });
        assert_eq!(get(&cache, &mut folder, 0), (whole > 0).then_some(0.0));
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x20;
        folder.write(NAME, &damaged).unwrap();
        match EmbeddingCache::open(&mut folder, NAME, model(1), 3) {
            Err(FileError::Damaged { name, source }) => {
                assert!(at < file.len() - record && name == NAME);
                if at >= header {
                    assert_eq!(source.offset, (header + (at - header) / record * record) as u64);
                }
            }
            Err(error) => panic!("{error}"),
            Ok((cache, opened)) => {
                assert!(at >= file.len() - record, "byte {at}");
                assert_eq!((cache.len(), opened.dropped_len), (7, record));
            }
        }
    }
    // Damage after the file was opened is found when the record is read.
    folder.write(NAME, &file).unwrap();
    let (mut cache, _) = EmbeddingCache::open(&mut folder, NAME, model(1), 3).unwrap();
    let mut damaged = file.clone();
    damaged[header + 40] ^= 1;
    folder.write(NAME, &damaged).unwrap();
    assert!(matches!(cache.get(&mut folder, &chunk(0), &mut [0.0; 3]), Err(FileError::Damaged { .. })));
    assert_eq!(cache.compact(&mut folder, &|_| true).unwrap(), Compacted::default(), "nothing is to go");
    let compacted = cache.compact(&mut folder, &|id| *id != chunk(1)).unwrap();
    assert_eq!((compacted.dropped, compacted.damaged, cache.len()), (2, 1, 6));
    assert_eq!((get(&cache, &mut folder, 0), get(&cache, &mut folder, 7)), (None, Some(7.0)));
}

/// Right checksums of header and records, so that damage reaches the checks behind them.
fn resign(file: &mut [u8]) {
    if file.len() < 52 {
        return;
    }
    let (header, records) = file.split_at_mut(52);
    let sign = |bytes: &mut [u8]| {
        let (content, checksum) = bytes.split_at_mut(bytes.len() - 4);
        checksum.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    };
    sign(header);
    records.chunks_exact_mut(32 + 12 + 4).for_each(sign);
}

/// An error, or a cache that can be read, written and compacted.
#[test]
fn ten_thousand_damaged_caches() {
    let mut random = Random(21);
    let mut folder = SimFolder::new(1);
    filled(&mut folder, 8);
    let file = folder.read(NAME).unwrap().unwrap();
    let mut accepted = 0;
    for round in 0..10_000 {
        let mut damaged = file.clone();
        for _ in 0..=random.below(3) {
            let bound = if random.below(2) == 0 { 52 } else { file.len() };
            damaged[random.below(bound)] = random.next() as u8;
        }
        if round % 5 == 0 {
            damaged.truncate(random.below(file.len()));
        }
        if round % 4 != 1 {
            resign(&mut damaged);
        }
        let mut folder = SimFolder::new(1);
        folder.write(NAME, &damaged).unwrap();
        let (mut cache, opened) = match EmbeddingCache::open(&mut folder, NAME, model(1), 3) {
            Ok(opened) => opened,
            Err(FileError::Damaged { name, source }) => {
                assert!(name == NAME && source.offset <= damaged.len() as u64, "{source}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        accepted += usize::from(!opened.was_replaced);
        assert!(cache.len() <= 8 && opened.dropped_len <= damaged.len());
        for number in 0..8 {
            get(&cache, &mut folder, number);
        }
        cache.put(&mut folder, &[(chunk(99), &[9.0; 3])]).unwrap();
        cache.compact(&mut folder, &|id| *id != chunk(1)).unwrap();
        let (again, _) = EmbeddingCache::open(&mut folder, NAME, model(1), 3).unwrap();
        assert_eq!((again.len(), get(&again, &mut folder, 99)), (cache.len(), Some(9.0)));
    }
    assert!(accepted > 1000, "{accepted}");
}

/// A write that fails while the power stays leaves any part of its bytes; later records follow at the right
/// places all the same.
#[test]
fn any_failing_operations_leave_a_usable_cache() {
    for (after, count) in (0..8).flat_map(|after| (1..8).map(move |count| (after, count))) {
        let mut folder = SimFolder::new(1);
        let mut cache = filled(&mut folder, 6);
        folder.fail(after, count);
        let put = |cache: &mut EmbeddingCache, folder: &mut SimFolder, number: u8| {
            cache.put(folder, &[(chunk(number), &[f32::from(number); 3])]).is_ok()
        };
        let mut written = vec![0, 1, 2, 3, 5];
        written.extend((10..13).filter(|number| put(&mut cache, &mut folder, *number)));
        let mut is_compacted = false;
        for number in 20..30 {
            is_compacted |= cache.compact(&mut folder, &|id| *id != chunk(4)).is_ok();
            if put(&mut cache, &mut folder, number) {
                written.push(number);
            }
        }
        assert!(is_compacted && written.len() > 8, "{after} {count}: {written:?}");
        let (again, opened) = EmbeddingCache::open(&mut folder, NAME, model(1), 3).unwrap();
        assert_eq!(opened.dropped_len, 0, "{after} {count}");
        for cache in [&cache, &again] {
            for number in &written {
                assert_eq!(get(cache, &mut folder, *number), Some(f32::from(*number)), "{after} {count}");
            }
            assert_eq!(get(cache, &mut folder, 4), None);
        }
    }
}

#[test]
fn any_crash_while_writing_leaves_a_usable_cache() {
    let operations = {
        let mut folder = SimFolder::new(0);
        let mut cache = filled(&mut folder, 5);
        cache.compact(&mut folder, &|id| *id != chunk(2)).unwrap();
        folder.operations()
    };
    for fail_at in 0..operations {
        for seed in 0..6 {
            let mut folder = SimFolder::new(seed);
            folder.crash_at(fail_at);
            let mut durable = 0;
            if let Ok((mut cache, _)) = EmbeddingCache::open(&mut folder, NAME, model(1), 3) {
                for number in 0..5 {
                    if cache.put(&mut folder, &[(chunk(number), &[f32::from(number); 3])]).is_err() {
                        break;
                    }
                    durable += 1;
                }
                let _ = cache.compact(&mut folder, &|id| *id != chunk(2));
            }
            folder.restart();
            let (cache, _) = EmbeddingCache::open(&mut folder, NAME, model(1), 3).unwrap();
            for number in (0..durable).filter(|number| *number != 2) {
                assert_eq!(
                    get(&cache, &mut folder, number),
                    Some(f32::from(number)),
                    "crash at {fail_at}, {seed}"
                );
            }
        }
    }
}

#[test]
fn the_recorded_cache_opens() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/cache-v1.emb");
    if std::env::var_os("X0_RECORD").is_some() {
        let mut folder = SimFolder::new(1);
        filled(&mut folder, 4);
        std::fs::write(&path, folder.read(NAME).unwrap().unwrap()).unwrap();
    }
    let mut folder = SimFolder::new(1);
    folder.write(NAME, &std::fs::read(&path).unwrap()).unwrap();
    let (cache, opened) = EmbeddingCache::open(&mut folder, NAME, model(1), 3).unwrap();
    assert_eq!((cache.len(), opened.dropped_len, opened.was_replaced), (4, 0, false));
    assert_eq!(get(&cache, &mut folder, 3), Some(3.0));
}

#[test]
fn a_folder_of_the_disk_keeps_files() {
    let path = std::env::temp_dir().join(format!("x0-ml-folder-{}", std::process::id()));
    let mut folder = DiskFolder::new(&path).unwrap();
    assert_eq!(folder.read("none").unwrap(), None);
    let (mut cache, _) = EmbeddingCache::open(&mut folder, NAME, model(1), 2).unwrap();
    cache.put(&mut folder, &[(chunk(1), &[1.0, 2.0])]).unwrap();
    let mut vector = [0.0; 2];
    assert!(cache.get(&mut folder, &chunk(1), &mut vector).unwrap());
    assert_eq!(vector, [1.0, 2.0]);
    folder.remove(NAME).unwrap();
    folder.remove(NAME).unwrap();
    assert!(matches!(
        cache.get(&mut folder, &chunk(1), &mut vector),
        Err(FileError::Io { action: "read", .. })
    ));
    std::fs::remove_dir_all(&path).unwrap();
    assert!(cache.put(&mut folder, &[(chunk(1), &[1.0, 2.0])]).is_err());
}

#[test]
fn long_texts_are_errors_or_counted() {
    let embedder = HashedWords::new(16).with_tokens_max(3);
    let mut vector = [0.0; 16];
    let long = embedder.embed(&["one two three four"], &mut vector);
    assert!(matches!(long, Err(EmbedError::TooLong { text: 0, tokens: 4, tokens_max: 3 })));
    let embedder = embedder.with_overflow(Overflow::Truncate);
    let embedded = embedder.embed(&["one two three four"], &mut vector).unwrap();
    assert_eq!((embedded.tokens, embedded.truncated), (3, 1));
    let short = vector;
    embedder.embed(&["three two one"], &mut vector).unwrap();
    assert_eq!(short, vector);
    assert!(matches!(
        embedder.embed(&["a"], &mut [0.0; 3]),
        Err(EmbedError::Room { expected: 16, found: 3 })
    ));
    embedder.embed(&[""], &mut vector).unwrap();
    assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-6);
    assert_eq!(model(1).to_string().len(), 64);
    assert_eq!(ModelId::from_bytes(*model(1).as_bytes()), model(1));
}
