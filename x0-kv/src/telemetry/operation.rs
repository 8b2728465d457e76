//! The time and the errors of operations, from their submission to their answer.

use super::facade::{Gauge, gauge};
use crate::request::error::OperationError;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::silent::{AnswerTimer, OperationTelemetry};
#[cfg(feature = "metrics")]
pub(crate) use self::timed::{AnswerTimer, OperationTelemetry};

/// The labels of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Read,
    Write,
    LocalRead,
    #[cfg_attr(not(feature = "crdt"), allow(dead_code, reason = "only a CRDT store has it"))]
    CrdtRead,
    #[cfg_attr(not(feature = "crdt"), allow(dead_code, reason = "only a CRDT store has it"))]
    CrdtWrite,
}

/// Counts a watch for as long as it is held.
#[derive(Debug)]
pub(crate) struct WatchTelemetry(Gauge);

impl WatchTelemetry {
    pub(crate) fn new() -> WatchTelemetry {
        let held = gauge!("x0_kv_watches");
        held.increment(1.0);
        WatchTelemetry(held)
    }
}

impl Drop for WatchTelemetry {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(feature = "metrics")]
mod timed {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

    use super::{OperationError, OperationKind};

    /// The label `error` for each variant of [`OperationError`], in the order of [`place`].
    const ERRORS: [&str; 17] = [
        "limit",
        "crdt_limit",
        "overloaded",
        "no_space",
        "unavailable",
        "timed_out",
        "identity_expired",
        "session_expired",
        "result_too_long",
        "keyspace_missing",
        "snapshot_expired",
        "keyspaces_exceeded",
        "not_understood",
        "unsupported",
        "closed",
        "damaged",
        "failed",
    ];

    fn place(error: &OperationError) -> usize {
        match error {
            OperationError::Limit(_) => 0,
            #[cfg(feature = "crdt")]
            OperationError::CrdtLimit(_) => 1,
            OperationError::Overloaded => 2,
            OperationError::NoSpace { .. } => 3,
            OperationError::Unavailable { .. } => 4,
            OperationError::TimedOut { .. } => 5,
            OperationError::IdentityExpired { .. } => 6,
            OperationError::SessionExpired => 7,
            OperationError::ResultTooLong => 8,
            OperationError::KeyspaceMissing => 9,
            OperationError::SnapshotExpired => 10,
            OperationError::KeyspacesExceeded => 11,
            OperationError::NotUnderstood => 12,
            OperationError::Unsupported { .. } => 13,
            OperationError::Closed => 14,
            OperationError::Damaged(_) => 15,
            OperationError::Failed { .. } => 16,
        }
    }

    /// Times and counts the operations of a store. Clones share the handles.
    #[derive(Clone)]
    pub(crate) struct OperationTelemetry(Arc<Handles>);

    struct Handles {
        /// In the order of [`OperationKind`].
        seconds: [Histogram; 5],
        /// Of reads and of writes.
        errors: [[Counter; ERRORS.len()]; 2],
        waiting: Gauge,
    }

    impl OperationTelemetry {
        pub(crate) fn new() -> OperationTelemetry {
            let seconds = [
                ("read", "linearizable"),
                ("write", "linearizable"),
                ("read", "local"),
                ("read", "crdt"),
                ("write", "crdt"),
            ];
            let errors = |kind: &'static str| {
                ERRORS.map(|error| counter!("x0_kv_operation_errors_total", "kind" => kind, "error" => error))
            };
            OperationTelemetry(Arc::new(Handles {
                seconds: seconds.map(|(kind, consistency)| {
                    histogram!("x0_kv_operation_seconds", "kind" => kind, "consistency" => consistency)
                }),
                errors: [errors("read"), errors("write")],
                waiting: gauge!("x0_kv_operations_waiting"),
            }))
        }

        /// An operation is submitted. The timer ends with its answer.
        #[inline]
        pub(crate) fn submitted(&self, kind: OperationKind) -> AnswerTimer {
            self.0.waiting.increment(1.0);
            AnswerTimer(Some(Running { handles: Arc::clone(&self.0), kind, begun: Instant::now() }))
        }
    }

    impl OperationTelemetry {
        /// A request of another node was answered after this time.
        #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only a node serves others"))]
        pub(crate) fn served(&self, kind: OperationKind, took: Duration, error: Option<&OperationError>) {
            self.0.record(kind, took, error);
        }
    }

    impl Handles {
        fn record(&self, kind: OperationKind, took: Duration, error: Option<&OperationError>) {
            let (seconds, is_write) = match kind {
                OperationKind::Read => (0, false),
                OperationKind::Write => (1, true),
                OperationKind::LocalRead => (2, false),
                OperationKind::CrdtRead => (3, false),
                OperationKind::CrdtWrite => (4, true),
            };
            self.seconds[seconds].record(took);
            if let Some(error) = error {
                self.errors[usize::from(is_write)][place(error)].increment(1);
            }
        }
    }

    struct Running {
        handles: Arc<Handles>,
        kind: OperationKind,
        begun: Instant,
    }

    /// An operation that is given up without an answer does not wait any more either.
    impl Drop for Running {
        fn drop(&mut self) {
            self.handles.waiting.decrement(1.0);
        }
    }

    /// Runs from the submission of an operation to its answer; empty if nobody times it.
    #[derive(Default)]
    pub(crate) struct AnswerTimer(Option<Running>);

    impl std::fmt::Debug for AnswerTimer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("AnswerTimer").finish_non_exhaustive()
        }
    }

    impl AnswerTimer {
        /// The operation was answered with this error, or without one.
        #[inline]
        pub(crate) fn end(self, error: Option<&OperationError>) {
            if let Some(running) = &self.0 {
                running.handles.record(running.kind, running.begun.elapsed(), error);
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod silent {
    use super::{OperationError, OperationKind};

    #[derive(Clone, Copy)]
    pub(crate) struct OperationTelemetry;

    impl OperationTelemetry {
        pub(crate) fn new() -> OperationTelemetry {
            OperationTelemetry
        }

        #[inline]
        #[expect(clippy::unused_self, reason = "as with the feature `metrics`")]
        pub(crate) fn submitted(&self, _: OperationKind) -> AnswerTimer {
            AnswerTimer {}
        }

        #[cfg_attr(not(feature = "mesh"), allow(dead_code, reason = "only a node serves others"))]
        #[expect(clippy::unused_self, reason = "as with the feature `metrics`")]
        pub(crate) fn served(&self, _: OperationKind, _: std::time::Duration, _: Option<&OperationError>) {}
    }

    #[derive(Debug, Default)]
    pub(crate) struct AnswerTimer {}

    impl AnswerTimer {
        #[inline]
        #[expect(clippy::unused_self, reason = "as with the feature `metrics`")]
        pub(crate) fn end(self, _: Option<&OperationError>) {}
    }
}
