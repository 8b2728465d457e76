//! Comparison with every vector.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::vector::{Metric, Neighbour, VectorId};
use super::vector_index::{
    InsertError, OptionsError, RestoreError, Search, SearchError, VectorIndex, VectorReader, check,
    check_dimensions, rank,
};
use crate::file::{SectionWriter, Sections, count32};
use crate::simd::Path;

const KIND: [u8; 8] = *b"X0MLEXA\0";
const VERSION: u32 = 1;
const SETTINGS: u32 = 1;
const IDS: u32 = 2;
const VECTORS: u32 = 3;

/// The exact index: it compares a query with every vector, in the order in which they lie in memory.
///
/// The index is correct by construction, which makes it the oracle of the tests, and is fast enough below
/// some thousand vectors.
pub struct ExactIndex {
    rows: Rows,
    published: Arc<Published>,
}

/// Vectors one after the other, with their numbers.
#[derive(Clone)]
pub(super) struct Rows {
    dimensions: usize,
    metric: Metric,
    path: Path,
    ids: Vec<VectorId>,
    vectors: Vec<f32>,
    row_of: HashMap<VectorId, usize>,
}

struct Published(ArcSwap<Rows>);

impl ExactIndex {
    /// An empty index.
    ///
    /// # Errors
    /// [`OptionsError`] if `dimensions` is 0 or above [`DIMENSIONS_MAX`](super::DIMENSIONS_MAX).
    pub fn new(dimensions: usize, metric: Metric) -> Result<Self, OptionsError> {
        let rows = Rows::new(dimensions, metric)?;
        let published = Arc::new(Published(ArcSwap::from_pointee(rows.clone())));
        Ok(Self { rows, published })
    }
}

impl fmt::Debug for ExactIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, dimensions) = (self.rows.ids.len(), self.rows.dimensions);
        f.debug_struct("ExactIndex").field("len", &len).field("dimensions", &dimensions).finish()
    }
}

impl Rows {
    pub(super) fn new(dimensions: usize, metric: Metric) -> Result<Self, OptionsError> {
        check_dimensions(dimensions)?;
        let (path, row_of) = (Path::detect(), HashMap::new());
        Ok(Self { dimensions, metric, path, ids: Vec::new(), vectors: Vec::new(), row_of })
    }

    pub(super) fn contains(&self, id: VectorId) -> bool {
        self.row_of.contains_key(&id)
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.vectors[row * self.dimensions..][..self.dimensions]
    }

    pub(super) fn score(&self, query: &[f32], vector: &[f32]) -> f32 {
        let dot = self.path.dot_f32(query, vector);
        match self.metric {
            Metric::InnerProduct => dot,
            Metric::Cosine => {
                dot / (self.path.dot_f32(query, query).sqrt() * self.path.dot_f32(vector, vector).sqrt())
            }
            Metric::L2 => 2.0 * dot - self.path.dot_f32(query, query) - self.path.dot_f32(vector, vector),
        }
    }

