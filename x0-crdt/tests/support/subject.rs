//! The states that sessions synchronize, behind one interface, so that each test of sessions runs on all of
//! them.

use std::collections::BTreeMap;

use x0_crdt::internal::Transfer;
use x0_crdt::{
    CausalMap, CausalReplica, Dot, HashKey, LwwRegister, OrMap, OrSet, ReplicaId, Replicated, SessionError,
    Stamp, dot_store_struct,
};

pub(crate) const KEY: HashKey = HashKey::new(*b"a key of a test.");

#[allow(dead_code, reason = "each test binary uses its part")]
/// A replicated state with keys, values and removals.
pub(crate) trait Subject:
    Replicated + Transfer + Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// Events that a put or a removal takes.
    const EVENTS_PER_WRITE: u64;

    fn create(id: ReplicaId) -> Self;
    fn restore_as(bytes: &[u8], id: ReplicaId) -> Self;
    fn saved(&self) -> Vec<u8>;
    fn put_value(&mut self, key: &[u8], time: u64, value: &[u8]);
    /// Removes a key; whether it was there.
    fn remove_key(&mut self, key: &[u8]) -> bool;
    fn keys(&self) -> Vec<Vec<u8>>;
    /// The values at a key that no write has replaced.
    fn values(&self, key: &[u8]) -> Vec<Vec<u8>>;
    fn state_bytes(&self) -> Vec<u8>;
    /// Events that are remembered for peers.
    fn remembered(&self) -> usize;

    fn holds(&self, key: &[u8]) -> bool {
        !self.values(key).is_empty()
    }

    /// Joins what `from` tells from history if it reaches back and `all` is not asked for, and else all that
    /// it holds.
    fn take_from(&mut self, from: &Self, all: bool) {
        self.try_take_from(from, all).unwrap();
    }

    fn try_take_from(&mut self, from: &Self, all: bool) -> Result<Vec<Dot>, SessionError> {
        let since = self.version();
        let bytes = match from.encode_since(&since) {
            Ok(bytes) if !all => bytes,
            _ => from.encode_complete(&since),
        };
        let (_, joined) = self.join_encoded(&bytes, &since, |_| Vec::new())?;
        Ok(Self::equivocating(&joined))
    }

    /// Events that a join found with two contents.
    fn equivocating(joined: &Self::Joined) -> Vec<Dot>;

    /// The key and the value of each dot that is held (of a composed type, of its registers).
    fn contents(&self) -> BTreeMap<Dot, (Vec<u8>, Vec<u8>)>;
}

impl Subject for CausalMap {
    const EVENTS_PER_WRITE: u64 = 1;

    fn create(id: ReplicaId) -> Self {
        Self::new(id, KEY)
    }

    fn restore_as(bytes: &[u8], id: ReplicaId) -> Self {
        Self::restore(bytes, id, KEY).unwrap()
    }

    fn saved(&self) -> Vec<u8> {
        self.save()
    }

    fn put_value(&mut self, key: &[u8], time: u64, value: &[u8]) {
        self.put(key, time, value).unwrap();
    }

    fn remove_key(&mut self, key: &[u8]) -> bool {
        self.remove(key).is_some()
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        self.range(b"").map(|entry| entry.key().to_vec()).collect()
    }

    fn values(&self, key: &[u8]) -> Vec<Vec<u8>> {
        self.get(key)
            .map(|entry| entry.siblings().map(|held| held.value.to_vec()).collect())
            .unwrap_or_default()
    }

    fn state_bytes(&self) -> Vec<u8> {
        self.encode_state()
    }

    fn remembered(&self) -> usize {
        self.history_len()
    }

    fn equivocating(joined: &Self::Joined) -> Vec<Dot> {
        joined.equivocating.clone()
    }

    fn contents(&self) -> BTreeMap<Dot, (Vec<u8>, Vec<u8>)> {
        let entries = self.range(b"");
        let held = entries.flat_map(|entry| entry.siblings().map(move |held| (entry.key().to_vec(), held)));
        let mut contents = BTreeMap::new();
        for (key, held) in held {
            assert!(
                contents.insert(held.dot, (key, held.value.to_vec())).is_none(),
                "{} at two keys",
                held.dot
            );
        }
        contents
    }
}

type Bytes = Box<[u8]>;

/// A user's own type, composed of a map of registers and a set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Composed {
    registers: OrMap<Bytes, LwwRegister<Bytes>>,
    tags: OrSet<Bytes>,
}
dot_store_struct!(Composed { registers, tags });

impl Subject for CausalReplica<Composed> {
    const EVENTS_PER_WRITE: u64 = 2;

    fn create(id: ReplicaId) -> Self {
        Self::new(id, KEY)
    }

    fn restore_as(bytes: &[u8], id: ReplicaId) -> Self {
        Self::restore(bytes, id, KEY).unwrap()
    }

    fn saved(&self) -> Vec<u8> {
        self.save()
    }

    fn put_value(&mut self, key: &[u8], time: u64, value: &[u8]) {
        self.change(|composed, change| Composed {
            registers: composed.registers.update(change, key.into(), |register, change| {
                register.set(change, Stamp::new(time, 0), value.into())
            }),
            tags: composed.tags.add(change, key.into()),
        })
        .unwrap();
    }

    fn remove_key(&mut self, key: &[u8]) -> bool {
        let key: Bytes = key.into();
        let event = self.change(|composed, change| Composed {
            registers: composed.registers.remove(change, &key),
            tags: composed.tags.remove(change, &key),
        });
        event.unwrap().is_some()
    }

    fn keys(&self) -> Vec<Vec<u8>> {
        let keys: Vec<_> = self.store().registers.iter().map(|(key, _)| key.to_vec()).collect();
        let tags: Vec<_> = self.store().tags.iter().map(|tag| tag.to_vec()).collect();
        assert_eq!(keys, tags, "an operation on both is seen whole");
        keys
    }

    fn values(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let register = self.store().registers.get(key);
        let values =
            register.map(|register| register.siblings().map(|(_, _, value)| value.to_vec()).collect());
        values.unwrap_or_default()
    }

    fn state_bytes(&self) -> Vec<u8> {
        self.encode_state()
    }

    fn remembered(&self) -> usize {
        self.history_len()
    }

    fn equivocating(joined: &Self::Joined) -> Vec<Dot> {
        joined.equivocating.clone()
    }

    fn contents(&self) -> BTreeMap<Dot, (Vec<u8>, Vec<u8>)> {
        let mut contents = BTreeMap::new();
        for (key, register) in self.store().registers.iter() {
            for (dot, _, value) in register.siblings() {
                assert!(contents.insert(dot, (key.to_vec(), value.to_vec())).is_none(), "{dot} at two keys");
            }
        }
        contents
    }
}
