//! Spans that are nothing, without the feature `tracing`. The methods are those of `spans`.
#![expect(clippy::unused_self, reason = "the signatures are those of `spans`")]

use x0_identity::NodeId;

use crate::request::error::OperationError;
use crate::request::operation::Operation;

#[derive(Debug)]
pub(crate) struct Span;

impl Span {
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only nodes and clients trace"))]
    pub(crate) fn submitted(_: &Operation) -> Span {
        Span
    }

    pub(crate) fn served(_: NodeId, _: NodeId, _: bool) -> Span {
        Span
    }

    #[cfg(feature = "crdt")]
    pub(crate) fn crdt_submitted(_: &crate::crdt::Request) -> Span {
        Span
    }

    #[cfg(feature = "crdt")]
    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "clients come over a mesh"))]
    pub(crate) fn crdt_served(_: NodeId, _: NodeId, _: bool) -> Span {
        Span
    }

    #[cfg(feature = "crdt")]
    pub(crate) fn merged(_: NodeId, _: NodeId, _: usize) -> Span {
        Span
    }

    pub(crate) fn is_disabled(&self) -> bool {
        true
    }

    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        run()
    }

    #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only nodes and clients trace"))]
    pub(crate) fn failed(&self, _: &OperationError) {}
}
