//! Knowledge: what a node knows of itself and of the other voters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use x0_identity::NodeId;
use x0_mapek::detect::ReadingError;
use x0_mapek::{Evidence, Knowledge, Reading};

/// The largest age of a write of the log that was not on the disk, in the last 2 s.
pub(super) const WRITE_AGE: &str = "write_age_seconds";
/// The share of the last 2 s in which the process did not run.
pub(super) const STALLED_SHARE: &str = "stalled_share";
/// How often it did not run in that time.
pub(super) const STALLS: &str = "stalls";
/// How long another voter has not been reached.
pub(super) const SILENCE: &str = "silent_seconds";

/// A process that does not run for half of the time is starved.
const STALLED_SHARE_LIMIT: f64 = 0.5;
/// One long stall is a pause: Raft replaces a leader that is silent for longer.
const STALLS_LIMIT: f64 = 3.0;

/// The signals of the own node, each with the largest value that is a measurement.
const OWN_SIGNALS: [(&str, f64); 3] = [(WRITE_AGE, 3600.0), (STALLED_SHARE, 1.0), (STALLS, 1000.0)];
/// The longest silence: 100 years.
const SILENCE_MAX: f64 = 3.2e9;
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(2);

/// A member as a subject of the loop: records name it by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member(pub(super) NodeId);

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// The place of the node in the group.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Whether it leads.
    pub(super) is_leader: bool,
    /// The voter that would take the leadership over.
    pub(super) heir: Option<NodeId>,
    /// The learner that would replace a dead voter.
    pub(super) spare: Option<NodeId>,
    /// All voters, this node included if it is one.
    pub(super) voters: BTreeSet<NodeId>,
    /// The other members that it reaches now.
    pub(super) reached: BTreeSet<NodeId>,
}

impl Place {
    /// Whether a majority of these voters is reached, or is this node.
    pub(super) fn has_quorum(&self, node: NodeId, voters: &BTreeSet<NodeId>) -> bool {
        let reached = voters.iter().filter(|voter| **voter == node || self.reached.contains(voter)).count();
        reached * 2 > voters.len()
    }
}

/// What a node knows of itself and of the other voters.
pub(super) struct View {
    pub(super) node: NodeId,
    write_age_limit: f64,
    /// The silence from which on a voter counts as dead; `None`: never.
    silence_limit: Option<f64>,
    /// The last reading of each signal of this node and of the voters, and its time.
    readings: BTreeMap<(NodeId, &'static str), (f64, Duration)>,
    /// When each other voter last said that its own writes wait for its disk.
    pressed: BTreeMap<NodeId, Duration>,
    pub(super) place: Place,
}

impl View {
    pub(super) fn new(node: NodeId, write_age_limit: Duration, silence_limit: Option<Duration>) -> View {
        let silence_limit = silence_limit.map(|limit| limit.as_secs_f64());
        let write_age_limit = write_age_limit.as_secs_f64();
        let (readings, pressed, place) = (BTreeMap::new(), BTreeMap::new(), Place::default());
        View { node, write_age_limit, silence_limit, readings, pressed, place }
    }

    /// Sets the place of the node in the group. The readings of other nodes that are no voters are forgotten.
    pub(super) fn set(&mut self, place: Place) {
        self.readings.retain(|(node, _), _| *node == self.node || place.voters.contains(node));
        self.pressed.retain(|node, _| place.voters.contains(node));
        self.place = place;
    }

    /// Whether writes that wait for the disk for this long are worth telling: half of the limit.
    pub(super) fn is_pressed(&self, write_age: Duration) -> bool {
        write_age.as_secs_f64() * 2.0 >= self.write_age_limit
    }

    /// Another node says that its writes wait for its disk for this long.
    pub(super) fn heard(&mut self, now: Duration, node: NodeId, write_age: Duration) {
        if node != self.node && self.place.voters.contains(&node) && self.is_pressed(write_age) {
            self.pressed.insert(node, now);
        }
    }

    /// Whether another voter has said lately that its writes wait for its disk.
    pub(super) fn is_other_pressed(&self, node: NodeId) -> bool {
        let now = self.readings.get(&(self.node, WRITE_AGE)).map_or(Duration::ZERO, |(_, at)| *at);
        self.pressed.get(&node).is_some_and(|at| now.saturating_sub(*at) < STALE)
    }

