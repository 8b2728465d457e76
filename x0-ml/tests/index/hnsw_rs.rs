//! The index on the crate `hnsw_rs`.

use std::collections::HashSet;

use x0_ml::index::{
    ExactIndex, HnswRsIndex, HnswRsOptions, Metric, RestoreError, Search, VectorId, VectorIndex,
};

use crate::random::Random;
use crate::support::Vectors;

const METRICS: [Metric; 3] = [Metric::InnerProduct, Metric::Cosine, Metric::L2];

fn walking(dimensions: usize, metric: Metric) -> HnswRsIndex {
    HnswRsIndex::new(HnswRsOptions::new(dimensions, metric).scan_len_max(0)).unwrap()
}

#[test]
fn options_are_checked() {
    let refused = |options: HnswRsOptions| HnswRsIndex::new(options).unwrap_err().reason;
    let options = || HnswRsOptions::new(8, Metric::L2);
    assert!(refused(options().m(257)).contains("`m`"));
    assert!(refused(options().m(1)).contains("`m`"));
    assert!(refused(options().ef_construction(15)).contains("`ef_construction`"));
    assert!(refused(HnswRsOptions::new(0, Metric::L2)).contains("`dimensions`"));
    let index = HnswRsIndex::new(options().ef_search(7)).unwrap();
    assert!(format!("{index:?}").contains("len: 0"));
}

/// Recall against the exact index, of all vectors and of those that pass a filter.
#[test]
fn the_nearest_are_found_through_changes() {
    for metric in METRICS {
        let mut vectors = Vectors::new(16, 20, 5);
        let mut random = Random(9);
        let (mut index, mut exact) = (walking(16, metric), ExactIndex::new(16, metric).unwrap());
        let mut live = HashSet::new();
        for change in 0..6000_u64 {
            let id = VectorId(random.below(1500) as u64);
            if change > 2000 && random.below(3) == 0 {
                assert_eq!(index.remove(id), live.remove(&id));
                exact.remove(id);
            } else {
                let vector = vectors.take(1).remove(0);
                index.insert(id, &vector).unwrap();
                exact.insert(id, &vector).unwrap();
                live.insert(id);
            }
            assert_eq!((index.len(), index.contains(id)), (live.len(), live.contains(&id)));
        }
        for one_of in [1, 2, 7, 100, 5000] {
            let passes = |id: VectorId| id.0.is_multiple_of(one_of);
            let (mut hits, mut wanted) = (0, 0);
            for query in vectors.take(50) {
                let search = Search::new(&query, 10).filter(&passes);
                let (found, truth) = (index.search(&search).unwrap(), exact.search(&search).unwrap());
                assert_eq!(found.len(), truth.len(), "as many as there are");
                assert!(found.iter().all(|near| live.contains(&near.id) && passes(near.id)));
                hits += truth.iter().filter(|near| found.contains(near)).count();
                wanted += truth.len();
            }
            assert!(hits * 100 >= wanted * 97, "{metric:?}, 1 of {one_of}: {hits} of {wanted}");
        }
    }
}

#[test]
fn readers_keep_their_version_while_the_graph_grows() {
    let mut index = walking(8, Metric::Cosine);
    let mut vectors = Vectors::new(8, 5, 3);
    let data = vectors.take(300);
    for (id, vector) in data.iter().enumerate().take(100) {
        index.insert(VectorId(id as u64), vector).unwrap();
    }
    index.publish();
    let reader = index.reader();
    std::thread::scope(|scope| {
        let searches = scope.spawn(|| {
            for query in data.iter().cycle().take(2000) {
                let found = reader.search(&Search::new(query, 5)).unwrap();
                assert!(found.len() == 5 && found.iter().all(|near| near.id.0 < 100));
            }
        });
        for (id, vector) in data.iter().enumerate().skip(100) {
            index.insert(VectorId(id as u64), vector).unwrap();
        }
        searches.join().unwrap();
    });
    assert_eq!(reader.len(), 100);
    index.publish();
    assert_eq!(reader.len(), 300);
}

#[test]
fn its_files_hold_vectors_and_no_graph() {
    let data = Vectors::new(8, 4, 11).take(60);
    let mut index = walking(8, Metric::L2);
    for (id, vector) in data.iter().enumerate() {
        index.insert(VectorId(id as u64), vector).unwrap();
    }
    let file = index.save();
    assert!(file.len() < 60 * (8 + 8 * 4) + 200, "{}", file.len());
    let mut random = Random(12);
    for at in 0..file.len() {
        let mut mutated = file.clone();
        mutated[at] ^= 1 << random.below(8);
        assert!(matches!(index.restore(&mutated), Err(RestoreError::Damaged(_))), "byte {at}");
        assert!(index.restore(&file[..at]).is_err());
    }
    let other = walking(8, Metric::Cosine).restore(&file);
    assert!(matches!(other, Err(RestoreError::Options { setting: "metric" })));
    let exact = ExactIndex::new(8, Metric::L2).unwrap().save();
    assert!(index.restore(&exact).is_err(), "a file of another index is refused");
    assert_eq!(index.len(), 60, "an error changes nothing");
}
