//! The worker that owns the storage.

use std::collections::VecDeque;
use std::fmt;

use super::contain;
use super::event::FatalError;
use super::job::{Done, LogJob};
use crate::entry::SnapshotMeta;
use crate::storage::{ReadError, Storage, Write, WriteError};
use crate::telemetry::LogTelemetry;
use crate::trace::Traced;

/// Most writes that are made durable together.
const BATCH_MAX: usize = 1024;
const WORKER: &str = "log";

/// Carries out the [`LogJob`]s of an [`Executor`](super::Executor) on a [`Storage`].
///
/// The jobs are carried out in their order, one at a time. Consecutive writes become one [`Storage::write`],
/// that is, one synchronisation (group commit): the longer a synchronisation takes, the more writes wait and
/// share the next one.
///
/// # When the disk is full
/// A write that fails with [`WriteError::Full`] has changed nothing. The worker keeps it and all later
/// writes, reports [`Done::NoSpace`], and repeats them in their order at [`LogJob::Retry`]. Reads go on
/// meanwhile.
pub struct LogWorker<S> {
    storage: S,
    batch_max: usize,
    /// The batch of the current job.
    writes: Vec<Write>,
    /// Their entries that are traced.
    traced: Traced,
    /// Writes for which the disk had no space, and those after them, in their order.
    stalled: VecDeque<(u64, Write)>,
    telemetry: LogTelemetry,
}

impl<S: fmt::Debug> fmt::Debug for LogWorker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWorker").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl<S: Storage> LogWorker<S> {
    /// A worker on a storage that [`Executor::open`](super::Executor::open) has recovered.
    pub fn new(storage: S) -> LogWorker<S> {
        LogWorker {
            storage,
            batch_max: BATCH_MAX,
            writes: Vec::new(),
            traced: Traced::default(),
            stalled: VecDeque::new(),
            telemetry: LogTelemetry::new(),
        }
    }

    /// Limits the writes that are made durable together; 1024 unless set, at least 1.
    #[must_use]
    pub fn batch_max(mut self, batch_max: usize) -> LogWorker<S> {
        self.batch_max = batch_max.max(1);
        self
    }

    /// The storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The storage, to change it between two jobs.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Takes the first job from `jobs`, or the writes that stand first, and carries it out. `None` if there
    /// is no job.
    ///
    /// A storage that fails or panics gives [`Done::Failed`]; nothing of the batch is acknowledged then.
    pub fn work(&mut self, jobs: &mut VecDeque<LogJob>) -> Option<Done> {
        let job = jobs.pop_front()?;
        Some(contain(WORKER, || match job {
            LogJob::Write { number, write, .. } if !self.stalled.is_empty() => {
                // The storage lacks the writes before this one: entries would leave a gap.
                self.stalled.push_back((number, write));
                Ok(Done::Nothing)
            }
            LogJob::Write { number, write, traced } => {
                self.traced.extend(traced);
                self.write(number, write, jobs)
            }
            LogJob::Retry => self.retry(),
            LogJob::Fetch { range, len_max } => match self.storage.read(range, len_max) {
                Ok(entries) => Ok(Done::Fetched { entries }),
                // Damage in a log that was acknowledged is not repaired by asking again: a leader that cannot
                // read its log must not lead.
                Err(error @ ReadError::Corrupt { .. }) => Err(error.into()),
                // Entries that were compacted meanwhile are requested again, as a snapshot; others with the
                // next heartbeat.
                Err(_) => Ok(Done::Fetched { entries: Vec::new() }),
            },
            LogJob::OpenWriter { transfer, meta } => {
                Ok(Done::WriterOpened { transfer, to: self.storage.snapshot_writer(&meta) })
            }
            LogJob::OpenReader { meta } => self.open_reader(&meta),
        }))
    }

    fn write(&mut self, number: u64, write: Write, jobs: &mut VecDeque<LogJob>) -> Result<Done, FatalError> {
        let first = number;
        let mut last = number;
        self.writes.push(write);
        while self.writes.len() < self.batch_max
            && let Some(job) = jobs.pop_front()
        {
            match job {
                LogJob::Write { number, write, traced } => {
                    last = number;
                    self.traced.extend(traced);
                    self.writes.push(write);
                }
                other => {
                    jobs.push_front(other);
                    break;
                }
            }
        }
        self.write_batch(first, last)
    }

    /// Repeats the writes that wait for space.
    fn retry(&mut self) -> Result<Done, FatalError> {
        let mut done = Done::Nothing;
        while let Some((first, _)) = self.stalled.front() {
            let (first, mut last) = (*first, *first);
            while self.writes.len() < self.batch_max
                && let Some((number, write)) = self.stalled.pop_front()
            {
                last = number;
                self.writes.push(write);
            }
            done = self.write_batch(first, last)?;
            if let Done::NoSpace { .. } = done {
                // The batches before this one are durable: they are reported with the next success.
                break;
            }
        }
        Ok(done)
    }

    /// Writes the batch with the numbers from `first` to `last`, which are consecutive.
    fn write_batch(&mut self, first: u64, last: u64) -> Result<Done, FatalError> {
        let LogWorker { storage, writes, telemetry, stalled, traced, .. } = self;
        let span = traced.log_write(|| (writes.len(), writes.iter().map(|write| write.entries.len()).sum()));
        let written = telemetry.timed(writes, |writes| storage.write(writes));
        drop(span);
        traced.clear();
        match written {
            Ok(()) => {
                telemetry.size(storage.len_bytes());
                writes.clear();
                Ok(Done::Persisted { number: last })
            }
            Err(error @ WriteError::Full { .. }) => {
                for (number, write) in (first..).zip(writes.drain(..)).collect::<Vec<_>>().into_iter().rev() {
                    stalled.push_front((number, write));
                }
                Ok(Done::NoSpace { error })
            }
            Err(error) => {
                writes.clear();
                Err(error.into())
            }
        }
    }

    fn open_reader(&mut self, meta: &SnapshotMeta) -> Result<Done, FatalError> {
        let found = self.storage.snapshot_reader()?.filter(|found| found.meta().index == meta.index);
        Ok(Done::ReaderOpened { from: found.ok_or(FatalError::SnapshotMissing)? })
    }
}
