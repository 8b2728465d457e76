//! Placeholder while the workspace is laid.

mod entry;
mod memory;
mod storage;

pub use entry::{Entry, EntryKind, HardState, LogBase, Membership, SnapshotMeta};
pub use memory::MemoryStorage;
pub use storage::{
    ReadError, RecoverError, Recovered, SnapshotReadError, SnapshotReader, SnapshotWriteError,
    SnapshotWriter, Storage, TermRun, Write, WriteError,
};
