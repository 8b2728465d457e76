//! A driver on one thread, without a runtime: for a group of one, for small devices, and where latency counts
//! more than overlap.
//!
//! ```
//! use std::sync::mpsc;
//! use x0_consensus::{Bytes, Options, Entry, Event, MemoryStorage, NodeId, Observer, SnapshotMeta, StateMachine, StateMachineError, local};
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
//! struct Forward(mpsc::Sender<Event>);
//!
//! impl Observer for Forward {
//!     fn event(&mut self, event: Event) {
//!         // The receiver is gone when the program ends.
//!         let _ = self.0.send(event);
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let id = NodeId::new(1).ok_or("zero")?;
//! let (sender, events) = mpsc::channel();
//! let options = Options::new(id).bootstrap([id]);
//! let replica = local::start(options, MemoryStorage::new(), Count(0), (), Forward(sender))?;
//! replica.propose(7, Bytes::from("four"));
//! let outcome = events.iter().find_map(|event| match event {
//!     Event::Outcome { token: 7, outcome, .. } => Some(outcome),
//!     _ => None,
//! });
//! assert_eq!(outcome.ok_or("the replica stopped")?, 4_u64.to_le_bytes().as_slice());
//! replica.stop();
//! replica.wait_ended();
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::apply_worker::ApplyWorker;
use super::delivery::Delivery;
use super::ended::Ended;
use super::event::Observer;
use super::executor::Executor;
use super::handle::{Handle, Shared, Taken};
use super::log_worker::LogWorker;
use super::outbox::Outbox;
use super::snapshot_worker::SnapshotWorker;
use super::start::OpenError;
use crate::options::Options;
use crate::replica::Input;
use crate::state_machine::StateMachine;
use crate::storage::Storage;

/// The thread's name.
const THREAD: &str = "x0-consensus";

/// Starts a replica on a thread of its own. Proposals that come while the log is being written are written
/// together with the next write.
///
/// # Errors
/// When the storage cannot be recovered or read, does not fit the state machine, or the thread cannot be
/// started. Nothing was changed.
pub fn start(
    options: Options,
    mut storage: impl Storage + 'static,
    machine: impl StateMachine + 'static,
    outbox: impl Outbox + 'static,
    observer: impl Observer + 'static,
) -> Result<Handle, OpenError> {
    let executor = Executor::open(options, &mut storage, &machine, Duration::ZERO)?;
    let (ended, guard) = Ended::new();
    let shared = Arc::new(Shared::new(executor.replica().status()));
    let local = Local {
        shared: Arc::clone(&shared),
        executor,
        log: LogWorker::new(storage),
        apply: ApplyWorker::new(machine),
        snapshots: SnapshotWorker::new(),
        delivery: Delivery::new(outbox, observer),
        origin: Instant::now(),
    };
    let run = move || {
        local.run();
        drop(guard);
    };
    match thread::Builder::new().name(THREAD.into()).spawn(run) {
        Ok(_) => Ok(Handle { shared, ended }),
        Err(source) => Err(OpenError::Thread { thread: THREAD, source }),
    }
}

struct ThreadWaker(Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Local<S, M> {
    shared: Arc<Shared>,
    executor: Executor,
    log: LogWorker<S>,
    apply: ApplyWorker<M>,
    snapshots: SnapshotWorker,
    delivery: Delivery,
    origin: Instant,
}

impl<S: Storage, M: StateMachine> Local<S, M> {
    fn run(mut self) {
        let waker = Waker::from(Arc::new(ThreadWaker(thread::current())));
        let mut inputs = Vec::new();
        loop {
            self.drain(self.origin.elapsed());
            self.shared.with_status(|status| self.executor.refresh(status));
            if self.executor.is_failed() {
                break;
            }
            match self.shared.take(&mut inputs, &waker) {
                Taken::Stop => break,
                Taken::Inputs => {
                    let now = self.origin.elapsed();
                    for input in inputs.drain(..) {
                        self.handle(now, input);
                    }
                }
                Taken::Nothing => self.sleep(),
            }
            let now = self.origin.elapsed();
            if self.executor.poll_timeout().is_some_and(|due| due <= now) {
                self.handle(now, Input::Timeout);
            }
        }
        self.shared.close();
    }

    fn sleep(&self) {
        match self.executor.poll_timeout() {
            Some(due) => thread::park_timeout(due.saturating_sub(self.origin.elapsed())),
            None => thread::park(),
        }
    }

    fn handle(&mut self, now: Duration, input: Input) {
        // A message that is refused is dropped; a failure is the executor's last event.
        let _ = self.executor.handle(now, input);
    }

    /// Carries out everything. The log is written last, so that all writes of one round share one
    /// synchronisation.
    fn drain(&mut self, now: Duration) {
        loop {
            while let Some(effect) = self.executor.poll_output() {
                if let Err(to) = self.delivery.deliver(effect) {
                    self.executor.congested(now, to);
                }
            }
            self.delivery.flush();
            let done = if let Some(job) = self.executor.apply_jobs().pop_front() {
                self.apply.work(job)
            } else if let Some(job) = self.executor.snapshot_jobs().pop_front() {
                self.snapshots.work(job)
            } else if let Some(done) = self.log.work(self.executor.log_jobs()) {
                done
            } else {
                return;
            };
            self.executor.complete(now, done);
        }
    }
}
