//! Blobs: values too large for a keyspace, named by their content.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use x0_kv::blob::{BlobRef, BlobStore, BlobStoreOptions};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path();
//! let store = BlobStore::open(path, BlobStoreOptions::default())?;
//! let adapter = vec![7; 3 << 20];
//! let mut reference = store.add(&adapter[..])?; // any `Read`; never held in memory as a whole
//! reference.media_type = "application/octet-stream".into();
//! let value = reference.encode()?; // what a keyspace holds
//!
//! let reference = BlobRef::decode(&value)?;
//! assert_eq!(store.read(&reference.id)?, adapter);
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//! - [`BlobRef`] is what a keyspace holds: name, length, media type, provenance; at most [`BlobRef::LEN_MAX`]
//!   bytes.
//! - [`BlobStore`] is a folder of blobs, whole ones and those of which only some chunks are held.
//! - [`BlobExchange`] is the engine that brings blobs from other nodes and serves one's own. It does no I/O.
//! - [`Blobs`] joins the two on a thread of its own, behind [`Store::blobs`](crate::Store::blobs): in a node
//!   of a cluster (feature `mesh`) over `Lane::Bulk`, in an embedded store without anybody to fetch from.
//!
//! # The method
//! A blob is cut into chunks of [`CHUNK_LEN`] bytes, over which stands a Merkle tree (RFC 9162 §2.1.1,
//! SHA-256). Its [`BlobId`] is a hash of the root and the length. A member that fetches asks the others what
//! they hold; the answer carries length and root, which the name proves. Then chunks are asked for, of
//! several members at once, each of which comes with the hashes beside its way to the root, and is handed to
//! the files only when that way leads there. A wrong one is recognised by itself: its sender is reported and
//! not asked again for this blob. What is held of a blob is on disk with a bit for each chunk, so that a
//! restart goes on where it was, and what is only partly held is served as well.
//!
//! # What it costs
//! On the way, beside the chunk: about 45 bytes and 32 for each level of the tree, and a request of about 40
//! bytes for up to 8 chunks. Measured with the answers to who holds what: 208 bytes received and 26 sent for
//! each chunk of a blob of 8 MiB, 363 and 41 of one of 256 MiB, that is 0.15 %. On disk: 4 KiB, and 64 bytes
//! and a bit for each chunk. In memory: at most [`ExchangeOptions::asked_max`] chunks while fetching, 8 MiB
//! unless set otherwise; while adding one chunk, and 96 bytes for each. A batch of chunks that arrive
//! together costs one fsync.
//!
//! # Limits
//! A blob is of at most [`BLOB_LEN_MAX`] bytes. What is said of it beside name and length is not part of the
//! name. Blobs are not encrypted on disk, any peer that the transport lets in can fetch a blob whose name it
//! knows, and nothing is removed by itself: a node removes what it no longer wants, for instance what no key
//! refers to.

mod chunks;
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "others are met over a mesh"))]
mod driver;
mod exchange;
mod fetch;
#[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "as the driver"))]
mod handle;
mod id;
mod merkle;
mod message;
mod reference;
mod store;
mod verify;

pub use self::chunks::ChunkSet;
#[cfg_attr(not(feature = "mesh"), allow(unused_imports, reason = "members are reached over a mesh"))]
pub(crate) use self::driver::{Event, SendMessage};
pub use self::exchange::{
    BlobExchange, ExchangeOptions, ExchangeTotals, FetchFailure, Input, Misbehavior, Output,
};
pub use self::fetch::{Fetch, FetchError, Progress};
pub use self::handle::{BlobOptions, BlobStatus, Blobs};
pub use self::id::{BlobId, BlobIdError};
pub use self::message::{Holding, MARK, MESSAGE_LEN_MAX, Piece};
pub use self::reference::{BlobRef, BlobRefError, Provenance};
pub use self::store::{
    BlobInfo, BlobOpenError, BlobReadError, BlobReader, BlobStore, BlobStoreOptions, BlobWriteError,
};
pub(crate) use self::verify::verify_in;

/// Length of every chunk but the last, in bytes. Part of the format.
pub const CHUNK_LEN: usize = 256 << 10;
/// Longest blob, in bytes.
pub const BLOB_LEN_MAX: u64 = 64 << 30;

/// The blobs in the folder `blobs` of `folder`, if there are to be any, for a node without others.
pub(crate) fn open_embedded(
    folder: &std::path::Path,
    options: Option<&BlobOptions>,
) -> Result<Option<Blobs>, BlobOpenError> {
    let start =
        |options: &BlobOptions| Blobs::start(folder, options.clone(), crate::seed::random_seed(), None);
    options.map(start).transpose()
}
