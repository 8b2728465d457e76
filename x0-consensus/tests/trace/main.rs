//! Traces of a group: the spans that a traced command makes on its leader and its followers, the contexts in
//! the messages, and that a command without a trace leaves nothing of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; its numbers are small"
)]

mod spans;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use spans::{Seen, Spans};
use x0_consensus::driver::{ApplyWorker, Effect, Executor, LogWorker};
use x0_consensus::trace::{Context, Tracing};
use x0_consensus::{
    Bytes, Entry, Event, Input, MemoryStorage, NodeId, Options, SnapshotMeta, StateMachine,
    StateMachineError, Storage as _,
};

/// The version byte of a message with contexts.
const WITH_CONTEXTS: u8 = 3;

#[derive(Debug, Default)]
struct Log(Vec<Entry>);

impl StateMachine for Log {
    fn durable_index(&self) -> u64 {
        0
    }

    fn apply(&mut self, entries: &[Entry], outcomes: &mut Vec<Bytes>) -> Result<(), StateMachineError> {
        self.0.extend_from_slice(entries);
        outcomes.extend(entries.iter().filter(|entry| entry.is_command()).map(|entry| entry.payload.clone()));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn std::io::Read + Send>, StateMachineError> {
        Ok(Box::new(std::io::empty()))
    }

    fn restore(&mut self, _: &SnapshotMeta, _: &mut dyn std::io::Read) -> Result<(), StateMachineError> {
        Ok(())
    }
}

struct Member {
    executor: Executor,
    log: LogWorker<MemoryStorage>,
    apply: ApplyWorker<Log>,
}

/// Three members in one thread. Messages are delivered in their order, and kept.
struct Group {
    members: Vec<Member>,
    now: Duration,
    in_flight: VecDeque<(usize, usize, Bytes)>,
    sent: Vec<(usize, usize, Bytes)>,
    outcomes: Vec<u64>,
}

fn id(place: usize) -> NodeId {
    NodeId::new(place as u64 + 1).unwrap()
}

impl Group {
    /// A group that has elected its first member. `versions` are those that each member has agreed on with
    /// the others.
    fn new(tracing: &Tracing, versions: [u16; 3]) -> Group {
        let member = |place| {
            let mut storage = MemoryStorage::new();
            let options = Options::new(id(place)).bootstrap([0, 1, 2].map(id)).tracing(tracing.clone());
            let machine = Log::default();
            let executor = Executor::open(options, &mut storage, &machine, Duration::ZERO).unwrap();
            Member { executor, log: LogWorker::new(storage), apply: ApplyWorker::new(machine) }
        };
        let mut group = Group {
            members: (0..3).map(member).collect(),
            now: Duration::ZERO,
            in_flight: VecDeque::new(),
            sent: Vec::new(),
            outcomes: Vec::new(),
        };
        for place in 0..3 {
            for other in (0..3).filter(|other| *other != place) {
                let version = versions[place].min(versions[other]);
                group.give(place, Input::Negotiated { peer: id(other), version });
            }
        }
        // Only the first one gets the time, so that it campaigns.
        while !group.members[0].executor.replica().is_leader() {
            group.now = group.members[0].executor.poll_timeout().unwrap();
            group.give(0, Input::Timeout);
            group.settle();
        }
        group.beat();
        group.sent.clear();
        group
    }

    fn give(&mut self, place: usize, input: Input) {
        self.members[place].executor.handle(self.now, input).unwrap();
    }

    /// Lets some heartbeats pass, with which followers learn what is committed.
    fn beat(&mut self) {
        for _ in 0..4 {
            self.now = self.members[0].executor.poll_timeout().unwrap();
            self.give(0, Input::Timeout);
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            let mut is_busy = false;
            for place in 0..3 {
                is_busy |= self.work(place);
            }
            if let Some((from, to, payload)) = self.in_flight.pop_front() {
                is_busy = true;
                self.give(to, Input::Message { from: id(from), payload });
            }
            if !is_busy {
                return;
            }
        }
    }

