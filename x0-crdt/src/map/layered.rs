//! [`Layered`]: an ordered map over which a prepared layer of changes takes effect at once, and into which
//! the layer is merged in bounded steps.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::ops::RangeBounds;

/// The most keys that are noted as changed. A layer is prepared anew if there are more.
const NOTES_MAX: usize = 1 << 13;

/// A changed entry of a layer.
#[derive(Debug, Clone)]
pub(super) struct Change<V> {
    /// `None`: the key is removed.
    pub(super) value: Option<V>,
    /// The map below the layer holds the key.
    pub(super) is_held: bool,
}

impl<V> Change<V> {
    /// What the change adds to the number of keys.
    fn added(&self) -> isize {
        isize::from(self.value.is_some()) - isize::from(self.is_held)
    }
}

/// Changes by key, for [`Layered::lay`].
pub(super) type Layer<K, V> = BTreeMap<K, Change<V>>;

/// A `BTreeMap` with at most one layer of changes over it. Every method acts as if the layer were merged.
#[derive(Debug, Clone)]
pub(super) struct Layered<K, V> {
    base: BTreeMap<K, V>,
    over: Layer<K, V>,
    /// How many keys the layer adds; negative if it removes more.
    added: isize,
    /// The keys that were changed one by one while a layer is being prepared. `None`: none is, or too many
    /// keys were changed.
    notes: Option<Vec<K>>,
}

impl<K, V> Default for Layered<K, V> {
    fn default() -> Self {
        Self { base: BTreeMap::new(), over: BTreeMap::new(), added: 0, notes: None }
    }
}

impl<K: Ord + Clone, V> Layered<K, V> {
    pub(super) fn len(&self) -> usize {
        self.base.len().saturating_add_signed(self.added)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self.changed(key) {
            Some(change) => change.value.as_ref(),
            None => self.base.get(key),
        }
    }

    pub(super) fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        if self.over.is_empty() {
            return self.base.get_key_value(key);
        }
        match self.over.get_key_value(key) {
            Some((key, change)) => Some((key, change.value.as_ref()?)),
            None => self.base.get_key_value(key),
        }
    }

    pub(super) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The value of a key, which counts as changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.note(key);
        self.get_mut_unnoted(key)
    }

    /// The value of a key, which does not count as changed.
    pub(super) fn get_mut_unnoted(&mut self, key: &K) -> Option<&mut V> {
        // Looked up twice, because a borrow of the layer would last for the whole function; it is empty
        // mostly.
        if self.changed(key).is_some() {
            return self.over.get_mut(key).and_then(|change| change.value.as_mut());
        }
        self.base.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.note(&key);
        if !self.over.is_empty()
            && let Some(change) = self.over.get_mut(&key)
        {
            let before = change.value.replace(value);
            self.added += isize::from(before.is_none());
            return before;
        }
        self.base.insert(key, value)
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.remove_entry(key).map(|(_, value)| value)
    }

    pub(super) fn remove_entry<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let removed = self.remove_unnoted(key);
        if let Some((key, _)) = &removed {
            self.note(key);
        }
        removed
    }

    /// Removes a key, which does not count as changed.
    pub(super) fn remove_unnoted<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        match self.over.get_key_value(key).map(|(key, _)| key.clone()) {
            Some(key) => {
                let value = self.over.get_mut::<K>(&key).and_then(|change| change.value.take())?;
                self.added -= 1;
                Some((key, value))
            }
            None => self.base.remove_entry(key),
        }
    }

    /// Keeps the entries that `keep` accepts. Those that are dropped are not noted as changed.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let over = &self.over;
        self.base.retain(|key, value| over.contains_key(key) || keep(key, value));
        for (key, change) in &mut self.over {
            if change.value.as_mut().is_some_and(|value| !keep(key, value)) {
                change.value = None;
                self.added -= 1;
            }
        }
    }

    /// Takes out all entries of a map that has no layer.
    pub(super) fn take(&mut self) -> BTreeMap<K, V> {
        debug_assert!(self.over.is_empty(), "the layer would be left");
        core::mem::take(&mut self.base)
    }

    /// Drops an entry, any one.
    pub(super) fn drop_one(&mut self) -> bool {
        self.over.pop_first().is_some() || self.base.pop_first().is_some()
    }

    pub(super) fn range<Q, R>(&self, range: R) -> Merged<'_, K, V, btree_map::Range<'_, K, V>>
    where
        Q: Ord + ?Sized,
        K: Borrow<Q>,
        R: RangeBounds<Q> + Clone,
    {
        let over = (!self.over.is_empty()).then(|| self.over.range(range.clone()));
        Merged::new(self.base.range(range), over)
    }

    pub(super) fn iter(&self) -> Merged<'_, K, V, btree_map::Iter<'_, K, V>> {
        let over = (!self.over.is_empty()).then(|| self.over.range(..));
        Merged::new(self.base.iter(), over)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    fn changed<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Change<V>>
    where
        K: Borrow<Q>,
    {
        if self.over.is_empty() { None } else { self.over.get(key) }
    }

    fn note(&mut self, key: &K) {
        let Some(notes) = &mut self.notes else { return };
        if notes.len() < NOTES_MAX {
            notes.push(key.clone());
        } else {
            self.notes = None;
        }
    }

    /// Notes the changed keys from now on.
    pub(super) fn begin_notes(&mut self) {
        self.notes = Some(Vec::new());
    }

    pub(super) fn end_notes(&mut self) {
        self.notes = None;
    }

    /// The keys that were changed, some of them twice. `None`: they are not noted.
    pub(super) fn notes(&self) -> Option<&[K]> {
        self.notes.as_deref()
    }

    /// Whether there is a layer.
    pub(super) fn has_layer(&self) -> bool {
        !self.over.is_empty()
    }

    /// Lays changes over the map, in which there must be no layer yet.
    pub(super) fn lay(&mut self, layer: Layer<K, V>) {
        debug_assert!(self.over.is_empty(), "one layer at a time");
        self.added = layer.values().map(Change::added).sum();
        self.over = layer;
    }

    /// Merges up to `count` changes of the layer. Returns whether there are more.
    pub(super) fn merge(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some((key, change)) = self.over.pop_first() else { return false };
            self.added -= change.added();
            match change.value {
                Some(value) => drop(self.base.insert(key, value)),
                None if change.is_held => drop(self.base.remove(&key)),
                None => {}
            }
        }
        self.has_layer()
    }
}

