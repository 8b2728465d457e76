//! A thread that runs one worker, and its queue of jobs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::ended::EndGuard;
use super::start::OpenError;

/// The work of a thread: carries out the jobs that wait, and returns whether the thread goes on.
type Work<J> = Box<dyn FnMut(&mut VecDeque<J>) -> bool + Send>;

/// A thread and its queue of jobs. Dropped, it drops the jobs that have not begun, and the thread ends after
/// the one that has.
pub(super) struct Thread<J> {
    name: &'static str,
    queue: Arc<Queue<J>>,
    /// Moved to the thread when it starts.
    idle: Option<(Work<J>, EndGuard)>,
}

struct Queue<J> {
    jobs: Mutex<Jobs<J>>,
    filled: Condvar,
}

struct Jobs<J> {
    waiting: VecDeque<J>,
    is_stopping: bool,
}

impl<J> fmt::Debug for Thread<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<J: Send + 'static> Thread<J> {
    /// A thread that has not started. The guard is dropped after the work and all jobs.
    pub(super) fn new(
        name: &'static str,
        guard: EndGuard,
        work: impl FnMut(&mut VecDeque<J>) -> bool + Send + 'static,
    ) -> Thread<J> {
        let jobs = Mutex::new(Jobs { waiting: VecDeque::new(), is_stopping: false });
        let queue = Arc::new(Queue { jobs, filled: Condvar::new() });
        Thread { name, queue, idle: Some((Box::new(work), guard)) }
    }

    /// Starts the thread, unless it has started.
    ///
    /// # Errors
    /// When the system cannot start a thread. Jobs are never carried out then.
    pub(super) fn start(&mut self) -> Result<(), OpenError> {
        let Some((mut work, guard)) = self.idle.take() else { return Ok(()) };
        let queue = Arc::clone(&self.queue);
        let body = move || {
            let mut taken = VecDeque::new();
            while queue.take(&mut taken) && work(&mut taken) {}
            // The owner of `Ended` may open the storage and the state machine again at once: whatever holds
            // their files goes before the guard.
            drop((work, taken, queue));
            drop(guard);
        };
        let started = std::thread::Builder::new().name(self.name.into()).spawn(body);
        started.map(drop).map_err(|source| OpenError::Thread { thread: self.name, source })
    }

    /// Adds jobs, all of them before the thread sees the first: writes that wait together share one
    /// synchronisation.
    pub(super) fn push(&mut self, jobs: impl ExactSizeIterator<Item = J>) -> Result<(), OpenError> {
        if jobs.len() == 0 {
            return Ok(());
        }
        self.queue.lock().waiting.extend(jobs);
        self.queue.filled.notify_one();
        self.start()
    }
}

impl<J> Queue<J> {
    fn lock(&self) -> MutexGuard<'_, Jobs<J>> {
        // Nothing that can panic runs under this lock.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for jobs. `false` when the thread is to end.
    fn take(&self, taken: &mut VecDeque<J>) -> bool {
        let idle = |jobs: &mut Jobs<J>| jobs.waiting.is_empty() && !jobs.is_stopping;
        let jobs = self.filled.wait_while(self.lock(), idle);
        let mut jobs = jobs.unwrap_or_else(PoisonError::into_inner);
        taken.append(&mut jobs.waiting);
        !jobs.is_stopping
    }
}

impl<J> Drop for Thread<J> {
    fn drop(&mut self) {
        let not_begun = {
            let mut jobs = self.queue.lock();
            jobs.is_stopping = true;
            std::mem::take(&mut jobs.waiting)
        };
        self.queue.filled.notify_one();
        // Outside of the lock: a job holds readers and writers of snapshots, whose drop may touch the disk.
        drop(not_begun);
    }
}
