//! A folder of blobs.

mod add;
mod error;
mod format;
mod partial;
mod read;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use x0_consensus::{Directory, DirectoryFile, DirectoryLock, FsDirectory};

pub use self::error::{BlobOpenError, BlobReadError, BlobWriteError};
use self::format::Layout;
pub use self::read::BlobReader;
use super::{BlobId, ChunkSet, Holding};

/// Settings of a [`BlobStore`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobStoreOptions {
    /// Most bytes of all files together. A blob that is begun counts as a whole one. 16 GiB unless set.
    pub bytes_max: u64,
    /// Most blobs that are held in part. 64 unless set.
    pub partial_max: usize,
}

impl Default for BlobStoreOptions {
    fn default() -> BlobStoreOptions {
        BlobStoreOptions { bytes_max: 16 << 30, partial_max: 64 }
    }
}

/// A folder of blobs, whole ones and such as are held in part. Clones are the same one.
///
/// Its methods block on the disk and may be called from any thread.
///
/// # What it promises
/// - A blob that was added, and a chunk that was committed, survives the loss of power; so does every other
///   blob, whatever is being written at that moment. The claim that a chunk is held becomes durable with the
///   next commit, at the latest when the blob is whole: who loses power before fetches the chunks of one
///   commit again.
/// - Whatever is read was checked against the blob's name. Where the disk lost or changed a chunk, the reader
///   gets an error, and the chunk counts as missing.
/// - A folder opens whatever became of its files. A file that does not say any more what it is holds nothing,
///   still takes its room, and makes way when its blob is added, begun or removed.
#[derive(Clone)]
pub struct BlobStore(Arc<Inner>);

struct Inner {
    directory: Arc<dyn Directory>,
    options: BlobStoreOptions,
    index: Mutex<Index>,
    /// Receives blobs that lost a chunk.
    on_damage: OnceLock<OnDamage>,
    _lock: Box<dyn DirectoryLock>,
}

type OnDamage = Box<dyn Fn(BlobId) + Send + Sync>;

struct Index {
    entries: BTreeMap<BlobId, Entry>,
    /// Bytes of all files, as long as they will be.
    used: u64,
    temporary_next: u64,
}

struct Entry {
    /// `None` if the file does not say what it is.
    layout: Option<Layout>,
    chunks: ChunkSet,
    file_len: u64,
    /// Held while the file is written. It is another one when the blob was removed and begun again.
    writer: Arc<Mutex<Writer>>,
}

/// The way into a file.
#[derive(Default)]
struct Writer {
    file: Option<Box<dyn DirectoryFile>>,
    /// Chunks that were written and not committed.
    kept: Vec<u32>,
}

/// A blob of which this store holds chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobInfo {
    /// Its name.
    pub id: BlobId,
    /// Its length in bytes; 0 if its file does not say any more.
    pub len: u64,
    /// How many of them are held.
    pub held_bytes: u64,
    /// Whether all are.
    pub is_whole: bool,
}

impl BlobStore {
    /// Opens the blobs in a folder, and makes it if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be opened or read, or is in use.
    pub fn open(path: impl AsRef<Path>, options: BlobStoreOptions) -> Result<BlobStore, BlobOpenError> {
        let path = path.as_ref();
        let directory = FsDirectory::open(path)
            .map_err(|source| BlobOpenError::Io { file: path.display().to_string(), source })?;
        BlobStore::open_on(Arc::new(directory), options)
    }

