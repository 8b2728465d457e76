//! `/metrics`: the recorder of the process in the Prometheus text format 0.0.4.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use x0_mesh::quic::PeerBook;
use x0_mesh::telemetry::{PathGauges, PeerGauges};

use super::process::Process;
use super::telemetry;
use crate::mesh::NodeMesh;

/// The least upper bound of a bucket, in seconds, and the ratio of one bound to the next.
type Buckets = (f64, f64, usize);
/// From 40 us to 10 s. With a ratio of at most 1.25 a quantile is within some percent of the exact one.
const FINE: Buckets = (4e-5, 1.25, 57);
/// From 200 us to 6.5 s.
const COARSE: Buckets = (2e-4, 2.0, 16);
/// From 1 ms to 16 s.
const REQUEST: Buckets = (1e-3, 4.0, 8);
/// From 1 ms to 10 s, for a name with many series: the parts of indexing differ by orders of magnitude.
const STAGE: Buckets = (1e-3, 10.0, 5);
/// The histograms with fine buckets: those whose quantiles operators look at.
const FINE_NAMES: [&str; 3] =
    ["x0_kv_operation_seconds", "x0_consensus_commit_seconds", "x0_consensus_log_write_seconds"];

/// The recorder of the process. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

struct Inner {
    handle: PrometheusHandle,
    process: Process,
    /// `None` until the transport is there.
    peers: Mutex<Option<PeerGauges>>,
    /// `None` of a node without links.
    mesh: Mutex<Option<(Arc<NodeMesh>, PathGauges)>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Installs the recorder of the process, and describes the names of all crates.
    pub(crate) fn install() -> Result<Metrics> {
        let handle = builder()?.install_recorder().context("cannot install the recorder of the metrics")?;
        x0_kv::telemetry::describe();
        x0_consensus::telemetry::describe();
        x0_mesh::telemetry::describe();
        x0_identity::telemetry::describe();
        x0_ml::telemetry::describe();
        x0_mapek::telemetry::describe();
        telemetry::describe();
        let (process, peers, mesh) = (Process::new(), Mutex::default(), Mutex::default());
        Ok(Metrics(Arc::new(Inner { handle, process, peers, mesh })))
    }

    /// Shows the peers of a transport from now on.
    pub(crate) fn peers(&self, book: PeerBook) {
        *self.0.peers.lock().unwrap_or_else(PoisonError::into_inner) = Some(PeerGauges::new(book));
    }

    /// Shows the links and paths of a mesh from now on.
    pub(crate) fn mesh(&self, mesh: Arc<NodeMesh>) {
        *self.0.mesh.lock().unwrap_or_else(PoisonError::into_inner) = Some((mesh, PathGauges::new()));
    }

    /// Moves the samples of the histograms to their buckets. Without it they pile up until a scrape.
    pub(crate) fn upkeep(&self) {
        self.0.handle.run_upkeep();
    }

    pub(crate) fn router(&self) -> Router {
        Router::new().route("/metrics", get(read)).with_state(self.clone())
    }

    fn text(&self) -> String {
        let begun = Instant::now();
        if let Some(peers) = &mut *self.0.peers.lock().unwrap_or_else(PoisonError::into_inner) {
            peers.publish();
        }
        if let Some((mesh, gauges)) = &mut *self.0.mesh.lock().unwrap_or_else(PoisonError::into_inner) {
            mesh.publish(gauges);
        }
        let mut text = without_nan(&self.0.handle.render());
        self.0.process.write(&mut text);
        telemetry::scrape(begun.elapsed(), text.len());
        text
    }
}

/// The text without the samples that have no value: those of peers that are gone, and of what is not known. A
/// sample that is NaN would make each sum over it NaN.
fn without_nan(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(" NaN")).collect()
}

async fn read(State(metrics): State<Metrics>) -> Response {
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], metrics.text()).into_response()
}

fn builder() -> Result<PrometheusBuilder> {
    let few: [(&str, Buckets); 5] = [
        ("x0_node_http_request_seconds", REQUEST),
        ("x0_consensus_snapshot_seconds", REQUEST),
        ("x0_kv_checkpoint_seconds", REQUEST),
        ("x0_ml_stage_seconds", STAGE),
        ("x0_mapek_loop_seconds", STAGE),
    ];
    let fine = FINE_NAMES.map(|name| (name, FINE));
    let mut builder = PrometheusBuilder::new().set_buckets(&bounds(COARSE));
    for (name, buckets) in few.into_iter().chain(fine) {
        builder = builder
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(name.into()), &bounds(buckets)));
    }
    builder.context("the buckets of the metrics are not valid")
}

