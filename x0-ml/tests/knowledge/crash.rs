//! The power goes at every operation of the folder, and between any two steps.

use std::time::Duration;

use x0_ml::embed::Embedder;
use x0_ml::index::{HnswOptions, Metric, Search};
use x0_ml::knowledge::{Input, Knowledge, KnowledgeOptions, Output, Snapshot};

use crate::folder::{SharedFolder, SimFolder};
use crate::random::Random;
use crate::sections::{offset, resign};
use crate::support::{Counting, Shared, check, open, options, put, remove, text};

fn crash(seed: u64, at_operation: Option<usize>, steps: usize) -> (usize, usize) {
    let (store, embedder) = (Shared::default(), Counting::new());
    let mut folder = SimFolder::new(seed);
    if let Some(at) = at_operation {
        folder.crash_at(at);
    }
    let folder = SharedFolder::new(folder);
    let mut done = 0;
    if let Ok(mut base) =
        x0_ml::knowledge::KnowledgeBase::open(options(), store.clone(), embedder.clone(), folder.clone())
    {
        let mut left = steps;
        for round in 0..4 {
            let name = ["alpha", "beta", "gamma", "alpha"][round];
            put(&store, name, text(&format!("{name}{round}"), 5 + 3 * round));
            if round == 2 {
                remove(&store, "beta");
            }
            let now = Duration::from_secs(round as u64);
            while left > 0 && !folder.has_crashed() && base.step(now).unwrap() {
                left -= 1;
            }
        }
        done = steps - left;
    }
    let mut image = folder.take();
    let operations = image.operations();
    image.restart();
    store.store.lock().unwrap().cut();
    let mut base = open(&store, &embedder, image);
    base.run(Duration::ZERO).unwrap();
    check(&base, &store);
    (operations, done)
}

#[test]
fn after_a_crash_at_any_file_operation_the_index_is_that_of_the_store() {
    let (operations, _) = crash(1, None, usize::MAX);
    assert!(operations > 20, "{operations}");
    for at in 0..=operations {
        for seed in 0..4 {
            crash(seed, Some(at), usize::MAX);
        }
    }
}

#[test]
fn after_a_stop_between_any_two_steps_the_index_is_that_of_the_store() {
    let (_, steps) = crash(1, None, usize::MAX - 1);
    assert!(steps > 40, "{steps}");
    for at in 0..steps {
        crash(at as u64, None, at);
    }
}

type Walked = x0_ml::knowledge::KnowledgeBase<Shared, Counting, SharedFolder>;

/// The scores of the 10 nearest chunks of queries. Not the chunks: equal scores stand in the order of
/// numbers, which depends on the history.
fn nearest(base: &Walked) -> Vec<Vec<f32>> {
    let near = |query: String| {
        let mut vector = [0.0; 48];
        Counting::new().embed(&[&query], &mut vector).unwrap();
        let found = base.reader().search(&Search::new(&vector, 10)).unwrap();
        found.iter().map(|near| near.score).collect()
    };
    (0..40).map(|n| near(format!("topic doc{}{} and topic {n}", n % 12, n % 17))).collect()
}

