//! Threads for reads that may wait for a disk or look at many entries.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most reads of each kind that wait for a thread.
const READS_MAX: usize = 1024;
/// The threads of each kind. Two, so that one read that waits for a disk, or a long page of one caller, does
/// not delay all others.
const THREADS: usize = 2;
/// What is added to the nice value of the threads of long reads: a third of the weight of another thread.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;
/// The time that the end of a node waits for the reads in progress. A page is read in some milliseconds; only
/// a disk that does not answer takes longer.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A read that leaves its result in an inbox.
pub(crate) type Read = Box<dyn FnOnce() + Send>;

/// How much a read looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// One key: it waits for a disk at most.
    Short,
    /// Many entries: it takes a processor for milliseconds.
    Long,
}

/// The read was refused: too many wait already, or the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Carries out reads outside of the event loop.
pub(crate) trait Readers: Send + Sync {
    /// Takes a read and returns at once.
    fn read(&self, length: Length, read: Read) -> Result<(), Full>;
}

/// Readers on threads of their own, which start with the first read and end with the last handle. Clones
/// share the threads.
///
/// The threads of long reads have a lower priority than the others, on Linux: where processors are scarce, a
/// caller that reads all keys over and over takes what is left, and writes do not wait for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReaderThreads(Arc<Handle>);

/// Dropped with the last clone: the threads hold the queue alone.
#[derive(Debug, Default)]
struct Handle(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Notified when a short read comes, and a long one.
    filled: [Condvar; 2],
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The short reads, and the long ones.
    reads: [VecDeque<Read>; 2],
    /// Threads that run, for each kind.
    threads: [usize; 2],
    is_closed: bool,
}

impl Queue {
    /// Whether a thread runs.
    fn runs(&self) -> bool {
        self.threads != [0, 0]
    }
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
        let ended = shared.ended.wait_timeout_while(shared.lock(), limit, |queue| queue.runs());
        !ended.unwrap_or_else(PoisonError::into_inner).0.runs()
    }
}

impl Readers for ReaderThreads {
    fn read(&self, length: Length, read: Read) -> Result<(), Full> {
        let (shared, number) = (&self.0.0, length as usize);
        let mut queue = shared.lock();
        if queue.is_closed || queue.reads[number].len() >= READS_MAX {
            return Err(Full);
        }
        // The first read, or the first one after no thread could be started.
        if queue.threads[number] == 0 {
            for _ in 0..THREADS {
                let of_thread = Running(Arc::clone(shared), length);
                let thread = std::thread::Builder::new().name("x0-kv read".into());
                // A thread that does not start drops `Running`, which locks the queue: not under the lock.
                queue.threads[number] += 1;
                drop(queue);
                let _ = thread.spawn(move || of_thread.0.run(of_thread.1));
                queue = shared.lock();
            }
            if queue.threads[number] == 0 || queue.is_closed {
                return Err(Full);
            }
        }
        queue.reads[number].push_back(read);
        drop(queue);
        shared.filled[number].notify_one();
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
    fn run(&self, length: Length) {
        if length == Length::Long {
            give_way();
        }
        let number = length as usize;
        loop {
            let idle = |queue: &mut Queue| queue.reads[number].is_empty() && !queue.is_closed;
            let queue = self.filled[number].wait_while(self.lock(), idle);
            let read = queue.unwrap_or_else(PoisonError::into_inner).reads[number].pop_front();
            let Some(read) = read else { return };
            // A read that panics gives no answer, and must not take the thread from the next ones.
            let _ = catch_unwind(AssertUnwindSafe(read));
        }
    }

    /// Ends the threads after the reads that have begun.
    fn stop(&self) {
        let not_begun = {
            let mut queue = self.lock();
            queue.is_closed = true;
            std::mem::take(&mut queue.reads)
        };
        for filled in &self.filled {
            filled.notify_all();
        }
        // Outside of the lock: a read holds views of the state, whose drop takes a while.
        drop(not_begun);
    }
}

/// Lowers the priority of this thread below that of the event loop.
fn give_way() {
    // A priority is that of a thread on Linux, and that of the whole process elsewhere (setpriority(2)).
    #[cfg(target_os = "linux")]
    {
        // Where it is not permitted the thread has the priority of the others.
        let _ = rustix::process::nice(NICE);
    }
}

/// A thread that runs, until it is dropped: at the end of the thread.
struct Running(Arc<Shared>, Length);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().threads[self.1 as usize] -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A read that waits until the sender is dropped, and has begun.
    fn waiting(readers: &ReaderThreads, length: Length) -> Sender<()> {
        let (go, wait) = channel::<()>();
        let (begun, is_begun) = channel();
        let read = move || {
            begun.send(()).unwrap();
            wait.recv().unwrap_or(());
        };
        readers.read(length, Box::new(read)).unwrap();
        is_begun.recv().unwrap();
        go
    }

