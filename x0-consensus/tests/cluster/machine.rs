//! A state machine whose state is a digest of all commands.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf as _, Bytes};
use x0_consensus::{Entry, SnapshotMeta, StateMachine, StateMachineError};

/// The state: the applied index and a digest of all commands up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) applied: u64,
    pub(crate) digest: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    /// Whether a checkpoint makes the state durable.
    pub(crate) is_durable: bool,
    /// The least length of a snapshot, in bytes.
    pub(crate) snapshot_len: usize,
    pub(crate) state: State,
    pub(crate) saved: State,
    pub(crate) checkpoints: u64,
    pub(crate) restores: u64,
    /// Entries that were applied and the states after them, until the harness takes them.
    pub(crate) steps: Vec<(Entry, State)>,
}

/// FNV-1a.
pub(crate) fn digest(seed: u64, bytes: &[u8]) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Machine {
    pub(crate) fn durable_index(&self) -> u64 {
        self.saved.applied
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.state.applied + 1, "entries are applied in their order, each once");
        self.state.applied = entry.index;
        if entry.is_command() {
            self.state.digest = digest(self.state.digest, &entry.payload);
        }
        self.steps.push((entry.clone(), self.state));
    }

    pub(crate) fn checkpoint(&mut self) -> u64 {
        self.checkpoints += 1;
        if self.is_durable {
            self.saved = self.state;
        }
        self.saved.applied
    }

    pub(crate) fn snapshot(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(16 + self.snapshot_len);
        bytes.extend(self.state.applied.to_le_bytes());
        bytes.extend(self.state.digest.to_le_bytes());
        bytes.extend((0..self.snapshot_len).map(|at| at.to_le_bytes()[0]));
        bytes.into()
    }

    pub(crate) fn restore(&mut self, bytes: &[u8]) {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        self.state = State { applied: number(0), digest: number(8) };
        assert_eq!(self.snapshot()[..], *bytes, "the snapshot arrived as it was sent");
        self.restores += 1;
        if self.is_durable {
            self.saved = self.state;
        }
    }

    /// Restores the durable state after a crash.
    pub(crate) fn crash(&mut self) {
        self.state = self.saved;
        self.steps.clear();
    }
}

/// A machine that the harness and the apply worker share.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedMachine(Arc<Mutex<Machine>>);

impl SharedMachine {
    pub(crate) fn new(machine: Machine) -> SharedMachine {
        SharedMachine(Arc::new(Mutex::new(machine)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap()
    }
}

impl StateMachine for SharedMachine {
    fn durable_index(&self) -> u64 {
        self.lock().durable_index()
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        let mut machine = self.lock();
        for entry in entries {
            machine.apply(entry);
            if entry.is_command() {
                outcomes.push(entry.payload.clone());
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        Ok(Box::new(self.lock().snapshot().reader()))
    }

    fn restore(&mut self, meta: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        let mut machine = self.lock();
        machine.restore(&bytes);
        assert_eq!(machine.state.applied, meta.index, "a snapshot is of the index that it is saved for");
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<u64, StateMachineError> {
        Ok(self.lock().checkpoint())
    }
}
