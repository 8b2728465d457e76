//! The model world: members, their disks and their messages, in steps of 100 ms.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use x0_identity::NodeId;
use x0_kv::Revision;
use x0_mapek::Mode;
use x0_mapek::kv::{ActionKind, Answer, Ask, Healer, HealerOptions, Input, Observation, Output, SAMPLE};

use super::fold;
use crate::random::Random;

/// The voters of a group; a spare joins them.
const VOTERS: u64 = 5;
/// A voter that is silent for this long is replaced: longer than any restart of a healthy day, and the
/// shortest in the faulty runs.
const REPLACE_AFTER: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(10)];
/// The time from the silence of a leader to the next one.
const ELECTION: Duration = Duration::from_millis(800);
/// The time from the end of a process to the loss of its connections.
const LOSS: Duration = Duration::from_secs(2);
/// The upper ends of the tenths of the time that a write of 100 ms or longer takes in a checkpoint, in ms:
/// `fdatasync` on ext4 beside the write-back of 256 MiB.
const CHECKPOINT_MS: [u64; 10] = [104, 109, 115, 121, 130, 141, 155, 174, 203, 262];

/// A fault of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Each write of the leader takes 350 to 700 ms.
    SlowDisk,
    /// The leader runs for 50 of every 400 ms.
    Starved,
    /// The same, and its own healer does nothing.
    StarvedHealer,
    /// A voter ends and does not come back.
    Dead,
}

impl Fault {
    pub(super) const ALL: [Fault; 4] = [Fault::SlowDisk, Fault::Starved, Fault::StarvedHealer, Fault::Dead];

    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::SlowDisk => "slow-disk",
            Fault::Starved => "starved",
            Fault::StarvedHealer => "starved-healer",
            Fault::Dead => "dead-voter",
        }
    }

    /// Whether an action is the answer.
    fn is_answered_by(self, kind: ActionKind) -> bool {
        match self {
            Fault::SlowDisk => kind == ActionKind::TransferLeadership,
            Fault::Starved => kind != ActionKind::ReplaceVoter,
            Fault::StarvedHealer => kind == ActionKind::TakeOver,
            Fault::Dead => kind == ActionKind::ReplaceVoter,
        }
    }
}

/// A disruptive action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deed {
    at: Duration,
    healer: u64,
    kind: ActionKind,
    subject: u64,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deed { at, healer, kind, subject } = self;
        write!(
            f,
            "after {:.1} s the healer of node {healer}: {} of node {subject}",
            at.as_secs_f64(),
            kind.name()
        )
    }
}

/// One faulty run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Run {
    /// From the time at which the fault was one to the first right action.
    pub(super) right_after: Option<Duration>,
    pub(super) wrong: u64,
    pub(super) digest: u64,
    /// The records, and what does not follow from one of them alone.
    pub(super) records: u64,
    pub(super) wrong_records: Vec<String>,
}

/// A member of the group.
struct Node {
    id: u64,
    healer: Healer,
    observation: Observation,
    /// Since when and until when its process does not run.
    down: (Duration, Duration),
    /// The write that takes long, with its end.
    long_write: Option<(Duration, Duration)>,
    /// Until when it writes a checkpoint.
    checkpoint_until: Duration,
    next_checkpoint: Duration,
    /// The last heartbeat of the leader that arrived.
    heard: Duration,
    inbox: Vec<(NodeId, Vec<u8>)>,
}

/// What is planned for a healthy day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// The process of a node ends, and runs again after the time.
    Restart { node: u64, down: Duration },
    /// The process of a node does not run for a moment.
    Pause { node: u64, down: Duration },
    /// Writes of all nodes take long for this time.
    Burst { lasts: Duration },
    /// A learner becomes a voter.
    ScaleOut,
}

/// The group.
pub(super) struct World {
    random: Random,
    now: Duration,
    nodes: Vec<Node>,
    leader: Option<u64>,
    term: u64,
    /// When the next leader is elected, if there is none.
    election_at: Duration,
    voters: Vec<u64>,
    learners: Vec<u64>,
    /// Until when the writes of all nodes take long.
    burst_until: Duration,
    plans: VecDeque<(Duration, Plan)>,
    fault: Option<(Fault, u64, Duration)>,
    revision: u64,
    done: Vec<Deed>,
    digest: u64,
    records: u64,
    wrong_records: Vec<String>,
}

fn id(number: u64) -> NodeId {
    let Some(id) = NodeId::new(number) else { unreachable!("members are numbered from 1") };
    id
}

