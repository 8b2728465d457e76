//! Watches: which keys of a keyspace changed.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;

use crate::request::keyspace::KeyspaceName;
use crate::telemetry::WatchTelemetry;

/// Most keys that a watch holds for its owner. When more have changed, it only sets [`Changes::is_cut`].
pub const WATCH_KEYS_MAX: usize = 4096;

/// The changes since the watch was last read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Changes {
    /// The keys that were written or removed, by any client of any member. Read them to see their current
    /// values.
    pub keys: BTreeSet<Bytes>,
    /// More keys changed than are held, or the whole keyspace was replaced or dropped: read the whole range
    /// again.
    pub is_cut: bool,
}

/// Reports which keys changed on the node at hand. Returned by [`Keyspace::watch`](crate::Keyspace::watch).
///
/// Several changes of one key between two reads are reported once, so that no writer ever waits for a watch.
/// No change is missed. Dropping the watch ends it.
pub struct Watch {
    slot: Arc<Slot>,
}

impl Watch {
    /// Waits for changes. `None` when the store is closed.
    pub async fn next(&mut self) -> Option<Changes> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The poll function of [`next`](Self::next).
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

    /// Blocks the calling thread until there are changes. `None` when the store is closed.
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
    /// The qualified prefix: keyspace and key.
    prefix: Vec<u8>,
    /// How many bytes of it are the keyspace.
    qualifier_len: usize,
    seen: Mutex<Seen>,
    _counted: WatchTelemetry,
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

/// The watches of one store. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether there may be any, so that a write without a watch costs one load.
    any: AtomicBool,
    watches: Mutex<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    slots: Vec<Weak<Slot>>,
    is_closed: bool,
}

impl Watchers {
    /// Watches the keys of `keyspace` that begin with `prefix`, from now on.
    pub(crate) fn watch(&self, keyspace: &KeyspaceName, prefix: &[u8]) -> Watch {
        let (prefix, qualifier_len) = (keyspace.qualify(prefix), keyspace.qualifier_len());
        let slot =
            Arc::new(Slot { prefix, qualifier_len, seen: Mutex::default(), _counted: WatchTelemetry::new() });
        let mut watches = self.lock();
        slot.lock().is_closed = watches.is_closed;
        watches.slots.retain(|slot| slot.strong_count() > 0);
        watches.slots.push(Arc::downgrade(&slot));
        self.0.any.store(true, Ordering::Release);
        Watch { slot }
    }

    /// Whether there are no watches.
    pub(crate) fn is_empty(&self) -> bool {
        !self.0.any.load(Ordering::Acquire)
    }

    /// Reports that these [qualified](KeyspaceName::qualify) keys changed.
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
                let key = &key[slot.qualifier_len..];
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

    /// Reports that any key of `keyspace`, or of every keyspace, may have changed.
    pub(crate) fn replaced(&self, keyspace: Option<&KeyspaceName>) {
        let qualifier = keyspace.map(|keyspace| keyspace.qualify(&[])).unwrap_or_default();
        let slots = self.lock();
        let slots = slots.slots.iter().filter_map(Weak::upgrade);
        for slot in slots.filter(|slot| slot.prefix.starts_with(&qualifier)) {
            let mut seen = slot.lock();
            seen.changes.is_cut = true;
            if let Some(waker) = seen.waker.take() {
                waker.wake();
            }
        }
    }

    /// Ends all watches: nothing will change any more.
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