    #[test]
    fn a_read_that_waits_does_not_delay_others_and_the_queue_is_bounded() {
        for length in [Length::Short, Length::Long] {
            let readers = ReaderThreads::default();
            let (done, results) = channel();
            let go = waiting(&readers, length);
            let sender = done.clone();
            readers.read(length, Box::new(move || sender.send("other").unwrap())).unwrap();
            assert_eq!(results.recv(), Ok("other"));
            // The second thread too, then the queue.
            let go_too = waiting(&readers, length);
            for _ in 0..READS_MAX {
                let sender = done.clone();
                readers.read(length, Box::new(move || sender.send("queued").unwrap())).unwrap();
            }
            assert_eq!(readers.read(length, Box::new(|| {})), Err(Full));
            // Long reads do not delay short ones, and the reverse.
            let other = if length == Length::Short { Length::Long } else { Length::Short };
            let (sender, result) = channel();
            readers.read(other, Box::new(move || sender.send(()).unwrap())).unwrap();
            assert_eq!(result.recv(), Ok(()));
            drop((go, go_too, done));
            assert_eq!(results.iter().count(), READS_MAX);
        }
    }

    #[test]
    fn a_close_waits_for_the_reads_that_have_begun_and_drops_the_others() {
        assert!(ReaderThreads::default().close(), "without a read there is no thread");
        let readers = ReaderThreads::default();
        let held = Arc::new(());
        let (go, go_too) = (waiting(&readers, Length::Short), waiting(&readers, Length::Short));
        let (go_long, go_long_too) = (waiting(&readers, Length::Long), waiting(&readers, Length::Long));
        for length in [Length::Short, Length::Long] {
            let of_read = Arc::clone(&held);
            readers.read(length, Box::new(move || drop(of_read))).unwrap();
        }
        assert!(!readers.close_within(Duration::from_millis(1)), "four reads are in progress");
        assert_eq!(Arc::strong_count(&held), 1, "a read that has not begun is dropped");
        assert_eq!(readers.read(Length::Short, Box::new(|| {})), Err(Full));
        drop((go, go_too));
        assert!(!readers.close_within(Duration::from_millis(1)), "two reads are in progress");
        drop((go_long, go_long_too));
        assert!(readers.close());
    }

    #[test]
    fn a_panic_of_a_read_leaves_threads_for_the_next_ones() {
        let readers = ReaderThreads::default();
        for length in [Length::Short, Length::Long] {
            for _ in 0..2 * THREADS {
                let (done, result) = channel::<()>();
                readers
                    .read(
                        length,
                        Box::new(move || {
                            let _done = done;
                            panic!("a read panics, as the test wants");
                        }),
                    )
                    .unwrap();
                assert!(result.recv().is_err());
            }
            let (done, result) = channel();
            readers.read(length, Box::new(move || done.send(()).unwrap())).unwrap();
            assert_eq!(result.recv(), Ok(()));
        }
    }

    /// Where processors are scarce, long reads give way.
    #[test]
    #[cfg(target_os = "linux")]
    fn long_reads_have_a_lower_priority() {
        let readers = ReaderThreads::default();
        let [short, long] = [Length::Short, Length::Long].map(|length| {
            let (sender, result) = channel();
            let read = move || sender.send(rustix::process::getpriority_process(None).unwrap()).unwrap();
            readers.read(length, Box::new(read)).unwrap();
            result.recv().unwrap()
        });
        let own = rustix::process::getpriority_process(None).unwrap();
        assert_eq!((short, long), (own, (own + NICE).min(19)));
    }
}
