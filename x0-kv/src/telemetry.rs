//! What this crate tells about itself, with the feature `metrics`.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `x0_kv_operations_total` | counter | `kind`: get, range, put, delete, compare_and_swap, transaction | operations handed to a store |
//! | `x0_kv_commands_total` | counter | `result`: applied, repeated, refused | commands of the log that reached the state machine |
//! | `x0_kv_applied_index` | gauge | – | log index of the last entry applied |
//! | `x0_kv_sessions` | gauge | – | client sessions remembered |
//! | `x0_kv_overlay_bytes` | gauge | – | writes in memory that no checkpoint holds (redb) |
//! | `x0_kv_checkpoints_total` | counter | – | checkpoints made durable (redb) |
//! | `x0_kv_checkpoint_seconds` | histogram | – | how long one took to write (redb) |
//! | `x0_kv_crdt_joins_total` | counter | – | differences of other members taken in (CRDT keyspace, as are those below) |
//! | `x0_kv_crdt_conflicts_total` | counter | `type` | `values`: keys at which concurrent values came to stand beside each other; `removal`: keys at which a value stays beside a removal that had not seen it; `equivocation`: events that came with two contents |
//! | `x0_kv_crdt_reconciliations_total` | counter | – | states compared because history did not reach back |
//! | `x0_kv_crdt_sent_bytes_total` | counter | – | bytes sent to other members |
//! | `x0_kv_crdt_received_bytes_total` | counter | – | bytes received from them |
//! | `x0_kv_crdt_redundant_bytes_total` | counter | – | bytes among them that were there already |
//! | `x0_kv_crdt_refused_total` | counter | – | datagrams that were malformed or did not fit |
//! | `x0_kv_crdt_keys` | gauge | – | keys that hold something |
//! | `x0_kv_crdt_stability_lag_events` | gauge | – | events remembered because not all members are known to have seen them |
//! | `x0_kv_crdt_pending_bytes` | gauge | – | bytes of transfers that are not whole yet |
//! | `x0_kv_blob_chunks_total` | counter | `what`: received, served, refused | chunks of blobs kept, sent, and turned away because wrong, unreadable or too many |
//! | `x0_kv_blob_received_bytes_total` | counter | – | bytes of messages of the exchange of blobs received |
//! | `x0_kv_blob_sent_bytes_total` | counter | – | bytes of them sent |
//! | `x0_kv_blob_redundant_bytes_total` | counter | – | bytes of chunks that nobody waited for |
//! | `x0_kv_blob_pending_bytes` | gauge | – | bytes of chunks in memory, on their way to the disk or to others |
//! | `x0_kv_blob_stored_bytes` | gauge | – | bytes of the files of blobs |
//! | `x0_kv_blobs` | gauge | `held`: whole, partial | blobs held |
//!
//! Install a recorder before a store or state is made: handles made earlier stay silent for ever.

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge, counter, gauge};
#[cfg(all(feature = "metrics", feature = "redb"))]
use metrics::{Histogram, histogram};

use crate::request::operation::{Mutation, Operation, Query};

