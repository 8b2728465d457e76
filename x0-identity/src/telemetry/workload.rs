//! Telemetry of a server of the Workload API.

use super::facade::{Gauge, counter, gauge};
use crate::workload_api::Code;

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct WorkloadTelemetry {
    streams: Gauge,
    counted: u32,
}

impl WorkloadTelemetry {
    pub(crate) fn new() -> WorkloadTelemetry {
        WorkloadTelemetry { streams: gauge("x0_identity_workload_streams"), counted: 0 }
    }

    /// The connection has so many streams now.
    pub(crate) fn streams(&mut self, streams: u32) {
        let before = core::mem::replace(&mut self.counted, streams);
        if streams > before {
            self.streams.increment(f64::from(streams - before));
        } else if streams < before {
            self.streams.decrement(f64::from(before - streams));
        }
    }

    /// A call ended with a code.
    pub(crate) fn ended(&self, code: Code) {
        let reason = match code {
            Code::Ok => return,
            Code::PermissionDenied => "permission_denied",
            Code::InvalidArgument => "invalid_argument",
            Code::Unimplemented => "unimplemented",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::Unavailable => "unavailable",
            _ => "other",
        };
        // Rare, so that the handle is not kept for each connection.
        counter("x0_identity_workload_refusals_total", "reason", reason).increment(1);
    }
}

impl Drop for WorkloadTelemetry {
    fn drop(&mut self) {
        self.streams(0);
    }
}