impl World {
    /// A healthy group with voters 1 to 5 and learner 6.
    pub(super) fn new(seed: u64) -> World {
        World::with(seed, REPLACE_AFTER[0])
    }

    fn with(seed: u64, replace_after: Duration) -> World {
        let options = || HealerOptions::new().mode(Mode::Active).replace_after(Some(replace_after));
        let mut random = Random::new(seed);
        let node = |number| Node {
            id: number,
            healer: Healer::new(id(number), &options()),
            observation: Observation::new(id(number)),
            down: (Duration::ZERO, Duration::ZERO),
            long_write: None,
            checkpoint_until: Duration::ZERO,
            next_checkpoint: Duration::ZERO,
            heard: Duration::ZERO,
            inbox: Vec::new(),
        };
        let mut nodes: Vec<Node> = (1..=VOTERS + 1).map(node).collect();
        for node in &mut nodes {
            node.next_checkpoint = random.milliseconds(10_000, 600_000);
        }
        let leader = Some(random.between(1, VOTERS));
        World {
            random,
            now: Duration::ZERO,
            nodes,
            leader,
            term: 1,
            election_at: Duration::ZERO,
            voters: (1..=VOTERS).collect(),
            learners: vec![VOTERS + 1],
            burst_until: Duration::ZERO,
            plans: VecDeque::new(),
            fault: None,
            revision: 0,
            done: Vec::new(),
            digest: 0,
            records: 0,
            wrong_records: Vec::new(),
        }
    }

    pub(super) fn done(&self) -> &[Deed] {
        &self.done
    }

    /// The digest of the decision log, the number of its records, and what does not follow from one of them.
    pub(super) fn log(self) -> (u64, u64, Vec<String>) {
        (self.digest, self.records, self.wrong_records)
    }

    /// Plays a day of planned work and load.
    pub(super) fn run_healthy(&mut self, lasts: Duration) {
        self.plan(lasts);
        while self.now < lasts {
            self.step();
        }
    }

    /// Plans a day: bursts, pauses, rolling restarts and a scale-out.
    fn plan(&mut self, lasts: Duration) {
        let day = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let mut plans = Vec::new();
        let per_day = |random: &mut Random, low, high| {
            let count = random.between(low, high) * day / 86_400_000;
            count.max(1)
        };
        for _ in 0..per_day(&mut self.random, 5, 40) {
            let lasts = self.random.milliseconds(2_000, 60_000);
            plans.push((self.random.milliseconds(15_000, day), Plan::Burst { lasts }));
        }
        for _ in 0..per_day(&mut self.random, 5, 50) {
            let (node, down) = (self.random.between(1, VOTERS), self.random.milliseconds(150, 3_000));
            plans.push((self.random.milliseconds(0, day), Plan::Pause { node, down }));
        }
        for _ in 0..per_day(&mut self.random, 1, 3) {
            let mut at = self.random.milliseconds(0, day);
            for node in 1..=VOTERS {
                let down = self.random.milliseconds(1_000, 120_000);
                plans.push((at, Plan::Restart { node, down }));
                at += down + self.random.milliseconds(20_000, 90_000);
            }
        }
        plans.push((self.random.milliseconds(0, day), Plan::ScaleOut));
        plans.sort_by_key(|(at, _)| *at);
        self.plans = plans.into();
    }

