//! The drivers with real threads and real clocks. The tests wait for events and not for times.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use x0_consensus::{
    Bytes, Class, Congested, Entry, Event, FatalError, Handle, MemoryStorage, NodeId, Observer, Options,
    Outbox, ReadError, RecoverError, Recovered, SnapshotMeta, SnapshotReadError, SnapshotReader,
    SnapshotWriteError, SnapshotWriter, StateMachine, StateMachineError, Storage, Wal, WalOptions, Write,
    WriteError, local,
};

/// Only a failing test waits so long.
const LIMIT: Duration = Duration::from_secs(60);

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Counts commands, and returns their number and their bytes.
#[derive(Default)]
struct Counting {
    count: u64,
    /// The command at which it fails, or returns a second outcome.
    fails_at: Option<u64>,
    repeats_at: Option<u64>,
    /// The length of a snapshot beyond its count.
    padding: usize,
    /// Receives the count of each snapshot that is restored.
    restored: Option<Sender<u64>>,
}

impl StateMachine for Counting {
    fn durable_index(&self) -> u64 {
        0
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        for entry in entries.iter().filter(|entry| entry.is_command()) {
            self.count += 1;
            if self.fails_at == Some(self.count) {
                return Err(StateMachineError::new("planted"));
            }
            outcomes.push([&self.count.to_le_bytes()[..], &entry.payload].concat().into());
            if self.repeats_at == Some(self.count) {
                outcomes.push(Bytes::new());
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        let mut bytes = self.count.to_le_bytes().to_vec();
        bytes.resize(8 + self.padding, 0);
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }

    fn restore(&mut self, _: &SnapshotMeta, from: &mut dyn Read) -> Result<(), StateMachineError> {
        let mut count = [0; 8];
        from.read_exact(&mut count).map_err(StateMachineError::new)?;
        self.count = u64::from_le_bytes(count);
        if let Some(restored) = &self.restored {
            restored.send(self.count).map_err(StateMachineError::new)?;
        }
        Ok(())
    }
}

struct Forward(Sender<Event>);

impl Observer for Forward {
    fn event(&mut self, event: Event) {
        // The receiver is gone at the end of a test.
        let _ = self.0.send(event);
    }
}

fn next(events: &Receiver<Event>) -> Event {
    events.recv_timeout(LIMIT).expect("an event is due")
}

fn until<T>(events: &Receiver<Event>, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(next(events)) {
            return found;
        }
    }
}

fn failure(events: &Receiver<Event>) -> Arc<FatalError> {
    until(events, |event| match event {
        Event::Failed(cause) => Some(cause),
        _ => None,
    })
}

/// The replicas of one process, by their handles.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<BTreeMap<NodeId, Handle>>>);

struct Wire {
    from: NodeId,
    wires: Wires,
}

impl Outbox for Wire {
    fn send(&mut self, to: NodeId, _: Class, payload: Vec<u8>) -> Result<(), Congested> {
        match self.wires.0.lock().unwrap().get(&to) {
            Some(handle) => {
                handle.deliver(self.from, payload.into());
                Ok(())
            }
            None => Err(Congested),
        }
    }
}

fn quick(number: u64, founders: &[u64]) -> Options {
    let mut options = Options::new(id(number)).bootstrap(founders.iter().copied().map(id));
    options.tick = Duration::from_millis(10);
    options
}

/// Proposes to the leader, and checks that each token has one outcome, in order; and that followers name the
/// leader.
fn everything_is_answered_once(nodes: &[(Handle, Receiver<Event>)]) {
    const TOKENS: u64 = 2000;
    let leader = nodes.iter().position(|(_, events)| {
        until(events, |event| match event {
            Event::Leader { leader: Some(_), is_self, .. } => Some(is_self),
            _ => None,
        })
    });
    let leader = leader.unwrap();
    let (handle, events) = &nodes[leader];
    for token in 0..TOKENS / 2 {
        handle.propose(token, Bytes::from(token.to_string()));
    }
    handle.propose_many((TOKENS / 2..TOKENS).map(|token| (token, Bytes::from(token.to_string()))));
    let mut open: BTreeSet<u64> = (0..TOKENS).collect();
    let mut last = 0;
    while !open.is_empty() {
        match next(events) {
            Event::Outcome { token, index, outcome } => {
                assert!(open.remove(&token) && index > last);
                assert_eq!(outcome[8..], *token.to_string().as_bytes());
                last = index;
            }
            Event::Dropped { token, reason } => panic!("{token} was dropped: {reason:?}"),
            _ => {}
        }
    }
    handle.read_index(7);
    let read = until(events, |event| match event {
        Event::ReadReady { token: 7, index } => Some(index),
        _ => None,
    });
    assert!(read >= last);
    // Followers name the leader.
    for (number, (handle, events)) in nodes.iter().enumerate().filter(|(number, _)| *number != leader) {
        handle.propose(5, Bytes::from_static(b"x"));
        let reason = until(events, |event| match event {
            Event::Dropped { token: 5, reason } => Some(reason),
            _ => None,
        });
        let named = x0_consensus::DropReason::NotLeader { leader: Some(id(leader as u64 + 1)) };
        assert_eq!(reason, named, "at node {}", number + 1);
    }
    for (handle, _) in nodes {
        handle.stop();
        handle.wait_ended();
    }
}

#[test]
fn three_local_replicas_agree() {
    let wires = Wires::default();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let (sender, events) = mpsc::channel();
        let wire = Wire { from: id(number), wires: wires.clone() };
        let options = quick(number, &[1, 2, 3]);
        let handle =
            local::start(options, MemoryStorage::new(), Counting::default(), wire, Forward(sender)).unwrap();
        wires.0.lock().unwrap().insert(id(number), handle.clone());
        nodes.push((handle, events));
    }
    everything_is_answered_once(&nodes);
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use super::*;

