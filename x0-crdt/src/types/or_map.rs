//! [`OrMap`]: a map of any dot stores, with removal.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::borrow::Borrow;

use crate::codec::{ByteReader, Canonical, DecodeError, put_integer};
use crate::dot::Dot;
use crate::types::change::Change;
use crate::types::context::Context;
use crate::types::store::{DotStore, JoinScope, StoreForm};

/// A map of any dot stores, also of maps.
///
/// A key exists as long as there is a value under it. Removing a key removes the values seen under it;
/// concurrent writes of other replicas stay ("observed remove"). The types under the key document what that
/// means for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrMap<K, S> {
    children: BTreeMap<K, S>,
}

impl<K, S> Default for OrMap<K, S> {
    fn default() -> Self {
        Self { children: BTreeMap::new() }
    }
}

impl<K: Ord + Clone + Canonical, S: DotStore> OrMap<K, S> {
    /// The store under `key`.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&S>
    where
        K: Borrow<Q>,
    {
        self.children.get(key)
    }

    /// The keys and their stores, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &S)> + Clone + '_ {
        self.children.iter()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Makes a change under `key`, which may be new.
    #[must_use = "this is the store of the delta"]
    pub fn update(&self, change: &mut Change, key: K, make: impl FnOnce(&S, &mut Change) -> S) -> Self {
        let child = match self.children.get(&key) {
            Some(child) => make(child, change),
            None => make(&S::default(), change),
        };
        Self { children: BTreeMap::from([(key, child)]) }
    }

    /// Removes all values seen under `key`. No key: no event.
    #[must_use = "this is the store of the delta"]
    pub fn remove(&self, change: &mut Change, key: &K) -> Self {
        let child = self.children.get(key).map(|child| (key.clone(), change.remove(child)));
        Self { children: child.into_iter().collect() }
    }

    /// Removes all values that are seen. Empty: no event.
    #[must_use = "this is the store of the delta"]
    pub fn clear(&self, change: &mut Change) -> Self {
        change.remove(self)
    }

    #[cfg(feature = "compat-crdts")]
    pub(crate) fn insert(&mut self, key: K, child: S) {
        self.children.insert(key, child);
    }
}

impl<K: Ord + Clone + Canonical, S: DotStore> DotStore for OrMap<K, S> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    fn for_each_dot(&self, visit: &mut dyn FnMut(Dot)) {
        self.children.values().for_each(|child| child.for_each_dot(visit));
    }

    fn join(&mut self, context: &Context, other: &Self, other_context: &Context, scope: JoinScope) -> bool {
        let keeps_empty = scope == JoinScope::Deltas;
        let mut changed = false;
        for (key, theirs) in &other.children {
            if let Some(mine) = self.children.get_mut(key) {
                changed |= mine.join(context, theirs, other_context, scope);
                if mine.is_empty() && !keeps_empty {
                    self.children.remove(key);
                }
            } else {
                let mut mine = S::default();
                mine.join(context, theirs, other_context, scope);
                if keeps_empty || !mine.is_empty() {
                    self.children.insert(key.clone(), mine);
                    changed = true;
                }
            }
        }
        if scope != JoinScope::Apply {
            let nothing = S::default();
            self.children.retain(|key, mine| {
                if other.children.contains_key(key) {
                    return true;
                }
                changed |= mine.join(context, &nothing, other_context, scope);
                keeps_empty || !mine.is_empty()
            });
        }
        changed
    }

    fn delta(&self, context: &Context, since: &Self, since_context: &Context, gone: &mut Context) -> Self {
        let nothing = S::default();
        for (key, theirs) in &since.children {
            if !self.children.contains_key(key) {
                let none = nothing.delta(context, theirs, since_context, gone);
                debug_assert!(none.is_empty());
            }
        }
        let news = |(key, mine): (&K, &S)| {
            let theirs = since.children.get(key).unwrap_or(&nothing);
            let news = mine.delta(context, theirs, since_context, gone);
            (!news.is_empty()).then(|| (key.clone(), news))
        };
        Self { children: self.children.iter().filter_map(news).collect() }
    }

    fn touched(&self) -> Self {
        Self { children: self.children.iter().map(|(key, child)| (key.clone(), child.touched())).collect() }
    }

    fn split(&self, piece: &mut dyn FnMut(Dot, Self)) {
        for (key, child) in &self.children {
            child.split(&mut |dot, store| {
                piece(dot, Self { children: BTreeMap::from([(key.clone(), store)]) });
            });
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_integer(self.children.len() as u64, out);
        for (key, child) in &self.children {
            key.encode(out);
            child.encode(out);
        }
    }

    fn decode(input: &mut ByteReader<'_>, form: StoreForm) -> Result<Self, DecodeError> {
        const WHAT: &str = "a map";
        // A child takes at least a byte, whatever the key takes.
        let count = input.count(1, WHAT)?;
        let mut children = BTreeMap::new();
        for _ in 0..count {
            let key = K::decode(input)?;
            if children.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::NotCanonical { what: WHAT });
            }
            let child = S::decode(input, form)?;
            if form == StoreForm::State && child.is_empty() {
                return Err(DecodeError::NotCanonical { what: "an empty child" });
            }
            children.insert(key, child);
        }
        Ok(Self { children })
    }
}
