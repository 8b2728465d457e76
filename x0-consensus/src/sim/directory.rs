//! A disk in memory with planted faults: lost and torn writes, errors, a full disk, power failures.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::directory::{Directory, DirectoryFile, DirectoryLock, Fingerprint};
use crate::random::SplitMix64;

/// A fault that a [`SimDirectory`] has in one of its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The operation fails with this error and has no effect. A failed `sync` of a file behaves as on Linux:
    /// the bytes can still be read and count as clean, and no later `sync` makes them durable.
    Error(io::ErrorKind),
    /// A write takes effect in its first half and then fails with this error. Other operations behave as with
    /// [`Fault::Error`].
    Half(io::ErrorKind),
    /// The power fails: the operation starts and returns an error, and so does every later one until
    /// [`SimDirectory::crash`].
    PowerLoss,
}

/// The fate of unsynchronised changes at a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsynced {
    /// All changes are lost.
    Lost,
    /// All changes are kept.
    Kept,
    /// A random subset of the 512-byte sectors of each write and of the changes of names is kept, drawn from
    /// this seed.
    Sectors(u64),
    /// The changes up to a random moment are kept; the write at that moment is cut at a random byte. Both are
    /// drawn from this seed.
    Cut(u64),
}

/// A deterministic [`Directory`] in memory with planted faults. A clone is another handle to the same disk.
///
/// Operations that change something (create, write, sync of a file, rename, remove, sync of the folder) are
/// counted, and a fault can be planted in each of them, so that a test can visit every one.
///
/// # Lost and restored folders
/// An emptied folder is a [`new`](SimDirectory::new) one in place of the old. A folder that is rolled back is
/// a [`copy`](SimDirectory::copy) that was made earlier: its fingerprints differ from those that the log has
/// recorded. A disk that is rolled back as a whole, which no fingerprint shows, is an earlier
/// [`fork`](SimDirectory::fork).
#[derive(Debug, Clone, Default)]
pub struct SimDirectory {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// How often the folder was copied: the time of birth of the folder and of all files in it.
    copies: u64,
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    /// Unsynchronised changes of names and files, oldest first.
    pending: Vec<Change>,
    file_next: u64,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    capacity_bytes: Option<u64>,
    is_down: bool,
    /// Rises with every crash; handles of an older generation fail.
    generation: u64,
    lock_holder: Option<u64>,
    lock_next: u64,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug)]
enum Change {
    Write { file: u64, offset: usize, bytes: Vec<u8> },
    Name { name: String, file: u64 },
    Rename { from: String, to: String },
    Remove { name: String },
}

const SECTOR_LEN: usize = 512;

/// A random length below `bound`.
fn below(random: &mut SplitMix64, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap_or(0)
}

fn overwrite(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

impl Disk {
    /// Counts an operation and returns the fault planted in it.
    fn begin(&mut self, generation: u64) -> io::Result<Option<Fault>> {
        if self.is_down || generation != self.generation {
            return Err(io::Error::other("the power is off"));
        }
        let number = self.operations;
        self.operations += 1;
        let fault = self.faults.remove(&number);
        if fault == Some(Fault::PowerLoss) {
            self.is_down = true;
        }
        Ok(fault)
    }

    fn finish(fault: Option<Fault>) -> io::Result<()> {
        match fault {
            None => Ok(()),
            Some(Fault::Error(kind) | Fault::Half(kind)) => Err(kind.into()),
            Some(Fault::PowerLoss) => Err(io::Error::other("the power failed")),
        }
    }

    /// Changes names. A planted error prevents the change; at a power failure it has started and may survive.
    fn change_name(&mut self, fault: Option<Fault>, change: Change) -> io::Result<()> {
        if matches!(fault, Some(Fault::Error(_) | Fault::Half(_))) {
            return Self::finish(fault);
        }
        apply_name(&mut self.names, &change);
        self.pending.push(change);
        Self::finish(fault)
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().filter_map(|file| self.files.get(file)).map(|file| file.bytes.len() as u64).sum()
    }

    fn crash(&mut self, unsynced: Unsynced) {
        let pending = std::mem::take(&mut self.pending);
        let mut random = match unsynced {
            Unsynced::Lost | Unsynced::Kept => SplitMix64(0),
            Unsynced::Sectors(seed) | Unsynced::Cut(seed) => SplitMix64(seed),
        };
        let cut = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Cut(_) => below(&mut random, pending.len() + 1),
            Unsynced::Kept | Unsynced::Sectors(_) => pending.len(),
        };
        for (at, change) in pending.iter().enumerate().take(cut) {
            let Change::Write { file, offset, bytes } = change else {
                let kept = !matches!(unsynced, Unsynced::Sectors(_)) || random.below(2) == 0;
                if kept {
                    apply_name(&mut self.names_durable, change);
                }
                continue;
            };
            let Some(inode) = self.files.get_mut(file) else { continue };
            match unsynced {
                Unsynced::Sectors(_) => {
                    let end = offset + bytes.len();
                    let mut start = *offset;
                    while start < end {
                        let sector_end = ((start / SECTOR_LEN + 1) * SECTOR_LEN).min(end);
                        if random.below(2) == 0 {
                            overwrite(&mut inode.durable, start, &bytes[start - offset..sector_end - offset]);
                        }
                        start = sector_end;
                    }
                }
                Unsynced::Cut(_) if at + 1 == cut => {
                    let len = below(&mut random, bytes.len() + 1);
                    overwrite(&mut inode.durable, *offset, &bytes[..len]);
                }
                _ => overwrite(&mut inode.durable, *offset, bytes),
            }
        }
        self.names = self.names_durable.clone();
        let named: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        for file in self.files.values_mut() {
            file.bytes.clone_from(&file.durable);
        }
        self.is_down = false;
        self.generation += 1;
        self.lock_holder = None;
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Write { .. } => {}
        Change::Name { name, file } => {
            names.insert(name.clone(), *file);
        }
        Change::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Remove { name } => {
            names.remove(name);
        }
    }
}

