//! Watching keys.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

/// Most keys that a watch holds for its owner; when more have changed it only says so.
pub const WATCH_KEYS_MAX: usize = 4096;

/// What changed since it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Changes {
    /// The keys that were written or removed, by whomever. Read them to see what they hold now.
    pub keys: BTreeSet<Bytes>,
    /// Others changed as well, more than are held: read the whole range again.
    pub is_cut: bool,
}

/// Tells which keys changed, on the node at hand: what [`Store::watch`](crate::Store::watch) returns.
///
/// Changes of one key that come faster than they are asked for are told once, so that no writer ever waits for a watch, and none is
/// missed. Dropped it is gone.
pub struct Watch {
    slot: Arc<Slot>,
}

impl Watch {
    /// Waits for changes. `None` when the store is closed.
    pub async fn next(&mut self) -> Option<Changes> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), to be polled.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Changes>> {
        let mut seen = self.slot.lock();
        if seen.changes != Changes::default() {
            return Poll::Ready(Some(std::mem::take(&mut seen.changes)));
        }
        if seen.is_closed {
            return Poll::Ready(None);
        }
        seen.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// As [`next`](Self::next), blocking the thread.
    pub fn wait(&mut self) -> Option<Changes> {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            match self.poll_next(&mut cx) {
                Poll::Ready(changes) => return changes,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("prefix", &self.slot.prefix).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Slot {
    prefix: Bytes,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    changes: Changes,
    waker: Option<Waker>,
    is_closed: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nothing that can panic runs under the lock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everybody who watches one keyspace. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether there may be any, so that a write without a watch costs one look.
    any: AtomicBool,
    watches: Mutex<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    slots: Vec<Weak<Slot>>,
    is_closed: bool,
}

impl Watchers {
    /// Watches the keys that begin with `prefix`, from now on.
    pub(crate) fn watch(&self, prefix: Bytes) -> Watch {
        let slot = Arc::new(Slot { prefix, seen: Mutex::default() });
        let mut watches = self.lock();
        slot.lock().is_closed = watches.is_closed;
        watches.slots.retain(|slot| slot.strong_count() > 0);
        watches.slots.push(Arc::downgrade(&slot));
        self.0.any.store(true, Ordering::Release);
        Watch { slot }
    }

    /// Whether nobody watches.
    pub(crate) fn is_empty(&self) -> bool {
        !self.0.any.load(Ordering::Acquire)
    }

    /// Tells that these keys changed.
    pub(crate) fn changed(&self, keys: &[impl AsRef<[u8]>]) {
        if self.is_empty() {
            return;
        }
        let mut watches = self.lock();
        watches.slots.retain(|slot| {
            let Some(slot) = slot.upgrade() else { return false };
            let mut seen = slot.lock();
            let mut is_news = false;
            for key in keys.iter().map(AsRef::as_ref).filter(|key| key.starts_with(&slot.prefix)) {
                is_news = true;
                if seen.changes.keys.len() < WATCH_KEYS_MAX || seen.changes.keys.contains(key) {
                    seen.changes.keys.insert(Bytes::copy_from_slice(key));
                } else {
                    seen.changes.is_cut = true;
                }
            }
            if is_news && let Some(waker) = seen.waker.take() {
                waker.wake();
            }
            true
        });
        if watches.slots.is_empty() {
            self.0.any.store(false, Ordering::Release);
        }
    }

    /// Tells that anything may have changed.
    pub(crate) fn replaced(&self) {
        for slot in self.lock().slots.iter().filter_map(Weak::upgrade) {
            let mut seen = slot.lock();
            seen.changes.is_cut = true;
            if let Some(waker) = seen.waker.take() {
                waker.wake();
            }
        }
    }

    /// Tells that nothing will change any more.
    pub(crate) fn close(&self) {
        let mut watches = self.lock();
        watches.is_closed = true;
        for slot in watches.slots.iter().filter_map(Weak::upgrade) {
            let mut seen = slot.lock();
            seen.is_closed = true;
            if let Some(waker) = seen.waker.take() {
                waker.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        // Nothing that can panic runs under the lock.
        self.0.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
