//! An executor with its workers, for an event loop.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use x0_identity::NodeId;

use super::ended::Ended;
use super::executor::{Effect, Executor};
use super::start::OpenError;
use super::workers::ThreadWorkers;
use crate::options::Options;
use crate::replica::{HandleError, Input, Replica, Status};
use crate::state_machine::StateMachine;
use crate::storage::Storage;

/// An [`Executor`] with its [`ThreadWorkers`], for an event loop that polls it in its own task.
///
/// A pump needs no runtime: any `Context` will do, and the owner keeps the timer of
/// [`poll_timeout`](Pump::poll_timeout) together with its other timers. The contract is that of the executor,
/// without the jobs:
///
/// 1. Feed [`handle`](Pump::handle).
/// 2. Call [`poll_output`](Pump::poll_output) until it is pending. The task is woken when a worker has a
///    result.
/// 3. Feed [`Input::Timeout`] once [`poll_timeout`](Pump::poll_timeout) has come.
///
/// Dropping the pump ends the threads as if the process were killed, without losing anything that was
/// acknowledged; [`ended`](Pump::ended) waits until the storage and the state machine are closed.
#[derive(Debug)]
pub struct Pump {
    executor: Executor,
    workers: ThreadWorkers,
}

impl Pump {
    /// Recovers the storage and starts the log thread. `now` is the time of the owner's clock.
    ///
    /// # Errors
    /// When the storage cannot be recovered or read, does not fit the state machine, or the thread cannot be
    /// started. Nothing was changed.
    pub fn start(
        options: Options,
        mut storage: Box<dyn Storage>,
        machine: Box<dyn StateMachine>,
        now: Duration,
    ) -> Result<Pump, OpenError> {
        let executor = Executor::open(options, &mut *storage, &*machine, now)?;
        Ok(Pump { executor, workers: ThreadWorkers::start(storage, machine)? })
    }

    /// As [`Executor::handle`].
    ///
    /// # Errors
    /// As [`Executor::handle`].
    pub fn handle(&mut self, now: Duration, input: Input) -> Result<(), HandleError> {
        self.executor.handle(now, input)
    }

    /// As [`Executor::congested`].
    pub fn congested(&mut self, now: Duration, to: NodeId) {
        self.executor.congested(now, to);
    }

    /// The next effect. Pending when the pump waits for inputs, results or the time; the task is woken for
    /// results only.
    pub fn poll_output(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<Effect> {
        loop {
            if let Some(effect) = self.executor.poll_output() {
                return Poll::Ready(effect);
            }
            self.workers.take_jobs(&mut self.executor);
            let done = ready!(self.workers.poll_done(cx));
            self.executor.complete(now, done);
        }
    }

    /// When [`Input::Timeout`] is due. `None` after a failure.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.executor.poll_timeout()
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        self.executor.replica()
    }

    /// As [`Executor::is_failed`].
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.executor.is_failed()
    }

    /// As [`Executor::refresh`].
    pub fn refresh(&mut self, status: &mut Status) {
        self.executor.refresh(status);
    }

    /// Waits for the end of the pump: it has been dropped, its threads have stopped, and its storage and its
    /// state machine are closed.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.workers.ended()
    }
}
