//! Known panics of `raft` 0.7, and messages of a hostile peer. Messages are encoded here by hand,
//! independently of the crate's codec.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;
use x0_consensus::{
    Bytes, FailReason, HandleError, Input, MemoryStorage, NodeId, Options, Output, Replica, Storage,
};

const APPEND: u8 = 1;
const APPEND_RESPONSE: u8 = 2;
const VOTE_RESPONSE: u8 = 4;
const HEARTBEAT: u8 = 5;
const HEARTBEAT_RESPONSE: u8 = 6;
const PRE_VOTE_RESPONSE: u8 = 9;

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The fields of a message of Raft, in the order of the encoding.
#[derive(Debug, Clone, Default)]
struct Fields {
    kind: u8,
    reject: bool,
    term: u64,
    log_term: u64,
    index: u64,
    commit: u64,
    commit_term: u64,
    reject_hint: u64,
    request_snapshot: u64,
    entries: Vec<(u8, u64, Vec<u8>)>,
}

fn put(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    to.push(value.to_le_bytes()[0]);
}

impl Fields {
    fn bytes(&self) -> Bytes {
        let mut to = vec![1, 1, self.kind, u8::from(self.reject)];
        let Fields { term, log_term, index, commit, commit_term, reject_hint, request_snapshot, .. } = *self;
        for field in [term, log_term, index, commit, commit_term, reject_hint, request_snapshot] {
            put(&mut to, field);
        }
        put(&mut to, 0);
        put(&mut to, self.entries.len() as u64);
        for (kind, later, payload) in &self.entries {
            to.push(*kind);
            put(&mut to, *later);
            put(&mut to, payload.len() as u64);
            to.extend(payload);
        }
        to.into()
    }
}

/// The index before the entries of an append message.
fn position(payload: &[u8]) -> u64 {
    let mut bytes = payload[4..].iter();
    let mut number = || {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = *bytes.next().unwrap();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    };
    let (_term, _log_term) = (number(), number());
    number()
}

/// Node 1 of three, with a disk without latency.
struct Node {
    replica: Replica,
    storage: MemoryStorage,
    now: Duration,
    sent: Vec<(NodeId, Vec<u8>)>,
    applied: u64,
}

impl Node {
    fn new() -> Node {
        let mut storage = MemoryStorage::new();
        let options = Options::new(id(1)).bootstrap([1, 2, 3].map(id));
        let replica = Replica::new(options, storage.recover().unwrap(), &[], 0, Duration::ZERO).unwrap();
        Node { replica, storage, now: Duration::ZERO, sent: Vec::new(), applied: 0 }
    }

    fn hear(&mut self, from: u64, fields: &Fields) -> Result<(), HandleError> {
        self.tell(Input::Message { from: id(from), payload: fields.bytes() })
    }

    fn tell(&mut self, input: Input) -> Result<(), HandleError> {
        let result = self.replica.handle(self.now, input);
        while let Some(output) = self.replica.poll_output() {
            let answer = match output {
                Output::Append { number, write } => {
                    self.storage.write(&[write]).unwrap();
                    Input::Persisted { number }
                }
                Output::Send { to, payload, .. } => {
                    self.sent.push((to, payload));
                    continue;
                }
                Output::Apply { entries, .. } => {
                    self.applied = entries.last().unwrap().index;
                    Input::Applied { index: self.applied }
                }
                Output::Fetch { range, len_max } => {
                    Input::Fetched { entries: self.storage.read(range, len_max).unwrap_or_default() }
                }
                Output::OpenSnapshot { transfer } => Input::SnapshotClosed { transfer },
                _ => continue,
            };
            self.replica.handle(self.now, answer)?;
        }
        result
    }

    /// Advances the time until it campaigns, and elects it with the vote of node 2.
    fn lead(&mut self) -> u64 {
        let before = self.replica.status().term;
        while self.replica.status().term == before {
            self.now = self.replica.poll_timeout().unwrap();
            self.tell(Input::Timeout).unwrap();
            let next = before + 1;
            let _ = self.hear(2, &Fields { kind: PRE_VOTE_RESPONSE, term: next, ..Fields::default() });
        }
        let term = self.replica.status().term;
        self.hear(2, &Fields { kind: VOTE_RESPONSE, term, ..Fields::default() }).unwrap();
        assert!(self.replica.is_leader());
        term
    }
}

/// raft-rs issue 557: a late rejection moves the next index to or below the matched index, and `raft` panics.
#[test]
fn late_rejections_do_not_move_back_what_matches() {
    let mut node = Node::new();
    let term = node.lead();
    for token in 0..20 {
        node.tell(Input::Propose { token, payload: Bytes::from_static(b"x"), trace: None }).unwrap();
    }
    let last = node.replica.status().last_index;
    let accept = Fields { kind: APPEND_RESPONSE, term, index: last, ..Fields::default() };
    node.hear(2, &accept).unwrap();
    assert_eq!(node.replica.status().commit_index, last);
    // The follower rejects again.
    node.tell(Input::Unreachable { peer: id(2) }).unwrap();
    node.sent.clear();
    for index in 0..=last {
        for reject_hint in [0, index / 2, index] {
            let reject =
                Fields { kind: APPEND_RESPONSE, reject: true, term, index, reject_hint, ..Fields::default() };
            node.hear(2, &reject).unwrap();
        }
    }
    node.tell(Input::Propose { token: 99, payload: Bytes::from_static(b"y"), trace: None }).unwrap();
    for (_, payload) in node.sent.iter().filter(|(to, payload)| *to == id(2) && payload[2] == APPEND) {
        assert!(position(payload) >= last, "matched entries are sent again");
    }
    node.hear(2, &Fields { index: last + 1, ..accept }).unwrap();
    assert_eq!(node.replica.status().commit_index, last + 1);
}

