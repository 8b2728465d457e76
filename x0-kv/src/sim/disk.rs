//! A node's disk.

use std::io;
use std::sync::Arc;

use x0_consensus::sim::{SimDirectory, Unsynced};
use x0_consensus::{Directory, DirectoryFile, DirectoryLock};

use super::random::Random;

/// The disk of one node. It outlives the node's starts.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) folder: SimDirectory,
    /// The planted bug: synchronisations do nothing.
    forgets: bool,
}

impl Disk {
    pub(super) fn new(forgets: bool) -> Disk {
        Disk { folder: SimDirectory::new(), forgets }
    }

    /// As the log sees it.
    pub(super) fn directory(&self) -> Arc<dyn Directory> {
        match self.forgets {
            false => Arc::new(self.folder.clone()),
            true => Arc::new(Unsyncing(self.folder.clone())),
        }
    }

    /// The power goes. What was planted is gone with it.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let fate = match random.below(6) {
            0 | 1 => Unsynced::Lost,
            2 => Unsynced::Kept,
            3 => Unsynced::Sectors(random.next()),
            _ => Unsynced::Cut(random.next()),
        };
        self.folder.crash(fate);
        self.repair();
    }

    /// Gives room again.
    pub(super) fn mend(&self) {
        self.folder.set_capacity_bytes(None);
    }

    /// Takes away what was planted and never met.
    pub(super) fn repair(&mut self) {
        self.folder.set_capacity_bytes(None);
        self.folder = self.folder.fork();
    }
}

/// A folder whose synchronisations say that they were done and were not.
struct Unsyncing(SimDirectory);

impl Directory for Unsyncing {
    fn path(&self) -> String {
        self.0.path()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DirectoryLock>> {
        self.0.lock(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        Ok(Box::new(UnsyncingFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        Ok(Box::new(UnsyncingFile(self.0.open(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    /// Names are made durable: the bug is about the log's bytes.
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

struct UnsyncingFile(Box<dyn DirectoryFile>);

impl DirectoryFile for UnsyncingFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.0.len_bytes()
    }
}
