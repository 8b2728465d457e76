//! The simulated group: processes with an engine each, which run, starve, die and start again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use super::schedule::{Lack, Schedule};

const STEP: Duration = Duration::from_millis(1);

/// A failure detector in the comparison.
pub(super) trait System {
    type Engine: Engine;

    /// The engine of a member. `start` is 0 for the first process of the member, 1 for the next.
    fn start(&self, member: u64, start: u32, schedule: &Schedule, now: Duration) -> Self::Engine;
}

/// The engine of one process. It has no clock, and its messages are sent by the world.
pub(super) trait Engine {
    /// Whether a timer is due.
    fn is_due(&self, now: Duration) -> bool;
    /// Runs the timers that are due.
    fn timers(&mut self, now: Duration);
    fn receive(&mut self, now: Duration, from: u64, message: &[u8]);
    /// The next effect since the last call.
    fn poll_effect(&mut self) -> Option<Effect>;
}

pub(super) enum Effect {
    Send {
        to: u64,
        message: Vec<u8>,
    },
    /// A member is dead, as this process knows now.
    Verdict(u64),
    /// A member lives, as this process knows now.
    Alive(u64),
    /// A member that this process alone holds for dead or hung.
    Accused(u64),
}

/// The counts of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// For each death and observer, the time to its verdict.
    pub(super) detections: Vec<Duration>,
    /// Deaths that an observer did not learn before the member was back.
    pub(super) unknown: u32,
    pub(super) false_verdicts: u32,
    pub(super) starved_verdicts: u32,
    pub(super) false_accusations: u32,
}

impl Tally {
    pub(super) fn median(&self) -> Duration {
        let mut detections = self.detections.clone();
        detections.sort_unstable();
        detections.get(detections.len() / 2).copied().unwrap_or_default()
    }
}

struct Process<E> {
    engine: E,
    alive_since: Duration,
    inbox: VecDeque<(u64, Vec<u8>)>,
    /// When the next message is read, for a process that reads late.
    read_at: Duration,
    suspects: BTreeSet<u64>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at: Reverse<Duration>,
    order: Reverse<u64>,
    from: u64,
    to: u64,
    message: Vec<u8>,
}

pub(super) struct World<'a, S: System> {
    system: S,
    schedule: &'a Schedule,
    now: Duration,
    /// The living ones.
    processes: BTreeMap<u64, Process<S::Engine>>,
    starts: BTreeMap<u64, u32>,
    on_the_way: BinaryHeap<Arrival>,
    sent: u64,
    /// The observers that have not learned of a death yet, by the dead member.
    unaware: BTreeMap<u64, (Duration, BTreeSet<u64>)>,
    tally: Tally,
}

