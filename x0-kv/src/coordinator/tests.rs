//! Coordinators over a log that the test holds in its hand.

mod traces;
mod ways;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use x0_identity::NodeId;

use super::*;
use crate::request::limits::SESSIONS_MAX;
use crate::{Command, Consistency, Expect, KeyspaceName, Mutation, Operation, Outcome, Query, State, Swap};

const CLIENT: u64 = 9;
const HEADER: protocol::Header = protocol::Header { from: 5, to: 0 };

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn write(mutation: Mutation) -> Operation {
    Operation::Write { keyspace: KeyspaceName::DEFAULT, mutation }
}

fn put(key: &'static str, value: &'static str) -> Operation {
    write(Mutation::Put { key: key.into(), value: value.into() })
}

fn get(key: &'static str) -> Operation {
    let keyspace = KeyspaceName::DEFAULT;
    Operation::Read {
        keyspace,
        query: Query::Get { key: key.into() },
        consistency: Consistency::Linearizable,
    }
}

/// Swaps `from` for `to`: applied twice, the second time fails.
fn step(from: &'static str, to: &'static str) -> Operation {
    let expect = if from.is_empty() { Expect::Absent } else { Expect::Value(from.into()) };
    write(Mutation::CompareAndSwap { key: "counter".into(), expect, value: to.into() })
}

fn is_value(result: &Result<Outcome, OperationError>, value: &str) -> bool {
    matches!(result, Ok(Outcome::Value(Some(found))) if found.value == value)
}

struct Member {
    coordinator: Coordinator,
    state: State,
    /// Proposals of the coordinator that are not decided.
    proposed: Vec<(u64, Bytes)>,
    rounds: Vec<u64>,
}

/// Three members and a client. Messages wait in `in_flight`, proposals with their member, until the test has
/// them carried on.
struct Pair {
    now: Duration,
    members: BTreeMap<u64, Member>,
    log: Vec<Bytes>,
    leader: Option<u64>,
    term: u64,
    in_flight: VecDeque<(u64, NodeId, Bytes)>,
    replies: Vec<(u64, u64, Result<Outcome, OperationError>)>,
    next_token: u64,
}

impl Pair {
    fn new() -> Pair {
        Pair::with(|options| options)
    }

    fn with(change: impl Fn(CoordinatorOptions) -> CoordinatorOptions) -> Pair {
        let members = [1, 2, 3, CLIENT].into_iter().map(|number| {
            let options = match number {
                CLIENT => CoordinatorOptions::client(node(number), vec![node(1), node(2), node(3)]),
                _ => CoordinatorOptions::member(node(number)),
            };
            let coordinator = Coordinator::new(change(options), number);
            let (proposed, rounds) = (Vec::new(), Vec::new());
            (number, Member { coordinator, state: State::in_memory(), proposed, rounds })
        });
        Pair {
            now: Duration::ZERO,
            members: members.collect(),
            log: Vec::new(),
            leader: None,
            term: 0,
            in_flight: VecDeque::new(),
            replies: Vec::new(),
            next_token: 100,
        }
    }

    fn elect(&mut self, leader: Option<u64>) {
        self.leader = leader;
        self.term += 1;
        for number in [1, 2, 3] {
            self.tell_leader(number);
        }
    }

    fn tell_leader(&mut self, number: u64) {
        let (leader, term, is_self) = (self.leader.map(node), self.term, self.leader == Some(number));
        self.give(number, Input::Leader { leader, term, is_self });
    }

    fn give(&mut self, number: u64, input: Input) {
        let now = self.now;
        self.members.get_mut(&number).unwrap().coordinator.handle(now, input).unwrap();
        self.drain(number);
    }

    fn call(&mut self, number: u64, operation: Operation) -> u64 {
        self.next_token += 1;
        let token = self.next_token;
        self.give(number, Input::Call { token, operation, deadline: None, trace: None });
        token
    }

