//! The state machine against a model: a sorted map for each keyspace and, per session, a map of outcomes.
//!
//! Every run drives the memory engine and the redb engine side by side through the same log, with snapshots,
//! restores, checkpoints and reopenings at random points, and holds them to the same outcomes and the same
//! snapshot bytes.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::*;
use x0_identity::NodeId;
use x0_kv::{
    Action, ActionResult, Applied, Bytes, Command, Condition, Expect, KeyValue, KeyspaceName, Member,
    MemberChange, Mutation, Outcome, RangeQuery, ReadError, Refusal, RequestId, Revision, State, Swap,
    Transaction, TransactionOutcome, Versioned, decode_applied,
};

/// One step of the test.
#[derive(Debug, Clone)]
enum Step {
    Write {
        session: Option<u8>,
        keyspace: u8,
        mutation: Mutation,
    },
    /// The write before, sent again: with the same request id.
    Retry,
    OpenSession,
    CloseSession(u8),
    Member(MemberChange),
    Nonsense(Vec<u8>),
    /// An entry of the log that is not for the store.
    Skip,
    /// Hold a snapshot while further steps run, and compare it with one taken and read at once.
    HoldSnapshot,
    Restore,
    Checkpoint,
    /// Forget everything not durable and replay the log.
    Crash,
    Range {
        keyspace: u8,
        start: u8,
        len: u8,
        limit: u32,
        reverse: bool,
    },
}

fn key() -> impl Strategy<Value = Bytes> {
    // Few keys, so that writes meet; some are prefixes of others.
    (0_u8..12, 0_usize..3).prop_map(|(byte, more)| Bytes::from(vec![byte; more + 1]))
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(0_u8..4, 0..6).prop_map(Bytes::from)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        value().prop_map(Expect::Value),
        (1_u64..40).prop_map(|index| Expect::Revision(Revision::new(index)))
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        key().prop_map(|key| Action::Get { key }),
        (key(), value()).prop_map(|(key, value)| Action::Put { key, value }),
        key().prop_map(|key| Action::Delete { key }),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Mutation::Put { key, value }),
        2 => key().prop_map(|key| Mutation::Delete { key }),
        2 => (key(), expect(), value())
            .prop_map(|(key, expect, value)| Mutation::CompareAndSwap { key, expect, value }),
        2 => (
            vec((key(), expect()).prop_map(|(key, expect)| Condition { key, expect }), 0..2),
            vec(action(), 0..5),
            vec(action(), 0..5),
        )
            .prop_map(|(conditions, actions, alternatives)| {
                Mutation::Transaction(Transaction { conditions, actions, alternatives })
            }),
    ]
}

