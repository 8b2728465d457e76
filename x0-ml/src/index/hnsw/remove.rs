//! Removal in place, and the sweep.

use std::cmp::Reverse;

use super::graph::{From, Graph, Near};
use super::quantize::Codes;
use super::walk::Limits;
use super::writer::Writer;
use crate::index::vector::VectorId;

/// Removals between two sweeps: this many, and an eighth of the vectors.
const SWEEP_REMOVED_MIN: u64 = 256;
/// Passes of one sweep; a link that is replaced to reach one node can leave another unreached.
const SWEEP_PASSES_MAX: usize = 4;

impl Writer {
    pub(super) fn remove(&mut self, id: VectorId) -> bool {
        let Some(slot) = self.slot_of.remove(&id) else { return false };
        for layer in 0..self.graph.layers_of(slot) {
            self.detach(layer, slot);
        }
        self.erase(slot);
        if self.graph.entry == Some(slot) {
            self.graph.entry = highest(&self.graph);
        }
        self.removed += 1;
        if self.removed >= SWEEP_REMOVED_MIN + self.graph.len as u64 / 8 {
            self.sweep();
        }
        true
    }

    /// Takes a node off a layer, and links the nodes around it to each other.
    fn detach(&mut self, layer: usize, slot: u32) {
        let links = self.graph.links_of(layer, slot).to_vec();
        let linking = self.linking(layer, slot);
        for link in &links {
            self.unlink(layer, slot, *link);
        }
        for node in &linking {
            self.unlink(layer, *node, slot);
        }
        for node in &linking {
            self.relink(layer, *node, &links);
        }
        for link in &links {
            if !self.is_linked(layer, *link, *link) {
                self.adopt(layer, *link, &links, &linking);
            }
        }
    }

    /// Fills the room of a node with those of `candidates` that the heuristic of insertion takes.
    fn relink(&mut self, layer: usize, node: u32, candidates: &[u32]) {
        let most = self.graph.options.links_max(layer);
        let mut links = self.graph.links_of(layer, node).to_vec();
        let new: Vec<u32> =
            candidates.iter().copied().filter(|link| *link != node && !links.contains(link)).collect();
        let mut nearest = Vec::with_capacity(new.len());
        self.graph.distances(self.graph.from(node), &new, |near| nearest.push(near));
        nearest.sort_unstable();
        let mut is_short = links.is_empty();
        for near in nearest {
            if links.len() == most {
                break;
            }
            if is_short || self.is_spread(near, &links) {
                self.link(layer, node, near.slot());
                links.push(near.slot());
                is_short = false;
            }
        }
    }

    /// Links the nearest of the nodes to one that nothing links to.
    fn adopt(&mut self, layer: usize, orphan: u32, links: &[u32], linking: &[u32]) {
        let mut nearest: Option<Near> = None;
        for nodes in [links, linking] {
            self.graph.distances(self.graph.from(orphan), nodes, |near| {
                if near.slot() != orphan {
                    nearest = Some(nearest.map_or(near, |nearest| nearest.min(near)));
                }
            });
        }
        if let Some(near) = nearest {
            self.force_link(layer, near.slot(), orphan);
        }
    }

    /// Overwrites everything that a slot held.
    fn erase(&mut self, slot: u32) {
        let graph = &mut self.graph;
        graph.ids.clear(slot);
        graph.layers.clear(slot);
        graph.links.clear(slot);
        graph.upper.clear(slot);
        graph.codes.clear(slot);
        graph.scales.clear(slot);
        if let Some(vectors) = &mut graph.vectors {
            vectors.clear(slot);
        }
        graph.len -= 1;
        self.free.push(Reverse(slot));
    }

    /// Nodes that no walk over the lowest layer reaches.
    pub(super) fn unreachable(&self) -> Vec<u32> {
        let Some(entry) = self.graph.entry else { return Vec::new() };
        let mut reached = vec![false; self.graph.slots as usize];
        self.reach(entry, &mut reached);
        let is_lost = |slot: &u32| self.graph.layers_of(*slot) > 0 && !reached[*slot as usize];
        (0..self.graph.slots).filter(is_lost).collect()
    }

    fn reach(&self, entry: u32, reached: &mut [bool]) {
        let mut next = vec![entry];
        reached[entry as usize] = true;
        while let Some(slot) = next.pop() {
            for link in self.graph.links_of(0, slot) {
                if !std::mem::replace(&mut reached[*link as usize], true) {
                    next.push(*link);
                }
            }
        }
    }

    pub(super) fn sweep(&mut self) {
        self.removed = 0;
        self.shrink();
        for _ in 0..SWEEP_PASSES_MAX {
            let Some(entry) = self.graph.entry else { return };
            let mut reached = vec![false; self.graph.slots as usize];
            self.reach(entry, &mut reached);
            let mut was_whole = true;
            for slot in 0..self.graph.slots {
                if self.graph.layers_of(slot) == 0 || reached[slot as usize] {
                    continue;
                }
                was_whole = false;
                self.link_from_reached(entry, slot);
                self.reach(slot, &mut reached);
            }
            if was_whole {
                return;
            }
        }
    }

    /// Links the nearest node that a walk finds to one that it does not find.
    fn link_from_reached(&mut self, entry: u32, slot: u32) {
        let from = self.graph.from(slot);
        let codes = Codes { codes: from.codes.to_vec(), scale: from.scale, square: from.square };
        let from = From::codes(&codes);
        let ef = self.graph.options.ef_construction;
        let nearest = self.graph.descend(from, entry, 0);
        let mut scratch = std::mem::take(&mut self.scratch);
        let found = self.graph.walk(0, from, nearest, Limits::nearest(ef), &mut scratch).unwrap_or_default();
        self.scratch = scratch;
        // The descent runs over upper layers and can end on the node itself, which the lowest layer does not
        // reach.
        let most = self.graph.options.links_max(0);
        let has_room = |near: &&Near| near.slot() != slot && self.graph.links_of(0, near.slot()).len() < most;
        let parent = found.iter().find(has_room).or_else(|| found.iter().find(|near| near.slot() != slot));
        match parent.map(|near| near.slot()) {
            Some(parent) => self.force_link(0, parent, slot),
            None => self.force_link(0, entry, slot),
        }
    }
}

/// The node on the most layers; the lowest slot of several.
fn highest(graph: &Graph) -> Option<u32> {
    (0..graph.slots)
        .filter(|slot| graph.layers_of(*slot) > 0)
        .max_by_key(|slot| (graph.layers_of(*slot), Reverse(*slot)))
}
