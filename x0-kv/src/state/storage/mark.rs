//! Views of the state at one applied index, for the scrub.

use std::fmt;

use super::{Tables, View};

/// Receives a view.
pub(crate) type Taken = Box<dyn FnOnce(Marked) + Send + Sync>;

/// A request for a view at an index that is not applied yet.
pub(super) struct Mark {
    index: u64,
    taken: Taken,
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Everything as it was at one applied index.
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only members compare their states"))]
#[derive(Debug)]
pub(crate) struct Marked {
    pub(crate) index: u64,
    pub(super) view: View,
    /// The bytes that were written before it was taken.
    pub(super) written: u64,
}

#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only members compare their states"))]
impl Tables {
    /// Takes a view at `index`: now, or when it is applied. An earlier request is replaced. `false` if the
    /// index has passed.
    pub(super) fn mark(&mut self, index: u64, taken: Taken) -> bool {
        self.mark = None;
        if index < self.applied {
            return false;
        }
        self.mark = Some(Mark { index, taken });
        self.reached();
        true
    }

    /// Takes the view that was requested, if its index is applied now.
    #[inline]
    pub(crate) fn reached(&mut self) {
        if self.mark.is_some() {
            self.take_mark();
        }
    }

    fn take_mark(&mut self) {
        let applied = self.applied;
        if let Some(Mark { index, taken }) = self.mark.take_if(|mark| mark.index <= applied)
            // After a snapshot was restored the index may have passed.
            && index == applied
        {
            taken(Marked { index, view: self.view(), written: self.written });
        }
    }
}

#[cfg(test)]
impl crate::state::State {
    /// Changes a bit of an entry in memory without its checksum. `false` if there is no such entry.
    pub(crate) fn damage(&mut self, key: &[u8]) -> bool {
        self.shared.write().damage(key)
    }
}

#[cfg(test)]
impl Tables {
    fn damage(&mut self, key: &[u8]) -> bool {
        let space = super::Space::DEFAULT;
        let Some(slot) =
            self.slot(&space, key).cloned().or_else(|| self.base.in_memory()?.get(0, key).cloned())
        else {
            return false;
        };
        let Some(value) = slot.value else { return false };
        let mut wrong = value.to_vec();
        let Some(first) = wrong.first_mut() else { return false };
        *first ^= 1;
        let checksum = super::entry::checksum(0, slot.revision, key, &value);
        self.put_unchecked(key, slot.revision, &wrong, checksum);
        true
    }

    fn put_unchecked(&mut self, key: &[u8], revision: u64, value: &[u8], checksum: u32) {
        let is_direct = self.active.is_empty() && self.frozen.is_empty();
        let base = std::sync::Arc::get_mut(&mut self.base).and_then(super::Base::in_memory_mut);
        match base.filter(|_| is_direct) {
            Some(base) => base.put(0, key, revision, Some(value), checksum),
            None => self.active.put(0, key, revision, Some(value), checksum),
        }
    }
}
