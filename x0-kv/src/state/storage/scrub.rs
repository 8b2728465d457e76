//! Reads and repairs of the scrub of a member.

use bytes::Bytes;

use super::mark::{Marked, Taken};
use super::{EngineError, ReadError, Reader, Tables};
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{RANGE_ENTRIES_MAX, RANGE_PAGE_LEN_MAX, SCAN_WRITTEN_LEN_MAX};
use crate::request::operation::RangeQuery;
use crate::scrub::engine::{Digested, Installed, Place};
use crate::scrub::message::{Held, KeyRange, RangeDigest};
use crate::verify::{entry_hash, with_causes};

/// Most damaged keys of one range that are reported; the rest is found by the next pass.
const DAMAGED_MAX: usize = 256;

impl Tables {
    /// Refuses reads of `keyspace` that touch a range that differs from that of the other members.
    pub(super) fn check(&self, keyspace: &KeyspaceName, range: &RangeQuery) -> Result<(), ReadError> {
        let touches = |blocked: &&KeyRange| {
            let is_before = range.end.as_ref().is_some_and(|end| *end <= blocked.start);
            let is_after = blocked.end.as_ref().is_some_and(|end| *end <= range.start);
            blocked.keyspace == *keyspace && !is_before && !is_after
        };
        match self.blocked.iter().find(touches) {
            None => Ok(()),
            Some(_) => Err(EngineError::Diverged { keyspace: keyspace.clone() }.into()),
        }
    }

    /// As [`check`](Tables::check), for one key.
    #[inline]
    pub(super) fn check_key(&self, keyspace: &KeyspaceName, key: &[u8]) -> Result<(), ReadError> {
        if self.blocked.is_empty() {
            return Ok(());
        }
        let mut end = key.to_vec();
        end.push(0);
        let range =
            RangeQuery { start: Bytes::copy_from_slice(key), end: Some(end.into()), ..RangeQuery::all() };
        self.check(keyspace, &range)
    }
}

impl Reader {
    /// Takes a view `ahead` entries from now. Calls `marked` with the index, then, at once or later, `taken`.
    pub(crate) fn mark(&self, ahead: u64, marked: impl FnOnce(u64), taken: Taken) {
        let mut tables = self.shared.write();
        let index = tables.applied + ahead;
        // Under the lock, so that they come in this order.
        marked(index);
        tables.mark(index, taken);
    }

    /// Takes a view at `index`, at once or when it is applied.
    ///
    /// # Errors
    /// The index that is applied, if `index` has passed.
    pub(crate) fn mark_at(&self, index: u64, taken: Taken) -> Result<(), u64> {
        let mut tables = self.shared.write();
        if tables.mark(index, taken) { Ok(()) } else { Err(tables.applied) }
    }

    /// Whether so much was written since a view was taken that it costs too much memory.
    pub(crate) fn is_expired(&self, marked: &Marked) -> bool {
        self.shared.read().written.saturating_sub(marked.written) > SCAN_WRITTEN_LEN_MAX
    }

    /// Reads and verifies a range of a view, or a page of it if `is_page`.
    pub(crate) fn digest(&self, marked: &Marked, range: &KeyRange, is_page: bool) -> Digested {
        let mut found = Digested {
            digest: RangeDigest { entries: 0, sum: 0 },
            bytes: 0,
            end: range.end.clone(),
            damaged: Vec::new(),
            failure: None,
        };
        let Some(space) = marked.view.spaces().resolve(&range.keyspace) else { return found };
        let query = RangeQuery { start: range.start.clone(), end: range.end.clone(), ..RangeQuery::all() };
        let mut query = query.limit(RANGE_ENTRIES_MAX);
        loop {
            let next = match marked.view.page(&space, &query, RANGE_PAGE_LEN_MAX) {
                Ok(page) => {
                    for entry in &page.entries {
                        found.digest.entries += 1;
                        found.bytes += (entry.key.len() + entry.value.len()) as u64;
                        let hash = entry_hash(entry.revision, &entry.key, &entry.value);
                        found.digest.sum = found.digest.sum.wrapping_add(hash);
                    }
                    page.continuation
                }
                Err(EngineError::Damaged(entry)) if found.damaged.len() < DAMAGED_MAX => {
                    // The entries before it on this page are read again, then those after it.
                    let key = entry.key;
                    if query.start < key {
                        let before = RangeQuery { end: Some(key.clone()), ..query.clone() };
                        self.add(&marked.view, &space, &before, &mut found);
                    }
                    let mut next = key.to_vec();
                    next.push(0);
                    found.damaged.push(key);
                    Some(next.into())
                }
                Err(error) => {
                    found.failure = Some(with_causes(&error));
                    None
                }
            };
            let Some(next) = next.filter(|next| query.end.as_ref().is_none_or(|end| next < end)) else {
                return found;
            };
            if is_page {
                found.end = Some(next);
                return found;
            }
            query.start = next;
        }
    }

