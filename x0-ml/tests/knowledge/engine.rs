//! The engine by itself: inputs that do not fit, the applied revision, saved states.

use std::time::Duration;

use x0_ml::chunk::{ChunkOptions, Chunker, WordTokens};
use x0_ml::knowledge::{HandleError, Input, Knowledge, KnowledgeOptions, Output};
use x0_ml::retrieve::Document;

const NOW: Duration = Duration::from_secs(10);

fn changed(name: &str, revision: u64) -> Input {
    Input::Changed { document: name.into(), revision }
}

fn chunked(name: &str, text: &str) -> Input {
    let chunker = Chunker::new(ChunkOptions::new().tokens_max(6), WordTokens).unwrap();
    Input::Chunked { document: name.into(), chunks: chunker.chunks(text).unwrap() }
}

#[test]
fn inputs_that_answer_nothing_change_nothing() {
    let mut engine = Knowledge::new(KnowledgeOptions::new());
    let wrong = [
        Input::Read { document: "a".into(), found: None },
        chunked("a", "one two"),
        Input::Embedded { job: 1, vectors: vec![1.0] },
        Input::Listed { page: Vec::new(), is_last: true, revision: 3 },
        Input::Saved { is_durable: true },
        Input::Failed,
    ];
    for input in &wrong {
        assert!(matches!(engine.handle(NOW, input.clone()), Err(HandleError::NotAsked { .. })), "{input:?}");
    }
    engine.handle(NOW, changed("a", 5)).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Read { document: "a".into() }));
    let other = Input::Read { document: "b".into(), found: None };
    assert!(engine.handle(NOW, other).is_err());
    assert_eq!((engine.poll_output(), engine.applied(), engine.pending()), (None, 4, 1));
    engine
        .handle(NOW, Input::Read { document: "a".into(), found: Some((5, Document::new("one two"))) })
        .unwrap();
    engine.poll_output().unwrap();
    engine.handle(NOW, chunked("a", "one two")).unwrap();
    let Some(Output::Embed { job, chunks }) = engine.poll_output() else { panic!() };
    assert_eq!(chunks[0].content(), "one two");
    let none = engine.handle(NOW, Input::Embedded { job, vectors: Vec::new() });
    assert_eq!(none, Err(HandleError::Vectors { components: 0, chunks: 1 }));
    assert!(engine.handle(NOW, Input::Embedded { job: job + 1, vectors: vec![1.0] }).is_err());
    engine.handle(NOW, Input::Embedded { job, vectors: vec![1.0] }).unwrap();
    assert!(matches!(engine.poll_output(), Some(Output::Insert { .. })));
    assert_eq!((engine.poll_output(), engine.applied()), (Some(Output::Publish), 5));
}

#[test]
fn pages_out_of_order_are_errors() {
    let mut engine = Knowledge::new(KnowledgeOptions::new());
    engine.handle(NOW, Input::Rescan).unwrap();
    assert!(matches!(engine.poll_output(), Some(Output::List { after: None, .. })));
    let page = |names: &[&str]| names.iter().map(|name| ((*name).into(), 1)).collect();
    let wrong = engine.handle(NOW, Input::Listed { page: page(&["b", "a"]), is_last: true, revision: 3 });
    assert_eq!(wrong, Err(HandleError::Page { document: "b".into() }));
    engine.handle(NOW, Input::Listed { page: page(&["a", "b"]), is_last: false, revision: 3 }).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::List { after: Some("b".into()), max: 256 }));
    assert!(engine.handle(NOW, Input::Listed { page: page(&["b"]), is_last: true, revision: 3 }).is_err());
    engine.handle(NOW, Input::Listed { page: Vec::new(), is_last: true, revision: 4 }).unwrap();
    assert_eq!((engine.pending(), engine.applied()), (2, 0));
}

