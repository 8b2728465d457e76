//! A blob that comes chunk by chunk.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::add::Room;
use super::format::{self, Layout};
use super::{BlobStore, BlobWriteError, Entry, Writer};
use crate::blob::{BlobId, ChunkSet, Piece, merkle};

/// The way into the file of one entry.
pub(super) type Shared = Arc<Mutex<Writer>>;

impl BlobStore {
    /// Makes room for the blob of `len` bytes with this root over its chunks, durably, and answers which
    /// chunks are held: none, unless there was something of it already.
    ///
    /// # Errors
    /// [`BlobWriteError::Wrong`] when the name does not follow from length and root,
    /// [`Full`](BlobWriteError::Full), [`TooManyPartial`](BlobWriteError::TooManyPartial) and
    /// [`Io`](BlobWriteError::Io). Nothing was begun then.
    pub fn begin(&self, id: &BlobId, len: u64, root: &[u8; 32]) -> Result<ChunkSet, BlobWriteError> {
        if BlobId::new(len, root) != *id {
            return Err(BlobWriteError::Wrong { id: *id });
        }
        if len > crate::blob::BLOB_LEN_MAX {
            return Err(BlobWriteError::TooLong);
        }
        {
            let index = self.0.index();
            if let Some(entry) = index.entries.get(id).filter(|entry| entry.layout.is_some()) {
                return Ok(entry.chunks.clone());
            }
            let partial = index.entries.values().filter(|entry| entry.layout.is_some() && !entry.is_whole());
            let max = self.0.options.partial_max;
            if partial.count() >= max {
                return Err(BlobWriteError::TooManyPartial { max });
            }
        }
        let mut room = Room { inner: &self.0, taken: 0 };
        let layout = Layout { len, root: *root };
        room.take(layout.file_len())?;
        let name = self.0.temporary();
        let made = self.0.directory.create(&name).and_then(|mut file| {
            file.write_at(0, &layout.header(id))?;
            file.sync()
        });
        if let Err(source) = made {
            self.discard(&name);
            return Err(self.0.failed(&name)(source));
        }
        let chunks = ChunkSet::none(layout.count());
        self.install(room, &name, id, Entry::new(layout, chunks.clone()))?;
        Ok(chunks)
    }

    /// Writes a chunk of a blob that was begun, after it was proved to be one. It is held once
    /// [`commit`](BlobStore::commit) says so.
    ///
    /// # Errors
    /// [`BlobWriteError::NotHeld`], [`Wrong`](BlobWriteError::Wrong) and [`Io`](BlobWriteError::Io).
    pub fn keep(&self, id: &BlobId, index: u32, piece: &Piece) -> Result<(), BlobWriteError> {
        let (layout, shared) = self.writer(id)?;
        if !piece.is_right(layout.len, &layout.root, index) {
            return Err(BlobWriteError::Wrong { id: *id });
        }
        let name = format::file_name(id);
        let mut writer = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer.file(&*self.0.directory, &name).and_then(|file| {
            file.write_at(layout.chunk_at(index), &piece.bytes)?;
            file.write_at(layout.node_at(2 * index), &merkle::leaf(&piece.bytes))?;
            for (node, (number, _)) in piece.path.iter().zip(merkle::siblings(index, layout.count())) {
                file.write_at(layout.node_at(number), node)?;
            }
            Ok(())
        });
        match written {
            Ok(()) => writer.kept.push(index),
            Err(source) => return Err(self.unwritten(id, &shared, source)),
        }
        Ok(())
    }

    /// Makes the chunks that were kept so far durable, and only then says that they are held. Answers whether
    /// the blob is whole.
    ///
    /// # Errors
    /// [`BlobWriteError::NotHeld`] and [`Io`](BlobWriteError::Io); the chunks kept since the last commit are
    /// not held then.
    pub fn commit(&self, id: &BlobId) -> Result<bool, BlobWriteError> {
        let (layout, shared) = self.writer(id)?;
        let name = format::file_name(id);
        let mut writer = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = std::mem::take(&mut writer.kept);
        if kept.is_empty() {
            return Ok(self.is_whole(id));
        }
        let committed = writer.file(&*self.0.directory, &name).and_then(|file| {
            file.sync()?;
            let Some(chunks) = self.with_entry(id, &shared, |entry| {
                let mut chunks = entry.chunks.clone();
                kept.iter().for_each(|index| chunks.insert(*index));
                chunks
            }) else {
                return Ok(false);
            };
            file.write_at(layout.bits_at(), chunks.as_bytes())?;
            if chunks.is_whole() {
                // A caller that is notified may forget the source.
                file.sync()?;
            }
            let is_whole = chunks.is_whole();
            self.with_entry(id, &shared, |entry| entry.chunks = chunks);
            Ok(is_whole)
        });
        if !matches!(committed, Ok(false)) {
            // After an error the handle may have forgotten what it could not write.
            writer.file = None;
        }
        committed.map_err(|source| self.unwritten(id, &shared, source))
    }

    fn unwritten(&self, id: &BlobId, writer: &Shared, source: io::Error) -> BlobWriteError {
        if source.kind() == io::ErrorKind::NotFound {
            self.lost(id, writer);
            return BlobWriteError::NotHeld { id: *id };
        }
        self.0.failed(&format::file_name(id))(source)
    }

    /// Drops the entry of a file that was not found: a concurrent call, or another process, has removed it.
    pub(super) fn lost(&self, id: &BlobId, writer: &Shared) {
        let mut index = self.0.index();
        if let Some(entry) = index.entries.get(id).filter(|entry| Arc::ptr_eq(&entry.writer, writer)) {
            index.used = index.used.saturating_sub(entry.file_len);
            index.entries.remove(id);
        }
    }

    /// A chunk is not what it was. It counts as missing from now on.
    pub(super) fn damaged(&self, id: &BlobId, index: u32) {
        let Ok((layout, shared)) = self.writer(id) else { return };
        let name = format::file_name(id);
        let mut writer = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let chunks = self.with_entry(id, &shared, |entry| {
            entry.chunks.remove(index);
            entry.chunks.clone()
        });
        let Some(chunks) = chunks else { return };
        // If the disk does not take it, the chunk is found damaged again after a restart.
        let _ = writer.file(&*self.0.directory, &name).and_then(|file| {
            file.write_at(layout.bits_at(), chunks.as_bytes())?;
            file.sync()
        });
        writer.file = None;
        drop(writer);
        if let Some(on_damage) = self.0.on_damage.get() {
            on_damage(*id);
        }
    }

    fn writer(&self, id: &BlobId) -> Result<(Layout, Shared), BlobWriteError> {
        let index = self.0.index();
        let entry = index.entries.get(id).ok_or(BlobWriteError::NotHeld { id: *id })?;
        let layout = entry.layout.ok_or(BlobWriteError::NotHeld { id: *id })?;
        Ok((layout, Arc::clone(&entry.writer)))
    }

    /// Does something with the entry that `writer` belongs to, unless that was removed meanwhile.
    fn with_entry<T>(&self, id: &BlobId, writer: &Shared, f: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut index = self.0.index();
        index.entries.get_mut(id).filter(|entry| Arc::ptr_eq(&entry.writer, writer)).map(f)
    }
}