/// Tells the installed recorder what each name means.
#[cfg(feature = "metrics")]
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("x0_kv_operations_total", Unit::Count, "Operations handed to a store");
    describe_counter!("x0_kv_commands_total", Unit::Count, "Commands that reached the state machine");
    describe_gauge!("x0_kv_applied_index", Unit::Count, "Log index of the last entry applied");
    describe_gauge!("x0_kv_sessions", Unit::Count, "Client sessions remembered");
    describe_gauge!("x0_kv_overlay_bytes", Unit::Bytes, "Writes in memory that no checkpoint holds");
    describe_counter!("x0_kv_checkpoints_total", Unit::Count, "Checkpoints made durable");
    describe_histogram!("x0_kv_checkpoint_seconds", Unit::Seconds, "How long a checkpoint took to write");
    describe_counter!("x0_kv_crdt_joins_total", Unit::Count, "Differences of other members taken in");
    describe_counter!(
        "x0_kv_crdt_conflicts_total",
        Unit::Count,
        "What concurrent writers disagreed on, by type"
    );
    describe_counter!("x0_kv_crdt_reconciliations_total", Unit::Count, "States compared for want of history");
    describe_counter!("x0_kv_crdt_sent_bytes_total", Unit::Bytes, "Bytes sent to other members");
    describe_counter!("x0_kv_crdt_received_bytes_total", Unit::Bytes, "Bytes received from other members");
    describe_counter!(
        "x0_kv_crdt_redundant_bytes_total",
        Unit::Bytes,
        "Bytes received that were there already"
    );
    describe_counter!(
        "x0_kv_crdt_refused_total",
        Unit::Count,
        "Datagrams that were malformed or did not fit"
    );
    describe_gauge!("x0_kv_crdt_keys", Unit::Count, "Keys that hold something");
    describe_gauge!(
        "x0_kv_crdt_stability_lag_events",
        Unit::Count,
        "Events not known to be seen by all members"
    );
    describe_gauge!("x0_kv_crdt_pending_bytes", Unit::Bytes, "Bytes of transfers that are not whole yet");
    describe_counter!("x0_kv_blob_chunks_total", Unit::Count, "Chunks of blobs received, served, refused");
    describe_counter!(
        "x0_kv_blob_received_bytes_total",
        Unit::Bytes,
        "Bytes received by the exchange of blobs"
    );
    describe_counter!("x0_kv_blob_sent_bytes_total", Unit::Bytes, "Bytes sent by the exchange of blobs");
    describe_counter!(
        "x0_kv_blob_redundant_bytes_total",
        Unit::Bytes,
        "Bytes of chunks that nobody waited for"
    );
    describe_gauge!("x0_kv_blob_pending_bytes", Unit::Bytes, "Bytes of chunks in memory");
    describe_gauge!("x0_kv_blob_stored_bytes", Unit::Bytes, "Bytes of the files of blobs");
    describe_gauge!("x0_kv_blobs", Unit::Count, "Blobs held");
}

/// Counts what a store is asked.
#[derive(Clone)]
pub(crate) struct StoreTelemetry {
    #[cfg(feature = "metrics")]
    operations: [Counter; 6],
}

impl StoreTelemetry {
    pub(crate) fn new() -> StoreTelemetry {
        StoreTelemetry {
            #[cfg(feature = "metrics")]
            operations: ["get", "range", "put", "delete", "compare_and_swap", "transaction"]
                .map(|kind| counter!("x0_kv_operations_total", "kind" => kind)),
        }
    }

    #[inline]
    pub(crate) fn submitted(&self, operation: &Operation) {
        let kind = match operation {
            Operation::Read { query: Query::Get { .. }, .. } => 0,
            Operation::Read { query: Query::Range(_), .. } => 1,
            Operation::Write(Mutation::Put { .. }) => 2,
            Operation::Write(Mutation::Delete { .. }) => 3,
            Operation::Write(Mutation::CompareAndSwap { .. }) => 4,
            Operation::Write(Mutation::Transaction(_)) => 5,
        };
        #[cfg(feature = "metrics")]
        self.operations[kind].increment(1);
        #[cfg(not(feature = "metrics"))]
        let _: usize = kind;
    }
}

/// What became of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CommandResult {
    Applied,
    Repeated,
    Refused,
}

/// What a state machine does, gathered for a batch of entries and told at its end.
pub(crate) struct StateTelemetry {
    #[cfg(feature = "metrics")]
    commands: [Counter; 3],
    #[cfg(feature = "metrics")]
    batch: [u64; 3],
    #[cfg(feature = "metrics")]
    applied_index: Gauge,
    #[cfg(feature = "metrics")]
    sessions: Gauge,
    #[cfg(all(feature = "metrics", feature = "redb"))]
    overlay_bytes: Gauge,
}

impl std::fmt::Debug for StateTelemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateTelemetry").finish_non_exhaustive()
    }
}

impl StateTelemetry {
    pub(crate) fn new() -> StateTelemetry {
        StateTelemetry {
            #[cfg(feature = "metrics")]
            commands: ["applied", "repeated", "refused"]
                .map(|result| counter!("x0_kv_commands_total", "result" => result)),
            #[cfg(feature = "metrics")]
            batch: [0; 3],
            #[cfg(feature = "metrics")]
            applied_index: gauge!("x0_kv_applied_index"),
            #[cfg(feature = "metrics")]
            sessions: gauge!("x0_kv_sessions"),
            #[cfg(all(feature = "metrics", feature = "redb"))]
            overlay_bytes: gauge!("x0_kv_overlay_bytes"),
        }
    }

