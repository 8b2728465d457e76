//! The harness: nodes, the events between them, and virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use x0_consensus::driver::{
    ApplyJob, ApplyWorker, Done, Effect, Executor, LogJob, LogWorker, SnapshotJob, SnapshotWorker,
};
use x0_consensus::sim::SimDirectory;
use x0_consensus::{
    DropReason, Event, FailReason, FatalError, Fence, FencedRequest, HandleError, Input, Membership,
    MembershipChange, NodeId, Options, Replica, Status, Storage as _, Wal,
};

use crate::disk;
use crate::invariants::{Asked, End, Invariants};
use crate::machine::{Machine, SharedMachine, digest};
use crate::network::{Network, Random, up_to};

pub(crate) fn id(node: u64) -> NodeId {
    NodeId::new(node).unwrap()
}

/// The state of a process: an executor and its workers, each of which does its next job after a delay.
pub(crate) struct Process {
    executor: Executor,
    pub(crate) log: LogWorker<Wal>,
    apply: ApplyWorker<SharedMachine>,
    snapshots: SnapshotWorker,
    log_jobs: VecDeque<LogJob>,
    apply_jobs: VecDeque<ApplyJob>,
    snapshot_jobs: VecDeque<SnapshotJob>,
    /// Results that wait until the replica has another reason to run.
    waiting: Vec<Done>,
    /// Whether an event is scheduled at which the worker does its next job.
    is_busy: [bool; 3],
}

impl Process {
    pub(crate) fn replica(&self) -> &Replica {
        self.executor.replica()
    }
}

pub(crate) struct Node {
    pub(crate) options: Options,
    pub(crate) directory: SimDirectory,
    shared: SharedMachine,
    pub(crate) process: Option<Process>,
    pub(crate) failed: Option<FailReason>,
    /// The messages that it refused.
    pub(crate) refused: Vec<HandleError>,
    /// Counts processes, so that an event for one does not reach the next.
    life: u64,
    pub(crate) fetches: u64,
    pub(crate) transfers_failed: u64,
    /// Whether its disk has no space, as it has reported.
    pub(crate) is_full: bool,
    /// Changes a job of the snapshot worker, until it has done so once.
    pub(crate) change_snapshot_job: Option<fn(SnapshotJob) -> (SnapshotJob, bool)>,
    pub(crate) snapshots_begun: u64,
    pub(crate) snapshots_staged: u64,
    pub(crate) messages_len_max: usize,
}

impl Node {
    /// The state machine as it is now.
    pub(crate) fn machine(&self) -> Machine {
        self.shared.lock().clone()
    }
}

/// A fault that is planted in the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    AcknowledgeBeforePersist,
    SkipSync,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worker {
    Log,
    Apply,
    Snapshot,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Deliver { from: u64, to: u64, payload: Vec<u8> },
    Work { worker: Worker, node: u64, life: u64 },
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
    events: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    sequence: u64,
    founders: Vec<u64>,
    configure: fn(&mut Options),
    pub(crate) machine: Machine,
    pub(crate) planted: Planted,
    /// Whether the folders have incarnations.
    pub(crate) has_incarnations: bool,
    /// A digest of all events, if a test needs one: it takes longer than the rest.
    pub(crate) trace: Option<u64>,
}

impl Cluster {
    /// Founders 1 to `size` with state machines in memory, without faults.
    pub(crate) fn new(seed: u64, size: u64) -> Cluster {
        Cluster::with(seed, size, Machine::default(), |_| {})
    }

