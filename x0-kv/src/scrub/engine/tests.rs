//! Members in virtual time. Each holds a state in memory; entries are applied while the scrub runs.

use crate::request::command::Command;
use crate::request::operation::Mutation;
use crate::state::State;
use crate::state::storage::mark::Marked;

use std::sync::{Arc, Mutex};

use super::*;

struct Member {
    id: NodeId,
    engine: Scrubber,
    state: State,
    view: Option<Arc<Marked>>,
    done: Arc<Mutex<Vec<Done>>>,
    events: Vec<ScrubEvent>,
}

enum Done {
    Input(Input),
    Taken(Marked),
}

struct World {
    now: Duration,
    members: Vec<Member>,
    mail: VecDeque<(NodeId, NodeId, Bytes)>,
    log: Vec<Bytes>,
    random: u64,
}

fn node(number: usize) -> NodeId {
    NodeId::new(number as u64 + 1).unwrap()
}

fn place(number: u64) -> Place {
    (KeyspaceName::DEFAULT, format!("key {number:05}").into())
}

impl World {
    fn new(count: usize, seed: u64) -> World {
        let options = ScrubOptions::default().pause(Duration::from_millis(100)).bytes_per_second(1 << 30);
        let members = (0..count).map(|number| Member {
            id: node(number),
            engine: Scrubber::new(options, node(number), (seed << 20) + ((number as u64) << 40)),
            state: State::in_memory(),
            view: None,
            done: Arc::default(),
            events: Vec::new(),
        });
        let (mail, log) = (VecDeque::new(), Vec::new());
        let members = members.collect();
        let mut world = World { now: Duration::ZERO, members, mail, log, random: seed };
        for number in 0..count {
            let others = (0..count).filter(|other| *other != number).map(node).collect();
            world.give(number, Input::Members { is_leader: number == 0, members: others });
        }
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn commit(&mut self, mutation: &Mutation) {
        self.log.push(Command::encode_write(None, &KeyspaceName::DEFAULT, mutation));
    }

    fn put(&mut self, number: u64, value: &str) {
        self.commit(&Mutation::Put { key: place(number).1, value: Bytes::copy_from_slice(value.as_bytes()) });
    }

    /// Applies up to `count` entries on a member.
    fn apply(&mut self, number: usize, count: u64) {
        let member = &mut self.members[number];
        for _ in 0..count {
            let next = member.state.applied() + 1;
            let Some(payload) = self.log.get(usize::try_from(next).unwrap() - 1) else { return };
            member.state.apply([(next, Some(payload))], &mut Vec::new()).unwrap();
        }
    }

    fn apply_all(&mut self) {
        (0..self.members.len()).for_each(|number| self.apply(number, u64::MAX));
    }

    fn give(&mut self, number: usize, input: Input) {
        self.members[number].engine.handle(self.now, input).unwrap();
        self.drain(number);
    }

    fn drain(&mut self, number: usize) {
        while let Some(output) = self.members[number].engine.poll_output() {
            let member = &mut self.members[number];
            let (reader, done) = (member.state.reader(), Arc::clone(&member.done));
            let put = |input| member.done.lock().unwrap().push(Done::Input(input));
            let taken = Box::new(move |marked| done.lock().unwrap().push(Done::Taken(marked)));
            match output {
                Output::Send { to, payload } => self.mail.push_back((member.id, to, payload)),
                Output::Mark { ahead } => {
                    let marked = |index| put(Input::Marked { index });
                    reader.mark(ahead, marked, taken);
                }
                Output::MarkAt { index } => {
                    if let Err(applied) = reader.mark_at(index, taken) {
                        put(Input::Missed { applied });
                    }
                }
                Output::Digest { index, range, is_page } => {
                    let view = member.view.as_ref().filter(|view| view.index == index);
                    let digest = view.map(|view| reader.digest(view, &range, is_page));
                    put(Input::Digested { index, range, digest });
                }
                Output::Release => member.view = None,
                Output::Fetch { to, number, place: (keyspace, key) } => {
                    let message = Message::Fetch { number, keyspace, key, at_least: reader.applied() };
                    self.mail.push_back((member.id, to, message::encode(&message)));
                }
                Output::Lookup { to, number, place, at_least } => {
                    let (applied, held) = reader.lookup(&place, at_least);
                    let message = Message::Fetched { number, applied, held };
                    self.mail.push_back((member.id, to, message::encode(&message)));
                }
                Output::Install { place, applied, held } => {
                    let installed = reader.repair(&place, applied, &held).unwrap();
                    put(Input::Installed { place, installed });
                }
                Output::Block { range } => reader.block(range),
                Output::Event(event) => member.events.push(event),
            }
        }
    }

    /// Carries one thing on, or the time. Messages of one sender stay in order.
    fn step(&mut self, loss: u64) {
        let number = usize::try_from(self.below(self.members.len() as u64)).unwrap();
        let done = {
            let mut done = self.members[number].done.lock().unwrap();
            if done.is_empty() { None } else { Some(done.remove(0)) }
        };
        match done {
            Some(Done::Input(input)) => self.give(number, input),
            Some(Done::Taken(marked)) => {
                let index = marked.index;
                self.members[number].view = Some(Arc::new(marked));
                let keyspaces = self.members[number].state.reader().keyspaces();
                self.give(number, Input::Taken { index, keyspaces });
            }
            None => {}
        }
        if let Some((from, to, payload)) = self.mail.pop_front() {
            if self.below(1000) >= loss {
                let to = usize::try_from(to.get() - 1).unwrap();
                self.give(to, Input::Message { from, payload });
            }
        } else {
            self.now += Duration::from_millis(5);
            for number in 0..self.members.len() {
                if self.members[number].engine.poll_timeout().is_some_and(|due| due <= self.now) {
                    self.give(number, Input::Timeout);
                }
            }
        }
    }

    fn run_until(&mut self, loss: u64, mut condition: impl FnMut(&World) -> bool) {
        for _ in 0..500_000 {
            if condition(self) {
                return;
            }
            self.step(loss);
        }
        panic!("it does not end: {:?}", self.members[0].engine);
    }

    fn passes(&self) -> u64 {
        self.members[0].engine.status().passes
    }

    fn diverged(&self, number: usize) -> usize {
        self.members[number]
            .events
            .iter()
            .filter(|event| matches!(event, ScrubEvent::Diverged { .. }))
            .count()
    }
}

/// Passes under writes, with members that lag and messages that are lost: equal replicas are never reported.
#[test]
fn equal_replicas_are_never_reported() {
    for seed in 0..30 {
        let mut world = World::new(3, seed);
        for number in 0..9000 {
            world.put(number, "first");
        }
        world.apply_all();
        let loss = if seed % 2 == 0 { 0 } else { 20 };
        for _ in 0..4000 {
            let number = world.below(9000);
            match world.below(3) {
                0 => world.commit(&Mutation::Delete { key: place(number).1 }),
                _ => world.put(number, "later"),
            }
            let (member, count) = (world.below(3), world.below(4));
            world.apply(usize::try_from(member).unwrap(), count);
            world.step(loss);
        }
        world.apply_all();
        let before = world.passes();
        world.run_until(loss, |world| world.passes() > before + 1);
        for number in 0..3 {
            assert_eq!(world.diverged(number), 0, "seed {seed}");
            assert_eq!(world.members[number].engine.status().damaged, 0, "seed {seed}");
        }
        let compared = |event: &ScrubEvent| matches!(event, ScrubEvent::Completed { entries, members: 2, .. } if *entries > 4000);
        assert!(loss > 0 || world.members[0].events.iter().any(compared), "seed {seed}");
    }
}

/// A member that lacks a write, and one that has another value: the majority is right, the minority refuses
/// to read the range.
#[test]
fn a_replica_that_differs_refuses_reads_of_the_range() {
    for wrong in 0..3 {
        let mut world = World::new(3, 5);
        for number in 0..5000 {
            world.put(number, "value");
        }
        world.apply_all();
        let other = Mutation::Put { key: place(4321).1, value: "other".into() };
        let other = Command::encode_write(None, &KeyspaceName::DEFAULT, &other);
        world.put(4321, "right");
        let next = world.log.len() as u64;
        world.members[wrong].state.apply([(next, Some(&other))], &mut Vec::new()).unwrap();
        world.apply_all();
        world.run_until(0, |world| world.passes() > 1);
        for number in 0..3 {
            let reader = world.members[number].state.reader();
            let (keyspace, key) = place(4321);
            let is_refused = reader.get(&keyspace, &key).is_err();
            assert_eq!(is_refused, number == wrong, "member {number}");
            assert!(reader.get(&keyspace, b"key 00001").is_ok(), "of another range");
            assert_eq!(world.members[number].engine.status().diverged > 0, number == wrong);
        }
        let named = |event: &ScrubEvent| matches!(event, ScrubEvent::Diverged { node: found, .. } if *found == node(wrong));
        assert!(world.members[0].events.iter().any(named) && world.members[wrong].events.iter().any(named));
    }
}

/// Damaged entries on any member, found by the scrub, under writes: each is repaired with the right entry.
#[test]
fn damaged_entries_are_repaired_from_another_member() {
    for seed in 0..20 {
        let mut world = World::new(3, seed);
        for number in 0..5000 {
            world.put(number, "value");
        }
        world.apply_all();
        let wrong = usize::try_from(seed % 3).unwrap();
        let damaged: Vec<u64> = (0..10).map(|_| world.below(5000)).collect();
        for number in &damaged {
            assert!(world.members[wrong].state.damage(&place(*number).1));
        }
        let (keyspace, key) = place(damaged[0]);
        assert!(world.members[wrong].state.reader().get(&keyspace, &key).is_err());
        for _ in 0..500 {
            let number = world.below(5000);
            world.put(number, "later");
            let (member, count) = (world.below(3), world.below(3));
            world.apply(usize::try_from(member).unwrap(), count);
            world.step(5);
        }
        world.apply_all();
        let before = world.passes();
        world.run_until(5, |world| {
            let engine = &world.members[wrong].engine;
            engine.repairs.is_empty() && world.passes() > before + 1
        });
        for number in 0..5000 {
            let (keyspace, key) = place(number);
            let right = world.members[(wrong + 1) % 3].state.reader().get(&keyspace, &key).unwrap();
            assert_eq!(
                world.members[wrong].state.reader().get(&keyspace, &key).unwrap(),
                right,
                "seed {seed}"
            );
        }
        let status = world.members[wrong].engine.status();
        assert!(status.damaged > 0 && status.repaired == status.damaged, "{status:?}");
        assert_eq!(world.diverged(0), 0);
    }
}

/// A lone node verifies what it has.
#[test]
fn a_node_alone_completes_passes() {
    let mut world = World::new(1, 1);
    for number in 0..100 {
        world.put(number, "value");
    }
    world.apply_all();
    world.run_until(0, |world| world.passes() > 2);
    assert!(world.members[0].engine.status().entries >= 200);
}
