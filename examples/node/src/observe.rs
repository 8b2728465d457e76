//! Observation of a node: `/metrics`, `/livez`, `/readyz` and `/health` on the HTTP front, and the thread
//! that keeps them current.
//!
//! Nothing here runs on the thread of the event loop but a beat, an atomic store some times per second.
//! Without a listener that serves `metrics` no recorder is installed, and the metrics of all crates cost
//! nothing.

pub(crate) mod config;
pub(crate) mod health;
mod metrics;
mod probe;
pub(crate) mod process;
pub(crate) mod telemetry;
pub(crate) mod trace;
pub(crate) mod up;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use opentelemetry::KeyValue;
use x0_identity::Identity;
use x0_kv::cluster::Node;
use x0_kv::trace::Tracing;
use x0_mesh::quic::PeerBook;

use self::health::{Health, State};
use self::metrics::Metrics;
use self::trace::Traces;
use crate::config::NodeConfig;
use crate::http::config::Route;
use crate::log::Log;
use crate::mesh::NodeMesh;

/// How often the thread drains the histograms: a sample takes 8 bytes until then, of half a million in a
/// second.
const DRAIN_EVERY: Duration = Duration::from_millis(250);
/// How often the thread evaluates the health, in drains.
const DRAINS_PER_TURN: u32 = 4;
/// The time between two beats of the event loop.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// The outputs of one node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Observe {
    metrics: Option<Metrics>,
    health: Arc<Health>,
    traces: Option<Traces>,
    trace_ratio: f64,
}

impl Observe {
    /// Installs the recorder if a listener serves `metrics`, and the exporter of traces if they have a
    /// receiver. Both come before every part of the node that makes handles: a handle made earlier records
    /// nothing.
    pub(crate) fn install(config: &NodeConfig, log: &Log) -> Result<Observe> {
        let wants = config.http.iter().any(|listener| listener.routes.contains(&Route::Metrics));
        let metrics = if wants { Some(Metrics::install()?) } else { None };
        let traces = match &config.observe.traces {
            Some(receiver) => {
                let instance = KeyValue::new("service.instance.id", config.node.to_string());
                let slow = Duration::from_millis(config.observe.slow_ms);
                let ratio = config.observe.trace_ratio.get();
                Some(Traces::install(receiver, [instance], ratio, Some((log.clone(), slow)))?)
            }
            None => None,
        };
        let health = Arc::new(Health::new(config.observe.clone()));
        Ok(Observe { metrics, health, traces, trace_ratio: config.observe.trace_ratio.get() })
    }

    /// For the options of the node.
    pub(crate) fn tracing(&self) -> Tracing {
        self.traces.as_ref().map(|traces| traces.tracing(self.trace_ratio)).unwrap_or_default()
    }

    /// Sends the spans that wait, as far as that is possible within a second. Blocks.
    pub(crate) fn flush(&self) {
        if let Some(traces) = &self.traces {
            traces.flush();
        }
    }

    /// Starts the thread that keeps the outputs current.
    pub(crate) fn begin(&self, log: &Log) -> Result<()> {
        let (observe, log) = (self.clone(), log.clone());
        let turn = move || {
            for drain in (0..DRAINS_PER_TURN).cycle() {
                if let Some(metrics) = &observe.metrics {
                    metrics.upkeep();
                }
                if drain == 0 {
                    observe.turn(&log);
                }
                std::thread::sleep(DRAIN_EVERY);
            }
        };
        // The thread ends with the process.
        std::thread::Builder::new().name("observe".into()).spawn(turn).context("cannot start a thread")?;
        Ok(())
    }

    /// Has the identity and the peers observed, before the node starts.
    pub(crate) fn starting(&self, identity: &Identity, peers: &PeerBook, mesh: Option<&Arc<NodeMesh>>) {
        self.health.starting(identity.clone());
        if let Some(metrics) = &self.metrics {
            metrics.peers(peers.clone());
            if let Some(mesh) = mesh {
                metrics.mesh(Arc::clone(mesh));
            }
        }
    }

    /// Observes the node from now on. Spawns the beat on the runtime of the caller, which is that of the
    /// event loop.
    pub(crate) fn started(&self, node: &Node) {
        self.health.started(node.status_handle());
        let health = Arc::clone(&self.health);
        tokio::spawn(async move {
            loop {
                health.beat();
                tokio::time::sleep(BEAT_EVERY).await;
            }
        });
    }

    /// The routes of `metrics` or `health`.
    pub(crate) fn router(&self, route: Route) -> Router {
        match route {
            Route::Metrics => self.metrics.as_ref().map(Metrics::router).unwrap_or_default(),
            Route::Health => probe::router(&self.health),
            Route::Rag => Router::new(),
        }
    }

    fn turn(&self, log: &Log) {
        for (component, state, reason) in self.health.turn() {
            let event = if state == State::Ok { "health-restored" } else { "health-impaired" };
            log.event(event, format!("part={component} state={} why={reason}", state.name()));
        }
    }
}
