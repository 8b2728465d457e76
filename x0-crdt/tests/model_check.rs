//! Every run of small systems, not some: the retirement protocol and the session under stateright's model
//! checker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/subject.rs"]
mod subject;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use stateright::{Checker, Model, Property};
use subject::{Composed, Subject};
use x0_crdt::{CausalMap, CausalReplica, ReplicaId, Session, SessionInput, SessionOptions, SessionOutput};

/// An event, as the model knows it: who wrote it, whether it removed, and what it replaced.
type Event = (u8, bool, BTreeSet<usize>);

/// Replicas, and which of all events each has seen.
#[derive(Clone, Debug)]
struct Replicas<R> {
    maps: Vec<R>,
    seen: Vec<BTreeSet<usize>>,
    events: Vec<Event>,
}

impl<R: Subject> Replicas<R> {
    fn new(count: u64) -> Self {
        Self {
            maps: (1..=count).map(|node| R::create(ReplicaId::new(node))).collect(),
            seen: vec![BTreeSet::new(); usize::try_from(count).unwrap()],
            events: Vec::new(),
        }
    }

    /// The events that stand at the one key for who has seen `seen`.
    fn standing(&self, seen: &BTreeSet<usize>) -> BTreeSet<usize> {
        let replaced: BTreeSet<usize> =
            seen.iter().flat_map(|event| self.events[*event].2.iter().copied()).collect();
        seen.iter().copied().filter(|event| !self.events[*event].1 && !replaced.contains(event)).collect()
    }

    fn write(&mut self, at: usize, removes: bool) {
        let replaces = self.standing(&self.seen[at]);
        let number = self.events.len();
        if removes {
            assert!(self.maps[at].remove_key(b"key"));
        } else {
            self.maps[at].put_value(b"key", 0, &[u8::try_from(number).unwrap()]);
        }
        self.events.push((u8::try_from(at).unwrap(), removes, replaces));
        self.seen[at].insert(number);
    }

    /// Each replica holds the values of the model: nothing removed is back, nothing added is lost.
    fn holds_what_stands(&self) -> bool {
        self.maps.iter().zip(&self.seen).all(|(map, seen)| {
            let held: BTreeSet<usize> =
                map.values(b"key").iter().map(|value| usize::from(value[0])).collect();
            held == self.standing(seen)
        })
    }

    fn saved(&self) -> Vec<Vec<u8>> {
        self.maps.iter().map(R::saved).collect()
    }
}

/// Replicas that write, join each other's deltas, and collect tombstones at any time, rightly or not.
struct Retirement<R> {
    of: std::marker::PhantomData<R>,
    replicas: u64,
    events: usize,
}

#[derive(Clone, Debug)]
struct RetirementState<R>(Replicas<R>);

impl<R: Subject> PartialEq for RetirementState<R> {
    fn eq(&self, other: &Self) -> bool {
        (self.0.saved(), &self.0.seen, &self.0.events) == (other.0.saved(), &other.0.seen, &other.0.events)
    }
}

impl<R: Subject> Eq for RetirementState<R> {}

impl<R: Subject> Hash for RetirementState<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.saved(), &self.0.seen, &self.0.events).hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Put(usize),
    Remove(usize),
    /// From, to: from history if it reaches back, else all.
    Tell(usize, usize),
    /// All, though history may do.
    TellAll(usize, usize),
    /// As if the lease of all others were over.
    Forget(usize),
}

impl<R: Subject> Model for Retirement<R> {
    type State = RetirementState<R>;
    type Action = Step;

    fn init_states(&self) -> Vec<RetirementState<R>> {
        vec![RetirementState(Replicas::new(self.replicas))]
    }

    fn actions(&self, state: &RetirementState<R>, actions: &mut Vec<Step>) {
        let replicas = &state.0;
        for at in 0..replicas.maps.len() {
            if replicas.events.len() < self.events {
                actions.push(Step::Put(at));
                if replicas.maps[at].holds(b"key") {
                    actions.push(Step::Remove(at));
                }
            }
            if replicas.maps[at].remembered() > 0 {
                actions.push(Step::Forget(at));
            }
            for to in (0..replicas.maps.len()).filter(|to| *to != at) {
                actions.push(Step::Tell(at, to));
                actions.push(Step::TellAll(at, to));
            }
        }
    }

