//! A driver on a tokio runtime: a task for the replica, a task that applies, and a thread that owns the log, so that appending,
//! replicating and applying overlap. Works on the current-thread runtime as on the multi-threaded one; the runtime needs time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::tokio::sync::{mpsc, oneshot};
use ::tokio::time::{Instant, Sleep};

use super::applier;
use super::event::{Event, FatalError, Observer};
use super::handle::{EndGuard, Handle, Mail, Shared};
use super::log_thread::{self, Job};
use super::outbox::Outbox;
use super::snapshots::Job as SnapshotJob;
use super::start::{self, OpenError};
use crate::config::Config;
use crate::entry::{Entry, SnapshotMeta};
use crate::replica::{HandleError, Input, Output, Replica};
use crate::state_machine::StateMachine;
use crate::storage::Storage;
use crate::telemetry::DriverTelemetry;

/// Starts a replica on the runtime that this is called in. State machines apply on the runtime's threads, a few megabytes at a time;
/// restoring from a snapshot happens on a thread for blocking work.
///
/// # Errors
/// When the storage cannot be recovered or read, does not fit the state machine, or there is no thread to be had. Nothing was changed.
///
/// # Panics
/// Outside of a tokio runtime, as [`tokio::spawn`](::tokio::spawn) does.
pub fn start(
    config: Config,
    mut storage: impl Storage + 'static,
    machine: impl StateMachine + 'static,
    outbox: impl Outbox + 'static,
    observer: impl Observer + 'static,
) -> Result<Handle, OpenError> {
    let replica = start::replica(config, &mut storage, &machine)?;
    let shared = Arc::new(Shared::new(replica.status()));
    let guard = Arc::new(EndGuard(Arc::clone(&shared)));
    let log = log_thread::start(Box::new(storage), Arc::clone(&shared), Arc::clone(&guard))?;
    let observer = Told(Arc::new(Mutex::new(Some(Box::new(observer)))));
    let (apply, jobs) = mpsc::unbounded_channel();
    let applied = replica.status().applied_index;
    let applier = Applier {
        machine: Some(Box::new(machine)),
        observer: observer.clone(),
        shared: Arc::clone(&shared),
        log: log.clone(),
        applied,
        _guard: Arc::clone(&guard),
    };
    ::tokio::spawn(applier.run(jobs));
    let driver = Loop {
        shared: Arc::clone(&shared),
        replica,
        outbox: Box::new(outbox),
        observer,
        log,
        apply,
        inputs: Vec::new(),
        origin: Instant::now(),
        sleep: Box::pin(::tokio::time::sleep(Duration::ZERO)),
        wake: None,
        telemetry: DriverTelemetry::new(),
        _guard: guard,
    };
    ::tokio::spawn(driver.run());
    Ok(Handle(shared))
}

/// The observer, told by both tasks until one of them tells the last.
#[derive(Clone)]
struct Told(Arc<Mutex<Option<Box<dyn Observer>>>>);

impl Told {
    fn with(&self, tell: impl FnOnce(&mut dyn Observer)) {
        if let Some(observer) = &mut *self.lock() {
            tell(&mut **observer);
        }
    }

