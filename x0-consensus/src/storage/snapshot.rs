//! Snapshots as streams.

use std::io;

use crate::entry::SnapshotMeta;

use super::SnapshotWriteError;

/// Takes the bytes of a snapshot (`io::Write`) and makes them durable at the end. Dropped before that, it
/// leaves nothing behind.
///
/// An error of `io::Write` discards the snapshot as a whole: drop the writer. [`io::ErrorKind::StorageFull`]
/// tells a full disk. The log itself is untouched by any of it.
pub trait SnapshotWriter: io::Write + Send {
    /// How many bytes were taken so far.
    fn len_bytes(&self) -> u64;

    /// Makes the snapshot durable, so that [`Write::snapshot`](super::Write::snapshot) may adopt it. Without
    /// that it is gone after a restart.
    ///
    /// # Errors
    /// The snapshot is discarded; the log is untouched.
    fn finish(self: Box<Self>) -> Result<(), SnapshotWriteError>;
}

/// Gives the bytes of a snapshot, from any place on (`io::Seek`), so that a broken transfer can be resumed.
///
/// Bytes are verified before they are given: damage is an [`io::ErrorKind::InvalidData`] that names the file
/// and the offset.
pub trait SnapshotReader: io::Read + io::Seek + Send {
    /// Which state it holds.
    fn meta(&self) -> &SnapshotMeta;

    /// How many bytes there are in all.
    fn len_bytes(&self) -> u64;
}
