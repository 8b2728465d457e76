//! The traces of operations on CRDT keyspaces.

use x0_identity::NodeId;

use super::{Context, Span, Trace, Tracing};
use crate::crdt::Request;

impl Trace {
    /// A local caller submits a request, on the thread of the caller.
    #[inline]
    pub(crate) fn crdt_submitted(tracing: &Tracing, request: &Request) -> Trace {
        if !tracing.is_on() {
            return Trace::default();
        }
        let current = tracing.current();
        let is_traced = current.map_or_else(|| tracing.draw(), |current| current.is_sampled());
        match is_traced {
            true => Trace::of(Span::crdt_submitted(request), tracing, current),
            false => Trace::default(),
        }
    }

    /// The request of a client has come to `node`. The decision is made here if the client sends no context.
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "clients come over a mesh"))]
    pub(crate) fn crdt_served(
        tracing: &Tracing,
        context: Option<Context>,
        (node, from): (NodeId, NodeId),
        request: &Request,
    ) -> Trace {
        let is_write = matches!(request, Request::Write(_));
        match context {
            Some(context) if !context.is_sampled() => Trace::default(),
            Some(_) if !tracing.is_on() => Trace { span: None, context },
            None if !tracing.draw() => Trace::default(),
            parent => {
                let span = Span::crdt_served(node, from, is_write);
                if let Some(parent) = &parent {
                    span.within(|| tracing.adopt(parent));
                }
                Trace::of(span, tracing, parent)
            }
        }
    }

    /// `node` has joined changes of so many keys of another member.
    pub(crate) fn merged(
        tracing: &Tracing,
        parent: &Context,
        (node, from): (NodeId, NodeId),
        keys: usize,
    ) -> Trace {
        if !tracing.is_on() || !parent.is_sampled() {
            return Trace::default();
        }
        let span = Span::merged(node, from, keys);
        span.within(|| tracing.adopt(parent));
        Trace::of(span, tracing, Some(*parent))
    }
}
