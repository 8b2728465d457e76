//! One event with two contents: its writer equivocates, or lost its last events and wrote on under its old
//! ID.
//!
//! All replicas resolve it alike: a value wins over a removal, and of two values the one with the greater
//! canonical bytes, which begin with the path to the value. So one dot at two places, which the causal join
//! alone would count as removed at both, keeps one value.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::transfer::StateDelta;
use super::{CausalReplica, Items};
use crate::Dot;
use crate::types::context::Context;
use crate::types::store::{DotStore, JoinScope};

/// Whether the content of the delta wins.
pub(super) type Clashes = BTreeMap<Dot, bool>;

impl<S: DotStore> CausalReplica<S> {
    /// The events of a delta that have another content here. Costs nothing but lookups unless there are any.
    pub(super) fn clashes(&self, delta: &StateDelta<S>, items: &Items) -> Clashes {
        let mut clashes = Clashes::new();
        let mut unequal = Context::new();
        for (dot, held) in items {
            match self.items.get(dot) {
                Some(other) if other != held => {
                    unequal.insert(*dot);
                }
                // A removal here: events with a record and without a value are removals.
                None if self.history.contains_key(dot) => {
                    clashes.insert(*dot, true);
                }
                _ => {}
            }
        }
        for dot in delta.history.keys() {
            // A value here that is a removal there.
            if self.items.contains_key(dot) && !items.contains_key(dot) {
                clashes.insert(*dot, false);
            }
        }
        if !unequal.is_empty() {
            let (mine, theirs) = (pieces(self.store(), &unequal), pieces(&delta.store, &unequal));
            clashes.extend(unequal.dots().map(|dot| (dot, theirs.get(&dot) > mine.get(&dot))));
        }
        clashes
    }

    /// Joins the store of a delta of which some events have another content here. `known` are the dots that
    /// the delta speaks of.
    pub(super) fn join_clashing(
        &mut self,
        delta: &StateDelta<S>,
        known: &Context,
        clashes: &Clashes,
    ) -> bool {
        let with =
            |wins: bool| clashes.iter().filter(move |(_, theirs)| **theirs == wins).map(|(dot, _)| *dot);
        let (theirs, mine): (Context, Context) = (with(true).collect(), with(false).collect());
        let nothing = S::default();
        // The losing contents are removed on their side first, so that the join meets each dot at one place
        // only.
        let mut store = delta.store.clone();
        store.join(known, &nothing, &mine, JoinScope::States);
        let removed = self.state.join_parts(&nothing, &theirs, &Context::new());
        for dot in theirs.dots() {
            self.history.remove(&dot);
        }
        self.state.join_parts(&store, &known.difference(&mine), &theirs) || removed
    }
}

/// The canonical bytes of the values of these dots, with their paths.
fn pieces<S: DotStore>(store: &S, dots: &Context) -> BTreeMap<Dot, Vec<u8>> {
    let mut pieces = BTreeMap::new();
    store.split(&mut |dot, piece| {
        if dots.contains(dot) {
            let mut bytes = Vec::new();
            piece.encode(&mut bytes);
            pieces.insert(dot, bytes);
        }
    });
    pieces
}
