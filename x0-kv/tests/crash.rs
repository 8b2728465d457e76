//! Power lost at every operation of the disk, and during the recovery from that: nothing acknowledged is
//! lost, nothing panics.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use x0_consensus::sim::{Fault, SimDirectory, Unsynced};
use x0_consensus::{Bytes, Input, NodeId, Options, Output, Replica, StateMachine, Storage, Wal, WalOptions};
use x0_kv::{Command, KeyspaceName, Mutation, Outcome, Query, State, decode_applied};

const WRITES: u64 = 60;
const KEYS: u64 = 7;

/// The disk failed; the node is over.
struct Dead;

/// A node of one, carried out step by step: log, replica and state.
struct Node {
    log: Wal,
    replica: Replica,
    state: State,
    now: Duration,
    snapshot: BTreeMap<u64, Box<dyn Read + Send>>,
    done: Vec<(u64, Bytes)>,
    snapshots_saved: usize,
}

impl Node {
    fn open(disk: &SimDirectory) -> Result<Node, Dead> {
        let mut options = WalOptions::default();
        options.segment_len = 4 << 10;
        options.spare_in_background = false;
        let mut log = match Wal::open(Arc::new(disk.clone()), options) {
            Ok(log) => log,
            Err(error) => return dead(disk, &error),
        };
        let recovered = match log.recover() {
            Ok(recovered) => recovered,
            Err(error) => return dead(disk, &error),
        };
        let unapplied = match log.read(recovered.unapplied(0), usize::MAX) {
            Ok(unapplied) => unapplied,
            Err(error) => return dead(disk, &error),
        };
        let id = NodeId::new(1).unwrap();
        let mut config = Options::new(id).bootstrap([id]);
        config.checkpoint_log_len = 3 << 10;
        config.retained_entries = 4;
        let replica = Replica::new(config, recovered, &unapplied, 0, Duration::ZERO).unwrap();
        let mut node = Node {
            log,
            replica,
            state: State::in_memory(),
            now: Duration::ZERO,
            snapshot: BTreeMap::new(),
            done: Vec::new(),
            snapshots_saved: 0,
        };
        node.drain(disk)?;
        Ok(node)
    }

    /// Carries everything out, as a driver does. An error of the disk ends the node, as it ends a driver's.
    fn drain(&mut self, disk: &SimDirectory) -> Result<(), Dead> {
        while let Some(output) = self.replica.poll_output() {
            let input = match output {
                Output::Append { number, write } => match self.log.write(&[write]) {
                    Ok(()) => Input::Persisted { number },
                    Err(error) => return dead(disk, &error),
                },
                Output::Apply { entries, proposals } => {
                    let mut outcomes = Vec::new();
                    self.state
                        .apply(
                            entries
                                .iter()
                                .map(|entry| (entry.index, entry.is_command().then_some(&entry.payload))),
                            &mut outcomes,
                        )
                        .unwrap();
                    let mut outcomes = outcomes.into_iter();
                    for entry in entries.iter().filter(|entry| entry.is_command()) {
                        let outcome = outcomes.next().unwrap();
                        if let Some((_, token)) = proposals.iter().find(|(index, _)| *index == entry.index) {
                            self.done.push((*token, outcome));
                        }
                    }
                    Input::Applied { index: entries.last().unwrap().index }
                }
                Output::Checkpoint => {
                    Input::Checkpointed { index: StateMachine::checkpoint(&mut self.state).unwrap() }
                }
                Output::OpenSnapshot { transfer } => {
                    self.snapshot.insert(transfer, StateMachine::snapshot(&mut self.state).unwrap());
                    Input::SnapshotOpened { transfer, index: self.state.applied() }
                }
                Output::SaveSnapshot { transfer, meta } => {
                    let mut from = self.snapshot.remove(&transfer).unwrap();
                    let saved = self
                        .log
                        .snapshot_writer(&meta)
                        .is_ok_and(|mut to| std::io::copy(&mut from, &mut to).is_ok() && to.finish().is_ok());
                    if disk.is_down() {
                        return Err(Dead);
                    }
                    self.snapshots_saved += usize::from(saved);
                    if saved { Input::SnapshotSaved { meta } } else { Input::SnapshotClosed { transfer } }
                }
                Output::Restore { meta } => {
                    let mut from = self.log.snapshot_reader().unwrap().unwrap();
                    StateMachine::restore(&mut self.state, &meta, &mut from).unwrap();
                    Input::Restored { index: meta.index }
                }
                Output::CloseSnapshot { .. } | Output::Leader { .. } | Output::Membership(_) => continue,
                other => panic!("a group of one wants {other:?}"),
            };
            self.replica.handle(self.now, input).unwrap();
        }
        Ok(())
    }

