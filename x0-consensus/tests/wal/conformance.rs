//! The storages of this crate keep the contract.

use std::sync::Arc;

use x0_consensus::sim::{SimDirectory, Unsynced};
use x0_consensus::{FsDirectory, MemoryStorage, Wal, conformance};

use crate::support::options;

#[test]
fn memory() {
    conformance::check_storage(&mut || {
        let storage = MemoryStorage::new();
        Box::new(move || Box::new(storage.clone()))
    })
    .unwrap();
}

#[test]
fn wal_on_the_file_system() {
    for (segment_len, in_background) in [(4096, false), (4096, true), (1 << 20, true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut case = 0;
        conformance::check_storage(&mut || {
            case += 1;
            let path = folder.path().join(case.to_string());
            let mut options = options(segment_len);
            options.spare_in_background = in_background;
            Box::new(move || {
                let directory = FsDirectory::open(&path).unwrap();
                Box::new(Wal::open(Arc::new(directory), options).unwrap())
            })
        })
        .unwrap();
    }
}

/// Every restart is a power failure: only acknowledged writes survive.
#[test]
fn wal_on_a_disk_that_forgets() {
    for segment_len in [4096, 16384, 1 << 20] {
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Sectors(1), Unsynced::Cut(2)] {
            conformance::check_storage(&mut || {
                let directory = SimDirectory::new();
                Box::new(move || {
                    directory.crash(unsynced);
                    Box::new(Wal::open(Arc::new(directory.clone()), options(segment_len)).unwrap())
                })
            })
            .unwrap_or_else(|failure| panic!("{segment_len} {unsynced:?} {failure}"));
        }
    }
}
