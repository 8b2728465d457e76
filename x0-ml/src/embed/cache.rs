//! Vectors of chunks that were embedded before.

use std::collections::HashMap;
use std::io;

use super::embedder::ModelId;
use crate::chunk::ChunkId;
use crate::file::{Damage, FileError, Folder, IndexFile, OpenFile, Reader, count32};

const KIND: [u8; 8] = *b"X0MLEMB\0";
const VERSION: u32 = 1;
/// Kind, version, dimensions, model, checksum.
const HEADER: usize = 8 + 4 + 4 + 32 + 4;

/// Bytes of the file that are copied at once when it is written again.
const BLOCK_LEN: usize = 1 << 20;

/// The vectors of one model by chunk, in a file that is appended to.
///
/// A record is a chunk's name, its vector and a CRC-32C. A record at the end that a crash left incomplete is
/// dropped when the file is opened. A wrong record with a right one after it is damage: an error that names
/// the offset. Only places are kept in memory.
#[derive(Debug)]
pub struct EmbeddingCache {
    name: String,
    model: ModelId,
    dimensions: usize,
    records: HashMap<ChunkId, usize>,
    /// Records in the file, replaced ones included.
    len: usize,
    /// A write failed, and the file may differ from `records` and `len`.
    is_suspect: bool,
    /// Files that took this name since the cache was made: a handle of an earlier one reads other records.
    generation: u64,
}

/// Circumstances of [`EmbeddingCache::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Opened {
    /// Bytes at the end that were dropped.
    pub dropped_len: usize,
    /// The file was made by another model or with other dimensions, and was replaced by an empty one.
    pub was_replaced: bool,
}

/// Counts of [`EmbeddingCache::compact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Compacted {
    /// Records that left the file: those not to be kept, replaced ones and damaged ones.
    pub dropped: usize,
    /// Records among them that were to be kept and cannot be read.
    pub damaged: usize,
}

impl EmbeddingCache {
    /// Opens the file `name`, or makes it.
    ///
    /// # Errors
    /// [`FileError`]; the file is unchanged.
    pub fn open(
        folder: &mut dyn Folder,
        name: &str,
        model: ModelId,
        dimensions: usize,
    ) -> Result<(Self, Opened), FileError> {
        let (records, name) = (HashMap::new(), name.to_owned());
        let mut cache = Self { name, model, dimensions, records, len: 0, is_suspect: false, generation: 0 };
        let opened = cache.load(folder)?;
        Ok((cache, opened))
    }

    /// Reads the places of the records, and makes the file whole.
    fn load(&mut self, folder: &mut dyn Folder) -> Result<Opened, FileError> {
        let mut opened = Opened::default();
        let file = folder.read(&self.name).map_err(|source| self.io("read", source))?;
        self.records.clear();
        self.len = 0;
        self.generation += 1;
        let damaged = |name: &str, source| FileError::Damaged { name: name.to_owned(), source };
        let file = file.filter(|file| !file.is_empty());
        let is_own = file.as_ref().map(|file| self.is_own(file)).transpose();
        let is_own = is_own.map_err(|source| damaged(&self.name, source))?;
        let Some(file) = file.filter(|_| is_own == Some(true)) else {
            opened.was_replaced = is_own == Some(false);
            self.replace(folder, &self.header())?;
            self.is_suspect = false;
            return Ok(opened);
        };
        let kept = self.read_records(&file).map_err(|source| damaged(&self.name, source))?;
        opened.dropped_len = file.len() - kept;
        // Bytes of a failed write may not be durable, although they can be read.
        if kept < file.len() || self.is_suspect {
            self.replace(folder, &file[..kept])?;
        }
        self.is_suspect = false;
        Ok(opened)
    }

    /// Finds out what a failed write left.
    fn recover(&mut self, folder: &mut dyn Folder) -> Result<(), FileError> {
        if self.is_suspect { self.load(folder).map(drop) } else { Ok(()) }
    }

    /// Vectors held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no vector is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether the vector of this chunk is held.
    #[must_use]
    pub fn contains(&self, chunk: &ChunkId) -> bool {
        self.records.contains_key(chunk)
    }

    /// Writes the vector of a chunk to `vector`; `false` if it is not held.
    ///
    /// # Errors
    /// [`FileError`] if the record cannot be read or is damaged since it was written.
    ///
    /// # Panics
    /// If `vector` has other dimensions than the cache.
    pub fn get(
        &self,
        folder: &mut dyn Folder,
        chunk: &ChunkId,
        vector: &mut [f32],
    ) -> Result<bool, FileError> {
        assert_eq!(vector.len(), self.dimensions, "the vector has the dimensions of the cache");
        let Some(record) = self.records.get(chunk) else { return Ok(false) };
        let offset = HEADER + record * self.record_len();
        let mut bytes = vec![0; self.record_len()];
        folder.read_at(&self.name, offset as u64, &mut bytes).map_err(|source| self.io("read", source))?;
        let found = read_record(&bytes, offset, Some(vector)).filter(|found| found == chunk);
        found.map(|_| true).ok_or_else(|| FileError::Damaged {
            name: self.name.clone(),
            source: Damage::new(offset, "the checksum of a record differs"),
        })
    }

