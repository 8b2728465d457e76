//! Collections in a store of x0-kv, of both kinds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests"
)]

#[path = "knowledge/folder.rs"]
mod folder;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use x0_kv::blob::BlobOptions;
use x0_kv::{CrdtOptions, Store, StoreOptions};
use x0_ml::chunk::ChunkOptions;
use x0_ml::conformance;
use x0_ml::embed::{EmbedError, Embedded, Embedder, HashedWords, ModelId};
use x0_ml::file::DiskFolder;
use x0_ml::knowledge::kv::{CollectionKind, KvKnowledge, KvKnowledgeError, KvKnowledgeOptions};
use x0_ml::knowledge::{Change, KnowledgeBase, KnowledgeBaseOptions, KnowledgeOptions, KnowledgeStore};
use x0_ml::retrieve::{Document, Mode};

use crate::folder::{SharedFolder, SimFolder};

const KINDS: [CollectionKind; 2] = [CollectionKind::Linearizable, CollectionKind::Crdt];

fn create(store: &Store, kind: CollectionKind) -> KvKnowledge {
    KvKnowledge::create(store, "manuals", kind, KvKnowledgeOptions::new()).unwrap()
}

/// Counts the texts that are embedded.
#[derive(Clone)]
struct Counting(HashedWords, Arc<AtomicUsize>);

impl Counting {
    fn new() -> Self {
        Self(HashedWords::new(32), Arc::default())
    }

    fn take(&self) -> usize {
        self.1.swap(0, Ordering::Relaxed)
    }
}

impl Embedder for Counting {
    fn model(&self) -> &ModelId {
        self.0.model()
    }
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }
    fn tokens_max(&self) -> usize {
        self.0.tokens_max()
    }
    fn embed(&self, texts: &[&str], vectors: &mut [f32]) -> Result<Embedded, EmbedError> {
        self.1.fetch_add(texts.len(), Ordering::Relaxed);
        self.0.embed(texts, vectors)
    }
}

type Base = KnowledgeBase<KvKnowledge, Counting, DiskFolder>;

fn base(collection: KvKnowledge, embedder: &Counting, folder: &std::path::Path) -> Base {
    let options = KnowledgeBaseOptions::new().chunk(ChunkOptions::new().tokens_max(40));
    let mut base =
        Base::open(options, collection, embedder.clone(), DiskFolder::new(folder).unwrap()).unwrap();
    base.run(Duration::ZERO).unwrap();
    base
}

fn page(number: usize) -> String {
    (0..40).map(|n| format!("Sentence {n} of page {number} names topic{number}x{n}.\n\n")).collect()
}

#[test]
fn both_kinds_keep_the_contract() {
    for kind in KINDS {
        conformance::knowledge_store(&mut create(&Store::open_in_memory(), kind));
    }
}

#[test]
fn a_collection_is_kept_where_it_was_created() {
    for kind in KINDS {
        let store = Store::open_in_memory();
        let open = || KvKnowledge::open(&store, "manuals", KvKnowledgeOptions::new());
        assert!(matches!(open(), Err(KvKnowledgeError::Missing { .. })));
        let _first = create(&store, kind);
        assert_eq!(create(&store, kind).kind(), kind, "creating it again opens it");
        assert_eq!(open().unwrap().kind(), kind);
        let other = KINDS[usize::from(kind == KINDS[0])];
        let refused = KvKnowledge::create(&store, "manuals", other, KvKnowledgeOptions::new());
        assert!(matches!(refused, Err(KvKnowledgeError::Kind { found, .. }) if found == kind));
        let named = KvKnowledge::create(&store, "no name", kind, KvKnowledgeOptions::new());
        assert!(matches!(named, Err(KvKnowledgeError::Name(_))));
    }
}

#[test]
fn names_and_texts_have_limits() {
    for kind in KINDS {
        let store = Store::open_in_memory();
        let mut collection = create(&store, kind);
        for name in [String::new(), "n".repeat(5000)] {
            assert!(collection.put(&name.as_str().into(), Document::new("text")).is_err());
        }
        let mut document = Document::new("text");
        document.source = "s".repeat(2 << 20);
        assert!(collection.put(&"source".into(), document).is_err());
        assert_eq!(collection.list(None, 10).unwrap().documents, []);
    }
}

