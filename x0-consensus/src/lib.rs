//! Raft made whole: a replicated log with durable storage, snapshots, membership and drivers.
//!
//! - [`Replica`] is the protocol engine: one member of a group, around the `raft` crate. It owns no socket,
//!   file, clock, thread or random source. It receives [`Input`]s and returns [`Output`]s.
//! - [`Storage`] is the seam below it: the log, the vote and the snapshot of one node. [`Wal`] is the durable
//!   implementation, a write-ahead log in checksummed segments over a [`Directory`]; [`MemoryStorage`] keeps
//!   everything in memory.
//! - [`StateMachine`] is the seam above it: the application that the log drives.
//! - [`driver`] has the [`Executor`](driver::Executor), which turns outputs into jobs, and the drivers that
//!   run these jobs: [`local`] on one thread, `tokio` (feature of that name) on a runtime,
//!   [`Pump`](driver::Pump) inside an event loop. [`local`] and `tokio` return a [`Handle`]; they send
//!   messages through an [`Outbox`] and report events to an [`Observer`].
//! - `sim` (feature) is a disk in memory with planted faults; `conformance` (feature) checks an
//!   implementation of [`Storage`].
//!
//! Start with [`local`], which has the smallest whole program. `examples/counter.rs` is a group of three that
//! survives the loss of its leader.
//!
//! # Features of the protocol
//! - Pre-vote and check-quorum: a node that was cut off does not disturb the group when it returns.
//! - Learners, and changes of the membership by joint consensus.
//! - Linearizable reads by `ReadIndex` rounds, each shared by all reads that wait.
//! - Leadership transfer.
//! - Snapshots streamed in acknowledged chunks, beside the messages of Raft and not in their way.
//! - Proposals that are batched, appended and replicated in parallel, with a bound on everything that waits.
//! - Election timeouts drawn from a seed, so that a simulation is repeated bit for bit.
//!
//! There are no lease reads: they need a clock with a bounded error.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | replica | one member of a group, with its log and its state machine |
//! | voter, learner | a member that votes and counts for commits; a member that only receives the log |
//! | leader, follower, candidate | the roles of Raft (Ongaro 2014, section 3.3) |
//! | term | a number that rises with each election; at most one leader per term |
//! | entry | one place of the log: an index, a term and a payload |
//! | command | an entry with a payload for the state machine |
//! | proposal | a command on its way into the log |
//! | token | the number by which a caller recognises the result of its request |
//! | outcome | the bytes that the state machine returns for a command |
//! | committed | durable on a majority: the entry is never lost |
//! | applied | passed to the state machine |
//! | base | the position before the first entry that a log still holds |
//! | hard state | term, vote and commit index: what a replica must keep over a restart |
//! | snapshot | the whole state of a state machine at one index, as a stream of bytes |
//! | transfer | one snapshot on its way: from a state machine to the storage, or from a leader to a follower |
//! | chunk | a piece of a snapshot in one message |
//! | staged, adopted | a snapshot that is durable but not in use; a snapshot that the storage restores from |
//! | checkpoint | the state machine makes its own state durable, so that the log can be shortened |
//! | effect, job | an output of the executor for its owner; an output for one of its workers |
//! | segment, record | one file of the write-ahead log; one atomic write in it |
//! | commit marker | a record without a body that proves that all bytes before it were durable |
//!
//! The commit marker of the write-ahead log is called `seal` in the code of that module.
//!
//! # The advisories of its dependencies
//! `raft` 0.7, the newest release, brings two crates with advisories. A peer can reach neither:
//!
//! - RUSTSEC-2024-0437 (`protobuf` 2: a message can drive its decoder into unbounded recursion). Bytes from a
//!   network or a disk are decoded by this crate's own codec, which fills `raft`'s structs field by field and
//!   bounds every length. `raft` parses only one message as protobuf: a membership change that this process
//!   has just encoded.
//! - RUSTSEC-2025-0057 (`fxhash` is unmaintained, and its hashes can be made to collide). `raft` hashes the
//!   ids of members, of which a group has at most 128, and the numbers of read rounds. A peer chooses
//!   neither.
//!
//! `raft` ends some impossible situations with a panic. Messages are validated before `raft` sees them. If it
//! panics nevertheless, the replica stops with an error, and not the process.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
pub mod driver;
mod entry;
mod membership;
mod memory;
mod options;
#[cfg_attr(not(feature = "sim"), expect(unreachable_pub, reason = "public in the module `sim`"))]
mod random;
mod replica;
#[cfg(feature = "sim")]
pub mod sim;
mod state_machine;
mod storage;
pub mod telemetry;
pub mod trace;
mod wal;

pub use bytes::Bytes;
pub use codec::{DecodeError, MESSAGE_LEN_MAX, MESSAGE_VERSION, PAYLOAD_LEN_MAX};
pub use directory::{Directory, DirectoryFile, DirectoryLock, Fingerprint, FsDirectory};
#[cfg(feature = "tokio")]
pub use driver::tokio;
pub use driver::{Congested, Event, FatalError, Handle, Observer, OpenError, Outbox, local};
pub use entry::{Entry, EntryKind, HardState, LogBase, Membership, Registration, SnapshotMeta};
pub use membership::MembershipChange;
pub use memory::MemoryStorage;
pub use options::Options;
pub use replica::{
    Acknowledged, Class, DropReason, FailReason, Fence, FencedRequest, HandleError, Input, MemberProgress,
    Output, Replica, Replication, StageStep, Standing, StartError, Status,
};
pub use state_machine::{StateMachine, StateMachineError};
pub use storage::{
    ReadError, RecoverError, Recovered, SnapshotReadError, SnapshotReader, SnapshotWriteError,
    SnapshotWriter, Storage, TermRun, Write, WriteError,
};
pub use wal::{Wal, WalOptions, WalReport};
pub use x0_identity::NodeId;

/// The versions of the messages between replicas that this release speaks. From version 2 on, messages may
/// have the trace contexts of entries. A driver negotiates a version with each peer, for instance with the
/// versions of a channel of x0-mesh, and reports it with [`Input::Negotiated`].
pub const PROTOCOL_VERSIONS: std::ops::RangeInclusive<u16> = 1..=CONTEXTS_PROTOCOL;
/// The version from which on messages may have trace contexts.
const CONTEXTS_PROTOCOL: u16 = 2;

/// The code of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
