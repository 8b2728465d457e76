//! The spans that are exported.

use tracing::subscriber::Interest;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::DynFilterFn;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;
use x0_kv::trace::Tracing;

/// Spans of the level debug that are rare and matter each time.
const ALWAYS: [&str; 3] = ["identity.rotate", "mapek.execute", "mapek.verify"];

/// The decision about a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The span belongs to another crate, or there are too many of its kind.
    Never,
    /// The decision was made where the operation entered, or the span is rare.
    Always,
    /// The span belongs to no operation: a share of these is exported, each with the spans inside of it.
    Drawn,
}

fn choice(metadata: &Metadata<'_>) -> Choice {
    match *metadata.level() {
        _ if !metadata.target().starts_with("x0_") => Choice::Never,
        Level::TRACE => Choice::Never,
        Level::DEBUG if ALWAYS.contains(&metadata.name()) => Choice::Always,
        Level::DEBUG => Choice::Drawn,
        // An event belongs to the span that it is in.
        _ if metadata.is_event() => Choice::Drawn,
        _ => Choice::Always,
    }
}

/// Selects the spans of the layer that exports them. `tracing` draws those that belong to no operation.
pub(super) fn exported<S>(tracing: Tracing) -> impl Filter<S>
where
    S: tracing::Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    let enabled = move |metadata: &Metadata<'_>, context: &Context<'_, S>| match choice(metadata) {
        Choice::Never => false,
        Choice::Always => true,
        // The current span of the layer: one that was not selected is not seen here.
        Choice::Drawn => context.lookup_current().is_some() || metadata.is_span() && tracing.draw(),
    };
    let callsite = |metadata: &'static Metadata<'static>| match choice(metadata) {
        Choice::Never => Interest::never(),
        Choice::Always => Interest::always(),
        Choice::Drawn => Interest::sometimes(),
    };
    DynFilterFn::new(enabled).with_callsite_filter(callsite)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
    use tracing::{debug_span, info_span, trace_span};
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::propagate::OtelPropagator;
    use super::*;

    /// The names of the spans that ended.
    #[derive(Debug, Clone, Default)]
    struct Ended(Arc<Mutex<Vec<String>>>);

    impl SpanProcessor for Ended {
        fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span.name.into_owned());
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: std::time::Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    fn ended(ratio: f64) -> Vec<String> {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
        let tracing = Tracing::new(Arc::new(OtelPropagator)).ratio(ratio);
        let layer =
            tracing_opentelemetry::layer().with_tracer(provider.tracer("x")).with_filter(exported(tracing));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            info_span!(target: "x0_kv", "kv.put").in_scope(|| {
                debug_span!(target: "x0_identity", "identity.handshake", of = "an operation").in_scope(|| {});
                debug_span!(target: "quinn", "foreign").in_scope(|| {});
            });
            for _ in 0..2 {
                debug_span!(target: "x0_mapek", "mapek.round").in_scope(|| {
                    debug_span!(target: "x0_mapek", "mapek.plan").in_scope(|| {});
                    trace_span!(target: "x0_mapek", "mapek.monitor").in_scope(|| {});
                });
            }
            debug_span!(target: "x0_identity", "identity.rotate").in_scope(|| {});
        });
        ended.0.lock().unwrap().clone()
    }

    #[test]
    fn spans_without_an_operation_are_drawn_with_the_spans_inside() {
        assert_eq!(ended(0.0), ["identity.handshake", "kv.put", "identity.rotate"]);
        let round = ["mapek.plan", "mapek.round"];
        let all = [&["identity.handshake", "kv.put"][..], &round, &round, &["identity.rotate"]].concat();
        assert_eq!(ended(1.0), all);
    }
}