    fn drain(&mut self, number: u64) {
        let now = self.now;
        let member = self.members.get_mut(&number).unwrap();
        while let Some(output) = member.coordinator.poll_output() {
            match output {
                Output::Propose { token, payload, .. } => member.proposed.push((token, payload)),
                Output::ReadIndex { token } => member.rounds.push(token),
                Output::Query { token, keyspace, query } => {
                    let answer = Ok(member.state.reader().query(&keyspace, &query).unwrap());
                    member.coordinator.handle(now, Input::Queried { token, answer }).unwrap();
                }
                Output::Send { to, payload } => {
                    assert!(payload.len() <= MESSAGE_LEN_MAX);
                    self.in_flight.push_back((number, to, payload));
                }
                Output::Reply { token, result } => self.replies.push((number, token, result)),
            }
        }
    }

    fn deliver(&mut self, (from, to, payload): (u64, NodeId, Bytes)) {
        self.give(to.get(), Input::Message { from: node(from), payload });
    }

    /// Commits and applies what the leader has proposed, and confirms its reads.
    fn decide(&mut self) {
        let Some(leader) = self.leader else { return };
        let proposed = std::mem::take(&mut self.members.get_mut(&leader).unwrap().proposed);
        for (token, payload) in proposed {
            let outcome = self.commit(payload);
            let index = self.log.len() as u64;
            self.give(leader, Input::Outcome { token, index, outcome });
        }
        for token in std::mem::take(&mut self.members.get_mut(&leader).unwrap().rounds) {
            self.give(leader, Input::ReadReady { token, index: self.log.len() as u64 });
        }
    }

    fn commit(&mut self, payload: Bytes) -> Bytes {
        self.log.push(payload);
        let index = self.log.len() as u64;
        let mut outcome = Bytes::new();
        for member in self.members.values_mut() {
            let mut outcomes = Vec::new();
            member.state.apply([(index, self.log.last())], &mut outcomes).unwrap();
            outcome = outcomes.pop().unwrap();
        }
        outcome
    }

    /// Until nothing moves but time.
    fn settle(&mut self) {
        loop {
            self.decide();
            if let Some(message) = self.in_flight.pop_front() {
                self.deliver(message);
            } else if self.is_decided() {
                return;
            }
        }
    }

    fn is_decided(&self) -> bool {
        let leader = self.leader.map(|leader| &self.members[&leader]);
        leader.is_none_or(|leader| leader.proposed.is_empty() && leader.rounds.is_empty())
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        for number in [1, 2, 3, CLIENT] {
            self.give(number, Input::Timeout);
        }
    }

    /// The one reply to this call.
    #[track_caller]
    fn reply(&mut self, token: u64) -> Result<Outcome, OperationError> {
        let place = self.replies.iter().position(|(_, replied, _)| *replied == token).expect("a reply");
        let (_, _, result) = self.replies.remove(place);
        assert!(self.replies.iter().all(|(_, replied, _)| *replied != token), "replied twice");
        result
    }

    fn coordinator(&mut self, number: u64) -> &mut Coordinator {
        &mut self.members.get_mut(&number).unwrap().coordinator
    }

    fn sessions_opened(&self) -> usize {
        self.log.iter().filter(|payload| Command::decode(payload) == Ok(Command::OpenSession)).count()
    }
}

#[test]
fn every_node_writes_and_reads_wherever_the_leader_is() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    for from in [1, 2, 3, CLIENT] {
        let first = pair.call(from, put("a", "1"));
        let second = pair.call(from, put("a", "2"));
        pair.settle();
        assert!(matches!(pair.reply(first), Ok(Outcome::Put { .. })));
        assert!(matches!(pair.reply(second), Ok(Outcome::Put { .. })));
        let read = pair.call(from, get("a"));
        pair.settle();
        assert!(is_value(&pair.reply(read), "2"));
        assert_eq!(pair.coordinator(from).calls(), 0);
        assert_eq!(pair.coordinator(from).poll_timeout(), None);
    }
    assert_eq!(pair.sessions_opened(), 4);
    assert_eq!(pair.coordinator(1).requests(), 0);
}