    pub(super) fn check(&self, vector: &[f32]) -> Result<(), InsertError> {
        check(self.dimensions, vector)?;
        let square = self.path.dot_f32(vector, vector);
        if !square.is_finite() || (self.metric == Metric::Cosine && square == 0.0) {
            return Err(InsertError::NoDirection);
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError> {
        self.check(vector)?;
        if let Some(row) = self.row_of.get(&id) {
            self.vectors[row * self.dimensions..][..self.dimensions].copy_from_slice(vector);
        } else {
            self.row_of.insert(id, self.ids.len());
            self.ids.push(id);
            self.vectors.extend_from_slice(vector);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, id: VectorId) -> bool {
        let Some(row) = self.row_of.remove(&id) else { return false };
        self.ids.swap_remove(row);
        let last = self.ids.len();
        self.vectors.copy_within(last * self.dimensions.., row * self.dimensions);
        self.vectors.truncate(last * self.dimensions);
        if let Some(moved) = self.ids.get(row) {
            self.row_of.insert(*moved, row);
        }
        true
    }

    pub(super) fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.check(search.query).map_err(SearchError::Query)?;
        let mut found: Vec<Neighbour> = self
            .ids
            .iter()
            .enumerate()
            .filter(|(_, id)| search.filter.is_none_or(|passes| passes(**id)))
            .map(|(row, id)| Neighbour { id: *id, score: self.score(search.query, self.row(row)) })
            .collect();
        rank(&mut found, search.k);
        Ok(found)
    }

    pub(super) fn save(&self, kind: [u8; 8]) -> Vec<u8> {
        let mut file = SectionWriter::new(kind, VERSION);
        let settings = [self.metric.code(), count32(self.dimensions)];
        file.section(SETTINGS, settings.iter().flat_map(|number| number.to_le_bytes()).collect());
        file.section(IDS, self.ids.iter().flat_map(|id| id.0.to_le_bytes()).collect());
        file.section(VECTORS, self.vectors.iter().flat_map(|number| number.to_le_bytes()).collect());
        file.finish()
    }

    /// Rows from the bytes of [`save`](Self::save), with the settings of these rows.
    pub(super) fn restored(&self, file: &[u8], kind: [u8; 8]) -> Result<Self, RestoreError> {
        let sections = Sections::parse(file, kind, VERSION)?;
        let mut settings = sections.section(SETTINGS)?;
        settings.expect(2, 4)?;
        if Metric::from_code(settings.u32()?) != Some(self.metric) {
            return Err(RestoreError::Options { setting: "metric" });
        }
        if settings.u32()? as usize != self.dimensions {
            return Err(RestoreError::Options { setting: "number of dimensions" });
        }
        let mut ids = sections.section(IDS)?;
        let mut vectors = sections.section(VECTORS)?;
        let count = ids.len() / 8;
        ids.expect(count, 8)?;
        vectors.expect(count, 4 * self.dimensions)?;
        let Self { dimensions, metric, path, .. } = *self;
        let (ids_room, row_of) = (Vec::with_capacity(count), HashMap::with_capacity(count));
        let mut rows = Self { dimensions, metric, path, ids: ids_room, vectors: Vec::new(), row_of };
        for row in 0..count {
            let damage = ids.damage("a number of a vector occurs twice");
            let id = VectorId(ids.u64()?);
            if rows.row_of.insert(id, row).is_some() {
                return Err(damage.into());
            }
            rows.ids.push(id);
        }
        rows.vectors.reserve(count * dimensions);
        for row in 0..count {
            let damage = vectors.damage("a vector is not one that can be inserted");
            for _ in 0..dimensions {
                rows.vectors.push(vectors.f32()?);
            }
            rows.check(rows.row(row)).map_err(|_| damage)?;
        }
        Ok(rows)
    }
}

/// Access for the index on hnsw_rs.
#[cfg(feature = "hnsw_rs")]
impl Rows {
    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    pub(super) fn ids(&self) -> &[VectorId] {
        &self.ids
    }

    /// The vector of this number.
    pub(super) fn vector(&self, id: VectorId) -> Option<&[f32]> {
        self.row_of.get(&id).map(|row| self.row(*row))
    }
}

impl VectorReader for Published {
    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.0.load().search(search)
    }

    fn len(&self) -> usize {
        self.0.load().ids.len()
    }
}

impl VectorIndex for ExactIndex {
    fn dimensions(&self) -> usize {
        self.rows.dimensions
    }

    fn metric(&self) -> Metric {
        self.rows.metric
    }

    fn len(&self) -> usize {
        self.rows.ids.len()
    }

    fn contains(&self, id: VectorId) -> bool {
        self.rows.contains(id)
    }

    fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError> {
        self.rows.insert(id, vector)
    }

    fn remove(&mut self, id: VectorId) -> bool {
        self.rows.remove(id)
    }

    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.rows.search(search)
    }

    fn publish(&mut self) {
        self.published.0.store(Arc::new(self.rows.clone()));
    }

    fn reader(&self) -> Arc<dyn VectorReader> {
        Arc::<Published>::clone(&self.published)
    }

    fn save(&self) -> Vec<u8> {
        self.rows.save(KIND)
    }

    fn restore(&mut self, file: &[u8]) -> Result<(), RestoreError> {
        self.rows = self.rows.restored(file, KIND)?;
        self.publish();
        Ok(())
    }
}
