//! Replay: what another policy would have done on the evidence of some records.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Record;
use crate::action::Action;
use crate::knowledge::{Knowledge, Reading};
use crate::plan::{Plan, Policy};

/// An action that a policy proposes on the evidence of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The kind of the action.
    pub kind: &'static str,
    /// The subject, as its `Debug` form.
    pub subject: String,
    /// The cause that the policy sees.
    pub cause: &'static str,
    /// The utility that it gives.
    pub utility: f64,
}

/// A round of the loop, as the records have it, beside what the other policy proposes in it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayedRound {
    /// The time of the records.
    pub at: Duration,
    /// The places of its records in the list that was replayed.
    pub records: Vec<usize>,
    /// What the policy proposes, the most useful first.
    pub proposals: Vec<Proposal>,
}

impl ReplayedRound {
    /// Whether the policy's first choice is the kind and subject of `record`.
    #[must_use]
    pub fn agrees(&self, record: &Record) -> bool {
        let first = self.proposals.first();
        first.is_some_and(|first| first.kind == record.kind && first.subject == record.subject)
    }
}

/// The result of a [`replay()`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Replayed {
    /// The rounds, in the order of time.
    pub rounds: Vec<ReplayedRound>,
    /// Readings of the evidence that were not used: an unknown subject or signal, or refused by the
    /// knowledge.
    pub left_out: usize,
}

/// Asks `policy` what it would have proposed on the evidence of `records`.
///
/// `knowledge` is fresh. The evidence of all records is fed to it in the order of its time, each reading
/// once, and the policy is asked at the time of each record. `subject` returns the subject of a text of
/// [`Record::subject`], and `signals` are the names of the signals. A record holds the readings that led to
/// its candidate, not all readings: a policy that looks at other signals sees less than it would have seen.
pub fn replay<K: Knowledge, A: Action<K>>(
    records: &[Record],
    mut knowledge: K,
    policy: &mut dyn Policy<K, A>,
    subject: impl Fn(&str) -> Option<K::Subject>,
    signals: &[&'static str],
) -> Replayed {
    let mut replayed = Replayed::default();
    let mut rounds: BTreeMap<Duration, Vec<usize>> = BTreeMap::new();
    let mut readings: BTreeMap<(Duration, K::Subject, &'static str), f64> = BTreeMap::new();
    for (place, record) in records.iter().enumerate() {
        rounds.entry(record.at).or_default().push(place);
        let of = subject(&record.subject);
        for evidence in &record.evidence {
            let signal = signals.iter().find(|signal| **signal == evidence.signal);
            let (Some(of), Some(signal)) = (&of, signal) else {
                replayed.left_out += 1;
                continue;
            };
            let at = record.at.saturating_sub(evidence.age);
            readings.insert((at, of.clone(), signal), evidence.value);
        }
    }
    let mut readings = readings.into_iter().peekable();
    for (at, records) in rounds {
        while let Some(((time, subject, signal), value)) = readings.next_if(|((time, ..), _)| *time <= at) {
            if knowledge.observe(time, &Reading { subject, signal, value }).is_err() {
                replayed.left_out += 1;
            }
        }
        let mut plan = Plan::new();
        policy.decide(at, &knowledge, &mut plan);
        let mut proposals: Vec<Proposal> = plan
            .candidates()
            .iter()
            .map(|candidate| Proposal {
                kind: candidate.action.kind(),
                subject: format!("{:?}", candidate.action.subject()),
                cause: candidate.diagnosis.cause,
                utility: candidate.utility,
            })
            .collect();
        proposals.sort_by(|one, other| other.utility.total_cmp(&one.utility));
        replayed.rounds.push(ReplayedRound { at, records, proposals });
    }
    replayed
}
