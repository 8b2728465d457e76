//! The saved form of a [`CausalMap`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::cell::{Cell, Sibling};
use super::delta::{DeltaError, MapDelta};
use super::layered::Layered;
use super::stage::Stage;
use super::{CausalMap, JoinError};
use crate::codec::{ByteReader, Canonical, DecodeError, put_bytes};
use crate::hash::HashKey;
use crate::{Members, ReplicaId, Version};

/// The format, and the bits above it for what a map may have besides its values.
const FORMAT: u8 = 1;
/// A state that arrives by key ranges.
const STAGED: u8 = 1;
/// Members and their lease.
const MEMBERS: u8 = 2;

/// Why a saved state was not restored. Nothing was made of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Malformed.
    #[error("the saved state cannot be decoded: fetch the state from a peer, as a fresh incarnation")]
    Decode(#[from] DecodeError),
    /// Its content is malformed.
    #[error(
        "the content of the saved state is malformed: fetch the state from a peer, as a fresh incarnation"
    )]
    Delta(#[from] DeltaError),
    /// Its content is inconsistent.
    #[error(
        "the content of the saved state is inconsistent: fetch the state from a peer, as a fresh incarnation"
    )]
    Join(#[from] JoinError),
}

impl CausalMap {
    /// The bytes of the values and the version: equal on all replicas that have seen the same events.
    #[must_use]
    pub fn encode_state(&self) -> Vec<u8> {
        let mut whole = self.clone();
        // History differs between replicas that hold the same values.
        whole.recent = Layered::default();
        whole.removals = Layered::default();
        // The floor depends on when each replica collected.
        whole.floor = alloc::vec![0; whole.floor.len()];
        whole.stage = None;
        whole.complete(&Version::new()).encode(&Version::new())
    }

    /// The whole replica, to be restored on this machine: with its history, its members and their lease, and
    /// what has arrived by key ranges.
    ///
    /// The leases of restored members begin with the first [`heartbeat`](Self::heartbeat).
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let staged = if self.stage.is_some() { STAGED } else { 0 };
        let members = if self.members.is_worth_saving() { MEMBERS } else { 0 };
        let mut out = alloc::vec![FORMAT + (staged | members)];
        self.replica.encode(&mut out);
        put_bytes(&self.complete(&Version::new()).encode(&Version::new()), &mut out);
        if members != 0 {
            self.members.save(&self.version(), &mut out);
        }
        if let Some(stage) = &self.stage {
            stage.encode(self, &mut out);
        }
        out
    }

    /// Restores the bytes of [`save`](Self::save), to go on as `replica`: the same one if no later event can
    /// have left this machine, a fresh incarnation otherwise.
    ///
    /// # Errors
    /// Bytes that `save` cannot have written.
    pub fn restore(bytes: &[u8], replica: ReplicaId, hash_key: HashKey) -> Result<Self, RestoreError> {
        let mut input = ByteReader::new(bytes);
        let found = input.byte("a saved map")?;
        let parts = found.checked_sub(FORMAT).filter(|parts| *parts <= STAGED | MEMBERS);
        let parts = parts.ok_or(DecodeError::Version { found })?;
        // Only informative: a fresh incarnation may go on from the bytes of an older one.
        let _saved_by = ReplicaId::decode(&mut input)?;
        let delta = MapDelta::decode_trusted(input.bytes("a saved map")?, &Version::new())?;
        let mut map = Self::new(replica, hash_key);
        // The bytes hold events of this replica, which `join` would refuse as an impostor's.
        map.take_in(&delta, &[], None)?;
        if parts & MEMBERS != 0 {
            map.members = Members::restore(&map.version(), &mut input)?;
        }
        if parts & STAGED != 0 {
            map.stage = Some(Box::new(Stage::decode(&map, &mut input)?));
        }
        input.finish()?;
        Ok(map)
    }
}

