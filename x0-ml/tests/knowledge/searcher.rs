//! Queries beside the driver, other indexes in it, and the choice among its hits.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use x0_ml::chunk::WordTokens;
use x0_ml::embed::{EmbedError, Embedded, Embedder, HashedWords, ModelId};
use x0_ml::index::{
    ExactIndex, InsertError, Metric, Neighbour, RestoreError, Search, SearchError, VectorId, VectorIndex,
    VectorReader,
};
use x0_ml::knowledge::{KnowledgeBase, KnowledgeError, Searcher};
use x0_ml::retrieve::{Hit, Mode, Query, RerankError, Reranker};

use crate::folder::{SharedFolder, SimFolder};
use crate::support::{Base, Counting, Shared, open, options, put, text};

const NOW: Duration = Duration::ZERO;

/// An embedder that reports texts with a word and waits until it may go on.
struct Gate {
    inner: HashedWords,
    entered: SyncSender<()>,
    leave: Mutex<Receiver<()>>,
}

impl Embedder for Gate {
    fn model(&self) -> &ModelId {
        self.inner.model()
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn tokens_max(&self) -> usize {
        self.inner.tokens_max()
    }

    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        if texts.iter().any(|text| text.contains("slow")) {
            self.entered.send(()).unwrap();
            self.leave.lock().unwrap().recv().unwrap();
        }
        self.inner.embed(texts, vectors)
    }
}

#[test]
fn a_query_does_not_wait_for_an_embedding() {
    let store = Shared::default();
    let (entered, has_entered) = sync_channel(1);
    let (let_leave, leave) = channel();
    let embedder = Gate { inner: HashedWords::new(48), entered, leave: Mutex::new(leave) };
    put(&store, "alpha", text("alpha", 3));
    let mut base = KnowledgeBase::open(options(), store.clone(), embedder, SimFolder::new(1)).unwrap();
    base.run(NOW).unwrap();
    let searcher = base.searcher();
    put(&store, "beta", "a slow one");
    let indexing = std::thread::spawn(move || base.run(NOW).unwrap());
    has_entered.recv().unwrap();
    // The base embeds, and a query is answered all the same.
    let (answered, answer) = channel();
    let asking = searcher.clone();
    std::thread::spawn(move || {
        let hits = |word: &str| {
            let hits = asking.answer(&Query::new(word).mode(Mode::Lexical)).unwrap();
            hits.into_iter().map(|hit| hit.document.to_string()).collect::<Vec<_>>()
        };
        answered.send((hits("alpha"), hits("slow"), asking.engine().applied())).unwrap();
    });
    let (alpha, slow, applied) = answer.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!((alpha[0].as_str(), slow.len(), applied), ("alpha", 0, 1));
    let_leave.send(()).unwrap();
    indexing.join().unwrap();
    assert_eq!(searcher.answer(&Query::new("slow").mode(Mode::Lexical)).unwrap().len(), 1);
    assert_eq!(searcher.engine().applied(), 2);
    assert_eq!(searcher.vectors().len(), searcher.engine().passages().chunks_len());
    assert!(format!("{searcher:?}").contains("applied: 2"));
}

#[test]
fn another_index_takes_the_place_of_the_graph() {
    let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
    for name in ["alpha", "beta", "gamma"] {
        put(&store, name, text(name, 9));
    }
    let open_exact = || {
        let make = |dimensions| -> Result<Box<dyn VectorIndex>, _> {
            Ok(Box::new(ExactIndex::new(dimensions, Metric::Cosine)?))
        };
        let (store, embedder) = (store.clone(), Counting::new());
        KnowledgeBase::open_with_index(&options(), store, embedder, folder.clone(), WordTokens, &make)
            .unwrap()
    };
    let mut exact = open_exact();
    exact.run(NOW).unwrap();
    assert!(exact.save(NOW).unwrap());
    let mut graph = open(&store, &Counting::new(), SimFolder::new(2));
    store.store.lock().unwrap().cut();
    graph.run(NOW).unwrap();
    let restored = open_exact();
    assert!(restored.opening().rebuild.is_none(), "{:?}", restored.opening());
    assert_eq!(restored.opening().chunks, exact.reader().len());
    // Nearly equal scores may stand in another order.
    for (name, line) in [("alpha", 1), ("beta", 3), ("gamma", 7)] {
        let sentence =
            format!("Sentence {line} of {name} names topic {name}{line} and topic {}.", line * line);
        for (name_of, hits) in [
            ("graph", graph.query(&sentence, 1, Mode::Dense).unwrap()),
            ("exact", restored.query(&sentence, 1, Mode::Dense).unwrap()),
        ] {
            assert_eq!(documents(&hits), [name], "{name_of} {line}");
        }
    }
    // The file of one index is damage for the other.
    let base = KnowledgeBase::open(options(), store.clone(), Counting::new(), folder.clone()).unwrap();
    assert!(matches!(base.opening().rebuild, Some(KnowledgeError::Restore(_))));
}

