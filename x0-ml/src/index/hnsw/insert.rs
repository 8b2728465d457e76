//! Insertion.

use std::sync::Arc;

use super::graph::{LAYERS_MAX, Near, Origin};
use super::quantize::Codes;
use super::walk::Limits;
use super::writer::Writer;
use crate::index::vector::VectorId;
use crate::index::vector_index::InsertError;

impl Writer {
    pub(super) fn insert(&mut self, id: VectorId, vector: &[f32]) -> Result<(), InsertError> {
        let vector = self.graph.prepare(vector)?;
        let codes = Codes::of(self.graph.options.path, &vector);
        self.remove(id);
        let slot = self.take_slot().ok_or(InsertError::Full { len: self.graph.len })?;
        let layers = layers_of(self.graph.options.seed, self.inserted, self.graph.options.m);
        self.inserted += 1;
        self.fill(slot, id, &vector, &codes, layers);
        if let Some(entry) = self.graph.entry {
            self.connect(slot, Origin::codes(&codes), entry, layers);
            if layers > self.graph.layers_of(entry) {
                self.graph.entry = Some(slot);
            }
        } else {
            self.graph.entry = Some(slot);
        }
        Ok(())
    }

    /// Writes a node without links.
    fn fill(&mut self, slot: u32, id: VectorId, vector: &[f32], codes: &Codes, layers: usize) {
        let graph = &mut self.graph;
        graph.ids.row_mut(slot)[0] = id.0;
        // At most LAYERS_MAX.
        graph.layers.row_mut(slot)[0] = u8::try_from(layers).unwrap_or(u8::MAX);
        graph.links.clear(slot);
        let upper = (1 + graph.options.links_max(1)) * (layers - 1);
        graph.upper.row_mut(slot)[0] =
            (layers > 1).then(|| std::iter::repeat_n(0, upper).collect::<Arc<[u32]>>());
        graph.codes.row_mut(slot).copy_from_slice(&codes.codes);
        graph.scales.row_mut(slot)[0] = [codes.scale, codes.square];
        if let Some(vectors) = &mut graph.vectors {
            vectors.row_mut(slot).copy_from_slice(vector);
        }
        graph.len += 1;
        self.slot_of.insert(id, slot);
    }

    /// Links a new node on each of its layers.
    fn connect(&mut self, slot: u32, from: Origin<'_>, entry: u32, layers: usize) {
        let (m, ef) = (self.graph.options.m, self.graph.options.ef_construction);
        let top = layers.min(self.graph.layers_of(entry));
        let mut nearest = self.graph.descend(from, entry, top - 1);
        for layer in (0..top).rev() {
            let mut scratch = std::mem::take(&mut self.scratch);
            let found = self.graph.walk(layer, from, &[nearest], Limits::nearest(ef), &mut scratch);
            self.scratch = scratch;
            let found = found.unwrap_or_default();
            nearest = found.first().copied().unwrap_or(nearest);
            let chosen = self.choose(&found, m);
            for near in &chosen {
                self.link(layer, slot, near.slot());
            }
            for near in &chosen {
                self.link_back(layer, near.slot(), slot);
            }
            // The heuristic of all neighbours may have left the node out; it must be found all the same.
            if !self.is_linked(layer, slot, slot)
                && let Some(near) = chosen.first()
            {
                self.force_link(layer, near.slot(), slot);
            }
        }
    }

    /// The candidates that are nearer to the base than to any chosen before them (algorithm 4 of the paper).
    pub(super) fn choose(&self, candidates: &[Near], most: usize) -> Vec<Near> {
        let mut chosen: Vec<Near> = Vec::with_capacity(most);
        let mut slots: Vec<u32> = Vec::with_capacity(most);
        for candidate in candidates {
            if chosen.len() == most {
                break;
            }
            if self.is_spread(*candidate, &slots) {
                chosen.push(*candidate);
                slots.push(candidate.slot());
            }
        }
        chosen
    }

    /// Whether the candidate is nearer to the base than to each of `slots`.
    pub(super) fn is_spread(&self, candidate: Near, slots: &[u32]) -> bool {
        let from = self.graph.from(candidate.slot());
        // In small steps: most candidates fail at one of the first.
        slots.chunks(4).all(|slots| {
            let mut spread = true;
            self.graph.distances(from, slots, |near| {
                spread &= near.distance() > candidate.distance();
            });
            spread
        })
    }

    /// Links `slot` to the new node, or chooses its links again if it has no room.
    fn link_back(&mut self, layer: usize, slot: u32, new: u32) {
        let most = self.graph.options.links_max(layer);
        let links = self.graph.links_of(layer, slot);
        if links.len() < most {
            self.link(layer, slot, new);
            return;
        }
        let mut candidates = Vec::with_capacity(links.len() + 1);
        let from = self.graph.from(slot);
        self.graph.distances(from, links, |near| candidates.push(near));
        self.graph.distances(from, &[new], |near| candidates.push(near));
        candidates.sort_unstable();
        let kept: Vec<u32> = self.choose(&candidates, most).iter().map(|near| near.slot()).collect();
        let dropped: Vec<u32> =
            candidates.iter().map(|near| near.slot()).filter(|link| !kept.contains(link)).collect();
        for link in dropped {
            // A node that nothing else links to keeps this link: no walk would find it otherwise.
            if link != new && self.is_linked(layer, link, slot) {
                self.unlink(layer, slot, link);
            }
        }
        if kept.contains(&new) && self.graph.links_of(layer, slot).len() < most {
            self.link(layer, slot, new);
        }
    }

    /// Links `slot` to `target`, in place of its farthest link that can be spared if it has no room.
    pub(super) fn force_link(&mut self, layer: usize, slot: u32, target: u32) {
        let links = self.graph.links_of(layer, slot);
        if slot == target || links.contains(&target) {
            return;
        }
        if links.len() >= self.graph.options.links_max(layer) {
            let mut by_distance = Vec::with_capacity(links.len());
            self.graph.distances(self.graph.from(slot), links, |near| by_distance.push(near));
            by_distance.sort_unstable();
            let spare = by_distance.iter().rev().find(|near| self.is_linked(layer, near.slot(), slot));
            let Some(spare) = spare.or(by_distance.last()) else { return };
            self.unlink(layer, slot, spare.slot());
        }
        self.link(layer, slot, target);
    }
}

/// Layers of a node: one more with a chance of 1 in `m` each. Integers only, so that every processor draws
/// the same.
fn layers_of(seed: u64, number: u64, m: usize) -> usize {
    // SplitMix64 (Steele, Lea, Flood 2014) of the number.
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let mut layers = 1;
    let mut below = u64::MAX / m as u64;
    while z < below && layers < LAYERS_MAX {
        layers += 1;
        below /= m as u64;
    }
    layers
}
