//! Records: what the loop decided and why, as data, text, JSON and canonical bytes.
//!
//! A record stands for itself: everything that [`Record::explain`] says is in its fields, and
//! [`Record::recompute`] repeats the loop's arithmetic on them. [`replay()`] asks another policy what it
//! would have done.
//!
//! # Bytes
//! Version 1: the byte 1, then the fields in their order. Numbers are little-endian; a text is its length (1
//! byte) and its bytes; a list is its length (1 byte) and its items; an absent value is the byte 0, a present
//! one the byte 1 and the value. Equal records have equal bytes.

mod codec;
mod recompute;
mod replay;
mod text;

use std::time::Duration;

pub use self::recompute::{GuardVerdict, Mismatch};
pub(crate) use self::text::EVENTS;

pub use self::replay::{Proposal, Replayed, ReplayedRound, replay};

use crate::action::{Action, Disruption};
use crate::codec::cut;
use crate::knowledge::Knowledge;
use crate::plan::{ALTERNATIVES_MAX, Candidate, EVIDENCE_MAX};

/// A reading that led to a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceRecord {
    /// The signal.
    pub signal: String,
    /// Its value.
    pub value: f64,
    /// The value from which on it counts.
    pub threshold: f64,
    /// The age of the value when the plan was made.
    pub age: Duration,
}

/// Another candidate for the same subject in the same round.
#[derive(Debug, Clone, PartialEq)]
pub struct AlternativeRecord {
    /// The kind of its action.
    pub kind: String,
    /// Its utility, with the penalty of earlier failures.
    pub utility: f64,
}

/// Something that the loop decided or found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A guard refused the candidate.
    Refused {
        /// The guard.
        guard: String,
        /// The reason, in words.
        reason: String,
    },
    /// A shadow policy proposes the candidate.
    Shadow,
    /// Every guard passed, and the loop only records: [`Mode::DryRun`](crate::Mode::DryRun).
    WouldExecute,
    /// Another healer has the action.
    ClaimLost,
    /// The action is being carried out.
    Executing {
        /// The fence of its claim.
        fence: Option<u64>,
    },
    /// The action was carried out; its verdict follows.
    Executed,
    /// The action, or its undoing, was not carried out.
    Failed {
        /// The reason.
        reason: String,
    },
    /// The verdict: it helped.
    Improved {
        /// The badness before.
        before: f64,
        /// The badness after.
        after: f64,
    },
    /// The verdict: it changed nothing.
    NoEffect {
        /// The badness before.
        before: f64,
        /// The badness after.
        after: f64,
    },
    /// The verdict: it made it worse.
    Worse {
        /// The badness before.
        before: f64,
        /// The badness after.
        after: f64,
    },
    /// The action is being taken back.
    Undoing {
        /// The fence of its claim.
        fence: Option<u64>,
    },
    /// The action was taken back.
    Undone,
    /// The subject was handed over to a person.
    Escalated {
        /// The reason.
        reason: String,
    },
}

/// One decision or finding of the loop.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// The number of the record, from 1.
    pub number: u64,
    /// When.
    pub at: Duration,
    /// The round of the loop in which the candidate was proposed, from 1. The spans of the feature `tracing`
    /// carry it too.
    pub round: u64,
    /// The number of the action; 0 where there is none.
    pub action: u64,
    /// The policy, or the source of the advice.
    pub policy: String,
    /// The kind of the action.
    pub kind: String,
    /// The subject, as its `Debug` form.
    pub subject: String,
    /// The cause that the policy saw.
    pub cause: String,
    /// How much the action disturbs its subject.
    pub disruption: Disruption,
    /// The confidence in the cause, from 0 to 1.
    pub confidence: f64,
    /// The next likely cause, with its confidence.
    pub runner_up: Option<(String, f64)>,
    /// The utility that the policy gave.
    pub utility: f64,
    /// The factor on the utility for earlier failures of this kind on this subject: 1 without one.
    pub penalty: f64,
    /// The share by which the badness must fall to count as an improvement, from 0 to 1.
    pub improvement: f64,
    /// The time from the end of the execution to the verdict.
    pub within: Duration,
    /// The readings that led to it.
    pub evidence: Vec<EvidenceRecord>,
    /// The other candidates for the subject, the most useful first.
    pub alternatives: Vec<AlternativeRecord>,
    /// What was decided or found.
    pub event: Event,
}

