//! A driver on one thread, without a runtime: for a group of one, for small devices, and wherever latency counts more than overlap.
//!
//! ```
//! use std::sync::mpsc;
//! use x0_consensus::{Bytes, Config, Entry, Event, MemoryStorage, NodeId, Observer, SnapshotMeta, StateMachine, StateMachineError, local};
//!
//! /// Counts bytes.
//! struct Count(u64);
//!
//! impl StateMachine for Count {
//!     fn durable_index(&self) -> u64 {
//!         0
//!     }
//!     fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
//!         for entry in entries.iter().filter(|entry| entry.is_command()) {
//!             self.0 += entry.payload.len() as u64;
//!             outcomes.push(Bytes::copy_from_slice(&self.0.to_le_bytes()));
//!         }
//!         Ok(())
//!     }
//!     fn snapshot(&mut self) -> Result<Box<dyn std::io::Read + Send>, StateMachineError> {
//!         Ok(Box::new(std::io::Cursor::new(self.0.to_le_bytes())))
//!     }
//!     fn restore(&mut self, _: &SnapshotMeta, from: &mut dyn std::io::Read) -> Result<(), StateMachineError> {
//!         let mut count = [0; 8];
//!         from.read_exact(&mut count).map_err(StateMachineError::new)?;
//!         self.0 = u64::from_le_bytes(count);
//!         Ok(())
//!     }
//! }
//!
//! struct Tell(mpsc::Sender<Event>);
//!
//! impl Observer for Tell {
//!     fn event(&mut self, event: Event) {
//!         // Nobody listens any more once the program is about to end.
//!         let _ = self.0.send(event);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let id = NodeId::new(1).ok_or("zero")?;
//! let (tell, told) = mpsc::channel();
//! let config = Config::new(id).bootstrap([id]);
//! let replica = local::start(config, MemoryStorage::new(), Count(0), (), Tell(tell))?;
//! replica.propose(7, Bytes::from("four"));
//! let outcome = told.iter().find_map(|event| match event {
//!     Event::Outcome { token: 7, outcome, .. } => Some(outcome),
//!     _ => None,
//! });
//! assert_eq!(outcome.ok_or("it stopped")?, 4_u64.to_le_bytes().as_slice());
//! replica.stop();
//! replica.wait_ended();
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::applier;
use super::event::{Event, FatalError, Observer};
use super::handle::{EndGuard, Handle, Mail, Shared};
use super::outbox::Outbox;
use super::snapshots::{Job, Snapshots};
use super::start::{self, OpenError};
use crate::config::Config;
use crate::replica::{HandleError, Input, Output, Replica, StageStep};
use crate::state_machine::StateMachine;
use crate::storage::{Storage, Write};
use crate::telemetry::{DriverTelemetry, LogTelemetry};

/// The thread's name.
const THREAD: &str = "x0-consensus";

/// Starts a replica on a thread of its own. Proposals that come while the log is being written are written together with the next
/// write.
///
/// # Errors
/// When the storage cannot be recovered or read, does not fit the state machine, or there is no thread to be had. Nothing was changed.
pub fn start(
    config: Config,
    mut storage: impl Storage + 'static,
    machine: impl StateMachine + 'static,
    outbox: impl Outbox + 'static,
    observer: impl Observer + 'static,
) -> Result<Handle, OpenError> {
    let replica = start::replica(config, &mut storage, &machine)?;
    let shared = Arc::new(Shared::new(replica.status()));
    let guard = EndGuard(Arc::clone(&shared));
    let worker = Worker {
        shared: Arc::clone(&shared),
        replica,
        storage: Box::new(storage),
        machine: Box::new(machine),
        outbox: Box::new(outbox),
        observer: Box::new(observer),
        snapshots: Snapshots::default(),
        writes: Vec::new(),
        number: 0,
        outcomes: Vec::new(),
        origin: Instant::now(),
        telemetry: DriverTelemetry::new(),
        log_telemetry: LogTelemetry::new(),
    };
    let run = move || {
        worker.run();
        drop(guard);
    };
    match thread::Builder::new().name(THREAD.into()).spawn(run) {
        Ok(_) => Ok(Handle(shared)),
        Err(source) => Err(OpenError::Thread { thread: THREAD, source }),
    }
}

struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Worker {
    shared: Arc<Shared>,
    replica: Replica,
    storage: Box<dyn Storage>,
    machine: Box<dyn StateMachine>,
    outbox: Box<dyn Outbox>,
    observer: Box<dyn Observer>,
    snapshots: Snapshots,
    /// Appends that are not written yet, and the number of the last.
    writes: Vec<Write>,
    number: u64,
    outcomes: Vec<Bytes>,
    origin: Instant,
    telemetry: DriverTelemetry,
    log_telemetry: LogTelemetry,
}

impl Worker {
    fn run(mut self) {
        if let Err(failure) = self.serve() {
            self.shared.close();
            self.observer.event(Event::Failed(Arc::new(failure)));
        }
        self.shared.close();
    }

