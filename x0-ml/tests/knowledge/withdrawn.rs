//! Withdrawn text is in no file that is saved afterwards.

use std::time::Duration;

use x0_ml::embed::Embedder;
use x0_ml::file::{Folder, IndexFile};
use x0_ml::knowledge::{KnowledgeBase, KnowledgeOptions};

use crate::folder::{SharedFolder, SimFolder};
use crate::support::{Counting, Shared, options, put, remove, text};

type Base = KnowledgeBase<Shared, Counting, SharedFolder>;

const NOW: Duration = Duration::ZERO;
const SECRET: &str = "Zanzibar quietly ordered sealing wax.";

fn open(store: &Shared, embedder: &Counting, folder: &SharedFolder) -> Base {
    let options = options().knowledge(KnowledgeOptions::new().batch_max(3).save_changes(1000));
    Base::open(options, store.clone(), embedder.clone(), folder.clone()).unwrap()
}

/// The files that hold a word or the vector of [`SECRET`].
fn holding(folder: &SharedFolder) -> Vec<String> {
    let mut vector = [0.0; 48];
    Counting::new().embed(&[SECRET], &mut vector).unwrap();
    let vector: Vec<u8> = vector.iter().flat_map(|component| component.to_le_bytes()).collect();
    let holds = |file: &[u8], part: &[u8]| file.windows(part.len()).any(|window| window == part);
    let files = folder.take().files().into_iter();
    files.filter(|(_, file)| holds(file, b"zanzibar") || holds(file, &vector)).map(|(name, _)| name).collect()
}

#[test]
fn a_save_after_a_removal_leaves_nothing_of_the_text() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    put(&store, "alpha", text("alpha", 9));
    put(&store, "secret", SECRET);
    let mut base = open(&store, &embedder, &folder);
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    assert_eq!(holding(&folder), ["embeddings.cache", "knowledge.index"]);
    let cached = base.cached();

    // Text that stands in another document as well is not withdrawn.
    put(&store, "copy", SECRET);
    remove(&store, "secret");
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    assert_eq!((base.cached(), holding(&folder).len()), (cached, 2));

    remove(&store, "copy");
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    assert_eq!((base.cached(), holding(&folder)), (cached - 1, Vec::new()));
    // All that was not withdrawn is still known.
    put(&store, "beta", text("alpha", 9) + SECRET);
    let before = embedder.count();
    base.run(NOW).unwrap();
    assert!(embedder.count() - before <= 2);
}

/// A new revision withdraws what it leaves out, while other documents wait.
#[test]
fn a_save_between_two_documents_leaves_nothing_of_the_text() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    put(&store, "alpha", SECRET);
    let mut base = open(&store, &embedder, &folder);
    base.run(NOW).unwrap();
    put(&store, "alpha", "nothing of it");
    for name in ["beta", "gamma", "delta"] {
        put(&store, name, text(name, 9));
    }
    while base.engine().stats().documents_indexed < 2 {
        assert!(base.step(NOW).unwrap());
    }
    base.save(NOW).unwrap();
    assert_eq!(holding(&folder), [""; 0]);
}

/// The index is lost and built again from the cache; what was removed meanwhile leaves the cache.
#[test]
fn what_was_removed_before_a_rebuild_leaves_the_cache() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    for name in ["alpha", "beta", "gamma"] {
        put(&store, name, text(name, 9));
    }
    put(&store, "secret", SECRET);
    let mut base = open(&store, &embedder, &folder);
    base.run(NOW).unwrap();
    base.save(NOW).unwrap();
    drop(base);
    folder.clone().remove("knowledge.index").unwrap();
    remove(&store, "secret");
    store.store.lock().unwrap().cut();
    let before = embedder.count();
    let mut base = open(&store, &embedder, &folder);
    // A save in the midst of the rebuild keeps what the rest of it needs.
    while base.engine().stats().documents_indexed < 1 {
        assert!(base.step(NOW).unwrap());
    }
    base.save(NOW).unwrap();
    assert!(base.engine().passages().documents_len() < 3, "a save indexes nothing");
    base.run(NOW).unwrap();
    assert_eq!(embedder.count(), before);
    base.save(NOW).unwrap();
    assert_eq!(holding(&folder), [""; 0]);
}

/// A cache that cannot be written keeps its vectors until a later save takes them out.
#[test]
fn a_full_disk_delays_the_removal() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let mut folder = SharedFolder::new(SimFolder::new(1));
    put(&store, "alpha", text("alpha", 9));
    put(&store, "secret", SECRET);
    let mut base = open(&store, &embedder, &folder);
    base.run(NOW).unwrap();
    assert!(base.save(NOW).unwrap());
    remove(&store, "secret");
    base.run(NOW).unwrap();
    folder.fail(4, 1);
    assert!(!base.save(NOW).unwrap(), "the write of the cache failed");
    assert_eq!(holding(&folder)[0], "embeddings.cache");
    let later = base.poll_timeout().unwrap();
    base.run(later).unwrap();
    assert_eq!(holding(&folder), [""; 0]);
    let saved = IndexFile::new("knowledge.index").read(&mut folder).unwrap();
    assert!(saved.is_some());
}
