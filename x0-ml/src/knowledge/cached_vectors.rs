//! The embedding cache as the source of exact vectors.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, PoisonError, RwLock};

use crate::chunk::ChunkId;
use crate::embed::{EmbeddingCache, read_vector};
use crate::file::{Folder, OpenFile};
use crate::index::{SourceError, VectorId, VectorSource};

/// Reads the vectors of indexed chunks from the file of the cache, on any thread.
///
/// The base notes a chunk before the index can return it, and forgets it with the publication of a version
/// that does not hold it. A query under the lock of the base sees the newest version. A search without it,
/// which began before the publication, can meet a chunk that is forgotten; it is an error then.
pub(super) struct CachedVectors {
    name: &'static str,
    state: RwLock<State>,
    /// Chunks whose record could not be read.
    lost: Mutex<BTreeSet<VectorId>>,
}

#[derive(Default)]
struct State {
    /// The file of one generation, which stays readable after another file took its name.
    file: Option<Box<dyn OpenFile>>,
    generation: u64,
    /// Chunks, and the places of their records in the file; [`NOWHERE`] if it has none.
    records: HashMap<VectorId, (ChunkId, usize)>,
}

/// A place at which nothing is read.
const NOWHERE: usize = usize::MAX;

impl CachedVectors {
    /// A source without vectors, which reads the file `name`.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, state: RwLock::default(), lost: Mutex::default() }
    }

    /// Notes chunks and the places of their records. Returns how many the cache lacks.
    pub(super) fn note(
        &self,
        cache: &EmbeddingCache,
        chunks: impl IntoIterator<Item = (VectorId, ChunkId)>,
    ) -> usize {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Places in another file are found when this one is opened.
        let is_same = state.generation == cache.generation();
        let place = |(id, chunk): (VectorId, ChunkId)| match cache.record(&chunk) {
            Some(record) => {
                state.records.insert(id, (chunk, if is_same { record } else { NOWHERE }));
                0
            }
            None => 1,
        };
        chunks.into_iter().map(place).sum()
    }

    /// Forgets all chunks.
    pub(super) fn clear(&self) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).records = HashMap::new();
    }

    /// Chunks noted.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).records.len()
    }

    /// Forgets chunks that left the index.
    pub(super) fn forget(&self, ids: &[VectorId]) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            state.records.remove(id);
        }
    }

    /// Opens the file again if the cache has replaced it, where records have other places.
    pub(super) fn follow(&self, cache: &EmbeddingCache, folder: &mut dyn Folder) -> io::Result<()> {
        let is_same = |state: &State| state.file.is_some() && state.generation == cache.generation();
        if is_same(&self.state.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let file = folder.open(self.name)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.records.values_mut().for_each(|(chunk, record)| {
            // A record that was damaged is not in the new file, and a read finds that.
            *record = cache.record(chunk).unwrap_or(NOWHERE);
        });
        (state.file, state.generation) = (Some(file), cache.generation());
        Ok(())
    }

    /// A chunk whose vector could not be read by a query.
    pub(super) fn take_lost(&self) -> Option<VectorId> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }
}

impl VectorSource for CachedVectors {
    fn read(&self, id: VectorId, vector: &mut [f32]) -> Result<(), SourceError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let found = state.file.as_ref().zip(state.records.get(&id));
        let read = match found {
            Some((file, (chunk, record))) => read_vector(&**file, self.name, *record, chunk, vector)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no record of this chunk is known")),
        };
        read.map_err(|source| {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            SourceError { id, source }
        })
    }
}
