//! The exchange of blobs.

use std::time::{Duration, Instant};

use super::IS_ENABLED;
use super::facade::{Counter, Gauge, counter, gauge};
use crate::blob::BlobStatus;

/// How often the status is reported.
const EVERY: Duration = Duration::from_millis(100);

/// The work of the exchange of blobs, reported after each round of its thread.
pub(crate) struct BlobTelemetry {
    totals: [Counter; 6],
    gauges: [Gauge; 4],
    reported: Option<Instant>,
}

impl BlobTelemetry {
    pub(crate) fn new() -> BlobTelemetry {
        BlobTelemetry {
            totals: [
                counter!("x0_kv_blob_chunks_total", "what" => "received"),
                counter!("x0_kv_blob_chunks_total", "what" => "served"),
                counter!("x0_kv_blob_chunks_total", "what" => "refused"),
                counter!("x0_kv_blob_received_bytes_total"),
                counter!("x0_kv_blob_sent_bytes_total"),
                counter!("x0_kv_blob_redundant_bytes_total"),
            ],
            gauges: [
                gauge!("x0_kv_blob_pending_bytes"),
                gauge!("x0_kv_blob_stored_bytes"),
                gauge!("x0_kv_blobs", "held" => "whole"),
                gauge!("x0_kv_blobs", "held" => "partial"),
            ],
            reported: None,
        }
    }

    #[inline]
    pub(crate) fn round(&mut self, status: impl FnOnce() -> BlobStatus) {
        if !IS_ENABLED || self.reported.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.reported = Some(Instant::now());
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
}
