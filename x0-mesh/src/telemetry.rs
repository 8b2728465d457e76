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
//! | `x0_mesh_reconnections_total` | counter | – | QUIC epochs begun with a peer that had been up before |
//! | `x0_mesh_datagrams_total` | counter | `direction`: sent, received | datagrams handed to QUIC, and datagrams that arrived |
//! | `x0_mesh_handshake_failures_total` | counter | `reason`: the variants of [`DownReason`] in snake case | connections, dialled or accepted, that failed before their epoch began |
//! | `x0_mesh_peer_up` | gauge | `peer`: the id of a member | 1 while the peer is connected, else 0 |
//! | `x0_mesh_peer_rtt_seconds` | gauge | `peer` | the smoothed round-trip time of QUIC (RFC 9002 §5.3) |
//! | `x0_mesh_peer_loss_ratio` | gauge | `peer`, `direction`: sent | the share of QUIC packets lost, those of handshakes excepted, over ten seconds or the time since the publication before if that is longer, at first since the epoch began; NaN while there is no epoch, in the first ten seconds of one, and if no packet was sent |
//! | `x0_mesh_peer_last_message_age_seconds` | gauge | `peer` | the time since the last message of the peer; it grows while the peer is silent |
//! | `x0_mesh_mux_unknown_channels_total` | counter | – | channels that peers offered and that this node has not registered |
//! | `x0_mesh_mux_stale_messages_total` | counter | – | messages of sessions that had ended when they arrived |
//! | `x0_mesh_mux_dropped_messages_total` | counter | – | datagrams without room, and messages on lanes that a channel lacks |
//! | `x0_mesh_mux_violations_total` | counter | – | peers that broke the protocol of the mux |
//! | `x0_mesh_link_up` | gauge | `peer`, `port`: the number of the port, `link`: the number of the link among those to the peer on the port | 1 while the link to the neighbour is up, else 0 |
//! | `x0_mesh_link_rtt_seconds` | gauge | `peer`, `port`, `link` | the smoothed round-trip time of the link |
//! | `x0_mesh_link_quality` | gauge | `peer`, `port`, `link`, `direction`: sent, received | the share of probes that arrive; the loss is what is missing to 1 |
//! | `x0_mesh_link_bytes_total` | counter | `peer`, `port`, `link`, `direction` | bytes of frames, headers of lower layers not counted |
//! | `x0_mesh_link_control_bytes_total` | counter | `peer`, `port`, `link` | of the bytes sent, those of probes, router messages, labels and addresses |
//! | `x0_mesh_link_mtu_bytes` | gauge | `peer`, `port`, `link` | the longest datagram of the link; 0 without a link |
//! | `x0_mesh_path_next_hop` | gauge | `peer`: the destination, `next`: a neighbour | 1 for the neighbour that is used, else 0 |
//! | `x0_mesh_path_metric` | gauge | `peer` | the sum of the metrics of the links |
//! | `x0_mesh_path_mtu_bytes` | gauge | `peer` | the longest datagram of the path; 0 without a path |
//! | `x0_mesh_path_backups` | gauge | `peer` | neighbours that take over at once when the next hop fails |
//! | `x0_mesh_path_dropped_total` | counter | `reason`: no_route, relay_refused, hop_limit, too_long, unlabelled | datagrams that this node dropped |
//! | `x0_mesh_relayed_bytes_total` | counter | – | bytes of datagrams that this node sent on for others |
//! | `x0_mesh_flood_too_long_total` | counter | – | times that a flooded message was longer than a link to a neighbour carries |
//! | `x0_mesh_unanswered_total` | counter | – | times that a destination behind a relay did not answer, see `Report::NoAnswer` |
//! | `x0_mesh_forged_seqnos_total` | counter | – | times that a neighbour relayed a forged sequence number of this node |
//! | `x0_mesh_route_changes_total` | counter | – | changes of the next hop of a destination, its first and its loss among them |
//! | `x0_mesh_failovers_total` | counter | `cause`: link_down, link_degraded, withdrawn | changes to another next hop because the one in use failed |
//!
//! The gauges per peer are set by `PeerGauges::publish`, which the owner calls before it reads them. A peer
//! is one with an address in the `PeerBook`; the gauges of a peer that was removed are NaN, which a reader
//! may leave out. QUIC knows the loss in the direction of sending only.
//!
//! The series of links and paths are set by `PathGauges::publish`, which the owner calls before it reads
//! them. There are at most 512 links, 512 destinations, and 8 next hops of each destination.
//!
//! Install a recorder before a transport or a mux is made: handles made earlier count nothing.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry/noop.rs"]
mod facade;
#[cfg(all(feature = "mesh", feature = "metrics"))]
mod paths;
#[cfg(all(feature = "metrics", feature = "quic"))]
mod peers;

