//! This machine under setpriv(1), with each set of capabilities that matters: the probe names exactly what is
//! missing, the loader and the backends of the counters do what it said they could, and no refusal reaches a
//! user without its remedy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use x0_ebpf::capabilities::{Capabilities, Feature, KernelVersion, Need};

const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// The program that the tests run as another user: it reports its capabilities, and uses them.
#[test]
fn child() {
    if std::env::var_os("X0_CHILD").is_none() {
        return;
    }
    let probe = Capabilities::probe();
    println!("effective {:x}", probe.effective().unwrap().bits());
    for feature in [Feature::Xdp, Feature::TrafficControl, Feature::TcpProbe] {
        let capabilities = probe.can(feature).err().map_or_else(Vec::new, |missing| {
            let of = |need: &Need| match need {
                Need::Capabilities { missing, .. } => missing.iter().map(ToString::to_string).collect(),
                _ => Vec::new(),
            };
            missing.needs().iter().flat_map(of).collect()
        });
        println!("{} {}", feature.name(), capabilities.join(","));
    }
    #[cfg(all(feature = "ebpf", feature = "testing"))]
    loads();
}

/// In a namespace of its own: loads, attaches to the loopback link, and opens the backend.
#[cfg(all(feature = "ebpf", feature = "testing"))]
fn loads() {
    use x0_ebpf::stats::{EbpfSource, ProcNetDevSource, open};
    use x0_ebpf::{AttachPolicy, LinkOptions, LinkProgram, Point};

    let say = |what: &str, error: Option<String>| {
        println!("{what}: {}", error.map_or_else(|| "ok".into(), |text| text.replace('\n', " ")));
    };
    match LinkProgram::load(LinkOptions::default()) {
        Err(error) => say("load", Some(error.to_string())),
        Ok(mut program) => {
            say("load", None);
            let outcome = program.attach_xdp("lo", AttachPolicy::Generic);
            say("attach xdp", outcome.err().map(|error| error.to_string()));
            for point in [Point::Ingress, Point::Egress] {
                let outcome = program.attach_tc("lo", point);
                say("attach tc", outcome.err().map(|error| error.to_string()));
            }
        }
    }
    let stats = open(&[&EbpfSource::new(["lo"]), &ProcNetDevSource]).unwrap();
    say("backend", stats.backend().passed_over().first().map(ToString::to_string));
}

struct Case {
    set: &'static str,
    effective: u64,
    /// The missing capabilities for links, and for tracing.
    links: &'static str,
    tracing: &'static str,
}

const fn case(set: &'static str, effective: u64, links: &'static str, tracing: &'static str) -> Case {
    Case { set, effective, links, tracing }
}

const CASES: [Case; 6] = [
    case("-all", 0, "CAP_BPF,CAP_NET_ADMIN", "CAP_BPF,CAP_PERFMON"),
    case("-all,+net_admin", NET_ADMIN, "CAP_BPF", "CAP_BPF,CAP_PERFMON"),
    case("-all,+bpf", BPF, "CAP_NET_ADMIN", "CAP_PERFMON"),
    case("-all,+bpf,+net_admin", BPF | NET_ADMIN, "", "CAP_PERFMON"),
    case("-all,+bpf,+net_admin,+perfmon", BPF | NET_ADMIN | PERFMON, "", ""),
    case("-all,+sys_admin,+net_admin", SYS_ADMIN | NET_ADMIN, "", ""),
];

#[test]
fn each_outcome_is_named() {
    if !can_drop_capabilities() {
        return;
    }
    for case in CASES {
        let said = as_nobody(case.set);
        for line in [
            format!("effective {:x}\n", case.effective),
            format!("\nxdp {}\n", case.links),
            format!("\ntraffic_control {}\n", case.links),
            format!("\ntcp_probe {}\n", case.tracing),
        ] {
            assert!(said.contains(&line), "{}: no {line:?} in {said}", case.set);
        }
        done_as_said(case.set, case.links, &said);
    }
}

#[test]
fn root_is_what_its_bounding_set_leaves() {
    if !can_drop_capabilities() {
        return;
    }
    let said = child_says(Command::new(test_program()));
    assert!(said.contains("\nxdp \n") && said.contains("\ntcp_probe \n"), "{said}");
    done_as_said("root", "", &said);
    // As docker has it.
    let mut bounded = Command::new("setpriv");
    bounded.args(["--bounding-set=-all,+net_admin,+net_raw", "--"]).arg(test_program());
    let said = child_says(bounded);
    assert!(said.contains("\nxdp CAP_BPF\n"), "{said}");
    done_as_said("root in a container", "CAP_BPF", &said);
}

/// With all capabilities everything works; without one, each refusal names it and says how to grant it.
fn done_as_said(case: &str, missing: &str, said: &str) {
    if !cfg!(all(feature = "ebpf", feature = "testing")) {
        return;
    }
    let outcomes: Vec<_> = said
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(what, _)| ["load", "attach xdp", "attach tc", "backend"].contains(what))
        .collect();
    assert!(outcomes.len() >= 2, "{case}: {said}");
    for (what, outcome) in &outcomes {
        if missing.is_empty() {
            assert_eq!(*outcome, "ok", "{case}: {what}");
        } else {
            assert_ne!(*outcome, "ok", "{case}: {what}");
            let named = missing.split(',').all(|capability| outcome.contains(capability));
            assert!(named && outcome.contains("setcap"), "{case}: {what}: {outcome}");
        }
    }
    if missing.is_empty() {
        assert_eq!(outcomes.len(), 5, "{case}: {said}");
    }
}

fn can_drop_capabilities() -> bool {
    let probe = Capabilities::probe();
    let root = BPF | NET_ADMIN | PERFMON | SYS_ADMIN;
    let there = || Command::new("setpriv").arg("--version").output().is_ok_and(|said| said.status.success());
    let missing = if probe.effective().unwrap_or_default().bits() & root != root {
        "dropping capabilities takes having them: run the test as root"
    } else if probe.kernel() < Some(KernelVersion::new(5, 18)) {
        "the matrix is that of Linux 5.18 and later"
    } else if !there() {
        "setpriv is not there: install util-linux"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    println!("not tested: {missing}");
    false
}

fn as_nobody(set: &str) -> String {
    // The other user must be able to read the program, in any target folder.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path().join("program");
    fs::copy(test_program(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(format!("--inh-caps={set}")).arg(format!("--ambient-caps={set}"));
    command.arg(format!("--bounding-set={set}")).arg("--").arg(program);
    child_says(command)
}

/// Runs it in a namespace that is left to it alone.
fn child_says(mut command: Command) -> String {
    command.args(["--exact", "child", "--nocapture"]).env("X0_CHILD", "1");
    #[cfg(feature = "testing")]
    let output = common::namespace().unwrap().run(|| command.output()).unwrap().unwrap();
    #[cfg(not(feature = "testing"))]
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn test_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}
