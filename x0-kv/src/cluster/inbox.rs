//! Inboxes of the services, and the waker of the event loop that all of them share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::request::error::OperationError;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the event loop. Clones wake the same one.
///
/// A burst of callers costs the event loop one wake-up: the waker is taken by the first of them and set again
/// only when the loop has found nothing more to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alarm(Arc<AlarmState>);

#[derive(Debug, Default)]
struct AlarmState {
    is_raised: AtomicBool,
    is_stopping: AtomicBool,
    /// Set while the event loop sleeps.
    waker: Mutex<Option<Waker>>,
}

impl Alarm {
    /// Makes the event loop look at its inboxes.
    pub(crate) fn raise(&self) {
        self.0.is_raised.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the event loop, if it sleeps.
    pub(super) fn wake(&self) {
        let waker = lock(&self.0.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Makes the event loop end.
    pub(crate) fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::SeqCst);
        self.raise();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Ordering::SeqCst)
    }

    /// Whether it was raised since this was asked last. The inboxes are to be read after this call, not
    /// before.
    pub(super) fn take(&self) -> bool {
        self.0.is_raised.swap(false, Ordering::SeqCst)
    }

    /// Sets the waker. Whether it was raised meanwhile, so that the event loop must not sleep.
    pub(super) fn sleep(&self, waker: &Waker) -> bool {
        let mut held = lock(&self.0.waker);
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
        drop(held);
        // A raise before the waker was set is seen here; a later one finds the waker.
        self.0.is_raised.load(Ordering::SeqCst)
    }
}

/// Values on their way from callers and threads to a service. Clones are the same inbox.
#[derive(Debug)]
pub(crate) struct Inbox<T>(Arc<InboxState<T>>);

#[derive(Debug)]
struct InboxState<T> {
    values: Mutex<Values<T>>,
    alarm: Alarm,
}

#[derive(Debug)]
struct Values<T> {
    waiting: Vec<T>,
    /// Why nothing is accepted any more.
    closed: Option<OperationError>,
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Inbox<T> {
        Inbox(Arc::clone(&self.0))
    }
}

impl<T> Inbox<T> {
    pub(crate) fn new(alarm: Alarm) -> Inbox<T> {
        Inbox(Arc::new(InboxState {
            values: Mutex::new(Values { waiting: Vec::new(), closed: None }),
            alarm,
        }))
    }

    /// Adds a value, unless the inbox is closed.
    pub(crate) fn put(&self, value: T) {
        // The value of a closed inbox is dropped, which answers a caller that waits for it.
        let _ = self.try_put(usize::MAX, || value);
    }

    /// Adds a value if fewer than `count_max` wait.
    pub(crate) fn try_put(&self, count_max: usize, value: impl FnOnce() -> T) -> Result<(), OperationError> {
        let mut values = lock(&self.0.values);
        if let Some(error) = &values.closed {
            return Err(error.clone());
        }
        if values.waiting.len() >= count_max {
            return Err(OperationError::Overloaded);
        }
        values.waiting.push(value());
        drop(values);
        self.0.alarm.raise();
        Ok(())
    }

    /// Exchanges the waiting values for `values`, which must be empty: its allocation is used again.
    pub(super) fn take(&self, values: &mut Vec<T>) {
        let mut held = lock(&self.0.values);
        if !held.waiting.is_empty() {
            std::mem::swap(&mut held.waiting, values);
        }
    }

    /// Drops the waiting values; later callers get `error`.
    pub(super) fn close(&self, error: &OperationError) {
        let waiting = {
            let mut values = lock(&self.0.values);
            values.closed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut values.waiting)
        };
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
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
    fn a_burst_wakes_the_event_loop_once() {
        let (count, alarm) = (Arc::new(Count::default()), Alarm::default());
        let waker = Waker::from(Arc::clone(&count));
        let inbox = Inbox::new(alarm.clone());
        assert!(!alarm.sleep(&waker));
        for number in 0..3 {
            inbox.put(number);
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(alarm.sleep(&waker), "a value waits, so the event loop must not sleep");
        assert!(alarm.take() && !alarm.take());
        let mut values = Vec::new();
        inbox.take(&mut values);
        assert_eq!(values, [0, 1, 2]);
        assert!(!alarm.sleep(&waker));
    }

    #[test]
    fn a_full_or_closed_inbox_refuses() {
        let inbox = Inbox::new(Alarm::default());
        assert_eq!(inbox.try_put(1, || 1), Ok(()));
        assert_eq!(inbox.try_put(1, || 2), Err(OperationError::Overloaded));
        inbox.close(&OperationError::Closed);
        assert_eq!(inbox.try_put(1, || 3), Err(OperationError::Closed));
    }
}