    fn three(runtime: &tokio::runtime::Runtime) -> Vec<(Handle, Receiver<Event>)> {
        let _inside = runtime.enter();
        let wires = Wires::default();
        let mut nodes = Vec::new();
        for number in 1..=3 {
            let (sender, events) = mpsc::channel();
            let wire = Wire { from: id(number), wires: wires.clone() };
            let (options, storage) = (quick(number, &[1, 2, 3]), MemoryStorage::new());
            let handle =
                x0_consensus::tokio::start(options, storage, Counting::default(), wire, Forward(sender))
                    .unwrap();
            wires.0.lock().unwrap().insert(id(number), handle.clone());
            nodes.push((handle, events));
        }
        nodes
    }

    #[test]
    fn three_replicas_agree_on_several_threads() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        everything_is_answered_once(&three(&runtime));
    }

    #[test]
    fn three_replicas_agree_on_one_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let nodes = three(&runtime);
        let handles: Vec<Handle> = nodes.iter().map(|(handle, _)| handle.clone()).collect();
        let watcher = std::thread::spawn(move || everything_is_answered_once(&nodes));
        runtime.block_on(async {
            for handle in handles {
                handle.ended().await;
            }
        });
        watcher.join().unwrap();
    }

    /// A member that starts late gets a snapshot, with all work on real threads: the others save theirs, open
    /// one for it, and it stages and restores that.
    #[test]
    fn a_late_member_gets_a_snapshot() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        let _inside = runtime.enter();
        let wires = Wires::default();
        let (restored, restores) = mpsc::channel();
        let start = |number| {
            let (sender, events) = mpsc::channel();
            let mut options = quick(number, &[1, 2, 3]);
            options.checkpoint_log_len = 20_000;
            options.retained_entries = 10;
            options.chunk_len = 100;
            let wire = Wire { from: id(number), wires: wires.clone() };
            let machine = Counting { padding: 1000, restored: Some(restored.clone()), ..Counting::default() };
            let handle =
                x0_consensus::tokio::start(options, MemoryStorage::new(), machine, wire, Forward(sender))
                    .unwrap();
            wires.0.lock().unwrap().insert(id(number), handle.clone());
            (handle, events)
        };
        let nodes = [start(1), start(2)];
        let leader = nodes.iter().position(|(_, events)| {
            until(events, |event| match event {
                Event::Leader { leader: Some(_), is_self, .. } => Some(is_self),
                _ => None,
            })
        });
        let (handle, events) = &nodes[leader.unwrap()];
        // Too large for the event loop: it is applied on the thread.
        let large = Bytes::from(vec![1; 300 << 10]);
        for round in 0..10 {
            let tokens = round * 10..round * 10 + 10;
            for token in tokens.clone() {
                handle
                    .propose(token, if token % 10 == 0 { large.clone() } else { Bytes::from(vec![2; 500]) });
            }
            for expected in tokens {
                let token = until(events, |event| match event {
                    Event::Outcome { token, .. } => Some(token),
                    Event::Failed(cause) => panic!("{cause}"),
                    _ => None,
                });
                assert_eq!(token, expected, "outcomes come in the order of the log");
            }
        }
        let late = start(3);
        let count = restores.recv_timeout(LIMIT).expect("the late member restores a snapshot");
        assert!((1..=100).contains(&count), "{count}");
        for (handle, _) in nodes.iter().chain([&late]) {
            handle.stop();
            handle.wait_ended();
        }
    }

    /// The state machine fails on the thread that applies large batches.
    #[test]
    fn a_state_machine_that_fails_on_the_thread_ends_the_replica() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let _inside = runtime.enter();
        let (sender, events) = mpsc::channel();
        let machine = Counting { fails_at: Some(2), ..Counting::default() };
        let handle =
            x0_consensus::tokio::start(quick(1, &[1]), MemoryStorage::new(), machine, (), Forward(sender))
                .unwrap();
        handle.propose(1, Bytes::from_static(b"x"));
        handle.propose(2, Bytes::from(vec![0; 1 << 20]));
        assert!(matches!(*failure(&events), FatalError::StateMachine(_)));
        handle.wait_ended();
    }

    #[test]
    fn a_failing_storage_ends_the_replica() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let _inside = runtime.enter();
        let (sender, events) = mpsc::channel();
        let storage = Failing { inner: MemoryStorage::new(), writes_left: 5 };
        let handle =
            x0_consensus::tokio::start(quick(1, &[1]), storage, Counting::default(), (), Forward(sender))
                .unwrap();
        a_failing_disk_acknowledges_nothing(&handle, &events);
    }

    #[test]
    fn the_log_thread_ends_with_its_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let (sender, events) = mpsc::channel();
        let start = |sender| {
            let log = Wal::open_path(folder.path(), WalOptions::default()).unwrap();
            x0_consensus::tokio::start(quick(1, &[1]), log, Counting::default(), (), Forward(sender)).unwrap()
        };
        let handle = {
            let _inside = runtime.enter();
            start(sender)
        };
        handle.propose(1, Bytes::from_static(b"x"));
        until(&events, |event| matches!(event, Event::Outcome { token: 1, .. }).then_some(()));
        drop(runtime);
        handle.wait_ended();
        // The folder is unlocked, and the acknowledged command is in the log.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let _inside = runtime.enter();
        let (sender, events) = mpsc::channel();
        let handle = start(sender);
        handle.propose(2, Bytes::from_static(b"y"));
        let outcome = until(&events, |event| match event {
            Event::Outcome { token: 2, outcome, .. } => Some(outcome),
            _ => None,
        });
        assert_eq!(outcome[..8], 2_u64.to_le_bytes());
    }
}

