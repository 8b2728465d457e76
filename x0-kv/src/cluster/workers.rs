//! Workers of the replica's jobs: log, state machine and snapshots.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use x0_consensus::driver::{
    ApplyJob, ApplyWorker, Done, Executor, LogJob, LogWorker, SnapshotJob, SnapshotWorker,
};
use x0_consensus::{FatalError, Storage};

use super::inbox::Inbox;
use crate::state::State;

/// Decides where the jobs of an executor run.
pub(crate) trait Workers: Send {
    /// Takes the jobs that can begin. A small job may be done when this returns.
    fn start(&mut self, executor: &mut Executor);

    /// The next result. `is_raised` says whether a thread may have added one since the last call.
    fn poll_done(&mut self, is_raised: bool) -> Option<Done>;
}

/// The most entries, and bytes of them, that are applied in the event loop's task.
const INLINE_ENTRIES_MAX: usize = 64;
const INLINE_LEN_MAX: usize = 64 << 10;

/// A thread for the log, one for the state machine and one for snapshots.
///
/// A small batch is applied in the event loop's task when the state needs no disk for it: that takes some
/// microseconds, less than to wake a thread.
pub(crate) struct ThreadWorkers {
    log: Worker<LogJob>,
    apply: Worker<ApplyJob>,
    snapshots: Worker<SnapshotJob>,
    machine: Arc<Mutex<ApplyWorker<State>>>,
    /// Jobs of the apply thread without a result yet. The state machine belongs to the thread meanwhile.
    applying: usize,
    done: Inbox<Done>,
    taken: Vec<Done>,
    ready: VecDeque<Done>,
}

impl ThreadWorkers {
    /// Starts the threads, on a storage that the executor was opened with.
    pub(crate) fn start(
        storage: Box<dyn Storage>,
        state: State,
        done: Inbox<Done>,
    ) -> Result<ThreadWorkers, FatalError> {
        let mut log = LogWorker::new(storage);
        let machine = Arc::new(Mutex::new(ApplyWorker::new(state)));
        let mut snapshots = SnapshotWorker::new();
        let results = done.clone();
        let log = Worker::start("x0-kv log", move |jobs| {
            while let Some(result) = log.work(jobs) {
                results.put(result);
            }
        })?;
        let (results, shared) = (done.clone(), Arc::clone(&machine));
        let apply = Worker::start("x0-kv apply", move |jobs| {
            while let Some(job) = jobs.pop_front() {
                let result = lock(&shared).work(job);
                results.put(result);
            }
        })?;
        let results = done.clone();
        let snapshots = Worker::start("x0-kv snapshot", move |jobs| {
            while let Some(job) = jobs.pop_front() {
                let result = snapshots.work(job);
                results.put(result);
            }
        })?;
        Ok(ThreadWorkers {
            log,
            apply,
            snapshots,
            machine,
            applying: 0,
            done,
            taken: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    fn apply(&mut self, job: ApplyJob) {
        // Order: nothing is applied here while the thread has jobs.
        if self.applying == 0
            && job.is_small(INLINE_ENTRIES_MAX, INLINE_LEN_MAX)
            && let ApplyJob::Apply { entries, .. } = &job
            && let Ok(mut machine) = self.machine.try_lock()
            && machine.machine().applies_in_memory(entries.iter().map(|entry| &entry.payload))
        {
            let result = machine.work(job);
            self.ready.push_back(result);
        } else {
            self.applying += 1;
            self.apply.push(std::iter::once(job));
        }
    }
}

impl Workers for ThreadWorkers {
    fn start(&mut self, executor: &mut Executor) {
        self.log.push(executor.log_jobs().drain(..));
        self.snapshots.push(executor.snapshot_jobs().drain(..));
        while let Some(job) = executor.apply_jobs().pop_front() {
            self.apply(job);
        }
    }

    fn poll_done(&mut self, is_raised: bool) -> Option<Done> {
        if is_raised && self.ready.is_empty() {
            self.done.take(&mut self.taken);
            self.applying -= self.taken.iter().filter(|done| is_of_apply(done)).count();
            self.ready.extend(self.taken.drain(..));
        }
        self.ready.pop_front()
    }
}

/// Whether a result is one of the apply worker. After `Failed` no result matters.
fn is_of_apply(done: &Done) -> bool {
    use Done::{Applied, Checkpointed, Restored, SnapshotOpened};
    matches!(done, Applied { .. } | Restored { .. } | Checkpointed { .. } | SnapshotOpened { .. })
}

/// A thread and its queue of jobs. Dropped, it drops the jobs that have not begun and waits for the one that
/// has.
struct Worker<J> {
    queue: Arc<Queue<J>>,
    thread: Option<JoinHandle<()>>,
}

struct Queue<J> {
    jobs: Mutex<Jobs<J>>,
    filled: Condvar,
}

struct Jobs<J> {
    waiting: VecDeque<J>,
    is_stopping: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The workers catch panics of the code that they call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<J: Send + 'static> Worker<J> {
    fn start(
        name: &'static str,
        mut work: impl FnMut(&mut VecDeque<J>) + Send + 'static,
    ) -> Result<Worker<J>, FatalError> {
        let jobs = Mutex::new(Jobs { waiting: VecDeque::new(), is_stopping: false });
        let queue = Arc::new(Queue { jobs, filled: Condvar::new() });
        let shared = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let mut taken = VecDeque::new();
            while shared.take(&mut taken) {
                work(&mut taken);
            }
        });
        let thread = thread.map_err(|source| FatalError::Thread { thread: name, source })?;
        Ok(Worker { queue, thread: Some(thread) })
    }

    fn push(&self, jobs: impl ExactSizeIterator<Item = J>) {
        if jobs.len() > 0 {
            lock(&self.queue.jobs).waiting.extend(jobs);
            self.queue.filled.notify_one();
        }
    }
}

impl<J> Queue<J> {
    /// Waits for jobs. `false` when the thread is to end.
    fn take(&self, taken: &mut VecDeque<J>) -> bool {
        let idle = |jobs: &mut Jobs<J>| jobs.waiting.is_empty() && !jobs.is_stopping;
        let jobs = self.filled.wait_while(lock(&self.jobs), idle);
        let mut jobs = jobs.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut jobs.waiting, taken);
        !jobs.is_stopping
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        let forgotten = {
            let mut jobs = lock(&self.queue.jobs);
            jobs.is_stopping = true;
            std::mem::take(&mut jobs.waiting)
        };
        drop(forgotten);
        self.queue.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has not panicked: the workers catch that.
            let _ = thread.join();
        }
    }
}
