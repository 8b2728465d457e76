//! Metrics of this crate, reported through the `metrics` facade with the feature `metrics`.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_kv_operations_total` | counter | `store`: linearizable, crdt; `kind`: the operation, such as get, put or transaction | operations submitted to a store |
//! | `x0_kv_operation_seconds` | histogram | `kind`: read, write; `consistency`: linearizable, local, crdt | from the submission of an operation to its answer, failed ones included: of callers on this node, and from the arrival of requests of clients and members that this node answered (an operation that a member forwards is counted at both) |
//! | `x0_kv_operation_errors_total` | counter | `kind`: read, write; `error`: the variants of [`OperationError`](crate::OperationError) in snake case | operations that ended in an error |
//! | `x0_kv_operations_waiting` | gauge | – | operations of callers on this node, and requests of other nodes and clients, that are not answered yet |
//! | `x0_kv_redirects_total` | counter | – | operations sent again to the leader that another node had named |
//! | `x0_kv_watches` | gauge | – | watches that are held |
//! | `x0_kv_commands_total` | counter | `result`: applied, repeated, refused | commands of the log that reached the state machine |
//! | `x0_kv_applied_index` | gauge | – | log index of the last entry applied |
//! | `x0_kv_sessions` | gauge | – | client sessions remembered |
//! | `x0_kv_sessions_expired_total` | counter | – | client sessions that were forgotten to make room for others |
//! | `x0_kv_overlay_bytes` | gauge | – | writes in memory that are not in a checkpoint yet (redb) |
//! | `x0_kv_checkpoints_total` | counter | – | checkpoints made durable (redb) |
//! | `x0_kv_checkpoint_seconds` | histogram | – | time to write one checkpoint (redb) |
//! | `x0_kv_refused_messages_total` | counter | `channel`: the name of the channel | messages refused because of the role of their sender |
//! | `x0_kv_crdt_joins_total` | counter | – | deltas of other members that were joined (CRDT store, as are those below) |
//! | `x0_kv_crdt_conflicts_total` | counter | `type` | `values`: keys that got concurrent values; `removal`: keys whose value stays although a concurrent removal had not seen it; `equivocation`: events received with two contents |
//! | `x0_kv_crdt_divergences_total` | counter | – | times that a member with the same events had other contents |
//! | `x0_kv_crdt_reconciliations_total` | counter | – | states reconciled because the history did not reach far enough back |
//! | `x0_kv_crdt_sent_bytes_total` | counter | – | bytes sent to other members |
//! | `x0_kv_crdt_received_bytes_total` | counter | – | bytes received from them |
//! | `x0_kv_crdt_redundant_bytes_total` | counter | – | received bytes that were already known |
//! | `x0_kv_crdt_refused_total` | counter | – | datagrams that were malformed or did not fit |
//! | `x0_kv_crdt_renewals_total` | counter | – | times that a member had events of this node that its folder lacks, so that it went on as a fresh incarnation: alert on any |
//! | `x0_kv_crdt_key_mismatches` | gauge | – | members with another hash key: alert on any |
//! | `x0_kv_crdt_keys` | gauge | – | keys that have a value |
//! | `x0_kv_crdt_stability_lag_events` | gauge | – | events remembered because not all members are known to have seen them |
//! | `x0_kv_crdt_pending_bytes` | gauge | – | bytes of incomplete transfers |
//! | `x0_kv_blob_chunks_total` | counter | `what`: received, served, refused | chunks of blobs stored, sent, and refused because they were wrong, unreadable or too many |
//! | `x0_kv_blob_received_bytes_total` | counter | – | bytes of blob messages received |
//! | `x0_kv_blob_sent_bytes_total` | counter | – | bytes of blob messages sent |
//! | `x0_kv_blob_redundant_bytes_total` | counter | – | bytes of chunks that were not needed any more |
//! | `x0_kv_blob_pending_bytes` | gauge | – | bytes of chunks in memory |
//! | `x0_kv_blob_stored_bytes` | gauge | – | bytes of blob files |
//! | `x0_kv_blobs` | gauge | `held`: whole, partial | blobs stored |
//! | `x0_kv_disk_free_bytes` | gauge | – | free space on the disk of a node, as it was when a condition changed last |
//! | `x0_kv_disk_short` | gauge | – | 1 while the node refuses writes for lack of space |
//! | `x0_kv_folders_set_aside_total` | counter | – | times that damaged files of a data folder were set aside |
//! | `x0_kv_scrub_passes_total` | counter | – | passes of the scrub that this node completed as the leader |
//! | `x0_kv_scrub_entries_total` | counter | – | entries verified by the scrub |
//! | `x0_kv_scrub_damaged_total` | counter | – | damaged entries found |
//! | `x0_kv_scrub_repaired_total` | counter | – | damaged entries replaced by those of another member |
//! | `x0_kv_scrub_diverged_total` | counter | – | ranges that differ from those of the majority |
//!
//! Install a recorder before opening a store: a handle that was made earlier never reports.

#[cfg(feature = "blob")]
mod blob;
#[cfg_attr(not(feature = "redb"), allow(dead_code, reason = "only a base in a file has checkpoints"))]
mod checkpoint;
#[cfg(feature = "crdt")]
mod crdt;
#[cfg(feature = "metrics")]
mod describe;
#[cfg(not(feature = "metrics"))]
mod disabled;
#[cfg(feature = "mesh")]
mod mesh;
mod operation;
mod state;
mod store;

#[cfg(feature = "blob")]
pub(crate) use self::blob::BlobTelemetry;
#[cfg_attr(
    not(feature = "redb"),
    allow(unused_imports, reason = "only a base in a file has checkpoints")
)]
pub(crate) use self::checkpoint::CheckpointTelemetry;
#[cfg(feature = "crdt")]
pub(crate) use self::crdt::{CrdtStoreTelemetry, CrdtTelemetry};
#[cfg(feature = "metrics")]
pub use self::describe::describe;
#[cfg(feature = "mesh")]
pub(crate) use self::mesh::{
    FolderTelemetry, HealthTelemetry, RedirectTelemetry, RefusedTelemetry, ServingTelemetry,
};
pub(crate) use self::operation::{AnswerTimer, OperationKind, OperationTelemetry, WatchTelemetry};
pub(crate) use self::state::{CommandResult, StateTelemetry};
pub(crate) use self::store::StoreTelemetry;

/// The facade, or types and macros of the same names that do nothing and compile to nothing.
mod facade {
    #[cfg(not(feature = "metrics"))]
    pub(super) use super::disabled::*;
    #[cfg(feature = "metrics")]
    pub(super) use metrics::*;
}

/// Whether anything is reported, so that a status that is only gathered for the metrics is not gathered
/// without them.
pub(crate) const IS_ENABLED: bool = cfg!(feature = "metrics");

#[cfg(test)]
mod tests;
