//! A node's disk.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use x0_consensus::sim::{SimDirectory, Unsynced};
use x0_consensus::{Directory, DirectoryFile, DirectoryLock, Fingerprint, Storage, Wal, WalOptions};

use super::random::Random;

/// The disk of one node. It outlives the node's starts.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) folder: SimDirectory,
    /// A copy of the folder that was made before, file by file.
    copy: Option<SimDirectory>,
    /// An image of the whole disk that was made before.
    image: Option<SimDirectory>,
    full: Full,
    /// The planted bug: synchronisations do nothing.
    forgets: bool,
}

impl Disk {
    pub(super) fn new(forgets: bool) -> Disk {
        Disk { folder: SimDirectory::new(), copy: None, image: None, full: Full::default(), forgets }
    }

    /// As the log sees it.
    pub(super) fn directory(&self) -> Arc<dyn Directory> {
        let folder: Box<dyn Directory> = match self.forgets {
            false => Box::new(self.folder.clone()),
            true => Box::new(Unsyncing(self.folder.clone())),
        };
        Arc::new(Bounded { folder, full: self.full.clone() })
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
        self.full.set(None);
    }

    /// Leaves no room: for anything, or for files of one kind.
    pub(super) fn fill(&self, kind: Option<FileKind>) {
        match kind {
            None => self.folder.set_capacity_bytes(Some(0)),
            kind => self.full.set(kind),
        }
    }

    /// Makes a copy, as an operator would of a running node.
    pub(super) fn take_copy(&mut self) {
        self.copy = Some(self.folder.copy());
    }

    /// Makes an image of the whole disk, which has the fingerprints of the original.
    pub(super) fn take_image(&mut self) {
        self.image = Some(self.folder.fork());
    }

    /// Discards the image.
    pub(super) fn drop_image(&mut self) {
        self.image = None;
    }

    /// Replaces the disk by its image. Whether there is one.
    pub(super) fn restore_image(&mut self) -> bool {
        let Some(image) = self.image.take() else { return false };
        image.crash(Unsynced::Kept);
        self.folder = image;
        self.copy = None;
        true
    }

    pub(super) fn has_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Whether the folder says in which node it was written.
    pub(super) fn has_origin(&self) -> bool {
        self.folder.names().iter().any(|name| name == "origin")
    }

    /// Replaces the folder by the copy.
    pub(super) fn roll_back(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.crash(Unsynced::Kept);
            self.folder = copy;
            self.image = None;
        }
    }

    /// Replaces the folder by an empty one.
    pub(super) fn empty(&mut self) {
        self.folder = SimDirectory::new();
        (self.copy, self.image) = (None, None);
    }

    /// The commit index that the log has after a power failure now; 0 if it cannot be read.
    pub(super) fn durable_commit(&self) -> u64 {
        let folder = self.folder.fork();
        folder.crash(Unsynced::Lost);
        let options = WalOptions::default().spare_in_background(false).segment_len(16 << 10);
        let opened = Wal::open(Arc::new(folder), options);
        let recovered = opened.and_then(|mut log| log.recover());
        recovered.map_or(0, |recovered| recovered.hard_state.commit.max(recovered.base.index))
    }

    /// Flips a bit of a file.
    pub(super) fn flip_bit(&mut self, random: &mut Random) {
        let names = self.folder.names();
        let Some(name) = names.get(random.place(names.len())) else { return };
        let Some(mut bytes) = self.folder.contents(name).filter(|bytes| !bytes.is_empty()) else { return };
        // Most of a segment is not written yet: a bit of what is, if there is any.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
        let at = random.place(used);
        bytes[at] ^= 1 << random.below(8);
        self.folder.replace_contents(name, bytes);
    }

    /// Removes the newest segment of the log, and with `forgets` also the files that say that it was there.
    /// Whether there was one.
    pub(super) fn remove_segment(&self, forgets: bool) -> bool {
        let newest = self.folder.names().into_iter().rfind(|name| name.ends_with(".wal"));
        let Some(newest) = newest else { return false };
        self.folder.remove_file(&newest);
        if forgets {
            self.folder.remove_file("manifest");
            self.folder.remove_file("origin");
        }
        true
    }

    /// Takes away what was planted and never met.
    pub(super) fn repair(&mut self) {
        self.mend();
        self.folder = self.folder.fork();
    }
}

/// The part of a node that a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Log,
    Checkpoint,
}

/// The kind of files for which there is no room. Shared by a disk and the directories on it.
#[derive(Debug, Clone, Default)]
struct Full(Arc<Mutex<Option<FileKind>>>);

impl Full {
    fn set(&self, kind: Option<FileKind>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kind;
    }

    fn check(&self, name: &str) -> io::Result<()> {
        let kind = if name.contains(".snapshot") { FileKind::Checkpoint } else { FileKind::Log };
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(full) if full == kind => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

/// A folder in which there is no room for new files of one kind.
struct Bounded {
    folder: Box<dyn Directory>,
    full: Full,
}

impl Directory for Bounded {
    fn path(&self) -> String {
        self.folder.path()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DirectoryLock>> {
        self.folder.lock(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        self.full.check(name)?;
        self.folder.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        self.folder.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }

    fn sync(&self) -> io::Result<()> {
        self.folder.sync()
    }

    fn fingerprint(&self, name: Option<&str>) -> io::Result<Option<Fingerprint>> {
        self.folder.fingerprint(name)
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

    fn fingerprint(&self, name: Option<&str>) -> io::Result<Option<Fingerprint>> {
        self.0.fingerprint(name)
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
