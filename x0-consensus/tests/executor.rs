//! The executor and its workers, one job at a time: the effect of each failure, and how it is reported.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::error::Error as _;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Duration;

use x0_consensus::driver::{
    ApplyJob, ApplyWorker, Done, Effect, Executor, LogJob, LogWorker, SnapshotJob, SnapshotWorker,
    TransferError,
};
use x0_consensus::trace::Traced;
use x0_consensus::{
    Bytes, DropReason, Entry, EntryKind, Event, FailReason, FatalError, HandleError, Input, Membership,
    MemoryStorage, NodeId, Options, ReadError, RecoverError, Recovered, SnapshotMeta, SnapshotReadError,
    SnapshotReader, SnapshotWriteError, SnapshotWriter, StateMachine, StateMachineError, Storage, Write,
    WriteError,
};

/// The fault that a storage, a state machine or a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fault {
    #[default]
    None,
    Error,
    Panic,
    Corrupt,
}

fn io_error() -> io::Error {
    io::Error::other("the disk is gone")
}

/// A storage in memory whose operations fail on command.
#[derive(Debug, Default)]
struct Flaky {
    inner: MemoryStorage,
    write: Fault,
    read: Fault,
    writer: Fault,
    reader: Fault,
    /// The number of writes in each batch.
    batches: Vec<usize>,
}

impl Storage for Flaky {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        self.inner.recover()
    }

    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        self.inner.term(index)
    }

    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        match self.read {
            Fault::Corrupt => Err(ReadError::Corrupt { file: "log".into(), offset: 7, reason: "planted" }),
            Fault::Error => Err(ReadError::Io { operation: "read", file: "log".into(), source: io_error() }),
            _ => self.inner.read(indexes, len_bytes_max),
        }
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        self.batches.push(batch.len());
        match self.write {
            Fault::None => self.inner.write(batch),
            Fault::Panic => panic!("the storage is broken"),
            _ => Err(WriteError::Full { file: "log".into() }),
        }
    }

    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        match self.writer {
            Fault::None => self.inner.snapshot_writer(meta),
            _ => Err(SnapshotWriteError::Full { file: "snapshot".into() }),
        }
    }

    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        match self.reader {
            Fault::None => self.inner.snapshot_reader(),
            _ => {
                Err(SnapshotReadError::Io { operation: "open", file: "snapshot".into(), source: io_error() })
            }
        }
    }
}

/// Answers each command with itself; its snapshot is a text.
#[derive(Debug, Default)]
struct Echo {
    apply: Fault,
    snapshot: Fault,
    restored: Option<String>,
}

impl StateMachine for Echo {
    fn durable_index(&self) -> u64 {
        0
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        match self.apply {
            Fault::Error => return Err(StateMachineError::new("planted")),
            Fault::Panic => panic!("{}", "the state machine is broken".to_owned()),
            Fault::Corrupt => outcomes.push(Bytes::new()),
            Fault::None => {}
        }
        outcomes.extend(entries.iter().filter(|entry| entry.is_command()).map(|entry| entry.payload.clone()));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        match self.snapshot {
            Fault::None => Ok(Box::new(Cursor::new(b"the state"))),
            Fault::Corrupt => Ok(Box::new(Broken)),
            _ => Err(StateMachineError::new("planted")),
        }
    }

    fn restore(&mut self, _: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError> {
        let mut text = String::new();
        from.read_to_string(&mut text).map_err(StateMachineError::new)?;
        self.restored = Some(text);
        Ok(())
    }
}

/// A stream that cannot be read.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io_error())
    }
}

/// A snapshot writer that fails at one step, or takes everything.
struct Writer {
    write: Fault,
    finish: Fault,
    len: u64,
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.write {
            Fault::None => {
                self.len += bytes.len() as u64;
                Ok(bytes.len())
            }
            Fault::Panic => panic!("the writer is broken"),
            _ => Err(io_error()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotWriter for Writer {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn finish(self: Box<Self>) -> Result<(), SnapshotWriteError> {
        match self.finish {
            Fault::None => Ok(()),
            _ => Err(SnapshotWriteError::Full { file: "snapshot".into() }),
        }
    }
}

fn writer(write: Fault, finish: Fault) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
    Ok(Box::new(Writer { write, finish, len: 0 }))
}

/// A snapshot of any meta in memory.
struct Snapshot(SnapshotMeta, Cursor<&'static [u8]>);

impl Read for Snapshot {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.1.read(to)
    }
}

impl Seek for Snapshot {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.1.seek(to)
    }
}

impl SnapshotReader for Snapshot {
    fn meta(&self) -> &SnapshotMeta {
        &self.0
    }