/// The bounds, in seconds, rounded to three digits so that they are short.
fn bounds((first, ratio, count): Buckets) -> Vec<f64> {
    let exact = (0..count).scan(first, |bound, _| {
        let now = *bound;
        *bound *= ratio;
        Some(now)
    });
    exact
        .map(|bound: f64| {
            let scale = 10f64.powf(2.0 - bound.log10().floor());
            (bound * scale).round() / scale
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use metrics::{Key, Label, Level, Metadata, Recorder};

    use super::*;

    const METADATA: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    #[test]
    fn bounds_grow_by_their_ratio() {
        let fine = bounds(FINE);
        assert!(fine.len() <= 60 && fine[0] <= 4e-5 && *fine.last().unwrap() >= 10.0, "{fine:?}");
        for pair in fine.windows(2) {
            let ratio = pair[1] / pair[0];
            assert!((1.2..1.26).contains(&ratio), "{pair:?}");
        }
    }

    /// `histogram_quantile` of Prometheus: linear between the bounds of the bucket.
    fn quantile(text: &str, quantile: f64) -> f64 {
        let buckets: Vec<(f64, f64)> = text
            .lines()
            .filter_map(|line| {
                let (_, rest) = line.split_once("le=\"")?;
                let (bound, count) = rest.split_once("\"} ")?;
                Some((bound.replace("+Inf", "inf").parse().ok()?, count.parse().ok()?))
            })
            .collect();
        let rank = quantile * buckets.last().unwrap().1;
        let at = buckets.iter().position(|(_, count)| *count >= rank).unwrap();
        let (low, before) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (high, count) = buckets[at];
        low + (high - low) * (rank - before) / (count - before)
    }

    #[test]
    fn quantiles_of_the_buckets_are_near_the_exact_ones() {
        let recorder = builder().unwrap().build_recorder();
        let key = Key::from_name("x0_kv_operation_seconds");
        let histogram = recorder.register_histogram(&key, &METADATA);
        // Latencies of a store: a log-normal body of 1.5 ms, with a tail. Uniform numbers by a fixed
        // generator.
        let mut seed = 1u64;
        let mut uniform = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let mut samples: Vec<f64> = (0..100_000)
            .map(|_| {
                let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
                1.5e-3 * (0.6 * normal).exp() + if uniform() < 0.01 { 0.02 * uniform() } else { 0.0 }
            })
            .collect();
        samples.iter().for_each(|sample| histogram.record(*sample));
        samples.sort_unstable_by(f64::total_cmp);
        let text = recorder.handle().render();
        for part in [0.5, 0.9, 0.95, 0.99, 0.999] {
            #[expect(clippy::cast_possible_truncation, reason = "a part of the length")]
            let exact = samples[(part * samples.len() as f64) as usize];
            let found = quantile(&text, part);
            assert!((found / exact - 1.0).abs() <= 0.1, "p{part}: {found} instead of {exact}");
        }
    }

    #[test]
    fn a_sample_without_a_value_is_left_out() {
        let recorder = builder().unwrap().build_recorder();
        for (peer, value) in [("1", 1.0), ("2", f64::NAN), ("3", f64::INFINITY)] {
            let key = Key::from_parts("x0_test", vec![Label::new("peer", peer)]);
            recorder.register_gauge(&key, &METADATA).set(value);
        }
        let text = without_nan(&recorder.handle().render());
        let mut samples: Vec<&str> = text.lines().filter(|line| line.starts_with("x0_test{")).collect();
        samples.sort_unstable();
        assert_eq!(samples, ["x0_test{peer=\"1\"} 1", "x0_test{peer=\"3\"} inf"], "{text}");
        assert!(text.contains("# TYPE x0_test gauge\n"));
    }

    #[test]
    fn hostile_label_values_stay_in_their_line() {
        let recorder = builder().unwrap().build_recorder();
        let value = "a\"b\\c\nx0_evil 1\n# TYPE evil counter\0\u{202e}";
        let key = Key::from_parts("x0_test_total", vec![Label::new("peer", value)]);
        recorder.register_counter(&key, &METADATA).increment(7);
        let text = recorder.handle().render();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("peer=")).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(lines[0].ends_with(" 7") && !text.lines().any(|line| line.starts_with("x0_evil")), "{text}");
    }
}
