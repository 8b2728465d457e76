//! One version of the graph.

use std::sync::Arc;

use super::blocks::Blocks;
use super::options::HnswOptions;
use super::quantize::{Codes, codes_len};
use crate::index::rerank::Rerank;
use crate::index::vector::{Metric, Neighbour, VectorId};
use crate::index::vector_index::{InsertError, Search, SearchError, check, rank};
use crate::simd::prefetch;

/// Layers that a graph may have.
pub(super) const LAYERS_MAX: usize = 16;

/// Vectors and links. A copy shares all blocks.
#[derive(Clone)]
pub(super) struct Graph {
    pub(super) options: Arc<HnswOptions>,
    /// Slots in use or free.
    pub(super) slots: u32,
    pub(super) len: usize,
    /// The start of every walk: a node of the highest layer.
    pub(super) entry: Option<u32>,
    pub(super) ids: Blocks<u64>,
    /// Layers that a slot's node is on; 0: the slot is free.
    pub(super) layers: Blocks<u8>,
    /// The lowest layer: number of links, then links.
    pub(super) links: Blocks<u32>,
    /// The layers above, one after the other, each like the lowest.
    pub(super) upper: Blocks<Option<Arc<[u32]>>>,
    pub(super) codes: Blocks<i8>,
    /// Scale and square of the codes.
    pub(super) scales: Blocks<[f32; 2]>,
    pub(super) vectors: Option<Blocks<f32>>,
}

/// A distance and the slot that is so far away, in one number whose order is that of the distance, then of
/// the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Near(u64);

impl Near {
    pub(super) fn new(distance: f32, slot: u32) -> Self {
        let bits = distance.to_bits();
        // Turns IEEE 754 bits into an unsigned number of the same order (no NaN gets here).
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(ordered) << 32 | u64::from(slot))
    }

    #[allow(clippy::cast_possible_truncation, reason = "the lower half, by construction")]
    pub(super) fn slot(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }

    pub(super) fn distance(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
    }
}

/// The vector from which distances are measured.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) codes: &'a [i8],
    pub(super) scale: f32,
    pub(super) square: f32,
}

impl<'a> Origin<'a> {
    pub(super) fn codes(codes: &'a Codes) -> Self {
        Self { codes: &codes.codes, scale: codes.scale, square: codes.square }
    }
}

impl Graph {
    pub(super) fn new(options: HnswOptions) -> Self {
        let links = Blocks::new(1 + options.links_max(0), 0);
        let codes = Blocks::new(codes_len(options.dimensions), 0);
        let in_memory = matches!(options.rerank, Rerank::Memory);
        let vectors = in_memory.then(|| Blocks::new(options.dimensions, 0.0));
        Self {
            options: Arc::new(options),
            slots: 0,
            len: 0,
            entry: None,
            ids: Blocks::new(1, 0),
            layers: Blocks::new(1, 0),
            links,
            upper: Blocks::new(1, None),
            codes,
            scales: Blocks::new(1, [0.0; 2]),
            vectors,
        }
    }

    pub(super) fn reserve(&mut self, slots: usize) {
        self.ids.reserve(slots);
        self.layers.reserve(slots);
        self.links.reserve(slots);
        self.upper.reserve(slots);
        self.codes.reserve(slots);
        self.scales.reserve(slots);
        if let Some(vectors) = &mut self.vectors {
            vectors.reserve(slots);
        }
    }

    pub(super) fn id(&self, slot: u32) -> VectorId {
        VectorId(self.ids.row(slot)[0])
    }

    /// Layers that the node is on; 0 if the slot is free.
    pub(super) fn layers_of(&self, slot: u32) -> usize {
        usize::from(self.layers.row(slot)[0])
    }

    #[inline]
    pub(super) fn links_of(&self, layer: usize, slot: u32) -> &[u32] {
        let row = if layer == 0 {
            self.links.row(slot)
        } else {
            let stride = 1 + self.options.links_max(layer);
            match &self.upper.row(slot)[0] {
                Some(upper) => &upper[(layer - 1) * stride..][..stride],
                None => return &[],
            }
        };
        &row[1..][..row[0] as usize]
    }

