//! The spans of the `tracing` facade.

use tracing::span::EnteredSpan;
use tracing::{debug_span, info, trace_span};

use crate::record::Record;

pub(crate) fn monitor(signal: &'static str) -> EnteredSpan {
    trace_span!("mapek.monitor", signal).entered()
}

pub(crate) fn round(round: u64) -> EnteredSpan {
    debug_span!("mapek.round", round).entered()
}

pub(crate) fn analyze(round: u64) -> EnteredSpan {
    debug_span!("mapek.analyze", round).entered()
}

pub(crate) fn plan(round: u64) -> EnteredSpan {
    debug_span!("mapek.plan", round).entered()
}

pub(crate) fn guard(round: u64, kind: &'static str) -> EnteredSpan {
    debug_span!("mapek.guard", round, kind).entered()
}

pub(crate) fn execute(action: u64, round: u64) -> EnteredSpan {
    debug_span!("mapek.execute", action, round).entered()
}

pub(crate) fn verify(action: u64, round: u64) -> EnteredSpan {
    debug_span!("mapek.verify", action, round).entered()
}

pub(crate) fn record(record: &Record) {
    info!(
        record = record.number,
        round = record.round,
        action = record.action,
        kind = record.kind.as_str(),
        subject = record.subject.as_str(),
        cause = record.cause.as_str(),
        event = record.event.name(),
        "decision"
    );
}