    fn next_state(&self, state: &RetirementState<R>, step: Step) -> Option<RetirementState<R>> {
        let mut replicas = state.0.clone();
        match step {
            Step::Put(at) => replicas.write(at, false),
            Step::Remove(at) => replicas.write(at, true),
            Step::Forget(at) => {
                let version = replicas.maps[at].version();
                replicas.maps[at].collect_tombstones(&version);
            }
            Step::Tell(from, to) | Step::TellAll(from, to) => {
                let sender = replicas.maps[from].clone();
                replicas.maps[to].take_from(&sender, matches!(step, Step::TellAll(..)));
                let seen = replicas.seen[from].clone();
                replicas.seen[to].extend(seen);
            }
        }
        Some(RetirementState(replicas))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("holds what stands", |_, state: &RetirementState<R>| {
                state.0.holds_what_stands()
            }),
            Property::always("equal versions are equal states", |_, state: &RetirementState<R>| {
                let maps = &state.0.maps;
                maps.iter().all(|a| {
                    maps.iter().all(|b| a.version() != b.version() || a.state_bytes() == b.state_bytes())
                })
            }),
            Property::sometimes("a removal is sent from history", |_, state: &RetirementState<R>| {
                state.0.maps.iter().filter(|map| !map.holds(b"key") && map.remembered() > 0).count() > 1
            }),
            Property::sometimes("siblings", |_, state: &RetirementState<R>| {
                state.0.maps.iter().any(|map| map.values(b"key").len() > 1)
            }),
        ]
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_back_whatever_each_replica_forgets() {
    check_retirement::<CausalMap>();
}

#[test]
fn nothing_of_a_composed_type_is_lost_or_comes_back_whatever_each_replica_forgets() {
    check_retirement::<CausalReplica<Composed>>();
}

fn check_retirement<R: Subject>() {
    let deep = std::env::var_os("X0_CRDT_SEEDS").is_some();
    for (replicas, events) in if deep { vec![(2, 5), (3, 3)] } else { vec![(2, 4), (3, 2)] } {
        let checker = Retirement::<R> { of: std::marker::PhantomData, replicas, events }
            .checker()
            .threads(2)
            .spawn_bfs()
            .join();
        checker.assert_properties();
        println!("{replicas} replicas, {events} events: {} states", checker.unique_state_count());
        assert!(checker.unique_state_count() > 500);
    }
}

/// Two replicas and their sessions; datagrams are delivered in any order, lost, or delivered and kept to come
/// again.
struct Sessions<R> {
    of: std::marker::PhantomData<R>,
    depth: usize,
}

#[derive(Debug)]
struct SessionsState<R> {
    /// The steps so far: a state is replayed from them, because sessions cannot be cloned.
    steps: Vec<Wire>,
    fingerprint: u64,
    replicas: Replicas<R>,
    wire: Vec<(usize, Vec<u8>)>,
    clean: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wire {
    Put(usize),
    Remove(usize),
    Forget(usize),
    Timeout(usize),
    Deliver(usize),
    Repeat(usize),
    Lose(usize),
}

impl<R: Subject> SessionsState<R> {
    fn play(steps: Vec<Wire>) -> Self {
        let options = SessionOptions::default().datagram_len_max(128);
        let mut replicas = Replicas::<R>::new(2);
        let mut sessions = [1, 2].map(|seed| Session::new(&options, seed));
        let mut wire: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut now = Duration::ZERO;
        let mut clean = true;
        for step in &steps {
            let mut touched = 0;
            let mut input = None;
            match *step {
                Wire::Put(at) => {
                    replicas.write(at, false);
                    touched = at;
                    clean &= sessions[at].handle(now, SessionInput::Changed, &mut replicas.maps[at]).is_ok();
                }
                Wire::Remove(at) => {
                    replicas.write(at, true);
                    touched = at;
                    clean &= sessions[at].handle(now, SessionInput::Changed, &mut replicas.maps[at]).is_ok();
                }
                Wire::Forget(at) => {
                    let version = replicas.maps[at].version();
                    replicas.maps[at].collect_tombstones(&version);
                }
                Wire::Timeout(at) => {
                    touched = at;
                    now = now.max(sessions[at].poll_timeout().unwrap_or(now));
                    clean &= sessions[at].handle(now, SessionInput::Timeout, &mut replicas.maps[at]).is_ok();
                }
                Wire::Deliver(which) => input = Some(wire.remove(which)),
                Wire::Repeat(which) => input = Some(wire[which].clone()),
                Wire::Lose(which) => {
                    wire.remove(which);
                }
            }
            if let Some((to, datagram)) = input {
                touched = to;
                let input = SessionInput::Datagram(&datagram);
                clean &= sessions[to].handle(now, input, &mut replicas.maps[to]).is_ok();
            }
            now += Duration::from_millis(1);
            while let Some(output) = sessions[touched].poll_output() {
                match output {
                    SessionOutput::Send(datagram) => wire.push((1 - touched, datagram)),
                    SessionOutput::Joined(_) | SessionOutput::Staged(_) => {}
                }
            }
            // Whole differences only: who has seen an event of a writer has seen those before it.
            for at in 0..2 {
                let seen: Vec<usize> = (0..replicas.events.len())
                    .filter(|event| replicas.maps[at].version().contains(replicas.dot(*event)))
                    .collect();
                replicas.seen[at].extend(seen);
            }
        }
        wire.sort();
        wire.dedup();
        let mut hasher = std::hash::DefaultHasher::new();
        (&wire, replicas.saved(), format!("{sessions:?}")).hash(&mut hasher);
        Self { fingerprint: hasher.finish(), steps, replicas, wire, clean }
    }
}

impl<R: Subject> Replicas<R> {
    /// The dot of an event: the how-manieth of its writer.
    fn dot(&self, event: usize) -> x0_crdt::Dot {
        let writer = self.events[event].0;
        let before = self.events[..=event].iter().filter(|other| other.0 == writer).count();
        x0_crdt::Dot::new(ReplicaId::new(u64::from(writer) + 1), before as u64 * R::EVENTS_PER_WRITE)
    }
}

impl<R: Subject> Clone for SessionsState<R> {
    fn clone(&self) -> Self {
        Self::play(self.steps.clone())
    }
}

impl<R: Subject> PartialEq for SessionsState<R> {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl<R: Subject> Eq for SessionsState<R> {}

impl<R: Subject> Hash for SessionsState<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl<R: Subject> Model for Sessions<R> {
    type State = SessionsState<R>;
    type Action = Wire;

