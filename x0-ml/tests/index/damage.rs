//! Damaged files: an error or the same index, never a panic.

use x0_ml::index::{ExactIndex, HnswIndex, HnswOptions, Metric, Rerank, RestoreError, Search, VectorIndex};

use crate::random::Random;
use crate::sections::{entry, offset, resign, section, word};
use crate::support::{Vectors, exact, hnsw};

fn options() -> HnswOptions {
    HnswOptions::new(8, Metric::L2).m(4).ef_construction(16).scan_len_max(0)
}

fn check(index: &mut dyn VectorIndex, file: &[u8], mutated: &[u8], query: &[f32]) {
    let len = index.len();
    match index.restore(mutated) {
        Err(RestoreError::Damaged(damage)) => assert!(damage.offset <= mutated.len() as u64 + 4),
        Err(_) => {}
        Ok(()) => {
            // Whatever was accepted is a whole index: it searches, changes and saves.
            let found = index.search(&Search::new(query, 5)).unwrap();
            assert_eq!(found.len(), 5.min(index.len()));
            assert!(index.save() == mutated);
            index.insert(x0_ml::index::VectorId(77_777), query).unwrap();
            for near in found {
                assert!(index.remove(near.id));
            }
            index.restore(file).unwrap();
        }
    }
    assert_eq!(index.len(), len, "an error changes nothing");
}

#[test]
fn ten_thousand_damaged_files() {
    let data = Vectors::new(8, 4, 11).take(60);
    let mut graph = hnsw(options(), &data);
    for id in (0..60).step_by(7) {
        graph.remove(x0_ml::index::VectorId(id));
    }
    let exact = exact(8, Metric::L2, &data);
    let mut indexes: [Box<dyn VectorIndex>; 2] = [Box::new(graph), Box::new(exact)];
    let mut random = Random(12);
    for index in &mut indexes {
        let file = index.save();
        let header = 16 + 24 * 7 + 4;
        for at in 0..header.min(file.len()) {
            for flip in [1, 0x80, 0xff] {
                let mut mutated = file.clone();
                mutated[at] ^= flip;
                assert!(index.restore(&mutated).is_err(), "byte {at} of the header");
                resign(&mut mutated);
                check(index.as_mut(), &file, &mutated, &data[0]);
            }
        }
        for len in 0..file.len() {
            assert!(index.restore(&file[..len]).is_err());
        }
        for round in 0..2500 {
            let mut mutated = file.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(mutated.len());
                mutated[at] = random.next() as u8;
            }
            if round % 5 == 0 {
                mutated.truncate(random.below(file.len()));
            }
            if round % 4 != 1 {
                resign(&mut mutated);
            }
            check(index.as_mut(), &file, &mutated, &data[0]);
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(index.restore(&longer).is_err());
        assert!(index.restore(&file).is_ok());
    }
}

#[test]
fn other_settings_are_named() {
    let file = hnsw(options(), &Vectors::new(8, 4, 11).take(20)).save();
    let setting = |options: HnswOptions| match HnswIndex::new(options).unwrap().restore(&file) {
        Err(RestoreError::Options { setting }) => setting,
        other => panic!("{other:?}"),
    };
    assert_eq!(setting(options().m(5)), "number of links (`m`)");
    assert_eq!(setting(HnswOptions::new(9, Metric::L2).m(4)), "number of dimensions");
    assert_eq!(setting(HnswOptions::new(8, Metric::Cosine).m(4)), "metric");
    let coarse = hnsw(options().rerank(Rerank::None), &Vectors::new(8, 4, 11).take(20)).save();
    let error = HnswIndex::new(options()).unwrap().restore(&coarse).unwrap_err();
    assert!(error.to_string().contains("`Rerank`"));
    HnswIndex::new(options().rerank(Rerank::None)).unwrap().restore(&file).unwrap();
    let mut exact = ExactIndex::new(8, Metric::Cosine).unwrap();
    let other = ExactIndex::new(8, Metric::L2).unwrap().save();
    assert_eq!(exact.restore(&other), Err(RestoreError::Options { setting: "metric" }));
    assert!(ExactIndex::new(9, Metric::L2).unwrap().restore(&other).is_err());
    assert!(exact.restore(&file).unwrap_err().to_string().contains("not usable"));
}

