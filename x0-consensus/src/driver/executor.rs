//! The executor: a replica and the jobs that its outputs become.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use x0_identity::NodeId;

use super::event::{Event, FatalError};
use super::job::{ApplyJob, Done, LogJob, SnapshotJob, TransferError};
use super::pipeline::Pipeline;
use super::start::{self, OpenError};
use crate::entry::SnapshotMeta;
use crate::options::Options;
use crate::replica::{Class, DropReason, FailReason, HandleError, Input, Output, Replica, StageStep, Status};
use crate::state_machine::StateMachine;
use crate::storage::Storage;
use crate::telemetry::DriverTelemetry;
use crate::trace::{Traced, Tracer};

/// The time after which writes are repeated for which the disk had no space.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An output of an [`Executor`], for its owner.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Effect {
    /// Send this message to a peer, or drop it and report that with [`Executor::congested`].
    Send {
        /// The peer.
        to: NodeId,
        /// The kind of traffic.
        class: Class,
        /// The message.
        payload: Vec<u8>,
    },
    /// A result of a request, or news about the group.
    Event(Event),
}

/// A [`Replica`] and the jobs that its outputs become. It has no clock, no thread and no runtime; it is
/// pumped.
///
/// The executor sorts the replica's outputs into effects, which are for its owner, and into jobs for three
/// workers: the [`LogWorker`](super::LogWorker) owns the storage, the [`ApplyWorker`](super::ApplyWorker)
/// owns the state machine, and the [`SnapshotWorker`](super::SnapshotWorker) copies snapshots. Each worker is
/// a plain struct with a synchronous method. The owner decides only *where* a worker runs: inline, on a
/// thread, or in virtual time after a delay.
///
/// # The drain contract
///
/// 1. Feed messages and requests to [`handle`](Executor::handle), and results of jobs to
///    [`complete`](Executor::complete). `now` is the time since any origin and never goes back.
/// 2. Call [`poll_output`](Executor::poll_output) until it returns `None`. Jobs appear in the three queues
///    meanwhile.
/// 3. Take jobs from the front of [`log_jobs`](Executor::log_jobs), [`apply_jobs`](Executor::apply_jobs) and
///    [`snapshot_jobs`](Executor::snapshot_jobs), now or later, and pass each to its worker. A queue belongs
///    to one worker, which carries out one job at a time. The workers are independent of each other.
/// 4. Pass each result to `complete`, in the order of the jobs of that worker, and start again at 1.
/// 5. Feed [`Input::Timeout`] once [`poll_timeout`](Executor::poll_timeout) has come.
///
/// A simulator may delay a job or its result as long as it likes, and may drop the executor, the queues and
/// the workers at any moment: that is a crash. It may not lose or reorder single jobs or results while the
/// executor lives, unless it wants to show that this is a fault: a result that is passed before the job is
/// done plants an acknowledgement of something that is not durable, and a job that is changed in the queue
/// plants a fault of the storage or the state machine.
///
/// # Errors
/// The executor stops by itself when the replica, the storage or the state machine fails: the last output is
/// [`Event::Failed`] with the typed cause, the queues are empty, and [`handle`](Executor::handle) returns
/// [`HandleError::Failed`]. Nothing is acknowledged after that; everything that was acknowledged is durable.
///
/// # Example
/// All workers inline, as [`local`](super::local) runs them:
///
/// ```
/// use std::time::Duration;
/// use x0_consensus::driver::{ApplyWorker, Effect, Executor, LogWorker, SnapshotWorker};
/// use x0_consensus::{Bytes, Options, Event, Input, MemoryStorage, NodeId};
/// # use x0_consensus::{Entry, SnapshotMeta, StateMachine, StateMachineError};
/// # struct Echo;
/// # impl StateMachine for Echo {
/// #     fn durable_index(&self) -> u64 { 0 }
/// #     fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
/// #         outcomes.extend(entries.iter().filter(|entry| entry.is_command()).map(|entry| entry.payload.clone()));
/// #         Ok(())
/// #     }
/// #     fn snapshot(&mut self) -> Result<Box<dyn std::io::Read + Send>, StateMachineError> { Ok(Box::new(std::io::empty())) }
/// #     fn restore(&mut self, _: &SnapshotMeta, _: &mut dyn std::io::Read) -> Result<(), StateMachineError> { Ok(()) }
/// # }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id = NodeId::new(1).ok_or("zero")?;
/// let (mut storage, machine) = (MemoryStorage::new(), Echo);
/// let mut executor = Executor::open(Options::new(id).bootstrap([id]), &mut storage, &machine, Duration::ZERO)?;
/// let (mut log, mut apply, mut snapshots) = (LogWorker::new(storage), ApplyWorker::new(machine), SnapshotWorker::new());
/// let (mut now, mut outcome, mut proposed) = (Duration::ZERO, None, false);
/// while outcome.is_none() {
///     if executor.replica().is_leader() && !proposed {
///         executor.handle(now, Input::Propose { token: 7, payload: Bytes::from("hello"), trace: None })?;
///         proposed = true;
///     }
///     while let Some(effect) = executor.poll_output() {
///         match effect {
///             Effect::Event(Event::Outcome { token: 7, outcome: result, .. }) => outcome = Some(result),
///             Effect::Event(Event::Failed(cause)) => return Err(cause.to_string().into()),
///             _ => {}
///         }
///     }
///     if let Some(job) = executor.apply_jobs().pop_front() {
///         executor.complete(now, apply.work(job));
///     } else if let Some(job) = executor.snapshot_jobs().pop_front() {
///         executor.complete(now, snapshots.work(job));
///     } else if let Some(done) = log.work(executor.log_jobs()) {
///         executor.complete(now, done);
///     } else if let Some(due) = executor.poll_timeout() {
///         now = now.max(due);
///         executor.handle(now, Input::Timeout)?;
///     }
/// }
/// assert_eq!(outcome, Some(Bytes::from("hello")));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Executor {
    replica: Replica,
    effects: VecDeque<Effect>,
    log: VecDeque<LogJob>,
    apply: Pipeline<ApplyJob, SnapshotMeta>,
    snapshots: Pipeline<SnapshotJob, WriterGap>,
    /// While the disk has no space: when the writes are repeated, or `None` while they are being repeated.
    no_space: Option<Option<Duration>>,
    waits_for_space: bool,
    failed: bool,
    telemetry: DriverTelemetry,
    tracer: Tracer,
}