/// A storage that fails after some writes.
struct Failing {
    inner: MemoryStorage,
    writes_left: usize,
}

impl Storage for Failing {
    fn recover(&mut self) -> Result<Recovered, RecoverError> {
        self.inner.recover()
    }

    fn term(&self, index: u64) -> Result<Option<u64>, ReadError> {
        self.inner.term(index)
    }

    fn read(&mut self, indexes: Range<u64>, len_bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        self.inner.read(indexes, len_bytes_max)
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), WriteError> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(WriteError::Poisoned)?;
        self.inner.write(batch)
    }

    fn snapshot_writer(
        &mut self,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotWriter>, SnapshotWriteError> {
        self.inner.snapshot_writer(meta)
    }

    fn snapshot_reader(&mut self) -> Result<Option<Box<dyn SnapshotReader>>, SnapshotReadError> {
        self.inner.snapshot_reader()
    }
}

/// Writes one command after the other until one is not acknowledged: then the failure is the last event.
fn a_failing_disk_acknowledges_nothing(handle: &Handle, events: &Receiver<Event>) {
    let mut acknowledged = 0;
    let cause = 'writing: loop {
        handle.propose(acknowledged, Bytes::from_static(b"x"));
        loop {
            match next(events) {
                Event::Outcome { .. } => break,
                Event::Failed(cause) => break 'writing cause,
                _ => {}
            }
        }
        acknowledged += 1;
    };
    assert!((1..=5).contains(&acknowledged), "{acknowledged}");
    assert!(matches!(*cause, FatalError::Write(WriteError::Poisoned)), "{cause:?}");
    handle.propose(99, Bytes::from_static(b"x"));
    handle.wait_ended();
    assert!(events.try_iter().next().is_none());
}

#[test]
fn a_failing_storage_ends_a_local_replica() {
    let (sender, events) = mpsc::channel();
    let storage = Failing { inner: MemoryStorage::new(), writes_left: 5 };
    let handle = local::start(quick(1, &[1]), storage, Counting::default(), (), Forward(sender)).unwrap();
    a_failing_disk_acknowledges_nothing(&handle, &events);
}

#[test]
fn a_failing_state_machine_ends_the_replica() {
    let (sender, events) = mpsc::channel();
    let machine = Counting { fails_at: Some(3), ..Counting::default() };
    let handle = local::start(quick(1, &[1]), MemoryStorage::new(), machine, (), Forward(sender)).unwrap();
    for token in 0..5 {
        handle.propose(token, Bytes::from_static(b"x"));
    }
    assert!(matches!(*failure(&events), FatalError::StateMachine(_)));
}

#[test]
fn a_second_outcome_ends_the_replica() {
    let (sender, events) = mpsc::channel();
    let machine = Counting { repeats_at: Some(1), ..Counting::default() };
    let handle = local::start(quick(1, &[1]), MemoryStorage::new(), machine, (), Forward(sender)).unwrap();
    handle.propose(1, Bytes::from_static(b"x"));
    let cause = failure(&events);
    assert!(matches!(*cause, FatalError::Outcomes { .. }), "{cause:?}");
}

#[test]
fn a_log_is_unlocked_when_its_replica_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    for expected in 1_u64..=3 {
        let (sender, events) = mpsc::channel();
        let log = Wal::open_path(folder.path(), WalOptions::default()).unwrap();
        let handle = local::start(quick(1, &[1]), log, Counting::default(), (), Forward(sender)).unwrap();
        handle.propose(1, Bytes::from_static(b"x"));
        let outcome = until(&events, |event| match event {
            Event::Outcome { outcome, .. } => Some(outcome),
            _ => None,
        });
        assert_eq!(outcome[..8], expected.to_le_bytes());
        handle.stop();
        handle.wait_ended();
    }
}