    pub(crate) fn with(seed: u64, size: u64, machine: Machine, configure: fn(&mut Options)) -> Cluster {
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
            planted: Planted::Nothing,
            has_incarnations: false,
            trace: None,
        };
        for node in 1..=size {
            cluster.join(node);
        }
        cluster
    }

    /// As [`new`](Cluster::new), with an incarnation in each folder.
    pub(crate) fn with_incarnations(
        seed: u64,
        size: u64,
        machine: Machine,
        configure: fn(&mut Options),
    ) -> Cluster {
        let mut cluster = Cluster::with(seed, 0, machine, configure);
        cluster.has_incarnations = true;
        cluster.found(size);
        cluster
    }

    /// Starts the founders 1 to `size`.
    pub(crate) fn found(&mut self, size: u64) {
        self.founders = (1..=size).collect();
        for node in 1..=size {
            self.join(node);
        }
    }

    /// The folder of a node that is down is emptied.
    pub(crate) fn empty(&mut self, number: u64) {
        self.replace_folder(number, SimDirectory::new(), self.machine.clone());
    }

    /// The folder of a node that is down is replaced by this one.
    pub(crate) fn replace_folder(&mut self, number: u64, directory: SimDirectory, mut machine: Machine) {
        machine.crash();
        let node = self.nodes.get_mut(&number).unwrap();
        assert!(node.process.is_none(), "a running process holds its folder");
        node.directory = directory;
        *node.shared.lock() = machine;
    }

    /// A copy of the folder of a node, file by file, as a backup makes it.
    pub(crate) fn backup(&self, number: u64) -> (SimDirectory, Machine) {
        let node = self.node(number);
        let copy = node.directory.copy();
        copy.crash(x0_consensus::sim::Unsynced::Lost);
        let mut machine = node.machine();
        machine.crash();
        (copy, machine)
    }

    /// A new node: a founder, or a node that is not a member yet.
    pub(crate) fn join(&mut self, node: u64) {
        let mut options = Options::new(id(node));
        options.seed = self.random.next_u64();
        if self.founders.contains(&node) {
            options = options.bootstrap(self.founders.iter().copied().map(id));
        }
        (self.configure)(&mut options);
        self.nodes.insert(
            node,
            Node {
                options,
                directory: SimDirectory::new(),
                shared: SharedMachine::new(self.machine.clone()),
                process: None,
                failed: None,
                refused: Vec::new(),
                life: 0,
                fetches: 0,
                transfers_failed: 0,
                is_full: false,
                change_snapshot_job: None,
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
        self.nodes[&node].process.as_ref().unwrap().replica().status()
    }

    /// Brings an earlier status of any replica up to that of `node`.
    pub(crate) fn refresh(&mut self, node: u64, status: &mut Status) {
        self.nodes.get_mut(&node).unwrap().process.as_mut().unwrap().executor.refresh(status);
    }

    pub(crate) fn is_up(&self, node: u64) -> bool {
        self.nodes[&node].process.is_some()
    }

    pub(crate) fn start(&mut self, number: u64) {
        let now = self.now;
        let node = self.nodes.get_mut(&number).unwrap();
        assert!(node.process.is_none());
        let incarnation = if self.has_incarnations { self.random.next_u64() | 1 } else { 0 };
        let mut log = disk::open(&node.directory, incarnation);
        node.options.incarnation = log.incarnation();
        let executor = Executor::open(node.options.clone(), &mut log, &node.shared, now).unwrap();
        let is_held = |index: &u64| log.term(*index).unwrap().is_some();
        // The base has a term, and its entry is not in the log.
        let first = 1 + (0..=executor.replica().status().last_index).find(is_held).unwrap();
        let count = (first..).take_while(is_held).count() as u64;
        let held = log.read(first..first + count, usize::MAX).unwrap();
        self.invariants.durable(number, &held);
        node.life += 1;
        node.process = Some(Process {
            executor,
            log: LogWorker::new(log),
            apply: ApplyWorker::new(node.shared.clone()),
            snapshots: SnapshotWorker::new(),
            log_jobs: VecDeque::new(),
            apply_jobs: VecDeque::new(),
            snapshot_jobs: VecDeque::new(),
            waiting: Vec::new(),
            is_busy: [false; 3],
        });
        self.drain(number);
    }

    /// The power of a node fails.
    pub(crate) fn crash(&mut self, number: u64) {
        let node = self.nodes.get_mut(&number).unwrap();
        if let Some(process) = node.process.take() {
            disk::crash(process.log, process.log_jobs, &node.directory, &mut self.random);
            node.shared.lock().crash();
        }
        self.invariants.crashed(number);
    }

    /// Cuts all links between these nodes and the others.
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

    fn schedule(&mut self, at: Duration, event: Happening) {
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

    /// Gives an input to a replica, without draining its outputs.
    pub(crate) fn give(&mut self, number: u64, input: Input) {
        self.note(&(number, &input));
        let now = self.now;
        let node = self.nodes.get_mut(&number).unwrap();
        let Some(process) = &mut node.process else { return };
        match process.executor.handle(now, input) {
            Ok(()) => {}
            Err(HandleError::Failed(reason)) => node.failed = Some(reason),
            Err(refused) => node.refused.push(refused),
        }
        // Durable writes that waited for another reason to run.
        for done in process.waiting.drain(..) {
            process.executor.complete(now, done);
        }
    }

    pub(crate) fn feed(&mut self, number: u64, input: Input) {
        self.give(number, input);
        self.drain(number);
    }

    /// Carries out the effects of a node, and schedules the jobs of its workers.
    pub(crate) fn drain(&mut self, number: u64) {
        loop {
            while let Some(process) = &mut self.nodes.get_mut(&number).unwrap().process {
                let Some(effect) = process.executor.poll_output() else { break };
                self.note(&(number, &effect));
                self.carry_out(number, effect);
            }
            if !self.take_jobs(number) {
                break;
            }
        }
        let node = self.nodes.get_mut(&number).unwrap();
        let Some(process) = &mut node.process else { return };
        let life = node.life;
        let has_work =
            [!process.log_jobs.is_empty(), !process.apply_jobs.is_empty(), !process.snapshot_jobs.is_empty()];
        let mut begun = Vec::new();
        for (at, worker) in [Worker::Log, Worker::Apply, Worker::Snapshot].into_iter().enumerate() {
            if has_work[at] && !process.is_busy[at] {
                process.is_busy[at] = true;
                begun.push(worker);
            }
        }
        for worker in begun {
            let latency = if worker == Worker::Apply { self.apply_latency } else { self.disk_latency };
            let at = self.now + up_to(&mut self.random, latency);
            self.schedule(at, Happening::Work { worker, node: number, life });
        }
    }

    /// Moves new jobs to the workers, and inspects them. Returns whether there were any.
    fn take_jobs(&mut self, number: u64) -> bool {
        let node = self.nodes.get_mut(&number).unwrap();
        let Some(process) = &mut node.process else { return false };
        let term = process.replica().status().term;
        let mut log_jobs = std::mem::take(process.executor.log_jobs());
        let apply_jobs = std::mem::take(process.executor.apply_jobs());
        let mut snapshot_jobs = std::mem::take(process.executor.snapshot_jobs());
        for job in &mut log_jobs {
            node.fetches += u64::from(matches!(job, LogJob::Fetch { .. }));
            let LogJob::Write { number, write, .. } = job else { continue };
            match self.planted {
                Planted::Nothing => {}
                Planted::AcknowledgeBeforePersist => {
                    process.executor.complete(self.now, Done::Persisted { number: *number });
                }
                Planted::SkipSync => write.must_sync = false,
            }
        }
        if let Some(change) = node.change_snapshot_job {
            let mut is_changed = false;
            snapshot_jobs = snapshot_jobs
                .into_iter()
                .map(|job| {
                    let (job, changed) = if is_changed { (job, false) } else { change(job) };
                    is_changed |= changed;
                    job
                })
                .collect();
            if is_changed {
                node.change_snapshot_job = None;
            }
        }
        for job in &snapshot_jobs {
            node.snapshots_staged += u64::from(matches!(job, SnapshotJob::Begin { .. }));
        }
        for job in &apply_jobs {
            match job {
                ApplyJob::Apply { entries, .. } => {
                    entries.iter().for_each(|entry| self.invariants.committed(number, term, entry));
                }
                ApplyJob::OpenSnapshot { .. } => node.snapshots_begun += 1,
                _ => {}
            }
        }
        let is_any = !log_jobs.is_empty() || !apply_jobs.is_empty() || !snapshot_jobs.is_empty();
        if self.trace.is_some() && is_any {
            self.note(&(number, &log_jobs, &apply_jobs, &snapshot_jobs));
        }
        let process = self.nodes.get_mut(&number).unwrap().process.as_mut().unwrap();
        process.log_jobs.extend(log_jobs);
        process.apply_jobs.extend(apply_jobs);
        process.snapshot_jobs.extend(snapshot_jobs);
        is_any
    }

    fn carry_out(&mut self, number: u64, effect: Effect) {
        let node = self.nodes.get_mut(&number).unwrap();
        let event = match effect {
            Effect::Send { to, payload, .. } => {
                node.messages_len_max = node.messages_len_max.max(payload.len());
                return self.send(number, to.get(), payload);
            }
            Effect::Event(event) => event,
            other => panic!("the harness does not know {other:?}"),
        };
        match event {
            Event::Outcome { token, index, .. } => self.invariants.ended(number, token, End::Outcome(index)),
            Event::Changed { token, index } => self.invariants.ended(number, token, End::Changed(index)),
            Event::ReadReady { token, index } => {
                assert!(
                    node.machine().state.applied >= index,
                    "a read is released before its index is applied"
                );
                self.invariants.ended(number, token, End::Ready(index));
            }
            Event::Dropped { token, reason } => self.invariants.ended(number, token, End::Dropped(reason)),
            Event::Leader { term, is_self: true, .. } => {
                let process = node.process.as_ref().unwrap();
                let last_index = process.replica().status().last_index;
                self.invariants.elected(number, term, last_index, process.log.storage());
                self.leaders.push((term, number));
            }
            Event::Leader { .. } | Event::Membership { .. } | Event::Standing { .. } => {}
            Event::TransferFailed(_) => node.transfers_failed += 1,
            Event::NoSpace(_) => node.is_full = true,
            Event::SpaceAvailable => node.is_full = false,
            Event::Failed(cause) => match *cause {
                FatalError::Replica(reason) => node.failed = Some(reason),
                ref cause => panic!("node {number} fails: {cause}"),
            },
            other => panic!("node {number} has an event that no test causes: {other:?}"),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the outbox of a driver takes it")]
    fn send(&mut self, from: u64, to: u64, payload: Vec<u8>) {
        assert_ne!(from, to);
        if self.network.is_cut(from, to) {
            if self.random.chance(self.network.reported) {
                self.give(from, Input::Unreachable { peer: id(to) });
            }
            return;
        }
        for delay in self.network.arrivals(&mut self.random) {
            self.schedule(self.now + delay, Happening::Deliver { from, to, payload: payload.clone() });
        }
    }

    /// Performs the next event, no later than `until`. Returns whether there was one.
    pub(crate) fn step(&mut self, until: Duration) -> bool {
        let due = |node: &Node| node.process.as_ref().and_then(|process| process.executor.poll_timeout());
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

    fn happen(&mut self, event: Happening) {
        match event {
            Happening::Deliver { from, to, payload } => {
                if !self.network.is_cut(from, to) && self.nodes.contains_key(&to) {
                    self.feed(to, Input::Message { from: id(from), payload: payload.into() });
                }
            }
            Happening::Work { worker, node: number, life } => {
                let node = self.nodes.get_mut(&number).unwrap();
                let Some(process) = node.process.as_mut().filter(|_| node.life == life) else { return };
                process.is_busy[worker as usize] = false;
                let Some(done) = self.work(number, worker) else { return };
                self.note(&(number, &done));
                let now = self.now;
                let process = self.nodes.get_mut(&number).unwrap().process.as_mut().unwrap();
                if matches!(done, Done::Persisted { .. }) && process.executor.can_wait_for_log() {
                    process.waiting.push(done);
                } else {
                    for done in process.waiting.drain(..).chain([done]) {
                        process.executor.complete(now, done);
                    }
                }
                // The worker begins its next job in any case.
                self.drain(number);
            }
        }
    }

    /// Lets a worker do its next job, and checks the result.
    fn work(&mut self, number: u64, worker: Worker) -> Option<Done> {
        let node = self.nodes.get_mut(&number).unwrap();
        let process = node.process.as_mut().unwrap();
        match worker {
            Worker::Log => {
                let writes = process.log_jobs.iter().map_while(|job| match job {
                    LogJob::Write { write, .. } => Some(write),
                    _ => None,
                });
                let entries: Vec<_> = writes.flat_map(|write| write.entries.iter().cloned()).collect();
                let done = process.log.work(&mut process.log_jobs);
                self.invariants.durable(number, &entries);
                done
            }
            Worker::Apply => {
                let done = process.apply.work(process.apply_jobs.pop_front()?);
                let steps = std::mem::take(&mut node.shared.lock().steps);
                for (entry, state) in &steps {
                    self.invariants.applied(number, entry, *state);
                }
                if matches!(done, Done::Restored { .. }) {
                    self.invariants.restored(number, node.machine().state);
                }
                Some(done)
            }
            Worker::Snapshot => Some(process.snapshots.work(process.snapshot_jobs.pop_front()?)),
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    pub(crate) fn run_until(&mut self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let until = self.now + Duration::from_secs(60);
        while !holds(self) {
            assert!(self.step(until), "a minute has passed without: {what}");
        }
    }

    /// The leader of the newest term, if it is up and knows that it is.
    pub(crate) fn leader(&self) -> Option<u64> {
        let leads = |node: &Node| node.process.as_ref().is_some_and(|process| process.replica().is_leader());
        let leaders = self.nodes.iter().filter(|(_, node)| leads(node));
        leaders.max_by_key(|(number, _)| self.status(**number).term).map(|(number, _)| *number)
    }

    pub(crate) fn elect(&mut self) -> u64 {
        self.run_until("a leader that can commit", |cluster| {
            cluster.leader().is_some_and(|leader| {
                let status = cluster.status(leader);
                let log = &cluster.node(leader).process.as_ref().unwrap().log.storage();
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
            self.run_until("the leadership is transferred", |cluster| cluster.leader() == Some(node));
            self.elect();
        }
    }

    pub(crate) fn payload(token: u64, len: usize) -> Bytes {
        let mut payload = token.to_le_bytes().to_vec();
        payload.resize(len.max(8), 0x5a);
        payload.into()
    }

    /// Proposes without draining the outputs.
    pub(crate) fn propose_only(&mut self, node: u64, len: usize) -> u64 {
        let token = self.invariants.ask(node, Asked::Propose(Bytes::new()));
        let payload = Cluster::payload(token, len);
        self.invariants.tokens.get_mut(&token).unwrap().asked = Asked::Propose(payload.clone());
        self.give(node, Input::Propose { token, payload, trace: None });
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

    pub(crate) fn fenced(&mut self, node: u64, fence: Fence, request: FencedRequest) -> u64 {
        let token = self.invariants.ask(node, Asked::Change);
        self.feed(node, Input::Fenced { token, fence, request });
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

    /// Runs until these requests have succeeded.
    pub(crate) fn run_until_done(&mut self, tokens: &[u64]) {
        self.run_until("all is done", |cluster| tokens.iter().all(|token| cluster.end(*token).is_some()));
        for token in tokens {
            assert!(self.is_done(*token), "token {token} ended in {:?}", self.end(*token));
        }
    }

    /// Proposes to the current leader until a proposal succeeds.
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
        panic!("no proposal succeeds");
    }

    /// Waits until all members that are up have applied everything.
    pub(crate) fn settle(&mut self) {
        self.put();
        self.run_until("all members have caught up", |cluster| {
            let membership = cluster.leader().map(|leader| cluster.status(leader).membership);
            membership.is_some_and(|membership| {
                let last = cluster.invariants.last_committed();
                !membership.is_joint() && cluster.are_all_at(&membership, last)
            })
        });
    }

    fn are_all_at(&self, membership: &Membership, index: u64) -> bool {
        self.nodes
            .iter()
            .filter(|(number, node)| node.process.is_some() && membership.contains(id(**number)))
            .all(|(number, node)| {
                node.machine().state.applied == index && self.status(*number).membership == *membership
            })
    }

    pub(crate) fn assert_unharmed(&self) {
        for (number, node) in &self.nodes {
            assert_eq!(node.failed, None, "node {number} failed");
            assert_eq!(node.refused, [], "node {number} refused messages of its own kind");
        }
    }
}
