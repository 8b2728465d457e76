//! The daily life of a node.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use x0_ml::chunk::ChunkOptions;
use x0_ml::embed::Embedder;
use x0_ml::file::Folder;
use x0_ml::knowledge::{
    KnowledgeBase, KnowledgeBaseOptions, KnowledgeError, KnowledgeOptions, KnowledgeStore,
};
use x0_ml::retrieve::{Document, DocumentId, Hit, Mode, PassageFilter, Query, QueryError};

use crate::folder::{SharedFolder, SimFolder};
use crate::support::{Base, Counting, Shared, check, open, options, put, remove, text};

const NOW: Duration = Duration::ZERO;

#[test]
fn changes_are_followed() {
    let (store, embedder) = (Shared::default(), Counting::new());
    for name in ["alpha", "beta", "gamma", "delta", "epsilon"] {
        put(&store, name, text(name, 9));
    }
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    check(&base, &store);
    assert_eq!(base.engine().applied(), 5);
    put(&store, "beta", text("zeta", 12));
    remove(&store, "alpha");
    let revision = put(&store, "omega", "");
    base.run(NOW).unwrap();
    check(&base, &store);
    assert_eq!((base.engine().applied(), base.engine().pending()), (revision, 0));
    assert!(base.engine().is_idle());
    let hits = base.query("topic zeta7", 3, Mode::Lexical).unwrap();
    assert_eq!((hits[0].document.as_str(), hits[0].revision), ("beta", 6));
    let stats = base.engine().stats();
    assert_eq!((stats.documents_indexed, stats.documents_removed, stats.scans), (7, 1, 1));
}

/// After each step: a reader that asks for the revision of a document finds the document, and none that was
/// removed before.
#[test]
fn a_revision_counts_once_a_reader_finds_it() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    for n in 0..20 {
        let (name, before) = (format!("doc{n}"), format!("doc{}", n / 2));
        let revision = put(&store, &name, format!("topic word{n}"));
        while base.engine().applied() < revision {
            assert!(base.step(NOW).unwrap(), "{name} is never applied");
        }
        let found = |base: &Base, word: usize| {
            let hits = base.query(&format!("word{word}"), 1, Mode::Lexical).unwrap();
            hits.first().map(|hit| hit.document.as_str().to_owned())
        };
        assert_eq!(found(&base, n), Some(name), "applied, and not found");
        if n % 2 == 0 {
            remove(&store, &before);
            let removed = revision + 1;
            while base.engine().applied() < removed {
                assert!(base.step(NOW).unwrap());
            }
            assert_ne!(found(&base, n / 2), Some(before), "removed, and found");
        }
    }
}

#[test]
fn unchanged_text_is_never_embedded_twice() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let pages = |changed: &str| -> String {
        (0..100)
            .map(|n| format!("Page {n} says {}.\n\n", if n == 50 { changed } else { "what it always said" }))
            .collect()
    };
    put(&store, "book", pages("the first thing"));
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    let whole = embedder.count();
    put(&store, "book", pages("the first thing"));
    put(&store, "copy", pages("the first thing"));
    base.run(NOW).unwrap();
    assert_eq!(embedder.count(), whole, "the same text again, and in another document, costs nothing");
    put(&store, "book", pages("another thing"));
    base.run(NOW).unwrap();
    let changed = embedder.count() - whole;
    assert!((1..=4).contains(&changed), "{changed} of {whole} chunks");
    let before = embedder.count();
    remove(&store, "book");
    base.run(NOW).unwrap();
    assert_eq!(embedder.count(), before, "removal embeds nothing");
    check(&base, &store);
    let hits = base.query("page 50", 1, Mode::Lexical).unwrap();
    assert_eq!(hits[0].document.as_str(), "copy", "a chunk of two documents stays while one holds it");
}

