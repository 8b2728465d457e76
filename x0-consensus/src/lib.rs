//! Raft made whole: a replicated log with durable storage, snapshots, membership and drivers.
//!
//! - [`Replica`] is the engine: one member of a group, around the `raft` crate. It owns no socket, file, clock, thread or randomness; it
//!   is told what happens ([`Input`]) and says what is to be done ([`Output`]).
//! - [`Storage`] is the seam below it: the log, the vote and the snapshot of one node. [`Wal`] is the durable one, a write-ahead log in
//!   checksummed segments over a [`Directory`]; [`MemoryStorage`] forgets.
//! - [`StateMachine`] is the seam above it: what the log is for.
//! - [`local`] and `tokio` (feature of that name) are the drivers, which carry out what the engine wants and decide nothing. Both give a
//!   [`Handle`]; messages leave by an [`Outbox`], what happens is told to an [`Observer`].
//! - `sim` (feature) is a disk that forgets, tears and fails on command; `conformance` (feature) holds a storage to its contract.
//!
//! Begin with [`local`], which has the smallest whole program; `examples/counter.rs` is a group of three that outlives its leader.
//!
//! # What it does
//! Pre-vote and check-quorum, so that a node that was cut off disturbs nobody; learners and joint consensus; linearizable reads by a
//! `ReadIndex` round that all waiting reads share; leadership transfer; snapshots streamed in acknowledged pieces, beside the messages
//! and not in their way; proposals batched, appended and replicated in parallel, with bounds on everything that waits. Election times are
//! drawn from a seed, so that a simulation is repeated bit for bit.
//!
//! There are no lease reads: they need a clock with a bounded error. `ReadIndex` is what linearizable reads use.
//!
//! # The advisories of its dependencies
//! `raft` 0.7, the newest there is, brings two crates with advisories. Neither is in reach of a peer:
//!
//! - RUSTSEC-2024-0437 (`protobuf` 2: a message can drive its decoder into unbounded recursion). What comes from a network or a disk is
//!   read by this crate's own codec, which fills `raft`'s structs field by field and bounds every length. The one message that `raft`
//!   parses as protobuf is a membership change that this very process has just made.
//! - RUSTSEC-2025-0057 (`fxhash` is unmaintained, and its hashes can be made to collide). `raft` hashes member ids, of which a group has
//!   at most 128, and the numbers of read rounds; a peer chooses neither.
//!
//! `raft` ends some impossible situations with a panic. What a peer sends is checked before it gets there, and should one happen
//! nevertheless the replica stops with an error, and not the process.
#![forbid(unsafe_code)]

mod codec;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
pub mod driver;
mod entry;
mod membership;
mod memory;
mod replica;
#[cfg(feature = "sim")]
pub mod sim;
mod state_machine;
mod storage;
pub mod telemetry;
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