/// A job that waits for a writer of the storage.
#[derive(Debug)]
enum WriterGap {
    Save { transfer: u64, meta: SnapshotMeta },
    Begin { transfer: u64 },
}

impl Executor {
    /// Recovers the storage and makes a replica that continues from there. Blocks as long as the storage
    /// reads.
    ///
    /// # Errors
    /// When the storage cannot be recovered or read, or does not fit the state machine. Nothing was changed.
    pub fn open(
        options: Options,
        storage: &mut dyn Storage,
        machine: &dyn StateMachine,
        now: Duration,
    ) -> Result<Executor, OpenError> {
        Ok(Executor {
            waits_for_space: options.waits_for_space,
            tracer: Tracer::new(options.tracing.clone(), options.id),
            replica: start::replica(options, storage, machine, now)?,
            effects: VecDeque::new(),
            log: VecDeque::new(),
            apply: Pipeline::default(),
            snapshots: Pipeline::default(),
            no_space: None,
            failed: false,
            telemetry: DriverTelemetry::new(now),
        })
    }

    /// Takes one input of the owner. The answers to the replica's outputs, such as [`Input::Persisted`], come
    /// from [`complete`](Executor::complete) and are not for the owner to give.
    ///
    /// # Errors
    /// See [`HandleError`]: only [`HandleError::Failed`] is final. All others drop a message of a peer and
    /// change nothing.
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        if self.failed {
            return Err(HandleError::Failed(self.replica.failure().unwrap_or(FailReason::Worker)));
        }
        let input = match input {
            Input::Propose { token, .. } if self.no_space.is_some() => {
                self.event(Event::Dropped { token, reason: DropReason::NoSpace });
                return Ok(());
            }
            Input::Propose { token, payload, trace } => {
                Input::Propose { token, payload, trace: self.tracer.propose(token, trace) }
            }
            input => input,
        };
        if matches!(input, Input::Timeout)
            && let Some(retry_at) = &mut self.no_space
            && retry_at.is_some_and(|at| at <= now)
        {
            *retry_at = None;
            self.log.push_back(LogJob::Retry);
        }
        self.telemetry.input(now, &input);
        self.tracer.settle();
        let result = self.replica.handle(now, input);
        self.trace_campaign();
        if let Err(HandleError::Failed(reason)) = &result {
            self.fail(FatalError::Replica(*reason));
        }
        result
    }

    /// Reports that a message of [`Effect::Send`] was dropped, so that the replica sends less to that peer.
    pub fn congested(&mut self, now: Duration, to: NodeId) {
        self.telemetry.congested();
        self.answer(now, Input::Unreachable { peer: to });
    }

    /// Takes the result of a job.
    pub fn complete(&mut self, now: Duration, done: Done) {
        if self.failed {
            return;
        }
        match done {
            Done::Nothing => {}
            Done::Persisted { number } => {
                if self.no_space.take().is_some() {
                    self.event(Event::SpaceAvailable);
                }
                self.tracer.persisted(number);
                self.answer(now, Input::Persisted { number });
            }
            Done::NoSpace { error } if !self.waits_for_space => self.fail(error.into()),
            Done::NoSpace { error } => {
                if self.no_space.replace(Some(now + RETRY_AFTER)).is_none() {
                    self.event(Event::NoSpace(Arc::new(error)));
                    self.transfer_to_space(now);
                }
            }
            Done::Fetched { entries } => self.answer(now, Input::Fetched { entries }),
            Done::WriterOpened { to, .. } => self.snapshots.fill(|gap| match gap {
                WriterGap::Save { transfer, meta } => SnapshotJob::Save { transfer, meta, to },
                WriterGap::Begin { transfer } => SnapshotJob::Begin { transfer, to },
            }),
            Done::ReaderOpened { from } => self.apply.fill(|meta| ApplyJob::Restore { meta, from }),
            Done::Applied { index, events } => {
                // The outcomes leave before what the replica makes of it: a read that this index releases may
                // show their effects.
                for event in &events {
                    if let Event::Outcome { token, .. } = event {
                        self.tracer.end(*token, false);
                    }
                }
                self.effects.extend(events.into_iter().map(Effect::Event));
                self.answer(now, Input::Applied { index });
            }
            Done::Restored { index } => self.answer(now, Input::Restored { index }),
            Done::Checkpointed { index } => self.answer(now, Input::Checkpointed { index }),
            Done::SnapshotOpened { transfer, index, from: Ok(from) } => {
                self.snapshots.push(SnapshotJob::Open { transfer, from });
                self.answer(now, Input::SnapshotOpened { transfer, index });
            }
            Done::SnapshotOpened { transfer, from: Err(cause), .. } => {
                self.transfer_failed(TransferError::Open(cause));
                self.answer(now, Input::SnapshotClosed { transfer });
            }
            Done::ChunkRead { transfer, chunk: Ok((bytes, last)) } => {
                self.answer(now, Input::ChunkRead { transfer, bytes, last });
            }
            Done::Saved { meta, result: Ok(()), .. } => self.answer(now, Input::SnapshotSaved { meta }),
            Done::ChunkRead { transfer, chunk: Err(cause) }
            | Done::Saved { transfer, result: Err(cause), .. } => {
                self.transfer_failed(cause);
                self.answer(now, Input::SnapshotClosed { transfer });
            }
            Done::Staged { transfer, result } => {
                let ok = result.map_err(|cause| self.transfer_failed(cause)).is_ok();
                self.answer(now, Input::Staged { transfer, ok });
            }
            Done::Failed(failure) => self.fail(failure),
        }
    }

    /// The next effect, or `None` when the executor waits for inputs, results or the time.
    pub fn poll_output(&mut self) -> Option<Effect> {
        while self.effects.is_empty() && !self.failed {
            match self.replica.poll_output() {
                Some(output) => self.sort(output),
                None => match self.replica.failure() {
                    Some(reason) => self.fail(FatalError::Replica(reason)),
                    None => break,
                },
            }
        }
        self.effects.pop_front()
    }

    /// When [`Input::Timeout`] is due. `None` after a failure.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.failed { None } else { self.replica.poll_timeout() }
    }

    /// Whether a [`Done::Persisted`] may wait until the owner has another reason to run: the next input, at
    /// the latest the timeout. That is so on a leader whose write commits nothing before another member
    /// acknowledges it. Most writes of a leader are durable before the first acknowledgement, and a wake-up
    /// for each of them would only cost time. Ask when [`poll_output`](Executor::poll_output) has returned
    /// `None`; the answer holds until the next input or result.
    #[must_use]
    pub fn can_wait_for_log(&self) -> bool {
        !self.failed && self.no_space.is_none() && self.replica.can_wait_for_log()
    }

    /// The jobs of the [`LogWorker`](super::LogWorker) that have not begun.
    pub fn log_jobs(&mut self) -> &mut VecDeque<LogJob> {
        &mut self.log
    }

    /// The jobs of the [`ApplyWorker`](super::ApplyWorker) that have not begun.
    pub fn apply_jobs(&mut self) -> &mut VecDeque<ApplyJob> {
        &mut self.apply.ready
    }

    /// The jobs of the [`SnapshotWorker`](super::SnapshotWorker) that have not begun.
    pub fn snapshot_jobs(&mut self) -> &mut VecDeque<SnapshotJob> {
        &mut self.snapshots.ready
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether the executor has stopped by itself.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// Updates a status that [`Replica::status`] gave, which costs less than a new one. The gauges of
    /// [`telemetry`](crate::telemetry) are set to it.
    pub fn refresh(&mut self, status: &mut Status) {
        self.replica.refresh(status);
        self.telemetry.status(status);
        self.telemetry.progress(status.last_index, || self.replica.progress());
    }

    /// Passes the context of an election on to a replica that asks for votes.
    fn trace_campaign(&mut self) {
        if self.replica.is_candidate()
            && let Some(context) = self.tracer.campaign()
        {
            self.replica.trace_election(context);
        }
    }

    /// Sorts one output of the replica.
    fn sort(&mut self, output: Output) {
        self.telemetry.output(&output);
        match output {
            Output::Append { number, write } => {
                let traced = match (write.entries.first(), write.entries.last()) {
                    (Some(first), Some(last)) => {
                        let traced = self.replica.traced(first.index, last.index);
                        self.tracer.append(number, first.index, traced)
                    }
                    _ => Traced::default(),
                };
                self.log.push_back(LogJob::Write { number, write, traced });
            }
            Output::Fetch { range, len_max } => self.log.push_back(LogJob::Fetch { range, len_max }),
            Output::Apply { entries, proposals } => {
                let traced = self.tracer.apply(&entries);
                self.apply.push(ApplyJob::Apply { entries, proposals, traced });
            }
            Output::Checkpoint => self.apply.push(ApplyJob::Checkpoint),
            Output::OpenSnapshot { transfer } => self.apply.push(ApplyJob::OpenSnapshot { transfer }),
            Output::Restore { meta } => {
                // Opened in the order of the log's writes: a snapshot that is adopted later cannot take its
                // place.
                self.log.push_back(LogJob::OpenReader { meta: meta.clone() });
                self.apply.push_gap(meta);
            }
            Output::ReadChunk { transfer, len_max } => {
                self.snapshots.push(SnapshotJob::ReadChunk { transfer, len_max });
            }
            Output::CloseSnapshot { transfer } => self.snapshots.push(SnapshotJob::Close { transfer }),
            Output::SaveSnapshot { transfer, meta } => {
                self.log.push_back(LogJob::OpenWriter { transfer, meta: meta.clone() });
                self.snapshots.push_gap(WriterGap::Save { transfer, meta });
            }
            Output::Stage { transfer, step: StageStep::Begin { meta } } => {
                self.log.push_back(LogJob::OpenWriter { transfer, meta });
                self.snapshots.push_gap(WriterGap::Begin { transfer });
            }
            Output::Stage { transfer, step: StageStep::Write { bytes } } => {
                self.snapshots.push(SnapshotJob::Write { transfer, bytes });
            }
            Output::Stage { transfer, step: StageStep::Finish } => {
                self.snapshots.push(SnapshotJob::Finish { transfer });
            }
            Output::Send { to, class, payload } => {
                self.effects.push_back(Effect::Send { to, class, payload });
            }
            Output::ReadReady { tokens, index } => {
                let events = tokens.into_iter().map(|token| Event::ReadReady { token, index });
                self.effects.extend(events.map(Effect::Event));
            }
            Output::Dropped { token, reason } => {
                self.tracer.end(token, true);
                self.event(Event::Dropped { token, reason });
            }
            Output::Leader { leader, term, is_self } => {
                self.tracer.leader(leader, term);
                // A follower that is to campaign asks for votes before it reports that the leader is gone.
                self.trace_campaign();
                self.event(Event::Leader { leader, term, is_self });
            }
            Output::Membership(membership) => self.event(Event::Membership { membership }),
            Output::Standing(standing) => self.event(Event::Standing { standing }),
        }
    }

    fn event(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }

    fn transfer_failed(&mut self, cause: TransferError) {
        self.event(Event::TransferFailed(Arc::new(cause)));
    }

    /// Transfers the leadership to the voter with the longest log, so that the group accepts proposals again.
    /// That voter may lack space as well: then it transfers in turn.
    fn transfer_to_space(&mut self, now: Duration) {
        // The state machine applies nothing that is not durable here: the callers of open proposals would
        // wait for space.
        self.replica.give_up_proposals();
        if let Some(to) = self.replica.successor() {
            self.answer(now, Input::TransferLeadership { to });
        }
    }

    /// Gives the replica an answer, which it can only refuse by failing.
    fn answer(&mut self, now: Duration, input: Input) {
        // `handle` has noted a failure.
        let _ = self.handle(now, input);
    }

    fn fail(&mut self, failure: FatalError) {
        if !std::mem::replace(&mut self.failed, true) {
            self.log.clear();
            self.apply.clear();
            self.snapshots.clear();
            self.event(Event::Failed(Arc::new(failure)));
        }
    }
}