    /// Appends vectors and makes them durable.
    ///
    /// # Errors
    /// [`FileError`]; a part of the vectors may be in the file then, and the next call finds out which.
    ///
    /// # Panics
    /// If a vector has other dimensions than the cache.
    pub fn put(&mut self, folder: &mut dyn Folder, vectors: &[(ChunkId, &[f32])]) -> Result<(), FileError> {
        self.recover(folder)?;
        let mut bytes = Vec::with_capacity(vectors.len() * self.record_len());
        for (chunk, vector) in vectors {
            assert_eq!(vector.len(), self.dimensions, "vectors have the dimensions of the cache");
            write_record(chunk, vector, &mut bytes);
        }
        // A part may be appended by an error, and a later record must not follow it at a wrong place.
        self.is_suspect = true;
        folder.append(&self.name, &bytes).map_err(|source| self.io("append to", source))?;
        folder.sync(&self.name).map_err(|source| self.io("sync", source))?;
        self.is_suspect = false;
        for (chunk, _) in vectors {
            self.records.insert(*chunk, self.len);
            self.len += 1;
        }
        Ok(())
    }

    /// Writes the file again with the chunks that are to be kept, and without replaced and damaged records.
    /// Nothing is written if all of its records are to be kept.
    ///
    /// # Errors
    /// [`FileError`]; the old file stays, or the new one is there.
    pub fn compact(
        &mut self,
        folder: &mut dyn Folder,
        keep: &dyn Fn(&ChunkId) -> bool,
    ) -> Result<Compacted, FileError> {
        self.recover(folder)?;
        let mut kept: Vec<(usize, ChunkId)> = self
            .records
            .iter()
            .filter(|(chunk, _)| keep(chunk))
            .map(|(chunk, record)| (*record, *chunk))
            .collect();
        if kept.len() == self.len {
            return Ok(Compacted::default());
        }
        kept.sort_unstable();
        let (wanted, beside) = (kept.len(), format!("{}.new", self.name));
        folder.write(&beside, &self.header()).map_err(|source| self.io("write", source))?;
        let kept = self.copy_records(folder, &kept, &beside)?;
        folder.sync(&beside).map_err(|source| self.io("sync", source))?;
        // An error may come before or after the new file took the place of the old one.
        self.is_suspect = true;
        self.generation += 1;
        folder.rename(&beside, &self.name).map_err(|source| self.io("rename", source))?;
        // The name is that of the new file from here on, also if it is not durable.
        let compacted = Compacted { dropped: self.len - kept.len(), damaged: wanted - kept.len() };
        self.len = kept.len();
        self.records = kept.into_iter().enumerate().map(|(place, (_, chunk))| (chunk, place)).collect();
        folder.sync_folder().map_err(|source| self.io("sync", source))?;
        self.is_suspect = false;
        Ok(compacted)
    }

    /// Appends the right ones of these records to a file, block by block; returns them.
    fn copy_records(
        &self,
        folder: &mut dyn Folder,
        kept: &[(usize, ChunkId)],
        to: &str,
    ) -> Result<Vec<(usize, ChunkId)>, FileError> {
        let len = self.record_len();
        let (block_len, mut bytes) = ((BLOCK_LEN / len).max(1), Vec::new());
        let mut copied = Vec::with_capacity(kept.len());
        for block in kept.chunk_by(|(a, _), (b, _)| a / block_len == b / block_len) {
            let [(first, _), ..] = block else { continue };
            let first = first / block_len * block_len;
            bytes.resize(block_len.min(self.len - first) * len, 0);
            let is_read = self.read_part(folder, first, &mut bytes)?;
            let mut right = Vec::with_capacity(block.len() * len);
            for (record, chunk) in block {
                let at = (record - first) * len;
                // A file that ends too early is damaged where it ends, and read to there.
                let is_here = is_read || self.read_part(folder, *record, &mut bytes[at..at + len])?;
                let content = &bytes[at..at + len];
                if is_here && read_record(content, HEADER + record * len, None) == Some(*chunk) {
                    right.extend_from_slice(content);
                    copied.push((*record, *chunk));
                }
            }
            folder.append(to, &right).map_err(|source| self.io("append to", source))?;
        }
        Ok(copied)
    }

    /// Reads records from the file; `false` if it ends before them.
    fn read_part(&self, folder: &mut dyn Folder, record: usize, bytes: &mut [u8]) -> Result<bool, FileError> {
        let offset = HEADER + record * self.record_len();
        match folder.read_at(&self.name, offset as u64, bytes) {
            Ok(()) => Ok(true),
            Err(error) if [io::ErrorKind::UnexpectedEof, io::ErrorKind::NotFound].contains(&error.kind()) => {
                Ok(false)
            }
            Err(source) => Err(self.io("read", source)),
        }
    }

