//! Capabilities of a thread, those that matter here (capabilities(7)).

use std::fmt;

/// A capability that some part of this crate takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Capability {
    /// To attach programs to links, and to load networking programs.
    NetAdmin,
    /// Before Linux 5.8, what `Bpf` and `Perfmon` are now. It still stands in for both.
    SysAdmin,
    /// To load programs that trace.
    Perfmon,
    /// To load programs and make maps.
    Bpf,
}

impl Capability {
    /// Its number in `linux/capability.h`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::NetAdmin => 12,
            Self::SysAdmin => 21,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }

    /// Its name without `CAP_`, as docker's `--cap-add` takes it.
    #[must_use]
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::NetAdmin => "NET_ADMIN",
            Self::SysAdmin => "SYS_ADMIN",
            Self::Perfmon => "PERFMON",
            Self::Bpf => "BPF",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", self.short_name())
    }
}

/// A set of capabilities, as `CapEff` in `/proc/self/status` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// From its bits: bit `n` is the capability with the number `n`.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether the kernel would take the thread to have it: `SysAdmin` stands in for `Bpf` and `Perfmon` (`bpf_capable` and
    /// `perfmon_capable` in `linux/capability.h`), and for nothing else.
    #[must_use]
    pub const fn allows(self, capability: Capability) -> bool {
        self.has(capability)
            || match capability {
                Capability::Bpf | Capability::Perfmon => self.has(Capability::SysAdmin),
                Capability::NetAdmin | Capability::SysAdmin => false,
            }
    }

    /// `CAP_SYS_RESOURCE`, number 24: limits may be raised.
    pub(super) const fn may_raise_limits(self) -> bool {
        self.0 & (1 << 24) != 0
    }

    const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability.number()) != 0
    }
}
