//! Messages refused because of the role of their sender.

use crate::telemetry::facade::{Counter, counter};

/// The channels that refuse messages of some roles.
const CHANNELS: [&str; 6] =
    ["x0.kv.consensus", "x0.kv.snapshots", "x0.kv.space", "x0.kv.crdt.sync", "x0.kv.blobs", "x0.kv.admin"];

/// Counts refused messages by channel.
pub(crate) struct RefusedTelemetry([Counter; CHANNELS.len()]);

impl Default for RefusedTelemetry {
    fn default() -> RefusedTelemetry {
        RefusedTelemetry(
            CHANNELS.map(|channel| counter!("x0_kv_refused_messages_total", "channel" => channel)),
        )
    }
}

impl std::fmt::Debug for RefusedTelemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefusedTelemetry").finish_non_exhaustive()
    }
}

impl RefusedTelemetry {
    pub(crate) fn refused(&self, channel: &str) {
        if let Some(at) = CHANNELS.iter().position(|known| *known == channel) {
            self.0[at].increment(1);
        }
    }
}
