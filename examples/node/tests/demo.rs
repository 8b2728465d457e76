//! The demo as a process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Generous: only a test that fails waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// The demo with a small data set, and its temporary folder below `folder`.
fn demo(folder: &Path) -> Command {
    let records = folder.join("records");
    let text: String = (0..300)
        .map(|number| format!("Package: p{number}\nArchitecture: all\nDescription: {number}\n\n"))
        .collect();
    fs::write(&records, text).unwrap();
    let temporary = folder.join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_x0-node"));
    command.arg("demo").arg("--records").arg(records).env("TMPDIR", temporary);
    command
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// A shortened run: the whole scenario, few records. As root in network namespaces, where the system has
/// them.
#[test]
fn every_check_passes_and_the_json_has_the_figures() {
    let unshared = Command::new("unshare").args(["--net", "true"]).output();
    let network =
        if unshared.is_ok_and(|output| output.status.success()) { "namespaces" } else { "loopback" };
    run_whole(&[], network);
}

#[test]
fn every_check_passes_over_the_loopback() {
    run_whole(&["--loopback"], "loopback");
}

fn run_whole(arguments: &[&str], network: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path()).arg("--json").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["network"], network, "{json}");
    for (field, value) in [("written", 300), ("acknowledged", 300), ("read_back", 300), ("lost", 0)] {
        assert_eq!(json[field], value, "{json}");
    }
    // An election cannot be faster; without a kill the time would be shorter.
    assert!(json["leaderless_ms"].as_u64().unwrap() > 50, "{json}");
    assert!(json["catch_up_ms"].as_u64().unwrap() > 0 && json["rotation_ms"].is_u64(), "{json}");
    // Less than the time of an election, which a cut link must not cause.
    assert!(json["failover_ms"].as_u64().unwrap() < 1000, "{json}");
    assert!(json["relayed_bytes"].as_u64().unwrap() > 0 && json["epochs_lost"] == 0, "{json}");
    assert!(json["updates_acknowledged"].as_u64().unwrap() > 0, "{json}");
    assert_eq!((&json["held"], &json["replicas_identical"]), (&true.into(), &true.into()), "{json}");
    for (field, value) in [("crdt_written", 200), ("crdt_lost", 0), ("crdt_siblings", 2)] {
        assert_eq!(json[field], value, "{json}");
    }
    assert_eq!(json["crdt_identical"], true, "{json}");
    for (field, value) in [("healed", if cfg!(unix) { 3 } else { 0 }), ("wrong_acts", 0)] {
        assert_eq!(json[field], value, "{json}");
    }
    if cfg!(unix) {
        // A hang is one after two seconds, and a dead voter after ten.
        assert!(json["gray_ms"].as_u64().unwrap() > 0, "{json}");
        assert!(json["hung_ms"].as_u64().unwrap() >= 2000, "{json}");
        assert!(json["replaced_ms"].as_u64().unwrap() >= 10_000, "{json}");
        let timeline = json["timeline"].as_array().unwrap();
        for what in ["fault", "action", "proof", "healed"] {
            assert!(timeline.iter().any(|moment| moment["what"] == what), "no {what} in {json}");
        }
    }
    assert!(is_empty(&folder.path().join("tmp")), "the temporary folder is left behind");
}

#[test]
fn a_failed_start_names_the_cause_as_text_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing");
    let output = demo(folder.path()).args(["--json", "--dir"]).arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("not empty") && text.contains("--dir"), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["held"], false);
    assert!(json["failures"][0].as_str().unwrap().contains("not empty"), "{json}");
    let output = demo(folder.path()).arg("--records").arg(&nothing).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "given twice");
    let output = Command::new(env!("CARGO_BIN_EXE_x0-node"))
        .args(["demo", "--records"])
        .arg(nothing)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("nothing") && text.contains("--records"), "{text}");
}

/// No node outlives the demo, regardless of the way in which it ends.
#[test]
#[cfg(target_os = "linux")]
fn nodes_end_with_the_demo() {
    for signal in ["KILL", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = demo(folder.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let nodes: Vec<u32> = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, rest)) = line.split_once("processes [") {
                let list = rest.split(']').next().unwrap();
                break list.split(", ").map(|pid| pid.parse().unwrap()).collect();
            }
        };
        assert_eq!(nodes.len(), 5);
        let killed = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert!(!child.wait().unwrap().success());
        let begun = Instant::now();
        let is_alive = |pid: &u32| {
            // A process that has ended and was not waited for yet is in state Z.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains("x0-node") && !status.contains("State:\tZ")
        };
        while nodes.iter().any(is_alive) {
            assert!(begun.elapsed() < LIMIT, "nodes outlive the demo: {nodes:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        if signal == "TERM" {
            assert!(is_empty(&folder.path().join("tmp")), "the temporary folder is left behind");
        }
    }
}
