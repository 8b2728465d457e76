//! The new values of a replica, for a receiver that its history does not reach back to.
//!
//! Values of events that the receiver has not seen are found by a pass over the map, without a comparison of
//! both states. They also replace what they have overwritten. Only values that were removed stay unknown: the
//! hash of the sender's content shows whether there are any.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::cell::{Cell, Sibling};
use super::delta::{DeltaItem, Item, MapDelta};
use super::small::Key;
use super::{CausalMap, HistoryError, content_hash, item_hash, seq_of};
use crate::codec::DecodeError;
use crate::session::Found;
use crate::{DeltaError, Version};

impl CausalMap {
    /// The values of events that are not in `since`, which a pass has found, after the hash of all that is
    /// held.
    pub(super) fn encode_news(
        &self,
        since: &Version,
        whole: bool,
        found: &Found,
    ) -> Result<Vec<u8>, HistoryError> {
        let delta = self.chosen_of(since, &self.version(), &[], found)?;
        let mut out = self.content.to_le_bytes().to_vec();
        let bytes = if whole { delta.encode(since) } else { delta.encode_named(since, self.hash_key) };
        out.extend_from_slice(&bytes);
        Ok(out)
    }

    /// The hash of the content of the sender of news, and their delta.
    pub(super) fn split_news(bytes: &[u8]) -> Result<(u64, &[u8]), DeltaError> {
        let (content, rest) =
            bytes.split_first_chunk().ok_or(DecodeError::Truncated { what: "the hash of a content" })?;
        Ok((u64::from_le_bytes(*content), rest))
    }

    /// The content of a sender that holds the values here of events that it has seen, changed by its delta.
    pub(super) fn content_at_sender(&self, delta: &MapDelta) -> u64 {
        let context = self.writers.by_number(&delta.context);
        let had_seen = |sibling: &Sibling| sibling.seq <= seq_of(&context, sibling.writer);
        let mut content = self.content;
        if !self.version().is_within(&delta.context) {
            // A value that the sender has not seen is in history, unless that was collected.
            let is_known = self.floor().is_within(&delta.context);
            let keys: BTreeSet<&Key> = if is_known {
                self.recent_since(&delta.context).collect()
            } else {
                self.cells.keys().collect()
            };
            for key in keys {
                let held = self.cells.get(key).map(Cell::siblings).unwrap_or_default();
                for sibling in held.iter().filter(|sibling| !had_seen(sibling)) {
                    content = content.wrapping_sub(item_hash(self.hash_key, &self.writers, key, sibling));
                }
            }
        }
        let mut begin = 0;
        for (key, end) in &delta.entries {
            let items = delta.items.get(begin..*end).unwrap_or_default();
            begin = *end;
            content = content.wrapping_add(self.change_at_sender(delta, key, items, had_seen));
        }
        content
    }

    fn change_at_sender(
        &self,
        delta: &MapDelta,
        key: &Key,
        items: &[DeltaItem],
        had_seen: impl Fn(&Sibling) -> bool,
    ) -> u64 {
        let held = self.cells.get(key).map(Cell::siblings).unwrap_or_default();
        let id_of = |item: &DeltaItem| delta.writers.get(item.writer as usize).copied().unwrap_or_default();
        let is_of = |item: &DeltaItem, sibling: &Sibling| {
            item.seq == sibling.seq && id_of(item) == self.writers.id(sibling.writer)
        };
        let mut change = 0_u64;
        for sibling in held {
            if had_seen(sibling) && !items.iter().any(|item| is_of(item, sibling)) {
                change = change.wrapping_sub(item_hash(self.hash_key, &self.writers, key, sibling));
            }
        }
        for item in items {
            if let Item::Live { time, value } = &item.item
                && !held.iter().any(|sibling| is_of(item, sibling))
            {
                // Its number of a writer is not used.
                let sibling = Sibling { seq: item.seq, time: *time, value: value.clone(), writer: 0 };
                change = change.wrapping_add(content_hash(self.hash_key, id_of(item), key, &sibling));
            }
        }
        change
    }
}
