//! Space on the disk of a node.
//!
//! A reserve is kept free for what was acknowledged or proposed before: entries of the log, checkpoints,
//! records of the journal. When less than the reserve is free, the node refuses writes. The free space is
//! asked from the file system (`statvfs`) a few times per second. A file that is allocated in advance would
//! not do: the first writer would take its space, it would have to be made again while space is short,
//! and other processes use the disk, too.
//!
//! `statvfs` does not know the quota of a user, and between two readings more than the reserve may be
//! written. Then a write fails for lack of space. The log, the checkpoints and the journal of the CRDT store
//! each wait for space without a loss, and report that here.

#[cfg(feature = "mesh")]
mod reserve;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

#[cfg(feature = "mesh")]
pub use self::reserve::{SpaceOptions, SpaceStatus};

/// The time after which a write that found no space is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The free space is not known.
const UNKNOWN: u64 = u64::MAX;

/// A condition of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lack {
    /// Less than the reserve is free.
    Reserve = 1,
    /// The log waits for space.
    Log = 2,
    /// A checkpoint waits for space.
    Checkpoint = 4,
    /// The journal waits for space.
    Journal = 8,
}

/// The space of one node, shared by all who need it. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Space(Arc<Inner>);

struct Inner {
    reserve_len: u64,
    free: AtomicU64,
    lacks: AtomicU8,
    is_stopping: Mutex<bool>,
    stopped: Condvar,
    /// Called after each change of a condition.
    notify: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("reserve_len", &self.reserve_len).finish_non_exhaustive()
    }
}

impl Default for Space {
    /// Space that nobody measures: only writes that fail say that there is none.
    fn default() -> Space {
        Space::with_reserve(0)
    }
}

impl Space {
    fn with_reserve(reserve_len: u64) -> Space {
        Space(Arc::new(Inner {
            reserve_len,
            free: AtomicU64::new(UNKNOWN),
            lacks: AtomicU8::new(0),
            is_stopping: Mutex::new(false),
            stopped: Condvar::new(),
            notify: OnceLock::new(),
        }))
    }

    /// Sets the function that is called after each change, from any thread.
    pub(crate) fn on_change(&self, notify: impl Fn() + Send + Sync + 'static) {
        // There is one node.
        let _ = self.0.notify.set(Box::new(notify));
    }

    pub(crate) fn has(&self, lack: Lack) -> bool {
        self.0.lacks.load(Ordering::Acquire) & lack as u8 != 0
    }

    /// Whether the free space is known.
    #[cfg_attr(not(feature = "crdt"), allow(dead_code, reason = "for the journal"))]
    pub(crate) fn is_measured(&self) -> bool {
        self.0.free.load(Ordering::Acquire) != UNKNOWN
    }

    /// Notes that a condition holds, or does not hold any more.
    pub(crate) fn set(&self, lack: Lack, holds: bool) {
        let before = if holds {
            self.0.lacks.fetch_or(lack as u8, Ordering::AcqRel)
        } else {
            self.0.lacks.fetch_and(!(lack as u8), Ordering::AcqRel)
        };
        if (before & lack as u8 != 0) != holds {
            self.notify();
        }
    }

    /// Wakes the node, which looks at what has changed.
    pub(crate) fn notify(&self) {
        if let Some(notify) = self.0.notify.get() {
            notify();
        }
    }

    /// Waits until a write that found no space should be repeated. `false` if the node stops.
    pub(crate) fn wait(&self) -> bool {
        !self.sleep(RETRY_AFTER)
    }

    /// Sleeps, unless the node stops: then `true`, at once.
    fn sleep(&self, time: Duration) -> bool {
        let stopping = self.0.stopped.wait_timeout_while(self.lock(), time, |is_stopping| !*is_stopping);
        *stopping.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends every wait: the node stops.
    pub(crate) fn stop(&self) {
        *self.lock() = true;
        self.0.stopped.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // Nothing that can panic runs under the lock.
        self.0.is_stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error says that the disk or the quota is full.
#[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "the log has a function of its own"))]
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_stop_ends_a_wait() {
        let space = Space::default();
        assert!(space.wait(), "it is time to try again");
        space.stop();
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(!space.wait());
        }
        assert!(begun.elapsed() < RETRY_AFTER * 50);
    }
}
