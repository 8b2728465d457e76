//! Which backend counts, and why none that is better.

use std::fmt;
use std::io;

/// A way to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BackendKind {
    /// Programs of this crate on the links: per peer and per cause.
    Ebpf,
    /// The kernel's link counters over rtnetlink, and TCP's own measurements over sock_diag.
    Rtnetlink,
    /// The text of `/proc/net/dev`: links only. Needs nothing but a mounted `/proc`.
    ProcNetDev,
}

impl BackendKind {
    /// Its name, as in a label of a metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Rtnetlink => "rtnetlink",
            Self::ProcNetDev => "proc_net_dev",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebpf => "eBPF",
            Self::Rtnetlink => "rtnetlink",
            Self::ProcNetDev => "/proc/net/dev",
        })
    }
}

/// The backend in use, and what was tried before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    kind: BackendKind,
    passed_over: Vec<PassedOver>,
}

impl Backend {
    /// A backend that was reached after those in `passed_over`, in the order in which they were tried.
    #[must_use]
    pub fn new(kind: BackendKind, passed_over: &[PassedOver]) -> Self {
        Self { kind, passed_over: passed_over.to_vec() }
    }

    /// Which one counts.
    #[must_use]
    pub const fn kind(&self) -> BackendKind {
        self.kind
    }

    /// Which were tried before, and the reason of each. Empty if this was the first of the caller's choice.
    #[must_use]
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }
}

impl fmt::Display for Backend {
    /// One line: the backend, then the reasons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for (n, passed) in self.passed_over.iter().enumerate() {
            write!(f, "{} {passed}", if n == 0 { ";" } else { "," })?;
        }
        Ok(())
    }
}

/// A source that was tried and could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Which one.
    pub kind: BackendKind,
    /// Why.
    pub reason: Refusal,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}: {}", self.kind, self.reason)
    }
}

/// Why a source could not be used. Nothing was changed in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The crate was built without it.
    #[error("built without the feature `{feature}`: enable it in Cargo.toml")]
    NotBuilt {
        /// Which feature of this crate it takes.
        feature: &'static str,
    },
    /// It counts only where its programs are, and none were attached.
    #[error("no programs are attached: name the links for them with `EbpfSource`")]
    NotAttached,
    /// The machine or the process lacks something. The text names it and says how to grant it.
    #[error("{missing}")]
    Missing {
        /// What, for which part, and the remedy.
        missing: crate::Missing,
    },
    /// The kernel refused a step.
    #[error("the kernel refused to {what}: {kind}{}", errno(.code))]
    Kernel {
        /// Which step.
        what: &'static str,
        /// The error, in the standard library's words.
        kind: io::ErrorKind,
        /// Its number, where there is one.
        code: Option<i32>,
    },
    /// A program could not be loaded or attached, for a reason that no right would mend.
    #[error("{cause}")]
    Program {
        /// What the loader said: the cause and its remedy.
        cause: String,
    },
    /// It was reached, and what it said could not be read.
    #[error("{what} is not in a form that this crate reads")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
}

impl Refusal {
    /// From an error of a system call.
    #[must_use]
    pub fn kernel(what: &'static str, error: &io::Error) -> Self {
        Self::Kernel { what, kind: error.kind(), code: error.raw_os_error() }
    }
}

fn errno(code: &Option<i32>) -> String {
    code.map_or_else(String::new, |code| format!(" (errno {code})"))
}