    /// Whether it was acknowledged.
    fn put(&mut self, disk: &SimDirectory, number: u64) -> Result<(), Dead> {
        let payload = Command::encode_write(
            None,
            &KeyspaceName::DEFAULT,
            &Mutation::Put { key: key(number), value: value(number) },
        );
        self.replica.handle(self.now, Input::Propose { token: number, payload, trace: None }).unwrap();
        self.drain(disk)?;
        let (token, outcome) = self.done.pop().expect("a write that is durable is acknowledged");
        assert_eq!(token, number);
        assert!(matches!(decode_applied(&outcome), Ok(Ok(Outcome::Put { .. }))));
        Ok(())
    }

    fn get(&self, key: Bytes) -> Option<Bytes> {
        match self.state.reader().query(&KeyspaceName::DEFAULT, &Query::Get { key }).unwrap() {
            Outcome::Value(found) => found.map(|found| found.value),
            other => panic!("{other:?}"),
        }
    }
}

/// Only a disk without power may say that it cannot be used: a log that calls itself damaged would be a bug.
fn dead<T>(disk: &SimDirectory, error: &dyn std::error::Error) -> Result<T, Dead> {
    assert!(disk.is_down(), "{error}");
    Err(Dead)
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key {}", number % KEYS))
}

fn value(number: u64) -> Bytes {
    let len = usize::try_from(number * 67 % 500).unwrap();
    let mut value = number.to_le_bytes().to_vec();
    value.resize(8 + len, number.to_le_bytes()[0]);
    value.into()
}

/// Writes from `next` on. The number of the write that was not acknowledged, if the node died.
fn script(disk: &SimDirectory, node: &mut Node, next: u64) -> Result<(), u64> {
    (next..WRITES).try_for_each(|number| node.put(disk, number).map_err(|Dead| number))
}

/// The value that each key must hold when all writes below `next` were acknowledged, and the one at `next`
/// was perhaps made.
fn check(node: &Node, next: u64, what: &str) {
    for residue in 0..KEYS {
        let last = (0..next).rev().find(|number| number % KEYS == residue);
        let found = node.get(key(residue));
        let in_doubt = next < WRITES && next % KEYS == residue && found == Some(value(next));
        assert!(
            found == last.map(value) || in_doubt,
            "{what}: key {residue} is {found:?}, the last acknowledged was {last:?}"
        );
    }
}

/// Opens the node, however often the power goes while it recovers.
fn reopen(disk: &SimDirectory, fate: Unsynced) -> Node {
    loop {
        disk.crash(fate);
        if let Ok(node) = Node::open(disk) {
            return node;
        }
    }
}

fn fates(seed: u64) -> [Unsynced; 6] {
    [
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Sectors(seed),
        Unsynced::Sectors(seed ^ 0xabcd),
        Unsynced::Cut(seed),
        Unsynced::Cut(seed ^ 0xabcd),
    ]
}

#[test]
fn power_may_go_at_any_operation() {
    let disk = SimDirectory::new();
    let mut node = Node::open(&disk).ok().unwrap();
    assert_eq!(script(&disk, &mut node, 0), Ok(()));
    assert!(node.snapshots_saved > 3, "the script reaches what is behind snapshots");
    let operations = disk.operations();
    drop(node);
    let mut runs = 0;
    for operation in 0..operations {
        for fate in fates(operation) {
            // Once while writing, and once more soon after, which is while recovering.
            for again in [None, Some(operation % 9 + 1)] {
                let what =
                    format!("power lost at operation {operation} of {operations}, {again:?} more, {fate:?}");
                let disk = SimDirectory::new();
                disk.plant(operation, Fault::PowerLoss);
                if let Some(again) = again {
                    disk.plant(operation + again, Fault::PowerLoss);
                }
                let mut next = 0;
                let mut node = match Node::open(&disk) {
                    Ok(node) => node,
                    Err(Dead) => reopen(&disk, fate),
                };
                // The second fault may be met by the script again.
                while let Err(number) = script(&disk, &mut node, next) {
                    drop(node);
                    node = reopen(&disk, fate);
                    check(&node, number, &what);
                    next = number;
                }
                check(&node, WRITES, &what);
                runs += 1;
            }
        }
    }
    println!("{runs} runs over {operations} operations");
}
