//! The disk without load: the time of a small write followed by fdatasync.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::statistics::Histogram;

const WRITE_LEN: usize = 4096;
const WRITES_IN_FILE: u64 = 256;

/// The file of the probe, written before the first measurement so that no probe includes allocation.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    next: u64,
}

/// Times of one probe, or of several merged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fsync {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Disk {
    /// Creates the probe file in `folder`, which must be on a real disk: an fsync of a memory file system is
    /// meaningless.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let folder = folder.canonicalize().with_context(|| format!("{}", folder.display()))?;
        if let Some(kind @ ("tmpfs" | "ramfs" | "devtmpfs")) = file_system(&mounts, &folder) {
            bail!(
                "{} is on {kind}, where fsync costs nothing: choose a folder on a disk with --folder",
                folder.display()
            );
        }
        let file =
            tempfile::tempfile_in(&folder).with_context(|| format!("no file in {}", folder.display()))?;
        for block in 0..WRITES_IN_FILE {
            file.write_all_at(&[0; WRITE_LEN], block * WRITE_LEN as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, next: 0 })
    }

    /// Writes and syncs `count` times; the times are nanoseconds.
    pub(crate) fn probe(&mut self, count: usize) -> Result<Vec<u64>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            self.next += 1;
            let block = [u8::try_from(self.next & 0xff).unwrap_or(0); WRITE_LEN];
            let begin = Instant::now();
            self.file.write_all_at(&block, self.next % WRITES_IN_FILE * WRITE_LEN as u64)?;
            self.file.sync_data()?;
            times.push(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(times)
    }
}

impl Fsync {
    /// `None` when there are no times.
    pub(crate) fn of(times: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut histogram = Histogram::new();
        times.into_iter().for_each(|time| histogram.record(time));
        let milliseconds = |share| histogram.percentile(share).map(|time| time as f64 / 1e6);
        Some(Self { p50_ms: milliseconds(0.5)?, p99_ms: milliseconds(0.99)? })
    }
}

/// The type of the file system that holds `path`: of the mount with the longest matching prefix, and of those
/// the last.
fn file_system<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mount = |line: &'a str| {
        let mut fields = line.split(' ');
        Some((fields.nth(1)?, fields.next()?))
    };
    let holding = mounts.lines().filter_map(mount).filter(|(at, _)| path.starts_with(at));
    holding.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_decides() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/disk xfs rw 0 0\n";
        for (path, expect) in
            [("/var/tmp", "ext4"), ("/tmp/x", "tmpfs"), ("/tmp/disk/x", "xfs"), ("/tmpx", "ext4")]
        {
            assert_eq!(file_system(mounts, Path::new(path)), Some(expect), "{path}");
        }
    }

    #[test]
    fn a_later_mount_hides_an_earlier_one() {
        assert_eq!(file_system("a /t ext4 rw\nb /t tmpfs rw\n", Path::new("/t/x")), Some("tmpfs"));
    }

    #[test]
    fn a_sick_tail_shows() {
        let times = (0..100).map(|n| if n < 97 { 300_000 } else { 20_000_000 });
        let fsync = Fsync::of(times).unwrap();
        assert!((fsync.p50_ms - 0.3).abs() < 0.01 && fsync.p99_ms > 19.0, "{fsync:?}");
        assert_eq!(Fsync::of([]), None);
    }
}
