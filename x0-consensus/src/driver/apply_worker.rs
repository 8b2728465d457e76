//! The worker that owns the state machine.

use std::fmt;

use bytes::Bytes;

use super::contain;
use super::event::{Event, FatalError};
use super::job::{ApplyJob, Done};
use crate::entry::{Entry, EntryKind};
use crate::state_machine::StateMachine;
use crate::telemetry::ApplyTelemetry;

const WORKER: &str = "apply";

/// Carries out the [`ApplyJob`]s of an [`Executor`](super::Executor) on a [`StateMachine`], in their order,
/// one at a time.
pub struct ApplyWorker<M> {
    machine: M,
    /// The index of the last entry in the state.
    applied: u64,
    outcomes: Vec<Bytes>,
    telemetry: ApplyTelemetry,
}

impl<M> fmt::Debug for ApplyWorker<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplyWorker").field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl<M: StateMachine> ApplyWorker<M> {
    /// A worker on a state machine that is at its durable index.
    pub fn new(machine: M) -> ApplyWorker<M> {
        let telemetry = ApplyTelemetry::new();
        ApplyWorker { applied: machine.durable_index(), machine, outcomes: Vec::new(), telemetry }
    }

    /// The state machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The state machine, to look into it between two jobs.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Carries out a job. A state machine that fails, panics or breaks its contract gives [`Done::Failed`].
    pub fn work(&mut self, job: ApplyJob) -> Done {
        contain(WORKER, || match job {
            ApplyJob::Apply { entries, proposals, traced } => {
                let spans = traced.apply(entries.len());
                let applied = self.apply(&entries, &proposals);
                drop(spans);
                applied
            }
            ApplyJob::Restore { meta, mut from } => {
                self.machine.restore(&meta, &mut from)?;
                self.applied = meta.index;
                Ok(Done::Restored { index: meta.index })
            }
            ApplyJob::Checkpoint => Ok(Done::Checkpointed { index: self.machine.checkpoint()? }),
            ApplyJob::OpenSnapshot { transfer } => {
                Ok(Done::SnapshotOpened { transfer, index: self.applied, from: self.machine.snapshot() })
            }
        })
    }

    fn apply(&mut self, entries: &[Entry], proposals: &[(u64, u64)]) -> Result<Done, FatalError> {
        self.outcomes.clear();
        let ApplyWorker { machine, outcomes, telemetry, .. } = self;
        telemetry.timed(|| machine.apply(entries, outcomes))?;
        let commands = entries.iter().filter(|entry| entry.is_command()).count();
        if self.outcomes.len() != commands {
            return Err(FatalError::Outcomes { outcomes: self.outcomes.len(), commands });
        }
        self.applied = entries.last().map_or(self.applied, |entry| entry.index);
        let events = if proposals.is_empty() { Vec::new() } else { self.events(entries, proposals) };
        Ok(Done::Applied { index: self.applied, events })
    }

    /// The results of the proposals among entries that were applied. Both ascend by index.
    fn events(&mut self, entries: &[Entry], proposals: &[(u64, u64)]) -> Vec<Event> {
        let mut events = Vec::with_capacity(proposals.len());
        let mut proposals = proposals.iter().copied().peekable();
        let mut outcomes = self.outcomes.drain(..);
        for entry in entries {
            let outcome = if entry.is_command() { outcomes.next() } else { None };
            let Some((index, token)) = proposals.next_if(|(index, _)| *index == entry.index) else {
                continue;
            };
            events.push(match entry.kind {
                EntryKind::Normal => Event::Outcome { token, index, outcome: outcome.unwrap_or_default() },
                EntryKind::Membership => Event::Changed { token, index },
            });
        }
        events
    }
}