    fn len_bytes(&self) -> u64 {
        self.1.get_ref().len() as u64
    }
}

fn id() -> NodeId {
    NodeId::new(1).unwrap()
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { index, term: 1, membership: Membership::of_voters([id()]) }
}

fn entry(index: u64, payload: &'static [u8]) -> Entry {
    Entry { index, term: 1, kind: EntryKind::Normal, payload: Bytes::from_static(payload) }
}

/// A group of one with all workers inline.
struct Rig {
    executor: Executor,
    log: LogWorker<Flaky>,
    apply: ApplyWorker<Echo>,
    snapshots: SnapshotWorker,
    now: Duration,
    events: Vec<Event>,
    token: u64,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(Options::new(id()).bootstrap([id()]).checkpoint_log_len(1000).retained_entries(2))
    }

    fn with(options: Options) -> Rig {
        let (mut storage, machine) = (Flaky::default(), Echo::default());
        let executor = Executor::open(options, &mut storage, &machine, Duration::ZERO).unwrap();
        let mut rig = Rig {
            executor,
            log: LogWorker::new(storage),
            apply: ApplyWorker::new(machine),
            snapshots: SnapshotWorker::new(),
            now: Duration::ZERO,
            events: Vec::new(),
            token: 0,
        };
        rig.drain();
        assert!(rig.executor.replica().is_leader());
        rig
    }

    fn drain(&mut self) {
        loop {
            while let Some(effect) = self.executor.poll_output() {
                let Effect::Event(event) = effect else { panic!("a group of one sends nothing") };
                self.events.push(event);
            }
            let done = if let Some(job) = self.executor.apply_jobs().pop_front() {
                self.apply.work(job)
            } else if let Some(job) = self.executor.snapshot_jobs().pop_front() {
                self.snapshots.work(job)
            } else if let Some(done) = self.log.work(self.executor.log_jobs()) {
                done
            } else {
                return;
            };
            self.executor.complete(self.now, done);
        }
    }

    /// Lets the time pass, with all timeouts.
    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.executor.poll_timeout().filter(|due| *due <= until) {
            self.now = due;
            self.executor.handle(due, Input::Timeout).unwrap();
            self.drain();
        }
        self.now = until;
    }

    fn propose(&mut self) -> u64 {
        self.token += 1;
        let input = Input::Propose { token: self.token, payload: Bytes::from(vec![7; 100]), trace: None };
        self.executor.handle(self.now, input).unwrap();
        self.token
    }

    fn outcomes(&self) -> Vec<u64> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Outcome { token, .. } => Some(*token),
                _ => None,
            })
            .collect()
    }

    fn fill(&mut self) {
        for _ in 0..15 {
            self.propose();
            self.drain();
        }
    }

    fn transfer_failures(&self) -> Vec<String> {
        let failures = self.events.iter().filter_map(|event| match event {
            Event::TransferFailed(cause) => Some(format!("{cause}: {}", cause.source().unwrap())),
            _ => None,
        });
        failures.collect()
    }

    /// The cause of the end, which is the last event.
    fn failure(mut self) -> std::sync::Arc<FatalError> {
        assert!(self.executor.is_failed() && self.executor.poll_timeout().is_none());
        assert!(self.executor.poll_output().is_none());
        let refused = self.executor.handle(self.now, Input::ReadIndex { token: 9 });
        assert_eq!(refused, Err(HandleError::Failed(FailReason::Worker)));
        self.executor.complete(self.now, Done::Persisted { number: u64::MAX });
        assert!(self.executor.poll_output().is_none(), "nothing is acknowledged after the end");
        assert!(self.executor.log_jobs().is_empty() && self.executor.apply_jobs().is_empty());
        match self.events.pop() {
            Some(Event::Failed(cause)) => cause,
            event => panic!("the last event is {event:?}"),
        }
    }
}

