//! Writers that stop before any of their writes, and sweeps beside them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod three_nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use x0_kv::{Bytes, OperationError, Store, Watch};

use super::cells::{Cells, CrdtCells, Entries, Held};
use super::long_texts::LongTexts;
use super::{
    CollectionKind, DOCUMENTS, KvKnowledge, KvKnowledgeOptions, PIECES, cells, keyspace, piece_key, pieces,
};
use crate::knowledge::{Change, KnowledgeStore};
use crate::retrieve::Document;

const KINDS: [CollectionKind; 2] = [CollectionKind::Linearizable, CollectionKind::Crdt];
const GRACE: Duration = Duration::from_secs(60);

fn options() -> KvKnowledgeOptions {
    KvKnowledgeOptions::new().grace(GRACE)
}

/// The process ends before its write number `left`, or after that write and before its answer.
struct Stopping {
    inner: Box<dyn Cells>,
    left: Arc<AtomicUsize>,
    loses_answer: bool,
}

impl Stopping {
    fn write<T>(&self, write: impl FnOnce() -> Result<T, OperationError>) -> Result<T, OperationError> {
        let step = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step) {
            Ok(1) if self.loses_answer => write().and(Err(OperationError::Closed)),
            Ok(_) => write(),
            Err(_) => Err(OperationError::Closed),
        }
    }
}

impl Cells for Stopping {
    fn kind(&self) -> CollectionKind {
        self.inner.kind()
    }
    fn key_len_max(&self) -> usize {
        self.inner.key_len_max()
    }
    fn value_len_max(&self) -> usize {
        self.inner.value_len_max()
    }
    fn create(&self) -> Result<(), OperationError> {
        self.inner.create()
    }
    fn get(&self, key: &[u8]) -> Result<Held, OperationError> {
        self.inner.get(key)
    }
    fn get_latest(&self, key: &[u8]) -> Result<Held, OperationError> {
        self.inner.get_latest(key)
    }
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<u64, OperationError> {
        self.write(|| self.inner.put(key, value))
    }
    fn put_all(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), OperationError> {
        entries.into_iter().try_for_each(|(key, value)| self.put(key, value).map(drop))
    }
    fn delete(&self, key: &[u8], revision: u64) -> Result<bool, OperationError> {
        self.write(|| self.inner.delete(key, revision))
    }
    fn range(&self, prefix: &[u8], from: &Bound<Vec<u8>>, max: usize) -> Result<Entries, OperationError> {
        self.inner.range(prefix, from, max)
    }
    fn watch(&self, prefix: &[u8]) -> Result<Watch, OperationError> {
        self.inner.watch(prefix)
    }
}

/// The versions of a key that a side holds: dot, value.
type Versions = Vec<(u64, Bytes)>;
/// The versions by key, and the dots that the side has seen.
type State = (BTreeMap<Vec<u8>, Versions>, BTreeSet<u64>);

/// One side of a cut network: the store's rules for CRDT values, without their transport. A write replaces
/// the versions that its side has seen, a removal removes these, and concurrent ones of the other side stay.
#[derive(Clone)]
struct Side {
    /// For watches and limits.
    inner: Arc<dyn Cells + Sync>,
    held: Arc<Mutex<State>>,
    clock: Arc<AtomicUsize>,
}

impl Side {
    fn merge(&self, other: &Side) {
        let (there, seen_there) = other.held.lock().unwrap().clone();
        let mut own = self.held.lock().unwrap();
        let (held, seen) = &mut *own;
        for (key, versions) in held.iter_mut() {
            let others = there.get(key);
            let is_there =
                |dot: &u64| others.is_some_and(|others| others.iter().any(|(other, _)| other == dot));
            versions.retain(|(dot, _)| is_there(dot) || !seen_there.contains(dot));
        }
        for (key, versions) in there {
            let new = versions.into_iter().filter(|(dot, _)| !seen.contains(dot));
            held.entry(key).or_default().extend(new);
        }
        seen.extend(seen_there);
    }
}

