//! The counters of the `metrics` facade.

pub(super) use metrics::Counter;

pub(super) fn counter(name: &'static str) -> Counter {
    metrics::counter!(name)
}

/// Gives the installed recorder the unit and the meaning of each name.
pub fn describe() {
    use metrics::{Unit, describe_counter};
    describe_counter!("x0_mesh_sent_bytes_total", Unit::Bytes, "Bytes of messages handed to QUIC");
    describe_counter!(
        "x0_mesh_received_bytes_total",
        Unit::Bytes,
        "Bytes of messages that arrived over QUIC"
    );
    describe_counter!("x0_mesh_received_messages_total", Unit::Count, "Messages that arrived over QUIC");
    describe_counter!("x0_mesh_up_total", Unit::Count, "QUIC epochs begun");
    describe_counter!("x0_mesh_down_total", Unit::Count, "QUIC epochs ended");
    describe_counter!("x0_mesh_dial_failures_total", Unit::Count, "Attempts to reach a peer that failed");
    describe_counter!("x0_mesh_mux_unknown_channels_total", Unit::Count, "Channels that only a peer has");
    describe_counter!("x0_mesh_mux_stale_messages_total", Unit::Count, "Messages of sessions that had ended");
    describe_counter!("x0_mesh_mux_dropped_messages_total", Unit::Count, "Messages that found no room");
    describe_counter!(
        "x0_mesh_mux_violations_total",
        Unit::Count,
        "Peers that broke the protocol of the mux"
    );
}