    /// Adds the entries of a range that has no damaged one.
    fn add(&self, view: &super::View, space: &super::Space, range: &RangeQuery, found: &mut Digested) {
        let mut query = range.clone();
        while let Ok(page) = view.page(space, &query, RANGE_PAGE_LEN_MAX) {
            for entry in &page.entries {
                found.digest.entries += 1;
                found.bytes += (entry.key.len() + entry.value.len()) as u64;
                let hash = entry_hash(entry.revision, &entry.key, &entry.value);
                found.digest.sum = found.digest.sum.wrapping_add(hash);
            }
            match page.continuation {
                Some(next) => query.start = next,
                None => return,
            }
        }
    }

    /// The entry of a key, and the index that is applied, if that is at least `at_least`.
    pub(crate) fn lookup(&self, (keyspace, key): &Place, at_least: u64) -> (u64, Held) {
        let tables = self.shared.read();
        let applied = tables.applied;
        if applied < at_least || tables.check_key(keyspace, key).is_err() {
            return (applied, Held::Unknown);
        }
        let Some(space) = tables.resolve(keyspace) else { return (applied, Held::Nothing) };
        let found = match tables.slot(&space, key) {
            Some(slot) => slot.versioned(&space, key),
            None => {
                // The version of the base belongs to the applied index, also when the lock is released.
                let base = std::sync::Arc::clone(&tables.base);
                if base.in_memory().is_none() {
                    drop(tables);
                }
                base.get(&space, key)
            }
        };
        let held = match found {
            Ok(Some(found)) => Held::Value { revision: found.revision.get(), value: found.value },
            Ok(None) => Held::Nothing,
            Err(_) => Held::Unknown,
        };
        (applied, held)
    }

    /// Replaces a damaged entry by what another member held at the index `applied`.
    ///
    /// A repair is right as long as the entry is still damaged: nothing has been written to the key since, as
    /// that would have replaced it. The other member had applied at least as much as this node when the
    /// damage was found, and this node has applied as much as that now.
    ///
    /// # Errors
    /// When the storage engine cannot be read.
    pub(crate) fn repair(
        &self,
        (keyspace, key): &Place,
        applied: u64,
        held: &Held,
    ) -> Result<Installed, EngineError> {
        let mut tables = self.shared.write();
        if tables.applied < applied {
            return Ok(Installed::Early);
        }
        let Some(space) = tables.resolve(keyspace) else { return Ok(Installed::Unneeded) };
        match tables.get(&space, key) {
            Ok(_) => return Ok(Installed::Unneeded),
            Err(EngineError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        match held {
            Held::Value { revision, value } => tables.write(&space, key, *revision, Some(value)),
            Held::Nothing => {
                let revision = tables.applied;
                tables.write(&space, key, revision, None);
            }
            Held::Unknown => return Ok(Installed::Early),
        }
        Ok(Installed::Replaced)
    }

    /// Refuses reads of a range from now on, until a snapshot is restored.
    pub(crate) fn block(&self, range: KeyRange) {
        let mut tables = self.shared.write();
        if !tables.blocked.contains(&range) {
            tables.blocked.push(range);
        }
    }
}
