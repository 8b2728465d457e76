//! Digests of binaries that were hashed before.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The content of a file, as far as the file system tells: another content has another one. Only a program
/// that may set the clock of the system, or a file system that lies, gives two contents the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileVersion {
    device: u64,
    inode: u64,
    len: u64,
    /// In seconds and nanoseconds since 1970.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    pub(super) fn of(metadata: &Metadata) -> FileVersion {
        FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after `now` gives another version. A file that was changed just before may change
    /// again at the same time, because the clock of a file system ticks every few milliseconds, or seconds on
    /// some.
    fn is_settled(&self, now: SystemTime) -> bool {
        const TICK_MAX: Duration = Duration::from_secs(2);
        let seconds =
            now.checked_sub(TICK_MAX).and_then(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok());
        let seconds = seconds.and_then(|then| i64::try_from(then.as_secs()).ok());
        seconds.is_some_and(|seconds| self.changed.0 < seconds)
    }
}

/// The digests of the files that were hashed last.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// With the number of the last use.
    digests: BTreeMap<FileVersion, ([u8; 32], u64)>,
    uses: u64,
}

/// A machine has fewer programs that are workloads.
const DIGESTS_MAX: usize = 256;

impl Digests {
    /// The digest of a file that was hashed in this version.
    pub(super) fn get(&self, version: &FileVersion) -> Option<[u8; 32]> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { digests, uses } = &mut *known;
        let (digest, used) = digests.get_mut(version)?;
        *uses += 1;
        *used = *uses;
        Some(*digest)
    }

    /// Keeps the digest of a file, which had this version before and after it was hashed, from `begun` on.
    /// The one that was not used for longest makes room.
    pub(super) fn insert(&self, version: FileVersion, digest: [u8; 32], begun: SystemTime) {
        if !version.is_settled(begun) {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { digests, uses } = &mut *known;
        if digests.len() >= DIGESTS_MAX
            && !digests.contains_key(&version)
            && let Some(oldest) =
                digests.iter().min_by_key(|(_, (_, used))| *used).map(|(version, _)| *version)
        {
            digests.remove(&oldest);
        }
        *uses += 1;
        digests.insert(version, (digest, *uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: FileVersion =
        FileVersion { device: 1, inode: 2, len: 3, modified: (1000, 4), changed: (1000, 5) };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn each_field_makes_another_version() {
        let digests = Digests::default();
        digests.insert(VERSION, [7; 32], at(1010));
        assert_eq!(digests.get(&VERSION), Some([7; 32]));
        for other in [
            FileVersion { device: 9, ..VERSION },
            FileVersion { inode: 9, ..VERSION },
            FileVersion { len: 9, ..VERSION },
            FileVersion { modified: (1001, 4), ..VERSION },
            FileVersion { modified: (1000, 5), ..VERSION },
            FileVersion { changed: (1001, 5), ..VERSION },
            FileVersion { changed: (1000, 6), ..VERSION },
        ] {
            assert_eq!(digests.get(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_file_that_may_change_in_the_same_tick_is_hashed_again() {
        for (begun, kept) in [(0, false), (999, false), (1000, false), (1002, false), (1003, true)] {
            let digests = Digests::default();
            digests.insert(VERSION, [7; 32], at(begun));
            assert_eq!(digests.get(&VERSION).is_some(), kept, "{begun}");
        }
    }

    #[test]
    fn what_is_used_stays() {
        let digests = Digests::default();
        let of = |inode| FileVersion { inode, ..VERSION };
        for inode in 0..DIGESTS_MAX as u64 {
            digests.insert(of(inode), [0; 32], at(1010));
        }
        assert!(digests.get(&of(0)).is_some());
        // Again, which takes no room.
        digests.insert(of(2), [2; 32], at(1010));
        digests.insert(of(1_000_000), [1; 32], at(1010));
        let there = |inode| digests.get(&of(inode)).is_some();
        assert_eq!([there(0), there(1), there(2), there(1_000_000)], [true, false, true, true]);
        assert_eq!(digests.get(&of(2)), Some([2; 32]));
        assert_eq!(digests.0.lock().unwrap().digests.len(), DIGESTS_MAX);
    }
}