    fn follow_plan(&mut self) {
        while self.plans.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, plan)) = self.plans.pop_front() else { return };
            match plan {
                Plan::Restart { node, down } => {
                    let down = (self.now, self.now + down);
                    let options =
                        HealerOptions::new().mode(Mode::Active).replace_after(Some(REPLACE_AFTER[0]));
                    let node = self.node(node);
                    node.down = down;
                    // The healer of the next process knows nothing.
                    node.healer = Healer::new(id(node.id), &options);
                }
                Plan::Pause { node, down } => {
                    let (now, until) = (self.now, self.now + down);
                    let node = self.node(node);
                    if node.down.1 < until {
                        node.down = (now, until);
                    }
                }
                Plan::Burst { lasts } => self.burst_until = self.now + lasts,
                Plan::ScaleOut => self.voters.append(&mut self.learners),
            }
        }
    }

    fn node(&mut self, number: u64) -> &mut Node {
        let place = usize::try_from(number).unwrap_or(1).saturating_sub(1).min(self.nodes.len() - 1);
        &mut self.nodes[place]
    }

    fn has_fault(&self, node: u64, kinds: &[Fault]) -> bool {
        self.fault.is_some_and(|(fault, of, since)| of == node && since <= self.now && kinds.contains(&fault))
    }

    /// Whether the process of a node runs at this time.
    fn runs(&self, node: &Node) -> bool {
        let is_starved = self.has_fault(node.id, &[Fault::Starved, Fault::StarvedHealer]);
        node.down.1 <= self.now && (!is_starved || (self.now.as_millis() / 100).is_multiple_of(4))
    }

    /// Whether a node is silent for so long that its connections are lost.
    fn is_lost(&self, node: &Node) -> bool {
        node.down.1 > self.now && self.now.saturating_sub(node.down.0) >= LOSS
    }

    /// 100 ms.
    fn step(&mut self) {
        self.now += SAMPLE;
        self.follow_plan();
        self.elect();
        let beats: Vec<u64> = self.nodes.iter().filter(|node| self.runs(node)).map(|node| node.id).collect();
        let lost: Vec<u64> =
            self.nodes.iter().filter(|node| self.is_lost(node)).map(|node| node.id).collect();
        let reached: Vec<NodeId> =
            self.nodes.iter().map(|node| node.id).filter(|node| !lost.contains(node)).map(id).collect();
        let leader_beats = self.leader.is_some_and(|leader| beats.contains(&leader));
        let mut told = Vec::new();
        for place in 0..self.nodes.len() {
            let number = self.nodes[place].id;
            // One heartbeat of 400 is late.
            if leader_beats && self.random.below(400) > 0 {
                self.nodes[place].heard = self.now;
            }
            if !beats.contains(&number) {
                continue;
            }
            self.write(place);
            self.observe(place, &reached);
            if self.has_fault(number, &[Fault::StarvedHealer]) {
                continue;
            }
            self.work(place, &mut told);
        }
        for (from, to, message) in told {
            // One of a hundred is lost.
            for to in to {
                if !self.random.chance(1) {
                    self.node(to.get()).inbox.push((from, message.clone()));
                }
            }
        }
    }

    /// The next leader, when the present one is silent for the time of an election.
    fn elect(&mut self) {
        let is_up = |world: &World, number: u64| {
            world.nodes.iter().any(|node| node.id == number && node.down.1 <= world.now)
        };
        match self.leader {
            Some(leader) if is_up(self, leader) => self.election_at = self.now + ELECTION,
            _ if self.now >= self.election_at => {
                let up: Vec<u64> = self.voters.iter().copied().filter(|voter| is_up(self, *voter)).collect();
                if up.len() * 2 > self.voters.len() {
                    let next = up[self.random.place(up.len())];
                    self.lead(next);
                }
            }
            _ => {}
        }
    }

    fn lead(&mut self, leader: u64) {
        self.leader = Some(leader);
        self.term += 1;
        self.election_at = self.now + ELECTION;
        for node in &mut self.nodes {
            node.heard = self.now;
        }
    }

    /// The write that waits for the disk of a node.
    fn write(&mut self, place: usize) {
        let (now, is_burst) = (self.now, self.now < self.burst_until);
        let is_slow = self.has_fault(self.nodes[place].id, &[Fault::SlowDisk]);
        let node = &mut self.nodes[place];
        if now >= node.next_checkpoint {
            node.checkpoint_until = now + self.random.milliseconds(500, 8_000);
            node.next_checkpoint = now + self.random.milliseconds(60_000, 1_200_000);
        }
        if node.long_write.is_some_and(|(_, end)| end <= now) {
            node.long_write = None;
        }
        if node.long_write.is_none() {
            // Load follows the hour: a busy disk has one long write in a minute, an idle one in an hour.
            let hour = now.as_secs() / 3600 % 24;
            let usual = 600 + 1500 * hour.abs_diff(14);
            let length = if is_slow {
                Some(self.random.between(350, 700))
            } else if is_burst && self.random.chance(60) {
                Some(self.random.between(150, 650))
            } else if now < node.checkpoint_until && self.random.chance(15) {
                Some(CHECKPOINT_MS[self.random.place(10)])
            } else if self.random.below(usual) == 0 {
                Some(self.random.between(30, 150))
            } else {
                None
            };
            node.long_write = length.map(|length| (now, now + Duration::from_millis(length)));
        }
    }

    /// What a node knows now.
    fn observe(&mut self, place: usize, reached: &[NodeId]) {
        let (leader, term) = (self.leader, self.term);
        let number = self.nodes[place].id;
        let index = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        let Node { observation, long_write, heard, .. } = &mut self.nodes[place];
        (observation.leader, observation.term) = (leader.map(id), term);
        observation.committed = index;
        if observation.voters.len() != self.voters.len()
            || !self.voters.iter().all(|voter| observation.voters.contains(&id(*voter)))
        {
            observation.voters = self.voters.iter().copied().map(id).collect();
            observation.learners = self.learners.iter().copied().map(id).collect();
        }
        let others = reached.iter().filter(|node| node.get() != number);
        if observation.reached.len() != others.clone().count()
            || !others.clone().all(|node| observation.reached.contains(node))
        {
            observation.reached = others.copied().collect();
        }
        if leader == Some(number) {
            observation.acknowledged = reached.iter().map(|node| (*node, index)).collect();
        }
        observation.writing_since = long_write.map(|(begin, _)| begin);
        observation.leader_last_message = (leader != Some(number)).then_some(*heard);
    }

    /// A sample of a node, and what its healer does.
    fn work(&mut self, place: usize, told: &mut Vec<(NodeId, Vec<NodeId>, Vec<u8>)>) {
        let now = self.now;
        let node = &mut self.nodes[place];
        let number = node.id;
        for (from, message) in std::mem::take(&mut node.inbox) {
            let _ = node.healer.handle(now, Input::Received { from, message: &message });
        }
        let _ = node.healer.handle(now, Input::Sample(&node.observation));
        while let Some(output) = self.nodes[place].healer.poll_output() {
            let answer = match output {
                Output::Transfer { id, to } => {
                    self.deed(number, ActionKind::TransferLeadership, number);
                    self.lead(to.get());
                    Some(Input::Outcome { id, result: Ok(()) })
                }
                Output::TakeOver { id } => {
                    let subject = self.leader.unwrap_or(0);
                    self.deed(number, ActionKind::TakeOver, subject);
                    self.lead(number);
                    Some(Input::Outcome { id, result: Ok(()) })
                }
                Output::Replace { id, dead, spare } => {
                    self.deed(number, ActionKind::ReplaceVoter, dead.get());
                    self.voters.retain(|voter| *voter != dead.get());
                    self.learners.retain(|learner| *learner != spare.get());
                    self.voters.push(spare.get());
                    Some(Input::Outcome { id, result: Ok(()) })
                }
                Output::Ask(ask) => {
                    self.revision += 1;
                    Some(Input::Stored(match ask {
                        Ask::Read => Answer::Read(Ok(None)),
                        Ask::Write { .. } => Answer::Written(Ok(Some(Revision::new(self.revision)))),
                        _ => Answer::Removed,
                    }))
                }
                Output::Notify { to, message } => {
                    told.push((id(number), to, message));
                    None
                }
                Output::Record(record) => {
                    self.records += 1;
                    self.wrong_records.extend(record.recompute().err().map(|wrong| wrong.to_string()));
                    for chunk in record.to_bytes().chunks(8) {
                        let number = chunk.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
                        self.digest = fold(self.digest, number);
                    }
                    None
                }
                _ => None,
            };
            if let Some(answer) = answer {
                let _ = self.nodes[place].healer.handle(now, answer);
            }
        }
    }

    fn deed(&mut self, healer: u64, kind: ActionKind, subject: u64) {
        self.done.push(Deed { at: self.now, healer, kind, subject });
    }
}