    #[inline]
    pub(crate) fn command(&mut self, result: CommandResult) {
        let at = match result {
            CommandResult::Applied => 0,
            CommandResult::Repeated => 1,
            CommandResult::Refused => 2,
        };
        #[cfg(feature = "metrics")]
        {
            self.batch[at] += 1;
        }
        #[cfg(not(feature = "metrics"))]
        let _: usize = at;
    }

    #[inline]
    pub(crate) fn batch_applied(&mut self, index: u64, sessions: usize) {
        #[cfg(feature = "metrics")]
        {
            for (counter, count) in self.commands.iter().zip(&mut self.batch) {
                counter.increment(std::mem::take(count));
            }
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            self.applied_index.set(index as f64);
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            self.sessions.set(sessions as f64);
        }
        #[cfg(not(feature = "metrics"))]
        let _: (u64, usize) = (index, sessions);
    }

    #[cfg(feature = "redb")]
    #[inline]
    pub(crate) fn overlay(&self, len: usize) {
        #[cfg(feature = "metrics")]
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.overlay_bytes.set(len as f64);
        #[cfg(not(feature = "metrics"))]
        let _: usize = len;
    }
}

/// Times a checkpoint, in whichever thread writes it.
#[cfg(feature = "redb")]
pub(crate) struct CheckpointTelemetry {
    #[cfg(feature = "metrics")]
    count: Counter,
    #[cfg(feature = "metrics")]
    seconds: Histogram,
    #[cfg(feature = "metrics")]
    begun: std::time::Instant,
}

#[cfg(feature = "redb")]
impl CheckpointTelemetry {
    pub(crate) fn begin() -> CheckpointTelemetry {
        CheckpointTelemetry {
            #[cfg(feature = "metrics")]
            count: counter!("x0_kv_checkpoints_total"),
            #[cfg(feature = "metrics")]
            seconds: histogram!("x0_kv_checkpoint_seconds"),
            #[cfg(feature = "metrics")]
            begun: std::time::Instant::now(),
        }
    }

    pub(crate) fn end(self) {
        #[cfg(feature = "metrics")]
        {
            self.count.increment(1);
            self.seconds.record(self.begun.elapsed());
        }
    }
}

/// What a CRDT keyspace does, told after each round of its thread.
#[cfg(feature = "crdt")]
pub(crate) struct CrdtTelemetry {
    #[cfg(feature = "metrics")]
    totals: [Counter; 9],
    #[cfg(feature = "metrics")]
    gauges: [Gauge; 3],
    #[cfg(feature = "metrics")]
    told: Option<std::time::Instant>,
}

/// How often it is told: the whole is looked at each time.
#[cfg(all(feature = "crdt", feature = "metrics"))]
const CRDT_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

#[cfg(feature = "crdt")]
impl CrdtTelemetry {
    pub(crate) fn new() -> CrdtTelemetry {
        CrdtTelemetry {
            #[cfg(feature = "metrics")]
            totals: [
                counter!("x0_kv_crdt_joins_total"),
                counter!("x0_kv_crdt_conflicts_total", "type" => "values"),
                counter!("x0_kv_crdt_conflicts_total", "type" => "removal"),
                counter!("x0_kv_crdt_conflicts_total", "type" => "equivocation"),
                counter!("x0_kv_crdt_reconciliations_total"),
                counter!("x0_kv_crdt_sent_bytes_total"),
                counter!("x0_kv_crdt_received_bytes_total"),
                counter!("x0_kv_crdt_redundant_bytes_total"),
                counter!("x0_kv_crdt_refused_total"),
            ],
            #[cfg(feature = "metrics")]
            gauges: [
                gauge!("x0_kv_crdt_keys"),
                gauge!("x0_kv_crdt_stability_lag_events"),
                gauge!("x0_kv_crdt_pending_bytes"),
            ],
            #[cfg(feature = "metrics")]
            told: None,
        }
    }

