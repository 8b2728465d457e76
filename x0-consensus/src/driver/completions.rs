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
    /// A durable write wakes nobody: see [`Executor::can_wait_for_log`](super::Executor::can_wait_for_log).
    can_wait_for_log: bool,
}

impl Completions {
    pub(super) fn put(&self, done: Done) {
        let mut inner = self.lock();
        let is_patient = inner.can_wait_for_log && matches!(done, Done::Persisted { .. });
        inner.done.push(done);
        let waker = if is_patient { None } else { inner.waker.take() };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Exchanges the results for `done`, which must be empty: its allocation is used again. `false` if there
    /// is none; only then the waker is kept. With `can_wait_for_log` it is not called for durable writes.
    pub(super) fn take(&self, done: &mut Vec<Done>, waker: &Waker, can_wait_for_log: bool) -> bool {
        let mut inner = self.lock();
        if inner.done.is_empty() {
            inner.can_wait_for_log = can_wait_for_log;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_durable_write_wakes_unless_it_can_wait() {
        let (count, completions) = (Arc::new(Count::default()), Completions::default());
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::SeqCst);
        let mut taken = Vec::new();
        assert!(!completions.take(&mut taken, &waker, false));
        completions.put(Done::Persisted { number: 1 });
        assert_eq!(woken(), 1);
        assert!(completions.take(&mut taken, &waker, false));
        taken.clear();
        assert!(!completions.take(&mut taken, &waker, true));
        completions.put(Done::Persisted { number: 2 });
        assert_eq!(woken(), 1, "the write waits for the next input");
        completions.put(Done::Applied { index: 2, events: Vec::new() });
        assert_eq!(woken(), 2, "other results do not wait");
        assert!(completions.take(&mut taken, &waker, true));
        assert_eq!(taken.len(), 2);
    }

    /// The write becomes durable just before the event loop finds out that it cannot wait for it.
    #[test]
    fn a_write_that_cannot_wait_any_more_is_not_overlooked() {
        let completions = Completions::default();
        let mut taken = Vec::new();
        assert!(!completions.take(&mut taken, Waker::noop(), true));
        completions.put(Done::Persisted { number: 1 });
        assert!(completions.take(&mut taken, Waker::noop(), false));
    }
}
