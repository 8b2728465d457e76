//! The seam below the write-ahead log: one folder of files.

mod fingerprint;
mod fs;

use std::io;

pub use fingerprint::Fingerprint;
pub use fs::FsDirectory;

/// One flat folder with the operations that the log needs. A test can make each of them fail.
///
/// # Durability
/// The bytes of a file survive a power failure once [`DirectoryFile::sync`] has returned `Ok`; the existence
/// and the name of a file once [`sync`](Directory::sync) has returned `Ok`. Until then any part may survive,
/// in any order. After a failed `sync` any of the bytes may be durable, and a repeated `sync` proves nothing
/// about them.
///
/// # Errors
/// A full disk is [`io::ErrorKind::StorageFull`] (or `QuotaExceeded`), a missing file
/// [`io::ErrorKind::NotFound`].
pub trait Directory: Send + Sync {
    /// The path of the folder, for messages.
    fn path(&self) -> String;

    /// Locks the folder against other handles and processes until the guard is dropped or the process ends.
    /// The lock file has this name.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the lock is held.
    fn lock(&self, name: &str) -> io::Result<Box<dyn DirectoryLock>>;

    /// Creates an empty file and replaces an existing one of this name.
    ///
    /// # Errors
    /// The error of the operating system.
    fn create(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// The error of the operating system.
    fn open(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>>;

    /// Renames a file and replaces an existing one of the new name. Open handles stay valid.
    ///
    /// # Errors
    /// The error of the operating system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Open handles stay valid.
    ///
    /// # Errors
    /// The error of the operating system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// The error of the operating system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes all creations, renames and removals so far durable.
    ///
    /// # Errors
    /// The error of the operating system.
    fn sync(&self) -> io::Result<()>;

    /// The fingerprint of a file, or of the folder itself if `name` is `None`. A copy of the folder or of the
    /// file has another one; a write, a rename or a restart changes none. `Ok(None)`, the default, means that
    /// there are no fingerprints here: copies are not detected then.
    ///
    /// A simulated disk that can be rolled back implements this: see `sim::SimDirectory::copy`.
    ///
    /// # Errors
    /// The error of the operating system; [`io::ErrorKind::NotFound`] if there is no such file.
    fn fingerprint(&self, name: Option<&str>) -> io::Result<Option<Fingerprint>> {
        let _ = name;
        Ok(None)
    }
}

/// A file of a [`Directory`], addressed by offsets.
pub trait DirectoryFile: Send {
    /// Writes all of `bytes` at `offset` (in bytes) and extends the file if needed.
    ///
    /// # Errors
    /// Any part of the bytes may be written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads at `offset` until `buffer` is full or the file ends, and returns the number of bytes.
    ///
    /// # Errors
    /// The error of the operating system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Makes the content durable, and the metadata that is needed to read it.
    ///
    /// # Errors
    /// See the section on durability of [`Directory`].
    fn sync(&mut self) -> io::Result<()>;

    /// The length of the file, in bytes.
    ///
    /// # Errors
    /// The error of the operating system.
    fn len_bytes(&self) -> io::Result<u64>;
}

/// Holds the lock of a [`Directory`] until it is dropped.
pub trait DirectoryLock: Send + Sync {}

/// Whether the disk or the quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
