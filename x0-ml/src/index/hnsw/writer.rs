//! The writer's side of the graph: links in both directions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::graph::Graph;
use super::options::HnswOptions;
use super::walk::Scratch;
use crate::index::vector::VectorId;

/// The newest version, and what only its writer needs.
pub(super) struct Writer {
    pub(super) graph: Graph,
    pub(super) slot_of: HashMap<VectorId, u32>,
    /// Free slots; the lowest is taken first, so that a restored index goes on as the saved one would.
    pub(super) free: BinaryHeap<Reverse<u32>>,
    /// Per slot, nodes that link to it on the lowest layer and are not linked back.
    unanswered: Vec<Vec<u32>>,
    /// The same on the upper layers, by layer and slot.
    unanswered_upper: HashMap<(usize, u32), Vec<u32>>,
    /// Nodes ever inserted; the layers of the next one follow from it and the seed.
    pub(super) inserted: u64,
    /// Nodes removed since the last sweep.
    pub(super) removed: u64,
    pub(super) scratch: Scratch,
}

impl Writer {
    pub(super) fn new(options: HnswOptions) -> Self {
        Self::over(Graph::new(options))
    }

    pub(super) fn over(graph: Graph) -> Self {
        let unanswered = vec![Vec::new(); graph.slots as usize];
        Self {
            graph,
            slot_of: HashMap::new(),
            free: BinaryHeap::new(),
            unanswered,
            unanswered_upper: HashMap::new(),
            inserted: 0,
            removed: 0,
            scratch: Scratch::default(),
        }
    }

    /// Nodes ever inserted, and those removed since the last sweep.
    pub(super) fn counts(&self) -> [u64; 2] {
        [self.inserted, self.removed]
    }

    pub(super) fn memory_len(&self) -> usize {
        let graph = &self.graph;
        let vectors = graph.vectors.as_ref().map_or(0, super::blocks::Blocks::memory_len);
        let unanswered: usize = self.unanswered.iter().map(|list| 24 + list.capacity() * 4).sum();
        let upper: usize = (0..graph.slots)
            .filter_map(|slot| graph.upper.row(slot)[0].as_ref())
            .map(|links| 16 + links.len() * 4)
            .sum();
        graph.ids.memory_len()
            + graph.layers.memory_len()
            + graph.links.memory_len()
            + graph.upper.memory_len()
            + graph.codes.memory_len()
            + graph.scales.memory_len()
            + vectors
            + unanswered
            + upper
            + self.slot_of.capacity() * 17
    }

    /// Gives memory back that lists of unanswered links no longer need.
    pub(super) fn shrink(&mut self) {
        self.unanswered.iter_mut().for_each(Vec::shrink_to_fit);
    }

    /// A slot without a node.
    pub(super) fn take_slot(&mut self) -> Option<u32> {
        if let Some(Reverse(slot)) = self.free.pop() {
            return Some(slot);
        }
        let slot = self.graph.slots;
        self.graph.slots = slot.checked_add(1)?;
        self.graph.reserve(self.graph.slots as usize);
        self.unanswered.push(Vec::new());
        Some(slot)
    }

    pub(super) fn links_mut(&mut self, layer: usize, slot: u32) -> &mut [u32] {
        if layer == 0 {
            return self.graph.links.row_mut(slot);
        }
        let stride = 1 + self.graph.options.links_max(layer);
        match &mut self.graph.upper.row_mut(slot)[0] {
            Some(upper) => &mut Arc::make_mut(upper)[(layer - 1) * stride..][..stride],
            // A node has links only on its layers; every caller asks for these.
            None => &mut [],
        }
    }

    fn unanswered_mut(&mut self, layer: usize, slot: u32) -> &mut Vec<u32> {
        if layer == 0 {
            &mut self.unanswered[slot as usize]
        } else {
            self.unanswered_upper.entry((layer, slot)).or_default()
        }
    }

    fn unanswered(&self, layer: usize, slot: u32) -> &[u32] {
        if layer == 0 {
            &self.unanswered[slot as usize]
        } else {
            self.unanswered_upper.get(&(layer, slot)).map_or(&[], Vec::as_slice)
        }
    }

    /// Notes the links of a restored graph in the lists of what they point to.
    pub(super) fn note_links(&mut self) {
        for slot in 0..self.graph.slots {
            for layer in 0..self.graph.layers_of(slot) {
                for link in self.graph.links_of(layer, slot).to_vec() {
                    if !self.graph.links_of(layer, link).contains(&slot) {
                        self.unanswered_mut(layer, link).push(slot);
                    }
                }
            }
        }
    }

    /// Adds a link; the caller has seen that there is room for it and that it is new.
    pub(super) fn link(&mut self, layer: usize, from: u32, to: u32) {
        let row = self.links_mut(layer, from);
        row[0] += 1;
        row[row[0] as usize] = to;
        if self.graph.links_of(layer, to).contains(&from) {
            self.forget(layer, from, to);
        } else {
            self.unanswered_mut(layer, to).push(from);
        }
    }

    /// Takes a link away; the last one takes its place.
    pub(super) fn unlink(&mut self, layer: usize, from: u32, to: u32) {
        let row = self.links_mut(layer, from);
        let count = row[0] as usize;
        let Some(place) = row[1..=count].iter().position(|link| *link == to) else { return };
        row.copy_within(count..=count, 1 + place);
        row[count] = 0;
        row[0] -= 1;
        if self.graph.links_of(layer, to).contains(&from) {
            self.unanswered_mut(layer, from).push(to);
        } else {
            self.forget(layer, to, from);
        }
    }

    /// Takes `from` off the list of nodes that link to `slot` unanswered.
    fn forget(&mut self, layer: usize, slot: u32, from: u32) {
        let list = self.unanswered_mut(layer, slot);
        if let Some(place) = list.iter().position(|node| *node == from) {
            list.swap_remove(place);
        }
        if layer > 0 && list.is_empty() {
            self.unanswered_upper.remove(&(layer, slot));
        }
    }

    /// The nodes that link to `slot`, in the order of their slots.
    pub(super) fn linking(&self, layer: usize, slot: u32) -> Vec<u32> {
        let answers = |link: &u32| self.graph.links_of(layer, *link).contains(&slot);
        let mut nodes: Vec<u32> = self.graph.links_of(layer, slot).iter().copied().filter(answers).collect();
        nodes.extend(self.unanswered(layer, slot));
        nodes.sort_unstable();
        nodes
    }

    /// Whether a node other than `except` links to `slot`.
    pub(super) fn is_linked(&self, layer: usize, slot: u32, except: u32) -> bool {
        self.unanswered(layer, slot).iter().any(|node| *node != except)
            || self
                .graph
                .links_of(layer, slot)
                .iter()
                .any(|link| *link != except && self.graph.links_of(layer, *link).contains(&slot))
    }
}
