//! A folder of the operating system's file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::time::UNIX_EPOCH;

use super::{Directory, DirectoryFile, DirectoryLock, Fingerprint};

/// A folder of the file system.
///
/// `sync` of a file is `fdatasync` where there is one, `sync` of the folder an `fsync` of it. Names are
/// single path components chosen by this crate.
#[derive(Debug, Clone)]
pub struct FsDirectory {
    path: PathBuf,
}

impl FsDirectory {
    /// Opens this folder and creates it, durably, if it does not exist.
    ///
    /// # Errors
    /// The error of the operating system: no permission, no space, a file of that name. Folders that were
    /// created before the error stay.
    pub fn open(path: impl AsRef<Path>) -> io::Result<FsDirectory> {
        // Absolute, so that a later change of the working directory has no effect.
        let path = std::path::absolute(path)?;
        let made: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        fs::create_dir_all(&path)?;
        // A new folder is an entry of its parent: it is durable once the parent is synchronised.
        for parent in made.iter().filter_map(|folder| folder.parent()) {
            sync_folder(parent)?;
        }
        if !path.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(FsDirectory { path })
    }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Folders cannot be synchronised on this system; the file system journals names by itself.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

impl Directory for FsDirectory {
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DirectoryLock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.path.join(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(FsLock { file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path.join(name))?;
        Ok(Box::new(FsFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DirectoryFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(FsFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(&self.path)? {
            // The log creates no name that is not UTF-8.
            if let Ok(name) = item?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        sync_folder(&self.path)
    }

    #[cfg(unix)]
    fn fingerprint(&self, name: Option<&str>) -> io::Result<Option<Fingerprint>> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(name.map_or_else(|| self.path.clone(), |name| self.path.join(name)))?;
        // `statx` on Linux. An error means that the file system does not record it.
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|time| u64::try_from(time.as_nanos()).ok());
        Ok(Some(Fingerprint::new(metadata.dev(), metadata.ino(), born_ns)))
    }
}

/// The operating system releases the lock with the last handle, also when the process is killed.
struct FsLock {
    file: File,
}

impl Drop for FsLock {
    /// Unlocks explicitly: a child process that is being started at this moment inherits the handle until it
    /// executes its program, and would keep the lock.
    fn drop(&mut self) {
        // Unlocking a locked file does not fail; if it did, closing the file unlocks it.
        let _ = self.file.unlock();
    }
}

impl DirectoryLock for FsLock {}

struct FsFile {
    file: File,
}

impl DirectoryFile for FsFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        #[cfg(unix)]
        {
            std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
        }
        #[cfg(not(unix))]
        {
            use std::io::{Seek, SeekFrom, Write};
            self.file.seek(SeekFrom::Start(offset))?;
            self.file.write_all(bytes)
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            match read_once(&self.file, at, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }
}

#[cfg(unix)]
fn read_once(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(not(unix))]
fn read_once(mut file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FsDirectory::open(folder.path().join("a/b")).unwrap();
        let lock = directory.lock("lock").unwrap();
        let refused = directory.lock("lock").err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::WouldBlock));
        drop(lock);
        assert!(directory.lock("lock").is_ok());
    }

    #[test]
    fn reads_stop_at_the_end_and_writes_leave_no_gap() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FsDirectory::open(folder.path()).unwrap();
        let mut file = directory.create("file").unwrap();
        file.write_at(4, b"1234").unwrap();
        let mut buffer = [9; 10];
        assert_eq!(file.read_at(2, &mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"\0\x001234");
        assert_eq!(file.len_bytes().unwrap(), 8);
        directory.rename("file", "other").unwrap();
        assert_eq!(directory.list().unwrap(), ["other"]);
        assert_eq!(directory.open("file").err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_has_another_fingerprint_and_a_renamed_file_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FsDirectory::open(folder.path()).unwrap();
        directory.create("file").unwrap().write_at(0, b"1").unwrap();
        let of = |name| directory.fingerprint(name).unwrap().unwrap();
        let (file, whole) = (of(Some("file")), of(None));
        directory.rename("file", "other").unwrap();
        directory.open("other").unwrap().write_at(0, b"2").unwrap();
        assert!(of(Some("other")).is_same(&file) && of(None).is_same(&whole));
        fs::copy(folder.path().join("other"), folder.path().join("copy")).unwrap();
        assert!(!of(Some("copy")).is_same(&file) && !whole.is_same(&file));
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        assert!(FsDirectory::open(folder.path().join("file")).is_err());
    }
}
