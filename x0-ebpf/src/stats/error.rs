//! What can go wrong.

use std::io;

use super::backend::{BackendKind, PassedOver};

/// Why counters could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The backend has no such numbers, and never will. The vector is empty.
    #[error("{kind} does not count {what}: use a better backend, its refusal says what it needs")]
    NotCounted {
        /// Which backend.
        kind: BackendKind,
        /// What is asked of it, in the plural.
        what: &'static str,
    },
    /// The kernel refused. The vector is empty, the backend can be asked again.
    #[error("the kernel refused to {what}: {source}; ask again, or use another backend")]
    Kernel {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// What the kernel said is not what this crate reads. The vector is empty, the backend can be asked again.
    #[error("{what} is not in the form of Linux 5.10 and later: report it with the kernel's version")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// The table kept changing while it was read. The vector is empty, the backend can be asked again.
    #[error("{what} changed during each of {tries} reads: ask again later")]
    Unsteady {
        /// What was being read.
        what: &'static str,
        /// How often it was read.
        tries: u32,
    },
    /// There are more entries than are taken. The first `limit` are in the vector.
    #[error("there are more than {limit} {what}: only those are read")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are taken.
        limit: usize,
    },
}

/// Why no backend could be opened: each source's reason, in the order in which they were tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no source of counters can be used:{}", list(.passed_over))]
pub struct OpenError {
    /// The sources and their reasons. Empty if no source was given.
    pub passed_over: Vec<PassedOver>,
}

fn list(passed_over: &[PassedOver]) -> String {
    if passed_over.is_empty() {
        return " none was given".into();
    }
    passed_over.iter().map(|one| format!("\n  {one}")).collect()
}
