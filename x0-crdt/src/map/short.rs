//! The short form of a delta: item by item instead of column by column.

use alloc::vec::Vec;

use super::delta::{DeltaError, DeltaExtent, DeltaItem, Item, MapDelta};
use super::small::{Key, Value};
use super::{KEY_LEN_MAX, VALUE_LEN_MAX};
use crate::codec::{ByteReader, Canonical, DecodeError, put_bytes, put_integer};
use crate::version::{changes, put_changes};
use crate::{ReplicaId, Version};

/// The first byte of the short form.
pub(super) const FORMAT: u8 = 2;

/// The most items of a delta in short form.
const ITEMS_MAX: usize = 16;

impl MapDelta {
    /// The short form, if the delta is from history and small enough for it.
    pub(super) fn encode_short(&self, base: &Version) -> Option<Vec<u8>> {
        if self.extent != DeltaExtent::Since || self.items.len() > ITEMS_MAX || self.entries.len() > ITEMS_MAX
        {
            return None;
        }
        let mut out = alloc::vec![FORMAT];
        let changes = self.context.changes_since(base);
        put_changes(&changes, &mut out);
        // Mostly the writers of the items are those that have written.
        let is_same = self.writers.iter().eq(changes.iter().map(|(writer, _)| writer));
        is_same.encode(&mut out);
        if !is_same {
            put_integer(self.writers.len() as u64, &mut out);
            for writer in &self.writers {
                writer.encode(&mut out);
            }
        }
        put_integer(self.entries.len() as u64, &mut out);
        let mut begin = 0;
        for (key, end) in &self.entries {
            put_bytes(key.as_slice(), &mut out);
            let items = self.items.get(begin..*end).unwrap_or_default();
            begin = *end;
            self.put_short_items(items, &mut out);
        }
        Some(out)
    }

    /// Appends the items of one entry.
    pub(super) fn put_short_items(&self, items: &[DeltaItem], out: &mut Vec<u8>) {
        put_integer(items.len() as u64, out);
        for item in items {
            let kind = match item.item {
                Item::Live { .. } => 0,
                Item::Known => 1,
                Item::Removed => 2,
            };
            put_integer(u64::from(item.writer) << 2 | kind, out);
            // Mostly one of the last events: counted from the end it is short.
            let writer = self.writers.get(item.writer as usize).copied().unwrap_or_default();
            put_integer(self.context.get(writer).saturating_sub(item.seq), out);
            if let Item::Live { time, value } = &item.item {
                put_integer(*time, out);
                put_bytes(value.as_slice(), out);
            }
        }
    }

    /// Reads the items of one entry.
    pub(super) fn short_items(
        &self,
        input: &mut ByteReader<'_>,
        items: &mut Vec<DeltaItem>,
    ) -> Result<(), DeltaError> {
        for _ in 0..short_count(input, 2)? {
            items.push(item(input, &self.writers, &self.context)?);
        }
        Ok(())
    }

    /// Reads the short form, after its first byte. The caller checks what holds in every delta.
    pub(super) fn decode_short(input: &mut ByteReader<'_>, base: &Version) -> Result<Self, DeltaError> {
        let changes = changes(input)?;
        let writers: Vec<ReplicaId> = if bool::decode(input)? {
            changes.iter().map(|(writer, _)| *writer).collect()
        } else {
            let count = input.count(9, "writers")?;
            (0..count).map(|_| ReplicaId::decode(input)).collect::<Result<_, _>>()?
        };
        let context = base.clone().changed(&changes);
        let count = short_count(input, 2)?;
        let mut delta = Self {
            extent: DeltaExtent::Since,
            base: base.clone(),
            context,
            floor: Version::new(),
            writers,
            entries: Vec::with_capacity(count),
            items: Vec::new(),
            origins: Vec::new(),
        };
        let mut items = Vec::new();
        for _ in 0..count {
            let key = input.bytes("a key")?;
            if key.len() > KEY_LEN_MAX {
                return Err(DecodeError::Range { what: "a key" }.into());
            }
            delta.short_items(input, &mut items)?;
            delta.entries.push((Key::new(key), items.len()));
        }
        if items.len() > ITEMS_MAX {
            return Err(DeltaError::Items { count: items.len() as u64 });
        }
        input.finish()?;
        delta.items = items;
        Ok(delta)
    }
}

