//! The workers of a node in virtual time: the production workers, whose jobs take as long as the world says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use x0_consensus::driver::{ApplyJob, Done, Executor, LogJob, SnapshotJob};
use x0_consensus::{Entry, SnapshotMeta, StateMachine, StateMachineError};

use super::PlantedBug;
use crate::cluster::readers::{Full, Length, Read, Readers};
use crate::cluster::workers::Workers;
use crate::state::State;

/// Jobs that wait for the world, and results that wait for the event loop.
#[derive(Default)]
pub(super) struct Jobs {
    pub(super) log: VecDeque<LogJob>,
    pub(super) apply: VecDeque<ApplyJob>,
    pub(super) snapshots: VecDeque<SnapshotJob>,
    pub(super) reads: VecDeque<Read>,
    pub(super) done: VecDeque<Done>,
    /// A durable write does not wake the event loop.
    pub(super) can_wait_for_log: bool,
}

/// Shared by a node and its event loop; one thread uses it.
#[derive(Clone, Default)]
pub(super) struct SharedJobs(Arc<Mutex<Jobs>>);

impl SharedJobs {
    pub(super) fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands jobs to the world.
pub(super) struct SimWorkers {
    pub(super) jobs: SharedJobs,
    pub(super) planted: Option<PlantedBug>,
}

impl Workers for SimWorkers {
    fn take_jobs(&mut self, executor: &mut Executor) {
        let mut jobs = self.jobs.lock();
        if self.planted == Some(PlantedBug::AcknowledgeBeforePersist) {
            for job in executor.log_jobs().iter() {
                if let LogJob::Write { number, .. } = job {
                    jobs.done.push_back(Done::Persisted { number: *number });
                }
            }
        }
        jobs.log.append(executor.log_jobs());
        jobs.apply.append(executor.apply_jobs());
        jobs.snapshots.append(executor.snapshot_jobs());
        jobs.can_wait_for_log = executor.can_wait_for_log();
    }

    fn poll_done(&mut self, _: &mut Context<'_>) -> Poll<Done> {
        // The world wakes the event loop after each job that it has done, unless the result can wait.
        self.jobs.lock().done.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Readers for SharedJobs {
    fn read(&self, _: Length, read: Read) -> Result<(), Full> {
        self.lock().reads.push_back(read);
        Ok(())
    }
}

/// The state machine, with what it has applied since the world looked.
pub(super) struct Observed {
    pub(super) state: State,
    pub(super) applied: Vec<(Entry, Bytes)>,
    /// The planted bug: a snapshot's state is taken over, but its index is not.
    pub(super) forgets_index: bool,
}

impl StateMachine for Observed {
    fn durable_index(&self) -> u64 {
        self.state.durable_index()
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        let first = outcomes.len();
        StateMachine::apply(&mut self.state, entries, outcomes)?;
        let mut outcomes = outcomes.iter().skip(first);
        for entry in entries {
            let outcome = if entry.is_command() { outcomes.next().cloned() } else { None };
            self.applied.push((entry.clone(), outcome.unwrap_or_default()));
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn std::io::Read + Send>, StateMachineError> {
        StateMachine::snapshot(&mut self.state)
    }

    fn restore(
        &mut self,
        meta: &SnapshotMeta,
        from: &mut dyn std::io::Read,
    ) -> Result<(), StateMachineError> {
        if self.forgets_index {
            // The next entries are then applied on top of the old state.
            return std::io::copy(from, &mut std::io::sink()).map(drop).map_err(StateMachineError::new);
        }
        StateMachine::restore(&mut self.state, meta, from)
    }

    fn checkpoint(&mut self) -> Result<u64, StateMachineError> {
        StateMachine::checkpoint(&mut self.state)
    }
}
