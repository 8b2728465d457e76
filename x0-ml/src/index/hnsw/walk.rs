//! The walk over one layer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::graph::{Graph, Near, Origin};
use crate::index::vector_index::Filter;

/// Memory of walks, used again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// A bit for each slot.
    visited: Vec<u64>,
    candidates: BinaryHeap<Reverse<Near>>,
    best: BinaryHeap<Near>,
    fresh: Vec<u32>,
    /// Distances measured since it was set to zero.
    pub(super) measured: usize,
}

/// The goal of a walk, and its bound.
#[derive(Clone, Copy)]
pub(super) struct Limits<'a> {
    /// Nodes to find.
    pub(super) ef: usize,
    pub(super) filter: Option<Filter<'a>>,
    /// Distances that it may measure.
    pub(super) measured_max: usize,
}

impl Limits<'_> {
    /// The `ef` nearest of all nodes.
    pub(super) fn nearest(ef: usize) -> Self {
        Self { ef, filter: None, measured_max: usize::MAX }
    }
}

impl Scratch {
    fn begin(&mut self, slots: u32) {
        self.visited.clear();
        self.visited.resize((slots as usize).div_ceil(64), 0);
        self.candidates.clear();
        self.best.clear();
    }

    /// Marks the slot; `true` if it was not marked.
    #[inline]
    fn visit(&mut self, slot: u32) -> bool {
        let word = &mut self.visited[slot as usize / 64];
        let before = *word;
        *word |= 1 << (slot % 64);
        *word != before
    }

    /// Marks the slots and keeps those that were not marked in `fresh`.
    #[inline]
    fn visit_all(&mut self, slots: &[u32]) {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.resize(slots.len().max(fresh.len()), 0);
        let mut len = 0;
        // Without a branch on the mark, which no processor could predict.
        for slot in slots {
            fresh[len] = *slot;
            len += usize::from(self.visit(*slot));
        }
        fresh.truncate(len);
        self.fresh = fresh;
    }
}

impl Graph {
    /// The nearest nodes of a layer that pass the filter, the nearest first; found by a walk from `starts`.
    ///
    /// `None` if it would measure too many distances.
    pub(super) fn walk(
        &self,
        layer: usize,
        from: Origin<'_>,
        starts: &[Near],
        limits: Limits<'_>,
        scratch: &mut Scratch,
    ) -> Option<Vec<Near>> {
        let Limits { ef, filter, measured_max } = limits;
        let passes = |slot: u32| filter.is_none_or(|filter| filter(self.id(slot)));
        scratch.begin(self.slots);
        scratch.measured = 0;
        for start in starts {
            if scratch.visit(start.slot()) {
                scratch.candidates.push(Reverse(*start));
                if passes(start.slot()) {
                    scratch.best.push(*start);
                }
            }
        }
        while let Some(Reverse(nearest)) = scratch.candidates.pop() {
            let is_full = scratch.best.len() >= ef;
            if is_full && scratch.best.peek().is_some_and(|worst| nearest > *worst) {
                break;
            }
            scratch.visit_all(self.links_of(layer, nearest.slot()));
            scratch.measured += scratch.fresh.len();
            if scratch.measured > measured_max {
                return None;
            }
            let Scratch { best, candidates, fresh, .. } = &mut *scratch;
            self.distances(from, fresh, |near| {
                if best.len() < ef || best.peek().is_some_and(|worst| near < *worst) {
                    if candidates.peek().is_none_or(|Reverse(first)| near < *first) {
                        // The next node of the walk, unless a nearer one follows.
                        self.prefetch_links(layer, near.slot());
                    }
                    candidates.push(Reverse(near));
                    if passes(near.slot()) {
                        best.push(near);
                        if best.len() > ef {
                            best.pop();
                        }
                    }
                }
            });
        }
        let mut found: Vec<Near> = scratch.best.drain().collect();
        found.sort_unstable();
        Some(found)
    }

    /// Descends from the entry point to the layer above `layer`, always to the nearest node.
    pub(super) fn descend(&self, from: Origin<'_>, entry: u32, layer: usize) -> Near {
        let mut nearest = Near::new(f32::INFINITY, entry);
        self.distances(from, &[entry], |near| nearest = near);
        for layer in (layer + 1..self.layers_of(entry)).rev() {
            loop {
                let before = nearest;
                self.distances(from, self.links_of(layer, nearest.slot()), |near| {
                    nearest = nearest.min(near);
                });
                if nearest == before {
                    break;
                }
            }
        }
        nearest
    }

    /// Where a walk over the lowest layer begins: where the descent from the entry point ends, and the entry
    /// point itself. Links have a direction, and only from the entry point is every node reached.
    pub(super) fn starts(&self, from: Origin<'_>, entry: u32) -> [Near; 2] {
        let mut starts = [self.descend(from, entry, 0); 2];
        self.distances(from, &[entry], |near| starts[1] = near);
        starts
    }
}
