//! The healer of a node: it judges the disk of its own node, and hands the leadership over if it is slow.
//!
//! Raft replaces a leader that is silent, and keeps one whose disk is slow: heartbeats do not pass the disk,
//! and every write waits for it. Each node judges only itself, with readings of its own log, so that no node
//! is accused by another. The loop is `x0_mapek::Loop` with all its guards; `[heal]` sets its mode, and the
//! default is a dry run: everything is recorded, nothing is done.
//!
//! The records are in the folder `heal` of the data folder, at most 512 KiB. `x0-node heal log` lists them
//! and `x0-node heal why` explains one.

pub(crate) mod commands;
pub(crate) mod config;
mod disk;
mod records;

use std::collections::VecDeque;
use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::{Interval, MissedTickBehavior, interval};
use x0_identity::NodeId;
use x0_kv::cluster::{Node, NodeStatus};
use x0_mapek::{Input, Loop, LoopOptions, Mode, Reading, Record};

use self::config::{HealConfig, HealMode};
use self::disk::{Disk, LeaveSlowDisk, Transfer, WRITE_AGE};
use self::records::Records;
use crate::config::NodeConfig;
use crate::log::Log;

/// The distance of two samples.
const SAMPLE: Duration = Duration::from_millis(100);
/// The samples whose largest one is the reading: between two writes a slow disk is idle.
const SAMPLES: usize = 20;
/// The entries by which the next leader may lag.
const LAG_MAX: u64 = 1000;

/// The healer of a node. Without one ([`HealMode::Off`]) it does nothing.
pub(crate) struct Healer(Option<Active>);

struct Active {
    healer: Loop<Disk, Transfer>,
    begun: Instant,
    samples: Interval,
    ages: WriteAges,
    records: Records,
    log: Log,
}

impl Healer {
    /// Starts the thread that writes the records, if there is a healer.
    pub(crate) fn start(config: &NodeConfig, log: &Log) -> Result<Healer> {
        let Some(healer) = engine(config.node, &config.heal) else { return Ok(Healer(None)) };
        let records = Records::start(&config.data_dir.join("heal"), log)
            .context("cannot start the thread that writes the records of the healer")?;
        let mut samples = interval(SAMPLE);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (begun, ages) = (Instant::now(), WriteAges::default());
        Ok(Healer(Some(Active { healer, begun, samples, ages, records, log: log.clone() })))
    }

    /// Waits until the next sample is due.
    pub(crate) async fn due(&mut self) {
        match &mut self.0 {
            Some(active) => {
                active.samples.tick().await;
            }
            None => pending().await,
        }
    }

    /// Takes a sample of the node, and does what the loop decides.
    pub(crate) fn work(&mut self, node: &Node) {
        let Some(active) = &mut self.0 else { return };
        let now = Instant::now();
        let status = node.status();
        active.healer.knowledge_mut().set(status.is_leader(), heir(&status), status.membership.voters.len());
        let subject = node.id();
        let value = active.ages.sample(now, node.writing_since()).as_secs_f64();
        let now = now - active.begun;
        let reading = Input::Reading(Reading { subject, signal: WRITE_AGE, value });
        // Time does not run backwards, and an age is a usable value.
        let _ = active.healer.handle(now, reading);
        let decided = active.healer.drain(now, |transfer| {
            node.transfer_leadership(transfer.to);
            Ok(())
        });
        for record in decided.into_iter().flatten() {
            active.log.event("heal", line(&record));
            active.records.keep(&record);
        }
    }
}

/// A record on one line.
fn line(record: &Record) -> String {
    let text = record.explain();
    format!("record={} {}", record.number, text.lines().next().unwrap_or_default())
}

/// The loop of a node; `None` if it is off.
fn engine(node: NodeId, config: &HealConfig) -> Option<Loop<Disk, Transfer>> {
    let mode = match config.mode {
        HealMode::Off => return None,
        HealMode::Observe => Mode::Observe,
        HealMode::DryRun => Mode::DryRun,
        HealMode::Active => Mode::Active,
    };
    let options = LoopOptions::new()
        .mode(mode)
        .grace(Duration::from_secs(10))
        .stability(Duration::from_secs(1))
        .back_off(Duration::from_secs(30));
    let limit = Duration::from_millis(config.slow_disk_ms);
    Some(Loop::new(Disk::new(node, limit), Box::new(LeaveSlowDisk), options))
}

/// The voter that takes the leadership over: one that is reached, and whose log lags least.
fn heir(status: &NodeStatus) -> Option<NodeId> {
    let is_near = |index: u64| index + LAG_MAX >= status.committed;
    let voters = status.membership.voters.iter().filter(|voter| **voter != status.node);
    let reached = voters.filter(|voter| status.reached.contains(voter));
    let indexes = reached.filter_map(|voter| Some((*status.acknowledged.get(voter)?, *voter)));
    indexes.filter(|(index, _)| is_near(*index)).max().map(|(_, voter)| voter)
}

/// The largest age of a write in the last samples.
#[derive(Debug, Default)]
struct WriteAges {
    /// The write that waits, by its time on the clock of the node, and when it was seen first.
    waiting: Option<(Duration, Instant)>,
    ages: VecDeque<Duration>,
}

impl WriteAges {
    fn sample(&mut self, now: Instant, since: Option<Duration>) -> Duration {
        self.waiting = since.map(|since| match self.waiting {
            Some((before, seen)) if before == since => (since, seen),
            _ => (since, now),
        });
        let age = self.waiting.map_or(Duration::ZERO, |(_, seen)| now - seen);
        if self.ages.len() == SAMPLES {
            self.ages.pop_front();
        }
        self.ages.push_back(age);
        self.ages.iter().copied().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
