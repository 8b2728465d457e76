//! What `x0-faultbench list` prints.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn faults_and_systems_are_listed_and_nothing_is_started() {
    let output = Command::new(env!("CARGO_BIN_EXE_x0-faultbench")).arg("list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for name in ["leak-leader", "short-svid", "bad-link-leader", "no-fault", "static", "supervisord"] {
        assert!(text.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} in {text}");
    }
}
