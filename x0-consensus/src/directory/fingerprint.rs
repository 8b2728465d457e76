//! The identity of a folder or a file in its file system.

/// The properties that distinguish a folder or a file from its copies: a copy is created by itself, so that
/// it has another inode and another time of birth.
///
/// A copy of a whole disk or of a whole file system (`dd`, a snapshot of a volume, a clone of a virtual
/// machine) has the same inodes and times of birth, and no fingerprint detects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Fingerprint {
    /// The number of the device.
    pub device: u64,
    /// The number of the inode.
    pub inode: u64,
    /// The time of birth (`statx`), in ns since 1970; `None` where the file system does not record it.
    pub born_ns: Option<u64>,
}

impl Fingerprint {
    /// A fingerprint of these properties.
    #[must_use]
    pub fn new(device: u64, inode: u64, born_ns: Option<u64>) -> Fingerprint {
        Fingerprint { device, inode, born_ns }
    }

    /// Whether this is the object that had the fingerprint `recorded`.
    ///
    /// Inode and time of birth decide. The device decides only where one of the fingerprints has no time of
    /// birth: the numbers of devices depend on the order in which the kernel finds them, and change with a
    /// restart of the machine.
    #[must_use]
    pub fn is_same(&self, recorded: &Fingerprint) -> bool {
        let is_same_birth = match (self.born_ns, recorded.born_ns) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.device == recorded.device,
        };
        self.inode == recorded.inode && is_same_birth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_decides_only_without_a_time_of_birth() {
        let recorded = Fingerprint::new(1, 7, Some(100));
        assert!(Fingerprint::new(2, 7, Some(100)).is_same(&recorded), "devices are numbered at each start");
        assert!(!Fingerprint::new(1, 7, Some(101)).is_same(&recorded), "an inode is used again");
        assert!(!Fingerprint::new(1, 8, Some(100)).is_same(&recorded));
        let unborn = Fingerprint::new(1, 7, None);
        assert!(unborn.is_same(&recorded) && !Fingerprint::new(2, 7, None).is_same(&recorded));
    }
}
