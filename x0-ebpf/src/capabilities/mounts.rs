//! The file systems that this crate needs, read from the table of mounts (`/proc/self/mountinfo`, proc(5)).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A file system that a part of this crate needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FileSystem {
    /// bpffs: pinned programs, maps and links.
    Bpf,
    /// tracefs: descriptions of tracepoints.
    Tracefs,
    /// cgroup v2: attachment of socket programs.
    Cgroup2,
}

impl FileSystem {
    /// The command that mounts it at its usual place.
    #[must_use]
    pub const fn mount_command(self) -> &'static str {
        match self {
            Self::Bpf => "mount -t bpf bpf /sys/fs/bpf",
            Self::Tracefs => "mount -t tracefs tracefs /sys/kernel/tracing",
            Self::Cgroup2 => "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bpf => "bpffs",
            Self::Tracefs => "tracefs",
            Self::Cgroup2 => "cgroup2",
        })
    }
}

/// The mounts of these file systems. A line that cannot be parsed is skipped.
pub(super) fn parse(table: &str) -> Vec<(FileSystem, PathBuf)> {
    table.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw`: the fifth field, and the one
/// after the hyphen.
fn parse_line(line: &str) -> Option<(FileSystem, PathBuf)> {
    let (place, kind) = line.split_once(" - ")?;
    let kind = match kind.split(' ').next()? {
        "bpf" => FileSystem::Bpf,
        "tracefs" => FileSystem::Tracefs,
        "cgroup2" => FileSystem::Cgroup2,
        _ => return None,
    };
    Some((kind, unescape(place.split(' ').nth(4)?)))
}

/// Blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.first_chunk::<3>().filter(|_| first == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        bytes.push(octal.unwrap_or(first));
        rest = octal.map_or(tail, |_| tail.get(3..).unwrap_or(&[]));
    }
    PathBuf::from(OsString::from_vec(bytes))
}
