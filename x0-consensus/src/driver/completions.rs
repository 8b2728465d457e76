//! The way back from the threads of the workers to the event loop.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::job::Done;

/// Results that the event loop has not seen yet. It is woken once for all results that come before it looks.
#[derive(Debug, Default)]
pub(super) struct Completions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    done: Vec<Done>,
    /// Set while the event loop sleeps.
    waker: Option<Waker>,
}

impl Completions {
    pub(super) fn put(&self, done: Done) {
        let mut inner = self.lock();
        inner.done.push(done);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Exchanges the results for `done`, which must be empty: its allocation is used again. `false` if there
    /// is none; only then the waker is kept.
    pub(super) fn take(&self, done: &mut Vec<Done>, waker: &Waker) -> bool {
        let mut inner = self.lock();
        if inner.done.is_empty() {
            if !inner.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {
                inner.waker = Some(waker.clone());
            }
            return false;
        }
        std::mem::swap(&mut inner.done, done);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
