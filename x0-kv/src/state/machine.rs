//! The state as the state machine of a replicated log.

use std::io::Read;

use bytes::Bytes;
use x0_consensus::{Entry, SnapshotMeta, StateMachine, StateMachineError};

use crate::state::State;

impl StateMachine for State {
    fn durable_index(&self) -> u64 {
        self.durable()
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        let entries = entries.iter().map(|entry| (entry.index, entry.is_command().then_some(&entry.payload)));
        State::apply(self, entries, outcomes).map_err(StateMachineError::new)
    }

    fn can_apply_inline(&self, entries: &[Entry]) -> bool {
        self.applies_in_memory(entries.iter().map(|entry| &entry.payload))
    }

    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        Ok(State::snapshot(self))
    }

    fn restore(&mut self, meta: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError> {
        State::restore(self, Some(meta.index), from).map_err(StateMachineError::new)
    }

    fn checkpoint(&mut self) -> Result<u64, StateMachineError> {
        State::checkpoint(self).map_err(StateMachineError::new)
    }
}
