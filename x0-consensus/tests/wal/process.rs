//! On the real file system: a process is killed during its writes, and two processes open the same folder.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use x0_consensus::{FsDirectory, RecoverError, SnapshotMeta, Storage, Wal, WalOptions};

use crate::support::{append, base, entry};

const FOLDER: &str = "X0_WAL_TEST_FOLDER";

fn options() -> WalOptions {
    let mut options = WalOptions::default();
    options.segment_len = 64 * 1024;
    options
}

/// The child process: this test with the folder in its environment. It writes, and prints each acknowledged
/// write, until it is killed.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut log = Wal::open_path(folder, options()).unwrap();
    let mut last = log.recover().unwrap().last_index;
    loop {
        log.write(&[append(last + 1..=last + 3, 1, 300), append(last + 4..=last + 4, 1, 2000)]).unwrap();
        last += 4;
        println!("acknowledged {last}");
        if last.is_multiple_of(400) {
            log.write(&[base(last - 100, 1)]).unwrap();
        }
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["process::child_writes_until_it_is_killed", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=5_u64 {
        let mut child = spawn(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        while count < 97 * round {
            let line = lines.next().unwrap().unwrap();
            // The test harness prints on the same line.
            if let Some((_, last)) = line.split_once("acknowledged ") {
                acknowledged = last.parse().unwrap();
                count += 1;
            }
        }
        let other = Wal::open_path(folder.path(), options());
        assert!(matches!(other, Err(RecoverError::Locked { .. })), "while the process is running: {other:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some((_, last)) = line.split_once("acknowledged ") {
                // The last line may be cut.
                acknowledged = last.parse::<u64>().unwrap_or(0).max(acknowledged);
            }
        }

        let mut log = Wal::open_path(folder.path(), options()).unwrap();
        let held = log.recover().unwrap();
        assert!(held.last_index >= acknowledged, "{} of {acknowledged}", held.last_index);
        assert_eq!(held.last_index % 4, 0, "a part of a batch is held");
        let entries = log.read(held.base.index + 1..held.last_index + 1, usize::MAX).unwrap();
        for held in entries {
            let len = if held.index % 4 == 0 { 2000 } else { 300 };
            assert_eq!(held, entry(held.index, 1, len));
        }
    }
}

#[test]
fn a_second_opening_is_refused_and_a_later_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Arc::new(FsDirectory::open(folder.path()).unwrap());
    let mut log = Wal::open(directory.clone(), options()).unwrap();
    let second = Wal::open(directory.clone(), options());
    assert!(matches!(second, Err(RecoverError::Locked { .. })), "{second:?}");
    // A remaining snapshot writer could still write to the folder.
    let writer = log.snapshot_writer(&SnapshotMeta::default()).unwrap();
    drop(log);
    let third = Wal::open(directory.clone(), options());
    assert!(matches!(third, Err(RecoverError::Locked { .. })), "{third:?}");
    drop(writer);
    assert!(Wal::open(directory, options()).is_ok());
}

/// Batches longer than a segment, changed segment lengths and old spare files.
#[test]
fn segment_lengths_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for segment_len in [4096, 1 << 20, 8192, 4096] {
        let mut options = options();
        options.segment_len = segment_len;
        let mut log = Wal::open_path(folder.path(), options).unwrap();
        assert_eq!(log.recover().unwrap().last_index, last);
        for _ in 0..20 {
            log.write(&[append(last + 1..=last + 3, 1, 2500)]).unwrap();
            last += 3;
        }
        log.write(&[base(last - 2, 1)]).unwrap();
        assert_eq!(log.read(last - 1..last + 1, usize::MAX).unwrap().len(), 2);
    }
}
