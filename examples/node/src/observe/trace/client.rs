//! The trace of one command.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use opentelemetry::KeyValue;
use tracing::Span;
use x0_kv::trace::{Context, Propagator, Tracing};

use super::Traces;
use super::receiver::Receiver;

/// The trace of a command: the spans of all nodes that take part in it have its id.
#[derive(Debug)]
pub(crate) struct CommandTrace {
    /// `None` if the command has no receiver: the trace has the spans of the nodes alone.
    traces: Option<Traces>,
    tracing: Tracing,
    /// The span of the command.
    span: Span,
    context: Context,
}

/// The context of a command without a span of its own.
struct Fixed(Context);

impl Propagator for Fixed {
    fn current(&self) -> Option<Context> {
        Some(self.0)
    }

    fn adopt(&self, _: &Context) {}
}

impl CommandTrace {
    /// Begins a trace, or continues that of `parent`. With a receiver the command sends its span as well.
    pub(crate) fn begin(receiver: Option<&Receiver>, parent: Option<Context>) -> Result<CommandTrace> {
        let Some(receiver) = receiver else {
            let context = match parent {
                Some(parent) => parent,
                None => random().context("cannot draw the id of a trace")?,
            };
            let tracing = Tracing::new(Arc::new(Fixed(context)));
            return Ok(CommandTrace { traces: None, tracing, span: Span::none(), context });
        };
        let traces = Traces::install(receiver, [KeyValue::new("service.instance.id", "client")], 0.0, None)?;
        let tracing = traces.tracing(0.0);
        let span = tracing::info_span!(parent: None, "kv.command");
        let context = span.in_scope(|| {
            if let Some(parent) = parent {
                tracing.adopt(&parent);
            }
            tracing.current()
        });
        let context = context.context("the span of the command was not made")?;
        Ok(CommandTrace { traces: Some(traces), tracing, span, context })
    }

    /// For the options of a client.
    pub(crate) fn tracing(&self) -> Tracing {
        self.tracing.clone()
    }

    /// The span in which the command is carried out.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// The id of the trace in 32 hexadecimal digits.
    pub(crate) fn id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.context.trace_id()))
    }

    /// Ends the span. Returns what has to be flushed before the process ends.
    pub(crate) fn end(self) -> Option<Traces> {
        self.traces
    }
}

/// A new trace that is recorded.
fn random() -> Result<Context, getrandom::Error> {
    loop {
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        getrandom::fill(&mut trace_id)?;
        getrandom::fill(&mut span_id)?;
        if let Some(context) = Context::new(trace_id, span_id, Context::SAMPLED) {
            return Ok(context);
        }
    }
}