    /// Whether an eighth of the file is records that are not to be kept.
    pub(crate) fn has_waste(&self, keep: &dyn Fn(&ChunkId) -> bool) -> bool {
        let kept = self.records.keys().filter(|chunk| keep(chunk)).count();
        8 * (self.len - kept) >= self.len
    }

    /// Whether all chunks that are held are of these.
    pub(crate) fn holds_only(&self, these: &dyn Fn(&ChunkId) -> bool) -> bool {
        self.records.keys().all(these)
    }

    /// The place of a chunk's record among the others.
    pub(crate) fn record(&self, chunk: &ChunkId) -> Option<usize> {
        self.records.get(chunk).copied()
    }

    /// The number of the file; another one has other places.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    fn record_len(&self) -> usize {
        record_len(self.dimensions)
    }

    fn header(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend(KIND);
        header.extend(VERSION.to_le_bytes());
        header.extend(count32(self.dimensions).to_le_bytes());
        header.extend(self.model.as_bytes());
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        header
    }

    /// Whether the header is whole and names this model.
    fn is_own(&self, file: &[u8]) -> Result<bool, Damage> {
        let mut header = Reader::new(file, 0);
        if header.bytes(8)? != KIND {
            return Err(Damage::new(0, "the file is of another kind"));
        }
        if header.u32()? != VERSION {
            return Err(Damage::new(8, "the version is unknown"));
        }
        header.bytes(4 + 32)?;
        if header.u32()? != crc32c::crc32c(&file[..HEADER - 4]) {
            return Err(Damage::new(HEADER - 4, "the checksum of the header differs"));
        }
        Ok(file[..HEADER] == self.header())
    }

    /// Notes the records; returns the length of the file up to the last right one.
    fn read_records(&mut self, file: &[u8]) -> Result<usize, Damage> {
        let mut wrong = None;
        for (record, bytes) in file[HEADER..].chunks(self.record_len()).enumerate() {
            let offset = HEADER + record * self.record_len();
            match (read_record(bytes, offset, None), wrong) {
                (Some(_), Some(wrong)) => {
                    return Err(Damage::new(wrong, "a record is wrong, and later ones are right"));
                }
                (Some(chunk), None) if bytes.len() == self.record_len() => {
                    self.records.insert(chunk, record);
                    self.len = record + 1;
                }
                (_, None) => wrong = Some(offset),
                (None, Some(_)) => {}
            }
        }
        Ok(wrong.unwrap_or(file.len()))
    }

    fn replace(&self, folder: &mut dyn Folder, bytes: &[u8]) -> Result<(), FileError> {
        IndexFile::new(self.name.as_str()).write(folder, bytes)
    }

    fn io(&self, action: &'static str, source: io::Error) -> FileError {
        FileError::Io { action, name: self.name.clone(), source }
    }
}

/// The length of a record in bytes.
fn record_len(dimensions: usize) -> usize {
    32 + 4 * dimensions + 4
}

/// Reads the vector of a chunk from its place in a file of this name.
pub(crate) fn read_vector(
    file: &dyn OpenFile,
    name: &str,
    record: usize,
    chunk: &ChunkId,
    vector: &mut [f32],
) -> Result<(), FileError> {
    let len = record_len(vector.len());
    let offset = record.saturating_mul(len).saturating_add(HEADER);
    let mut bytes = vec![0; len];
    let io = |source| FileError::Io { action: "read", name: name.to_owned(), source };
    file.read_at(offset as u64, &mut bytes).map_err(io)?;
    let found = read_record(&bytes, offset, Some(vector)).filter(|found| found == chunk);
    found.map(drop).ok_or_else(|| FileError::Damaged {
        name: name.to_owned(),
        source: Damage::new(offset, "the checksum of a record differs"),
    })
}

fn write_record(chunk: &ChunkId, vector: &[f32], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend(chunk.as_bytes());
    bytes.extend(vector.iter().flat_map(|component| component.to_le_bytes()));
    bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
}

/// The chunk of a record, if it is right.
fn read_record(bytes: &[u8], offset: usize, vector: Option<&mut [f32]>) -> Option<ChunkId> {
    let content = bytes.get(..bytes.len().checked_sub(4)?)?;
    let mut record = Reader::new(bytes, offset);
    let chunk: [u8; 32] = record.bytes(32).ok()?.try_into().ok()?;
    let components = record.bytes(content.len().checked_sub(32)?).ok()?;
    if record.u32().ok()? != crc32c::crc32c(content) {
        return None;
    }
    if let Some(vector) = vector {
        let (words, _) = components.as_chunks::<4>();
        for (component, bytes) in vector.iter_mut().zip(words) {
            *component = f32::from_le_bytes(*bytes);
        }
    }
    Some(ChunkId::from_bytes(chunk))
}
