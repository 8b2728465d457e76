//! Plans and the policies that make them.

use std::time::Duration;

/// The most candidates of a plan, and the most escalations.
pub const CANDIDATES_MAX: usize = 64;
/// The most pieces of evidence of a candidate.
pub const EVIDENCE_MAX: usize = 16;
/// The most other candidates for the same subject that a record names.
pub const ALTERNATIVES_MAX: usize = 8;
/// The cause of a diagnosis that found none. Nothing is done for it: the loop hands the subject to a person.
pub const UNKNOWN_CAUSE: &str = "unknown";

/// A reading that led to a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// The signal.
    pub signal: &'static str,
    /// Its value.
    pub value: f64,
    /// The value from which on it counts.
    pub threshold: f64,
    /// The age of the value when the plan was made.
    pub age: Duration,
}

/// The cause that a policy sees behind the readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diagnosis {
    /// The cause, such as `slow-disk`; [`UNKNOWN_CAUSE`] leads to an escalation and never to an action.
    pub cause: &'static str,
    /// The confidence in it, from 0 to 1.
    pub confidence: f64,
    /// The next likely cause, with its confidence.
    pub runner_up: Option<(&'static str, f64)>,
}

/// An action that a policy proposes.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate<A> {
    /// The action.
    pub action: A,
    /// Why.
    pub diagnosis: Diagnosis,
    /// How useful the action is beside others; candidates are tried from the highest to the lowest. One that
    /// is not positive is never carried out.
    pub utility: f64,
    /// The readings that led to it; those beyond [`EVIDENCE_MAX`] are left out.
    pub evidence: Vec<Evidence>,
}

/// What a policy proposes in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<A> {
    candidates: Vec<Candidate<A>>,
    left_out: usize,
}

impl<A> Default for Plan<A> {
    fn default() -> Plan<A> {
        Plan { candidates: Vec::new(), left_out: 0 }
    }
}

impl<A> Plan<A> {
    /// An empty plan.
    #[must_use]
    pub fn new() -> Plan<A> {
        Plan::default()
    }

    /// Proposes an action. Beyond [`CANDIDATES_MAX`] it is left out and counted.
    pub fn propose(&mut self, mut candidate: Candidate<A>) {
        if self.candidates.len() == CANDIDATES_MAX {
            self.left_out += 1;
            return;
        }
        candidate.evidence.truncate(EVIDENCE_MAX);
        self.candidates.push(candidate);
    }

    /// The candidates, in the order in which they were proposed.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate<A>] {
        &self.candidates
    }

    /// How many candidates were left out.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    pub(crate) fn into_candidates(self) -> Vec<Candidate<A>> {
        self.candidates
    }
}

/// A healing policy: it proposes, guards decide, executors act.
///
/// # Contract
/// A policy is pure: `decide` depends on `now`, the knowledge and what it decided before, on nothing else. It
/// performs no I/O and does not block. It proposes nothing on empty or stale knowledge.
pub trait Policy<K: ?Sized, A>: Send {
    /// The name of the policy, for records.
    fn name(&self) -> &'static str;

    /// Adds candidates to `plan`.
    fn decide(&mut self, now: Duration, knowledge: &K, plan: &mut Plan<A>);
}
