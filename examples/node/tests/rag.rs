//! The retrieval demo as a process, with small documents.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

/// Runs the demo on so many documents of so many lines; `model` is `words` or a folder.
fn demo(model: &OsStr, files: u64, lines: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (documents, temporary) = (folder.path().join("documents"), folder.path().join("tmp"));
    fs::create_dir_all(&documents).unwrap();
    fs::create_dir_all(&temporary).unwrap();
    for number in 0..files {
        let text: String = (0..lines)
            .map(|line| {
                format!(
                    "Line {line} of manual {number}: the license, a bug, a configuration file, version {}.\n",
                    line * number
                )
            })
            .collect();
        fs::write(documents.join(format!("{number:02}.txt")), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_x0-node"))
        .args(["rag", "demo", "--json", "--documents"])
        .arg(&documents)
        .arg("--model")
        .arg(model)
        .env("TMPDIR", &temporary)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["held"], &json["documents"], &json["questions_alike"]),
        (&true.into(), &files.into(), &4.into()),
        "{json}"
    );
    assert!(json["chunks"].as_u64().unwrap() >= files, "{json}");
    assert!(fs::read_dir(&temporary).unwrap().next().is_none(), "the temporary folder is left behind");
}

#[test]
fn every_check_of_the_retrieval_demo_passes() {
    demo("words".as_ref(), 24, 30);
}

/// With the weights in the folder that `X0_MINILM` names.
#[cfg(feature = "minilm")]
#[test]
fn every_check_of_the_retrieval_demo_passes_with_the_model() {
    match std::env::var_os("X0_MINILM") {
        Some(model) => demo(&model, 12, 30),
        None => eprintln!("skipped: X0_MINILM names no folder with the model"),
    }
}

#[test]
fn commands_without_a_node_name_the_remedy() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_x0-node")).arg("rag").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // Nothing listens on the discard port.
    for args in [
        &["status", "--address", "127.0.0.1:9"][..],
        &["query", "text", "--address", "127.0.0.1:9"],
        &["rm", "a", "--address", "127.0.0.1:9"],
        &["add", "/etc/hostname", "--address", "127.0.0.1:9"],
    ] {
        let text = run(args);
        assert!(
            text.contains("cannot reach a node at http://127.0.0.1:9") && text.contains("--address"),
            "{text}"
        );
    }
    assert!(run(&["add", "/no/such/file"]).contains("cannot read /no/such/file"));
}
