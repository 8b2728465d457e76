//! Metrics of the program itself.
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `x0_build_info` | gauge | `version`, `architecture` | 1 |
//! | `x0_node_errors_total` | counter | `component`: those of the log | events of the level error |
//! | `x0_node_health` | gauge | `component`: those of `/health` | 1 while the component is ok, else 0 |
//! | `x0_node_disk_free_bytes` | gauge | – | free space on the disk of the data, measured some times per minute |
//! | `x0_node_log_records_total` | counter | – | records handed to the queue of the log |
//! | `x0_node_log_dropped_total` | counter | – | records that found the queue full |
//! | `x0_node_http_requests_total` | counter | `endpoint`: metrics, livez, readyz, health, rag, other; `class`: 2xx, 3xx, 4xx, 5xx | requests to the HTTP front |
//! | `x0_node_http_request_seconds` | histogram | `endpoint` | the time to the head of the answer |
//! | `x0_trace_exported_total` | counter | – | spans that the receiver of traces has accepted |
//! | `x0_trace_dropped_total` | counter | – | spans that found the queue full, or that the receiver did not accept |
//! | `x0_node_scrapes_total` | counter | – | readings of `/metrics` |
//! | `x0_node_scrape_seconds` | gauge | – | the time of the reading before this one |
//! | `x0_node_scrape_bytes` | gauge | – | the length of the reading before this one |

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::health::COMPONENTS;
use crate::log::record;

/// The endpoints that are distinguished.
const ENDPOINTS: [&str; 6] = ["metrics", "livez", "readyz", "health", "rag", "other"];

/// Describes each name to the installed recorder, and makes the series that must be there before the first
/// event: a rate does not see a first increment.
pub(crate) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("x0_build_info", Unit::Count, "The version of the program");
    describe_counter!("x0_node_errors_total", Unit::Count, "Events of the level error, by component");
    describe_gauge!("x0_node_health", Unit::Count, "1 while the component is ok");
    describe_gauge!("x0_node_disk_free_bytes", Unit::Bytes, "Free space on the disk of the data");
    describe_counter!("x0_node_log_records_total", Unit::Count, "Records handed to the queue of the log");
    describe_counter!(
        "x0_node_log_dropped_total",
        Unit::Count,
        "Records that found the queue of the log full"
    );
    describe_counter!("x0_node_http_requests_total", Unit::Count, "Requests to the HTTP front");
    describe_histogram!("x0_node_http_request_seconds", Unit::Seconds, "The time to the head of the answer");
    describe_counter!("x0_trace_exported_total", Unit::Count, "Spans that the receiver has accepted");
    describe_counter!("x0_trace_dropped_total", Unit::Count, "Spans without room, or refused");
    describe_counter!("x0_node_scrapes_total", Unit::Count, "Readings of the metrics");
    describe_gauge!("x0_node_scrape_seconds", Unit::Seconds, "The time of the reading before this one");
    describe_gauge!("x0_node_scrape_bytes", Unit::Bytes, "The length of the reading before this one");
    gauge!("x0_build_info", "version" => env!("CARGO_PKG_VERSION"), "architecture" => std::env::consts::ARCH)
        .set(1.0);
    for component in record::COMPONENTS {
        counter!("x0_node_errors_total", "component" => component).increment(0);
    }
    for component in COMPONENTS {
        health(component, true);
    }
    counter!("x0_node_log_records_total").increment(0);
    counter!("x0_node_log_dropped_total").increment(0);
    counter!("x0_trace_exported_total").increment(0);
    counter!("x0_trace_dropped_total").increment(0);
    counter!("x0_node_scrapes_total").increment(0);
}

/// A component is in order, or not.
pub(crate) fn health(component: &'static str, is_ok: bool) {
    gauge!("x0_node_health", "component" => component).set(if is_ok { 1.0 } else { 0.0 });
}

/// The disk of the data has this much free space.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(crate) fn disk_free(bytes: u64) {
    gauge!("x0_node_disk_free_bytes").set(bytes as f64);
}

/// A record was queued.
pub(crate) fn record_queued() {
    counter!("x0_node_log_records_total").increment(1);
}

/// A record found no room.
pub(crate) fn record_dropped() {
    counter!("x0_node_log_dropped_total").increment(1);
}

/// The receiver of traces has accepted this many spans.
pub(crate) fn spans_exported(count: usize) {
    counter!("x0_trace_exported_total").increment(count as u64);
}

/// This many spans are lost.
pub(crate) fn spans_dropped(count: usize) {
    counter!("x0_trace_dropped_total").increment(count as u64);
}

/// An event of the level error.
pub(crate) fn error(component: &'static str) {
    counter!("x0_node_errors_total", "component" => component).increment(1);
}

/// Whether an endpoint answers a probe.
pub(crate) fn is_probe(endpoint: &str) -> bool {
    matches!(endpoint, "livez" | "readyz" | "health")
}

/// The label of a path. Unknown paths share one, so that a caller cannot make series.
pub(crate) fn endpoint(path: &str) -> &'static str {
    let first = path.split('/').nth(1).unwrap_or_default();
    let name = if path.starts_with("/api/v1/rag/") { "rag" } else { first };
    ENDPOINTS.into_iter().find(|endpoint| *endpoint == name).unwrap_or("other")
}

/// A request was answered.
pub(crate) fn request(endpoint: &'static str, status: u16, elapsed: Duration) {
    let class = match status {
        0..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    counter!("x0_node_http_requests_total", "endpoint" => endpoint, "class" => class).increment(1);
    histogram!("x0_node_http_request_seconds", "endpoint" => endpoint).record(elapsed);
}

/// A reading of the metrics ended.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(crate) fn scrape(elapsed: Duration, len: usize) {
    counter!("x0_node_scrapes_total").increment(1);
    gauge!("x0_node_scrape_seconds").set(elapsed.as_secs_f64());
    gauge!("x0_node_scrape_bytes").set(len as f64);
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn paths_have_few_labels() {
        assert_eq!(endpoint("/metrics"), "metrics");
        assert_eq!(endpoint("/readyz"), "readyz");
        assert_eq!(endpoint("/api/v1/rag/collections/a/documents/b"), "rag");
        for path in ["", "/", "/x", "/rag/x\n", "/api/v1/other"] {
            assert!(["other", "rag"].contains(&endpoint(path)), "{path}");
        }
    }
}
