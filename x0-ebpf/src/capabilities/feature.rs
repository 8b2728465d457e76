//! The parts of this crate that need capabilities, and the requirements of each.

use std::fmt;

use super::capability::Capability;
use super::kernel::KernelVersion;
use super::missing::Need;
use super::mounts::FileSystem;
use super::{Capabilities, MemlockLimit};

/// The oldest kernel for which the programs are built.
const KERNEL_MIN: KernelVersion = KernelVersion::new(5, 10);
/// The first kernel with `bpf_xdp_get_buff_len` and live frames.
const KERNEL_WITH_LENGTH_HELPER: KernelVersion = KernelVersion::new(5, 18);
/// The first kernel in which maps and programs do not count as locked memory.
const KERNEL_WITHOUT_MEMLOCK: KernelVersion = KernelVersion::new(5, 11);
/// Twice the memory of the maps of all parts.
pub(super) const MEMLOCK_MIN_BYTES: u64 = 128 << 20;

/// A part of this crate that needs capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Feature {
    /// XDP programs on links: counters of received packets, block and allow lists, rate limits.
    Xdp,
    /// TC programs on links: counters of both directions, steering, fault injection.
    TrafficControl,
    /// Socket programs on a control group: round-trip times and retransmits per peer.
    SocketOps,
    /// The tracepoint `tcp:tcp_probe`: the state of a connection at each received segment. `ProbeProgram`
    /// uses it.
    TcpProbe,
    /// Pinned programs, maps and links, which outlive the process and which the next process adopts.
    Pinning,
    /// Running a loaded program on a packet from memory.
    TestRun,
    /// Test runs whose packets are then forwarded (`BPF_F_TEST_XDP_LIVE_FRAMES`).
    LiveFrames,
}

impl Feature {
    /// All parts.
    pub const ALL: [Self; 7] = [
        Self::Xdp,
        Self::TrafficControl,
        Self::SocketOps,
        Self::TcpProbe,
        Self::Pinning,
        Self::TestRun,
        Self::LiveFrames,
    ];

    /// The name as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TrafficControl => "traffic_control",
            Self::SocketOps => "socket_ops",
            Self::TcpProbe => "tcp_probe",
            Self::Pinning => "pinning",
            Self::TestRun => "test_run",
            Self::LiveFrames => "live_frames",
        }
    }

    /// The capabilities that it needs on a kernel.
    #[must_use]
    pub fn capabilities(self, kernel: KernelVersion) -> &'static [Capability] {
        match self {
            // An XDP program computes the length of a packet as `data_end - data`, which the verifier allows
            // only with CAP_PERFMON, or calls the helper of Linux 5.18.
            Self::Xdp | Self::TestRun if kernel < KERNEL_WITH_LENGTH_HELPER => {
                &[Capability::Bpf, Capability::NetAdmin, Capability::Perfmon]
            }
            Self::Xdp
            | Self::TrafficControl
            | Self::SocketOps
            | Self::Pinning
            | Self::TestRun
            | Self::LiveFrames => &[Capability::Bpf, Capability::NetAdmin],
            Self::TcpProbe => &[Capability::Bpf, Capability::Perfmon],
        }
    }

    /// The first supported kernel that has it.
    #[must_use]
    pub const fn kernel_min(self) -> KernelVersion {
        match self {
            Self::LiveFrames => KERNEL_WITH_LENGTH_HELPER,
            _ => KERNEL_MIN,
        }
    }

    const fn file_system(self) -> Option<FileSystem> {
        match self {
            Self::SocketOps => Some(FileSystem::Cgroup2),
            Self::TcpProbe => Some(FileSystem::Tracefs),
            Self::Pinning => Some(FileSystem::Bpf),
            _ => None,
        }
    }

    const fn program_type(self) -> &'static str {
        match self {
            Self::Xdp | Self::TestRun | Self::LiveFrames => "BPF_PROG_TYPE_XDP",
            Self::TrafficControl | Self::Pinning => "BPF_PROG_TYPE_SCHED_CLS",
            Self::SocketOps => "BPF_PROG_TYPE_SOCK_OPS",
            Self::TcpProbe => "BPF_PROG_TYPE_TRACEPOINT",
        }
    }

    /// The missing requirements. Empty if there are none.
    pub(super) fn needs(self, have: &Capabilities) -> Vec<Need> {
        let mut needs = Vec::new();
        let Some(kernel) = have.kernel() else {
            return vec![Need::Proc { file: "/proc/sys/kernel/osrelease" }];
        };
        let Some(effective) = have.effective() else { return vec![Need::Proc { file: "/proc/self/status" }] };
        if kernel < self.kernel_min() {
            needs.push(Need::Kernel { have: kernel, min: self.kernel_min() });
        }
        let all = self.capabilities(kernel);
        let missing: Vec<_> = all.iter().copied().filter(|one| !effective.allows(*one)).collect();
        if !missing.is_empty() {
            needs.push(Need::Capabilities { missing, all });
        } else if have.in_initial_user_namespace() == Some(false) {
            needs.push(Need::InitialUserNamespace);
        }
        if let Some(file_system) = self.file_system()
            && have.mount(file_system).is_none()
        {
            needs.push(Need::Mount { file_system });
        }
        if have.knows(self.program_type()) == Some(false) {
            needs.push(Need::ProgramType { name: self.program_type() });
        }
        if self == Self::TcpProbe && !have.has_btf() {
            needs.push(Need::Btf);
        }
        if kernel < KERNEL_WITHOUT_MEMLOCK
            && let Some(MemlockLimit::Bytes(bytes)) = have.memlock()
            && bytes < MEMLOCK_MIN_BYTES
            // The loader lifts the limit by itself if it may.
            && !have.may_lift_memlock()
        {
            needs.push(Need::Memlock { bytes, min_bytes: MEMLOCK_MIN_BYTES });
        }
        needs
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "XDP programs",
            Self::TrafficControl => "TC programs",
            Self::SocketOps => "socket programs",
            Self::TcpProbe => "the tcp_probe tracepoint",
            Self::Pinning => "pinning",
            Self::TestRun => "test runs of programs",
            Self::LiveFrames => "live frames",
        })
    }
}
