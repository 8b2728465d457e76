//! Parsers of short files of `/proc` and `/sys`.

use super::capability::CapabilitySet;

/// `kernel.unprivileged_bpf_disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnprivilegedBpf {
    /// 0: every process may load some types of programs.
    Allowed,
    /// 1: forbidden until the next boot.
    ForbiddenForGood,
    /// 2: forbidden until root changes the setting.
    Forbidden,
}

impl UnprivilegedBpf {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "0" => Some(Self::Allowed),
            "1" => Some(Self::ForbiddenForGood),
            "2" => Some(Self::Forbidden),
            _ => None,
        }
    }
}

/// `net.core.bpf_jit_enable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jit {
    /// 0: programs are interpreted, several times slower.
    Off,
    /// 1: programs are compiled.
    On,
    /// 2: compiled, and written to the kernel's log: for debugging only.
    OnAndLogged,
}

impl Jit {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "0" => Some(Self::Off),
            "1" => Some(Self::On),
            "2" => Some(Self::OnAndLogged),
            _ => None,
        }
    }
}

/// The soft limit of memory that a process may lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemlockLimit {
    /// No limit.
    Unlimited,
    /// A limit in bytes.
    Bytes(u64),
}

impl MemlockLimit {
    /// The soft and the hard limit in `/proc/self/limits`.
    pub(super) fn parse(limits: &str) -> Option<(Self, Self)> {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
        let mut words = line.split_ascii_whitespace().map(|word| match word {
            "unlimited" => Some(Self::Unlimited),
            bytes => bytes.parse().ok().map(Self::Bytes),
        });
        Some((words.next()??, words.next()??))
    }
}

/// `CapEff` of `/proc/self/status`.
pub(super) fn effective(status: &str) -> Option<CapabilitySet> {
    u64::from_str_radix(field(status, "CapEff:")?, 16).ok().map(CapabilitySet::from_bits)
}

/// Whether system calls are filtered.
pub(super) fn seccomp(status: &str) -> Option<bool> {
    field(status, "Seccomp:").map(|mode| mode != "0")
}

/// The mode in force, unless that is `none`: `none [integrity] confidentiality`.
pub(super) fn lockdown(text: &str) -> Option<String> {
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then(|| mode.into())
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
