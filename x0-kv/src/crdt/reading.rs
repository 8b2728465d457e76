//! Reading a CRDT keyspace.

use bytes::Bytes;
use x0_crdt::{CausalMap, Entry, Held};

use super::Read;
use crate::request::limits::{RANGE_ENTRIES_MAX, RANGE_PAGE_LEN_MAX};
use crate::request::operation::RangeQuery;
use crate::request::outcome::{KeyValue, Outcome, Page, Versioned};

/// Answers from what is held. Values from after `time_max` win over none that is not.
pub(super) fn read(map: &CausalMap, time_max: u64, read: &Read) -> Outcome {
    match read {
        Read::Get { key } => Outcome::Value(map.get(key).map(|entry| versioned(&latest(&entry, time_max)))),
        Read::Siblings { key } => Outcome::Siblings(siblings(map, key)),
        Read::Counter { key } => Outcome::Counter(map.get(key).map_or(0, |entry| entry.sum())),
        Read::Range(range) => Outcome::Page(page(map, time_max, range)),
    }
}

fn latest<'a>(entry: &Entry<'a>, time_max: u64) -> Held<'a> {
    entry.latest_until(time_max).unwrap_or_else(|| entry.latest())
}

fn versioned(held: &Held<'_>) -> Versioned {
    Versioned { value: Bytes::copy_from_slice(held.value), revision: held.time }
}

/// All values at a key, the latest first.
fn siblings(map: &CausalMap, key: &[u8]) -> Vec<Versioned> {
    let Some(entry) = map.get(key) else { return Vec::new() };
    let mut siblings: Vec<_> = entry.siblings().collect();
    siblings.sort_unstable_by_key(|held| std::cmp::Reverse((held.time, held.dot)));
    siblings.iter().map(versioned).collect()
}

fn page(map: &CausalMap, time_max: u64, range: &RangeQuery) -> Page {
    let entries = map.between(&range.start, range.end.as_deref());
    if range.reverse { gather(entries.rev(), time_max, range) } else { gather(entries, time_max, range) }
}

fn gather<'a>(entries: impl Iterator<Item = Entry<'a>>, time_max: u64, range: &RangeQuery) -> Page {
    let entries_max = range.limit.clamp(1, RANGE_ENTRIES_MAX) as usize;
    let mut page = Page::default();
    let mut len = 0;
    for entry in entries {
        let held = latest(&entry, time_max);
        len += entry.key().len() + held.value.len();
        let is_full = page.entries.len() >= entries_max || len > RANGE_PAGE_LEN_MAX;
        if is_full && let Some(last) = page.entries.last() {
            let mut next = last.key.to_vec();
            if !range.reverse {
                // The least key above it.
                next.push(0);
            }
            page.continuation = Some(next.into());
            break;
        }
        page.entries.push(KeyValue {
            key: Bytes::copy_from_slice(entry.key()),
            value: Bytes::copy_from_slice(held.value),
            revision: held.time,
        });
    }
    page
}
