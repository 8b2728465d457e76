//! The workers of an executor on threads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::apply_worker::ApplyWorker;
use super::completions::Completions;
use super::ended::{EndGuard, Ended};
use super::event::FatalError;
use super::executor::Executor;
use super::job::{ApplyJob, Done, LogJob, SnapshotJob};
use super::log_worker::LogWorker;
use super::snapshot_worker::SnapshotWorker;
use super::start::OpenError;
use super::threads::Thread;
use crate::state_machine::StateMachine;
use crate::storage::Storage;

/// A batch of at most this many entries is applied on the event loop.
const INLINE_ENTRIES_MAX: usize = 64;
/// A batch of at most this many bytes of payload is applied on the event loop.
const INLINE_LEN_MAX: usize = 64 << 10;

type Applier = ApplyWorker<Box<dyn StateMachine>>;

/// The workers of an [`Executor`], each on a thread of its own, for an event loop.
///
/// 1. After the executor's [`poll_output`](Executor::poll_output) has returned `None`, pass the executor to
///    [`take_jobs`](ThreadWorkers::take_jobs).
/// 2. Pass each result of [`poll_done`](ThreadWorkers::poll_done) to [`complete`](Executor::complete), and
///    poll the outputs again. The task is woken when a thread has a result.
///
/// A [`Pump`](super::Pump) does both. An event loop that exchanges the workers in a simulator, as that of
/// x0-kv does, uses them directly.
///
/// # Where the workers run, and why
/// - The log has a thread. A synchronisation takes 0.1 ms on a good disk and seconds on a bad one, during
///   which the event loop must send heartbeats; so not even a single small write is synchronised on the event
///   loop. It costs one wake-up of the thread and one of the event loop; none of the event loop when nothing
///   follows from the write before another member acknowledges it. Messages that do not depend on the write
///   are out before the thread is woken.
/// - A small batch of entries (at most 64 entries and 64 KiB of payload) is applied on the event loop if the
///   state machine [permits it](StateMachine::can_apply_inline), in the same poll in which it is committed: a
///   wake-up costs more than applying it.
/// - Larger batches, restores, checkpoints and opening a snapshot happen on a thread. Batches that are
///   committed meanwhile follow them there, so that entries are applied in their order.
/// - Snapshots are read, saved and staged on a thread of their own, so that neither the log nor applying
///   waits for them.
///
/// The last two threads are started when they are needed first.
///
/// Dropping the workers ends the threads as if the process were killed, without losing anything that was
/// acknowledged; [`ended`](ThreadWorkers::ended) waits until the storage and the state machine are closed.
pub struct ThreadWorkers {
    log: Thread<LogJob>,
    apply: Thread<ApplyJob>,
    snapshots: Thread<SnapshotJob>,
    applier: Arc<Mutex<Applier>>,
    /// Jobs of the apply thread whose result has not been taken. While there are any, the next ones go to the
    /// thread as well: applied here, they would overtake.
    applying: usize,
    /// As the executor said when its jobs were taken last.
    can_wait_for_log: bool,
    completions: Arc<Completions>,
    /// For reuse.
    taken: Vec<Done>,
    ready: VecDeque<Done>,
    ended: Ended,
    /// The last field: fields are dropped in their order, and the end is reported only after the others.
    _guard: EndGuard,
}

impl fmt::Debug for ThreadWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadWorkers").field("applying", &self.applying).finish_non_exhaustive()
    }
}

