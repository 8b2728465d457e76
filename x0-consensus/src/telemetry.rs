//! What a driver tells about its replica, with the feature `metrics`.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `x0_consensus_term` | gauge | – | the term |
//! | `x0_consensus_is_leader` | gauge | – | 1 while this replica leads, else 0; over all members there should be 1 |
//! | `x0_consensus_voters` | gauge | – | members that vote, those of both sides in a joint phase |
//! | `x0_consensus_last_index` | gauge | – | the last index of the log |
//! | `x0_consensus_commit_index` | gauge | – | the last index known to be committed |
//! | `x0_consensus_applied_index` | gauge | – | the last index that the state machine has applied |
//! | `x0_consensus_leader_changes_total` | counter | – | times that another leader, none, or another term was heard of |
//! | `x0_consensus_dropped_total` | counter | – | proposals, reads and changes that came to nothing here |
//! | `x0_consensus_log_writes_total` | counter | – | writes made durable |
//! | `x0_consensus_log_entries_total` | counter | – | entries in them |
//! | `x0_consensus_log_write_seconds` | histogram | – | how long one group of writes took, with its fsync |
//! | `x0_consensus_sent_bytes_total` | counter | – | bytes of messages handed to the outbox |
//! | `x0_consensus_congested_total` | counter | – | messages that the outbox dropped |
//! | `x0_consensus_snapshots_total` | counter | `way`: sent, received, saved | snapshots begun: for a member that lags, from the leader, of the own state |
//!
//! Install a recorder before a driver is started: handles made earlier stay silent for ever. Several replicas of one process share these
//! names, and their gauges overwrite each other.

#[cfg(feature = "metrics")]
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

#[cfg(feature = "metrics")]
use crate::replica::StageStep;
use crate::replica::{Output, Status};
use crate::storage::Write;

/// Tells the installed recorder what each name means.
#[cfg(feature = "metrics")]
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("x0_consensus_term", Unit::Count, "The term");
    describe_gauge!("x0_consensus_is_leader", Unit::Count, "1 while this replica leads");
    describe_gauge!("x0_consensus_voters", Unit::Count, "Members that vote");
    describe_gauge!("x0_consensus_last_index", Unit::Count, "The last index of the log");
    describe_gauge!("x0_consensus_commit_index", Unit::Count, "The last index known to be committed");
    describe_gauge!("x0_consensus_applied_index", Unit::Count, "The last index applied");
    describe_counter!("x0_consensus_leader_changes_total", Unit::Count, "Changes of the leader or the term");
    describe_counter!("x0_consensus_dropped_total", Unit::Count, "Proposals and reads that came to nothing");
    describe_counter!("x0_consensus_log_writes_total", Unit::Count, "Writes made durable");
    describe_counter!("x0_consensus_log_entries_total", Unit::Count, "Entries made durable");
    describe_histogram!("x0_consensus_log_write_seconds", Unit::Seconds, "How long a group of writes took");
    describe_counter!("x0_consensus_sent_bytes_total", Unit::Bytes, "Bytes of messages handed to the outbox");
    describe_counter!("x0_consensus_congested_total", Unit::Count, "Messages that the outbox dropped");
    describe_counter!("x0_consensus_snapshots_total", Unit::Count, "Snapshots begun, by way");
}

/// Counts what the loop of a driver sees.
#[derive(Debug)]
pub(crate) struct DriverTelemetry {
    #[cfg(feature = "metrics")]
    gauges: [Gauge; 6],
    /// What they were set to.
    #[cfg(feature = "metrics")]
    shown: [u64; 6],
    #[cfg(feature = "metrics")]
    leader_changes: Counter,
    #[cfg(feature = "metrics")]
    dropped: Counter,
    #[cfg(feature = "metrics")]
    sent_bytes: Counter,
    #[cfg(feature = "metrics")]
    congested: Counter,
    #[cfg(feature = "metrics")]
    snapshots: [Counter; 3],
}

#[cfg_attr(not(feature = "metrics"), expect(clippy::unused_self, reason = "nothing is counted"))]
impl DriverTelemetry {
    pub(crate) fn new() -> DriverTelemetry {
        DriverTelemetry {
            #[cfg(feature = "metrics")]
            gauges: [
                gauge!("x0_consensus_term"),
                gauge!("x0_consensus_is_leader"),
                gauge!("x0_consensus_voters"),
                gauge!("x0_consensus_last_index"),
                gauge!("x0_consensus_commit_index"),
                gauge!("x0_consensus_applied_index"),
            ],
            #[cfg(feature = "metrics")]
            shown: [u64::MAX; 6],
            #[cfg(feature = "metrics")]
            leader_changes: counter!("x0_consensus_leader_changes_total"),
            #[cfg(feature = "metrics")]
            dropped: counter!("x0_consensus_dropped_total"),
            #[cfg(feature = "metrics")]
            sent_bytes: counter!("x0_consensus_sent_bytes_total"),
            #[cfg(feature = "metrics")]
            congested: counter!("x0_consensus_congested_total"),
            #[cfg(feature = "metrics")]
            snapshots: ["sent", "received", "saved"]
                .map(|way| counter!("x0_consensus_snapshots_total", "way" => way)),
        }
    }

    #[inline]
    pub(crate) fn status(&mut self, status: &Status) {
        #[cfg(feature = "metrics")]
        {
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
        #[cfg(not(feature = "metrics"))]
        let _: &Status = status;
    }

    #[inline]
    pub(crate) fn output(&self, output: &Output) {
        #[cfg(feature = "metrics")]
        {
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
        #[cfg(not(feature = "metrics"))]
        let _: &Output = output;
    }

    #[inline]
    pub(crate) fn congested(&self) {
        #[cfg(feature = "metrics")]
        self.congested.increment(1);
    }
}

/// Counts what whoever owns the storage writes.
pub(crate) struct LogTelemetry {
    #[cfg(feature = "metrics")]
    writes: Counter,
    #[cfg(feature = "metrics")]
    entries: Counter,
    #[cfg(feature = "metrics")]
    seconds: Histogram,
}

#[cfg_attr(not(feature = "metrics"), expect(clippy::unused_self, reason = "nothing is counted"))]
impl LogTelemetry {
    pub(crate) fn new() -> LogTelemetry {
        LogTelemetry {
            #[cfg(feature = "metrics")]
            writes: counter!("x0_consensus_log_writes_total"),
            #[cfg(feature = "metrics")]
            entries: counter!("x0_consensus_log_entries_total"),
            #[cfg(feature = "metrics")]
            seconds: histogram!("x0_consensus_log_write_seconds"),
        }
    }

    /// Has `write` done, and counts it if it was.
    #[inline]
    pub(crate) fn timed<E>(
        &self,
        writes: &[Write],
        write: impl FnOnce(&[Write]) -> Result<(), E>,
    ) -> Result<(), E> {
        #[cfg(feature = "metrics")]
        let begun = std::time::Instant::now();
        write(writes)?;
        #[cfg(feature = "metrics")]
        {
            self.seconds.record(begun.elapsed());
            self.writes.increment(writes.len() as u64);
            self.entries.increment(writes.iter().map(|write| write.entries.len() as u64).sum());
        }
        Ok(())
    }
}
