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

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The free space that is kept, unless set: the log may need two segments of 16 MiB, and a checkpoint some
/// more.
const RESERVE_LEN: u64 = 64 << 20;
/// How often the free space is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// The time after which a write that found no space is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The free space is not known.
const UNKNOWN: u64 = u64::MAX;

/// The settings of the reserve on the disk of a node.
///
/// ```
/// use x0_kv::cluster::SpaceOptions;
///
/// let space = SpaceOptions::default().reserve_len(256 << 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceOptions {
    /// The bytes that are kept free on the disk of the folder: with less the node refuses writes. 64 MiB by
    /// default; 0 turns the check off, and writes are refused when the disk is full.
    pub reserve_len: u64,
}

impl Default for SpaceOptions {
    fn default() -> SpaceOptions {
        SpaceOptions { reserve_len: RESERVE_LEN }
    }
}

impl SpaceOptions {
    /// Sets [`reserve_len`](SpaceOptions::reserve_len), in bytes.
    #[must_use]
    pub fn reserve_len(mut self, reserve_len: u64) -> SpaceOptions {
        self.reserve_len = reserve_len;
        self
    }
}

/// The space on the disk of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SpaceStatus {
    /// Bytes that are free on the disk of the folder, or `None` if the system does not say.
    pub free: Option<u64>,
    /// Bytes that are kept free.
    pub reserve: u64,
    /// Less than the reserve is free. The node refuses writes.
    pub is_low: bool,
    /// The log waits for space: the node acknowledges nothing. The node refuses writes.
    pub log_waits: bool,
    /// A checkpoint of the storage engine waits for space. The node refuses writes.
    pub checkpoint_waits: bool,
    /// The journal of the CRDT store waits for space. The node refuses writes to that store.
    pub journal_waits: bool,
}

impl SpaceStatus {
    /// Whether the node refuses writes to the linearizable store.
    #[must_use]
    pub fn refuses_writes(&self) -> bool {
        self.is_low || self.log_waits || self.checkpoint_waits
    }

    /// Whether the node refuses any writes.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.refuses_writes() || self.journal_waits
    }
}

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
        Space::new(SpaceOptions::default().reserve_len(0))
    }
}

impl Space {
    pub(crate) fn new(options: SpaceOptions) -> Space {
        Space(Arc::new(Inner {
            reserve_len: options.reserve_len,
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

    pub(crate) fn status(&self) -> SpaceStatus {
        let free = self.0.free.load(Ordering::Acquire);
        let has = |lack| self.has(lack);
        SpaceStatus {
            free: (free != UNKNOWN).then_some(free),
            reserve: self.0.reserve_len,
            is_low: has(Lack::Reserve),
            log_waits: has(Lack::Log),
            checkpoint_waits: has(Lack::Checkpoint),
            journal_waits: has(Lack::Journal),
        }
    }

    pub(crate) fn has(&self, lack: Lack) -> bool {
        self.0.lacks.load(Ordering::Acquire) & lack as u8 != 0
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

    /// Takes a reading of the file system. What was refused for lack of space is accepted again with an
    /// eighth more than the reserve, so that the node does not change its mind with every file.
    pub(crate) fn measured(&self, free: u64) {
        self.0.free.store(free, Ordering::Release);
        let reserve = self.0.reserve_len;
        let needed = if self.has(Lack::Reserve) { reserve + reserve / 8 } else { reserve };
        self.set(Lack::Reserve, free < needed);
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

    /// Measures the space on the disk of `folder` now and, on a thread that ends with [`stop`](Space::stop),
    /// from now on.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn watch(&self, folder: &Path) -> std::io::Result<()> {
        let Some(free) = free_len(folder).filter(|_| self.0.reserve_len > 0) else { return Ok(()) };
        self.measured(free);
        let (space, folder) = (self.clone(), folder.to_owned());
        // Nobody waits for it: a file system that does not answer must not delay the end of the node.
        let watch = move || {
            // Without another handle the node did not start.
            while !space.sleep(INTERVAL) && Arc::strong_count(&space.0) > 1 {
                if let Some(free) = free_len(&folder) {
                    space.measured(free);
                }
            }
        };
        std::thread::Builder::new().name("x0-kv space".into()).spawn(watch).map(drop)
    }
}

/// Whether an error says that the disk or the quota is full.
#[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "the log has a function of its own"))]
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// The bytes that this process may still write on the file system of `folder`, if the system says.
#[cfg(unix)]
fn free_len(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Without a safe way to ask, only writes that fail say that there is no space.
#[cfg(not(unix))]
fn free_len(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_reserve_is_left_with_a_margin() {
        let space = Space::new(SpaceOptions::default().reserve_len(800));
        let changes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&changes);
        space.on_change(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let mut refused = Vec::new();
        for free in [800, 799, 800, 899, 900, 800, 0] {
            space.measured(free);
            refused.push(space.status().refuses_writes());
        }
        assert_eq!(refused, [false, true, true, true, false, false, true]);
        assert_eq!(changes.load(Ordering::SeqCst), 3);
        assert_eq!(space.status().free, Some(0));
    }

    #[test]
    fn each_part_reports_for_itself() {
        let space = Space::default();
        assert_eq!(space.status(), SpaceStatus::default());
        space.set(Lack::Journal, true);
        assert!(space.status().is_short() && !space.status().refuses_writes());
        for lack in [Lack::Log, Lack::Checkpoint] {
            space.set(lack, true);
            assert!(space.status().refuses_writes());
            space.set(lack, false);
            assert!(!space.status().refuses_writes());
        }
    }

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

    #[test]
    #[cfg(unix)]
    fn the_disk_of_a_folder_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::new(SpaceOptions::default().reserve_len(u64::MAX / 2));
        space.watch(folder.path()).unwrap();
        assert!(space.status().free.is_some() && space.status().is_low);
        space.stop();
        let space = Space::new(SpaceOptions::default().reserve_len(0));
        space.watch(folder.path()).unwrap();
        assert_eq!(space.status().free, None, "the check is turned off");
    }
}
