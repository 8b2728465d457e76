//! The log lines of traced operations: those that failed or were slow, and elections.

use std::time::Duration;

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;
use x0_kv::trace::Context;

use crate::log::Log;

/// Writes a line for a span that ended, with the ids of its trace and of itself.
#[derive(Debug)]
pub(super) struct Lines {
    log: Log,
    /// An operation that takes longer has a line.
    slow: Duration,
}

impl Lines {
    pub(super) fn new(log: Log, slow: Duration) -> Lines {
        Lines { log, slow }
    }

    /// Called where the span ends, which may be the event loop: the log does not wait.
    pub(super) fn ended(&self, span: &SpanData) {
        // One line for each operation and process, that of the span in which the process received it.
        if span.parent_span_id != SpanId::INVALID && !span.parent_span_is_remote {
            return;
        }
        let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
        let value = |name: &str| {
            let attribute = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
            attribute.map(|attribute| attribute.value.to_string())
        };
        let part = |name: &str| value(name).map(|value| format!(" {name}={value}")).unwrap_or_default();
        let (event, details) = match &*span.name {
            "consensus.election" => ("election", format!("{}{}", part("term"), part("leader"))),
            name if name.starts_with("kv.") => match value("error") {
                Some(error) => ("operation-failed", format!(" operation={name}{} why={error}", part("from"))),
                None if took > self.slow => ("operation-slow", format!(" operation={name}{}", part("from"))),
                None => return,
            },
            _ => return,
        };
        let context = &span.span_context;
        let (trace, id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        let context = Context::new(trace, id, context.trace_flags().to_u8());
        self.log.event_in(context, event, format!("ms={}{details}", took.as_millis()));
    }
}
