//! The seam of vector indexes.

use std::fmt;
use std::sync::Arc;

use super::rerank::SourceError;
use super::vector::{DIMENSIONS_MAX, Metric, Neighbour, VectorId};
use crate::file::Damage;

/// A filter: which vectors a search may return.
pub type Filter<'a> = &'a (dyn Fn(VectorId) -> bool + Sync);

/// A search for the `k` nearest vectors.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Search<'a> {
    /// The vector to be near to.
    pub query: &'a [f32],
    /// Vectors to return at most.
    pub k: usize,
    /// Returns only vectors that pass it; applied before the nearest are chosen.
    pub filter: Option<Filter<'a>>,
    /// Candidates of a graph walk, at least [`k`](Self::k); `None`: the index's own setting. More give a
    /// better recall and take longer. Of a walk of an [`HnswIndex`](super::HnswIndex), the best `4 * k`
    /// candidates, or all if there are fewer, are ranked by their exact vectors.
    pub effort: Option<usize>,
}

impl<'a> Search<'a> {
    /// The `k` nearest vectors to `query`.
    #[must_use]
    pub fn new(query: &'a [f32], k: usize) -> Self {
        Self { query, k, filter: None, effort: None }
    }

    /// Restricts the search to vectors that pass.
    #[must_use]
    pub fn filter(mut self, filter: Filter<'a>) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Sets the candidates of a graph walk.
    #[must_use]
    pub fn effort(mut self, candidates: usize) -> Self {
        self.effort = Some(candidates);
        self
    }
}

impl fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("dimensions", &self.query.len())
            .field("k", &self.k)
            .field("filtered", &self.filter.is_some())
            .field("effort", &self.effort)
            .finish()
    }
}

/// Searches the version of an index that was published last.
///
/// A search never waits for the writer, and sees one version: all changes before a [`VectorIndex::publish`]
/// or none of them.
pub trait VectorReader: Send + Sync {
    /// The nearest vectors, the nearest first; equal scores in the order of their numbers.
    ///
    /// # Errors
    /// [`SearchError`].
    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError>;

    /// Vectors in this version.
    fn len(&self) -> usize;

    /// Whether this version is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Makes the bytes of an index as it was: see [`VectorIndex::freeze`].
pub type Frozen = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// A set of vectors with numbers, searched by nearness. One writer changes it.
///
/// # Contract
/// - `insert` with a known number replaces the vector; `search` and `len` on the index itself see every
///   change at once, readers see it after `publish`.
/// - A removed vector is not returned again and takes no part in later searches.
/// - Vectors with components that are not finite are refused, and nothing changes.
/// - `restore(save())` gives an index that returns what the saved one returned. Damaged bytes are an error,
///   and the index keeps what it held.
pub trait VectorIndex: Send + Sync {
    /// Components of a vector.
    fn dimensions(&self) -> usize;

    /// How vectors are compared.
    fn metric(&self) -> Metric;

    /// Vectors held.
    fn len(&self) -> usize;

    /// Whether no vector is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a vector of this number is held.
    fn contains(&self, id: VectorId) -> bool;

    /// Adds a vector, or replaces the one of this number.
    ///
    /// # Errors
    /// [`InsertError`]; nothing changed.
    fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError>;

    /// Removes a vector; `false` if there was none.
    fn remove(&mut self, id: VectorId) -> bool;

    /// The nearest vectors, the nearest first; equal scores in the order of their numbers.
    ///
    /// # Errors
    /// [`SearchError`].
    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError>;

    /// Makes the changes so far visible to readers.
    fn publish(&mut self);

    /// A handle that searches beside the writer.
    fn reader(&self) -> Arc<dyn VectorReader>;

    /// The index as the bytes of a file.
    fn save(&self) -> Vec<u8>;

    /// The bytes of [`save`](Self::save) as they are now, made when the function is called, on any thread.
    /// The provided method makes them at once.
    fn freeze(&self) -> Frozen {
        let bytes = self.save();
        Box::new(move || bytes)
    }

    /// Replaces what is held by what [`save`](Self::save) wrote, and publishes it.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing changed.
    fn restore(&mut self, file: &[u8]) -> Result<(), RestoreError>;
}

/// Options of an index contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the index cannot be made: {reason}; change its options")]
pub struct OptionsError {
    /// The contradiction.
    pub reason: &'static str,
}

/// A vector was not inserted. The index is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InsertError {
    /// The vector has another number of components.
    #[error(
        "a vector of {found} components does not fit an index of {expected}; use the embedder that the index was made for"
    )]
    Dimensions {
        /// The index's.
        expected: usize,
        /// The vector's.
        found: usize,
    },
    /// A component is infinite or not a number.
    #[error("component {component} of the vector is not finite; fix the embedder")]
    NotFinite {
        /// Place of the component.
        component: usize,
    },
    /// A vector of length zero under [`Metric::Cosine`], or one whose length is not finite.
    #[error(
        "a vector of length zero, or of one that is not finite, has no direction; leave it out or use another metric"
    )]
    NoDirection,
    /// The index holds as many vectors as it can number.
    #[error("the index is full: it holds {len} vectors; divide the collection")]
    Full {
        /// Vectors held.
        len: usize,
    },
}

/// A search failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The query is not a vector that the index could hold.
    #[error("the query is not usable")]
    Query(#[source] InsertError),
    /// A vector could not be read for the exact ranking.
    #[error("the search ended without a result; search again, or use `Rerank::Memory`")]
    Source(#[source] SourceError),
}

/// A file was not restored. The index is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are damaged.
    #[error("the index file is not usable; build the index again from its vectors")]
    Damaged(#[source] Damage),
    /// The file is whole, and was made with other settings.
    #[error("the index file was made with another {setting}; build the index again from its vectors")]
    Options {
        /// The setting.
        setting: &'static str,
    },
}

impl From<Damage> for RestoreError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// Checks the components of a vector or query.
pub(super) fn check(dimensions: usize, vector: &[f32]) -> Result<(), InsertError> {
    if vector.len() != dimensions {
        return Err(InsertError::Dimensions { expected: dimensions, found: vector.len() });
    }
    vector
        .iter()
        .position(|component| !component.is_finite())
        .map_or(Ok(()), |component| Err(InsertError::NotFinite { component }))
}

pub(super) fn check_dimensions(dimensions: usize) -> Result<(), OptionsError> {
    if dimensions == 0 || dimensions > DIMENSIONS_MAX {
        return Err(OptionsError { reason: "`dimensions` is 0 or above DIMENSIONS_MAX" });
    }
    Ok(())
}

/// The order of results: descending score, then ascending number.
pub(super) fn rank(found: &mut Vec<Neighbour>, k: usize) {
    found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    found.truncate(k);
}