#[test]
fn a_cut_and_an_overflow_are_made_good_by_a_scan() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let options = options().knowledge(KnowledgeOptions::new().pending_max(2).page_max(3));
    for n in 0..9 {
        put(&store, &format!("doc{n}"), text(&format!("n{n}"), 3));
    }
    let mut base = Base::open(options, store.clone(), embedder.clone(), SimFolder::new(1)).unwrap();
    base.run(NOW).unwrap();
    check(&base, &store);
    let scans = base.engine().stats().scans;
    assert!((2..20).contains(&scans), "{scans} scans");
    remove(&store, "doc0");
    remove(&store, "doc4");
    remove(&store, "doc8");
    put(&store, "doc5", text("new", 4));
    store.store.lock().unwrap().cut();
    let before = embedder.count();
    base.run(NOW).unwrap();
    assert!(embedder.count() - before < 8, "documents of the same revision are not embedded again");
    assert_eq!(base.engine().applied(), 13);
    check(&base, &store);
}

/// A save before the end of the process does not wait for the documents that are not indexed yet.
#[test]
fn a_save_indexes_nothing() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    for name in ["alpha", "beta", "gamma"] {
        put(&store, name, text(name, 9));
    }
    while base.engine().stats().chunks_embedded == 0 {
        assert!(base.step(NOW).unwrap());
    }
    let before = embedder.count();
    assert!(base.save(NOW).unwrap());
    assert!(embedder.count() - before <= 3, "the step that waited, and no other");
    assert_eq!(base.engine().passages().documents_len(), 0);
    base.run(NOW).unwrap();
    check(&base, &store);
}

#[test]
fn a_store_that_is_away_is_asked_again_later() {
    let (store, embedder) = (Shared::default(), Counting::new());
    put(&store, "alpha", text("alpha", 3));
    let mut base = open(&store, &embedder, SimFolder::new(1));
    store.failing.store(3, Ordering::Relaxed);
    base.run(NOW).unwrap();
    assert_eq!(base.engine().passages().documents_len(), 0);
    let mut waited = Vec::new();
    while let Some(at) = base.poll_timeout().filter(|_| base.engine().passages().documents_len() == 0) {
        waited.push(at);
        base.run(at).unwrap();
    }
    assert_eq!(waited, [1, 3, 7].map(Duration::from_secs), "each wait is twice the one before");
    check(&base, &store);

    // A document that no chunker takes is left out, the others are not.
    let mut base = Base::open(
        options()
            .chunk(ChunkOptions::new().text_len_max(500))
            .knowledge(KnowledgeOptions::new().attempts_max(2)),
        store.clone(),
        embedder,
        SimFolder::new(1),
    )
    .unwrap();
    put(&store, "aaa", text("long", 100));
    base.run(NOW).unwrap();
    while let Some(at) = base.poll_timeout().filter(|_| !base.engine().is_idle()) {
        base.run(at).unwrap();
    }
    let documents: Vec<String> = base.engine().passages().documents().map(|(id, _)| id.to_string()).collect();
    assert_eq!(documents, ["alpha"]);
    assert_eq!(base.engine().stats().documents_left_out, 1);
}

#[test]
fn a_late_document_is_indexed_when_it_is_here() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    *store.late.lock().unwrap() = Some("alpha".into());
    put(&store, "alpha", text("alpha", 3));
    put(&store, "beta", text("beta", 3));
    base.run(NOW).unwrap();
    assert_eq!((base.engine().passages().documents_len(), base.engine().applied()), (1, 0));
    assert_eq!(base.engine().stats().failures, 0);
    *store.arrived.lock().unwrap() = store.late.lock().unwrap().take();
    base.run(NOW).unwrap();
    assert_eq!(base.engine().applied(), 2);
    check(&base, &store);
}