/// A late document lets the others pass, and holds back the applied revision for a while.
#[test]
fn late_documents_wait_aside() {
    let mut engine = Knowledge::new(KnowledgeOptions::new());
    assert_eq!(engine.handle(NOW, Input::Late), Err(HandleError::NotAsked { input: "Late" }));
    engine.handle(NOW, changed("a", 5)).unwrap();
    engine.handle(NOW, changed("b", 6)).unwrap();
    let read = |name: &str| Some(Output::Read { document: name.into() });
    assert_eq!((engine.poll_output(), engine.poll_output()), (read("a"), None));
    engine.handle(NOW, Input::Late).unwrap();
    assert_eq!(engine.poll_output(), read("b"));
    engine.handle(NOW, Input::Read { document: "b".into(), found: None }).unwrap();
    let until = NOW + Duration::from_secs(60);
    assert_eq!((engine.applied(), engine.pending(), engine.is_idle()), (4, 1, false));
    assert_eq!((engine.poll_output(), engine.poll_timeout()), (None, Some(until)));
    // The document is reported again, and is still late.
    let later = NOW + Duration::from_secs(9);
    engine.handle(later, changed("a", 6)).unwrap();
    assert_eq!(engine.poll_output(), read("a"));
    engine.handle(later, changed("a", 7)).unwrap();
    engine.handle(later, Input::Late).unwrap();
    assert_eq!(engine.poll_output(), read("a"), "it has changed meanwhile");
    assert_eq!(engine.applied(), 4);
    engine.handle(later, Input::Late).unwrap();
    engine.handle(until, Input::Timeout).unwrap();
    assert_eq!((engine.poll_output(), engine.applied()), (None, 4));
    engine.handle(until + Duration::from_secs(9), Input::Timeout).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::LeftOut { document: "a".into() }));
    assert_eq!((engine.applied(), engine.stats().documents_left_out, engine.is_idle()), (7, 1, true));
    // The document comes at last.
    engine.handle(until, changed("a", 7)).unwrap();
    assert_eq!(engine.poll_output(), read("a"));
    let found = Some((7, Document::new("one two")));
    engine.handle(until, Input::Read { document: "a".into(), found }).unwrap();
    assert!(matches!(engine.poll_output(), Some(Output::Chunk { .. })));
}

/// A document that fails waits aside; the others are indexed meanwhile. Failures in a row hold them back,
/// too.
#[test]
fn a_failing_document_lets_the_others_pass() {
    let mut engine = Knowledge::new(KnowledgeOptions::new().attempts_max(3));
    let read = |name: &str| Some(Output::Read { document: name.into() });
    let at = |seconds: u64| NOW + Duration::from_secs(seconds);
    let gone = |name: &str| Input::Read { document: name.into(), found: None };
    for (name, revision) in [("a", 5), ("b", 6), ("c", 7)] {
        engine.handle(NOW, changed(name, revision)).unwrap();
    }
    assert_eq!(engine.poll_output(), read("a"));
    engine.handle(NOW, Input::Failed).unwrap();
    assert_eq!((engine.poll_output(), engine.poll_timeout()), (read("b"), Some(at(1))));
    engine.handle(NOW, gone("b")).unwrap();
    assert_eq!(engine.poll_output(), read("c"));
    engine.handle(NOW, gone("c")).unwrap();
    assert_eq!((engine.poll_output(), engine.applied(), engine.pending()), (None, 4, 1));
    engine.handle(at(1), Input::Timeout).unwrap();
    assert_eq!(engine.poll_output(), read("a"));
    engine.handle(at(1), Input::Failed).unwrap();
    assert_eq!((engine.poll_output(), engine.poll_timeout()), (None, Some(at(3))), "twice the time");
    // A change of the document is tried at once.
    engine.handle(at(1), changed("a", 8)).unwrap();
    assert_eq!(engine.poll_output(), read("a"));
    engine.handle(at(1), Input::Failed).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::LeftOut { document: "a".into() }));
    assert_eq!((engine.applied(), engine.stats().documents_left_out, engine.is_idle()), (8, 1, true));

    // Three in a row: the store may be away.
    for (name, revision) in [("a", 10), ("b", 11), ("c", 12), ("d", 13)] {
        engine.handle(at(9), changed(name, revision)).unwrap();
    }
    let left_out = Some(Output::LeftOut { document: "a".into() });
    for (seconds, name, output) in [(9, "a", None), (10, "a", None), (11, "b", None), (12, "a", left_out)] {
        engine.handle(at(seconds), Input::Timeout).unwrap();
        assert_eq!((engine.poll_output(), engine.poll_output()), (read(name), None), "{seconds}");
        engine.handle(at(seconds), Input::Failed).unwrap();
        assert_eq!((engine.poll_output(), engine.poll_output()), (output, None), "{seconds}");
        assert_eq!(engine.poll_timeout(), Some(at(seconds + 1)));
    }
    // The first success lets all pass again.
    engine.handle(at(13), Input::Timeout).unwrap();
    assert_eq!(engine.poll_output(), read("b"));
    let found = Some((11, Document::new("one two")));
    engine.handle(at(13), Input::Read { document: "b".into(), found }).unwrap();
    engine.poll_output().unwrap();
    engine.handle(at(13), chunked("b", "one two")).unwrap();
    let Some(Output::Embed { job, .. }) = engine.poll_output() else { panic!() };
    engine.handle(at(13), Input::Embedded { job, vectors: vec![1.0] }).unwrap();
    let rest: Vec<Output> = std::iter::from_fn(|| engine.poll_output()).collect();
    assert_eq!(rest.last(), read("c").as_ref());
    engine.handle(at(13), Input::Failed).unwrap();
    assert_eq!(engine.poll_output(), read("d"));
}

