//! Saves on another thread, and the time at which withdrawn vectors leave the cache.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use x0_ml::embed::{EmbedError, Embedded, Embedder, ModelId};
use x0_ml::knowledge::{ExactVectors, KnowledgeBase, KnowledgeOptions, SaveJob};
use x0_ml::retrieve::Mode;

use crate::folder::{SharedFolder, SimFolder};
use crate::support::{Counting, Shared, check, open, options, put, remove, text};

type Base = KnowledgeBase<Shared, Counting, SharedFolder>;

const NOW: Duration = Duration::ZERO;

fn saving_beside(store: &Shared, folder: &SharedFolder, vectors: ExactVectors) -> (Base, Receiver<SaveJob>) {
    let options = options().vectors(vectors);
    let mut base = Base::open(options, store.clone(), Counting::new(), folder.clone()).unwrap();
    let (sender, jobs) = channel();
    base.save_beside(Box::new(folder.clone()), move |job| sender.send(job).unwrap());
    (base, jobs)
}

fn is_saved(folder: &SharedFolder) -> bool {
    folder.take().files().iter().any(|(name, _)| name == "knowledge.index")
}

#[test]
fn documents_are_indexed_while_a_save_runs() {
    for vectors in [ExactVectors::Memory, ExactVectors::Cache] {
        let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
        let (mut base, jobs) = saving_beside(&store, &folder, vectors);
        put(&store, "alpha", text("alpha", 9));
        put(&store, "beta", text("beta", 9));
        base.run(NOW).unwrap();
        let (job, chunks) = (jobs.try_recv().unwrap(), base.reader().len());
        assert!(!is_saved(&folder) && format!("{job:?}").contains("SaveJob"));
        // The job has not run, and changes are indexed.
        let last = put(&store, "gamma", text("gamma", 9));
        remove(&store, "alpha");
        put(&store, "delta", text("delta", 9));
        base.run(NOW).unwrap();
        assert!(base.engine().applied() > last && base.engine().is_idle());
        assert_eq!(base.query("gamma", 1, Mode::Lexical).unwrap()[0].document.as_str(), "gamma");
        assert!(jobs.try_recv().is_err(), "one save runs at a time");
        // The file is that of the moment at which the save began, and the cache holds what it needs.
        job.run();
        assert!(is_saved(&folder));
        base.run(NOW).unwrap();
        let copy = SharedFolder::new(folder.take());
        let (again, _) = saving_beside(&store, &copy, vectors);
        assert!(again.opening().rebuild.is_none(), "{:?}", again.opening());
        assert_eq!(again.opening().chunks, chunks);
        store.store.lock().unwrap().cut();
        if vectors == ExactVectors::Memory {
            let mut again = open(&store, &Counting::new(), folder.take());
            again.run(NOW).unwrap();
            check(&again, &store);
        }
        // The changes meanwhile are saved next. A job that is dropped has failed, and is tried again.
        let failures = base.engine().stats().failures;
        drop(jobs.try_recv().unwrap());
        base.run(NOW).unwrap();
        assert_eq!(base.engine().stats().failures, failures + 1);
        assert!(jobs.try_recv().is_err());
        base.run(Duration::from_secs(30)).unwrap();
        let job = jobs.try_recv().unwrap();
        // The save at the end waits for the one that runs.
        let (done, is_done) = channel();
        let saving = std::thread::spawn(move || {
            assert!(base.save(Duration::from_secs(31)).unwrap());
            done.send(()).unwrap();
        });
        assert!(is_done.recv_timeout(Duration::from_millis(100)).is_err());
        job.run();
        saving.join().unwrap();
        let (again, _) = saving_beside(&store, &folder, vectors);
        assert!(again.opening().rebuild.is_none());
        assert_eq!(again.opening().chunks, again.reader().len());
        let engine = again.engine();
        let held: Vec<&str> = engine.passages().documents().map(|(name, _)| name.as_str()).collect();
        assert_eq!(held, ["beta", "delta", "gamma"]);
    }
}