#[test]
fn a_restart_takes_the_saved_state_over() {
    let (store, embedder) = (Shared::default(), Counting::new());
    for name in ["alpha", "beta", "gamma"] {
        put(&store, name, text(name, 9));
    }
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    let before = embedder.count();
    let path = std::env::temp_dir().join(format!("x0-ml-base-{}", std::process::id()));
    let folder = x0_ml::file::DiskFolder::new(&path).unwrap();
    let mut first = KnowledgeBase::open(options(), store.clone(), embedder.clone(), folder.clone()).unwrap();
    store.store.lock().unwrap().cut();
    first.run(NOW).unwrap();
    first.save(NOW).unwrap();
    let cached = first.cached();
    drop(first);
    put(&store, "beta", text("beta", 10));
    remove(&store, "gamma");
    let mut folder_again = folder.clone();
    let mut second = KnowledgeBase::open(options(), store.clone(), embedder.clone(), folder.clone()).unwrap();
    assert!(second.opening().rebuild.is_none() && second.opening().cache_lost.is_none());
    assert!(second.opening().chunks > 0);
    second.run(NOW).unwrap();
    assert_eq!(second.engine().passages().documents_len(), 2);
    assert!(embedder.count() > before);
    second.save(NOW).unwrap();
    assert_eq!(second.cached(), second.engine().passages().chunks_len());
    assert_ne!(second.cached(), cached);
    drop(second);

    // Other settings and damage are reported, and the base is built again: from the cache, if it is whole.
    let other = options().chunk(ChunkOptions::new().tokens_max(30));
    let base = KnowledgeBase::open(other, store.clone(), embedder.clone(), folder.clone()).unwrap();
    assert!(matches!(base.opening().rebuild, Some(KnowledgeError::Settings { .. })));
    let mut file = folder_again.read("knowledge.index").unwrap().unwrap();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    folder_again.write("knowledge.index", &file).unwrap();
    let before = embedder.count();
    let mut base = KnowledgeBase::open(options(), store.clone(), embedder.clone(), folder.clone()).unwrap();
    let Some(KnowledgeError::Snapshot { name: "knowledge.index", source }) = &base.opening().rebuild else {
        panic!("{:?}", base.opening());
    };
    assert!(source.offset > 0);
    base.run(NOW).unwrap();
    assert_eq!((base.engine().passages().documents_len(), embedder.count()), (2, before));
    let mut file = folder_again.read("embeddings.cache").unwrap().unwrap();
    file[60] ^= 1;
    folder_again.write("embeddings.cache", &file).unwrap();
    let base = KnowledgeBase::open(options(), store, embedder, folder).unwrap();
    assert!(
        base.opening()
            .cache_lost
            .as_ref()
            .is_some_and(|error| error.to_string().contains("embeddings.cache"))
    );
    std::fs::remove_dir_all(path).unwrap();
}

/// Scores that are equal say nothing of the order, and documents reach each node in another one.
#[test]
fn nodes_that_indexed_in_another_order_answer_alike() {
    let names: Vec<String> = (0..12).map(|n| format!("doc{n}")).collect();
    let answers = |order: &[&String], mode: Mode| {
        let (store, embedder) = (Shared::default(), Counting::new());
        let mut base = open(&store, &embedder, SimFolder::new(1));
        for name in order {
            put(&store, name, format!("topic and {name}"));
            base.run(NOW).unwrap();
        }
        let hits = base.query("topic", 5, mode).unwrap();
        hits.into_iter().map(|hit| (hit.document.to_string(), hit.rank_lexical)).collect::<Vec<_>>()
    };
    let (forward, backward): (Vec<_>, Vec<_>) = (names.iter().collect(), names.iter().rev().collect());
    for mode in [Mode::Lexical, Mode::Hybrid] {
        assert_eq!(answers(&forward, mode), answers(&backward, mode), "{mode:?}");
    }
}

/// More documents have the same score than a list holds: all nodes choose the same ones, also after a
/// restart.
#[test]
fn nodes_cut_equal_scores_off_alike() {
    let names: Vec<String> = (0..250).map(|n| format!("doc{n}")).collect();
    let answer = |base: &KnowledgeBase<Shared, Counting, SharedFolder>| {
        let hits = base.query("topic", 20, Mode::Lexical).unwrap();
        hits.into_iter().map(|hit| hit.document.to_string()).collect::<Vec<_>>()
    };
    let answers = |order: &[&String]| {
        let (store, embedder) = (Shared::default(), Counting::new());
        let folder = SharedFolder::new(SimFolder::new(1));
        let open = || {
            let options = options().knowledge(KnowledgeOptions::new());
            KnowledgeBase::open(options, store.clone(), embedder.clone(), folder.clone()).unwrap()
        };
        let mut base = open();
        for name in order {
            put(&store, name, format!("topic of {name}"));
            base.run(NOW).unwrap();
        }
        base.save(NOW).unwrap();
        [answer(&base), answer(&open())]
    };
    let (forward, backward): (Vec<_>, Vec<_>) = (names.iter().collect(), names.iter().rev().collect());
    let [live, restored] = answers(&forward);
    assert_eq!((live.len(), &live), (20, &restored));
    assert_eq!(answers(&backward), [live.clone(), live]);
}

