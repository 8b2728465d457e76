//! An executor with its workers, for an event loop.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};
use std::time::Duration;

use x0_identity::NodeId;

use super::apply_worker::ApplyWorker;
use super::completions::{Applier, Completions};
use super::ended::Ended;
use super::executor::{Effect, Executor};
use super::job::{Done, LogJob, SnapshotJob};
use super::start::OpenError;
use super::threads::{self, Errand, LOG_THREAD, Lazy, Way};
use crate::options::Options;
use crate::replica::{HandleError, Input, Replica, Status};
use crate::state_machine::StateMachine;
use crate::storage::Storage;

/// A batch of at most this many entries is applied on the event loop.
const INLINE_ENTRIES_MAX: usize = 256;
/// A batch of at most this many bytes of payload is applied on the event loop.
const INLINE_LEN_MAX: usize = 256 << 10;
/// Of more batches than this that wait together all are applied on the thread.
const INLINE_JOBS_MAX: usize = 4;

/// An [`Executor`] with its workers on threads, for an event loop that polls it in its own task.
///
/// It needs no runtime: any `Context` will do, and the owner keeps the timer of
/// [`poll_timeout`](Pump::poll_timeout) together with its other timers. The contract is that of the executor,
/// without the jobs:
///
/// 1. Feed [`handle`](Pump::handle).
/// 2. Call [`poll_output`](Pump::poll_output) until it is pending. The task is woken when a worker has a
///    result.
/// 3. Feed [`Input::Timeout`] once [`poll_timeout`](Pump::poll_timeout) has come.
///
/// # Where the workers run, and why
/// - The log has a thread. A synchronisation takes 0.1 ms on a good disk and seconds on a bad one, during
///   which the event loop must send heartbeats; so not even a single small write is synchronised on the event
///   loop. It costs one wake-up of the thread and one of the event loop. Messages that do not depend on the
///   write are out before the thread is woken.
/// - Small batches of entries (at most 256 entries and 256 KiB of payload, at most four batches together) are
///   applied on the event loop, in the same poll in which they are committed: a wake-up costs more than
///   applying them.
/// - Larger batches, restores, checkpoints and opening a snapshot happen on a thread, to which the state
///   machine is moved meanwhile.
/// - Snapshots are read, saved and staged on a thread of their own, so that neither the log nor applying
///   waits for them.
///
/// The last two threads are started when they are needed first.
///
/// Dropping the pump ends the threads as if the process were killed, without losing anything that was
/// acknowledged; [`ended`](Pump::ended) waits until the storage is closed.
#[derive(Debug)]
pub struct Pump {
    executor: Executor,
    log: Sender<LogJob>,
    snapshots: Lazy<SnapshotJob>,
    apply: Lazy<Errand>,
    /// Away while its thread has it.
    applier: Option<Applier>,
    completions: Arc<Completions>,
    /// For reuse.
    done: Vec<Done>,
    ended: Ended,
}

impl Pump {
    /// Recovers the storage and starts the log thread. `now` is the time of the owner's clock.
    ///
    /// # Errors
    /// When the storage cannot be recovered or read, does not fit the state machine, or the thread cannot be
    /// started. Nothing was changed.
    pub fn start(
        options: Options,
        mut storage: Box<dyn Storage>,
        machine: Box<dyn StateMachine>,
        now: Duration,
    ) -> Result<Pump, OpenError> {
        let executor = Executor::open(options, &mut *storage, &*machine, now)?;
        let completions = Arc::<Completions>::default();
        let (ended, guard) = Ended::new();
        let way = Way { completions: Arc::clone(&completions), guard };
        let log = threads::log(storage, way.clone())
            .map_err(|source| OpenError::Thread { thread: LOG_THREAD, source })?;
        Ok(Pump {
            executor,
            log,
            snapshots: threads::snapshots(way.clone()),
            apply: threads::apply(way),
            applier: Some(ApplyWorker::new(machine)),
            completions,
            done: Vec::new(),
            ended,
        })
    }

    /// As [`Executor::handle`].
    ///
    /// # Errors
    /// As [`Executor::handle`].
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        self.executor.handle(now, input)
    }

    /// As [`Executor::congested`].
    pub fn congested(&mut self, now: Duration, to: NodeId) {
        self.executor.congested(now, to);
    }

    /// The next effect. Pending when the pump waits for inputs, results or the time; the task is woken for
    /// results only.
    pub fn poll_output(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<Effect> {
        loop {
            if let Some(effect) = self.executor.poll_output() {
                return Poll::Ready(effect);
            }
            while let Some(job) = self.executor.log_jobs().pop_front() {
                // A thread that ended has reported why.
                let _ = self.log.send(job);
            }
            while let Some(job) = self.executor.snapshot_jobs().pop_front() {
                self.snapshots.send(job);
            }
            if self.apply_inline(now) {
                continue;
            }
            let mut done = std::mem::take(&mut self.done);
            let is_busy = self.completions.take(&mut done, &mut self.applier, cx.waker());
            for done in done.drain(..) {
                self.executor.complete(now, done);
            }
            self.done = done;
            if !is_busy {
                return Poll::Pending;
            }
        }
    }

    /// Applies the next batch here, or gives all that wait to the thread. Whether a batch was applied here.
    fn apply_inline(&mut self, now: Duration) -> bool {
        let jobs = self.executor.apply_jobs();
        let Some(front) = jobs.front() else { return false };
        let is_small = jobs.len() <= INLINE_JOBS_MAX && front.is_small(INLINE_ENTRIES_MAX, INLINE_LEN_MAX);
        match &mut self.applier {
            // It comes back with a wake-up.
            None => false,
            Some(applier) if is_small => {
                let Some(job) = jobs.pop_front() else { return false };
                let done = applier.work(job);
                self.executor.complete(now, done);
                true
            }
            applier @ Some(_) => {
                let jobs = std::mem::take(jobs);
                if let Some(applier) = applier.take() {
                    self.apply.send((applier, jobs));
                }
                false
            }
        }
    }

    /// When [`Input::Timeout`] is due. `None` after a failure.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.executor.poll_timeout()
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        self.executor.replica()
    }

    /// As [`Executor::is_failed`].
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.executor.is_failed()
    }

    /// As [`Executor::refresh`].
    pub fn refresh(&mut self, status: &mut Status) {
        self.executor.refresh(status);
    }

    /// Waits for the end of the pump: it has been dropped, its threads have stopped and its storage is
    /// closed.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }
}
