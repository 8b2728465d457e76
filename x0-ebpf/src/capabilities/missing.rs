//! What is missing, and how to grant it.

use std::fmt;

use super::capability::Capability;
use super::feature::Feature;
use super::kernel::KernelVersion;
use super::mounts::FileSystem;

/// Why a part of this crate cannot be used: everything that is missing, so that it can be put right in one go. Its text has
/// one line for each, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    feature: Feature,
    needs: Vec<Need>,
}

impl Missing {
    pub(super) const fn new(feature: Feature, needs: Vec<Need>) -> Self {
        Self { feature, needs }
    }

    /// For which part.
    #[must_use]
    pub const fn feature(&self) -> Feature {
        self.feature
    }

    /// What is missing; at least one thing.
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

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Capabilities that are not in force.
    Capabilities {
        /// Which.
        missing: Vec<Capability>,
        /// All that the part takes, since a file or a unit must be given them all at once.
        all: &'static [Capability],
    },
    /// A newer kernel.
    Kernel {
        /// The one that runs.
        have: KernelVersion,
        /// The first that would do.
        min: KernelVersion,
    },
    /// A file system that is mounted nowhere.
    Mount {
        /// Which.
        file_system: FileSystem,
    },
    /// A type of program that the kernel was built without.
    ProgramType {
        /// Its name in `linux/bpf.h`.
        name: &'static str,
    },
    /// The kernel's type information.
    Btf,
    /// The machine's first user namespace: capabilities of another one do not hold for bpf(2).
    InitialUserNamespace,
    /// A higher limit of locked memory, against which maps count before Linux 5.11.
    Memlock {
        /// The limit.
        bytes: u64,
        /// What it must be.
        min_bytes: u64,
    },
    /// A file of `/proc` that tells what is there.
    Proc {
        /// Which.
        file: &'static str,
    },
    /// Everything that can be looked up is there, and the kernel refused all the same.
    Permission {
        /// Whether a seccomp filter is in force.
        seccomp: bool,
        /// The mode of lockdown, unless that is none.
        lockdown: Option<String>,
        /// The security modules that are in force; empty if that is not told.
        security_modules: Vec<String>,
    },
}

impl fmt::Display for Need {
    /// The cause, then the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capabilities { missing, all } => capabilities(f, missing, all),
            Self::Kernel { have, min } => {
                write!(f, "this is Linux {have}, and it takes {min}: boot a newer kernel")
            }
            Self::Mount { file_system } => {
                write!(f, "{file_system} is not mounted: `{}` as root", file_system.mount_command())
            }
            Self::ProgramType { name } => {
                write!(f, "the kernel was built without {name}: boot one that has it")
            }
            Self::Btf => f.write_str(
                "the kernel does not tell its types (/sys/kernel/btf/vmlinux): boot one that was built with \
                 CONFIG_DEBUG_INFO_BTF",
            ),
            Self::InitialUserNamespace => f.write_str(
                "the process is in a user namespace of its own, as in a rootless container, where capabilities do not \
                 hold for bpf(2): run it outside",
            ),
            Self::Memlock { bytes, min_bytes } => write!(
                f,
                "{bytes} bytes of memory may be locked, and it takes {min_bytes}: `ulimit -l unlimited`, \
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
        "{} {} not in force: `setcap {}+ep <program>`, `AmbientCapabilities={}` in the systemd unit, or `docker run {}`",
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
    f.write_str("the kernel refused, though every capability is there")?;
    if seccomp {
        f.write_str("; a seccomp filter is in force: allow bpf(2) and perf_event_open(2) in its profile")?;
    }
    if let Some(mode) = lockdown {
        write!(f, "; lockdown is in the mode {mode}: boot with `lockdown=none`")?;
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
