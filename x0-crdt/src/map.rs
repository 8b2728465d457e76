//! [`CausalMap`]: byte strings to values that every replica may write at any time, as one replica's whole
//! state.

mod cell;
mod clash;
pub(crate) mod columns;
mod delta;
mod evict;
mod gather;
mod gradual;
mod history;
mod join;
mod layered;
mod news;
mod read;
mod reference;
mod replicated;
mod saved;
mod search;
mod short;
mod small;
mod stage;
mod trail;
mod writers;

use alloc::boxed::Box;
use alloc::vec::Vec;

use cell::{Cell, Sibling};
pub use delta::{DeltaError, DeltaExtent, ITEM_MAX, MapDelta};
pub use history::HistoryError;
pub use join::{JoinError, Joined};
use layered::Layered;
pub use read::{Entry, Held};
pub use saved::RestoreError;
use small::{Key, Value};
use writers::{Writers, seq_of};

use crate::hash::HashKey;
use crate::{Dot, Members, ReplicaId};

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 4 * 1024;
/// The longest value, in bytes. What is longer belongs beside the map, with its hash in it.
pub const VALUE_LEN_MAX: usize = 64 * 1024;

/// The state of a replica in 16 bytes: equal frontiers are equal states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontier {
    /// The hash of the version, the events seen.
    pub version: u64,
    /// The sum of the hashes of all values held. Two replicas with equal versions and unequal contents have
    /// met a writer that gave one event two contents.
    pub content: u64,
}

/// Why a write was refused. The map is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is too long.
    #[error("a key of {len} bytes is above the limit of {KEY_LEN_MAX}: hash its tail")]
    KeyTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The value is too long.
    #[error(
        "a value of {len} bytes is above the limit of {VALUE_LEN_MAX}: store it beside the map and its hash here"
    )]
    ValueTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// A map from byte strings to causal cells: the whole state of one replica.
///
/// Each write takes a [`Dot`] and replaces the values that its writer had seen at that key, and nothing else:
/// a concurrent value of another replica stays beside it as a sibling until a later write has seen both. A
/// removal takes a dot too and leaves a tombstone, its dot and the key without the value, until every member
/// has seen it: see [`collect_tombstones`](Self::collect_tombstones).
///
/// Registers, flags, counters, sets and nested maps are paths of keys and ways to write ([`put`](Self::put),
/// [`add`](Self::add)) and to read ([`Entry`]).
///
/// # Convergence
/// The state is a join-semilattice: a [`join`](Self::join) of any deltas in any order, repeated or not,
/// brings replicas that saw the same events to equal [`encode_state`](Self::encode_state) bytes (Almeida,
/// Shoker, Baquero: "Delta state replicated data types", 2018; the causal join of its section 7, on flat
/// keys). A delta is joined whole, so that the version never has gaps and a reader never sees half of a
/// peer's writes.
///
/// # Durability
/// An event's number must never be used twice. Either [`saved`](Self::save) state reaches the disk before a
/// delta that holds the event is sent, or each boot takes a fresh [`ReplicaId::incarnation`]
/// ([`restore`](Self::restore)).
///
/// ```
/// use x0_crdt::{CausalMap, HashKey, ReplicaId};
///
/// let key = HashKey::new([7; 16]);
/// let mut here = CausalMap::new(ReplicaId::new(1), key);
/// let mut there = CausalMap::new(ReplicaId::new(2), key);
/// here.put(b"door", 10, b"open")?;
/// there.put(b"door", 11, b"shut")?;
///
/// let seen = there.version();
/// let delta = here.delta(&seen)?.encode(&seen);
/// there.join(&x0_crdt::MapDelta::decode(&delta, &seen)?)?;
/// let entry = there.get(b"door").unwrap();
/// assert_eq!(entry.siblings().count(), 2, "the writes are concurrent");
/// assert_eq!(entry.latest().value, b"shut");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CausalMap {
    replica: ReplicaId,
    /// The number of `replica` in `writers`.
    me: u32,
    hash_key: HashKey,
    writers: Writers,
    /// The last event seen of each writer.
    version: Vec<u64>,
    /// The event of each writer up to which tombstones were collected.
    floor: Vec<u64>,
    cells: Layered<Key, Cell>,
    /// Events above the floor that no later event has replaced, and their keys: what a peer that lacks them
    /// must receive.
    recent: Layered<(u32, u64), Key>,
    /// The removals among them: the tombstones.
    removals: Layered<Key, Vec<(u32, u64)>>,
    /// What the latest events have replaced.
    trail: trail::Trail,
    content: u64,
    siblings: usize,
    members: Members,
    /// How many events had been seen when a heartbeat collected history; `None` before the first.
    collected_at: Option<u64>,
    /// Up to where the last heartbeat would have collected, if it has left something.
    collecting: Option<crate::Version>,
    /// How often contents have changed without an event.
    resolutions: u64,
    /// A state that arrives by key ranges.
    stage: Option<Box<stage::Stage>>,
    /// What is left of maps that a stage has replaced.
    remains: Vec<stage::Remains>,
    /// The keys that a stage has changed, as far as they were not reported yet.
    reports: Vec<Vec<u8>>,
    /// How many times a session has begun to fetch ranges.
    claims: u64,
    /// Which keys change while a delta is being joined in steps.
    watch: gradual::Watch,
}

