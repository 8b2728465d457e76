//! The requirements of this crate, checked before anything is loaded.
//!
//! The kernel refuses a program with a bare `EPERM`. [`Capabilities::probe`] reads files in advance, and
//! [`Capabilities::can`] returns every missing requirement of a part of this crate with its remedy.
//! [`Capabilities::denied`] explains an `EPERM` that occurs although nothing is missing.
//!
//! ```
//! use x0_ebpf::{Capabilities, Feature};
//!
//! match Capabilities::probe().can(Feature::Xdp) {
//!     Ok(()) => println!("XDP programs can be loaded and attached"),
//!     Err(missing) => println!("{missing}"),
//! }
//! ```
//!
//! Sources: capabilities(7), proc(5), `bpf_prog_load` in the kernel's `kernel/bpf/syscall.c` for the
//! capabilities of each program type, Documentation/bpf/btf.rst.

mod btf;
mod capability;
mod feature;
#[doc(hidden)]
pub mod fuzz;
mod kernel;
mod missing;
mod mounts;
mod status;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

pub use capability::{Capability, CapabilitySet};
pub use feature::Feature;
pub use kernel::KernelVersion;
pub use missing::{Missing, Need};
pub use mounts::FileSystem;
pub use status::{Jit, MemlockLimit, UnprivilegedBpf};

/// The longest text that is read from `/proc`, in bytes; the table of mounts is the longest.
const TEXT_LEN_MAX: u64 = 4 << 20;
/// The longest type information that is read. That of a distribution's kernel is 4 to 10 MiB.
const BTF_LEN_MAX: u64 = 64 << 20;
/// The inode of the first user namespace, fixed by the kernel (`PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// A snapshot of the properties of the machine and of the calling thread that this crate depends on.
///
/// Capabilities that are dropped and file systems that are mounted later are visible in a new snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    kernel: Option<KernelVersion>,
    effective: Option<CapabilitySet>,
    mounts: Vec<(FileSystem, PathBuf)>,
    btf: bool,
    types: Option<BTreeSet<String>>,
    unprivileged_bpf: Option<UnprivilegedBpf>,
    memlock: Option<(MemlockLimit, MemlockLimit)>,
    jit: Option<Jit>,
    initial_user_namespace: Option<bool>,
    seccomp: Option<bool>,
    lockdown: Option<String>,
    security_modules: Vec<String>,
}

impl Capabilities {
    /// Inspects this machine and the calling thread. Reads files, changes nothing and needs no capability;
    /// takes about 10 ms, most of it for the kernel's type information.
    #[must_use]
    pub fn probe() -> Self {
        Self::from_root("/")
    }

    /// As [`probe`](Self::probe), from a folder that holds `proc` and `sys`: a copy from another machine, or
    /// test data.
    ///
    /// A file that is absent or unreadable makes its property unknown; an unknown requirement counts as
    /// missing.
    #[must_use]
    pub fn from_root(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        let text = |path: &str| text(&root.join(path));
        // Capabilities belong to a thread, and so do seccomp and mounts.
        let own = |name: &str| {
            text(&format!("proc/thread-self/{name}")).or_else(|| text(&format!("proc/self/{name}")))
        };
        let status = own("status").unwrap_or_default();
        let types = bytes(&root.join("sys/kernel/btf/vmlinux"), BTF_LEN_MAX);
        Self {
            kernel: text("proc/sys/kernel/osrelease").and_then(|text| KernelVersion::parse(&text)),
            effective: status::effective(&status),
            mounts: own("mountinfo").map(|text| mounts::parse(&text)).unwrap_or_default(),
            btf: types.is_some(),
            types: types.and_then(|bytes| btf::bpf_types(&bytes)),
            unprivileged_bpf: text("proc/sys/kernel/unprivileged_bpf_disabled")
                .and_then(|text| UnprivilegedBpf::parse(&text)),
            memlock: own("limits").and_then(|text| MemlockLimit::parse(&text)),
            jit: text("proc/sys/net/core/bpf_jit_enable").and_then(|text| Jit::parse(&text)),
            initial_user_namespace: fs::read_link(root.join("proc/self/ns/user"))
                .ok()
                .map(|target| target.as_os_str() == INITIAL_USER_NAMESPACE),
            seccomp: status::seccomp(&status),
            lockdown: text("sys/kernel/security/lockdown").and_then(|text| status::lockdown(&text)),
            security_modules: text("sys/kernel/security/lsm")
                .map(|text| text.trim().split(',').map(Into::into).collect())
                .unwrap_or_default(),
        }
    }

