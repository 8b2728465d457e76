//! One full node: a replica, its log, its state and its coordinator, with the threads that carry work out in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write as _};
use std::ops::Range;

use bytes::Bytes;
use x0_consensus::sim::Fault;
use x0_consensus::{
    Class, Entry, HandleError, Input, MembershipChange, Output, ReadError, RecoverError, Replica,
    SnapshotMeta, SnapshotReader, SnapshotWriter, StageStep, StateMachine, Storage, Wal, WalOptions, Write,
    WriteError,
};
use x0_identity::NodeId;

use super::context::{Context, Trouble, violation};
use super::disk::Disk;
use super::schedule::{Event, MILLISECOND, Place, Road, Time};
use super::{PlantedBug, id_of, place_of};
use crate::coordinator::{self, Coordinator, DropReason};
use crate::request::command::Command;
use crate::request::operation::Operation;
use crate::state::State;
use crate::state::storage::Reader;

/// Tokens with this bit are the world's own.
const OWN: u64 = 1 << 62;

/// A node, up or down.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) disk: Disk,
    /// Counts the starts. What was under way in an earlier one is passed over.
    pub(super) start: u32,
    pub(super) running: Option<Running>,
    /// Until when the process stands still.
    pub(super) paused_until: Time,
    /// How long its disk and its applying take beyond the usual, at most.
    pub(super) disk_lag: Time,
    pub(super) apply_lag: Time,
}

/// What a start of a node is made of.
pub(super) struct Running {
    place: Place,
    start: u32,
    pub(super) replica: Replica,
    coordinator: Coordinator,
    log: Wal,
    state: State,
    reader: Reader,
    disk_lag: Time,
    apply_lag: Time,
    /// Most writes that are made durable together.
    batch_max: usize,

    log_jobs: VecDeque<LogJob>,
    logging: Option<LogJob>,
    apply_jobs: VecDeque<ApplyJob>,
    applying: Option<ApplyJob>,
    copy_jobs: VecDeque<CopyJob>,
    copying: Option<CopyJob>,
    open: BTreeMap<u64, Box<dyn Read + Send>>,
    staging: Option<(u64, Box<dyn SnapshotWriter>)>,

    /// What the replica told the coordinator, on its way from one thread to the other.
    mail: VecDeque<(Time, coordinator::Input)>,
    mail_lag: Time,
    /// When a wake is scheduled.
    wake: Time,
}

enum LogJob {
    Write { writes: Vec<Write>, number: u64 },
    Fetch { range: Range<u64>, len_max: usize },
    Save { transfer: u64, meta: SnapshotMeta },
    Begin { transfer: u64, meta: SnapshotMeta },
    Copy(CopyJob),
    Read,
}

enum ApplyJob {
    Apply { entries: Vec<Entry>, proposals: Vec<(u64, u64)> },
    Restore { meta: SnapshotMeta, from: Option<Box<dyn SnapshotReader>> },
    Checkpoint,
    OpenSnapshot { transfer: u64 },
}

enum CopyJob {
    Open { transfer: u64, from: Box<dyn Read + Send> },
    ReadChunk { transfer: u64, len_max: usize },
    Close { transfer: u64 },
    Save { transfer: u64, meta: SnapshotMeta, to: Option<Box<dyn SnapshotWriter>> },
    Begin { transfer: u64, to: Option<Box<dyn SnapshotWriter>> },
    Step { transfer: u64, step: StageStep },
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.replica.fmt(formatter)
    }
}

impl Node {
    pub(super) fn new(place: Place, forgets: bool) -> Node {
        Node {
            place,
            disk: Disk::new(forgets),
            start: 0,
            running: None,
            paused_until: 0,
            disk_lag: 0,
            apply_lag: 0,
        }
    }