    #[inline]
    pub(crate) fn round(&mut self, status: impl FnOnce() -> crate::crdt::CrdtStatus) {
        #[cfg(feature = "metrics")]
        {
            let now = std::time::Instant::now();
            if self.told.is_some_and(|told| now < told + CRDT_EVERY) {
                return;
            }
            self.told = Some(now);
            let status = status();
            let totals = &status.totals;
            let values = [
                totals.joins,
                totals.conflicts,
                totals.contested_removals,
                totals.equivocations,
                totals.reconciliations,
                totals.sent_bytes,
                totals.received_bytes,
                totals.redundant_bytes,
                totals.refused,
            ];
            for (counter, value) in self.totals.iter().zip(values) {
                counter.absolute(value);
            }
            for (gauge, value) in
                self.gauges.iter().zip([status.keys, status.history_events, status.pending_bytes])
            {
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                gauge.set(value as f64);
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = status;
    }
}

/// What the exchange of blobs does, told after each round of its thread.
#[cfg(feature = "blob")]
pub(crate) struct BlobTelemetry {
    #[cfg(feature = "metrics")]
    totals: [Counter; 6],
    #[cfg(feature = "metrics")]
    gauges: [Gauge; 4],
    #[cfg(feature = "metrics")]
    told: Option<std::time::Instant>,
}

/// How often it is told.
#[cfg(all(feature = "blob", feature = "metrics"))]
const BLOB_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

#[cfg(feature = "blob")]
impl BlobTelemetry {
    pub(crate) fn new() -> BlobTelemetry {
        BlobTelemetry {
            #[cfg(feature = "metrics")]
            totals: [
                counter!("x0_kv_blob_chunks_total", "what" => "received"),
                counter!("x0_kv_blob_chunks_total", "what" => "served"),
                counter!("x0_kv_blob_chunks_total", "what" => "refused"),
                counter!("x0_kv_blob_received_bytes_total"),
                counter!("x0_kv_blob_sent_bytes_total"),
                counter!("x0_kv_blob_redundant_bytes_total"),
            ],
            #[cfg(feature = "metrics")]
            gauges: [
                gauge!("x0_kv_blob_pending_bytes"),
                gauge!("x0_kv_blob_stored_bytes"),
                gauge!("x0_kv_blobs", "held" => "whole"),
                gauge!("x0_kv_blobs", "held" => "partial"),
            ],
            #[cfg(feature = "metrics")]
            told: None,
        }
    }

    #[inline]
    pub(crate) fn round(&mut self, status: impl FnOnce() -> crate::blob::BlobStatus) {
        #[cfg(feature = "metrics")]
        {
            let now = std::time::Instant::now();
            if self.told.is_some_and(|told| now < told + BLOB_EVERY) {
                return;
            }
            self.told = Some(now);
            let status = status();
            let totals = &status.totals;
            let values = [
                totals.received_chunks,
                totals.served_chunks,
                totals.refused,
                totals.received_bytes,
                totals.sent_bytes,
                totals.redundant_bytes,
            ];
            for (counter, value) in self.totals.iter().zip(values) {
                counter.absolute(value);
            }
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            let values = [
                status.pending_bytes as f64,
                status.used_bytes as f64,
                status.whole as f64,
                status.partial as f64,
            ];
            for (gauge, value) in self.gauges.iter().zip(values) {
                gauge.set(value);
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = status;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_table_and_the_descriptions_name_what_is_made() {
        let (code, _) = include_str!("telemetry.rs").split_once("#[cfg(test)]\nmod tests").unwrap();
        let (mut table, mut described, mut made) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (at, _) in code.match_indices("x0_kv_") {
            let (before, after) = code.split_at(at);
            let name = after.split(['"', '`']).next().unwrap();
            let line = before.lines().last().unwrap_or_default();
            let call = before.rsplit([';', '{', ',']).next().unwrap_or_default();
            match () {
                () if line == "//! | `" => table.insert(name),
                () if call.contains("describe_") => described.insert(name),
                () => made.insert(name),
            };
        }
        assert!(made.len() >= 17, "{made:?}");
        assert_eq!(table, made);
        assert_eq!(described, made);
    }
}