    /// Whether a part of this crate can be used.
    ///
    /// # Errors
    ///
    /// Every missing requirement with its remedy.
    pub fn can(&self, feature: Feature) -> Result<(), Missing> {
        let needs = feature.needs(self);
        if needs.is_empty() { Ok(()) } else { Err(Missing::new(feature, needs)) }
    }

    /// The explanation of an `EPERM` or `EACCES`: the missing requirements or, if none are missing, the
    /// mechanisms of this machine that may forbid the operation.
    #[must_use]
    pub fn denied(&self, feature: Feature) -> Missing {
        match self.can(feature) {
            Err(missing) => missing,
            Ok(()) => Missing::new(
                feature,
                vec![Need::Permission {
                    seccomp: self.seccomp.unwrap_or(false),
                    lockdown: self.lockdown.clone(),
                    security_modules: self.security_modules.clone(),
                }],
            ),
        }
    }

    /// The running kernel. None if `/proc` is not mounted.
    #[must_use]
    pub const fn kernel(&self) -> Option<KernelVersion> {
        self.kernel
    }

    /// The effective capabilities. None if `/proc` is not mounted.
    #[must_use]
    pub const fn effective(&self) -> Option<CapabilitySet> {
        self.effective
    }

    /// The mount point of a file system; the first one if there are several.
    #[must_use]
    pub fn mount(&self, file_system: FileSystem) -> Option<&Path> {
        self.mounts.iter().find(|(kind, _)| *kind == file_system).map(|(_, path)| path.as_path())
    }

    /// Whether the kernel has type information (`/sys/kernel/btf/vmlinux`), which CO-RE programs need.
    #[must_use]
    pub const fn has_btf(&self) -> bool {
        self.btf
    }

    /// Whether the kernel knows a type of program, map or attachment, by its name in `linux/bpf.h`. None
    /// without type information. A known type may still be disabled in the kernel's configuration.
    #[must_use]
    pub fn knows(&self, name: &str) -> Option<bool> {
        self.types.as_ref().map(|types| types.contains(name))
    }

    /// The types of programs, maps and attachments that the kernel knows, by their names in `linux/bpf.h`, in
    /// alphabetical order. Empty without type information.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.iter().flatten().map(String::as_str)
    }

    /// Whether a process without `CAP_BPF` may use bpf(2). The programs of this crate need capabilities in
    /// any case.
    #[must_use]
    pub const fn unprivileged_bpf(&self) -> Option<UnprivilegedBpf> {
        self.unprivileged_bpf
    }

    /// The limit of locked memory, against which maps and programs count before Linux 5.11.
    #[must_use]
    pub fn memlock(&self) -> Option<MemlockLimit> {
        self.memlock.map(|(soft, _)| soft)
    }

    fn may_lift_memlock(&self) -> bool {
        self.effective.is_some_and(CapabilitySet::may_raise_limits)
            || self.memlock.is_some_and(|(_, hard)| hard == MemlockLimit::Unlimited)
    }

    /// Whether programs are compiled or interpreted. None if the setting cannot be read, which needs root.
    #[must_use]
    pub const fn jit(&self) -> Option<Jit> {
        self.jit
    }

    /// Whether the thread is in the initial user namespace. In any other one, as in a rootless container, the
    /// capabilities in `CapEff` are not valid for bpf(2).
    #[must_use]
    pub const fn in_initial_user_namespace(&self) -> Option<bool> {
        self.initial_user_namespace
    }
}

fn text(path: &Path) -> Option<String> {
    bytes(path, TEXT_LEN_MAX).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn bytes(path: &Path, len_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(len_max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