#[test]
fn inputs_between_two_drains_share_messages_and_rounds() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    let warm = pair.call(2, put("warm", "up"));
    pair.settle();
    pair.reply(warm).unwrap();
    let now = pair.now;
    for token in 0..256 {
        let operation = if token % 2 == 0 { get("a") } else { put("a", "1") };
        pair.coordinator(2)
            .handle(now, Input::Call { token, operation, deadline: None, trace: None })
            .unwrap();
    }
    pair.drain(2);
    assert_eq!(pair.in_flight.len(), 1);
    let message = pair.in_flight.pop_front().unwrap();
    pair.deliver(message);
    assert_eq!((pair.members[&1].rounds.len(), pair.members[&1].proposed.len()), (1, 128));
    let leader = pair.members.get_mut(&1).unwrap();
    let token = leader.rounds.pop().unwrap();
    leader.coordinator.handle(now, Input::ReadReady { token, index: 1 }).unwrap();
    for (token, payload) in std::mem::take(&mut pair.members.get_mut(&1).unwrap().proposed) {
        let outcome = pair.commit(payload);
        pair.coordinator(1).handle(now, Input::Outcome { token, index: 1, outcome }).unwrap();
    }
    pair.drain(1);
    assert_eq!(pair.in_flight.len(), 1);
    pair.settle();
    assert_eq!(pair.replies.len(), 256);
}

#[test]
fn a_message_is_closed_when_it_is_long_enough() {
    let mut pair = Pair::with(|options| CoordinatorOptions { batch_len: 1000, ..options });
    pair.elect(Some(1));
    let warm = pair.call(2, put("warm", "up"));
    pair.settle();
    pair.reply(warm).unwrap();
    let now = pair.now;
    for token in 0..10 {
        let value = Bytes::from(vec![0; if token == 5 { 1 << 20 } else { 300 }]);
        let operation = write(Mutation::Put { key: "k".into(), value });
        pair.coordinator(2)
            .handle(now, Input::Call { token, operation, deadline: None, trace: None })
            .unwrap();
    }
    pair.drain(2);
    let lens: Vec<usize> = pair.in_flight.iter().map(|(_, _, payload)| payload.len()).collect();
    assert!(lens.iter().filter(|len| **len > 1000).count() == 1 && lens.len() == 5, "{lens:?}");
    pair.settle();
    assert_eq!(pair.replies.len(), 10);
}

#[test]
fn a_write_whose_answer_is_lost_is_applied_once() {
    for lose in [1, 2, 3] {
        let mut pair = Pair::new();
        pair.elect(Some(1));
        let first = pair.call(CLIENT, step("", "1"));
        pair.settle();
        assert!(matches!(pair.reply(first), Ok(Outcome::CompareAndSwap(Swap::Swapped { .. }))));
        let second = pair.call(CLIENT, step("1", "2"));
        for attempt in 0..lose {
            // The answer of each attempt is lost: of the request, or of the response.
            while let Some(message) = pair.in_flight.pop_front() {
                pair.deliver(message);
                pair.decide();
                pair.in_flight.retain(|(_, to, _)| *to != node(CLIENT));
            }
            // The patience doubles with each.
            pair.advance(Duration::from_millis(1050 << attempt));
        }
        pair.settle();
        assert!(matches!(pair.reply(second), Ok(Outcome::CompareAndSwap(Swap::Swapped { .. }))));
        assert!(pair.log.len() > 3, "it was tried more than once");
    }
}

#[test]
fn a_new_leader_takes_over_what_the_old_one_left() {
    for from in [1, 2, CLIENT] {
        let mut pair = Pair::new();
        pair.elect(Some(1));
        let first = pair.call(from, step("", "1"));
        pair.settle();
        pair.reply(first).unwrap();
        let write = pair.call(from, step("1", "2"));
        let read = pair.call(from, get("counter"));
        while let Some(message) = pair.in_flight.pop_front() {
            pair.deliver(message);
        }
        // The leader's entry is committed, which only the next leader gets to know.
        let (_, payload) = pair.members[&1].proposed[0].clone();
        pair.commit(payload);
        pair.elect(Some(3));
        let round = pair.members.get_mut(&1).unwrap().rounds.pop();
        let reason = DropReason::NotLeader { leader: Some(node(3)) };
        if let Some(token) = round {
            pair.give(1, Input::Dropped { token, reason });
        }
        for _ in 0..4 {
            pair.settle();
            pair.advance(Duration::from_millis(100));
        }
        assert!(
            matches!(pair.reply(write), Ok(Outcome::CompareAndSwap(Swap::Swapped { .. }))),
            "from {from}"
        );
        assert!(is_value(&pair.reply(read), "2"), "from {from}");
    }
}

