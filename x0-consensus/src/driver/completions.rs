//! The way back from the threads of the workers to the event loop.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::apply_worker::ApplyWorker;
use super::job::Done;
use crate::state_machine::StateMachine;

/// The apply worker of a [`Pump`](super::Pump).
pub(super) type Applier = ApplyWorker<Box<dyn StateMachine>>;

/// Results that the event loop has not seen yet. It is woken once for all results that come before it looks.
#[derive(Debug, Default)]
pub(super) struct Completions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    done: Vec<Done>,
    /// The apply worker, back from its thread.
    applier: Option<Applier>,
    /// Set while the event loop sleeps.
    waker: Option<Waker>,
}

impl Completions {
    pub(super) fn put(&self, done: Done) {
        self.wake(|inner| inner.done.push(done));
    }

    pub(super) fn give_back(&self, applier: Applier) {
        self.wake(|inner| inner.applier = Some(applier));
    }

    fn wake(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Exchanges the results for `done`, which must be empty, and takes the worker if it is back. `false` if
    /// there is neither; only then the waker is kept.
    pub(super) fn take(&self, done: &mut Vec<Done>, applier: &mut Option<Applier>, waker: &Waker) -> bool {
        let mut inner = self.lock();
        if inner.done.is_empty() && inner.applier.is_none() {
            if !inner.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {
                inner.waker = Some(waker.clone());
            }
            return false;
        }
        std::mem::swap(&mut inner.done, done);
        if inner.applier.is_some() {
            *applier = inner.applier.take();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