    /// Recovers what the disk holds and goes on from there.
    pub(super) fn start(
        &mut self,
        context: &mut Context,
        config: x0_consensus::Options,
    ) -> Result<(), Trouble> {
        self.start += 1;
        let place = self.place;
        let cannot_open = |error: RecoverError| match error {
            RecoverError::Io { .. } => Trouble::Disk,
            error => Trouble::Violation(format!("node {} cannot open its log: {error}", id_of(place))),
        };
        let mut options = WalOptions::default();
        options.spare_in_background = false;
        options.segment_len = 16 << 10;
        let mut log = Wal::open(self.disk.directory(), options).map_err(cannot_open)?;
        let recovered = log.recover().map_err(cannot_open)?;
        context.trace.note(1, recovered.last_index ^ (place as u64) << 48);
        let wanted = recovered.unapplied(0);
        let mut unapplied = Vec::new();
        let mut next = wanted.start;
        while next < wanted.end {
            let read = match log.read(next..wanted.end, 4 << 10) {
                Ok(read) => read,
                Err(ReadError::Io { .. }) => return Err(Trouble::Disk),
                Err(error) => {
                    return violation(format!("node {} cannot read its log: {error}", id_of(place)));
                }
            };
            let Some(last) = read.last() else { break };
            next = last.index + 1;
            unapplied.extend(read);
        }
        let id = config.id;
        let replica = match Replica::new(config, recovered, &unapplied, 0, context.time()) {
            Ok(replica) => replica,
            Err(error) => return violation(format!("node {id} cannot start: {error}")),
        };
        let state = State::in_memory();
        let config = coordinator::Config::member(id);
        let mail_lag = if context.random.chance(300) { 5 * MILLISECOND } else { 100 };
        let batch_max = if context.random.chance(200) { 1 } else { 64 };
        let mut running = Running {
            place: self.place,
            start: self.start,
            replica,
            coordinator: Coordinator::new(config, context.random.next()),
            log,
            reader: state.reader(),
            state,
            disk_lag: self.disk_lag,
            apply_lag: self.apply_lag,
            batch_max,
            log_jobs: VecDeque::new(),
            logging: None,
            apply_jobs: VecDeque::new(),
            applying: None,
            copy_jobs: VecDeque::new(),
            copying: None,
            open: BTreeMap::new(),
            staging: None,
            mail: VecDeque::new(),
            mail_lag,
            wake: Time::MAX,
        };
        running.settle(context)?;
        self.running = Some(running);
        Ok(())
    }

