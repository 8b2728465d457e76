//! A store and an embedder that outlive a crash of the node, and the comparison with a fresh base.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use x0_ml::chunk::ChunkOptions;
use x0_ml::embed::{EmbedError, Embedded, Embedder, HashedWords, ModelId};
use x0_ml::knowledge::{
    Change, KnowledgeBase, KnowledgeBaseOptions, KnowledgeOptions, KnowledgeStore, MemoryStore, Page,
    StoreError,
};
use x0_ml::retrieve::{Document, DocumentId, Hit, Mode};

use crate::folder::SimFolder;

/// The store of the cluster: it stays when the node crashes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    pub(crate) store: Arc<Mutex<MemoryStore>>,
    /// Reads that fail before one succeeds again.
    pub(crate) failing: Arc<AtomicUsize>,
    /// A document that is late, and whether it is to be reported again.
    pub(crate) late: Arc<Mutex<Option<DocumentId>>>,
    pub(crate) arrived: Arc<Mutex<Option<DocumentId>>>,
}

impl Shared {
    fn fail(&self) -> Result<(), StoreError> {
        let left =
            self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { Err(StoreError::new("away")) } else { Ok(()) }
    }
}

impl KnowledgeStore for Shared {
    fn put(&mut self, document: &DocumentId, content: Document) -> Result<u64, StoreError> {
        self.store.lock().unwrap().put(document, content)
    }

    fn remove(&mut self, document: &DocumentId) -> Result<Option<u64>, StoreError> {
        self.store.lock().unwrap().remove(document)
    }

    fn read(&mut self, document: &DocumentId) -> Result<Option<(u64, Document)>, StoreError> {
        self.fail()?;
        if self.late.lock().unwrap().as_ref() == Some(document) {
            return Err(StoreError::late("on its way"));
        }
        self.store.lock().unwrap().read(document)
    }

    fn list(&mut self, after: Option<&DocumentId>, max: usize) -> Result<Page, StoreError> {
        self.fail()?;
        self.store.lock().unwrap().list(after, max)
    }

    fn poll_change(&mut self) -> Option<Change> {
        let mut store = self.store.lock().unwrap();
        let arrived = || {
            let document = self.arrived.lock().unwrap().take()?;
            Some(Change::Changed { document, revision: store.revision() })
        };
        arrived().or_else(|| store.poll_change())
    }
}

/// Counts the texts that the model embeds.
#[derive(Debug, Clone)]
pub(crate) struct Counting {
    inner: HashedWords,
    pub(crate) texts: Arc<AtomicUsize>,
}

impl Counting {
    pub(crate) fn new() -> Self {
        Self { inner: HashedWords::new(48), texts: Arc::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.texts.load(Ordering::Relaxed)
    }
}

impl Embedder for Counting {
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
        self.texts.fetch_add(texts.len(), Ordering::Relaxed);
        self.inner.embed(texts, vectors)
    }
}

pub(crate) type Base = KnowledgeBase<Shared, Counting, SimFolder>;

pub(crate) fn options() -> KnowledgeBaseOptions {
    KnowledgeBaseOptions::new()
        .chunk(ChunkOptions::new().tokens_max(22))
        .knowledge(KnowledgeOptions::new().batch_max(3).page_max(2).save_changes(2))
}

pub(crate) fn open(store: &Shared, embedder: &Counting, folder: SimFolder) -> Base {
    Base::open(options(), store.clone(), embedder.clone(), folder).unwrap()
}

/// A text of so many sentences, all different.
pub(crate) fn text(name: &str, sentences: usize) -> String {
    (0..sentences)
        .map(|n| format!("Sentence {n} of {name} names topic {name}{n} and topic {}. ", n * n))
        .collect()
}

pub(crate) fn put(store: &Shared, name: &str, content: impl Into<String>) -> u64 {
    store.clone().put(&name.into(), Document::new(content)).unwrap()
}

pub(crate) fn remove(store: &Shared, name: &str) {
    store.clone().remove(&name.into()).unwrap();
}

/// Asserts that the base holds exactly the store's documents and answers as a base that is built from the
/// store.
pub(crate) fn check(base: &Base, store: &Shared) {
    let fresh_store =
        Shared { store: Arc::new(Mutex::new(store.store.lock().unwrap().clone())), ..Shared::default() };
    let mut fresh = open(&fresh_store, &Counting::new(), SimFolder::new(9));
    fresh.run(Duration::ZERO).unwrap();
    let documents = |base: &Base| {
        let engine = base.engine();
        let passages = engine.passages();
        passages.documents().map(|(document, revision)| (document.clone(), revision)).collect::<Vec<_>>()
    };
    let live: Vec<_> = store.store.lock().unwrap().list(None, usize::MAX).unwrap().documents;
    assert_eq!(documents(base), live);
    assert_eq!(base.engine().passages().chunks_len(), fresh.engine().passages().chunks_len());
    assert_eq!(
        base.reader().len(),
        base.engine().passages().chunks_len(),
        "the index holds the live chunks only"
    );
    for (document, _) in live {
        for query in [format!("topic {document}3"), format!("sentence 1 of {document}")] {
            for mode in [Mode::Dense, Mode::Lexical] {
                assert_eq!(answers(base, &query, mode), answers(&fresh, &query, mode), "{query} {mode:?}");
            }
        }
    }
}

/// An answer without the order of equal scores.
fn answers(base: &Base, query: &str, mode: Mode) -> Vec<(String, usize, u64)> {
    let key = |hit: &Hit| (hit.document.to_string(), hit.span.start, hit.revision);
    let mut hits: Vec<_> = base.query(query, 1000, mode).unwrap().iter().map(key).collect();
    hits.sort();
    hits
}
