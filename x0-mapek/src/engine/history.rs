//! The history of subjects: attempts, back-off, penalties, escalations and causes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::options::LoopOptions;

/// The most subjects that are remembered.
pub(super) const SUBJECTS_MAX: usize = 4096;
/// The least factor of a penalty.
const PENALTY_MIN: f64 = 1.0 / 64.0;

#[derive(Debug, Default)]
struct History {
    /// Actions without an improvement since.
    attempts: u32,
    /// No action before this time.
    next: Duration,
    is_escalated: bool,
    /// By kind of action: the factor on its utility, and when it was set.
    penalties: BTreeMap<&'static str, (f64, Duration)>,
    /// The causes for which the subject was acted on, with the last time.
    causes: BTreeMap<&'static str, Duration>,
}

/// What happened to each subject.
#[derive(Debug)]
pub(super) struct Histories<S> {
    subjects: BTreeMap<S, History>,
}

impl<S> Default for Histories<S> {
    fn default() -> Histories<S> {
        Histories { subjects: BTreeMap::new() }
    }
}

impl<S: Ord + Clone> Histories<S> {
    /// Begins an attempt: back-off doubles with each one.
    pub(super) fn begin(&mut self, now: Duration, subject: &S, cause: &'static str, options: &LoopOptions) {
        if self.subjects.len() >= SUBJECTS_MAX && !self.subjects.contains_key(subject) {
            // Subjects whose back-off is over and that no person waits for are forgotten first.
            self.subjects.retain(|_, history| history.next > now || history.is_escalated);
        }
        let history = self.subjects.entry(subject.clone()).or_default();
        let doubled = 2_u32.saturating_pow(history.attempts.min(16));
        history.next = now + options.back_off.saturating_mul(doubled).min(options.back_off_max);
        history.attempts = history.attempts.saturating_add(1);
        history.causes.retain(|_, last| now.saturating_sub(*last) < options.back_off_max);
        history.causes.insert(cause, now);
    }

    pub(super) fn attempts(&self, subject: &S) -> u32 {
        self.subjects.get(subject).map_or(0, |history| history.attempts)
    }

    /// The action helped.
    pub(super) fn improved(&mut self, subject: &S, kind: &'static str) {
        if let Some(history) = self.subjects.get_mut(subject) {
            history.attempts = 0;
            history.penalties.remove(kind);
        }
    }

    /// The action did not help: its kind is chosen less often for this subject.
    pub(super) fn penalise(
        &mut self,
        now: Duration,
        subject: &S,
        kind: &'static str,
        factor: f64,
        half_life: Duration,
    ) {
        let before = self.factor(now, subject, kind, half_life);
        if let Some(history) = self.subjects.get_mut(subject) {
            history.penalties.insert(kind, ((before * factor).max(PENALTY_MIN), now));
        }
    }

    /// No action on the subject before `until`.
    pub(super) fn wait_until(&mut self, subject: &S, until: Duration) {
        if let Some(history) = self.subjects.get_mut(subject) {
            history.next = history.next.max(until);
        }
    }

    /// The factor on the utility of a kind of action: 1 without a penalty, which it approaches again.
    pub(super) fn factor(&self, now: Duration, subject: &S, kind: &'static str, half_life: Duration) -> f64 {
        let penalty = self.subjects.get(subject).and_then(|history| history.penalties.get(kind));
        penalty.map_or(1.0, |(factor, since)| {
            let halves = now.saturating_sub(*since).as_secs_f64() / half_life.as_secs_f64().max(1e-9);
            factor.powf((-halves).exp2())
        })
    }

    pub(super) fn back_off(&self, subject: &S) -> Duration {
        self.subjects.get(subject).map_or(Duration::ZERO, |history| history.next)
    }

    pub(super) fn is_escalated(&self, subject: &S) -> bool {
        self.subjects.get(subject).is_some_and(|history| history.is_escalated)
    }

    /// The subjects that a person has not acknowledged.
    pub(super) fn escalated(&self) -> impl Iterator<Item = &S> {
        self.subjects.iter().filter(|(_, history)| history.is_escalated).map(|(subject, _)| subject)
    }

    /// `false` if it was escalated already.
    pub(super) fn escalate(&mut self, subject: &S) -> bool {
        let history = self.subjects.entry(subject.clone()).or_default();
        !std::mem::replace(&mut history.is_escalated, true)
    }

    pub(super) fn acknowledge(&mut self, subject: &S) {
        if let Some(history) = self.subjects.get_mut(subject) {
            history.is_escalated = false;
            history.attempts = 0;
        }
    }

    /// Other subjects that were acted on for this cause within `window`.
    pub(super) fn others_of(&self, now: Duration, subject: &S, cause: &str, window: Duration) -> usize {
        let is_recent = |history: &History| {
            history.causes.get(cause).is_some_and(|last| now.saturating_sub(*last) < window)
        };
        self.subjects.iter().filter(|(other, history)| *other != subject && is_recent(history)).count()
    }
}
