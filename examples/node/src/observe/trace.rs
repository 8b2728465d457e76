//! Traces: the spans of x0-kv and x0-consensus, exported by OTLP over HTTP (protobuf).
//!
//! Libraries make spans with the facade `tracing`. Here a subscriber turns them into spans of OpenTelemetry
//! and puts them into a bounded queue; a thread of its own sends them. A receiver that is absent, refuses,
//! hangs or answers garbage costs spans, which are counted in `x0_trace_dropped_total`, and never delays an
//! operation.
//!
//! The spans of x0-identity and x0-mapek belong to no operation. A share of them is exported, and each
//! rotation and each action of the healer.
//!
//! Without `traces` in the configuration no subscriber is installed, and no span is made.

pub(crate) mod client;
mod http;
mod lines;
mod propagate;
mod queue;
pub(crate) mod receiver;
mod select;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter as _};
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use x0_kv::trace::{Context as TraceContext, Propagator as _, Tracing};

use self::http::BlockingClient;
use self::lines::Lines;
use self::propagate::OtelPropagator;
use self::queue::{Queue, Sender};
use self::receiver::Receiver;
use crate::log::Log;

/// The time of one request to the receiver.
const EXPORT_LIMIT: Duration = Duration::from_secs(2);
/// The time that a process waits for its last spans when it ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The exporter of the process. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Traces {
    queue: Queue,
}

impl Traces {
    /// Installs the subscriber of the process, and starts the thread that sends to `receiver`. Only one can
    /// be installed. `attributes` describe the process. The share `ratio` of the spans that belong to no
    /// operation is sent. The log gets the operations that fail or take longer than the time beside it.
    pub(crate) fn install(
        receiver: &Receiver,
        attributes: impl IntoIterator<Item = KeyValue>,
        ratio: f64,
        log: Option<(Log, Duration)>,
    ) -> Result<Traces> {
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", "x0-node"))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(attributes)
            .build();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(BlockingClient::new(receiver.clone(), EXPORT_LIMIT))
            .with_endpoint(receiver.url())
            .with_timeout(EXPORT_LIMIT)
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .context("cannot make the exporter of the traces")?;
        exporter.set_resource(&resource);
        let queue = Queue::start(exporter).context("cannot start the thread of the traces")?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(Sender::new(queue.clone(), log.map(|(log, slow)| Lines::new(log, slow))))
            .build();
        // A context is activated nowhere: it would be built, with its parent, before a parent is adopted.
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("x0-node"))
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_location(false)
            .with_target(false)
            .with_filter(select::exported(Tracing::new(Arc::new(OtelPropagator)).ratio(ratio)));
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .context("cannot install the subscriber of the spans")?;
        Ok(Traces { queue })
    }

    /// For the options of a node or client: with this share of the operations that enter without a trace.
    pub(crate) fn tracing(&self, ratio: f64) -> Tracing {
        Tracing::new(Arc::new(OtelPropagator)).ratio(ratio)
    }

    /// Sends the spans that wait, as far as that is possible within a second.
    pub(crate) fn flush(&self) {
        self.queue.flush(FLUSH_LIMIT);
    }
}

/// Makes `parent` the parent of the current span.
pub(crate) fn adopt(parent: &TraceContext) {
    OtelPropagator.adopt(parent);
}

/// The context of the current span, for a line of the log; `None` outside of spans that are exported.
pub(crate) fn current() -> Option<TraceContext> {
    OtelPropagator.current()
}
