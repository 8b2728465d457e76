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
//! - [`BlobRef`] is the value in a keyspace: id, length, media type and provenance of a blob, in at most
//!   [`BlobRef::LEN_MAX`] bytes.
//! - [`BlobStore`] is a folder of blobs. It holds whole blobs and blobs of which some chunks are missing.
//! - [`BlobExchange`] is the protocol engine that fetches blobs from other nodes and serves the node's own.
//!   It does no I/O.
//! - [`Blobs`] joins the two on a thread, behind [`Store::blobs`](crate::Store::blobs): in a node of a
//!   cluster (feature `mesh`) over `Lane::Bulk`, in an embedded store without peers to fetch from.
//!
//! # The method
//! A blob is cut into chunks of [`CHUNK_LEN`] bytes, which are the leaves of a Merkle tree (RFC 9162 §2.1.1,
//! SHA-256). Its [`BlobId`] is a hash of the root and the length.
//!
//! A member that fetches a blob asks the others which chunks they hold. Their answer contains length and
//! root, which the id proves. Then it requests chunks of several members at once. A chunk comes with the
//! hashes of its Merkle path, and is written only if the path leads to the root. So each wrong chunk is
//! recognised by itself: its sender is reported and not asked again for this blob.
//!
//! A bit for each chunk on disk says whether it is held. A fetch continues from there after a restart, and
//! other members can fetch the chunks that are held already.
//!
//! # Costs
//! - Network: about 45 bytes for each chunk and 32 for each level of the tree, and a request of about 40
//!   bytes for up to 8 chunks. Measured with the answers about availability: 208 bytes received and 26 sent
//!   for each chunk of a blob of 8 MiB, 363 and 41 of one of 256 MiB, that is 0.15 %.
//! - Disk: 4 KiB for each blob, and 64 bytes and a bit for each chunk. Chunks that arrive together share one
//!   fsync.
//! - Memory: while fetching at most [`ExchangeOptions::asked_max`] chunks, 8 MiB unless set otherwise; while
//!   adding one chunk, and 96 bytes for each chunk.
//!
//! # Limits A blob has at most [`BLOB_LEN_MAX`] bytes. The id proves content and length, but not the media
//! type and provenance in a reference. Blobs are not encrypted on disk. Any peer that the transport accepts
//! can fetch a blob whose id it knows. A node removes no blob by itself: the application removes those to
//! which no key refers.

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
    BlobExchange, ExchangeInput, ExchangeOptions, ExchangeOutput, ExchangeTotals, FetchFailure, Misbehavior,
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

/// The length of every chunk but the last, in bytes. Part of the format.
pub const CHUNK_LEN: usize = 256 << 10;
/// The longest blob, in bytes.
pub const BLOB_LEN_MAX: u64 = 64 << 30;

/// Opens the folder `blobs` in `folder` for an embedded store, which has no peers. `None` without options.
pub(crate) fn open_embedded(
    folder: &std::path::Path,
    options: Option<&BlobOptions>,
) -> Result<Option<Blobs>, BlobOpenError> {
    let start =
        |options: &BlobOptions| Blobs::start(folder, options.clone(), crate::seed::random_seed(), None);
    options.map(start).transpose()
}
