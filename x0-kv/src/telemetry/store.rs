//! Operations submitted to a linearizable store.

use super::facade::{Counter, counter};
use crate::request::operation::{Mutation, Operation, Query};

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

/// Counts the operations that are submitted to a store.
#[derive(Clone)]
pub(crate) struct StoreTelemetry {
    operations: [Counter; KINDS.len()],
}

impl StoreTelemetry {
    pub(crate) fn new() -> StoreTelemetry {
        let operations =
            KINDS.map(|kind| counter!("x0_kv_operations_total", "store" => "linearizable", "kind" => kind));
        StoreTelemetry { operations }
    }

    #[inline]
    pub(crate) fn submitted(&self, operation: &Operation) {
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
    }
}
