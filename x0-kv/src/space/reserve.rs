//! The reserve on the disk of a node, and the status of its space.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Lack, Space, UNKNOWN};

/// The free space that is kept, unless set: the log may need two segments of 16 MiB, and a checkpoint some
/// more.
const RESERVE_LEN: u64 = 64 << 20;
/// How often the free space is asked.
const INTERVAL: Duration = Duration::from_millis(200);

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

impl Space {
    /// The space of a node that keeps a reserve.
    pub(crate) fn new(options: SpaceOptions) -> Space {
        Space::with_reserve(options.reserve_len)
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

    /// Takes a reading of the file system. What was refused for lack of space is accepted again with an
    /// eighth more than the reserve, so that the node does not change its mind with every file.
    pub(crate) fn measured(&self, free: u64) {
        self.0.free.store(free, Ordering::Release);
        let reserve = self.0.reserve_len;
        let needed = if self.has(Lack::Reserve) { reserve + reserve / 8 } else { reserve };
        self.set(Lack::Reserve, free < needed);
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
        // The thread is not joined: a file system that does not answer must not delay the end of the node.
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
