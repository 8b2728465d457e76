//! Hierarchical navigable small worlds (Malkov, Yashunin 2016) over 8-bit codes, with removals in place.
//!
//! # How readers and the writer share it
//! All arrays are divided into blocks of 64 rows behind reference counts. `publish` hands the present blocks
//! to readers as one version and swaps a pointer. The writer copies a block at its first change after that,
//! and only if a reader can still see it. A search takes the pointer and never waits; a version lives as long
//! as a search that uses it.
//!
//! # How removals work
//! The writer knows every node that links to a given one: the link is mutual, or the writer keeps the linking
//! node in a list of the linked one. A removal replaces all links to the removed node by links to its
//! neighbours, overwrites its codes with zeros, and gives its slot to the next insertion. A node that loses
//! its last incoming link gets one from a node nearby. From time to time a sweep links nodes again that
//! cannot be reached from the entry point.

mod blocks;
mod file;
mod graph;
mod insert;
mod options;
mod quantize;
mod remove;
mod scan;
mod walk;
mod writer;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use self::graph::Graph;
pub use self::options::HnswOptions;
use self::writer::Writer;
use super::vector::{Metric, Neighbour, VectorId};
use super::vector_index::{
    Frozen, InsertError, OptionsError, RestoreError, Search, SearchError, VectorIndex, VectorReader,
};

/// A graph index: a walk over 8-bit codes finds candidates, `f32` vectors rank the best of them.
///
/// One seed and one order of changes give the same bytes of [`save`](VectorIndex::save) on every processor.
pub struct HnswIndex {
    writer: Writer,
    published: Arc<Published>,
}

struct Published(ArcSwap<Graph>);

impl HnswIndex {
    /// An empty index.
    ///
    /// # Errors
    /// [`OptionsError`] if an option is out of its range.
    pub fn new(options: HnswOptions) -> Result<Self, OptionsError> {
        options.check()?;
        let writer = Writer::new(options);
        let published = Arc::new(Published(ArcSwap::from_pointee(writer.graph.clone())));
        Ok(Self { writer, published })
    }

    /// Bytes that the writer's version of the index holds, readers' versions and allocator overhead not
    /// counted.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        self.writer.memory_len()
    }

    /// Vectors that a walk over the lowest layer does not reach. [`sweep`](Self::sweep) links them again.
    #[must_use]
    pub fn unreachable(&self) -> usize {
        self.writer.unreachable().len()
    }

    /// Links vectors again that no walk reaches. It takes time in proportion to the number of vectors;
    /// removals run it from time to time.
    pub fn sweep(&mut self) {
        self.writer.sweep();
    }
}

impl VectorReader for Published {
    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.0.load().search(search)
    }

    fn len(&self) -> usize {
        self.0.load().len
    }
}

impl VectorIndex for HnswIndex {
    fn dimensions(&self) -> usize {
        self.writer.graph.options.dimensions
    }

    fn metric(&self) -> Metric {
        self.writer.graph.options.metric
    }

    fn len(&self) -> usize {
        self.writer.graph.len
    }

    fn contains(&self, id: VectorId) -> bool {
        self.writer.slot_of.contains_key(&id)
    }

    fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError> {
        self.writer.insert(id, vector)
    }

    fn remove(&mut self, id: VectorId) -> bool {
        self.writer.remove(id)
    }

    fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        self.writer.graph.search(search)
    }

    fn publish(&mut self) {
        self.published.0.store(Arc::new(self.writer.graph.clone()));
    }

    fn reader(&self) -> Arc<dyn VectorReader> {
        Arc::<Published>::clone(&self.published)
    }

    fn save(&self) -> Vec<u8> {
        file::save(&self.writer.graph, self.writer.counts())
    }

    /// The version shares the blocks of the index, which the writer copies before it changes them.
    fn freeze(&self) -> Frozen {
        let (graph, counts) = (self.writer.graph.clone(), self.writer.counts());
        Box::new(move || file::save(&graph, counts))
    }

    fn restore(&mut self, file: &[u8]) -> Result<(), RestoreError> {
        self.writer = file::restore(file, &self.writer.graph.options)?;
        self.publish();
        Ok(())
    }
}

impl fmt::Debug for HnswIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graph = &self.writer.graph;
        f.debug_struct("HnswIndex").field("len", &graph.len).field("options", &graph.options).finish()
    }
}
