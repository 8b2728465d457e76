//! The answer to an operation that the store is still carrying out.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::request::error::OperationError;
use crate::request::outcome::Outcome;
use crate::telemetry::AnswerTimer;

type Reply<O> = Result<O, OperationError>;

/// The answer to a submitted operation: a future for any runtime, or a blocking [`wait`](Pending::wait).
///
/// Dropping it discards the answer; the store still carries the operation out. `T` is the type of the answer,
/// `O` the type of the outcomes of the store that it comes from.
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
pub struct Pending<T, O = Outcome> {
    answer: Answer<O>,
    read: fn(O) -> Option<T>,
}

impl<T, O> Pending<T, O> {
    pub(crate) fn new(answer: Answer<O>, read: fn(O) -> Option<T>) -> Pending<T, O> {
        Pending { answer, read }
    }

    /// Blocks the calling thread until the answer arrives.
    ///
    /// # Errors
    /// The error of the operation.
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

    fn typed(&self, reply: Reply<O>) -> Result<T, OperationError> {
        // An outcome of another kind than the operation has comes from a member of another version.
        reply.and_then(|outcome| (self.read)(outcome).ok_or(OperationError::NotUnderstood))
    }
}

// Nothing in it is pinned.
impl<T, O> Unpin for Pending<T, O> {}

impl<T, O> Future for Pending<T, O> {
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
                    SlotState::Waiting(waker, timer) => {
                        let waker = match waker {
                            Some(waker) if waker.will_wake(cx.waker()) => waker,
                            _ => cx.waker().clone(),
                        };
                        *state = SlotState::Waiting(Some(waker), timer);
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

impl<T, O> fmt::Debug for Pending<T, O> {
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

/// An answer before it has its type: complete, or delivered later through a [`Completion`].
#[derive(Debug)]
pub(crate) enum Answer<O = Outcome> {
    Ready(Option<Reply<O>>),
    Waiting(Arc<Slot<O>>),
}

impl<O> Answer<O> {
    pub(crate) fn ready(reply: Reply<O>) -> Answer<O> {
        Answer::Ready(Some(reply))
    }

    /// Ends `timer` with the answer.
    pub(crate) fn timed(self, timer: AnswerTimer) -> Answer<O> {
        match &self {
            Answer::Ready(reply) => timer.end(reply.as_ref().and_then(|reply| reply.as_ref().err())),
            Answer::Waiting(slot) => match &mut *slot.lock() {
                SlotState::Waiting(_, place) => *place = timer,
                SlotState::Answered(reply) => timer.end(reply.as_ref().err()),
                SlotState::Taken => timer.end(None),
            },
        }
        self
    }

    /// The answer, if it is there.
    #[cfg_attr(not(feature = "sim"), allow(dead_code, reason = "for the simulator"))]
    pub(crate) fn try_take(&mut self) -> Option<Reply<O>> {
        let slot = match self {
            Answer::Ready(reply) => return reply.take(),
            Answer::Waiting(slot) => slot,
        };
        let mut state = slot.lock();
        match std::mem::replace(&mut *state, SlotState::Taken) {
            SlotState::Answered(reply) => Some(reply),
            before => {
                *state = before;
                None
            }
        }
    }

    pub(crate) fn waiting() -> (Completion<O>, Answer<O>) {
        let slot = Arc::new(Slot(Mutex::new(SlotState::Waiting(None, AnswerTimer::default()))));
        (Completion(Some(Arc::clone(&slot))), Answer::Waiting(slot))
    }
}

#[derive(Debug)]
pub(crate) struct Slot<O>(Mutex<SlotState<O>>);

impl<O> Slot<O> {
    fn lock(&self) -> MutexGuard<'_, SlotState<O>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum SlotState<O> {
    Waiting(Option<Waker>, AnswerTimer),
    Answered(Reply<O>),
    Taken,
}

/// The sending side of an [`Answer`]. Dropped without an answer, it answers [`OperationError::Closed`].
#[derive(Debug)]
pub(crate) struct Completion<O = Outcome>(Option<Arc<Slot<O>>>);

impl<O> Completion<O> {
    pub(crate) fn complete(mut self, reply: Reply<O>) {
        self.answer(reply);
    }

    fn answer(&mut self, reply: Reply<O>) {
        let Some(slot) = self.0.take() else { return };
        let mut state = slot.lock();
        if let SlotState::Waiting(_, timer) = &mut *state {
            std::mem::take(timer).end(reply.as_ref().err());
        }
        let before = std::mem::replace(&mut *state, SlotState::Answered(reply));
        drop(state);
        if let SlotState::Waiting(Some(waker), _) = before {
            waker.wake();
        }
    }
}

impl<O> Drop for Completion<O> {
    fn drop(&mut self) {
        self.answer(Err(OperationError::Closed));
    }
}
