//! Copied folders and incarnations.

use std::fs;
use std::path::Path;

use x0_consensus::sim::{Fault, SimDirectory, Unsynced};
use x0_consensus::{Directory, RecoverError, Storage, Wal, WalOptions};

use crate::support::{append, base, hard_state, open, options};

fn with(incarnation: u64) -> WalOptions {
    options(4096).incarnation(incarnation)
}

/// Several segments, so that the newest one is not the first.
fn written(directory: &SimDirectory, incarnation: u64) -> Wal {
    let mut log = open(directory, with(incarnation)).unwrap();
    log.write(&[base(0, 0), hard_state(1, 0)]).unwrap();
    for index in 1..=10 {
        log.write(&[append(index..=index, 1, 900)]).unwrap();
    }
    log
}

fn refusal(directory: &SimDirectory) -> Option<&'static str> {
    match open(directory, with(99)) {
        Ok(_) => None,
        Err(RecoverError::Copied { part, .. }) => Some(part),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_folder_keeps_its_incarnation_and_an_emptied_one_gets_another() {
    let directory = SimDirectory::new();
    assert_eq!(written(&directory, 7).incarnation(), 7);
    assert_eq!(open(&directory, with(8)).unwrap().incarnation(), 7);
    assert_eq!(open(&SimDirectory::new(), with(8)).unwrap().incarnation(), 8);
    // A log of a release without origins, or of a caller without incarnations.
    let older = SimDirectory::new();
    drop(written(&older, 0));
    assert_eq!(open(&older, with(9)).unwrap().incarnation(), 9);
    older.remove("origin").unwrap();
    assert_eq!(open(&older, with(10)).unwrap().incarnation(), 10);
    assert_eq!(open(&older, with(11)).unwrap().incarnation(), 10);
}

#[test]
fn a_copy_is_refused_until_it_is_adopted() {
    let directory = SimDirectory::new();
    drop(written(&directory, 7));
    let copy = directory.copy();
    assert_eq!(refusal(&copy), Some("the folder"));
    let mut log = open(&copy, with(8).accepts_copy(true)).unwrap();
    assert_eq!((log.is_copy(), log.incarnation()), (Some("the folder"), 7));
    // Segments that are made meanwhile do not hide the copy.
    for index in 11..=20 {
        log.write(&[append(index..=index, 1, 900)]).unwrap();
    }
    drop(log);
    assert_eq!(refusal(&copy), Some("the folder"));
    let mut log = open(&copy, with(8).accepts_copy(true)).unwrap();
    log.adopt(8).unwrap();
    assert_eq!((log.is_copy(), log.incarnation()), (None, 8));
    drop(log);
    assert_eq!(refusal(&copy), None);
    // A disk that was copied as a whole has the fingerprints of its original.
    assert_eq!(refusal(&directory.fork()), None);
}

/// The power fails at each operation of an adoption: before or after it, with either incarnation, and never a
/// copy that is taken for the original under its old incarnation.
#[test]
fn an_adoption_happens_or_does_not() {
    // The slot is written and synchronised.
    for operation in 0..2 {
        for unsynced in
            [Unsynced::Lost, Unsynced::Kept, Unsynced::Sectors(operation), Unsynced::Cut(operation)]
        {
            let directory = SimDirectory::new();
            drop(written(&directory, 7));
            let copy = directory.copy();
            let mut log = open(&copy, with(8).accepts_copy(true)).unwrap();
            copy.plant(copy.operations() + operation, Fault::PowerLoss);
            let adopted = log.adopt(8).is_ok();
            drop(log);
            copy.crash(unsynced);
            let log = open(&copy, with(9).accepts_copy(true)).unwrap();
            let found = (log.is_copy().is_some(), log.incarnation());
            assert!(
                found == (false, 8) || (found == (true, 7) && !adopted),
                "{operation} {unsynced:?} {found:?}"
            );
        }
    }
}

/// On a file system: the folder as a whole, and each file that the origin names.
#[test]
fn copies_on_a_file_system_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    let options = WalOptions::default().segment_len(4096).spare_in_background(false).incarnation(7);
    let mut log = Wal::open_path(&original, options).unwrap();
    for index in 1..=10 {
        log.write(&[append(index..=index, 1, 900)]).unwrap();
    }
    drop(log);
    let refused = |path: &Path| match Wal::open_path(path, options) {
        Err(RecoverError::Copied { part, .. }) => part,
        Err(error) => panic!("{error}"),
        Ok(_) => "",
    };
    assert_eq!(refused(&original), "");
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&original).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    assert_eq!(refused(&copy), "the folder");
    // A folder that is moved within its file system is the same one.
    let moved = folder.path().join("moved");
    fs::rename(&original, &moved).unwrap();
    assert_eq!(refused(&moved), "");
    let mut newest: Vec<_> =
        fs::read_dir(&moved).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    newest.retain(|name| name.ends_with(".wal"));
    newest.sort();
    for (name, part) in [
        ("origin", "the file `origin`"),
        ("manifest", "the file `manifest`"),
        (newest.last().unwrap(), "the newest segment"),
    ] {
        let (path, aside) = (moved.join(name), moved.join("aside"));
        fs::rename(&path, &aside).unwrap();
        fs::copy(&aside, &path).unwrap();
        assert_eq!(refused(&moved), part);
        fs::rename(&aside, &path).unwrap();
        assert_eq!(refused(&moved), "");
    }
}
