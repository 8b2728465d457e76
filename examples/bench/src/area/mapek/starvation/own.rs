//! The failure detector of x0-mapek.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use x0_mapek::suspicion::{Detector, DetectorOptions, Input, Output};

use super::schedule::Schedule;
use super::world::{Effect, Engine, System};

pub(super) struct Own(DetectorOptions);

impl Own {
    pub(super) fn defaults() -> Own {
        Own(DetectorOptions::new())
    }

    /// Settings that take this many times as long.
    pub(super) fn stretched(factor: f64) -> Own {
        let defaults = DetectorOptions::new();
        let times = |time: Duration| time.mul_f64(factor);
        let options = defaults
            .heartbeat(times(defaults.heartbeat))
            .gap(times(defaults.gap_min), times(defaults.gap_max))
            .answer_within(times(defaults.answer_within));
        Own(options)
    }
}

impl System for Own {
    type Engine = OwnEngine;

    fn start(&self, member: u64, start: u32, schedule: &Schedule, now: Duration) -> OwnEngine {
        let mut detector = Detector::new(member, u64::from(start), self.0, now);
        // Ten members are few enough.
        let _ = detector.handle(now, Input::Members(&(1..=schedule.size).collect()));
        let mut engine = OwnEngine { detector, accused: BTreeSet::new(), effects: VecDeque::new() };
        engine.drain();
        engine
    }
}

pub(super) struct OwnEngine {
    detector: Detector,
    accused: BTreeSet<u64>,
    effects: VecDeque<Effect>,
}

impl OwnEngine {
    fn drain(&mut self) {
        while let Some(output) = self.detector.poll_output() {
            match output {
                Output::Send { to, message } => {
                    let send = |to| Effect::Send { to, message: message.clone() };
                    self.effects.extend(to.into_iter().map(send));
                }
                Output::Suspect(suspect) => self.effects.push_back(Effect::Verdict(suspect.member)),
                Output::Cleared { member } => self.effects.push_back(Effect::Alive(member)),
                _ => {}
            }
        }
        let accused: BTreeSet<u64> = self.detector.accused().into_iter().collect();
        self.effects.extend(accused.difference(&self.accused).map(|member| Effect::Accused(*member)));
        self.accused = accused;
    }
}

impl Engine for OwnEngine {
    fn is_due(&self, now: Duration) -> bool {
        self.detector.poll_timeout().is_some_and(|due| due <= now)
    }

    fn timers(&mut self, now: Duration) {
        // A timeout is never refused.
        let _ = self.detector.handle(now, Input::Timeout);
        self.drain();
    }

    fn receive(&mut self, now: Duration, from: u64, message: &[u8]) {
        // Nor is the message of a member.
        let _ = self.detector.handle(now, Input::Received { from, message });
        self.drain();
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