/// Without space a write ends at once, unambiguously, whether it needs a session first or has one.
#[test]
fn a_write_without_space_ends_at_once_and_did_nothing() {
    for from in [1, 2, CLIENT] {
        for has_session in [false, true] {
            let mut pair = Pair::new();
            pair.elect(Some(1));
            if has_session {
                let first = pair.call(from, step("", "1"));
                pair.settle();
                pair.reply(first).unwrap();
            }
            let writes = [pair.call(from, put("a", "1")), pair.call(from, put("b", "1"))];
            while let Some(message) = pair.in_flight.pop_front() {
                pair.deliver(message);
            }
            let proposed = std::mem::take(&mut pair.members.get_mut(&1).unwrap().proposed);
            assert!(!proposed.is_empty());
            for (token, _) in proposed {
                pair.give(1, Input::Dropped { token, reason: DropReason::NoSpace });
            }
            pair.settle();
            for write in writes {
                let refused = Err(OperationError::NoSpace { ambiguous: false });
                assert_eq!(pair.reply(write), refused, "from {from}");
            }
            // With space again, the next write takes the usual way.
            let next = pair.call(from, put("a", "2"));
            pair.settle();
            pair.reply(next).unwrap();
        }
    }
}

#[test]
fn waiting_operations_go_to_a_new_leader() {
    let mut pair = Pair::new();
    let calls = [pair.call(2, put("a", "1")), pair.call(2, get("a"))];
    pair.settle();
    assert!(pair.replies.is_empty() && pair.in_flight.is_empty());
    pair.elect(Some(1));
    pair.settle();
    assert!(calls.iter().all(|call| pair.reply(*call).is_ok()));
}

#[test]
fn a_time_out_says_whether_the_write_may_have_been_applied() {
    let limit = Duration::from_secs(11);
    let mut pair = Pair::new();
    // There is no leader: nothing was done.
    let calls = [pair.call(2, put("a", "1")), pair.call(2, get("a"))];
    pair.advance(limit);
    for (call, expected) in calls.into_iter().zip([
        OperationError::TimedOut { ambiguous: false },
        OperationError::Unavailable { reason: "no leader is known" },
    ]) {
        assert_eq!(pair.reply(call), Err(expected));
    }
    // The leader is silent: a read does nothing, a write may have.
    pair.elect(Some(1));
    for from in [1, 2] {
        let warm = pair.call(from, put("a", "1"));
        pair.settle();
        pair.reply(warm).unwrap();
        let calls = [pair.call(from, put("a", "1")), pair.call(from, get("a"))];
        pair.advance(limit);
        assert_eq!(pair.reply(calls[0]), Err(OperationError::TimedOut { ambiguous: true }));
        assert_eq!(pair.reply(calls[1]), Err(OperationError::TimedOut { ambiguous: false }));
        assert_eq!(pair.coordinator(from).calls(), 0);
    }
    // The leader refused it each time: nothing was done.
    pair.settle();
    pair.leader = None;
    let refused = pair.call(2, put("a", "1"));
    for number in [1, 3] {
        pair.tell_leader(number);
    }
    for _ in 0..200 {
        pair.settle();
        pair.advance(Duration::from_millis(100));
    }
    assert_eq!(pair.reply(refused), Err(OperationError::TimedOut { ambiguous: false }));
}

#[test]
fn a_deadline_of_its_own_counts() {
    let mut pair = Pair::new();
    let deadline = Some(Duration::from_millis(30));
    pair.give(2, Input::Call { token: 1, operation: get("a"), deadline, trace: None });
    assert_eq!(pair.coordinator(2).poll_timeout(), deadline);
    pair.advance(Duration::from_millis(29));
    assert!(pair.replies.is_empty());
    pair.advance(Duration::from_millis(1));
    assert!(pair.reply(1).is_err());
}