/// One fault in a group that was well for a while.
pub(super) fn faulty(seed: u64, fault: Fault) -> Run {
    let mut world = World::with(seed, REPLACE_AFTER[1]);
    let begin = world.random.milliseconds(15_000, 60_000);
    while world.now < begin {
        world.step();
    }
    let leader = world.leader.unwrap_or(1);
    let subject = match fault {
        Fault::Dead => leader % VOTERS + 1,
        _ => leader,
    };
    world.fault = Some((fault, subject, world.now));
    // A dead voter may return for a while; its connections are lost, too.
    let mut since = world.now;
    if fault == Fault::Dead {
        since += REPLACE_AFTER[1] + LOSS;
        world.node(subject).down = (world.now, Duration::MAX);
    }
    let end = since + Duration::from_secs(30);
    while world.now < end {
        world.step();
        if !world.done.is_empty() && fault != Fault::Dead {
            // The fault stays with the node, which leads no more.
            break;
        }
    }
    let is_right = |deed: &&Deed| deed.subject == subject && fault.is_answered_by(deed.kind);
    let right_after = world.done.iter().find(is_right).map(|deed| deed.at.saturating_sub(since));
    let wrong = world.done.iter().filter(|deed| !is_right(deed)).count() as u64;
    let (digest, records, wrong_records) = world.log();
    Run { right_after, wrong, digest, records, wrong_records }
}
