//! The records of a [`SignedMap`](super::SignedMap), and which of them are durable.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::error::{OpenError, SignedHandleError};
use super::io::{PersistToken, SignedOutput};
use crate::{CausalMap, DecodeError, HashKey, MapDelta, ReplicaId, Version};

/// A record that holds a whole map.
const SNAPSHOT: u8 = 1;
/// A record that holds the delta since the one before it.
const DELTA: u8 = 2;
/// A record that holds a range of a long state.
const RANGE: u8 = 3;
/// A record from which on the ranges before it count.
const RANGES_COUNT: u8 = 4;

/// After so many deltas a record holds the whole map again, so that a restart reads a bounded number of them.
const DELTAS_MAX: usize = 256;

/// The records that are durable, and those on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Records that wait until the one before them is durable: the kind and the bytes.
    waiting: VecDeque<(u8, Vec<u8>)>,
    /// The version that all records hold, those that wait included; `None` before the first one.
    recorded: Option<Version>,
    /// Deltas since the last whole map.
    deltas: usize,
    /// The number of the last record that was handed out, and of the last one that is durable.
    handed_out: u64,
    durable: u64,
}

impl Journal {
    /// The map of these records.
    pub(super) fn replay<'a>(
        records: impl IntoIterator<Item = &'a [u8]>,
        replica: ReplicaId,
        hash_key: HashKey,
    ) -> Result<(CausalMap, Self), OpenError> {
        let mut journal = Self::default();
        let mut restored: Option<CausalMap> = None;
        for (index, record) in records.into_iter().enumerate() {
            let truncated = OpenError::Decode { index, source: DecodeError::Truncated { what: "a record" } };
            let (kind, bytes) = record.split_first().ok_or(truncated)?;
            match (*kind, &mut restored) {
                (SNAPSHOT, _) => {
                    let map = CausalMap::restore(bytes, replica, hash_key)
                        .map_err(|source| OpenError::Snapshot { index, source })?;
                    restored = Some(map);
                    journal.deltas = 0;
                }
                (DELTA, Some(map)) => {
                    // Each record was encoded against the version of the one before it.
                    let delta = MapDelta::decode_trusted(bytes, &map.version())
                        .map_err(|source| OpenError::Delta { index, source })?;
                    map.replay(&delta).map_err(|source| OpenError::Order { index, source })?;
                    journal.deltas += 1;
                }
                (RANGE, Some(map)) => {
                    map.replay_range(bytes).map_err(|source| OpenError::Snapshot { index, source })?;
                }
                // Nothing is replaced if a record after them has all that they hold.
                (RANGES_COUNT, Some(map)) => drop(map.replay_ranges()),
                (DELTA | RANGE | RANGES_COUNT, None) => return Err(OpenError::NoSnapshot),
                (tag, _) => {
                    return Err(OpenError::Decode {
                        index,
                        source: DecodeError::Tag { what: "record", tag },
                    });
                }
            }
        }
        let map = restored.ok_or(OpenError::NoSnapshot)?;
        journal.recorded = Some(map.version());
        Ok((map, journal))
    }

    /// The next record. `None` if nothing has changed, or while the last one is not durable.
    pub(super) fn next_record(&mut self, map: &CausalMap) -> Option<SignedOutput> {
        if self.handed_out != self.durable {
            return None;
        }
        if self.waiting.is_empty() && self.is_behind(map) {
            self.catch_up(map);
        }
        let (kind, bytes) = self.waiting.pop_front()?;
        self.handed_out += 1;
        let mut record = Vec::with_capacity(1 + bytes.len());
        record.push(kind);
        record.extend_from_slice(&bytes);
        let token = PersistToken { number: self.handed_out };
        Some(SignedOutput::Persist { record, replaces: kind == SNAPSHOT, token })
    }

    /// Makes the record of what has changed since the last one.
    fn catch_up(&mut self, map: &CausalMap) {
        // History that the last record still needs may be forgotten: then the whole map is written.
        let delta = self.recorded.as_ref().filter(|_| self.deltas < DELTAS_MAX);
        let delta = delta.and_then(|since| Some(map.delta(since).ok()?.encode(since)));
        self.deltas = if delta.is_none() { 0 } else { self.deltas + 1 };
        self.recorded = Some(map.version());
        self.waiting.push_back(delta.map_or_else(|| (SNAPSHOT, map.save()), |delta| (DELTA, delta)));
    }

    /// Keeps a range that a session has staged in the map.
    pub(super) fn stage(&mut self, map: &CausalMap, range: Vec<u8>) {
        // The range continues what the map holds, even if it is empty.
        if self.recorded.is_none() || self.is_behind(map) {
            self.catch_up(map);
        }
        self.waiting.push_back((RANGE, range));
    }

    /// Notes that the staged ranges count: they have brought a version of a peer.
    pub(super) fn count_ranges(&mut self, brought: &Version) {
        self.waiting.push_back((RANGES_COUNT, Vec::new()));
        if let Some(recorded) = &mut self.recorded {
            recorded.join(brought);
        }
    }

    pub(super) fn confirm(&mut self, token: &PersistToken) -> Result<(), SignedHandleError> {
        if token.number != self.handed_out || self.handed_out == self.durable {
            return Err(SignedHandleError::Token);
        }
        self.durable = self.handed_out;
        Ok(())
    }

    /// The number of the record that must be durable before what the map holds now may be sent.
    pub(super) fn required(&self, map: &CausalMap) -> u64 {
        self.handed_out + self.waiting.len() as u64 + u64::from(self.is_behind(map))
    }

    pub(super) const fn is_durable(&self, number: u64) -> bool {
        number <= self.durable
    }

    /// Whether the map has seen events that no record holds. An eviction is no event: a restart repeats it.
    fn is_behind(&self, map: &CausalMap) -> bool {
        match &self.recorded {
            Some(recorded) => *recorded != map.version(),
            None => !map.version().is_empty(),
        }
    }
}
