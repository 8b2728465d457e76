//! Placeholder while the workspace is laid.

mod codec;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod driver;
mod entry;
mod membership;
mod memory;
mod replica;
#[cfg(feature = "sim")]
pub mod sim;
mod state_machine;
mod storage;
mod wal;

pub use bytes::Bytes;
pub use codec::{DecodeError, MESSAGE_LEN_MAX, MESSAGE_VERSION, PAYLOAD_LEN_MAX};
pub use config::Config;
pub use directory::{Directory, DirectoryFile, DirectoryLock, FsDirectory};
#[cfg(feature = "tokio")]
pub use driver::tokio;
pub use driver::{Congested, Event, FatalError, Handle, Observer, OpenError, Outbox, local};
pub use entry::{Entry, EntryKind, HardState, LogBase, Membership, SnapshotMeta};
pub use membership::MembershipChange;
pub use memory::MemoryStorage;
pub use replica::{
    Class, DropReason, FailReason, HandleError, Input, Output, Replica, StageStep, StartError, Status,
};
pub use state_machine::{StateMachine, StateMachineError};
pub use storage::{
    ReadError, RecoverError, Recovered, SnapshotReadError, SnapshotReader, SnapshotWriteError,
    SnapshotWriter, Storage, TermRun, Write, WriteError,
};
pub use wal::{Wal, WalConfig};
pub use x0_identity::NodeId;
