//! The harness: nodes, the events between them, and virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use x0_consensus::sim::SimDirectory;
use x0_consensus::{
    Config, DropReason, Entry, FailReason, HandleError, Input, Membership, MembershipChange, NodeId, Output,
    Replica, SnapshotMeta, StageStep, Status, Storage as _,
};

use crate::disk::{self, Disk, Job};
use crate::invariants::{Asked, End, Invariants};
use crate::machine::{Machine, digest};
use crate::network::{Network, Random};

pub(crate) fn id(node: u64) -> NodeId {
    NodeId::new(node).unwrap()
}

/// What the applying thread is asked for.
#[derive(Debug)]
enum Apply {
    Entries { entries: Vec<Entry>, proposals: Vec<(u64, u64)> },
    Restore { meta: SnapshotMeta },
    Checkpoint,
    Open { transfer: u64 },
}

/// What lives as long as the process.
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) disk: Disk,
    apply: VecDeque<Apply>,
    /// Whether an event is under way that does the next job.
    disk_busy: bool,
    apply_busy: bool,
}

pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) directory: SimDirectory,
    pub(crate) machine: Machine,
    pub(crate) process: Option<Process>,
    pub(crate) failed: Option<FailReason>,
    /// How many messages it refused.
    pub(crate) refused: Vec<HandleError>,
    /// Counts processes, so that nothing meant for one reaches the next.
    life: u64,
    pub(crate) fetches: u64,
    pub(crate) snapshots_begun: u64,
    pub(crate) snapshots_staged: u64,
    pub(crate) messages_len_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Deliver { from: u64, to: u64, payload: Vec<u8> },
    Disk { node: u64, life: u64 },
    Apply { node: u64, life: u64 },
}

pub(crate) struct Cluster {
    pub(crate) now: Duration,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) disk_latency: Duration,
    pub(crate) apply_latency: Duration,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) invariants: Invariants,
    pub(crate) leaders: Vec<(u64, u64)>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    founders: Vec<u64>,
    configure: fn(&mut Config),
    pub(crate) machine: Machine,
    /// A digest of all that happened, if it is wanted: it takes longer than the rest.
    pub(crate) trace: Option<u64>,
}

impl Cluster {
    /// Founders 1 to `size`, in memory, undisturbed.
    pub(crate) fn new(seed: u64, size: u64) -> Cluster {
        Cluster::with(seed, size, Machine::default(), |_| {})
    }

    pub(crate) fn with(seed: u64, size: u64, machine: Machine, configure: fn(&mut Config)) -> Cluster {
        let mut cluster = Cluster {
            now: Duration::ZERO,
            random: Random(seed),
            network: Network::default(),
            disk_latency: Duration::from_micros(800),
            apply_latency: Duration::from_micros(300),
            nodes: BTreeMap::new(),
            invariants: Invariants::default(),
            leaders: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            founders: (1..=size).collect(),
            configure,
            machine,
            trace: None,
        };
        for node in 1..=size {
            cluster.join(node);
        }
        cluster
    }

    /// A new node: a founder, or one that nobody knows yet.
    pub(crate) fn join(&mut self, node: u64) {
        let mut config = Config::new(id(node));
        config.seed = self.random.next();
        if self.founders.contains(&node) {
            config = config.bootstrap(self.founders.iter().copied().map(id));
        }
        (self.configure)(&mut config);
        self.nodes.insert(
            node,
            Node {
                config,
                directory: SimDirectory::new(),
                machine: self.machine.clone(),
                process: None,
                failed: None,
                refused: Vec::new(),
                life: 0,
                fetches: 0,
                snapshots_begun: 0,
                snapshots_staged: 0,
                messages_len_max: 0,
            },
        );
        self.start(node);
    }

    pub(crate) fn node(&self, node: u64) -> &Node {
        &self.nodes[&node]
    }

    pub(crate) fn status(&self, node: u64) -> Status {
        self.nodes[&node].process.as_ref().unwrap().replica.status()
    }

    pub(crate) fn is_up(&self, node: u64) -> bool {
        self.nodes[&node].process.is_some()
    }

    pub(crate) fn start(&mut self, number: u64) {
        let now = self.now;
        let node = self.nodes.get_mut(&number).unwrap();
        assert!(node.process.is_none());
        let mut log = disk::open(&node.directory);
        let recovered = log.recover().unwrap();
        let durable = node.machine.durable_index();
        let unapplied = log.read(recovered.unapplied(durable), usize::MAX).unwrap();
        let held = log.read(recovered.base.index + 1..recovered.last_index + 1, usize::MAX).unwrap();
        self.invariants.durable(number, &held);
        let replica = Replica::new(node.config.clone(), recovered, &unapplied, durable, now).unwrap();
        node.life += 1;
        node.process = Some(Process {
            replica,
            disk: Disk::new(log),
            apply: VecDeque::new(),
            disk_busy: false,
            apply_busy: false,
        });
        self.drain(number);
    }

