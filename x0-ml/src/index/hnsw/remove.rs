//! Removal in place, and the sweep.

use std::cmp::Reverse;

use super::graph::{Graph, Near, Origin};
use super::quantize::Codes;
use super::walk::Limits;
use super::writer::Writer;
use crate::index::vector::VectorId;

/// Removals between two sweeps: this many, and an eighth of the vectors.
const SWEEP_REMOVED_MIN: u64 = 256;

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
        let via = self.tree(entry);
        (0..self.graph.slots).filter(|slot| self.is_lost(*slot, &via)).collect()
    }

    /// For each node that a walk from the entry reaches, the node that it is reached from.
    fn tree(&self, entry: u32) -> Vec<Option<u32>> {
        let mut via = vec![None; self.graph.slots as usize];
        self.reach(entry, entry, &mut via);
        via
    }

    /// Notes `slot`, which is reached from `parent`, and what is reached from it and was not before.
    fn reach(&self, slot: u32, parent: u32, via: &mut [Option<u32>]) {
        via[slot as usize] = Some(parent);
        let mut next = vec![slot];
        while let Some(slot) = next.pop() {
            for link in self.graph.links_of(0, slot) {
                if via[*link as usize].is_none() {
                    via[*link as usize] = Some(slot);
                    next.push(*link);
                }
            }
        }
    }

    fn is_lost(&self, slot: u32, via: &[Option<u32>]) -> bool {
        self.graph.layers_of(slot) > 0 && via[slot as usize].is_none()
    }

    pub(super) fn sweep(&mut self) {
        self.removed = 0;
        self.shrink();
        let Some(entry) = self.graph.entry else { return };
        let mut via = self.tree(entry);
        for slot in 0..self.graph.slots {
            if self.is_lost(slot, &via) {
                let parent = self.link_from_reached(entry, slot, &via);
                self.reach(slot, parent, &mut via);
            }
        }
    }

    /// Links a node that a walk does not reach from the nearest one that it finds, if that has room or a link
    /// to spare. Returns that node.
    ///
    /// A link by which another node is reached is kept, so that nothing is lost for what is found. There is
    /// always a node with room or a link to spare: all nodes together have more room than there are nodes.
    fn link_from_reached(&mut self, entry: u32, slot: u32, via: &[Option<u32>]) -> u32 {
        let from = self.graph.from(slot);
        let codes = Codes { codes: from.codes.to_vec(), scale: from.scale, square: from.square };
        let from = Origin::codes(&codes);
        let ef = self.graph.options.ef_construction;
        let starts = self.graph.starts(from, entry);
        let mut scratch = std::mem::take(&mut self.scratch);
        let found = self.graph.walk(0, from, &starts, Limits::nearest(ef), &mut scratch).unwrap_or_default();
        self.scratch = scratch;
        // The descent runs over upper layers, and can end among nodes that the lowest layer does not reach.
        let near = found.iter().map(|near| near.slot()).filter(|near| via[*near as usize].is_some());
        let near: Vec<u32> = near.collect();
        let most = self.graph.options.links_max(0);
        let has_room = |node: &u32| self.graph.links_of(0, *node).len() < most;
        let can_spare = |node: &u32| has_room(node) || self.spare(*node, via).is_some();
        let all = || (0..self.graph.slots).filter(|node| via[*node as usize].is_some());
        let parent = near.iter().copied().find(has_room).or_else(|| near.iter().copied().find(can_spare));
        // One is always found, see above.
        let parent = parent.or_else(|| all().find(can_spare)).unwrap_or(entry);
        if !has_room(&parent)
            && let Some(spare) = self.spare(parent, via)
        {
            self.unlink(0, parent, spare);
        }
        self.link(0, parent, slot);
        parent
    }

    /// The farthest link of a node on the lowest layer by which nothing is reached.
    fn spare(&self, node: u32, via: &[Option<u32>]) -> Option<u32> {
        let links = self.graph.links_of(0, node);
        let mut farthest: Option<Near> = None;
        self.graph.distances(self.graph.from(node), links, |near| {
            if via[near.slot() as usize] != Some(node) {
                farthest = Some(farthest.map_or(near, |farthest| farthest.max(near)));
            }
        });
        farthest.map(Near::slot)
    }
}

/// The node on the most layers; the lowest slot of several.
fn highest(graph: &Graph) -> Option<u32> {
    (0..graph.slots)
        .filter(|slot| graph.layers_of(*slot) > 0)
        .max_by_key(|slot| (graph.layers_of(*slot), Reverse(*slot)))
}
