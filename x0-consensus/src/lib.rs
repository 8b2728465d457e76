//! Placeholder while the workspace is laid.

#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod entry;
mod memory;
#[cfg(feature = "sim")]
pub mod sim;
mod storage;
mod wal;

pub use directory::{Directory, DirectoryFile, DirectoryLock, FsDirectory};
pub use entry::{Entry, EntryKind, HardState, LogBase, Membership, SnapshotMeta};
pub use memory::MemoryStorage;
pub use storage::{
    ReadError, RecoverError, Recovered, SnapshotReadError, SnapshotReader, SnapshotWriteError,
    SnapshotWriter, Storage, TermRun, Write, WriteError,
};
pub use wal::{Wal, WalConfig};