#[cfg(feature = "metrics")]
pub use facade::describe;
#[cfg(all(feature = "mesh", feature = "metrics"))]
pub use paths::PathGauges;
#[cfg(all(feature = "metrics", feature = "quic"))]
pub use peers::PeerGauges;

use facade::Counter;

#[cfg(feature = "quic")]
use crate::DownReason;

/// The label `reason` for each variant of [`DownReason`], in the order of [`place`].
#[cfg(feature = "quic")]
const REASONS: [&str; 17] = [
    "closed",
    "timed_out",
    "unreachable",
    "replaced",
    "wrong_identity",
    "untrusted",
    "expired",
    "own_identity_expired",
    "refused",
    "malformed",
    "failed",
    "no_channel",
    "channel_version",
    "local",
    "blocked",
    "no_route",
    "restarted",
];

/// The place of a reason in [`REASONS`].
#[cfg(feature = "quic")]
fn place(reason: &DownReason) -> usize {
    match reason {
        DownReason::Closed => 0,
        DownReason::TimedOut => 1,
        DownReason::Unreachable => 2,
        DownReason::Replaced => 3,
        DownReason::WrongIdentity { .. } => 4,
        DownReason::Untrusted { .. } => 5,
        DownReason::Expired => 6,
        DownReason::OwnIdentityExpired => 7,
        DownReason::Refused { .. } => 8,
        DownReason::Malformed { .. } => 9,
        DownReason::Failed { .. } => 10,
        DownReason::NoChannel { .. } => 11,
        DownReason::ChannelVersion { .. } => 12,
        DownReason::Local => 13,
        DownReason::Blocked => 14,
        DownReason::NoRoute => 15,
        DownReason::Restarted => 16,
    }
}

/// Counts of a QUIC transport.
#[cfg(feature = "quic")]
pub(crate) struct QuicTelemetry {
    sent_bytes: Counter,
    received_bytes: Counter,
    received_messages: Counter,
    up: Counter,
    down: Counter,
    dial_failures: Counter,
    reconnections: Counter,
    datagrams: [Counter; 2],
    handshake_failures: [Counter; REASONS.len()],
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
            reconnections: facade::counter("x0_mesh_reconnections_total"),
            datagrams: ["sent", "received"]
                .map(|way| facade::labelled("x0_mesh_datagrams_total", "direction", way)),
            handshake_failures: REASONS
                .map(|reason| facade::labelled("x0_mesh_handshake_failures_total", "reason", reason)),
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

    pub(crate) fn reconnected(&self) {
        self.reconnections.increment(1);
    }

    pub(crate) fn datagrams_sent(&self, count: usize) {
        self.datagrams[0].increment(count as u64);
    }

    pub(crate) fn datagrams_received(&self, count: usize) {
        self.datagrams[1].increment(count as u64);
    }

    pub(crate) fn handshake_failed(&self, reason: &DownReason) {
        self.handshake_failures[place(reason)].increment(1);
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
