//! Evicts single values, and finds the values of one writer.

use alloc::vec::Vec;

use super::small::Key;
use super::{CausalMap, Cell, Entry, seq_of};
use crate::{Dot, ReplicaId};

impl CausalMap {
    /// Evicts one value from the map, of any writer; its siblings stay. Returns whether it was there.
    ///
    /// No event is written: `dot` counts as seen and gone, as after a removal that every member has seen. A
    /// replica that still holds the value drops it when it compares contents with this one. Only for values
    /// that every replica judges alike by itself, such as invalid signatures; [`remove`](Self::remove)
    /// notifies the other replicas.
    pub(crate) fn evict(&mut self, key: &[u8], dot: Dot) -> bool {
        let Some(writer) = self.writers.number(dot.replica) else { return false };
        let is_meant = |writer_of: u32, seq: u64| writer_of == writer && seq == dot.seq;
        let Some((key, cell)) = self.cells.remove_entry(key) else { return false };
        let mut siblings = cell.into_siblings();
        let before = siblings.len();
        siblings.retain(|sibling| {
            let keep = !is_meant(sibling.writer, sibling.seq);
            if !keep {
                self.lose(&key, sibling);
            }
            keep
        });
        let is_found = siblings.len() < before;
        self.resolutions += u64::from(is_found);
        if is_found {
            self.evict_staged(key.as_slice(), dot);
        }
        if let Some(cell) = Cell::new(siblings) {
            self.cells.insert(key, cell);
        }
        is_found
    }

    /// The last event seen of `writer`, 0 for none.
    pub(crate) fn last_seen(&self, writer: ReplicaId) -> u64 {
        self.writers.number(writer).map_or(0, |number| seq_of(&self.version, number))
    }

    /// The event of `writer` up to which history was forgotten.
    pub(crate) fn forgotten(&self, writer: ReplicaId) -> u64 {
        self.writers.number(writer).map_or(0, |number| seq_of(&self.floor, number))
    }

    /// The entries with values that `writer` wrote in the events after `after` up to `until`, with the number
    /// of the event, ascending. Costs as much as there are such events, or a pass over the map where history
    /// is forgotten.
    pub(crate) fn written(&self, writer: ReplicaId, after: u64, until: u64) -> Vec<(u64, Entry<'_>)> {
        let Some(number) = self.writers.number(writer) else { return Vec::new() };
        if after >= until {
            return Vec::new();
        }
        // History names the keys of recent events; below the floor only a pass over the cells finds them.
        if after >= seq_of(&self.floor, number) {
            let recent = self.recent.range((number, after + 1)..=(number, until));
            let holds = |key: &Key, seq: u64| {
                let cell = self.cells.get(key);
                cell.is_some_and(|cell| cell.siblings().iter().any(|s| (s.writer, s.seq) == (number, seq)))
            };
            let live = recent.filter(|((_, seq), key)| holds(key, *seq));
            return live.filter_map(|((_, seq), key)| Some((*seq, self.get(key.as_slice())?))).collect();
        }
        let mut live = Vec::new();
        for (key, cell) in &self.cells {
            for sibling in cell.siblings() {
                if sibling.writer == number && sibling.seq > after && sibling.seq <= until {
                    live.extend(self.get(key.as_slice()).map(|entry| (sibling.seq, entry)));
                }
            }
        }
        // Cells are ordered by key, events are wanted in the order of writing.
        live.sort_unstable_by_key(|(seq, _)| *seq);
        live
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashKey;

    #[test]
    fn an_evicted_value_is_gone_with_its_hash_and_its_siblings_stay() {
        let key = HashKey::new([1; 16]);
        let [mut here, mut there] = [1, 2].map(|node| CausalMap::new(ReplicaId::new(node), key));
        let mine = here.put(b"k", 1, b"mine").unwrap();
        let theirs = there.put(b"k", 1, b"theirs").unwrap();
        here.join(&there.delta(&here.version()).unwrap()).unwrap();
        assert!(!here.evict(b"k", Dot::new(ReplicaId::new(3), 1)), "no event of that writer was seen");
        assert!(!here.evict(b"other", theirs));
        assert!(here.evict(b"k", theirs));
        assert!(!here.evict(b"k", theirs));
        assert_eq!(here.get(b"k").unwrap().latest().dot, mine);
        assert_eq!(here.last_seen(theirs.replica), 1);
        // The value does not come back, and a replica that holds it drops it when contents are compared.
        here.join(&there.complete(&here.version())).unwrap();
        assert_eq!(here.sibling_count(), 1);
        there.join(&here.complete(&there.version())).unwrap();
        assert_eq!(here.frontier(), there.frontier());
        assert_eq!(here.encode_state(), there.encode_state());
        assert!(here.evict(b"k", mine));
        assert!(here.is_empty());
        assert_eq!((here.sibling_count(), here.frontier().content), (0, 0));
    }

    #[test]
    fn the_values_of_a_writer_are_found_with_and_without_history() {
        let mut map = CausalMap::new(ReplicaId::new(1), HashKey::new([1; 16]));
        for number in 0..10_u8 {
            map.put(&[number], 0, b"v").unwrap();
        }
        map.put(&[3], 0, b"again").unwrap();
        map.remove(&[4]).unwrap();
        let seqs =
            |map: &CausalMap| map.written(ReplicaId::new(1), 2, 11).iter().map(|w| w.0).collect::<Vec<_>>();
        assert_eq!(seqs(&map), [3, 6, 7, 8, 9, 10, 11]);
        let version = map.version();
        map.collect_tombstones(&version);
        assert_eq!(seqs(&map), [3, 6, 7, 8, 9, 10, 11]);
        assert_eq!(map.forgotten(ReplicaId::new(1)), 12);
    }
}