#[test]
fn writes_that_wait_together_are_one_batch() {
    let mut rig = Rig::new();
    rig.log = LogWorker::new(std::mem::take(rig.log.storage_mut())).batch_max(3);
    rig.log.storage_mut().batches.clear();
    for _ in 0..7 {
        rig.propose();
        assert!(rig.executor.poll_output().is_none(), "nothing is known before the write is durable");
    }
    assert!(rig.executor.log_jobs().len() >= 7);
    rig.drain();
    assert_eq!(rig.outcomes(), [1, 2, 3, 4, 5, 6, 7]);
    assert!(rig.log.storage().batches.starts_with(&[3, 3, 1]), "{:?}", rig.log.storage().batches);
}

/// A job of another kind keeps its place between writes.
#[test]
fn a_batch_ends_at_a_job_of_another_kind() {
    let mut log = LogWorker::new(Flaky::default());
    let write = |number, index| LogJob::Write {
        number,
        write: Write { entries: vec![entry(index, b"x")], ..Write::default() },
        traced: Traced::default(),
    };
    let mut jobs = VecDeque::from([
        write(1, 1),
        write(2, 2),
        LogJob::Fetch { range: 1..3, len_max: 100 },
        write(3, 3),
        LogJob::Fetch { range: 9..10, len_max: 100 },
    ]);
    assert!(matches!(log.work(&mut jobs), Some(Done::Persisted { number: 2 })));
    assert!(matches!(log.work(&mut jobs), Some(Done::Fetched { entries }) if entries.len() == 2));
    assert!(matches!(log.work(&mut jobs), Some(Done::Persisted { number: 3 })));
    assert!(matches!(log.work(&mut jobs), Some(Done::Fetched { entries }) if entries.is_empty()));
    assert!(log.work(&mut jobs).is_none());
}

#[test]
fn a_storage_that_fails_ends_the_replica() {
    let mut rig = Rig::new();
    rig.log.storage_mut().write = Fault::Error;
    rig.propose();
    rig.drain();
    assert!(rig.outcomes().is_empty());
    assert!(matches!(*rig.failure(), FatalError::Write(WriteError::Full { .. })));
}

/// A group of one with a full disk: open and new proposals end at once, the writes are repeated each second
/// and keep their order, and the replica continues when there is space.
#[test]
fn a_replica_that_waits_for_space_continues_by_itself() {
    let mut rig = Rig::with(Options::new(id()).bootstrap([id()]).waits_for_space(true));
    rig.propose();
    rig.drain();
    assert_eq!(rig.outcomes(), [1]);
    rig.log = LogWorker::new(std::mem::take(rig.log.storage_mut())).batch_max(2);
    rig.log.storage_mut().write = Fault::Error;
    rig.log.storage_mut().batches.clear();
    let dropped = |rig: &mut Rig| -> Vec<(u64, DropReason)> {
        let dropped = rig.events.drain(..).filter_map(|event| match event {
            Event::Dropped { token, reason } => Some((token, reason)),
            _ => None,
        });
        dropped.collect()
    };
    rig.propose();
    rig.propose();
    // One write after the other, so that some are in the queue when the first one fails.
    rig.drain();
    let full = rig.events.iter().filter(|event| matches!(event, Event::NoSpace(_))).count();
    assert_eq!(full, 1);
    assert_eq!(dropped(&mut rig), [(2, DropReason::Unknown), (3, DropReason::Unknown)]);
    rig.propose();
    rig.drain();
    assert_eq!(dropped(&mut rig), [(4, DropReason::NoSpace)]);
    // Reads go on.
    rig.executor.handle(rig.now, Input::ReadIndex { token: 50 }).unwrap();
    rig.drain();
    assert!(rig.events.iter().any(|event| matches!(event, Event::ReadReady { token: 50, .. })));
    // The election timer runs on, and each second has one attempt.
    let attempts = rig.log.storage().batches.len();
    rig.run_for(Duration::from_millis(3500));
    assert_eq!(rig.log.storage().batches.len(), attempts + 3);
    assert!(!rig.executor.is_failed());
    rig.log.storage_mut().write = Fault::None;
    rig.run_for(Duration::from_secs(2));
    assert!(rig.events.iter().any(|event| matches!(event, Event::SpaceAvailable)));
    let token = rig.propose();
    rig.drain();
    assert_eq!(rig.outcomes(), [token], "proposals with an unknown result have no second one");
    // The writes that waited are durable: entry 1 of the term, and commands 1, 2, 3 and 5.
    assert_eq!(rig.log.storage().term(5).unwrap(), Some(1));
}

