//! The healer of a node: a leader that is slow hands the leadership over, and replaces dead voters.
//!
//! Raft replaces a leader that is silent. It keeps one whose disk is slow, because heartbeats do not pass the
//! disk, and one whose process runs only part of the time, because some heartbeats arrive in time. Each node
//! judges itself, by the age of its own writes and the lateness of its own timers. It accuses another one
//! only of being dead, and only together with a majority of the voters. The loop is `x0_mapek::Loop` with all
//! its guards; `[heal]` sets its mode, and the default is a dry run: everything is recorded, nothing is done.
//! Of several healers one replaces a voter: see `claims`.
//!
//! The records are in the folder `heal` of the data folder, at most 512 KiB. `x0-node heal log` lists them
//! and `x0-node heal why` explains one. Operators ask a running healer, pause it, and approve what `[heal]`
//! leaves to a person: see `control`. A pause is kept in the folder `heal`, so that a restart does not end
//! it.

mod action;
mod claims;
pub(crate) mod commands;
pub(crate) mod config;
mod control;
mod load;
mod pause;
mod records;
mod samples;
mod view;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};
use x0_identity::NodeId;
use x0_kv::admin::{AdminRequest, PeerRoles};
use x0_kv::cluster::{Node, NodeStatus};
use x0_mapek::{Action, Command, HandleError, Input, Loop, LoopOptions, Mode, Output, Reading, Record};
use x0_mesh::Mux;

use self::action::{Act, Heal};
use self::claims::Claims;
use self::config::{HealConfig, HealMode};
use self::control::{
    ActionRow, Answer, Ask, CandidateRow, ReadingRow, Request, Status, Unhealthy, WhyNot, seconds_to,
};
use self::load::Reports;
use self::pause::Paused;
use self::records::Records;
use self::samples::{SAMPLE, Samples};
use self::view::{Member, Place, SILENCE, STALLED_SHARE, STALLS, View, WRITE_AGE};
use crate::causes::causes;
use crate::config::NodeConfig;
use crate::log::Log;

/// The entries by which the next leader or voter may lag.
const LAG_MAX: u64 = 1000;
/// The time in which another voter says whether it reaches a voter that seems to be dead.
const WITNESS_LIMIT: Duration = Duration::from_secs(1);

/// The end of an action that takes time: its number and its result.
type Ended = (u64, Result<(), String>);

/// The healer of a node. Without one ([`HealMode::Off`]) it does nothing.
pub(crate) struct Healer(Option<Active>);

struct Active {
    healer: Loop<View, Act>,
    ended: (Sender<Ended>, Receiver<Ended>),
    /// What is claimed, and the answers of the store of claims.
    claims: Claims,
    answers: (Sender<claims::Answer>, Receiver<claims::Answer>),
    /// What the healers tell each other.
    reports: Reports,
    begun: Instant,
    ticks: Interval,
    samples: Samples,
    records: Records,
    requests: mpsc::Receiver<Request>,
    /// The pause that an operator ordered.
    paused: Option<Paused>,
    log: Log,
}

