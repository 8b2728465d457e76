//! Where keys and values live.
//!
//! A [`Tables`] is a stack: an active layer that writes go to, layers frozen for a snapshot or a checkpoint, and a
//! [`Base`] beneath. With the memory base and nothing frozen, writes go straight into the base. Freezing the active layer
//! is how both a consistent view and a checkpoint are taken in constant time while writes go on:
//!
//! - memory: while a view exists, writes gather in layers above the base; when it is dropped, every later write also
//!   moves a few entries down, until the layers are empty again. A view costs no copy, only what is written meanwhile.
//! - redb: the frozen layers are written to the file in one transaction, and dropped when it is durable.

mod layer;
mod memory;
mod page;
#[cfg(feature = "redb")]
pub(crate) mod redb;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use self::layer::Layer;
use self::layer::{Bounds, Slot};
use self::page::Overlay;
use crate::request::limits::RANGE_PAGE_LEN_MAX;
use crate::request::operation::{Query, RangeQuery};
use crate::request::outcome::{KeyValue, Outcome, Page, Versioned};

/// How many entries each write moves towards the base once the view that kept them above it is gone. More than one, so
/// that the layers run empty.
const SETTLE_PER_WRITE: usize = 4;

/// The engine beneath the store could not do its part: a disk error or a corrupted file. State that was read may be
/// wrong from then on, so the replica must stop; opening it again restores the last durable state.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", .path.display())]
pub struct EngineError {
    /// What was being done: `read`, `write` or `open`.
    pub action: &'static str,
    /// The file concerned.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What lies beneath the layers.
pub(crate) trait Base: Send + Sync + std::fmt::Debug {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError>;

    /// The entries within `bounds`, which must not be empty or inverted.
    fn scan<'a>(&'a self, bounds: Bounds<'a>, reverse: bool) -> Result<BaseIter<'a>, EngineError>;

    /// The base itself, when writes can go straight into it and reading it never waits for a disk.
    fn in_memory(&self) -> Option<&Layer> {
        None
    }

    /// As [`in_memory`](Base::in_memory).
    fn in_memory_mut(&mut self) -> Option<&mut Layer> {
        None
    }
}

pub(crate) type BaseIter<'a> = Box<dyn Iterator<Item = Result<KeyValue, EngineError>> + 'a>;

/// The stack of layers over a base.
#[derive(Debug)]
pub(crate) struct Tables {
    /// The index of the last log entry that is part of it.
    pub(crate) applied: u64,
    active: Layer,
    /// Newest first.
    frozen: Vec<Arc<Layer>>,
    base: Arc<dyn Base>,
    /// The keys that were written since they were asked for, if anybody wants to know.
    changed: Option<Vec<Box<[u8]>>>,
}

impl Tables {
    /// From now on, gathers the keys that are written, or does not.
    pub(crate) fn gather_changes(&mut self, wanted: bool) {
        self.changed = wanted.then(Vec::new);
    }

    /// What was gathered.
    pub(crate) fn gathered_changes(&mut self) -> Vec<Box<[u8]>> {
        self.changed.take().unwrap_or_default()
    }

    pub(crate) fn new(base: Arc<dyn Base>, applied: u64) -> Tables {
        Tables { applied, active: Layer::default(), frozen: Vec::new(), base, changed: None }
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|layer| &**layer))
    }

    fn slot(&self, key: &[u8]) -> Option<&Slot> {
        if self.active.is_empty() && self.frozen.is_empty() {
            return None;
        }
        self.layers().find_map(|layer| layer.get(key))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        match self.slot(key) {
            Some(slot) => Ok(slot.live()),
            None => self.base.get(key),
        }
    }

    /// Sets or, with no value, deletes `key`.
    pub(crate) fn write(&mut self, key: &[u8], revision: u64, value: Option<&[u8]>) {
        if let Some(changed) = &mut self.changed {
            changed.push(key.into());
        }
        if self.active.is_empty()
            && self.frozen.is_empty()
            && let Some(base) = Arc::get_mut(&mut self.base).and_then(Base::in_memory_mut)
        {
            match value {
                Some(_) => base.put(key, revision, value),
                None => base.remove(key),
            }
        } else {
            self.active.put(key, revision, value);
            self.settle(SETTLE_PER_WRITE);
        }
    }

    /// Moves up to `count` entries from the lowest layer into a base in memory, unless a view still looks at either.
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
                Some((key, slot)) => base.absorb(key, slot),
                None if self.frozen.pop().is_none() => return,
                None => {}
            }
        }
    }

    /// Bytes held in layers, not in the base.
    #[cfg(feature = "redb")]
    pub(crate) fn layers_len(&self) -> usize {
        self.layers().map(Layer::len_bytes).sum()
    }

    fn freeze(&mut self) -> Vec<Arc<Layer>> {
        if !self.active.is_empty() {
            self.frozen.insert(0, Arc::new(std::mem::take(&mut self.active)));
        }
        self.frozen.clone()
    }

    /// Everything as it is now, for as long as it is wanted, while writes go on. Constant time.
    pub(crate) fn view(&mut self) -> View {
        View { layers: self.freeze(), base: Arc::clone(&self.base) }
    }

    /// `base` holds what `layers` did.
    #[cfg(feature = "redb")]
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
}

