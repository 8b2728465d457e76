//! [`Subscriptions`]: which keys below which prefixes have changed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::map::Joined;

/// The name of one subscription, never used twice by one [`Subscriptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u64);

/// Subscriptions to the keys of a map, by prefix.
///
/// The caller notes the keys that change, by a join ([`note_joined`](Self::note_joined)) or by a write
/// ([`note`](Self::note)), and polls what subscribers must be notified of. [`Peers`](crate::Peers) does both.
/// A notification holds no value: the subscriber reads the map, and so never sees an old value after a newer
/// one. A key that changes again before it is polled is one notification, so that a slow subscriber holds at
/// most the keys of its prefix.
///
/// ```
/// use x0_crdt::{CausalMap, HashKey, ReplicaId, Subscriptions};
///
/// let key = HashKey::new([7; 16]);
/// let mut here = CausalMap::new(ReplicaId::new(1), key);
/// let mut there = CausalMap::new(ReplicaId::new(2), key);
/// there.put(b"doors/front", 10, b"open")?;
/// there.put(b"windows/roof", 11, b"shut")?;
///
/// let mut subscriptions = Subscriptions::default();
/// let doors = subscriptions.subscribe(b"doors/");
/// let joined = here.join(&there.delta(&here.version())?)?;
/// subscriptions.note_joined(&joined);
/// assert_eq!(subscriptions.poll(), Some((doors, b"doors/front".to_vec())));
/// assert_eq!(subscriptions.poll(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Subscriptions {
    prefixes: BTreeMap<Vec<u8>, BTreeSet<SubscriptionId>>,
    by_id: BTreeMap<SubscriptionId, Vec<u8>>,
    /// How many prefixes have each length: a key is looked up once for each length.
    lens: BTreeMap<usize, usize>,
    /// What is to be polled.
    pending: BTreeSet<(SubscriptionId, Vec<u8>)>,
    last: u64,
}

impl Subscriptions {
    /// Subscribes to the keys that begin with `prefix`; the empty one is the prefix of all.
    pub fn subscribe(&mut self, prefix: &[u8]) -> SubscriptionId {
        self.last += 1;
        let id = SubscriptionId(self.last);
        let ids = self.prefixes.entry(prefix.to_vec()).or_default();
        if ids.is_empty() {
            *self.lens.entry(prefix.len()).or_default() += 1;
        }
        ids.insert(id);
        self.by_id.insert(id, prefix.to_vec());
        id
    }

    /// Ends a subscription, and drops what was not polled of it. Returns whether there was one.
    pub fn unsubscribe(&mut self, id: SubscriptionId) -> bool {
        let Some(prefix) = self.by_id.remove(&id) else { return false };
        self.pending.retain(|(of, _)| *of != id);
        let Some(ids) = self.prefixes.get_mut(&prefix) else { return true };
        ids.remove(&id);
        if ids.is_empty() {
            self.prefixes.remove(&prefix);
            if let Some(count) = self.lens.get_mut(&prefix.len()) {
                *count -= 1;
            }
            self.lens.retain(|_, count| *count > 0);
        }
        true
    }

    /// Notes that the values at a key have changed.
    pub fn note(&mut self, key: &[u8]) {
        for len in self.lens.keys() {
            let Some(prefix) = key.get(..*len) else { break };
            for id in self.prefixes.get(prefix).into_iter().flatten() {
                self.pending.insert((*id, key.to_vec()));
            }
        }
    }

    /// Notes all keys that a join has changed.
    pub fn note_joined(&mut self, joined: &Joined) {
        for key in &joined.keys {
            self.note(key);
        }
    }

    /// The next subscription to be notified, and the key that has changed.
    pub fn poll(&mut self) -> Option<(SubscriptionId, Vec<u8>)> {
        self.pending.pop_first()
    }

    /// Whether there is no subscription.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_notifies_each_prefix_of_it_once() {
        let mut subscriptions = Subscriptions::default();
        let ids = [&b""[..], b"a", b"ab", b"ab", b"b"].map(|prefix| subscriptions.subscribe(prefix));
        subscriptions.note(b"abc");
        subscriptions.note(b"abc");
        let mut notified = Vec::new();
        while let Some((id, key)) = subscriptions.poll() {
            assert_eq!(key, b"abc");
            notified.push(id);
        }
        assert_eq!(notified, ids[..4]);
        subscriptions.note(b"a");
        assert!(subscriptions.unsubscribe(ids[1]) && !subscriptions.unsubscribe(ids[1]));
        assert_eq!(subscriptions.poll(), Some((ids[0], b"a".to_vec())));
        assert_eq!(subscriptions.poll(), None, "the rest was dropped with its subscription");
        for id in [ids[0], ids[2], ids[3], ids[4]] {
            assert!(!subscriptions.is_empty());
            subscriptions.unsubscribe(id);
        }
        subscriptions.note(b"abc");
        assert_eq!((subscriptions.poll(), subscriptions.len()), (None, 0));
    }
}
