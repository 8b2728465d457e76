//! Storage engines: where keys and values are held.
//!
//! A [`Tables`] is a stack: an active layer that takes the writes, layers frozen for a snapshot or a
//! checkpoint, and a [`Base`] beneath. With the memory base and nothing frozen, writes go straight into the
//! base. Freezing the active layer gives a consistent view, or the input of a checkpoint, in constant time
//! while writes go on:
//!
//! - memory: while a view exists, writes gather in layers above the base; when it is dropped, every later
//!   write also moves a few entries down, until the layers are empty again. A view copies nothing; it costs
//!   what is written while it exists.
//! - redb: the frozen layers are written to the file in one transaction, and dropped when it is durable.
//!
//! Every layer and base holds one sorted map for each keyspace. Every entry carries a checksum that is
//! verified when it is read.

pub(crate) mod entry;
mod error;
mod layer;
pub(crate) mod mark;
mod members;
mod memory;
mod page;
mod reader;
#[cfg(feature = "redb")]
pub(crate) mod redb;
mod scans;
#[cfg(feature = "mesh")]
mod scrub;
#[cfg(not(feature = "mesh"))]
#[path = "storage/unchecked.rs"]
mod scrub;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

pub(crate) use self::entry::{Space, Spaces, Stored};
pub use self::error::EngineError;
use self::layer::{Bounds, Slot, Slots};
pub(crate) use self::layer::{ENTRY_OVERHEAD_LEN, Layer};
use self::members::MemberTable;
use self::page::{Overlay, StoredPage};
pub use self::reader::{ReadError, Reader};
use self::scans::Scans;
use crate::request::keyspace::KeyspaceName;
use crate::request::member::{MemberChange, Members};
use crate::request::operation::RangeQuery;
use crate::request::outcome::{Refusal, Versioned};

/// How many entries each write moves towards the base once the view that kept them above it is gone. More
/// than one, so that the layers run empty.
const SETTLE_PER_WRITE: usize = 4;
/// How many entries of dropped keyspaces each write releases. More than one, so that the memory is released
/// although keyspaces are dropped as fast as they are filled.
const RELEASE_PER_WRITE: usize = 64;

/// The tables below the layers. Entries are compared with their checksums before they are returned.
pub(crate) trait Base: Send + Sync + std::fmt::Debug {
    fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Versioned>, EngineError>;

    /// The entries within `bounds`, which must not be empty or inverted.
    fn scan<'a>(
        &'a self,
        space: &'a Space,
        bounds: Bounds<'a>,
        reverse: bool,
    ) -> Result<BaseIter<'a>, EngineError>;

    /// The base itself, when writes can go straight into it and reading it never waits for a disk.
    fn in_memory(&self) -> Option<&Layer> {
        None
    }

    /// As [`in_memory`](Base::in_memory).
    fn in_memory_mut(&mut self) -> Option<&mut Layer> {
        None
    }
}

pub(crate) type BaseIter<'a> = Box<dyn Iterator<Item = Result<Stored, EngineError>> + 'a>;

/// The stack of layers over a base.
#[derive(Debug)]
pub(crate) struct Tables {
    /// The index of the last log entry that is part of it.
    pub(crate) applied: u64,
    spaces: Arc<Spaces>,
    members: Arc<Members>,
    members_changed: bool,
    active: Layer,
    /// Newest first.
    frozen: Vec<Arc<Layer>>,
    base: Arc<dyn Base>,
    /// Dropped keyspaces of which layers or a base in memory may still hold entries.
    dropped: Vec<u64>,
    /// Entries of dropped keyspaces, released a few at a time.
    released: Vec<Slots>,
    /// Bytes written so far: what a view taken earlier costs.
    pub(crate) written: u64,
    /// Changes since they were last taken, if there are watches.
    changed: Option<ChangedKeys>,
    /// A view that was requested at an index that is not applied yet.
    mark: Option<mark::Mark>,
    /// Ranges that must not be read: they differ from those of the other members.
    #[cfg(feature = "mesh")]
    blocked: Vec<crate::scrub::message::KeyRange>,
}

/// The changes of a batch of commands.
#[derive(Debug, Default)]
pub(crate) struct ChangedKeys {
    /// Qualified keys.
    pub(crate) keys: Vec<Vec<u8>>,
    /// Keyspaces that were dropped.
    pub(crate) dropped: Vec<KeyspaceName>,
}

