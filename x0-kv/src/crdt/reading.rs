//! Reads of a CRDT store.

use bytes::Bytes;
use x0_crdt::{CausalMap, Entry, Held};

use super::Read;
use super::limits::{CLEAR_KEYS_MAX, KEYSPACES_MAX};
use super::outcome::{CrdtEntry, CrdtOutcome, CrdtPage, CrdtValue, Timestamp};
use super::request::split;
use crate::request::keyspace::KeyspaceName;
use crate::request::limits::{RANGE_ENTRIES_MAX, RANGE_PAGE_LEN_MAX};
use crate::request::operation::RangeQuery;

/// Answers `read` from `map`. A value with a time after `time_max` is the latest one only if all values of
/// its key are that late.
pub(super) fn read(map: &CausalMap, time_max: u64, read: &Read) -> CrdtOutcome {
    match read {
        Read::Get { key } => {
            CrdtOutcome::Value(map.get(key).map(|entry| crdt_value(&latest(&entry, time_max))))
        }
        Read::Siblings { key } => CrdtOutcome::Siblings(siblings(map, key)),
        Read::Counter { key } => CrdtOutcome::Counter(map.get(key).map_or(0, |entry| entry.sum())),
        Read::Range(range) => CrdtOutcome::Page(page(map, time_max, range)),
        Read::Keyspaces => CrdtOutcome::Keyspaces(keyspaces(map)),
    }
}

/// Up to [`CLEAR_KEYS_MAX`] keys that begin with `prefix`, and whether there are no others.
pub(super) fn keys_with(map: &CausalMap, prefix: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut keys = map.between(prefix, None).map(|entry| entry.key().to_vec());
    let keys: Vec<_> = keys.by_ref().take_while(|key| key.starts_with(prefix)).take(CLEAR_KEYS_MAX).collect();
    let is_all = keys.len() < CLEAR_KEYS_MAX;
    (keys, is_all)
}

/// The names in the qualifiers of all keys: one look-up for each name, however many keys there are.
fn keyspaces(map: &CausalMap) -> Vec<KeyspaceName> {
    let mut names = Vec::new();
    let mut start = vec![1];
    while names.len() < KEYSPACES_MAX {
        let Some(key) = map.between(&start, None).next().map(|entry| Bytes::copy_from_slice(entry.key()))
        else {
            break;
        };
        match split(&key) {
            Some((name, _)) => {
                start = name.qualify(&[]);
                // The last byte is a character, never 255: this is the end of the keyspace.
                if let Some(last) = start.last_mut() {
                    *last += 1;
                }
                names.push(name.to_owned_name());
            }
            // A key of no keyspace, which only a member of another version writes.
            None => {
                start = key.to_vec();
                start.push(0);
            }
        }
    }
    names
}

fn latest<'a>(entry: &Entry<'a>, time_max: u64) -> Held<'a> {
    entry.latest_until(time_max).unwrap_or_else(|| entry.latest())
}

fn crdt_value(held: &Held<'_>) -> CrdtValue {
    CrdtValue { value: Bytes::copy_from_slice(held.value), timestamp: Timestamp::from_bits(held.time) }
}

/// All values at a key, the latest first.
fn siblings(map: &CausalMap, key: &[u8]) -> Vec<CrdtValue> {
    let Some(entry) = map.get(key) else { return Vec::new() };
    let mut siblings: Vec<_> = entry.siblings().collect();
    siblings.sort_unstable_by_key(|held| std::cmp::Reverse((held.time, held.dot)));
    siblings.iter().map(crdt_value).collect()
}

fn page(map: &CausalMap, time_max: u64, range: &RangeQuery) -> CrdtPage {
    let entries = map.between(&range.start, range.end.as_deref());
    if range.reverse { gather(entries.rev(), time_max, range) } else { gather(entries, time_max, range) }
}

fn gather<'a>(entries: impl Iterator<Item = Entry<'a>>, time_max: u64, range: &RangeQuery) -> CrdtPage {
    let entries_max = range.limit.clamp(1, RANGE_ENTRIES_MAX) as usize;
    let mut page = CrdtPage::default();
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
        page.entries.push(CrdtEntry {
            key: Bytes::copy_from_slice(entry.key()),
            value: Bytes::copy_from_slice(held.value),
            timestamp: Timestamp::from_bits(held.time),
        });
    }
    page
}
