//! Telemetry through the `metrics` facade.

use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::replica::{Output, StageStep, Status};
use crate::storage::Write;

/// Describes each name to the installed recorder.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("x0_consensus_term", Unit::Count, "The term");
    describe_gauge!("x0_consensus_is_leader", Unit::Count, "1 while this replica leads");
    describe_gauge!("x0_consensus_voters", Unit::Count, "Members that vote");
    describe_gauge!("x0_consensus_last_index", Unit::Count, "The last index of the log");
    describe_gauge!("x0_consensus_commit_index", Unit::Count, "The last index known to be committed");
    describe_gauge!("x0_consensus_applied_index", Unit::Count, "The last index applied");
    describe_counter!("x0_consensus_leader_changes_total", Unit::Count, "Changes of the leader or the term");
    describe_counter!(
        "x0_consensus_dropped_total",
        Unit::Count,
        "Proposals, reads and changes that were dropped"
    );
    describe_counter!("x0_consensus_log_writes_total", Unit::Count, "Writes made durable");
    describe_counter!("x0_consensus_log_entries_total", Unit::Count, "Entries made durable");
    describe_histogram!("x0_consensus_log_write_seconds", Unit::Seconds, "The time of one group of writes");
    describe_counter!("x0_consensus_sent_bytes_total", Unit::Bytes, "Bytes of messages handed to the outbox");
    describe_counter!("x0_consensus_congested_total", Unit::Count, "Messages that the outbox dropped");
    describe_counter!("x0_consensus_snapshots_total", Unit::Count, "Snapshots started, by way");
}

/// Counts the outputs of a replica and shows its status.
#[derive(Debug)]
pub(crate) struct DriverTelemetry {
    gauges: [Gauge; 6],
    /// The values of the gauges.
    shown: [u64; 6],
    leader_changes: Counter,
    dropped: Counter,
    sent_bytes: Counter,
    congested: Counter,
    snapshots: [Counter; 3],
}

impl DriverTelemetry {
    pub(crate) fn new() -> DriverTelemetry {
        DriverTelemetry {
            gauges: [
                gauge!("x0_consensus_term"),
                gauge!("x0_consensus_is_leader"),
                gauge!("x0_consensus_voters"),
                gauge!("x0_consensus_last_index"),
                gauge!("x0_consensus_commit_index"),
                gauge!("x0_consensus_applied_index"),
            ],
            shown: [u64::MAX; 6],
            leader_changes: counter!("x0_consensus_leader_changes_total"),
            dropped: counter!("x0_consensus_dropped_total"),
            sent_bytes: counter!("x0_consensus_sent_bytes_total"),
            congested: counter!("x0_consensus_congested_total"),
            snapshots: ["sent", "received", "saved"]
                .map(|way| counter!("x0_consensus_snapshots_total", "way" => way)),
        }
    }

    pub(crate) fn status(&mut self, status: &Status) {
        let values = [
            status.term,
            u64::from(status.leader == Some(status.id)),
            status.membership.voters.union(&status.membership.voters_outgoing).count() as u64,
            status.last_index,
            status.commit_index,
            status.applied_index,
        ];
        for ((gauge, shown), value) in self.gauges.iter().zip(&mut self.shown).zip(values) {
            if *shown != value {
                *shown = value;
                #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
                gauge.set(value as f64);
            }
        }
    }

    pub(crate) fn output(&self, output: &Output) {
        let [sent, received, saved] = &self.snapshots;
        let (counter, count) = match output {
            Output::Send { payload, .. } => (&self.sent_bytes, payload.len() as u64),
            Output::Leader { .. } => (&self.leader_changes, 1),
            Output::Dropped { .. } => (&self.dropped, 1),
            Output::OpenSnapshot { .. } => (sent, 1),
            Output::Stage { step: StageStep::Begin { .. }, .. } => (received, 1),
            Output::SaveSnapshot { .. } => (saved, 1),
            _ => return,
        };
        counter.increment(count);
    }

    pub(crate) fn congested(&self) {
        self.congested.increment(1);
    }
}

/// Counts the writes of a log.
pub(crate) struct LogTelemetry {
    writes: Counter,
    entries: Counter,
    seconds: Histogram,
}

impl LogTelemetry {
    pub(crate) fn new() -> LogTelemetry {
        LogTelemetry {
            writes: counter!("x0_consensus_log_writes_total"),
            entries: counter!("x0_consensus_log_entries_total"),
            seconds: histogram!("x0_consensus_log_write_seconds"),
        }
    }

    /// Runs `write`, and counts and times it if it succeeds.
    pub(crate) fn timed<E>(
        &self,
        writes: &[Write],
        write: impl FnOnce(&[Write]) -> Result<(), E>,
    ) -> Result<(), E> {
        let begun = Instant::now();
        write(writes)?;
        self.seconds.record(begun.elapsed());
        self.writes.increment(writes.len() as u64);
        self.entries.increment(writes.iter().map(|write| write.entries.len() as u64).sum());
        Ok(())
    }
}
