//! One full node in virtual time: the production event loop, and the workers whose jobs take as long as the
//! world says.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::oneshot;
use x0_consensus::driver::{ApplyJob, ApplyWorker, Done, Executor, LogJob, LogWorker, SnapshotWorker};
use x0_consensus::sim::Fault;
use x0_consensus::{
    Acknowledged, FailReason, FatalError, MembershipChange, OpenError, ReadError, RecoverError,
    SnapshotReadError, Wal, WalOptions, WriteError,
};
use x0_identity::NodeId;
use x0_mesh::{Mux, MuxOptions};

use super::cable::{Cable, Lossy, Switch};
use super::companion::{Beside, COMPANION_EVERY};
use super::context::{Context, Trouble, violation};
use super::damage::{Damage, Recovery};
use super::disk::Disk;
use super::log_sink::LogSink;
use super::planted::{FaultyBus, SimLog};
use super::process::{Asking, Process};
use super::random::Random;
use super::schedule::{Event, Place, SECOND, Time};
use super::workers::{Observed, SharedJobs, SimWorkers};
use super::{PlantedBug, id_of};
use crate::admin::{AdminEngine, PeerRoles};
use crate::cluster::event_loop::{End, EventLoop};
use crate::cluster::inbox::{Alarm, Inbox};
use crate::cluster::peers::Peers;
use crate::cluster::service::Bus;
use crate::cluster::services::admin::{self, Admin, AdminCalls};
use crate::cluster::services::consensus::{self, Consensus, ReplicaStatus, Request};
use crate::cluster::services::drive;
use crate::cluster::services::operations::{self, Calls, LocalState, Operations};
use crate::cluster::services::snapshots::{self, Snapshots};
use crate::cluster::services::status::{self, Status};
use crate::cluster::{ChangeError, NodeError, NodeEvent, NodeParts};
use crate::coordinator::{self, Coordinator};
use crate::request::command::Command;
use crate::state::State;

/// A node, up or down.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) disk: Disk,
    /// Counts the starts. What was under way in an earlier one is passed over.
    pub(super) start: u32,
    pub(super) running: Option<Running>,
    /// The process stands still until then.
    pub(super) paused_until: Time,
    /// Whether it founds the cluster with others.
    pub(super) is_founder: bool,
    /// The incarnation of its folder, as of its last start; 0 before the first.
    pub(super) incarnation: u64,
    /// The planted bug: its next folder keeps the incarnation.
    pub(super) keeps_incarnation: bool,
    /// The file of the folder with what the node saw acknowledged by the others.
    pub(super) acknowledged: BTreeMap<NodeId, Acknowledged>,
    /// When that file is written again.
    pub(super) keep_at: Time,
    /// The damage to its folder that was not repaired.
    pub(super) damage: Option<Damage>,
    pub(super) recovery: Option<Recovery>,
    /// The receiver of its log lines, which may not take them.
    pub(super) log_sink: LogSink,
    /// How long its disk and its applying take beyond the usual, at most.
    pub(super) disk_lag: Time,
    pub(super) apply_lag: Time,
    /// Since when it has not reached a majority of the voters, as of the last turn of its companion.
    pub(super) cut_off_since: Option<Time>,
}

/// One start of a node.
pub(super) struct Running {
    place: Place,
    start: u32,
    pub(super) process: Process,
    requests: Inbox<Request>,
    alarm: Alarm,
    status: ReplicaStatus,
    events: Arc<Mutex<Vec<NodeEvent>>>,
    changes: Vec<oneshot::Receiver<Result<(), ChangeError>>>,
    beside: Option<Beside>,

