//! Filters: any share that passes, near the query or far from it.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use x0_ml::index::{
    HnswOptions, Metric, Rerank, Search, SearchError, SourceError, VectorId, VectorIndex, VectorSource,
};

use crate::support::{Vectors, exact, hnsw};

#[test]
fn recall_holds_for_any_share() {
    let mut vectors = Vectors::new(32, 50, 8);
    let (data, queries) = (vectors.take(6000), vectors.take(50));
    let index = hnsw(HnswOptions::new(32, Metric::Cosine), &data);
    let exact = exact(32, Metric::Cosine, &data);
    for share in [1, 2, 10, 100, 1000, 100_000] {
        let passes = move |id: VectorId| (id.0 * 7919).is_multiple_of(share);
        let (mut found, mut wanted) = (0, 0);
        for query in &queries {
            let search = Search::new(query, 10).filter(&passes);
            let truth: HashSet<_> = exact.search(&search).unwrap().iter().map(|near| near.id).collect();
            let near = index.search(&search).unwrap();
            assert!(near.iter().all(|near| passes(near.id)));
            found += near.iter().filter(|near| truth.contains(&near.id)).count();
            wanted += truth.len();
        }
        assert!(found as f64 >= 0.98 * wanted as f64, "1/{share}: {found} of {wanted}");
    }
}

/// Blocks with and without free slots take different loops.
#[test]
fn a_scan_asks_about_present_vectors_and_finds_them_all() {
    let mut vectors = Vectors::new(8, 50, 11);
    let data = vectors.take(1000);
    let mut index = hnsw(HnswOptions::new(8, Metric::L2).scan_len_max(usize::MAX), &data);
    let is_left = |id: VectorId| !(300..700).contains(&id.0) || id.0.is_multiple_of(5);
    for id in (0..1000).map(VectorId).filter(|id| !is_left(*id)) {
        assert!(index.remove(id));
    }
    for share in [1, 3, 7] {
        let passes = |id: VectorId| {
            assert!(is_left(id), "{id:?} was removed");
            id.0.is_multiple_of(share)
        };
        let found = index.search(&Search::new(&data[0], 1000).filter(&passes)).unwrap();
        let found: HashSet<u64> = found.iter().map(|near| near.id.0).collect();
        let expect = (0..1000).filter(|id| is_left(VectorId(*id)) && id.is_multiple_of(share)).collect();
        assert_eq!(found, expect, "1/{share}");
    }
}

/// The vectors that pass are the farthest from the query: a walk gives up and the scan answers.
#[test]
fn a_filter_away_from_the_query_is_answered_within_a_bound() {
    let mut vectors = Vectors::new(32, 2, 9);
    let data = vectors.take(6000);
    let index = hnsw(HnswOptions::new(32, Metric::Cosine), &data);
    let exact = exact(32, Metric::Cosine, &data);
    let query = &data[0];
    let near: HashSet<VectorId> =
        exact.search(&Search::new(query, 3000)).unwrap().iter().map(|near| near.id).collect();
    let calls = AtomicUsize::new(0);
    let passes = |id: VectorId| {
        calls.fetch_add(1, Ordering::Relaxed);
        !near.contains(&id)
    };
    let search = Search::new(query, 10).filter(&passes);
    let truth: Vec<_> = exact.search(&search).unwrap().iter().map(|near| near.id).collect();
    calls.store(0, Ordering::Relaxed);
    let found: Vec<_> = index.search(&search).unwrap().iter().map(|near| near.id).collect();
    assert_eq!(found, truth);
    assert!(calls.into_inner() <= 6000 + 3000 + 256);
}

struct Source {
    vectors: Vec<Vec<f32>>,
    reads: AtomicUsize,
}

impl VectorSource for Source {
    fn read(&self, id: VectorId, vector: &mut [f32]) -> Result<(), SourceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.vectors.get(id.0 as usize);
        let found = found.ok_or_else(|| SourceError { id, source: io::Error::other("no such vector") })?;
        vector.copy_from_slice(found);
        Ok(())
    }
}

#[test]
fn a_source_gives_the_ranking_of_memory() {
    for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
        let mut vectors = Vectors::new(32, 30, 10);
        let data = vectors.take(2000);
        let source = Arc::new(Source { vectors: data.clone(), reads: AtomicUsize::new(0) });
        let options = HnswOptions::new(32, metric);
        let memory = hnsw(options.clone(), &data);
        let mut outside = hnsw(options.rerank(Rerank::Source(source.clone())), &data);
        for query in vectors.take(20) {
            let search = Search::new(&query, 5);
            let ids =
                |found: Vec<x0_ml::index::Neighbour>| found.iter().map(|near| near.id).collect::<Vec<_>>();
            assert_eq!(ids(memory.search(&search).unwrap()), ids(outside.search(&search).unwrap()));
        }
        assert_eq!(source.reads.load(Ordering::Relaxed), 20 * 20, "4 k vectors are read for a search");
        outside.insert(VectorId(9999), &data[0]).unwrap();
        let failed = outside.search(&Search::new(&data[0], 5));
        assert!(matches!(failed, Err(SearchError::Source(SourceError { id: VectorId(9999), .. }))));
    }
}

#[test]
fn a_filter_may_search_another_graph_in_the_same_thread() {
    let mut vectors = Vectors::new(16, 10, 11);
    let (data, queries) = (vectors.take(600), vectors.take(20));
    let options = || HnswOptions::new(16, Metric::Cosine).scan_len_max(0);
    let (outer, inner) = (hnsw(options(), &data), hnsw(options(), &data[..300]));
    for query in &queries {
        let wanted = Search::new(query, 5);
        let alone = inner.search(&wanted).unwrap();
        // The walk of the filter's search must leave that of the outer one as it is.
        let nested = |id: VectorId| {
            assert_eq!(inner.search(&wanted).unwrap(), alone);
            id.0.is_multiple_of(2)
        };
        let plain = |id: VectorId| id.0.is_multiple_of(2);
        assert_eq!(
            outer.search(&Search::new(query, 5).filter(&nested)).unwrap(),
            outer.search(&Search::new(query, 5).filter(&plain)).unwrap()
        );
    }
}

#[test]
fn effort_is_kept_below_the_candidates_of_the_ranking() {
    let mut vectors = Vectors::new(32, 200, 12);
    let (data, queries) = (vectors.take(3000), vectors.take(100));
    let index = hnsw(HnswOptions::new(32, Metric::InnerProduct).scan_len_max(0), &data);
    let exact = exact(32, Metric::InnerProduct, &data);
    let hits = |effort: usize| -> usize {
        let mut hits = 0;
        for query in &queries {
            let truth = exact.search(&Search::new(query, 10)).unwrap();
            let found = index.search(&Search::new(query, 10).effort(effort)).unwrap();
            assert_eq!(found.len(), 10, "never fewer than asked for");
            hits += found.iter().filter(|near| truth.iter().any(|true_one| true_one.id == near.id)).count();
        }
        hits
    };
    // Ten candidates are fewer than the forty that are ranked: the caller gets the short walk that it asked
    // for.
    let (least, most) = (hits(1), hits(40));
    assert!(least < most, "{least} of {most}");
}
