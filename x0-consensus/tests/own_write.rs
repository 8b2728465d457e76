//! The result of a leader's own write may wait exactly as long as nothing follows from it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Read;
use std::time::Duration;

use x0_consensus::driver::{ApplyWorker, Done, Effect, Executor, LogWorker};
use x0_consensus::{
    Bytes, Entry, Input, MemoryStorage, NodeId, Options, SnapshotMeta, StateMachine, StateMachineError,
};

struct Echo;

impl StateMachine for Echo {
    fn durable_index(&self) -> u64 {
        0
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        outcomes.extend(entries.iter().filter(|entry| entry.is_command()).map(|entry| entry.payload.clone()));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn Read + Send>, StateMachineError> {
        Ok(Box::new(std::io::empty()))
    }

    fn restore(&mut self, _: &SnapshotMeta, _: &mut dyn Read) -> Result<(), StateMachineError> {
        Ok(())
    }
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

struct Node {
    executor: Executor,
    log: LogWorker<MemoryStorage>,
    apply: ApplyWorker<Echo>,
}

/// Nodes whose log writes the test carries out when it wants.
struct Group {
    nodes: Vec<Node>,
    now: Duration,
    /// From, to, payload.
    messages: Vec<(u64, u64, Bytes)>,
}

impl Group {
    /// Of nodes 1 to `count`; node 1 leads, and nothing is in progress.
    fn led_by_first(count: u64) -> Group {
        let nodes = (1..=count).map(|number| {
            let (mut storage, machine) = (MemoryStorage::new(), Echo);
            let options = Options::new(id(number)).bootstrap((1..=count).map(id));
            let executor = Executor::open(options, &mut storage, &machine, Duration::ZERO).unwrap();
            Node { executor, log: LogWorker::new(storage), apply: ApplyWorker::new(machine) }
        });
        let mut group = Group { nodes: nodes.collect(), now: Duration::ZERO, messages: Vec::new() };
        while !group.nodes[0].executor.replica().is_leader() {
            group.now = group.nodes[0].executor.poll_timeout().unwrap();
            group.give(1, Input::Timeout);
            group.settle();
        }
        group.settle();
        group
    }

    fn node(&mut self, number: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(number - 1).unwrap()]
    }

    fn give(&mut self, number: u64, input: Input) {
        let now = self.now;
        self.node(number).executor.handle(now, input).unwrap();
        self.drain(number);
    }

    fn drain(&mut self, number: u64) {
        while let Some(effect) = self.node(number).executor.poll_output() {
            if let Effect::Send { to, payload, .. } = effect {
                self.messages.push((number, to.get(), payload.into()));
            }
        }
    }

    fn deliver(&mut self) {
        for (from, to, payload) in std::mem::take(&mut self.messages) {
            self.give(to, Input::Message { from: id(from), payload });
        }
    }

    /// Carries out a job of the log. Whether there was one.
    fn write(&mut self, number: u64) -> bool {
        let now = self.now;
        let Node { executor, log, .. } = self.node(number);
        let Some(done) = log.work(executor.log_jobs()) else { return false };
        assert!(matches!(done, Done::Persisted { .. }), "{done:?}");
        executor.complete(now, done);
        self.drain(number);
        true
    }

    /// Applies what is committed. Whether there was anything.
    fn apply(&mut self, number: u64) -> bool {
        let now = self.now;
        let Node { executor, apply, .. } = self.node(number);
        let Some(job) = executor.apply_jobs().pop_front() else { return false };
        executor.complete(now, apply.work(job));
        self.drain(number);
        true
    }

    /// Until nothing moves but time.
    fn settle(&mut self) {
        loop {
            let count = self.nodes.len() as u64;
            let is_busy =
                (1..=count).fold(false, |is_busy, number| self.write(number) | self.apply(number) | is_busy);
            if self.messages.is_empty() && !is_busy {
                return;
            }
            self.deliver();
        }
    }

    fn propose(&mut self) {
        self.give(1, Input::Propose { token: 7, payload: Bytes::from("entry"), trace: None });
    }

    fn can_wait(&mut self, number: u64) -> bool {
        self.node(number).executor.can_wait_for_log()
    }
}

#[test]
fn nothing_follows_from_a_write_that_can_wait() {
    let mut group = Group::led_by_first(3);
    group.propose();
    assert!(group.can_wait(1));
    let sent = group.messages.len();
    assert!(group.write(1));
    assert_eq!(group.messages.len(), sent, "no message waited for it");
    assert!(!group.apply(1), "nothing was committed by it");
    group.settle();
    assert_eq!(group.node(1).executor.replica().status().applied_index, 2);
}

#[test]
fn a_leader_waits_for_its_write_once_another_member_has_it() {
    let mut group = Group::led_by_first(3);
    group.propose();
    group.deliver();
    // A follower sends its acknowledgement when the entry is durable.
    assert!(!group.can_wait(2) && group.messages.is_empty());
    assert!(group.write(2));
    assert!(group.can_wait(1));
    group.deliver();
    assert!(!group.can_wait(1), "with the own write it is committed");
    assert!(!group.apply(1) && group.write(1) && group.apply(1));
}

#[test]
fn a_leader_waits_for_its_write_when_the_others_have_committed_it() {
    let mut group = Group::led_by_first(3);
    group.propose();
    group.deliver();
    assert!(group.write(2) && group.write(3));
    group.deliver();
    assert!(!group.can_wait(1), "the entry is committed and not durable here");
    assert!(!group.apply(1) && group.write(1) && group.apply(1));
}

#[test]
fn the_only_voter_waits_for_each_write() {
    let mut group = Group::led_by_first(1);
    group.propose();
    assert!(!group.can_wait(1));
    assert!(group.write(1) && group.apply(1));
}