impl CausalMap {
    /// About how many bytes of memory the values and their bookkeeping take: what grows with the map.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // The nodes of a B-tree are between half full and full.
        let entry = size_of::<super::Key>() + size_of::<Cell>();
        let recent = size_of::<(u32, u64)>() + size_of::<super::Key>();
        (self.cells.len() * entry + self.recent.len() * recent) * 3 / 2
            + self.siblings.saturating_sub(self.cells.len()) * size_of::<Sibling>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::delta::PEER_ITEMS_MAX;
    use super::*;

    /// A writer that has used a number twice: one event is at two keys, until the contents are compared.
    #[test]
    fn a_map_that_holds_an_event_at_two_keys_is_restored() {
        let (key, none, now) = (HashKey::new([7; 16]), Version::new(), core::time::Duration::ZERO);
        let mut twins = [1, 1].map(|id| CausalMap::new(ReplicaId::new(id), key));
        twins[0].put(b"first", 0, b"value").unwrap();
        twins[1].put(b"other", 0, b"value").unwrap();
        let mut map = CausalMap::new(ReplicaId::new(2), key);
        let crate::session::StageBegin::Ready(claim) = map.begin_stage(now, None, now, true) else {
            panic!("there is no other stage")
        };
        // While the range with the one arrives, a delta brings the other.
        map.join(&twins[0].delta(&none).unwrap()).unwrap();
        map.take_range(now, Some(claim), &twins[1].encode_range_from(&none, b"", 1 << 16)).unwrap();
        while map.stage.is_some() {
            let restored = CausalMap::restore(&map.save(), map.replica(), key).unwrap();
            assert_eq!(restored.frontier(), map.frontier());
            map.step_stage();
        }
        assert_eq!(map.len(), 2);
        let restored = CausalMap::restore(&map.save(), map.replica(), key).unwrap();
        assert_eq!(restored.frontier(), map.frontier());
        let complete = map.complete(&none).encode(&none);
        assert_eq!(MapDelta::decode(&complete, &none).unwrap_err(), DeltaError::EventOrder);
    }

    /// A restart brings back all values of a map, however many; a peer may send fewer.
    #[test]
    fn a_map_above_the_limit_of_a_delta_is_restored() {
        let (me, key) = (ReplicaId::new(1), HashKey::new([7; 16]));
        let mut map = CausalMap::new(me, key);
        for number in 0..PEER_ITEMS_MAX as u64 {
            map.put(&number.to_be_bytes(), number, b"").unwrap();
        }
        let none = Version::new();
        assert!(MapDelta::decode(&map.complete(&none).encode(&none), &none).is_ok());
        map.put(b"one more", 0, b"").unwrap();
        let restored = CausalMap::restore(&map.save(), me, key).unwrap();
        assert_eq!(restored.frontier(), map.frontier());
        let record = map.delta(&none).unwrap().encode(&none);
        assert!(matches!(MapDelta::decode(&record, &none), Err(DeltaError::Items { .. })));
        let mut replayed = CausalMap::new(me, key);
        replayed.replay(&MapDelta::decode_trusted(&record, &none).unwrap()).unwrap();
        assert_eq!(replayed.frontier(), map.frontier());
        // With a stage that holds as much.
        let now = core::time::Duration::ZERO;
        let mut source = CausalMap::new(ReplicaId::new(2), key);
        source.put(b"other", 0, b"").unwrap();
        let crate::session::StageBegin::Ready(claim) = map.begin_stage(now, None, now, true) else {
            panic!("there is no other stage")
        };
        let (since, from) = map.stage_needs().unwrap();
        let range = source.encode_range_from(&since, &from, 1 << 16);
        map.take_range(now, Some(claim), &range).unwrap();
        while map.step_stage() == crate::session::StageStep::Busy && map.stage_needs().is_none() {
            let restored = CausalMap::restore(&map.save(), me, key).unwrap();
            assert_eq!(restored.frontier(), map.frontier());
        }
    }
}