#[test]
fn calls_and_requests_are_bounded_apart() {
    let mut pair = Pair::with(|options| CoordinatorOptions {
        calls_max: 3,
        requests_max: 6,
        requests_per_peer_max: 4,
        ..options
    });
    pair.elect(Some(1));
    // Nothing is decided: all operations stay.
    let calls: Vec<u64> = (0..4).map(|_| pair.call(1, get("a"))).collect();
    assert_eq!(pair.reply(calls[3]), Err(OperationError::Overloaded));
    let mut message = bytes::BytesMut::new();
    for number in 0..5 {
        let body = protocol::Body::Read { operation: get("a").encode() };
        protocol::put(&mut message, HEADER, number, &body);
    }
    let payload = message.freeze();
    for (from, taken) in [(2, 4), (3, 6), (CLIENT, 6)] {
        pair.give(1, Input::Message { from: node(from), payload: payload.clone() });
        assert_eq!(pair.coordinator(1).requests(), taken);
    }
    assert_eq!(pair.coordinator(1).calls(), 3);
    // Each of the others was answered that the node is busy.
    let busy = |pair: &Pair, to: u64| {
        let message = pair.in_flight.iter().filter(|(_, receiver, _)| *receiver == node(to));
        message
            .flat_map(|(_, _, payload)| {
                protocol::Frames::new(payload).unwrap().1.map(Result::unwrap).collect::<Vec<_>>()
            })
            .filter(|frame| frame.body == protocol::Body::Busy)
            .count()
    };
    assert_eq!((busy(&pair, 2), busy(&pair, 3), busy(&pair, CLIENT)), (1, 3, 5));
    pair.settle();
    assert_eq!((pair.coordinator(1).requests(), pair.coordinator(1).calls()), (0, 0));
}

/// Limits change while requests wait: a lower one ends none of them and refuses the next, a higher one admits
/// again.
#[test]
fn request_limits_change_while_the_coordinator_runs() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    let ask = |pair: &mut Pair, from: u64, count: u64| {
        let mut message = bytes::BytesMut::new();
        for number in 0..count {
            let body = protocol::Body::Read { operation: get("a").encode() };
            protocol::put(&mut message, HEADER, number, &body);
        }
        pair.give(1, Input::Message { from: node(from), payload: message.freeze() });
        pair.coordinator(1).requests()
    };
    assert_eq!(ask(&mut pair, 2, 6), 6);
    pair.give(1, Input::Limits(RequestLimits::new(8, 4).unwrap()));
    assert_eq!(pair.coordinator(1).request_limits(), (8, 4));
    assert_eq!(pair.coordinator(1).requests(), 6, "none is ended");
    assert_eq!(ask(&mut pair, 2, 1), 6, "more than its share");
    assert_eq!(ask(&mut pair, 3, 3), 8, "two of three: the others have the rest");
    pair.give(1, Input::Limits(RequestLimits::new(12, 12).unwrap()));
    assert_eq!(ask(&mut pair, 3, 3), 11);
    assert_eq!(ask(&mut pair, 2, 3), 12);
    let refused = |all, of_peer| RequestLimits::new(all, of_peer).unwrap_err().to_string();
    assert!(refused(0, 1).contains("`requests_max` is 0"));
    assert!(refused(1, 0).contains("`requests_per_peer_max` is 0"));
    assert!(refused(2, 3).contains("cannot have more than all"));
    assert!(refused(REQUESTS_MAX + 1, 3).contains("set it lower"));
    assert!(RequestLimits::new(REQUESTS_MAX, REQUESTS_MAX).is_ok());
}

#[test]
fn messages_refused_for_want_of_room_are_sent_again() {
    let mut pair =
        Pair::with(|options| CoordinatorOptions { requests_max: 1, requests_per_peer_max: 1, ..options });
    pair.elect(Some(1));
    let calls: Vec<u64> = (0..8).map(|_| pair.call(2, put("a", "1"))).collect();
    for _ in 0..100 {
        pair.settle();
        pair.advance(Duration::from_millis(50));
    }
    assert!(calls.iter().all(|call| pair.reply(*call).is_ok()));
}

fn forget_all_sessions(pair: &mut Pair) {
    for _ in 0..=SESSIONS_MAX {
        pair.commit(Command::OpenSession.encode());
    }
}

