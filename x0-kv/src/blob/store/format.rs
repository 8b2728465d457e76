//! The file of a blob: header, bytes, tree, and a bit for each chunk.
//!
//! ```text
//! 0      magic (8) · name (32) · length (8, big-endian) · root (32) · CRC-32C of these (4, big-endian) · zeros
//! 4096   the bytes
//! + len  the nodes of the tree, 32 bytes each, by their number; those that are not known are zeros
//! + tree a bit for each chunk, set when the chunk and the hashes beside its way to the root are durable
//! ```
//! What the file is too short for counts as zeros. A bit is only a claim: a reader checks each chunk against
//! the root.

use std::io;

use x0_consensus::DirectoryFile;

use crate::blob::merkle::{self, Digest};
use crate::blob::{BLOB_LEN_MAX, BlobId, CHUNK_LEN, ChunkSet};

const MAGIC: [u8; 8] = *b"x0blob\0\x01";
const HEADER_LEN: usize = 8 + 32 + 8 + 32 + 4;
/// The offset of the bytes of the blob: a page.
pub(super) const BYTES_AT: u64 = 4096;
/// Files of blobs that are there under their name.
const SUFFIX: &str = ".blob";
/// Files that are being made. What is left of them is removed when the folder is opened.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The offsets in the file of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) len: u64,
    pub(super) root: Digest,
}

impl Layout {
    pub(super) fn count(&self) -> u32 {
        merkle::chunk_count(self.len)
    }

    pub(super) fn chunk_at(&self, index: u32) -> u64 {
        BYTES_AT + u64::from(index) * CHUNK_LEN as u64
    }

    pub(super) fn node_at(&self, number: u32) -> u64 {
        BYTES_AT + self.len + u64::from(number) * 32
    }

    pub(super) fn bits_at(&self) -> u64 {
        self.node_at(merkle::node_count(self.count()))
    }

    /// How long the file is in the end.
    pub(super) fn file_len(&self) -> u64 {
        file_len(self.len)
    }

    pub(super) fn header(&self, id: &BlobId) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..40].copy_from_slice(id.as_bytes());
        header[40..48].copy_from_slice(&self.len.to_be_bytes());
        header[48..80].copy_from_slice(&self.root);
        let checksum = crc32c::crc32c(&header[..80]);
        header[80..].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    /// Decodes the header of the file; `None` if it is not the file of this blob, or damaged.
    pub(super) fn read(file: &dyn DirectoryFile, id: &BlobId) -> io::Result<Option<Layout>> {
        let mut header = [0; HEADER_LEN];
        file.read_at(0, &mut header)?;
        let (Ok(len), Ok(root)) = (header[40..48].try_into(), header[48..80].try_into()) else {
            return Ok(None);
        };
        let layout = Layout { len: u64::from_be_bytes(len), root };
        let is_ours = layout.header(id) == header
            && layout.len <= BLOB_LEN_MAX
            && BlobId::new(layout.len, &layout.root) == *id;
        Ok(is_ours.then_some(layout))
    }

    /// The chunks whose bits are set.
    pub(super) fn read_bits(&self, file: &dyn DirectoryFile) -> io::Result<ChunkSet> {
        let count = self.count();
        let mut bits = vec![0; count.div_ceil(8) as usize];
        let read = file.read_at(self.bits_at(), &mut bits)?;
        Ok(ChunkSet::from_bytes(count, &bits[..read]))
    }
}

/// How long the file of a blob of `len` bytes is.
pub(super) fn file_len(len: u64) -> u64 {
    let count = merkle::chunk_count(len);
    BYTES_AT + len + u64::from(merkle::node_count(count)) * 32 + u64::from(count.div_ceil(8))
}

pub(super) fn file_name(id: &BlobId) -> String {
    format!("{id}{SUFFIX}")
}

/// The blob that a file of this name is of.
pub(super) fn id_of(name: &str) -> Option<BlobId> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}
