//! Telemetry of the workers: each belongs to one of them and is used on its thread.

use std::collections::BTreeMap;
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::driver::{Done, SnapshotJob};
use crate::storage::Write;

/// Counts and times the writes of a log.
pub(crate) struct LogTelemetry {
    writes: Counter,
    entries: Counter,
    seconds: Histogram,
    bytes: Gauge,
}

impl LogTelemetry {
    pub(crate) fn new() -> LogTelemetry {
        LogTelemetry {
            writes: counter!("x0_consensus_log_writes_total"),
            entries: counter!("x0_consensus_log_entries_total"),
            seconds: histogram!("x0_consensus_log_write_seconds"),
            bytes: gauge!("x0_consensus_log_bytes"),
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

    /// The size of the log is this, if the storage knows it.
    pub(crate) fn size(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            self.bytes.set(bytes as f64);
        }
    }
}

/// Times the batches of a state machine.
pub(crate) struct ApplyTelemetry(Histogram);

impl ApplyTelemetry {
    pub(crate) fn new() -> ApplyTelemetry {
        ApplyTelemetry(histogram!("x0_consensus_apply_seconds"))
    }

    /// Runs `apply`, and times it if it succeeds.
    pub(crate) fn timed<T, E>(&self, apply: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let begun = Instant::now();
        let applied = apply()?;
        self.0.record(begun.elapsed());
        Ok(applied)
    }
}

/// Times snapshots and counts their bytes.
pub(crate) struct SnapshotTelemetry {
    /// The transfers that are open, each with its begin. The jobs close or save each one.
    begun: BTreeMap<u64, Instant>,
    seconds: [Histogram; 3],
    bytes: [Counter; 2],
}

impl Default for SnapshotTelemetry {
    fn default() -> SnapshotTelemetry {
        SnapshotTelemetry {
            begun: BTreeMap::new(),
            seconds: ["sent", "received", "saved"]
                .map(|way| histogram!("x0_consensus_snapshot_seconds", "way" => way)),
            bytes: ["sent", "received"]
                .map(|way| counter!("x0_consensus_snapshot_bytes_total", "way" => way)),
        }
    }
}

impl SnapshotTelemetry {
    /// A job begins.
    pub(crate) fn job(&mut self, job: &SnapshotJob) {
        match job {
            SnapshotJob::Open { transfer, .. } | SnapshotJob::Begin { transfer, .. } => {
                self.begun.insert(*transfer, Instant::now());
            }
            SnapshotJob::Close { transfer } => _ = self.begun.remove(transfer),
            SnapshotJob::Write { bytes, .. } => self.bytes[1].increment(bytes.len() as u64),
            _ => {}
        }
    }

    /// A job has ended.
    pub(crate) fn done(&mut self, done: &Done) {
        let (transfer, way) = match done {
            Done::ChunkRead { transfer, chunk: Ok((bytes, is_last)) } => {
                self.bytes[0].increment(bytes.len() as u64);
                if !is_last {
                    return;
                }
                (transfer, Some(0))
            }
            Done::Staged { transfer, result } => (transfer, result.is_ok().then_some(1)),
            Done::Saved { transfer, result, .. } => (transfer, result.is_ok().then_some(2)),
            Done::ChunkRead { transfer, .. } => (transfer, None),
            _ => return,
        };
        let begun = self.begun.remove(transfer);
        if let (Some(begun), Some(way)) = (begun, way) {
            self.seconds[way].record(begun.elapsed());
        }
    }
}
