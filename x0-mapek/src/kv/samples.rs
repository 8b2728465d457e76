//! Samples of the own node and of the leader, every 100 ms.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use x0_identity::NodeId;

/// The distance of two samples.
pub const SAMPLE: Duration = Duration::from_millis(100);
/// The time that is remembered: between two writes a slow disk is idle.
const WINDOW: Duration = Duration::from_secs(2);
/// A sample that is this late was delayed by a stall, and not by the turns of other tasks.
const STALL: Duration = Duration::from_millis(100);
/// A leader that is silent for this long misses a heartbeat: it sends one every 100 ms, and a sample is as
/// old.
const GAP: Duration = Duration::from_millis(200);
/// The longest time between two samples that counts for the age of a write: for the rest of the time the
/// process did not run, and the disk may have been done.
const STEP_MAX: Duration = Duration::from_millis(150);

/// The longest silence before a verdict: that of a detector's `gap_max` and `answer_within`, with some room.
const ALREADY_MAX: Duration = Duration::from_secs(2);

/// The last two seconds of the node.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// The time of the last sample.
    last: Option<Duration>,
    /// The write that waits, by its time on the clock of the node, and its age.
    waiting: Option<(Duration, Duration)>,
    /// The age of the write that waited, by time.
    ages: VecDeque<(Duration, Duration)>,
    /// By how much samples were late, by time.
    stalls: VecDeque<(Duration, Duration)>,
    /// The last message of the leader, by its time on the clock of the node, and its age.
    heard: Option<(Duration, Duration)>,
    /// The silences of the leader, by the time of their end so far, with the message before.
    gaps: VecDeque<(Duration, Duration, Duration)>,
    /// Since when each voter has not been reached.
    silent: BTreeMap<NodeId, Duration>,
}

/// What a sample says of the last two seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// The largest age of a write.
    pub(super) write_age: Duration,
    /// The share of the time in which the process did not run.
    pub(super) stalled_share: f64,
    /// How often it did not run.
    pub(super) stalls: u32,
    /// The share of the time, as far as this process ran, in which the leader was silent for longer than a
    /// heartbeat takes.
    pub(super) leader_share: f64,
    /// How often it was.
    pub(super) leader_gaps: u32,
}

impl Samples {
    /// Takes a sample; `since` identifies the oldest write that is not on the disk, and `heard` the last
    /// message of another node that leads.
    pub(super) fn take(&mut self, now: Duration, since: Option<Duration>, heard: Option<Duration>) -> Sample {
        let passed = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.last = Some(now);
        let late = passed.saturating_sub(SAMPLE);
        let is_stall = late >= STALL;
        if is_stall {
            self.stalls.push_back((now, late));
        }
        self.waiting = since.map(|since| match self.waiting {
            Some((before, age)) if before == since => (since, age + passed.min(STEP_MAX)),
            _ => (since, Duration::ZERO),
        });
        self.ages.push_back((now, self.waiting.map_or(Duration::ZERO, |(_, age)| age)));
        for times in [&mut self.ages, &mut self.stalls] {
            while times.front().is_some_and(|(at, _)| *at + WINDOW <= now) {
                times.pop_front();
            }
        }
        // Of the time in which this process did not run, nothing is known: it is no silence of the leader.
        self.take_heard(now, if is_stall { Duration::ZERO } else { passed.min(STEP_MAX) }, heard);
        let silent: Duration = self.gaps.iter().map(|(_, _, age)| *age).sum();
        let stalled: Duration = self.stalls.iter().map(|(_, late)| *late).sum();
        let ran = WINDOW.saturating_sub(stalled).max(SAMPLE);
        Sample {
            write_age: self.ages.iter().map(|(_, age)| *age).max().unwrap_or_default(),
            stalled_share: (stalled.as_secs_f64() / WINDOW.as_secs_f64()).min(1.0),
            stalls: u32::try_from(self.stalls.len()).unwrap_or(u32::MAX),
            leader_share: (silent.as_secs_f64() / ran.as_secs_f64()).min(1.0),
            leader_gaps: u32::try_from(self.gaps.len()).unwrap_or(u32::MAX),
        }
    }