fn member_change() -> impl Strategy<Value = MemberChange> {
    let node = || (1_u64..4).prop_map(|node| NodeId::new(node).unwrap());
    prop_oneof![
        (node(), vec("[ab]", 0..3)).prop_map(|(node, addresses)| MemberChange::Addresses { node, addresses }),
        node().prop_map(|node| MemberChange::Remove { node }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (proptest::option::of(0_u8..4), 0_u8..4, mutation())
            .prop_map(|(session, keyspace, mutation)| Step::Write { session, keyspace, mutation }),
        // Not the default keyspace, whose commands would be malformed.
        5 => (proptest::option::of(0_u8..4), 1_u8..4, any::<bool>()).prop_map(|(session, keyspace, creates)| {
            let mutation = if creates { Mutation::CreateKeyspace } else { Mutation::DropKeyspace };
            Step::Write { session, keyspace, mutation }
        }),
        4 => Just(Step::Retry),
        2 => Just(Step::OpenSession),
        1 => (0_u8..4).prop_map(Step::CloseSession),
        2 => member_change().prop_map(Step::Member),
        1 => vec(any::<u8>(), 0..8).prop_map(Step::Nonsense),
        1 => Just(Step::Skip),
        2 => Just(Step::HoldSnapshot),
        1 => Just(Step::Restore),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        5 => (0_u8..4, 0_u8..14, 0_u8..14, 1_u32..6, any::<bool>())
            .prop_map(|(keyspace, start, len, limit, reverse)| Step::Range { keyspace, start, len, limit, reverse }),
    ]
}

/// The default keyspace and three others, one name being a prefix of another.
fn name(keyspace: u8) -> KeyspaceName {
    match keyspace {
        0 => KeyspaceName::DEFAULT,
        1 => KeyspaceName::new("a").unwrap(),
        2 => KeyspaceName::new("a/b").unwrap(),
        _ => KeyspaceName::new("items").unwrap(),
    }
}

/// The expected state of the store.
struct Model {
    keyspaces: BTreeMap<KeyspaceName, BTreeMap<Bytes, Versioned>>,
    sessions: BTreeMap<u64, BTreeMap<u64, Applied>>,
    members: BTreeMap<NodeId, Member>,
}

impl Default for Model {
    fn default() -> Model {
        let keyspaces = BTreeMap::from([(KeyspaceName::DEFAULT, BTreeMap::new())]);
        Model { keyspaces, sessions: BTreeMap::new(), members: BTreeMap::new() }
    }
}

impl Model {
    fn apply(&mut self, index: u64, command: &Command) -> Applied {
        match command {
            Command::OpenSession => {
                self.sessions.insert(index, BTreeMap::new());
                Ok(Outcome::SessionOpened { session: index })
            }
            Command::KeepSession { session } => {
                self.sessions.get(session).map(|_| Outcome::SessionKept).ok_or(Refusal::SessionExpired)
            }
            Command::CloseSession { session } => {
                self.sessions.remove(session);
                Ok(Outcome::SessionKept)
            }
            Command::Member(MemberChange::Addresses { node, addresses }) => {
                self.members.entry(*node).or_default().addresses = addresses.clone();
                Ok(Outcome::MemberChanged)
            }
            Command::Member(change) => {
                let MemberChange::Remove { node } = change else { panic!("{change:?}") };
                self.members.remove(node);
                Ok(Outcome::MemberChanged)
            }
            Command::Write { request_id: None, keyspace, mutation } => self.mutate(index, keyspace, mutation),
            Command::Write { request_id: Some(request_id), keyspace, mutation } => {
                let Some(known) = self.sessions.get_mut(&request_id.session) else {
                    return Err(Refusal::SessionExpired);
                };
                if let Some(outcome) = known.get(&request_id.sequence) {
                    return outcome.clone();
                }
                let outcome = self.mutate(index, keyspace, mutation);
                self.sessions
                    .entry(request_id.session)
                    .or_default()
                    .insert(request_id.sequence, outcome.clone());
                outcome
            }
        }
    }

    fn mutate(&mut self, index: u64, keyspace: &KeyspaceName, mutation: &Mutation) -> Applied {
        match mutation {
            Mutation::CreateKeyspace => {
                let is_new = !self.keyspaces.contains_key(keyspace);
                self.keyspaces.entry(keyspace.clone()).or_default();
                Ok(Outcome::KeyspaceCreated { is_new })
            }
            Mutation::DropKeyspace => {
                Ok(Outcome::KeyspaceDropped { existed: self.keyspaces.remove(keyspace).is_some() })
            }
            _ => match self.keyspaces.get_mut(keyspace) {
                Some(entries) => Ok(mutate(entries, index, mutation)),
                None => Err(Refusal::KeyspaceMissing),
            },
        }
    }

    fn range(&self, keyspace: &KeyspaceName, range: &RangeQuery) -> Option<Vec<KeyValue>> {
        let entries = self.keyspaces.get(keyspace)?;
        let within = entries
            .iter()
            .filter(|(key, _)| **key >= range.start && range.end.as_ref().is_none_or(|end| *key < end));
        let mut entries: Vec<_> = within
            .map(|(key, at)| KeyValue { key: key.clone(), value: at.value.clone(), revision: at.revision })
            .collect();
        if range.reverse {
            entries.reverse();
        }
        Some(entries)
    }
}

fn holds(entries: &BTreeMap<Bytes, Versioned>, key: &Bytes, expect: &Expect) -> bool {
    let current = entries.get(key);
    match expect {
        Expect::Absent => current.is_none(),
        Expect::Value(value) => current.is_some_and(|current| current.value == value),
        Expect::Revision(revision) => current.is_some_and(|current| current.revision == *revision),
    }
}

fn mutate(entries: &mut BTreeMap<Bytes, Versioned>, index: u64, mutation: &Mutation) -> Outcome {
    let revision = Revision::new(index);
    let versioned = |value: &Bytes| Versioned { value: value.clone(), revision };
    match mutation {
        Mutation::Put { key, value } => {
            entries.insert(key.clone(), versioned(value));
            Outcome::Put { revision }
        }
        Mutation::Delete { key } => Outcome::Delete { existed: entries.remove(key).is_some() },
        Mutation::CompareAndSwap { key, expect, value } => {
            if holds(entries, key, expect) {
                entries.insert(key.clone(), versioned(value));
                Outcome::CompareAndSwap(Swap::Swapped { revision })
            } else {
                Outcome::CompareAndSwap(Swap::Kept { current: entries.get(key).cloned() })
            }
        }
        Mutation::Transaction(transaction) => {
            let held = transaction.conditions.iter().all(|it| holds(entries, &it.key, &it.expect));
            let branch = if held { &transaction.actions } else { &transaction.alternatives };
            let mut results = Vec::new();
            for action in branch {
                results.push(match action {
                    Action::Get { key } => ActionResult::Value(entries.get(key).cloned()),
                    Action::Put { key, value } => {
                        entries.insert(key.clone(), versioned(value));
                        ActionResult::Put
                    }
                    Action::Delete { key } => ActionResult::Delete { existed: entries.remove(key).is_some() },
                });
            }
            Outcome::Transaction(TransactionOutcome { held, revision, results })
        }
        Mutation::CreateKeyspace | Mutation::DropKeyspace => panic!("not of an existing keyspace"),
    }
}

fn bytes_of(state: &mut State) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.snapshot().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Reads a range page by page to its end. `None` if the keyspace does not exist.
fn pages(state: &State, keyspace: &KeyspaceName, range: &RangeQuery) -> Option<Vec<KeyValue>> {
    let mut entries = Vec::new();
    let mut next = Some(range.clone());
    while let Some(range) = next {
        let page = match state.reader().range(keyspace, &range) {
            Err(ReadError::KeyspaceMissing) => return None,
            page => page.unwrap(),
        };
        assert!(page.entries.len() <= range.limit as usize);
        entries.extend(page.entries);
        next = page.continuation.map(|continuation| range.resume(continuation));
    }
    Some(entries)
}

/// One engine under test and how to open it again.
struct Subject {
    name: &'static str,
    state: Option<State>,
    open: Box<dyn Fn() -> State>,
    held: Option<(Box<dyn Read + Send>, Vec<u8>)>,
}

impl Subject {
    fn state(&mut self) -> &mut State {
        self.state.as_mut().unwrap()
    }

    fn let_go(&mut self) {
        if let Some((mut snapshot, expected)) = self.held.take() {
            let mut bytes = Vec::new();
            snapshot.read_to_end(&mut bytes).unwrap();
            assert!(bytes == expected, "{}: a held snapshot changed", self.name);
        }
    }
}

fn check(steps: &[Step], mut subjects: Vec<Subject>) {
    let mut model = Model::default();
    let mut log: Vec<Option<Bytes>> = Vec::new();
    let mut opened: Vec<u64> = Vec::new();
    let mut sequence = 0;
    let mut last: Option<Command> = None;
    for step in steps {
        let mut entry = None;
        match step {
            Step::Write { session, keyspace, mutation } => {
                let request_id = session.and_then(|at| opened.get(usize::from(at))).map(|session| {
                    sequence += 1;
                    RequestId { session: *session, sequence, acknowledged_below: 1 }
                });
                let (keyspace, mutation) = (name(*keyspace), mutation.clone());
                entry = Some(Command::Write { request_id, keyspace, mutation });
                last = entry.clone();
            }
            Step::Retry => entry = last.clone(),
            Step::OpenSession => {
                opened.push(log.len() as u64 + 1);
                entry = Some(Command::OpenSession);
            }
            Step::CloseSession(at) => {
                entry =
                    opened.get(usize::from(*at)).map(|session| Command::CloseSession { session: *session });
            }
            Step::Member(change) => entry = Some(Command::Member(change.clone())),
            Step::Nonsense(bytes) => {
                let mut payload = vec![0xff];
                payload.extend_from_slice(bytes);
                apply(&mut subjects, &mut log, Some(payload.into()), Some(&Err(Refusal::Malformed)));
            }
            Step::Skip => apply(&mut subjects, &mut log, None, None),
            Step::HoldSnapshot => {
                for subject in &mut subjects {
                    subject.let_go();
                    let state = subject.state();
                    subject.held = Some((state.snapshot(), bytes_of(state)));
                }
            }
            Step::Restore => {
                for subject in &mut subjects {
                    let bytes = bytes_of(subject.state());
                    let applied = subject.state().applied();
                    // Over what is there, for a restore replaces everything.
                    let torn = subject.state().restore(Some(applied), &mut &bytes[..bytes.len() - 1]);
                    assert!(torn.is_err());
                    subject.state().restore(Some(applied), &mut &*bytes).unwrap();
                    assert!(bytes_of(subject.state()) == bytes);
                }
            }
            Step::Checkpoint => {
                for subject in &mut subjects {
                    subject.state().checkpoint().unwrap();
                }
            }
            Step::Crash => {
                for subject in &mut subjects {
                    let before = bytes_of(subject.state());
                    subject.let_go();
                    subject.state = None;
                    let mut state = (subject.open)();
                    assert_eq!(state.applied(), state.durable());
                    let from = state.applied();
                    let rest = log.iter().enumerate().map(|(at, payload)| (at as u64 + 1, payload.as_ref()));
                    state.apply(rest.skip(usize::try_from(from).unwrap()), &mut Vec::new()).unwrap();
                    assert!(bytes_of(&mut state) == before, "{}: the replay differs", subject.name);
                    subject.state = Some(state);
                }
            }
            Step::Range { keyspace, start, len, limit, reverse } => {
                let keyspace = name(*keyspace);
                let mut range = RangeQuery::between(vec![*start], vec![start + len]).limit(*limit);
                range.reverse = *reverse;
                for subject in &mut subjects {
                    let found = pages(subject.state(), &keyspace, &range);
                    assert_eq!(found, model.range(&keyspace, &range), "{}", subject.name);
                }
            }
        }
        if let Some(command) = entry {
            let expected = model.apply(log.len() as u64 + 1, &command);
            apply(&mut subjects, &mut log, Some(command.encode()), Some(&expected));
        }
    }
    let first = bytes_of(subjects[0].state());
    for subject in &mut subjects {
        for keyspace in (0..4).map(name) {
            let all = model.range(&keyspace, &RangeQuery::all());
            let found = pages(subject.state(), &keyspace, &RangeQuery::all().limit(3));
            assert_eq!(found, all, "{}", subject.name);
            for entry in all.unwrap_or_default() {
                let found = subject.state().reader().get(&keyspace, &entry.key).unwrap();
                assert_eq!(found, Some(Versioned { value: entry.value, revision: entry.revision }));
            }
        }
        let names = subject.state().reader().keyspaces();
        assert!(names.iter().eq(model.keyspaces.keys().filter(|name| !name.is_default())), "{names:?}");
        assert_eq!(subject.state().session_count(), model.sessions.len());
        let members = subject.state().reader().members();
        assert!(members.iter().eq(model.members.iter().map(|(node, member)| (*node, member))), "{members:?}");
        assert!(bytes_of(subject.state()) == first, "{}: another snapshot than memory's", subject.name);
        subject.let_go();
    }
}

fn apply(
    subjects: &mut [Subject],
    log: &mut Vec<Option<Bytes>>,
    payload: Option<Bytes>,
    expected: Option<&Applied>,
) {
    log.push(payload);
    let index = log.len() as u64;
    for subject in subjects {
        let mut outcomes = Vec::new();
        let payload = log.last().and_then(Option::as_ref);
        subject.state().apply([(index, payload)], &mut outcomes).unwrap();
        let outcomes: Vec<_> = outcomes.iter().map(|bytes| decode_applied(bytes).unwrap()).collect();
        assert_eq!(outcomes.first(), expected, "{} at {index}", subject.name);
        assert_eq!(subject.state().reader().applied(), index);
    }
}

fn memory() -> Subject {
    Subject { name: "memory", state: Some(State::in_memory()), open: Box::new(State::in_memory), held: None }
}

#[cfg(feature = "redb")]
fn redb(name: &'static str, folder: &std::path::Path, background: bool, overlay_len_max: usize) -> Subject {
    let path = folder.join(name);
    let open = move || {
        let mut options = x0_kv::RedbOptions::default();
        (options.cache_len, options.overlay_len_max, options.background) =
            (1 << 20, overlay_len_max, background);
        State::redb(&path, options).unwrap()
    };
    Subject { name, state: Some(open()), open: Box::new(open), held: None }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn memory_is_the_model(steps in vec(step(), 1..120)) {
        check(&steps, vec![memory()]);
    }
}

#[cfg(feature = "redb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn redb_is_the_model_and_equals_memory(steps in vec(step(), 1..120)) {
        let folder = tempfile::tempdir().unwrap();
        check(&steps, vec![
            memory(),
            redb("inline", folder.path(), false, 1 << 20),
            redb("background", folder.path(), true, 1 << 20),
            // So small that nearly every batch begins a checkpoint or waits for one.
            redb("tight", folder.path(), true, 2000),
        ]);
    }
}
