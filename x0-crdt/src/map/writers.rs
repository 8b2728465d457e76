//! [`Writers`]: the table that gives each writer a small number.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{ReplicaId, Version};

/// Each writer once; its number is its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Writers {
    ids: Vec<ReplicaId>,
    numbers: BTreeMap<ReplicaId, u32>,
}

impl Writers {
    pub(super) fn number(&self, id: ReplicaId) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    /// The number of `id`, which is given one if it has none. `None` when there are 2^32 writers.
    pub(super) fn intern(&mut self, id: ReplicaId) -> Option<u32> {
        if let Some(number) = self.number(id) {
            return Some(number);
        }
        let number = u32::try_from(self.ids.len()).ok()?;
        self.ids.push(id);
        self.numbers.insert(id, number);
        Some(number)
    }

    pub(super) fn id(&self, number: u32) -> ReplicaId {
        self.ids.get(number as usize).copied().unwrap_or_default()
    }

    /// Whether these are the first writers here, with equal numbers.
    pub(super) fn begin_with(&self, others: &Self) -> bool {
        self.ids.starts_with(&others.ids)
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// `version` by number; writers without a number are left out.
    pub(super) fn by_number(&self, version: &Version) -> Vec<u64> {
        let mut seqs = alloc::vec![0; self.ids.len()];
        for (id, seq) in version.iter() {
            if let Some(place) = self.number(id).and_then(|number| seqs.get_mut(number as usize)) {
                *place = seq;
            }
        }
        seqs
    }

    /// The version that `seqs` hold, by number.
    pub(super) fn version(&self, seqs: &[u64]) -> Version {
        self.ids.iter().copied().zip(seqs.iter().copied()).collect()
    }
}

/// The number of a writer's last event in `seqs`, 0 where there is none.
pub(super) fn seq_of(seqs: &[u64], writer: u32) -> u64 {
    seqs.get(writer as usize).copied().unwrap_or(0)
}