    fn work(&mut self, place: usize) -> bool {
        let Group { members, now, in_flight, sent, outcomes } = self;
        let Member { executor, log, apply } = &mut members[place];
        let mut is_busy = false;
        while let Some(effect) = executor.poll_output() {
            is_busy = true;
            match effect {
                Effect::Send { to, payload, .. } => {
                    let message = (place, to.get() as usize - 1, Bytes::from(payload));
                    sent.push(message.clone());
                    in_flight.push_back(message);
                }
                Effect::Event(Event::Outcome { token, .. }) => outcomes.push(token),
                Effect::Event(Event::Failed(cause)) => panic!("{cause}"),
                _ => {}
            }
        }
        while let Some(done) = log.work(executor.log_jobs()) {
            is_busy = true;
            executor.complete(*now, done);
        }
        while let Some(job) = executor.apply_jobs().pop_front() {
            is_busy = true;
            executor.complete(*now, apply.work(job));
        }
        is_busy
    }

    fn propose(&mut self, token: u64, trace: Option<Context>) {
        let payload = Bytes::from(token.to_string());
        self.give(0, Input::Propose { token, payload, trace });
    }

    /// How many messages with contexts were sent to each member.
    fn with_contexts(&self) -> [usize; 3] {
        let to = |place| {
            let messages = self.sent.iter().filter(|(_, to, _)| *to == place);
            messages.filter(|(_, _, payload)| payload[0] == WITH_CONTEXTS).count()
        };
        [0, 1, 2].map(to)
    }

