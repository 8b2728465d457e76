//! A suite that every [`Policy`] must pass: it is pure and bounded, and proposes nothing without evidence.
//!
//! The owner of the policy describes a few situations; the suite builds them, asks fresh policies, and
//! compares.
//!
//! ```
//! use std::time::Duration;
//! use x0_mapek::conformance::{Situation, check};
//! # use x0_mapek::detect::ReadingError;
//! # use x0_mapek::*;
//! # struct Load(Option<(f64, Duration)>);
//! # impl Knowledge for Load {
//! #     type Subject = u8;
//! #     fn observe(&mut self, now: Duration, reading: &Reading<u8>) -> Result<(), ReadingError> {
//! #         if !(0.0..=1000.0).contains(&reading.value) {
//! #             return Err(ReadingError::OutOfRange { value: reading.value });
//! #         }
//! #         self.0 = Some((reading.value, now));
//! #         Ok(())
//! #     }
//! #     fn subject_count(&self) -> usize { 1 }
//! #     fn unhealthy(&self, _: Duration, _: &mut dyn FnMut(&u8)) {}
//! # }
//! # #[derive(Debug, Clone)]
//! # struct Shed;
//! # impl Action<Load> for Shed {
//! #     fn kind(&self) -> &'static str { "shed" }
//! #     fn subject(&self) -> &u8 { &0 }
//! #     fn disruption(&self) -> Disruption { Disruption::Brief }
//! #     fn badness(&self, load: &Load) -> Option<f64> { load.0.map(|(value, _)| value) }
//! #     fn expectation(&self) -> Expectation {
//! #         Expectation { within: Duration::from_secs(1), improvement: 0.5 }
//! #     }
//! # }
//! # struct ShedLoad;
//! # impl Policy<Load, Shed> for ShedLoad {
//! #     fn name(&self) -> &'static str { "shed-load" }
//! #     fn decide(&mut self, now: Duration, load: &Load, plan: &mut Plan<Shed>) {
//! #         if let Some((value, at)) = load.0.filter(|(value, _)| *value > 10.0)
//! #             && now - at < Duration::from_secs(10)
//! #         {
//! #             let diagnosis = Diagnosis { cause: "overload", confidence: 1.0, runner_up: None };
//! #             plan.propose(Candidate { action: Shed, diagnosis, utility: value, evidence: vec![] });
//! #         }
//! #     }
//! # }
//! let overload = Situation {
//!     readings: vec![(Duration::from_secs(1), Reading { subject: 0, signal: "load", value: 99.0 })],
//!     stale_after: Duration::from_secs(60),
//!     is_healed: true,
//! };
//! check(|| Load(None), || ShedLoad, &[overload])?;
//! # Ok::<(), x0_mapek::conformance::Violation>(())
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use crate::action::Action;
use crate::knowledge::{Knowledge, Reading};
use crate::plan::{CANDIDATES_MAX, Plan, Policy};

/// Values that no sane signal has, besides those that are not finite.
const ABSURD: [f64; 6] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e99, -1e99, f64::MIN_POSITIVE];

/// Readings, and whether a policy should propose something after them.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation<S> {
    /// The readings with their times, in order.
    pub readings: Vec<(Duration, Reading<S>)>,
    /// The age from which on the last readings are no evidence any more.
    pub stale_after: Duration,
    /// Whether the policy proposes at least one action right after the last reading; otherwise it proposes
    /// none.
    pub is_healed: bool,
}