impl Cells for Side {
    fn kind(&self) -> CollectionKind {
        CollectionKind::Crdt
    }
    fn key_len_max(&self) -> usize {
        self.inner.key_len_max()
    }
    fn value_len_max(&self) -> usize {
        self.inner.value_len_max()
    }
    fn create(&self) -> Result<(), OperationError> {
        Ok(())
    }
    fn get(&self, key: &[u8]) -> Result<Held, OperationError> {
        let held = self.held.lock().unwrap();
        let latest = held.0.get(key).and_then(|versions| versions.iter().max().cloned());
        Ok(latest.map(|(dot, value)| (value, dot)))
    }
    fn get_latest(&self, key: &[u8]) -> Result<Held, OperationError> {
        self.get(key)
    }
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<u64, OperationError> {
        let dot = self.clock.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        let mut held = self.held.lock().unwrap();
        held.0.insert(key, vec![(dot, value.into())]);
        held.1.insert(dot);
        Ok(dot)
    }
    fn put_all(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), OperationError> {
        entries.into_iter().try_for_each(|(key, value)| self.put(key, value).map(drop))
    }
    fn delete(&self, key: &[u8], revision: u64) -> Result<bool, OperationError> {
        let is_latest = self.get(key)?.is_some_and(|(_, found)| found == revision);
        Ok(is_latest && self.held.lock().unwrap().0.remove(key).is_some())
    }
    fn range(&self, prefix: &[u8], _: &Bound<Vec<u8>>, _: usize) -> Result<Entries, OperationError> {
        let held = self.held.lock().unwrap();
        let of = |(key, versions): (&Vec<u8>, &Versions)| {
            let (dot, value) = versions.iter().max().cloned()?;
            key.starts_with(prefix).then(|| (Bytes::from(key.clone()), value, dot))
        };
        Ok((held.0.iter().filter_map(of).collect(), None))
    }
    fn watch(&self, prefix: &[u8]) -> Result<Watch, OperationError> {
        self.inner.watch(prefix)
    }
}

/// One side of a cut writes a document again while the other removes it and sweeps its pieces.
#[test]
fn a_document_written_during_a_cut_is_whole_after_it() {
    let store = Store::open_in_memory();
    let inner: Arc<dyn Cells + Sync> =
        Arc::new(CrdtCells(store.crdt().unwrap().keyspace(&keyspace("manuals")).unwrap()));
    let clock = Arc::new(AtomicUsize::new(0));
    let [a, b] =
        [(); 2].map(|()| Side { inner: Arc::clone(&inner), held: Arc::default(), clock: Arc::clone(&clock) });
    let open = |side: &Side| {
        let long_texts = LongTexts::new(&store, &keyspace("manuals"));
        KvKnowledge::over(Box::new(side.clone()), long_texts, options()).unwrap()
    };
    let (mut at_a, mut at_b) = (open(&a), open(&b));
    at_a.put(&"alpha".into(), Document::new(text("alpha", 1500))).unwrap();
    b.merge(&a);
    assert_eq!(read_all(&mut at_b)["alpha"], text("alpha", 1500));
    at_b.remove(&"alpha".into()).unwrap();
    for now in [Duration::ZERO, GRACE] {
        at_b.sweep(now).unwrap();
    }
    assert_eq!(keys(&at_b, PIECES).len(), 0);
    // All pieces but the last are those of before.
    let content = text("alpha", 1500) + "and more";
    at_a.put(&"alpha".into(), Document::new(content.as_str())).unwrap();
    a.merge(&b);
    b.merge(&a);
    for node in [&mut at_a, &mut at_b] {
        assert_eq!(read_all(node)["alpha"], content);
    }
}

/// A text of several pieces.
fn text(name: &str, sentences: usize) -> String {
    (0..sentences).map(|n| format!("Sentence {n} of {name} names {}. ", n * n)).collect()
}

fn script() -> Vec<(&'static str, Option<String>)> {
    vec![
        ("alpha", Some(text("alpha", 1500))),
        ("beta", Some(text("alpha", 1500) + "and more")),
        ("alpha", Some(text("gamma", 900))),
        ("beta", None),
        ("beta", Some(text("beta", 10))),
        ("delta", Some(String::new())),
    ]
}

type Texts = BTreeMap<String, String>;

fn read_all(collection: &mut KvKnowledge) -> Texts {
    let page = collection.list(None, 1000).unwrap();
    assert!(page.is_last);
    page.documents
        .into_iter()
        .map(|(document, revision)| {
            let (found, content) = collection.read(&document).unwrap().unwrap();
            assert_eq!(found, revision);
            (document.to_string(), content.text)
        })
        .collect()
}

fn keys(collection: &KvKnowledge, prefix: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut from = Bound::Included(prefix.to_vec());
    let mut keys = BTreeSet::new();
    loop {
        let (entries, next) = collection.cells.range(prefix, &from, usize::MAX).unwrap();
        keys.extend(entries.into_iter().map(|(key, ..)| key.to_vec()));
        let Some(next) = next else { return keys };
        from = Bound::Included(next);
    }
}

