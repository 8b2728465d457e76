//! The next segments' files, made ready before they are needed.
//!
//! A synchronisation costs a quarter less when the file's blocks were written before: nothing of the file
//! system's own has to change with the data. So segments are written full of zeros once, and used again when
//! the log's head is dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::directory::{Directory, DirectoryFile};

use super::names;

/// As many files are kept from dropped segments; more are removed.
pub(crate) const SPARES_MAX: usize = 4;

/// Zeros are written and synchronised in steps of this, so that the writes of the log beside it never wait
/// behind a whole segment.
const STEP_LEN: u64 = 1 << 20;

/// Segment files in waiting, by their numbers.
#[derive(Default)]
pub(crate) struct Spares {
    ready: Vec<u64>,
    number_next: u64,
    preparation: Option<Preparation>,
}

/// A thread that makes one.
struct Preparation {
    number: u64,
    thread: Option<JoinHandle<io::Result<()>>>,
    stop: Arc<AtomicBool>,
}

/// Writes a file of zeros, durably, its name included. Leaves nothing behind on an error.
fn make(directory: &dyn Directory, number: u64, len: u64, stop: &AtomicBool) -> io::Result<()> {
    let name = names::spare(number);
    let partial = names::partial(&name, 0);
    let made = (|| {
        let mut file = directory.create(&partial)?;
        fill(&mut *file, len, stop)?;
        directory.rename(&partial, &name)?;
        directory.sync()
    })();
    if made.is_err() {
        // Whatever is still there is removed when the log is opened next; the room is wanted now.
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
        file.write_at(offset, &zeros[..step])?;
        file.sync()?;
        offset += step as u64;
    }
    Ok(())
}

impl Spares {
    /// One of this number is there, whole, of the usual length, and its name is durable.
    pub(crate) fn add(&mut self, number: u64) {
        self.ready.push(number);
        self.number_next = self.number_next.max(number.saturating_add(1));
    }

    /// A number that none has.
    pub(crate) fn number(&mut self) -> u64 {
        let number = self.number_next;
        self.number_next = number.saturating_add(1);
        number
    }

    /// Whether these and so many more are enough.
    pub(crate) fn is_full_with(&self, more: usize) -> bool {
        self.ready.len() + more >= SPARES_MAX
    }

    /// Begins to make one on a thread of its own, if there is none.
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
        // Without a thread it is made when it is needed.
        self.preparation = thread.ok().map(|thread| Preparation { number, thread: Some(thread), stop });
    }

    /// Takes a ready one, waiting for the thread where one is at it. Failures ahead of need do not count: the
    /// need itself will meet them again.
    pub(crate) fn take(&mut self) -> Option<u64> {
        if let Some(number) = self.ready.pop() {
            return Some(number);
        }
        let mut preparation = self.preparation.take()?;
        let made = preparation.thread.take()?.join();
        matches!(made, Ok(Ok(()))).then_some(preparation.number)
    }

    /// Makes one of this length now.
    pub(crate) fn make(&mut self, directory: &dyn Directory, len: u64) -> io::Result<u64> {
        let number = self.number();
        make(directory, number, len, &AtomicBool::new(false)).map(|()| number)
    }
}

impl Drop for Preparation {
    /// The folder's lock goes with the log, so nobody may still write in it then.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
