//! The memory that reading a file takes: a small multiple of its length, damaged or not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "helpers of tests"
)]
#![allow(unsafe_code, reason = "an allocator that counts")]

#[path = "knowledge/folder.rs"]
mod folder;
#[path = "index/random.rs"]
mod random;
#[path = "index/sections.rs"]
mod sections;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use folder::{SharedFolder, SimFolder};
use random::Random;
use sections::resign;
use x0_ml::chunk::{ChunkId, ChunkOptions};
use x0_ml::embed::{Embedder, ModelId};
use x0_ml::embed::{EmbeddingCache, HashedWords};
use x0_ml::file::{DiskFolder, Folder};
use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions, Metric, VectorIndex};
use x0_ml::knowledge::{
    Knowledge, KnowledgeBase, KnowledgeBaseOptions, KnowledgeOptions, KnowledgeStore, MemoryStore, Snapshot,
};
use x0_ml::lexical::{LexicalIndex, LexicalOptions};
use x0_ml::retrieve::Document;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: `System` does the work; the counts touch no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that were held at most during the work, beside those held before.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    drop(work());
    PEAK.load(Ordering::Relaxed) - before
}

const DIMENSIONS: usize = 16;
/// Below the guarantee of the crate's documentation, which a vector file with nearly all slots free needs.
const TIMES: usize = 10;
/// The memory of an empty file.
const ALWAYS: usize = 64 << 10;

fn options() -> HnswOptions {
    HnswOptions::new(DIMENSIONS, Metric::Cosine).m(4).ef_construction(16)
}

/// The parts of the saved file of a base, and its cache.
fn files() -> (Vec<u8>, Vec<u8>) {
    let mut store = MemoryStore::new();
    for n in 0..40 {
        let text: String =
            (0..30).map(|line| format!("Line {line} of note{n} names word{}. ", n * line)).collect();
        store.put(&format!("note{n}").as_str().into(), Document::new(text)).unwrap();
    }
    // Many chunks of a document with a long name: each of them knows its document.
    let text: String = (0..2000).map(|line| format!("Sentence {line} is here. ")).collect();
    store.put(&"n".repeat(10_000).as_str().into(), Document::new(text)).unwrap();
    let folder = SharedFolder::new(SimFolder::new(1));
    let chunk = ChunkOptions::new().tokens_max(12);
    let options = KnowledgeBaseOptions::new().chunk(chunk).index(options());
    let mut base = KnowledgeBase::open(options, store, HashedWords::new(DIMENSIONS), folder.clone()).unwrap();
    base.run(Duration::ZERO).unwrap();
    assert!(base.save(Duration::ZERO).unwrap());
    let file = |name: &str| folder.clone().read(name).unwrap().unwrap();
    (file("knowledge.index"), file("embeddings.cache"))
}

/// Reads the file and `count` damaged ones, with right checksums for most of them.
fn check(name: &str, file: &[u8], count: usize, resign: fn(&mut [u8]), read: &dyn Fn(&[u8]) -> bool) {
    let mut random = Random(3);
    let (mut worst, mut accepted) = (0, 0);
    for round in 0..count {
        let mut damaged = file.to_vec();
        if round > 0 {
            for _ in 0..=random.below(3) {
                // Half of the changes are in the first bytes, where lengths are.
                let bound = if random.below(2) == 0 { damaged.len() } else { damaged.len().min(300) };
                let at = random.below(bound);
                damaged[at] = [random.next() as u8, 0, 0x7f, 0xff][random.below(4)];
            }
        }
        if round % 8 == 7 {
            damaged.truncate(random.below(file.len()));
        }
        if round % 4 != 1 {
            resign(&mut damaged);
        }
        let mut is_accepted = false;
        let peak = peak(|| is_accepted = read(&damaged));
        worst = worst.max(peak);
        accepted += usize::from(is_accepted);
        assert!(round > 0 || is_accepted, "{name} itself");
        assert!(
            peak <= TIMES * damaged.len() + ALWAYS,
            "{name}, round {round}: {peak} bytes for {} of a file",
            damaged.len()
        );
    }
    eprintln!("{name}: {} bytes, {accepted} of {count} accepted, at most {worst} bytes held", file.len());
}

