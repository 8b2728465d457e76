//! The loop's arithmetic, repeated on a record alone.

use super::{Event, Judgement, Record, effective, judge};
use crate::action::Disruption;
use crate::guard::{DISRUPTION_GUARDS, GUARDS};

/// A number or verdict of a record does not follow from its other fields.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The verdict does not follow from the badness before and after.
    #[error(
        "record {number} says {event}, which does not follow from {before} before, {after} after and a share of {improvement}: it is damaged or forged"
    )]
    Verdict {
        /// The record.
        number: u64,
        /// What it says.
        event: &'static str,
        /// The badness before.
        before: f64,
        /// The badness after.
        after: f64,
        /// The share that was expected.
        improvement: f64,
    },
    /// An action was begun although its utility is not positive.
    #[error("record {number} begins an action with the utility {utility}: it is damaged or forged")]
    Utility {
        /// The record.
        number: u64,
        /// The utility with its penalty.
        utility: f64,
    },
    /// A share is outside of 0 to 1.
    #[error("record {number} has the {field} {value}, outside of 0 to 1: it is damaged or forged")]
    Share {
        /// The record.
        number: u64,
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// The guard that refused is none of the loop's, or is not asked for such an action.
    #[error(
        "record {number} names the guard {guard}, which does not judge such an action: it is damaged or forged"
    )]
    Guard {
        /// The record.
        number: u64,
        /// The guard.
        guard: String,
    },
}

/// What a guard decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardVerdict {
    /// The guard had no objection.
    Passed,
    /// The guard refused the candidate.
    Refused,
    /// Another guard had refused the candidate before.
    NotAsked,
}

impl Record {
    /// The guards of such an action, in the order in which the loop asks them.
    fn asked(&self) -> impl Iterator<Item = &'static str> + use<> {
        let is_disruptive = self.disruption > Disruption::None;
        GUARDS.into_iter().filter(move |guard| is_disruptive || !DISRUPTION_GUARDS.contains(guard))
    }

    /// The verdict of each guard, in the order in which the loop asks them. None for a shadow's proposal.
    #[must_use]
    pub fn guards(&self) -> Vec<(&'static str, GuardVerdict)> {
        let refused_by = match &self.event {
            Event::Shadow => return Vec::new(),
            Event::Refused { guard, .. } => Some(guard.as_str()),
            _ => None,
        };
        let mut verdict = GuardVerdict::Passed;
        let judge = |guard| {
            if verdict == GuardVerdict::Refused {
                verdict = GuardVerdict::NotAsked;
            } else if Some(guard) == refused_by {
                verdict = GuardVerdict::Refused;
            }
            (guard, verdict)
        };
        self.asked().map(judge).collect()
    }

    /// Repeats the loop's arithmetic on the fields of the record: the verdict from the badness before and
    /// after, the utility with its penalty, the shares, and the guard that refused.
    ///
    /// # Errors
    /// The first number or verdict that does not follow. The loop makes no such record, as long as its policy
    /// gives confidences from 0 to 1 (the suite of the feature `conformance` checks it).
    pub fn recompute(&self) -> Result<(), Mismatch> {
        let number = self.number;
        let runner_up = self.runner_up.as_ref().map_or(0.0, |(_, confidence)| *confidence);
        for (field, value) in [
            ("confidence", self.confidence),
            ("confidence of the next likely cause", runner_up),
            ("penalty", self.penalty),
            ("expected improvement", self.improvement),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Mismatch::Share { number, field, value });
            }
        }
        let expect = |expected, before: f64, after: f64| {
            let improvement = self.improvement;
            if judge(before, after, improvement) == expected {
                return Ok(());
            }
            Err(Mismatch::Verdict { number, event: self.event.name(), before, after, improvement })
        };
        match &self.event {
            Event::Improved { before, after } => expect(Judgement::Improved, *before, *after)?,
            Event::NoEffect { before, after } => expect(Judgement::NoEffect, *before, *after)?,
            Event::Worse { before, after } => expect(Judgement::Worse, *before, *after)?,
            Event::Refused { guard, .. } if !self.asked().any(|asked| asked == guard) => {
                return Err(Mismatch::Guard { number, guard: guard.clone() });
            }
            _ => {}
        }
        let utility = effective(self.utility, self.penalty);
        if self.action > 0 && utility <= 0.0 {
            return Err(Mismatch::Utility { number, utility });
        }
        Ok(())
    }
}