/// Writes that arrive while others wait for space are not written before them.
#[test]
fn writes_wait_behind_a_write_without_space() {
    let mut log = LogWorker::new(Flaky { write: Fault::Error, ..Flaky::default() }).batch_max(2);
    let write = |number| LogJob::Write {
        number,
        write: Write { entries: vec![entry(number, b"x")], ..Write::default() },
        traced: Traced::default(),
    };
    let mut jobs = VecDeque::from([write(1), write(2), write(3), LogJob::Fetch { range: 1..1, len_max: 1 }]);
    assert!(matches!(log.work(&mut jobs), Some(Done::NoSpace { error: WriteError::Full { .. } })));
    assert!(matches!(log.work(&mut jobs), Some(Done::Nothing)), "the third write waits, too");
    assert!(matches!(log.work(&mut jobs), Some(Done::Fetched { .. })));
    jobs.push_back(LogJob::Retry);
    assert!(matches!(log.work(&mut jobs), Some(Done::NoSpace { .. })));
    log.storage_mut().write = Fault::None;
    jobs.extend([write(4), LogJob::Retry, LogJob::Retry, write(5)]);
    assert!(matches!(log.work(&mut jobs), Some(Done::Nothing)));
    assert!(matches!(log.work(&mut jobs), Some(Done::Persisted { number: 4 })));
    assert!(matches!(log.work(&mut jobs), Some(Done::Nothing)), "nothing waits any more");
    assert!(matches!(log.work(&mut jobs), Some(Done::Persisted { number: 5 })));
    assert_eq!(log.storage().batches, [2, 2, 2, 2, 1]);
    let held = log.storage_mut().inner.read(1..6, usize::MAX).unwrap();
    assert_eq!(held.len(), 5);
}

#[test]
fn a_panic_of_the_storage_is_a_typed_error() {
    let mut rig = Rig::new();
    rig.log.storage_mut().write = Fault::Panic;
    rig.propose();
    rig.drain();
    let failure = rig.failure();
    assert!(
        matches!(&*failure, FatalError::Panicked { worker: "log", message } if message == "the storage is broken")
    );
    assert!(failure.to_string().contains("the log worker panicked (the storage is broken)"));
}

#[test]
fn a_damaged_log_ends_the_replica_and_a_busy_disk_does_not() {
    let mut log = LogWorker::new(Flaky { read: Fault::Error, ..Flaky::default() });
    let fetch = || VecDeque::from([LogJob::Fetch { range: 1..2, len_max: 100 }]);
    assert!(matches!(log.work(&mut fetch()), Some(Done::Fetched { entries }) if entries.is_empty()));
    log.storage_mut().read = Fault::Corrupt;
    let done = log.work(&mut fetch()).unwrap();
    assert!(matches!(done, Done::Failed(FatalError::Read(ReadError::Corrupt { .. }))), "{done:?}");
}

#[test]
fn a_snapshot_to_restore_that_is_missing_or_unreadable_is_fatal() {
    let mut log = LogWorker::new(Flaky::default());
    let open = || VecDeque::from([LogJob::OpenReader { meta: meta(5) }]);
    assert!(matches!(log.work(&mut open()), Some(Done::Failed(FatalError::SnapshotMissing))));
    log.storage_mut().reader = Fault::Error;
    assert!(matches!(log.work(&mut open()), Some(Done::Failed(FatalError::SnapshotRead(_)))));
}

#[test]
fn a_state_machine_that_fails_ends_the_replica() {
    for (fault, expected) in [
        (Fault::Error, "the state machine failed"),
        (Fault::Panic, "the apply worker panicked (the state machine is broken)"),
        (Fault::Corrupt, "the state machine returned 2 outcomes for 1 commands"),
    ] {
        let mut rig = Rig::new();
        rig.apply.machine_mut().apply = fault;
        rig.propose();
        rig.drain();
        let failure = rig.failure().to_string();
        assert!(failure.contains(expected), "{failure}");
    }
}

