//! Snapshots as streams.

use std::io;

use crate::entry::SnapshotMeta;

use super::SnapshotWriteError;

/// Receives the bytes of a snapshot (`io::Write`) and makes them durable at the end. A writer that is dropped
/// before that leaves nothing on the disk.
///
/// An error of `io::Write` discards the whole snapshot: drop the writer. [`io::ErrorKind::StorageFull`] means
/// that the disk is full. The log is unchanged in any case.
pub trait SnapshotWriter: io::Write + Send {
    /// The number of bytes received so far.
    fn len_bytes(&self) -> u64;

    /// Makes the snapshot durable, so that [`Write::snapshot`](super::Write::snapshot) may adopt it. A
    /// snapshot that is not adopted is removed by a restart.
    ///
    /// # Errors
    /// The snapshot is discarded; the log is unchanged.
    fn finish(self: Box<Self>) -> Result<(), SnapshotWriteError>;
}

/// Reads the bytes of a snapshot from any offset (`io::Seek`), so that a broken transfer can be resumed.
///
/// Bytes are verified before they are returned: damage is an [`io::ErrorKind::InvalidData`] that names the
/// file and the offset.
pub trait SnapshotReader: io::Read + io::Seek + Send {
    /// The state that the snapshot holds.
    fn meta(&self) -> &SnapshotMeta;

    /// The length of the snapshot, in bytes.
    fn len_bytes(&self) -> u64;
}
