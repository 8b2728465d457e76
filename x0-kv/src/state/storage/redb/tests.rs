//! Crashes at every write and every sync of the file, after redb's own `tests/crash_consistency.rs`.

use std::io;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redb::{Builder, StorageBackend};

use super::*;
use crate::request::command::{Command, RequestId};
use crate::request::keyspace::KeyspaceName;
use crate::request::operation::Mutation;
use crate::state::State;
use crate::state::durable::RedbOptions;

#[derive(Debug, Clone)]
enum Step {
    Write { offset: usize, data: Vec<u8> },
    Len(usize),
    Sync,
}

impl Step {
    /// Does the first `len` bytes of a write, or all of anything else.
    fn redo(&self, image: &mut Vec<u8>, len: usize) {
        match self {
            Step::Write { offset, data } => {
                let data = &data[..data.len().min(len)];
                image.resize(image.len().max(offset + data.len()), 0);
                image[*offset..offset + data.len()].copy_from_slice(data);
            }
            Step::Len(len) => image.resize(*len, 0),
            Step::Sync => {}
        }
    }
}

#[derive(Debug, Default)]
struct Recorded {
    image: Vec<u8>,
    steps: Vec<Step>,
    /// Fail from this step on.
    fail_at: Option<usize>,
}

/// A file in memory that remembers what was done to it.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

impl Recorder {
    fn record(&self, step: Step) -> io::Result<()> {
        let mut recorded = self.0.lock().unwrap();
        if recorded.fail_at.is_some_and(|at| recorded.steps.len() >= at) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        step.redo(&mut recorded.image, usize::MAX);
        recorded.steps.push(step);
        Ok(())
    }

    fn step_count(&self) -> usize {
        self.0.lock().unwrap().steps.len()
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let recorded = self.0.lock().unwrap();
        let from = recorded.image.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.record(Step::Len(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.record(Step::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.record(Step::Write { offset: usize::try_from(offset).unwrap(), data: data.to_vec() })
    }
}

fn open(backend: Recorder) -> Result<State, EngineError> {
    let path = Path::new("recorded");
    let database = Builder::new().set_cache_size(1 << 20).create_with_backend(backend);
    let database = database.while_doing("open", path)?;
    State::on_file(
        File::recovered(database, path)?,
        RedbOptions { background: false, ..RedbOptions::default() },
        None,
    )
}

/// A log of puts, deletes and sessions over a few hundred keys, of which some values span pages.
fn log() -> Vec<Bytes> {
    let mut random = 9_u64;
    let mut entries = vec![Command::OpenSession.encode()];
    for sequence in 1..400 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = Bytes::from(format!("key {}", (random >> 33) % 200));
        let len = if sequence % 37 == 0 { 9000 } else { (random >> 40) % 90 };
        let mutation = match (random >> 50) % 4 {
            0 => Mutation::Delete { key },
            _ => Mutation::Put { key, value: vec![b'v'; usize::try_from(len).unwrap()].into() },
        };
        let request_id =
            RequestId { session: 1, sequence, acknowledged_below: sequence.saturating_sub(5).max(1) };
        entries.push(Command::encode_write(Some(request_id), &KeyspaceName::DEFAULT, &mutation));
    }
    entries
}

fn apply(state: &mut State, log: &[Bytes], through: usize) -> Result<(), EngineError> {
    let from = usize::try_from(state.applied()).unwrap();
    let entries = (from..through).map(|at| (at as u64 + 1, Some(&log[at])));
    state.apply(entries, &mut Vec::new())
}

fn bytes_of(state: &mut State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.snapshot().read_to_end(&mut bytes).unwrap();
    bytes
}

const CHECKPOINT_EVERY: usize = 50;

#[test]
fn a_crash_at_any_step_leaves_an_old_checkpoint_that_the_log_completes() {
    let log = log();
    let recorder = Recorder::default();
    let mut state = open(recorder.clone()).unwrap();
    // Steps done when a checkpoint was reported durable, and its index.
    let mut reported = vec![(recorder.step_count(), 0)];
    for through in (CHECKPOINT_EVERY..=log.len()).step_by(CHECKPOINT_EVERY) {
        apply(&mut state, &log, through).unwrap();
        assert_eq!(state.checkpoint().unwrap(), through as u64);
        reported.push((recorder.step_count(), through as u64));
    }
    let steps = recorder.0.lock().unwrap().steps.clone();
    let expected: Vec<_> = (0..=log.len())
        .map(|through| {
            let mut memory = State::in_memory();
            apply(&mut memory, &log, through).unwrap();
            bytes_of(&mut memory)
        })
        .collect();
    let mut random = 1_u64;
    let mut found = std::collections::BTreeSet::new();
    for crash in reported[0].0..=steps.len() {
        let synced =
            steps[..crash].iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |at| at + 1);
        // Fates of unsynced writes: all lost, all there, the last of them torn, and two arbitrary parts of
        // them.
        for variant in 0..5 {
            let mut image = Vec::new();
            steps[..synced].iter().for_each(|step| step.redo(&mut image, usize::MAX));
            for (at, step) in steps.iter().enumerate().take(crash).skip(synced) {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let kept = match variant {
                    0 => false,
                    1 | 2 => true,
                    _ => random >> 63 == 0 || matches!(step, Step::Len(_)),
                };
                if kept {
                    let torn = variant == 2 && at + 1 == crash;
                    let len = if torn { usize::try_from(random >> 40).unwrap() % 4096 } else { usize::MAX };
                    step.redo(&mut image, len);
                }
            }
            let recorded = Recorded { image, ..Recorded::default() };
            let mut state = open(Recorder(Arc::new(Mutex::new(recorded)))).unwrap();
            let applied = state.applied();
            let durable = reported.iter().rev().find(|(at, _)| *at <= crash).unwrap().1;
            assert!(applied >= durable, "step {crash}: at {applied}, {durable} was reported durable");
            assert_eq!(applied % CHECKPOINT_EVERY as u64, 0);
            found.insert(applied);
            assert!(bytes_of(&mut state) == expected[usize::try_from(applied).unwrap()], "step {crash}");
            apply(&mut state, &log, log.len()).unwrap();
            assert!(bytes_of(&mut state) == expected[log.len()], "step {crash}");
        }
    }
    // The crashes were not all before the first or behind the last.
    assert_eq!(found.len(), reported.len());
}

#[test]
fn a_full_disk_at_any_step_fails_the_checkpoint_and_loses_none() {
    let log = log();
    let steps = {
        let recorder = Recorder::default();
        let mut state = open(recorder.clone()).unwrap();
        apply(&mut state, &log, log.len()).unwrap();
        state.checkpoint().unwrap();
        recorder.step_count()
    };
    for fail_at in 1..steps {
        let recorder = Recorder::default();
        recorder.0.lock().unwrap().fail_at = Some(fail_at);
        let Ok(mut state) = open(recorder.clone()) else { continue };
        apply(&mut state, &log, 100).unwrap();
        let first = state.checkpoint().unwrap_or(0);
        let failed = apply(&mut state, &log, log.len()).and_then(|()| state.checkpoint());
        assert!(failed.is_err_and(|error| error.to_string() == "cannot write recorded"));
        drop(state);
        let image = std::mem::take(&mut recorder.0.lock().unwrap().image);
        let recorded = Recorded { image, ..Recorded::default() };
        let mut state = open(Recorder(Arc::new(Mutex::new(recorded)))).unwrap();
        assert!(state.applied() >= first);
        apply(&mut state, &log, log.len()).unwrap();
        state.checkpoint().unwrap();
    }
}
