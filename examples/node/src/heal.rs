//! The healer of a node: the driver of `x0_mapek::kv`, which decides, and of the healers beside it: see
//! `beside`.
//!
//! `[heal]` sets its mode, and the default is a dry run: everything is recorded, nothing is done.
//!
//! The records are in the folder `heal` of the data folder, at most 512 KiB. `x0-node heal log` lists them
//! and `x0-node heal why` explains one. Operators ask a running healer, pause it, and approve what `[heal]`
//! leaves to a person: see `control`. A pause is kept in the folder `heal`, so that a restart does not end
//! it.

mod beside;
pub(crate) mod commands;
pub(crate) mod config;
mod control;
mod load;
mod pause;
mod peers;
mod process;
mod records;
mod suspicion;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use x0_identity::NodeId;
use x0_kv::admin::{AdminRequest, PeerRoles};
use x0_kv::cluster::Node;
use x0_mapek::kv::{self, HealerOptions, Input, Member, Observation, Output, SAMPLE, carry_out, witnessed};
use x0_mapek::{Command, HandleError, Mode, Record};
use x0_mesh::Mux;

use self::beside::Beside;
pub(crate) use self::beside::Parts;
use self::config::{HealConfig, HealMode};
use self::control::{
    ActionRow, Answer, Ask, CandidateRow, ReadingRow, Request, Status, SuspectRow, Unhealthy, WhyNot,
    seconds_to,
};
use self::load::Load;
use self::pause::Paused;
use self::peers::Peers;
use self::process::OwnProcess;
use self::records::Records;
use self::suspicion::Suspicion;
use crate::causes::causes;
use crate::config::NodeConfig;
use crate::log::Log;

/// The time in which another voter says whether it reaches a voter that seems to be dead.
const WITNESS_LIMIT: Duration = Duration::from_secs(1);

/// The queue of the node, as `heal status` names it.
const QUEUE: &str = "own queue";
/// The process of the node, as `heal status` names it.
const PROCESS: &str = "own process";

/// The end of an action that takes time: its number and its result.
type Ended = (u64, Result<(), String>);

/// The healer of a node. Without one ([`HealMode::Off`]) it does nothing.
pub(crate) struct Healer(Option<Active>);

struct Active {
    healer: kv::Healer,
    ended: (Sender<Ended>, Receiver<Ended>),
    /// The answers of the store of claims.
    answers: (Sender<kv::Answer>, Receiver<kv::Answer>),
    /// The healers of the other nodes.
    peers: Peers,
    /// Which members do not answer.
    suspicion: Suspicion,
    /// The healers of the connections and of the identity.
    beside: Beside,
    /// The healer of the queue of the node.
    load: Load,
    /// The healer of the process of the node.
    process: OwnProcess,
    /// The records so far, of all loops.
    numbered: u64,
    begun: Instant,
    ticks: Interval,
    records: Records,
    requests: mpsc::Receiver<Request>,
    /// The pause that an operator ordered.
    paused: Option<Paused>,
    log: Log,
}

impl Healer {
    /// Starts the service that answers operators, the failure detector, and, if there is a healer, the thread
    /// that writes the records. A pause from before the start goes on.
    pub(crate) fn start(
        config: &NodeConfig,
        mux: &Mux,
        roles: PeerRoles,
        parts: Parts,
        log: &Log,
    ) -> Result<Healer> {
        let requests = control::serve(mux, roles)?;
        // Without a healer as well: the other members expect its messages.
        let suspicion = Suspicion::start(mux, parts.status.clone(), log)?;
        let Some(options) = options(&config.heal) else { return Ok(Healer(None)) };
        let mut healer = kv::Healer::new(config.node, &options);
        let mut process = OwnProcess::new(config, options.mode, parts.is_supervised, parts.down.clone());
        let mut beside = Beside::new(config, options.mode, parts);
        let mut load = Load::new(options.mode);
        let folder = config.data_dir.join("heal");
        let paused = pause::read(&folder).unwrap_or_else(|error| {
            log.event("heal-pause-unreadable", format!("folder={} why={error}", folder.display()));
            // A healer that might be paused must not act.
            Some(Paused { until: None, reason: "the file of the pause cannot be read".into() })
        });
        let paused = paused.filter(|paused| !paused.is_over(SystemTime::now()));
        if let Some(paused) = &paused {
            let until = paused.rest(SystemTime::now());
            let _ = healer.handle(Duration::ZERO, Input::Command(Command::Pause { until }));
            beside.command(Duration::ZERO, config.node, &Command::Pause { until });
            load.command(Duration::ZERO, config.node, &Command::Pause { until });
            process.command(Duration::ZERO, config.node, &Command::Pause { until });
            log.event("heal-paused", paused);
        }
        let records = Records::start(&folder, log)
            .context("cannot start the thread that writes the records of the healer")?;
        let mut ticks = interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Healer(Some(Active {
            healer,
            ended: channel(),
            answers: channel(),
            peers: Peers::start(mux)?,
            suspicion,
            beside,
            load,
            process,
            numbered: 0,
            begun: Instant::now(),
            ticks,
            records,
            requests,
            paused,
            log: log.clone(),
        })))
    }

    /// Waits until the next sample is due.
    pub(crate) async fn due(&mut self) {
        match &mut self.0 {
            Some(active) => {
                active.ticks.tick().await;
            }
            None => pending().await,
        }
    }

    /// The supervisor does not start the process again now.
    pub(crate) fn restart_refused(&mut self, why: String) {
        if let Some(active) = &mut self.0 {
            let now = active.begun.elapsed();
            active.process.refused(now, why);
        }
    }

    /// Takes a sample of the node, and does what the loop decides.
    pub(crate) fn work(&mut self, node: &Node) {
        if let Some(active) = &mut self.0 {
            let begun = Instant::now();
            active.work(node);
            x0_mapek::telemetry::looped(begun.elapsed());
        }
    }
}

