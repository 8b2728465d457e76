//! Static limits: knowledge, action and policy for the simplest healer, which restarts what is beyond a
//! limit.
//!
//! A limit is a fixed number that a person chose. The detectors of [`detect`](crate::detect) learn what is
//! normal instead, and [`diagnose`](crate::diagnose) tells causes apart; a pool of threads needs neither.
//!
//! ```
//! use std::time::Duration;
//! use x0_mapek::limits::{Limits, Restart, RestartBeyondLimits};
//! use x0_mapek::{Input, Loop, LoopOptions, Mode, Reading};
//!
//! let limits = Limits::new(["api", "worker"]).limit("job_seconds", 0.1, "slow").limit("job_seconds", 5.0, "hang");
//! let options = LoopOptions::new().mode(Mode::Active).grace(Duration::ZERO).stability(Duration::ZERO);
//! let mut healer = Loop::new(limits, Box::new(RestartBeyondLimits::default()), options);
//! let reading = Reading { subject: "worker", signal: "job_seconds", value: 7.0 };
//! healer.handle(Duration::ZERO, Input::Reading(reading))?;
//! healer.handle(Duration::from_millis(500), Input::Timeout)?;
//! let mut restarted = vec![];
//! healer.drain(Duration::from_millis(500), |Restart { subject, .. }| {
//!     restarted.push(*subject);
//!     Ok(())
//! })?;
//! assert_eq!(restarted, ["worker"]);
//! # Ok::<(), x0_mapek::HandleError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::action::{Action, Disruption, Expectation};
use crate::detect::ReadingError;
use crate::knowledge::{Knowledge, Reading};
use crate::plan::{Candidate, Diagnosis, EVIDENCE_MAX, Evidence, Plan, Policy};

/// A reading this many times its limit is no measurement.
const FACTOR_MAX: f64 = 1e9;

/// A limit of a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    signal: &'static str,
    value: f64,
    cause: &'static str,
}

/// The last reading of each signal of each subject, beside fixed limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits<S> {
    limits: Vec<Limit>,
    stale_after: Duration,
    readings: BTreeMap<S, BTreeMap<&'static str, (f64, Duration)>>,
}

/// What is beyond its limit.
#[derive(Debug, Clone, PartialEq)]
struct Excess {
    /// The most severe limit that is exceeded, and the next one.
    causes: [Option<&'static str>; 2],
    /// The largest reading, divided by its limit.
    factor: f64,
    evidence: Vec<Evidence>,
}

impl<S: Ord + Clone> Limits<S> {
    /// No limits yet. Readings of other subjects are refused.
    pub fn new(subjects: impl IntoIterator<Item = S>) -> Limits<S> {
        let readings = subjects.into_iter().map(|subject| (subject, BTreeMap::new())).collect();
        Limits { limits: Vec::new(), stale_after: Duration::from_secs(10), readings }
    }

    /// Adds a limit: a reading of `value` or more, which is positive, counts as `cause`. Add the mildest
    /// first: of several exceeded limits the last added names the cause. Readings of more than 10^9 times the
    /// largest limit of their signal are refused.
    #[must_use]
    pub fn limit(mut self, signal: &'static str, value: f64, cause: &'static str) -> Limits<S> {
        self.limits.push(Limit { signal, value, cause });
        self
    }

    /// Sets the age from which on a reading says nothing any more: 10 s unless set.
    #[must_use]
    pub fn stale_after(mut self, stale_after: Duration) -> Limits<S> {
        self.stale_after = stale_after;
        self
    }

    fn excess(&self, now: Duration, subject: &S) -> Option<Excess> {
        let mut excess = Excess { causes: [None; 2], factor: 0.0, evidence: Vec::new() };
        for Limit { signal, value: threshold, cause } in &self.limits {
            let Some((value, at)) = self.readings.get(subject)?.get(signal) else { continue };
            let age = now.saturating_sub(*at);
            if age < self.stale_after && *threshold > 0.0 && value >= threshold {
                excess.causes = [Some(cause), excess.causes[0]];
                excess.factor = excess.factor.max(value / threshold);
                if excess.evidence.len() < EVIDENCE_MAX {
                    excess.evidence.push(Evidence { signal, value: *value, threshold: *threshold, age });
                }
            }
        }
        excess.causes[0].is_some().then_some(excess)
    }

    /// The largest reading, divided by its limit.
    fn badness(&self, subject: &S) -> Option<f64> {
        let readings = self.readings.get(subject)?;
        let factor = |limit: &Limit| Some(readings.get(limit.signal)?.0 / limit.value);
        self.limits.iter().filter(|limit| limit.value > 0.0).filter_map(factor).reduce(f64::max)
    }
}

impl<S: Ord + Clone + fmt::Debug> Knowledge for Limits<S> {
    type Subject = S;

    fn observe(&mut self, now: Duration, reading: &Reading<S>) -> Result<(), ReadingError> {
        let limits = self.limits.iter().filter(|limit| limit.signal == reading.signal);
        let Some(limit) = limits.map(|limit| limit.value).reduce(f64::max) else {
            return Err(ReadingError::Unknown);
        };
        // A NaN is not in the range either.
        if !(0.0..=limit * FACTOR_MAX).contains(&reading.value) {
            return Err(ReadingError::OutOfRange { value: reading.value });
        }
        let readings = self.readings.get_mut(&reading.subject).ok_or(ReadingError::Unknown)?;
        readings.insert(reading.signal, (reading.value, now));
        Ok(())
    }

    fn subject_count(&self) -> usize {
        self.readings.len()
    }

