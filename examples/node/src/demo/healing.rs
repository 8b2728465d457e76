//! The part of the demo that heals what Raft does not: a leader whose disk is slow, a node that hangs, and a
//! voter that never comes back.
//!
//! The nodes decide by themselves: `[heal]` is active in their configurations, and the spare node runs under
//! `x0-node supervise`. The demo injects the faults, measures, and counts what the healers did besides.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use x0_identity::NodeId;
use x0_kv::Store;
use x0_kv::admin::{AdminError, AdminReply, AdminRequest, MemberList, MemberRole};
use x0_mapek::Record;
use x0_mapek::kv::ActionKind;
use x0_mapek::record::Event;

use super::cluster::Cluster;
use super::report::{Moment, Report};
use super::{POLL, STEP_LIMIT, Steps, load, milliseconds};
use crate::client::Connection;
use crate::config::{ClientConfig, NodeConfig};
use crate::control::Order;
use crate::{heal, init};

/// A healer does nothing in the first ten seconds of its node.
const GRACE: Duration = Duration::from_millis(10_500);
/// How much longer each write of a slow disk takes.
const DELAY: Duration = Duration::from_millis(500);
/// The longest part: ten seconds of silence, the claim, the change and its proof.
const REPLACE_LIMIT: Duration = Duration::from_secs(60);
/// The entries by which a spare may lag.
const LAG_MAX: u64 = 1000;

/// What happened, with the time since the begin of the demo.
#[derive(Debug)]
pub(super) struct Healing {
    begun: Instant,
    moments: Vec<Moment>,
    faults: Vec<Fault>,
}

/// A fault that healers answer.
#[derive(Debug, Clone, Copy)]
struct Fault {
    node: usize,
    /// The kind of action that is the answer.
    kind: ActionKind,
}

impl Healing {
    pub(super) fn new(begun: Instant) -> Healing {
        Healing { begun, moments: Vec::new(), faults: Vec::new() }
    }

    fn moment(&mut self, what: &'static str, text: String) {
        self.moments.push(Moment { at_ms: millis(self.begun.elapsed()), what, text });
    }

    /// Injects the three faults, and waits until each is healed.
    pub(super) async fn run(
        &mut self,
        cluster: &mut Cluster,
        steps: &Steps<'_>,
        store: &Store,
        root: &std::path::Path,
        report: &mut Report,
    ) -> Result<()> {
        let operator = ClientConfig::load(&cluster.layout().operator_config())?;
        let operator = Connection::open(&operator).await?;
        steps.screen.doing("adding a spare node");
        let (spare, address) = cluster.start_spare(root)?;
        let number = cluster.len() + 1;
        let pid = spare.served(1, STEP_LIMIT).await?;
        let id = init::node_id(number)?;
        ask(&operator, AdminRequest::Add { node: id, addresses: vec![address.to_string()] }).await?;
        wait_for(&operator, "the spare node to catch up", STEP_LIMIT, |list| {
            let spare = list.members.iter().find(|member| member.node == id);
            spare.is_some_and(|spare| spare.is_reached && spare.matched + LAG_MAX >= list.committed)
        })
        .await?;
        steps.screen.say(format!(
            "node {number} joined as a spare: a learner under `x0-node supervise`; the healers of all nodes are active"
        ));

        let all = cluster.running(&[]);
        let (leader, _) = cluster.leader(&all, STEP_LIMIT).await?;
        steps.screen.doing("the healers watch, and do nothing yet");
        tokio::time::sleep(GRACE.saturating_sub(cluster.started(leader).elapsed())).await;
        let slow = self.slow_down(cluster, steps, store, report).await?;
        let dead = self.bury(cluster, steps, slow).await?;
        let silent = Instant::now();
        self.hang(&spare, number, pid, steps, report).await?;
        let gone = init::node_id(dead)?;
        steps.screen.doing("the dead voter is silent; it may come back");
        wait_for(&operator, "the spare node in the place of the dead voter", REPLACE_LIMIT, |list| {
            let role =
                |node| list.members.iter().find(|member| member.node == node).map(|member| member.role);
            role(gone).is_none() && role(id) == Some(MemberRole::Voter)
        })
        .await?;
        report.replaced_ms = milliseconds(silent.elapsed())?;
        report.healed += 1;
        let text =
            format!("node {number} votes in the place of node {dead}, which will be no voter if it returns");
        steps.screen.say(format!("{text}, {} ms after the kill", report.replaced_ms));
        self.moment("healed", text);
        operator.close().await;
        steps.screen.doing("the healer compares the cluster with what it was before");
        wait_for_verdict(cluster, dead).await?;
        let number = cluster.take_over(spare, address).await?;
        let (leader, _) = cluster.leader(&cluster.running(&[]), STEP_LIMIT).await?;
        let target = cluster.status(leader).await?.committed;
        cluster.applied(number, target, STEP_LIMIT).await
    }

