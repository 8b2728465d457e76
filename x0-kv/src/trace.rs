//! Distributed traces of operations, with the feature `tracing`.
//!
//! A node or client that is given a [`Tracing`] (`NodeOptions::tracing`, `ClientOptions::tracing`) makes
//! spans of the operations that are traced, and sends their context with them:
//!
//! | span | parent | from, to |
//! |---|---|---|
//! | `kv.get`, `kv.range`, `kv.scan`, `kv.keyspaces`, `kv.put`, `kv.delete`, `kv.compare_and_swap`, `kv.transaction`, `kv.create_keyspace`, `kv.drop_keyspace` | the current span of the caller, if there is one | the submission of an operation, its answer |
//! | `kv.read`, `kv.write` | the span of the node that sent the operation | the arrival of another node's operation, its answer |
//! | `kv.crdt.get`, `kv.crdt.siblings`, `kv.crdt.counter`, `kv.crdt.range`, `kv.crdt.keyspaces`, `kv.crdt.put`, `kv.crdt.add`, `kv.crdt.delete`, `kv.crdt.clear` | the current span of the caller | the submission of an operation on a CRDT keyspace, its answer |
//! | `kv.crdt.read`, `kv.crdt.write` | the span of the client that sent the operation | the arrival of a client's operation, its answer; a write is durable then |
//! | `crdt.merge` | the span of the write, on the member that accepted it | a member has joined the changes of another member, they are durable |
//!
//! A write of a CRDT keyspace reaches the other members in datagrams, of which the first ones carry its
//! context. If they are all lost, or if other writes follow at once, the merge has no span or is in the trace
//! of the last of these writes.
//!
//! The spans of the replicated log, `log.write` with the synchronisation among them, follow under these: see
//! [`x0_consensus::trace`].
//!
//! # The decision
//! Whether an operation is traced is decided once, where it enters the cluster:
//! - Called from within a span, it is traced if that span is.
//! - Otherwise a random draw decides ([`Tracing::ratio`]).
//! - A member draws also for the operations of clients that come without a context: a client need not know of
//!   traces. An operation without a context that comes from a member is not traced.
//!
//! An operation that is not traced has no span, and its messages are those of a release without traces.
//! Contexts are sent only to peers that read them, and never enter the log.

#[cfg(feature = "crdt")]
mod crdt;
#[cfg(not(feature = "tracing"))]
#[path = "trace/noop.rs"]
mod spans;
#[cfg(feature = "tracing")]
mod spans;

pub use x0_consensus::trace::{Context, ParseContextError, Propagator, Tracing};

use x0_identity::NodeId;

pub(crate) use self::spans::Span;
use crate::request::error::OperationError;
use crate::request::operation::Operation;

/// An operation that may be traced: its span, which ends with this value, and its context.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    span: Option<Span>,
    context: Option<Context>,
}

impl Trace {
    /// An operation of a local caller is submitted, on the thread of the caller.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only nodes and clients trace"))]
    #[inline]
    pub(crate) fn submitted(tracing: &Tracing, operation: &Operation) -> Trace {
        if tracing.is_on() { Trace::decided(tracing, operation) } else { Trace::default() }
    }

    fn decided(tracing: &Tracing, operation: &Operation) -> Trace {
        let current = tracing.current();
        let is_traced = current.map_or_else(|| tracing.draw(), |current| current.is_sampled());
        if !is_traced {
            return Trace::default();
        }
        Trace::of(Span::submitted(operation), tracing, current)
    }

    /// An operation has come to `node` from another node, with this context or without. `draws`: the decision
    /// is made here.
    pub(crate) fn served(
        tracing: &Tracing,
        context: Option<Context>,
        (node, from): (NodeId, NodeId),
        is_write: bool,
        draws: bool,
    ) -> Trace {
        match context {
            Some(context) if !context.is_sampled() => Trace::default(),
            // Without a propagator the context is passed on as it is.
            Some(_) if !tracing.is_on() => Trace { span: None, context },
            Some(parent) => {
                let span = Span::served(node, from, is_write);
                span.within(|| tracing.adopt(&parent));
                Trace::of(span, tracing, context)
            }
            None if draws && tracing.draw() => Trace::of(Span::served(node, from, is_write), tracing, None),
            None => Trace::default(),
        }
    }

    /// A span and its context, or else that of its parent.
    fn of(span: Span, tracing: &Tracing, parent: Option<Context>) -> Trace {
        let own = if span.is_disabled() { None } else { span.within(|| tracing.current()) };
        Trace { span: Some(span), context: own.or(parent) }
    }

    /// The context that goes on with the operation; `None` if it is not traced.
    pub(crate) fn context(&self) -> Option<Context> {
        self.context
    }

    /// The operation was answered.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only nodes and clients trace"))]
    pub(crate) fn end(self, error: Option<&OperationError>) {
        if let (Some(span), Some(error)) = (&self.span, error) {
            span.failed(error);
        }
    }
}
