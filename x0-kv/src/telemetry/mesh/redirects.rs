//! Operations that are sent again to another node.

use crate::telemetry::facade::{Counter, counter};

/// Counts the redirects of a coordinator.
pub(crate) struct RedirectTelemetry {
    redirects: Counter,
    counted: u64,
}

impl RedirectTelemetry {
    pub(crate) fn new() -> RedirectTelemetry {
        RedirectTelemetry { redirects: counter!("x0_kv_redirects_total"), counted: 0 }
    }

    /// There were this many since the start.
    #[inline]
    pub(crate) fn redirects(&mut self, total: u64) {
        if total != self.counted {
            self.redirects.increment(total - self.counted);
            self.counted = total;
        }
    }
}
