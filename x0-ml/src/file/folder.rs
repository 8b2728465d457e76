//! The files of a folder, as a seam for tests that crash in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// Operations on the files of one folder. `name` is a plain file name.
///
/// # Contract
/// Bytes and names that `sync` or `sync_folder` confirmed survive the loss of power. `rename` replaces the
/// target atomically: after a crash the name holds the old file or the new one, whole.
pub trait Folder: Send {
    /// The bytes of a file; `None` if there is none.
    ///
    /// # Errors
    /// The operating system's.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Fills `bytes` from a place in a file.
    ///
    /// # Errors
    /// The operating system's, also if the file ends before.
    fn read_at(&mut self, name: &str, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Opens a file for reads on other threads. The handle reads this file, also after another one was
    /// renamed over its name, and sees what is appended to it.
    ///
    /// # Errors
    /// The operating system's; [`Unsupported`](io::ErrorKind::Unsupported) by default, for folders whose
    /// files are read by their owner only.
    fn open(&mut self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        let _ = name;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes a file, replacing what it held.
    ///
    /// # Errors
    /// The operating system's. The file may then hold a part.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Appends to a file, which is made if it is missing.
    ///
    /// # Errors
    /// The operating system's. A part of the bytes may be appended.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes of a file durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Renames a file, replacing the target.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; a missing one is no error.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes renames and removals durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_folder(&mut self) -> io::Result<()>;
}

/// A file that was opened for reading.
pub trait OpenFile: Send + Sync {
    /// Fills `bytes` from a place in the file.
    ///
    /// # Errors
    /// The operating system's, also if the file ends before.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

#[cfg(unix)]
impl OpenFile for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, bytes, offset)
    }
}

#[cfg(not(unix))]
impl OpenFile for std::sync::Mutex<File> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = self.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}

/// A folder of the operating system.
#[derive(Debug, Clone)]
pub struct DiskFolder {
    path: PathBuf,
}

impl DiskFolder {
    /// The folder at `path`, which is made if it is missing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }
}

impl Folder for DiskFolder {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        match File::open(self.path.join(name)) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(bytes))
    }

    fn read_at(&mut self, name: &str, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }

    fn open(&mut self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        let file = File::open(self.path.join(name))?;
        #[cfg(not(unix))]
        let file = std::sync::Mutex::new(file);
        Ok(Box::new(file))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        File::create(self.path.join(name))?.write_all(bytes)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).open(self.path.join(name))?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        File::open(self.path.join(name))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