/// Runs the script until the process ends; the texts before and after the step at which it ended.
fn run(collection: &mut KvKnowledge) -> (Texts, Texts, bool) {
    let (mut before, mut now) = (Texts::new(), Duration::ZERO);
    for (name, content) in script() {
        let mut after = before.clone();
        let step = match &content {
            Some(text) => {
                after.insert(name.to_owned(), text.clone());
                collection.put(&name.into(), Document::new(text.as_str())).map(drop)
            }
            None => {
                after.remove(name);
                collection.remove(&name.into()).map(drop)
            }
        };
        if step.is_err() {
            return (before, after, false);
        }
        before = after;
        now += GRACE;
        if collection.sweep(now).is_err() {
            return (before.clone(), before, false);
        }
    }
    (before.clone(), before, true)
}

#[test]
fn a_grace_period_can_be_without_end() {
    let (store, options) = (Store::open_in_memory(), KvKnowledgeOptions::new().grace(Duration::MAX));
    let mut collection = KvKnowledge::create(&store, "manuals", KINDS[0], options).unwrap();
    collection.put(&"a".into(), Document::new("one")).unwrap();
    collection.remove(&"a".into()).unwrap();
    for now in [GRACE, GRACE * 2] {
        let swept = collection.sweep(now).unwrap();
        assert_eq!((swept.records, swept.pieces, swept.waiting), (0, 0, 2));
    }
}

#[test]
fn a_writer_that_stops_anywhere_leaves_a_document_as_it_was_or_as_it_shall_be() {
    for kind in KINDS {
        let mut is_whole = false;
        for left in 0.. {
            let store = Store::open_in_memory();
            drop(KvKnowledge::create(&store, "manuals", kind, options()).unwrap());
            let inner = cells(&store, "manuals", kind).unwrap();
            let long_texts = LongTexts::new(&store, &keyspace("manuals"));
            let left_over = Arc::new(AtomicUsize::new(left));
            let stopping = Stopping { inner, left: left_over, loses_answer: false };
            let mut writer = KvKnowledge::over(Box::new(stopping), long_texts, options()).unwrap();
            let (before, after, is_done) = run(&mut writer);
            drop(writer);
            let mut collection = KvKnowledge::open(&store, "manuals", options()).unwrap();
            assert_eq!(collection.kind(), kind);
            let found = read_all(&mut collection);
            assert!(found == before || found == after, "{kind:?}, stopped before write {left}");
            // What the writer left is swept, and nothing else.
            collection.sweep(Duration::ZERO).unwrap();
            collection.sweep(GRACE).unwrap();
            assert_eq!(read_all(&mut collection), found);
            let used: BTreeSet<Vec<u8>> = found
                .values()
                .flat_map(|text| pieces::cut(text.as_bytes()))
                .map(|piece| piece_key(&pieces::name(piece)))
                .collect();
            assert_eq!(keys(&collection, PIECES), used);
            assert_eq!(keys(&collection, DOCUMENTS).len(), found.len());
            if is_done {
                is_whole = true;
                assert!(left > 15, "the script has {left} writes");
                break;
            }
        }
        assert!(is_whole);
    }
}

#[test]
fn a_sweep_leaves_what_a_writer_uses_again() {
    for kind in KINDS {
        let store = Store::open_in_memory();
        let mut collection = KvKnowledge::create(&store, "manuals", kind, options()).unwrap();
        let mut other = KvKnowledge::open(&store, "manuals", options()).unwrap();
        collection.put(&"alpha".into(), Document::new(text("alpha", 1500))).unwrap();
        collection.remove(&"alpha".into()).unwrap();
        let waiting = collection.sweep(Duration::ZERO).unwrap();
        assert_eq!((waiting.pieces, waiting.records), (0, 0));
        assert!(waiting.waiting > 3, "{waiting:?}");
        // Another writer writes the same text, but has not written its record yet.
        let content = text("alpha", 1500);
        let all = pieces::cut(content.as_bytes());
        let entries = all.iter().map(|piece| (piece_key(&pieces::name(piece)), piece.to_vec())).collect();
        other.cells.put_all(entries).unwrap();
        let swept = collection.sweep(GRACE).unwrap();
        assert_eq!((swept.pieces, swept.records), (0, 1), "{swept:?}");
        other.put(&"beta".into(), Document::new(content.as_str())).unwrap();
        collection.sweep(GRACE * 3).unwrap();
        assert_eq!(read_all(&mut collection)["beta"], content);
    }
}

