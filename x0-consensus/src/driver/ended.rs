//! The end of a driver.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Waits until a driver has ended: its threads have stopped and its storage is closed.
#[derive(Debug, Clone)]
pub struct Ended(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    condition: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    wakers: Vec<Waker>,
}

impl Ended {
    /// The two sides: the driver has ended when the last clone of the guard is dropped.
    pub(super) fn new() -> (Ended, EndGuard) {
        let shared = Arc::new(Shared::default());
        (Ended(Arc::clone(&shared)), EndGuard(Arc::new(Guard(shared))))
    }

    /// Waits for the end. Blocks the thread.
    pub fn wait(&self) {
        let mut state = self.0.lock();
        while !state.ended {
            state = self.0.condition.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the end, under any runtime.
    pub async fn ended(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.ended {
                return Poll::Ready(());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by everything that has to be gone before a driver has ended.
#[derive(Debug, Clone)]
pub(super) struct EndGuard(#[expect(dead_code, reason = "held for its drop")] Arc<Guard>);

#[derive(Debug)]
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.0.condition.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}
