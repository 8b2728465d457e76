//! The power goes at every operation of the folder, and between any two steps.

use std::time::Duration;

use x0_ml::embed::Embedder;
use x0_ml::index::{HnswOptions, Metric, Search};
use x0_ml::knowledge::{Knowledge, KnowledgeOptions};

use crate::folder::{SharedFolder, SimFolder};
use crate::support::{Base, Counting, Shared, check, open, put, remove, text};

/// Ingests, changes and saves, until the folder fails or the steps are used up.
fn live(base: &mut Base, store: &Shared, steps: usize) -> usize {
    let mut left = steps;
    for round in 0..4 {
        let name = ["alpha", "beta", "gamma", "alpha"][round];
        put(store, name, text(&format!("{name}{round}"), 5 + 3 * round));
        if round == 2 {
            remove(store, "beta");
        }
        let now = Duration::from_secs(round as u64);
        while left > 0 && base.step(now).unwrap() {
            left -= 1;
        }
    }
    steps - left
}

fn crash(seed: u64, at_operation: Option<usize>, steps: usize) -> (usize, usize) {
    let (store, embedder) = (Shared::default(), Counting::new());
    let mut folder = SimFolder::new(seed);
    if let Some(at) = at_operation {
        folder.crash_at(at);
    }
    let folder = SharedFolder::new(folder);
    let mut done = 0;
    if let Ok(mut base) = x0_ml::knowledge::KnowledgeBase::open(
        crate::support::options(),
        store.clone(),
        embedder.clone(),
        folder.clone(),
    ) {
        // The same steps as `live`, over the shared folder.
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
        crate::support::options().knowledge(KnowledgeOptions::new().save_changes(5)).index(index)
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
    let mut base = open(&store, &embedder, SimFolder::new(1));
    live(&mut base, &store, usize::MAX);
    base.save(Duration::ZERO).unwrap();
    let mut engine = Knowledge::new(KnowledgeOptions::new());
    engine.save();
    let Some(x0_ml::knowledge::Output::Save { catalogue }) = engine.poll_output() else { panic!() };
    assert!(Knowledge::restore(KnowledgeOptions::new(), &catalogue).is_ok());
    for at in 0..catalogue.len() {
        let mut damaged = catalogue.clone();
        damaged[at] ^= 4;
        assert!(Knowledge::restore(KnowledgeOptions::new(), &damaged).is_err());
        assert!(Knowledge::restore(KnowledgeOptions::new(), &catalogue[..at]).is_err());
    }
}