/// "to_commit is out of range": a log that has lost entries receives the commit index of a leader that counts
/// on them.
#[test]
fn a_log_that_lost_entries_stops_its_replica_and_not_the_process() {
    let mut node = Node::new();
    let heartbeat = Fields { kind: HEARTBEAT, term: 4, commit: 1000, ..Fields::default() };
    assert_eq!(node.hear(2, &heartbeat), Err(HandleError::Failed(FailReason::LogLost)));
    // The failure is final, and no message is sent.
    node.sent.clear();
    assert_eq!(node.tell(Input::Timeout), Err(HandleError::Failed(FailReason::LogLost)));
    assert!(node.sent.is_empty());
    assert_eq!(node.replica.poll_timeout(), None);
}

#[test]
fn a_stranger_cannot_stop_a_replica() {
    let mut node = Node::new();
    let heartbeat = Fields { kind: HEARTBEAT, term: 4, commit: 1000, ..Fields::default() };
    assert!(matches!(node.hear(77, &heartbeat), Err(HandleError::Refused { .. })));
    assert!(node.tell(Input::Timeout).is_ok());
}

/// `raft` uses `thread_rng`: the election timeouts must depend on the seed only.
#[test]
fn elections_come_from_the_seed() {
    let run = |seed| {
        let mut storage = MemoryStorage::new();
        let mut options = Options::new(id(1)).bootstrap([1, 2, 3].map(id));
        options.seed = seed;
        let mut replica = Replica::new(options, storage.recover().unwrap(), &[], 0, Duration::ZERO).unwrap();
        let mut sent = Vec::new();
        for _ in 0..400 {
            let now = replica.poll_timeout().unwrap();
            replica.handle(now, Input::Timeout).unwrap();
            while let Some(output) = replica.poll_output() {
                if let Output::Append { number, .. } = output {
                    replica.handle(now, Input::Persisted { number }).unwrap();
                } else {
                    sent.push((now, output));
                }
            }
        }
        sent
    };
    assert_eq!(run(5), run(5));
    let different: std::collections::BTreeSet<Duration> = (0..20).map(|seed| run(seed)[0].0).collect();
    assert!(different.len() > 5, "{different:?}");
}

#[test]
fn a_message_from_oneself_is_refused() {
    let mut node = Node::new();
    let term = node.lead();
    let heartbeat = Fields { kind: HEARTBEAT_RESPONSE, term, ..Fields::default() };
    assert!(matches!(node.hear(1, &heartbeat), Err(HandleError::Refused { .. })));
}

fn edgy() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..12, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(1 << 62), 1 => Just(u64::MAX - 1)]
}

fn hostile() -> impl Strategy<Value = Fields> {
    let entries = prop::collection::vec((0_u8..2, 0_u64..3, prop::collection::vec(any::<u8>(), 0..6)), 0..4);
    (1_u8..=9, any::<bool>(), prop::array::uniform7(edgy()), entries).prop_map(
        |(kind, reject, numbers, entries)| {
            let [term, log_term, index, commit, commit_term, reject_hint, request_snapshot] = numbers;
            let entries = if kind == APPEND { entries } else { Vec::new() };
            Fields {
                kind,
                reject,
                term,
                log_term,
                index,
                commit,
                commit_term,
                reject_hint,
                request_snapshot,
                entries,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// No message of a member violates an invariant of `raft`: the replica continues, or fails because its
    /// log contradicts the group.
    #[test]
    fn a_hostile_member_does_not_break_the_engine(
        leads: bool, messages in prop::collection::vec((2_u64..=3, hostile(), any::<bool>()), 1..25)
    ) {
        let mut node = Node::new();
        if leads {
            node.lead();
            for token in 0..5 {
                node.tell(Input::Propose { token, payload: Bytes::from_static(b"x"), trace: None }).unwrap();
            }
        }
        for (from, mut fields, is_of_now) in messages {
            if is_of_now {
                fields.term = node.replica.status().term.max(1);
            }
            if let Err(HandleError::Failed(reason)) = node.hear(from, &fields) {
                prop_assert!(reason != FailReason::Internal, "{fields:?}");
                return Ok(());
            }
            node.now += Duration::from_millis(40);
            if let Err(HandleError::Failed(reason)) = node.tell(Input::Timeout) {
                prop_assert!(reason != FailReason::Internal, "after {fields:?}");
                return Ok(());
            }
        }
    }

    #[test]
    fn any_bytes_leave_a_replica_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..120), is_begun: bool) {
        let mut node = Node::new();
        let mut payload = if is_begun { vec![1, bytes.first().map_or(1, |byte| byte % 4)] } else { Vec::new() };
        payload.extend(&bytes);
        let result = node.tell(Input::Message { from: id(2), payload: payload.into() });
        prop_assert!(!matches!(result, Err(HandleError::Failed(FailReason::Internal))));
    }
}