    /// Another node leads, or leads again: what was seen of the leader before says nothing of it.
    pub(super) fn forget_leader(&mut self) {
        self.heard = None;
        self.gaps.clear();
    }

    /// Notes the age of the last message of the leader, and its silences in the last two seconds.
    fn take_heard(&mut self, now: Duration, passed: Duration, heard: Option<Duration>) {
        self.heard = heard.map(|heard| match self.heard {
            Some((before, age)) if before == heard => (heard, age + passed),
            _ => (heard, Duration::ZERO),
        });
        if let Some((heard, age)) = self.heard.filter(|(_, age)| *age >= GAP) {
            match self.gaps.back_mut() {
                // The same silence, longer by now.
                Some(gap) if gap.1 == heard => *gap = (now, heard, age),
                _ => self.gaps.push_back((now, heard, age)),
            }
        }
        while self.gaps.front().is_some_and(|(at, _, _)| *at + WINDOW <= now) {
            self.gaps.pop_front();
        }
    }

    /// How long each of these voters has not been reached, without those that are reached as at the sample
    /// before; zero for one that is reached again. The time begins with the first sample without the voter,
    /// or as long before it as the voter was silent already, [`ALREADY_MAX`] at most: that is how long a
    /// verdict takes. Some members may have suspected the voter for hours meanwhile.
    pub(super) fn silences(
        &mut self,
        now: Duration,
        voters: impl Iterator<Item = NodeId>,
        is_reached: impl Fn(NodeId) -> bool,
        silent: &BTreeMap<NodeId, Duration>,
    ) -> Vec<(NodeId, Duration)> {
        let mut silences = Vec::new();
        let before = std::mem::take(&mut self.silent);
        for voter in voters {
            match (is_reached(voter), before.get(&voter)) {
                (true, None) => {}
                (true, Some(_)) => silences.push((voter, Duration::ZERO)),
                (false, since) => {
                    let already = silent.get(&voter).copied().unwrap_or_default().min(ALREADY_MAX);
                    let since = since.copied().unwrap_or(now.saturating_sub(already));
                    self.silent.insert(voter, since);
                    silences.push((voter, now.saturating_sub(since)));
                }
            }
        }
        silences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_age_is_that_of_the_write_that_waits_and_is_remembered_for_two_seconds() {
        let mut samples = Samples::default();
        let mut at = |at: u64, since: Option<u64>| {
            samples.take(millis(at), since.map(millis), None).write_age.as_millis()
        };
        assert_eq!([at(0, None), at(100, Some(7)), at(200, Some(7)), at(320, Some(7))], [0, 0, 100, 220]);
        // Another write begins at zero; the longest wait of the last two seconds counts.
        assert_eq!([at(400, Some(8)), at(500, None)], [220, 220]);
        let later: Vec<_> = (6..30).map(|step| at(step * 100, None)).collect();
        assert_eq!((later[17], later[18]), (220, 0));
    }

    #[test]
    fn silence_begins_again_after_each_sign_of_life() {
        let mut samples = Samples::default();
        let [two, three] = [2, 3].map(|number| NodeId::new(number).unwrap());
        let mut at = |at: u64, reached: &[NodeId], already: u64| {
            let is_reached = |voter| reached.contains(&voter);
            let silent = BTreeMap::from([(three, millis(already))]);
            let silences = samples.silences(millis(at), [two, three].into_iter(), is_reached, &silent);
            let number = |node: NodeId| if node == two { 2 } else { 3 };
            silences.iter().map(|(node, silent)| (number(*node), silent.as_millis())).collect::<Vec<_>>()
        };
        assert_eq!(at(500, &[two], 0), [(3, 0)]);
        assert_eq!(at(600, &[two], 0), [(3, 100)]);
        assert_eq!(at(900, &[], 0), [(2, 0), (3, 400)]);
        assert_eq!(at(1000, &[three], 0), [(2, 100), (3, 0)]);
        assert_eq!(at(1100, &[], 0), [(2, 200), (3, 0)]);
        assert_eq!(at(1200, &[two, three], 0), [(2, 0), (3, 0)]);
        assert_eq!(at(1300, &[two, three], 0), []);
        // A member that becomes suspect has been silent for a while; it is said again with each sample.
        assert_eq!(at(5000, &[two], 1050), [(3, 1050)]);
        assert_eq!(at(5100, &[two], 1150), [(3, 1150)]);
        assert_eq!(at(5200, &[two], 0), [(3, 1250)]);
        // A voter that is reached, though suspected for hours by others, begins its silence when it is lost.
        assert_eq!(at(9000, &[two, three], 7_200_000), [(3, 0)]);
        assert_eq!(at(9100, &[two], 7_200_000), [(3, 2000)]);
        assert_eq!(at(9200, &[two], 7_200_000), [(3, 2100)]);
    }

    #[test]
    fn a_process_that_is_stopped_part_of_the_time_blames_no_disk() {
        let mut samples = Samples::default();
        let mut last = samples.take(millis(0), None, None);
        // Stopped for 350 of every 400 ms, with a write that begins and ends in between.
        for step in 1..20 {
            last = samples.take(millis(step * 400), (step % 2 == 0).then(|| millis(step)), None);
        }
        assert_eq!((last.stalls, last.write_age), (5, Duration::ZERO));
        assert!((last.stalled_share - 0.75).abs() < 1e-9, "{last:?}");
        // One pause is one stall, and is forgotten.
        for step in 0..30 {
            last = samples.take(millis(9000 + step * 100), None, None);
        }
        assert_eq!((last.stalls, last.stalled_share), (0, 0.0));
        let paused = samples.take(millis(20_000), None, None);
        assert_eq!((paused.stalls, paused.stalled_share), (1, 1.0));
    }

    #[test]
    fn a_leader_that_runs_part_of_the_time_leaves_gaps_and_a_silent_one_leaves_one() {
        let mut samples = Samples::default();
        // Heartbeats every 100 ms, some of them late.
        let mut last = samples.take(millis(0), None, Some(millis(0)));
        for step in 1..40 {
            let heard = if step % 7 == 0 { step - 1 } else { step };
            last = samples.take(millis(step * 100), None, Some(millis(heard * 100)));
        }
        assert_eq!((last.leader_gaps, last.leader_share), (0, 0.0));
        // The leader runs for 50 of every 400 ms.
        for step in 40..80 {
            last = samples.take(millis(step * 100), None, Some(millis(step / 4 * 400)));
        }
        assert_eq!(last.leader_gaps, 5);
        assert!((0.6..=0.9).contains(&last.leader_share), "{last:?}");
        // A process that misses samples sees fewer gaps, and none of a healthy leader.
        for (until, is_starved) in [(400, false), (440, true)] {
            let mut samples = Samples::default();
            for step in (0..until).filter(|step| step % 10 > 1) {
                let heard = if is_starved && step > 400 { step / 4 * 4 } else { step };
                last = samples.take(millis(step * 100), None, Some(millis(heard * 100)));
            }
            match is_starved {
                true => assert!(last.leader_gaps >= 3 && last.leader_share > 0.5, "{last:?}"),
                false => assert_eq!((last.leader_gaps, last.stalls), (0, 2)),
            }
        }
        // A hung one, which Raft replaces.
        for step in 80..110 {
            last = samples.take(millis(step * 100), None, Some(millis(7_600)));
        }
        assert_eq!((last.leader_gaps, last.leader_share), (1, 1.0));
        samples.forget_leader();
        last = samples.take(millis(11_000), None, Some(millis(7_600)));
        assert_eq!((last.leader_gaps, last.leader_share), (0, 0.0));
    }
}