impl ThreadWorkers {
    /// Starts the log thread, on a storage and a state machine that the executor was
    /// [opened](Executor::open) with.
    ///
    /// # Errors
    /// [`OpenError::Thread`] when the thread cannot be started.
    pub fn start(
        storage: Box<dyn Storage>,
        machine: Box<dyn StateMachine>,
    ) -> Result<ThreadWorkers, OpenError> {
        let (ended, guard) = Ended::new();
        let completions = Arc::<Completions>::default();
        let applier = Arc::new(Mutex::new(ApplyWorker::new(machine)));

        let (mut worker, results) = (LogWorker::new(storage), Arc::clone(&completions));
        let mut log = Thread::new("x0-log", guard.clone(), move |jobs| {
            // A storage that failed gets no further write: the state of its file is unknown.
            while let Some(done) = worker.work(jobs) {
                if !put(&results, done) {
                    return false;
                }
            }
            true
        });
        let (shared, results) = (Arc::clone(&applier), Arc::clone(&completions));
        let apply = Thread::new("x0-apply", guard.clone(), move |jobs: &mut VecDeque<ApplyJob>| {
            while let Some(job) = jobs.pop_front() {
                let done = lock(&shared).work(job);
                if !put(&results, done) {
                    return false;
                }
            }
            true
        });
        let (mut worker, results) = (SnapshotWorker::new(), Arc::clone(&completions));
        let snapshots = Thread::new("x0-snapshot", guard.clone(), move |jobs: &mut VecDeque<SnapshotJob>| {
            while let Some(job) = jobs.pop_front() {
                let done = worker.work(job);
                if !put(&results, done) {
                    return false;
                }
            }
            true
        });
        log.start()?;
        Ok(ThreadWorkers {
            log,
            apply,
            snapshots,
            applier,
            applying: 0,
            can_wait_for_log: false,
            completions,
            taken: Vec::new(),
            ready: VecDeque::new(),
            ended,
            _guard: guard,
        })
    }

    /// Takes the jobs of an executor and starts them. A job that is small enough is done when this returns.
    pub fn take_jobs(&mut self, executor: &mut Executor) {
        let log = self.log.push(executor.log_jobs().drain(..));
        let snapshots = self.snapshots.push(executor.snapshot_jobs().drain(..));
        let apply = self.apply(executor.apply_jobs());
        for error in [log, snapshots, apply].into_iter().filter_map(Result::err) {
            self.ready.extend(failure(error));
        }
        self.can_wait_for_log = executor.can_wait_for_log();
    }

    /// Applies small batches here, and gives the others to the thread.
    fn apply(&mut self, jobs: &mut VecDeque<ApplyJob>) -> Result<(), OpenError> {
        while self.applying == 0
            && let Some(job) = jobs.front()
            && job.is_small(INLINE_ENTRIES_MAX, INLINE_LEN_MAX)
            && let ApplyJob::Apply { entries, .. } = job
            // The thread holds the lock only while it has jobs.
            && let Ok(mut applier) = self.applier.try_lock()
            && applier.machine().can_apply_inline(entries)
            && let Some(job) = jobs.pop_front()
        {
            self.ready.push_back(applier.work(job));
        }
        self.applying += jobs.len();
        self.apply.push(jobs.drain(..))
    }

    /// The next result, for [`Executor::complete`]. Pending when there is none; the task is woken when a
    /// thread has one that [cannot wait](Executor::can_wait_for_log). Poll again after each input.
    pub fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if self.ready.is_empty() && self.completions.take(&mut self.taken, cx.waker(), self.can_wait_for_log)
        {
            self.applying -= self.taken.iter().filter(|done| is_of_apply(done)).count();
            self.ready.extend(self.taken.drain(..));
        }
        self.ready.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits for the end of the workers: they have been dropped, their threads have stopped, and the storage
    /// and the state machine are closed.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }
}

/// Reports a result. Whether the worker goes on.
fn put(completions: &Completions, done: Done) -> bool {
    let is_failed = matches!(done, Done::Failed(_));
    if !matches!(done, Done::Nothing) {
        completions.put(done);
    }
    !is_failed
}

/// A thread that did not start ends the replica.
fn failure(error: OpenError) -> Option<Done> {
    match error {
        OpenError::Thread { thread, source } => Some(Done::Failed(FatalError::Thread { thread, source })),
        _ => None,
    }
}

/// Whether a result is one of the apply worker. After `Failed` no result matters.
fn is_of_apply(done: &Done) -> bool {
    use Done::{Applied, Checkpointed, Restored, SnapshotOpened};
    matches!(done, Applied { .. } | Restored { .. } | Checkpointed { .. } | SnapshotOpened { .. })
}

fn lock(applier: &Mutex<Applier>) -> MutexGuard<'_, Applier> {
    // The worker catches panics of the state machine.
    applier.lock().unwrap_or_else(PoisonError::into_inner)
}