impl Active {
    fn work(&mut self, node: &Node) {
        let now = self.begun.elapsed();
        let mut observation = Observation::of(node);
        let known = self.suspicion.known();
        observation.silent = known.silent.clone();
        observation.suspects = known.accused();
        self.feed(now, Input::Sample(&observation));
        while let Some((from, message)) = self.peers.heard() {
            self.feed(now, Input::Received { from, message: &message });
        }
        while let Ok((id, result)) = self.ended.1.try_recv() {
            self.feed(now, Input::Outcome { id, result });
        }
        while let Ok(answer) = self.answers.1.try_recv() {
            self.feed(now, Input::Stored(answer));
        }
        while let Ok(Request { ask, answer }) = self.requests.try_recv() {
            // The service may have given up.
            let _ = answer.send(self.answer(now, ask));
        }
        while let Some(output) = self.healer.poll_output() {
            self.carry_out(now, node, output);
        }
        let mut records = self.beside.work(now, &expected(node));
        records.extend(self.load.work(now, node));
        records.extend(self.process.work(now, node));
        for record in records {
            self.keep(record);
        }
    }

    /// Keeps a record. Each loop numbers its own, and an operator asks for one by its number.
    fn keep(&mut self, mut record: Record) {
        self.numbered += 1;
        record.number = self.numbered;
        self.log.event("heal", line(&record));
        self.records.keep(&record);
    }

    /// Passes an input whose refusal means nothing: the healer gave up on an action that took too long.
    fn feed(&mut self, now: Duration, input: Input<'_>) {
        let _ = self.healer.handle(now, input);
    }

    fn carry_out(&mut self, now: Duration, node: &Node, output: Output) {
        match output {
            Output::Transfer { id, to } => {
                node.transfer_leadership(to);
                self.feed(now, Input::Outcome { id, result: Ok(()) });
            }
            Output::TakeOver { id } => {
                node.take_over();
                self.feed(now, Input::Outcome { id, result: Ok(()) });
            }
            Output::Replace { id, dead, spare } => {
                let request = AdminRequest::Replace { old: dead, new: spare };
                self.change(id, change(node, Some(dead), request));
            }
            Output::Promote { id, spare, voters } => {
                let request = AdminRequest::Promote { node: spare };
                self.change(
                    id,
                    change(node, None, AdminRequest::Planned { voters, request: request.into() }),
                );
            }
            Output::Demote { id, voter, is_dead, voters } => {
                let request = AdminRequest::Demote { node: voter };
                let planned = AdminRequest::Planned { voters, request: request.into() };
                self.change(id, change(node, is_dead.then_some(voter), planned));
            }
            Output::Ask(ask) => {
                let (answer, answers) = (carry_out(node.store().clone(), ask), self.answers.0.clone());
                tokio::spawn(async move {
                    // The healer may have ended.
                    let _ = answers.send(answer.await);
                });
            }
            Output::Notify { to, message } => self.peers.tell(to, message),
            Output::Record(record) => self.keep(*record),
            // Of a newer x0-mapek: nothing is done, and the loop gives up on it.
            _ => {}
        }
    }