/// A policy broke a rule of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Two fresh policies decided differently on equal knowledge.
    #[error(
        "{policy} is not pure: on the readings of situation {situation} it proposed {one}, and then {other}"
    )]
    NotPure {
        /// The policy.
        policy: &'static str,
        /// The place of the situation.
        situation: usize,
        /// One plan.
        one: String,
        /// The other plan.
        other: String,
    },
    /// A plan had more candidates than it may have.
    #[error(
        "{policy} proposed more than {CANDIDATES_MAX} candidates in situation {situation}: choose before proposing"
    )]
    TooMany {
        /// The policy.
        policy: &'static str,
        /// The place of the situation.
        situation: usize,
    },
    /// A candidate had a utility or confidence that is not a number, or a confidence outside of 0 to 1.
    #[error(
        "{policy} proposed a candidate with a utility or confidence that is no usable number: {candidate}"
    )]
    NotANumber {
        /// The policy.
        policy: &'static str,
        /// The candidate.
        candidate: String,
    },
    /// The policy proposed actions without evidence.
    #[error("{policy} proposed {plan} {when}: propose nothing without fresh, plausible evidence")]
    WithoutEvidence {
        /// The policy.
        policy: &'static str,
        /// What was missing.
        when: &'static str,
        /// The plan.
        plan: String,
    },
    /// The policy did not propose what the situation is for.
    #[error("{policy} proposed {plan} in situation {situation}, where {expected} was expected")]
    Unexpected {
        /// The policy.
        policy: &'static str,
        /// The place of the situation.
        situation: usize,
        /// The plan.
        plan: String,
        /// What the situation says.
        expected: &'static str,
    },
}

/// The actions of a plan, for comparison and messages.
fn names<K: Knowledge, A: Action<K>>(plan: &Plan<A>) -> String {
    let mut names = String::new();
    for candidate in plan.candidates() {
        let _ = write!(names, "{}{:?}", if names.is_empty() { "" } else { ", " }, candidate.action);
        let _ = write!(names, " ({}, {})", candidate.diagnosis.cause, candidate.utility);
    }
    if names.is_empty() { "nothing".to_owned() } else { names }
}