impl Event {
    fn cut(self) -> Event {
        match self {
            Event::Refused { guard, reason } => Event::Refused { guard: cut(&guard), reason: cut(&reason) },
            Event::Failed { reason } => Event::Failed { reason: cut(&reason) },
            Event::Escalated { reason } => Event::Escalated { reason: cut(&reason) },
            event => event,
        }
    }
}

/// A candidate with what the loop added to it in its round.
#[derive(Debug, Clone)]
pub(crate) struct Ranked<A> {
    /// The policy, or the source of the advice.
    pub(crate) policy: &'static str,
    pub(crate) candidate: Candidate<A>,
    pub(crate) round: u64,
    /// The factor on its utility.
    pub(crate) penalty: f64,
    pub(crate) alternatives: Vec<(&'static str, f64)>,
}

impl<A> Ranked<A> {
    /// A candidate of which nothing else is known.
    pub(crate) fn new(policy: &'static str, candidate: Candidate<A>, round: u64) -> Ranked<A> {
        Ranked { policy, candidate, round, penalty: 1.0, alternatives: Vec::new() }
    }

    /// The utility with its penalty; zero for what is not a number.
    pub(crate) fn utility(&self) -> f64 {
        effective(self.candidate.utility, self.penalty)
    }
}

/// A utility with its penalty; zero for what is not a number.
pub(crate) fn effective(utility: f64, penalty: f64) -> f64 {
    let utility = utility * penalty;
    if utility.is_nan() { 0.0 } else { utility }
}

/// Whether an action helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    Improved,
    NoEffect,
    Worse,
}

/// Compares the badness after an action with that before. NaN stands for a badness that is not known.
pub(crate) fn judge(before: f64, after: f64, improvement: f64) -> Judgement {
    // What is not known is no proof: neither of an improvement nor of damage. Comparisons with NaN are false.
    if after <= before * (1.0 - improvement) {
        Judgement::Improved
    } else if after >= before * (1.0 + improvement) && after > before {
        Judgement::Worse
    } else {
        Judgement::NoEffect
    }
}

impl Record {
    pub(crate) fn new<K: Knowledge, A: Action<K>>(
        number: u64,
        at: Duration,
        action: u64,
        ranked: &Ranked<A>,
        event: Event,
    ) -> Record {
        let candidate = &ranked.candidate;
        let diagnosis = &candidate.diagnosis;
        let expectation = candidate.action.expectation();
        let evidence = candidate.evidence.iter().take(EVIDENCE_MAX).map(|evidence| EvidenceRecord {
            signal: cut(evidence.signal),
            value: evidence.value,
            threshold: evidence.threshold,
            age: evidence.age,
        });
        let alternatives = ranked.alternatives.iter().take(ALTERNATIVES_MAX);
        Record {
            number,
            at,
            round: ranked.round,
            action,
            policy: cut(ranked.policy),
            kind: cut(candidate.action.kind()),
            subject: cut(&format!("{:?}", candidate.action.subject())),
            cause: cut(diagnosis.cause),
            disruption: candidate.action.disruption(),
            confidence: diagnosis.confidence,
            runner_up: diagnosis.runner_up.map(|(cause, confidence)| (cut(cause), confidence)),
            utility: candidate.utility,
            penalty: ranked.penalty,
            improvement: share(expectation.improvement),
            within: expectation.within,
            evidence: evidence.collect(),
            alternatives: alternatives
                .map(|(kind, utility)| AlternativeRecord { kind: cut(kind), utility: *utility })
                .collect(),
            event: event.cut(),
        }
    }
}

/// A share from 0 to 1; what is not a number counts as 1, the hardest expectation.
pub(crate) fn share(improvement: f64) -> f64 {
    if improvement.is_nan() { 1.0 } else { improvement.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests;
