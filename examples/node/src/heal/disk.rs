//! Knowledge, policy and action for the disk of the own node.

use std::borrow::Cow;
use std::time::Duration;

use x0_identity::NodeId;
use x0_mapek::detect::ReadingError;
use x0_mapek::{
    Action, Candidate, Diagnosis, Disruption, Evidence, Expectation, Knowledge, Plan, Policy, Reading,
};

/// The largest age of a write of the log that was not on the disk, in the last 2 s.
pub(super) const WRITE_AGE: &str = "write_age_seconds";
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(2);
/// An age of an hour is no measurement.
const AGE_MAX: f64 = 3600.0;

/// What a node knows of its disk and its place in the group.
pub(super) struct Disk {
    node: NodeId,
    limit: f64,
    age: Option<(f64, Duration)>,
    is_leader: bool,
    heir: Option<NodeId>,
    voters: usize,
}

impl Disk {
    pub(super) fn new(node: NodeId, limit: Duration) -> Disk {
        Disk { node, limit: limit.as_secs_f64(), age: None, is_leader: false, heir: None, voters: 1 }
    }

    /// The place of the node in the group.
    pub(super) fn set(&mut self, is_leader: bool, heir: Option<NodeId>, voters: usize) {
        (self.is_leader, self.heir, self.voters) = (is_leader, heir, voters);
    }

    fn slow(&self, now: Duration) -> Option<Evidence> {
        let (value, at) = self.age?;
        let age = now.saturating_sub(at);
        let is_slow = age < STALE && value >= self.limit;
        is_slow.then_some(Evidence { signal: WRITE_AGE, value, threshold: self.limit, age })
    }
}

impl Knowledge for Disk {
    type Subject = NodeId;

    fn observe(&mut self, now: Duration, reading: &Reading<NodeId>) -> Result<(), ReadingError> {
        if reading.subject != self.node || reading.signal != WRITE_AGE {
            return Err(ReadingError::Unknown);
        }
        if !(0.0..=AGE_MAX).contains(&reading.value) {
            return Err(ReadingError::OutOfRange { value: reading.value });
        }
        self.age = Some((reading.value, now));
        Ok(())
    }

    fn subject_count(&self) -> usize {
        self.voters
    }

    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&NodeId)) {
        if self.slow(now).is_some() {
            each(&self.node);
        }
    }
}

/// Hands the leadership over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
}

impl Action<Disk> for Transfer {
    fn kind(&self) -> &'static str {
        "transfer-leadership"
    }

    fn subject(&self) -> &NodeId {
        &self.from
    }

    fn disruption(&self) -> Disruption {
        Disruption::Brief
    }

    fn precondition(&self, disk: &Disk) -> Result<(), Cow<'static, str>> {
        if disk.is_leader { Ok(()) } else { Err("this node is not the leader".into()) }
    }

    fn is_safe(&self, disk: &Disk) -> Result<(), Cow<'static, str>> {
        // An heir that lags or has just returned makes it worse (CockroachDB #115659).
        if disk.heir == Some(self.to) { Ok(()) } else { Err("the next leader lags or is not reached".into()) }
    }

    /// The time for which the group waits for this disk. It waits for the disk of its leader alone; the next
    /// leader has a healer of its own, which judges the other disk.
    fn badness(&self, disk: &Disk) -> Option<f64> {
        if disk.is_leader { disk.age.map(|(age, _)| age) } else { Some(0.0) }
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: Duration::from_secs(3), improvement: 0.5 }
    }
}

/// A leader whose disk is slow hands the leadership over.
pub(super) struct LeaveSlowDisk;

impl Policy<Disk, Transfer> for LeaveSlowDisk {
    fn name(&self) -> &'static str {
        "leave-slow-disk"
    }

    fn decide(&mut self, now: Duration, disk: &Disk, plan: &mut Plan<Transfer>) {
        let (Some(evidence), Some(to), true) = (disk.slow(now), disk.heir, disk.is_leader) else { return };
        let factor = evidence.value / evidence.threshold;
        let confidence = factor / (1.0 + factor);
        plan.propose(Candidate {
            action: Transfer { from: disk.node, to },
            diagnosis: Diagnosis {
                cause: "slow-disk",
                confidence,
                runner_up: Some(("overload", 1.0 - confidence)),
            },
            utility: factor,
            evidence: vec![evidence],
        });
    }
}