impl<'a, K: Ord + Clone, V> IntoIterator for &'a Layered<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Merged<'a, K, V, btree_map::Iter<'a, K, V>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Clone, V> Extend<(K, V)> for Layered<K, V> {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, entries: T) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

/// An iterator of which one item at each end can be put back.
struct Ends<I: Iterator> {
    items: I,
    front: Option<I::Item>,
    back: Option<I::Item>,
}

impl<I: DoubleEndedIterator> Ends<I> {
    const fn new(items: I) -> Self {
        Self { items, front: None, back: None }
    }

    fn next(&mut self) -> Option<I::Item> {
        self.front.take().or_else(|| self.items.next()).or_else(|| self.back.take())
    }

    fn next_back(&mut self) -> Option<I::Item> {
        self.back.take().or_else(|| self.items.next_back()).or_else(|| self.front.take())
    }
}

/// The entries of a [`Layered`], ascending.
pub(super) struct Merged<'a, K, V, I: Iterator> {
    base: Ends<I>,
    /// `None`: there is no layer, and entries pass through.
    over: Option<Ends<btree_map::Range<'a, K, Change<V>>>>,
}

impl<'a, K, V, I: DoubleEndedIterator<Item = (&'a K, &'a V)>> Merged<'a, K, V, I> {
    const fn new(base: I, over: Option<btree_map::Range<'a, K, Change<V>>>) -> Self {
        let over = match over {
            Some(over) => Some(Ends::new(over)),
            None => None,
        };
        Self { base: Ends::new(base), over }
    }
}

impl<'a, K: Ord, V, I: DoubleEndedIterator<Item = (&'a K, &'a V)>> Iterator for Merged<'a, K, V, I> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let Some(over) = &mut self.over else { return self.base.items.next() };
        loop {
            let below = self.base.next();
            let Some((key, change)) = over.next() else { return below };
            match below {
                Some(entry) if entry.0 < key => {
                    over.front = Some((key, change));
                    return Some(entry);
                }
                Some(entry) if entry.0 > key => self.base.front = Some(entry),
                // The layer's entry stands for the one below it.
                _ => {}
            }
            if let Some(value) = &change.value {
                return Some((key, value));
            }
        }
    }
}

