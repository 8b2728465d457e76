//! Checkpoints of the redb engine.

use std::time::Instant;

use super::facade::{Counter, Histogram, counter, histogram};

/// Times a checkpoint, in whichever thread writes it.
pub(crate) struct CheckpointTelemetry {
    count: Counter,
    seconds: Histogram,
    begun: Instant,
}

impl CheckpointTelemetry {
    /// Makes the series before the first checkpoint: a rate does not see a first increment.
    pub(crate) fn register() {
        let _ = CheckpointTelemetry::begin();
    }

    pub(crate) fn begin() -> CheckpointTelemetry {
        CheckpointTelemetry {
            count: counter!("x0_kv_checkpoints_total"),
            seconds: histogram!("x0_kv_checkpoint_seconds"),
            begun: Instant::now(),
        }
    }

    pub(crate) fn end(self) {
        self.count.increment(1);
        self.seconds.record(self.begun.elapsed());
    }
}
