//! Commands in network namespaces, and whether this machine can have any.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Write;
use std::process::{Command, Stdio};

use x0_ebpf::testing::Namespace;

/// Namespaces, or `None` where the test is skipped: without root or without these programs. In continuous
/// integration that is a failure.
pub(crate) fn namespaces<const COUNT: usize>(programs: &[&str]) -> Option<[Namespace; COUNT]> {
    let has = |program: &&str| {
        Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let made: Option<Vec<Namespace>> = (0..COUNT).map(|_| Namespace::new().ok()).collect();
    match made.filter(|_| programs.iter().all(has)).and_then(|made| made.try_into().ok()) {
        Some(made) => Some(made),
        None => {
            assert!(std::env::var("CI").is_err(), "needs root and the programs {programs:?}");
            println!("skipped: needs root and the programs {programs:?}");
            None
        }
    }
}

/// Runs a program in a namespace with this input.
pub(crate) fn run(namespace: &Namespace, command: &str, input: &str) {
    let mut child = Command::new("nsenter")
        .arg(format!("--net={}", namespace.path().display()))
        .args(command.split_whitespace())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{command}: {input}");
}

/// Sets values below `/proc/sys/net` of a namespace.
pub(crate) fn sysctl(namespace: &Namespace, values: &[(&str, &str)]) {
    let set = || {
        for (name, value) in values {
            std::fs::write(format!("/proc/sys/net/{name}"), value)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    };
    namespace.run(set).unwrap();
}