    /// The power of a node goes.
    pub(crate) fn crash(&mut self, number: u64) {
        let node = self.nodes.get_mut(&number).unwrap();
        if let Some(process) = node.process.take() {
            process.disk.crash(&node.directory, &mut self.random);
            node.machine.crash();
        }
        self.invariants.crashed(number);
    }

    /// Nothing passes between these and the rest.
    pub(crate) fn isolate(&mut self, group: &[u64]) {
        let all: Vec<_> = self.nodes.keys().copied().collect();
        for inside in group {
            for outside in all.iter().filter(|node| !group.contains(node)) {
                self.network.cuts.insert((*inside, *outside));
                self.network.cuts.insert((*outside, *inside));
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.network.cuts.clear();
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn note(&mut self, what: &dyn std::fmt::Debug) {
        if let Some(trace) = &mut self.trace {
            let mut line = String::new();
            write!(line, "{:?} {what:?}", self.now).unwrap();
            *trace = digest(*trace, line.as_bytes());
        }
    }

    /// Gives an input to a replica, without asking for its outputs.
    pub(crate) fn give(&mut self, number: u64, input: Input) {
        self.note(&(number, &input));
        let now = self.now;
        let node = self.nodes.get_mut(&number).unwrap();
        let Some(process) = &mut node.process else { return };
        match process.replica.handle(now, input) {
            Ok(()) => {}
            Err(HandleError::Failed(reason)) => node.failed = Some(reason),
            Err(refused) => node.refused.push(refused),
        }
    }

    pub(crate) fn feed(&mut self, number: u64, input: Input) {
        self.give(number, input);
        self.drain(number);
    }

    /// Takes a replica's outputs to whoever performs them.
    pub(crate) fn drain(&mut self, number: u64) {
        while let Some(process) = &mut self.nodes.get_mut(&number).unwrap().process {
            let Some(output) = process.replica.poll_output() else { break };
            self.note(&(number, &output));
            self.perform(number, output);
        }
        let node = self.nodes.get_mut(&number).unwrap();
        let Some(process) = &mut node.process else { return };
        let life = node.life;
        let begin_disk = !process.disk_busy && !process.disk.jobs.is_empty();
        let begin_apply = !process.apply_busy && !process.apply.is_empty();
        process.disk_busy |= begin_disk;
        process.apply_busy |= begin_apply;
        if begin_disk {
            let at = self.now + self.random.up_to(self.disk_latency);
            self.schedule(at, Event::Disk { node: number, life });
        }
        if begin_apply {
            let at = self.now + self.random.up_to(self.apply_latency);
            self.schedule(at, Event::Apply { node: number, life });
        }
    }

    fn perform(&mut self, number: u64, output: Output) {
        let node = self.nodes.get_mut(&number).unwrap();
        let process = node.process.as_mut().unwrap();
        let jobs = &mut process.disk.jobs;
        match output {
            Output::Append { number, write } => jobs.push_back(Job::Write { number, write }),
            Output::Fetch { range, len_max } => {
                node.fetches += 1;
                jobs.push_back(Job::Fetch { range, len_max });
            }
            Output::ReadChunk { transfer, len_max } => jobs.push_back(Job::ReadChunk { transfer, len_max }),
            Output::CloseSnapshot { transfer } => jobs.push_back(Job::Close { transfer }),
            Output::SaveSnapshot { transfer, meta } => jobs.push_back(Job::Save { transfer, meta }),
            Output::Stage { transfer, step } => {
                node.snapshots_staged += u64::from(matches!(step, StageStep::Begin { .. }));
                jobs.push_back(Job::Stage { transfer, step });
            }
            Output::Apply { entries, proposals } => {
                let term = process.replica.status().term;
                for entry in &entries {
                    self.invariants.committed(number, term, entry);
                }
                process.apply.push_back(Apply::Entries { entries, proposals });
            }
            Output::Restore { meta } => process.apply.push_back(Apply::Restore { meta }),
            Output::Checkpoint => process.apply.push_back(Apply::Checkpoint),
            Output::OpenSnapshot { transfer } => {
                node.snapshots_begun += 1;
                process.apply.push_back(Apply::Open { transfer });
            }
            Output::Send { to, payload, .. } => {
                node.messages_len_max = node.messages_len_max.max(payload.len());
                self.send(number, to.get(), payload);
            }
            Output::ReadReady { tokens, index } => {
                assert!(node.machine.state.applied >= index, "a read is let go before its index is applied");
                for token in tokens {
                    self.invariants.ended(number, token, End::Ready(index));
                }
            }
            Output::Dropped { token, reason } => {
                self.invariants.ended(number, token, End::Dropped(reason));
            }
            Output::Leader { term, is_self: true, .. } => {
                let last_index = process.replica.status().last_index;
                self.invariants.elected(number, term, last_index, &process.disk.log);
                self.leaders.push((term, number));
            }
            Output::Leader { .. } | Output::Membership(_) => {}
            other => panic!("the harness does not know {other:?}"),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the outbox of a driver takes it")]
    fn send(&mut self, from: u64, to: u64, payload: Vec<u8>) {
        assert_ne!(from, to);
        if self.network.is_cut(from, to) {
            if self.random.chance(self.network.told) {
                self.give(from, Input::Unreachable { peer: id(to) });
            }
            return;
        }
        for delay in self.network.arrivals(&mut self.random) {
            self.schedule(self.now + delay, Event::Deliver { from, to, payload: payload.clone() });
        }
    }

    /// The next thing that happens, no later than `until`. Returns whether there was one.
    pub(crate) fn step(&mut self, until: Duration) -> bool {
        let due = |node: &Node| node.process.as_ref().and_then(|process| process.replica.poll_timeout());
        let timer = self.nodes.iter().filter_map(|(number, node)| Some((due(node)?, *number))).min();
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        match (timer, event) {
            (Some((at, number)), event) if at <= until && event.is_none_or(|event| at <= event) => {
                self.now = self.now.max(at);
                self.feed(number, Input::Timeout);
            }
            (_, Some(at)) if at <= until => {
                let Some(Reverse((at, _, event))) = self.events.pop() else { return false };
                self.now = self.now.max(at);
                self.happen(event);
            }
            _ => {
                self.now = self.now.max(until);
                return false;
            }
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, payload } => {
                if !self.network.is_cut(from, to) && self.nodes.contains_key(&to) {
                    self.feed(to, Input::Message { from: id(from), payload: payload.into() });
                }
            }
            Event::Disk { node: number, life } => {
                let node = self.nodes.get_mut(&number).unwrap();
                let Some(process) = node.process.as_mut().filter(|_| node.life == life) else { return };
                process.disk_busy = false;
                let (inputs, entries) = process.disk.work();
                self.invariants.durable(number, &entries);
                for input in inputs {
                    self.give(number, input);
                }
                self.drain(number);
            }
            Event::Apply { node: number, life } => {
                let node = self.nodes.get_mut(&number).unwrap();
                let Some(process) = node.process.as_mut().filter(|_| node.life == life) else { return };
                process.apply_busy = false;
                let Some(job) = process.apply.pop_front() else { return };
                let input = self.apply(number, job);
                self.feed(number, input);
            }
        }
    }

    fn apply(&mut self, number: u64, job: Apply) -> Input {
        let node = self.nodes.get_mut(&number).unwrap();
        let process = node.process.as_mut().unwrap();
        let machine = &mut node.machine;
        match job {
            Apply::Entries { entries, proposals } => {
                for entry in &entries {
                    machine.apply(entry);
                    self.invariants.applied(number, entry, machine.state);
                }
                for (index, token) in proposals {
                    let is_change = matches!(self.invariants.tokens[&token].asked, Asked::Change);
                    let end = if is_change { End::Changed(index) } else { End::Outcome(index) };
                    self.invariants.ended(number, token, end);
                }
                Input::Applied { index: machine.state.applied }
            }
            Apply::Restore { meta } => {
                let (adopted, bytes) = process.disk.snapshot();
                assert_eq!(adopted, meta, "the storage keeps it until it is restored");
                machine.restore(&bytes);
                self.invariants.restored(number, machine.state);
                Input::Restored { index: meta.index }
            }
            Apply::Checkpoint => Input::Checkpointed { index: machine.checkpoint() },
            Apply::Open { transfer } => {
                process.disk.open.insert(transfer, machine.snapshot());
                Input::SnapshotOpened { transfer, index: machine.state.applied }
            }
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    pub(crate) fn run_until(&mut self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let until = self.now + Duration::from_secs(60);
        while !holds(self) {
            assert!(self.step(until), "a minute has gone by without: {what}");
        }
    }

    /// The leader of the newest term, if it is up and knows that it is.
    pub(crate) fn leader(&self) -> Option<u64> {
        let leads = |node: &Node| node.process.as_ref().is_some_and(|process| process.replica.is_leader());
        let leaders = self.nodes.iter().filter(|(_, node)| leads(node));
        leaders.max_by_key(|(number, _)| self.status(**number).term).map(|(number, _)| *number)
    }

    pub(crate) fn elect(&mut self) -> u64 {
        self.run_until("a leader that can commit", |cluster| {
            cluster.leader().is_some_and(|leader| {
                let status = cluster.status(leader);
                let log = &cluster.node(leader).process.as_ref().unwrap().disk.log;
                log.term(status.commit_index).unwrap() == Some(status.term)
            })
        });
        self.leader().unwrap()
    }

    /// Elects this node.
    pub(crate) fn elect_this(&mut self, node: u64) {
        let leader = self.elect();
        if leader != node {
            self.feed(leader, Input::TransferLeadership { to: id(node) });
            self.run_until("the leadership is handed over", |cluster| cluster.leader() == Some(node));
            self.elect();
        }
    }

    pub(crate) fn payload(token: u64, len: usize) -> Bytes {
        let mut payload = token.to_le_bytes().to_vec();
        payload.resize(len.max(8), 0x5a);
        payload.into()
    }

    /// Asks for a proposal without letting the replica act on it yet.
    pub(crate) fn propose_only(&mut self, node: u64, len: usize) -> u64 {
        let token = self.invariants.ask(node, Asked::Propose(Bytes::new()));
        let payload = Cluster::payload(token, len);
        self.invariants.tokens.get_mut(&token).unwrap().asked = Asked::Propose(payload.clone());
        self.give(node, Input::Propose { token, payload });
        token
    }

    pub(crate) fn propose(&mut self, node: u64, len: usize) -> u64 {
        let token = self.propose_only(node, len);
        self.drain(node);
        token
    }

    pub(crate) fn propose_many(&mut self, node: u64, count: u64, len: usize) -> Vec<u64> {
        let tokens = (0..count).map(|_| self.propose_only(node, len)).collect();
        self.drain(node);
        tokens
    }

    pub(crate) fn read(&mut self, node: u64) -> u64 {
        let token = self.invariants.ask(node, Asked::Read { floor: self.invariants.acknowledged });
        self.feed(node, Input::ReadIndex { token });
        token
    }

    pub(crate) fn change(&mut self, node: u64, change: MembershipChange) -> u64 {
        let token = self.invariants.ask(node, Asked::Change);
        self.feed(node, Input::ChangeMembership { token, change });
        token
    }

    pub(crate) fn end(&self, token: u64) -> Option<&End> {
        self.invariants.tokens[&token].end.as_ref()
    }

    pub(crate) fn is_done(&self, token: u64) -> bool {
        matches!(self.end(token), Some(End::Outcome(_) | End::Changed(_) | End::Ready(_)))
    }

    pub(crate) fn dropped(&self, token: u64) -> Option<DropReason> {
        match self.end(token) {
            Some(End::Dropped(reason)) => Some(*reason),
            _ => None,
        }
    }

    /// Runs until these have ended well.
    pub(crate) fn run_until_done(&mut self, tokens: &[u64]) {
        self.run_until("all is done", |cluster| tokens.iter().all(|token| cluster.end(*token).is_some()));
        for token in tokens {
            assert!(self.is_done(*token), "token {token} ended in {:?}", self.end(*token));
        }
    }

    /// Proposes until it goes through, by whoever leads.
    pub(crate) fn put(&mut self) -> u64 {
        for _ in 0..50 {
            let leader = self.elect();
            let token = self.propose(leader, 16);
            self.run_until("an end", |cluster| {
                cluster.end(token).is_some() || cluster.leader() != Some(leader)
            });
            if self.is_done(token) {
                return token;
            }
            self.run_for(Duration::from_millis(20));
        }
        panic!("nothing goes through");
    }

    /// Everybody who is up and takes part has applied everything.
    pub(crate) fn settle(&mut self) {
        self.put();
        self.run_until("everybody has caught up", |cluster| {
            let membership = cluster.leader().map(|leader| cluster.status(leader).membership);
            membership.is_some_and(|membership| {
                let last = cluster.invariants.last_committed();
                !membership.is_joint() && cluster.is_everybody_at(&membership, last)
            })
        });
    }

    fn is_everybody_at(&self, membership: &Membership, index: u64) -> bool {
        self.nodes
            .iter()
            .filter(|(number, node)| node.process.is_some() && membership.contains(id(**number)))
            .all(|(number, node)| {
                node.machine.state.applied == index && self.status(*number).membership == *membership
            })
    }

    pub(crate) fn assert_unharmed(&self) {
        for (number, node) in &self.nodes {
            assert_eq!(node.failed, None, "node {number} failed");
            assert_eq!(node.refused, [], "node {number} refused messages of its own kind");
        }
    }
}
