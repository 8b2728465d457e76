//! Knowledge: what a node knows of itself, of the leader and of the other voters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use x0_identity::NodeId;

use super::action::Act;
use crate::detect::ReadingError;
use crate::{Evidence, Knowledge, Reading};

/// Signal of the own node: the largest age of a write of the log that was not on the disk, in the last
/// 2 s.
pub const WRITE_AGE: &str = "write_age_seconds";
/// Signal of the own node: the share of the last 2 s in which the process did not run.
pub const STALLED_SHARE: &str = "stalled_share";
/// Signal of the own node: how often it did not run in that time.
pub const STALLS: &str = "stalls";
/// Signal of another voter: how long it has not been reached.
pub const SILENCE: &str = "silent_seconds";
/// Signal of another node that leads: the share of the last 2 s in which it was silent for 200 ms or longer.
/// A leader sends a heartbeat every 100 ms unless set.
pub const LEADER_SHARE: &str = "leader_silent_share";
/// Signal of another node that leads: how often it was silent for that long.
pub const LEADER_GAPS: &str = "leader_gaps";

/// Signal of the own node: by how many the voters are fewer than they should be.
pub const MISSING_VOTERS: &str = "missing_voters";
/// Signal of the own node: by how many they are more.
pub const SURPLUS_VOTERS: &str = "surplus_voters";

/// A process that does not run for half of the time is starved.
const STALLED_SHARE_LIMIT: f64 = 0.5;
/// A process that does not run for this share of the time is no witness.
const WITNESS_SHARE_LIMIT: f64 = 0.25;
/// One long stall is a pause: Raft replaces a leader that is silent for longer.
const STALLS_LIMIT: f64 = 3.0;

/// The signals of the own node, each with the largest value that is a measurement.
const OWN_SIGNALS: [(&str, f64); 5] = [
    (WRITE_AGE, 3600.0),
    (STALLED_SHARE, 1.0),
    (STALLS, 1000.0),
    (MISSING_VOTERS, 1000.0),
    (SURPLUS_VOTERS, 1000.0),
];
/// The signals of other voters. The longest silence is 100 years.
const OTHER_SIGNALS: [(&str, f64); 3] = [(SILENCE, 3.2e9), (LEADER_SHARE, 1.0), (LEADER_GAPS, 1000.0)];
/// A reading of this age says nothing.
const STALE: Duration = Duration::from_secs(2);

/// A member as a subject of the loop: records name it by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(
    /// The node.
    pub NodeId,
);

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// The place of a node in its group.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Place {
    /// Whether it leads.
    pub is_leader: bool,
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The voter that would take the leadership over.
    pub heir: Option<NodeId>,
    /// The learner that would replace a dead voter.
    pub spare: Option<NodeId>,
    /// All voters, this node included if it is one.
    pub voters: BTreeSet<NodeId>,
    /// The other members that it reaches now.
    pub reached: BTreeSet<NodeId>,
}

impl Place {
    /// Whether a majority of these voters is reached, or is this node.
    pub(super) fn has_quorum(&self, node: NodeId, voters: &BTreeSet<NodeId>) -> bool {
        let reached = voters.iter().filter(|voter| **voter == node || self.reached.contains(voter)).count();
        reached * 2 > voters.len()
    }
}

/// What a node knows of itself, of the leader and of the other voters.
#[derive(Debug)]
pub struct View {
    node: NodeId,
    write_age_limit: f64,
    /// The silence from which on a voter counts as dead; `None`: never.
    silence_limit: Option<f64>,
    /// How many voters there should be; `None`: as many as there are.
    voters: Option<usize>,
    /// The last reading of each signal of this node and of the voters, and its time.
    readings: BTreeMap<(NodeId, &'static str), (f64, Duration)>,
    /// When each other voter last said that its own writes wait for its disk.
    pressed: BTreeMap<NodeId, Duration>,
    /// When each other voter last said that the leader of the term runs only part of the time.
    suspects: BTreeMap<NodeId, Duration>,
    place: Place,
}

impl View {
    pub(super) fn new(node: NodeId, write_age_limit: Duration, silence_limit: Option<Duration>) -> View {
        View {
            node,
            write_age_limit: write_age_limit.as_secs_f64(),
            silence_limit: silence_limit.map(|limit| limit.as_secs_f64()),
            voters: None,
            readings: BTreeMap::new(),
            pressed: BTreeMap::new(),
            suspects: BTreeMap::new(),
            place: Place::default(),
        }
    }