#[test]
fn a_forgotten_session_is_opened_anew_unless_the_write_was_tried_before() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    let first = pair.call(2, step("", "1"));
    pair.settle();
    pair.reply(first).unwrap();
    forget_all_sessions(&mut pair);
    let again = pair.call(2, step("1", "2"));
    pair.settle();
    assert!(matches!(pair.reply(again), Ok(Outcome::CompareAndSwap(Swap::Swapped { .. }))));

    // Tried before, with an unknown result.
    let lost = pair.call(2, step("2", "3"));
    let message = pair.in_flight.pop_front().unwrap();
    pair.deliver(message);
    pair.decide();
    pair.in_flight.clear();
    forget_all_sessions(&mut pair);
    pair.advance(Duration::from_millis(1500));
    pair.settle();
    assert_eq!(pair.reply(lost), Err(OperationError::SessionExpired));
    let after = pair.call(2, get("counter"));
    pair.settle();
    assert!(is_value(&pair.reply(after), "3"));
}

#[test]
fn a_call_that_is_cancelled_gets_no_answer_and_leaves_nothing() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    for from in [1, 2, CLIENT] {
        let calls = [pair.call(from, put("a", "1")), pair.call(from, get("a"))];
        for token in calls {
            pair.give(from, Input::Cancel { token });
        }
        pair.settle();
        assert_eq!(pair.coordinator(from).calls(), 0);
        assert!(pair.replies.is_empty());
        // The next write finds the window in order.
        let next = pair.call(from, put("a", "2"));
        pair.settle();
        pair.reply(next).unwrap();
    }
}

#[test]
fn a_session_that_nobody_needs_is_not_asked_for_again() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    let token = pair.call(2, put("a", "1"));
    pair.in_flight.clear();
    pair.give(2, Input::Cancel { token });
    pair.advance(Duration::from_secs(2));
    assert!(pair.in_flight.is_empty());
    assert_eq!(pair.coordinator(2).poll_timeout(), None);
    let next = pair.call(2, put("a", "1"));
    pair.settle();
    pair.reply(next).unwrap();
}

#[test]
fn a_client_follows_hints_and_turns_from_who_cannot_be_reached() {
    let mut pair = Pair::new();
    for leader in [1, 2, 3] {
        pair.elect(Some(leader));
        let call = pair.call(CLIENT, put("a", "1"));
        for _ in 0..3 {
            pair.settle();
            pair.advance(Duration::from_millis(20));
        }
        pair.reply(call).unwrap();
        assert_eq!(pair.coordinator(CLIENT).leader(), Some(node(leader)));
    }
    // The leader dies: the client asks the others until one leads.
    let call = pair.call(CLIENT, get("a"));
    pair.in_flight.clear();
    pair.give(CLIENT, Input::Unreachable { peer: node(3) });
    pair.elect(Some(1));
    for _ in 0..100 {
        pair.in_flight.retain(|(_, to, _)| *to != node(3));
        pair.settle();
        pair.advance(Duration::from_millis(50));
    }
    assert!(is_value(&pair.reply(call), "1"));
}

/// A leader that is connected and does not answer: its callers see it.
#[test]
fn attempts_without_an_answer_are_counted_by_node() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    pair.give(CLIENT, Input::Reachable { peer: node(1) });
    let call = pair.call(2, get("a"));
    assert!(pair.coordinator(2).unanswered().is_empty());
    pair.in_flight.clear();
    pair.advance(Duration::from_millis(1001));
    assert_eq!(pair.coordinator(2).unanswered(), &BTreeMap::from([(node(1), 1)]));
    pair.settle();
    pair.reply(call).unwrap();
    assert_eq!(pair.coordinator(2).unanswered(), &BTreeMap::from([(node(1), 1)]), "an answer counts nothing");
    // Of hints of any node a bounded number is kept.
    for number in 0..1000 {
        pair.members.get_mut(&2).unwrap().coordinator.note_unanswered(node(10 + number));
        pair.members.get_mut(&2).unwrap().coordinator.note_unanswered(node(1));
    }
    assert_eq!(pair.coordinator(2).unanswered().len(), UNANSWERED_MAX);
    assert_eq!(pair.coordinator(2).unanswered()[&node(1)], 1001);
}