    fn init_states(&self) -> Vec<SessionsState<R>> {
        vec![
            SessionsState::play(vec![Wire::Put(0)]),
            SessionsState::play(vec![Wire::Put(0), Wire::Forget(0)]),
        ]
    }

    fn actions(&self, state: &SessionsState<R>, actions: &mut Vec<Wire>) {
        for at in 0..2 {
            actions.push(Wire::Timeout(at));
            if state.replicas.events.len() < 3 {
                actions.push(Wire::Put(at));
                if state.replicas.maps[at].holds(b"key") {
                    actions.push(Wire::Remove(at));
                }
            }
            if state.replicas.maps[at].remembered() > 0 {
                actions.push(Wire::Forget(at));
            }
        }
        for which in 0..state.wire.len() {
            actions.extend([Wire::Deliver(which), Wire::Lose(which), Wire::Repeat(which)]);
        }
    }

    fn next_state(&self, state: &SessionsState<R>, step: Wire) -> Option<SessionsState<R>> {
        let mut steps = state.steps.clone();
        steps.push(step);
        Some(SessionsState::play(steps))
    }

    fn within_boundary(&self, state: &SessionsState<R>) -> bool {
        state.steps.len() <= self.depth && state.wire.len() <= 4
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no honest datagram is an error", |_, state: &SessionsState<R>| state.clean),
            Property::always("holds what stands", |_, state: &SessionsState<R>| {
                state.replicas.holds_what_stands()
            }),
            Property::sometimes("both have the same", |_, state: &SessionsState<R>| {
                state.replicas.events.len() > 1
                    && state.replicas.maps[0].frontier() == state.replicas.maps[1].frontier()
            }),
        ]
    }
}

#[test]
fn two_sessions_join_whole_deltas_whatever_the_network_does() {
    check_sessions::<CausalMap>(6);
}

#[test]
fn two_sessions_of_a_composed_type_join_whole_deltas_whatever_the_network_does() {
    check_sessions::<CausalReplica<Composed>>(5);
}

/// To the usual depth, and to 8 where `X0_CRDT_SEEDS` is set.
fn check_sessions<R: Subject>(usual: usize) {
    let depth = if std::env::var_os("X0_CRDT_SEEDS").is_some() { 8 } else { usual };
    let checker =
        Sessions::<R> { of: std::marker::PhantomData, depth }.checker().threads(2).spawn_bfs().join();
    println!("depth {depth}: {} states", checker.unique_state_count());
    checker.assert_properties();
}