#[test]
fn a_restore_replaces_the_state_and_is_in_order() {
    let mut apply = ApplyWorker::new(Echo::default());
    let from = Box::new(Snapshot(meta(5), Cursor::new(b"old state")));
    let job = ApplyJob::Restore { meta: meta(5), from };
    assert!(!job.is_small(usize::MAX, usize::MAX));
    assert!(format!("{job:?}").contains("index: 5"));
    assert!(matches!(apply.work(job), Done::Restored { index: 5 }));
    assert_eq!(apply.machine().restored.as_deref(), Some("old state"));
    let done = apply.work(ApplyJob::OpenSnapshot { transfer: 3 });
    assert!(matches!(done, Done::SnapshotOpened { transfer: 3, index: 5, from: Ok(_) }), "{done:?}");
    let entries = vec![entry(6, b"four"), entry(7, b"")];
    let job = ApplyJob::Apply { entries, proposals: vec![(6, 1), (7, 2)], traced: Traced::default() };
    assert!(job.is_small(2, 4) && !job.is_small(1, 4) && !job.is_small(2, 3));
    let Done::Applied { index: 7, events } = apply.work(job) else { panic!("not applied") };
    assert_eq!(events.len(), 2, "an entry without a command has an empty outcome");
    assert!(matches!(apply.work(ApplyJob::Checkpoint), Done::Checkpointed { index: 0 }));
    let from = Box::new(Snapshot(meta(9), Cursor::new(b"\xff\xff")));
    let done = apply.work(ApplyJob::Restore { meta: meta(9), from });
    assert!(matches!(done, Done::Failed(FatalError::StateMachine(_))), "{done:?}");
}

#[test]
fn a_snapshot_is_saved_and_the_log_shortened() {
    let mut rig = Rig::new();
    rig.fill();
    let storage = &mut rig.log.storage_mut().inner;
    let mut saved = String::new();
    storage.snapshot_reader().unwrap().unwrap().read_to_string(&mut saved).unwrap();
    assert_eq!(saved, "the state");
    assert_eq!(storage.term(1).unwrap(), None);
    assert_eq!(rig.transfer_failures(), [""; 0]);
}

#[test]
fn a_snapshot_that_cannot_be_saved_is_reported_and_taken_again() {
    let opens = "cannot open a snapshot of the state machine: the state machine failed; restart the node to continue from its durable state";
    let reads = "cannot read the snapshot of the state machine: the disk is gone";
    let stages = "cannot stage the snapshot in the storage: no space left on the disk for snapshot: free some space, then take the snapshot again";
    for (machine, writer, expected) in [
        (Fault::Error, Fault::None, opens),
        (Fault::Corrupt, Fault::None, reads),
        (Fault::None, Fault::Error, stages),
    ] {
        let mut rig = Rig::new();
        rig.apply.machine_mut().snapshot = machine;
        rig.log.storage_mut().writer = writer;
        rig.fill();
        let failures = rig.transfer_failures();
        assert!(!failures.is_empty() && failures.iter().all(|failure| failure == expected), "{failures:?}");
        assert_eq!(rig.log.storage().term(1).unwrap(), Some(1), "the log is kept");
        rig.apply.machine_mut().snapshot = Fault::None;
        rig.log.storage_mut().writer = Fault::None;
        rig.fill();
        assert_eq!(rig.log.storage().term(1).unwrap(), None);
        assert_eq!(rig.transfer_failures().len(), failures.len());
        assert_eq!(rig.outcomes().len(), 30, "proposals are not concerned");
    }
}

#[test]
fn a_snapshot_is_read_in_chunks() {
    let mut worker = SnapshotWorker::new();
    let open = |worker: &mut SnapshotWorker, transfer| {
        let from = Box::new(Cursor::new(b"12345678"));
        assert!(matches!(worker.work(SnapshotJob::Open { transfer, from }), Done::Nothing));
    };
    let read = |worker: &mut SnapshotWorker, transfer| match worker
        .work(SnapshotJob::ReadChunk { transfer, len_max: 4 })
    {
        Done::ChunkRead { chunk, .. } => chunk,
        done => panic!("{done:?}"),
    };
    open(&mut worker, 1);
    open(&mut worker, 2);
    assert_eq!(format!("{worker:?}"), "SnapshotWorker { open: [1, 2], staging: None }");
    assert_eq!(read(&mut worker, 1).unwrap(), (Bytes::from_static(b"1234"), false));
    assert_eq!(read(&mut worker, 2).unwrap(), (Bytes::from_static(b"1234"), false));
    assert_eq!(read(&mut worker, 1).unwrap(), (Bytes::from_static(b"5678"), false));
    assert_eq!(read(&mut worker, 1).unwrap(), (Bytes::new(), true), "the end is an empty chunk");
    assert!(matches!(worker.work(SnapshotJob::Close { transfer: 1 }), Done::Nothing));
    assert!(matches!(read(&mut worker, 1), Err(TransferError::NotOpen)));
    worker.work(SnapshotJob::Open { transfer: 3, from: Box::new(Broken) });
    assert!(matches!(read(&mut worker, 3), Err(TransferError::Read(_))));
}