    fn entries(&mut self, place: usize) -> Vec<Entry> {
        let last = self.members[place].executor.replica().status().last_index;
        self.members[place].log.storage_mut().read(1..last + 1, usize::MAX).unwrap()
    }
}

fn context(number: u64) -> Option<Context> {
    Context::new([7; 16], number.to_be_bytes(), Context::SAMPLED)
}

/// The spans without those of elections.
fn paths(spans: &Spans) -> Vec<String> {
    spans.paths().into_iter().filter(|path| !path.starts_with("consensus.election")).collect()
}

#[test]
fn an_election_is_one_tree_over_the_members() {
    let spans = Spans::default();
    let _guard = spans.record();
    let group = Group::new(&Tracing::new(Arc::new(spans.clone())), [2, 2, 2]);
    let mut paths = spans.paths();
    paths.sort();
    let part = |name: &str| [format!("consensus.election/{name}"), format!("consensus.election/{name}")];
    let each = |name: &str| [&part(name)[..], &part(name)[..1]].concat();
    // The part of the winner, those of the others, and on each the entry that begins the term.
    let mut expected = vec!["consensus.election".to_owned()];
    expected.extend(each("consensus.append"));
    expected.extend(each("consensus.append/log.write"));
    expected.extend(each("consensus.apply"));
    expected.extend(part("consensus.election"));
    assert_eq!(paths, expected);
    drop(group);

    // A member that reads no contexts has a part of its own, and the others theirs in the tree.
    let spans = Spans::default();
    let _guard = spans.record();
    let _group = Group::new(&Tracing::new(Arc::new(spans.clone())), [2, 1, 2]);
    let count = |path: &str| spans.paths().iter().filter(|other| *other == path).count();
    assert_eq!((count("consensus.election"), count("consensus.election/consensus.election")), (2, 1));
}

#[test]
fn a_traced_command_is_one_tree_over_the_members() {
    let spans = Spans::default();
    let _guard = spans.record();
    let mut group = Group::new(&Tracing::new(Arc::new(spans.clone())), [2, 2, 2]);
    // The span of the request is in another process: the number is that of no span here.
    group.propose(1, context(1000));
    group.settle();
    group.beat();
    assert_eq!(group.outcomes, [1]);
    assert_eq!(group.with_contexts(), [0, 1, 1]);
    let expected = [
        "/consensus.propose",
        "/consensus.propose/consensus.append",
        "/consensus.propose/consensus.append",
        "/consensus.propose/consensus.append/log.write",
        "/consensus.propose/consensus.append/log.write",
        "/consensus.propose/consensus.apply",
        "/consensus.propose/consensus.apply",
        "/consensus.propose/consensus.apply",
        "/consensus.propose/consensus.commit",
        "/consensus.propose/log.write",
    ];
    assert_eq!(paths(&spans), expected);
    assert!(spans.all().iter().all(|span| span.is_closed), "{:?}", spans.all());
}

/// The span of a batch is linked to each traced command of the batch.
#[test]
fn a_write_of_the_log_is_linked_to_each_command() {
    let spans = Spans::default();
    let _guard = spans.record();
    let mut group = Group::new(&Tracing::new(Arc::new(spans.clone())), [2, 2, 2]);
    for token in 1..=5 {
        group.propose(token, context(1000 + token).filter(|_| token % 2 == 1));
    }
    group.settle();
    group.beat();
    assert_eq!(group.outcomes.len(), 5);
    let all = spans.all();
    let proposals: Vec<u64> = (1..)
        .zip(&all)
        .filter(|(_, span)| span.name == "consensus.propose")
        .map(|(number, _)| number)
        .collect();
    assert_eq!(proposals.len(), 3);
    let is_of_commands = |span: &&Seen| !spans.path(span).starts_with("consensus.election");
    let writes: Vec<_> = all.iter().filter(|span| span.name == "log.write").filter(is_of_commands).collect();
    assert_eq!(writes.len(), 3, "one for each member");
    let own = writes.iter().find(|write| write.parent == proposals[0]).unwrap();
    assert_eq!(own.links, proposals);
    assert!(writes.iter().all(|write| write.links.len() == 3));
    assert!(all.iter().all(|span| span.is_closed));
}

/// An untraced command makes no span, and all messages are byte for byte those of a group without traces. So
/// are the logs, of a traced command as well.
#[test]
fn an_untraced_command_leaves_no_trace() {
    let spans = Spans::default();
    let _guard = spans.record();
    let mut traced = Group::new(&Tracing::new(Arc::new(spans.clone())), [2, 2, 2]);
    let mut plain = Group::new(&Tracing::default(), [1, 1, 1]);
    for group in [&mut traced, &mut plain] {
        group.propose(1, None);
        group.settle();
        group.beat();
    }
    assert_eq!(traced.sent, plain.sent);
    assert_eq!(paths(&spans), [""; 0]);
    for (group, trace) in [(&mut traced, context(1000)), (&mut plain, None)] {
        group.propose(2, trace);
        group.settle();
        group.beat();
    }
    assert_ne!(traced.sent, plain.sent);
    for place in 0..3 {
        assert_eq!(traced.entries(place), plain.entries(place));
    }
}

/// A member of the version before understands everything, as a follower and as a leader.
#[test]
fn a_member_of_the_first_version_gets_no_contexts() {
    for (versions, expected) in [([2, 1, 2], [0, 0, 1]), ([1, 2, 2], [0, 0, 0])] {
        let spans = Spans::default();
        let _guard = spans.record();
        let mut group = Group::new(&Tracing::new(Arc::new(spans.clone())), versions);
        group.propose(1, context(1000));
        group.settle();
        group.beat();
        assert_eq!((group.outcomes.clone(), group.with_contexts()), (vec![1], expected));
        let appends = paths(&spans).iter().filter(|path| path.ends_with("consensus.append")).count();
        assert_eq!(appends, expected.iter().sum::<usize>());
    }
}

/// Without a tracing library a context is passed on with the entries.
#[test]
fn a_context_is_passed_on_without_spans() {
    let mut group = Group::new(&Tracing::default(), [2, 2, 2]);
    group.propose(1, context(1000));
    group.settle();
    assert_eq!(group.with_contexts(), [0, 1, 1]);
}

/// The new leader is known: the span of the election ends on each member.
#[test]
fn an_election_is_a_span() {
    let spans = Spans::default();
    let _guard = spans.record();
    let mut group = Group::new(&Tracing::new(Arc::new(spans.clone())), [2, 2, 2]);
    group.settle();
    let elections: Vec<_> =
        spans.all().into_iter().filter(|span| span.name == "consensus.election").collect();
    assert_eq!(elections.iter().filter(|span| span.is_closed).count(), 3, "{elections:?}");
}

/// A proposal that is dropped ends its span.
#[test]
fn a_refused_command_ends_its_span() {
    let spans = Spans::default();
    let _guard = spans.record();
    let mut group = Group::new(&Tracing::new(Arc::new(spans.clone())), [2, 2, 2]);
    group.give(1, Input::Propose { token: 9, payload: Bytes::from_static(b"x"), trace: context(1000) });
    group.settle();
    assert_eq!(paths(&spans), ["/consensus.propose"]);
    assert!(spans.all().iter().all(|span| span.is_closed));
}
