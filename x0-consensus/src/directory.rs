//! The seam below the log: one folder of files.

mod fs;

use std::io;

pub use fs::FsDirectory;

/// One flat folder, as the log needs it: few operations, each of which a test can make fail.
///
/// # Durability
/// What is written to a file survives the loss of power once [`DirectoryFile::sync`] answered `Ok`; that a
/// file exists, has a name or lost it, once [`sync`](Directory::sync) did. Until then any part of it may
/// survive, in any order. A failed `sync` leaves it open which bytes are durable, and a repeated one proves
/// nothing of them.
///
/// # Errors
/// A full disk is [`io::ErrorKind::StorageFull`] (or `QuotaExceeded`), a missing file
/// [`io::ErrorKind::NotFound`].
pub trait Directory: Send + Sync {
    /// The folder's name, for messages.
    fn path(&self) -> String;

    /// Excludes all others, processes included, until the guard is dropped or the process ends. The lock's
    /// file has this name.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if somebody else holds it.
    fn lock(&self, name: &str) -> io::Result<Box<dyn DirectoryLock>>;

    /// A new, empty file, in place of one of this name that may be there.
    ///
    /// # Errors
    /// As the system has it.
    fn create(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>>;

    /// An existing file, for reading and writing.
    ///
    /// # Errors
    /// As the system has it.
    fn open(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>>;

    /// Gives a file another name, in place of the one that may have it. Open handles stay valid.
    ///
    /// # Errors
    /// As the system has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Open handles stay valid.
    ///
    /// # Errors
    /// As the system has it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// As the system has it.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes the names durable: creations, renames and removals so far.
    ///
    /// # Errors
    /// As the system has it.
    fn sync(&self) -> io::Result<()>;
}

/// A file of a [`Directory`], addressed by offsets.
pub trait DirectoryFile: Send {
    /// Writes all of `bytes` at `offset` (in bytes), making the file longer where needed.
    ///
    /// # Errors
    /// Any part may be written then.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads at `offset` until `buffer` is full or the file ends, and answers how many bytes that were.
    ///
    /// # Errors
    /// As the system has it.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Makes the content durable, and what is needed to find it again.
    ///
    /// # Errors
    /// See [`Directory`], on durability.
    fn sync(&mut self) -> io::Result<()>;

    /// The file's length, in bytes.
    ///
    /// # Errors
    /// As the system has it.
    fn len_bytes(&self) -> io::Result<u64>;
}

/// Holds a [`Directory`]'s lock until it is dropped.
pub trait DirectoryLock: Send + Sync {}

/// Whether the system ran out of room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