    jobs: SharedJobs,
    log: LogWorker<SimLog>,
    machine: ApplyWorker<Observed>,
    snapshots: SnapshotWorker,
    /// The jobs that the threads carry out at this moment.
    logging: VecDeque<LogJob>,
    applying: Option<ApplyJob>,
    copying: Option<x0_consensus::driver::SnapshotJob>,
    reading: bool,
    disk_lag: Time,
    apply_lag: Time,
    /// The most writes that are made durable together.
    batch_max: usize,
    /// The write in hand takes longer than a second.
    is_slow: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.jobs.lock();
        formatter
            .debug_struct("Running")
            .field("status", &self.status.get())
            .field("logging", &self.logging.len())
            .field("log_jobs", &waiting.log.len())
            .field("is_applying", &self.applying.is_some())
            .field("apply_jobs", &waiting.apply.len())
            .field("is_copying", &self.copying.is_some())
            .field("lags", &(self.disk_lag, self.apply_lag))
            .finish_non_exhaustive()
    }
}

impl Node {
    pub(super) fn new(place: Place, is_founder: bool, forgets: bool) -> Node {
        Node {
            place,
            is_founder,
            incarnation: 0,
            keeps_incarnation: false,
            acknowledged: BTreeMap::new(),
            keep_at: 0,
            damage: None,
            recovery: None,
            log_sink: LogSink::default(),
            disk: Disk::new(forgets),
            start: 0,
            running: None,
            paused_until: 0,
            disk_lag: 0,
            apply_lag: 0,
            cut_off_since: None,
        }
    }

    /// Recovers what the disk holds and continues from there.
    pub(super) fn start(
        &mut self,
        context: &mut Context,
        mut config: x0_consensus::Options,
    ) -> Result<(), Trouble> {
        self.start += 1;
        let options = self.log_options(context);
        let opened = Wal::open(self.disk.directory(), options).map_err(OpenError::from);
        let mut log = opened.map_err(|error| self.cannot_open(&error))?;
        if self.damage == Some(Damage::RolledBack) {
            return violation(format!("node {} runs from an older copy of its folder", id_of(self.place)));
        }
        self.incarnation = log.incarnation();
        config.incarnation = self.incarnation;
        if !context.is_planted(PlantedBug::ForgetAcknowledged) {
            config.acknowledged.clone_from(&self.acknowledged);
        }
        let id = config.id;
        let machine = Observed {
            state: State::in_memory(),
            applied: Vec::new(),
            forgets_index: context.is_planted(PlantedBug::RestoreWithoutIndex),
        };
        let executor = Executor::open(config, &mut log, &machine, context.time());
        let executor = executor.map_err(|error| self.cannot_open(&error))?;
        let recovered = executor.replica().status();
        context.trace.note(1, recovered.last_index ^ (self.place as u64) << 48);
        let running = self.assemble(context, id, log, machine, executor)?;
        if running.beside.is_some() {
            let at = context.now + Time::try_from(COMPANION_EVERY.as_micros()).unwrap_or(SECOND);
            context.schedule.put(at, Event::Beside { place: self.place, start: self.start });
        }
        self.cut_off_since = None;
        self.running = Some(running);
        Ok(())
    }

    fn log_options(&mut self, context: &mut Context) -> WalOptions {
        let fresh = context.random.next().max(1);
        let is_kept = std::mem::take(&mut self.keeps_incarnation) && self.incarnation != 0;
        WalOptions::default().spare_in_background(false).segment_len(16 << 10).incarnation(if is_kept {
            self.incarnation
        } else {
            fresh
        })
    }

    /// What `x0-node data adopt` does: the copy becomes the original, under a new incarnation. With
    /// `keeps_incarnation`, the planted bug, under its old one.
    pub(super) fn adopt(&mut self, context: &mut Context, keeps_incarnation: bool) -> Result<(), String> {
        let options = self.log_options(context);
        let incarnation = options.incarnation;
        let opened = Wal::open(self.disk.directory(), options.accepts_copy(true));
        let mut log = opened.map_err(|error| causes(&error))?;
        let incarnation = if keeps_incarnation { log.incarnation() } else { incarnation };
        log.adopt(incarnation).map_err(|error| causes(&error))
    }

    /// What the node has to keep about the others is written once a second, as by the product.
    pub(super) fn keep_acknowledged(&mut self, now: Time) {
        if now < self.keep_at {
            return;
        }
        if let Some(running) = &self.running {
            self.acknowledged = running.status().acknowledged;
            self.keep_at = now + SECOND;
        }
    }

