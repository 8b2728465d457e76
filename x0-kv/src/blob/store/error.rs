//! Errors of the files of blobs.

use std::io;

use crate::blob::{BLOB_LEN_MAX, BlobId};

/// Why a folder of blobs was not opened. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobOpenError {
    /// Another process uses the folder.
    #[error("the folder {folder} is in use: stop the other process, or choose another folder")]
    InUse {
        /// The folder.
        folder: String,
    },
    /// The system refused.
    #[error("cannot open the blobs in {file}: {source}")]
    Io {
        /// The folder or the file concerned.
        file: String,
        /// The cause.
        source: io::Error,
    },
}

/// Why a blob, or a chunk of one, was not written or removed. All blobs that were held before are held still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobWriteError {
    /// The source of the bytes could not be read. Nothing was added.
    #[error("cannot read what is to be added: {source}")]
    Source {
        /// The cause.
        source: io::Error,
    },
    /// There is no room for it. Nothing was added.
    #[error("the blob needs {needed} bytes where {used} of {max} are used: remove blobs, or allow more")]
    Full {
        /// Bytes needed, of file.
        needed: u64,
        /// Bytes used, of files.
        used: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The blob is longer than the limit. Nothing was added.
    #[error("the blob is longer than {BLOB_LEN_MAX} bytes: split it")]
    TooLong,
    /// Too many are held in part already. Nothing was begun.
    #[error("{max} blobs are held in part already: finish or remove some, or allow more")]
    TooManyPartial {
        /// How many are allowed.
        max: usize,
    },
    /// The blob is not held, not even in part.
    #[error("the blob {id} is not held: begin it first")]
    NotHeld {
        /// Which blob.
        id: BlobId,
    },
    /// The bytes are not those that the name stands for. Nothing was kept.
    #[error("these bytes are not of blob {id}: get them elsewhere")]
    Wrong {
        /// Which blob.
        id: BlobId,
    },
    /// The store has stopped. Nothing was done.
    #[error("the store is closed")]
    Closed,
    /// The disk refused. What was being written may be there in part, and is not relied on.
    #[error("cannot write the file {file} of a blob: {source}")]
    Io {
        /// The file concerned.
        file: String,
        /// The cause.
        source: io::Error,
    },
}

/// Why a blob was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobReadError {
    /// The blob is not held, not even in part.
    #[error("the blob {id} is not held: fetch it first")]
    NotHeld {
        /// Which blob.
        id: BlobId,
    },
    /// This part of it is not held.
    #[error("chunk {index} of the blob {id} is not held: fetch the blob first")]
    Missing {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
    },
    /// The bytes on the disk differ from those that were written. The chunk counts as missing from now on.
    #[error(
        "chunk {index} of the blob {id} was damaged on the disk: fetch the blob again, and look after the disk"
    )]
    Damaged {
        /// Which blob.
        id: BlobId,
        /// Which chunk.
        index: u32,
    },
    /// The store has stopped.
    #[error("the store is closed")]
    Closed,
    /// The disk refused. Nothing changed.
    #[error("cannot read the file {file} of a blob: {source}")]
    Io {
        /// The file concerned.
        file: String,
        /// The cause.
        source: io::Error,
    },
}
