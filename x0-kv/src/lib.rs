//! A replicated key-value store to embed: linearizable keyspaces over Raft, one node or many.

mod applied;
mod codec;
mod command;
mod error;
pub mod limits;
mod operation;
mod outcome;

pub use applied::{decode_applied, encode_applied};
pub use bytes::Bytes;
pub use codec::DecodeError;
pub use command::{COMMAND_VERSION, Command, KEYSPACE_DEFAULT, Stamp};
pub use error::OperationError;
pub use operation::{
    Action, Condition, Consistency, Expect, Mutation, Operation, Query, RangeQuery, Transaction,
};
pub use outcome::{
    ActionResult, Applied, KeyValue, Outcome, Page, Refusal, Swap, TransactionOutcome, Versioned,
};