impl<'a, S: System> World<'a, S> {
    pub(super) fn new(system: S, schedule: &'a Schedule) -> World<'a, S> {
        let mut world = World {
            system,
            schedule,
            now: Duration::ZERO,
            processes: BTreeMap::new(),
            starts: BTreeMap::new(),
            on_the_way: BinaryHeap::new(),
            sent: 0,
            unaware: BTreeMap::new(),
            tally: Tally::default(),
        };
        (1..=schedule.size).for_each(|member| world.start(member));
        world
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally
    }

    pub(super) fn run(&mut self) {
        let schedule = self.schedule;
        let mut deaths = schedule.deaths.iter().peekable();
        let mut returns = schedule.deaths.iter().peekable();
        while self.now < schedule.time {
            self.now += STEP;
            while let Some(death) = deaths.next_if(|death| death.at <= self.now) {
                self.kill(death.member);
            }
            while let Some(death) = returns.next_if(|death| death.back_at <= self.now) {
                self.start(death.member);
            }
            self.deliver();
            for member in 1..=schedule.size {
                self.turn(member);
            }
        }
    }

    fn start(&mut self, member: u64) {
        if let Some((_, unaware)) = self.unaware.remove(&member) {
            self.tally.unknown += u32::try_from(unaware.len()).unwrap_or(u32::MAX);
        }
        let count = self.starts.entry(member).or_insert(0);
        let engine = self.system.start(member, *count, self.schedule, self.now);
        *count += 1;
        let process = Process {
            engine,
            alive_since: self.now,
            inbox: VecDeque::new(),
            read_at: Duration::ZERO,
            suspects: BTreeSet::new(),
        };
        self.processes.insert(member, process);
        self.effects(member);
    }

    fn kill(&mut self, member: u64) {
        if self.processes.remove(&member).is_none() {
            return;
        }
        for (_, unaware) in self.unaware.values_mut() {
            unaware.remove(&member);
        }
        // An observer that takes a starved member for dead already has no new verdict.
        let unaware = self.processes.iter().filter(|(_, process)| !process.suspects.contains(&member));
        let unaware = unaware.map(|(observer, _)| *observer).collect();
        self.unaware.insert(member, (self.now, unaware));
    }

    fn deliver(&mut self) {
        while self.on_the_way.peek().is_some_and(|arrival| arrival.at.0 <= self.now) {
            let Some(Arrival { from, to, message, .. }) = self.on_the_way.pop() else { return };
            if let Some(process) = self.processes.get_mut(&to) {
                process.inbox.push_back((from, message));
            }
        }
    }

    fn turn(&mut self, member: u64) {
        let (now, schedule) = (self.now, self.schedule);
        let Some(process) = self.processes.get_mut(&member) else { return };
        let is_due = process.engine.is_due(now);
        if process.inbox.is_empty() && !is_due {
            return;
        }
        let lack = schedule.lack(member, now);
        if lack == Some(Lack::Stopped) {
            return;
        }
        // Either may come first when a process runs again.
        let mut chance = schedule.chance(member, member, now);
        let timer_first = chance.below(2) == 0;
        if is_due && timer_first {
            process.engine.timers(now);
        }
        while now >= process.read_at
            && let Some((from, message)) = process.inbox.pop_front()
        {
            if lack == Some(Lack::ReadsLate) {
                process.read_at = now + STEP * (5 + chance.below(40));
            }
            process.engine.receive(now, from, &message);
        }
        if is_due && !timer_first {
            process.engine.timers(now);
        }
        self.effects(member);
    }

    fn effects(&mut self, member: u64) {
        while let Some(process) = self.processes.get_mut(&member)
            && let Some(effect) = process.engine.poll_effect()
        {
            match effect {
                Effect::Send { to, message } => self.send(member, to, message),
                Effect::Verdict(other) => {
                    process.suspects.insert(other);
                    self.verdict(member, other);
                }
                Effect::Alive(other) => {
                    process.suspects.remove(&other);
                }
                Effect::Accused(other) => self.tally.false_accusations += u32::from(self.is_well(other)),
            }
        }
    }

    fn send(&mut self, from: u64, to: u64, message: Vec<u8>) {
        let Some(delay) = self.schedule.delay(from, to, self.now) else { return };
        self.sent += 1;
        let (at, order) = (Reverse(self.now + delay), Reverse(self.sent));
        self.on_the_way.push(Arrival { at, order, from, to, message });
    }

    fn verdict(&mut self, by: u64, member: u64) {
        if self.is_well(member) {
            self.tally.false_verdicts += 1;
        } else if self.processes.contains_key(&member) {
            self.tally.starved_verdicts += 1;
        } else if let Some((since, unaware)) = self.unaware.get_mut(&member)
            && unaware.remove(&by)
        {
            self.tally.detections.push(self.now - *since);
        }
    }

    /// Whether a member lives, and lacks nothing.
    fn is_well(&self, member: u64) -> bool {
        let lives =
            self.processes.get(&member).is_some_and(|process| self.now >= process.alive_since + super::GRACE);
        lives && self.schedule.is_well(member, self.now)
    }
}
