//! A replicated key-value store to embed: linearizable keyspaces over Raft, one node or many.

mod applied;
mod codec;
mod command;
mod dispatch;
mod engine;
mod error;
pub mod limits;
mod operation;
mod outcome;
mod pending;
mod session;
mod snapshot;
mod state;
mod store;
#[cfg(feature = "metrics")]
pub mod telemetry;
#[cfg(not(feature = "metrics"))]
mod telemetry;
mod volatile;

pub use applied::{decode_applied, encode_applied};
pub use bytes::Bytes;
pub use codec::DecodeError;
pub use command::{COMMAND_VERSION, Command, KEYSPACE_DEFAULT, Stamp};
pub use engine::{EngineError, Reader};
pub use error::OperationError;
pub use operation::{
    Action, Condition, Consistency, Expect, Mutation, Operation, Query, RangeQuery, Transaction,
};
pub use outcome::{
    ActionResult, Applied, KeyValue, Outcome, Page, Refusal, Swap, TransactionOutcome, Versioned,
};
pub use pending::Pending;
pub use snapshot::{RestoreError, SNAPSHOT_VERSION};
#[cfg(feature = "redb")]
pub use state::RedbOptions;
pub use state::State;
pub use store::Store;