    /// The process ends. With the power lost, a write under way may be there in part.
    pub(super) fn stop(&mut self, context: &mut Context, power_is_lost: bool) {
        self.start += 1;
        self.paused_until = 0;
        context.trace.note(2, (self.place as u64) << 1 | u64::from(power_is_lost));
        context.network.forget(self.place);
        if let Some(mut running) = self.running.take() {
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

impl Running {
    /// Begins what the disk's threads have in hand and does not finish it. Whether there was anything.
    fn interrupt(&mut self) -> bool {
        if let Some(LogJob::Write { writes, .. }) = self.logging.take() {
            // How it ends nobody sees.
            let _ = self.log.write(&writes);
            return true;
        }
        match self.copying.take() {
            Some(job) => {
                let _ = self.copy(job);
                true
            }
            None => false,
        }
    }

    pub(super) fn handle(&mut self, context: &mut Context, input: Input) -> Result<(), Trouble> {
        match self.replica.handle(context.time(), input) {
            Ok(()) => Ok(()),
            Err(HandleError::Failed(reason)) => {
                violation(format!("node {} fails: {reason}", id_of(self.place)))
            }
            Err(error) => violation(format!("node {} refuses what a peer sent: {error}", id_of(self.place))),
        }
    }

    pub(super) fn tell(&mut self, context: &Context, input: coordinator::Input) -> Result<(), Trouble> {
        match self.coordinator.handle(context.time(), input) {
            Ok(()) => Ok(()),
            Err(error) => violation(error.to_string()),
        }
    }

    /// A message has come.
    pub(super) fn receive(
        &mut self,
        context: &mut Context,
        from: Place,
        road: Road,
        payload: Bytes,
    ) -> Result<(), Trouble> {
        let from = id_of(from);
        match road {
            Road::Consensus => self.handle(context, Input::Message { from, payload })?,
            Road::Operations => self.tell(context, coordinator::Input::Message { from, payload })?,
        }
        self.settle(context)
    }

    /// What was sent to this peer is lost.
    pub(super) fn lost(&mut self, context: &mut Context, peer: Place, road: Road) -> Result<(), Trouble> {
        let peer = id_of(peer);
        match road {
            Road::Consensus => self.handle(context, Input::Unreachable { peer })?,
            Road::Operations => self.tell(context, coordinator::Input::Unreachable { peer })?,
        }
        self.settle(context)
    }

    /// A worker on this node asks for something.
    pub(super) fn call(&mut self, context: &mut Context, input: coordinator::Input) -> Result<(), Trouble> {
        self.tell(context, input)?;
        self.settle(context)
    }

    pub(super) fn change(&mut self, context: &mut Context, change: MembershipChange) -> Result<(), Trouble> {
        self.handle(context, Input::ChangeMembership { token: OWN, change })?;
        self.settle(context)
    }

    pub(super) fn transfer(&mut self, context: &mut Context, to: NodeId) -> Result<(), Trouble> {
        self.handle(context, Input::TransferLeadership { to })?;
        self.settle(context)
    }

    /// What it waits for may be due.
    pub(super) fn wake(&mut self, context: &mut Context) -> Result<(), Trouble> {
        if context.now < self.wake {
            return Ok(());
        }
        self.wake = Time::MAX;
        let now = context.time();
        while self.mail.front().is_some_and(|(at, _)| *at <= context.now)
            && let Some((_, input)) = self.mail.pop_front()
        {
            self.tell(context, input)?;
        }
        if self.coordinator.poll_timeout().is_some_and(|due| due <= now) {
            self.tell(context, coordinator::Input::Tick)?;
        }
        if self.replica.poll_timeout().is_some_and(|due| due <= now) {
            self.handle(context, Input::Timeout)?;
        }
        self.settle(context)
    }

    /// Carries everything out, then sees to being woken in time.
    pub(super) fn settle(&mut self, context: &mut Context) -> Result<(), Trouble> {
        loop {
            let mut is_busy = false;
            while let Some(output) = self.replica.poll_output() {
                is_busy = true;
                self.perform(context, output)?;
            }
            while let Some(output) = self.coordinator.poll_output() {
                is_busy = true;
                self.carry_out(context, output)?;
            }
            if !is_busy {
                break;
            }
        }
        let Some(tick) = self.replica.poll_timeout() else {
            return violation(format!("node {} fails: an invariant of the engine broke", id_of(self.place)));
        };
        let due = self.coordinator.poll_timeout().map_or(tick, |due| due.min(tick));
        let mut due = Time::try_from(due.as_nanos().div_ceil(1000)).unwrap_or(Time::MAX);
        if let Some((at, _)) = self.mail.front() {
            due = due.min(*at);
        }
        if due < self.wake {
            self.wake = due.max(context.now);
            context.schedule.put(self.wake, Event::Wake { place: self.place, start: self.start });
        }
        Ok(())
    }

    /// What the replica wants.
    fn perform(&mut self, context: &mut Context, output: Output) -> Result<(), Trouble> {
        match output {
            Output::Append { number, write } => {
                if context.is_planted(PlantedBug::AcknowledgeBeforePersist) {
                    self.handle(context, Input::Persisted { number })?;
                }
                self.log(context, LogJob::Write { writes: vec![write], number });
            }
            Output::Send { to, class, payload } => {
                if class == Class::Snapshot {
                    context.trace.note(3, payload.len() as u64);
                }
                context.send(self.place, place_of(to), Road::Consensus, payload.into());
            }
            Output::Apply { entries, proposals } => {
                self.apply(context, ApplyJob::Apply { entries, proposals });
            }
            Output::ReadReady { tokens, index } => {
                for token in tokens {
                    self.mail(context, coordinator::Input::ReadReady { token, index });
                }
            }
            Output::Dropped { token, .. } if token & OWN == OWN && token >> 63 == 0 => {}
            Output::Dropped { token, reason } => {
                let reason = drop_reason(reason);
                self.mail(context, coordinator::Input::Dropped { token, reason });
            }
            Output::Leader { leader, term, is_self } => {
                if is_self {
                    context.leads(term, id_of(self.place))?;
                }
                context.trace.note(4, term << 8 | leader.map_or(0, NodeId::get));
                self.mail(context, coordinator::Input::Leader { leader, term, is_self });
            }
            Output::Membership(_) => {}
            Output::Fetch { range, len_max } => self.log(context, LogJob::Fetch { range, len_max }),
            Output::OpenSnapshot { transfer } => self.apply(context, ApplyJob::OpenSnapshot { transfer }),
            Output::ReadChunk { transfer, len_max } => {
                self.log(context, LogJob::Copy(CopyJob::ReadChunk { transfer, len_max }));
            }
            Output::CloseSnapshot { transfer } => {
                self.log(context, LogJob::Copy(CopyJob::Close { transfer }));
            }
            Output::SaveSnapshot { transfer, meta } => self.log(context, LogJob::Save { transfer, meta }),
            Output::Stage { transfer, step: StageStep::Begin { meta } } => {
                self.log(context, LogJob::Begin { transfer, meta });
            }
            Output::Stage { transfer, step } => {
                self.log(context, LogJob::Copy(CopyJob::Step { transfer, step }));
            }
            Output::Restore { meta } => self.apply(context, ApplyJob::Restore { meta, from: None }),
            Output::Checkpoint => self.apply(context, ApplyJob::Checkpoint),
            other => return violation(format!("nobody carries this out: {other:?}")),
        }
        Ok(())
    }

    /// What the coordinator wants.
    fn carry_out(&mut self, context: &mut Context, output: coordinator::Output) -> Result<(), Trouble> {
        match output {
            coordinator::Output::Propose { token, payload } => {
                self.handle(context, Input::Propose { token, payload })?;
            }
            coordinator::Output::ReadIndex { token } => {
                if context.is_planted(PlantedBug::ReadWithoutQuorum) && self.replica.is_leader() {
                    let index = self.state.applied();
                    self.mail(context, coordinator::Input::ReadReady { token, index });
                } else {
                    self.handle(context, Input::ReadIndex { token })?;
                }
            }
            coordinator::Output::Query { token, keyspace, query } => {
                let answer = self.reader.query(&keyspace, &query);
                self.tell(context, coordinator::Input::Queried { token, answer })?;
            }
            coordinator::Output::Send { to, payload } => {
                context.send(self.place, place_of(to), Road::Operations, payload);
            }
            coordinator::Output::Reply { token, result } => context.answers.push((token, result)),
        }
        Ok(())
    }

    /// Tells the coordinator, which lives on another thread.
    fn mail(&mut self, context: &mut Context, input: coordinator::Input) {
        let behind = self.mail.back().map_or(0, |(at, _)| *at);
        let at = (context.now + context.random.below(self.mail_lag)).max(behind);
        self.mail.push_back((at, input));
    }

    fn log(&mut self, context: &mut Context, job: LogJob) {
        self.log_jobs.push_back(job);
        self.log_next(context);
    }

    /// The log thread takes what comes next: of writes all that are there.
    fn log_next(&mut self, context: &mut Context) {
        if self.logging.is_some() {
            return;
        }
        let Some(mut job) = self.log_jobs.pop_front() else { return };
        let lag = match &mut job {
            LogJob::Write { writes, number } => {
                while writes.len() < self.batch_max {
                    match self.log_jobs.pop_front() {
                        Some(LogJob::Write { writes: more, number: last }) => {
                            writes.extend(more);
                            *number = last;
                        }
                        Some(other) => {
                            self.log_jobs.push_front(other);
                            break;
                        }
                        None => break,
                    }
                }
                context.random.between(200, 1500) + context.random.below(self.disk_lag + 1)
            }
            LogJob::Save { .. } | LogJob::Begin { .. } | LogJob::Fetch { .. } => {
                context.random.between(20, 500) + context.random.below(self.disk_lag + 1)
            }
            LogJob::Copy(_) | LogJob::Read => 5,
        };
        self.logging = Some(job);
        let (place, start) = (self.place, self.start);
        context.schedule.put(context.now + lag, Event::Logged { place, start });
    }

    /// The log thread is done with what it had in hand.
    pub(super) fn logged(&mut self, context: &mut Context) -> Result<(), Trouble> {
        match self.logging.take() {
            Some(LogJob::Write { writes, number }) => {
                context.trace.note(5, number ^ (self.place as u64) << 48);
                match self.log.write(&writes) {
                    Ok(()) => {}
                    Err(WriteError::Full { .. } | WriteError::Io { .. } | WriteError::Poisoned) => {
                        return Err(Trouble::Disk);
                    }
                    Err(error) => {
                        return violation(format!("node {} misuses its log: {error}", id_of(self.place)));
                    }
                }
                if !context.is_planted(PlantedBug::AcknowledgeBeforePersist) {
                    self.handle(context, Input::Persisted { number })?;
                }
            }
            Some(LogJob::Fetch { range, len_max }) => {
                let entries = self.log.read(range, len_max).unwrap_or_default();
                self.handle(context, Input::Fetched { entries })?;
            }
            Some(LogJob::Save { transfer, meta }) => {
                let to = self.log.snapshot_writer(&meta).ok();
                self.copy_later(context, CopyJob::Save { transfer, meta, to });
            }
            Some(LogJob::Begin { transfer, meta }) => {
                let to = self.log.snapshot_writer(&meta).ok();
                self.copy_later(context, CopyJob::Begin { transfer, to });
            }
            Some(LogJob::Copy(job)) => self.copy_later(context, job),
            Some(LogJob::Read) => {
                let reader = match self.log.snapshot_reader() {
                    Ok(Some(reader)) => reader,
                    Ok(None) => return violation("the snapshot to restore from is not there"),
                    Err(error) => return violation(format!("the snapshot cannot be read: {error}")),
                };
                if let Some(ApplyJob::Restore { from, .. }) = &mut self.applying {
                    *from = Some(reader);
                    let at = context.now + context.random.between(50, 2000);
                    let (place, start) = (self.place, self.start);
                    context.schedule.put(at, Event::Applied { place, start });
                }
            }
            None => {}
        }
        self.log_next(context);
        self.settle(context)
    }

    fn apply(&mut self, context: &mut Context, job: ApplyJob) {
        self.apply_jobs.push_back(job);
        self.apply_next(context);
    }

    fn apply_next(&mut self, context: &mut Context) {
        if self.applying.is_some() {
            return;
        }
        let Some(job) = self.apply_jobs.pop_front() else { return };
        let is_restore = matches!(job, ApplyJob::Restore { .. });
        self.applying = Some(job);
        if is_restore {
            return self.log(context, LogJob::Read);
        }
        let lag = context.random.between(10, 200) + context.random.below(self.apply_lag + 1);
        let (place, start) = (self.place, self.start);
        context.schedule.put(context.now + lag, Event::Applied { place, start });
    }

    /// The applying thread is done with what it had in hand.
    pub(super) fn applied(&mut self, context: &mut Context) -> Result<(), Trouble> {
        let input = match self.applying.take() {
            Some(ApplyJob::Apply { entries, proposals }) => {
                self.apply_entries(context, entries, &proposals)?
            }
            Some(ApplyJob::Restore { meta, from: Some(mut from) }) => {
                if let Err(error) = StateMachine::restore(&mut self.state, &meta, &mut from) {
                    return violation(format!("node {} cannot restore: {error}", id_of(self.place)));
                }
                context.report.snapshots_installed += 1;
                context.trace.note(6, meta.index);
                Input::Restored { index: meta.index }
            }
            Some(ApplyJob::Restore { from: None, .. }) | None => {
                return violation("nothing was being applied");
            }
            Some(ApplyJob::Checkpoint) => match self.state.checkpoint() {
                Ok(index) => Input::Checkpointed { index },
                Err(error) => return violation(format!("no checkpoint: {error}")),
            },
            Some(ApplyJob::OpenSnapshot { transfer }) => {
                let from = State::snapshot(&mut self.state);
                self.log(context, LogJob::Copy(CopyJob::Open { transfer, from }));
                Input::SnapshotOpened { transfer, index: self.state.applied() }
            }
        };
        self.handle(context, input)?;
        self.apply_next(context);
        self.settle(context)
    }

    fn apply_entries(
        &mut self,
        context: &mut Context,
        mut entries: Vec<Entry>,
        proposals: &[(u64, u64)],
    ) -> Result<Input, Trouble> {
        let Some(index) = entries.last().map(|entry| entry.index) else {
            return violation("nothing is to be applied");
        };
        if entries.first().is_some_and(|first| first.index != self.state.applied() + 1) {
            return violation(format!("node {} applies entries out of their order", id_of(self.place)));
        }
        if context.is_planted(PlantedBug::ApplyTwice) {
            // Without its stamp a write that was sent twice takes effect twice.
            for entry in entries.iter_mut().filter(|entry| entry.is_command()) {
                if let Ok(Command::Write { keyspace, mutation, .. }) = Command::decode(&entry.payload) {
                    entry.payload = Command::encode_write(None, &keyspace, &mutation);
                }
            }
        }
        let mut outcomes = Vec::new();
        if let Err(error) = StateMachine::apply(&mut self.state, &entries, &mut outcomes) {
            return violation(format!("node {} cannot apply: {error}", id_of(self.place)));
        }
        let mut proposals = proposals.iter().copied().peekable();
        let mut outcomes = outcomes.into_iter();
        for entry in &entries {
            let outcome = if entry.is_command() { outcomes.next() } else { None };
            context.applies(self.place, entry, outcome.as_deref().unwrap_or_default())?;
            let Some((index, token)) = proposals.next_if(|(index, _)| *index == entry.index) else {
                continue;
            };
            if token & OWN == OWN && token >> 63 == 0 {
                context.report.membership_changes += 1;
            } else {
                let outcome = outcome.unwrap_or_default();
                self.mail(context, coordinator::Input::Outcome { token, index, outcome });
            }
        }
        Ok(Input::Applied { index })
    }

    fn copy_later(&mut self, context: &mut Context, job: CopyJob) {
        self.copy_jobs.push_back(job);
        self.copy_next(context);
    }

    fn copy_next(&mut self, context: &mut Context) {
        if self.copying.is_some() {
            return;
        }
        self.copying = self.copy_jobs.pop_front();
        if self.copying.is_some() {
            let lag = context.random.between(20, 1000) + context.random.below(self.disk_lag + 1);
            let (place, start) = (self.place, self.start);
            context.schedule.put(context.now + lag, Event::Copied { place, start });
        }
    }

    /// The snapshot thread is done with what it had in hand.
    pub(super) fn copied(&mut self, context: &mut Context) -> Result<(), Trouble> {
        if let Some(job) = self.copying.take()
            && let Some(input) = self.copy(job)
        {
            if matches!(input, Input::SnapshotSaved { .. }) {
                context.report.snapshots_saved += 1;
            }
            self.handle(context, input)?;
        }
        self.copy_next(context);
        self.settle(context)
    }

    fn copy(&mut self, job: CopyJob) -> Option<Input> {
        match job {
            CopyJob::Open { transfer, from } => {
                self.open.insert(transfer, from);
                None
            }
            CopyJob::Close { transfer } => {
                self.open.remove(&transfer);
                None
            }
            CopyJob::ReadChunk { transfer, len_max } => {
                let mut bytes = Vec::new();
                let read = self
                    .open
                    .get_mut(&transfer)
                    .map(|from| from.take(len_max as u64).read_to_end(&mut bytes));
                Some(match read {
                    Some(Ok(len)) => Input::ChunkRead { transfer, bytes: bytes.into(), last: len < len_max },
                    Some(Err(_)) | None => Input::SnapshotClosed { transfer },
                })
            }
            CopyJob::Save { transfer, meta, to } => {
                let is_saved = match (self.open.remove(&transfer), to) {
                    (Some(mut from), Some(mut to)) => {
                        std::io::copy(&mut from, &mut to).is_ok() && to.finish().is_ok()
                    }
                    _ => false,
                };
                Some(if is_saved {
                    Input::SnapshotSaved { meta }
                } else {
                    Input::SnapshotClosed { transfer }
                })
            }
            CopyJob::Begin { transfer, to } => {
                self.staging = to.map(|to| (transfer, to));
                self.staging.is_none().then_some(Input::Staged { transfer, ok: false })
            }
            CopyJob::Step { transfer, step } => {
                let (_, to) = self.staging.as_mut().filter(|(staged, _)| *staged == transfer)?;
                let ok = match step {
                    StageStep::Begin { .. } => return None,
                    StageStep::Write { bytes } => match to.write_all(&bytes) {
                        Ok(()) => return None,
                        Err(_) => false,
                    },
                    StageStep::Finish => self.staging.take().is_some_and(|(_, to)| to.finish().is_ok()),
                };
                self.staging = None;
                Some(Input::Staged { transfer, ok })
            }
        }
    }

    /// What it has applied, and a hash of it.
    pub(super) fn digest(&mut self) -> (u64, u64) {
        let mut bytes = Vec::new();
        // A state in memory cannot fail to be read.
        let _ = State::snapshot(&mut self.state).read_to_end(&mut bytes);
        (self.state.applied(), u64::from(crc32c::crc32c(&bytes)) << 32 | bytes.len() as u64)
    }

    pub(super) fn applied_index(&self) -> u64 {
        self.state.applied()
    }
}

/// A client outside: a coordinator and nothing else.
#[derive(Debug)]
pub(super) struct Outside {
    place: Place,
    coordinator: Coordinator,
    start: u32,
    wake: Time,
}

impl Outside {
    pub(super) fn new(context: &mut Context, place: Place, members: Vec<NodeId>, start: u32) -> Outside {
        let config = coordinator::Config::client(id_of(place), members);
        let coordinator = Coordinator::new(config, context.random.next());
        Outside { place, coordinator, start, wake: Time::MAX }
    }

    pub(super) fn start(&self) -> u32 {
        self.start
    }

    pub(super) fn handle(&mut self, context: &mut Context, input: coordinator::Input) -> Result<(), Trouble> {
        if let Err(error) = self.coordinator.handle(context.time(), input) {
            return violation(error.to_string());
        }
        while let Some(output) = self.coordinator.poll_output() {
            match output {
                coordinator::Output::Send { to, payload } => {
                    context.send(self.place, place_of(to), Road::Operations, payload);
                }
                coordinator::Output::Reply { token, result } => context.answers.push((token, result)),
                other => return violation(format!("a client has no replica to ask: {other:?}")),
            }
        }
        if let Some(due) = self.coordinator.poll_timeout() {
            let due = Time::try_from(due.as_nanos().div_ceil(1000)).unwrap_or(Time::MAX);
            if due < self.wake {
                self.wake = due.max(context.now);
                context.schedule.put(self.wake, Event::Wake { place: self.place, start: self.start });
            }
        }
        Ok(())
    }

    pub(super) fn wake(&mut self, context: &mut Context) -> Result<(), Trouble> {
        if context.now < self.wake {
            return Ok(());
        }
        self.wake = Time::MAX;
        self.handle(context, coordinator::Input::Tick)
    }
}

/// What a worker asks a coordinator.
pub(super) fn call(token: u64, operation: Operation, deadline: Time) -> coordinator::Input {
    let deadline = Some(std::time::Duration::from_micros(deadline));
    coordinator::Input::Call { token, operation, deadline }
}

/// In the words of the coordinator.
fn drop_reason(reason: x0_consensus::DropReason) -> DropReason {
    use x0_consensus::DropReason as Replica;
    match reason {
        Replica::NotLeader { leader } => DropReason::NotLeader { leader },
        Replica::Full => DropReason::Full,
        Replica::Length => DropReason::Length,
        Replica::Transferring => DropReason::Transferring,
        Replica::Superseded => DropReason::Superseded,
        _ => DropReason::Unknown,
    }
}
