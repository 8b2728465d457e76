//! An answer that is on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::request::error::OperationError;
use crate::request::outcome::Outcome;

type Reply = Result<Outcome, OperationError>;

/// An operation that was handed to the store. Await it, in any runtime, or [`wait`](Pending::wait) for it.
///
/// The operation goes on whether or not anybody looks: dropping this forgets the answer, not the operation.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = x0_kv::Store::open_in_memory();
/// let first = store.put("a", "1"); // both are on their way
/// let second = store.put("b", "2");
/// assert!(first.wait()? < second.wait()?);
/// # Ok(())
/// # }
/// ```
#[must_use = "a write is done only when its answer says so"]
pub struct Pending<T> {
    answer: Answer,
    read: fn(Outcome) -> Option<T>,
}

impl<T> Pending<T> {
    pub(crate) fn new(answer: Answer, read: fn(Outcome) -> Option<T>) -> Pending<T> {
        Pending { answer, read }
    }

    /// Blocks the thread until the answer is there.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn wait(mut self) -> Result<T, OperationError> {
        thread_local! {
            static UNPARK: Waker = Arc::new(Unpark(std::thread::current())).into();
        }
        UNPARK.with(|waker| {
            let mut cx = Context::from_waker(waker);
            loop {
                match Pin::new(&mut self).poll(&mut cx) {
                    Poll::Ready(answer) => return answer,
                    Poll::Pending => std::thread::park(),
                }
            }
        })
    }

    fn typed(&self, reply: Reply) -> Result<T, OperationError> {
        // Another kind of outcome than asked for is an answer from a version that is not ours.
        reply.and_then(|outcome| (self.read)(outcome).ok_or(OperationError::NotUnderstood))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, OperationError>;

    /// # Panics
    /// When polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = match &mut self.answer {
            Answer::Ready(reply) => reply.take(),
            Answer::Waiting(slot) => {
                let mut state = slot.lock();
                match std::mem::replace(&mut *state, SlotState::Taken) {
                    SlotState::Answered(reply) => Some(reply),
                    SlotState::Waiting(waker) => {
                        let waker = match waker {
                            Some(waker) if waker.will_wake(cx.waker()) => waker,
                            _ => cx.waker().clone(),
                        };
                        *state = SlotState::Waiting(Some(waker));
                        return Poll::Pending;
                    }
                    SlotState::Taken => None,
                }
            }
        };
        #[expect(clippy::expect_used, reason = "the contract of Future allows a panic here")]
        let reply = reply.expect("a Pending was polled after it had been ready");
        Poll::Ready(self.typed(reply))
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An answer before it has its type: there already, or to come through a [`Completion`].
#[derive(Debug)]
pub(crate) enum Answer {
    Ready(Option<Reply>),
    Waiting(Arc<Slot>),
}

impl Answer {
    pub(crate) fn ready(reply: Reply) -> Answer {
        Answer::Ready(Some(reply))
    }

    pub(crate) fn waiting() -> (Completion, Answer) {
        let slot = Arc::new(Slot(Mutex::new(SlotState::Waiting(None))));
        (Completion(Some(Arc::clone(&slot))), Answer::Waiting(slot))
    }
}

#[derive(Debug)]
pub(crate) struct Slot(Mutex<SlotState>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum SlotState {
    Waiting(Option<Waker>),
    Answered(Reply),
    Taken,
}

/// Where the answer goes. Dropped without one, it answers that the store is closed.
#[derive(Debug)]
pub(crate) struct Completion(Option<Arc<Slot>>);

impl Completion {
    pub(crate) fn complete(mut self, reply: Reply) {
        self.answer(reply);
    }

    fn answer(&mut self, reply: Reply) {
        let Some(slot) = self.0.take() else { return };
        let before = std::mem::replace(&mut *slot.lock(), SlotState::Answered(reply));
        if let SlotState::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.answer(Err(OperationError::Closed));
    }
}