    fn unhealthy(&self, now: Duration, each: &mut dyn FnMut(&S)) {
        self.readings.keys().filter(|subject| self.excess(now, subject).is_some()).for_each(each);
    }
}

/// Restarts or replaces the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart<S> {
    /// The subject.
    pub subject: S,
    /// The time until it must be better.
    pub within: Duration,
}

impl<S: Ord + Clone + fmt::Debug> Action<Limits<S>> for Restart<S> {
    fn kind(&self) -> &'static str {
        "restart"
    }

    fn subject(&self) -> &S {
        &self.subject
    }

    fn disruption(&self) -> Disruption {
        Disruption::Brief
    }

    fn badness(&self, limits: &Limits<S>) -> Option<f64> {
        limits.badness(&self.subject)
    }

    fn expectation(&self) -> Expectation {
        Expectation { within: self.within, improvement: 0.5 }
    }
}

/// Restarts every subject that is beyond a limit, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBeyondLimits {
    within: Duration,
}

impl RestartBeyondLimits {
    /// A subject must be better by half, `within` this time after its restart.
    #[must_use]
    pub fn new(within: Duration) -> RestartBeyondLimits {
        RestartBeyondLimits { within }
    }
}

impl Default for RestartBeyondLimits {
    /// Within a second.
    fn default() -> RestartBeyondLimits {
        RestartBeyondLimits::new(Duration::from_secs(1))
    }
}

impl<S: Ord + Clone + fmt::Debug> Policy<Limits<S>, Restart<S>> for RestartBeyondLimits {
    fn name(&self) -> &'static str {
        "restart-beyond-limits"
    }

    fn decide(&mut self, now: Duration, limits: &Limits<S>, plan: &mut Plan<Restart<S>>) {
        for subject in limits.readings.keys() {
            let Some(Excess { causes: [Some(cause), next], factor, evidence }) = limits.excess(now, subject)
            else {
                continue;
            };
            // At the limit both answers are as likely; far beyond it the limit can hardly be wrong.
            let confidence = factor / (1.0 + factor);
            let runner_up = next.map(|next| (next, 1.0 - confidence));
            plan.propose(Candidate {
                action: Restart { subject: subject.clone(), within: self.within },
                diagnosis: Diagnosis { cause, confidence, runner_up },
                utility: factor,
                evidence,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits<u8> {
        Limits::new(0..3)
            .limit("seconds", 1.0, "slow")
            .limit("seconds", 5.0, "hang")
            .limit("bytes", 100.0, "leak")
    }

    fn put(limits: &mut Limits<u8>, at: u64, subject: u8, signal: &'static str, value: f64) {
        limits.observe(Duration::from_secs(at), &Reading { subject, signal, value }).unwrap();
    }

    fn plan(limits: &Limits<u8>, at: u64) -> Vec<(u8, &'static str, Option<&'static str>, usize)> {
        let mut plan = Plan::new();
        RestartBeyondLimits::default().decide(Duration::from_secs(at), limits, &mut plan);
        let row = |candidate: &Candidate<Restart<u8>>| {
            let Candidate { action, diagnosis, evidence, .. } = candidate;
            (action.subject, diagnosis.cause, diagnosis.runner_up.map(|(cause, _)| cause), evidence.len())
        };
        plan.candidates().iter().map(row).collect()
    }

    #[test]
    fn the_severest_limit_names_the_cause_and_the_next_one_is_the_runner_up() {
        let mut limits = limits();
        put(&mut limits, 1, 0, "seconds", 1.0);
        put(&mut limits, 1, 1, "seconds", 9.0);
        put(&mut limits, 1, 2, "seconds", 0.999);
        assert_eq!(plan(&limits, 1), [(0, "slow", None, 1), (1, "hang", Some("slow"), 2)]);
        put(&mut limits, 2, 1, "bytes", 1e6);
        assert_eq!(plan(&limits, 2)[1], (1, "leak", Some("hang"), 3));
        let action = Restart { subject: 1, within: Duration::ZERO };
        assert_eq!(action.badness(&limits), Some(1e4));
        assert_eq!(Restart { subject: 9, within: Duration::ZERO }.badness(&limits), None);
        let mut unhealthy = Vec::new();
        limits.unhealthy(Duration::from_secs(2), &mut |subject| unhealthy.push(*subject));
        assert_eq!(unhealthy, [0, 1]);
        // Readings of 10 s and more say nothing.
        assert_eq!(plan(&limits, 11), [(1, "leak", None, 1)]);
        assert_eq!(plan(&limits.stale_after(Duration::from_secs(1)), 2), [(1, "leak", None, 1)]);
    }

    #[test]
    fn readings_without_a_limit_or_a_usable_value_are_refused() {
        let mut limits = limits().limit("zero", 0.0, "never");
        for (subject, signal, value) in
            [(9, "seconds", 1.0), (0, "other", 1.0), (0, "seconds", f64::NAN), (0, "seconds", -1.0)]
        {
            let before = limits.clone();
            assert!(limits.observe(Duration::ZERO, &Reading { subject, signal, value }).is_err());
            assert_eq!(limits, before);
        }
        put(&mut limits, 0, 0, "zero", 0.0);
        assert_eq!((plan(&limits, 0), limits.badness(&0)), (vec![], None));
    }

    #[cfg(feature = "conformance")]
    #[test]
    fn the_policy_keeps_the_contract() {
        use crate::conformance::{Situation, check};
        let situation = |value, is_healed| Situation {
            readings: vec![(Duration::from_secs(1), Reading { subject: 0, signal: "seconds", value })],
            stale_after: Duration::from_secs(10),
            is_healed,
        };
        // A reading of 1e300 is beyond any limit, and refused.
        check(limits, RestartBeyondLimits::default, &[situation(0.5, false), situation(2.0, true)]).unwrap();
    }
}
