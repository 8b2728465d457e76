//! Spans that are nothing, without the feature `tracing`. The methods are those of `spans`.
#![expect(clippy::unused_self, reason = "the signatures are those of `spans`")]

use x0_identity::NodeId;

use super::{Context, Tracing};
use crate::entry::Entry;
use crate::replica::TracedEntry;

/// The traced entries of a job. Nothing, without the feature `tracing`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Traced;

pub(crate) struct Span;

/// A span ends where it is dropped: without this the drop would be an error of clippy.
impl Drop for Span {
    fn drop(&mut self) {}
}

impl Traced {
    pub(crate) fn extend(&mut self, _: Traced) {}

    pub(crate) fn clear(&mut self) {}

    pub(crate) fn log_write(&self, _: impl FnOnce() -> (usize, usize)) -> Span {
        Span
    }

    pub(crate) fn apply(&self, _: usize) -> Span {
        Span
    }
}

#[derive(Debug)]
pub(crate) struct Tracer;

impl Tracer {
    pub(crate) fn new(_: Tracing, _: NodeId) -> Tracer {
        Tracer
    }

    pub(crate) fn propose(&mut self, _: u64, trace: Option<Context>) -> Option<Context> {
        trace
    }

    pub(crate) fn append<'a>(&mut self, _: u64, _: u64, _: impl Iterator<Item = &'a TracedEntry>) -> Traced {
        Traced
    }

    pub(crate) fn persisted(&mut self, _: u64) {}

    pub(crate) fn apply(&mut self, _: &[Entry]) -> Traced {
        Traced
    }

    pub(crate) fn end(&mut self, _: u64, _: bool) {}

    pub(crate) fn leader(&mut self, _: Option<NodeId>, _: u64) {}

    pub(crate) fn campaign(&mut self) -> Option<Context> {
        None
    }

    pub(crate) fn settle(&mut self) {}
}
