//! Snapshot files.
//!
//! ```text
//! file    = header (64) , block* , trailer (32)
//! header  = magic (8) , version u32 , block length u32 , index u64 , term u64 , zeros (28) , crc u32
//! block   = up to 64 KiB of the snapshot , crc u32       (only the last one is shorter)
//! trailer = magic (8) , length of the snapshot u64 , zeros (12) , crc u32
//! ```
//!
//! All numbers are little-endian, and the crc is CRC-32C. The crcs of blocks and trailer start from the crc
//! of the header and the number of the block, so that a block is valid only at its own place. Each block is
//! verified before a byte of it is returned.
//!
//! The file is written under a partial name, synchronised, and then renamed: a file with the name of a
//! snapshot is whole.

use std::io;
use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};

use crate::directory::{Directory, DirectoryFile, DirectoryLock, is_full};
use crate::entry::SnapshotMeta;
use crate::storage::{SnapshotReadError, SnapshotReader, SnapshotWriteError, SnapshotWriter};

use super::format::{read_u32, read_u64};
use super::names;

const MAGIC: [u8; 8] = *b"x0-snap\n";
const MAGIC_TRAILER: [u8; 8] = *b"x0-snend";
const VERSION: u32 = 1;
const HEADER_LEN: u64 = 64;
const TRAILER_LEN: u64 = 32;
const BLOCK_LEN: u64 = 64 * 1024;
const CRC_LEN: u64 = 4;
/// Bytes after which the file is synchronised, so that a synchronisation of the log never waits for a whole
/// snapshot.
const SYNC_LEN: u64 = 4 << 20;

fn encode_header(meta: &SnapshotMeta) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(64_u32 * 1024).to_le_bytes());
    bytes[16..24].copy_from_slice(&meta.index.to_le_bytes());
    bytes[24..32].copy_from_slice(&meta.term.to_le_bytes());
    let crc = crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn block_seed(header_crc: u32, number: u64) -> u32 {
    crc32c_append(header_crc, &number.to_le_bytes())
}

/// Encodes the trailer, which has the largest block number.
fn encode_trailer(header_crc: u32, len: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&MAGIC_TRAILER);
    bytes[8..16].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c_append(block_seed(header_crc, u64::MAX), &bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn file_len(len: u64) -> Option<u64> {
    let crcs = len.div_ceil(BLOCK_LEN).checked_mul(CRC_LEN)?;
    len.checked_add(crcs)?.checked_add(HEADER_LEN + TRAILER_LEN)
}

/// Writes a snapshot file.
pub(crate) struct FileSnapshotWriter {
    directory: Arc<dyn Directory>,
    file: Box<dyn DirectoryFile>,
    partial: String,
    name: String,
    header_crc: u32,
    /// The block that is being filled.
    block: Vec<u8>,
    blocks: u64,
    len: u64,
    unsynced: u64,
    is_failed: bool,
    is_finished: bool,
    /// Held as long as the file may be written: the last field, so that it is dropped last.
    _lock: Arc<dyn DirectoryLock>,
}

fn at_file(directory: &dyn Directory, name: &str) -> String {
    format!("{}/{name}", directory.path())
}

fn write_error(operation: &'static str, file: String, source: io::Error) -> SnapshotWriteError {
    if is_full(&source) {
        SnapshotWriteError::Full { file }
    } else {
        SnapshotWriteError::Io { operation, file, source }
    }
}

impl FileSnapshotWriter {
    /// `number` is unique to the writer, so that two writers of the same snapshot have two files.
    pub(crate) fn create(
        directory: Arc<dyn Directory>,
        lock: Arc<dyn DirectoryLock>,
        meta: &SnapshotMeta,
        number: u64,
    ) -> Result<FileSnapshotWriter, SnapshotWriteError> {
        let name = names::snapshot(meta.index, meta.term);
        let partial = names::partial(&name, number);
        let header = encode_header(meta);
        let created = directory.create(&partial);
        let file = created.map_err(|error| write_error("create", at_file(&*directory, &partial), error))?;
        let mut writer = FileSnapshotWriter {
            directory,
            file,
            partial,
            name,
            header_crc: crc32c(&header[..60]),
            block: Vec::new(),
            blocks: 0,
            len: 0,
            unsynced: 0,
            is_failed: false,
            is_finished: false,
            _lock: lock,
        };
        let written = writer.file.write_at(0, &header);
        written.map_err(|error| writer.error("write", error))?;
        Ok(writer)
    }

    fn error(&self, operation: &'static str, error: io::Error) -> SnapshotWriteError {
        write_error(operation, at_file(&*self.directory, &self.partial), error)
    }

    fn put_block(&mut self) -> io::Result<()> {
        if self.is_failed {
            return Err(io::Error::other("an earlier write of this snapshot failed"));
        }
        // Reset at the end: a block that failed midway must not be followed by another one.
        self.is_failed = true;
        // Seeded with header and number: a block of another snapshot, or at another place, is invalid here.
        let crc = crc32c_append(block_seed(self.header_crc, self.blocks), &self.block);
        self.block.extend_from_slice(&crc.to_le_bytes());
        self.file.write_at(HEADER_LEN + self.blocks * (BLOCK_LEN + CRC_LEN), &self.block)?;
        self.blocks += 1;
        self.unsynced += self.block.len() as u64;
        self.block.clear();
        // The kernel would otherwise collect the whole file and delay the log with it.
        if self.unsynced >= SYNC_LEN {
            self.file.sync()?;
            self.unsynced = 0;
        }
        self.is_failed = false;
        Ok(())
    }
}

impl io::Write for FileSnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(BLOCK_LEN).unwrap_or(0) - self.block.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.block.extend_from_slice(taken);
        if taken.len() == room {
            self.put_block()?;
        }
        self.len += taken.len() as u64;
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotWriter for FileSnapshotWriter {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn finish(mut self: Box<Self>) -> Result<(), SnapshotWriteError> {
        if !self.block.is_empty() || self.is_failed {
            self.put_block().map_err(|error| self.error("write", error))?;
        }
        let end = HEADER_LEN + self.len + self.blocks * CRC_LEN;
        let trailer = encode_trailer(self.header_crc, self.len);
        self.file.write_at(end, &trailer).map_err(|error| self.error("write", error))?;
        // Before the rename: a file with the name of a snapshot is whole after every crash.
        self.file.sync().map_err(|error| self.error("synchronise", error))?;
        self.directory.rename(&self.partial, &self.name).map_err(|error| self.error("rename", error))?;
        self.is_finished = true;
        // The log refers to the snapshot by its name from the next write on: the name must survive a crash.
        self.directory.sync().map_err(|error| self.error("synchronise the folder of", error))
    }
}

impl Drop for FileSnapshotWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // Opening the log removes a file that stays.
            let _ = self.directory.remove(&self.partial);
        }
    }
}