    pub(super) fn from(&self, slot: u32) -> Origin<'_> {
        let [scale, square] = self.scales.row(slot)[0];
        Origin { codes: self.codes.row(slot), scale, square }
    }

    /// Calls `each` with the distance of every slot, in their order.
    #[inline]
    pub(super) fn distances(&self, from: Origin<'_>, slots: &[u32], mut each: impl FnMut(Near)) {
        // The codes of one step are on their way from memory while those of the step before are summed.
        const STEP: usize = 8;
        let mut steps = slots.chunks(STEP);
        let mut rows: [&[i8]; STEP] = [&[]; STEP];
        let Some(mut step) = steps.next() else { return };
        self.load(step, &mut rows);
        loop {
            let (present, next) = (rows, steps.next());
            if let Some(next) = next {
                self.load(next, &mut rows);
            }
            let mut sums = [0_i32; STEP];
            self.options.path.dot_i8(from.codes, &present[..step.len()], &mut sums);
            for (slot, sum) in step.iter().zip(sums) {
                let [scale, square] = self.scales.row(*slot)[0];
                let product = sum as f32 * from.scale * scale;
                let distance = match self.options.metric {
                    Metric::L2 => from.square + square - 2.0 * product,
                    Metric::InnerProduct | Metric::Cosine => -product,
                };
                each(Near::new(distance, *slot));
            }
            match next {
                Some(next) => step = next,
                None => return,
            }
        }
    }

    /// The codes of the slots, with a request to the processor to load them and their scales.
    #[inline]
    fn load<'a>(&'a self, slots: &[u32], rows: &mut [&'a [i8]]) {
        for (row, slot) in rows.iter_mut().zip(slots) {
            *row = self.codes.row(*slot);
            prefetch(row);
            prefetch(self.scales.row(*slot));
        }
    }

    /// Asks the processor to load the links of a node on the lowest layer.
    #[inline]
    pub(super) fn prefetch_links(&self, layer: usize, slot: u32) {
        if layer == 0 {
            prefetch(self.links.row(slot));
        }
    }

    /// Checks a vector, and gives it the length 1 under the cosine.
    pub(super) fn prepare(&self, vector: &[f32]) -> Result<Vec<f32>, InsertError> {
        check(self.options.dimensions, vector)?;
        let square = self.options.path.dot_f32(vector, vector);
        if !square.is_finite() {
            return Err(InsertError::NoDirection);
        }
        if self.options.metric != Metric::Cosine {
            return Ok(vector.to_vec());
        }
        if square == 0.0 {
            return Err(InsertError::NoDirection);
        }
        let length = square.sqrt();
        Ok(vector.iter().map(|component| component / length).collect())
    }

    pub(super) fn search(&self, search: &Search<'_>) -> Result<Vec<Neighbour>, SearchError> {
        let query = self.prepare(search.query).map_err(SearchError::Query)?;
        if search.k == 0 || self.len == 0 {
            return Ok(Vec::new());
        }
        let codes = Codes::of(self.options.path, &query);
        let keep = search.k.saturating_mul(4).min(self.len);
        let candidates = self.candidates(Origin::codes(&codes), search, keep);
        self.rerank(&query, &candidates[..candidates.len().min(keep)], search.k)
    }

    /// Ranks candidates by their exact vectors.
    fn rerank(&self, query: &[f32], candidates: &[Near], k: usize) -> Result<Vec<Neighbour>, SearchError> {
        let mut found = Vec::with_capacity(candidates.len());
        let mut buffer = Vec::new();
        for near in candidates {
            let id = self.id(near.slot());
            let score = match (&self.vectors, &self.options.rerank) {
                (Some(vectors), _) => self.score(query, vectors.row(near.slot())),
                (None, Rerank::Source(source)) => {
                    buffer.resize(self.options.dimensions, 0.0);
                    source.read(id, &mut buffer).map_err(SearchError::Source)?;
                    if self.options.metric == Metric::Cosine {
                        let length = self.options.path.dot_f32(&buffer, &buffer).sqrt();
                        self.score(query, &buffer) / length
                    } else {
                        self.score(query, &buffer)
                    }
                }
                (None, _) => -near.distance(),
            };
            found.push(Neighbour { id, score });
        }
        rank(&mut found, k);
        Ok(found)
    }

    fn score(&self, query: &[f32], vector: &[f32]) -> f32 {
        let dot = self.options.path.dot_f32(query, vector);
        if self.options.metric == Metric::L2 {
            let path = self.options.path;
            2.0 * dot - path.dot_f32(query, query) - path.dot_f32(vector, vector)
        } else {
            dot
        }
    }
}
