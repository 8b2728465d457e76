//! Insertions, updates and removals.

use proptest::prelude::*;
use x0_ml::index::{
    HnswIndex, HnswOptions, InsertError, Metric, Rerank, Search, SearchError, VectorId, VectorIndex,
};
use x0_ml::simd::Path;

use crate::random::Random;
use crate::support::{Vectors, exact, hnsw, recall};

const METRICS: [Metric; 3] = [Metric::InnerProduct, Metric::Cosine, Metric::L2];

/// A graph whose searches always walk.
fn walking(dimensions: usize, metric: Metric) -> HnswOptions {
    HnswOptions::new(dimensions, metric).scan_len_max(0)
}

#[test]
fn a_walk_finds_what_the_exact_search_finds() {
    for metric in METRICS {
        let mut vectors = Vectors::new(48, 40, 1);
        let (data, queries) = (vectors.take(4000), vectors.take(100));
        let (index, exact) = (hnsw(walking(48, metric), &data), exact(48, metric, &data));
        let recall = recall(&index, &exact, &queries);
        assert!(recall > 0.97, "{metric:?}: {recall}");
        assert_eq!(index.unreachable(), 0);
        // Scores come from the f32 vectors, so they are those of the exact search.
        let search = Search::new(&queries[0], 1);
        let (found, truth) = (index.search(&search).unwrap(), exact.search(&search).unwrap());
        assert!((found[0].score - truth[0].score).abs() < 1e-4 * truth[0].score.abs().max(1.0));
    }
}

#[test]
fn every_path_gives_the_same_bytes() {
    let mut vectors = Vectors::new(70, 20, 2);
    let data = vectors.take(1500);
    for metric in METRICS {
        let mut files = Vec::new();
        for path in Path::available() {
            let mut index = hnsw(walking(70, metric).seed(9).path(path), &data);
            for id in (0..1500).step_by(3) {
                assert!(index.remove(VectorId(id)));
            }
            for id in 0..200 {
                index.insert(VectorId(5000 + id), &data[id as usize]).unwrap();
            }
            files.push((path, index.save()));
        }
        let (_, first) = &files[0];
        for (path, file) in &files {
            assert!(file == first, "{path:?} differs with {metric:?}");
        }
        let other = hnsw(walking(70, metric).seed(10), &data).save();
        assert!(other != hnsw(walking(70, metric).seed(9), &data).save(), "the seed matters");
    }
}

#[test]
fn a_restored_index_goes_on_as_the_saved_one() {
    let mut vectors = Vectors::new(24, 10, 3);
    let data = vectors.take(1200);
    let mut index = hnsw(walking(24, Metric::L2), &data[..900]);
    for id in (0..900).step_by(4) {
        index.remove(VectorId(id));
    }
    let file = index.save();
    let mut restored = HnswIndex::new(walking(24, Metric::L2).seed(77)).unwrap();
    restored.restore(&file).unwrap();
    assert!(restored.save() == file);
    assert_eq!(restored.len(), index.len());
    assert_eq!(restored.reader().len(), index.len(), "a restored index is published");
    for index in [&mut index, &mut restored] {
        for id in 900..1200_u64 {
            index.insert(VectorId(id), &data[id as usize]).unwrap();
            index.remove(VectorId(id - 899));
        }
    }
    assert!(restored.save() == index.save());
}

#[test]
fn after_churn_recall_stays_and_nothing_is_lost() {
    let mut vectors = Vectors::new(32, 60, 4);
    let mut random = Random(5);
    let mut data = vectors.take(3000);
    let queries = vectors.take(100);
    let mut index = hnsw(walking(32, Metric::Cosine), &data);
    let before = index.memory_len();
    for _ in 0..12 {
        for _ in 0..750 {
            let id = random.below(data.len());
            data[id] = vectors.next();
            assert!(index.remove(VectorId(id as u64)));
            index.insert(VectorId(id as u64), &data[id]).unwrap();
        }
    }
    let exact = exact(32, Metric::Cosine, &data);
    let fresh = hnsw(walking(32, Metric::Cosine), &data);
    let (churned, fresh) = (recall(&index, &exact, &queries), recall(&fresh, &exact, &queries));
    assert!(churned >= fresh - 0.005, "{churned} after churn, {fresh} fresh");
    index.sweep();
    let (before, after) = (before as f64, index.memory_len() as f64);
    assert!(after <= 1.1 * before, "{after} bytes after churn, {before} before");
    assert_eq!(index.unreachable(), 0);
    for (id, vector) in data.iter().enumerate() {
        let found = index.search(&Search::new(vector, 1).effort(200)).unwrap();
        assert_eq!(found[0].id, VectorId(id as u64), "every live vector is found by itself");
    }
}

#[test]
fn removing_everything_leaves_nothing_and_the_index_usable() {
    let data = Vectors::new(16, 4, 6).take(500);
    let mut index = hnsw(walking(16, Metric::InnerProduct), &data);
    for id in 0..500 {
        assert!(index.remove(VectorId(id)));
        assert!(!index.remove(VectorId(id)));
    }
    assert!(index.is_empty());
    assert!(index.search(&Search::new(&data[0], 3)).unwrap().is_empty());
    let file = index.save();
    let secret = data[3][0].to_le_bytes();
    assert!(!file.windows(4).any(|bytes| bytes == secret), "a removed vector is not in the file");
    index.insert(VectorId(1), &data[1]).unwrap();
    assert_eq!(index.search(&Search::new(&data[0], 3)).unwrap().len(), 1);
}