    fn last(&self, event: Event) {
        if let Some(mut observer) = self.lock().take() {
            observer.event(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Observer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the applying task is asked for, in the replica's order.
enum ApplyJob {
    Apply { entries: Vec<Entry>, proposals: Vec<(u64, u64)> },
    Restore { meta: SnapshotMeta },
    Checkpoint,
    OpenSnapshot { transfer: u64 },
}

struct Applier {
    /// Away only while it restores.
    machine: Option<Box<dyn StateMachine>>,
    observer: Told,
    shared: Arc<Shared>,
    log: Sender<Job>,
    applied: u64,
    _guard: Arc<EndGuard>,
}

const APPLIER: &str = "applier";

impl Applier {
    async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<ApplyJob>) {
        let mut outcomes = Vec::new();
        while let Some(job) = jobs.recv().await {
            let done = match job {
                ApplyJob::Restore { meta } => self.restore(meta).await,
                job => self.work(job, &mut outcomes),
            };
            match done {
                Ok(input) => self.shared.put(input),
                Err(failure) => return self.shared.fail(failure),
            }
        }
    }

    fn work(&mut self, job: ApplyJob, outcomes: &mut Vec<bytes::Bytes>) -> Result<Input, FatalError> {
        let machine = self.machine.as_deref_mut().ok_or(FatalError::Ended { thread: APPLIER })?;
        Ok(match job {
            ApplyJob::Apply { entries, proposals } => {
                applier::apply(machine, &entries, outcomes)?;
                if !proposals.is_empty() {
                    self.observer.with(|observer| {
                        observer.batch_begin();
                        for event in applier::outcomes(&entries, &proposals, outcomes) {
                            observer.event(event);
                        }
                        observer.batch_end();
                    });
                }
                self.applied = entries.last().map_or(self.applied, |entry| entry.index);
                Input::Applied { index: self.applied }
            }
            ApplyJob::Checkpoint => Input::Checkpointed { index: machine.checkpoint()? },
            ApplyJob::OpenSnapshot { transfer } => {
                let opened = machine.snapshot().ok().is_some_and(|from| {
                    let job = Job::Snapshot(SnapshotJob::Open { transfer, from });
                    self.log.send(job).is_ok()
                });
                if opened {
                    Input::SnapshotOpened { transfer, index: self.applied }
                } else {
                    Input::SnapshotClosed { transfer }
                }
            }
            // Restoring waits, and is done elsewhere.
            ApplyJob::Restore { meta } => Input::Restored { index: meta.index },
        })
    }

    async fn restore(&mut self, meta: SnapshotMeta) -> Result<Input, FatalError> {
        let ended = |thread| FatalError::Ended { thread };
        let (answer, reader) = oneshot::channel();
        let answer = Box::new(move |read| {
            // Nobody waits any more when the runtime is going down.
            let _ = answer.send(read);
        });
        self.log.send(Job::Read { answer }).map_err(|_| ended("x0-log"))?;
        let mut from = reader.await.map_err(|_| ended("x0-log"))??;
        if from.meta().index != meta.index {
            return Err(FatalError::SnapshotMissing);
        }
        let mut machine = self.machine.take().ok_or(ended(APPLIER))?;
        let index = meta.index;
        let work = move || {
            let restored = machine.restore(&meta, &mut from);
            (machine, restored)
        };
        let (machine, restored) = ::tokio::task::spawn_blocking(work).await.map_err(|_| ended(APPLIER))?;
        self.machine = Some(machine);
        restored?;
        self.applied = index;
        Ok(Input::Restored { index })
    }
}

struct Loop {
    shared: Arc<Shared>,
    replica: Replica,
    outbox: Box<dyn Outbox>,
    observer: Told,
    log: Sender<Job>,
    apply: mpsc::UnboundedSender<ApplyJob>,
    inputs: Vec<Input>,
    origin: Instant,
    sleep: Pin<Box<Sleep>>,
    /// What `sleep` is set to.
    wake: Option<Duration>,
    telemetry: DriverTelemetry,
    _guard: Arc<EndGuard>,
}

/// How many times inputs are taken before other tasks get a turn.
const ROUNDS_MAX: usize = 8;

impl Loop {
    async fn run(mut self) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        self.shared.close();
        if let Err(failure) = ended {
            self.observer.last(Event::Failed(Arc::new(failure)));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FatalError>> {
        for _ in 0..ROUNDS_MAX {
            let now = self.origin.elapsed();
            if let Err(failure) = self.drain(now) {
                return Poll::Ready(Err(failure));
            }
            self.shared.with_status(|status| {
                self.replica.refresh(status);
                self.telemetry.status(status);
            });
            let mut inputs = std::mem::take(&mut self.inputs);
            let mail = self.shared.take(&mut inputs, cx.waker());
            let taken = match &mail {
                Mail::Inputs => inputs.drain(..).try_for_each(|input| self.handle(now, input)),
                _ => Ok(()),
            };
            self.inputs = inputs;
            match mail {
                Mail::Stop => return Poll::Ready(Ok(())),
                Mail::Failed(failure) => return Poll::Ready(Err(failure)),
                Mail::Nothing if self.poll_timer(cx).is_pending() => return Poll::Pending,
                Mail::Inputs | Mail::Nothing => {}
            }
            if let Err(failure) = taken {
                return Poll::Ready(Err(failure));
            }
            let now = self.origin.elapsed();
            if self.replica.poll_timeout().is_some_and(|due| due <= now)
                && let Err(failure) = self.handle(now, Input::Timeout)
            {
                return Poll::Ready(Err(failure));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.replica.poll_timeout() else { return Poll::Pending };
        if self.wake != Some(due) {
            self.wake = Some(due);
            self.sleep.as_mut().reset(self.origin + due);
        }
        let fired = self.sleep.as_mut().poll(cx);
        if fired.is_ready() {
            self.wake = None;
        }
        fired
    }

    fn handle(&mut self, now: Duration, input: Input) -> Result<(), FatalError> {
        match self.replica.handle(now, input) {
            Err(HandleError::Failed(reason)) => Err(FatalError::Replica(reason)),
            // The message was dropped.
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn drain(&mut self, now: Duration) -> Result<(), FatalError> {
        while let Some(output) = self.replica.poll_output() {
            self.perform(now, output)?;
        }
        Ok(())
    }

    fn perform(&mut self, now: Duration, output: Output) -> Result<(), FatalError> {
        self.telemetry.output(&output);
        match output {
            Output::Send { to, class, payload } => {
                if self.outbox.send(to, class, payload).is_err() {
                    self.telemetry.congested();
                    self.handle(now, Input::Unreachable { peer: to })?;
                }
                Ok(())
            }
            Output::Append { number, write } => self.log(Job::Write { number, write }),
            Output::Apply { entries, proposals } => self.apply(ApplyJob::Apply { entries, proposals }),
            Output::Restore { meta } => self.apply(ApplyJob::Restore { meta }),
            Output::Checkpoint => self.apply(ApplyJob::Checkpoint),
            Output::OpenSnapshot { transfer } => self.apply(ApplyJob::OpenSnapshot { transfer }),
            Output::Fetch { range, len_max } => self.log(Job::Fetch { range, len_max }),
            Output::ReadChunk { transfer, len_max } => {
                self.log(Job::Snapshot(SnapshotJob::ReadChunk { transfer, len_max }))
            }
            Output::CloseSnapshot { transfer } => self.log(Job::Snapshot(SnapshotJob::Close { transfer })),
            Output::SaveSnapshot { transfer, meta } => self.log(Job::Save { transfer, meta }),
            Output::Stage { transfer, step } => self.log(Job::Stage { transfer, step }),
            told => {
                self.observer.with(|observer| told.tell(observer));
                Ok(())
            }
        }
    }

    fn log(&self, job: Job) -> Result<(), FatalError> {
        // A thread that failed has said why.
        self.log
            .send(job)
            .map_err(|_| self.shared.failure().unwrap_or(FatalError::Ended { thread: "x0-log" }))
    }

    fn apply(&self, job: ApplyJob) -> Result<(), FatalError> {
        self.apply
            .send(job)
            .map_err(|_| self.shared.failure().unwrap_or(FatalError::Ended { thread: APPLIER }))
    }
}
