//! Threads for reads that may wait for a disk or look at many entries.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most reads that wait for a thread.
const READS_MAX: usize = 1024;
/// Two, so that a long page of one caller does not delay all others.
const THREADS: usize = 2;
/// The time that the end of a node waits for the reads in progress. A page is read in some milliseconds; only
/// a disk that does not answer takes longer.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A read that leaves its result in an inbox.
pub(crate) type Read = Box<dyn FnOnce() + Send>;

/// The read was refused: too many wait already, or the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Carries out reads outside of the event loop.
pub(crate) trait Readers: Send + Sync {
    /// Takes a read and returns at once.
    fn read(&self, read: Read) -> Result<(), Full>;
}

/// Readers on threads of their own, which start with the first read and end with the last handle. Clones
/// share the threads.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReaderThreads(Arc<Handle>);

/// Dropped with the last clone: the threads hold the queue alone.
#[derive(Debug, Default)]
struct Handle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<Read>,
    /// Threads that run.
    threads: usize,
    is_closed: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl ReaderThreads {
    /// Takes no read any more, drops those that have not begun, and waits until the others have ended, so
    /// that none of them holds a file of the node. `false` when that takes longer than ten seconds.
    pub(crate) fn close(&self) -> bool {
        self.close_within(CLOSE_LIMIT)
    }

    fn close_within(&self, limit: Duration) -> bool {
        let shared = &self.0.0;
        shared.stop();
        let ended = shared.ended.wait_timeout_while(shared.lock(), limit, |queue| queue.threads > 0);
        ended.unwrap_or_else(PoisonError::into_inner).0.threads == 0
    }
}

impl Readers for ReaderThreads {
    fn read(&self, read: Read) -> Result<(), Full> {
        let shared = &self.0.0;
        let mut queue = shared.lock();
        if queue.is_closed || queue.reads.len() >= READS_MAX {
            return Err(Full);
        }
        // The first read, or the first one after a panic ended the threads.
        if queue.threads == 0 {
            for _ in 0..THREADS {
                let of_thread = Running(Arc::clone(shared));
                let thread = std::thread::Builder::new().name("x0-kv read".into());
                // A thread that does not start drops `Running`, which locks the queue: not under the lock.
                queue.threads += 1;
                drop(queue);
                let _ = thread.spawn(move || of_thread.0.run());
                queue = shared.lock();
            }
            if queue.threads == 0 || queue.is_closed {
                return Err(Full);
            }
        }
        queue.reads.push_back(read);
        drop(queue);
        shared.filled.notify_one();
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic runs under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work of a thread.
    fn run(&self) {
        loop {
            let idle = |queue: &mut Queue| queue.reads.is_empty() && !queue.is_closed;
            let queue = self.filled.wait_while(self.lock(), idle);
            let read = queue.unwrap_or_else(PoisonError::into_inner).reads.pop_front();
            let Some(read) = read else { return };
            read();
        }
    }

    /// Ends the threads after the reads that have begun.
    fn stop(&self) {
        let not_begun = {
            let mut queue = self.lock();
            queue.is_closed = true;
            std::mem::take(&mut queue.reads)
        };
        self.filled.notify_all();
        // Outside of the lock: a read holds views of the state, whose drop takes a while.
        drop(not_begun);
    }
}

/// A thread that runs, until it is dropped: at the end of the thread, also by a panic.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A read that waits until the sender is dropped, and has begun.
    fn waiting(readers: &ReaderThreads) -> Sender<()> {
        let (go, wait) = channel::<()>();
        let (begun, is_begun) = channel();
        let read = move || {
            begun.send(()).unwrap();
            wait.recv().unwrap_or(());
        };
        readers.read(Box::new(read)).unwrap();
        is_begun.recv().unwrap();
        go
    }

    #[test]
    fn a_read_that_waits_does_not_delay_others_and_the_queue_is_bounded() {
        let readers = ReaderThreads::default();
        let (done, results) = channel();
        let go = waiting(&readers);
        let sender = done.clone();
        readers.read(Box::new(move || sender.send("other").unwrap())).unwrap();
        assert_eq!(results.recv(), Ok("other"));
        // The second thread too, then the queue.
        let go_too = waiting(&readers);
        for _ in 0..READS_MAX {
            let sender = done.clone();
            readers.read(Box::new(move || sender.send("queued").unwrap())).unwrap();
        }
        assert_eq!(readers.read(Box::new(|| {})), Err(Full));
        drop((go, go_too, done));
        assert_eq!(results.iter().count(), READS_MAX);
    }

    #[test]
    fn a_close_waits_for_the_reads_that_have_begun_and_drops_the_others() {
        assert!(ReaderThreads::default().close(), "without a read there is no thread");
        let readers = ReaderThreads::default();
        let held = Arc::new(());
        let (go, go_too) = (waiting(&readers), waiting(&readers));
        let of_read = Arc::clone(&held);
        readers.read(Box::new(move || drop(of_read))).unwrap();
        assert!(!readers.close_within(Duration::from_millis(1)), "two reads are in progress");
        assert_eq!(Arc::strong_count(&held), 1, "a read that has not begun is dropped");
        assert_eq!(readers.read(Box::new(|| {})), Err(Full));
        drop((go, go_too));
        assert!(readers.close());
    }

    #[test]
    fn a_panic_of_a_read_leaves_threads_for_the_next_ones() {
        let readers = ReaderThreads::default();
        for _ in 0..2 * THREADS {
            let (done, result) = channel::<()>();
            readers
                .read(Box::new(move || {
                    let _done = done;
                    panic!("a read panics, as the test wants");
                }))
                .unwrap();
            assert!(result.recv().is_err());
        }
        let (done, result) = channel();
        // The last panic may still unwind its thread.
        while readers.0.0.lock().threads > 0 {
            std::thread::yield_now();
        }
        readers.read(Box::new(move || done.send(()).unwrap())).unwrap();
        assert_eq!(result.recv(), Ok(()));
    }
}
