//! Missing requirements and their remedies.

use std::fmt;

use super::capability::Capability;
use super::feature::Feature;
use super::kernel::KernelVersion;
use super::mounts::FileSystem;

/// Every missing requirement of a part of this crate. The message has one line for each, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    feature: Feature,
    needs: Vec<Need>,
}

impl Missing {
    pub(super) const fn new(feature: Feature, needs: Vec<Need>) -> Self {
        Self { feature, needs }
    }

    /// The part of the crate.
    #[must_use]
    pub const fn feature(&self) -> Feature {
        self.feature
    }

    /// The missing requirements; at least one.
    #[must_use]
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used here:", self.feature)?;
        match self.needs.as_slice() {
            [one] => write!(f, " {one}"),
            many => many.iter().try_for_each(|one| write!(f, "\n  - {one}")),
        }
    }
}

/// One missing requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Capabilities that are not effective.
    Capabilities {
        /// The missing ones.
        missing: Vec<Capability>,
        /// All capabilities of the part, since a file or a unit must be granted all of them at once.
        all: &'static [Capability],
    },
    /// A newer kernel.
    Kernel {
        /// The running kernel.
        have: KernelVersion,
        /// The first sufficient one.
        min: KernelVersion,
    },
    /// A file system that is not mounted.
    Mount {
        /// The file system.
        file_system: FileSystem,
    },
    /// A type of program that the kernel does not have.
    ProgramType {
        /// Its name in `linux/bpf.h`.
        name: &'static str,
    },
    /// The kernel's type information.
    Btf,
    /// The initial user namespace: capabilities of another one are not valid for bpf(2).
    InitialUserNamespace,
    /// A higher limit of locked memory, against which maps count before Linux 5.11.
    Memlock {
        /// The limit.
        bytes: u64,
        /// The required limit.
        min_bytes: u64,
    },
    /// A file of `/proc` that this crate reads.
    Proc {
        /// Its path.
        file: &'static str,
    },
    /// Every requirement that can be checked is met, and the kernel refused nevertheless.
    Permission {
        /// Whether a seccomp filter is active.
        seccomp: bool,
        /// The mode of lockdown, unless that is none.
        lockdown: Option<String>,
        /// The active security modules; empty if the list cannot be read.
        security_modules: Vec<String>,
    },
}

impl fmt::Display for Need {
    /// The cause, then the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities { missing, all } => capabilities(f, missing, all),
            Self::Kernel { have, min } => {
                write!(f, "Linux {have} is running and {min} is required: boot a newer kernel")
            }
            Self::Mount { file_system } => {
                write!(f, "{file_system} is not mounted: `{}` as root", file_system.mount_command())
            }
            Self::ProgramType { name } => {
                write!(f, "the kernel was built without {name}: boot one that has it")
            }
            Self::Btf => f.write_str(
                "the kernel has no type information (/sys/kernel/btf/vmlinux): boot one that was built with \
                 CONFIG_DEBUG_INFO_BTF",
            ),
            Self::InitialUserNamespace => f.write_str(
                "the process is in a user namespace of its own, as in a rootless container, whose capabilities are not \
                 valid for bpf(2): run it in the initial user namespace",
            ),
            Self::Memlock { bytes, min_bytes } => write!(
                f,
                "the limit of locked memory is {bytes} bytes and {min_bytes} are required: `ulimit -l unlimited`, \
                 `LimitMEMLOCK=infinity` in the systemd unit, or `docker run --ulimit memlock=-1`"
            ),
            Self::Proc { file } => write!(f, "{file} cannot be read: `mount -t proc proc /proc` as root"),
            Self::Permission { seccomp, lockdown, security_modules } => {
                permission(f, *seccomp, lockdown.as_deref(), security_modules)
            }
        }
    }
}

fn capabilities(f: &mut fmt::Formatter<'_>, missing: &[Capability], all: &[Capability]) -> fmt::Result {
    let join = |set: &[Capability], between: &str, name: &dyn Fn(&Capability) -> String| {
        set.iter().map(name).collect::<Vec<_>>().join(between)
    };
    write!(
        f,
        "{} {} not effective: `setcap {}+ep <program>`, `AmbientCapabilities={}` in the systemd unit, or `docker run {}`",
        join(missing, " and ", &Capability::to_string),
        if missing.len() == 1 { "is" } else { "are" },
        join(all, ",", &|one| one.to_string().to_lowercase()),
        join(all, " ", &Capability::to_string),
        join(all, " ", &|one| format!("--cap-add {}", one.short_name())),
    )
}

fn permission(
    f: &mut fmt::Formatter<'_>,
    seccomp: bool,
    lockdown: Option<&str>,
    security_modules: &[String],
) -> fmt::Result {
    f.write_str("the kernel refused although every capability is effective")?;
    if seccomp {
        f.write_str("; a seccomp filter is active: allow bpf(2) and perf_event_open(2) in its profile")?;
    }
    if let Some(mode) = lockdown {
        write!(f, "; lockdown is in mode {mode}: boot with `lockdown=none`")?;
    }
    if security_modules.is_empty() {
        f.write_str("; look for refusals in the audit log (`ausearch -m AVC,SECCOMP`)")
    } else {
        write!(
            f,
            "; look for refusals by {} in the audit log (`ausearch -m AVC,SECCOMP`)",
            security_modules.join(", ")
        )
    }
}