    /// Sets how many voters there should be.
    pub(super) fn voters(mut self, voters: Option<usize>) -> View {
        self.voters = voters;
        self
    }

    /// How many voters are too few and too many, as signals; none if any number will do.
    pub(super) fn voter_counts(&self) -> Option<[(&'static str, f64); 2]> {
        self.voters?;
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        Some([(MISSING_VOTERS, count(self.missing_voters())), (SURPLUS_VOTERS, count(self.surplus_voters()))])
    }

    /// By how many voters are fewer than they should be.
    pub(super) fn missing_voters(&self) -> usize {
        self.voters.map_or(0, |voters| voters.saturating_sub(self.place.voters.len()))
    }

    /// By how many voters are more than they should be.
    pub(super) fn surplus_voters(&self) -> usize {
        self.voters.map_or(0, |voters| self.place.voters.len().saturating_sub(voters))
    }

    /// The change that is due because there are too few voters or too many: the action, its cause, and the
    /// numbers.
    ///
    /// Of too many, a dead voter is demoted first, then one that is not reached, then the one with the
    /// largest number; never this node, which leads. Nodes with the same knowledge select alike. A spare goes
    /// into the place of a dead voter before it becomes one more.
    pub(super) fn voters_due(&self, now: Duration) -> Option<(Act, &'static str, Vec<Evidence>)> {
        if !self.place.is_leader {
            return None;
        }
        let mut dead = self.dead(now);
        if let Some(spare) = self.place.spare
            && let Some(missing) = self.beyond(now, self.node, MISSING_VOTERS, 1.0)
        {
            let is_free = dead.next().is_none();
            return is_free.then(|| (Act::Promote { spare: Member(spare) }, "too-few-voters", vec![missing]));
        }
        let surplus = self.beyond(now, self.node, SURPLUS_VOTERS, 1.0)?;
        if let Some((voter, silent)) = dead.max_by_key(|(voter, _)| *voter) {
            let act = Act::Demote { voter: Member(voter), is_dead: true };
            return Some((act, "too-many-voters", vec![surplus, silent]));
        }
        let others = self.place.voters.iter().copied().filter(|voter| *voter != self.node);
        let voter = others.max_by_key(|voter| (!self.place.reached.contains(voter), *voter))?;
        Some((Act::Demote { voter: Member(voter), is_dead: false }, "too-many-voters", vec![surplus]))
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The place of the node in its group.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Sets the place of the node in the group. The readings of other nodes that are no voters are forgotten,
    /// and with the leader what was said of it.
    pub(super) fn set(&mut self, place: Place) {
        let is_same = (self.place.leader, self.place.term) == (place.leader, place.term);
        self.readings.retain(|(node, signal), _| {
            let is_of_leader = matches!(*signal, LEADER_SHARE | LEADER_GAPS);
            *node == self.node || place.voters.contains(node) && (is_same || !is_of_leader)
        });
        self.pressed.retain(|node, _| place.voters.contains(node));
        self.suspects.retain(|node, _| is_same && place.voters.contains(node));
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

    /// Another voter says that this leader runs only part of the time.
    pub(super) fn suspected(&mut self, now: Duration, by: NodeId, leader: NodeId) {
        if by != self.node && self.place.leader == Some(leader) && self.place.voters.contains(&by) {
            self.suspects.insert(by, now);
        }
    }

    /// The time of the last sample.
    fn sampled_at(&self) -> Duration {
        self.readings.get(&(self.node, WRITE_AGE)).map_or(Duration::ZERO, |(_, at)| *at)
    }

    /// Whether another voter has said lately that its writes wait for its disk.
    pub(super) fn is_other_pressed(&self, node: NodeId) -> bool {
        let now = self.sampled_at();
        self.pressed.get(&node).is_some_and(|at| now.saturating_sub(*at) < STALE)
    }

    /// The other node that leads, if it runs only part of the time as seen from here, with the readings that
    /// say so. A node that does not run for much of the time is no witness (Dadgar et al. 2017, Lifeguard).
    /// One that misses a sample now and then is: its own pauses are no silence of the leader.
    pub(super) fn leader_cause(&self, now: Duration) -> Option<(NodeId, Vec<Evidence>)> {
        let leader = self.place.leader.filter(|leader| *leader != self.node && !self.place.is_leader)?;
        self.reading(self.node, STALLED_SHARE).filter(|share| *share < WITNESS_SHARE_LIMIT)?;
        let share = self.beyond(now, leader, LEADER_SHARE, STALLED_SHARE_LIMIT)?;
        let gaps = self.beyond(now, leader, LEADER_GAPS, STALLS_LIMIT)?;
        Some((leader, vec![share, gaps]))
    }

    /// The voters that see the leader run only part of the time, this node among them.
    pub(super) fn suspecting(&self, now: Duration) -> BTreeSet<NodeId> {
        let fresh = self.suspects.iter().filter(|(_, at)| now.saturating_sub(**at) < STALE);
        let own = self.leader_cause(now).map(|_| self.node).filter(|own| self.place.voters.contains(own));
        fresh.map(|(node, _)| *node).chain(own).collect()
    }

    /// The voter that takes over from a leader that a majority of the voters suspects: of those that suspect
    /// it and whose disks are well, the one with the smallest number. Nodes with the same knowledge select
    /// alike.
    pub(super) fn successor(&self, now: Duration) -> Option<NodeId> {
        let suspecting = self.suspecting(now);
        if suspecting.len() * 2 <= self.place.voters.len() {
            return None;
        }
        let is_well = |node: &NodeId| match *node == self.node {
            true => self.own_cause(now).is_none(),
            false => !self.is_other_pressed(*node),
        };
        suspecting.into_iter().find(is_well)
    }

    /// As [`successor`](View::successor), at the time of the last sample.
    pub(super) fn successor_now(&self) -> Option<NodeId> {
        self.successor(self.sampled_at())
    }

    /// How many other voters have said lately that their writes wait for their disks, and how many others
    /// there are.
    pub(super) fn others_pressed(&self) -> (usize, usize) {
        let others = self.place.voters.iter().filter(|voter| **voter != self.node);
        let pressed = others.clone().filter(|voter| self.is_other_pressed(**voter));
        (pressed.count(), others.count())
    }

    /// The last value of a signal.
    #[must_use]
    pub fn reading(&self, node: NodeId, signal: &'static str) -> Option<f64> {
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

    /// The readings that make a node unhealthy; empty if it is not.
    #[must_use]
    pub fn evidence(&self, now: Duration, node: NodeId) -> Vec<Evidence> {
        if node == self.node {
            return self.own_cause(now).map(|(_, evidence)| evidence).unwrap_or_default();
        }
        if let Some((_, evidence)) = self.leader_cause(now).filter(|(leader, _)| *leader == node) {
            return evidence;
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
            false if !self.place.voters.contains(&node) => None,
            false => OTHER_SIGNALS.iter().find(|(name, _)| *name == signal).map(|(_, max)| *max),
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
    /// a slow leader for as long as it is dead. A leader that is slow counts itself alone: it hands over
    /// first, and the next leader replaces the voter. That there are too few voters, or too many, makes none
    /// of them unhealthy.
    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&Member)) {
        if self.own_cause(now).is_some() {
            each(&Member(self.node));
            if self.place.is_leader {
                return;
            }
        }
        if let Some(leader) = self.place.leader.filter(|_| self.successor(now).is_some()) {
            each(&Member(leader));
        }
        if self.place.spare.is_some() {
            self.dead(now).for_each(|(voter, _)| each(&Member(voter)));
        }
    }
}

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnCause {
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
