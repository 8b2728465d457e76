//! The capabilities of a thread that this crate needs (capabilities(7)).

use std::fmt;

/// A capability that a part of this crate needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Capability {
    /// Attaching programs to links, and loading networking programs.
    NetAdmin,
    /// Includes `Bpf` and `Perfmon`, which Linux 5.8 split off.
    SysAdmin,
    /// Loading tracing programs.
    Perfmon,
    /// Loading programs and creating maps.
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

    /// Whether the kernel treats the thread as having it: `SysAdmin` includes `Bpf` and `Perfmon`
    /// (`bpf_capable` and `perfmon_capable` in `linux/capability.h`) and nothing else.
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
