//! Metrics of sessions, through the `metrics` facade (feature `metrics`).
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_crdt_session_sent_bytes_total` | counter | – | bytes sent, as datagrams without the headers below them |
//! | `x0_crdt_session_received_bytes_total` | counter | – | bytes received |
//! | `x0_crdt_session_redundant_bytes_total` | counter | – | bytes received that had arrived before |
//! | `x0_crdt_session_sent_datagrams_total` | counter | – | datagrams sent |
//! | `x0_crdt_session_joins_total` | counter | – | deltas joined |
//! | `x0_crdt_session_retries_total` | counter | – | requests that were repeated because no answer arrived |
//! | `x0_crdt_session_divergences_total` | counter | – | times that equal versions had unequal contents |
//! | `x0_crdt_session_reconciliations_total` | counter | – | times that states were reconciled because history was too short |
//!
//! A session does no I/O and reports nothing by itself: its driver publishes the statistics. Install a
//! recorder before [`SessionTelemetry::new`]. x0-kv has series of its own (`x0_kv_crdt_*`), which also cover
//! sessions that have ended.

use metrics::{Counter, Unit, counter, describe_counter};

use crate::SessionStats;

/// The names, in the order of `values`.
const NAMES: [(&str, Unit, &str); 8] = [
    ("x0_crdt_session_sent_bytes_total", Unit::Bytes, "Bytes sent"),
    ("x0_crdt_session_received_bytes_total", Unit::Bytes, "Bytes received"),
    ("x0_crdt_session_redundant_bytes_total", Unit::Bytes, "Bytes received that had arrived before"),
    ("x0_crdt_session_sent_datagrams_total", Unit::Count, "Datagrams sent"),
    ("x0_crdt_session_joins_total", Unit::Count, "Deltas joined"),
    ("x0_crdt_session_retries_total", Unit::Count, "Requests that were repeated"),
    ("x0_crdt_session_divergences_total", Unit::Count, "Times that equal versions had unequal contents"),
    ("x0_crdt_session_reconciliations_total", Unit::Count, "Times that states were reconciled"),
];

fn values(stats: &SessionStats) -> [u64; NAMES.len()] {
    [
        stats.sent_bytes,
        stats.received_bytes,
        stats.redundant_bytes,
        stats.sent_datagrams,
        stats.joins,
        stats.retries,
        stats.divergences,
        stats.reconciliations,
    ]
}

/// Gives the installed recorder the unit and the meaning of each name.
pub fn describe() {
    for (name, unit, text) in NAMES {
        describe_counter!(name, unit, text);
    }
}

/// The counters of one session. Those of several sessions add up: the names have no labels, so that peers do
/// not become series.
#[derive(Debug)]
pub struct SessionTelemetry {
    counters: [Counter; NAMES.len()],
    published: SessionStats,
}

impl SessionTelemetry {
    /// The counters of a session whose statistics are zero.
    #[must_use]
    pub fn new() -> SessionTelemetry {
        SessionTelemetry {
            counters: NAMES.map(|(name, ..)| counter!(name)),
            published: SessionStats::default(),
        }
    }

    /// Adds what the session counted since the last call.
    pub fn publish(&mut self, stats: SessionStats) {
        let (before, now) = (values(&self.published), values(&stats));
        for (counter, (before, now)) in self.counters.iter().zip(before.into_iter().zip(now)) {
            counter.increment(now.saturating_sub(before));
        }
        self.published = stats;
    }
}

impl Default for SessionTelemetry {
    fn default() -> SessionTelemetry {
        SessionTelemetry::new()
    }
}