    /// Makes the disk of the leader slow, until another node leads and acknowledges a write. Returns the node
    /// that had the slow disk.
    async fn slow_down(
        &mut self,
        cluster: &mut Cluster,
        steps: &Steps<'_>,
        store: &Store,
        report: &mut Report,
    ) -> Result<usize> {
        let (slow, term) = cluster.leader(&cluster.running(&[]), STEP_LIMIT).await?;
        self.faults.push(Fault { node: slow, kind: ActionKind::TransferLeadership });
        let text =
            format!("each write of the log of node {slow}, the leader, takes {} ms", DELAY.as_millis());
        self.moment("fault", text.clone());
        steps.screen.say(text);
        steps.screen.doing("with a leader whose disk is slow");
        let at = Instant::now();
        cluster.order(slow, &Order::SlowDisk { milliseconds: millis(DELAY) }).await?;
        let leader = loop {
            let (leader, now) = cluster.leader(&cluster.running(&[]), STEP_LIMIT).await?;
            if now > term && leader != slow {
                break leader;
            }
            if at.elapsed() > STEP_LIMIT {
                bail!("node {slow} still leads after {STEP_LIMIT:?} with a slow disk");
            }
            tokio::time::sleep(POLL).await;
        };
        load::put(store, &Bytes::from("probe/slow"), &Bytes::from("1"), || {}).await?;
        report.gray_ms = milliseconds(at.elapsed())?;
        report.healed += 1;
        let text = format!("node {leader} leads, and acknowledged a write");
        steps.screen.say(format!("{text}, {} ms after the fault", report.gray_ms));
        self.moment("healed", text);
        cluster.order(slow, &Order::SlowDisk { milliseconds: 0 }).await?;
        Ok(slow)
    }

    /// Kills a follower for ever. `spared` is the node that transferred its leadership: its healer has yet to
    /// record whether that helped.
    async fn bury(&mut self, cluster: &mut Cluster, steps: &Steps<'_>, spared: usize) -> Result<usize> {
        let (leader, _) = cluster.leader(&cluster.running(&[]), STEP_LIMIT).await?;
        let dead = *cluster.running(&[leader, spared]).last().context("no follower runs")?;
        cluster.kill(dead)?;
        self.faults.push(Fault { node: dead, kind: ActionKind::ReplaceVoter });
        let text = format!("kill -9 of node {dead}, a voter, which does not come back");
        steps.screen.say(&text);
        self.moment("fault", text);
        Ok(dead)
    }

    /// Stops the process of the spare node, and waits until its supervisor has started it again.
    async fn hang(
        &mut self,
        spare: &super::child::SupervisedNode,
        number: usize,
        pid: u32,
        steps: &Steps<'_>,
        report: &mut Report,
    ) -> Result<()> {
        let text = format!("node {number} hangs: SIGSTOP to process {pid}");
        steps.screen.say(&text);
        self.moment("fault", text);
        let at = Instant::now();
        send(process(pid)?, Signal::STOP);
        let again = spare.served(2, STEP_LIMIT).await?;
        report.hung_ms = milliseconds(at.elapsed())?;
        report.healed += 1;
        let text =
            format!("the supervisor replaced the process {pid} of node {number} by {again}, which serves");
        steps.screen.say(format!("{text}, {} ms after the hang", report.hung_ms));
        self.moment("healed", text);
        Ok(())
    }

    /// Adds what the healers recorded to the timeline, and counts what no fault explains. The nodes have
    /// ended, so that all records are on the disk.
    pub(super) fn judge(mut self, nodes: &[(usize, NodeConfig, Instant)], report: &mut Report) -> Result<()> {
        for (number, config, started) in nodes {
            let records = heal::records(&config.data_dir)
                .with_context(|| format!("cannot read the records of the healer of node {number}"))?;
            // A folder holds the records of each start of its node; those of the last one have its clock.
            let begin = records.iter().rposition(|record| record.number == 1).unwrap_or(0);
            for (place, record) in records.iter().enumerate() {
                if let Event::Executing { .. } = record.event
                    && !self.is_wanted(record)
                {
                    report.wrong_acts += 1;
                    report
                        .failures
                        .push(format!("node {number} acted without a fault: {}", first_line(record)));
                }
                if place >= begin
                    && let Some(what) = word(&record.event)
                {
                    let at = started.saturating_duration_since(self.begun) + record.at;
                    self.moments.push(Moment { at_ms: millis(at), what, text: reason(*number, record) });
                }
            }
        }
        self.moments.sort_by_key(|moment| moment.at_ms);
        report.timeline = self.moments;
        Ok(())
    }

