//! The example counts its starts, also after a kill.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn starts_are_counted_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    for expected in 1..=4 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_x0-example-embed"))
            .arg(folder.path().join("store"))
            .arg("idle")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(line, format!("started {expected} times\n"));
    }
}