    fn cannot_open(&self, error: &OpenError) -> Trouble {
        match error {
            OpenError::Recover(RecoverError::Io { .. }) | OpenError::Read(ReadError::Io { .. }) => {
                Trouble::Disk
            }
            // A flipped bit may be one of the version.
            OpenError::Recover(
                RecoverError::Corrupt { .. }
                | RecoverError::Missing { .. }
                | RecoverError::Copied { .. }
                | RecoverError::UnsupportedVersion { .. },
            )
            | OpenError::Read(ReadError::Corrupt { .. }) => Trouble::Damaged(causes(error)),
            error => Trouble::Violation(format!("node {} cannot start: {error}", id_of(self.place))),
        }
    }

    /// Starts a node as [`Node::start`](crate::cluster::Node::start) does, with virtual workers.
    fn assemble(
        &self,
        context: &mut Context,
        id: NodeId,
        log: Wal,
        machine: Observed,
        executor: Executor,
    ) -> Result<Running, Trouble> {
        let (alarm, switch) = (Alarm::default(), Switch::default());
        let transport = Cable::new(context.mesh.transport(id), switch.clone(), context.traffic.clone());
        let mux = Mux::new(transport, MuxOptions::default().seed(context.random.next()));
        let open = |channel: &crate::cluster::ChannelSpec| {
            channel.open(&mux).map_err(|error| Trouble::Violation(format!("no channel: {error}")))
        };
        let (weather, traffic) = (context.weather.clone(), context.traffic.clone());
        let random = Random::new(context.random.next());
        let lossy = |channel| Box::new(Lossy::new(channel, weather, random, traffic)) as Box<_>;
        let consensus_channel = open(&consensus::CHANNEL)?.wrapped(lossy);

        let jobs = SharedJobs::default();
        let status = ReplicaStatus::new(&executor, machine.state.reader());
        let local = LocalState {
            reader: machine.state.reader(),
            readers: Box::new(jobs.clone()),
            queried: Inbox::new(alarm.clone()),
        };
        let calls = Calls::new(Inbox::new(alarm.clone()));
        let requests = Inbox::new(alarm.clone());
        let coordinator =
            Coordinator::new(coordinator::CoordinatorOptions::member(id), context.random.next());
        let workers = Box::new(SimWorkers { jobs: jobs.clone(), planted: context.planted });
        let events = Arc::new(Mutex::new(Vec::new()));
        let observed = Arc::clone(&events);
        let (sink, waits) = (self.log_sink.clone(), context.is_planted(PlantedBug::WaitForLog));
        let observe = move |event| {
            observed.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            sink.line(waits);
        };
        let peers = Arc::new(Peers::default());
        let mut bus = Bus { peers: Arc::clone(&peers), observe: Some(Box::new(observe)), ..Bus::default() };
        let admin = AdminCalls::new(Inbox::new(alarm.clone()));
        // Without a companion no client asks, and the channel would change what is played from a seed.
        let admin_channel = context.companions.as_ref().map(|_| open(&admin::CHANNEL)).transpose()?;
        bus.admin = admin_channel.as_ref().map(|_| VecDeque::new());

        let mut event_loop = EventLoop::new(alarm.clone(), bus);
        drive::start(&mut event_loop, &mux);
        event_loop.add(Operations::new(open(&operations::CHANNEL)?, coordinator, calls.clone(), Some(local)));
        let faulty = context.planted.map(|planted| (planted, status.clone()));
        if let Some((planted, status)) = faulty.clone() {
            event_loop.add(FaultyBus { planted, status });
        }
        event_loop.add(Consensus::new(
            consensus_channel,
            executor,
            workers,
            requests.clone(),
            status.clone(),
        ));
        if let Some((planted, status)) = faulty {
            event_loop.add(FaultyBus { planted, status });
        }
        if let Some(channel) = admin_channel {
            let engine = AdminEngine::new(id, Vec::new());
            event_loop.add(Admin::new(channel, engine, PeerRoles::default(), admin.clone()));
        }
        event_loop.add(Snapshots::new(open(&snapshots::CHANNEL)?));
        let statuses = Inbox::new(alarm.clone());
        event_loop.add(Status::new(id, open(&status::CHANNEL)?, statuses.clone(), Some(status.clone())));
        let beside = context.companions.as_mut().map(|companions| {
            let node = crate::cluster::Node::simulated(NodeParts {
                id,
                alarm: alarm.clone(),
                requests: requests.clone(),
                replica: status.clone(),
                peers: Arc::clone(&peers),
                statuses,
                admin,
                calls: calls.clone(),
            });
            Beside { companion: companions.make(&node, &mux), node }
        });
        let batch_max = if context.random.chance(200) { 1 } else { 64 };
        Ok(Running {
            place: self.place,
            start: self.start,
            process: Process::new(self.place, self.start, event_loop, calls, peers, switch),
            requests,
            alarm,
            status,
            events,
            changes: Vec::new(),
            beside,
            jobs,
            log: LogWorker::new(SimLog::new(log, context)).batch_max(batch_max),
            machine: ApplyWorker::new(machine),
            snapshots: SnapshotWorker::new(),
            logging: VecDeque::new(),
            applying: None,
            copying: None,
            reading: false,
            disk_lag: self.disk_lag,
            apply_lag: self.apply_lag,
            batch_max,
            is_slow: false,
        })
    }