/// A change of the model test.
#[derive(Debug, Clone)]
enum Change {
    Insert(u64, u64),
    Remove(u64),
    Save,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A search with as many candidates as vectors gives what the exact search gives, after any changes.
    #[test]
    fn any_changes_keep_the_index_equal_to_the_exact_one(
        changes in prop::collection::vec(
            prop_oneof![
                6 => (0_u64..60, any::<u64>()).prop_map(|(id, seed)| Change::Insert(id, seed)),
                4 => (0_u64..60).prop_map(Change::Remove),
                1 => Just(Change::Save),
            ],
            1..250,
        ),
        metric in 0_usize..3,
    ) {
        let metric = METRICS[metric];
        let options = walking(8, metric).m(3).ef_construction(20);
        let mut index = HnswIndex::new(options).unwrap();
        let mut truth = exact(8, metric, &[]);
        for change in changes {
            match change {
                Change::Insert(id, seed) => {
                    let vector = Vectors::new(8, 1, seed).next();
                    index.insert(VectorId(id), &vector).unwrap();
                    truth.insert(VectorId(id), &vector).unwrap();
                }
                Change::Remove(id) => prop_assert_eq!(index.remove(VectorId(id)), truth.remove(VectorId(id))),
                Change::Save => {
                    let file = index.save();
                    index.restore(&file).unwrap();
                    prop_assert!(index.save() == file);
                    let file = truth.save();
                    truth.restore(&file).unwrap();
                }
            }
            prop_assert_eq!(index.len(), truth.len());
        }
        index.sweep();
        prop_assert_eq!(index.unreachable(), 0);
        let query = Vectors::new(8, 1, 99).next();
        let ids = |found: Vec<x0_ml::index::Neighbour>| {
            let mut ids: Vec<u64> = found.iter().map(|near| near.id.0).collect();
            ids.sort_unstable();
            ids
        };
        let search = Search::new(&query, 60).effort(60);
        prop_assert_eq!(ids(index.search(&search).unwrap()), ids(truth.search(&search).unwrap()));
    }
}

#[test]
fn vectors_that_no_index_can_hold_are_errors() {
    for metric in METRICS {
        let indexes: [Box<dyn VectorIndex>; 2] =
            [Box::new(HnswIndex::new(walking(3, metric)).unwrap()), Box::new(exact(3, metric, &[]))];
        for mut index in indexes {
            let id = VectorId(1);
            let short = index.insert(id, &[1.0]);
            assert_eq!(short, Err(InsertError::Dimensions { expected: 3, found: 1 }));
            let infinite = index.insert(id, &[1.0, f32::INFINITY, 0.0]);
            assert_eq!(infinite, Err(InsertError::NotFinite { component: 1 }));
            assert_eq!(index.insert(id, &[3e38; 3]), Err(InsertError::NoDirection));
            let zero = index.insert(id, &[0.0; 3]);
            assert_eq!(zero.is_err(), metric == Metric::Cosine);
            index.remove(id);
            index.insert(id, &[1e-30, 0.0, 1e-40]).ok();
            index.remove(id);
            assert!(index.is_empty());
            index.insert(id, &[1.0, 2.0, 3.0]).unwrap();
            let query = index.search(&Search::new(&[f32::NAN; 3], 1));
            assert!(matches!(query, Err(SearchError::Query(InsertError::NotFinite { component: 0 }))));
            assert!(index.search(&Search::new(&[1.0; 3], 0)).unwrap().is_empty());
        }
    }
    assert!(HnswIndex::new(HnswOptions::new(0, Metric::L2)).is_err());
    assert!(HnswIndex::new(HnswOptions::new(3, Metric::L2).m(1)).is_err());
    assert!(HnswIndex::new(HnswOptions::new(3, Metric::L2).ef_construction(3)).is_err());
    assert!(x0_ml::index::ExactIndex::new(8193, Metric::L2).is_err());
}

#[test]
fn equal_vectors_are_all_found() {
    let data = vec![vec![0.5_f32, 0.25, -1.0]; 300];
    let mut index = hnsw(walking(3, Metric::Cosine).ef_search(300), &data);
    index.sweep();
    assert_eq!(index.unreachable(), 0);
    let found = index.search(&Search::new(&data[0], 300)).unwrap();
    assert_eq!(found.len(), 300);
    assert!(found.is_sorted_by_key(|near| near.id), "equal scores stand in the order of their numbers");
}

#[test]
fn without_exact_vectors_the_codes_rank() {
    let mut vectors = Vectors::new(48, 40, 1);
    let (data, queries) = (vectors.take(2000), vectors.take(60));
    let exact = exact(48, Metric::Cosine, &data);
    let coarse = hnsw(walking(48, Metric::Cosine).rerank(Rerank::None), &data);
    let fine = hnsw(walking(48, Metric::Cosine), &data);
    let (coarse_recall, fine_recall) = (recall(&coarse, &exact, &queries), recall(&fine, &exact, &queries));
    assert!(coarse_recall > 0.9 && coarse_recall < fine_recall, "{coarse_recall} {fine_recall}");
    assert!(coarse.memory_len() + 2000 * 48 * 4 <= fine.memory_len());
}