#[test]
fn responses_count_once_and_only_from_whom_was_asked() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    let first = pair.call(2, put("a", "1"));
    pair.settle();
    pair.reply(first).unwrap();
    let second = pair.call(2, put("a", "2"));
    while let Some(message) = pair.in_flight.pop_front().filter(|(_, to, _)| *to == node(1)) {
        pair.deliver(message);
    }
    pair.decide();
    let (_, to, payload) = pair.in_flight.pop_front().unwrap();
    assert_eq!(to, node(2));
    pair.give(2, Input::Message { from: node(3), payload: payload.clone() });
    assert!(pair.replies.is_empty(), "it was not asked");
    pair.give(2, Input::Message { from: node(1), payload: payload.clone() });
    pair.reply(second).unwrap();
    let third = pair.call(2, put("a", "3"));
    pair.give(2, Input::Message { from: node(1), payload });
    assert!(pair.replies.is_empty(), "{third} shares the place of the one before");
}

#[test]
fn bytes_that_are_no_message_are_refused_behind_what_was_one() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    let mut message = bytes::BytesMut::new();
    let body = protocol::Body::Read { operation: get("a").encode() };
    protocol::put(&mut message, HEADER, 1, &body);
    message.extend_from_slice(&[0xff, 1]);
    let (now, payload) = (pair.now, message.freeze());
    let handled = pair.coordinator(1).handle(now, Input::Message { from: node(2), payload });
    assert!(matches!(handled, Err(HandleError::Decode { from, .. }) if from == node(2)));
    assert_eq!(pair.coordinator(1).requests(), 1);
    // Bytes that are no operation, and an answer without a request.
    let mut message = bytes::BytesMut::new();
    protocol::put(&mut message, HEADER, 2, &protocol::Body::Read { operation: "no".into() });
    protocol::put(&mut message, HEADER, 3, &protocol::Body::Propose { command: Bytes::new() });
    protocol::put(&mut message, HEADER, u64::MAX, &protocol::Body::Answer { applied: Bytes::new() });
    pair.give(1, Input::Message { from: node(2), payload: message.freeze() });
    let (_, _, payload) = pair.in_flight.pop_back().unwrap();
    let bodies: Vec<_> =
        protocol::Frames::new(&payload).unwrap().1.map(|frame| frame.unwrap().body).collect();
    assert_eq!(bodies, [protocol::Body::Rejected, protocol::Body::Rejected]);
}

#[test]
fn the_window_of_a_session_holds_writes_back() {
    let max = usize::try_from(crate::request::limits::SESSION_WINDOW_MAX).unwrap();
    let mut pair = Pair::with(|options| CoordinatorOptions { calls_max: 2 * max, ..options });
    pair.elect(Some(1));
    let warm = pair.call(1, put("a", "1"));
    pair.settle();
    pair.reply(warm).unwrap();
    for _ in 0..max + 5 {
        pair.call(1, put("a", "1"));
    }
    assert_eq!(pair.members[&1].proposed.len(), max);
    // The oldest stays while the others are answered: nothing further may be begun.
    let oldest = pair.members.get_mut(&1).unwrap().proposed.remove(0);
    pair.decide();
    assert!(pair.members[&1].proposed.is_empty());
    assert_eq!(pair.replies.len(), max - 1);
    pair.members.get_mut(&1).unwrap().proposed.push(oldest);
    pair.settle();
    assert_eq!(pair.replies.len(), max + 5);
    assert!(pair.replies.iter().all(|(_, _, result)| result.is_ok()));
}