/// A document that was left out comes by a scan some time later, although the store does not report it.
#[test]
fn documents_that_were_left_out_are_looked_for_again() {
    let options = KnowledgeOptions::new().attempts_max(1).rescan(Duration::from_secs(300));
    let mut engine = Knowledge::new(options);
    let later = NOW + Duration::from_secs(300);
    engine.handle(NOW, changed("a", 5)).unwrap();
    engine.poll_output().unwrap();
    engine.handle(NOW, Input::Failed).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::LeftOut { document: "a".into() }));
    assert_eq!((engine.poll_output(), engine.poll_timeout(), engine.is_idle()), (None, Some(later), true));
    engine.handle(later, Input::Timeout).unwrap();
    assert!(matches!(engine.poll_output(), Some(Output::List { after: None, .. })));
    let page = vec![("a".into(), 5)];
    engine.handle(later, Input::Listed { page, is_last: true, revision: 5 }).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Read { document: "a".into() }));
    assert_eq!((engine.poll_timeout(), engine.stats().scans), (None, 1));
}

/// A document that is left out holds the applied revision back once, and not again at each scan. It counts as
/// left out until it is indexed, or is not in the store any more.
#[test]
fn a_document_that_was_left_out_does_not_hold_back_the_applied_revision_again() {
    let mut engine = Knowledge::new(KnowledgeOptions::new());
    let gone = |name: &str| Input::Read { document: name.into(), found: None };
    let list = |engine: &mut Knowledge, now, page: &[(&str, u64)]| {
        engine.handle(now, Input::Timeout).unwrap();
        assert!(matches!(engine.poll_output(), Some(Output::List { .. })));
        let page = page.iter().map(|(name, revision)| ((*name).into(), *revision)).collect();
        engine.handle(now, Input::Listed { page, is_last: true, revision: 20 }).unwrap();
        engine.poll_output()
    };
    let state = |engine: &Knowledge| (engine.applied(), engine.stats().documents_left_out);
    let mut now = NOW;
    engine.handle(now, changed("a", 3)).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Read { document: "a".into() }));
    engine.handle(now, changed("a", 5)).unwrap();
    engine.handle(now, Input::Late).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Read { document: "a".into() }), "it has changed");
    engine.handle(now, Input::Late).unwrap();
    engine.handle(now, changed("b", 9)).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Read { document: "b".into() }));
    engine.handle(now, gone("b")).unwrap();
    assert_eq!(state(&engine), (2, 0));
    now += Duration::from_secs(60);
    engine.handle(now, Input::Timeout).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::LeftOut { document: "a".into() }));
    assert_eq!(state(&engine), (9, 1));
    for round in 0..3 {
        // The scan reads it again, and it is late again.
        now += Duration::from_secs(600);
        let read = list(&mut engine, now, &[("a", 5)]);
        assert_eq!(read, Some(Output::Read { document: "a".into() }));
        engine.handle(now, Input::Late).unwrap();
        engine.handle(now, changed("c", 21 + round)).unwrap();
        assert_eq!(engine.poll_output(), Some(Output::Read { document: "c".into() }));
        engine.handle(now, gone("c")).unwrap();
        assert_eq!(state(&engine), (21 + round, 1), "round {round}");
        now += Duration::from_secs(60);
        engine.handle(now, Input::Timeout).unwrap();
        assert_eq!(engine.poll_output(), Some(Output::LeftOut { document: "a".into() }));
        assert_eq!(state(&engine), (21 + round, 1));
    }
    // A new change of it counts again.
    engine.handle(now, changed("a", 30)).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Read { document: "a".into() }));
    engine.handle(now, Input::Late).unwrap();
    assert_eq!(state(&engine), (29, 1));
    now += Duration::from_secs(600);
    engine.handle(now, Input::Timeout).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::LeftOut { document: "a".into() }));
    // The scan is due as well, and does not find the document.
    assert_eq!(list(&mut engine, now, &[]), None);
    assert_eq!(state(&engine), (30, 0));
}

