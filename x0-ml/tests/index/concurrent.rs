//! Searches beside the writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use x0_ml::index::{HnswIndex, HnswOptions, Metric, Search, VectorId, VectorIndex};

use crate::support::Vectors;

/// The writer publishes versions that hold the numbers `n .. n + 400` only; a reader never sees a mixture.
#[test]
fn a_search_sees_one_version() {
    let data = Vectors::new(16, 8, 7).take(2000);
    let mut index = HnswIndex::new(HnswOptions::new(16, Metric::Cosine).scan_len_max(0)).unwrap();
    for id in 0..400_u64 {
        index.insert(VectorId(id), &data[id as usize]).unwrap();
    }
    index.publish();
    let (done, searches) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (reader, data, done, searches) = (index.reader(), &data, &done, &searches);
            scope.spawn(move || {
                let mut oldest = 0;
                let mut at = thread;
                while !done.load(Ordering::Relaxed) || at < 50 {
                    at += 1;
                    let found = reader.search(&Search::new(&data[at % 2000], 10)).unwrap();
                    assert_eq!(found.len(), 10);
                    assert_eq!(reader.len(), 400);
                    let ids = found.iter().map(|near| near.id.0);
                    let (low, high) = (ids.clone().min().unwrap(), ids.max().unwrap());
                    assert!(high - low < 400, "{low} and {high} are of two versions");
                    assert!(low >= oldest, "a version does not come back");
                    oldest = oldest.max(high.saturating_sub(399));
                    searches.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for id in 400..2000_u64 {
            index.insert(VectorId(id), &data[id as usize]).unwrap();
            index.remove(VectorId(id - 400));
            index.publish();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(searches.into_inner() >= 98);
}

/// A reader's version does not change under it, and its memory is given back.
#[test]
fn changes_are_visible_after_publish_only() {
    let data = Vectors::new(16, 8, 7).take(300);
    let mut index = HnswIndex::new(HnswOptions::new(16, Metric::L2)).unwrap();
    let reader = index.reader();
    for id in 0..300_u64 {
        index.insert(VectorId(id), &data[id as usize]).unwrap();
    }
    assert_eq!((reader.len(), index.len()), (0, 300));
    assert!(reader.is_empty());
    index.publish();
    let search = Search::new(&data[5], 1);
    index.remove(VectorId(5));
    assert_eq!(reader.search(&search).unwrap()[0].id, VectorId(5));
    assert_ne!(index.search(&search).unwrap()[0].id, VectorId(5));
    index.publish();
    assert_ne!(reader.search(&search).unwrap()[0].id, VectorId(5));
}
