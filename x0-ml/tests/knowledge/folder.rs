//! A folder in memory that loses its power.

#![allow(dead_code, clippy::cast_possible_truncation, reason = "each test uses a part; its files are small")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use x0_ml::file::{Folder, OpenFile};

/// Bytes that are durable, and bytes that are written.
#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    written: Vec<u8>,
}

/// Files with what is durable of them. From the chosen operation on, everything fails;
/// [`restart`](Self::restart) then keeps what is durable, and of the rest what the seed chooses.
#[derive(Debug, Clone)]
pub(crate) struct SimFolder {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    operations: usize,
    crash_at: Option<usize>,
    /// Operations that fail although the power stays, as on a full disk.
    failing: std::ops::Range<usize>,
    /// Times that no file can be opened.
    failing_opens: usize,
    seed: u64,
}

impl SimFolder {
    pub(crate) fn new(seed: u64) -> Self {
        let names = BTreeMap::new();
        Self {
            inodes: Vec::new(),
            durable_names: names.clone(),
            names,
            operations: 0,
            crash_at: None,
            failing: 0..0,
            failing_opens: 0,
            seed,
        }
    }

    /// Lets `count` operations fail after `after` more ones. Half of the bytes of a write are written.
    pub(crate) fn fail(&mut self, after: usize, count: usize) {
        self.failing = self.operations + after + 1..self.operations + after + 1 + count;
    }

    /// The bytes of all files.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.names.iter().map(|(name, at)| (name.clone(), self.inodes[*at].written.clone())).collect()
    }

    /// Operations so far that change something.
    pub(crate) fn operations(&self) -> usize {
        self.operations
    }

    pub(crate) fn crash_at(&mut self, operation: usize) {
        self.crash_at = Some(operation);
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.crash_at.is_some_and(|at| self.operations > at)
    }

    fn random(&mut self, bound: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % bound
    }

    pub(crate) fn restart(&mut self) {
        self.crash_at = None;
        // Renames since the last sync of the folder may or may not be on the disk.
        if self.random(2) == 0 {
            self.names = self.durable_names.clone();
        }
        for at in 0..self.inodes.len() {
            let Inode { durable, written } = self.inodes[at].clone();
            if durable == written {
                continue;
            }
            let is_append = written.starts_with(&durable);
            let base = if is_append { durable.len() } else { 0 };
            let mut kept = written[..base + self.random(written.len() - base + 1)].to_vec();
            // A page that was not written holds zeros or garbage.
            if kept.len() > base && self.random(3) == 0 {
                let from = base + self.random(kept.len() - base);
                kept[from..].fill(0);
            }
            self.inodes[at] = Inode { durable: kept.clone(), written: kept };
        }
        self.durable_names = self.names.clone();
    }

    /// Counts an operation; the last one before the crash may take effect, later ones do not.
    fn operation(&mut self) -> io::Result<bool> {
        self.operations += 1;
        if self.failing.contains(&self.operations) {
            return Err(io::Error::other("no room"));
        }
        match self.crash_at {
            Some(at) if self.operations > at + 1 => Err(io::Error::other("no power")),
            Some(at) if self.operations == at + 1 => Ok(false),
            _ => Ok(true),
        }
    }

    /// The bytes that an operation writes; `None` without power.
    fn part<'b>(&self, bytes: &'b [u8], result: &io::Result<bool>) -> Option<&'b [u8]> {
        match result {
            Ok(_) => Some(bytes),
            Err(_) if self.has_crashed() => None,
            Err(_) => Some(&bytes[..bytes.len() / 2]),
        }
    }

    fn inode(&mut self, name: &str) -> &mut Inode {
        let next = self.inodes.len();
        let at = *self.names.entry(name.to_owned()).or_insert(next);
        if at == next {
            self.inodes.push(Inode::default());
        }
        &mut self.inodes[at]
    }
}

fn done(is_whole: bool) -> io::Result<()> {
    if is_whole { Ok(()) } else { Err(io::Error::other("the power went")) }
}

impl Folder for SimFolder {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if self.has_crashed() {
            return Err(io::Error::other("no power"));
        }
        Ok(self.names.get(name).map(|at| self.inodes[*at].written.clone()))
    }

    fn read_at(&mut self, name: &str, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let file = self.read(name)?.ok_or(io::ErrorKind::NotFound)?;
        let part =
            file.get(offset as usize..offset as usize + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(part);
        Ok(())
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let is_whole = self.operation();
        if let Some(part) = self.part(bytes, &is_whole) {
            self.inode(name).written = part.to_vec();
        }
        done(is_whole?)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let is_whole = self.operation();
        if let Some(part) = self.part(bytes, &is_whole) {
            self.inode(name).written.extend(part);
        }
        done(is_whole?)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let is_whole = self.operation()?;
        if is_whole {
            let inode = self.inode(name);
            inode.durable = inode.written.clone();
        }
        done(is_whole)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let is_whole = self.operation()?;
        let at = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), at);
        done(is_whole)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let is_whole = self.operation()?;
        self.names.remove(name);
        done(is_whole)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let is_whole = self.operation()?;
        if is_whole {
            self.durable_names = self.names.clone();
        }
        done(is_whole)
    }
}

/// A folder that the test can look into while a base owns it.
#[derive(Debug, Clone)]
pub(crate) struct SharedFolder(Arc<Mutex<SimFolder>>);

impl SharedFolder {
    pub(crate) fn new(folder: SimFolder) -> Self {
        Self(Arc::new(Mutex::new(folder)))
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.0.lock().unwrap().has_crashed()
    }

    pub(crate) fn fail(&self, after: usize, count: usize) {
        self.0.lock().unwrap().fail(after, count);
    }

    /// Lets so many files not be opened.
    pub(crate) fn fail_opens(&self, count: usize) {
        self.0.lock().unwrap().failing_opens = count;
    }

    /// Damages a byte of a file.
    pub(crate) fn damage(&self, name: &str, at: usize) {
        self.0.lock().unwrap().inode(name).written[at] ^= 0x20;
    }

    pub(crate) fn take(&self) -> SimFolder {
        self.0.lock().unwrap().clone()
    }
}

/// A file that stays readable when another one takes its name.
struct SimFile {
    folder: SharedFolder,
    inode: usize,
}

impl OpenFile for SimFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let folder = self.folder.0.lock().unwrap();
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(bytes.len()));
        let part = end.and_then(|end| folder.inodes[self.inode].written.get(end - bytes.len()..end));
        bytes.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Folder for SharedFolder {
    fn open(&mut self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        let mut folder = self.0.lock().unwrap();
        if let Some(left) = folder.failing_opens.checked_sub(1) {
            folder.failing_opens = left;
            return Err(io::Error::other("too many open files"));
        }
        let inode =
            *folder.names.get(name).filter(|_| !folder.has_crashed()).ok_or(io::ErrorKind::NotFound)?;
        drop(folder);
        Ok(Box::new(SimFile { folder: self.clone(), inode }))
    }
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.lock().unwrap().read(name)
    }
    fn read_at(&mut self, name: &str, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.lock().unwrap().read_at(name, offset, bytes)
    }
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().write(name, bytes)
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().append(name, bytes)
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().sync(name)
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.0.lock().unwrap().rename(from, to)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name)
    }
    fn sync_folder(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().sync_folder()
    }
}