/// An index beside which a query is asked before and after each of its changes, by another thread.
struct Watched {
    inner: ExactIndex,
    searcher: Arc<OnceLock<Searcher>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// The applied revision, and the revisions that a query by meaning and one by words cite after it was read.
type Seen = (u64, Vec<u64>, Vec<u64>);

impl Watched {
    fn look(&self) {
        let Some(searcher) = self.searcher.get().cloned() else { return };
        let (seen, (done, is_done)) = (Arc::clone(&self.seen), channel());
        std::thread::spawn(move || {
            let applied = searcher.engine().applied();
            let mut vector = [0.0; 48];
            Counting::new().embed(&["alpha"], &mut vector).unwrap();
            let revisions = |mode| -> Vec<u64> {
                let hits = searcher.answer(&Query::new("alpha").vector(&vector).mode(mode)).unwrap();
                hits.iter().map(|hit| hit.revision).collect()
            };
            let (dense, lexical) = (revisions(Mode::Dense), revisions(Mode::Lexical));
            seen.lock().unwrap().push((applied, dense, lexical));
            // The base has gone on if it held the lock.
            let _ = done.send(());
        });
        // A query that waits for this change is answered after it.
        let _ = is_done.recv_timeout(Duration::from_millis(200));
    }
}

impl VectorIndex for Watched {
    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }
    fn metric(&self) -> Metric {
        self.inner.metric()
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn contains(&self, id: VectorId) -> bool {
        self.inner.contains(id)
    }
    fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError> {
        self.look();
        self.inner.insert(id, vector)
    }
    fn remove(&mut self, id: VectorId) -> bool {
        self.look();
        self.inner.remove(id)
    }
    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.inner.search(search)
    }
    fn publish(&mut self) {
        self.look();
        self.inner.publish();
    }
    fn reader(&self) -> Arc<dyn VectorReader> {
        self.inner.reader()
    }
    fn save(&self) -> Vec<u8> {
        self.inner.save()
    }
    fn restore(&mut self, file: &[u8]) -> Result<(), RestoreError> {
        self.inner.restore(file)
    }
}

/// A document of which a new revision is indexed is cited once at every moment, and the applied revision
/// names nothing that a query does not find.
#[test]
fn a_document_that_changes_is_cited_once_at_every_moment() {
    let (store, searcher, seen) = (Shared::default(), Arc::new(OnceLock::new()), Arc::default());
    let make = |dimensions| -> Result<Box<dyn VectorIndex>, _> {
        let inner = ExactIndex::new(dimensions, Metric::Cosine)?;
        Ok(Box::new(Watched { inner, searcher: Arc::clone(&searcher), seen: Arc::clone(&seen) }))
    };
    let folder = SharedFolder::new(SimFolder::new(1));
    let mut base =
        KnowledgeBase::open_with_index(&options(), store.clone(), Counting::new(), folder, WordTokens, &make)
            .unwrap();
    let first = put(&store, "alpha", "alpha one");
    base.run(NOW).unwrap();
    assert!(searcher.set(base.searcher()).is_ok());
    let mut revisions = vec![first];
    for content in ["alpha two", "alpha three. alpha four", "alpha two", "alpha five"] {
        revisions.push(put(&store, "alpha", content));
        base.run(NOW).unwrap();
    }
    drop(base);
    // Threads that waited are done once they hold no handle.
    while Arc::strong_count(&seen) > 1 {
        std::thread::yield_now();
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 12, "{}", seen.len());
    for (applied, dense, lexical) in &*seen {
        for found in [dense, lexical] {
            let is_one = found.len() == 1 && revisions.contains(&found[0]);
            assert!(is_one && found[0] >= *applied, "{seen:?}");
        }
    }
    assert!(seen.iter().any(|(applied, ..)| *applied == revisions[1]));
}