impl Tables {
    /// Starts or stops gathering the keys that are written.
    pub(crate) fn gather_changes(&mut self, wanted: bool) {
        self.changed = wanted.then(ChangedKeys::default);
    }

    /// Takes what was gathered.
    pub(crate) fn gathered_changes(&mut self) -> ChangedKeys {
        self.changed.take().unwrap_or_default()
    }

    pub(crate) fn new(base: Arc<dyn Base>, spaces: Spaces, members: Members, applied: u64) -> Tables {
        Tables {
            applied,
            spaces: Arc::new(spaces),
            members: Arc::new(members),
            members_changed: false,
            active: Layer::default(),
            frozen: Vec::new(),
            base,
            dropped: Vec::new(),
            released: Vec::new(),
            written: 0,
            changed: None,
            mark: None,
            #[cfg(feature = "mesh")]
            blocked: Vec::new(),
        }
    }

    /// Takes the contents of a restored snapshot. Views taken before stay as they are.
    pub(crate) fn replace(&mut self, restored: Tables) {
        let written = self.written;
        *self = Tables { written, ..restored };
    }

    pub(crate) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// The keyspace `name`, if it exists.
    pub(crate) fn resolve(&self, name: &KeyspaceName) -> Option<Space> {
        self.spaces.resolve(name)
    }

    /// Creates a keyspace with this id. `false` if it exists.
    pub(crate) fn create_space(&mut self, name: &KeyspaceName, id: u64) -> bool {
        // Copied only while a view shares them, for they are few and change rarely.
        Arc::make_mut(&mut self.spaces).insert(name, id)
    }

    /// Drops a keyspace, in constant time. `false` if it does not exist.
    pub(crate) fn drop_space(&mut self, name: &KeyspaceName) -> bool {
        let Some(id) = Arc::make_mut(&mut self.spaces).remove(name) else { return false };
        self.released.push(self.active.take_space(id));
        // A base in a file is cleaned by the next checkpoint, which writes only keyspaces that exist.
        if self.base.in_memory().is_some() {
            self.dropped.push(id);
            self.settle(SETTLE_PER_WRITE);
        }
        if let Some(changed) = &mut self.changed {
            changed.dropped.push(name.to_owned_name());
        }
        true
    }