    /// Carries out a change of the voters, whose result comes back as an outcome.
    fn change(&self, id: u64, change: impl Future<Output = Result<(), String>> + Send + 'static) {
        let ended = self.ended.0.clone();
        tokio::spawn(async move {
            let result = change.await;
            // The healer may have ended.
            let _ = ended.send((id, result));
        });
    }

    fn answer(&mut self, now: Duration, ask: Ask) -> Answer {
        let command = match ask {
            Ask::Status => return Answer::Status(Box::new(self.status(now))),
            Ask::WhyNot { node } => {
                let Some(node) = NodeId::new(node) else { return Answer::Refused("0 is no node".into()) };
                return Answer::WhyNot(why_not(&mut self.healer, now, node));
            }
            Ask::Pause { seconds, reason } => {
                let rest = seconds.map(Duration::from_secs);
                self.set_paused(Some(Paused::new(SystemTime::now(), rest, reason)));
                Command::Pause { until: rest.map(|rest| now.saturating_add(rest)) }
            }
            Ask::Resume => {
                self.set_paused(None);
                Command::Resume
            }
            Ask::Approve { id } => {
                self.log.event("heal-approved", format!("question={id}"));
                Command::Approve { id }
            }
            Ask::Acknowledge { node } => {
                let Some(node) = NodeId::new(node) else { return Answer::Refused("0 is no node".into()) };
                self.log.event("heal-acknowledged", format!("node={node}"));
                Command::Acknowledge { subject: node }
            }
        };
        let own = self.healer.engine().knowledge().node();
        self.beside.command(now, own, &command);
        self.load.command(now, own, &command);
        self.process.command(now, own, &command);
        let command = match command {
            Command::Acknowledge { subject } => Command::Acknowledge { subject: Member(subject) },
            Command::Pause { until } => Command::Pause { until },
            Command::Resume => Command::Resume,
            Command::Approve { id } => Command::Approve { id },
            // No order of an operator is another one.
            _ => return Answer::Refused("this build does not know the order".into()),
        };
        match self.healer.handle(now, Input::Command(command)) {
            Ok(()) => Answer::Done,
            Err(HandleError::UnknownAction { id }) => Answer::Refused(format!(
                "no question {id} waits for an approval: `x0-node heal status` lists those that do"
            )),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    fn set_paused(&mut self, paused: Option<Paused>) {
        match &paused {
            Some(paused) => self.log.event("heal-paused", paused),
            None => self.log.event("heal-resumed", ""),
        }
        self.records.pause(paused.clone());
        self.paused = paused;
    }

    fn status(&self, now: Duration) -> Status {
        let reason = self.paused.as_ref().map(|paused| paused.reason.clone()).unwrap_or_default();
        let mut status = status(&self.healer, now, reason);
        let known = self.suspicion.known();
        let suspect = |(node, since, accusers): (NodeId, Duration, Vec<NodeId>)| SuspectRow {
            node: node.to_string(),
            seconds: since.as_secs_f64(),
            accusers: accusers.iter().map(NodeId::to_string).collect(),
        };
        status.suspects = known.suspects.into_iter().map(suspect).collect();
        status.accusers = known.accusers.iter().map(NodeId::to_string).collect();
        status.is_starved = known.is_starved;
        status.escalated.extend(self.beside.escalated(now));
        let rows = self.beside.unhealthy(now).into_iter();
        status.unhealthy.extend(rows.map(|(node, evidence)| Unhealthy { node, readings: rows_of(evidence) }));
        let evidence = self.load.evidence(now);
        if !evidence.is_empty() {
            status.unhealthy.push(Unhealthy { node: QUEUE.into(), readings: rows_of(evidence) });
        }
        status.escalated.extend(self.load.is_escalated(now).then(|| QUEUE.to_owned()));
        let evidence = self.process.evidence(now);
        if !evidence.is_empty() {
            status.unhealthy.push(Unhealthy { node: PROCESS.into(), readings: rows_of(evidence) });
        }
        status.escalated.extend(self.process.is_escalated(now).then(|| PROCESS.to_owned()));
        status
    }
}

/// The members that owe messages to a node: a leader sends heartbeats to all, and all answer it.
fn expected(node: &Node) -> BTreeSet<NodeId> {
    let status = node.status();
    match status.leader {
        Some(leader) if leader == status.node => status.membership.voters,
        leader => leader.into_iter().collect(),
    }
}

fn rows_of(evidence: Vec<x0_mapek::Evidence>) -> Vec<ReadingRow> {
    let row = |one: x0_mapek::Evidence| ReadingRow {
        signal: one.signal.into(),
        value: one.value,
        threshold: one.threshold,
    };
    evidence.into_iter().map(row).collect()
}

/// The records in the data folder of a node, the oldest first.
pub(crate) fn records(data_dir: &std::path::Path) -> std::io::Result<Vec<Record>> {
    records::read(&data_dir.join("heal"))
}

/// Changes the voters; if one of them is dead, once a majority of the voters does not reach it. The leader,
/// which is this node or its successor, checks again in the step of the change that the new voter has caught
/// up and that a majority of the voters after the change is reached.
fn change(
    node: &Node,
    dead: Option<NodeId>,
    request: AdminRequest,
) -> impl Future<Output = Result<(), String>> + use<> {
    let (own, voters) = (node.id(), node.status().membership.voters);
    let others = voters.iter().copied().filter(|voter| *voter != own && Some(*voter) != dead);
    // Without a dead voter there is nothing to ask for.
    let asked = others.filter(|_| dead.is_some()).map(|voter| node.status_of(voter, WITNESS_LIMIT));
    let asked: Vec<_> = asked.collect();
    let change = node.admin(request);
    async move {
        if let Some(dead) = dead {
            let answers = crate::status::all(asked).await;
            let answers = answers.iter().flatten();
            witnessed(&voters, answers.map(|status| (status.node, status.reached.contains(&dead))))?;
        }
        change.await.map(drop).map_err(|error| causes(&error.into()))
    }
}

/// What a healer does. `reason` is that of its pause.
fn status(healer: &kv::Healer, now: Duration, reason: String) -> Status {
    let (of, view) = (healer.engine().status(now), healer.engine().knowledge());
    let row = |action: x0_mapek::ActionStatus<Member>| ActionRow {
        id: action.id,
        kind: action.kind.into(),
        node: action.subject.0.to_string(),
        stage: action.stage.into(),
    };
    let unhealthy = |Member(node): &Member| Unhealthy {
        node: node.to_string(),
        readings: rows_of(view.evidence(now, *node)),
    };
    Status {
        mode: mode(of.mode).into(),
        is_leader: view.place().is_leader,
        paused: of
            .paused
            .map(|until| control::Pause { seconds: until.map(|until| seconds_to(now, until)), reason }),
        grace_s: of.grace_until.map_or(0, |until| seconds_to(now, until)),
        is_storm: of.is_storm,
        unhealthy: of.unhealthy.iter().map(unhealthy).collect(),
        escalated: of.escalated.iter().map(|Member(node)| node.to_string()).collect(),
        questions: of.questions.into_iter().map(row).collect(),
        in_flight: of.in_flight.into_iter().map(row).collect(),
        ..Status::default()
    }
}

/// Why a healer does nothing about a node.
fn why_not(healer: &mut kv::Healer, now: Duration, node: NodeId) -> WhyNot {
    let why = healer.why_not(now, node);
    let row = |(kind, checked): (&'static str, Result<(), x0_mapek::Refusal>)| {
        let (guard, reason) = match checked {
            Ok(()) => (String::new(), String::new()),
            Err(refusal) => (refusal.guard().into(), refusal.to_string()),
        };
        CandidateRow { kind: kind.into(), guard, reason }
    };
    WhyNot {
        mode: mode(healer.engine().options().mode).into(),
        is_leader: healer.engine().knowledge().place().is_leader,
        is_unhealthy: why.is_unhealthy,
        candidates: why.candidates.into_iter().map(row).collect(),
    }
}

/// The mode as the configuration writes it.
fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::DryRun => "dry-run",
        Mode::Active => "active",
    }
}

/// A record on one line.
fn line(record: &Record) -> String {
    let text = record.explain();
    format!("record={} {}", record.number, text.lines().next().unwrap_or_default())
}

/// The settings of the healer; `None` if it is off.
fn options(config: &HealConfig) -> Option<HealerOptions> {
    let mode = match config.mode {
        HealMode::Off => return None,
        HealMode::Observe => Mode::Observe,
        HealMode::DryRun => Mode::DryRun,
        HealMode::Active => Mode::Active,
    };
    let options = HealerOptions::new()
        .mode(mode)
        .slow_disk(Duration::from_millis(config.slow_disk_ms))
        .replace_after(config.replace_after_s.map(Duration::from_secs))
        .voters(config.voters);
    Some(config.approve.iter().fold(options, |options, kind| options.approve(kind.kind())))
}

#[cfg(test)]
mod tests;