fn with_blobs(folder: &std::path::Path) -> Store {
    let options = StoreOptions::new().crdt(CrdtOptions::new([1; 16])).blobs(BlobOptions::default());
    Store::open_with(folder, &options).unwrap()
}

#[test]
fn long_texts_are_blobs_of_their_collection() {
    const GRACE: Duration = Duration::from_secs(60);
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let store = with_blobs(folder.path());
        let options = KvKnowledgeOptions::new().pieces_len_max(10_000).text_len_max(1 << 20).grace(GRACE);
        let create = |name: &str| KvKnowledge::create(&store, name, kind, options).unwrap();
        let (mut manuals, mut others) = (create("manuals"), create("others"));
        let blobs = store.blobs().unwrap();
        // Blobs of the application, one of them too short for any mark.
        let own = [&b"x0-ml/manualsX and more"[..], b"x"].map(|content| blobs.add(content).unwrap().id);
        let long: String = (0..30).map(page).collect();
        let mut document = Document::new(long.as_str());
        document.source = "book".to_owned();
        manuals.put(&"long".into(), document.clone()).unwrap();
        others.put(&"long".into(), document.clone()).unwrap();
        assert_eq!(blobs.list().len(), 4, "{kind:?}: the same text in two collections is two blobs");
        assert_eq!(manuals.read(&"long".into()).unwrap().unwrap().1, document);
        let mut node = base(create("manuals"), &Counting::new(), &folder.path().join("index"));
        assert_eq!(node.query("topic7x21", 1, Mode::Lexical).unwrap()[0].document.as_str(), "long");
        let too_long = manuals.put(&"longer".into(), Document::new("x".repeat((1 << 20) + 1)));
        assert!(too_long.is_err());

        // Blobs in use stay; one that no record names leaves after the grace period.
        assert_eq!(
            (manuals.sweep(Duration::ZERO).unwrap().waiting, manuals.sweep(GRACE).unwrap().blobs),
            (0, 0)
        );
        manuals.put(&"long".into(), Document::new("short")).unwrap();
        node.run(Duration::ZERO).unwrap();
        assert!(node.query("topic7x21", 1, Mode::Lexical).unwrap().is_empty());
        assert_eq!(manuals.sweep(GRACE).unwrap().waiting, 1);
        assert_eq!(manuals.sweep(GRACE * 2).unwrap().blobs, 1);
        assert_eq!(blobs.list().len(), 3);
        assert_eq!(others.read(&"long".into()).unwrap().unwrap().1.text, long);

        // A blob that is written again begins a new grace period.
        others.remove(&"long".into()).unwrap();
        assert_eq!(others.sweep(GRACE).unwrap().waiting, 2, "the record and the blob");
        others.put(&"again".into(), document.clone()).unwrap();
        others.remove(&"again".into()).unwrap();
        assert_eq!(others.sweep(GRACE * 2).unwrap().blobs, 0);
        assert_eq!(others.sweep(GRACE * 3).unwrap().blobs, 1);
        assert_eq!(blobs.list().iter().map(|info| info.id).filter(|id| own.contains(id)).count(), 2);
        assert_eq!(blobs.list().len(), 2);
    }
}

#[test]
fn a_lost_or_foreign_blob_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_blobs(folder.path());
    let options = KvKnowledgeOptions::new().pieces_len_max(100);
    let mut manuals = KvKnowledge::create(&store, "manuals", KINDS[0], options).unwrap();
    let chain = |error: &dyn std::error::Error| {
        let cause = error.source().unwrap();
        format!("{cause}: {}", cause.source().map(ToString::to_string).unwrap_or_default())
    };
    manuals.put(&"long".into(), Document::new(page(1))).unwrap();
    let blobs = store.blobs().unwrap();
    blobs.remove(&blobs.list()[0].id).unwrap();
    let error = manuals.read(&"long".into()).unwrap_err();
    assert!(!error.is_late() && chain(&error).contains("nobody to fetch"), "{}", chain(&error));
    manuals.put(&"long".into(), Document::new(page(1))).unwrap();
    assert_eq!(manuals.read(&"long".into()).unwrap().unwrap().1.text, page(1), "writing it again repairs it");
    // The record of one collection in another one.
    let record = store.keyspace("x0-ml/manuals").unwrap().get("d/long").wait().unwrap().unwrap().value;
    let mut others = KvKnowledge::create(&store, "others", KINDS[0], options).unwrap();
    store.keyspace("x0-ml/others").unwrap().put("d/long", record).wait().unwrap();
    let error = others.read(&"long".into()).unwrap_err();
    assert!(chain(&error).contains("not one of this collection"), "{}", chain(&error));
    // Opened without blobs.
    drop((manuals, others, blobs));
    store.close();
    let store = Store::open(folder.path()).unwrap();
    let mut manuals = KvKnowledge::open(&store, "manuals", options).unwrap();
    let error = manuals.read(&"long".into()).unwrap_err();
    assert!(chain(&error).contains("opened without blobs"), "{}", chain(&error));
    assert!(manuals.put(&"other".into(), Document::new(page(2))).is_ok(), "it stays in pieces");
}

