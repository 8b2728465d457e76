//! The examples, as a person would try them.
#![cfg(all(feature = "ebpf", feature = "testing"))]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::path::PathBuf;
use std::process::Command;

/// Beside this test's own file.
fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program");
    let folder = own.ancestors().nth(2).expect("the profile's folder").join("examples");
    folder.join(name)
}

fn tries(name: &str) {
    if common::namespace().is_none() {
        return;
    }
    let output = Command::new(example(name))
        .arg("--try")
        .output()
        .expect("examples are built by `cargo test` without `--test`, or `cargo build --examples`");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() && std::env::var_os("CI").is_none() && text.contains("CAP_") {
        println!("not tested: {text}");
        return;
    }
    assert!(output.status.success(), "{text}");
    println!("{text}");
}

#[test]
fn block() {
    tries("block");
}

#[test]
fn chaos() {
    tries("chaos");
}

#[test]
fn wrong_arguments_are_named() {
    for (name, arguments, expected) in [
        ("block", vec!["lo"], "no prefix to block"),
        ("block", vec!["lo", "10.0.0.1/24"], "10.0.0"),
        ("chaos", vec!["lo"], "no fault was given"),
        ("chaos", vec!["lo", "--loss", "101"], "not a percentage"),
        ("chaos", vec!["lo", "--noise"], "unknown argument"),
        ("chaos", vec!["lo", "--loss", "1", "--out"], "--out needs --seconds"),
    ] {
        let output = Command::new(example(name))
            .args(&arguments)
            .output()
            .expect("examples are built by `cargo test` without `--test`, or `cargo build --examples`");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "{name} {arguments:?}: {text}");
    }
}