/// The process ends after the index was saved without a text, and before its vector left the cache.
#[test]
fn withdrawn_vectors_leave_the_cache_after_a_crash() {
    let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
    let at = Duration::from_secs;
    let open = || {
        let options = options().knowledge(KnowledgeOptions::new()).withdrawn_max(at(300));
        Base::open(options, store.clone(), Counting::new(), folder.clone()).unwrap()
    };
    let mut base = open();
    put(&store, "secret", "Zanzibar");
    put(&store, "alpha", text("alpha", 29));
    base.run(NOW).unwrap();
    remove(&store, "secret");
    base.run(NOW).unwrap();
    base.run(at(30)).unwrap();
    let cached = base.cached();
    assert_eq!((is_saved(&folder), cached), (true, base.reader().len() + 1));
    drop(base);
    store.store.lock().unwrap().cut();
    let mut base = open();
    base.run(NOW).unwrap();
    // The time is over while a document is late, which may need vectors of the cache.
    *store.late.lock().unwrap() = Some("late".into());
    put(&store, "late", "late");
    base.run(at(299)).unwrap();
    base.run(at(300)).unwrap();
    assert_eq!((base.cached(), base.engine().is_idle()), (cached, false));
    base.run(at(359)).unwrap();
    assert_eq!((base.engine().is_idle(), base.poll_timeout()), (true, Some(at(659))));
    base.run(at(659)).unwrap();
    assert_eq!(base.cached(), cached - 1);
    base.run(at(2000)).unwrap();
    base.run(at(2060)).unwrap();
    assert_eq!(base.cached(), base.reader().len());
}

#[test]
fn withdrawn_vectors_can_stay_for_ever() {
    let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
    let options = options().knowledge(KnowledgeOptions::new()).withdrawn_max(Duration::MAX);
    let mut base = Base::open(options, store.clone(), Counting::new(), folder).unwrap();
    put(&store, "alpha", text("alpha", 3));
    put(&store, "beta", text("beta", 40));
    base.run(NOW).unwrap();
    remove(&store, "alpha");
    base.run(Duration::from_secs(1)).unwrap();
    let (cached, at) = (base.cached(), base.poll_timeout().unwrap());
    base.run(at).unwrap();
    assert_eq!((base.cached(), base.poll_timeout()), (cached, None));
}

/// The cache is not written again for a single chunk of many before the time is over.
#[test]
fn withdrawn_vectors_leave_the_cache_in_time() {
    let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
    let options = options().knowledge(KnowledgeOptions::new()).withdrawn_max(Duration::from_secs(300));
    let mut base = Base::open(options, store.clone(), Counting::new(), folder.clone()).unwrap();
    let at = Duration::from_secs;
    put(&store, "secret", "Zanzibar");
    for name in ["alpha", "beta", "gamma"] {
        put(&store, name, text(name, 9));
    }
    base.run(NOW).unwrap();
    let cached = base.cached();
    assert!(cached > 9);
    remove(&store, "secret");
    base.run(NOW).unwrap();
    assert_eq!(base.poll_timeout(), Some(at(30)));
    base.run(at(30)).unwrap();
    assert_eq!((is_saved(&folder), base.cached()), (true, cached));
    assert_eq!(base.poll_timeout(), Some(at(300)));
    base.run(at(300)).unwrap();
    assert_eq!((base.cached(), base.poll_timeout()), (cached - 1, None));
    // A large share leaves with the next save.
    remove(&store, "alpha");
    base.run(at(301)).unwrap();
    base.run(at(331)).unwrap();
    assert!(base.cached() < cached - 1);
    // A full disk delays it.
    remove(&store, "beta");
    base.run(at(400)).unwrap();
    let before = base.cached();
    folder.fail(0, 1);
    base.run(at(430)).unwrap();
    assert_eq!(base.cached(), before);
    base.run(at(460)).unwrap();
    assert!(base.cached() < before);
    // A disk that is full when the time is over delays it as well.
    put(&store, "secret", "Zanzibar");
    put(&store, "alpha", text("alpha", 9));
    base.run(at(500)).unwrap();
    base.run(at(530)).unwrap();
    remove(&store, "secret");
    base.run(at(600)).unwrap();
    base.run(at(630)).unwrap();
    let before = base.cached();
    folder.fail(0, 1);
    base.run(at(900)).unwrap();
    assert_eq!((base.cached(), base.poll_timeout()), (before, Some(at(930))));
    base.run(at(930)).unwrap();
    assert_eq!((base.cached(), base.poll_timeout()), (before - 1, None));
}

