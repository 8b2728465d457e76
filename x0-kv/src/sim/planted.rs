//! Services and a log with a planted bug, between those of a node.

use std::ops::Range;
use std::task::Context;
use std::time::Duration;

use x0_consensus::{
    Entry, ReadError, RecoverError, Recovered, SnapshotMeta, SnapshotReadError, SnapshotReader,
    SnapshotWriteError, SnapshotWriter, Storage, Wal, Write, WriteError,
};

use super::PlantedBug;
use super::random::Random;
use crate::cluster::NodeError;
use crate::cluster::service::{Bus, Service};
use crate::cluster::services::consensus::ReplicaStatus;
use crate::coordinator::Input;

/// Does with the values that services pass to each other what a faulty event loop would do.
pub(super) struct FaultyBus {
    pub(super) planted: PlantedBug,
    pub(super) status: ReplicaStatus,
}

impl Service for FaultyBus {
    fn wants(&self, bus: &Bus) -> bool {
        !bus.coordinator.is_empty() || !bus.replica.is_empty()
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
        _now: Duration,
        _is_raised: bool,
        bus: &mut Bus,
    ) -> Result<bool, NodeError> {
        match self.planted {
            PlantedBug::ReadWithoutQuorum => self.answer_reads(bus),
            PlantedBug::WrongToken => swap_tokens(bus),
            _ => {}
        }
        Ok(false)
    }
}

impl FaultyBus {
    /// A leader answers reads without asking the others.
    fn answer_reads(&self, bus: &mut Bus) {
        let status = self.status.get();
        if status.leader != Some(status.id) {
            return;
        }
        let answers = &mut bus.coordinator;
        bus.replica.retain(|input| {
            let x0_consensus::Input::ReadIndex { token } = input else { return true };
            answers.push_back(Input::ReadReady { token: *token, index: status.applied_index });
            false
        });
    }
}

/// The log of a node. With the planted bug it does not verify what it reads from a disk that rots.
pub(super) struct SimLog {
    log: Wal,
    rot: Option<Random>,
}

impl SimLog {
    pub(super) fn new(log: Wal, context: &mut super::context::Context) -> SimLog {
        let rots = context.is_planted(PlantedBug::ReadUnverified);
        SimLog { log, rot: rots.then(|| Random::new(context.random.next())) }
    }
}

impl Storage for SimLog {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        self.log.recover()
    }

    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        self.log.term(index)
    }

    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        let mut entries = self.log.read(indexes, len_bytes_max)?;
        if let Some(random) = &mut self.rot
            && random.chance(20)
            && let Some(entry) = entries.iter_mut().rfind(|entry| !entry.payload.is_empty())
        {
            let mut payload = entry.payload.to_vec();
            let at = random.place(payload.len());
            payload[at] ^= 1 << random.below(8);
            entry.payload = payload.into();
        }
        Ok(entries)
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        self.log.write(batch)
    }

    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        self.log.snapshot_writer(meta)
    }

    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        self.log.snapshot_reader()
    }
}

/// Two outcomes that arrive together get each other's tokens.
fn swap_tokens(bus: &mut Bus) {
    let mut outcomes = bus.coordinator.iter_mut().filter_map(|input| match input {
        Input::Outcome { token, .. } => Some(token),
        _ => None,
    });
    if let (Some(one), Some(other)) = (outcomes.next(), outcomes.next()) {
        std::mem::swap(one, other);
    }
}
