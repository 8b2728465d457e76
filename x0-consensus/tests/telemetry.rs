//! The metrics of a replica.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::mpsc;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use x0_consensus::{
    Bytes, Entry, Event, MemoryStorage, NodeId, Observer, Options, SnapshotMeta, StateMachine,
    StateMachineError, local, telemetry,
};

struct Nothing;

impl StateMachine for Nothing {
    fn durable_index(&self) -> u64 {
        0
    }
    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        outcomes.extend(entries.iter().filter(|entry| entry.is_command()).map(|_| Bytes::new()));
        Ok(())
    }
    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        Ok(Box::new(Cursor::new([])))
    }
    fn restore(&mut self, _: &SnapshotMeta, _: &mut dyn Read) -> Result<(), StateMachineError> {
        Ok(())
    }
}

struct Tell(mpsc::Sender<Event>);

impl Observer for Tell {
    fn event(&mut self, event: Event) {
        let _ = self.0.send(event);
    }
}

/// Each name with its value or number of records, and whether it was described.
fn values(snapshotter: &Snapshotter) -> BTreeMap<String, (f64, bool)> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.map(|(key, _, description, value)| {
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        };
        let labels: String = key.key().labels().map(|label| format!(" {}", label.value())).collect();
        (format!("{}{labels}", key.key().name()), (value, description.is_some()))
    })
    .collect()
}

#[test]
fn a_leader_of_one_records_its_writes_and_its_status() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let (sender, events) = mpsc::channel();
    let replica = metrics::with_local_recorder(&recorder, || {
        telemetry::describe();
        let id = NodeId::new(1).unwrap();
        local::start(Options::new(id).bootstrap([id]), MemoryStorage::new(), Nothing, (), Tell(sender))
            .unwrap()
    });
    // Generous: only a test that fails waits for it.
    let next = || events.recv_timeout(Duration::from_secs(30)).unwrap();
    for token in 1..=10 {
        replica.propose(token, Bytes::from("command"));
        while !matches!(next(), Event::Outcome { token: done, .. } if done == token) {}
    }
    // Longer than an entry may be: refused, so that its commit is not timed.
    replica.propose(11, Bytes::from(vec![0; x0_consensus::PAYLOAD_LEN_MAX + 1]));
    while !matches!(next(), Event::Dropped { token: 11, .. }) {}
    replica.stop();
    replica.wait_ended();
    let status = replica.status();

    let values = values(&snapshotter);
    let value =
        |name: &str| values.get(&format!("x0_consensus_{name}")).unwrap_or_else(|| panic!("{name}")).0;
    assert_eq!((value("term"), value("is_leader"), value("voters")), (status.term as f64, 1.0, 1.0));
    assert_eq!(value("last_index"), status.last_index as f64);
    assert_eq!(value("commit_index"), status.commit_index as f64);
    assert!(value("applied_index") >= 11.0);
    assert!(value("leader_changes_total") >= 1.0);
    // Ten commands and the entry that opens the term, each in its own group, and the other writes of raft.
    assert!(value("log_entries_total") >= 11.0);
    assert!(value("log_write_seconds") >= 11.0);
    assert!(value("log_writes_total") >= value("log_write_seconds"));
    assert_eq!((value("dropped_total"), value("snapshots_total sent")), (1.0, 0.0));
    // One commit for each command that was accepted, and one election.
    assert_eq!((value("commit_seconds"), value("election_seconds")), (10.0, 1.0));
    assert!((1.0..=11.0).contains(&value("apply_seconds")));
    // A group of one has no follower, and so no series of one.
    assert!(!values.keys().any(|name| name.starts_with("x0_consensus_follower_lag_entries")));

    let bare: Vec<_> = values.iter().filter(|(_, (_, described))| !described).collect();
    assert!(bare.is_empty(), "not described: {bare:?}");
    // Every name is in the table of the module.
    let table = include_str!("../src/telemetry.rs");
    for name in values.keys().filter_map(|name| name.split(' ').next()) {
        assert!(table.contains(&format!("| `{name}` |")), "{name}");
    }
}