impl<'a, K: Ord, V, I: DoubleEndedIterator<Item = (&'a K, &'a V)>> DoubleEndedIterator
    for Merged<'a, K, V, I>
{
    fn next_back(&mut self) -> Option<Self::Item> {
        let Some(over) = &mut self.over else { return self.base.items.next_back() };
        loop {
            let below = self.base.next_back();
            let Some((key, change)) = over.next_back() else { return below };
            match below {
                Some(entry) if entry.0 > key => {
                    over.back = Some((key, change));
                    return Some(entry);
                }
                Some(entry) if entry.0 < key => self.base.back = Some(entry),
                _ => {}
            }
            if let Some(value) = &change.value {
                return Some((key, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Random changes, layers and merges beside a plain map.
    #[test]
    fn a_layered_map_acts_as_a_plain_one() {
        let mut random = SplitMix64::new(5);
        let mut below = move |bound: u64| random.next() % bound;
        for _ in 0..200 {
            let (mut map, mut plain) = (Layered::default(), BTreeMap::new());
            for step in 0..300_u64 {
                let key = below(40);
                match below(9) {
                    0 | 1 => assert_eq!(map.insert(key, step), plain.insert(key, step)),
                    2 => assert_eq!(map.remove(&key), plain.remove(&key)),
                    3 => assert_eq!(map.remove_entry(&key), plain.remove_entry(&key)),
                    4 => {
                        assert_eq!(
                            map.get_mut(&key).map(|value| *value = step),
                            plain.get_mut(&key).map(|value| *value = step)
                        );
                    }
                    5 if step % 7 == 0 => {
                        let other = below(5);
                        map.retain(|key, value| (key + *value) % 5 != other);
                        plain.retain(|key, value| (key + *value) % 5 != other);
                    }
                    6 if !map.has_layer() => {
                        let mut layer = Layer::new();
                        for _ in 0..below(12) {
                            let key = below(40);
                            let value = (below(3) > 0).then_some(step + 1_000);
                            match value {
                                Some(value) => drop(plain.insert(key, value)),
                                None => drop(plain.remove(&key)),
                            }
                            layer.insert(key, Change { value, is_held: map.contains_key(&key) });
                        }
                        map.lay(layer);
                    }
                    _ => assert_eq!(map.merge(2), map.has_layer()),
                }
                assert_eq!((map.len(), map.is_empty()), (plain.len(), plain.is_empty()));
                assert!(map.iter().eq(&plain) && (&map).into_iter().eq(&plain));
                assert!(map.keys().eq(plain.keys()) && map.values().eq(plain.values()));
                let (from, to) = (below(40), below(40));
                let range = from.min(to)..=from.max(to);
                assert!(map.range(range.clone()).eq(plain.range(range.clone())));
                assert!(map.range(range.clone()).rev().eq(plain.range(range.clone()).rev()));
                // From both ends, until they meet.
                let (mut both, mut expected) = (map.range(range.clone()), plain.range(range));
                for _ in 0..25 {
                    if below(2) == 0 {
                        assert_eq!(both.next(), expected.next());
                    } else {
                        assert_eq!(both.next_back(), expected.next_back());
                    }
                }
                assert_eq!(map.get(&key), plain.get(&key));
                assert_eq!(map.get_key_value(&key), plain.get_key_value(&key));
                assert_eq!(map.contains_key(&key), plain.contains_key(&key));
            }
            let mut left = 0;
            while map.drop_one() {
                left += 1;
            }
            assert!(left >= plain.len() && !map.drop_one());
        }
    }

    #[test]
    fn changed_keys_are_noted_up_to_a_bound() {
        let mut map: Layered<u64, u64> = Layered::default();
        map.insert(1, 1);
        assert_eq!(map.notes(), None);
        map.begin_notes();
        map.insert(2, 2);
        map.remove(&1);
        map.remove(&9);
        map.get_mut(&2);
        map.extend([(3, 3)]);
        assert_eq!(map.notes(), Some(&[2, 1, 2, 3][..]));
        for key in 0..NOTES_MAX as u64 {
            map.insert(key, key);
        }
        assert_eq!(map.notes(), None, "a preparation starts over");
        map.begin_notes();
        map.end_notes();
        assert_eq!(map.notes(), None);
    }
}
