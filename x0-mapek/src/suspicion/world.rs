//! A simulated group: processes that die, hang, starve and read late, on a network that delays and loses.
//! The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use super::{Detector, DetectorOptions, Input, Output};

/// The bytes of a datagram beside the message: Ethernet is not counted; IP, UDP, QUIC and the channel are.
pub(super) const OVERHEAD: usize = 28 + 30 + 4;

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Between two times.
    pub(super) fn time(&mut self, from: Duration, to: Duration) -> Duration {
        let range = u64::try_from(to.saturating_sub(from).as_micros()).unwrap();
        from + Duration::from_micros(self.below(range))
    }
}

/// The state of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    /// The process does nothing until then; its messages wait.
    Stopped(Duration),
    Dead,
}

pub(super) struct Process {
    pub(super) detector: Detector,
    state: State,
    /// Messages that have come and were not read.
    inbox: VecDeque<(u64, Vec<u8>)>,
    /// Until then it reads one message at a time, with pauses.
    reads_late_until: Duration,
    read_at: Duration,
    /// Since when it has run and read its messages without a pause.
    pub(super) well_since: Duration,
    pub(super) sent_bytes: usize,
    /// The accusations of this process that began.
    accused: BTreeSet<u64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at: std::cmp::Reverse<Duration>,
    order: std::cmp::Reverse<u64>,
    from: u64,
    to: u64,
    message: Vec<u8>,
}

/// An event of a detector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at: Duration,
    pub(super) by: u64,
    pub(super) member: u64,
    pub(super) is_suspect: bool,
}

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) processes: BTreeMap<u64, Process>,
    on_the_way: BinaryHeap<Arrival>,
    sent: u64,
    /// Messages of a thousand that are lost.
    pub(super) loss: u64,
    /// Members that are cut off from the others.
    pub(super) cut: BTreeSet<u64>,
    pub(super) seen: Vec<Seen>,
    pub(super) accusations: Vec<(Duration, u64, u64)>,
    options: DetectorOptions,
}

impl World {
    pub(super) fn new(seed: u64, size: u64) -> World {
        let options = DetectorOptions::new();
        let mut world = World {
            now: Duration::ZERO,
            random: Random(seed),
            processes: BTreeMap::new(),
            on_the_way: BinaryHeap::new(),
            sent: 0,
            loss: 5,
            cut: BTreeSet::new(),
            seen: Vec::new(),
            accusations: Vec::new(),
            options,
        };
        for member in 1..=size {
            // Processes do not start at one moment.
            let begun = world.random.time(Duration::ZERO, ms(200));
            world.start(member, begun);
        }
        world.set_members(&(1..=size).collect());
        world
    }

    /// Starts a process, or starts it again.
    pub(super) fn start(&mut self, member: u64, at: Duration) {
        let instance = self.random.next();
        let process = Process {
            detector: Detector::new(member, instance, self.options, at),
            state: State::Runs,
            inbox: VecDeque::new(),
            reads_late_until: Duration::ZERO,
            read_at: Duration::ZERO,
            well_since: at,
            sent_bytes: 0,
            accused: BTreeSet::new(),
        };
        self.processes.insert(member, process);
    }

    pub(super) fn set_members(&mut self, members: &BTreeSet<u64>) {
        for member in self.processes.keys().copied().collect::<Vec<_>>() {
            self.handle(member, Input::Members(members));
        }
    }

    pub(super) fn kill(&mut self, member: u64) {
        let process = self.processes.get_mut(&member).unwrap();
        process.state = State::Dead;
        process.inbox.clear();
    }

    /// Stops a process for a while: a hang, a collection of garbage, a lack of processor time.
    pub(super) fn stop(&mut self, member: u64, pause: Duration) {
        let until = self.now + pause;
        let process = self.processes.get_mut(&member).unwrap();
        if process.state == State::Runs {
            process.state = State::Stopped(until);
            process.well_since = until;
        }
    }

    /// Makes a process read its messages late, while its timers are punctual.
    pub(super) fn read_late(&mut self, member: u64, time: Duration) {
        let until = self.now + time;
        let process = self.processes.get_mut(&member).unwrap();
        process.reads_late_until = process.reads_late_until.max(until);
        process.well_since = process.well_since.max(until);
    }