    /// How many other voters have said so, and how many others there are.
    pub(super) fn others_pressed(&self) -> (usize, usize) {
        let others = self.place.voters.iter().filter(|voter| **voter != self.node);
        let pressed = others.clone().filter(|voter| self.is_other_pressed(**voter));
        (pressed.count(), others.count())
    }

    pub(super) fn reading(&self, node: NodeId, signal: &'static str) -> Option<f64> {
        self.readings.get(&(node, signal)).map(|(value, _)| *value)
    }

    /// The signal, if it is at its threshold or above.
    fn beyond(&self, now: Duration, node: NodeId, signal: &'static str, threshold: f64) -> Option<Evidence> {
        let (value, at) = *self.readings.get(&(node, signal))?;
        let age = now.saturating_sub(at);
        (age < STALE && value >= threshold).then_some(Evidence { signal, value, threshold, age })
    }

    /// What is wrong with this node, the most severe first, with the readings that say so.
    pub(super) fn own_cause(&self, now: Duration) -> Option<(OwnCause, Vec<Evidence>)> {
        let share = self.beyond(now, self.node, STALLED_SHARE, STALLED_SHARE_LIMIT);
        if let Some((share, stalls)) = share.zip(self.beyond(now, self.node, STALLS, STALLS_LIMIT)) {
            return Some((OwnCause::Starved, vec![share, stalls]));
        }
        let slow = self.beyond(now, self.node, WRITE_AGE, self.write_age_limit)?;
        Some((OwnCause::SlowDisk, vec![slow]))
    }

    /// The readings that make this node unhealthy.
    pub(super) fn evidence(&self, now: Duration, node: NodeId) -> Vec<Evidence> {
        if node == self.node {
            return self.own_cause(now).map(|(_, evidence)| evidence).unwrap_or_default();
        }
        self.dead(now).filter(|(dead, _)| *dead == node).map(|(_, evidence)| evidence).collect()
    }

    /// The voters that count as dead, with the reading that says so.
    pub(super) fn dead(&self, now: Duration) -> impl Iterator<Item = (NodeId, Evidence)> + '_ {
        let others = self.place.voters.iter().filter(|voter| **voter != self.node);
        let limit = self.silence_limit;
        others.filter_map(move |voter| Some((*voter, self.beyond(now, *voter, SILENCE, limit?)?)))
    }
}

impl Knowledge for View {
    type Subject = Member;

    fn observe(&mut self, now: Duration, reading: &Reading<Member>) -> Result<(), ReadingError> {
        let Reading { subject: Member(node), signal, value } = *reading;
        let max = match node == self.node {
            true => OWN_SIGNALS.iter().find(|(name, _)| *name == signal).map(|(_, max)| *max),
            false => (signal == SILENCE && self.place.voters.contains(&node)).then_some(SILENCE_MAX),
        };
        // A NaN is not in the range either.
        if !(0.0..=max.ok_or(ReadingError::Unknown)?).contains(&value) {
            return Err(ReadingError::OutOfRange { value });
        }
        self.readings.insert((node, signal), (value, now));
        Ok(())
    }

    fn subject_count(&self) -> usize {
        self.place.voters.len()
    }

    /// A dead voter counts only while a spare can replace it: otherwise it would hold back the transfer from
    /// a slow leader for as long as it is dead.
    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Member)) {
        if self.own_cause(now).is_some() {
            each(&Member(self.node));
        }
        if self.place.spare.is_some() {
            self.dead(now).for_each(|(voter, _)| each(&Member(voter)));
        }
    }
}

/// What is wrong with the own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnCause {
    /// Writes wait for the disk.
    SlowDisk,
    /// The process does not run for much of the time.
    Starved,
}

impl OwnCause {
    pub(super) fn name(self) -> &'static str {
        match self {
            OwnCause::SlowDisk => "slow-disk",
            OwnCause::Starved => "starved",
        }
    }

    /// The signal that is to be better after an action.
    pub(super) fn signal(self) -> &'static str {
        match self {
            OwnCause::SlowDisk => WRITE_AGE,
            OwnCause::Starved => STALLED_SHARE,
        }
    }
}
