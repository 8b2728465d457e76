//! A key-value store to embed: linearizable keys and values over Raft, on one node or many.
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
//! # The parts
//! - [`Store`] is what a program holds. It returns [`Pending`] answers, which are futures and can be waited for.
//! - [`Operation`] is what is asked, [`Outcome`] what is answered, [`OperationError`] why there is no answer and whether the write may
//!   have happened nevertheless. All are bounded by [`limits`].
//! - [`Command`] is the payload of a log entry. Its [`RequestId`] names a client's session, so that a retried write is applied once.
//! - A [`Coordinator`](coordinator::Coordinator) brings operations to the leader and their answers back: sessions, retries, shared reads.
//! - [`State`] is the state machine that the log drives: deterministic, in memory or over a redb file (feature `redb`). A [`Reader`]
//!   reads it from any thread.
//! - With the feature `crdt` there are keyspaces that can always be written, with `blob` values of any length beside them: the modules of
//!   these names.
//!
//! # Revisions
//! Each value carries the log index of the write that set it. A later write of any key has a greater one, so that
//! [`Expect::Revision`] tells whether a key was written since.
//!
//! # Formats
//! Commands, outcomes, snapshots and the redb file each carry a version, and writes carry the number of their keyspace, of which there
//! is one so far. What a version does not know it refuses, alike on every replica.

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
mod request;
#[cfg(any(feature = "mesh", feature = "crdt", feature = "blob"))]
mod seed;
#[cfg(feature = "sim")]
pub mod sim;
mod state;
mod store;
#[cfg(feature = "metrics")]
pub mod telemetry;
#[cfg(not(feature = "metrics"))]
mod telemetry;
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
