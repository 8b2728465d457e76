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
use crate::file::{SectionWriter, Sections};
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
    row_of: HashMap<VectorId, usize>,
    published: Arc<Published>,
}

/// Vectors one after the other, with their numbers.
#[derive(Clone)]
struct Rows {
    dimensions: usize,
    metric: Metric,
    path: Path,
    ids: Vec<VectorId>,
    vectors: Vec<f32>,
}

struct Published(ArcSwap<Rows>);

impl ExactIndex {
    /// An empty index.
    ///
    /// # Errors
    /// [`OptionsError`] if `dimensions` is 0 or above [`DIMENSIONS_MAX`](super::DIMENSIONS_MAX).
    pub fn new(dimensions: usize, metric: Metric) -> Result<Self, OptionsError> {
        check_dimensions(dimensions)?;
        let rows = Rows { dimensions, metric, path: Path::detect(), ids: Vec::new(), vectors: Vec::new() };
        let published = Arc::new(Published(ArcSwap::from_pointee(rows.clone())));
        Ok(Self { rows, row_of: HashMap::new(), published })
    }
}

impl fmt::Debug for ExactIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, dimensions) = (self.rows.ids.len(), self.rows.dimensions);
        f.debug_struct("ExactIndex").field("len", &len).field("dimensions", &dimensions).finish()
    }
}

impl Rows {
    fn row(&self, row: usize) -> &[f32] {
        &self.vectors[row * self.dimensions..][..self.dimensions]
    }

    fn score(&self, query: &[f32], vector: &[f32]) -> f32 {
        let dot = self.path.dot_f32(query, vector);
        match self.metric {
            Metric::InnerProduct => dot,
            Metric::Cosine => {
                dot / (self.path.dot_f32(query, query).sqrt() * self.path.dot_f32(vector, vector).sqrt())
            }
            Metric::L2 => 2.0 * dot - self.path.dot_f32(query, query) - self.path.dot_f32(vector, vector),
        }
    }

    fn check(&self, vector: &[f32]) -> Result<(), InsertError> {
        check(self.dimensions, vector)?;
        let square = self.path.dot_f32(vector, vector);
        if !square.is_finite() || (self.metric == Metric::Cosine && square == 0.0) {
            return Err(InsertError::NoDirection);
        }
        Ok(())
    }

    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
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
        self.row_of.contains_key(&id)
    }

    fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError> {
        self.rows.check(vector)?;
        if let Some(row) = self.row_of.get(&id) {
            let dimensions = self.rows.dimensions;
            self.rows.vectors[row * dimensions..][..dimensions].copy_from_slice(vector);
        } else {
            self.row_of.insert(id, self.rows.ids.len());
            self.rows.ids.push(id);
            self.rows.vectors.extend_from_slice(vector);
        }
        Ok(())
    }

    fn remove(&mut self, id: VectorId) -> bool {
        let Some(row) = self.row_of.remove(&id) else { return false };
        let dimensions = self.rows.dimensions;
        self.rows.ids.swap_remove(row);
        let last = self.rows.ids.len();
        self.rows.vectors.copy_within(last * dimensions.., row * dimensions);
        self.rows.vectors.truncate(last * dimensions);
        if let Some(moved) = self.rows.ids.get(row) {
            self.row_of.insert(*moved, row);
        }
        true
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
        let mut file = SectionWriter::new(KIND, VERSION);
        let settings = [self.rows.metric.code(), u32::try_from(self.rows.dimensions).unwrap_or(u32::MAX)];
        file.section(SETTINGS, settings.iter().flat_map(|number| number.to_le_bytes()).collect());
        file.section(IDS, self.rows.ids.iter().flat_map(|id| id.0.to_le_bytes()).collect());
        file.section(VECTORS, self.rows.vectors.iter().flat_map(|number| number.to_le_bytes()).collect());
        file.finish()
    }

    fn restore(&mut self, file: &[u8]) -> Result<(), RestoreError> {
        let sections = Sections::parse(file, KIND, VERSION)?;
        let mut settings = sections.section(SETTINGS)?;
        settings.expect(2, 4)?;
        if Metric::from_code(settings.u32()?) != Some(self.rows.metric) {
            return Err(RestoreError::Options { setting: "metric" });
        }
        if settings.u32()? as usize != self.rows.dimensions {
            return Err(RestoreError::Options { setting: "number of dimensions" });
        }
        let mut ids = sections.section(IDS)?;
        let mut vectors = sections.section(VECTORS)?;
        let count = ids.len() / 8;
        ids.expect(count, 8)?;
        vectors.expect(count, 4 * self.rows.dimensions)?;
        let Rows { dimensions, metric, path, .. } = self.rows;
        let mut rows = Rows { dimensions, metric, path, ids: Vec::with_capacity(count), vectors: Vec::new() };
        let mut row_of = HashMap::with_capacity(count);
        for row in 0..count {
            let damage = ids.damage("a number of a vector occurs twice");
            let id = VectorId(ids.u64()?);
            if row_of.insert(id, row).is_some() {
                return Err(damage.into());
            }
            rows.ids.push(id);
        }
        rows.vectors.reserve(count * rows.dimensions);
        for row in 0..count {
            let damage = vectors.damage("a vector is not one that can be inserted");
            for _ in 0..rows.dimensions {
                rows.vectors.push(vectors.f32()?);
            }
            rows.check(rows.row(row)).map_err(|_| damage)?;
        }
        (self.rows, self.row_of) = (rows, row_of);
        self.publish();
        Ok(())
    }
}