/// A disk that stays full lets the base wait, however short the time is.
#[test]
fn a_save_that_fails_is_not_repeated_at_once() {
    let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
    let options = options().withdrawn_max(Duration::ZERO);
    let mut base = Base::open(options, store.clone(), Counting::new(), folder.clone()).unwrap();
    put(&store, "secret", "Zanzibar");
    put(&store, "alpha", text("alpha", 9));
    base.run(NOW).unwrap();
    let cached = base.cached();
    folder.fail(0, usize::MAX / 2);
    remove(&store, "secret");
    let ends = (0..100).any(|_| !base.step(NOW).unwrap());
    assert!(ends, "it saves without pause");
    assert_eq!(base.cached(), cached);
    folder.fail(0, 0);
    let due = base.poll_timeout().expect("it tries again");
    base.run(due).unwrap();
    assert_eq!(base.cached(), cached - 1);
}

/// A model that takes the beginning of a long text, and never the rest.
struct Failing(Counting);

impl Embedder for Failing {
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
        if texts.iter().any(|text| text.contains("Sentence 9 of")) {
            return Err(EmbedError::Model("it fails".into()));
        }
        self.0.embed(texts, vectors)
    }
}

/// Vectors of a document that the model embedded in part, and that was then removed, leave the cache.
#[test]
fn vectors_of_a_document_that_failed_leave_the_cache() {
    let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
    let one_by_one = KnowledgeOptions::new().batch_max(1);
    let options = options().knowledge(one_by_one).withdrawn_max(Duration::from_secs(300));
    let mut base = KnowledgeBase::open(options, store.clone(), Failing(Counting::new()), folder).unwrap();
    base.run(NOW).unwrap();
    put(&store, "secret", text("secret", 30));
    base.run(NOW).unwrap();
    assert!(base.cached() > 1 && base.reader().is_empty());
    remove(&store, "secret");
    for seconds in [60, 400, 800] {
        base.run(NOW + Duration::from_secs(seconds)).unwrap();
    }
    assert_eq!(base.cached(), 0);
}

/// Each scan tries such a document again, and finds the vectors that it has: no file is written again.
#[test]
fn documents_that_fail_again_and_again_cost_no_writes() {
    let (store, folder) = (Shared::default(), SharedFolder::new(SimFolder::new(1)));
    let one_by_one = KnowledgeOptions::new().batch_max(1).attempts_max(1);
    let options = options().knowledge(one_by_one).withdrawn_max(Duration::from_secs(300));
    let mut base =
        KnowledgeBase::open(options, store.clone(), Failing(Counting::new()), folder.clone()).unwrap();
    base.run(NOW).unwrap();
    put(&store, "long", text("long", 30));
    base.run(NOW).unwrap();
    let of_long = base.cached();
    put(&store, "secret", text("secret", 30));
    base.run(NOW).unwrap();
    let of_both = base.cached();
    assert!(of_long > 1 && of_both > of_long, "{of_long} {of_both}");
    // Plays four hours, minute by minute. The operations of the last three.
    let mut minutes = (1..).map(|minute| Duration::from_secs(60 * minute));
    let mut play = |base: &mut KnowledgeBase<_, _, _>, left_out: u64| {
        let mut first = 0;
        for minute in 0..240 {
            base.run(minutes.next().unwrap()).unwrap();
            if minute == 60 {
                first = folder.take().operations();
            }
        }
        assert_eq!(base.engine().stats().documents_left_out, left_out);
        folder.take().operations() - first
    };
    assert_eq!((play(&mut base, 2), base.cached()), (0, of_both));
    // The vectors of a text that is replaced or removed leave, those of the others come back.
    put(&store, "secret", text("public", 30));
    assert_eq!((play(&mut base, 2), base.cached()), (0, of_both));
    remove(&store, "secret");
    assert_eq!((play(&mut base, 1), base.cached()), (0, of_long));
}