#[test]
fn a_save_reports_the_step_that_failed() {
    let result = |from: Option<Box<dyn Read + Send>>, to| {
        let mut worker = SnapshotWorker::new();
        if let Some(from) = from {
            worker.work(SnapshotJob::Open { transfer: 1, from });
        }
        match worker.work(SnapshotJob::Save { transfer: 1, meta: meta(3), to }) {
            Done::Saved { result, .. } => result,
            done => panic!("{done:?}"),
        }
    };
    /// A stream that is interrupted once.
    struct Interrupted(bool);
    impl Read for Interrupted {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) { Ok(0) } else { Err(io::ErrorKind::Interrupted.into()) }
        }
    }
    let good = || -> Option<Box<dyn Read + Send>> { Some(Box::new(Cursor::new(vec![1; 700_000]))) };
    assert!(result(good(), writer(Fault::None, Fault::None)).is_ok());
    assert!(result(Some(Box::new(Interrupted(false))), writer(Fault::None, Fault::None)).is_ok());
    assert!(matches!(result(None, writer(Fault::None, Fault::None)), Err(TransferError::NotOpen)));
    assert!(matches!(result(good(), writer(Fault::Error, Fault::None)), Err(TransferError::Write(_))));
    assert!(matches!(result(good(), writer(Fault::None, Fault::Error)), Err(TransferError::Stage(_))));
    let full = Err(SnapshotWriteError::Full { file: "snapshot".into() });
    assert!(matches!(result(good(), full), Err(TransferError::Stage(_))));
    let broken: Box<dyn Read + Send> = Box::new(Broken);
    assert!(matches!(result(Some(broken), writer(Fault::None, Fault::None)), Err(TransferError::Read(_))));
}

#[test]
fn staging_reports_one_result_per_transfer() {
    let begin = |worker: &mut SnapshotWorker, transfer, to| worker.work(SnapshotJob::Begin { transfer, to });
    let write = |worker: &mut SnapshotWorker, transfer| {
        worker.work(SnapshotJob::Write { transfer, bytes: Bytes::from_static(b"chunk") })
    };
    let finish = |worker: &mut SnapshotWorker, transfer| worker.work(SnapshotJob::Finish { transfer });
    let mut worker = SnapshotWorker::new();

    assert!(matches!(begin(&mut worker, 1, writer(Fault::None, Fault::None)), Done::Nothing));
    assert_eq!(format!("{worker:?}"), "SnapshotWorker { open: [], staging: Some(1) }");
    assert!(matches!(write(&mut worker, 1), Done::Nothing));
    assert!(matches!(write(&mut worker, 2), Done::Nothing), "another transfer's chunk is ignored");
    assert!(matches!(finish(&mut worker, 2), Done::Nothing), "and so is its end");
    assert!(matches!(finish(&mut worker, 1), Done::Staged { transfer: 1, result: Ok(()) }));
    assert!(matches!(finish(&mut worker, 1), Done::Nothing), "there is one result");

    begin(&mut worker, 3, writer(Fault::Error, Fault::None)).eq_nothing();
    assert!(matches!(write(&mut worker, 3), Done::Staged { result: Err(TransferError::Write(_)), .. }));
    assert!(matches!(write(&mut worker, 3), Done::Nothing));
    assert!(matches!(finish(&mut worker, 3), Done::Nothing));

    begin(&mut worker, 4, writer(Fault::None, Fault::Error)).eq_nothing();
    assert!(matches!(finish(&mut worker, 4), Done::Staged { result: Err(TransferError::Stage(_)), .. }));

    begin(&mut worker, 5, writer(Fault::None, Fault::None)).eq_nothing();
    let full = Err(SnapshotWriteError::Full { file: "snapshot".into() });
    assert!(matches!(begin(&mut worker, 6, full), Done::Staged { transfer: 6, result: Err(_) }));
    assert!(matches!(finish(&mut worker, 5), Done::Nothing), "a new transfer discards the old one");

    begin(&mut worker, 7, writer(Fault::Panic, Fault::None)).eq_nothing();
    let done = write(&mut worker, 7);
    assert!(matches!(done, Done::Failed(FatalError::Panicked { worker: "snapshot", .. })), "{done:?}");
}

