//! The state of one other member, as a detector knows it.

use std::time::Duration;

use super::message::Report;
use super::options::DetectorOptions;
use crate::detect::{Condition, PhiAccrual};

/// The state of one other member.
#[derive(Debug)]
pub(super) struct Peer {
    /// When its last message came, or when it became a member.
    pub(super) last: Duration,
    pub(super) is_heard: bool,
    /// The arrivals of its heartbeats.
    pub(super) beats: PhiAccrual,
    pub(super) doubt: Option<Doubt>,
    /// When the last doubt began at the request of another member.
    pub(super) asked_at: Option<Duration>,
    pub(super) accused: Option<Accused>,
    pub(super) report: Report,
    /// When the report, or a repetition of it, came last.
    pub(super) reported_at: Duration,
    pub(super) confirmation: Confirmation,
    /// Since when a majority accuses it, by reports that may be old.
    pub(super) majority_since: Option<Duration>,
    /// Since when it is suspect.
    pub(super) suspect_since: Option<Duration>,
}

/// A member that is being probed.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) number: u64,
    pub(super) begun: Duration,
    pub(super) controls: Vec<u64>,
    /// When the first control answered.
    pub(super) control_at: Option<Duration>,
    pub(super) is_repeated: bool,
    /// How often it was begun again, because no control answered or this process did not run.
    pub(super) round: u32,
}

/// A member that this one accuses.
#[derive(Debug)]
pub(super) struct Accused {
    /// Whether nothing has happened since that makes the accusation doubtful.
    pub(super) is_sure: bool,
    /// When it is probed again: it may be back.
    pub(super) probe_at: Duration,
}

/// The question to an accuser whether it stands by its report.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// The number of the last question, and when it was sent.
    pub(super) asked: Option<(u64, Duration)>,
    /// When the question was sent to which the accuser has answered that it is sure.
    pub(super) confirmed: Option<Duration>,
}

impl Peer {
    pub(super) fn new(options: &DetectorOptions, now: Duration) -> Peer {
        Peer {
            last: now,
            is_heard: false,
            beats: PhiAccrual::new(options.arrivals),
            doubt: None,
            asked_at: None,
            accused: None,
            report: Report::default(),
            reported_at: now,
            confirmation: Confirmation::default(),
            majority_since: None,
            suspect_since: None,
        }
    }

    /// Whether the member has been silent for too long, in the time that this process ran since `ran_at`.
    pub(super) fn is_silent(&self, options: &DetectorOptions, now: Duration, ran_at: Duration) -> bool {
        let silence = now.saturating_sub(self.last.max(ran_at));
        if !self.is_heard {
            return silence >= options.start_grace;
        }
        silence >= options.gap_min
            && (silence >= options.gap_max || self.beats.judge(now).condition == Condition::Suspect)
    }

    /// Since when the member was silent if it became suspect at `since`. A detector that is no watcher of it
    /// has not heard it for long anyway.
    pub(super) fn silent_since(&self, options: &DetectorOptions, since: Duration) -> Duration {
        since.saturating_sub(options.gap_min).saturating_sub(options.answer_within).max(self.last.min(since))
    }

    /// Takes a report, unless it is older than the one that is known.
    pub(super) fn take_report(&mut self, now: Duration, report: Report) {
        let is_old = report.instance == self.report.instance && report.sequence < self.report.sequence;
        if !is_old {
            self.report = report;
            self.reported_at = now;
        }
    }
}

impl Doubt {
    /// When the member is to be accused: an answer that takes as long again as that of the control is
    /// awaited. `None` as long as no control has answered.
    pub(super) fn due(&self, options: &DetectorOptions) -> Option<Duration> {
        let control_at = self.control_at?;
        let took = control_at.saturating_sub(self.begun);
        let patient = control_at.saturating_add(took.max(options.tick.saturating_mul(2)));
        Some(patient.max(self.begun.saturating_add(options.answer_within)))
    }
}
