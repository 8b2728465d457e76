//! Logs and snapshots of every format stay readable. The recorded files are in `tests/data`.

use std::fs;
use std::path::PathBuf;

use x0_consensus::Directory;
use x0_consensus::sim::SimDirectory;

use crate::support::{
    Batch, adopt, append, base, commit_only, hard_state, image, images, open, options, stage,
};

/// Must never change: the files in `tests/data` were made from it.
fn recorded() -> Vec<Batch> {
    vec![
        vec![base(0, 0), hard_state(1, 0)],
        vec![append(1..=9, 1, 100), commit_only(1, 4)],
        vec![append(8..=9, 2, 700), hard_state(2, 8)],
        vec![adopt(6, 1), base(5, 1)],
        vec![append(10..=12, 3, 600)],
        vec![commit_only(3, 11)],
    ]
}

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/wal-v{version}"))
}

#[test]
fn format_1_is_read() {
    let directory = SimDirectory::new();
    for file in fs::read_dir(folder(1)).unwrap() {
        let file = file.unwrap();
        directory.replace_contents(file.file_name().to_str().unwrap(), fs::read(file.path()).unwrap());
    }
    let expected = images(&recorded()).pop().unwrap();
    assert_eq!(image(&mut open(&directory, options(4096)).unwrap()), expected);
}

/// The format does not change by accident: the files that are written today equal the recorded ones. After an
/// intended change, raise the version, keep the old folder, and run this test with `X0_RECORD_FORMAT` set to
/// record the new files.
#[test]
fn the_written_files_equal_the_recorded_ones() {
    let directory = SimDirectory::new();
    let mut log = open(&directory, options(4096)).unwrap();
    for batch in recorded() {
        stage(&mut log, &batch).unwrap();
        log_write(&mut log, &batch);
    }
    drop(log);
    // The origin has the fingerprints of its disk, and its own test of the encoding.
    for name in directory.list().unwrap().into_iter().filter(|name| name != "origin") {
        let bytes = directory.contents(&name).unwrap();
        if std::env::var_os("X0_RECORD_FORMAT").is_some() {
            fs::create_dir_all(folder(1)).unwrap();
            fs::write(folder(1).join(&name), &bytes).unwrap();
        }
        assert!(fs::read(folder(1).join(&name)).unwrap() == bytes, "{name} differs");
    }
}

fn log_write(log: &mut impl x0_consensus::Storage, batch: &Batch) {
    log.write(batch).unwrap();
}
