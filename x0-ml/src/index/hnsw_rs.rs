//! A graph by the crate `hnsw_rs` (feature `hnsw_rs`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hnsw_rs::prelude::{Distance, Hnsw};

use super::exact::Rows;
use super::vector::{Metric, Neighbour, VectorId};
use super::vector_index::{
    InsertError, OptionsError, RestoreError, Search, SearchError, VectorIndex, VectorReader, rank,
};
use crate::simd::Path;

const KIND: [u8; 8] = *b"X0MLHRS\0";
/// Layers of a graph; what hnsw_rs has at most.
const LAYERS: usize = 16;
/// Vectors for which a new graph has room at once.
const ROOM: usize = 1024;
/// Replaced nodes that a small graph may hold before it is built again.
const DEAD_MIN: usize = 64;
/// A filter that at most one of this many vectors passes is answered by a comparison with these.
const SCAN_SHARE: usize = 8;

/// Settings of an [`HnswRsIndex`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HnswRsOptions {
    /// Components of a vector.
    pub dimensions: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// Links of a node; 16 by default, 2 to 256.
    pub m: usize,
    /// Candidates for the links of a new node; 200 by default, at least `m`.
    pub ef_construction: usize,
    /// Candidates of a search; 64 by default.
    pub ef_search: usize,
    /// Vectors up to which a search compares with all of them instead of walking; 1,000 by default.
    pub scan_len_max: usize,
}

impl HnswRsOptions {
    /// The defaults for vectors of this many components.
    #[must_use]
    pub fn new(dimensions: usize, metric: Metric) -> Self {
        Self { dimensions, metric, m: 16, ef_construction: 200, ef_search: 64, scan_len_max: 1000 }
    }

    /// Sets the links of a node.
    #[must_use]
    pub fn m(mut self, links: usize) -> Self {
        self.m = links;
        self
    }

    /// Sets the candidates for links.
    #[must_use]
    pub fn ef_construction(mut self, candidates: usize) -> Self {
        self.ef_construction = candidates;
        self
    }

    /// Sets the candidates of a search.
    #[must_use]
    pub fn ef_search(mut self, candidates: usize) -> Self {
        self.ef_search = candidates;
        self
    }

    /// Sets the size up to which a search compares with every vector.
    #[must_use]
    pub fn scan_len_max(mut self, vectors: usize) -> Self {
        self.scan_len_max = vectors;
        self
    }

    fn check(&self) -> Result<(), OptionsError> {
        // hnsw_rs ends the process above 256.
        if !(2..=256).contains(&self.m) {
            return Err(OptionsError { reason: "`m` is not between 2 and 256" });
        }
        if self.ef_construction < self.m {
            return Err(OptionsError { reason: "`ef_construction` is below `m`" });
        }
        Ok(())
    }
}

/// A graph by the crate `hnsw_rs`, for comparison with [`HnswIndex`](super::HnswIndex), which is faster,
/// takes less memory, and removes in place.
///
/// hnsw_rs has no removal. A removed or replaced vector stays a node that no search returns, and the graph is
/// built again when there are as many of these as live vectors. Its files are never read:
/// [`save`](VectorIndex::save) writes the vectors, and [`restore`](VectorIndex::restore) builds the graph
/// from them, which takes as long as inserting all. Layers are drawn by hnsw_rs, so that two graphs of one
/// order of changes differ. A search may wait for locks of nodes that an insertion changes.
pub struct HnswRsIndex {
    state: State,
    published: Arc<Published>,
}

#[derive(Clone)]
struct State {
    options: HnswRsOptions,
    /// The vectors. They are also the scores: the graph only proposes candidates.
    rows: Rows,
    graph: Arc<Hnsw<'static, f32, Distant>>,
    /// By the node's number in the graph: its vector, or `None` if it was removed.
    nodes: Vec<Option<VectorId>>,
    node_of: HashMap<VectorId, usize>,
}

struct Published(ArcSwap<State>);

/// Distances that order as the metric does, and are never negative, which hnsw_rs asserts.
#[derive(Clone, Copy)]
struct Distant {
    metric: Metric,
    path: Path,
}

impl Distance<f32> for Distant {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        let dot = self.path.dot_f32(a, b);
        match self.metric {
            // Falls as the product rises, through 1 at a product of 0.
            Metric::InnerProduct if dot > 0.0 => 1.0 / (1.0 + dot),
            Metric::InnerProduct => 1.0 - dot,
            Metric::Cosine => {
                let lengths = (self.path.dot_f32(a, a) * self.path.dot_f32(b, b)).sqrt();
                (1.0 - dot / lengths.max(f32::MIN_POSITIVE)).max(0.0)
            }
            Metric::L2 => (self.path.dot_f32(a, a) + self.path.dot_f32(b, b) - 2.0 * dot).max(0.0),
        }
    }
}

