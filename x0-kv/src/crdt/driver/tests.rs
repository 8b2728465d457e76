//! The driver on simulated disks that are full or fail.

use std::time::Instant;

use x0_consensus::sim::{Fault, SimDirectory};
use x0_consensus::{Wal, WalOptions};

use super::*;
use crate::crdt::request::Read as ReadRequest;
use crate::request::pending::Pending;
use crate::trace::Tracing;

const SEGMENT_LEN: u64 = 16 << 10;

fn options() -> CrdtOptions {
    CrdtOptions::new([7; 16])
}

fn start(disk: &SimDirectory, space: &Space) -> Crdt {
    let mut log = WalOptions::default().segment_len(SEGMENT_LEN);
    log.spare_in_background = false;
    let log = Wal::open(Arc::new(disk.clone()), log).unwrap();
    Crdt::start(
        options(),
        (NodeId::new(1).unwrap(), 5 << 32),
        Box::new(log),
        Box::new(|_, _, _| {}),
        space.clone(),
        Tracing::default(),
    )
    .unwrap()
}

fn key(number: u64) -> Bytes {
    // The first byte is the length of the keyspace's name.
    format!("\0key {number}").into()
}

fn wait(answer: Answer<CrdtOutcome>) -> Result<CrdtOutcome, OperationError> {
    Pending::new(answer, Some).wait()
}

fn put(crdt: &Crdt, number: u64) -> Result<(), OperationError> {
    let value = Bytes::from(vec![b'v'; 1000]);
    wait(crdt.submit(Request::Write(Write::Put { key: key(number), value }))).map(drop)
}

fn has(crdt: &Crdt, number: u64) -> bool {
    let read = Request::Read(ReadRequest::Get { key: key(number) });
    matches!(wait(crdt.submit(read)).unwrap(), CrdtOutcome::Value(Some(_)))
}

/// A full disk: the write that finds it, and those after it, are refused and leave nothing behind. Reads go
/// on, and writes too when there is space.
#[test]
fn a_full_journal_refuses_writes_and_recovers_by_itself() {
    let (disk, space) = (SimDirectory::new(), Space::default());
    let crdt = start(&disk, &space);
    disk.set_capacity_bytes(Some(3 * SEGMENT_LEN));
    let mut held = 0;
    let error = loop {
        match put(&crdt, held) {
            Ok(()) => held += 1,
            Err(error) => break error,
        }
        assert!(held < 1000, "the disk never fills up");
    };
    assert!(held > 10);
    assert_eq!(error, OperationError::NoSpace { ambiguous: false });
    assert!(space.status().journal_waits && space.status().is_short());
    let begun = Instant::now();
    for number in held..held + 50 {
        assert_eq!(put(&crdt, number), Err(OperationError::NoSpace { ambiguous: false }));
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "refused at once");
    for number in 0..held + 50 {
        assert_eq!(has(&crdt, number), number < held, "key {number}");
    }
    disk.set_capacity_bytes(None);
    let begun = Instant::now();
    while put(&crdt, held).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not recover");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!space.status().is_short());
    crdt.close();
    let crdt = start(&disk, &Space::default());
    for number in 0..held + 50 {
        assert_eq!(has(&crdt, number), number <= held, "key {number} after opening again");
    }
}

/// With less than the reserve free, a write is refused before it reaches the journal.
#[test]
fn a_touched_reserve_refuses_writes() {
    let space = Space::new(crate::space::SpaceOptions::default().reserve_len(100));
    let crdt = start(&SimDirectory::new(), &space);
    put(&crdt, 1).unwrap();
    space.measured(99);
    assert_eq!(put(&crdt, 2), Err(OperationError::NoSpace { ambiguous: false }));
    assert!(has(&crdt, 1) && !has(&crdt, 2));
    space.measured(200);
    put(&crdt, 2).unwrap();
}

/// An error of the disk: reads go on from what is durable, writes are refused with the cause.
#[test]
fn a_failed_journal_refuses_writes_with_the_cause_and_is_read() {
    let (disk, space) = (SimDirectory::new(), Space::default());
    let crdt = start(&disk, &space);
    put(&crdt, 1).unwrap();
    disk.plant(disk.operations(), Fault::Error(std::io::ErrorKind::Other));
    let error = put(&crdt, 2).unwrap_err();
    assert!(matches!(&error, OperationError::Failed { source } if source.to_string().contains("journal")));
    // The thread has ended by the time that the failure is reported.
    let begun = Instant::now();
    while crdt.failure().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    assert_eq!(put(&crdt, 3), Err(error.clone()));
    assert_eq!(crdt.failure(), Some(error));
    assert!(has(&crdt, 1) && !has(&crdt, 2) && !has(&crdt, 3));
    crdt.close();
    let crdt = start(&disk, &Space::default());
    assert!(has(&crdt, 1) && !has(&crdt, 3));
}
