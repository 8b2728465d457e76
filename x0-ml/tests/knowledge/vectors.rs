//! Exact vectors that are read from the file of the cache.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use x0_ml::embed::Embedder;
use x0_ml::index::{HnswOptions, Metric, Search};
use x0_ml::knowledge::{ExactVectors, KnowledgeBase, KnowledgeBaseOptions, KnowledgeError};
use x0_ml::retrieve::{Mode, Query};

use crate::folder::{SharedFolder, SimFolder};
use crate::support::{Counting, Shared, options, put, remove, text};

type Base = KnowledgeBase<Shared, Counting, SharedFolder>;

const NOW: Duration = Duration::ZERO;
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

fn settings(vectors: ExactVectors) -> KnowledgeBaseOptions {
    // The graph walks.
    let index = HnswOptions::new(48, Metric::Cosine).m(6).ef_construction(60).scan_len_max(0);
    options().index(index).vectors(vectors)
}

fn open(store: &Shared, embedder: &Counting, folder: &SharedFolder, vectors: ExactVectors) -> Base {
    Base::open(settings(vectors), store.clone(), embedder.clone(), folder.clone()).unwrap()
}

fn vector(query: &str) -> Vec<f32> {
    let mut vector = vec![0.0; 48];
    Counting::new().embed(&[query], &mut vector).unwrap();
    vector
}

/// All passages of queries, without the order of equal scores, and the scores of the nearest chunks.
type Answers = (Vec<Vec<(String, usize, u64)>>, Vec<f32>);

fn answers(base: &Base) -> Answers {
    let (mut passages, mut scores) = (Vec::new(), Vec::new());
    for query in
        NAMES.iter().flat_map(|name| (0..4).map(move |n| format!("Sentence {n} of {name} names topic")))
    {
        let hits = base.query(&query, 1000, Mode::Dense).unwrap();
        let mut found: Vec<_> =
            hits.iter().map(|hit| (hit.document.to_string(), hit.span.start, hit.revision)).collect();
        found.sort();
        passages.push(found);
        let nearest = base.reader().search(&Search::new(&vector(&query), 5)).unwrap();
        scores.extend(nearest.iter().map(|near| near.score));
    }
    (passages, scores)
}

/// The same passages, with the same scores but for the last bits.
fn check(base: &Base, store: &Shared) {
    let store =
        Shared { store: Arc::new(Mutex::new(store.store.lock().unwrap().clone())), ..Shared::default() };
    store.store.lock().unwrap().cut();
    let mut other =
        open(&store, &Counting::new(), &SharedFolder::new(SimFolder::new(9)), ExactVectors::Memory);
    other.run(NOW).unwrap();
    assert_eq!(base.reader().len(), other.reader().len());
    let ((found, scores), (wanted, others)) = (answers(base), answers(&other));
    assert_eq!(found, wanted);
    assert_eq!(scores.len(), others.len());
    assert!(scores.iter().zip(&others).all(|(a, b)| (a - b).abs() < 1e-5), "{scores:?} and {others:?}");
}

fn fill(store: &Shared) {
    for name in NAMES {
        put(store, name, text(name, 12));
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(cause).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn answers_are_those_of_vectors_in_memory() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    fill(&store);
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    base.run(NOW).unwrap();
    check(&base, &store);
    // Records move when the cache is written again without those of withdrawn text.
    put(&store, "alpha", text("other", 12));
    remove(&store, "beta");
    base.run(NOW).unwrap();
    check(&base, &store);
    let before = base.cached();
    assert!(base.save(NOW).unwrap() && base.cached() < before);
    check(&base, &store);
    put(&store, "beta", text("beta", 15));
    base.run(NOW).unwrap();
    check(&base, &store);
    base.save(NOW).unwrap();
    let len = |folder: &SharedFolder| {
        let files = folder.take().files();
        files.iter().find(|(name, _)| name == "knowledge.index").unwrap().1.len()
    };
    let (small, chunks) = (len(&folder), base.reader().len());
    drop(base);
    // A restart embeds nothing, and the file of the index holds no vectors.
    let before = embedder.count();
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    assert!(base.opening().rebuild.is_none(), "{:?}", base.opening());
    check(&base, &store);
    base.run(NOW).unwrap();
    drop(base);
    // The other setting builds the index again, from the cache.
    let mut base = open(&store, &embedder, &folder, ExactVectors::Memory);
    assert!(matches!(base.opening().rebuild, Some(KnowledgeError::Restore(_))));
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    assert!(len(&folder) >= small + chunks * 48 * 3, "{} and {small}", len(&folder));
    drop(base);
    let base = open(&store, &embedder, &folder, ExactVectors::Cache);
    assert!(base.opening().rebuild.is_none(), "{:?}", base.opening());
    check(&base, &store);
    // The queries of both checks, and nothing else.
    assert_eq!(embedder.count(), before + 2 * 4 * NAMES.len());
}

/// Readers have the version that was published last, whose vectors stay until the next one.
#[test]
fn queries_between_any_two_steps_find_their_vectors() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    fill(&store);
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    for round in 0..4 {
        put(&store, "alpha", text(&format!("round{round}"), 6));
        while base.step(NOW).unwrap() {
            answers(&base);
        }
        base.save(NOW).unwrap();
    }
    remove(&store, "beta");
    while base.step(NOW).unwrap() {
        answers(&base);
    }
    check(&base, &store);
}