    /// As [`open`](BlobStore::open), on a folder of one's own making.
    ///
    /// # Errors
    /// As [`open`](BlobStore::open).
    pub fn open_on(
        directory: Arc<dyn Directory>,
        options: BlobStoreOptions,
    ) -> Result<BlobStore, BlobOpenError> {
        let folder = directory.path();
        let failed = |file: &str| {
            let file = if file.is_empty() { folder.clone() } else { format!("{folder}/{file}") };
            move |source| BlobOpenError::Io { file, source }
        };
        let lock = directory.lock("lock").map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => BlobOpenError::InUse { folder: folder.clone() },
            _ => failed("lock")(source),
        })?;
        let mut index = Index { entries: BTreeMap::new(), used: 0, temporary_next: 0 };
        for name in directory.list().map_err(failed(""))? {
            if name.ends_with(format::TEMPORARY_SUFFIX) {
                // A file with a temporary name was not acknowledged to a caller.
                directory.remove(&name).map_err(failed(&name))?;
            } else if let Some(id) = format::id_of(&name) {
                let entry = Entry::read(&*directory, &name, &id).map_err(failed(&name))?;
                index.used += entry.file_len;
                index.entries.insert(id, entry);
            }
        }
        let (index, on_damage) = (Mutex::new(index), OnceLock::new());
        Ok(BlobStore(Arc::new(Inner { directory, options, index, on_damage, _lock: lock })))
    }

    /// Sets the function that every reader calls with a blob that lost a chunk.
    pub(super) fn on_damage(&self, notify: OnDamage) {
        // There is one driver.
        let _ = self.0.on_damage.set(notify);
    }

    /// The held part of a blob, which may be the whole.
    #[must_use]
    pub fn holding(&self, id: &BlobId) -> Option<Holding> {
        let index = self.0.index();
        let entry = index.entries.get(id)?;
        let Layout { len, root } = entry.layout?;
        Some(Holding::new(len, root, entry.chunks.clone()))
    }

    /// Whether every chunk of a blob is held.
    #[must_use]
    pub fn is_whole(&self, id: &BlobId) -> bool {
        self.0.index().entries.get(id).is_some_and(Entry::is_whole)
    }

    /// All blobs, in order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<BlobInfo> {
        let info = |(id, entry): (&BlobId, &Entry)| {
            let len = entry.layout.map_or(0, |layout| layout.len);
            BlobInfo { id: *id, len, held_bytes: entry.chunks.held_bytes(len), is_whole: entry.is_whole() }
        };
        self.0.index().entries.iter().map(info).collect()
    }

    /// Bytes of all files together, as long as they will be.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.index().used
    }

    /// Removes a blob, or what is held of it. Answers whether there was anything. Who reads it at the moment
    /// may still do so.
    ///
    /// # Errors
    /// [`BlobWriteError::Io`]; it is then held still, or comes back when the folder is opened again.
    pub fn remove(&self, id: &BlobId) -> Result<bool, BlobWriteError> {
        let mut index = self.0.index();
        if !index.entries.contains_key(id) {
            return Ok(false);
        }
        let name = format::file_name(id);
        match self.0.directory.remove(&name) {
            // Another process has removed the file.
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(self.0.failed(&name))?,
        }
        if let Some(entry) = index.entries.remove(id) {
            index.used = index.used.saturating_sub(entry.file_len);
        }
        drop(index);
        self.0.directory.sync().map_err(self.0.failed(&name))?;
        Ok(true)
    }
}

impl Inner {
    fn index(&self) -> MutexGuard<'_, Index> {
        // Nothing that can panic runs under the lock.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> BlobWriteError + use<> {
        let file = format!("{}/{name}", self.directory.path());
        move |source| BlobWriteError::Io { file, source }
    }

    /// Takes room for `needed` more bytes, or says that there is none.
    fn reserve(&self, needed: u64) -> Result<(), BlobWriteError> {
        let mut index = self.index();
        let (used, max) = (index.used, self.options.bytes_max);
        if used.saturating_add(needed) > max {
            return Err(BlobWriteError::Full { needed, used, max });
        }
        index.used += needed;
        Ok(())
    }

    fn temporary(&self) -> String {
        let mut index = self.index();
        index.temporary_next += 1;
        format!("{}{}", index.temporary_next, format::TEMPORARY_SUFFIX)
    }
}

impl Entry {
    fn new(layout: Layout, chunks: ChunkSet) -> Entry {
        Entry { layout: Some(layout), chunks, file_len: layout.file_len(), writer: Arc::default() }
    }

    fn read(directory: &dyn Directory, name: &str, id: &BlobId) -> io::Result<Entry> {
        let file = directory.open(name)?;
        match Layout::read(&*file, id)? {
            Some(layout) => Ok(Entry::new(layout, layout.read_bits(&*file)?)),
            None => Ok(Entry {
                layout: None,
                chunks: ChunkSet::none(0),
                file_len: file.len_bytes()?,
                writer: Arc::default(),
            }),
        }
    }

    fn is_whole(&self) -> bool {
        self.layout.is_some() && self.chunks.is_whole()
    }
}

impl Writer {
    /// The file, opened if it is not.
    fn file(&mut self, directory: &dyn Directory, name: &str) -> io::Result<&mut Box<dyn DirectoryFile>> {
        let file = match self.file.take() {
            Some(file) => file,
            None => directory.open(name)?,
        };
        Ok(self.file.insert(file))
    }
}

impl std::fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStore").field("folder", &self.0.directory.path()).finish_non_exhaustive()
    }
}