    pub(super) fn is_well(&self, member: u64, for_at_least: Duration) -> bool {
        let process = &self.processes[&member];
        process.state == State::Runs
            && process.inbox.is_empty()
            && self.now >= process.well_since + for_at_least
    }

    pub(super) fn run_until(&mut self, end: Duration) {
        while self.now < end {
            self.now += ms(1);
            self.step();
        }
    }

    fn step(&mut self) {
        while self.on_the_way.peek().is_some_and(|arrival| arrival.at.0 <= self.now) {
            let Arrival { from, to, message, .. } = self.on_the_way.pop().unwrap();
            if let Some(process) = self.processes.get_mut(&to)
                && process.state != State::Dead
            {
                process.inbox.push_back((from, message));
            }
        }
        for member in self.processes.keys().copied().collect::<Vec<_>>() {
            self.turn(member);
        }
    }

    fn turn(&mut self, member: u64) {
        let now = self.now;
        let process = self.processes.get_mut(&member).unwrap();
        match process.state {
            State::Dead => return,
            State::Stopped(until) if now < until => return,
            _ => process.state = State::Runs,
        }
        // Either may come first when a process runs again.
        let timer_first = self.random.below(2) == 0;
        if timer_first {
            self.timer(member);
        }
        loop {
            let process = self.processes.get_mut(&member).unwrap();
            if process.inbox.is_empty() || now < process.read_at {
                break;
            }
            if now < process.reads_late_until {
                process.read_at = now + ms(5 + self.random.below(40));
            } else if process.inbox.len() > 1 {
                process.well_since = process.well_since.max(now);
            }
            let process = self.processes.get_mut(&member).unwrap();
            let (from, message) = process.inbox.pop_front().unwrap();
            self.handle(member, Input::Received { from, message: &message });
        }
        if !timer_first {
            self.timer(member);
        }
    }

    fn timer(&mut self, member: u64) {
        if self.processes[&member].detector.poll_timeout().is_some_and(|due| due <= self.now) {
            self.handle(member, Input::Timeout);
        }
    }

    pub(super) fn handle(&mut self, member: u64, input: Input<'_>) {
        let now = self.now;
        let process = self.processes.get_mut(&member).unwrap();
        // A stranger's message is refused while the members change.
        let _ = process.detector.handle(now, input);
        let accused: BTreeSet<u64> = process.detector.accused().into_iter().collect();
        let new = accused.difference(&process.accused).map(|accused| (now, member, *accused));
        self.accusations.extend(new);
        process.accused = accused;
        let mut outputs = Vec::new();
        while let Some(output) = process.detector.poll_output() {
            outputs.push(output);
        }
        for output in outputs {
            let mut seen = |member_seen, is_suspect| {
                self.seen.push(Seen { at: now, by: member, member: member_seen, is_suspect });
            };
            match output {
                Output::Suspect(suspect) => seen(suspect.member, true),
                Output::Cleared { member } => seen(member, false),
                Output::Send { to, message } => to.into_iter().for_each(|to| self.send(member, to, &message)),
            }
        }
    }

    fn send(&mut self, from: u64, to: u64, message: &[u8]) {
        self.processes.get_mut(&from).unwrap().sent_bytes += message.len() + OVERHEAD;
        if self.cut.contains(&from) != self.cut.contains(&to) || self.random.below(1000) < self.loss {
            return;
        }
        // Mostly below 5 ms, one in fifty up to 60 ms.
        let most = if self.random.below(50) == 0 { ms(60) } else { ms(5) };
        let at = self.now + self.random.time(Duration::from_micros(200), most);
        self.sent += 1;
        self.on_the_way.push(Arrival {
            at: std::cmp::Reverse(at),
            order: std::cmp::Reverse(self.sent),
            from,
            to,
            message: message.to_vec(),
        });
    }

    /// When each other living process came to know that a member is suspect, after `since`.
    pub(super) fn known_after(&self, member: u64, since: Duration) -> BTreeMap<u64, Duration> {
        let mut known = BTreeMap::new();
        for seen in
            self.seen.iter().filter(|seen| seen.member == member && seen.at >= since && seen.is_suspect)
        {
            known.entry(seen.by).or_insert(seen.at - since);
        }
        known
    }
}