#[test]
fn a_damaged_record_is_an_error_and_embedded_again() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    fill(&store);
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    base.run(NOW).unwrap();
    let (before, record) = (embedder.count(), 32 + 4 * 48 + 4);
    folder.damage("embeddings.cache", 52 + 2 * record + 40);
    let query = vector("Sentence 1 of alpha names topic");
    let query = Query::new("topic").vector(&query).k(1000).mode(Mode::Dense);
    let error = cause(&base.answer(&query).unwrap_err());
    let offset = format!("damaged at byte {}", 52 + 2 * record);
    assert!(error.contains("embeddings.cache") && error.contains(&offset), "{error}");
    assert!(base.answer(&Query::new("topic").mode(Mode::Lexical)).is_ok());
    assert!(base.step(NOW).unwrap());
    assert_eq!(embedder.count(), before + 1);
    assert!(base.answer(&query).is_ok());
    check(&base, &store);
    // The damaged record leaves, and others stay.
    base.save(NOW).unwrap();
    check(&base, &store);
    // A document that is gone is not embedded again.
    remove(&store, "gamma");
    folder.damage("embeddings.cache", 52 + 3 * record);
    base.answer(&query).unwrap_err();
    store.store.lock().unwrap().cut();
    base.run(NOW).unwrap();
    assert!(base.answer(&query).is_ok() || embedder.count() == before + 2);
}

/// The cache is damaged while the node is down: the index cannot rank without it.
#[test]
fn a_lost_cache_builds_the_index_again() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    fill(&store);
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    let chunks = base.reader().len();
    drop(base);
    folder.damage("embeddings.cache", 60);
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    assert!(base.opening().cache_lost.is_some());
    let rebuild = base.opening().rebuild.as_ref().unwrap();
    assert!(
        matches!(rebuild, KnowledgeError::VectorsLost { chunks: lost, .. } if *lost == chunks),
        "{rebuild}"
    );
    assert!(base.query("topic", 3, Mode::Dense).unwrap().is_empty());
    store.store.lock().unwrap().cut();
    base.run(NOW).unwrap();
    check(&base, &store);
}

/// The file of the index stays as it was, and so does the cache that it ranks by.
#[test]
fn a_save_that_fails_leaves_the_vectors_of_the_earlier_file() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    fill(&store);
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    base.run(NOW).unwrap();
    assert!(base.save(NOW).unwrap());
    remove(&store, "beta");
    base.run(NOW).unwrap();
    folder.fail(0, 1);
    assert!(!base.save(NOW).unwrap());
    let copy = SharedFolder::new(folder.take());
    let cached = base.cached();
    assert!(base.save(NOW).unwrap() && base.cached() < cached, "the next save takes them out");
    let mut base = open(&store, &embedder, &copy, ExactVectors::Cache);
    assert!(base.opening().rebuild.is_none(), "{:?}", base.opening());
    store.store.lock().unwrap().cut();
    base.run(NOW).unwrap();
    check(&base, &store);
}

/// The new file of the cache cannot be opened when it takes the name, and once more later.
#[test]
fn places_of_a_file_that_cannot_be_opened_are_not_used() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    fill(&store);
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    base.run(NOW).unwrap();
    let cached = base.cached();
    remove(&store, "alpha");
    folder.fail_opens(2);
    // The second change since the last save: the cache is written again.
    base.run(NOW).unwrap();
    assert!(base.cached() < cached);
    answers(&base);
    // The vectors of a new document are in the file, which cannot be read: the next attempt finds them there.
    put(&store, "delta", "one topic");
    base.run(NOW).unwrap();
    assert_eq!((base.engine().stats().failures, base.engine().passages().documents_len()), (1, 2));
    for second in 1..5 {
        base.run(Duration::from_secs(second)).unwrap();
        answers(&base);
    }
    check(&base, &store);
}

/// A vector that the full disk does not take is not indexed before there is room.
#[test]
fn a_full_disk_holds_the_document_back() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    let mut base = open(&store, &embedder, &folder, ExactVectors::Cache);
    base.run(NOW).unwrap();
    folder.fail(0, 3);
    fill(&store);
    base.run(NOW).unwrap();
    answers(&base);
    assert!(base.engine().stats().failures > 0);
    for second in 1..20 {
        base.run(Duration::from_secs(second)).unwrap();
    }
    assert_eq!(base.engine().passages().documents_len(), 3);
    check(&base, &store);
}

#[test]
fn after_a_crash_at_any_file_operation_answers_are_those_of_the_store() {
    let run = |seed: u64, at: Option<usize>| {
        let (store, embedder) = (Shared::default(), Counting::new());
        let mut folder = SimFolder::new(seed);
        if let Some(at) = at {
            folder.crash_at(at);
        }
        let folder = SharedFolder::new(folder);
        let opened =
            Base::open(settings(ExactVectors::Cache), store.clone(), embedder.clone(), folder.clone());
        if let Ok(mut base) = opened {
            for round in 0..4 {
                put(&store, ["alpha", "beta", "gamma", "alpha"][round], text(&format!("{round}"), 6));
                if round == 2 {
                    remove(&store, "beta");
                }
                while !folder.has_crashed() && base.step(Duration::from_secs(round as u64)).unwrap() {}
            }
        }
        let mut image = folder.take();
        let operations = image.operations();
        image.restart();
        store.store.lock().unwrap().cut();
        let mut base = open(&store, &embedder, &SharedFolder::new(image), ExactVectors::Cache);
        answers(&base);
        base.run(NOW).unwrap();
        check(&base, &store);
        operations
    };
    let operations = run(1, None);
    assert!(operations > 20, "{operations}");
    for at in 0..=operations {
        run(at as u64, Some(at));
    }
}
