//! Random workloads with random crashes, compared with the storage in memory.

use std::io::ErrorKind;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use x0_consensus::sim::{Fault, SimDirectory, Unsynced};
use x0_consensus::{MemoryStorage, RecoverError, Storage, Write, WriteError};

use crate::support::{adopt, append, base, commit_only, hard_state, image, open, options, stage};

#[derive(Debug, Clone)]
enum Step {
    /// A batch of these parts.
    Batch(Vec<Part>),
    /// The power fails, now or after so many operations of the next batch.
    Crash {
        after: u64,
        fate: Unsynced,
    },
    /// An operation of the next batch fails.
    Fail {
        after: u64,
        is_full: bool,
    },
    Reopen,
}

#[derive(Debug, Clone)]
enum Part {
    /// Entries that replace the last `back` ones.
    Append {
        back: u64,
        count: u64,
        len: usize,
    },
    HardState,
    Commit,
    /// The base moves by so many percent towards the end.
    Base {
        percent: u64,
    },
    /// A snapshot that matches the log.
    Own {
        percent: u64,
    },
    /// A snapshot that conflicts with the log, so far after the end.
    Elsewhere {
        ahead: u64,
    },
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        8 => (0..4_u64, 1..6_u64, prop_oneof![8 => 0..400_usize, 1 => 400..6000_usize])
            .prop_map(|(back, count, len)| Part::Append { back, count, len }),
        2 => Just(Part::HardState),
        2 => Just(Part::Commit),
        2 => (0..=100_u64).prop_map(|percent| Part::Base { percent }),
        1 => (0..=100_u64).prop_map(|percent| Part::Own { percent }),
        1 => (0..20_u64).prop_map(|ahead| Part::Elsewhere { ahead }),
    ]
}

fn fate() -> impl Strategy<Value = Unsynced> {
    prop_oneof![
        Just(Unsynced::Lost),
        Just(Unsynced::Kept),
        any::<u64>().prop_map(Unsynced::Sectors),
        any::<u64>().prop_map(Unsynced::Cut),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(part(), 1..4).prop_map(Step::Batch),
        2 => (0..8_u64, fate()).prop_map(|(after, fate)| Step::Crash { after, fate }),
        1 => (0..8_u64, any::<bool>()).prop_map(|(after, is_full)| Step::Fail { after, is_full }),
        1 => Just(Step::Reopen),
    ]
}

/// Writes from parts, each valid after the ones before it according to a model that performs them at once.
fn batch(parts: &[Part], model: &mut MemoryStorage, term: &mut u64) -> Vec<Write> {
    let mut writes = Vec::new();
    for part in parts {
        let held = model.recover().unwrap();
        let (first, last) = (held.base.index, held.last_index);
        let between = |percent: u64| first + (last - first) * percent / 100;
        let write = match *part {
            Part::Append { back, count, len } => {
                *term += 1;
                let start = (last + 1).saturating_sub(back).max(first + 1);
                append(start..=start + count - 1, *term, len)
            }
            Part::HardState => hard_state(*term, last),
            Part::Commit => commit_only(*term, last),
            Part::Base { percent } => base(between(percent), held.term(between(percent)).unwrap()),
            Part::Own { percent } => {
                let index = between(percent).max(held.snapshot.as_ref().map_or(0, |meta| meta.index));
                match held.term(index) {
                    Some(term) => adopt(index, term),
                    None => continue,
                }
            }
            Part::Elsewhere { ahead } => {
                *term += 1;
                let index = (last + ahead).max(held.snapshot.as_ref().map_or(0, |meta| meta.index) + 1);
                adopt(index, *term)
            }
        };
        stage(model, std::slice::from_ref(&write)).unwrap();
        model.write(std::slice::from_ref(&write)).unwrap();
        writes.push(write);
    }
    writes
}

/// A model that has performed these writes.
fn model_of(history: &[Write]) -> MemoryStorage {
    let mut model = MemoryStorage::new();
    for write in history {
        stage(&mut model, std::slice::from_ref(write)).unwrap();
        model.write(std::slice::from_ref(write)).unwrap();
    }
    model
}

fn check(segment_len: u64, steps: Vec<Step>) {
    let directory = SimDirectory::new();
    let mut log = open(&directory, options(segment_len)).unwrap();
    let (mut term, mut fate_at_crash) = (0, None);
    // The writes that may be durable, and the number of those that must be.
    let (mut history, mut acknowledged) = (Vec::new(), 0);
    for step in steps {
        match step {
            Step::Batch(parts) => {
                let mut model = model_of(&history);
                let before = image(&mut model);
                let writes = batch(&parts, &mut model, &mut term);
                let staged = stage(&mut log, &writes);
                let answer = if staged.is_ok() { log.write(&writes) } else { Err(WriteError::Poisoned) };
                match answer {
                    Err(error) if error.is_unchanged() && !directory.is_down() => {
                        assert_eq!(image(&mut log), before, "{error}");
                        continue;
                    }
                    answer => {
                        let is_synced = writes.iter().any(|write| write.must_sync);
                        history.extend(writes);
                        if answer.is_ok() {
                            acknowledged = if is_synced { history.len() } else { acknowledged };
                        }
                        // The power may also fail after the acknowledgement, at the commit marker.
                        if answer.is_ok() && !directory.is_down() {
                            assert_eq!(image(&mut log), image(&mut model));
                            continue;
                        }
                    }
                }
            }
            Step::Crash { after, fate } if after > 0 => {
                directory.plant(directory.operations() + after - 1, Fault::PowerLoss);
                fate_at_crash = Some(fate);
                continue;
            }
            Step::Crash { fate, .. } => fate_at_crash = Some(fate),
            Step::Fail { after, is_full } => {
                let kind = if is_full { ErrorKind::StorageFull } else { ErrorKind::Other };
                directory.plant(directory.operations() + after, Fault::Error(kind));
                continue;
            }
            Step::Reopen => {}
        }
        drop(log);
        // A planted power failure may happen later than in the batch for which it was planted.
        let fate = fate_at_crash.take().or(directory.is_down().then_some(Unsynced::Lost));
        if let Some(fate) = fate {
            directory.crash(fate);
        }
        // Planted faults that were not reached may happen while opening: then opening is repeated.
        let opened = (0..20).find_map(|_| match open(&directory, options(segment_len)) {
            Ok(log) if !directory.is_down() => Some(log),
            Ok(_) | Err(RecoverError::Io { .. }) => {
                directory.crash(Unsynced::Kept);
                None
            }
            Err(error) => panic!("{error}"),
        });
        log = opened.unwrap();
        let found = image(&mut log);
        let count =
            (acknowledged..=history.len()).find(|count| image(&mut model_of(&history[..*count])) == found);
        history.truncate(
            count.unwrap_or_else(|| panic!("at least {acknowledged} of {history:#?}, found {found:#?}")),
        );
        acknowledged = history.len();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_model(
        segment_len in prop_oneof![Just(4096_u64), Just(8192), Just(65536)],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        check(segment_len, steps);
    }
}
