//! What the adapters have in common: the last readings of their subjects, and candidates from evidence.

mod readings;

pub(crate) use self::readings::Readings;
use crate::{Candidate, Diagnosis, Evidence};

/// A candidate whose confidence and utility follow from how far its evidence is beyond the thresholds.
pub(crate) fn candidate<A>(
    action: A,
    cause: &'static str,
    other: &'static str,
    evidence: Vec<Evidence>,
) -> Candidate<A> {
    // At the limit both answers are as likely; far beyond it the limit can hardly be wrong.
    let factor = evidence.iter().map(|one| one.value / one.threshold).fold(0.0, f64::max);
    let confidence = factor / (1.0 + factor);
    let diagnosis = Diagnosis { cause, confidence, runner_up: Some((other, 1.0 - confidence)) };
    Candidate { action, diagnosis, utility: factor, evidence }
}
