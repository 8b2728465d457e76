//! The power goes at every operation of the folder, and between any two steps.

use std::time::Duration;

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