impl SimDirectory {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimDirectory {
        SimDirectory::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of operations so far, which is the number of the next one.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Plants a fault in the operation of this number, counted from 0 over the life of the disk.
    pub fn plant(&self, operation: u64, fault: Fault) {
        self.disk().faults.insert(operation, fault);
    }

    /// Limits the sum of the lengths of all files; writes beyond it fail as on a full disk. `None` removes
    /// the limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.disk().capacity_bytes = capacity_bytes;
    }

    /// Whether a planted [`Fault::PowerLoss`] has happened since the last crash.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.disk().is_down
    }

    /// The power fails and returns: unsynchronised changes meet their fate, and all handles that were opened
    /// before fail. Planted faults stay.
    pub fn crash(&self, unsynced: Unsynced) {
        self.disk().crash(unsynced);
    }

    /// An independent copy of the disk with its unsynchronised changes and without planted faults.
    #[must_use]
    pub fn fork(&self) -> SimDirectory {
        let disk = self.disk();
        let copy = Disk {
            files: disk
                .files
                .iter()
                .map(|(number, file)| {
                    (*number, Inode { bytes: file.bytes.clone(), durable: file.durable.clone() })
                })
                .collect(),
            names: disk.names.clone(),
            names_durable: disk.names_durable.clone(),
            pending: disk.pending.iter().map(Change::copy).collect(),
            file_next: disk.file_next,
            operations: disk.operations,
            is_down: disk.is_down,
            generation: disk.generation,
            copies: disk.copies,
            ..Disk::default()
        };
        SimDirectory { disk: Arc::new(Mutex::new(copy)) }
    }

    /// As [`fork`](SimDirectory::fork), with files that were copied one by one: the folder and its files have
    /// other fingerprints.
    #[must_use]
    pub fn copy(&self) -> SimDirectory {
        let copy = self.fork();
        copy.disk().copies += 1;
        copy
    }

    /// The bytes of a file as a reader sees them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(name).and_then(|file| disk.files.get(file)).map(|file| file.bytes.clone())
    }

    /// The names of all files.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.disk().names.keys().cloned().collect()
    }

    /// Damages the folder: removes a file, durably and without an operation.
    pub fn remove_file(&self, name: &str) {
        let mut disk = self.disk();
        disk.names.remove(name);
        disk.names_durable.remove(name);
    }

    /// Damages a file: replaces its content by `bytes`, durably and without an operation.
    pub fn replace_contents(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let file = match disk.names.get(name) {
            Some(file) => *file,
            None => {
                let file = disk.file_next;
                disk.file_next += 1;
                disk.names.insert(name.to_owned(), file);
                file
            }
        };
        disk.names_durable.insert(name.to_owned(), file);
        disk.pending.retain(|change| !matches!(change, Change::Write { file: other, .. } if *other == file));
        disk.files.insert(file, Inode { durable: bytes.clone(), bytes });
    }
}

