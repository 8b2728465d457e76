//! The backend in use and the reasons against better ones.

use std::fmt;
use std::io;

/// A kind of backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BackendKind {
    /// The eBPF programs of this crate on the links: counters per peer and cause.
    Ebpf,
    /// The kernel's link counters over rtnetlink, and TCP's measurements over sock_diag.
    Rtnetlink,
    /// The text of `/proc/net/dev`: links only. Needs a mounted `/proc`.
    ProcNetDev,
}

impl BackendKind {
    /// The name as a metric label.
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

/// The backend in use, and the sources that were tried before it.
#[derive(Debug, Clone)]
pub struct Backend {
    kind: BackendKind,
    passed_over: Vec<PassedOver>,
}

impl Backend {
    /// A backend and the sources that were skipped before it, in the order in which they were tried.
    #[must_use]
    pub fn new(kind: BackendKind, passed_over: &[PassedOver]) -> Self {
        Self { kind, passed_over: passed_over.to_vec() }
    }

    /// The kind of the backend.
    #[must_use]
    pub const fn kind(&self) -> BackendKind {
        self.kind
    }

    /// The sources that were skipped, each with its reason. Empty if the first source was opened.
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

/// A source that was skipped.
#[derive(Debug, Clone)]
pub struct PassedOver {
    /// The kind of the source.
    pub kind: BackendKind,
    /// The reason.
    pub reason: Refusal,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A report rather than an error, so that it includes the causes.
        write!(f, "not {}: {}", self.kind, self.reason)?;
        let mut cause = std::error::Error::source(&self.reason);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The reason why a source cannot be used. Nothing was changed in the kernel.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The crate was compiled without the feature of this source.
    #[error("x0-ebpf was compiled without the feature `{feature}`: enable it in Cargo.toml")]
    NotBuilt {
        /// The feature of this crate.
        feature: &'static str,
    },
    /// The source counts at its attached programs, and none are attached.
    #[error("no programs are attached: name the links with `EbpfSource`")]
    NotAttached,
    /// The machine or the process lacks a requirement. The message names it and how to grant it.
    #[error("{missing}")]
    Missing {
        /// The missing requirements with their remedies.
        missing: crate::Missing,
    },
    /// The kernel refused a step.
    #[error("the kernel refused to {what}: {kind}{}", errno(.code))]
    Kernel {
        /// The step, as an imperative.
        what: &'static str,
        /// The kind of the error.
        kind: io::ErrorKind,
        /// The system error number, if there is one.
        code: Option<i32>,
    },
    /// The link program could not be loaded.
    #[cfg(feature = "ebpf")]
    #[error("the link program cannot be loaded")]
    Load(#[source] std::sync::Arc<crate::LoadError>),
    /// The link program could not be attached.
    #[cfg(feature = "ebpf")]
    #[error("the link program cannot be attached")]
    Attach(#[source] std::sync::Arc<crate::AttachError>),
    /// The answer of the source could not be parsed.
    #[error("{what} has a form that x0-ebpf cannot parse: report it with the version of the kernel")]
    Malformed {
        /// The table that was read.
        what: &'static str,
    },
}

impl Refusal {
    /// The refusal for an error of a system call.
    #[must_use]
    pub fn kernel(what: &'static str, error: &io::Error) -> Self {
        Self::Kernel { what, kind: error.kind(), code: error.raw_os_error() }
    }
}

fn errno(code: &Option<i32>) -> String {
    code.map_or_else(String::new, |code| format!(" (errno {code})"))
}