impl View {
    pub(crate) fn page(&self, range: &RangeQuery, len_max: usize) -> Result<Page, EngineError> {
        let Some(bounds) = page::bounds(range) else { return Ok(Page::default()) };
        let layers = self.layers.iter().map(|layer| &**layer);
        Overlay::collect(layers, range, bounds).page(&*self.base, range, bounds, len_max)
    }

    /// The frozen layers, newest first.
    #[cfg(feature = "redb")]
    pub(crate) fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }
}

/// The tables, locked by whoever reads or applies.
///
/// Applying holds the lock for a few dozen entries at a time. Readers hold it for a lookup or a page in memory, never
/// for a disk.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<RwLock<Tables>>);

impl Shared {
    pub(crate) fn new(tables: Tables) -> Shared {
        Shared(Arc::new(RwLock::new(tables)))
    }

    // A poisoned lock says that a thread died while it applied. What is in the tables then is what it applied, which is
    // committed; it will apply no more, and nothing further is acknowledged.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads applied state from any thread while entries are applied by another. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Shared,
}

impl Reader {
    pub(crate) fn new(shared: Shared) -> Reader {
        Reader { shared }
    }

    /// The index of the last log entry whose effects are visible.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.shared.read().applied
    }

    /// Answers `query` from what is applied now.
    ///
    /// # Errors
    /// When the engine's file cannot be read. The query has no answer; the store should stop.
    pub fn query(&self, query: &Query) -> Result<Outcome, EngineError> {
        match query {
            Query::Get { key } => self.get(key).map(Outcome::Value),
            Query::Range(range) => self.range(range).map(Outcome::Page),
        }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// As [`Reader::query`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        let tables = self.shared.read();
        if let Some(slot) = tables.slot(key) {
            return Ok(slot.live());
        }
        if let Some(base) = tables.base.in_memory() {
            return Ok(base.get(key).and_then(Slot::live));
        }
        let base = Arc::clone(&tables.base);
        drop(tables);
        base.get(key)
    }

    /// One page of `range`, as it was at one moment. Zero or too large a limit counts as the largest.
    ///
    /// # Errors
    /// As [`Reader::query`].
    pub fn range(&self, range: &RangeQuery) -> Result<Page, EngineError> {
        let Some(bounds) = page::bounds(range) else { return Ok(Page::default()) };
        let tables = self.shared.read();
        let overlay = Overlay::collect(tables.layers(), range, bounds);
        if tables.base.in_memory().is_some() {
            // Under the lock: a clone of the base would make the next writes go round it.
            return overlay.page(&*tables.base, range, bounds, RANGE_PAGE_LEN_MAX);
        }
        let base = Arc::clone(&tables.base);
        drop(tables);
        overlay.page(&*base, range, bounds, RANGE_PAGE_LEN_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a view made gather above the base ends in it as if there had been no view: nothing more, nothing less.
    #[test]
    fn layers_run_empty_when_no_view_holds_them() {
        let mut viewed = Tables::new(Arc::new(Layer::default()), 0);
        let mut plain = Tables::new(Arc::new(Layer::default()), 0);
        let mut views = std::collections::VecDeque::new();
        for index in 0..3000_u64 {
            // Towards the end one key alone, so that what the views left behind stays as they left it.
            let key = if index < 2000 { index * 7919 % 101 } else { 0 }.to_be_bytes();
            let value = vec![b'v'; (index % 13) as usize];
            let value = (index % 3 != 0).then_some(&*value);
            viewed.write(&key, index, value);
            plain.write(&key, index, value);
            if index % 50 == 0 && index < 2000 {
                views.push_back(viewed.view());
                if views.len() > 3 {
                    views.pop_front();
                }
            }
            if index == 2000 {
                views.clear();
            }
        }
        assert!(viewed.active.is_empty() && viewed.frozen.is_empty());
        let len = |tables: &Tables| tables.base.in_memory().map(Layer::len_bytes);
        assert_eq!(len(&viewed), len(&plain));
        // And the count of bytes is right: without an entry it is zero.
        for key in 0..101_u64 {
            viewed.write(&key.to_be_bytes(), 3000, None);
        }
        assert_eq!(len(&viewed), Some(0));
    }
}
