//! The metrics of a driver, with the feature `metrics`.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_consensus_term` | gauge | – | the term |
//! | `x0_consensus_is_leader` | gauge | – | 1 while this replica is the leader, else 0; the sum over all members should be 1 |
//! | `x0_consensus_voters` | gauge | – | the voters, in a joint change those of both sides |
//! | `x0_consensus_is_voter` | gauge | – | 1 while this replica is a voter, in a joint change of either side, else 0 |
//! | `x0_consensus_last_index` | gauge | – | the last index of the log |
//! | `x0_consensus_commit_index` | gauge | – | the last index known to be committed |
//! | `x0_consensus_applied_index` | gauge | – | the last index that the state machine has applied |
//! | `x0_consensus_leader_changes_total` | counter | – | changes of the known leader or the term |
//! | `x0_consensus_dropped_total` | counter | – | proposals, reads and changes that were dropped |
//! | `x0_consensus_commit_seconds` | histogram | – | from the proposal of a command to its commit, on the leader that proposed it |
//! | `x0_consensus_apply_seconds` | histogram | – | the time of one batch of committed entries in the state machine |
//! | `x0_consensus_election_seconds` | histogram | – | from the loss of the known leader, or the start, to the next known leader |
//! | `x0_consensus_follower_lag_entries` | gauge | `peer`: the id of a member | entries of the leader's log that the member has not made durable; NaN on a replica that is not the leader, and of a former member |
//! | `x0_consensus_log_bytes` | gauge | – | bytes of the segments of the log (`Wal`), as of the last write |
//! | `x0_consensus_log_writes_total` | counter | – | writes made durable |
//! | `x0_consensus_log_entries_total` | counter | – | entries in them |
//! | `x0_consensus_log_write_seconds` | histogram | – | the time of one group of writes, with its synchronisation |
//! | `x0_consensus_sent_bytes_total` | counter | – | bytes of messages handed to the outbox |
//! | `x0_consensus_congested_total` | counter | – | messages that the outbox dropped |
//! | `x0_consensus_snapshots_total` | counter | `way`: sent, received, saved | snapshots started: for a member that lags, from the leader, of the own state |
//! | `x0_consensus_snapshot_seconds` | histogram | `way`: sent, received, saved | from the opening of a snapshot to its last chunk |
//! | `x0_consensus_snapshot_bytes_total` | counter | `way`: sent, received | bytes of snapshots read for members, and of the leader's snapshot staged |
//!
//! `log_write_seconds` includes the synchronisation (fsync), and is nearly all of it. The number of series is
//! bounded: `peer` is a member of the group.
//!
//! Install a recorder before a driver is started: handles that were made earlier record nothing. Several
//! replicas of one process share these names, and their gauges overwrite each other.

#[cfg(feature = "metrics")]
mod describe;
#[cfg(feature = "metrics")]
mod recorded;
#[cfg(not(feature = "metrics"))]
mod silent;
#[cfg(feature = "metrics")]
mod workers;

#[cfg(feature = "metrics")]
pub use self::describe::describe;
#[cfg(feature = "metrics")]
pub(crate) use self::recorded::DriverTelemetry;
#[cfg(not(feature = "metrics"))]
pub(crate) use self::silent::{ApplyTelemetry, DriverTelemetry, LogTelemetry, SnapshotTelemetry};
#[cfg(feature = "metrics")]
pub(crate) use self::workers::{ApplyTelemetry, LogTelemetry, SnapshotTelemetry};