impl CausalMap {
    /// An empty map, written to as `replica`. Members that sync share `hash_key`.
    #[must_use]
    pub fn new(replica: ReplicaId, hash_key: HashKey) -> Self {
        let mut writers = Writers::default();
        let me = writers.intern(replica).unwrap_or(0);
        Self {
            replica,
            me,
            hash_key,
            writers,
            version: alloc::vec![0],
            floor: alloc::vec![0],
            cells: Layered::default(),
            recent: Layered::default(),
            removals: Layered::default(),
            trail: trail::Trail::default(),
            content: 0,
            siblings: 0,
            members: Members::default(),
            collected_at: None,
            collecting: None,
            resolutions: 0,
            stage: None,
            remains: Vec::new(),
            reports: Vec::new(),
            claims: 0,
            watch: gradual::Watch::default(),
        }
    }

    /// The replica that writes here.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Goes on as another incarnation of the same node, whose events here count from 1.
    ///
    /// For a replica that has lost its last events, after [`JoinError::Impostor`]. `incarnation` must never
    /// have been used by this node: for instance 32 random bits. The state and its history stay; the old
    /// incarnation is a writer like any other from now on, and a member until its lease is over.
    pub fn renew(&mut self, incarnation: u32) {
        let replica = ReplicaId::with_incarnation(self.replica.node, incarnation);
        // Without a number for another writer everything stays as it is.
        let Some(me) = self.writers.intern(replica) else { return };
        self.version.resize(self.writers.len(), 0);
        self.floor.resize(self.writers.len(), 0);
        (self.replica, self.me) = (replica, me);
        if let Some(stage) = &mut self.stage {
            stage.renew(incarnation);
        }
    }

    /// The key that the members hash with.
    #[must_use]
    pub const fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    /// Writes a value over all values seen at `key`. `time` orders it among concurrent siblings on reading,
    /// nothing else.
    ///
    /// # Errors
    /// A key or value above its limit.
    pub fn put(&mut self, key: &[u8], time: u64, value: &[u8]) -> Result<Dot, WriteError> {
        self.write(key, time, value, |_, _| true)
    }

    /// Writes a value over the value of this replica at `key`, beside those of other replicas: the write of a
    /// counter, whose value is the sum of one part per replica.
    ///
    /// # Errors
    /// A key or value above its limit.
    pub fn put_own(&mut self, key: &[u8], time: u64, value: &[u8]) -> Result<Dot, WriteError> {
        self.write(key, time, value, |me, sibling| sibling.writer == me)
    }

    /// Adds to the counter at `key`: replaces this replica's part, an `i64`, by the sum. Saturates at the
    /// ends of `i64`.
    ///
    /// A concurrent removal removes the parts that it has seen; a part that was added to meanwhile survives
    /// whole.
    ///
    /// # Errors
    /// A key above its limit.
    pub fn add(&mut self, key: &[u8], time: u64, amount: i64) -> Result<Dot, WriteError> {
        let mine = self.get(key).and_then(|entry| entry.part_of(self.replica)).unwrap_or(0);
        self.put_own(key, time, &mine.saturating_add(amount).to_le_bytes())
    }