/// The names of the pieces do not fit into a value of the CRDT store.
#[test]
fn texts_of_too_many_pieces_need_blobs() {
    let words: String =
        (0..3_500_000_u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761) >> 4)).collect();
    assert!((28 << 20..64 << 20).contains(&words.len()), "{}", words.len());
    let mut without = create(&Store::open_in_memory(), KINDS[1]);
    let error = without.put(&"long".into(), Document::new(words.as_str())).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("open the store with blobs"), "{cause}");
    let folder = tempfile::tempdir().unwrap();
    let store = with_blobs(folder.path());
    let options = KvKnowledgeOptions::new().pieces_len_max(usize::MAX);
    let mut with = KvKnowledge::create(&store, "manuals", KINDS[1], options).unwrap();
    with.put(&"long".into(), Document::new(words.as_str())).unwrap();
    assert_eq!(with.read(&"long".into()).unwrap().unwrap().1.text, words);
    assert_eq!(store.blobs().unwrap().list().len(), 1);
}

#[test]
fn every_member_sees_changes_and_embeds_only_new_text() {
    for kind in KINDS {
        let (store, folder) = (Store::open_in_memory(), tempfile::tempdir().unwrap());
        let mut writer = create(&store, kind);
        let embedder = Counting::new();
        let mut node = base(create(&store, kind), &embedder, folder.path());
        for number in 0..20 {
            writer.put(&format!("page{number:02}").as_str().into(), Document::new(page(number))).unwrap();
        }
        node.run(Duration::ZERO).unwrap();
        assert!(embedder.take() > 100);
        let found = node.query("topic7x21", 3, Mode::Lexical).unwrap();
        assert_eq!(found[0].document.as_str(), "page07");

        // The same text again, under the same and under another name.
        let revision = writer.put(&"page07".into(), Document::new(page(7))).unwrap();
        writer.put(&"copy".into(), Document::new(page(7))).unwrap();
        node.run(Duration::ZERO).unwrap();
        assert_eq!(embedder.take(), 0);
        assert!(node.engine().applied() >= revision);

        // One paragraph changes.
        let changed = page(3).replace("topic3x20", "another topic");
        writer.put(&"page03".into(), Document::new(changed)).unwrap();
        let gone = writer.remove(&"page07".into()).unwrap().unwrap();
        node.run(Duration::ZERO).unwrap();
        assert!((1..=2).contains(&embedder.take()));
        assert!(node.engine().applied() >= gone);
        let found = node.query("topic7x21", 3, Mode::Lexical).unwrap();
        assert_eq!(found.iter().map(|hit| hit.document.as_str()).collect::<Vec<_>>(), ["copy"]);

        // A restart compares revisions and embeds nothing, also if changes were missed.
        node.save(Duration::ZERO).unwrap();
        drop(node);
        writer.remove(&"copy".into()).unwrap();
        let node = base(create(&store, kind), &embedder, folder.path());
        assert_eq!((embedder.take(), node.engine().passages().documents_len()), (0, 19));
        assert!(node.query("topic7x21", 3, Mode::Lexical).unwrap().is_empty());
    }
}

#[test]
fn a_cut_watch_leads_to_a_comparison() {
    let (store, folder) = (Store::open_in_memory(), tempfile::tempdir().unwrap());
    let mut writer = create(&store, KINDS[0]);
    let embedder = Counting::new();
    let mut node = base(create(&store, KINDS[0]), &embedder, folder.path());
    // More documents than a watch holds keys.
    for number in 0..x0_kv::WATCH_KEYS_MAX + 10 {
        writer
            .put(&format!("{number}").as_str().into(), Document::new(format!("topic{}", number % 50)))
            .unwrap();
    }
    let mut probe = create(&store, KINDS[0]);
    assert_eq!(probe.poll_change(), None, "a watch begins when the collection is opened");
    node.run(Duration::ZERO).unwrap();
    assert_eq!(node.engine().stats().scans, 2);
    assert_eq!(node.engine().passages().documents_len(), x0_kv::WATCH_KEYS_MAX + 10);
    assert_eq!(embedder.take(), 50);
    store.drop_keyspace("x0-ml/manuals").unwrap().wait().unwrap();
    assert_eq!(probe.poll_change(), Some(Change::Cut));
}

