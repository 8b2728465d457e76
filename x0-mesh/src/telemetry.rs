//! What this crate tells about itself, with the feature `metrics`.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `x0_mesh_sent_bytes_total` | counter | – | bytes of messages, with their lengths, handed to QUIC; datagrams excepted |
//! | `x0_mesh_received_bytes_total` | counter | – | bytes of messages that came, without their lengths |
//! | `x0_mesh_received_messages_total` | counter | – | messages that came |
//! | `x0_mesh_up_total` | counter | – | epochs begun; what exceeds the number of peers are reconnections |
//! | `x0_mesh_down_total` | counter | – | epochs ended |
//! | `x0_mesh_dial_failures_total` | counter | – | attempts to reach a peer that failed, for whatever reason |
//!
//! Install a recorder before a transport is made: handles made earlier stay silent for ever.

#[cfg(all(feature = "metrics", feature = "quic"))]
use metrics::{Counter, counter};

/// Tells the installed recorder what each name means.
#[cfg(feature = "metrics")]
pub fn describe() {
    use metrics::{Unit, describe_counter};
    describe_counter!("x0_mesh_sent_bytes_total", Unit::Bytes, "Bytes of messages handed to QUIC");
    describe_counter!("x0_mesh_received_bytes_total", Unit::Bytes, "Bytes of messages that came");
    describe_counter!("x0_mesh_received_messages_total", Unit::Count, "Messages that came");
    describe_counter!("x0_mesh_up_total", Unit::Count, "Epochs begun");
    describe_counter!("x0_mesh_down_total", Unit::Count, "Epochs ended");
    describe_counter!("x0_mesh_dial_failures_total", Unit::Count, "Attempts to reach a peer that failed");
}

/// Counts what a QUIC transport does.
#[cfg(feature = "quic")]
pub(crate) struct QuicTelemetry {
    #[cfg(feature = "metrics")]
    sent_bytes: Counter,
    #[cfg(feature = "metrics")]
    received_bytes: Counter,
    #[cfg(feature = "metrics")]
    received_messages: Counter,
    #[cfg(feature = "metrics")]
    up: Counter,
    #[cfg(feature = "metrics")]
    down: Counter,
    #[cfg(feature = "metrics")]
    dial_failures: Counter,
}

#[cfg(feature = "quic")]
#[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self, reason = "nothing is counted"))]
impl QuicTelemetry {
    pub(crate) fn new() -> QuicTelemetry {
        QuicTelemetry {
            #[cfg(feature = "metrics")]
            sent_bytes: counter!("x0_mesh_sent_bytes_total"),
            #[cfg(feature = "metrics")]
            received_bytes: counter!("x0_mesh_received_bytes_total"),
            #[cfg(feature = "metrics")]
            received_messages: counter!("x0_mesh_received_messages_total"),
            #[cfg(feature = "metrics")]
            up: counter!("x0_mesh_up_total"),
            #[cfg(feature = "metrics")]
            down: counter!("x0_mesh_down_total"),
            #[cfg(feature = "metrics")]
            dial_failures: counter!("x0_mesh_dial_failures_total"),
        }
    }

    #[inline]
    pub(crate) fn sent(&self, len: usize) {
        #[cfg(feature = "metrics")]
        self.sent_bytes.increment(len as u64);
        #[cfg(not(feature = "metrics"))]
        let _: usize = len;
    }

    #[inline]
    pub(crate) fn received(&self, count: usize, len: usize) {
        #[cfg(feature = "metrics")]
        {
            self.received_messages.increment(count as u64);
            self.received_bytes.increment(len as u64);
        }
        #[cfg(not(feature = "metrics"))]
        let _: (usize, usize) = (count, len);
    }

    #[inline]
    pub(crate) fn up(&self) {
        #[cfg(feature = "metrics")]
        self.up.increment(1);
    }

    #[inline]
    pub(crate) fn down(&self) {
        #[cfg(feature = "metrics")]
        self.down.increment(1);
    }

    #[inline]
    pub(crate) fn dial_failed(&self) {
        #[cfg(feature = "metrics")]
        self.dial_failures.increment(1);
    }
}

#[cfg(feature = "quic")]
impl std::fmt::Debug for QuicTelemetry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("QuicTelemetry").finish_non_exhaustive()
    }
}
