//! A missing capability is named, with its remedy: on the texts of other machines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use x0_ebpf::capabilities::{
    Capabilities, Capability, Feature, FileSystem, Jit, KernelVersion, MemlockLimit, Need, UnprivilegedBpf,
    fuzz,
};

const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const MOUNTS: &str = "\
22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw
30 23 0:26 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700
31 23 0:27 / /sys/kernel/tracing rw shared:10 - tracefs tracefs rw
29 23 0:25 / /sys/fs/cgroup\\040two rw,nosuid shared:8 - cgroup2 cgroup2 rw,nsdelegate
";

/// A machine on which everything is there, to take things away from.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new(release: &str, effective: u64) -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        machine.write("proc/sys/kernel/osrelease", &format!("{release}\n"));
        machine.write(
            "proc/self/status",
            &format!(
                "Name:\tx0\nCapPrm:\t{effective:016x}\nCapEff:\t{effective:016x}\nSeccomp:\t0\nSeccomp_filters:\t0\n"
            ),
        );
        machine.write("proc/self/mountinfo", MOUNTS);
        machine.write(
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max locked memory         unlimited            unlimited            bytes     \n",
        );
        machine.user_namespace("user:[4026531837]");
        machine.write("sys/kernel/btf/vmlinux", "");
        fs::write(machine.path("sys/kernel/btf/vmlinux"), kernel_types(TYPES)).unwrap();
        machine
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn user_namespace(&self, target: &str) {
        let link = self.path("proc/self/ns/user");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&link);
        symlink(target, link).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    fn probe(&self) -> Capabilities {
        Capabilities::from_root(Path::new(self.root.path()))
    }

    fn needs(&self, feature: Feature) -> Vec<Need> {
        self.probe().can(feature).map_or_else(|missing| missing.needs().to_vec(), |()| Vec::new())
    }
}

const TYPES: &[&str] =
    &["BPF_PROG_TYPE_XDP", "BPF_PROG_TYPE_SCHED_CLS", "BPF_PROG_TYPE_SOCK_OPS", "BPF_PROG_TYPE_TRACEPOINT"];

