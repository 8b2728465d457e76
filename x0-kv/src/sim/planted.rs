//! Services with a planted bug, between those of a node.

use std::task::Context;
use std::time::Duration;

use super::PlantedBug;
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