/// One node in each block of slots: the index saves it without the free slots, and a file that has them is
/// refused before anything is allocated for them.
#[test]
fn files_with_nearly_all_slots_free_are_bounded() {
    let data = Vectors::new(8, 4, 11).take(6400);
    let mut index = hnsw(options().ef_construction(8), &data);
    let remove = |index: &mut HnswIndex, one_of: u64| {
        for id in (0..6400).filter(|id| id % one_of != 0) {
            index.remove(x0_ml::index::VectorId(id));
        }
    };
    let bounded = |file: &[u8]| {
        let mut restored = HnswIndex::new(options()).unwrap();
        restored.restore(file).unwrap();
        assert!(restored.memory_len() <= 20 * file.len(), "{} of {}", restored.memory_len(), file.len());
        assert!(restored.save() == file);
        restored
    };
    remove(&mut index, 8);
    let slots = |file: &[u8]| u32::from_le_bytes(section(file, 1)[12..16].try_into().unwrap());
    let file = index.save();
    assert_eq!((index.len(), slots(&file)), (800, 6400));
    bounded(&file);
    remove(&mut index, 64);
    let file = index.save();
    assert_eq!((index.len(), slots(&file)), (100, 100));
    let restored = bounded(&file);
    for query in data.iter().take(50) {
        let search = Search::new(query, 10);
        assert_eq!(restored.search(&search).unwrap(), index.search(&search).unwrap());
    }
    // The layer counts of the file before, one node in 64 left: right checksums do not help it.
    let mut sparse = bounded(&file).save();
    let layers = section(&sparse, 2).to_vec();
    let spread: Vec<u8> = layers.iter().flat_map(|count| [&[*count][..], &[0; 63]].concat()).collect();
    replace(&mut sparse, 2, &spread);
    let at = offset(&sparse, 1) + 12;
    sparse[at..at + 4].copy_from_slice(&6400_u32.to_le_bytes());
    resign(&mut sparse);
    let error = HnswIndex::new(options()).unwrap().restore(&sparse).unwrap_err();
    assert!(format!("{error:?}").contains("nearly all slots are free"), "{error:?}");
}

/// Counts of changes that the next change would overflow, or that are fewer than the nodes, are damage.
#[test]
fn counts_that_cannot_be_are_refused() {
    let data = Vectors::new(8, 4, 11).take(20);
    let file = hnsw(options(), &data).save();
    let with = |inserted: u64, removed: u64| {
        let mut crafted = file.clone();
        let at = offset(&crafted, 1) + 28;
        crafted[at..at + 8].copy_from_slice(&inserted.to_le_bytes());
        crafted[at + 8..at + 16].copy_from_slice(&removed.to_le_bytes());
        resign(&mut crafted);
        let mut index = HnswIndex::new(options()).unwrap();
        index.restore(&crafted).map(|()| index)
    };
    for (inserted, removed) in [(u64::MAX, 0), (1 << 63, 0), (19, 0), (20, 21), (20, u64::MAX)] {
        let Err(RestoreError::Damaged(damage)) = with(inserted, removed) else {
            panic!("{inserted} {removed}")
        };
        assert_eq!(
            (damage.offset, damage.reason),
            (offset(&file, 1) as u64 + 28, "the counts of changes cannot be")
        );
    }
    for (inserted, removed) in [(20, 0), ((1 << 63) - 1, 0), ((1 << 63) - 1, (1 << 63) - 1)] {
        let mut index = with(inserted, removed).unwrap();
        index.insert(x0_ml::index::VectorId(99), &data[0]).unwrap();
        assert!(index.remove(x0_ml::index::VectorId(99)));
    }
}

/// Puts another section in the place of one; those behind it move.
fn replace(file: &mut Vec<u8>, name: u32, bytes: &[u8]) {
    let (at, len) = (offset(file, name), section(file, name).len());
    let grown = bytes.len() - len;
    file.splice(at..at + len, bytes.iter().copied());
    let own = entry(file, name);
    file[own + 16..own + 24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    for entry in (16..16 + 24 * 7).step_by(24) {
        let offset = word(file, entry + 8);
        if offset > at {
            file[entry + 8..entry + 16].copy_from_slice(&((offset + grown) as u64).to_le_bytes());
        }
    }
}

/// A table or layer count may promise anything; what is allocated follows the bytes that are there.
#[test]
fn free_slots_take_no_memory() {
    let mut index = hnsw(options(), &Vectors::new(8, 4, 11).take(3));
    let before = index.memory_len();
    for id in 0..100_000 {
        index.insert(x0_ml::index::VectorId(id), &[1.0; 8]).ok();
        index.remove(x0_ml::index::VectorId(id));
    }
    assert!(index.memory_len() < before * 2);
}
