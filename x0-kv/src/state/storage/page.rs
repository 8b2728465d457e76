//! Ranges through the layers and the base beneath them.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use super::entry::{Space, Stored};
use super::layer::{Bounds, Layer, Merged, Slot};
use super::{Base, EngineError};
use crate::request::limits::RANGE_ENTRIES_MAX;
use crate::request::operation::RangeQuery;
use crate::request::outcome::Page;

/// The part of a page that lies in layers: its entries are collected while the tables are locked and merged
/// with a base that may have to read a disk after they are unlocked.
#[derive(Debug)]
pub(crate) struct Overlay {
    entries: Vec<(Bytes, Slot)>,
    /// There are more after the last entry, so that the page must end there.
    cut: bool,
}

/// One page of entries with their checksums, each compared with its own.
#[derive(Debug, Default)]
pub(crate) struct StoredPage {
    pub(crate) entries: Vec<Stored>,
    pub(crate) continuation: Option<Bytes>,
}

impl StoredPage {
    pub(crate) fn page(self) -> Page {
        let entries = self.entries.into_iter().map(Stored::key_value).collect();
        Page { entries, continuation: self.continuation }
    }
}

/// From the first key to the last.
#[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only a base in a file needs it"))]
pub(crate) const EVERYTHING: Bounds<'static> = (Bound::Unbounded, Bound::Unbounded);

/// The bounds of `range`, or `None` if it is empty.
pub(crate) fn bounds(range: &RangeQuery) -> Option<Bounds<'_>> {
    match &range.end {
        Some(end) if *end <= range.start => None,
        Some(end) => Some((Bound::Included(&range.start), Bound::Excluded(end))),
        None => Some((Bound::Included(&range.start), Bound::Unbounded)),
    }
}

fn entries_max(range: &RangeQuery) -> usize {
    range.limit.clamp(1, RANGE_ENTRIES_MAX) as usize
}

impl Overlay {
    pub(crate) fn collect<'a>(
        layers: impl IntoIterator<Item = &'a Layer>,
        space: &Space,
        range: &RangeQuery,
        bounds: Bounds<'_>,
    ) -> Overlay {
        let mut merged = Merged::new(layers, space.id, bounds, range.reverse);
        let entries = merged.by_ref().take(entries_max(range));
        let entries = entries.map(|(key, slot)| (Bytes::copy_from_slice(key), slot.clone())).collect();
        Overlay { entries, cut: merged.peek_key().is_some() }
    }

    /// One page of `range`: at most its limit of entries and, unless the first alone is longer, `len_max`
    /// bytes of keys and values.
    pub(crate) fn page(
        self,
        base: &dyn Base,
        space: &Space,
        range: &RangeQuery,
        bounds: Bounds<'_>,
        len_max: usize,
    ) -> Result<StoredPage, EngineError> {
        let horizon = self.entries.last().filter(|_| self.cut).map(|(key, _)| key.clone());
        let before = |left: &[u8], right: &[u8]| {
            let order = left.cmp(right);
            if range.reverse { order.reverse() } else { order }
        };
        let mut over = self.entries.into_iter().peekable();
        let mut beneath = base.scan(space, bounds, range.reverse)?.peekable();
        let mut page = StoredPage::default();
        let mut len = 0;
        // The last key that was dealt with, if it is not in the page: it was deleted.
        let mut passed: Option<Bytes> = None;
        let more = loop {
            // A damaged entry that a later write hides is passed over. Any other error ends the page.
            let is_readable = match (over.peek(), beneath.peek()) {
                (Some((over, _)), Some(Err(EngineError::Damaged(entry)))) => {
                    before(over, &entry.key) != Ordering::Greater
                }
                (_, Some(Err(_))) => false,
                _ => true,
            };
            if !is_readable {
                beneath.next().transpose()?;
            }
            let order = match (over.peek(), beneath.peek()) {
                (None, None) => break self.cut,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((over, _)), Some(Ok(beneath))) => before(over, &beneath.key),
                (Some((over, _)), Some(Err(EngineError::Damaged(entry)))) => before(over, &entry.key),
                (Some(_), Some(Err(_))) => continue,
            };
            if page.entries.len() >= entries_max(range) {
                break true;
            }
            let live = if order == Ordering::Greater {
                let Some(entry) = beneath.next().transpose()? else { continue };
                if horizon.as_ref().is_some_and(|horizon| before(horizon, &entry.key) == Ordering::Less) {
                    break true;
                }
                Ok(entry)
            } else {
                if order == Ordering::Equal {
                    // Hidden, damaged or not.
                    drop(beneath.next());
                }
                let Some((key, slot)) = over.next() else { continue };
                slot.into_stored(space, key)?
            };
            match live {
                Ok(entry) => {
                    len += entry.key.len() + entry.value.len();
                    if len > len_max && !page.entries.is_empty() {
                        break true;
                    }
                    page.entries.push(entry);
                    passed = None;
                }
                Err(deleted) => passed = Some(deleted),
            }
        };
        if more {
            let passed = passed.or_else(|| page.entries.last().map(|entry| entry.key.clone()));
            page.continuation = passed.map(|key| if range.reverse { key } else { successor(&key) });
        }
        Ok(page)
    }
}

/// The least key above `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}
