//! Threads for reads that may wait for a disk or look at many entries.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The most reads that wait for a thread.
const READS_MAX: usize = 1024;
/// Two, so that a long page of one caller does not delay all others.
const THREADS: usize = 2;

/// A read that leaves its result in an inbox.
pub(crate) type Read = Box<dyn FnOnce() + Send>;

/// The read was refused: too many wait already.
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
pub(crate) struct ReaderThreads(Arc<OnceLock<SyncSender<Read>>>);

impl ReaderThreads {
    fn start() -> SyncSender<Read> {
        let (sender, reads) = sync_channel(READS_MAX);
        let reads = Arc::new(Mutex::new(reads));
        for _ in 0..THREADS {
            let reads = Arc::clone(&reads);
            // Without any thread the queue has no receiver, and reads are refused.
            let _ = std::thread::Builder::new().name("x0-kv read".into()).spawn(move || run(&reads));
        }
        sender
    }
}

fn run(reads: &Mutex<Receiver<Read>>) {
    loop {
        // The lock is held while a thread waits: the other one waits for the lock instead.
        let read = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(read) = read else { return };
        read();
    }
}

impl Readers for ReaderThreads {
    fn read(&self, read: Read) -> Result<(), Full> {
        match self.0.get_or_init(ReaderThreads::start).try_send(read) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_read_that_waits_does_not_delay_others_and_the_queue_is_bounded() {
        let readers = ReaderThreads::default();
        let (go, wait) = channel::<()>();
        let (done, results) = channel();
        readers.read(Box::new(move || wait.recv().unwrap_or(()))).unwrap();
        let sender = done.clone();
        readers.read(Box::new(move || sender.send("other").unwrap())).unwrap();
        assert_eq!(results.recv(), Ok("other"));
        // The second thread too, then the queue.
        let (go_too, wait_too) = channel::<()>();
        let (begun, is_begun) = channel();
        readers
            .read(Box::new(move || {
                begun.send(()).unwrap();
                wait_too.recv().unwrap_or(());
            }))
            .unwrap();
        is_begun.recv().unwrap();
        for _ in 0..READS_MAX {
            let sender = done.clone();
            readers.read(Box::new(move || sender.send("queued").unwrap())).unwrap();
        }
        assert_eq!(readers.read(Box::new(|| {})), Err(Full));
        drop((go, go_too, done));
        assert_eq!(results.iter().count(), READS_MAX);
    }
}
