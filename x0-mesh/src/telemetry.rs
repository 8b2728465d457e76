//! Metrics of this crate, through the `metrics` facade.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_mesh_sent_bytes_total` | counter | – | bytes of messages, with their lengths, handed to QUIC; datagrams excepted |
//! | `x0_mesh_received_bytes_total` | counter | – | bytes of messages that arrived over QUIC, without their lengths |
//! | `x0_mesh_received_messages_total` | counter | – | messages that arrived over QUIC |
//! | `x0_mesh_up_total` | counter | – | QUIC epochs begun; those beyond the number of peers are reconnections |
//! | `x0_mesh_down_total` | counter | – | QUIC epochs ended |
//! | `x0_mesh_dial_failures_total` | counter | – | attempts to reach a peer over QUIC that failed |
//! | `x0_mesh_mux_unknown_channels_total` | counter | – | channels that peers offered and that this node has not registered |
//! | `x0_mesh_mux_stale_messages_total` | counter | – | messages of sessions that had ended when they arrived |
//! | `x0_mesh_mux_dropped_messages_total` | counter | – | datagrams without room, and messages on lanes that a channel lacks |
//! | `x0_mesh_mux_violations_total` | counter | – | peers that broke the protocol of the mux |
//!
//! Install a recorder before a transport or a mux is made: handles made earlier count nothing.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry/noop.rs"]
mod facade;

#[cfg(feature = "metrics")]
pub use facade::describe;

use facade::Counter;

/// Counts of a QUIC transport.
#[cfg(feature = "quic")]
pub(crate) struct QuicTelemetry {
    sent_bytes: Counter,
    received_bytes: Counter,
    received_messages: Counter,
    up: Counter,
    down: Counter,
    dial_failures: Counter,
}

#[cfg(feature = "quic")]
impl QuicTelemetry {
    pub(crate) fn new() -> QuicTelemetry {
        QuicTelemetry {
            sent_bytes: facade::counter("x0_mesh_sent_bytes_total"),
            received_bytes: facade::counter("x0_mesh_received_bytes_total"),
            received_messages: facade::counter("x0_mesh_received_messages_total"),
            up: facade::counter("x0_mesh_up_total"),
            down: facade::counter("x0_mesh_down_total"),
            dial_failures: facade::counter("x0_mesh_dial_failures_total"),
        }
    }

    pub(crate) fn sent(&self, len: usize) {
        self.sent_bytes.increment(len as u64);
    }

    pub(crate) fn received(&self, count: usize, len: usize) {
        self.received_messages.increment(count as u64);
        self.received_bytes.increment(len as u64);
    }

    pub(crate) fn up(&self) {
        self.up.increment(1);
    }

    pub(crate) fn down(&self) {
        self.down.increment(1);
    }

    pub(crate) fn dial_failed(&self) {
        self.dial_failures.increment(1);
    }
}

#[cfg(feature = "quic")]
impl std::fmt::Debug for QuicTelemetry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("QuicTelemetry").finish_non_exhaustive()
    }
}

/// Counts of a mux.
pub(crate) struct MuxTelemetry {
    unknown_channels: Counter,
    stale_messages: Counter,
    dropped_messages: Counter,
    violations: Counter,
}

impl MuxTelemetry {
    pub(crate) fn new() -> MuxTelemetry {
        MuxTelemetry {
            unknown_channels: facade::counter("x0_mesh_mux_unknown_channels_total"),
            stale_messages: facade::counter("x0_mesh_mux_stale_messages_total"),
            dropped_messages: facade::counter("x0_mesh_mux_dropped_messages_total"),
            violations: facade::counter("x0_mesh_mux_violations_total"),
        }
    }

    /// Counts what came since `before`.
    pub(crate) fn publish(&self, before: &crate::MuxStats, now: &crate::MuxStats) {
        self.unknown_channels.increment(now.unknown_channels - before.unknown_channels);
        self.stale_messages.increment(now.stale_messages - before.stale_messages);
        self.dropped_messages.increment(now.dropped_messages - before.dropped_messages);
        self.violations.increment(now.violations - before.violations);
    }
}