/// Type information with an INT, a STRUCT of one member and the enumeration of program types.
fn kernel_types(names: &[&str]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut string = |text: &str| {
        let at = strings.len() as u32;
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    let mut words = vec![string("int"), 1 << 24, 4, 0x20];
    words.extend([string("point"), 4 << 24 | 1, 4, string("x"), 1, 0]);
    words.extend([string("bpf_prog_type"), 6 << 24 | names.len() as u32, 4]);
    for (n, name) in names.iter().enumerate() {
        words.extend([string(name), n as u32]);
    }
    words.extend([string("unrelated"), 6 << 24 | 1, 4, string("UNRELATED"), 0]);
    let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut bytes = 0xeb9fu16.to_ne_bytes().to_vec();
    bytes.extend([1, 0]);
    let header = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
    bytes.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

#[test]
fn with_all_capabilities_everything_can_be_used() {
    let probe = Machine::new("6.12.1", BPF | NET_ADMIN | PERFMON).probe();
    for feature in Feature::ALL {
        probe.can(feature).unwrap_or_else(|missing| panic!("{missing}"));
    }
    assert_eq!(probe.kernel(), Some(KernelVersion::new(6, 12)));
    assert_eq!(probe.mount(FileSystem::Cgroup2), Some(Path::new("/sys/fs/cgroup two")));
    assert_eq!(probe.memlock(), Some(MemlockLimit::Unlimited));
    assert_eq!(probe.in_initial_user_namespace(), Some(true));
    assert!(probe.has_btf());
    assert_eq!(probe.types().count(), TYPES.len());
    assert_eq!(probe.knows("BPF_PROG_TYPE_XDP"), Some(true));
    assert_eq!(probe.knows("UNRELATED"), Some(false));
    assert_eq!(probe.jit(), None);
    assert_eq!(probe.unprivileged_bpf(), None);
}

#[test]
fn each_capability_that_is_missing_is_named_and_no_other() {
    use Capability::{Bpf, NetAdmin, Perfmon};
    let core =
        [Feature::Xdp, Feature::TrafficControl, Feature::SocketOps, Feature::Pinning, Feature::TestRun];
    let cases: [(u64, &[Capability], &[Capability]); 7] = [
        (0, &[Bpf, NetAdmin], &[Bpf, Perfmon]),
        (NET_ADMIN, &[Bpf], &[Bpf, Perfmon]),
        (BPF, &[NetAdmin], &[Perfmon]),
        (BPF | NET_ADMIN, &[], &[Perfmon]),
        (BPF | NET_ADMIN | PERFMON, &[], &[]),
        (SYS_ADMIN, &[NetAdmin], &[]),
        (SYS_ADMIN | NET_ADMIN, &[], &[]),
    ];
    let named = |needs: Vec<Need>| match needs.as_slice() {
        [] => Vec::new(),
        [Need::Capabilities { missing, .. }] => missing.clone(),
        other => panic!("{other:?}"),
    };
    for (effective, links, tracing) in cases {
        let machine = Machine::new("6.1.0-56-amd64", effective);
        for feature in core {
            assert_eq!(named(machine.needs(feature)), links, "{feature} with {effective:x}");
        }
        assert_eq!(named(machine.needs(Feature::TcpProbe)), tracing, "with {effective:x}");
    }
}

#[test]
fn before_5_18_xdp_takes_perfmon_as_well() {
    let needs = Machine::new("5.15.0", BPF | NET_ADMIN).needs(Feature::Xdp);
    assert!(
        matches!(&needs[..], [Need::Capabilities { missing, .. }] if missing[..] == [Capability::Perfmon])
    );
    assert_eq!(Machine::new("5.15.0", BPF | NET_ADMIN).needs(Feature::TrafficControl), []);
    assert_eq!(Machine::new("5.18.0", BPF | NET_ADMIN).needs(Feature::Xdp), []);
}

#[test]
fn the_remedy_grants_the_whole_set() {
    let missing = Machine::new("6.1.0", BPF).probe().can(Feature::Xdp).unwrap_err();
    let text = missing.to_string();
    for part in [
        "XDP programs cannot be used here: CAP_NET_ADMIN is not effective",
        "`setcap cap_bpf,cap_net_admin+ep <program>`",
        "`AmbientCapabilities=CAP_BPF CAP_NET_ADMIN`",
        "`docker run --cap-add BPF --cap-add NET_ADMIN`",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn each_mount_that_is_missing_is_named_with_its_command() {
    let machine = Machine::new("6.1.0", BPF | NET_ADMIN | PERFMON);
    machine.write("proc/self/mountinfo", "22 28 0:21 / /proc rw shared:12 - proc proc rw\n");
    let cases = [
        (Feature::Pinning, FileSystem::Bpf, "mount -t bpf bpf /sys/fs/bpf"),
        (Feature::TcpProbe, FileSystem::Tracefs, "mount -t tracefs tracefs /sys/kernel/tracing"),
        (Feature::SocketOps, FileSystem::Cgroup2, "mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
    ];
    for (feature, file_system, command) in cases {
        assert_eq!(machine.needs(feature), [Need::Mount { file_system }]);
        let text = machine.probe().can(feature).unwrap_err().to_string();
        assert!(text.contains(command), "{text}");
    }
    assert_eq!(machine.needs(Feature::Xdp), []);
}

#[test]
fn old_kernels_are_named_with_the_version_it_takes() {
    let min = KernelVersion::new(5, 10);
    let have = KernelVersion::new(5, 4);
    assert_eq!(
        Machine::new("5.4.0-150-generic", SYS_ADMIN | NET_ADMIN).needs(Feature::Xdp),
        [Need::Kernel { have, min }]
    );
    let have = KernelVersion::new(5, 15);
    let min = KernelVersion::new(5, 18);
    assert_eq!(
        Machine::new("5.15.0", BPF | NET_ADMIN).needs(Feature::LiveFrames),
        [Need::Kernel { have, min }]
    );
    assert_eq!(Machine::new("5.18-rc1", BPF | NET_ADMIN).needs(Feature::LiveFrames), []);
}

#[test]
fn locked_memory_counts_before_5_11_only() {
    let limits = "Max locked memory         8388608              8388608              bytes     \n";
    let core = BPF | NET_ADMIN | PERFMON;
    let old = Machine::new("5.10.0-30-amd64", core);
    assert_eq!(old.needs(Feature::Xdp), []);
    old.write("proc/self/limits", limits);
    let needs = old.needs(Feature::Xdp);
    assert!(matches!(needs[..], [Need::Memlock { bytes: 8_388_608, .. }]), "{needs:?}");
    assert!(needs[0].to_string().contains("ulimit -l unlimited"));
    // The loader lifts a soft limit, and with CAP_SYS_RESOURCE a hard one.
    old.write(
        "proc/self/limits",
        "Max locked memory         65536                unlimited            bytes     \n",
    );
    assert_eq!(old.needs(Feature::Xdp), []);
    let mighty = Machine::new("5.10.0-30-amd64", core | 1 << 24);
    mighty.write("proc/self/limits", limits);
    assert_eq!(mighty.needs(Feature::Xdp), []);
    let new = Machine::new("5.11.0", core);
    new.write("proc/self/limits", limits);
    assert_eq!(new.needs(Feature::Xdp), []);
}

#[test]
fn a_container_without_root_is_told_from_a_machine() {
    let machine = Machine::new("6.1.0", u64::MAX);
    machine.user_namespace("user:[4026532201]");
    assert_eq!(machine.needs(Feature::Xdp), [Need::InitialUserNamespace]);
}

#[test]
fn a_kernel_built_without_a_type_or_without_btf_is_named() {
    let machine = Machine::new("6.1.0", u64::MAX);
    fs::write(machine.path("sys/kernel/btf/vmlinux"), kernel_types(&TYPES[1..])).unwrap();
    assert_eq!(machine.needs(Feature::Xdp), [Need::ProgramType { name: "BPF_PROG_TYPE_XDP" }]);
    assert_eq!(machine.needs(Feature::TrafficControl), []);
    machine.remove("sys/kernel/btf/vmlinux");
    assert_eq!(machine.needs(Feature::Xdp), [], "unknown types are not missing types");
    assert_eq!(machine.needs(Feature::TcpProbe), [Need::Btf]);
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let machine = Machine::new("5.4.0", NET_ADMIN);
    machine.write("proc/self/mountinfo", "");
    let missing = machine.probe().can(Feature::Pinning).unwrap_err();
    assert_eq!(missing.needs().len(), 3, "{missing}");
    assert_eq!(missing.to_string().matches("\n  - ").count(), 3);
}

#[test]
fn without_proc_nothing_is_promised() {
    let machine = Machine::new("6.1.0", u64::MAX);
    machine.remove("proc/self/status");
    assert_eq!(machine.needs(Feature::Xdp), [Need::Proc { file: "/proc/self/status" }]);
    let nowhere = Capabilities::from_root("/nonexistent");
    for feature in Feature::ALL {
        assert!(matches!(nowhere.can(feature).unwrap_err().needs(), [Need::Proc { .. }]));
    }
}

#[test]
fn a_refusal_that_nothing_explains_names_what_may_be_behind_it() {
    let machine = Machine::new("6.1.0", BPF | NET_ADMIN);
    machine.write("proc/self/status", "CapEff:\t000000c000001000\nSeccomp:\t2\n");
    machine.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    machine.write("sys/kernel/security/lsm", "capability,landlock,apparmor\n");
    let text = machine.probe().denied(Feature::Xdp).to_string();
    for part in ["seccomp", "integrity", "apparmor"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // One that the capabilities do explain is explained by them.
    let text = Machine::new("6.1.0", BPF).probe().denied(Feature::Xdp).to_string();
    assert!(text.contains("CAP_NET_ADMIN"), "{text}");
}

#[test]
fn the_settings_are_read() {
    let machine = Machine::new("6.1.0", 0);
    machine.write("proc/sys/net/core/bpf_jit_enable", "1\n");
    machine.write("proc/sys/kernel/unprivileged_bpf_disabled", "2\n");
    assert_eq!(machine.probe().jit(), Some(Jit::On));
    assert_eq!(machine.probe().unprivileged_bpf(), Some(UnprivilegedBpf::Forbidden));
    machine.write("proc/sys/net/core/bpf_jit_enable", "7\n");
    assert_eq!(machine.probe().jit(), None);
}

#[test]
fn releases_are_read_as_the_kernel_writes_them() {
    for (release, expect) in [
        ("6.18.44-fc-v669", Some((6, 18))),
        ("5.10.0-30-amd64", Some((5, 10))),
        ("6.12-rc1", Some((6, 12))),
        ("6.1+", Some((6, 1))),
        ("6", None),
        ("six.1", None),
        ("6.x", None),
        ("70000.1", None),
        ("", None),
    ] {
        let read = KernelVersion::parse(release).map(|version| (version.major, version.minor));
        assert_eq!(read, expect, "{release:?}");
    }
}

#[test]
fn this_machine_is_read() {
    let probe = Capabilities::probe();
    assert!(probe.kernel().is_some_and(|kernel| kernel > KernelVersion::new(4, 0)));
    assert!(probe.effective().is_some());
    if probe.has_btf() {
        assert_eq!(probe.knows("BPF_PROG_TYPE_XDP"), Some(true));
        assert_eq!(probe.knows("BPF_MAP_TYPE_LPM_TRIE"), Some(true));
    }
}

/// Every parser, on its texts changed, cut and spliced.
#[test]
fn texts_are_bounded() {
    let mut random = common::Random::new(common::seed());
    let seeds = [
        kernel_types(TYPES),
        MOUNTS.into(),
        fs::read("/proc/self/status").unwrap(),
        fs::read("/proc/self/limits").unwrap(),
        b"none [integrity] confidentiality".to_vec(),
        b"6.1.0-56-amd64".to_vec(),
    ];
    for _ in 0..20_000 {
        fuzz::all(&random.mutated(&seeds));
    }
}
