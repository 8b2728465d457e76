//! The counters of the `metrics` facade.

pub(super) use metrics::Counter;

pub(super) fn counter(name: &'static str) -> Counter {
    metrics::counter!(name)
}

#[cfg(feature = "quic")]
pub(super) fn labelled(name: &'static str, key: &'static str, value: &'static str) -> Counter {
    metrics::counter!(name, key => value)
}

/// Gives the installed recorder the unit and the meaning of each name.
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge};
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
    describe_counter!(
        "x0_mesh_reconnections_total",
        Unit::Count,
        "QUIC epochs begun with a peer that had been up before"
    );
    describe_counter!("x0_mesh_datagrams_total", Unit::Count, "Datagrams, by direction");
    describe_counter!(
        "x0_mesh_handshake_failures_total",
        Unit::Count,
        "Connections that failed before their epoch began, by reason"
    );
    describe_gauge!("x0_mesh_peer_up", Unit::Count, "1 while the peer is connected");
    describe_gauge!("x0_mesh_peer_rtt_seconds", Unit::Seconds, "The smoothed round-trip time to the peer");
    describe_gauge!(
        "x0_mesh_peer_loss_ratio",
        Unit::Count,
        "The share of packets lost in the last ten seconds or more, by direction"
    );
    describe_gauge!(
        "x0_mesh_peer_last_message_age_seconds",
        Unit::Seconds,
        "The time since the last message of the peer"
    );
    describe_gauge!("x0_mesh_link_up", Unit::Count, "1 while the link to the neighbour is up");
    describe_gauge!("x0_mesh_link_rtt_seconds", Unit::Seconds, "The smoothed round-trip time of the link");
    describe_gauge!("x0_mesh_link_quality", Unit::Count, "The share of probes that arrive, by direction");
    describe_counter!("x0_mesh_link_bytes_total", Unit::Bytes, "Bytes of frames, by direction");
    describe_counter!(
        "x0_mesh_link_control_bytes_total",
        Unit::Bytes,
        "Bytes of control frames that were sent"
    );
    describe_gauge!("x0_mesh_link_mtu_bytes", Unit::Bytes, "The longest datagram of the link");
    describe_gauge!("x0_mesh_path_next_hop", Unit::Count, "1 for the neighbour that is used");
    describe_gauge!("x0_mesh_path_metric", Unit::Count, "The sum of the metrics of the links");
    describe_gauge!("x0_mesh_path_mtu_bytes", Unit::Bytes, "The longest datagram of the path");
    describe_gauge!("x0_mesh_path_backups", Unit::Count, "Neighbours that take over at once");
    describe_counter!(
        "x0_mesh_path_dropped_total",
        Unit::Count,
        "Datagrams that this node dropped, by reason"
    );
    describe_counter!(
        "x0_mesh_relayed_bytes_total",
        Unit::Bytes,
        "Bytes of datagrams that this node sent on"
    );
    describe_counter!(
        "x0_mesh_flood_too_long_total",
        Unit::Count,
        "Times that a flooded message was longer than a link to a neighbour carries"
    );
    describe_counter!(
        "x0_mesh_unanswered_total",
        Unit::Count,
        "Times that a destination behind a relay did not answer"
    );
    describe_counter!(
        "x0_mesh_forged_seqnos_total",
        Unit::Count,
        "Times that a neighbour relayed a forged sequence number of this node"
    );
    describe_counter!("x0_mesh_route_changes_total", Unit::Count, "Changes of the next hop of a destination");
    describe_counter!(
        "x0_mesh_failovers_total",
        Unit::Count,
        "Changes to another next hop because the one in use failed, by cause"
    );
}