/// Reads a snapshot file, block by block.
pub(crate) struct FileSnapshotReader {
    file: Box<dyn DirectoryFile>,
    path: String,
    meta: SnapshotMeta,
    header_crc: u32,
    len: u64,
    position: u64,
    /// The block that was read last, and its number.
    block: Option<(u64, Vec<u8>)>,
}

impl FileSnapshotReader {
    /// Opens the snapshot of this index and term, and verifies header, trailer and length. `None` if there is
    /// no such file.
    pub(crate) fn open(
        directory: &dyn Directory,
        meta: &SnapshotMeta,
    ) -> Result<Option<FileSnapshotReader>, SnapshotReadError> {
        let name = names::snapshot(meta.index, meta.term);
        let path = at_file(directory, &name);
        let io_error =
            |operation, source| SnapshotReadError::Io { operation, file: at_file(directory, &name), source };
        let corrupt =
            |offset, reason| SnapshotReadError::Corrupt { file: at_file(directory, &name), offset, reason };
        let file = match directory.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", error)),
        };
        let found_len = file.len_bytes().map_err(|error| io_error("measure", error))?;
        let mut header = [0; 64];
        let filled = file.read_at(0, &mut header).map_err(|error| io_error("read", error))?;
        // All fields of the header are known from the meta, so that the bytes are compared.
        if filled < header.len() || header != encode_header(meta) {
            return Err(corrupt(0, "the header does not belong to this snapshot"));
        }
        let header_crc = crc32c(&header[..60]);
        let trailer_at = found_len.saturating_sub(TRAILER_LEN);
        let mut trailer = [0; 32];
        let filled = file.read_at(trailer_at, &mut trailer).map_err(|error| io_error("read", error))?;
        let len = read_u64(&trailer, 8).unwrap_or(0);
        // Length and trailer together: a file that was cut or extended has its trailer at another place.
        if filled < trailer.len()
            || trailer != encode_trailer(header_crc, len)
            || file_len(len) != Some(found_len)
        {
            return Err(corrupt(trailer_at, "the trailer is invalid or the length is wrong"));
        }
        Ok(Some(FileSnapshotReader {
            file,
            path,
            meta: meta.clone(),
            header_crc,
            len,
            position: 0,
            block: None,
        }))
    }

    /// Reads and verifies the block of this number.
    fn block(&mut self, number: u64) -> io::Result<&[u8]> {
        if self.block.as_ref().is_none_or(|(held, _)| *held != number) {
            let offset = HEADER_LEN + number * (BLOCK_LEN + CRC_LEN);
            let len = usize::try_from((self.len - number * BLOCK_LEN).min(BLOCK_LEN)).unwrap_or(0);
            let mut bytes = self.block.take().map(|(_, bytes)| bytes).unwrap_or_default();
            bytes.resize(len + 4, 0);
            let filled = self.file.read_at(offset, &mut bytes)?;
            let crc = crc32c_append(block_seed(self.header_crc, number), &bytes[..len]);
            // Before a byte is returned: a follower would otherwise install damage that its own checksums
            // then confirm.
            if filled < bytes.len() || read_u32(&bytes, len) != Some(crc) {
                let error = SnapshotReadError::Corrupt {
                    file: self.path.clone(),
                    offset,
                    reason: "a block's checksum is wrong",
                };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            bytes.truncate(len);
            self.block = Some((number, bytes));
        }
        Ok(self.block.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }
}

impl io::Read for FileSnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.len || buffer.is_empty() {
            return Ok(0);
        }
        let (number, within) = (self.position / BLOCK_LEN, self.position % BLOCK_LEN);
        let block = self.block(number)?;
        let rest = &block[usize::try_from(within).unwrap_or(usize::MAX).min(block.len())..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.position += len as u64;
        Ok(len)
    }
}

impl io::Seek for FileSnapshotReader {
    fn seek(&mut self, position: io::SeekFrom) -> io::Result<u64> {
        let position = match position {
            io::SeekFrom::Start(offset) => Some(offset),
            io::SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl SnapshotReader for FileSnapshotReader {
    fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    fn len_bytes(&self) -> u64 {
        self.len
    }
}