    /// The member table.
    pub(crate) fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members)
    }

    /// Makes a change of the member table.
    pub(crate) fn change_members(&mut self, change: &MemberChange) -> Result<(), Refusal> {
        Arc::make_mut(&mut self.members).change(change)?;
        self.members_changed = true;
        Ok(())
    }

    /// The member table, if it was changed since this was called last.
    pub(crate) fn changed_members(&mut self) -> Option<Arc<Members>> {
        std::mem::take(&mut self.members_changed).then(|| self.members())
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|layer| &**layer))
    }

    /// The write of `key` in the newest layer that has one.
    pub(crate) fn slot(&self, space: &Space, key: &[u8]) -> Option<&Slot> {
        if self.active.is_empty() && self.frozen.is_empty() {
            return None;
        }
        self.layers().find_map(|layer| layer.get(space.id, key))
    }

    pub(crate) fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        match self.slot(space, key) {
            Some(slot) => slot.versioned(space, key),
            None => self.base.get(space, key),
        }
    }

    /// Sets or, with no value, deletes `key`. This is where an entry gets its checksum.
    pub(crate) fn write(&mut self, space: &Space, key: &[u8], revision: u64, value: Option<&[u8]>) {
        if let Some(changed) = &mut self.changed {
            changed.keys.push(space.name.qualify(key));
        }
        self.written += (ENTRY_OVERHEAD_LEN + key.len() + value.map_or(0, <[u8]>::len)) as u64;
        let checksum = value.map_or(0, |value| entry::checksum(space.id, revision, key, value));
        if self.active.is_empty()
            && self.frozen.is_empty()
            && let Some(base) = Arc::get_mut(&mut self.base).and_then(Base::in_memory_mut)
        {
            match value {
                Some(_) => base.put(space.id, key, revision, value, checksum),
                None => base.remove(space.id, key),
            }
            if !self.dropped.is_empty() {
                self.settle(0);
            }
        } else {
            self.active.put(space.id, key, revision, value, checksum);
            self.settle(SETTLE_PER_WRITE);
        }
        if !self.released.is_empty() {
            self.release(RELEASE_PER_WRITE);
        }
    }

    /// Moves up to `count` entries from the lowest layer into a base in memory, unless a view still reads
    /// either. Once the layers are empty, the dropped keyspaces leave the base, too.
    fn settle(&mut self, count: usize) {
        let Some(base) = Arc::get_mut(&mut self.base).and_then(Base::in_memory_mut) else {
            return;
        };
        for _ in 0..count {
            let lowest = match self.frozen.last_mut() {
                None => &mut self.active,
                Some(shared) => match Arc::get_mut(shared) {
                    Some(layer) => layer,
                    None => return,
                },
            };
            match lowest.pop_first() {
                Some((space, ..)) if self.dropped.contains(&space) => {}
                Some((space, key, slot)) => base.absorb(space, key, slot),
                None if self.frozen.pop().is_none() => break,
                None => {}
            }
        }
        if self.active.is_empty() && self.frozen.is_empty() {
            self.released.extend(self.dropped.drain(..).map(|space| base.take_space(space)));
        }
    }

    /// Releases up to `count` entries of dropped keyspaces.
    fn release(&mut self, count: usize) {
        for _ in 0..count {
            let Some(slots) = self.released.last_mut() else { return };
            if slots.pop_first().is_none() {
                self.released.pop();
            }
        }
    }

    /// Bytes held in layers, not in the base.
    #[cfg_attr(
        not(any(feature = "redb", feature = "mesh")),
        allow(dead_code, reason = "only redb has a bound")
    )]
    pub(crate) fn layers_len(&self) -> usize {
        self.layers().map(Layer::len_bytes).sum()
    }

    fn freeze(&mut self) -> Vec<Arc<Layer>> {
        if !self.active.is_empty() {
            self.frozen.insert(0, Arc::new(std::mem::take(&mut self.active)));
        }
        self.frozen.clone()
    }

    /// Everything as it is now, for as long as the view exists, while writes go on. Constant time.
    pub(crate) fn view(&mut self) -> View {
        View {
            layers: self.freeze(),
            base: Arc::clone(&self.base),
            spaces: Arc::clone(&self.spaces),
            members: Arc::clone(&self.members),
        }
    }

    /// Takes `base`, which holds what `layers` did, in their place.
    #[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only a base in a file needs it"))]
    pub(crate) fn rebase(&mut self, layers: &[Arc<Layer>], base: Arc<dyn Base>) {
        self.frozen.retain(|layer| !layers.iter().any(|flushed| Arc::ptr_eq(flushed, layer)));
        self.base = base;
    }
}

/// Everything as it was at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    layers: Vec<Arc<Layer>>,
    base: Arc<dyn Base>,
    spaces: Arc<Spaces>,
    members: Arc<Members>,
}

impl View {
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    pub(crate) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    pub(crate) fn page(
        &self,
        space: &Space,
        range: &RangeQuery,
        len_max: usize,
    ) -> Result<StoredPage, EngineError> {
        let Some(bounds) = page::bounds(range) else { return Ok(StoredPage::default()) };
        let layers = self.layers.iter().map(|layer| &**layer);
        Overlay::collect(layers, space, range, bounds).page(&*self.base, space, range, bounds, len_max)
    }

    /// The frozen layers, newest first.
    #[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only a base in a file needs it"))]
    pub(crate) fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }
}

/// The tables, behind the lock that readers and the applying thread take, the snapshots of scans, and the
/// member table.
///
/// Applying holds the lock for a few dozen entries at a time. Readers hold it for a lookup or a page in
/// memory, never for a disk.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<(RwLock<Tables>, Scans, MemberTable)>);

impl Shared {
    pub(crate) fn new(tables: Tables) -> Shared {
        let members = MemberTable::new(tables.members());
        Shared(Arc::new((RwLock::new(tables), Scans::default(), members)))
    }

    pub(crate) fn scans(&self) -> &Scans {
        &self.0.1
    }

    /// The member table, for readers that must not wait while entries are applied.
    pub(crate) fn members(&self) -> &MemberTable {
        &self.0.2
    }

    // A poisoned lock says that a thread died while it applied. The tables then hold what it applied, which
    // is committed; it will apply no more, and nothing further is acknowledged.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`read`](Shared::read), unless another thread applies entries at this moment.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only an event loop must not wait"))]
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, Tables>> {
        match self.0.0.try_read() {
            Ok(tables) => Some(tables),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether a reader or writer holds the tables at this moment.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only an event loop must not wait"))]
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self.0.0.try_write(), Err(TryLockError::WouldBlock))
    }
}

#[cfg(test)]
mod tests;
