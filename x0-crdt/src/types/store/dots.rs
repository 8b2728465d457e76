//! [`Dots`]: the leaf of all stores.

use alloc::vec::Vec;

use super::{DotStore, JoinScope, StoreForm};
use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::dot::Dot;
use crate::types::change::Change;
use crate::types::context::Context;

/// Dots, each with a value, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dots<V> {
    items: Vec<(Dot, V)>,
}

impl<V> Default for Dots<V> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<V> Dots<V> {
    /// One dot.
    #[must_use]
    pub fn of(dot: Dot, value: V) -> Self {
        Self { items: alloc::vec![(dot, value)] }
    }

    /// The dots and values, ascending by dot.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Dot, &V)> + Clone + '_ {
        self.items.iter().map(|(dot, value)| (*dot, value))
    }

    /// The value of `dot`.
    #[must_use]
    pub fn get(&self, dot: Dot) -> Option<&V> {
        self.position(dot).ok().map(|at| &self.items[at].1)
    }

    /// How many dots there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The store of a change that replaces all values by `value`.
    #[must_use]
    pub fn replaced(&self, change: &mut Change, value: V) -> Self {
        self.iter().for_each(|(dot, _)| change.kill(dot));
        Self::of(change.dot(), value)
    }

    /// The store of a change that removes all values. Without values: no event.
    #[must_use]
    pub fn cleared(&self, change: &mut Change) -> Self {
        if !self.is_empty() {
            self.iter().for_each(|(dot, _)| change.kill(dot));
            change.dot();
        }
        Self::default()
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) fn insert(&mut self, dot: Dot, value: V) {
        match self.position(dot) {
            Ok(at) => self.items[at].1 = value,
            Err(at) => self.items.insert(at, (dot, value)),
        }
    }

    fn position(&self, dot: Dot) -> Result<usize, usize> {
        match self.items.as_slice() {
            [] => Err(0),
            items => items.binary_search_by_key(&dot, |(dot, _)| *dot),
        }
    }
}

/// Whether `theirs` is the value to keep for a dot that arrived with both.
fn is_greater<V: Eq + Canonical>(theirs: &V, mine: &V) -> bool {
    if theirs == mine {
        return false;
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    theirs.encode(&mut a);
    mine.encode(&mut b);
    a > b
}

impl<V: Clone + Eq + Canonical> DotStore for Dots<V> {
    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn for_each_dot(&self, visit: &mut dyn FnMut(Dot)) {
        self.items.iter().for_each(|(dot, _)| visit(*dot));
    }

    fn join(&mut self, context: &Context, other: &Self, other_context: &Context, _scope: JoinScope) -> bool {
        let before = self.items.len();
        self.items.retain(|(dot, _)| !other_context.contains(*dot) || other.position(*dot).is_ok());
        let mut changed = self.items.len() != before;
        for (dot, theirs) in &other.items {
            match self.position(*dot) {
                Ok(at) => {
                    let mine = &mut self.items[at].1;
                    if is_greater(theirs, mine) {
                        mine.clone_from(theirs);
                        changed = true;
                    }
                }
                Err(at) if !context.contains(*dot) => {
                    if self.items.is_empty() {
                        // Most leaves never hold more than one dot.
                        self.items.reserve_exact(1);
                    }
                    self.items.insert(at, (*dot, theirs.clone()));
                    changed = true;
                }
                Err(_) => {}
            }
        }
        changed
    }

    fn delta(&self, context: &Context, since: &Self, since_context: &Context, gone: &mut Context) -> Self {
        for (dot, _) in &since.items {
            if context.contains(*dot) && self.position(*dot).is_err() {
                gone.insert(*dot);
            }
        }
        let is_news = |(dot, value): &&(Dot, V)| {
            since.get(*dot).map_or_else(|| !since_context.contains(*dot), |theirs| is_greater(value, theirs))
        };
        Self { items: self.items.iter().filter(is_news).cloned().collect() }
    }

    fn touched(&self) -> Self {
        Self::default()
    }

    fn split(&self, piece: &mut dyn FnMut(Dot, Self)) {
        self.items.iter().for_each(|(dot, value)| piece(*dot, Self::of(*dot, value.clone())));
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_integer(self.items.len() as u64, out);
        for (dot, value) in &self.items {
            dot.encode(out);
            value.encode(out);
        }
    }

    fn decode(input: &mut ByteReader<'_>, _form: StoreForm) -> Result<Self, DecodeError> {
        const WHAT: &str = "dots";
        // The least that a dot takes: a replica of 9 bytes and a number of one.
        let count = input.count(10, WHAT)?;
        let mut items: Vec<(Dot, V)> = Vec::new();
        for _ in 0..count {
            let dot = Dot::decode(input)?;
            if items.last().is_some_and(|(last, _)| *last >= dot) {
                return Err(DecodeError::NotCanonical { what: WHAT });
            }
            items.push((dot, V::decode(input)?));
        }
        items.shrink_to_fit();
        Ok(Self { items })
    }
}