#[test]
fn a_waker_is_woken_by_a_change() {
    struct Flag(AtomicUsize);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let store = Store::open_in_memory();
    let (mut writer, mut reader) = (create(&store, KINDS[0]), create(&store, KINDS[0]));
    let flag = Arc::new(Flag(AtomicUsize::new(0)));
    reader.set_waker(Arc::clone(&flag).into());
    assert_eq!(reader.poll_change(), None);
    writer.put(&"page".into(), Document::new("text")).unwrap();
    assert_eq!(flag.0.load(Ordering::Relaxed), 1);
    assert!(matches!(reader.poll_change(), Some(Change::Changed { .. })));
}

type Node = KnowledgeBase<KvKnowledge, Counting, SharedFolder>;

fn node(store: &Store, kind: CollectionKind, folder: SharedFolder) -> Option<Node> {
    let knowledge = KnowledgeOptions::new().batch_max(3).page_max(2).save_changes(2);
    let options = KnowledgeBaseOptions::new().chunk(ChunkOptions::new().tokens_max(40)).knowledge(knowledge);
    Node::open(options, create(store, kind), Counting::new(), folder).ok()
}

/// Documents come, change and go while a node indexes them and saves. Its folder loses the power at operation
/// `at`; returns the number of operations.
fn crash(kind: CollectionKind, seed: u64, at: Option<usize>) -> usize {
    let store = Store::open_in_memory();
    let mut writer = create(&store, kind);
    let mut folder = SimFolder::new(seed);
    if let Some(at) = at {
        folder.crash_at(at);
    }
    let folder = SharedFolder::new(folder);
    let mut running = node(&store, kind, folder.clone());
    for round in 0..5 {
        let name = ["alpha", "beta", "gamma", "alpha", "delta"][round];
        writer.put(&name.into(), Document::new(page(round))).unwrap();
        if round == 3 {
            writer.remove(&"beta".into()).unwrap();
        }
        while let Some(base) = running.as_mut().filter(|_| !folder.has_crashed()) {
            if !base.step(Duration::from_secs(round as u64)).unwrap() {
                break;
            }
        }
    }
    drop(running);
    let mut image = folder.take();
    let operations = image.operations();
    image.restart();
    let mut again = node(&store, kind, SharedFolder::new(image)).unwrap();
    again.run(Duration::ZERO).unwrap();
    let mut fresh = node(&store, kind, SharedFolder::new(SimFolder::new(9))).unwrap();
    fresh.run(Duration::ZERO).unwrap();
    let documents = |base: &Node| {
        let engine = base.engine();
        let passages = engine.passages();
        passages.documents().map(|(document, revision)| (document.clone(), revision)).collect::<Vec<_>>()
    };
    assert_eq!(documents(&again), writer.list(None, 100).unwrap().documents);
    assert_eq!(documents(&again), documents(&fresh));
    assert_eq!(again.engine().applied(), fresh.engine().applied());
    assert_eq!(again.reader().len(), fresh.reader().len(), "the index holds the live chunks only");
    for query in ["topic3x20", "sentence 7 of page 4", "topic1x1"] {
        for mode in [Mode::Dense, Mode::Lexical] {
            let answers = |base: &Node| {
                let hits = base.query(query, 1000, mode).unwrap();
                let mut hits: Vec<_> =
                    hits.iter().map(|hit| (hit.document.clone(), hit.span.start, hit.revision)).collect();
                hits.sort();
                hits
            };
            assert_eq!(answers(&again), answers(&fresh), "{query} {mode:?}");
        }
    }
    operations
}

#[test]
fn after_a_crash_at_any_file_operation_the_index_is_that_of_the_collection() {
    for kind in KINDS {
        let operations = crash(kind, 1, None);
        assert!(operations > 20, "{operations}");
        for at in 0..=operations {
            for seed in 0..2 {
                crash(kind, seed, Some(at));
            }
        }
    }
}