    /// Removes all values seen at `key`. `None` if there was none, and then no event was written.
    pub fn remove(&mut self, key: &[u8]) -> Option<Dot> {
        let (key, cell) = self.cells.remove_entry(key)?;
        for sibling in cell.siblings() {
            self.lose(&key, sibling);
        }
        // The removed values need no history of their own: a peer that lacks this event drops them by its
        // tombstone.
        self.supersede_removals(&key);
        let seq = self.next_seq();
        if let [first, ..] = cell.siblings() {
            let hash = item_hash(self.hash_key, &self.writers, &key, first);
            self.trail.note((self.me, seq), ((first.writer, first.seq), hash), self.cells.len());
        }
        self.recent.insert((self.me, seq), key.clone());
        // One tombstone per key is enough: it replaces those that this removal had seen.
        self.removals.insert(key, alloc::vec![(self.me, seq)]);
        Some(Dot::new(self.replica, seq))
    }

    fn write(
        &mut self,
        key: &[u8],
        time: u64,
        value: &[u8],
        replaces: impl Fn(u32, &Sibling) -> bool,
    ) -> Result<Dot, WriteError> {
        if key.len() > KEY_LEN_MAX {
            return Err(WriteError::KeyTooLong { len: key.len() });
        }
        if value.len() > VALUE_LEN_MAX {
            return Err(WriteError::ValueTooLong { len: value.len() });
        }
        // Nothing can fail from here on, so the event is taken now.
        let key = Key::new(key);
        let seq = self.next_seq();
        let sibling = Sibling { seq, time, value: Value::new(value), writer: self.me };
        // The tombstones at this key are superseded: a peer that lacks them lacks this event too, and then
        // receives the whole key.
        self.supersede_removals(&key);
        let mut siblings = self.cells.remove(&key).map(Cell::into_siblings).unwrap_or_default();
        let mut replaced = None;
        siblings.retain(|old| {
            let keep = !replaces(self.me, old);
            if !keep {
                let hash = item_hash(self.hash_key, &self.writers, &key, old);
                replaced = Some(((old.writer, old.seq), hash));
                // Not `lose`: it borrows the whole map, and the siblings are borrowed here.
                self.content = self.content.wrapping_sub(hash);
                self.siblings -= 1;
                self.recent.remove(&(old.writer, old.seq));
            }
            keep
        });
        if let Some(old) = replaced {
            self.trail.note((self.me, seq), old, self.cells.len());
        }
        self.gain(&key, &sibling);
        siblings.push(sibling);
        // Always a cell: the new sibling is in it.
        if let Some(cell) = Cell::new(siblings) {
            self.recent.insert((self.me, seq), key.clone());
            self.cells.insert(key, cell);
        }
        Ok(Dot::new(self.replica, seq))
    }

    fn next_seq(&mut self) -> u64 {
        // `me` was interned by `new` and has a place in every vector by writer.
        let place = &mut self.version[self.me as usize];
        *place += 1;
        *place
    }

    fn supersede_removals(&mut self, key: &Key) {
        for event in self.removals.remove(key).unwrap_or_default() {
            self.recent.remove(&event);
        }
    }

    /// Counts a sibling that is being added.
    fn gain(&mut self, key: &Key, sibling: &Sibling) {
        self.content = self.content.wrapping_add(item_hash(self.hash_key, &self.writers, key, sibling));
        // Kept beside the cells, so that sessions need no pass over the map to choose a method.
        self.siblings += 1;
    }

    /// Uncounts a sibling that is being removed, and drops its event from history.
    fn lose(&mut self, key: &Key, sibling: &Sibling) {
        self.content = self.content.wrapping_sub(item_hash(self.hash_key, &self.writers, key, sibling));
        self.siblings -= 1;
        self.recent.remove(&(sibling.writer, sibling.seq));
    }
}

/// The hash of one value at one key, by which it is summed and reconciled.
fn item_hash(hash_key: HashKey, writers: &Writers, key: &Key, sibling: &Sibling) -> u64 {
    content_hash(hash_key, writers.id(sibling.writer), key, sibling)
}

/// The hash of one value of the writer `id`.
fn content_hash(hash_key: HashKey, id: ReplicaId, key: &Key, sibling: &Sibling) -> u64 {
    // Dot and time in one fixed part, so that no two items share their hashed bytes.
    let mut fixed = [0; 28];
    fixed[..8].copy_from_slice(&id.node.to_le_bytes());
    fixed[8..12].copy_from_slice(&id.incarnation.to_le_bytes());
    fixed[12..20].copy_from_slice(&sibling.seq.to_le_bytes());
    fixed[20..].copy_from_slice(&sibling.time.to_le_bytes());
    hash_key.hash(&[key.as_slice(), &fixed, sibling.value.as_slice()])
}
