//! Contexts of x0 and those of OpenTelemetry.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use x0_kv::trace::{Context, Propagator};

/// Joins the spans of nodes by their contexts of OpenTelemetry.
#[derive(Debug, Clone, Copy)]
pub(super) struct OtelPropagator;

impl Propagator for OtelPropagator {
    fn current(&self) -> Option<Context> {
        let span = Span::current();
        if span.is_none() {
            return None;
        }
        let context = span.context();
        let context = context.span().span_context().clone();
        Context::new(
            context.trace_id().to_bytes(),
            context.span_id().to_bytes(),
            context.trace_flags().to_u8(),
        )
    }

    fn adopt(&self, parent: &Context) {
        let parent = SpanContext::new(
            TraceId::from_bytes(parent.trace_id()),
            SpanId::from_bytes(parent.span_id()),
            TraceFlags::new(parent.flags()),
            true,
            TraceState::default(),
        );
        // A span that is built already keeps its parent: it would be one of this process.
        let _ = Span::current().set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
}
