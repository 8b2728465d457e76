//! Errors of opening and reading backends.

use std::io;

use super::backend::{BackendKind, PassedOver};

/// The failure to read counters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The backend does not have these counters. The vector is empty.
    #[error(
        "the backend {kind} does not count {what}: use a better backend, whose refusal names its requirements"
    )]
    NotCounted {
        /// The backend.
        kind: BackendKind,
        /// The requested counters, in the plural.
        what: &'static str,
    },
    /// The kernel refused. The vector is empty, and the read can be repeated.
    #[error("the kernel refused to {what}; read again, or use another backend")]
    Kernel {
        /// The step, as an imperative.
        what: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer could not be parsed. The vector is empty, and the read can be repeated.
    #[error("{what} has a form that x0-ebpf cannot parse: report it with the version of the kernel")]
    Malformed {
        /// The table that was read.
        what: &'static str,
    },
    /// The table changed during each read. The vector is empty, and the read can be repeated.
    #[error("{what} changed during each of {tries} reads: read again later")]
    Unsteady {
        /// The table that was read.
        what: &'static str,
        /// The number of reads.
        tries: u32,
    },
    /// There are more entries than the limit. The first `limit` are in the vector.
    #[error("there are more than {limit} {what}: only the first {limit} were read")]
    TooMany {
        /// The entries, in the plural.
        what: &'static str,
        /// The maximum number of entries.
        limit: usize,
    },
}

/// No backend could be opened. Holds the reason of each source, in the order in which they were tried.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no source of counters can be opened:{}", list(.passed_over))]
pub struct OpenError {
    /// The sources and their reasons. Empty if no source was given.
    pub passed_over: Vec<PassedOver>,
}

fn list(passed_over: &[PassedOver]) -> String {
    if passed_over.is_empty() {
        return " no source was given".into();
    }
    passed_over.iter().map(|one| format!("\n  {one}")).collect()
}