/// Seeded: messages lost and late, leaders that come and go, proposals that are lost with them. Each call
/// gets one answer, and each write is applied at most once.
#[test]
fn chaos() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut pair =
            Pair::with(|options| CoordinatorOptions { calls_max: 12, requests_per_peer_max: 8, ..options });
        let mut asked = 0;
        for _ in 0..400 {
            match random.below(12) {
                0 => {
                    let leader = random.below(4);
                    let old = pair.leader;
                    pair.elect((leader > 0).then_some(leader));
                    if let Some(old) = old.filter(|old| *old != leader) {
                        let member = pair.members.get_mut(&old).unwrap();
                        let (proposed, rounds) =
                            (std::mem::take(&mut member.proposed), std::mem::take(&mut member.rounds));
                        let reason = DropReason::NotLeader { leader: None };
                        for token in rounds {
                            pair.give(old, Input::Dropped { token, reason });
                        }
                        for (token, payload) in proposed {
                            match random.below(4) {
                                0 => {
                                    let outcome = pair.commit(payload);
                                    let index = pair.log.len() as u64;
                                    pair.give(old, Input::Outcome { token, index, outcome });
                                }
                                1 => {
                                    pair.commit(payload);
                                    pair.give(old, Input::Dropped { token, reason: DropReason::Unknown });
                                }
                                2 => pair.give(old, Input::Dropped { token, reason: DropReason::Superseded }),
                                _ => pair.give(old, Input::Dropped { token, reason }),
                            }
                        }
                    }
                }
                1..=3 => {
                    let from = [1, 2, 3, CLIENT][usize::try_from(random.below(4)).unwrap()];
                    asked += 1;
                    let value = Bytes::from(asked.to_string());
                    let put = write(Mutation::Put { key: value.clone(), value });
                    pair.call(from, if random.below(2) == 0 { get("1") } else { put });
                }
                4 => drop(pair.in_flight.pop_front()),
                5 => {
                    let peer = node(random.below(3) + 1);
                    let from = [1, 2, 3, CLIENT][usize::try_from(random.below(4)).unwrap()];
                    if peer != node(from) {
                        pair.give(from, Input::Unreachable { peer });
                    }
                }
                6 => pair.advance(Duration::from_millis(random.below(700))),
                7..=9 => {
                    if let Some(message) = pair.in_flight.pop_front() {
                        pair.deliver(message);
                    }
                }
                _ => pair.decide(),
            }
        }
        pair.elect(Some(1));
        for _ in 0..60 {
            pair.settle();
            pair.advance(Duration::from_millis(250));
        }
        assert_eq!(pair.replies.len(), asked, "seed {seed}");
        for number in [1, 2, 3, CLIENT] {
            let coordinator = pair.coordinator(number);
            assert_eq!((coordinator.calls(), coordinator.poll_timeout()), (0, None), "seed {seed}");
        }
        // Applied more than once, a key's value would be older than another write of the same key; each key
        // is written by one call, so its stamp may take effect only once: count by outcome.
        let mut state = State::in_memory();
        let mut effective: BTreeMap<Bytes, u32> = BTreeMap::new();
        for (index, payload) in (1..).zip(&pair.log) {
            let before = state.reader().range(&KeyspaceName::DEFAULT, &crate::RangeQuery::all()).unwrap();
            state.apply([(index, Some(payload))], &mut Vec::new()).unwrap();
            let after = state.reader().range(&KeyspaceName::DEFAULT, &crate::RangeQuery::all()).unwrap();
            if before != after
                && let Ok(Command::Write { mutation: Mutation::Put { key, .. }, .. }) =
                    Command::decode(payload)
            {
                *effective.entry(key).or_default() += 1;
            }
        }
        assert!(effective.values().all(|count| *count == 1), "seed {seed}: {effective:?}");
        for (_, _, result) in &pair.replies {
            if let Err(error) = result {
                assert!(
                    matches!(
                        error,
                        OperationError::TimedOut { .. }
                            | OperationError::Unavailable { .. }
                            | OperationError::Overloaded
                    ),
                    "seed {seed}: {error}"
                );
            }
        }
    }
}

#[test]
fn an_answer_to_the_node_before_its_restart_is_not_taken() {
    let mut pair = Pair::new();
    pair.elect(Some(1));
    let lost = pair.call(2, get("a"));
    let message = pair.in_flight.pop_front().unwrap();
    pair.deliver(message);
    // The node starts again. Its first request has the number that the lost one had.
    pair.members.get_mut(&2).unwrap().coordinator = Coordinator::new(CoordinatorOptions::member(node(2)), 22);
    pair.tell_leader(2);
    let write = pair.call(1, put("a", "1"));
    let token = pair.members.get_mut(&1).unwrap().rounds.pop().unwrap();
    pair.give(1, Input::ReadReady { token, index: 1 });
    let late = pair.in_flight.pop_front().unwrap();
    pair.settle();
    pair.reply(write).unwrap();
    let read = pair.call(2, get("a"));
    pair.deliver(late);
    assert!(pair.replies.is_empty());
    pair.settle();
    assert!(is_value(&pair.reply(read), "1"));
    assert!(pair.replies.is_empty(), "{lost}");
}
