//! Reading, which is always checking.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use x0_consensus::DirectoryFile;

use super::format::{self, Layout};
use super::partial::Shared;
use super::{BlobReadError, BlobStore};
use crate::blob::{BlobId, CHUNK_LEN, Piece, merkle};

impl BlobStore {
    /// Reads a chunk, and what proves it.
    ///
    /// # Errors
    /// Those of [`BlobReadError`]. After [`Damaged`](BlobReadError::Damaged) the chunk counts as missing.
    pub fn read_piece(&self, id: &BlobId, index: u32) -> Result<Piece, BlobReadError> {
        let (layout, writer) = self.held(id, index)?;
        let name = format::file_name(id);
        let opened = self.0.directory.open(&name);
        let piece = match opened.and_then(|file| read_piece(&*file, &layout, index)) {
            Ok(piece) => piece,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                self.lost(id, &writer);
                return Err(BlobReadError::NotHeld { id: *id });
            }
            Err(source) => {
                return Err(BlobReadError::Io {
                    file: format!("{}/{name}", self.0.directory.path()),
                    source,
                });
            }
        };
        if !piece.is_right(layout.len, &layout.root, index) {
            self.damaged(id, index);
            return Err(BlobReadError::Damaged { id: *id, index });
        }
        Ok(piece)
    }

    /// Reads a whole blob into memory.
    ///
    /// # Errors
    /// As [`read_piece`](BlobStore::read_piece).
    pub fn read(&self, id: &BlobId) -> Result<Vec<u8>, BlobReadError> {
        let layout = self.layout(id)?;
        let mut bytes = Vec::new();
        for index in 0..layout.count() {
            bytes.extend_from_slice(&self.read_piece(id, index)?.bytes);
        }
        Ok(bytes)
    }

    /// Reads bytes from `offset` on, until the buffer is full or the blob ends; answers how many. What is not
    /// held is an error only if it is read.
    ///
    /// # Errors
    /// As [`read_piece`](BlobStore::read_piece). The buffer may be filled in part.
    pub fn read_at(&self, id: &BlobId, offset: u64, buffer: &mut [u8]) -> Result<usize, BlobReadError> {
        let mut reader = self.reader(id)?;
        reader.position = offset;
        let mut filled = 0;
        while filled < buffer.len() {
            match reader.next(&mut buffer[filled..])? {
                0 => break,
                len => filled += len,
            }
        }
        Ok(filled)
    }

    /// A reader of a blob, which checks chunk by chunk what it reads.
    ///
    /// # Errors
    /// [`BlobReadError::NotHeld`].
    pub fn reader(&self, id: &BlobId) -> Result<BlobReader, BlobReadError> {
        let layout = self.layout(id)?;
        Ok(BlobReader { store: self.clone(), id: *id, len: layout.len, position: 0, chunk: None })
    }

    /// Checks every chunk that is held, and answers which are damaged: they count as missing from now on.
    ///
    /// # Errors
    /// [`BlobReadError::NotHeld`] and [`Io`](BlobReadError::Io).
    pub fn verify(&self, id: &BlobId) -> Result<Vec<u32>, BlobReadError> {
        let layout = self.layout(id)?;
        let mut damaged = Vec::new();
        for index in 0..layout.count() {
            match self.read_piece(id, index) {
                Ok(_) | Err(BlobReadError::Missing { .. }) => {}
                Err(BlobReadError::Damaged { index, .. }) => damaged.push(index),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    fn layout(&self, id: &BlobId) -> Result<Layout, BlobReadError> {
        let index = self.0.index();
        let entry = index.entries.get(id).and_then(|entry| entry.layout);
        entry.ok_or(BlobReadError::NotHeld { id: *id })
    }

    fn held(&self, id: &BlobId, index: u32) -> Result<(Layout, Shared), BlobReadError> {
        let entries = &self.0.index().entries;
        let entry = entries.get(id).ok_or(BlobReadError::NotHeld { id: *id })?;
        let layout = entry.layout.ok_or(BlobReadError::NotHeld { id: *id })?;
        if !entry.chunks.contains(index) {
            return Err(BlobReadError::Missing { id: *id, index });
        }
        Ok((layout, Arc::clone(&entry.writer)))
    }
}

/// Reads the bytes without verifying them; a chunk that is not held is zeros or too short.
fn read_piece(file: &dyn DirectoryFile, layout: &Layout, index: u32) -> io::Result<Piece> {
    let mut bytes = vec![0; merkle::chunk_len(layout.len, index)];
    let read = file.read_at(layout.chunk_at(index), &mut bytes)?;
    bytes.truncate(read);
    let mut path = Vec::new();
    for (number, _) in merkle::siblings(index, layout.count()) {
        let mut node = [0; 32];
        file.read_at(layout.node_at(number), &mut node)?;
        path.push(node);
    }
    Ok(Piece::new(path, bytes.into()))
}

/// Reads a blob from beginning to end, or from anywhere. Made by [`BlobStore::reader`].
///
/// The cause in the [`io::Error`] is a [`BlobReadError`].
#[derive(Debug)]
pub struct BlobReader {
    store: BlobStore,
    id: BlobId,
    len: u64,
    position: u64,
    /// The chunk that was read last.
    chunk: Option<(u32, Bytes)>,
}

impl BlobReader {
    /// The blob's length, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// As much as the chunk at the position has of it.
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, BlobReadError> {
        if self.position >= self.len || buffer.is_empty() {
            return Ok(0);
        }
        // The index is below 2^18: the position is within the blob.
        let index = u32::try_from(self.position / CHUNK_LEN as u64).unwrap_or(u32::MAX);
        let offset = usize::try_from(self.position % CHUNK_LEN as u64).unwrap_or(0);
        let bytes = match &self.chunk {
            Some((held, bytes)) if *held == index => bytes.clone(),
            _ => self.store.read_piece(&self.id, index)?.bytes,
        };
        self.chunk = Some((index, bytes.clone()));
        let from = &bytes[offset..];
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        self.position += len as u64;
        Ok(len)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(io::Error::other)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::End(offset) => (self.len, offset),
            SeekFrom::Current(offset) => (self.position, offset),
        };
        let position = base.checked_add_signed(offset);
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