/// The chunks of an earlier revision leave after the new one is published. They are more than a list holds.
#[test]
fn a_revision_that_leaves_hides_no_other_one() {
    let store = Shared::default();
    put(&store, "alpha", text("alpha", 400));
    let mut base = open(&store, &Counting::new(), SimFolder::new(1));
    base.run(NOW).unwrap();
    assert!(base.reader().len() > 150);
    let revision = put(&store, "alpha", "unlike all of it");
    let mut revisions = Vec::new();
    while base.step(NOW).unwrap() {
        for mode in [Mode::Dense, Mode::Hybrid] {
            let hits = base.query("Sentence 1 of alpha names topic", 1, mode).unwrap();
            assert_eq!(hits.len(), 1, "{mode:?} after {revisions:?}");
            revisions.push(hits[0].revision);
        }
    }
    assert!(revisions.is_sorted() && revisions.last() == Some(&revision), "{revisions:?}");
}

fn documents(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.document.as_str()).collect()
}

#[test]
fn an_answer_can_prefer_what_is_new() {
    let store = Shared::default();
    put(&store, "first", "the leader of a cluster sends beats to all of its members");
    put(&store, "second", "the leader of a cluster sends beats to some of its members");
    put(&store, "third", "without a leader the members vote");
    let mut base = open(&store, &Counting::new(), SimFolder::new(1));
    base.run(NOW).unwrap();
    let answer = |query: Query<'_>| base.answer(&query.mode(Mode::Lexical).alike_min(1.1)).unwrap();
    let query = Query::new("the leader sends beats to members").k(2);
    let plain = answer(query.clone());
    assert_eq!(documents(&plain), ["first", "second"]);
    let diverse = answer(query.clone().diversity(0.4));
    assert_eq!(documents(&diverse), ["first", "third"]);
    assert_eq!(diverse[0], plain[0], "the hits themselves stay as they are");
    assert_eq!(answer(query.diversity(1.0)), plain);
}

/// Near-duplicates among all candidates count once, also after the first `k`.
#[test]
fn what_is_new_is_not_cited_twice() {
    let store = Shared::default();
    put(&store, "first", "the leader of a cluster sends beats to all of its members");
    put(&store, "second", "the leader of a cluster sends beats to some of its members");
    put(&store, "third", "a leader votes with members");
    put(&store, "fourth", "a leader votes with members.");
    let mut base = open(&store, &Counting::new(), SimFolder::new(1));
    base.run(NOW).unwrap();
    let query = Query::new("the leader sends beats to members").mode(Mode::Lexical).k(2);
    let hits = base.answer(&query.alike_min(0.95).diversity(0.05)).unwrap();
    let others = hits.iter().filter(|hit| ["third", "fourth"].contains(&hit.document.as_str()));
    let [other] = others.collect::<Vec<_>>()[..] else { panic!("{hits:?}") };
    assert_eq!(other.alike.len(), 1, "{hits:?}");
}

struct Longest(bool);

impl Reranker for Longest {
    fn rerank(&self, query: &str, texts: &[&str]) -> Result<Vec<f32>, RerankError> {
        assert_eq!(query, "topic");
        if self.0 {
            return Err(RerankError::new("no model"));
        }
        Ok(texts.iter().map(|text| text.len() as f32).collect())
    }
}

#[test]
fn a_reranker_orders_the_hits_by_their_passages() {
    let store = Shared::default();
    put(&store, "short", "topic topic topic");
    put(&store, "long", "a topic, and much that is not one at all");
    put(&store, "gone", "topic of the longest text of all, which leaves the store before it is read again");
    let mut base: Base = open(&store, &Counting::new(), SimFolder::new(1));
    base.run(NOW).unwrap();
    let mut hits = base.query("topic", 9, Mode::Lexical).unwrap();
    let before = hits.clone();
    assert_eq!(documents(&hits)[0], "short");
    crate::support::remove(&store, "gone");
    let error = base.rerank("topic", &mut hits, &Longest(true)).unwrap_err();
    assert!(matches!(error, KnowledgeError::Rerank(_)));
    assert_eq!(hits, before, "the ranking before it stays");
    base.rerank("topic", &mut hits, &Longest(false)).unwrap();
    assert_eq!(documents(&hits), ["long", "short", "gone"]);
}

#[test]
fn handles_cross_threads() {
    fn is_shared<T: Send + Sync + Clone + 'static>() {}
    is_shared::<Searcher>();
}