#[test]
fn records_that_are_not_understood_stop_the_sweep_and_their_reading() {
    let store = Store::open_in_memory();
    let mut collection = KvKnowledge::create(&store, "manuals", KINDS[0], options()).unwrap();
    collection.put(&"alpha".into(), Document::new("text")).unwrap();
    collection.cells.put(b"d/alpha".to_vec(), vec![9]).unwrap();
    for now in [Duration::ZERO, GRACE, GRACE * 2] {
        assert_eq!(collection.sweep(now).unwrap().pieces, 0);
    }
    assert_eq!(keys(&collection, PIECES).len(), 1);
    assert!(collection.read(&"alpha".into()).is_err());
    assert_eq!(collection.list(None, 9).unwrap().documents.len(), 1, "it is listed, so that it is reported");
}

#[test]
fn lost_and_wrong_pieces_are_errors() {
    let store = Store::open_in_memory();
    let mut collection = KvKnowledge::create(&store, "manuals", KINDS[1], options()).unwrap();
    collection.put(&"alpha".into(), Document::new("text")).unwrap();
    let key = piece_key(&pieces::name(b"text"));
    collection.cells.put(key.clone(), b"other".to_vec()).unwrap();
    assert!(collection.read(&"alpha".into()).is_err());
    collection.put(&"alpha".into(), Document::new("text")).unwrap();
    assert!(collection.read(&"alpha".into()).is_ok(), "writing the document again repairs it");
    let (_, revision) = collection.cells.get(&key).unwrap().unwrap();
    assert!(collection.cells.delete(&key, revision).unwrap());
    assert!(!collection.cells.delete(&key, revision).unwrap());
    assert!(collection.read(&"alpha".into()).is_err());
    collection.put(&"alpha".into(), Document::new("text")).unwrap();
    assert_eq!(collection.read(&"alpha".into()).unwrap().unwrap().1.text, "text");
}

/// A document that is written while a sweep removes the record of its removal is not lost.
#[test]
fn a_sweep_removes_what_it_has_seen_and_nothing_else() {
    let store = Store::open_in_memory();
    let mut collection = KvKnowledge::create(&store, "manuals", KINDS[1], options()).unwrap();
    collection.put(&"alpha".into(), Document::new("")).unwrap();
    let removed = collection.remove(&"alpha".into()).unwrap().unwrap();
    let cells = CrdtCells(store.crdt().unwrap().keyspace(&keyspace("manuals")).unwrap());
    let seen = cells.seen(b"d/alpha", removed).unwrap().unwrap();
    // The writer comes between both steps of the sweep.
    let again = collection.put(&"alpha".into(), Document::new("")).unwrap();
    assert!(!cells.0.delete_seen("d/alpha", seen).wait().unwrap());
    assert_eq!(collection.list(None, 9).unwrap().documents, [("alpha".into(), again)]);
    assert_eq!(cells.seen(b"d/alpha", removed).unwrap(), None);
    let removed = collection.remove(&"alpha".into()).unwrap().unwrap();
    assert!(cells.delete(b"d/alpha", removed).unwrap());
    assert_eq!(cells.get(b"d/alpha").unwrap(), None);
}

/// Each document is written once, by several threads; the changes must come in the order of the writes.
#[test]
fn changes_come_in_the_order_of_the_writes() {
    const WRITERS: usize = 3;
    const EACH: usize = 400;
    let store = Store::open_in_memory();
    let mut collection = KvKnowledge::create(&store, "manuals", KINDS[0], options()).unwrap();
    let mut reported = Vec::new();
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let mut own = KvKnowledge::open(&store, "manuals", options()).unwrap();
                scope.spawn(move || {
                    let put = |n| {
                        let name = format!("{:03}-{writer}", (n * 7919) % EACH);
                        (own.put(&name.as_str().into(), Document::new("text")).unwrap(), name)
                    };
                    (0..EACH).map(put).collect::<Vec<_>>()
                })
            })
            .collect();
        while reported.len() < WRITERS * EACH {
            match collection.poll_change() {
                Some(Change::Changed { document, revision }) => {
                    reported.push((revision, document.to_string()));
                }
                Some(other) => panic!("{other:?}"),
                None => std::thread::yield_now(),
            }
        }
        let written: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        written
    });
    let mut written = written;
    written.sort();
    assert_eq!(reported, written);
}