impl Healer {
    /// Starts the service that answers operators, and the thread that writes the records, if there is a
    /// healer. A pause from before the start goes on.
    pub(crate) fn start(config: &NodeConfig, mux: &Mux, roles: PeerRoles, log: &Log) -> Result<Healer> {
        let requests = control::serve(mux, roles)?;
        let Some(mut healer) = engine(config.node, &config.heal, true) else { return Ok(Healer(None)) };
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
            log.event("heal-paused", paused);
        }
        let records = Records::start(&folder, log)
            .context("cannot start the thread that writes the records of the healer")?;
        let mut ticks = interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (begun, samples) = (Instant::now(), Samples::default());
        Ok(Healer(Some(Active {
            healer,
            ended: channel(),
            claims: Claims::new(config.node),
            answers: channel(),
            reports: Reports::start(mux, config.node)?,
            begun,
            ticks,
            samples,
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

    /// Takes a sample of the node, and does what the loop decides.
    pub(crate) fn work(&mut self, node: &Node) {
        if let Some(active) = &mut self.0 {
            active.work(node);
        }
    }
}

impl Active {
    fn work(&mut self, node: &Node) {
        let now = self.begun.elapsed();
        let status = node.status();
        self.healer.knowledge_mut().set(place(&status));
        let sample = self.samples.take(now, node.writing_since());
        let own = [
            (status.node, STALLS, f64::from(sample.stalls)),
            (status.node, STALLED_SHARE, sample.stalled_share),
            (status.node, WRITE_AGE, sample.write_age.as_secs_f64()),
        ];
        let others = status.membership.voters.iter().copied().filter(|voter| *voter != status.node);
        if self.healer.knowledge().is_pressed(sample.write_age) {
            self.reports.tell(now, others.clone(), sample.write_age);
        }
        for (voter, write_age) in self.reports.heard() {
            self.healer.knowledge_mut().heard(now, voter, write_age);
        }
        let silences = self.samples.silences(now, others, &status.reached);
        let silences = silences.into_iter().map(|(voter, silent)| (voter, SILENCE, silent.as_secs_f64()));
        for (subject, signal, value) in own.into_iter().chain(silences) {
            // Time does not run backwards, and what is out of range is refused and counted by the loop.
            let reading = Reading { subject: Member(subject), signal, value };
            let _ = self.healer.handle(now, Input::Reading(reading));
        }
        while let Ok((id, result)) = self.ended.1.try_recv() {
            // The loop has given up on an action that took too long.
            let _ = self.healer.handle(now, Input::Outcome { id, result });
        }
        while let Ok(answer) = self.answers.1.try_recv() {
            let next = self.claims.answer(now, answer);
            self.follow(now, node, &status, next);
        }
        let next = self.claims.tick(now, |id| self.healer.in_flight().any(|(flight, _)| flight == id));
        self.follow(now, node, &status, next);
        while let Ok(Request { ask, answer }) = self.requests.try_recv() {
            // The service may have given up.
            let _ = answer.send(self.answer(now, ask));
        }
        while let Some(output) = self.healer.poll_output() {
            match output {
                Output::Claim { id, action } => {
                    let next = match action {
                        // A leader that acts on itself: its term is the fence.
                        Act::Transfer { .. } => claims::Next::Decided { id, fence: Some(status.term) },
                        Act::Replace { .. } => {
                            self.claims.claim(id, action.kind(), &format!("{:?}", action.subject()))
                        }
                    };
                    self.follow(now, node, &status, next);
                }
                Output::Execute { id, action: Act::Replace { .. }, fence } => {
                    let next = self.claims.execute(id, fence);
                    self.follow(now, node, &status, next);
                }
                Output::Execute { id, action, .. } | Output::Undo { id, action, .. } => {
                    self.execute(now, node, &status, id, action);
                }
                Output::Record(record) => {
                    self.log.event("heal", line(&record));
                    self.records.keep(&record);
                }
                // The log of the node has the record of any other output.
                _ => {}
            }
        }
    }

    /// Does what follows from a claim.
    fn follow(&mut self, now: Duration, node: &Node, status: &NodeStatus, next: claims::Next) {
        match next {
            claims::Next::Nothing => {}
            claims::Next::Ask(ask) => {
                let (answer, answers) =
                    (claims::carry_out(node.store().clone(), ask), self.answers.0.clone());
                tokio::spawn(async move {
                    // The healer may have ended.
                    let _ = answers.send(answer.await);
                });
            }
            claims::Next::Decided { id, fence } => {
                // The loop has given up on a claim that took too long.
                let _ = self.healer.handle(now, Input::Claim { id, fence });
            }
            claims::Next::Begin { id, result: Ok(()) } => {
                let action = self.healer.in_flight().find(|(flight, _)| *flight == id);
                if let Some(action) = action.map(|(_, action)| *action) {
                    self.execute(now, node, status, id, action);
                }
            }
            claims::Next::Begin { id, result } => {
                let _ = self.healer.handle(now, Input::Outcome { id, result });
            }
        }
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
                Command::Acknowledge { subject: Member(node) }
            }
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
        status(&self.healer, now, reason)
    }

    fn execute(&mut self, now: Duration, node: &Node, status: &NodeStatus, id: u64, action: Act) {
        match action {
            Act::Transfer { to, .. } => {
                node.transfer_leadership(to);
                let _ = self.healer.handle(now, Input::Outcome { id, result: Ok(()) });
            }
            Act::Replace { dead: Member(dead), spare } => {
                let (replace, ended) = (replace(node, status, dead, spare), self.ended.0.clone());
                tokio::spawn(async move {
                    let result = replace.await;
                    // The healer may have ended.
                    let _ = ended.send((id, result));
                });
            }
        }
    }
}

/// Replaces a voter, once a majority of the voters does not reach it. The leader, which is this node or its
/// successor, checks again in the step of the change that the spare has caught up and that a majority of the
/// voters after the change is reached.
fn replace(
    node: &Node,
    status: &NodeStatus,
    dead: NodeId,
    spare: NodeId,
) -> impl Future<Output = Result<(), String>> + use<> {
    let voters = status.membership.voters.clone();
    let others = voters.iter().copied().filter(|voter| *voter != status.node && *voter != dead);
    let asked: Vec<_> = others.map(|voter| node.status_of(voter, WITNESS_LIMIT)).collect();
    let change = node.admin(AdminRequest::Replace { old: dead, new: spare });
    async move {
        let answers = crate::status::all(asked).await;
        let answers = answers.iter().flatten();
        witnessed(&voters, answers.map(|status| (status.node, status.reached.contains(&dead))))?;
        change.await.map(drop).map_err(|error| causes(&error.into()))
    }
}

/// Whether this node and those that answered are a majority of the voters, and none of them reaches the
/// voter. An answer is its node, and whether that reaches the voter.
fn witnessed(voters: &BTreeSet<NodeId>, answers: impl Iterator<Item = (NodeId, bool)>) -> Result<(), String> {
    let mut witnesses = 1;
    for (node, is_reached) in answers {
        if is_reached {
            return Err(format!("node {node} reaches it"));
        }
        witnesses += 1;
    }
    match witnesses * 2 > voters.len() {
        true => Ok(()),
        false => Err(format!("only {witnesses} of {} voters say that it is not reached", voters.len())),
    }
}

/// What a healer does. `reason` is that of its pause.
fn status(healer: &Loop<View, Act>, now: Duration, reason: String) -> Status {
    let (of, view) = (healer.status(now), healer.knowledge());
    let row = |action: x0_mapek::ActionStatus<Member>| ActionRow {
        id: action.id,
        kind: action.kind.into(),
        node: action.subject.0.to_string(),
        stage: action.stage.into(),
    };
    let readings = |node: NodeId| {
        let evidence = view.evidence(now, node).into_iter();
        let row = |one: x0_mapek::Evidence| ReadingRow {
            signal: one.signal.into(),
            value: one.value,
            threshold: one.threshold,
        };
        evidence.map(row).collect()
    };
    let unhealthy = |Member(node): &Member| Unhealthy { node: node.to_string(), readings: readings(*node) };
    Status {
        mode: mode(of.mode).into(),
        is_leader: view.place.is_leader,
        paused: of
            .paused
            .map(|until| control::Pause { seconds: until.map(|until| seconds_to(now, until)), reason }),
        grace_s: of.grace_until.map_or(0, |until| seconds_to(now, until)),
        is_storm: of.is_storm,
        unhealthy: of.unhealthy.iter().map(unhealthy).collect(),
        escalated: of.escalated.iter().map(|Member(node)| node.to_string()).collect(),
        questions: of.questions.into_iter().map(row).collect(),
        in_flight: of.in_flight.into_iter().map(row).collect(),
    }
}

/// Why a healer does nothing about a node.
fn why_not(healer: &mut Loop<View, Act>, now: Duration, node: NodeId) -> WhyNot {
    let why = healer.why_not(now, &Member(node));
    let row = |(kind, checked): (&'static str, Result<(), x0_mapek::Refusal>)| {
        let (guard, reason) = match checked {
            Ok(()) => (String::new(), String::new()),
            Err(refusal) => (refusal.guard().into(), refusal.to_string()),
        };
        CandidateRow { kind: kind.into(), guard, reason }
    };
    WhyNot {
        mode: mode(healer.options().mode).into(),
        is_leader: healer.knowledge().place.is_leader,
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

/// The loop of a node, which claims its actions or not; `None` if it is off.
fn engine(node: NodeId, config: &HealConfig, claims: bool) -> Option<Loop<View, Act>> {
    let mode = match config.mode {
        HealMode::Off => return None,
        HealMode::Observe => Mode::Observe,
        HealMode::DryRun => Mode::DryRun,
        HealMode::Active => Mode::Active,
    };
    let options = LoopOptions::new()
        .mode(mode)
        .claims(claims)
        // A starved process takes a sample every few hundred milliseconds, and each must be a round.
        .period(Duration::from_millis(200))
        .grace(Duration::from_secs(10))
        .stability(Duration::from_secs(1))
        .back_off(Duration::from_secs(30));
    let options = config.approve.iter().fold(options, |options, kind| options.approve(kind.name()));
    let view = View::new(
        node,
        Duration::from_millis(config.slow_disk_ms),
        config.replace_after_s.map(Duration::from_secs),
    );
    Some(Loop::new(view, Box::new(Heal), options))
}

/// The place of a node in its group. Heir and spare are the voter and the learner that are reached and whose
/// logs lag least.
fn place(status: &NodeStatus) -> Place {
    let best = |members: &BTreeSet<NodeId>| {
        let others = members.iter().filter(|member| **member != status.node);
        let reached = others.filter(|member| status.reached.contains(member));
        let indexes = reached.filter_map(|member| Some((*status.acknowledged.get(member)?, *member)));
        indexes.filter(|(index, _)| index + LAG_MAX >= status.committed).max().map(|(_, member)| member)
    };
    Place {
        is_leader: status.is_leader(),
        heir: best(&status.membership.voters),
        spare: best(&status.membership.learners),
        voters: status.membership.voters.clone(),
        reached: status.reached.clone(),
    }
}

#[cfg(test)]
mod tests;