impl Change {
    fn copy(&self) -> Change {
        match self {
            Change::Write { file, offset, bytes } => {
                Change::Write { file: *file, offset: *offset, bytes: bytes.clone() }
            }
            Change::Name { name, file } => Change::Name { name: name.clone(), file: *file },
            Change::Rename { from, to } => Change::Rename { from: from.clone(), to: to.clone() },
            Change::Remove { name } => Change::Remove { name: name.clone() },
        }
    }
}

impl Directory for SimDirectory {
    fn path(&self) -> String {
        "sim".to_owned()
    }

    fn lock(&self, _name: &str) -> io::Result<Box<dyn DirectoryLock>> {
        let mut disk = self.disk();
        if disk.lock_holder.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        disk.lock_next += 1;
        let holder = disk.lock_next;
        disk.lock_holder = Some(holder);
        Ok(Box::new(SimLock { disk: Arc::clone(&self.disk), holder }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        let mut disk = self.disk();
        let generation = disk.generation;
        let fault = disk.begin(generation)?;
        let file = disk.file_next;
        disk.file_next += 1;
        disk.files.insert(file, Inode::default());
        disk.change_name(fault, Change::Name { name: name.to_owned(), file })?;
        Ok(Box::new(SimFile { disk: Arc::clone(&self.disk), file, generation }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        let disk = self.disk();
        if disk.is_down {
            return Err(io::Error::other("the power is off"));
        }
        let file = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: Arc::clone(&self.disk), file, generation: disk.generation }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let generation = disk.generation;
        let fault = disk.begin(generation)?;
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_name(fault, Change::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let generation = disk.generation;
        let fault = disk.begin(generation)?;
        if !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_name(fault, Change::Remove { name: name.to_owned() })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        if disk.is_down {
            return Err(io::Error::other("the power is off"));
        }
        Ok(disk.names.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk();
        let generation = disk.generation;
        let fault = disk.begin(generation)?;
        Disk::finish(fault)?;
        let disk = &mut *disk;
        let names_durable = &mut disk.names_durable;
        disk.pending.retain(|change| {
            apply_name(names_durable, change);
            matches!(change, Change::Write { .. })
        });
        Ok(())
    }

    fn fingerprint(&self, name: Option<&str>) -> io::Result<Option<Fingerprint>> {
        let disk = self.disk();
        if disk.is_down {
            return Err(io::Error::other("the power is off"));
        }
        // The folder has an inode that no file has.
        let inode = match name {
            Some(name) => *disk.names.get(name).ok_or(io::ErrorKind::NotFound)? + 2,
            None => 1,
        };
        Ok(Some(Fingerprint::new(0, inode, Some(disk.copies + 1))))
    }
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    holder: u64,
}

impl DirectoryLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.lock_holder == Some(self.holder) {
            disk.lock_holder = None;
        }
    }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    file: u64,
    generation: u64,
}

impl SimFile {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectoryFile for SimFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let fault = disk.begin(self.generation)?;
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let taken = match fault {
            Some(Fault::Error(_)) => 0,
            Some(Fault::Half(_)) => bytes.len() / 2,
            None | Some(Fault::PowerLoss) => bytes.len(),
        };
        // Counted only where there is a limit: a simulation writes far more often than it reaches one.
        let room = disk.capacity_bytes.map(|capacity| capacity.saturating_sub(disk.used_bytes()));
        let inode = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let growth = (offset + taken).saturating_sub(inode.bytes.len()) as u64;
        if growth > 0 && room.is_some_and(|room| growth > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        overwrite(&mut inode.bytes, offset, &bytes[..taken]);
        let file = self.file;
        disk.pending.push(Change::Write { file, offset, bytes: bytes[..taken].to_vec() });
        Disk::finish(fault)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk();
        if disk.is_down || disk.generation != self.generation {
            return Err(io::Error::other("the power is off"));
        }
        let inode = disk.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.bytes.len());
        let len = buffer.len().min(inode.bytes.len() - start);
        buffer[..len].copy_from_slice(&inode.bytes[start..start + len]);
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.disk();
        let fault = disk.begin(self.generation)?;
        if fault == Some(Fault::PowerLoss) {
            return Disk::finish(fault);
        }
        let disk = &mut *disk;
        let inode = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let is_synced = fault.is_none();
        let number = self.file;
        disk.pending.retain(|change| match change {
            Change::Write { file, offset, bytes } if *file == number => {
                if is_synced {
                    overwrite(&mut inode.durable, *offset, bytes);
                }
                false
            }
            _ => true,
        });
        Disk::finish(fault)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        let disk = self.disk();
        disk.files
            .get(&self.file)
            .map(|file| file.bytes.len() as u64)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
