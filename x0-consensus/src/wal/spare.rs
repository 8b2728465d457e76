//! Files for the next segments, created before they are needed.
//!
//! A synchronisation costs a quarter less when the blocks of the file were written before: the file system
//! has no metadata to change. So a segment is filled with zeros once, and used again when the head of the log
//! is removed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::directory::{Directory, DirectoryFile};

use super::names;

/// The most spare files; further ones are removed.
pub(crate) const SPARES_MAX: usize = 4;

/// Zeros are written and synchronised in steps of this many bytes, so that a synchronisation of the log never
/// waits for a whole segment.
const STEP_LEN: u64 = 1 << 20;

/// The spare files, by their numbers.
#[derive(Default)]
pub(crate) struct Spares {
    ready: Vec<u64>,
    number_next: u64,
    preparation: Option<Preparation>,
}

/// A thread that creates a spare file.
struct Preparation {
    number: u64,
    thread: Option<JoinHandle<io::Result<()>>>,
    stop: Arc<AtomicBool>,
}

/// Creates a file of zeros, durably, its name included. An error leaves no file.
fn make(directory: &dyn Directory, number: u64, len: u64, stop: &AtomicBool) -> io::Result<()> {
    let name = names::spare(number);
    let partial = names::partial(&name, 0);
    let made = (|| {
        let mut file = directory.create(&partial)?;
        // The zeros are durable before the name: a file with the name of a spare has its full length, so that
        // a batch in it never needs space.
        fill(&mut *file, len, stop)?;
        directory.rename(&partial, &name)?;
        directory.sync()
    })();
    if made.is_err() {
        // Opening the log removes an incomplete file, too; but its space is needed now.
        let _ = directory.remove(&partial);
    }
    made
}

fn fill(file: &mut dyn DirectoryFile, len: u64, stop: &AtomicBool) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(len.min(STEP_LEN)).unwrap_or(0)];
    let mut offset = 0;
    while offset < len {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let step = usize::try_from((len - offset).min(STEP_LEN)).unwrap_or(0);
        // Written, and not only allocated: an allocated block is marked as unwritten, and the first write to
        // it changes metadata, which the next synchronisation of the log would have to write as well.
        file.write_at(offset, &zeros[..step])?;
        file.sync()?;
        offset += step as u64;
    }
    Ok(())
}

impl Spares {
    /// Adds a complete file of the usual length whose name is durable.
    pub(crate) fn add(&mut self, number: u64) {
        self.ready.push(number);
        self.number_next = self.number_next.max(number.saturating_add(1));
    }

    /// An unused number.
    pub(crate) fn number(&mut self) -> u64 {
        let number = self.number_next;
        self.number_next = number.saturating_add(1);
        number
    }

    /// Whether there are enough files with `more` further ones.
    pub(crate) fn is_full_with(&self, more: usize) -> bool {
        self.ready.len() + more >= SPARES_MAX
    }

    /// Starts a thread that creates a file, unless there is one.
    pub(crate) fn prepare(&mut self, directory: &Arc<dyn Directory>, len: u64) {
        if !self.ready.is_empty() || self.preparation.is_some() {
            return;
        }
        let number = self.number();
        let stop = Arc::new(AtomicBool::new(false));
        let (directory, stop_seen) = (Arc::clone(directory), Arc::clone(&stop));
        let thread = Builder::new()
            .name("x0-wal-spare".to_owned())
            .spawn(move || make(&*directory, number, len, &stop_seen));
        // Without a thread the file is created when it is needed.
        self.preparation = thread.ok().map(|thread| Preparation { number, thread: Some(thread), stop });
    }

    /// Takes a file, and waits for the thread if it creates one. A failure of the thread is ignored here: the
    /// caller creates a file itself and gets the same error.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if let Some(number) = self.ready.pop() {
            return Some(number);
        }
        let mut preparation = self.preparation.take()?;
        // Waiting is shorter than a second file would take, and two writers would slow each other.
        let made = preparation.thread.take()?.join();
        matches!(made, Ok(Ok(()))).then_some(preparation.number)
    }

    /// Creates a file of this length now.
    pub(crate) fn make(&mut self, directory: &dyn Directory, len: u64) -> io::Result<u64> {
        let number = self.number();
        make(directory, number, len, &AtomicBool::new(false)).map(|()| number)
    }
}

impl Drop for Preparation {
    /// Stops the thread: the lock of the folder is released with the log, and nothing may write to the folder
    /// after that.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