/// Checks a policy in each situation. `knowledge` and `policy` make fresh ones.
///
/// # Errors
/// The first rule that the policy broke.
pub fn check<K: Knowledge, A: Action<K>, P: Policy<K, A>>(
    knowledge: impl Fn() -> K,
    policy: impl Fn() -> P,
    situations: &[Situation<K::Subject>],
) -> Result<(), Violation> {
    let name = policy().name();
    let decide = |now: Duration, knowledge: &K| {
        let mut plan = Plan::new();
        policy().decide(now, knowledge, &mut plan);
        plan
    };
    let nothing = |when, plan: Plan<A>| {
        if plan.candidates().is_empty() {
            return Ok(());
        }
        Err(Violation::WithoutEvidence { policy: name, when, plan: names::<K, A>(&plan) })
    };
    nothing("before the first reading", decide(Duration::ZERO, &knowledge()))?;
    for (place, situation) in situations.iter().enumerate() {
        let build = || {
            let mut built = knowledge();
            for (now, reading) in &situation.readings {
                // A reading that the knowledge refuses is part of the situation.
                let _ = built.observe(*now, reading);
            }
            built
        };
        let now = situation.readings.last().map_or(Duration::ZERO, |(now, _)| *now);
        let plan = decide(now, &build());
        let (one, other) = (names::<K, A>(&plan), names::<K, A>(&decide(now, &build())));
        if one != other {
            return Err(Violation::NotPure { policy: name, situation: place, one, other });
        }
        if plan.left_out() > 0 {
            return Err(Violation::TooMany { policy: name, situation: place });
        }
        for candidate in plan.candidates() {
            let confidence = candidate.diagnosis.confidence;
            if candidate.utility.is_nan() || !(0.0..=1.0).contains(&confidence) {
                let candidate = format!("{:?}, {}, {confidence}", candidate.action, candidate.utility);
                return Err(Violation::NotANumber { policy: name, candidate });
            }
        }
        if plan.candidates().is_empty() == situation.is_healed {
            let expected = if situation.is_healed { "an action" } else { "nothing" };
            return Err(Violation::Unexpected { policy: name, situation: place, plan: one, expected });
        }
        nothing("on stale readings", decide(now.saturating_add(situation.stale_after), &build()))?;
        for value in ABSURD {
            let mut absurd = knowledge();
            for (now, reading) in &situation.readings {
                let _ = absurd.observe(*now, &Reading { value, ..reading.clone() });
            }
            nothing("on absurd readings", decide(now, &absurd))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Disruption, Expectation};
    use crate::detect::ReadingError;
    use crate::plan::{Candidate, Diagnosis};

    struct Load {
        value: Option<(f64, Duration)>,
        is_careful: bool,
    }

    impl Knowledge for Load {
        type Subject = u8;

        fn observe(&mut self, now: Duration, reading: &Reading<u8>) -> Result<(), ReadingError> {
            if self.is_careful && !(1e-6..=1000.0).contains(&reading.value) {
                return Err(ReadingError::OutOfRange { value: reading.value });
            }
            self.value = Some((reading.value, now));
            Ok(())
        }

        fn subject_count(&self) -> usize {
            1
        }

        fn unhealthy(&self, _: Duration, _: &mut dyn FnMut(&u8)) {}
    }

    #[derive(Debug, Clone)]
    #[expect(dead_code, reason = "the suite compares its Debug form")]
    struct Shed(u64);

    impl Action<Load> for Shed {
        fn kind(&self) -> &'static str {
            "shed"
        }

        fn subject(&self) -> &u8 {
            &0
        }

        fn disruption(&self) -> Disruption {
            Disruption::Brief
        }

        fn badness(&self, load: &Load) -> Option<f64> {
            load.value.map(|(value, _)| value)
        }

        fn expectation(&self) -> Expectation {
            Expectation { within: Duration::from_secs(1), improvement: 0.5 }
        }
    }

    /// What a policy does wrong.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Fault {
        Nothing,
        Eager,
        Stale,
        Impure,
        Many,
        NoNumber,
        Blind,
    }

    struct ShedLoad(Fault, u64);

    impl Policy<Load, Shed> for ShedLoad {
        fn name(&self) -> &'static str {
            "shed-load"
        }

        fn decide(&mut self, now: Duration, load: &Load, plan: &mut Plan<Shed>) {
            let is_fresh = |at: Duration| now - at < Duration::from_secs(10) || self.0 == Fault::Stale;
            let is_high = load.value.is_some_and(|(value, at)| value > 10.0 && is_fresh(at));
            if (is_high && self.0 != Fault::Blind) || self.0 == Fault::Eager {
                for _ in 0..if self.0 == Fault::Many { 65 } else { 1 } {
                    let utility = if self.0 == Fault::NoNumber { f64::NAN } else { 1.0 };
                    let diagnosis = Diagnosis { cause: "overload", confidence: 1.0, runner_up: None };
                    let action = Shed(if self.0 == Fault::Impure { self.1 } else { 0 });
                    plan.propose(Candidate { action, diagnosis, utility, evidence: vec![] });
                }
            }
        }
    }

    fn found(fault: Fault, is_careful: bool) -> Result<(), Violation> {
        let situation = |value, is_healed| Situation {
            readings: vec![(Duration::from_secs(1), Reading { subject: 0, signal: "load", value })],
            stale_after: Duration::from_secs(60),
            is_healed,
        };
        let made = std::cell::Cell::new(0);
        let policy = || {
            made.set(made.get() + 1);
            ShedLoad(fault, made.get())
        };
        check(|| Load { value: None, is_careful }, policy, &[situation(1.0, false), situation(99.0, true)])
    }

    #[test]
    fn each_broken_rule_is_found_and_a_good_policy_passes() {
        assert_eq!(found(Fault::Nothing, true), Ok(()));
        let without = |result, expect: &str| match result {
            Err(Violation::WithoutEvidence { when, .. }) => assert_eq!(when, expect),
            other => panic!("{other:?}"),
        };
        without(found(Fault::Eager, true), "before the first reading");
        without(found(Fault::Stale, true), "on stale readings");
        without(found(Fault::Nothing, false), "on absurd readings");
        assert!(matches!(found(Fault::Impure, true), Err(Violation::NotPure { situation: 1, .. })));
        assert!(matches!(found(Fault::Many, true), Err(Violation::TooMany { .. })));
        assert!(matches!(found(Fault::NoNumber, true), Err(Violation::NotANumber { .. })));
        let message = found(Fault::Blind, true).unwrap_err().to_string();
        assert_eq!(message, "shed-load proposed nothing in situation 1, where an action was expected");
    }
}
