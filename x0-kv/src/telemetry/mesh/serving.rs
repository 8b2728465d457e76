//! Requests of other nodes that are under way here.

use crate::telemetry::facade::{Gauge, gauge};

/// Adds the requests that a coordinator serves to the waiting operations.
pub(crate) struct ServingTelemetry {
    waiting: Gauge,
    shown: usize,
}

impl ServingTelemetry {
    pub(crate) fn new() -> ServingTelemetry {
        ServingTelemetry { waiting: gauge!("x0_kv_operations_waiting"), shown: 0 }
    }

    /// Sets the number of requests under way. Callers of the node's own store count themselves on the same
    /// gauge, so that only the difference is added.
    #[inline]
    pub(crate) fn requests(&mut self, now: usize) {
        if now > self.shown {
            self.waiting.increment((now - self.shown) as f64);
        } else if now < self.shown {
            self.waiting.decrement((self.shown - now) as f64);
        }
        self.shown = now;
    }
}

impl Drop for ServingTelemetry {
    fn drop(&mut self) {
        // The gauge outlives the node, and so do the counts of other nodes in this process.
        self.requests(0);
    }
}
