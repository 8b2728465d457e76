//! The choice between a walk and a scan, and the scan.

use std::cell::RefCell;
use std::collections::BinaryHeap;

use super::blocks::ROWS;
use super::graph::{Graph, Near, Origin};
use super::walk::{Limits, Scratch};
use crate::index::vector::VectorId;
use crate::index::vector_index::{Filter, Search};

/// Slots that are asked to estimate how many vectors pass a filter.
const SAMPLE: usize = 256;
/// New nodes that a walk measures for each candidate; measured on MiniLM vectors with m = 16.
const MEASURED_PER_CANDIDATE: usize = 16;
/// Calls of a filter that take as long as one distance.
const FILTERS_PER_DISTANCE: usize = 8;

thread_local! {
    /// Memory of the walks of searches in this thread: a bit for each slot of the largest index, and heaps.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Graph {
    /// The nearest nodes by codes that pass the filter, the nearest first; at least `keep`, if there are so
    /// many.
    pub(super) fn candidates(&self, from: Origin<'_>, search: &Search<'_>, keep: usize) -> Vec<Near> {
        let ef = search.effort.unwrap_or(self.options.ef_search).max(search.k.min(keep));
        if self.len > self.options.scan_len_max
            && let Some(entry) = self.entry
            && let Some(measured_max) = self.worth_walking(search, ef)
        {
            let starts = self.starts(from, entry);
            let limits = Limits { ef, filter: search.filter, measured_max };
            // A filter may itself search another index in this thread: such a search has memory of its own.
            let found = SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
                Ok(mut scratch) => self.walk(0, from, &starts, limits, &mut scratch),
                Err(_) => self.walk(0, from, &starts, limits, &mut Scratch::default()),
            });
            // A filter whose vectors lie far from the query ends a walk late or early; the scan then answers.
            if let Some(found) = found
                && (search.filter.is_none() || found.len() >= keep.min(ef))
            {
                return found;
            }
        }
        self.scan(from, search.filter, keep)
    }

    /// The distances that a walk may measure, or `None` if a scan of the vectors that pass is cheaper.
    fn worth_walking(&self, search: &Search<'_>, ef: usize) -> Option<usize> {
        let Some(filter) = search.filter else { return Some(usize::MAX) };
        let passing = self.estimate(filter);
        let scan = passing + self.len / FILTERS_PER_DISTANCE;
        // A walk can keep only those of the nodes it meets that pass the filter.
        let walk = (ef * MEASURED_PER_CANDIDATE).checked_mul(self.len)?.checked_div(passing)?;
        // A walk that is given up costs at most half a scan.
        (walk < scan / 2).then_some(scan / 2)
    }

    /// About how many vectors pass.
    fn estimate(&self, filter: Filter<'_>) -> usize {
        let step = (self.slots as usize).div_ceil(SAMPLE).max(1);
        let live = (0..self.slots).step_by(step).filter(|slot| self.layers_of(*slot) > 0);
        let (mut asked, mut passed) = (0, 0);
        for slot in live {
            asked += 1;
            passed += usize::from(filter(self.id(slot)));
        }
        (passed * self.len).checked_div(asked).unwrap_or(0)
    }

    /// The `keep` nearest of all nodes that pass.
    fn scan(&self, from: Origin<'_>, filter: Option<Filter<'_>>, keep: usize) -> Vec<Near> {
        let mut best = BinaryHeap::with_capacity(keep + 1);
        let mut measure = |slots: &[u32]| {
            self.distances(from, slots, |near| {
                if best.len() < keep {
                    best.push(near);
                } else if best.peek().is_some_and(|worst| near < *worst) {
                    best.pop();
                    best.push(near);
                }
            });
        };
        const { assert!(ROWS <= u64::BITS as usize, "a bit for each slot of a block") };
        let (mut slots, mut len) = ([0_u32; 2 * ROWS], 0);
        for (first, (layers, ids)) in (0..).step_by(ROWS).zip(self.layers.blocks().zip(self.ids.blocks())) {
            let used = (self.slots.saturating_sub(first) as usize).min(ROWS);
            let mut passing = passing(filter, &layers[..used], &ids[..used]);
            while passing != 0 {
                slots[len] = first + passing.trailing_zeros();
                len += 1;
                passing &= passing - 1;
            }
            if len >= ROWS {
                measure(&slots[..len]);
                len = 0;
            }
        }
        measure(&slots[..len]);
        best.into_sorted_vec()
    }
}

/// A bit for each slot of a block that is in use and passes.
///
/// No branch depends on the filter, which no processor could predict. The function stays out of the scan, so
/// that what the scan keeps does not leave the registers at each call of the filter.
#[inline(never)]
fn passing(filter: Option<Filter<'_>>, layers: &[u8], ids: &[u64]) -> u64 {
    let mut passing = 0;
    if let Some(filter) = filter
        && layers.iter().fold(u8::MAX, |least, layers| least.min(*layers)) > 0
    {
        for id in ids.iter().rev() {
            passing = passing << 1 | u64::from(filter(VectorId(*id)));
        }
        return passing;
    }
    for (bit, (layers, id)) in layers.iter().zip(ids).enumerate() {
        // The filter is asked about present vectors only.
        let passes = *layers > 0 && filter.is_none_or(|filter| filter(VectorId(*id)));
        passing |= u64::from(passes) << bit;
    }
    passing
}
