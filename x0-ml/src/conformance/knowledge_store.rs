//! Rules of [`KnowledgeStore`].

use std::collections::BTreeSet;

use crate::knowledge::{Change, KnowledgeStore};
use crate::retrieve::{Document, DocumentId};

/// Holds an empty store against the contract of its seam.
///
/// # Panics
/// If a rule is broken.
pub fn knowledge_store(store: &mut dyn KnowledgeStore) {
    let name = |number: usize| DocumentId::new(format!("doc{number:02}"));
    let mut last = 0;
    for number in (0..10).rev() {
        let mut document = Document::new(format!("text {number}"));
        document.source = "suite".to_owned();
        document.tags.insert(format!("tag{number}"));
        let revision = store.put(&name(number), document.clone()).unwrap();
        assert!(revision > last, "revisions ascend");
        last = revision;
        assert_eq!(
            store.read(&name(number)).unwrap(),
            Some((revision, document)),
            "a document is read as written"
        );
    }
    assert_eq!(store.read(&"missing".into()).unwrap(), None, "a missing document is none");
    pages(store, 10);
    let removed = store.remove(&name(4)).unwrap();
    assert!(removed.is_some_and(|revision| revision > last), "a removal has a revision of its own");
    assert_eq!(store.remove(&name(4)).unwrap(), None, "a missing document is not removed");
    assert_eq!(store.read(&name(4)).unwrap(), None, "a removed document is none");
    pages(store, 9);
    let mut before = 0;
    let (mut reported, mut is_removed, mut was_cut) = (BTreeSet::new(), false, false);
    while let Some(change) = store.poll_change() {
        let revision = match change {
            Change::Changed { revision, document } => {
                is_removed &= document != name(4);
                reported.insert(document);
                revision
            }
            Change::Removed { revision, document } => {
                is_removed |= document == name(4);
                reported.insert(document);
                revision
            }
            Change::Cut => {
                was_cut = true;
                continue;
            }
        };
        assert!(revision >= before, "changes come in the order of their revisions");
        before = revision;
    }
    assert!(was_cut || (reported.len() == 10 && is_removed), "every change is reported, or a cut");
}

fn pages(store: &mut dyn KnowledgeStore, expect: usize) {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(after.as_ref(), 3).unwrap();
        assert!(page.documents.len() <= 3, "a page is no longer than asked");
        for (document, revision) in &page.documents {
            assert!(found.last() < Some(document), "documents are listed in the order of their names");
            let read = store.read(document).unwrap();
            assert_eq!(
                read.map(|(revision, _)| revision),
                Some(*revision),
                "listed and read revisions are equal"
            );
            found.push(document.clone());
        }
        if page.is_last {
            break;
        }
        assert!(!page.documents.is_empty(), "a page that is not the last has documents");
        after = found.last().cloned();
    }
    assert_eq!(found.len(), expect, "every document is listed once");
}
