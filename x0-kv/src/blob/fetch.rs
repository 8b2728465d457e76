//! A blob that is on its way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::BlobWriteError;

/// Why a blob was not fetched. What was kept of it stays, and is not fetched again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The reference is wrong about the length: the name proves another.
    #[error("the blob is {actual} bytes long, the reference says {stated}: get a right reference")]
    Length {
        /// The length in the reference, in bytes.
        stated: u64,
        /// The length of the blob, in bytes.
        actual: u64,
    },
    /// The blob could not be written to the folder.
    #[error("the blob cannot be kept: {0}")]
    Storage(Arc<BlobWriteError>),
    /// Too many are being fetched.
    #[error("too many blobs are being fetched: wait for one of them")]
    TooMany,
    /// There is no peer to fetch the blob from: the store is embedded.
    #[error("there is nobody to fetch the blob from: only a node of a cluster has others to ask")]
    Alone,
    /// The blob was removed meanwhile.
    #[error("the blob was removed while it was being fetched")]
    Removed,
    /// The store has stopped.
    #[error("the store is closed")]
    Closed,
}

/// How far a blob has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes held.
    pub held_bytes: u64,
    /// Bytes that it has.
    pub total_bytes: u64,
}

/// A blob that is being fetched: await it, in any runtime, or [`wait`](Fetch::wait) for it.
///
/// The fetch lasts until the blob is whole, however long no member that holds the blob can be reached.
/// Dropping it ends the fetch, unless another caller waits for the same blob; chunks that were kept stay, and
/// the next fetch continues from there.
#[must_use = "a fetch ends when it is dropped"]
pub struct Fetch {
    pub(super) waiting: Arc<Waiting>,
    pub(super) on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

/// The state that the driver and a waiting caller share.
pub(crate) struct Waiting {
    state: Mutex<State>,
    done: Condvar,
    held: AtomicU64,
    total: u64,
}

#[derive(Default)]
struct State {
    result: Option<Result<(), FetchError>>,
    waker: Option<Waker>,
}

impl Waiting {
    pub(super) fn new(held: u64, total: u64) -> Arc<Waiting> {
        Arc::new(Waiting { state: Mutex::default(), done: Condvar::new(), held: held.into(), total })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self, held: u64) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(super) fn end(&self, result: Result<(), FetchError>) {
        if result.is_ok() {
            self.progress(self.total);
        }
        let mut state = self.lock();
        state.result.get_or_insert(result);
        let waker = state.waker.take();
        drop(state);
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Fetch {
    pub(super) fn ended(held: u64, total: u64, result: Result<(), FetchError>) -> Fetch {
        let waiting = Waiting::new(held, total);
        waiting.end(result);
        Fetch { waiting, on_drop: None }
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { held_bytes: self.waiting.held.load(Ordering::Relaxed), total_bytes: self.waiting.total }
    }

    /// Blocks the thread until the blob is whole.
    ///
    /// # Errors
    /// Those of [`FetchError`].
    pub fn wait(self) -> Result<(), FetchError> {
        let mut state = self.waiting.lock();
        loop {
            if let Some(result) = &state.result {
                return result.clone();
            }
            state = self.waiting.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for Fetch {
    type Output = Result<(), FetchError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.waiting.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        if !state.waker.as_ref().is_some_and(|held| held.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