trait EqNothing {
    fn eq_nothing(&self);
}

impl EqNothing for Done {
    fn eq_nothing(&self) {
        assert!(matches!(self, Done::Nothing), "{self:?}");
    }
}

/// Jobs and results can be logged by a simulator, without their bytes.
#[test]
fn jobs_and_results_have_a_debug_form() {
    let full = || SnapshotWriteError::Full { file: "snapshot".into() };
    let jobs = [
        SnapshotJob::Open { transfer: 1, from: Box::new(io::empty()) },
        SnapshotJob::ReadChunk { transfer: 2, len_max: 1 },
        SnapshotJob::Close { transfer: 3 },
        SnapshotJob::Save { transfer: 4, meta: meta(1), to: Err(full()) },
        SnapshotJob::Begin { transfer: 5, to: Err(full()) },
        SnapshotJob::Write { transfer: 6, bytes: Bytes::new() },
        SnapshotJob::Finish { transfer: 7 },
    ];
    for (number, (job, kind)) in
        jobs.iter().zip(["Open", "ReadChunk", "Close", "Save", "Begin", "Write", "Finish"]).enumerate()
    {
        assert_eq!(format!("{job:?}"), format!("{kind} {{ transfer: {}, .. }}", number + 1));
    }
    let from = || -> Box<dyn SnapshotReader> { Box::new(Snapshot(meta(1), Cursor::new(b""))) };
    assert_eq!(from().len_bytes(), 0);
    for (done, expected) in [
        (Done::Nothing, "Nothing"),
        (Done::Persisted { number: 1 }, "Persisted { number: 1 }"),
        (Done::Fetched { entries: vec![] }, "Fetched { entries: [] }"),
        (
            Done::WriterOpened { transfer: 1, to: writer(Fault::None, Fault::None) },
            "WriterOpened { transfer: 1, to: Ok(()) }",
        ),
        (Done::Applied { index: 1, events: vec![] }, "Applied { index: 1, events: [] }"),
        (Done::Restored { index: 1 }, "Restored { index: 1 }"),
        (Done::Checkpointed { index: 1 }, "Checkpointed { index: 1 }"),
        (
            Done::ChunkRead { transfer: 1, chunk: Err(TransferError::NotOpen) },
            "ChunkRead { transfer: 1, chunk: Err(NotOpen) }",
        ),
        (Done::Staged { transfer: 1, result: Ok(()) }, "Staged { transfer: 1, result: Ok(()) }"),
        (Done::Failed(FatalError::SnapshotMissing), "Failed(SnapshotMissing)"),
    ] {
        assert_eq!(format!("{done:?}"), expected);
    }
    assert!(format!("{:?}", Done::ReaderOpened { from: from() }).starts_with("ReaderOpened { meta: "));
    let saved = Done::Saved { transfer: 1, meta: meta(1), result: Ok(()) };
    assert!(format!("{saved:?}").starts_with("Saved { transfer: 1, meta: "));
    let opened = Done::SnapshotOpened { transfer: 1, index: 2, from: Ok(Box::new(io::empty())) };
    assert_eq!(format!("{opened:?}"), "SnapshotOpened { transfer: 1, index: 2, from: Ok(()) }");
    assert_eq!(format!("{:?}", ApplyJob::Checkpoint), "Checkpoint");
    assert_eq!(format!("{:?}", ApplyJob::OpenSnapshot { transfer: 1 }), "OpenSnapshot { transfer: 1 }");
    let apply = ApplyJob::Apply { entries: vec![], proposals: vec![], traced: Traced::default() };
    assert_eq!(format!("{apply:?}"), "Apply { entries: [], proposals: [] }");
    assert!(format!("{:?}", LogWorker::new(Flaky::default())).starts_with("LogWorker { storage: "));
    assert_eq!(format!("{:?}", ApplyWorker::new(Echo::default())), "ApplyWorker { applied: 0, .. }");
}

/// A message to a peer that is dropped makes the replica send less; here there is no peer, and nothing
/// happens.
#[test]
fn congestion_is_no_failure() {
    let mut rig = Rig::new();
    rig.executor.congested(rig.now, NodeId::new(2).unwrap());
    rig.executor.complete(rig.now, Done::Nothing);
    rig.propose();
    rig.drain();
    assert_eq!(rig.outcomes(), [1]);
}
