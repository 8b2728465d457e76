//! Records: what the loop decided and why, as data, text, JSON and canonical bytes.
//!
//! A record stands for itself: everything that [`Record::explain`] says is in its fields.
//!
//! # Bytes
//! Version 1: the byte 1, then the fields in their order. Numbers are little-endian; a text is its length (1
//! byte) and its bytes; a list is its length (1 byte) and its items; an absent value is the byte 0, a present
//! one the byte 1 and the value. Equal records have equal bytes.

mod codec;
mod text;

use std::time::Duration;

pub use self::codec::RecordDecodeError;

use crate::plan::{Candidate, EVIDENCE_MAX};

/// The longest text of a record, in bytes; longer ones are cut.
pub const TEXT_LEN_MAX: usize = 200;

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
    /// The confidence in it, from 0 to 1.
    pub confidence: f64,
    /// The next likely cause, with its confidence.
    pub runner_up: Option<(String, f64)>,
    /// The utility that the policy gave.
    pub utility: f64,
    /// The readings that led to it.
    pub evidence: Vec<EvidenceRecord>,
    /// What was decided or found.
    pub event: Event,
}

/// At most [`TEXT_LEN_MAX`] bytes of a text.
fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
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

impl Record {
    #[expect(clippy::too_many_arguments, reason = "private: the loop has them apart")]
    pub(crate) fn new<A>(
        number: u64,
        at: Duration,
        action: u64,
        policy: &str,
        kind: &str,
        subject: &str,
        candidate: &Candidate<A>,
        event: Event,
    ) -> Record {
        let diagnosis = &candidate.diagnosis;
        let evidence = candidate.evidence.iter().take(EVIDENCE_MAX).map(|evidence| EvidenceRecord {
            signal: cut(evidence.signal),
            value: evidence.value,
            threshold: evidence.threshold,
            age: evidence.age,
        });
        Record {
            number,
            at,
            action,
            policy: cut(policy),
            kind: cut(kind),
            subject: cut(subject),
            cause: cut(diagnosis.cause),
            confidence: diagnosis.confidence,
            runner_up: diagnosis.runner_up.map(|(cause, confidence)| (cut(cause), confidence)),
            utility: candidate.utility,
            evidence: evidence.collect(),
            event: event.cut(),
        }
    }
}

#[cfg(test)]
mod tests;
