//! A key-value store to embed: linearizable keyspaces over Raft and an always writable CRDT store, on one
//! node or many.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use x0_kv::{Expect, RangeQuery, Store};
//!
//! let store = Store::open_in_memory();
//! let revision = store.put("config/mode", "eco").wait()?;
//! store.compare_and_swap("config/mode", Expect::Revision(revision), "fast").wait()?;
//! assert_eq!(store.get("config/mode").wait()?.unwrap().value, "fast");
//! assert_eq!(store.range(RangeQuery::prefix("config/")).wait()?.entries.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Glossary
//! - **Store**: the linearizable store, [`Store`]. All writes have one order, that of the log.
//! - **CRDT store**: the always writable store beside it, `crdt::CrdtStore`. Members converge; there is no
//!   common order.
//! - **Keyspace**: a named, isolated set of keys of either store: [`Keyspace`]. The default keyspace has no
//!   name.
//! - **Operation**, **outcome**: a request to a store and its answer, [`Operation`] and [`Outcome`]. A
//!   **query** reads, a **mutation** writes.
//! - **Revision**: the log index of the write that set a value, [`Revision`]. **Timestamp**: the time of a
//!   write in a CRDT store.
//! - **Command**: the payload of a log entry, [`Command`]. **Request id**: session and number of a write,
//!   [`RequestId`], by which a retried write is applied once. **Session**: what the state remembers of one
//!   client for that purpose.
//! - **State**: the replicated state machine, [`State`]. **Applied index**: the index of the last log entry
//!   that is part of it.
//! - **Storage engine**: what holds the entries of a state, [`Engine`]. **Layer**: writes in memory above the
//!   base of a storage engine. **Checkpoint**: a transaction that moves layers into the redb file.
//! - **Snapshot**: the state at one applied index: as a stream of bytes for other members, or held in memory
//!   for a **scan**.
//! - **Coordinator**: the protocol engine that brings operations to the leader and their answers back,
//!   [`Coordinator`](coordinator::Coordinator).
//! - **Entry**: a key with its value, its revision and the checksum of all three. **Scrub**: verifying all
//!   entries in the background.
//!
//! # Structure
//! [`Store`] and [`Keyspace`] are handles. They check an operation against the [`limits`] and submit it to an
//! embedded replica, a node of a cluster or a client. A [`Pending`] answer is a future and can be waited for.
//! [`OperationError`] says whether a write may have been applied. [`State`] is deterministic: the same log
//! gives the same outcomes and the same snapshot in either storage engine. A [`Reader`] reads it from any
//! thread, and [`verify`] verifies it.
//!
//! # Formats
//! Commands, outcomes, snapshots and the redb file each carry a version. A version that a replica does not
//! know is refused, alike on every replica. Every entry carries a CRC-32C over keyspace, revision, key and
//! value from the moment it is applied.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "mesh")]
pub mod admin;
#[cfg(feature = "blob")]
pub mod blob;
#[cfg(not(feature = "blob"))]
#[path = "blob/absent.rs"]
mod blob;
#[cfg(feature = "mesh")]
pub mod cluster;
pub mod coordinator;
#[cfg(feature = "crdt")]
pub mod crdt;
#[cfg(not(feature = "crdt"))]
#[path = "crdt/absent.rs"]
mod crdt;
/// Entries of the targets in `fuzz/`.
#[cfg(all(fuzzing, feature = "mesh", feature = "crdt"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(all(test, feature = "mesh"))]
mod recorded;
mod request;
#[cfg(feature = "mesh")]
mod scrub;
#[cfg(any(feature = "mesh", feature = "crdt", feature = "blob"))]
mod seed;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg_attr(
    not(all(feature = "mesh", feature = "redb")),
    allow(dead_code, reason = "a node measures it, and its engine and stores wait for it")
)]
mod space;
mod state;
mod store;
#[cfg(feature = "metrics")]
pub mod telemetry;
#[cfg(not(feature = "metrics"))]
mod telemetry;
pub mod trace;
pub mod verify;

pub use bytes::Bytes;
#[cfg(feature = "mesh")]
pub use cluster::{Client, ClientOptions};
#[cfg(feature = "crdt")]
pub use crdt::{CrdtOptions, CrdtStatus, CrdtStore};
pub use request::applied::{decode_applied, encode_applied};
pub use request::codec::DecodeError;
pub use request::command::{COMMAND_VERSION, Command, RequestId};
pub use request::error::{FailureCause, OperationError};
pub use request::keyspace::KeyspaceName;
pub use request::limits;
pub use request::member::{Member, MemberChange, Members};
pub use request::operation::{
    Action, Condition, Consistency, Expect, Mutation, Operation, Query, RangeQuery, SnapshotId, Transaction,
};
pub use request::outcome::{
    ActionResult, Applied, KeyValue, Outcome, Page, Refusal, ScanPage, Swap, TransactionOutcome, Versioned,
};
pub use request::pending::Pending;
pub use request::revision::Revision;
pub use request::watch::{Changes, WATCH_KEYS_MAX, Watch};
#[cfg(feature = "sim")]
pub use sim::linearizability;
pub use state::State;
#[cfg(feature = "redb")]
pub use state::durable::RedbOptions;
pub use state::engine::Engine;
pub use state::snapshot::{RestoreError, SNAPSHOT_VERSION};
pub use state::storage::entry::{DamagedEntry, Place};
pub use state::storage::{EngineError, ReadError, Reader};
pub use store::Store;
pub use store::embedded::{OpenError, StoreOptions};
pub use store::keyspace::Keyspace;
pub use store::scan::{BlockingScan, Scan};

/// Compiles the code of README.md.
#[cfg(all(doctest, feature = "crdt", feature = "blob"))]
#[doc = include_str!("../README.md")]
struct Readme;
