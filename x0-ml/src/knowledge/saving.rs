//! Saves on another thread.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::snapshot::Snapshot;
use crate::chunk::ChunkId;
use crate::file::{Folder, IndexFile};
use crate::index::Frozen;
use crate::lexical::LexicalIndex;

/// The indexes of one moment.
pub(super) struct Saving {
    pub(super) name: &'static str,
    pub(super) fingerprint: [u8; 32],
    pub(super) catalogue: Vec<u8>,
    pub(super) vectors: Frozen,
    pub(super) lexical: LexicalIndex,
}

impl Saving {
    /// Writes the file; its length if it is durable.
    pub(super) fn write(self, folder: &mut dyn Folder) -> Option<usize> {
        let (vectors, lexical) = ((self.vectors)(), self.lexical.save());
        let file = Snapshot::new(self.fingerprint, &self.catalogue, &vectors, &lexical).encode();
        IndexFile::new(self.name).write(folder, &file).ok()?;
        Some(file.len())
    }
}

/// A save of a [`KnowledgeBase`](super::KnowledgeBase), to be run once, on any thread. One that is dropped
/// counts as failed.
pub struct SaveJob {
    saving: Saving,
    folder: Arc<Mutex<Box<dyn Folder>>>,
    done: Sender<Option<usize>>,
}

impl SaveJob {
    /// Makes the bytes of the indexes and writes them. The base learns of it in its next step.
    pub fn run(self) {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.saving.write(&mut **folder);
        // The base may be gone.
        let _ = self.done.send(written);
    }
}

impl std::fmt::Debug for SaveJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaveJob").finish_non_exhaustive()
    }
}

/// The way to other threads.
pub(super) struct Beside {
    folder: Arc<Mutex<Box<dyn Folder>>>,
    start: Mutex<Box<dyn FnMut(SaveJob) + Send>>,
}

impl Beside {
    pub(super) fn new(folder: Box<dyn Folder>, start: Box<dyn FnMut(SaveJob) + Send>) -> Self {
        Self { folder: Arc::new(Mutex::new(folder)), start: Mutex::new(start) }
    }

    pub(super) fn begin(&mut self, saving: Saving, withdrawn: HashSet<ChunkId>) -> Running {
        let (done, running) = channel();
        let start = self.start.get_mut().unwrap_or_else(PoisonError::into_inner);
        start(SaveJob { saving, folder: Arc::clone(&self.folder), done });
        Running { done: Mutex::new(running), withdrawn }
    }
}

/// A save that runs.
pub(super) struct Running {
    done: Mutex<Receiver<Option<usize>>>,
    /// Chunks that were withdrawn before it began.
    pub(super) withdrawn: HashSet<ChunkId>,
}

impl Running {
    /// The result; `None` while it runs.
    pub(super) fn poll(&mut self) -> Option<Option<usize>> {
        match self.done.get_mut().unwrap_or_else(PoisonError::into_inner).try_recv() {
            Ok(written) => Some(written),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(None),
        }
    }

    /// Waits for the result.
    pub(super) fn wait(&mut self) -> Option<usize> {
        self.done.get_mut().unwrap_or_else(PoisonError::into_inner).recv().unwrap_or_default()
    }
}