#[test]
fn filters_choose_documents() {
    let (mut store, embedder) = (Shared::default(), Counting::new());
    for n in 0..12_u64 {
        let mut document = Document::new(text(&format!("doc{n}"), 2));
        document.source = if n % 2 == 0 { "manual" } else { "forum" }.to_owned();
        document.tags = BTreeSet::from([format!("tag{}", n % 3)]);
        store.put(&DocumentId::new(format!("doc{n}")), document).unwrap();
    }
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    let found = |filter: PassageFilter<'_>| {
        let query = Query::new("sentence topic").mode(Mode::Lexical).k(100).filter(filter);
        let mut names: Vec<String> =
            base.answer(&query).unwrap().iter().map(|hit| hit.document.to_string()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(found(PassageFilter::new()).len(), 12);
    assert_eq!(found(PassageFilter::new().source("manual")).len(), 6);
    assert_eq!(found(PassageFilter::new().source("manual").tag("tag1")), ["doc10", "doc4"]);
    assert_eq!(found(PassageFilter::new().revisions(3..5)), ["doc2", "doc3"]);
    let own = |document: &DocumentId| document.as_str() == "doc7";
    assert_eq!(found(PassageFilter::new().predicate(&own)), ["doc7"]);
    assert!(found(PassageFilter::new().source("elsewhere")).is_empty());
    // The indexes ask for each chunk they score, and the caller's condition is asked once for each document,
    // and once more for each chunk of the two lists.
    let asked = AtomicUsize::new(0);
    let counted = |_: &DocumentId| asked.fetch_add(1, Ordering::Relaxed) < usize::MAX;
    let mut vector = [0.0; 48];
    embedder.embed(&["sentence topic"], &mut vector).unwrap();
    let query = Query::new("sentence topic").vector(&vector).filter(PassageFilter::new().predicate(&counted));
    assert_eq!(base.answer(&query).unwrap().len(), 10);
    let chunks = base.engine().passages().chunks_len();
    assert!(asked.into_inner() <= 12 + chunks, "{chunks} chunks");
    let no_vector = base.answer(&Query::new("sentence"));
    assert!(matches!(no_vector, Err(KnowledgeError::Query(QueryError::NoVector))));
}

#[test]
fn near_duplicates_are_cited_once() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let page = "A node that loses its link asks each neighbour for a way to the leader, and waits.";
    put(&store, "copy", page.replace("waits", "sleeps"));
    put(&store, "guide", page);
    put(&store, "third", page.replace("asks", "questions"));
    put(&store, "other", "A node that has a link waits for the leader of its neighbours.");
    let mut base = open(&store, &embedder, SimFolder::new(1));
    base.run(NOW).unwrap();
    let answer = |query: Query<'_>| {
        let hits = base.answer(&query.mode(Mode::Lexical)).unwrap();
        let names =
            |hit: &Hit| (hit.document.to_string(), hit.alike.iter().map(ToString::to_string).collect());
        hits.iter().map(names).collect::<Vec<(String, Vec<String>)>>()
    };
    let query = Query::new("a node that loses its link asks and waits").alike_min(0.8);
    let found = answer(query.clone());
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].0.as_str(), found[0].1.len()), ("guide", 2), "{found:?}");
    assert_eq!((found[1].0.as_str(), found[1].1.len()), ("other", 0), "{found:?}");
    assert_eq!(answer(query.clone().alike_min(1.1)).len(), 4);
    assert_eq!(answer(query.k(1))[0].0, "guide");
}

#[test]
fn overlapping_chunks_are_one_passage() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let content = text("alpha", 12);
    put(&store, "alpha", content.as_str());
    let mut base = KnowledgeBase::open(
        KnowledgeBaseOptions::new().chunk(ChunkOptions::new().tokens_max(22)),
        store,
        embedder,
        SimFolder::new(1),
    )
    .unwrap();
    base.run(NOW).unwrap();
    assert!(base.engine().passages().chunks_len() > 5);
    let hits = base.query("sentence alpha", 20, Mode::Lexical).unwrap();
    assert_eq!((hits.len(), hits[0].span.clone()), (1, 0..content.len()));
    let one = base.query("alpha7", 1, Mode::Lexical).unwrap();
    assert!(content[one[0].span.clone()].contains("alpha7"));
}
