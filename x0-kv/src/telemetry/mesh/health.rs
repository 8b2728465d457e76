//! The disk and the scrub of a node.

use crate::scrub::ScrubStatus;
use crate::space::SpaceStatus;
use crate::telemetry::facade::{Counter, Gauge, counter, gauge};

/// The state of a node's disk and data, reported when it changes.
pub(crate) struct HealthTelemetry {
    scrub: [Counter; 5],
    free: Gauge,
    is_short: Gauge,
}

impl HealthTelemetry {
    pub(crate) fn new() -> HealthTelemetry {
        HealthTelemetry {
            scrub: [
                counter!("x0_kv_scrub_passes_total"),
                counter!("x0_kv_scrub_entries_total"),
                counter!("x0_kv_scrub_damaged_total"),
                counter!("x0_kv_scrub_repaired_total"),
                counter!("x0_kv_scrub_diverged_total"),
            ],
            free: gauge!("x0_kv_disk_free_bytes"),
            is_short: gauge!("x0_kv_disk_short"),
        }
    }

    pub(crate) fn scrub(&self, status: &ScrubStatus) {
        let ScrubStatus { passes, entries, damaged, repaired, diverged } = *status;
        for (counter, total) in self.scrub.iter().zip([passes, entries, damaged, repaired, diverged]) {
            counter.absolute(total);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(crate) fn space(&self, status: &SpaceStatus) {
        if let Some(free) = status.free {
            self.free.set(free as f64);
        }
        self.is_short.set(if status.is_short() { 1.0 } else { 0.0 });
    }
}