impl HnswRsIndex {
    /// An empty index.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn new(options: HnswRsOptions) -> Result<Self, OptionsError> {
        options.check()?;
        let rows = Rows::new(options.dimensions, options.metric)?;
        let state = State::new(options, rows);
        let published = Arc::new(Published(ArcSwap::from_pointee(state.clone())));
        Ok(Self { state, published })
    }
}

impl fmt::Debug for HnswRsIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, nodes) = (self.state.rows.ids().len(), self.state.nodes.len());
        f.debug_struct("HnswRsIndex").field("len", &len).field("nodes", &nodes).finish_non_exhaustive()
    }
}

impl State {
    /// A graph of all rows.
    fn new(options: HnswRsOptions, rows: Rows) -> Self {
        let distance = Distant { metric: options.metric, path: Path::detect() };
        let room = rows.ids().len().max(ROOM);
        let graph = Arc::new(Hnsw::new(options.m, room, LAYERS, options.ef_construction, distance));
        let mut state = Self { options, rows, graph, nodes: Vec::new(), node_of: HashMap::new() };
        for id in state.rows.ids().to_vec() {
            state.link(id);
        }
        state
    }

    /// Makes a node for a vector of the rows.
    fn link(&mut self, id: VectorId) {
        let Some(vector) = self.rows.vector(id) else { return };
        self.graph.insert_slice((vector, self.nodes.len()));
        self.node_of.insert(id, self.nodes.len());
        self.nodes.push(Some(id));
    }

    /// Leaves the node of a vector without one.
    fn unlink(&mut self, id: VectorId) {
        if let Some(node) = self.node_of.remove(&id) {
            self.nodes[node] = None;
        }
    }

    /// Builds the graph again when as many of its nodes are dead as live.
    fn tidy(&mut self) {
        let live = self.rows.ids().len();
        if self.nodes.len() - live > live.max(DEAD_MIN) {
            *self = Self::new(self.options.clone(), self.rows.clone());
        }
    }

    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.rows.check(search.query).map_err(SearchError::Query)?;
        let live = self.rows.ids().len();
        let passing =
            search.filter.map_or(live, |passes| self.rows.ids().iter().filter(|id| passes(**id)).count());
        if live <= self.options.scan_len_max || passing <= live / SCAN_SHARE || search.k >= passing {
            return self.rows.search(search);
        }
        // The filter of hnsw_rs panics when no candidate passes, and misses vectors: the walk goes without,
        // over so many more candidates.
        let effort = search.effort.unwrap_or(self.options.ef_search).max(search.k);
        let effort = effort.saturating_mul(self.nodes.len()).div_ceil(passing).min(self.nodes.len());
        let found = self.graph.search(search.query, effort, effort);
        let mut found: Vec<Neighbour> = found
            .iter()
            // A node of a later change than this version is not known to it.
            .filter_map(|near| *self.nodes.get(near.d_id)?)
            .filter(|id| search.filter.is_none_or(|passes| passes(*id)))
            .filter_map(|id| {
                let score = self.rows.score(search.query, self.rows.vector(id)?);
                Some(Neighbour { id, score })
            })
            .collect();
        if found.len() < search.k {
            return self.rows.search(search);
        }
        rank(&mut found, search.k);
        Ok(found)
    }
}

impl VectorReader for Published {
    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.0.load().search(search)
    }

    fn len(&self) -> usize {
        self.0.load().rows.ids().len()
    }
}

impl VectorIndex for HnswRsIndex {
    fn dimensions(&self) -> usize {
        self.state.rows.dimensions()
    }

    fn metric(&self) -> Metric {
        self.state.rows.metric()
    }

    fn len(&self) -> usize {
        self.state.rows.ids().len()
    }

    fn contains(&self, id: VectorId) -> bool {
        self.state.rows.contains(id)
    }

    fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError> {
        self.state.rows.insert(id, vector)?;
        self.state.unlink(id);
        self.state.link(id);
        self.state.tidy();
        Ok(())
    }

    fn remove(&mut self, id: VectorId) -> bool {
        let was_held = self.state.rows.remove(id);
        self.state.unlink(id);
        self.state.tidy();
        was_held
    }

    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.state.search(search)
    }

    fn publish(&mut self) {
        self.published.0.store(Arc::new(self.state.clone()));
    }

    fn reader(&self) -> Arc<dyn VectorReader> {
        Arc::<Published>::clone(&self.published)
    }

    fn save(&self) -> Vec<u8> {
        self.state.rows.save(KIND)
    }

    fn restore(&mut self, file: &[u8]) -> Result<(), RestoreError> {
        let rows = self.state.rows.restored(file, KIND)?;
        self.state = State::new(self.state.options.clone(), rows);
        self.publish();
        Ok(())
    }
}