    fn serve(&mut self) -> Result<(), FatalError> {
        let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
        let mut inputs = Vec::new();
        loop {
            let now = self.origin.elapsed();
            self.drain(now)?;
            self.shared.with_status(|status| {
                self.replica.refresh(status);
                self.telemetry.status(status);
            });
            match self.shared.take(&mut inputs, &waker) {
                Mail::Stop => return Ok(()),
                Mail::Failed(failure) => return Err(failure),
                Mail::Inputs => {
                    let now = self.origin.elapsed();
                    for input in inputs.drain(..) {
                        self.handle(now, input)?;
                    }
                }
                Mail::Nothing => self.sleep(),
            }
            let now = self.origin.elapsed();
            if self.replica.poll_timeout().is_some_and(|due| due <= now) {
                self.handle(now, Input::Timeout)?;
            }
        }
    }

    fn sleep(&self) {
        match self.replica.poll_timeout() {
            Some(due) => thread::park_timeout(due.saturating_sub(self.origin.elapsed())),
            None => thread::park(),
        }
    }

    fn handle(&mut self, now: Duration, input: Input) -> Result<(), FatalError> {
        match self.replica.handle(now, input) {
            Err(HandleError::Failed(reason)) => Err(FatalError::Replica(reason)),
            // The message was dropped.
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Carries out everything, and writes what was appended in one go.
    fn drain(&mut self, now: Duration) -> Result<(), FatalError> {
        loop {
            while let Some(output) = self.replica.poll_output() {
                self.perform(now, output)?;
            }
            if self.writes.is_empty() {
                return Ok(());
            }
            self.log_telemetry.timed(&self.writes, |writes| self.storage.write(writes))?;
            self.writes.clear();
            self.handle(now, Input::Persisted { number: self.number })?;
        }
    }

    fn perform(&mut self, now: Duration, output: Output) -> Result<(), FatalError> {
        self.telemetry.output(&output);
        let answer = match output {
            Output::Append { number, write } => {
                self.number = number;
                self.writes.push(write);
                return Ok(());
            }
            Output::Send { to, class, payload } => {
                let sent = self.outbox.send(to, class, payload);
                sent.err().map(|_| {
                    self.telemetry.congested();
                    Input::Unreachable { peer: to }
                })
            }
            Output::Apply { entries, proposals } => {
                let index = entries.last().map_or(0, |entry| entry.index);
                applier::apply(&mut *self.machine, &entries, &mut self.outcomes)?;
                if !proposals.is_empty() {
                    self.observer.batch_begin();
                    for event in applier::outcomes(&entries, &proposals, &mut self.outcomes) {
                        self.observer.event(event);
                    }
                    self.observer.batch_end();
                }
                Some(Input::Applied { index })
            }
            Output::Restore { meta } => {
                let found = self.storage.snapshot_reader()?.filter(|found| found.meta().index == meta.index);
                let mut from = found.ok_or(FatalError::SnapshotMissing)?;
                self.machine.restore(&meta, &mut from)?;
                Some(Input::Restored { index: meta.index })
            }
            Output::Checkpoint => Some(Input::Checkpointed { index: self.machine.checkpoint()? }),
            Output::Fetch { range, len_max } => {
                // What was compacted meanwhile is asked for again, as a snapshot.
                Some(Input::Fetched { entries: self.storage.read(range, len_max).unwrap_or_default() })
            }
            Output::OpenSnapshot { transfer } => {
                let index = self.replica.status().applied_index;
                match self.machine.snapshot() {
                    Ok(from) => {
                        self.snapshots.work(Job::Open { transfer, from });
                        Some(Input::SnapshotOpened { transfer, index })
                    }
                    Err(_) => Some(Input::SnapshotClosed { transfer }),
                }
            }
            Output::ReadChunk { transfer, len_max } => {
                self.snapshots.work(Job::ReadChunk { transfer, len_max })
            }
            Output::CloseSnapshot { transfer } => self.snapshots.work(Job::Close { transfer }),
            Output::SaveSnapshot { transfer, meta } => {
                let to = self.storage.snapshot_writer(&meta).ok();
                self.snapshots.work(Job::Save { transfer, meta, to })
            }
            Output::Stage { transfer, step: StageStep::Begin { meta } } => {
                let to = self.storage.snapshot_writer(&meta).ok();
                self.snapshots.work(Job::Begin { transfer, to })
            }
            Output::Stage { transfer, step } => self.snapshots.work(Job::Step { transfer, step }),
            told => {
                told.tell(&mut *self.observer);
                None
            }
        };
        answer.map_or(Ok(()), |input| self.handle(now, input))
    }
}

impl Output {
    /// Tells what is only news.
    pub(super) fn tell(self, observer: &mut dyn Observer) {
        match self {
            Output::ReadReady { tokens, index } => {
                observer.batch_begin();
                for token in tokens {
                    observer.event(Event::ReadReady { token, index });
                }
                observer.batch_end();
            }
            Output::Dropped { token, reason } => observer.event(Event::Dropped { token, reason }),
            Output::Leader { leader, term, is_self } => {
                observer.event(Event::Leader { leader, term, is_self });
            }
            Output::Membership(membership) => observer.event(Event::Membership { membership }),
            _ => {}
        }
    }
}