/// After a crash a graph that is walked has the recall of one that is built from the store, to 0.005.
#[test]
fn after_a_crash_a_graph_finds_what_a_fresh_one_finds() {
    let graph = |scan_len_max| {
        let index = HnswOptions::new(48, Metric::Cosine).m(6).ef_construction(60).scan_len_max(scan_len_max);
        options().knowledge(KnowledgeOptions::new().save_changes(5)).index(index)
    };
    let (store, embedder) = (Shared::default(), Counting::new());
    let open = |scan_len_max, folder: SharedFolder| {
        Walked::open(graph(scan_len_max), store.clone(), embedder.clone(), folder)
    };
    let build = |folder: &SharedFolder| {
        let Ok(mut base) = open(0, folder.clone()) else { return };
        for round in 0..30 {
            put(&store, &format!("doc{}", round % 12), text(&format!("doc{}", round % 12), 10 + round));
            while !folder.has_crashed() && base.step(Duration::from_secs(round as u64)).unwrap() {}
        }
    };
    let whole = SharedFolder::new(SimFolder::new(1));
    build(&whole);
    let operations = whole.take().operations();
    let run = |scan_len_max, folder: SimFolder| {
        let mut base = open(scan_len_max, SharedFolder::new(folder)).unwrap();
        base.run(Duration::ZERO).unwrap();
        base
    };
    let (mut crashed, mut fresh, mut wanted) = (0, 0, 0);
    for at in (0..=operations).step_by(operations / 12) {
        let mut folder = SimFolder::new(at as u64);
        folder.crash_at(at);
        let folder = SharedFolder::new(folder);
        build(&folder);
        let mut image = folder.take();
        image.restart();
        store.store.lock().unwrap().cut();
        let base = run(0, image);
        let truth = nearest(&run(usize::MAX, SimFolder::new(2)));
        let hits = |base: &Walked| -> usize {
            let least = truth.iter().map(|truth| truth[truth.len() - 1]);
            nearest(base)
                .iter()
                .zip(least)
                .map(|(found, least)| found.iter().filter(|x| **x >= least).count())
                .sum()
        };
        assert_eq!(base.reader().len(), base.engine().passages().chunks_len());
        crashed += hits(&base);
        fresh += hits(&run(0, SimFolder::new(3)));
        wanted += truth.iter().map(Vec::len).sum::<usize>();
    }
    let share = |hits: usize| hits as f64 / wanted as f64;
    assert!(share(crashed) >= share(fresh) - 0.005, "{} and {}", share(crashed), share(fresh));
    assert!(share(fresh) > 0.95, "{}", share(fresh));
}

#[test]
fn damaged_catalogues_are_errors() {
    let (store, embedder) = (Shared::default(), Counting::new());
    let folder = SharedFolder::new(SimFolder::new(1));
    let mut base = Walked::open(options(), store.clone(), embedder, folder.clone()).unwrap();
    for (name, content) in [("alpha", "alpha"), ("beta", "alpha"), ("gamma", "gamma")] {
        put(&store, name, text(content, 9));
    }
    while base.engine().stats().documents_indexed < 2 {
        assert!(base.step(Duration::ZERO).unwrap());
    }
    // A save in the midst of a document: the catalogue has a part of its chunks.
    let before = base.engine().stats().chunks_embedded;
    while base.engine().stats().chunks_embedded == before {
        assert!(base.step(Duration::ZERO).unwrap());
    }
    base.save(Duration::ZERO).unwrap();
    let file = folder.take().files().into_iter().find(|(name, _)| name == "knowledge.index").unwrap().1;
    let catalogue = Snapshot::decode(&file).unwrap().catalogue.to_vec();
    let restore = |bytes: &[u8]| Knowledge::restore(KnowledgeOptions::new(), bytes);
    let whole = restore(&catalogue).unwrap();
    assert!(whole.passages().documents_len() >= 2 && whole.passages().chunks_len() > 4);
    for at in 0..catalogue.len() {
        let mut damaged = catalogue.clone();
        damaged[at] ^= 4;
        assert!(restore(&damaged).is_err());
        assert!(restore(&catalogue[..at]).is_err());
    }
    // With right checksums the damage reaches the checks behind them; what passes can be worked with.
    let mut random = Random(7);
    let mut accepted = 0;
    for _ in 0..10_000 {
        let mut damaged = catalogue.clone();
        for _ in 0..=random.below(2) {
            let at = random.below(damaged.len());
            damaged[at] = random.next() as u8;
        }
        resign(&mut damaged);
        let Ok(mut engine) = restore(&damaged) else { continue };
        accepted += 1;
        while engine.poll_output().is_some() {}
        engine.handle(Duration::ZERO, Input::Changed { document: "alpha".into(), revision: 99 }).unwrap();
        engine.poll_output().unwrap();
        engine.handle(Duration::ZERO, Input::Read { document: "alpha".into(), found: None }).unwrap();
        engine.save();
        while let Some(output) = engine.poll_output() {
            if let Output::Save { catalogue } = output {
                restore(&catalogue).unwrap();
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
    // The number of the next chunk is the second number of the settings.
    let mut crafted = catalogue;
    let settings = offset(&crafted, 1);
    for (next, is_taken) in [((1_u64 << 63), true), ((1 << 63) + 1, false), (u64::MAX, false)] {
        crafted[settings + 8..settings + 16].copy_from_slice(&next.to_le_bytes());
        resign(&mut crafted);
        assert_eq!(restore(&crafted).is_ok(), is_taken, "{next}");
    }
}