/// Right checksums for a cache of this many dimensions.
fn resign_cache(file: &mut [u8]) {
    const HEADER: usize = 52;
    if file.len() < HEADER {
        return;
    }
    let (header, records) = file.split_at_mut(HEADER);
    let sign = |bytes: &mut [u8]| {
        let (content, checksum) = bytes.split_at_mut(bytes.len() - 4);
        checksum.copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
    };
    sign(header);
    records.chunks_exact_mut(32 + 4 * DIMENSIONS + 4).for_each(sign);
}

/// One test, so that no other one allocates beside it.
#[test]
fn what_is_allocated_follows_the_bytes_that_are_there() {
    let (index, cache) = files();
    let snapshot = Snapshot::decode(&index).unwrap();
    check("vectors", snapshot.vectors, 1000, resign, &|file| {
        HnswIndex::new(options()).unwrap().restore(file).is_ok()
    });
    let mut exact = ExactIndex::new(DIMENSIONS, Metric::Cosine).unwrap();
    for id in 0..300 {
        let vector: Vec<f32> = (0..DIMENSIONS).map(|n| (id + n as u64 + 1) as f32).collect();
        exact.insert(x0_ml::index::VectorId(id), &vector).unwrap();
    }
    check("exact vectors", &exact.save(), 1000, resign, &|file| {
        ExactIndex::new(DIMENSIONS, Metric::Cosine).unwrap().restore(file).is_ok()
    });
    check("words", snapshot.lexical, 1000, resign, &|file| {
        LexicalIndex::restore(file, LexicalOptions::new()).is_ok()
    });
    check("catalogue", snapshot.catalogue, 1000, resign, &|file| {
        Knowledge::restore(KnowledgeOptions::new(), file).is_ok()
    });
    let model: ModelId = *HashedWords::new(DIMENSIONS).model();
    check("cache", &cache, 1000, resign_cache, &|file| {
        let mut folder = SimFolder::new(1);
        folder.write("cache", file).unwrap();
        EmbeddingCache::open(&mut folder, "cache", model, DIMENSIONS).is_ok()
    });
    large_cache();
}

/// A large cache is written again block by block.
fn large_cache() {
    const RECORDS: u32 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let mut folder = DiskFolder::new(folder.path()).unwrap();
    let name = |number: u32| {
        let mut name = [0; 32];
        name[..4].copy_from_slice(&number.to_le_bytes());
        ChunkId::from_bytes(name)
    };
    let (mut cache, _) = EmbeddingCache::open(&mut folder, "cache", ModelId::of(&[b"large"]), 384).unwrap();
    for first in (0..RECORDS).step_by(1000) {
        let vectors: Vec<_> =
            (first..first + 1000).map(|number| (name(number), vec![number as f32; 384])).collect();
        let records: Vec<_> = vectors.iter().map(|(chunk, vector)| (*chunk, vector.as_slice())).collect();
        cache.put(&mut folder, &records).unwrap();
    }
    let gone = name(RECORDS / 2);
    let held = peak(|| cache.compact(&mut folder, &|chunk| *chunk != gone).unwrap());
    let len = RECORDS as usize * 1572;
    assert!(held < len / 4, "{held} bytes for {len}");
    let mut vector = [0.0; 384];
    for number in [0, RECORDS / 2 - 1, RECORDS / 2 + 1, RECORDS - 1] {
        assert!(cache.get(&mut folder, &name(number), &mut vector).unwrap());
        assert!((vector[383] - number as f32).abs() < 0.5);
    }
    assert_eq!((cache.len(), cache.contains(&gone)), (RECORDS as usize - 1, false));
}
