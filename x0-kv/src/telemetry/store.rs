//! Operations submitted to a linearizable store.

use std::sync::Arc;

use super::facade::{Counter, counter};
use super::{AnswerTimer, OperationKind, OperationTelemetry};
use crate::request::operation::{Consistency, Mutation, Operation, Query};

const KINDS: [&str; 10] = [
    "get",
    "range",
    "put",
    "delete",
    "compare_and_swap",
    "transaction",
    "keyspaces",
    "create_keyspace",
    "drop_keyspace",
    "scan_page",
];

/// Counts and times the operations that are submitted to a store. Clones share the handles.
#[derive(Clone)]
pub(crate) struct StoreTelemetry {
    operations: Arc<[Counter; KINDS.len()]>,
    times: OperationTelemetry,
}

impl StoreTelemetry {
    pub(crate) fn new() -> StoreTelemetry {
        let operations =
            KINDS.map(|kind| counter!("x0_kv_operations_total", "store" => "linearizable", "kind" => kind));
        StoreTelemetry { operations: Arc::new(operations), times: OperationTelemetry::new() }
    }

    #[inline]
    pub(crate) fn submitted(&self, operation: &Operation) -> AnswerTimer {
        let kind = match operation {
            Operation::Read { query: Query::Get { .. }, .. } => 0,
            Operation::Read { query: Query::Range(_), .. } => 1,
            Operation::Read { query: Query::Keyspaces, .. } => 6,
            Operation::Read { query: Query::Scan { .. }, .. } => 9,
            Operation::Write { mutation, .. } => match mutation {
                Mutation::Put { .. } => 2,
                Mutation::Delete { .. } => 3,
                Mutation::CompareAndSwap { .. } => 4,
                Mutation::Transaction(_) => 5,
                Mutation::CreateKeyspace => 7,
                Mutation::DropKeyspace => 8,
            },
        };
        self.operations[kind].increment(1);
        self.times.submitted(match operation {
            Operation::Write { .. } => OperationKind::Write,
            Operation::Read { consistency: Consistency::Local, .. } => OperationKind::LocalRead,
            Operation::Read { .. } => OperationKind::Read,
        })
    }
}