/// The longest times are never over.
#[test]
fn times_without_end_are_accepted() {
    let (max, read) = (Duration::MAX, |name: &str| Some(Output::Read { document: name.into() }));
    let options = KnowledgeOptions::new().attempts_max(2).retry(max).save_interval(max);
    let mut engine = Knowledge::new(options.rescan(max).late_max(max));
    engine.handle(NOW, changed("a", 1)).unwrap();
    assert_eq!(engine.poll_output(), read("a"));
    engine.handle(NOW, Input::Failed).unwrap();
    engine.handle(NOW, changed("a", 2)).unwrap();
    assert_eq!((engine.poll_output(), engine.poll_timeout()), (read("a"), None));
    engine.handle(NOW, Input::Failed).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::LeftOut { document: "a".into() }));
    engine.handle(NOW, changed("b", 3)).unwrap();
    assert_eq!((engine.poll_output(), engine.poll_timeout()), (read("b"), None));
    engine.handle(NOW, Input::Read { document: "b".into(), found: Some((3, Document::new("b"))) }).unwrap();
    engine.poll_output().unwrap();
    engine.handle(NOW, chunked("b", "b")).unwrap();
    let Some(Output::Embed { job, .. }) = engine.poll_output() else { panic!() };
    engine.handle(NOW, Input::Embedded { job, vectors: vec![1.0] }).unwrap();
    while engine.poll_output().is_some() {}
    engine.handle(NOW, changed("c", 4)).unwrap();
    assert_eq!(engine.poll_output(), read("c"));
    engine.handle(NOW, Input::Late).unwrap();
    engine.handle(NOW * 2, Input::Timeout).unwrap();
    assert_eq!((engine.poll_output(), engine.poll_timeout(), engine.applied()), (None, None, 3));
}

/// The applied revision never falls, between any two calls.
#[test]
fn the_applied_revision_never_falls() {
    let mut engine = Knowledge::new(KnowledgeOptions::new());
    let (mut applied, mut contents) = (0, [(0, 0); 3]);
    for revision in 1..40_u64 {
        let document = [0, 1, 0, 2][revision as usize % 4];
        contents[document] = (revision, revision % 5);
        let mut next = vec![changed(&format!("{document}"), revision)];
        while let Some(input) = next.pop() {
            engine.handle(NOW, input).unwrap();
            assert!(engine.applied() >= applied, "{} after {applied}", engine.applied());
            applied = engine.applied();
            while let Some(output) = engine.poll_output() {
                assert!(engine.applied() >= applied, "{} after {applied}: {output:?}", engine.applied());
                applied = engine.applied();
                match output {
                    Output::Read { document } => {
                        let (revision, content) = contents[document.as_str().parse::<usize>().unwrap()];
                        let text = Document::new(format!("{document} is {content}"));
                        let found = (content > 0).then_some((revision, text));
                        next.push(Input::Read { document, found });
                    }
                    Output::Chunk { document, text } => next.push(chunked(document.as_str(), &text)),
                    Output::Embed { job, chunks } => {
                        next.push(Input::Embedded { job, vectors: vec![1.0; chunks.len()] });
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(applied, revision);
    }
}

/// Chunks of a document that was not complete at the save leave the indexes after a restart.
#[test]
fn unfinished_chunks_are_removed_after_a_restart() {
    let text = "one two three. four five six. seven eight nine. ten";
    let mut engine = Knowledge::new(KnowledgeOptions::new().batch_max(1));
    engine.handle(NOW, changed("a", 1)).unwrap();
    engine.poll_output().unwrap();
    engine.handle(NOW, Input::Read { document: "a".into(), found: Some((1, Document::new(text))) }).unwrap();
    engine.poll_output().unwrap();
    engine.handle(NOW, chunked("a", text)).unwrap();
    let Some(Output::Embed { job, .. }) = engine.poll_output() else { panic!() };
    engine.handle(NOW, Input::Embedded { job, vectors: vec![1.0; 4] }).unwrap();
    let Some(Output::Insert { chunks, .. }) = engine.poll_output() else { panic!() };
    assert!(matches!(engine.poll_output(), Some(Output::Embed { .. })));
    engine.save();
    let Some(Output::Save { catalogue }) = engine.poll_output() else { panic!() };
    let mut restored = Knowledge::restore(KnowledgeOptions::new(), &catalogue).unwrap();
    assert_eq!(
        restored.poll_output(),
        Some(Output::Remove { ids: vec![chunks[0].id], withdrawn: Vec::new() })
    );
    assert_eq!((restored.poll_output(), restored.poll_output()), (Some(Output::Publish), None));
    assert_eq!(restored.passages().chunks_len(), 0);
    // A failure takes them out of the running engine as well.
    engine.handle(NOW, Input::Failed).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Remove { ids: vec![chunks[0].id], withdrawn: Vec::new() }));
    assert_eq!(engine.poll_timeout(), Some(NOW + Duration::from_secs(1)));
    // A save that failed is tried again after an interval.
    engine.handle(NOW, Input::Saved { is_durable: false }).unwrap();
    engine.handle(NOW + Duration::from_secs(1), Input::Timeout).unwrap();
    assert_eq!(engine.poll_output(), Some(Output::Read { document: "a".into() }));
    assert_eq!(engine.poll_timeout(), Some(NOW + Duration::from_secs(30)));
    engine.handle(NOW + Duration::from_secs(30), Input::Timeout).unwrap();
    assert!(matches!(engine.poll_output(), Some(Output::Save { .. })));
}