    /// Whether an action is the answer to a fault that was injected.
    fn is_wanted(&self, record: &Record) -> bool {
        let is_answer =
            |fault: &Fault| record.kind == fault.kind.name() && record.subject == subject_name(fault.node);
        self.faults.iter().any(is_answer)
    }
}

/// The name of a node in records.
fn subject_name(number: usize) -> String {
    init::node_id(number).map(|node: NodeId| format!("node {node}")).unwrap_or_default()
}

/// The word of the timeline for what a healer recorded; `None` for refusals and the like.
fn word(event: &Event) -> Option<&'static str> {
    match event {
        Event::Executing { .. } => Some("action"),
        Event::Improved { .. } => Some("proof"),
        Event::NoEffect { .. } | Event::Worse { .. } | Event::Failed { .. } => Some("failed"),
        _ => None,
    }
}

fn first_line(record: &Record) -> String {
    record.explain().lines().next().unwrap_or_default().to_owned()
}

/// What the healer of a node decided, and the readings that led to it.
fn reason(node: usize, record: &Record) -> String {
    let readings = record.evidence.iter().map(|reading| {
        format!("{} {:.2}, threshold {:.2}", reading.signal, reading.value, reading.threshold)
    });
    let readings = readings.collect::<Vec<_>>().join("; ");
    let what = match &record.event {
        Event::Improved { before, after } => {
            format!("{} helped: {before:.2} before, {after:.2} after", record.kind)
        }
        Event::Executing { .. } => {
            format!("{} of {}: {} ({readings})", record.kind, record.subject, record.cause)
        }
        _ => first_line(record),
    };
    format!("healer of node {node}: {what}")
}

/// Sends a request of an operator, again after an error that passes.
async fn ask(operator: &Connection, request: AdminRequest) -> Result<AdminReply> {
    let begun = Instant::now();
    loop {
        match operator.client().admin(request.clone()).await {
            Ok(reply) => return Ok(reply),
            Err(
                AdminError::Unknown | AdminError::InProgress | AdminError::Overloaded | AdminError::NoLeader,
            ) if begun.elapsed() < STEP_LIMIT => tokio::time::sleep(POLL).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the members are as they are to be.
async fn wait_for(
    operator: &Connection,
    what: &str,
    limit: Duration,
    holds: impl Fn(&MemberList) -> bool,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let AdminReply::Members(list) = ask(operator, AdminRequest::Members).await? else {
            bail!("a member answered another request");
        };
        if holds(&list) {
            return Ok(());
        }
        if begun.elapsed() > limit {
            bail!("waited {limit:?} for {what}; the members are {:?}", list.members);
        }
        tokio::time::sleep(POLL * 4).await;
    }
}

/// Waits until a healer has recorded its verdict on the replacement of a voter: the nodes end soon after, and
/// the timeline shows the verdict.
async fn wait_for_verdict(cluster: &Cluster, dead: usize) -> Result<()> {
    let (begun, subject) = (Instant::now(), subject_name(dead));
    let is_verdict = |record: &Record| {
        record.kind == ActionKind::ReplaceVoter.name()
            && record.subject == subject
            && matches!(record.event, Event::Improved { .. } | Event::NoEffect { .. } | Event::Worse { .. })
    };
    loop {
        for (number, config, _) in cluster.settings()? {
            let records = heal::records(&config.data_dir)
                .with_context(|| format!("cannot read the records of the healer of node {number}"))?;
            if records.iter().any(is_verdict) {
                return Ok(());
            }
        }
        if begun.elapsed() > STEP_LIMIT {
            bail!("no healer recorded within {STEP_LIMIT:?} whether the replacement of node {dead} helped");
        }
        tokio::time::sleep(POLL * 4).await;
    }
}

fn process(pid: u32) -> Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).context("the number of a process is out of range")
}

fn send(process: Pid, signal: Signal) {
    // Fails only once the process has ended, which the next step of the demo finds out.
    let _ = kill_process(process, signal);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
