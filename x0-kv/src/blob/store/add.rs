//! Adding a blob from its bytes.

use std::io::{self, Read};

use x0_consensus::DirectoryFile;

use super::format::{self, Layout};
use super::{BlobStore, BlobWriteError, Entry, Inner};
use crate::blob::merkle::{self, Digest};
use crate::blob::{BLOB_LEN_MAX, BlobId, BlobRef, CHUNK_LEN, ChunkSet};

impl BlobStore {
    /// Adds a blob and returns when it is durable. One that is held already is written nevertheless, and then
    /// let go; one held in part is whole afterwards. Holds one chunk in memory, and 96 bytes for each.
    ///
    /// # Errors
    /// Those of [`BlobWriteError`]. Nothing was added then.
    pub fn add(&self, mut from: impl Read) -> Result<BlobRef, BlobWriteError> {
        let name = self.0.temporary();
        let mut room = Room { inner: &self.0, taken: 0 };
        match write(&mut room, &name, &mut from) {
            Ok((id, layout)) => {
                let len = layout.len;
                if self.is_whole(&id) {
                    self.discard(&name);
                    // A concurrent call may have renamed its file to this name, and not have synchronised the
                    // folder.
                    self.0.directory.sync().map_err(self.0.failed(&name))?;
                } else {
                    self.install(room, &name, &id, Entry::new(layout, ChunkSet::all(layout.count())))?;
                }
                Ok(BlobRef::new(id, len))
            }
            Err(error) => {
                self.discard(&name);
                Err(error)
            }
        }
    }

    /// Gives a file its name, durably, and its entry; what had the name makes way.
    pub(super) fn install(
        &self,
        room: Room<'_>,
        temporary: &str,
        id: &BlobId,
        entry: Entry,
    ) -> Result<(), BlobWriteError> {
        let name = format::file_name(id);
        let mut index = self.0.index();
        if let Err(source) = self.0.directory.rename(temporary, &name) {
            drop(index);
            self.discard(temporary);
            return Err(self.0.failed(&name)(source));
        }
        if let Some(before) = index.entries.insert(*id, entry) {
            index.used = index.used.saturating_sub(before.file_len);
        }
        room.keep();
        drop(index);
        self.0.directory.sync().map_err(self.0.failed(&name))
    }

    /// Removes files that were never reported as added. What stays in spite of that is removed when the
    /// folder is opened again.
    pub(super) fn discard(&self, temporary: &str) {
        let _ = self.0.directory.remove(temporary);
    }
}

/// Room that was taken, and is free again when this is dropped.
pub(super) struct Room<'a> {
    pub(super) inner: &'a Inner,
    pub(super) taken: u64,
}

impl Room<'_> {
    /// Takes as much as makes `total` together.
    pub(super) fn take(&mut self, total: u64) -> Result<(), BlobWriteError> {
        self.inner.reserve(total - self.taken)?;
        self.taken = total;
        Ok(())
    }

    /// Keeps the space: the file uses it from now on.
    fn keep(mut self) {
        self.taken = 0;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.taken == 0 {
            return;
        }
        let mut index = self.inner.index();
        index.used = index.used.saturating_sub(self.taken);
    }
}

/// Writes the file of what is read, under a temporary name, and makes its content durable.
fn write(room: &mut Room<'_>, name: &str, from: &mut impl Read) -> Result<(BlobId, Layout), BlobWriteError> {
    let inner = room.inner;
    room.take(format::file_len(0))?;
    let mut file = inner.directory.create(name).map_err(inner.failed(name))?;
    let put = |file: &mut Box<dyn DirectoryFile>, at: u64, bytes: &[u8]| {
        file.write_at(at, bytes).map_err(inner.failed(name))
    };
    let (mut len, mut leaves) = (0_u64, Vec::<Digest>::new());
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let filled = fill(from, &mut chunk).map_err(|source| BlobWriteError::Source { source })?;
        if filled == 0 {
            break;
        }
        let at = format::BYTES_AT + len;
        len += filled as u64;
        if len > BLOB_LEN_MAX {
            return Err(BlobWriteError::TooLong);
        }
        room.take(format::file_len(len))?;
        put(&mut file, at, &chunk[..filled])?;
        leaves.push(merkle::leaf(&chunk[..filled]));
        if filled < CHUNK_LEN {
            break;
        }
    }
    let (nodes, root) = merkle::tree(&leaves);
    let (id, layout) = (BlobId::new(len, &root), Layout { len, root });
    // In pieces, so that the tree is not held a second time.
    for (at, nodes) in (layout.node_at(0)..).step_by(32 * 4096).zip(nodes.chunks(4096)) {
        put(&mut file, at, &nodes.concat())?;
    }
    put(&mut file, layout.bits_at(), ChunkSet::all(layout.count()).as_bytes())?;
    put(&mut file, 0, &layout.header(&id))?;
    file.sync().map_err(inner.failed(name))?;
    Ok((id, layout))
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
