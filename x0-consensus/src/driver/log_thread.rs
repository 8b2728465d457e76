//! The thread that owns the storage.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::event::FatalError;
use super::handle::{EndGuard, Shared};
use super::snapshots::{Job as SnapshotJob, Snapshots};
use super::start::OpenError;
use crate::entry::SnapshotMeta;
use crate::replica::{Input, StageStep};
use crate::storage::{SnapshotReader, Storage, Write};
use crate::telemetry::LogTelemetry;

const LOG_THREAD: &str = "x0-log";
const SNAPSHOT_THREAD: &str = "x0-snapshot";
/// Most writes that are made durable together.
const BATCH_MAX: usize = 1024;

/// Takes the snapshot's reader to whoever asked for it.
pub(super) type Answer = Box<dyn FnOnce(Result<Box<dyn SnapshotReader>, FatalError>) + Send>;

/// What the log thread is asked for.
pub(super) enum Job {
    Write {
        number: u64,
        write: Write,
    },
    Fetch {
        range: Range<u64>,
        len_max: usize,
    },
    Save {
        transfer: u64,
        meta: SnapshotMeta,
    },
    Stage {
        transfer: u64,
        step: StageStep,
    },
    Snapshot(SnapshotJob),
    /// The adopted snapshot, for whoever restores from it.
    Read {
        answer: Answer,
    },
}

/// Starts the thread. It ends when the sender is gone.
pub(super) fn start(
    storage: Box<dyn Storage>,
    shared: Arc<Shared>,
    guard: Arc<EndGuard>,
) -> Result<Sender<Job>, OpenError> {
    let (to, jobs) = mpsc::channel();
    let thread = LogThread { storage, shared, guard, snapshots: None, telemetry: LogTelemetry::new() };
    match thread::Builder::new().name(LOG_THREAD.into()).spawn(move || thread.run(&jobs)) {
        Ok(_) => Ok(to),
        Err(source) => Err(OpenError::Thread { thread: LOG_THREAD, source }),
    }
}

struct LogThread {
    storage: Box<dyn Storage>,
    shared: Arc<Shared>,
    guard: Arc<EndGuard>,
    /// The thread for what takes long, once it was needed.
    snapshots: Option<Sender<SnapshotJob>>,
    telemetry: LogTelemetry,
}

impl LogThread {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut writes = Vec::new();
        let mut next = None;
        while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
            let done = match job {
                Job::Write { number, write } => {
                    let mut last = number;
                    writes.push(write);
                    // Group commit: what has come meanwhile is made durable with it.
                    while writes.len() < BATCH_MAX {
                        match jobs.try_recv() {
                            Ok(Job::Write { number, write }) => {
                                last = number;
                                writes.push(write);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    let written = self.telemetry.timed(&writes, |writes| self.storage.write(writes));
                    writes.clear();
                    written
                        .map(|()| self.shared.put(Input::Persisted { number: last }))
                        .map_err(FatalError::from)
                }
                other => self.work(other),
            };
            if let Err(failure) = done {
                self.shared.fail(failure);
                return;
            }
        }
    }

    fn work(&mut self, job: Job) -> Result<(), FatalError> {
        match job {
            Job::Write { .. } => {}
            Job::Fetch { range, len_max } => {
                // What was compacted meanwhile is asked for again, as a snapshot.
                let entries = self.storage.read(range, len_max).unwrap_or_default();
                self.shared.put(Input::Fetched { entries });
            }
            Job::Save { transfer, meta } => {
                let to = self.storage.snapshot_writer(&meta).ok();
                self.pass(SnapshotJob::Save { transfer, meta, to })?;
            }
            Job::Stage { transfer, step: StageStep::Begin { meta } } => {
                let to = self.storage.snapshot_writer(&meta).ok();
                self.pass(SnapshotJob::Begin { transfer, to })?;
            }
            Job::Stage { transfer, step } => self.pass(SnapshotJob::Step { transfer, step })?,
            Job::Snapshot(job) => self.pass(job)?,
            Job::Read { answer } => {
                let reader = self.storage.snapshot_reader();
                answer(
                    reader
                        .map_err(FatalError::from)
                        .and_then(|found| found.ok_or(FatalError::SnapshotMissing)),
                );
            }
        }
        Ok(())
    }

    /// Passes on what would keep the log waiting.
    fn pass(&mut self, job: SnapshotJob) -> Result<(), FatalError> {
        let ended = FatalError::Ended { thread: SNAPSHOT_THREAD };
        let to = match &self.snapshots {
            Some(to) => to,
            None => {
                let (to, jobs) = mpsc::channel::<SnapshotJob>();
                let (shared, guard) = (Arc::clone(&self.shared), Arc::clone(&self.guard));
                let run = move || {
                    let mut snapshots = Snapshots::default();
                    while let Ok(job) = jobs.recv() {
                        if let Some(input) = snapshots.work(job) {
                            shared.put(input);
                        }
                    }
                    drop(snapshots);
                    drop(guard);
                };
                if thread::Builder::new().name(SNAPSHOT_THREAD.into()).spawn(run).is_err() {
                    return Err(ended);
                }
                self.snapshots.insert(to)
            }
        };
        to.send(job).map_err(|_| ended)
    }
}