    /// The process ends. With the power lost, a write under way may be there in part.
    pub(super) fn stop(&mut self, context: &mut Context, power_is_lost: bool) {
        self.start += 1;
        self.paused_until = 0;
        context.trace.note(2, (self.place as u64) << 1 | u64::from(power_is_lost));
        if let Some(mut running) = self.running.take() {
            running.process.kill();
            if power_is_lost && context.random.chance(700) {
                let operation = self.disk.folder.operations() + context.random.below(4);
                self.disk.folder.plant(operation, Fault::PowerLoss);
            }
            if running.interrupt() && power_is_lost && self.disk.folder.is_down() {
                context.report.torn_writes += 1;
            }
        }
        if power_is_lost {
            context.report.crashes += 1;
            self.disk.lose_power(&mut context.random);
        } else {
            context.report.kills += 1;
        }
    }

    /// Sets how slow it is from now on.
    pub(super) fn slow_down(&mut self, disk_lag: Time, apply_lag: Time) {
        (self.disk_lag, self.apply_lag) = (disk_lag, apply_lag);
        if let Some(running) = &mut self.running {
            (running.disk_lag, running.apply_lag) = (disk_lag, apply_lag);
        }
    }
}

/// The result of a write that went well.
fn written(job: &LogJob) -> Option<Done> {
    match job {
        LogJob::Write { number, .. } => Some(Done::Persisted { number: *number }),
        _ => None,
    }
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Running {
    /// Begins what the disk's threads have in hand and does not finish it. Whether there was anything.
    fn interrupt(&mut self) -> bool {
        if let Some(LogJob::Write { .. }) = self.logging.front() {
            // The process has ended: the result has no receiver.
            let _ = self.log.work(&mut self.logging);
            return true;
        }
        match self.copying.take() {
            Some(job) => {
                let _ = self.snapshots.work(job);
                true
            }
            None => false,
        }
    }

    /// Polls the event loop, then lets the threads take what it gave them.
    pub(super) fn poll(&mut self, context: &mut Context, waker: &Waker) -> Result<(), Trouble> {
        let end = self.process.poll(context, waker)?;
        self.note_events(context)?;
        if let Poll::Ready(end) = end {
            return Err(self.trouble(&end));
        }
        self.begin_jobs(context);
        Ok(())
    }

    fn note_events(&mut self, context: &mut Context) -> Result<(), Trouble> {
        let events = std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner));
        for event in events {
            if let NodeEvent::Leader { leader, term } = event {
                context.trace.note(4, term << 8 | leader.map_or(0, NodeId::get));
                if leader == Some(id_of(self.place)) {
                    context.leads(term, id_of(self.place))?;
                }
            }
        }
        let report = &mut context.report;
        self.changes.retain_mut(|change| match change.try_recv() {
            Ok(made) => {
                report.membership_changes += u64::from(made.is_ok());
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        Ok(())
    }

    fn trouble(&self, end: &End) -> Trouble {
        let End::Failed(NodeError::Replica(cause)) = end else {
            return Trouble::Violation(format!("node {} ends: {end:?}", id_of(self.place)));
        };
        match &**cause {
            FatalError::Write(WriteError::Full { .. } | WriteError::Io { .. } | WriteError::Poisoned)
            | FatalError::Read(ReadError::Io { .. })
            | FatalError::SnapshotRead(SnapshotReadError::Io { .. }) => Trouble::Disk,
            FatalError::Replica(FailReason::LogLost) => {
                Trouble::LogLost(format!("node {} fails: {cause}", id_of(self.place)))
            }
            FatalError::Read(ReadError::Corrupt { .. })
            | FatalError::SnapshotRead(_)
            | FatalError::StateMachine(_) => Trouble::Damaged(causes(&**cause)),
            cause => Trouble::Violation(format!("node {} fails: {cause}", id_of(self.place))),
        }
    }

    pub(super) fn change(&mut self, change: MembershipChange) {
        let (answer, made) = oneshot::channel();
        self.requests.put(Request::Change { change, answer });
        self.changes.push(made);
    }

    /// The turn of the program beside the node.
    pub(super) fn beside(&mut self, context: &Context, cut_off: Option<std::time::Duration>) {
        if let Some(Beside { node, companion }) = &mut self.beside {
            companion.work(context.time(), node, cut_off);
        }
    }

    pub(super) fn transfer(&self, to: NodeId) {
        self.requests.put(Request::TransferLeadership { to });
    }

    pub(super) fn ask(&mut self, asking: Asking) {
        self.process.ask(asking);
    }

    pub(super) fn status(&self) -> x0_consensus::Status {
        self.status.get()
    }

    /// Whether it takes itself for the leader.
    pub(super) fn leads(&self) -> bool {
        let status = self.status.get();
        status.leader == Some(status.id)
    }

    /// Lets each thread take its next job.
    fn begin_jobs(&mut self, context: &mut Context) {
        let mut jobs = self.jobs.lock();
        let (place, start) = (self.place, self.start);
        if self.logging.is_empty() {
            // A group of writes is taken together, as far as they are made durable together.
            while let Some(job) = jobs.log.front() {
                let is_write = matches!(job, LogJob::Write { .. });
                if !self.logging.is_empty() && (!is_write || self.logging.len() >= self.batch_max) {
                    break;
                }
                self.logging.extend(jobs.log.pop_front());
                if !is_write {
                    break;
                }
            }
            let lag = match self.logging.front() {
                Some(LogJob::Write { .. }) => Some(context.random.between(200, 1500)),
                Some(_) => Some(context.random.between(20, 500)),
                None => None,
            };
            if let Some(lag) = lag {
                let lag = lag + context.random.below(self.disk_lag + 1);
                self.is_slow = lag > SECOND;
                if self.is_slow
                    && let Some(LogJob::Write { .. }) = self.logging.front()
                {
                    context.report.slow_writes += 1;
                    if context.is_planted(PlantedBug::AcknowledgeSlowWrite) {
                        jobs.done.extend(self.logging.iter().filter_map(written));
                    }
                }
                context.schedule.put(context.now + lag, Event::Logged { place, start });
            }
        }
        if self.applying.is_none() {
            self.applying = jobs.apply.pop_front();
            if self.applying.is_some() {
                let lag = context.random.between(10, 200) + context.random.below(self.apply_lag + 1);
                context.schedule.put(context.now + lag, Event::Applied { place, start });
            }
        }
        if self.copying.is_none() {
            self.copying = jobs.snapshots.pop_front();
            if self.copying.is_some() {
                let lag = context.random.between(20, 1000) + context.random.below(self.disk_lag + 1);
                context.schedule.put(context.now + lag, Event::Copied { place, start });
            }
        }
        if !self.reading && !jobs.reads.is_empty() {
            self.reading = true;
            let lag = context.random.between(10, 300) + context.random.below(self.apply_lag + 1);
            context.schedule.put(context.now + lag, Event::Read { place, start });
        }
    }

    fn done(&self, done: Done) {
        let mut jobs = self.jobs.lock();
        // As the threads of a node do.
        let is_patient = jobs.can_wait_for_log && matches!(done, Done::Persisted { .. });
        jobs.done.push_back(done);
        drop(jobs);
        if !is_patient {
            self.alarm.raise();
        }
    }

    /// The log thread is done with what it had in hand.
    pub(super) fn logged(&mut self, context: &mut Context) {
        let number = self.logging.front().and_then(written);
        let Some(mut done) = self.log.work(&mut self.logging) else { return };
        // Writes behind those that wait for space leave the queue one by one.
        while matches!(done, Done::Nothing)
            && let Some(next) = self.log.work(&mut self.logging)
        {
            done = next;
        }
        let done = match (done, number) {
            (Done::NoSpace { .. }, Some(number))
                if context.is_planted(PlantedBug::AcknowledgeWithoutSpace) =>
            {
                number
            }
            (done, _) => done,
        };
        if self.is_slow && context.is_planted(PlantedBug::AcknowledgeSlowWrite) {
            return;
        }
        if let Done::Persisted { number } = &done {
            context.trace.note(5, number ^ (self.place as u64) << 48);
            if context.is_planted(PlantedBug::AcknowledgeBeforePersist) {
                return;
            }
        }
        self.done(done);
    }

    /// The applying thread is done with what it had in hand.
    pub(super) fn applied(&mut self, context: &mut Context) -> Result<(), Trouble> {
        let Some(mut job) = self.applying.take() else { return violation("nothing was being applied") };
        if let ApplyJob::Apply { entries, .. } = &mut job {
            let applied = self.machine.machine().state.applied();
            if entries.first().is_some_and(|first| first.index != applied + 1) {
                return violation(format!("node {} applies entries out of their order", id_of(self.place)));
            }
            if context.is_planted(PlantedBug::ApplyTwice) {
                // Without its request id a write that was sent twice takes effect twice.
                for entry in entries.iter_mut().filter(|entry| entry.is_command()) {
                    if let Ok(Command::Write { keyspace, mutation, .. }) = Command::decode(&entry.payload) {
                        entry.payload = Command::encode_write(None, &keyspace, &mutation);
                    }
                }
            }
        }
        let done = self.machine.work(job);
        if let Done::Restored { index } = &done {
            context.report.snapshots_installed += 1;
            context.trace.note(6, *index);
        }
        for (entry, outcome) in std::mem::take(&mut self.machine.machine_mut().applied) {
            context.applies(self.place, &entry, &outcome)?;
        }
        self.done(done);
        Ok(())
    }

    /// The snapshot thread is done with what it had in hand.
    pub(super) fn copied(&mut self, context: &mut Context) {
        let Some(job) = self.copying.take() else { return };
        let done = match self.snapshots.work(job) {
            Done::Saved { transfer, meta, result: Err(_) }
                if context.is_planted(PlantedBug::SaveWithoutSpace) =>
            {
                Done::Saved { transfer, meta, result: Ok(()) }
            }
            done => done,
        };
        if let Done::Saved { result: Ok(()), .. } = &done {
            context.report.snapshots_saved += 1;
        }
        self.done(done);
    }

    /// The reading thread is done with a read.
    pub(super) fn read(&mut self) {
        self.reading = false;
        let read = self.jobs.lock().reads.pop_front();
        if let Some(read) = read {
            read();
        }
    }

    /// The applied index, and a hash of the state.
    pub(super) fn digest(&mut self) -> (u64, u64) {
        let mut bytes = Vec::new();
        let state = &mut self.machine.machine_mut().state;
        // A state in memory cannot fail to be read.
        let _ = State::snapshot(state).read_to_end(&mut bytes);
        (state.applied(), u64::from(crc32c::crc32c(&bytes)) << 32 | bytes.len() as u64)
    }

    pub(super) fn applied_index(&self) -> u64 {
        self.machine.machine().state.applied()
    }
}