fn short_count(input: &mut ByteReader<'_>, each_min: usize) -> Result<usize, DeltaError> {
    let count = input.count(each_min, "items")?;
    if count > ITEMS_MAX { Err(DeltaError::Items { count: count as u64 }) } else { Ok(count) }
}

fn item(
    input: &mut ByteReader<'_>,
    writers: &[ReplicaId],
    context: &Version,
) -> Result<DeltaItem, DeltaError> {
    const WHAT: &str = "an item";
    let tag = input.integer(WHAT)?;
    let writer = u32::try_from(tag >> 2).map_err(|_| DecodeError::Range { what: WHAT })?;
    let id = writers.get(writer as usize).ok_or(DecodeError::Range { what: "the number of a writer" })?;
    let back = input.integer(WHAT)?;
    let seq = context.get(*id).checked_sub(back).ok_or(DecodeError::Range { what: WHAT })?;
    let item = match tag & 3 {
        0 => {
            let time = input.integer(WHAT)?;
            let value = input.bytes("values")?;
            if value.len() > VALUE_LEN_MAX {
                return Err(DecodeError::Range { what: "the length of a value" }.into());
            }
            Item::Live { time, value: Value::new(value) }
        }
        1 => Item::Known,
        2 => Item::Removed,
        _ => return Err(DecodeError::Range { what: "the kind of an item" }.into()),
    };
    Ok(DeltaItem { writer, seq, item })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CausalMap, HashKey};

    fn maps() -> [CausalMap; 2] {
        [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), HashKey::new([7; 16])))
    }

    #[test]
    fn a_put_takes_28_bytes_and_reads_back() {
        let [mut here, mut there] = maps();
        there.put(b"other", 3, b"value").unwrap();
        here.join(&there.delta(&here.version()).unwrap()).unwrap();
        let seen = there.version();
        here.put(b"door", 10, b"open").unwrap();
        let bytes = here.delta(&seen).unwrap().encode(&seen);
        assert_eq!((bytes[0], bytes.len()), (FORMAT, 28));
        let delta = MapDelta::decode(&bytes, &seen).unwrap();
        assert_eq!(delta.encode(&seen), bytes);
        there.join(&delta).unwrap();
        assert_eq!(there.frontier(), here.frontier());
    }

    #[test]
    fn damaged_bytes_are_refused_or_another_delta() {
        let [mut here, mut there] = maps();
        for number in 0..5_u8 {
            there.put(&[b'k', number], 3, b"value").unwrap();
        }
        here.join(&there.delta(&here.version()).unwrap()).unwrap();
        let seen = there.version();
        there.put_own(b"k\0", 4, b"mine").unwrap();
        here.put(&[b'k', 1], 10, b"open").unwrap();
        here.put_own(&[b'k', 2], 10, b"beside").unwrap();
        here.remove(&[b'k', 3]).unwrap();
        let bytes = here.delta(&seen).unwrap().encode(&seen);
        assert_eq!(bytes[0], FORMAT, "with a value that the receiver has");
        for len in 0..bytes.len() {
            assert!(MapDelta::decode(&bytes[..len], &seen).is_err());
        }
        let before = there.encode_state();
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            if let Ok(delta) = MapDelta::decode(&damaged, &seen) {
                let refused = there.clone().join(&delta).is_err();
                assert!(!refused || there.encode_state() == before);
            }
        }
        there.join(&MapDelta::decode(&bytes, &seen).unwrap()).unwrap();
        here.join(&there.delta(&here.version()).unwrap()).unwrap();
        assert_eq!(there.encode_state(), here.encode_state());
    }
}
