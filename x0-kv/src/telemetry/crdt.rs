//! The CRDT store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::IS_ENABLED;
use super::facade::{Counter, Gauge, counter, gauge};
use super::{AnswerTimer, OperationKind, OperationTelemetry};
use crate::crdt::{CrdtStatus, Read, Request, Write};

/// How often the status is reported: gathering it looks at each session.
const EVERY: Duration = Duration::from_millis(100);
const KINDS: [&str; 9] =
    ["get", "siblings", "counter", "range", "keyspaces", "put", "add", "delete", "clear"];

/// Counts and times the operations that are submitted to a CRDT store. Clones share the handles.
#[derive(Clone)]
pub(crate) struct CrdtStoreTelemetry {
    operations: Arc<[Counter; KINDS.len()]>,
    times: OperationTelemetry,
}

impl CrdtStoreTelemetry {
    pub(crate) fn new() -> CrdtStoreTelemetry {
        let operations =
            KINDS.map(|kind| counter!("x0_kv_operations_total", "store" => "crdt", "kind" => kind));
        CrdtStoreTelemetry { operations: Arc::new(operations), times: OperationTelemetry::new() }
    }

    #[inline]
    pub(crate) fn submitted(&self, request: &Request) -> AnswerTimer {
        let kind = match request {
            Request::Read(Read::Get { .. }) => 0,
            Request::Read(Read::Siblings { .. }) => 1,
            Request::Read(Read::Counter { .. }) => 2,
            Request::Read(Read::Range(_)) => 3,
            Request::Read(Read::Keyspaces) => 4,
            Request::Write(Write::Put { .. }) => 5,
            Request::Write(Write::Add { .. }) => 6,
            Request::Write(Write::Delete { .. } | Write::DeleteSeen { .. }) => 7,
            Request::Write(Write::Clear { .. }) => 8,
        };
        self.operations[kind].increment(1);
        self.times.submitted(match request {
            Request::Read(_) => OperationKind::CrdtRead,
            Request::Write(_) => OperationKind::CrdtWrite,
        })
    }
}

/// The work of a CRDT store, reported after each round of its thread.
pub(crate) struct CrdtTelemetry {
    totals: [Counter; 11],
    gauges: [Gauge; 4],
    reported: Option<Instant>,
}

impl CrdtTelemetry {
    pub(crate) fn new() -> CrdtTelemetry {
        CrdtTelemetry {
            totals: [
                counter!("x0_kv_crdt_joins_total"),
                counter!("x0_kv_crdt_conflicts_total", "type" => "values"),
                counter!("x0_kv_crdt_conflicts_total", "type" => "removal"),
                counter!("x0_kv_crdt_conflicts_total", "type" => "equivocation"),
                counter!("x0_kv_crdt_reconciliations_total"),
                counter!("x0_kv_crdt_sent_bytes_total"),
                counter!("x0_kv_crdt_received_bytes_total"),
                counter!("x0_kv_crdt_redundant_bytes_total"),
                counter!("x0_kv_crdt_refused_total"),
                counter!("x0_kv_crdt_divergences_total"),
                counter!("x0_kv_crdt_renewals_total"),
            ],
            gauges: [
                gauge!("x0_kv_crdt_keys"),
                gauge!("x0_kv_crdt_stability_lag_events"),
                gauge!("x0_kv_crdt_pending_bytes"),
                gauge!("x0_kv_crdt_key_mismatches"),
            ],
            reported: None,
        }
    }

    #[inline]
    pub(crate) fn round(&mut self, status: impl FnOnce() -> CrdtStatus) {
        if !IS_ENABLED || self.reported.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.reported = Some(Instant::now());
        let status = status();
        let totals = &status.totals;
        let values = [
            totals.joins,
            totals.conflicts,
            totals.contested_removals,
            totals.equivocations,
            totals.reconciliations,
            totals.sent_bytes,
            totals.received_bytes,
            totals.redundant_bytes,
            totals.refused,
            totals.divergences,
            totals.renewals,
        ];
        for (counter, value) in self.totals.iter().zip(values) {
            counter.absolute(value);
        }
        let values = [status.keys, status.history_events, status.pending_bytes, status.mismatching.len()];
        for (gauge, value) in self.gauges.iter().zip(values) {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            gauge.set(value as f64);
        }
    }
}
